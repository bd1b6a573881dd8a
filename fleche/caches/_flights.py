"""One at a time for each key."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

__all__ = ["Flights"]


class Flights:
    """Keeps several threads from doing the same work at the same time.

    The first thread to join a key leads. Others wait until it is through and then go on all at
    once: they find what the leader left, or have the same work to do each for itself.
    """

    def __init__(self) -> None:
        self._flying: dict[Hashable, Event] = {}
        self._lock = Lock()

    @contextmanager
    def join(self, key: Hashable) -> Iterator[bool]:
        """Lead, or wait for whoever leads; yields whether this thread leads."""
        with self._lock:
            landed = self._flying.get(key)
            if landed is None:
                mine = self._flying[key] = Event()
        if landed is not None:
            landed.wait()
            yield False
            return
        try:
            yield True
        finally:
            with self._lock:
                del self._flying[key]
            mine.set()
