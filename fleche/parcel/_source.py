"""Where the bytes of a parcel are: in memory, in a file, or still arriving."""

from __future__ import annotations

import contextlib
import errno
import mmap as _mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from fleche._util import override
from fleche.errors import CorruptParcel, StorageError

__all__ = [
    "BUFFERS",
    "Buffer",
    "FileSource",
    "JoinedSource",
    "MemorySource",
    "Seen",
    "Source",
    "StreamSource",
    "Stretch",
    "UnopenedFile",
    "allocate",
    "explained",
    "explanation",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
BUFFERS = (bytes, bytearray, memoryview)
"""What a :data:`Buffer` is, to tell it from a :class:`Source`."""

Seen: TypeAlias = Callable[[Buffer], object]
"""Is called with each piece of what is read, while it is hot."""

_HOT = 1 << 20
"""Bytes that are read and checked at a time: they are still in a cache of the processor."""

_PIECE = 4 << 20
"""Bytes that are read at a time of what lies in several places."""

_HUGE = 32 << 20
"""Bytes up to which malloc keeps what was freed (the bound of glibc's ``M_MMAP_THRESHOLD``)."""

MIDDLING = 1 << 16
"""Bytes from which on it takes longer to set memory to zero than to ask for it elsewhere."""


def allocate(size: int) -> memoryview:
    """Return ``size`` writable bytes that nothing else holds; what they are at first is undefined.

    Where numpy is there anyway, it gives memory that is not set to zero first, and that often has
    been used before. The largest blocks never are such: the C library gets them from the system,
    each time anew. To touch fresh memory page by page costs more than the copy into it, so that
    these come in large pages (Linux's transparent huge pages), if there are any.

    Raises:
        MemoryError: there is not so much.
    """
    if size <= _HUGE or not hasattr(_mmap, "MADV_HUGEPAGE"):
        empty = getattr(sys.modules.get("numpy"), "empty", None) if size >= MIDDLING else None
        return memoryview(bytearray(size)) if empty is None else memoryview(empty(size, "u1"))
    try:
        pages = _mmap.mmap(-1, size, flags=_mmap.MAP_PRIVATE | _mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError(f"no memory for a value of {size} bytes") from None
    with contextlib.suppress(OSError):
        pages.madvise(_mmap.MADV_HUGEPAGE)
    return memoryview(pages)


_MAKE_ROOM = "free some space, or remove results (fleche evict, then fleche gc)"
_ELSEWHERE = "set read_only = true for this cache, or choose another root in fleche.toml"
_ASK = f"ask its owner for permission, {_ELSEWHERE}"

_HINTS = {
    errno.ENOSPC: f"the disk is full; {_MAKE_ROOM}",
    errno.EDQUOT: f"your quota is used up; {_MAKE_ROOM}",
    errno.EACCES: _ASK,
    errno.EPERM: _ASK,
    errno.EROFS: f"the file system is mounted read-only; {_ELSEWHERE}",
    errno.EFBIG: "the size of files is limited here; raise the limit (ulimit -f)",
    errno.ENAMETOOLONG: "choose a shorter root",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENOTDIR: "a file stands where a directory is needed; move it, or choose another root",
    errno.EISDIR: "a directory stands where a file is needed; move it away",
    errno.ESTALE: "the network file system has lost the file; try again",
    errno.EIO: "the disk or the network file system fails; see the system log",
}


@contextlib.contextmanager
def explained(action: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an :class:`OSError` into a :class:`StorageError` that says what to do.

    Args:
        action: a verb: "read", "write".
        path: the file or directory.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise explanation(action, path, error) from error


def explanation(action: str, path: str | os.PathLike[str], error: OSError) -> StorageError:
    """Return the error into which :func:`explained` turns another one.

    For what each hit does, since a ``with`` block takes longer to enter and to leave.
    """
    hint = _HINTS.get(error.errno or 0)
    if error.errno == errno.ENOSPC and _is_out_of_files(path):
        hint = f"the file system has room for bytes, and for no more files (df -i); {_MAKE_ROOM}"
    reason = error.strerror or str(error)
    return StorageError(
        f"{os.fspath(path)}: cannot {action}: {reason}{f' ({hint})' if hint else ''}"
    )


def _is_out_of_files(path: str | os.PathLike[str]) -> bool:
    for place in Path(path).parents:  # those that could not be made have none
        with contextlib.suppress(OSError, AttributeError):
            found = os.statvfs(place)
            return found.f_bavail > 0 and found.f_files > 0 == found.f_favail
    return False


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

    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return the same as writable memory of its own, to be part of a live object.

        ``seen`` is given every byte in order, in one pass with reading.
        """
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


_nbytes_of = attrgetter("nbytes")
_is_readonly = attrgetter("readonly")


class MemorySource(Source):
    """Bytes in memory, as a sequence of pieces that need not lie side by side.

    ``owned`` says that nothing else holds the pieces: :meth:`take` then hands them out without a
    copy, and the source is spent as soon as an object was made of them.
    """

    mapped = False

    def __init__(
        self, pieces: Sequence[memoryview], *, owned: bool = False, name: str = "parcel"
    ) -> None:
        self.name = name
        self._pieces: tuple[memoryview, ...] | None = tuple(pieces)
        self.size = sum(map(_nbytes_of, pieces))
        self._owned = owned and not any(map(_is_readonly, pieces))

    @override
    def read(self, offset: int, size: int) -> Buffer:
        """Return a view where the bytes lie in one piece, a copy where they do not."""
        pieces = self._pieces
        if pieces is None:
            raise _spent()
        if len(pieces) == 1:
            return pieces[0][offset : offset + size]
        found: list[memoryview] = []
        for piece in pieces:
            if offset < piece.nbytes:
                part = piece[offset : offset + size]
                found.append(part)
                size -= part.nbytes
                if not size:
                    break
            offset = max(0, offset - piece.nbytes)
        return found[0] if len(found) == 1 else b"".join(found)

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return the memory itself where it is owned, a copy where it is not."""
        found = self.read(offset, size)
        if self._owned:
            if seen:
                seen(found)
            return found
        memory = allocate(len(found))
        for start in range(0, len(found), _HOT):
            piece = memoryview(found)[start : start + _HOT]
            if seen:
                seen(piece)
            memory[start : start + len(piece)] = piece
        return memory

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield views that end at multiples of ``size``, or with a piece."""
        if self._pieces is None:
            raise _spent()
        place = 0
        for piece in self._pieces:
            rest = piece
            while rest:
                chunk = rest[: size - place % size]
                yield chunk
                place += chunk.nbytes
                rest = rest[chunk.nbytes :]

    @override
    def opened(self) -> None:
        """Spend the memory if it was handed out."""
        if self._owned:
            self.close()

    @override
    def close(self) -> None:
        self._pieces = None


def _spent() -> ValueError:
    return ValueError("this parcel is spent: its memory became part of the object it held")


class FileSource(Source):
    """Bytes in an open file.

    The file may be unlinked or replaced meanwhile: fleche never alters a file in place, so that an
    open one keeps its content. A disk that fails while it is read is a :class:`StorageError`.
    """

    def __init__(self, path: str, descriptor: int | None = None, *, mmap: bool = False) -> None:
        """Open ``path``.

        Args:
            path: of the file.
            descriptor: of the same file, open already, which is closed with this; ``path`` is then
                but a name.
            mmap: let :meth:`take` return copy-on-write pages of the file, if there are descriptors
                to spare.
        """
        self.name = path
        self._file = FileIO(path if descriptor is None else descriptor, "rb")
        self.mapped = mmap and _may_map(self._file.fileno())
        self.size = os.fstat(self._file.fileno()).st_size

    @override
    def read(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        buffer = allocate(max(0, min(size, self.size - offset)))
        portion = _HOT if seen else 1 << 30
        done = 0
        with explained("read", self.name):
            self._file.seek(offset)
            while done < len(buffer):
                count = self._file.readinto(buffer[done : done + portion])
                if not count:
                    break
                if seen:
                    seen(buffer[done : done + count])
                done += count
        return buffer[:done]

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return a fresh buffer, or pages of the file."""
        if not self.mapped or not size:
            return self.read(offset, size, seen)
        lead = offset % _mmap.ALLOCATIONGRANULARITY
        with explained("read", self.name):
            pages = _mmap.mmap(
                self._file.fileno(),
                size + lead,
                access=_mmap.ACCESS_COPY,
                offset=offset - lead,
                **_UNTRACKED,
            )
        view = memoryview(pages)[lead:]
        if seen:
            seen(view)
        return view

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))

    @override
    def opened(self) -> None:
        """Close the file; the object has what it needs."""
        self.close()

    @override
    def close(self) -> None:
        """Close the file; objects over its pages stay valid."""
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()


_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""With this, a map keeps no descriptor of its file."""


def _may_map(descriptor: int) -> bool:
    """Return whether a map may keep a further descriptor: half of all are left to the program.

    A shell on macOS allows 256 of them.
    """
    if _UNTRACKED:
        return True
    import resource

    try:
        further = os.dup(descriptor)  # the lowest number that is free
    except OSError:
        return False
    os.close(further)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit == resource.RLIM_INFINITY or 2 * further < limit


class UnopenedFile(Source):
    """Bytes of a file that is opened whenever it is read.

    The file must not change meanwhile; if it is shorter than it was, that is an error.
    """

    mapped = False

    def __init__(self, path: str, size: int, owner: object = None) -> None:
        """Read the ``size`` bytes of the file at ``path``, which stays as long as ``owner``."""
        self.name = path
        self.size = size
        self._owner = owner

    @override
    def read(self, offset: int, size: int) -> Buffer:
        with explained("read", self.name), contextlib.closing(FileSource(self.name)) as file:
            return file.read(offset, min(size, self.size - offset))

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        return _collect(self, offset, size, seen)

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        done = 0
        with explained("read", self.name), contextlib.closing(FileSource(self.name)) as file:
            for piece in file.chunks(size):
                done += len(piece)
                yield piece
        if done != self.size:
            raise StorageError(f"{self.name}: it changed while it was stored; compute it again")

    @override
    def opened(self) -> None:
        """Nothing is held."""

    @override
    def close(self) -> None:
        """Nothing is held."""


class Stretch(Source):
    """A part of the bytes of another source, which is closed with it if it is ``owned``."""

    mapped = False

    def __init__(self, source: Source, offset: int, size: int, *, owned: bool = False) -> None:
        """Read the ``size`` bytes from ``offset`` of ``source``."""
        self.name = source.name
        self.size = size
        self._source = source
        self._offset = offset
        self._owned = owned

    @override
    def read(self, offset: int, size: int) -> Buffer:
        return self._source.read(self._offset + offset, max(0, min(size, self.size - offset)))

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        return self._source.take(self._offset + offset, max(0, min(size, self.size - offset)), seen)

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        return (self.read(start, size) for start in range(0, self.size, size))

    @override
    def opened(self) -> None:
        """Close the source, if it is owned."""
        self.close()

    @override
    def close(self) -> None:
        """Close the source, if it is owned."""
        if self._owned:
            self._source.close()


class JoinedSource(Source):
    """Bytes in memory and of other sources, one after the other; those stay open."""

    name = "parcel"
    mapped = False

    def __init__(self, parts: Sequence[Buffer | Source]) -> None:
        """Read ``parts`` as if they lay side by side."""
        self._parts: list[Source] = [
            MemorySource((memoryview(part).cast("B"),)) if isinstance(part, BUFFERS) else part
            for part in parts
        ]
        self.size = sum(part.size for part in self._parts)

    @override
    def read(self, offset: int, size: int) -> Buffer:
        """Return what one part returns, or a copy where it lies in several."""
        found: list[Buffer] = []
        for part in self._parts:
            if offset < part.size and size:
                found.append(part.read(offset, min(size, part.size - offset)))
                size -= len(found[-1])
            offset = max(0, offset - part.size)
        return found[0] if len(found) == 1 else b"".join(found)

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        return _collect(self, offset, size, seen)

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        for part in self._parts:
            yield from part.chunks(size)

    @override
    def opened(self) -> None:
        """Nothing is held that could be spent."""

    @override
    def close(self) -> None:
        """Nothing is held; the parts are their owners'."""


def _collect(source: Source, offset: int, size: int, seen: Seen | None) -> memoryview:
    """Return memory of its own with what is read from ``source``, a piece at a time."""
    memory = allocate(max(0, min(size, source.size - offset)))
    for start in range(0, len(memory), _PIECE):
        piece = source.read(offset + start, min(_PIECE, len(memory) - start))
        if seen:
            seen(piece)
        memory[start : start + len(piece)] = piece
    return memory


class StreamSource(Source):
    """Bytes that come in pieces, once.

    Taken in order with :meth:`chunks`, one piece at a time is in memory. Any other order collects
    everything in memory first.
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

    @override
    def read(self, offset: int, size: int) -> Buffer:
        """Return bytes, waiting for them; what comes before them is kept."""
        if self._memory is not None:
            return self._memory.read(offset, size)
        self._extend(offset + size)
        return bytes(self._begun[offset : offset + size])

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return memory of the whole parcel, collected."""
        if self._memory is None:
            self._extend(self.size)
            self._memory = MemorySource((memoryview(self._begun),), owned=True)
        return self._memory.take(offset, size, seen)

    @override
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

    @override
    def opened(self) -> None:
        self.close()

    @override
    def close(self) -> None:
        self._begun = bytearray()
        if self._memory is not None:
            self._memory.close()


def _cut(piece: Buffer, size: int) -> Iterator[Buffer]:
    view = memoryview(piece)
    return (view[start : start + size] for start in range(0, len(view), size))
