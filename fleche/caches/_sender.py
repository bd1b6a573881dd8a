"""What a cache remembers of the values that it has sent to its backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic

from fleche.caches._backend import CacheBackend
from fleche.digest import Address

__all__ = ["FEW_CODES", "Sender"]

FEW_CODES = 16
"""Of so many codes the dependencies are kept in memory."""

LATELY = 300.0
"""Seconds; ``gc()`` leaves young values alone for longer."""


class Sender:
    """What one cache object knows of what it has sent to its backend.

    So nothing large is sent twice, and what has proved damaged is sent again.
    """

    REMEMBERED = 10_000
    """So many values that were sent are remembered."""

    def __init__(self, backend: CacheBackend) -> None:
        """Send to ``backend``."""
        self.backend = backend
        self._damaged: set[Address] = set()
        self._sent: dict[Address, float] = {}
        self._told: set[object] = set()

    def lacking(self, addresses: Sequence[Address]) -> list[Address]:
        """Return what must be sent: what is not where saves go, and what has proved damaged.

        The others count as stored just now.
        """
        unusable = [each for each in addresses if each in self._damaged]
        rest = [each for each in addresses if each not in self._damaged]
        return [*unusable, *(self.backend.lacking(rest, keep=True) if rest else ())]

    def note_damage(self, addresses: Iterable[Address]) -> None:
        """Remember that values must be stored anew."""
        self._damaged.update(addresses)

    def note_mended(self, addresses: Iterable[Address]) -> None:
        """Forget that values were damaged: they have been stored anew."""
        self._damaged.difference_update(addresses)

    def has_sent(self, addresses: Iterable[Address]) -> bool:
        """Return whether one of the values was sent, or found to be there, not long ago."""
        return any(each in self._sent for each in addresses)

    def note_sent(self, addresses: Iterable[Address]) -> None:
        """Remember that values were sent, or found to be there."""
        for address in addresses:
            self._sent.pop(address, None)
            self._sent[address] = monotonic()
        while len(self._sent) > self.REMEMBERED:
            with suppress(RuntimeError, StopIteration):  # another thread is at it
                self._sent.pop(next(iter(self._sent)), None)

    def was_sent_lately(self, address: Address) -> bool:
        """Return whether a value was sent so short a time ago that it must still be there."""
        return monotonic() - self._sent.get(address, -inf) < LATELY

    def note_removal(self) -> None:
        """Take no value for still there, since some were removed."""
        self._sent = dict.fromkeys(self._sent, -inf)

    def is_new(self, warning: object) -> bool:
        """Return whether this has not been asked before: what is said once is said now."""
        known = len(self._told)
        self._told.add(warning)
        return len(self._told) > known
