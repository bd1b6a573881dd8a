"""Collecting garbage: removing values that no call refers to, while others save and load.

Why :func:`collect` takes nothing that is needed:

- A value that is stored, or found to be here already, during the last ``grace`` seconds is left
  alone, by the clock of the storage. A call that stores everything in one operation has this long
  from the first value to its entry, and a call that stores its arguments first, under a pin, from
  the result to the entry.
- A call that runs for longer than that has a pin, which was there before its arguments were. The
  pin goes only after the entry has come, and the collector reads all entries twice: a call that was
  running when the first reading began shows its pin there, or its entry in the second. A call that
  began later stored or touched its arguments after that, and they are too young.
- The age is looked at once more by the storage that deletes (``Storage.delete_older``), so that a
  value that is touched after it was chosen stays.
- If an entry cannot be read, it is not known what it refers to, and nothing is removed.
- A shared buffer goes only if no value that is left refers to it. The heads are read after the
  garbage among the values has gone: a value that was touched in time is left, and speaks for its
  buffers, and one that is stored from then on had its buffers stored or touched before, which makes
  them too young. A value that is not trusted here speaks for its buffers all the same; one whose
  head is damaged can never be opened, and needs none. If only a newer fleche can read what a value
  needs, no buffer goes. A parcel that travels with its record needs its buffers as the entry does.
- A value that its storage does not know is made known before, and is as old as its file: a writer
  makes it known before that is there.
- The copies that are kept of files (:class:`fleche.File`) go when their content has gone, unless a
  file that is alive, in any process of this machine, names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from fleche.caches.maintenance._index import ReferenceIndex, Steps, advise
from fleche.caches.maintenance._reports import Gc, GcReport
from fleche.digest import Address
from fleche.errors import ParcelError, StorageError
from fleche.parcel import sweep_files
from fleche.storage import CallStorage, Entry, ValueStorage

if TYPE_CHECKING:
    from fleche.caches._backend import Progress

__all__ = ["collect"]


def collect(
    values: ValueStorage, calls: CallStorage, task: Gc, progress: Progress | None = None
) -> GcReport:
    """Remove the values that no entry refers to.

    Raises:
        StorageError: an entry cannot be read, so nothing was removed; or a value of a newer fleche,
            so no buffer was.
    """
    steps = Steps(progress)
    if not task.dry_run:
        with suppress(StorageError):  # where nothing can be written, nothing is to be collected
            values.adopt()
    limit = values.now() - task.grace
    pin_limit = calls.now() - task.pin_age
    entries = list(values.entries())
    index = ReferenceIndex(calls, steps)
    index.read()
    index.read()
    for key, error in index.unreadable.items():
        raise StorageError(
            f"call {key[:12]} cannot be read, so it is not known which values it needs; nothing "
            f"was removed. {advise(error)} ({error})"
        ) from error
    expired: set[str] = set()
    if index.pins:
        ages = ((each.key, each.modified) for each in calls.entries())
        expired = {key for key, age in ages if key in index.pins and age <= pin_limit}
    if not task.dry_run and expired:
        expired = calls.delete_older(dict.fromkeys(expired, pin_limit))
    for key in expired:
        index.discard(key)
    unneeded = [each for each in entries if not index.is_needed(each.key)]
    old = [each for each in unneeded if each.modified <= limit]
    doomed = [each for each in old if len(each.key) > _DIGEST]
    buffers = [each for each in old if len(each.key) <= _DIGEST]
    removed = _remove(values, doomed, limit, steps, dry_run=task.dry_run)
    if buffers:
        gone = {each.key for each in (*removed, *buffers)}
        needed = _needed_buffers(values, (e.key for e in entries if e.key not in gone))
        garbage = [each for each in buffers if each.key not in needed]
        removed += _remove(values, garbage, limit, steps, dry_run=task.dry_run)
    if values.packing.place and not task.dry_run:
        sweep_files(
            values.packing.place,
            limit,
            lambda hashed: bool(values.contains_many([Address.of(hashed)])),
        )
    if not task.dry_run:
        for storage in (values, calls):
            with suppress(StorageError):  # what is left takes room, and does no harm
                storage.sweep()
    return GcReport(
        removed=len(removed),
        freed=sum(each.size for each in removed),
        kept=len(entries) - len(removed),
        pins=len(expired),
        young=_size_of_young(values, entries, unneeded, limit),
    )


_DIGEST = 64
"""The address of a shared buffer is a digest alone, that of a value is longer."""


def _needed_buffers(values: ValueStorage, keys: Iterable[str]) -> set[Address]:
    """Return the buffers that some values refer to."""
    needed: set[Address] = set()
    for _, refs in values.buffer_refs(key for key in keys if len(key) > _DIGEST):
        if isinstance(refs, ParcelError):
            raise StorageError(
                "a value cannot be read, so it is not known which buffers it needs; no buffer was "
                f"removed. {advise(refs)} ({refs})"
            ) from refs
        needed.update(refs.references)
    return needed


def _size_of_young(
    values: ValueStorage, entries: list[Entry], unneeded: list[Entry], limit: float
) -> int:
    """Return how many bytes, of values and their buffers, only their age has saved."""
    young = {each.key: each.size for each in unneeded if each.modified > limit}
    buffers = {key for key in young if len(key) <= _DIGEST}
    needed: set[Address] = set()
    if buffers:
        others = {each.key for each in entries}.difference(each.key for each in unneeded)
        for _, refs in values.buffer_refs(key for key in others if len(key) > _DIGEST):
            if not isinstance(refs, ParcelError):
                needed.update(refs.references)
    return sum(size for key, size in young.items() if key not in needed)


def _remove(
    values: ValueStorage, entries: list[Entry], limit: float, steps: Steps, *, dry_run: bool
) -> list[Entry]:
    """Remove those entries that are as old as they were, unless told not to; return which."""
    if dry_run or not entries:
        return entries
    gone = values.delete_older({each.key: limit for each in entries})
    for _ in entries:
        steps.step()
    return [each for each in entries if each.key in gone]
