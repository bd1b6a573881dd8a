"""Entries and parcels as they travel: small things together in one request, a large value alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleche._util import batched
from fleche.call import CallEntry, decode_record, encode_record
from fleche.digest import Address, Digest
from fleche.parcel import Buffer, Parcel
from fleche.remote import _messages as m
from fleche.remote._protocol import MESSAGE_LIMIT

if TYPE_CHECKING:
    from fleche.remote._connection import Upload

__all__ = [
    "BATCH",
    "Outgoing",
    "batches",
    "entry_groups",
    "entry_size",
    "from_wire",
    "parcel_requests",
    "to_wire",
]

BATCH = 4096
"""How many digests one request names at most."""

SMALL = 1 << 16
GROUP = 1 << 19
GROUPED = 1000

_AROUND = 1 << 10
"""Bytes of a request beside its only entry, at most."""


def batches(digests: Iterable[str]) -> Iterator[list[str]]:
    """Yield digests as plain text, as many as one request names at most."""
    return batched(map(str, digests), BATCH)


@dataclass
class Outgoing:
    """A request to be sent, with what follows it.

    Attributes:
        message: the request.
        upload: returns the bytes that follow it, anew each time.
        nbytes: how many these are.
        close: called when it is done, or given up.
        follows: whether it is sent only when all that were sent before it are done.
    """

    message: m.Request
    upload: Upload | None = None
    nbytes: int = 0
    close: Callable[[], None] = lambda: None
    follows: bool = False


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
    return str.__new__(Digest, wire.key), CallEntry(decode_record(wire.record), parcels)


def parcel_requests(parcels: Iterable[tuple[Address, Parcel]]) -> Iterator[Outgoing]:
    """Yield the requests that store ``parcels``: a large one alone, small ones together.

    Those that may be under way at once are stored in any order. So values that refer to buffers
    come after the buffers before them, in a request that follows all others.
    """
    plain, referring = _Group(follows=False), _Group(follows=True)
    for address, parcel in parcels:
        group = referring if parcel.references else plain
        if parcel.nbytes > SMALL:
            if group.follows:
                yield from plain.take()
            request = m.Save(parcels=[(str(address), parcel.nbytes)])
            yield Outgoing(request, parcel.chunks, parcel.nbytes, parcel.close, group.follows)
            continue
        data = parcel.tobytes()
        parcel.close()
        if group.is_full(data):
            if group.follows:
                yield from plain.take()
            yield from group.take()
        group.add(address, data)
    yield from plain.take()
    yield from referring.take()


class _Group:
    """Small parcels that travel together."""

    def __init__(self, *, follows: bool) -> None:
        self.follows = follows
        self._parcels: list[tuple[str, bytes]] = []
        self._size = 0

    def is_full(self, data: bytes) -> bool:
        """Return whether ``data`` must wait for the next request."""
        return self._size + len(data) > GROUP or len(self._parcels) >= GROUPED

    def add(self, address: Address, data: bytes) -> None:
        self._parcels.append((str(address), data))
        self._size += len(data)

    def take(self) -> Iterator[Outgoing]:
        """Yield the request for what has been added, if anything has, and begin anew."""
        if self._parcels:
            joined = b"".join(data for _, data in self._parcels)
            sizes = [(at, len(data)) for at, data in self._parcels]
            self._parcels, self._size = [], 0
            request = m.Save(parcels=sizes)
            yield Outgoing(request, lambda: [joined], len(joined), follows=self.follows)


def entry_groups(
    entries: Mapping[Digest, CallEntry],
) -> tuple[list[list[m.WireEntry]], str]:
    """Return ``entries`` as they travel, and why some of them do not.

    Returns:
        Groups that each fit a frame or are one entry; at least one. And what is to be said of those
        entries that are too long to be sent, or nothing.
    """
    wire = [to_wire(key, entry) for key, entry in entries.items()]
    long = {each.key for each in wire if entry_size(each) > MESSAGE_LIMIT - _AROUND}
    why = ""
    if long:
        names = ", ".join(f"{entries[Digest(key)].record.name} ({key[:12]})" for key in long)
        most = max(entry_size(each) for each in wire)
        why = (
            f"not stored: {names}: a record of {most} bytes is too long for a remote cache, "
            f"{MESSAGE_LIMIT} is the most: arguments and results may be as large as they like, "
            "metadata may not"
        )
    return list(_grouped(each for each in wire if each.key not in long)) or [[]], why


def entry_size(entry: m.WireEntry) -> int:
    """Return about how many bytes of a message an entry takes."""
    return len(entry.record) + sum(map(len, entry.parcels.values()))


def _grouped(entries: Iterable[m.WireEntry]) -> Iterator[list[m.WireEntry]]:
    """Yield entries in groups that each fit well into a frame."""
    group: list[m.WireEntry] = []
    size = 0
    for entry in entries:
        more = entry_size(entry)
        if group and (size + more > GROUP or len(group) >= GROUPED):
            yield group
            group, size = [], 0
        group.append(entry)
        size += more
    if group:
        yield group
