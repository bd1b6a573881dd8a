"""Counting hits and computations without a write for each: in memory first, stored now and then."""

from __future__ import annotations

import logging
import os
import time
import weakref
from threading import RLock
from typing import TYPE_CHECKING

from fleche._amounts import shown_bytes, shown_seconds
from fleche._util import at_end, host_name, renewed_after_fork, user_name
from fleche.call import CallRecord
from fleche.storage import Usage

if TYPE_CHECKING:
    from fleche.caches._backend import CacheBackend

__all__ = ["UsageCounter"]

log = logging.getLogger("fleche.caches")
calls_log = logging.getLogger("fleche.calls")

_HOUR = 3600

_PATIENCE = 60.0
"""Seconds after which a save, which writes anyway, also stores what was counted."""

_living: weakref.WeakSet[UsageCounter] = weakref.WeakSet()


class UsageCounter:
    """What one cache object has counted and not stored yet.

    A hit adds to a counter in memory and writes nothing. The counters are stored when the cache is
    closed, when the process ends, before they are read, and at most once a minute along with a
    save. What a process that is killed has counted since is lost, and what was counted in a cache
    that was dropped without being closed.

    Args:
        backend: where they are stored.
    """

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self._cells: dict[tuple[float, str, str | None], list[float]] = {}
        self._lock = renewed_after_fork(RLock())
        self._stored = time.monotonic()
        _living.add(self)

    def hit(self, record: CallRecord, times: int = 1) -> None:
        """Count a stored result that was found; -1 times: that was found, and is no answer."""
        # Summed up at once: to keep records alive for later costs more, in memory that is not used
        # again and in garbage collections.
        place = time.time() // _HOUR, record.name, record.module
        with self._lock:
            cell = self._cells.get(place) or self._cells.setdefault(place, [0, 0, 0.0, 0.0, 0])
            cell[0] += times
            cell[2] += times * (record.duration or 0.0)
            if record.result is not None:
                cell[4] += times * record.result.size
        if times > 0 and calls_log.isEnabledFor(logging.DEBUG):
            size = 0 if record.result is None else record.result.size
            saved = "" if record.duration is None else f"{shown_seconds(record.duration)} saved, "
            calls_log.debug("hit: %s (%s%s)", record.text, saved, shown_bytes(size))

    def miss(self, record: CallRecord) -> None:
        """Count a body that has run, and whose result is stored."""
        place = time.time() // _HOUR, record.name, record.module
        with self._lock:
            cell = self._cells.get(place) or self._cells.setdefault(place, [0, 0, 0.0, 0.0, 0])
            cell[1] += 1
            cell[3] += record.duration or 0.0
        if calls_log.isEnabledFor(logging.DEBUG):
            took = "" if record.duration is None else f"took {shown_seconds(record.duration)}, "
            size = shown_bytes(sum(ref.size for ref in record.values()))
            calls_log.debug("stored: %s (%s%s)", record.text, took, size)
        if time.monotonic() - self._stored > _PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Store what was counted; where that fails, it is forgotten, with a line in the log."""
        self._stored = time.monotonic()
        with self._lock:
            cells, self._cells = self._cells, {}
        if not cells:
            return
        host, user = host_name(), user_name()
        rows = [
            Usage(
                hour=int(hour),
                host=host,
                user=user,
                name=name,
                module=module or "",
                hits=int(hits),
                misses=int(misses),
                saved=saved,
                spent=spent,
                bytes=int(size),
            )
            for (hour, name, module), (hits, misses, saved, spent, size) in cells.items()
        ]
        try:
            self._backend.note_usage(rows)
        except Exception as error:  # noqa: BLE001 (of any cache; counters stop no work)
            log.debug("%r: %d counters of use are lost: %s", self._backend, len(rows), error)

    def forget(self) -> None:
        """In a forked child: leave the counters to the parent, which has them too."""
        self._cells = {}

    def flush_at_exit(self) -> None:
        """Store what was counted, where no other machine has to be asked for that."""
        if self._cells and self._backend.local:
            self.flush()


def _flush_all() -> None:
    for counter in list(_living):
        try:
            counter.flush_at_exit()
        except Exception as error:  # noqa: BLE001 (the process ends)
            log.debug("counters of use are lost: %s", error)


def _forget_all() -> None:
    for counter in list(_living):
        counter.forget()


at_end(_flush_all)
os.register_at_fork(after_in_child=_forget_all)
