"""Signs of life: when the peer was heard, when to ask it for one, when to give it one."""

from __future__ import annotations

import time

__all__ = ["Pulse"]

TELL_SECONDS = 1.0


class Pulse:
    """When signs of life went each way.

    A client asks a silent server for one with a PING. It would wait for an answer in vain while a
    long frame is on its slow way to the server: the PING is queued behind it. So the server tells
    by itself, now and then, that bytes arrive.
    """

    def __init__(self) -> None:
        self._heard = self._asked = self._told = time.monotonic()

    def hear(self) -> None:
        """Take note that bytes have come."""
        self._heard = time.monotonic()

    def silence(self, began: float) -> float:
        """Return for how many seconds nothing has come to who waits since ``began``."""
        return time.monotonic() - max(self._heard, began)

    def shall_ask(self, every: float) -> bool:
        """Tell whether it is time to ask, as is done once in ``every`` seconds at most."""
        now = time.monotonic()
        if now - self._asked < every:
            return False
        self._asked = now
        return True

    def shall_tell(self) -> bool:
        """Tell whether it is time to say that bytes come."""
        if self._heard - self._told < TELL_SECONDS:
            return False
        self._told = self._heard
        return True
