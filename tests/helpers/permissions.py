"""Tests of permissions, which do not concern root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_somebody"]

_NOBODY = 65534


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be a user whom permissions concern, for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
