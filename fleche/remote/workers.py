"""Threads that do the server's work, made when they are needed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread

__all__ = ["Workers"]

log = logging.getLogger("fleche.remote.server")

IDLE_SECONDS = 5.0


class Workers:
    """A pool without a size: a job starts at once, on an idle thread or a new one.

    Whoever brings the jobs bounds their number. So a job may wait, for its client say, as long as
    it likes: it keeps no other waiting.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = Condition(Lock())
        self._threads = 0
        self._idle = 0
        self._finishing = False

    def run(self, job: Callable[[], None]) -> None:
        """Run ``job`` in a thread; what it raises is logged.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            Thread(target=self._work, name=f"{self._name} worker", daemon=True).start()
            self._threads += 1

    def finish(self, timeout: float) -> None:
        """Wait for the jobs to end, but not longer than ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
            while self._threads and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:
                log.exception("a job of the server failed")

    def _next(self) -> Callable[[], None] | None:
        """Return the next job; ``None`` when this thread is to end."""
        with self._changed:
            self._idle += 1
            while not self._jobs:
                if self._finishing or not self._changed.wait(IDLE_SECONDS):
                    break
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None
