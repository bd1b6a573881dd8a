"""Warnings: each once for one function and one reason, at the line that called the function."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from threading import RLock
from typing import Any

from fleche._util import Troubles, calling_frame, renewed_after_fork, sentence
from fleche.errors import FlecheWarning, RemoteConnectionError

__all__ = ["WarnOnce", "is_out_of_stack"]


def is_out_of_stack(error: BaseException) -> bool:
    """Whether an error says that calls are nested too deep, and not that some value is."""
    if not isinstance(error, RecursionError):
        return False
    depth, frame = 0, sys._getframe()  # noqa: SLF001 (public in all but name)
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth > sys.getrecursionlimit() // 3


class WarnOnce:
    """What one function has been warned of.

    Attributes:
        had_outages: whether something was wrong that may be over one day.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._made: set[str] = set()
        self._outages = Troubles()
        self.had_outages = False
        self._lock = renewed_after_fork(RLock())

    def is_new(self, reason: str) -> bool:
        """Return whether nothing was said for ``reason`` yet; from now on something has been."""
        with self._lock:
            was_made = reason in self._made
            self._made.add(reason)
            return not was_made

    def was_made(self, reason: str) -> bool:
        """Whether there was a warning for this reason."""
        return reason in self._made

    def settle(self, *steps: str) -> None:
        """Take note that ``steps`` have succeeded: the next outage may be news."""
        self._outages.succeed(lambda reason: reason.partition(":")[0] in steps)

    def warn(self, reason: str, message: str) -> None:
        """Warn, unless there was a warning for the same reason."""
        if self.is_new(reason):
            self._say(message)

    def _say(self, message: str) -> None:
        frame = calling_frame()
        code = frame.f_code if frame else getattr(self._function, "__code__", None)
        filename = code.co_filename if code else "<unknown>"
        line = frame.f_lineno if frame else getattr(code, "co_firstlineno", 1)
        module = frame.f_globals.get("__name__") if frame else self._function.__module__
        warnings.warn_explicit(message, FlecheWarning, filename, line, module or "fleche")

    def warn_error(self, step: str, error: BaseException, what: str, advice: str) -> None:
        """Warn of ``what`` came of ``error``; the reason is ``step`` and the class of the error."""
        reason = f"{step}:{type(error).__name__}"
        away = isinstance(error, RemoteConnectionError)
        may_be_over = away or isinstance(error, OSError)
        self.had_outages |= may_be_over
        is_new = self._outages.is_new(reason, of_connection=away) if may_be_over else None
        if self.is_new(reason) if is_new is None else is_new:
            self._say(f"{self._name}(): {what}: {type(error).__name__}: {sentence(error)} {advice}")
