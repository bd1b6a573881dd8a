"""Keeping house in a pair of storages: checking everything, filing anew; garbage goes elsewhere.

Everything here may run while others, in this process and elsewhere, save and load.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from fleche.caches._reports import RedigestReport, StatsReport, VerifyReport
from fleche.caches.garbage import Steps, collect
from fleche.caches.tables import Table, open_stored, save_stored, table_of
from fleche.call import CallRecord
from fleche.digest import SCHEME, Digest, digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import Packing
from fleche.parcel import verify as verify_parcel
from fleche.storage.base import CallStorage, ValueStorage

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

    Args:
        values: where the values are.
        calls: where the records are.
        keys: secrets; if there are any, one of them must have signed each value.
        repair: remove what is corrupt, and calls whose result is gone.
        progress: called with the number of entries looked at so far.
    """
    steps = Steps(progress)
    report, tables = _verify_values(values, keys, steps)
    unusable = {*report.corrupt, *report.broken}
    of_calls, used = _verify_calls(values, calls, unusable, steps)
    for key in used & tables.keys():
        used = used.union(tables[key].references)
    report = report + of_calls + VerifyReport(orphaned=len(tables.keys() - used))
    if not repair:
        return report
    for key in (*report.corrupt, *report.broken):
        values.delete(key)
    for key in (*report.corrupt, *report.dangling):
        calls.delete(key)
    removed = len(report.corrupt) + len(report.broken) + len(report.dangling)
    return report + VerifyReport(removed=removed)


def _verify_values(
    values: ValueStorage, keys: Sequence[bytes], steps: Steps
) -> tuple[VerifyReport, dict[Digest, Table]]:
    """Return what is wrong with the values, and the tables of all that are not corrupt."""
    corrupt, untrusted = [], []
    tables: dict[Digest, Table] = {}
    for key in list(values.keys()):
        steps.step()
        try:
            tables[key] = _verify_value(values, key, keys)
        except KeyError:
            continue
        except SignatureError:
            untrusted.append(key)
            tables[key] = Table()
        except CorruptParcel:
            corrupt.append(key)
    report = VerifyReport(
        values=len(tables) + len(corrupt),
        corrupt=tuple(corrupt),
        untrusted=tuple(untrusted),
        broken=tuple(_broken(values, tables, set(corrupt))),
    )
    return report, tables


def _verify_value(values: ValueStorage, key: Digest, keys: Sequence[bytes]) -> Table:
    parcel = values.get(key)
    try:
        verify_parcel(parcel, digest=key, keys=keys)
        return table_of(parcel)
    finally:
        parcel.close()


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
    values: ValueStorage, calls: CallStorage, unusable: Collection[Digest], steps: Steps
) -> tuple[VerifyReport, set[Digest]]:
    """Return what is wrong with the calls, and the values that they refer to."""
    used: set[Digest] = set()
    damaged, untrusted, dangling, incomplete, misfiled, finished = [], [], [], [], [], 0
    for key in list(calls.keys()):
        steps.step()
        try:
            record = calls.get(key)
        except KeyError:
            continue
        except SignatureError:
            untrusted.append(key)
            continue
        except ParcelError:
            damaged.append(key)
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
