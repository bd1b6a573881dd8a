"""Locks as files beside the entries: ``root/ab/cdef....call.lock.tmp``.

The first process that comes makes the file, which holds the name of its owner and is renewed by its
modification time. That is set, and compared, by the clock of the file system alone: the machines
that share a directory need not agree on the time. To any listing it is a temporary file, never an
entry, and what a killed owner leaves is swept like every other leftover.

A process that steals a lock makes a second file, whose name says whom it follows: of several that
try at once one succeeds, and at no moment does the lock look free. The owner of the last file that
follows has the lock. All of the files go together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from fleche._util import override
from fleche.digest import digest
from fleche.storage._base import TEMPORARY
from fleche.storage._locks import Lock, LockTable
from fleche.storage.file._files import Files, explained, write_all

__all__ = ["FileLockTable"]

_ATTEMPTS = 10  # to take a lock that others take and release at the same moment
_LONGEST = 256  # bytes of the name of an owner
_LONGEST_CHAIN = 1000  # files that follow one another: damaged ones may lead in a circle


class FileLockTable(LockTable):
    """Locks in the directories of ``files``."""

    shared = True

    def __init__(self, files: Files) -> None:
        self._files = files

    @override
    def acquire(self, key: str, owner: str) -> Lock | None:
        path = self._path(key)
        with explained("lock", path):
            for _ in range(_ATTEMPTS):
                chain = _chain(path)
                if chain:
                    return chain[-1].lock
                if self._create(path, owner):
                    return None
        return Lock("", 0.0)  # of an owner that comes and goes too fast to be seen

    @override
    def steal(self, key: str, owner: str, old: Lock) -> bool:
        path = self._path(key)
        with explained("lock", path):
            chain = _chain(path)
            if not chain or chain[-1].lock != old:
                return False
            following = _following(path, old.owner)
            if not self._create(following, owner):
                return False
            if not _is_owner(_chain(path), owner):  # released in this very moment
                _remove(following)
                return False
        return True

    @override
    def heartbeat(self, key: str, owner: str) -> bool:
        path = self._path(key)
        with explained("lock", path):
            chain = _chain(path)
            if not _is_owner(chain, owner):
                return False
            with suppress(FileNotFoundError):
                for link in chain:
                    os.utime(link.path)
                return True
        return False

    @override
    def release(self, key: str, owner: str) -> None:
        path = self._path(key)
        with explained("remove", path):
            chain = _chain(path)
            if _is_owner(chain, owner):
                for link in chain:
                    _remove(link.path)

    @override
    def now(self, key: str) -> float:
        """Return the modification time of a new file."""
        probe = f"{self._files.path(key)}.{os.urandom(8).hex()}{TEMPORARY}"
        with explained("lock", probe):
            descriptor = self._files.create(probe)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                _remove(probe)

    def _create(self, path: str, owner: str) -> bool:
        """Make the file; return whether it was not there."""
        try:
            descriptor = self._files.create(path)
        except FileExistsError:
            return False
        try:
            write_all(descriptor, owner.encode())
        except BaseException:
            _remove(path)
            raise
        finally:
            os.close(descriptor)
        return True

    def _path(self, key: str) -> str:
        return f"{self._files.path(key)}.lock{TEMPORARY}"


class _Link(NamedTuple):
    """A file of a lock."""

    path: str
    lock: Lock


def _chain(path: str) -> list[_Link]:
    """Return the files of a lock, each followed by that of the process that stole it."""
    found: list[_Link] = []
    place = path
    while len(found) < _LONGEST_CHAIN and (lock := _read(place)) is not None:
        found.append(_Link(place, lock))
        place = _following(path, lock.owner)
    return found


def _is_owner(chain: Sequence[_Link], owner: str) -> bool:
    return bool(chain) and chain[-1].lock.owner == owner


def _following(path: str, owner: str) -> str:
    """Return the file of the process that steals from ``owner``."""
    return f"{path.removesuffix(TEMPORARY)}-{digest(owner)[:32]}{TEMPORARY}"


def _read(path: str) -> Lock | None:
    """Return the lock in a file; ``None`` if there is none.

    It is opened, not only looked at, so that a network file system asks its server.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    try:
        owner = os.read(descriptor, _LONGEST).decode("ascii", "replace")
        return Lock(owner, os.fstat(descriptor).st_mtime)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
