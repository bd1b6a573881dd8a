"""Who called: the line of the user's that a warning is about, however deep it was found."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["calling_frame", "warn_caller"]

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
