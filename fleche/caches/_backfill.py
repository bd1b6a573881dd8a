"""Giving a nearer cache what a value needs to be stored there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from fleche.call import CallRecord, Scalar
from fleche.digest import Digest, digest
from fleche.parcel import Packing, Parcel, inline, verify

__all__ = ["made_storable", "plain_arguments"]


def plain_arguments(record: CallRecord) -> dict[Digest, Scalar]:
    """Return by their digest the arguments that ``record`` holds in the clear, and truly."""
    plain = {record.arguments[name]: value for name, value in record.literals.items()}
    return {key: value for key, value in plain.items() if digest(value) == key}


class _Source(Protocol):
    packing: Packing

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]: ...


class _Nearer(Protocol):
    packing: Packing

    @property
    def opens_parcels(self) -> bool: ...
    def missing(self, digests: Iterable[Digest]) -> list[Digest]: ...
    def save_parcel(self, digest: Digest, parcel: Parcel) -> None: ...
    def drop(self, key: Digest) -> None: ...


@contextmanager
def made_storable(
    source: _Source, nearer: _Nearer, parcel: Parcel, damaged: set[Digest]
) -> Iterator[Parcel]:
    """Give ``parcel`` as it can be stored in ``nearer``, after storing what it refers to.

    Args:
        source: has the buffers.
        nearer: takes them; or takes values apart, and gets them inside the parcel.
        parcel: stays open.
        damaged: what must not be used in ``nearer``; what was replaced is taken out.

    Raises:
        KeyError: a buffer is nowhere.
        ParcelError: a buffer that was to replace a damaged one is damaged too.
    """
    needed = parcel.references
    if not needed:
        yield parcel
    elif nearer.opens_parcels:
        buffers: dict[Digest, Parcel] = {}
        try:
            buffers.update(source.load_parcels(needed))
            _check_found(needed, buffers)
            yield inline(parcel, buffers, nearer.packing.keys)
        finally:
            for buffer in buffers.values():
                buffer.close()
    else:
        _copy_buffers(source, nearer, needed, damaged)
        yield parcel


def _copy_buffers(
    source: _Source, nearer: _Nearer, needed: Iterable[Digest], damaged: set[Digest]
) -> None:
    unusable = damaged.intersection(needed)
    wanted = [*unusable, *nearer.missing([key for key in needed if key not in unusable])]
    found = set()
    for key, buffer in source.load_parcels(wanted) if wanted else ():
        try:
            if key in unusable:
                verify(buffer, digest=key, keys=source.packing.keys)
                nearer.drop(key)
            nearer.save_parcel(key, buffer)
        finally:
            buffer.close()
        damaged.discard(key)
        found.add(key)
    _check_found(wanted, found)


def _check_found(wanted: Iterable[Digest], found: Iterable[Digest]) -> None:
    gone = set(wanted).difference(found)
    if gone:
        raise KeyError(gone.pop())
