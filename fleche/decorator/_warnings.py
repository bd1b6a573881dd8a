"""Warnings: each once for one function and one reason, at the line that called the function."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any

from fleche._util import calling_frame, renewed_after_fork
from fleche.errors import FlecheWarning, RemoteConnectionError

__all__ = ["FlecheWarning", "WarnOnce", "is_out_of_stack"]


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
        outages: the reasons, among those that were told, that may be over one day.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._made: set[str] = set()
        self.outages: set[str] = set()
        self._lock = renewed_after_fork(Lock())

    def is_new(self, reason: str) -> bool:
        """Tell whether nobody has asked this about ``reason``; from now on somebody has."""
        with self._lock:
            was_made = reason in self._made
            self._made.add(reason)
            return not was_made

    def was_made(self, reason: str) -> bool:
        """Whether there was a warning for this reason."""
        return reason in self._made

    def settle(self, *steps: str) -> None:
        """Take note that ``steps`` have succeeded: the next outage is news."""
        if self.outages:
            with self._lock:
                over = {reason for reason in self.outages if reason.partition(":")[0] in steps}
                self.outages -= over
                self._made -= over

    def warn(self, reason: str, message: str) -> None:
        """Warn, unless there was a warning for the same reason."""
        if not self.is_new(reason):
            return
        frame = calling_frame()
        code = frame.f_code if frame else getattr(self._function, "__code__", None)
        filename = code.co_filename if code else "<unknown>"
        line = frame.f_lineno if frame else getattr(code, "co_firstlineno", 1)
        module = frame.f_globals.get("__name__") if frame else self._function.__module__
        warnings.warn_explicit(message, FlecheWarning, filename, line, module or "fleche")

    def warn_error(self, step: str, error: BaseException, what: str, advice: str) -> None:
        """Warn of ``what`` came of ``error``; the reason is ``step`` and the class of the error."""
        reason = f"{step}:{type(error).__name__}"
        if isinstance(error, OSError | RemoteConnectionError):
            self.outages.add(reason)
        self.warn(
            reason,
            f"{self._name}(): {what}: {type(error).__name__}: {error}. {advice}",
        )
