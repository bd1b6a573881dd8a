"""Copying calls from cache to cache, as parcels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fleche.call import CallRecord, LazyCall
from fleche.digest import Digest
from fleche.parcel import Packing, Parcel, inline

__all__ = ["Side", "copy_call", "transfer"]

log = logging.getLogger("fleche.caches")

_BATCH = 1024
_HELD = 1 << 16
"""Up to this size, a parcel that waits for its buffers is kept in memory."""


class Side(Protocol):
    """What a transfer needs of either cache."""

    packing: Packing

    @property
    def opens_parcels(self) -> bool: ...
    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]: ...
    def save_parcels(self, parcels: Iterable[tuple[Digest, Parcel]]) -> None: ...
    def save_records(self, records: Mapping[Digest, CallRecord]) -> None: ...
    def missing(self, digests: Iterable[Digest]) -> list[Digest]: ...
    def contains_many(self, keys: Iterable[Digest]) -> list[bool]: ...
    def count(self, event: str, number: int = 1) -> None: ...


def transfer(
    source: Side,
    target: Side,
    calls: Iterable[LazyCall],
    progress: Callable[[int], None] | None,
) -> int:
    """Copy those of ``calls`` that ``target`` lacks; return how many.

    Buffers go before the values that refer to them, and values before the records that stand on
    them, in batches: whenever it is interrupted, what has arrived is whole, and need not be sent
    again.
    """
    copied = 0
    for batch in _batches(calls):
        there = target.contains_many([call.key for call in batch])
        lacking = itertools.compress(batch, (not known for known in there))
        records = {call.key: call.record for call in lacking}
        copied += len(_copy(source, target, records))
        if progress is not None and records:
            progress(copied)
    return copied


def copy_call(source: Side, target: Side, key: Digest, record: CallRecord) -> None:
    """Copy one record and those of its values that ``target`` lacks and ``source`` has.

    Raises:
        KeyError: the result is not in ``source``.
    """
    if not _copy(source, target, {key: record}):
        raise KeyError(record.result)


def _copy(
    source: Side, target: Side, records: Mapping[Digest, CallRecord]
) -> dict[Digest, CallRecord]:
    """Copy records and the values that ``target`` lacks; return the records that were copied."""
    values = dict.fromkeys(value for record in records.values() for value in record.digests())
    absent = _copy_values(source, target, list(values))
    whole = {key: record for key, record in records.items() if record.result not in absent}
    for key in records.keys() - whole.keys():
        source.count("dangling")
        log.warning("call %s: its result is gone, not copied", key[:12])
    target.save_records(whole)
    return whole


def _copy_values(source: Side, target: Side, values: list[Digest]) -> set[Digest]:
    """Copy the values that ``target`` lacks; return those that ``source`` lacks too."""
    lacking = target.missing(values) if values else []
    absent = set(lacking)
    waiting = _Waiting(source)

    def arriving() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in source.load_parcels(lacking):
            if parcel.references:
                waiting.add(digest, parcel)
                continue
            yield digest, parcel
            absent.discard(digest)

    target.save_parcels(arriving())
    if waiting.references:
        deliver = _deliver_whole if target.opens_parcels else _deliver_parts
        absent -= deliver(source, target, waiting)
    return absent


class _Waiting:
    """Parcels whose buffers are to be copied first; large ones are asked for once more."""

    def __init__(self, source: Side) -> None:
        self._source = source
        self._held: dict[Digest, Parcel] = {}
        self.references: dict[Digest, tuple[Digest, ...]] = {}

    def add(self, digest: Digest, parcel: Parcel) -> None:
        self.references[digest] = parcel.references
        if parcel.nbytes <= _HELD:
            self._held[digest] = parcel
        else:
            parcel.close()

    def take(self, wanted: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        again = []
        for digest in wanted:
            if digest in self._held:
                yield digest, self._held.pop(digest)
            else:
                again.append(digest)
        if again:
            yield from self._source.load_parcels(again)


def _deliver_parts(source: Side, target: Side, waiting: _Waiting) -> set[Digest]:
    """Copy the buffers that ``target`` lacks, then the values; return those that are whole."""
    needed = dict.fromkeys(key for keys in waiting.references.values() for key in keys)
    lacking = target.missing(needed)
    gone = set(lacking)

    def buffers() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in source.load_parcels(lacking):
            yield digest, parcel
            gone.discard(digest)

    if lacking:
        target.save_parcels(buffers())
    whole = {key for key, needs in waiting.references.items() if gone.isdisjoint(needs)}
    target.save_parcels(waiting.take(whole))
    return whole


def _deliver_whole(source: Side, target: Side, waiting: _Waiting) -> set[Digest]:
    """Copy values with their buffers inside; return those that are whole."""
    whole = set()

    def parcels() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in waiting.take(list(waiting.references)):
            buffers = dict(source.load_parcels(parcel.references))
            try:
                if len(buffers) == len(parcel.references):
                    yield digest, inline(parcel, buffers, target.packing.keys)
                    whole.add(digest)
            finally:
                for each in (parcel, *buffers.values()):
                    each.close()

    target.save_parcels(parcels())
    return whole


def _batches(calls: Iterable[LazyCall]) -> Iterator[list[LazyCall]]:
    remaining = iter(calls)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch
