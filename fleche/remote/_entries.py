"""Entries and parcels as they travel: small things together in one request, a large value alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from fleche._util import batched
from fleche.call import CallEntry, decode_record, encode_record
from fleche.digest import Address, Digest
from fleche.parcel import Buffer, Parcel
from fleche.remote import _messages as m
from fleche.remote._connection import Outgoing

__all__ = ["BATCH", "batches", "entry_groups", "from_wire", "parcel_requests", "to_wire"]

BATCH = 4096
"""How many digests one request names at most."""

SMALL = 1 << 16
GROUP = 1 << 19
GROUPED = 1000

T = TypeVar("T")


def batches(digests: Iterable[str]) -> Iterator[list[str]]:
    """Yield digests as plain text, as many as one request names at most."""
    return batched(map(str, digests), BATCH)


def to_wire(key: Digest, entry: CallEntry) -> m.WireEntry:
    """Return an entry as it travels."""
    parcels = {str(at): bytes(data) for at, data in entry.parcels.items()}
    return m.WireEntry(str(key), encode_record(entry.record), parcels)


def from_wire(wire: m.WireEntry) -> tuple[Digest, CallEntry]:
    """Return the key and the entry that :func:`to_wire` wrote.

    Raises:
        CorruptParcel: its record is none.
    """
    parcels: dict[Address, Buffer] = {
        str.__new__(Address, at): data for at, data in wire.parcels.items()
    }
    return Digest(wire.key), CallEntry(decode_record(wire.record), parcels)


def parcel_requests(parcels: Iterable[tuple[Address, Parcel]]) -> Iterator[Outgoing]:
    """Yield the requests that store ``parcels``: a large one alone, small ones together."""

    def small() -> Iterator[tuple[str, bytes]]:
        for address, parcel in parcels:
            if parcel.nbytes > SMALL:
                large.append((address, parcel))
                return
            yield str(address), parcel.tobytes()
            parcel.close()

    large: list[tuple[Address, Parcel]] = []
    parcels = iter(parcels)
    while True:
        for group in _grouped(small(), lambda item: len(item[1])):
            joined = b"".join(data for _, data in group)
            sizes = [(at, len(data)) for at, data in group]
            yield Outgoing(m.Save(parcels=sizes), partial(_alone, joined), len(joined))
        if not large:
            return
        address, parcel = large.pop()
        request = m.Save(parcels=[(str(address), parcel.nbytes)])
        yield Outgoing(request, parcel.chunks, parcel.nbytes, parcel.close)


def _alone(data: bytes) -> list[Buffer]:
    return [data]


def entry_groups(entries: Mapping[Digest, CallEntry]) -> list[list[m.WireEntry]]:
    """Return ``entries`` as they travel, in groups that each fit a frame; at least one."""
    wire = (to_wire(key, entry) for key, entry in entries.items())
    return list(_grouped(wire, _size)) or [[]]


def _size(entry: m.WireEntry) -> int:
    return len(entry.record) + sum(map(len, entry.parcels.values()))


def _grouped(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield items in groups that each fit well into a frame."""
    group: list[T] = []
    size = 0
    for item in items:
        if group and (size + size_of(item) > GROUP or len(group) >= GROUPED):
            yield group
            group, size = [], 0
        group.append(item)
        size += size_of(item)
    if group:
        yield group
