"""Keeping house in a pair of storages: checking everything, filing anew; garbage goes elsewhere.

Everything here may run while others, in this process and elsewhere, save and load.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fleche.caches._reports import RedigestReport, StatsReport, VerifyReport
from fleche.caches.garbage import Steps, collect
from fleche.caches.tables import open_stored, save_stored
from fleche.call import CallRecord
from fleche.digest import SCHEME, Digest, digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import Packing
from fleche.storage.base import CallStorage, Storage, Table, ValueStorage

__all__ = ["collect", "measure", "redigest", "verify"]

Progress = Callable[[int], None]


# -- counting --------------------------------------------------------------------------------------


def measure(
    values: ValueStorage, calls: CallStorage, *, progress: Progress | None = None
) -> StatsReport:
    """Count entries and bytes without reading an entry.

    Args:
        values: where the values are.
        calls: where the records are.
        progress: called with the number of entries looked at so far.
    """
    steps = Steps(progress)
    number_of_values, value_bytes = _counted(values, steps)
    number_of_calls, call_bytes = _counted(calls, steps)
    return StatsReport(number_of_values, number_of_calls, value_bytes + call_bytes)


def _counted(storage: ValueStorage | CallStorage, steps: Steps) -> tuple[int, int]:
    number, size = 0, 0
    for entry in storage.entries():
        steps.step()
        number += 1
        size += entry.size
    return number, size


# -- checks ----------------------------------------------------------------------------------------


def verify(
    values: ValueStorage,
    calls: CallStorage,
    keys: Sequence[bytes] = (),
    *,
    repair: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check every byte of every entry, without opening a value.

    A repair removes nothing that was stored, or found to be here, after the check began.

    Args:
        values: where the values are.
        calls: where the records are.
        keys: secrets; if there are any, one of them must have signed each value.
        repair: remove what is corrupt, and calls whose result is gone.
        progress: called with the number of entries looked at so far.
    """
    steps = Steps(progress)
    ages_of_values = {entry.key: entry.modified for entry in values.entries()}
    of_values, tables = _verify_values(values, ages_of_values, keys, steps)
    ages_of_calls = {entry.key: entry.modified for entry in calls.entries()}
    unusable = {*of_values.corrupt, *of_values.broken}
    of_calls, used = _verify_calls(values, calls, ages_of_calls, unusable, steps)
    for key in used & tables.keys():
        used = used.union(tables[key].references)
    report = of_values + of_calls + VerifyReport(orphaned=len(tables.keys() - used))
    if not repair:
        return report
    removed = _remove(values, ages_of_values, of_values.corrupt)
    removed += _remove(calls, ages_of_calls, of_calls.corrupt)
    # somebody may have stored a buffer or a result again; then what stands on it is whole
    broken = list(_broken(values, {key: tables[key] for key in of_values.broken}, ()))
    removed += _remove(values, ages_of_values, broken)
    dangling = [key for key in of_calls.dangling if _is_dangling(values, calls, key)]
    removed += _remove(calls, ages_of_calls, dangling)
    return report + VerifyReport(removed=removed)


def _remove(storage: Storage[Any], ages: Mapping[Digest, float], keys: Iterable[Digest]) -> int:
    """Remove those entries that are as old as they were; return how many."""
    with storage.removing():
        return sum(storage.delete_older(key, ages[key]) for key in keys)


def _is_dangling(values: ValueStorage, calls: CallStorage, key: Digest) -> bool:
    try:
        result = calls.get(key).result
    except (KeyError, ParcelError):
        return False
    return result is not None and not values.contains(result)


def _verify_values(
    values: ValueStorage, digests: Iterable[Digest], keys: Sequence[bytes], steps: Steps
) -> tuple[VerifyReport, dict[Digest, Table]]:
    """Return what is wrong with some values, and the tables of all that are not corrupt."""
    corrupt, untrusted = [], []
    tables: dict[Digest, Table] = {}
    for key in digests:
        steps.step()
        try:
            tables[key] = values.check(key, keys)
        except KeyError:
            continue
        except (CorruptParcel, SignatureError) as error:
            if _is_ours(error):
                corrupt.append(key)
                continue
            untrusted.append(key)
            tables[key] = _table_of_untrusted(error)
    report = VerifyReport(
        values=len(tables) + len(corrupt),
        corrupt=tuple(corrupt),
        untrusted=tuple(untrusted),
        broken=tuple(_broken(values, tables, set(corrupt))),
    )
    return report, tables


def _is_ours(error: ParcelError) -> bool:
    """Tell damage from what others may trust, or a newer fleche read."""
    return not (isinstance(error, SignatureError) or getattr(error, "newer", False))


def _table_of_untrusted(error: ParcelError) -> Table:
    """Return what is known of a value that somebody else may trust, or a newer fleche read."""
    head = getattr(error, "head", None)
    return Table() if head is None else Table.of(head)


def _broken(
    values: ValueStorage, tables: Mapping[Digest, Table], corrupt: Collection[Digest]
) -> Iterator[Digest]:
    """Yield the values that refer to a buffer which is gone or corrupt."""
    for key, table in tables.items():
        for each in table.references:
            if each in corrupt or not (each in tables or values.contains(each)):
                yield key
                break


def _verify_calls(
    values: ValueStorage,
    calls: CallStorage,
    keys: Iterable[Digest],
    unusable: Collection[Digest],
    steps: Steps,
) -> tuple[VerifyReport, set[Digest]]:
    """Return what is wrong with some calls, and the values that they refer to."""
    used: set[Digest] = set()
    damaged: list[Digest] = []
    untrusted: list[Digest] = []
    dangling, incomplete, misfiled, finished = [], [], [], 0
    for key in keys:
        steps.step()
        try:
            record = calls.get(key)
        except KeyError:
            continue
        except ParcelError as error:
            (damaged if _is_ours(error) else untrusted).append(key)
            continue
        used.update(record.digests())
        if record.result is None:
            continue
        finished += 1
        gone = {d for d in record.digests() if d in unusable or not values.contains(d)}
        if record.result in gone:
            dangling.append(key)
        elif gone:
            incomplete.append(key)
        if record.key != key or record.scheme != SCHEME:
            misfiled.append(key)
    report = VerifyReport(
        calls=finished,
        corrupt=tuple(damaged),
        untrusted=tuple(untrusted),
        dangling=tuple(dangling),
        incomplete=tuple(incomplete),
        misfiled=tuple(misfiled),
    )
    return report, used


# -- filing anew -----------------------------------------------------------------------------------


def redigest(
    values: ValueStorage,
    calls: CallStorage,
    packing: Packing | None,
    *,
    progress: Progress | None = None,
) -> RedigestReport:
    """File calls anew whose key is of an older scheme or does not match what they say.

    The new record is complete before the old one goes; an interruption leaves at most both.

    Args:
        values: where the values are.
        calls: where the records are.
        packing: how values of an older scheme are opened and packed again; ``None`` leaves their
            calls as they are, since nothing is to be opened.
        progress: called with the number of calls looked at so far.
    """
    steps = Steps(progress)
    number, rekeyed, failed = 0, [], []
    for key in list(calls.keys()):
        try:
            record = calls.get(key)
        except (KeyError, ParcelError):
            continue
        if record.result is None:
            continue
        number += 1
        steps.step()
        if record.scheme == SCHEME and record.key == key:
            continue
        try:
            renewed = _renewed(values, packing, record)
        except (KeyError, ParcelError):
            failed.append(key)
            continue
        if not calls.contains(renewed.key):
            calls.put(renewed.key, renewed)
        calls.delete(key)
        rekeyed.append(renewed.key)
    return RedigestReport(number, tuple(rekeyed), tuple(failed))


def _renewed(values: ValueStorage, packing: Packing | None, record: CallRecord) -> CallRecord:
    """Return the record with the digests of the present scheme, its values stored under them.

    Raises:
        KeyError: a value is gone, or not to be opened, or the key rests on code that only its
            author can digest again.
        ParcelError: a value cannot be opened here.
    """
    if record.scheme == SCHEME:
        return record
    if packing is None or (record.code is not None and "code" not in record.unhashed):
        raise KeyError(record.key)
    fresh = {old: _renewed_value(values, packing, old) for old in record.digests()}
    return record.replace(
        arguments={name: fresh[old] for name, old in record.arguments.items()},
        result=fresh[record.result] if record.result is not None else None,
        scheme=SCHEME,
    )


def _renewed_value(values: ValueStorage, packing: Packing, old: Digest) -> Digest:
    obj = open_stored(values, packing, old)
    new = digest(obj)
    if not values.renew(new):
        save_stored(values, packing, new, obj)
    return new
