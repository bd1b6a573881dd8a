"""Copying calls from cache to cache, as parcels.

Only what the target lacks is read from the source at all, and all of it is checked before it goes
on: damage does not travel, and does not keep the rest from travelling. Nor does what the target
refuses.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fleche._util import batched
from fleche.caches._gaps import gaps, records_of
from fleche.caches._lease import Lease
from fleche.caches._shipment import Shipment
from fleche.caches._side import Side
from fleche.caches._sound import sound_records
from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import Rejected

__all__ = ["Side", "copy_call", "transfer"]

log = logging.getLogger("fleche.caches")

_BATCH = 1024


def transfer(
    source: Side,
    target: Side,
    keys: Iterable[Digest],
    progress: Callable[[int], None] | None,
) -> int:
    """Copy those calls of ``keys`` that ``target`` lacks, or lacks a part of, and ``source`` has.

    Buffers go before the values that refer to them, and values before the records that stand on
    them, in portions: whenever it is interrupted, what has arrived is whole, and need not be sent
    again. A lease keeps it until its record has arrived, too.

    Returns:
        How many calls were copied, or completed.
    """
    copied = 0
    for batch in batched(keys, _BATCH):
        for number in _copy_batch(source, target, batch):
            copied += number
            if progress is not None and number:
                progress(copied)
    return copied


def copy_call(source: Side, target: Side, key: Digest, record: CallRecord) -> None:
    """Copy one record and those of its values that ``target`` lacks and ``source`` has.

    Raises:
        KeyError: the result is not in ``source``, or damaged there.
        Rejected: ``target`` refuses it.
        ParcelError: ``target`` refuses a value.
    """
    with Lease(target) as lease:
        shipment = Shipment(source, target, record.digests(), lease)
        shipment.send_all()
        for error in shipment.refused.values():
            raise error
        if record.result in shipment.absent:
            raise KeyError(record.result)
        target.save_record(key, record)


def _copy_batch(source: Side, target: Side, keys: Sequence[Digest]) -> Iterator[int]:
    """Copy calls, and yield how many were copied each time that some were."""
    there = target.contains_many(keys)
    known = records_of(source, target, itertools.compress(keys, there))
    lacking = itertools.compress(keys, (not answered for answered in there))
    new = dict(sound_records(source, lacking))
    copied: dict[Digest, CallRecord] = {}
    sent: set[Digest] = set()
    if new:
        with Lease(target) as lease:
            values = _values_of(new)
            lease.hold(values)
            shipment = Shipment(source, target, values, lease)
            sent.update(shipment.lacking)
            for portion in _copy(source, target, new, shipment):
                copied.update(portion)
                yield len(portion)
    absent = gaps(source, target, {**known, **copied}, sent)
    arrived = _fill(source, target, {part for parts in absent.values() for part in parts})
    yield sum(not arrived.isdisjoint(parts) for key, parts in absent.items() if key in known)


def _values_of(records: Mapping[Digest, CallRecord]) -> dict[Digest, None]:
    return dict.fromkeys(value for record in records.values() for value in record.digests())


def _copy(
    source: Side, target: Side, records: Mapping[Digest, CallRecord], shipment: Shipment
) -> Iterator[dict[Digest, CallRecord]]:
    """Copy records, each after its values; yield those copied together."""
    rest = dict(records)
    while rest:
        shipment.send_some()
        ready = {
            key: record
            for key, record in rest.items()
            if shipment.lacking.keys().isdisjoint(record.digests())
        }
        rest = {key: record for key, record in rest.items() if key not in ready}
        if ready:
            yield _save_records(source, target, _answerable(source, ready, shipment))


def _answerable(
    source: Side, records: Mapping[Digest, CallRecord], shipment: Shipment
) -> dict[Digest, CallRecord]:
    """Return the records whose results have arrived."""
    found = {key: each for key, each in records.items() if each.result not in shipment.absent}
    for key in records.keys() - found.keys():
        if records[key].result not in shipment.refused:
            source.count("dangling")
        log.warning("call %s: its result is gone, damaged or refused, not copied", key[:12])
    return found


def _save_records(
    source: Side, target: Side, records: Mapping[Digest, CallRecord]
) -> dict[Digest, CallRecord]:
    """Save records, one by one if one is refused; return those that are not."""
    saved = dict(records)
    try:
        target.save_records(records)
    except Rejected:
        for key, record in records.items():
            try:
                target.save_record(key, record)
            except Rejected as error:
                del saved[key]
                source.count("refused")
                log.warning("call %s: refused, not copied: %s", key[:12], error)
    return saved


def _fill(source: Side, target: Side, values: set[Digest]) -> set[Digest]:
    """Copy values that calls in ``target`` need; return those that it has then."""
    if not values:
        return values
    with Lease(target) as lease:
        shipment = Shipment(source, target, values, lease)
        shipment.send_all()
    return values - shipment.absent
