"""Files by key in 256 directories, written atomically: ``root/ab/cdef....value``.

Names are lowercase hexadecimal, so that file systems which fold case keep them apart. A writer
fills a file of its own, ``cdef....value.<random>.tmp``, beside the one that it then replaces in one
step; what a killed writer leaves behind is not listed, and is swept later. No file is ever altered
in place: an open one keeps its content.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import PurePath
from typing import cast

from fleche import _turns
from fleche.errors import CorruptParcel
from fleche.parcel import Buffer, FileSource, MemorySource, Source, allocate, explained, explanation
from fleche.storage._base import KEY, REST, SHARD, STALE, TEMPORARY, Entry
from fleche.storage._making import make_directories, make_file, mode_of_group, name_first

__all__ = ["SUFFIXES", "Files", "NewFile", "explained"]

SUFFIXES = {"values": ".value", "calls": ".call"}
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
# Not to wait for a writer where a named pipe stands in the place of a file.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: what is reserved is no part of the file
_RESERVED = 1 << 17
"""From so many bytes on, reserving space takes less time than it saves."""

_TOGETHER = 1 << 18
"""Files of so many bytes are written by one call, for which all of them are in memory. A server may
write as many at once as it has streams."""

_PIECES = 64
"""Pieces that one call writes; every system takes more."""

_DRAFTS = "drafts"
"""The directory of files that have no key yet."""


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NewFile:
    """A file that is being written. Nothing finds it before it has taken its name.

    Attributes:
        files: those among which it will be.
        descriptor: of the file, open.
    """

    def __init__(self, files: Files, path: str) -> None:
        """Make the file under a temporary name."""
        self.files = files
        self._path = path
        self._maker = os.getpid()
        self.descriptor = files.create(path)

    def reserve(self, nbytes: int) -> None:
        """Have the file system set so much space aside at once, if it can.

        Writing is then faster, since no room is sought page by page. A disk that is full, or cannot
        do so, says it when the file is written.
        """
        if nbytes >= _RESERVED and (fallocate := _fallocate()) is not None:
            fallocate(self.descriptor, _KEEP_SIZE, 0, nbytes)

    def write(self, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self.descriptor, view, offset)
            view, offset = view[done:], offset + done

    def take_name(self, path: str) -> None:
        """Be at ``path`` from now on, in place of what is there.

        Raises:
            OSError: what was written is not safe, or it cannot be there.
        """
        if self.descriptor >= 0:
            if self.files.durable:
                _sync(self.descriptor)
            self._close()
        os.replace(self._path, path)
        self._path = ""
        if self.files.durable:
            _sync_directory(os.path.dirname(path))

    def _close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def discard(self) -> None:
        """Remove the file, unless it has taken its name. Idempotent.

        A forked child leaves it to its parent.
        """
        path, self._path = self._path, ""
        if self.descriptor >= 0:
            self._close()
        if path and os.getpid() == self._maker:
            with suppress(OSError):
                os.unlink(path)


class Files:
    """The files below ``root`` whose names end in ``suffix``.

    Args:
        root: the directory; it is made when the first file is written.
        suffix: tells these files from others in the same directory.
        durable: a file that was written survives a power failure.
    """

    def __init__(self, root: str, suffix: str, *, durable: bool = False) -> None:
        self.root = root
        self._suffix = suffix
        self.durable = durable
        self._group: int | None = None

    def path(self, key: str) -> str:
        """Return where the file of ``key`` is, or would be.

        Raises:
            ValueError: ``key`` is not complete; no file has such a name.
        """
        path = self._place(key)
        if path is None:
            raise ValueError(f"{key[:80]!r} is no complete key")
        return path

    def _place(self, key: str) -> str | None:
        """Return the same, or ``None`` if ``key`` is not complete."""
        if not KEY.fullmatch(key):
            return None
        return f"{self.root}/{key[:2]}/{key[2:]}{self._suffix}"

    # -- writing -----------------------------------------------------------------------------------

    def write(self, key: str, chunks: Iterable[Buffer], nbytes: int = 0) -> None:
        """Write the file, or replace it, in one step; a failure leaves no trace.

        Args:
            key: whose file it is.
            chunks: its content; each is one write.
            nbytes: the size of all of them, if it is known.

        Raises:
            StorageError: it could not be written.
        """
        path = self.path(key)
        with explained("write", path):
            file = NewFile(self, self._temporary(path))
            try:
                file.reserve(nbytes)
                if 0 < nbytes <= _TOGETHER:
                    write_together(file.descriptor, list(chunks))
                else:
                    for chunk in chunks:
                        write_all(file.descriptor, chunk)
                file.take_name(path)
            except BaseException:
                file.discard()
                raise

    def begin(self) -> NewFile:
        """Begin a file that will get its name when its content is known.

        Raises:
            OSError: nothing can be written here.
        """
        name = f"{os.urandom(31).hex()}{self._suffix}"
        return NewFile(self, self._temporary(f"{self.root}/{_DRAFTS}/{name}"))

    def finish(self, file: NewFile, key: str) -> None:
        """Let a file of this object be that of ``key``, or replace it, in one step.

        Raises:
            StorageError: it could not be.
        """
        path = self.path(key)
        with explained("write", path):
            try:
                file.take_name(path)
            except FileNotFoundError:
                self._make_directory(os.path.dirname(path))
                file.take_name(path)

    def create(self, path: str) -> int:
        """Make a new file, and its directory if there is none; return its descriptor.

        Raises:
            FileExistsError: it is there already.
        """
        if self._group is None:
            self._group = mode_of_group(self.root)
        try:
            return make_file(path, _NEW, self._group)
        except FileNotFoundError:
            self._make_directory(os.path.dirname(path))
            return make_file(path, _NEW, self._group)

    def _make_directory(self, shard: str) -> None:
        try:
            self._group = make_directories(shard)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):
            for place in (shard, *map(str, PurePath(shard).parents)):
                if os.path.islink(place) and not os.path.exists(place):
                    raise FileNotFoundError(None, _dangling(place)) from None
            raise
        if self.durable:
            _sync_directory(os.path.dirname(shard))

    def _temporary(self, path: str) -> str:
        return f"{path}.{os.urandom(8).hex()}{TEMPORARY}"

    def touch(self, key: str) -> None:
        """Set the age of the file to zero, so that :meth:`remove_older` leaves it.

        Raises:
            FileNotFoundError: there is none, or it is being removed.
            OSError: that is not possible here.
        """
        path = self.path(key)
        os.utime(path)
        os.stat(path)  # its age may have counted between the finding of its name and the touch

    # -- reading -----------------------------------------------------------------------------------

    def source(self, key: str, most: int, *, mmap: bool = False) -> Source | None:
        """Return the content of a file, or ``None`` if there is none.

        Args:
            key: whose file it is.
            most: a file of so many bytes at most is read, and closed; a larger one stays open.
            mmap: let a larger one be loaded when it is touched.

        Raises:
            CorruptParcel: what stands there is no file, or an empty one.
            StorageError: it could not be opened, or read.
        """
        path = self._place(key)
        if path is None:
            return None
        try:
            opened = _open(path)
            if opened is None:
                return None
            descriptor, size = opened
            if size > most:
                _turns.leave()
                return FileSource(path, descriptor, mmap=mmap)
            try:
                memory = allocate(size)
                done = os.readv(descriptor, (memory,))
                while done < size and (count := os.readv(descriptor, (memory[done:],))):
                    done += count
            finally:
                os.close(descriptor)
        except OSError as error:
            raise explanation("read", path, error) from error
        return MemorySource((memory[:done],), owned=True, name=path)

    def read(self, key: str, most: int | None = None) -> bytes | None:
        """Return the content of a file, or ``None`` if there is none.

        Args:
            key: whose file it is.
            most: of a larger file no byte is read, and the result is empty.

        Raises:
            CorruptParcel: what stands there is no file, or an empty one.
            StorageError: it could not be read.
        """
        path = self._place(key)
        if path is None:
            return None
        try:
            opened = _open(path)
            if opened is None:
                return None
            descriptor, size = opened
            try:
                return b"" if most is not None and size > most else _read_all(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise explanation("read", path, error) from error

    def find(self, key: str) -> Entry | None:
        """Return the size and age of a file that is there and not empty.

        A power failure may leave empty ones.
        """
        path = self._place(key)
        if path is None:
            return None
        with explained("read", path):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                return None
        if not status.st_size or not stat.S_ISREG(status.st_mode):
            return None
        return Entry(key, status.st_size, status.st_mtime)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the size and age of every file; those that vanish meanwhile are left out."""
        for key, entry in self._scan(prefix):
            with explained("read", entry.path):
                try:
                    status = entry.stat(follow_symlinks=not _is_dangling(entry))
                except FileNotFoundError:
                    continue
            if not stat.S_ISDIR(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                yield Entry(key, size, status.st_mtime)

    def walk(self) -> Iterator[str]:
        """Yield the keys of all files, without looking at the files themselves."""
        return (key for key, _ in self._scan(""))

    # -- removing ----------------------------------------------------------------------------------

    def remove(self, key: str) -> None:
        """Remove the file if it exists."""
        path = self._place(key)
        if path is None:
            return
        with explained("remove", path), suppress(FileNotFoundError):
            os.unlink(path)

    def remove_older(self, key: str, limit: float) -> bool:
        """Remove the file unless it was modified after ``limit``; return whether it went.

        The file is set aside before its age counts, so that a writer that touches it at this moment
        either does so in time, and it is put back, or finds it gone and writes it again.
        """
        path = self._place(key)
        if path is None:
            return False
        with explained("remove", path):
            status = _status(path)
        if status is None or stat.S_ISDIR(status.st_mode) or status.st_mtime > limit:
            return False
        aside = self._temporary(path)
        with explained("remove", path):
            try:
                os.rename(path, aside)
            except FileNotFoundError:
                return False
            status = _status(aside)
            if status is None:  # swept, for its age
                return True
            touched = status.st_mtime > limit
            if touched:
                name_first(aside, path)  # unless a newer file has it by now
            with suppress(FileNotFoundError):
                os.unlink(aside)
        return not touched

    def sweep(self, older: float = STALE) -> int:
        """Remove temporary files that nothing has written to for ``older`` seconds; count them."""
        return self.sweep_drafts(older) + sum(
            self._sweep_directory(shard, older) for shard in self.shards()
        )

    def sweep_drafts(self, older: float = STALE) -> int:
        """Do so with those that had been begun before it was known what they would be."""
        return self._sweep_directory(f"{self.root}/{_DRAFTS}", older)

    def _sweep_directory(self, directory: str, older: float) -> int:
        begun = [entry for entry in listed(directory) if self._is_temporary(entry.name)]
        return self._remove_stale(directory, begun, older)

    def _remove_stale(self, directory: str, begun: list[os.DirEntry[str]], older: float) -> int:
        """Remove those temporary files of a directory that are ``older`` seconds old; count them.

        A machine whose clock is ahead must not take what others are writing, so the clock of the
        file system is asked; but only where there is a file that is old by that of this machine.
        """
        if not any(_is_stale(entry, time.time() - older) for entry in begun):
            return 0
        limit = self._now_in(directory) - older
        return sum(_remove_if_stale(entry, limit) for entry in begun)

    def now(self) -> float:
        """Return the time by the clock of the file system: the age of a new file.

        Where there is none yet, or none can be made, it is that of this machine.
        """
        shard = next(self.shards(), None)
        return time.time() if shard is None else self._now_in(shard)

    def _now_in(self, directory: str) -> float:
        probe = self._temporary(f"{directory}/{'0' * 62}{self._suffix}")
        with suppress(OSError):
            descriptor = os.open(probe, _NEW, 0o666)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(probe)
        return time.time()

    # -- listing -----------------------------------------------------------------------------------

    def shards(self, prefix: str = "") -> Iterator[str]:
        """Yield the directories that hold files whose keys begin with ``prefix``."""
        if len(prefix) >= 2:
            if SHARD.fullmatch(prefix[:2]):
                yield f"{self.root}/{prefix[:2]}"
            return
        for entry in listed(self.root):
            if SHARD.fullmatch(entry.name) and entry.name.startswith(prefix):
                yield entry.path

    def key(self, shard: str, name: str) -> str | None:
        """Return the key of the file ``name`` in a directory, or ``None`` if it is not of ours."""
        rest = name.removesuffix(self._suffix)
        if rest == name or not REST.fullmatch(rest):
            return None
        return shard[-2:] + rest

    def _scan(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        if not prefix:
            self.sweep_drafts()
        for shard in self.shards(prefix):
            begun: list[os.DirEntry[str]] = []
            for entry in listed(shard):
                if (key := self.key(shard, entry.name)) is not None:
                    if key.startswith(prefix):
                        yield key, entry
                elif self._is_temporary(entry.name):
                    begun.append(entry)
            self._remove_stale(shard, begun, STALE)

    def _is_temporary(self, name: str) -> bool:
        begun, _, _ = name.partition(self._suffix)
        return name.endswith(TEMPORARY) and begun != name and bool(REST.fullmatch(begun))


def listed(directory: str) -> list[os.DirEntry[str]]:
    """Return what is in ``directory``; nothing if there is no such directory."""
    with explained("list", directory):
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """Return the function of the C library that reserves space; ``None`` outside of Linux.

    ``os.posix_fallocate`` is none: where a file system cannot reserve, it writes to each block.
    """
    try:
        import ctypes

        library = ctypes.CDLL(None)
    except (ImportError, OSError):  # a Python that was built without libffi, or statically
        return None
    for name in ("fallocate64", "fallocate"):  # the first has 64 bits everywhere, if it is there
        if hasattr(library, name):
            function = getattr(library, name)
            function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            return cast("Callable[[int, int, int, int], int]", function)
    return None


def write_all(descriptor: int, data: Buffer) -> None:
    """Write every byte: a disk that is nearly full takes the first part of them and says so."""
    done = os.write(descriptor, data)
    if done < len(data):
        view = memoryview(data).cast("B")
        while done < len(view):
            done += os.write(descriptor, view[done:])


def write_together(descriptor: int, pieces: Sequence[Buffer]) -> None:
    """Write every byte of several pieces, in one call if the system takes so many."""
    done = os.writev(descriptor, pieces[:_PIECES])
    if len(pieces) > _PIECES or done < sum(map(len, pieces)):
        rest = memoryview(b"".join(pieces))[done:]
        write_all(descriptor, rest)


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    rest = iter(partial(os.read, descriptor, size), b"")
    return b"".join((data, *rest))


def _open(path: str) -> tuple[int, int] | None:
    """Open the file at ``path``; return its descriptor and size, or ``None`` if there is none.

    Raises:
        CorruptParcel: what stands there is no file, or an empty one.
    """
    descriptor = _descriptor(path)
    if descriptor is None:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return descriptor, status.st_size
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptParcel(f"{path}: {_stranger(status)}")
    raise CorruptParcel(f"{path}: an empty file, as a power failure may leave one")


def _descriptor(path: str) -> int | None:
    """Open what is at ``path``; ``None`` if there is nothing.

    Raises:
        CorruptParcel: a link stands there that leads nowhere, or what cannot be opened.
    """
    try:
        return os.open(path, _READ | _NO_LINK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP, errno.ENODEV):
            raise CorruptParcel(f"{path}: {_stranger(os.stat(path))}") from None
        if not os.path.islink(path):
            raise
    try:
        return os.open(path, _READ)
    except FileNotFoundError:
        raise CorruptParcel(f"{path}: {_dangling(path)}") from None


def _stranger(status: os.stat_result) -> str:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    return f"{kind} stands where a file is needed; remove it"


def _status(path: str) -> os.stat_result | None:
    """Return what is known of a file, or of a link that leads nowhere; ``None`` if it is gone."""
    for look in (os.stat, os.lstat):
        with suppress(FileNotFoundError):
            return look(path)
    return None


def _dangling(link: str) -> str:
    try:
        target = os.readlink(link)
    except OSError:
        target = "?"
    return f"a link to {target}, which does not exist; mount or make that, or remove the link"


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_stale(entry: os.DirEntry[str], limit: float) -> bool:
    with suppress(OSError):  # gone meanwhile
        return entry.stat().st_mtime <= limit
    return False


def _remove_if_stale(entry: os.DirEntry[str], limit: float) -> bool:
    with suppress(OSError):  # gone meanwhile, or not ours to remove
        if os.stat(entry.path).st_mtime <= limit:
            os.unlink(entry.path)
            return True
    return False


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Wait until what was written is safe.

    On macOS fsync() leaves it to the disk when that writes what it was given; see fcntl(2).
    """
    import fcntl

    if hasattr(fcntl, "F_FULLFSYNC"):
        with suppress(OSError):  # a file system that cannot, as one of a network
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
