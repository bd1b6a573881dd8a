"""Results that are files: :class:`File`, and the copies that are kept of what it names.

The content of a file is a buffer like any other: it is stored once, under its BLAKE3, and streams
through every layer. Only its two ends are files: what the function has written, and the *kept* copy
that ``path`` names, read-only, in a directory beside the cache::

    <place>/ab/abcdef.../trajectory.xyz     the file under its own name, below its BLAKE3
    <place>/live/<random>                   what one process still uses, locked as long as it lives

A kept copy is taken for what it is called only if its bytes still are those: what has been altered
is replaced. It goes with ``gc()`` when the cache no longer holds the content, unless a
:class:`File` that is alive, in any process of this machine, names it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from blake3 import blake3
from xxhash import xxh3_128

from fleche._amounts import count
from fleche._util import renewed_after_fork, user_cache_directory
from fleche.digest import Digest, FileContent, hash_threads, read_content
from fleche.errors import CorruptParcel, StorageError, UnpackError
from fleche.parcel._source import Buffer, Source, UnopenedFile, explained

if TYPE_CHECKING:
    from pathlib import Path

    from fleche.parcel._layout import Parcel

__all__ = ["File", "FileBytes", "FileSection", "is_kept", "kept_file", "sweep_files"]

_PIECE = 8 << 20
_OLD = 30 * 86400.0
"""Seconds after which copies in the user's cache directory go that nothing has asked for."""

_SHARD = re.compile("[0-9a-f]{2}")
_HASH = re.compile("[0-9a-f]{64}")


class File:
    """A file as a value: ``return fleche.File("trajectory.xyz")``.

    It counts by its name and its bytes, wherever it is. When it is stored, and when it comes from a
    cache, :attr:`path` names a read-only copy beside the cache, which stays as long as this object
    lives.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file at ``path``, which is there already.

        Raises:
            OSError: there is no such file.
            ValueError: it is no file, or its name is one that no other system could have.
        """
        text = os.path.abspath(os.fspath(path))
        with open(text, "rb"):  # a directory is an error, and so is what cannot be read
            pass
        if not os.path.isfile(text):
            raise ValueError(f"{text}: not a regular file")
        self._path = text
        self._content: FileContent | None = None
        self._measured: tuple[object, FileContent] | None = None
        _check_name(self.name)

    @property
    def path(self) -> Path:
        """Where the file is, on this machine. Do not write to it: :meth:`copy_to` makes a copy."""
        from pathlib import Path  # slow to import, and needed by no other hit

        return Path(self._path)

    @property
    def name(self) -> str:
        """The name with its suffix, without directories."""
        return os.path.basename(self._path)

    @property
    def size(self) -> int:
        """Bytes."""
        return os.stat(self._path).st_size if self._content is None else self._content.size

    def open(self, mode: str = "rb", **options: Any) -> IO[Any]:
        """Open the file to read it.

        Args:
            mode: ``"rb"`` or ``"r"``.
            options: as for :func:`open`.

        Raises:
            ValueError: the mode is one for writing.
        """
        if set(mode) - set("rbt"):
            raise ValueError(f"open({mode!r}): a File is read-only; copy_to() makes a copy of it")
        return open(self._path, mode, **options)

    def copy_to(self, target: str | os.PathLike[str]) -> Path:
        """Write a copy that may be changed; return its path.

        Args:
            target: where; in a directory the copy has the name of this file. A file that is there
                is replaced.
        """
        import shutil
        from pathlib import Path

        place = os.path.join(target, self.name) if os.path.isdir(target) else os.fspath(target)
        directory = os.path.dirname(os.path.abspath(place))
        temporary = os.path.join(directory, f".{os.urandom(8).hex()}.tmp")
        try:
            shutil.copyfile(self._path, temporary)
            os.replace(temporary, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        return Path(place)

    @property
    def content(self) -> FileContent:
        """What the file holds, by its BLAKE3.

        Raises:
            ContentError: it cannot be read.
        """
        if self._content is not None:
            return self._content
        seen = _stamp(self._path)
        if self._measured is None or self._measured[0] != seen:
            self._measured = seen, read_content(self._path)
        return self._measured[1]

    def __fspath__(self) -> str:
        return self._path

    def __digest__(self) -> object:
        self._measured = None  # a change within one tick of the clock shows only in the bytes
        return self.name, self.content

    def __fleche_summary__(self) -> str:
        return f"File {self.name}, {count(self.size, 'byte', commas=False)}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File):
            return NotImplemented
        return (self.name, self.size) == (other.name, other.size) and self.content == other.content

    def __hash__(self) -> int:
        return hash((self.name, self.size))

    def __repr__(self) -> str:
        return f"File({self._path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the path, for processes of this machine; parcels hold the bytes."""
        return _named, (self._path, self._content)

    def take(self, path: str, content: FileContent) -> None:
        """From now on name the kept copy at ``path``."""
        self._path, self._content = path, content
        self._use = Use(content.hashed.hex())


def _stamp(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _named(path: str, content: FileContent | None) -> File:
    file = File(path)
    if content is not None:
        file.take(path, content)
        place = os.path.dirname(os.path.dirname(os.path.dirname(path)))
        with suppress(OSError):
            _live.note(place, content.hashed.hex())
    return file


def _check_name(name: str) -> None:
    """Refuse what is more than a name: a stream may come from elsewhere.

    Raises:
        ValueError: it is.
    """
    if not name or name in (".", "..") or any(each in name for each in "/\\\0"):
        raise ValueError(f"{name!r} is no name of a file")
    name.encode("utf-8")  # what cannot be written elsewhere, UnicodeEncodeError says


# -- into a parcel ---------------------------------------------------------------------------------


class ContentMarker(bytearray):
    """Stands for the content of a file among the buffers of a pickle stream."""

    file: File


def reduce_file(file: File) -> tuple[Any, ...]:
    """Reduce a file to its name, its hash, and a buffer that stands for its content."""
    import pickle

    marker = ContentMarker(1)
    marker.file = file
    return kept_file, (file.name, file.content.hashed, pickle.PickleBuffer(marker))


class FileBytes:
    """The content of a file, kept; among the buffers of a value it stands where others have memory.

    Attributes:
        path: of the kept copy.
        nbytes: its size.
        name: its BLAKE3.
    """

    def __init__(self, file: File, place: str) -> None:
        """Keep a copy of ``file`` in ``place``, and let ``file`` name that.

        Raises:
            StorageError: it could not be copied, or changed meanwhile.
        """
        content = file.content
        keep(file.name, content.hashed.hex(), lambda: _pieces(file.path), place, file)
        self._file = file  # which keeps the copy where it is
        self.path = os.fspath(file)
        self.nbytes = content.size
        self.name = Digest(content.hashed.hex())
        self._weak: bytes | None = None

    @property
    def weak(self) -> bytes:
        """The XXH3-128 of the content."""
        if self._weak is None:
            hasher = xxh3_128()
            for piece in self.chunks(_PIECE):
                hasher.update(piece)
            self._weak = hasher.digest()
        return self._weak

    def chunks(self, size: int) -> Iterator[Buffer]:
        """Yield the content in pieces of at most ``size`` bytes."""
        return _pieces(self.path, size)

    @property
    def source(self) -> Source:
        """The content, read when it is wanted; it keeps the copy where it is."""
        return UnopenedFile(self.path, self.nbytes, self)

    def read(self) -> Buffer:
        """Return the content as memory, which is for what is small."""
        return self.source.read(0, self.nbytes) if self.nbytes else b""


def _pieces(path: str | Path, size: int = _PIECE) -> Iterator[Buffer]:
    with explained("read", path), open(path, "rb", buffering=0) as file:
        while piece := file.read(size):
            yield piece


# -- out of a parcel -------------------------------------------------------------------------------


class FileSection:
    """The content of a file inside a parcel; among buffers it stands where others have memory."""

    def __init__(self, parcel: Parcel | None, index: int, place: str) -> None:
        self._parcel = parcel
        self._index = index
        self.place = place

    def pieces(self) -> Iterable[Buffer]:
        """Return the content in pieces, checked at their end.

        Raises:
            CorruptParcel: the content is damaged, or not here.
        """
        if self._parcel is None:
            raise CorruptParcel("the content of a file, which was kept a moment ago, is gone")
        return self._parcel.content_chunks(self._index)


def kept_file(name: str, hashed: bytes, section: FileSection) -> File:
    """Return the file of a stream, its content kept in the place of the cache.

    Raises:
        CorruptParcel: its content is not what the stream says.
        StorageError: it cannot be written.
    """
    try:
        _check_name(name)
    except ValueError as error:
        raise UnpackError(
            f"a stream names a file so that it could lead elsewhere: {error}"
        ) from None
    file = File.__new__(File)
    keep(name, hashed.hex(), section.pieces, section.place, file)
    return file


# -- kept copies -----------------------------------------------------------------------------------


def _directory(place: str, hashed: str) -> str:
    return os.path.join(place, hashed[:2], hashed)


def is_kept(place: str, hashed: str) -> bool:
    """Return whether there is a copy of the content ``hashed``, and let it count as just used."""
    return any(_find(each, hashed) for each in _places(place))


def _places(place: str) -> tuple[str, ...]:
    """Return where copies are kept: beside the cache, or, where that cannot be, for the user."""
    own = user_cache_directory("kept")
    return (place, own) if place else (own,)


def _find(place: str, hashed: str) -> str | None:
    """Return the path of a sound copy, of any name."""
    directory = _directory(place, hashed)
    try:
        names = [name for name in os.listdir(directory) if not name.endswith(".tmp")]
        with suppress(OSError):
            os.utime(directory)
    except OSError:
        return None
    return next((path for name in names if (path := _sound(directory, name, hashed))), None)


def _sound(directory: str, name: str, hashed: str) -> str | None:
    path = os.path.join(directory, name)
    with suppress(Exception):
        if not os.path.islink(path) and read_content(path).hashed.hex() == hashed:
            return path
    return None


def keep(
    name: str,
    hashed: str,
    pieces: Callable[[], Iterable[Buffer]],
    place: str,
    file: File,
) -> None:
    """Let ``file`` name a kept copy, which is written if it is not there.

    Args:
        name: of the file.
        hashed: the BLAKE3 of its content in hexadecimal.
        pieces: returns the content.
        place: the directory; empty: that of the user.
        file: what will name the copy.

    Raises:
        CorruptParcel: the content is not that of ``hashed``.
        StorageError: it cannot be written.
    """
    failure: OSError | None = None
    use = Use(hashed)
    for each in _places(place):
        directory = _directory(each, hashed)
        path = os.path.join(directory, name)
        try:
            _live.note(each, hashed)
            if _sound(directory, name, hashed) is None:
                _write(directory, name, hashed, _find(each, hashed), pieces)
        except OSError as error:
            failure = failure or error
            continue
        if each != place:
            _live.tidy(each)
        file.take(path, FileContent("file", os.stat(path).st_size, bytes.fromhex(hashed)))
        return
    del use
    assert failure is not None
    if isinstance(failure, StorageError):
        raise failure
    with explained("write", _directory(place, hashed)):
        raise failure


def _write(
    directory: str,
    name: str,
    hashed: str,
    other: str | None,
    pieces: Callable[[], Iterable[Buffer]],
) -> None:
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f"{os.urandom(8).hex()}.tmp")
    try:
        if other is not None:
            with suppress(OSError):
                os.link(other, temporary)
        if not os.path.exists(temporary):
            _fill(temporary, hashed, pieces())
        os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # of two names of one file, replacing one by the other leaves both
        os.unlink(temporary)


def _fill(path: str, hashed: str, pieces: Iterable[Buffer]) -> None:
    hasher = blake3(max_threads=hash_threads(_PIECE))
    with open(path, "xb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            hasher.update(view)
            while view:
                view = view[file.write(view) :]
    if hasher.hexdigest() != hashed:
        raise CorruptParcel(f"{path}: its content is not that of {hashed[:12]}; it has changed")
    os.chmod(path, 0o444)


class _Live:
    """Which copies this process uses, told to others in one locked file in each place."""

    def __init__(self) -> None:
        self._lock = renewed_after_fork(threading.RLock())
        self._uses: dict[str, int] = {}
        self._lists: dict[str, tuple[int, str]] = {}
        self._noted: set[tuple[str, str]] = set()
        self._tidied: set[str] = set()

    def add(self, hashed: str) -> None:
        """Count a use of a copy."""
        with self._lock:
            self._uses[hashed] = self._uses.get(hashed, 0) + 1

    def drop(self, hashed: str) -> None:
        """Count one less; when there is none of any, nothing has to be told any more."""
        with self._lock:
            left = self._uses.pop(hashed, 1) - 1
            if left:
                self._uses[hashed] = left
            if not self._uses:
                self._close(remove=True)

    def hashes(self) -> set[str]:
        """Return what this process uses."""
        with self._lock:
            return set(self._uses)

    def _close(self, *, remove: bool) -> None:
        lists, self._lists = self._lists, {}
        self._noted.clear()
        for place, (descriptor, name) in lists.items():
            with suppress(OSError):
                os.close(descriptor)
                if remove:
                    os.unlink(os.path.join(place, "live", name))

    def note(self, place: str, hashed: str) -> None:
        """Tell other processes that the copy of ``hashed`` in ``place`` is used here.

        Raises:
            OSError: that cannot be written.
        """
        with self._lock:
            if (place, hashed) in self._noted:
                return
            if place not in self._lists:
                self._lists[place] = _new_list(os.path.join(place, "live"))
            os.write(self._lists[place][0], f"{hashed}\n".encode())
            self._noted.add((place, hashed))

    def own_list(self, place: str) -> str:
        """Return the name of the list of this process, if it has one."""
        return self._lists.get(place, (0, ""))[1]

    def tidy(self, place: str) -> None:
        """Remove old copies from the directory of the user, once in a process."""
        if place not in self._tidied:
            self._tidied.add(place)
            sweep_files(place, time.time() - _OLD)

    def forked(self) -> None:
        """In a forked child: begin a list of one's own, with what is used here."""
        noted = set(self._noted)
        self._close(remove=False)
        for place, hashed in noted:
            if hashed in self._uses:
                with suppress(OSError):
                    self.note(place, hashed)


def _new_list(directory: str) -> tuple[int, str]:
    os.makedirs(directory, exist_ok=True)
    name = os.urandom(8).hex()
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    path = os.path.join(directory, name)
    descriptor = os.open(path, flags, 0o666)
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not os.path.exists(path):  # a collector came between
        os.close(descriptor)
        return _new_list(directory)
    return descriptor, name


_live = _Live()


class Use:
    """Keeps a copy from being removed, in this process and in others, as long as this lives."""

    def __init__(self, hashed: str) -> None:
        self._hashed = hashed
        _live.add(hashed)

    def __del__(self) -> None:
        if hasattr(_live, "drop"):  # not so when the interpreter ends
            _live.drop(self._hashed)


os.register_at_fork(after_in_child=_live.forked)


def sweep_files(
    place: str, limit: float, is_needed: Callable[[str], bool] = lambda _: False
) -> int:
    """Remove kept copies that nothing names; return how many.

    Args:
        place: the directory.
        limit: what was used after this time, in seconds since the epoch, stays.
        is_needed: returns whether the copy of a content is to stay.
    """
    import shutil

    if not os.path.isdir(place) or not hasattr(os, "fork"):  # without locks of files, all stay
        return 0
    removed = 0
    used = _used(place)
    for shard in os.listdir(place):
        if not _SHARD.fullmatch(shard):
            continue
        for hashed in os.listdir(os.path.join(place, shard)):
            directory = os.path.join(place, shard, hashed)
            with suppress(OSError):
                if not _HASH.fullmatch(hashed) or hashed in used:
                    continue
                if os.stat(directory).st_mtime > limit or is_needed(hashed):
                    continue
                aside = os.path.join(place, f"{os.urandom(8).hex()}.tmp")
                os.mkdir(aside)
                os.rename(directory, os.path.join(aside, hashed))
                if hashed in _used(place):  # since a moment ago
                    os.rename(os.path.join(aside, hashed), directory)
                else:
                    removed += 1
                shutil.rmtree(aside, ignore_errors=True)
    return removed


def _used(place: str) -> set[str]:
    """Return what processes that are alive use."""
    import fcntl

    used = _live.hashes()
    directory = os.path.join(place, "live")
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name == _live.own_list(place):
            continue
        path = os.path.join(directory, name)
        with suppress(OSError), open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                used.update(file.read().split())
            else:
                os.unlink(path)
    return used


File.__module__ = kept_file.__module__ = "fleche.parcel"
