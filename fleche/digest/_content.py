"""What files hold, as a value: paths that count by the bytes of the file or tree that they name.

A file counts by its bytes; a tree by the sorted names of what is in it, relative to its root, the
bytes of each file, and whether it may be executed. A link inside a tree counts as what it leads to,
which has to be in the tree.

To read a file of some gigabytes takes seconds, so the BLAKE3 of a file is remembered, in the
process and in the user's cache directory, by what the file system says of it: device, inode, size,
and the times of its last change, in nanoseconds. A file that was changed a moment ago may change
again within one tick of the clock of its file system, unnoticed by these. Such a file is read each
time, until it is older than the coarsest tick that there is. So is one on a file system in memory:
these do not note the time of what is written through a memory map.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

from blake3 import blake3

from fleche._util import renewed_after_fork, user_cache_directory
from fleche.digest._builtin import Raw
from fleche.digest._digest import Digest
from fleche.digest._registry import Node, describe_type, node, register
from fleche.digest._tokens import Hasher, big_token, hash_threads, size
from fleche.errors import Indigestible

__all__ = ["ContentError", "FileContent", "contents_of", "hash_file", "read_content"]

GRAIN = 2_000_000_000
"""Nanoseconds: no file system in use has a coarser clock (FAT)."""

_UNSIGNED = (1 << 64) - 1
"""Of the number of a device, which macOS may give as one below zero."""

PIECE = 8 << 20
PLAIN = (type(None), bool, int, float, complex)
ROWS = 2_000
"""So many files are remembered in each of 256 places on the disk, the latest."""


class ContentError(Indigestible):
    """A file or tree that a path names cannot be read, or has no content that could count."""


class FileContent(NamedTuple):
    """What a path stands for.

    Attributes:
        kind: ``"file"`` or ``"tree"``.
        size: bytes of the file, or of all files of the tree.
        hashed: the BLAKE3 of the bytes of the file, or of the listing of the tree.
    """

    kind: str
    size: int
    hashed: bytes


class Stamp(NamedTuple):
    """What the file system says of a file."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_dev & _UNSIGNED,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    @property
    def place(self) -> tuple[int, int]:
        return self.device, self.inode


def describe_content(obj: FileContent, _walk: object) -> Node:
    return node(b"content", (obj.kind, Raw(big_token(obj.size, obj.hashed))))


register(FileContent, describe_content)


# -- arguments -------------------------------------------------------------------------------------


def contents_of(value: Any, name: str, met: dict[str, FileContent]) -> Any:
    """Return ``value`` with the content of files and trees in place of the paths in it.

    Args:
        value: a path, as text or as an object, or a container of paths; numbers, ``None`` and
            digests are left as they are, and so are the keys of a dict.
        name: what the value is, for errors.
        met: receives what each path stands for, by its absolute form.

    Raises:
        ContentError: a file cannot be read, or something is neither a path nor a container.
    """
    kind = type(value)
    if kind is Digest:
        return value
    if isinstance(value, str | os.PathLike):
        try:
            path = os.fspath(value)
            content = read_content(path)
        except (ContentError, ValueError) as error:
            raise ContentError(f"{name}: {error}") from error.__cause__
        met[os.path.abspath(os.fsdecode(path))] = content
        return content
    if kind in PLAIN:
        return value
    if isinstance(value, dict):
        parts = {k: contents_of(v, f"{name}[{k!r}]", met) for k, v in value.items()}
        return parts if kind is dict else (kind, parts)
    if isinstance(value, list | tuple):
        items = [contents_of(v, f"{name}[{i}]", met) for i, v in enumerate(value)]
        if kind is list:
            return items
        return tuple(items) if kind is tuple else (kind, items)
    if isinstance(value, set | frozenset):
        # two files of one content are two members
        return kind, sorted(contents_of(v, name, met) for v in value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        from dataclasses import fields

        return kind, {
            each.name: contents_of(getattr(value, each.name), f"{name}.{each.name}", met)
            for each in fields(value)
        }
    raise ContentError(
        f"{name}: Content is for paths, and for lists, tuples, sets, dicts and dataclasses of "
        f"paths; this is {describe_type(kind)}"
    )


# -- files and trees -------------------------------------------------------------------------------


def read_content(path: str | bytes) -> FileContent:
    """Return what the file or directory at ``path`` holds.

    Raises:
        ContentError: there is none, it cannot be read, or it is neither.
    """
    shown = os.fsdecode(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return _read_tree(os.fsdecode(path))
        if stat.S_ISREG(status.st_mode):
            ((nbytes, found),) = memory.digests([shown])
            return FileContent("file", nbytes, found)
    except OSError as error:
        raise ContentError(f"{_said(error, shown)}") from error
    raise ContentError(
        f"{shown}: neither a file nor a directory, so that what it holds cannot be told"
    )


def _said(error: OSError, shown: str) -> str:
    where = shown if error.filename is None else os.fsdecode(error.filename)
    reason = error.strerror or str(error)
    hint = "" if os.path.isabs(where) else f" (the working directory is {_working_directory()})"
    return f"{where}: {reason}{hint}"


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "gone"


def _read_tree(root: str) -> FileContent:
    found = sorted(_listed(root))
    files = memory.digests(path for _, path, status in found if status is not None)
    digests = (digest for _, digest in files)
    hasher = Hasher()
    for name, _, status in found:
        if status is None:
            hasher.update(b"d" + size(len(name)) + name)
        else:
            mode = b"x" if status.st_mode & stat.S_IXUSR else b"f"
            hasher.update(mode + size(len(name)) + name + next(digests))
    return FileContent("tree", sum(nbytes for nbytes, _ in files), hasher.digest())


def _listed(root: str) -> Iterator[tuple[bytes, str, os.stat_result | None]]:
    """Yield the name, path and status of what is in a tree; a directory has no status."""
    top = os.path.realpath(root)
    pending: list[tuple[bytes, str, tuple[str, ...]]] = [(b"", root, (top,))]
    while pending:
        prefix, directory, above = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + os.fsencode(entry.name)
                status = entry.stat(follow_symlinks=False)
                real = ""
                if stat.S_ISLNK(status.st_mode):
                    real = _followed(entry.path, top)
                    status = os.stat(entry.path)
                if stat.S_ISREG(status.st_mode):
                    yield name, entry.path, status
                elif stat.S_ISDIR(status.st_mode):
                    real = real or os.path.join(above[-1], entry.name)
                    if real in above:
                        raise ContentError(
                            f"{entry.path}: this link leads back to a directory that it is in, so "
                            "that the tree has no end"
                        )
                    yield name, entry.path, None
                    pending.append((name + b"/", entry.path, (*above, real)))
                else:
                    raise ContentError(
                        f"{entry.path}: neither a file nor a directory, so that what it holds "
                        "cannot be told"
                    )


def _followed(link: str, top: str) -> str:
    """Return where a link leads, which must be inside the tree.

    Raises:
        ContentError: it leads out of it.
    """
    real = os.path.realpath(link)
    if real != top and not real.startswith(os.path.join(top, "")):
        raise ContentError(
            f"{link}: this link leads out of the tree, to {real}, so that the tree does not say "
            "what it holds; replace it by a copy, or pass that file by itself"
        )
    return real


def hash_file(path: str) -> tuple[Stamp, bytes]:
    """Read a file; return what the file system says of it, and the BLAKE3 of its bytes.

    Raises:
        ContentError: it changed meanwhile.
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        hasher = blake3(max_threads=hash_threads(before.st_size))
        piece = memoryview(bytearray(max(1, min(before.st_size + 1, PIECE))))
        while count := file.readinto(piece):
            hasher.update(piece[:count])
        after = os.fstat(file.fileno())
    stamp = Stamp.of(before)
    if Stamp.of(after) != stamp:
        raise ContentError(f"{path}: it changed while it was read")
    return stamp, hasher.digest()


# -- remembering -----------------------------------------------------------------------------------

Known = dict[tuple[int, int], tuple[Stamp, bytes]]
_ROW = Struct("<QQQqq32s")  # a stamp and a digest
_CHECK = 32


IN_MEMORY = (b"tmpfs", b"ramfs", b"hugetlbfs")
_devices: dict[int, bool] = {}


def _notes_times(device: int) -> bool:
    """Return whether the times of files on a device tell every change."""
    if device not in _devices:
        _devices[device] = True
        with suppress(OSError, ValueError, IndexError), open("/proc/self/mountinfo", "rb") as file:
            for line in file:  # as proc_pid_mountinfo(5) describes it
                number, kind = line.split()[2], line.partition(b" - ")[2].split()[0]
                major, _, minor = number.partition(b":")
                _devices[os.makedev(int(major), int(minor))] = kind not in IN_MEMORY
    return _devices[device]


class FileMemory:
    """The digests of files that have not changed since they were read."""

    def __init__(
        self,
        directory: Callable[[], str] = lambda: user_cache_directory("files"),
        clock: Callable[[], int] = time.time_ns,
        notes_times: Callable[[int], bool] = _notes_times,
    ) -> None:
        """Remember in ``directory``.

        Args:
            directory: returns where; it is made when there is something to write. That it cannot be
                written, or that a file in it is damaged, does no harm.
            clock: returns nanoseconds since the epoch.
            notes_times: returns whether the times of files on a device tell every change.
        """
        self._directory = directory
        self._clock = clock
        self._notes_times = notes_times
        self._lock = renewed_after_fork(threading.RLock())
        self._known: Known = {}
        self._read: dict[str, tuple[int, int]] = {}

    def digests(self, paths: Iterable[str]) -> list[tuple[int, bytes]]:
        """Return the size and the BLAKE3 of files, of which some may have to be read.

        Args:
            paths: of the files.

        Raises:
            ContentError: one changed while it was read.
            OSError: one cannot be read.
        """
        found: list[tuple[int, bytes]] = []
        fresh: Known = {}
        try:
            for path in paths:
                stamp = _stamp_of(path)
                digest = self._recall(stamp) if self._notes_times(stamp.device) else None
                if digest is None:
                    begun = self._clock()
                    stamp, digest = hash_file(path)
                    old = max(stamp.modified, stamp.changed) + GRAIN < begun
                    if old and self._notes_times(stamp.device):
                        fresh[stamp.place] = stamp, digest
                found.append((stamp.size, digest))
        finally:
            self._keep(fresh)
        return found

    def _recall(self, stamp: Stamp) -> bytes | None:
        held = self._known.get(stamp.place)
        if held is None or held[0] != stamp:
            self._take_up(self._path(stamp.place))
            held = self._known.get(stamp.place)
        return held[1] if held is not None and held[0] == stamp else None

    def _path(self, place: tuple[int, int]) -> str:
        number = place[0] * 31 + place[1]
        return os.path.join(self._directory(), f"{number % 256:02x}")

    def _take_up(self, path: str) -> None:
        """Learn what a file on the disk says, if it has been written since it was read last."""
        try:
            status = os.stat(path)
        except OSError:
            return
        version = status.st_ino, status.st_mtime_ns
        if self._read.get(path) == version:
            return
        known = _rows_of(path)
        with self._lock:
            self._read[path] = version
            self._known.update(known)

    def _keep(self, fresh: Known) -> None:
        if not fresh:
            return
        with self._lock:
            if len(self._known) > 256 * ROWS:
                self._known.clear()
                self._read.clear()
            self._known.update(fresh)
        by_path: dict[str, Known] = {}
        for place, held in fresh.items():
            by_path.setdefault(self._path(place), {})[place] = held
        for path, rows in by_path.items():
            with suppress(OSError):
                _write_rows(path, {**_rows_of(path), **rows})


def _stamp_of(path: str) -> Stamp:
    """Return what the file system says of a file, which is opened for that.

    A network file system asks its server only then for what other machines have done.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    try:
        return Stamp.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _rows_of(path: str) -> Known:
    """Return what a file of the memory says: nothing, if it is not as it was written."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if blake3(data[_CHECK:]).digest() != data[:_CHECK]:
            return {}
        rows = list(_ROW.iter_unpack(data[_CHECK:]))
    except (OSError, struct_error):
        return {}
    return {(row[0], row[1]): (Stamp(*row[:5]), row[5]) for row in rows}


def _write_rows(path: str, rows: Known) -> None:
    """Replace a file of the memory at once; of two that do so, one wins."""
    last = list(rows.values())[-ROWS:]
    try:
        data = b"".join(_ROW.pack(*stamp, digest) for stamp, digest in last)
    except struct_error:  # a file system whose numbers are longer than 64 bits
        return
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(blake3(data).digest() + data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


memory = FileMemory()
