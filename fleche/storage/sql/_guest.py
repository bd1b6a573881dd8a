"""Looking at an SQLite file of another account, or one that may only be read.

What SQLite makes beside a file (``-wal``, ``-shm``) belongs to the account that made it, and would
keep the owner from writing. So the file is read in ways that make neither of them: with the log,
while a process that keeps one has the file open; otherwise as it is, without locks. Which of the
two it is must be asked each time, and a look at the file as it is counts only if the file is still
the same afterwards.

Nothing but SQLite opens the file. A process loses all its locks on a file when it closes any
descriptor of it (fcntl(2)); the next process to close the file would then take itself for the last
one and remove the log, to which the other connections of this process go on writing.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakSet

from fleche.errors import StorageError
from fleche.storage.sql._connections import Leased, is_busy_error, may, prepare
from fleche.storage.sql._errors import Disturbed
from fleche.storage.sql._urls import immutable, read_only, without_locks

__all__ = ["Guest"]

T = TypeVar("T")

_ATTEMPTS = 20  # to look while nothing is written
_SETTLED = 0.05
"""Seconds after which a file that changes again has another time of modification for certain."""


class Guest:
    """Looks at a file, and leaves nothing beside it.

    Args:
        path: of the file.
        patience: seconds to wait for writers.
        busy: seconds for which SQLite itself waits; in between, a fork can have its way.
        lock: held by the thread that looks.
        opened: the connections that are open, of which a fork must know.
    """

    def __init__(
        self, path: Path, patience: float, busy: float, lock: RLock, opened: WeakSet[Any]
    ) -> None:
        self._path = path
        self._patience = patience
        self._busy = busy
        self._lock = lock
        self._opened = opened
        self._kept: tuple[tuple[int, ...], Leased] | None = None

    def look(self, work: Callable[[Any], T]) -> T:
        """Return what ``work`` returns, called with a connection again as long as it is disturbed.

        Raises:
            Disturbed: it always is.
            sqlite3.Error: the file cannot be read.
            OSError: likewise.
        """
        deadline = time.monotonic() + self._patience
        attempts = 0
        while attempts < _ATTEMPTS:
            attempts += 1
            failure: Exception | None = None
            with self._lock:
                stamp = None if is_written_to(self._path) else settled_stamp_of(self._path)
                try:
                    result = self._look_once(work, stamp)
                except (sqlite3.Error, OSError) as error:
                    if isinstance(error, StorageError):
                        raise
                    failure = error
                if stamp is None:
                    self.forget()
                in_vain = self._was_in_vain(stamp, failed=failure is not None)
                if in_vain:
                    self.forget()
            if in_vain:
                continue
            if failure is None:
                return result
            if not is_busy_error(failure) or time.monotonic() > deadline:
                raise failure
            attempts -= 1  # one that was kept waiting was not in vain
        raise Disturbed(f"{self._path}: cannot read: another process writes to it (try again)")

    def forget(self) -> None:
        """Close the connection that is kept, the lock held."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].close()
            self._opened.discard(kept[1])

    def _look_once(self, work: Callable[[Any], T], stamp: tuple[int, ...] | None) -> T:
        try:
            return work(self._connection(stamp))
        except sqlite3.OperationalError as error:
            if stamp is not None or is_busy_error(error):
                raise
        # What a killed process leaves of a log is sometimes not to be read without being mended.
        with _temporary_directory() as place:
            copy = self._copy_to(Path(place))
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                prepare(connection)
                return work(connection)

    def _copy_to(self, place: Path) -> Path:
        """Copy the file, and its log, into a directory for temporary files."""
        copy = place / "copy.db"
        before = self._stamps()
        try:
            with (
                closing(sqlite3.connect(immutable(self._path), uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            shutil.copyfile(f"{self._path}-wal", f"{copy}-wal")
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "errno", 0) == errno.ENOSPC or "is full" in str(error):
                raise _no_room(str(error)) from error
            raise
        if self._stamps() != before:
            raise sqlite3.OperationalError("database is locked: it is being written to")
        return copy

    def _stamps(self) -> list[tuple[int, ...]]:
        return [stamp_of(Path(f"{self._path}{end}")) for end in ("", "-wal")]

    def _was_in_vain(self, stamp: tuple[int, ...] | None, *, failed: bool) -> bool:
        """Return whether a writer has come meanwhile, or gone with the log."""
        try:
            if stamp is None:
                return failed and not is_written_to(self._path)
            return is_written_to(self._path) or stamp_of(self._path) != stamp
        except OSError:
            return True

    def _connection(self, stamp: tuple[int, ...] | None) -> Leased:
        """Return a connection that leaves nothing behind; one to a file at rest is kept."""
        kept = self._kept
        if kept is not None and stamp is not None and kept[0] == stamp:
            return kept[1]
        self.forget()
        place = read_only(self._path) if stamp is None else immutable(self._path)
        connection = sqlite3.connect(
            place,
            uri=True,
            timeout=min(self._busy, self._patience),
            isolation_level=None,
            check_same_thread=False,
        )
        prepare(connection)
        looking = Leased(connection)
        self._opened.add(looking)
        self._kept = stamp or (), looking
        return looking


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="fleche-")
    except OSError as error:
        raise _no_room(str(error)) from error


def _no_room(reason: str) -> StorageError:
    return StorageError(
        "a database that a killed process has left is read as a copy, and the directory for "
        f"temporary files has no place for it: {reason} (set TMPDIR to one that has)"
    )


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return by what a change of a file at rest is known."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_written_to(path: Path) -> bool:
    """Return whether there is something in a log just now, or the file never has one."""
    with suppress(FileNotFoundError):
        if path.with_name(f"{path.name}-wal").stat().st_size:
            return True
    return not _has_log(path, stamp_of(path))


@lru_cache(64)
def _has_log(path: Path, stamp: tuple[int, ...]) -> bool:  # noqa: ARG001 (part of the key)
    """Return whether a file, as it has been since it had that stamp, has a log while it is open.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        with closing(sqlite3.connect(without_locks(path), uri=True)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error as error:
        if not may(os.R_OK, path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from error
        return "unable to open" in str(error)  # a log is not opened where there are no locks
    return False


def settled_stamp_of(path: Path) -> tuple[int, ...]:
    """Return the stamp of a file that would have another one if it changed from now on."""
    stamp = stamp_of(path)
    age = time.time() - stamp[2] / 1e9
    if abs(age) > _SETTLED:
        return stamp
    time.sleep(_SETTLED)
    return stamp_of(path)
