"""Keeping house in a pair of storages: collecting garbage, checking everything, filing anew.

Everything here may run while others, in this process and elsewhere, save and load.

Why :func:`collect` takes nothing that is needed:

- A value that is stored, or found to be here already, during the last ``grace`` seconds is left
  alone. Whoever saves a call without a lease has this long from the first value to the record.
- A call that runs for longer holds a lease, which was there before its arguments were. The lease
  goes only after the record has come, and the collector reads all records twice: a call that was
  running when the first reading began shows its lease there, or its record in the second. A call
  that began later stored or renewed its arguments after that, and they are too young.
- The age is looked at once more by whoever deletes (``Storage.delete_older``), so that a value that
  is renewed after it was chosen stays.
- If a record cannot be read, nobody knows what it refers to, and nothing is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from fleche.caches._reports import GcReport, RedigestReport, VerifyReport
from fleche.call import CallRecord
from fleche.digest import SCHEME, Digest, digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError, StorageError
from fleche.parcel import Packing
from fleche.parcel import verify as verify_parcel
from fleche.storage.base import CallStorage, Entry, ValueStorage

__all__ = ["collect", "redigest", "verify"]

Progress = Callable[[int], None]


class _Steps:
    """Counts entries for whoever watches."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0

    def step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)


# -- garbage ---------------------------------------------------------------------------------------


def collect(
    values: ValueStorage,
    calls: CallStorage,
    *,
    grace: float,
    lease_age: float,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> GcReport:
    """Remove the values that no record refers to.

    Args:
        values: where the values are.
        calls: where the records and leases are.
        grace: seconds for which a value is left alone.
        lease_age: seconds after which a lease is dropped.
        dry_run: only tell.
        progress: called with the number of entries looked at so far.

    Raises:
        StorageError: a record cannot be read, so nothing was removed.
    """
    steps = _Steps(progress)
    now = time.time()
    limit = now - grace
    entries = list(values.entries())
    roots, expired = _roots(calls, now - lease_age, steps)
    garbage = [entry for entry in entries if entry.modified <= limit and entry.key not in roots]
    if not dry_run:
        expired = [lease for lease in expired if calls.delete_older(lease, now - lease_age)]
        garbage = [entry for entry in garbage if _remove(values, entry, limit, steps)]
    return GcReport(
        removed=len(garbage),
        freed=sum(entry.size for entry in garbage),
        kept=len(entries) - len(garbage),
        leases=len(expired),
    )


def _remove(values: ValueStorage, entry: Entry, limit: float, steps: _Steps) -> bool:
    steps.step()
    return values.delete_older(entry.key, limit)


def _roots(
    calls: CallStorage, lease_limit: float, steps: _Steps
) -> tuple[set[Digest], list[Digest]]:
    """Return every value that a record or a living lease refers to, and the expired leases."""
    roots: set[Digest] = set()
    expired: list[Digest] = []
    seen: set[Digest] = set()
    for _ in range(2):
        for key, record in _records(calls, seen):
            seen.add(key)
            steps.step()
            if record.result is None and _is_older(calls, key, lease_limit):
                expired.append(key)
            else:
                roots.update(record.digests())
    return roots, expired


def _records(calls: CallStorage, seen: set[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
    for key in list(calls.keys()):
        if key in seen:
            continue
        try:
            record = calls.get(key)
        except KeyError:
            continue
        except ParcelError as error:
            raise StorageError(
                f"call {key[:12]} cannot be read, so nobody knows which values it needs; nothing "
                f"was removed. verify(repair=True) removes damaged records. ({error})"
            ) from error
        yield key, record


def _is_older(calls: CallStorage, key: Digest, limit: float) -> bool:
    try:
        return calls.entry(key).modified <= limit
    except KeyError:
        return False


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
    steps = _Steps(progress)
    report, sound = _verify_values(values, keys, steps)
    report = report + _verify_calls(values, calls, sound, set(report.corrupt), steps)
    if not repair:
        return report
    for key in report.corrupt:
        values.delete(key)
        calls.delete(key)
    for key in report.dangling:
        calls.delete(key)
    return report + VerifyReport(removed=len(report.corrupt) + len(report.dangling))


def _verify_values(
    values: ValueStorage, keys: Sequence[bytes], steps: _Steps
) -> tuple[VerifyReport, set[Digest]]:
    """Return what is wrong with the values, and all that are not corrupt."""
    corrupt, untrusted, sound = [], [], set()
    for key in list(values.keys()):
        steps.step()
        try:
            _verify_value(values, key, keys)
        except KeyError:
            continue
        except SignatureError:
            untrusted.append(key)
        except CorruptParcel:
            corrupt.append(key)
            continue
        sound.add(key)
    number = len(sound) + len(corrupt)
    report = VerifyReport(values=number, corrupt=tuple(corrupt), untrusted=tuple(untrusted))
    return report, sound


def _verify_value(values: ValueStorage, key: Digest, keys: Sequence[bytes]) -> None:
    parcel = values.get(key)
    try:
        verify_parcel(parcel, digest=key, keys=keys)
    finally:
        parcel.close()


def _verify_calls(
    values: ValueStorage,
    calls: CallStorage,
    orphans: set[Digest],
    corrupt: set[Digest],
    steps: _Steps,
) -> VerifyReport:
    damaged, dangling, incomplete, misfiled, finished = [], [], [], [], 0
    for key in list(calls.keys()):
        steps.step()
        try:
            record = calls.get(key)
        except KeyError:
            continue
        except ParcelError:
            damaged.append(key)
            continue
        orphans.difference_update(record.digests())
        if record.result is None:
            continue
        finished += 1
        gone = {d for d in record.digests() if d in corrupt or not values.contains(d)}
        if record.result in gone:
            dangling.append(key)
        elif gone:
            incomplete.append(key)
        if record.key != key or record.scheme != SCHEME:
            misfiled.append(key)
    return VerifyReport(
        calls=finished,
        corrupt=tuple(damaged),
        dangling=tuple(dangling),
        incomplete=tuple(incomplete),
        misfiled=tuple(misfiled),
        orphaned=len(orphans),
    )


# -- filing anew -----------------------------------------------------------------------------------


def redigest(
    values: ValueStorage,
    calls: CallStorage,
    packing: Packing,
    *,
    progress: Progress | None = None,
) -> RedigestReport:
    """File calls anew whose key is of an older scheme or does not match what they say.

    The new record is complete before the old one goes; an interruption leaves at most both.

    Args:
        values: where the values are.
        calls: where the records are.
        packing: how values of an older scheme are opened and packed again.
        progress: called with the number of calls looked at so far.
    """
    steps = _Steps(progress)
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


def _renewed(values: ValueStorage, packing: Packing, record: CallRecord) -> CallRecord:
    """Return the record with the digests of the present scheme, its values stored under them.

    Raises:
        KeyError: a value is gone, or the key rests on code that only its author can digest again.
        ParcelError: a value cannot be opened here.
    """
    if record.scheme == SCHEME:
        return record
    if record.code is not None and "code" not in record.unhashed:
        raise KeyError(record.code)
    fresh = {old: _renewed_value(values, packing, old) for old in record.digests()}
    return record.replace(
        arguments={name: fresh[old] for name, old in record.arguments.items()},
        result=fresh[record.result] if record.result is not None else None,
        scheme=SCHEME,
    )


def _renewed_value(values: ValueStorage, packing: Packing, old: Digest) -> Digest:
    obj = packing.unpack(values.get(old), old)
    new = digest(obj)
    if not values.renew(new):
        values.put(new, packing.pack(obj, new))
    return new
