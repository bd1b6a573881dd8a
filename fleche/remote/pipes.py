"""Pipes that hold a whole chunk, where the system allows it."""

from __future__ import annotations

import contextlib

__all__ = ["PIPE_SIZE", "widen"]

PIPE_SIZE = 1 << 20
"""Bytes that a pipe should hold: each switch between reader and writer costs more than copying."""


def widen(descriptor: int) -> None:
    """Enlarge a pipe, if this system can and allows it; what is no pipe is left alone."""
    try:
        from fcntl import F_SETPIPE_SZ, fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError):
        fcntl(descriptor, F_SETPIPE_SZ, PIPE_SIZE)
