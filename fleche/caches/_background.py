"""Sending results to a slow layer while the program goes on."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import copy_context
from itertools import islice

from fleche._amounts import count
from fleche._util import at_end
from fleche.call import CallEntry
from fleche.digest import Digest

__all__ = ["BackgroundWriter"]

log = logging.getLogger("fleche.caches")

MOST = 10_000
"""So many calls wait at most; what comes then is left to push()."""

TOGETHER = 64
"""So many calls are sent at once."""

_living: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()
_is_registered = False


class BackgroundWriter:
    """Sends calls in a thread of its own, in order. At the end of the process it sends the rest.

    Only the entries wait in memory: large values are read from where they are when their turn has
    come. A forked child leaves what waits to its parent.

    Args:
        name: of the layer, for messages.
        send: sends calls, and returns whether all were sent; it tells of failures itself.
        drop: is told how many calls were not taken, and why.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Mapping[Digest, CallEntry]], bool],
        drop: Callable[[int, str], None],
    ) -> None:
        self._name = name
        self._send = send
        self._drop = drop
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._waiting: dict[Digest, CallEntry] = {}
        self._sending = 0
        self._failed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, entries: Mapping[Digest, CallEntry]) -> None:
        """Take calls to be sent; return at once."""
        if self._process != os.getpid():
            self._reset()
        with self._changed:
            why = self._ready_thread() if entries else ""
            room = 0 if why else max(MOST - len(self._waiting), 0)
            taken = dict(islice(entries.items(), room))
            self._waiting.update(taken)
            self._failed |= len(taken) < len(entries)
            self._changed.notify_all()
        if len(taken) < len(entries):
            self._drop(len(entries) - len(taken), why or "too many wait already")

    def _ready_thread(self) -> str:
        """Have a thread that sends; return why there can be none, or an empty text."""
        if self._thread is not None:
            return ""
        thread = threading.Thread(
            target=copy_context().run,  # on behalf of whom a server sends it
            args=(self._run,),
            name=f"fleche writes to {self._name}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more, or the interpreter is ending
            return str(error)
        self._thread = thread
        _register(self)
        return ""

    @property
    def waiting(self) -> int:
        """How many calls have not been sent."""
        return len(self._waiting) + self._sending if self._process == os.getpid() else 0

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits, or so many seconds.

        Returns:
            Whether all was sent that came since the last time that this returned.
        """
        if self._process != os.getpid():
            return True
        with self._changed:
            if not self._changed.wait_for(lambda: not self.waiting, timeout):
                return False
            failed, self._failed = self._failed, False
            return not failed

    def _run(self) -> None:
        while True:
            with self._changed:
                # a thread that has nothing to do for a while ends; the next call begins another
                if not self._changed.wait_for(lambda: bool(self._waiting), timeout=5.0):
                    self._thread = None
                    return
                some = dict(islice(self._waiting.items(), TOGETHER))
                self._sending = len(some)
                for key in some:
                    del self._waiting[key]
            sent = False
            try:
                sent = self._send(some)
            finally:
                with self._changed:
                    self._sending = 0
                    self._failed |= not sent
                    self._changed.notify_all()


def _register(writer: BackgroundWriter) -> None:
    """Have ``writer`` drained at the end of the process, while connections still stand."""
    global _is_registered  # noqa: PLW0603 (once in a process)
    _living.add(writer)
    if not _is_registered:
        _is_registered = True
        # what is registered later runs earlier: finalizers, which close connections, come after
        weakref.finalize(writer, int)
        at_end(_drain_all)


def _drain_all() -> None:
    for writer in list(_living):
        if writer.waiting:
            log.warning(
                "sending %s to %s before the end (what is interrupted is left to push())",
                count(writer.waiting, "result"),
                writer._name,  # noqa: SLF001 (one room)
            )
            try:
                writer.drain()
            except KeyboardInterrupt:
                left = count(writer.waiting, "result is", "results are")
                log.warning("interrupted: %s left to push()", left)
