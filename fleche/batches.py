"""Cutting a stream of things into lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["batched"]

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield ``items`` in lists of ``size``, the last one shorter; no more is taken than yielded."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
