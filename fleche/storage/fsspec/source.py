"""The bytes of a large object, fetched in ranges as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from fleche.errors import CorruptParcel
from fleche.parcel import Buffer, Seen

__all__ = ["BLOCK", "Fetch", "ObjectSource"]

BLOCK = 8 << 20
"""Bytes of one request."""

_ABREAST = 4

Fetch: TypeAlias = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""Returns the bytes of each range (begin, end), all asked for at once."""


class ObjectSource:
    """An object whose beginning is in memory already, and the rest at the other end of a network.

    No more than a few blocks are in memory at a time, besides what :meth:`take` returns. Nothing is
    open between two requests, so that an object which is removed meanwhile is a :class:`KeyError`.

    Args:
        name: the url, for error messages.
        size: of the whole object, in bytes.
        begun: its first bytes.
        fetch: gets ranges of it.
    """

    mapped = False

    def __init__(self, name: str, size: int, begun: bytes, fetch: Fetch) -> None:
        self.name = name
        self.size = size
        self._begun = memoryview(begun)
        self._fetch: Fetch | None = fetch

    def read(self, offset: int, size: int) -> Buffer:
        """Return up to ``size`` bytes from ``offset``."""
        if offset + size <= len(self._begun):
            return self._begun[offset : offset + size]
        return self.take(offset, size)

    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return the same in fresh memory, fetched in several requests at once."""
        memory = bytearray(max(0, min(size, self.size - offset)))
        position = 0
        for piece in self._pieces(offset, offset + len(memory)):
            if seen:
                seen(piece)
            memory[position : position + len(piece)] = piece
            position += len(piece)
        return memory

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield everything in order."""
        for piece in self._pieces(0, self.size):
            for start in range(0, len(piece), size):
                yield piece[start : start + size]

    def opened(self) -> None:
        """Say goodbye to the object; whoever opened it has what is needed."""
        self.close()

    def close(self) -> None:
        """Fetch no more. Idempotent."""
        self._fetch = None
        self._begun = memoryview(b"")

    def _pieces(self, begin: int, end: int) -> Iterator[memoryview]:
        if self._fetch is None:
            raise ValueError(f"{self.name}: this parcel was closed")
        held = self._begun[begin:end]
        if held:
            yield held
        blocks = [
            (start, min(start + BLOCK, end)) for start in range(begin + len(held), end, BLOCK)
        ]
        for first in range(0, len(blocks), _ABREAST):
            yield from self._fetched(blocks[first : first + _ABREAST])

    def _fetched(self, ranges: list[tuple[int, int]]) -> Iterator[memoryview]:
        if self._fetch is None:
            raise ValueError(f"{self.name}: this parcel was closed")
        for (begin, end), data in zip(ranges, self._fetch(ranges), strict=True):
            if len(data) != end - begin:
                raise CorruptParcel(
                    f"{self.name}: ends after {begin + len(data)} of {self.size} bytes"
                )
            yield memoryview(data)
