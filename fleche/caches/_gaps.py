"""What a cache lacks of calls that it can answer: arguments, and buffers of values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from fleche.caches._side import Side
from fleche.caches._sound import sound_records
from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import ParcelError

__all__ = ["gaps", "records_of"]


def records_of(source: Side, target: Side, keys: Iterable[Digest]) -> dict[Digest, CallRecord]:
    """Return the records of calls that both may have; from this machine, if they are here.

    They agree in everything that the key stands for. The results of the two may differ.
    """
    rest = dict.fromkeys(keys)
    found: dict[Digest, CallRecord] = {}
    for side in (*target.stores(), source):
        found.update(sound_records(side, list(rest)))
        rest = {key: None for key in rest if key not in found}
    return found


def gaps(
    source: Side,
    target: Side,
    records: Mapping[Digest, CallRecord],
    known: Collection[Digest] = (),
) -> dict[Digest, set[Digest]]:
    """Return by the key of a call what ``target`` lacks of it.

    Which buffers a value needs is read on this machine alone: over a distance that would take all
    of the value. So nobody looks where both caches are elsewhere.

    Args:
        source: has calls, too.
        target: can answer these.
        records: the records of the calls, as :func:`records_of` returns them.
        known: values of which it is known already whether ``target`` has them.
    """
    arguments = {value for record in records.values() for value in record.arguments.values()}
    results = {record.result for record in records.values() if record.result is not None}
    needs = _references(source, target, arguments.union(results).difference(known))
    buffers = (buffer for needed in needs.values() for buffer in needed)
    asked = list(dict.fromkeys([*arguments.difference(known), *needs, *buffers]))
    there = target.contains_many(asked) if asked else []
    lacking = {value for value, is_there in zip(asked, there, strict=True) if not is_there}
    found = {key: _lacking_of(record, needs, lacking) for key, record in records.items()}
    return {key: absent for key, absent in found.items() if absent}


def _lacking_of(
    record: CallRecord, needs: Mapping[Digest, Iterable[Digest]], lacking: set[Digest]
) -> set[Digest]:
    """Return the arguments that are lacking, and the buffers of values that are not."""
    absent = lacking.intersection(record.arguments.values())
    for value in record.digests():
        if value not in lacking:  # a result that is may be another than that of the target
            absent |= lacking.intersection(needs.get(value, ()))
    return absent


def _references(
    source: Side, target: Side, values: Iterable[Digest]
) -> dict[Digest, tuple[Digest, ...]]:
    """Return the buffers that values refer to, for those that refer to any."""
    found: dict[Digest, tuple[Digest, ...]] = {}
    if target.opens_parcels:
        return found
    wanted = list(values)
    for side in target.stores() or source.stores():
        with suppress(ParcelError):  # only a newer fleche knows
            found.update((value, needed) for value, needed in side.references(wanted) if needed)
    return found
