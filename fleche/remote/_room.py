"""The memory that answers take on a server while they wait for a client to read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from fleche.errors import Rejected

__all__ = ["AnswerRoom"]

MOST_HELD = 1 << 23
"""Bytes of answers that wait to be read; while it is so many, no other one is made."""

ABREAST = 3
"""So many answers are made at the same time: each may be as long as a message."""

ABREAST_AFAR = 32
"""The same where they come from other machines, so that one waits less for another."""

SMALL = 1 << 16
"""A shorter answer does not count."""

PATIENCE = 60.0
"""Seconds in which nothing of what waits is read, after which one more is refused."""

_FIRST_LOOK, _LAST_LOOK = 0.25, 2.0
"""Seconds between two looks whether an answer is still wanted: often at first, for a short wait."""


class AnswerRoom:
    """Bounds the answers of one connection that are made and not read, all together.

    An answer is known to be long only when it is made. So no more than a few are made at once, and
    none while many bytes of others wait. What waits is read by a client that keeps to the protocol,
    unless it is in the middle of several long listings: it is told, in the end, that it has to go
    on with those.
    """

    def __init__(self, *, local: bool) -> None:
        self._changed = Condition(Lock())
        self._abreast = ABREAST if local else ABREAST_AFAR
        self._making = 0
        self._held = 0
        self._moved = time.monotonic()

    @contextmanager
    def making(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait until there is room, and count as a maker of an answer meanwhile.

        Args:
            check: raises if the answer is not wanted any more; called now and then.

        Raises:
            Rejected: there was no room, and nothing that waits was read, for a minute.
        """
        began, pause = time.monotonic(), _FIRST_LOOK
        with self._changed:
            while self._making >= self._abreast or self._held >= MOST_HELD:
                self._check(began)
                self._changed.release()
                try:
                    check()
                finally:
                    self._changed.acquire()
                self._changed.wait(pause)
                pause = min(2 * pause, _LAST_LOOK)
            self._making += 1
        try:
            yield
        finally:
            with self._changed:
                self._making -= 1
                self._changed.notify(self._abreast)

    def _check(self, began: float) -> None:
        since = max(began, self._moved)
        if self._held >= MOST_HELD and time.monotonic() - since >= PATIENCE:
            raise Rejected(
                f"{self._held >> 20} MiB of answers on this connection have waited to be read for "
                f"{PATIENCE:.0f} s: go on with the listings that have begun, or close them"
            )

    @contextmanager
    def holding(self, size: int) -> Iterator[Callable[[], None]]:
        """Count an answer of ``size`` bytes while it is sent; call what it yields as it goes on."""
        if size < SMALL:
            yield lambda: None
            return
        self._add(size)
        try:
            yield self._take_note
        finally:
            self._add(-size)

    def _add(self, size: int) -> None:
        with self._changed:
            self._held += size
            self._moved = time.monotonic()
            if size < 0:
                self._changed.notify(self._abreast)

    def _take_note(self) -> None:
        self._moved = time.monotonic()
