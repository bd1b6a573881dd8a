"""Memory for large values: in large pages, where the system has them."""

from __future__ import annotations

import contextlib
import mmap

__all__ = ["LARGE", "allocate"]

LARGE = 4 << 20
"""Bytes from which on large pages are asked for."""


def allocate(size: int) -> memoryview:
    """Return ``size`` writable zero bytes that nobody else holds.

    Touching fresh memory page by page costs more than the copy into it, so that large blocks come
    in large pages (Linux's transparent huge pages), if there are any.

    Raises:
        MemoryError: there is not so much.
    """
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(bytearray(size))
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError(f"no memory for a value of {size} bytes") from None
    with contextlib.suppress(OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)
