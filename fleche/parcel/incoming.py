"""Parcels that are still arriving: what a wire delivers, taken once and checked in passing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleche.errors import CorruptParcel
from fleche.parcel.layout import Parcel
from fleche.parcel.source import Buffer, MemorySource

__all__ = ["IncomingParcel", "StreamSource", "receive"]


class StreamSource:
    """Bytes that come in pieces, once.

    Whoever takes them in order with :meth:`chunks` holds one piece at a time. Whoever wants them
    otherwise makes everything be collected in memory first.
    """

    mapped = False

    def __init__(self, size: int, pieces: Iterable[Buffer], name: str = "incoming parcel") -> None:
        """Expect exactly ``size`` bytes from ``pieces``; no more than needed is ever asked for."""
        self.name = name
        self.size = size
        self._pieces = self._bounded(pieces)
        self._begun = bytearray()
        self._memory: MemorySource | None = None

    def _bounded(self, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
        done = 0
        for piece in pieces:
            done += len(piece)
            if done > self.size:
                raise CorruptParcel(f"{self.name}: more than the {self.size} bytes announced")
            yield piece
            if done == self.size:
                return
        raise CorruptParcel(f"{self.name}: ended after {done} of {self.size} bytes")

    def _extend(self, end: int) -> None:
        while len(self._begun) < min(end, self.size):
            self._begun += next(self._pieces)

    def read(self, offset: int, size: int) -> Buffer:
        """Return bytes, waiting for them; what comes before them is kept."""
        if self._memory is not None:
            return self._memory.read(offset, size)
        self._extend(offset + size)
        return bytes(self._begun[offset : offset + size])

    def take(self, offset: int, size: int) -> Buffer:
        """Return memory of the whole parcel, collected."""
        if self._memory is None:
            self._extend(self.size)
            self._memory = MemorySource((memoryview(self._begun),), owned=True)
        return self._memory.take(offset, size)

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield what has come, then what comes; it is not kept."""
        if self._memory is not None:
            yield from self._memory.chunks(size)
            return
        begun, self._begun = self._begun, bytearray()
        yield from _cut(begun, size)
        if len(begun) < self.size:
            for piece in self._pieces:
                yield from _cut(piece, size)

    def opened(self) -> None:
        """Spend the memory."""
        self.close()

    def close(self) -> None:
        """Drop what was collected."""
        self._begun = bytearray()
        if self._memory is not None:
            self._memory.close()


class IncomingParcel(Parcel):
    """A parcel that checks its bytes as they are taken, so that nothing altered is ever stored."""

    __slots__ = ()

    def chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield all bytes in order, once.

        Raises:
            CorruptParcel: they are not those that the head names.
        """
        return self.checked_chunks(size)


def receive(memory: memoryview, filled: Iterable[Buffer], name: str = "incoming parcel") -> Parcel:
    """Return the parcel that ``memory`` will hold, checked and owned.

    Args:
        memory: of exactly the size of the parcel, held by nobody else.
        filled: yields consecutive parts of ``memory``, as soon as they are filled.
        name: what it is, for error messages.

    Raises:
        CorruptParcel: the bytes are not those of one sound parcel.
    """
    for _ in IncomingParcel(StreamSource(len(memory), filled, name)).chunks():
        pass
    parcel = Parcel.from_bytes(memory, owned=True)
    parcel.checked = True
    return parcel


def _cut(piece: Buffer, size: int) -> Iterator[Buffer]:
    view = memoryview(piece)
    return (view[start : start + size] for start in range(0, len(view), size))
