"""Signals end the demo in an orderly way: once, and not while something is being started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["install", "postponed"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupts:
    def __init__(self) -> None:
        self.came: int | None = None
        self.postponed = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Exit at the first signal; further ones do not disturb the cleaning up."""
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        self.came = number
        self.exit_if_due()

    def exit_if_due(self) -> None:
        """Exit if a signal has come."""
        if self.came is not None and not self.postponed:
            raise SystemExit(128 + self.came)


_interrupts = _Interrupts()


def install() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end this process by :class:`SystemExit`."""
    for number in _SIGNALS:
        signal.signal(number, _interrupts.handle)


@contextmanager
def postponed() -> Iterator[None]:
    """Let a signal wait for the end of the block."""
    _interrupts.postponed = True
    try:
        yield
    finally:
        _interrupts.postponed = False
    _interrupts.exit_if_due()
