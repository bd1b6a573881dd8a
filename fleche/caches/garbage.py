"""Collecting garbage: removing values that nobody refers to, while others save and load.

Why :func:`collect` takes nothing that is needed:

- A value that is stored, or found to be here already, during the last ``grace`` seconds is left
  alone. Whoever saves a call without a lease has this long from the first value to the record, and
  whoever has a lease, which names the arguments, from the result to the record.
- A call that runs for longer holds a lease, which was there before its arguments were. The lease
  goes only after the record has come, and the collector reads all records twice: a call that was
  running when the first reading began shows its lease there, or its record in the second. A call
  that began later stored or renewed its arguments after that, and they are too young.
- The age is looked at once more by whoever deletes (``Storage.delete_older``), so that a value that
  is renewed after it was chosen stays.
- If a record cannot be read, nobody knows what it refers to, and nothing is removed.
- A shared buffer goes only if no value that is left refers to it. The tables are read after the
  garbage among the values has gone: a value that somebody renewed in time is left, and speaks for
  its buffers, and one that is stored from then on had its buffers stored or renewed before, which
  makes them too young. A value that is not trusted here speaks for its buffers all the same; one
  whose head is damaged can never be opened, and needs none. If only a newer fleche can read what a
  value needs, no buffer goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from fleche.caches._reports import GcReport
from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError, StorageError
from fleche.storage.base import CallStorage, Entry, Table, ValueStorage

__all__ = ["Steps", "collect"]

Progress = Callable[[int], None]


class Steps:
    """Counts entries for whoever watches."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)


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
        StorageError: a record cannot be read, so nothing was removed; or a value of a newer fleche,
            so no buffer was.
    """
    steps = Steps(progress)
    now = time.time()
    limit = now - grace
    entries = list(values.entries())
    roots, expired = _roots(calls, now - lease_age, steps)
    old = [entry for entry in entries if entry.modified <= limit and entry.key not in roots]
    doomed, buffers = _sorted_out(values, old)
    with values.removing():
        if not dry_run:
            expired = [lease for lease in expired if calls.delete_older(lease, now - lease_age)]
            doomed = [entry for entry in doomed if _remove(values, entry, limit, steps)]
        if buffers:
            gone = {entry.key for entry in (*doomed, *buffers)}
            needed = _needed_buffers(values, (e.key for e in entries if e.key not in gone))
            garbage = [entry for entry in buffers if entry.key not in needed]
            if not dry_run:
                garbage = [entry for entry in garbage if _remove(values, entry, limit, steps)]
            doomed += garbage
    return GcReport(
        removed=len(doomed),
        freed=sum(entry.size for entry in doomed),
        kept=len(entries) - len(doomed),
        leases=len(expired),
    )


def _sorted_out(values: ValueStorage, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the entries that are values, and those that are shared buffers."""
    tables = dict(_tables(values, (entry.key for entry in entries)))
    doomed: list[Entry] = []
    buffers: list[Entry] = []
    for entry in entries:
        if entry.key in tables:
            (buffers if tables[entry.key].is_buffer else doomed).append(entry)
    return doomed, buffers


def _needed_buffers(values: ValueStorage, keys: Iterable[Digest]) -> set[Digest]:
    """Return the buffers that some values refer to."""
    return {needed for _, table in _tables(values, keys) for needed in table.references}


def _tables(values: ValueStorage, keys: Iterable[Digest]) -> Iterator[tuple[Digest, Table]]:
    try:
        yield from values.tables(keys)
    except ParcelError as error:
        raise StorageError(
            "a value cannot be read, so nobody knows which buffers it needs; no buffer was "
            f"removed. {_remedy(error)} ({error})"
        ) from error


def _remove(values: ValueStorage, entry: Entry, limit: float, steps: Steps) -> bool:
    steps.step()
    return values.delete_older(entry.key, limit)


def _roots(
    calls: CallStorage, lease_limit: float, steps: Steps
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
                f"was removed. {_remedy(error)} ({error})"
            ) from error
        yield key, record


def _is_older(calls: CallStorage, key: Digest, limit: float) -> bool:
    try:
        return calls.entry(key).modified <= limit
    except KeyError:
        return False


def _remedy(error: ParcelError) -> str:
    if isinstance(error, CorruptParcel) and error.newer:
        return (
            "Upgrade fleche, or evict() what is in verify().untrusted if nobody uses a newer one."
        )
    if isinstance(error, SignatureError):
        return (
            "Use the secret that signed it, or evict() what is in verify().untrusted if nobody "
            "trusts that any more."
        )
    return "verify(repair=True) removes damaged records."
