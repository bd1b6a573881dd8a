"""Small helpers that every layer may use: versions, batches, warnings at the caller's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["__version__", "batched", "calling_frame", "override", "warn_caller"]

__version__ = "0.1.0"

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method: Any) -> Any:
        """Mark a method that implements or replaces one of a base class, for type checkers."""
        return method


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield ``items`` in lists of ``size``, the last one shorter; no more is taken than yielded."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


_OURS = ("fleche.", "asyncio.", "concurrent.futures.", "threading.", "contextlib.")


def calling_frame() -> FrameType | None:
    """Return the nearest frame outside of this package and of what stands between it and a user.

    Returns:
        The frame; ``None`` in a thread of the package's own, which nobody called.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (public in all but name)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if not f"{name}.".startswith(_OURS):
            return frame
        frame = frame.f_back
    return None


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of ``message`` at the line that called into this package.

    Args:
        message: what to say.
        category: of the warning.
    """
    frame = calling_frame()
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__") or "<unknown>",
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
