"""How much may be saved before somebody must look how full a cache is."""

from __future__ import annotations

import time
from threading import Lock

__all__ = ["Budget"]

_SHARE = 10
_LOOK_AGAIN = 60.0
"""Seconds after which others may have filled what was free."""


class Budget:
    """What may be saved before somebody must look how full the cache is.

    It is a tenth of what was free when somebody looked: others save too.
    """

    def __init__(self) -> None:
        self._calls = self._bytes = 0.0
        self._until = 0.0
        self._lock = Lock()

    def spend(self, *, calls: int = 0, size: int = 0) -> bool:
        """Take from the budget; tell whether it lasts."""
        with self._lock:
            self._calls -= calls
            self._bytes -= size
            return self._calls >= 0 and self._bytes >= 0 and time.monotonic() < self._until

    def renew(self, calls: float, size: float) -> None:
        """Set the budget to a tenth of what is free."""
        with self._lock:
            self._calls, self._bytes = calls / _SHARE, size / _SHARE
            self._until = time.monotonic() + _LOOK_AGAIN
