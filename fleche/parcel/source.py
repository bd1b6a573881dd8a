"""Where the bytes of a parcel are: in memory, possibly in several pieces, or in a file."""

from __future__ import annotations

import mmap as _mmap
import os
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import Protocol, TypeAlias

from fleche.parcel.failures import explained
from fleche.parcel.memory import allocate

__all__ = ["Buffer", "FileSource", "MemorySource", "Source"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Source(Protocol):
    """Readable bytes of a known size, for one reader at a time.

    ``name`` is for error messages. ``mapped`` says that bytes are pages of a file, loaded when
    touched.
    """

    name: str
    size: int
    mapped: bool

    def read(self, offset: int, size: int) -> Buffer:
        """Return up to ``size`` bytes from ``offset``, contiguous; fewer only at the end."""
        ...

    def take(self, offset: int, size: int) -> Buffer:
        """Return the same as writable memory of its own, to be part of a live object."""
        ...

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield everything in order in pieces of at most ``size`` bytes."""
        ...

    def opened(self) -> None:
        """Say that an object was made of what :meth:`take` returned."""
        ...

    def close(self) -> None:
        """Release the bytes. Idempotent."""
        ...


class MemorySource:
    """Bytes in memory, as a sequence of pieces that need not lie side by side.

    ``owned`` says that nobody else holds the pieces: :meth:`take` then hands them out without a
    copy, and the source is spent as soon as an object was made of them.
    """

    name = "parcel"
    mapped = False

    def __init__(self, pieces: Sequence[memoryview], *, owned: bool = False) -> None:
        self._pieces: tuple[memoryview, ...] | None = tuple(pieces)
        self.size = sum(piece.nbytes for piece in pieces)
        self._owned = owned and not any(piece.readonly for piece in pieces)

    def _held(self) -> tuple[memoryview, ...]:
        if self._pieces is None:
            raise ValueError("this parcel is spent: its memory became part of the object it held")
        return self._pieces

    def read(self, offset: int, size: int) -> Buffer:
        """Return a view where the bytes lie in one piece, a copy where they do not."""
        found: list[memoryview] = []
        for piece in self._held():
            if offset < piece.nbytes:
                part = piece[offset : offset + size]
                found.append(part)
                size -= part.nbytes
                if not size:
                    break
            offset = max(0, offset - piece.nbytes)
        return found[0] if len(found) == 1 else b"".join(found)

    def take(self, offset: int, size: int) -> Buffer:
        """Return the memory itself where it is owned, a copy where it is not."""
        found = self.read(offset, size)
        if self._owned:
            return found
        memory = allocate(len(found))
        memory[:] = found
        return memory

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield views of the pieces."""
        for piece in self._held():
            for start in range(0, piece.nbytes, size):
                yield piece[start : start + size]

    def opened(self) -> None:
        """Spend the memory if it was handed out."""
        if self._owned:
            self.close()

    def close(self) -> None:
        """Drop the references to the memory."""
        self._pieces = None


class FileSource:
    """Bytes in an open file.

    The file may be unlinked or replaced meanwhile: fleche never alters a file in place, so that an
    open one keeps its content. A disk that fails while it is read is a :class:`StorageError`.
    """

    def __init__(self, path: str, *, mmap: bool = False) -> None:
        """Open ``path``; with ``mmap``, :meth:`take` returns copy-on-write pages of the file."""
        self.name = path
        self.mapped = mmap
        self._file = FileIO(path, "rb")
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> Buffer:
        """Return a fresh, writable buffer."""
        buffer = allocate(max(0, min(size, self.size - offset)))
        done = 0
        with explained("read", self.name):
            self._file.seek(offset)
            while done < len(buffer):
                count = self._file.readinto(buffer[done : done + (1 << 30)])
                if not count:
                    break
                done += count
        return buffer[:done]

    def take(self, offset: int, size: int) -> Buffer:
        """Return a fresh buffer, or pages of the file."""
        if not self.mapped or not size:
            return self.read(offset, size)
        lead = offset % _mmap.ALLOCATIONGRANULARITY
        with explained("read", self.name):
            pages = _mmap.mmap(
                self._file.fileno(), size + lead, access=_mmap.ACCESS_COPY, offset=offset - lead
            )
        return memoryview(pages)[lead:]

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield fresh buffers, one at a time in memory."""
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))

    def opened(self) -> None:
        """Close the file; the object has what it needs."""
        self.close()

    def close(self) -> None:
        """Close the file; objects over its pages stay valid."""
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()
