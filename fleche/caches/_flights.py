"""One at a time for each key."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Event

__all__ = ["Flights"]


class Flights:
    """Keeps several threads from doing the same work at the same time.

    The first thread to join a key leads. Others wait until it is through and then go on all at
    once: they find what the leader left, or have the same work to do each for itself. A forked
    child has none of the threads that lead in its parent, and waits for none.
    """

    def __init__(self) -> None:
        # without a lock, which a child could inherit closed: each step is atomic by itself
        self._flying: dict[tuple[int, Hashable], Event] = {}

    @contextmanager
    def join(self, key: Hashable) -> Iterator[bool]:
        """Lead, or wait for whoever leads; yields whether this thread leads."""
        place, mine = (os.getpid(), key), Event()
        try:  # from here on, so that nobody waits for a leader who was interrupted
            landed = self._flying.setdefault(place, mine)
            if landed is not mine:
                landed.wait()
            yield landed is mine
        finally:
            mine.set()
            if self._flying.get(place) is mine:
                del self._flying[place]
