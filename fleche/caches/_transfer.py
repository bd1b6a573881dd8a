"""Copying calls from cache to cache, as parcels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fleche.call import CallRecord, LazyCall
from fleche.digest import Digest
from fleche.parcel import Parcel

__all__ = ["Side", "copy_call", "transfer"]

log = logging.getLogger("fleche.caches")

_BATCH = 512


class Side(Protocol):
    """What a transfer needs of either cache."""

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

    Values go before the records that stand on them, in batches: whenever it is interrupted, what
    has arrived is whole, and need not be sent again.
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
    absent = dict.fromkeys(target.missing(values) if values else ())

    def found() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in source.load_parcels(list(absent)):
            yield digest, parcel
            del absent[digest]

    target.save_parcels(found())
    whole = {key: record for key, record in records.items() if record.result not in absent}
    for key in records.keys() - whole.keys():
        source.count("dangling")
        log.warning("call %s: its result is gone, not copied", key[:12])
    target.save_records(whole)
    return whole


def _batches(calls: Iterable[LazyCall]) -> Iterator[list[LazyCall]]:
    remaining = iter(calls)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch
