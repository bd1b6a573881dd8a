"""Showing what happens: the lines of the log that a person wants to see."""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["verbose"]

_LEVELS = {"fleche": logging.INFO, "fleche.calls": logging.DEBUG}


class _ErrorStream(logging.Handler):
    """Writes to what is ``sys.stderr`` at that moment, which a notebook and a test replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            sys.stderr.write(f"fleche: {self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 (of any stream)
            self.handleError(record)


_handler = _ErrorStream()


class verbose:  # noqa: N801 (used like a function)
    """Show hits, misses and why, what is stored, and connections: ``fleche.verbose()``.

    Each is a line on the error stream. What is shown are the messages of the logger ``fleche`` from
    ``INFO`` on, and those of ``fleche.calls`` from ``DEBUG`` on, which a program may as well send
    elsewhere by means of :mod:`logging`. It holds for the process; as a ``with`` block it ends with
    the block.

    Args:
        on: ``False`` ends it.
        everything: show all messages of fleche from ``DEBUG`` on.
    """

    def __init__(self, on: bool = True, *, everything: bool = False) -> None:
        loggers = {name: logging.getLogger(name) for name in _LEVELS}
        self._before = {name: each.level for name, each in loggers.items()}
        self._was_on = _handler in loggers["fleche"].handlers
        for name, level in _LEVELS.items():
            loggers[name].setLevel((logging.DEBUG if everything else level) if on else 0)
        self._handle(on and not _shows_already())

    def _handle(self, on: bool) -> None:
        logger = logging.getLogger("fleche")
        logger.removeHandler(_handler)
        if on:
            logger.addHandler(_handler)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for name, level in self._before.items():
            logging.getLogger(name).setLevel(level)
        self._handle(self._was_on)


def _shows_already() -> bool:
    """Return whether the program itself writes all messages to the terminal."""
    streams: list[Any] = [getattr(each, "stream", None) for each in logging.getLogger().handlers]
    return any(stream is not None and stream in (sys.stderr, sys.stdout) for stream in streams)
