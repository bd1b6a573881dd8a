"""Copying calls from cache to cache, as parcels.

Only what the target lacks is read from the source at all, and all of it is checked before it goes
on: damage does not travel, and does not keep the rest from travelling.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from fleche.batches import batched
from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import ParcelError
from fleche.parcel import Packing, Parcel, inline, verify

__all__ = ["Side", "copy_call", "transfer"]

log = logging.getLogger("fleche.caches")

T = TypeVar("T")

_BATCH = 1024
_HELD = 1 << 16
"""Up to this size, a parcel that waits for its buffers is kept in memory."""


class Side(Protocol):
    """What a transfer needs of either cache."""

    packing: Packing

    @property
    def opens_parcels(self) -> bool: ...
    def load_record(self, key: Digest) -> CallRecord: ...
    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]: ...
    def load_parcel(self, digest: Digest) -> Parcel: ...
    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]: ...
    def save_parcels(self, parcels: Iterable[tuple[Digest, Parcel]]) -> None: ...
    def save_records(self, records: Mapping[Digest, CallRecord]) -> None: ...
    def missing(self, digests: Iterable[Digest]) -> list[Digest]: ...
    def contains_many(self, keys: Iterable[Digest]) -> list[bool]: ...
    def count(self, event: str, number: int = 1) -> None: ...


def transfer(
    source: Side,
    target: Side,
    keys: Iterable[Digest],
    progress: Callable[[int], None] | None,
) -> int:
    """Copy those calls of ``keys`` that ``target`` lacks and ``source`` has; return how many.

    Buffers go before the values that refer to them, and values before the records that stand on
    them, in batches: whenever it is interrupted, what has arrived is whole, and need not be sent
    again.
    """
    copied = 0
    for batch in batched(keys, _BATCH):
        there = target.contains_many(batch)
        lacking = list(itertools.compress(batch, (not known for known in there)))
        found = _sound(source, source.load_records, source.load_record, lacking)
        new = len(_copy(source, target, dict(found)))
        copied += new
        if progress is not None and new:
            progress(copied)
    return copied


def copy_call(source: Side, target: Side, key: Digest, record: CallRecord) -> None:
    """Copy one record and those of its values that ``target`` lacks and ``source`` has.

    Raises:
        KeyError: the result is not in ``source``, or damaged there.
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
        log.warning("call %s: its result is gone or damaged, not copied", key[:12])
    target.save_records(whole)
    return whole


def _copy_values(source: Side, target: Side, values: list[Digest]) -> set[Digest]:
    """Copy the values that ``target`` lacks; return those that ``source`` lacks too."""
    lacking = target.missing(values) if values else []
    absent = set(lacking)
    waiting = _Waiting(source)

    def arriving() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in _sound_parcels(source, lacking):
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
            yield from _sound_parcels(self._source, again)


def _deliver_parts(source: Side, target: Side, waiting: _Waiting) -> set[Digest]:
    """Copy the buffers that ``target`` lacks, then the values; return those that are whole."""
    needed = dict.fromkeys(key for keys in waiting.references.values() for key in keys)
    lacking = target.missing(needed)
    sent: set[Digest] = set()
    if lacking:
        target.save_parcels(_noting(_sound_parcels(source, lacking), sent))
    gone = set(lacking) - sent
    whole = [key for key, needs in waiting.references.items() if gone.isdisjoint(needs)]
    delivered: set[Digest] = set()
    target.save_parcels(_noting(waiting.take(whole), delivered))
    return delivered


def _deliver_whole(source: Side, target: Side, waiting: _Waiting) -> set[Digest]:
    """Copy values with their buffers inside; return those that are whole."""

    def parcels() -> Iterator[tuple[Digest, Parcel]]:
        for digest, parcel in waiting.take(list(waiting.references)):
            buffers = dict(_sound_parcels(source, parcel.references))
            try:
                if len(buffers) == len(parcel.references):
                    yield digest, inline(parcel, buffers, target.packing.keys)
            finally:
                for each in (parcel, *buffers.values()):
                    each.close()

    delivered: set[Digest] = set()
    target.save_parcels(_noting(parcels(), delivered))
    return delivered


def _noting(
    parcels: Iterable[tuple[Digest, Parcel]], taken: set[Digest]
) -> Iterator[tuple[Digest, Parcel]]:
    """Yield ``parcels``, and note each that has been taken."""
    for digest, parcel in parcels:
        yield digest, parcel
        taken.add(digest)


# -- what is damaged stays where it is -------------------------------------------------------------


def _sound_parcels(source: Side, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
    """Yield those of the parcels that ``source`` has whole."""
    for digest, parcel in _sound(source, source.load_parcels, source.load_parcel, digests):
        try:
            if not parcel.checked:
                verify(parcel, digest=digest)
                parcel.checked = True
        except KeyError:  # gone while it was read
            parcel.close()
        except ParcelError as error:
            parcel.close()
            _note(source, digest, error)
        else:
            yield digest, parcel


def _sound(
    source: Side,
    load_many: Callable[[Iterable[Digest]], Iterator[tuple[Digest, T]]],
    load: Callable[[Digest], T],
    keys: Iterable[Digest],
) -> Iterator[tuple[Digest, T]]:
    """Yield what ``load_many`` finds, past whatever is damaged."""
    rest = dict.fromkeys(keys)
    while rest:
        try:
            for key, item in load_many(list(rest)):
                del rest[key]
                yield key, item
        except ParcelError:
            yield from _up_to_the_damage(source, load, rest)
        else:
            return


def _up_to_the_damage(
    source: Side, load: Callable[[Digest], T], rest: dict[Digest, None]
) -> Iterator[tuple[Digest, T]]:
    """Load one by one until it is known what is damaged; take what was looked at from ``rest``."""
    for key in list(rest):
        del rest[key]
        try:
            item = load(key)
        except KeyError:
            continue
        except ParcelError as error:
            _note(source, key, error)
            return
        yield key, item


def _note(source: Side, key: Digest, error: ParcelError) -> None:
    source.count(f"errors.{error.code}")
    log.warning("%s: damaged, not copied: %s", key[:12], error)
