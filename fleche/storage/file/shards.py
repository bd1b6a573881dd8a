"""Files by digest in 256 directories, written atomically: ``root/ab/cdef....value``.

Names are lowercase hexadecimal, so that file systems which fold case keep them apart. A writer
fills a file of its own, ``cdef....value.<random>.tmp``, beside the one that it then replaces in one
step; what a killed writer leaves behind is listed by nobody and swept later.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fleche.digest import Digest
from fleche.parcel import Buffer, explained

__all__ = ["STALE", "SUFFIXES", "TEMPORARY", "Found", "Shards", "explained"]

STALE = 3600.0
"""Seconds after which a temporary file that nobody writes to is the leftover of a crash."""

SUFFIXES = {"values": ".value", "calls": ".call"}
TEMPORARY = ".tmp"
"""How the names of files end that no listing shows."""

_SHARD = re.compile("[0-9a-f]{2}")
_REST = 62


class Found(NamedTuple):
    """A file: its digest, its size in bytes, and when it was modified (seconds since the epoch)."""

    key: Digest
    size: int
    modified: float


class Shards:
    """The files below ``root`` whose names end in ``suffix``.

    Args:
        root: the directory; it is made when the first file is written.
        suffix: tells these files from others in the same directory.
        durable: a file that was written survives a power failure.
    """

    def __init__(self, root: Path, suffix: str, *, durable: bool = False) -> None:
        self.root = root
        self._suffix = suffix
        self._durable = durable

    def path(self, key: Digest) -> Path:
        """Return where the file of ``key`` is, or would be.

        Raises:
            KeyError: ``key`` is not complete; no file has such a name.
        """
        if not key.is_full:
            raise KeyError(key)
        return self.root / key[:2] / f"{key[2:]}{self._suffix}"

    def write(self, key: Digest, chunks: Iterable[Buffer]) -> None:
        """Write the file, or replace it, in one step; a failure leaves no trace.

        Raises:
            StorageError: it could not be written.
        """
        path = self.path(key)
        temporary = self._temporary(path)
        with explained("write", path):
            try:
                self._fill(temporary, chunks)
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            if self._durable:
                _sync_directory(path.parent)

    def _fill(self, temporary: Path, chunks: Iterable[Buffer]) -> None:
        try:
            file = temporary.open("xb")
        except FileNotFoundError:
            self.make_directory(temporary.parent)
            file = temporary.open("xb")
        with file:
            for chunk in chunks:
                file.write(chunk)
            if self._durable:
                file.flush()
                os.fsync(file.fileno())

    def make_directory(self, shard: Path) -> None:
        """Make the directory of some files, below the root."""
        shard.mkdir(parents=True, exist_ok=True)
        if self._durable:
            _sync_directory(shard.parent)

    def _temporary(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")

    def renew(self, key: Digest) -> bool:
        """Set the age of the file to zero; tell whether that was possible."""
        try:
            os.utime(self.path(key))
        except OSError:
            return False
        return True

    def find(self, key: Digest) -> Found:
        """Return the size and age of a file.

        Raises:
            KeyError: there is none.
        """
        path = self.path(key)
        with explained("read", path):
            try:
                status = path.stat()
            except FileNotFoundError:
                raise KeyError(key) from None
        return Found(key, status.st_size, status.st_mtime)

    def contains(self, key: Digest) -> bool:
        """Tell whether the file is there; an empty one, left by a power failure, is not."""
        try:
            return self.find(key).size > 0
        except KeyError:
            return False

    def remove(self, key: Digest) -> None:
        """Remove the file; none there is no error."""
        with suppress(KeyError):
            path = self.path(key)
            with explained("remove", path):
                path.unlink(missing_ok=True)

    def remove_older(self, key: Digest, limit: float) -> bool:
        """Remove the file unless it was modified after ``limit``; tell whether it went.

        The file is set aside before its age counts, so that a writer who renews it at this moment
        either does so in time, and it is put back, or finds it gone and writes it again.
        """
        try:
            if self.find(key).modified > limit:
                return False
        except KeyError:
            return False
        path = self.path(key)
        aside = self._temporary(path)
        with explained("remove", path):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            try:
                renewed = aside.stat().st_mtime > limit
            except FileNotFoundError:  # swept, for its age
                return True
            if renewed:
                _put_back(aside, path)
            aside.unlink(missing_ok=True)
        return not renewed

    def keys(self, prefix: str = "") -> Iterator[Digest]:
        """Yield the digests of the files that begin with ``prefix``."""
        return (key for key, _ in self._scan(prefix))

    def all(self) -> Iterator[Found]:
        """Yield the size and age of every file; those that vanish meanwhile are left out."""
        for key, entry in self._scan(""):
            with explained("read", entry.path):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
            yield Found(key, status.st_size, status.st_mtime)

    def sweep(self, older: float = STALE) -> int:
        """Remove temporary files that nobody has written to for ``older`` seconds; count them."""
        return sum(
            _remove_stale(entry, older)
            for shard in self._shards("")
            for entry in _listed(shard)
            if self._is_temporary(entry.name)
        )

    def _scan(self, prefix: str) -> Iterator[tuple[Digest, os.DirEntry[str]]]:
        length, suffix, rest = _REST + len(self._suffix), self._suffix, prefix[2:]
        for shard in self._shards(prefix[:2]):
            for entry in _listed(shard):
                name = entry.name
                if len(name) == length and name.endswith(suffix) and name.startswith(rest):
                    with suppress(ValueError):  # a name that only looks like ours
                        yield Digest(shard.name + name[:_REST]), entry
                elif self._is_temporary(name):
                    _remove_stale(entry, STALE)

    def _shards(self, prefix: str) -> Iterator[Path]:
        if len(prefix) == 2:
            if _SHARD.fullmatch(prefix):
                yield self.root / prefix
            return
        for entry in _listed(self.root):
            if _SHARD.fullmatch(entry.name) and entry.name.startswith(prefix):
                yield Path(entry.path)

    def _is_temporary(self, name: str) -> bool:
        return name.endswith(TEMPORARY) and name[_REST:].startswith(self._suffix)


def _listed(directory: Path) -> list[os.DirEntry[str]]:
    """Return what is in ``directory``; nothing if there is no such directory."""
    with explained("list", directory):
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


def _remove_stale(entry: os.DirEntry[str], older: float) -> bool:
    with suppress(OSError):  # gone meanwhile, or not ours to remove
        if entry.stat().st_mtime < time.time() - older:
            Path(entry.path).unlink()
            return True
    return False


def _put_back(aside: Path, path: Path) -> None:
    """Give ``aside`` its name back unless a newer file has it by now."""
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            aside.rename(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
