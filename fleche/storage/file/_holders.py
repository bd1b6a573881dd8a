"""Which entry files hold which small values, without reading every file at each look-up.

An index in memory is kept up to date by modification times. Whatever any process does to the files
of a directory (add, replace, remove; none is altered in place) sets the time of the directory, so
that one whose time has not changed need not be listed again; and of a directory that has changed,
only those files are read whose inode, size or time is new.

A time is only as fine as the ticks of the file system, two seconds at worst, so that a change may
leave the time as it is if it follows another at once. A directory therefore counts as settled when
it was listed at least that long after its time was first seen, by this process's own clock: no two
machines need agree on the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from fleche.digest import Address
from fleche.storage._base import SHORTEST
from fleche.storage.file._files import Files, explained, listed

__all__ = ["HolderIndex"]

_TICK = 2.0
"""Seconds, at most, in which a file system gives two changes one time (FAT)."""

_Identity: TypeAlias = tuple[int, int, int]  # inode, size, time in nanoseconds


class _File(NamedTuple):
    """A file as it was when it was read, and the values that it holds."""

    identity: _Identity
    addresses: tuple[Address, ...]


class _Directory:
    """What is known of the files of one directory. It is replaced, never changed."""

    def __init__(self, modified: int, seen: float, files: dict[str, _File]) -> None:
        self.modified = modified
        self.seen = seen
        self.settled = time.monotonic() - seen > _TICK
        self.files = files
        self._by_start: dict[str, list[tuple[Address, str]]] = {}
        for key, file in files.items():
            for address in file.addresses:
                self._by_start.setdefault(address[:SHORTEST], []).append((address, key))

    def find(self, prefix: str) -> Iterator[tuple[Address, str]]:
        """Yield the values whose address begins with ``prefix``, each with its key."""
        if len(prefix) >= SHORTEST:
            near = self._by_start.get(prefix[:SHORTEST], [])
        else:
            near = [each for some in self._by_start.values() for each in some]
        return (found for found in near if found[0].startswith(prefix))


class HolderIndex:
    """The values that entry files hold themselves, by address.

    There is no lock: two threads that look at once may read the same file, and store equal results.

    Args:
        files: the entries.
        held_by: reads an entry and returns the addresses that it holds.
    """

    def __init__(self, files: Files, held_by: Callable[[str], tuple[Address, ...]]) -> None:
        self._files = files
        self._held_by = held_by
        self._known: dict[str, _Directory] = {}

    def find(self, prefix: str) -> Iterator[tuple[Address, str]]:
        """Yield the values whose address begins with ``prefix``, each with the key of its entry.

        Raises:
            StorageError: the files could not be read.
        """
        for shard in self._files.shards():
            yield from self._look_at(shard).find(prefix)

    def _look_at(self, shard: str) -> _Directory:
        known = self._known.get(shard)
        with explained("read", shard):
            try:
                modified = os.stat(shard).st_mtime_ns
            except FileNotFoundError:
                return _Directory(0, 0.0, {})
        same = known is not None and known.modified == modified
        if known is not None and same and known.settled:
            return known
        seen = known.seen if known is not None and same else time.monotonic()
        files = self._read(shard, known.files if known is not None else {})
        found = self._known[shard] = _Directory(modified, seen, files)
        return found

    def _read(self, shard: str, known: dict[str, _File]) -> dict[str, _File]:
        files: dict[str, _File] = {}
        for entry in listed(shard):
            key = self._files.key(shard, entry.name)
            if key is None:
                continue
            with explained("read", entry.path):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            old = known.get(key)
            if old is not None and old.identity == identity:
                files[key] = old
            else:
                files[key] = _File(identity, self._held_by(key))
        return files
