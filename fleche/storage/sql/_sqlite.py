"""SQLite: one file, to which many threads and processes write.

On a local file system SQLite keeps a write-ahead log and its index beside the file (``-wal``,
``-shm``) while it is open, so that readers and a writer do not wait for each other. They belong to
the account that opened the file first; so the file of another account is only looked at, as
:mod:`._guest` does it.

The lowest version of SQLite that works is 3.24 (``ON CONFLICT DO UPDATE``).
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from fleche._util import account_name, is_held_here, override, warn_caller
from fleche.errors import StorageError
from fleche.storage._making import make_directories, make_file
from fleche.storage._mounts import is_local
from fleche.storage.sql._connections import (
    Leased,
    in_transaction_of,
    interrupting,
    is_busy_error,
    make_tables,
    may,
    prepare,
    stored_version,
)
from fleche.storage.sql._database import (
    NO_PARAMETERS,
    Connection,
    Database,
    Parameters,
    Pooled,
    register,
)
from fleche.storage.sql._errors import DAMAGED, as_storage_error, wrong_version
from fleche.storage.sql._schema import SCHEMA

if TYPE_CHECKING:
    from fleche.storage.sql._guest import Guest

__all__ = ["SqliteFile", "SqliteMemory"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for other writers."""

_LEAST_PATIENCE = 1.0
"""Seconds to wait for a writer that did not end however long it was waited for."""

_BUSY = 0.2
"""Seconds for which SQLite itself waits; in between, a fork can have its way."""

_LOOK = 1.0
"""Seconds to wait for another thread that looks at a file."""

_ATTEMPTS = 20  # to open a log to which another account is just giving its mode
_CACHED_STATEMENTS = 256
_LOG_PAGES = 2000
"""Pages of 4 KiB after which what is in the log is brought into the file."""

_RESERVE = _LOG_PAGES << 12
"""Bytes that are kept back on the disk, so that a full one can be tidied up: room for the log."""

_OLDEST = (3, 24, 0)

_FULL = ("disk is full", "disk i/o error", "unable to open")


class SqliteMemory(Database):
    """A database in memory: one connection for all threads of this process, one at a time."""

    kind = "sqlite"
    shown = "sqlite://"
    in_memory = True

    def __init__(self) -> None:
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._is_held = False
        register(self)

    @override
    def fetch(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> list[Any]:
        with self._lock:
            try:
                return self._connect().execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise as_storage_error(self.shown, "read", error) from error

    @override
    def change(self, work: Callable[[Connection], T], **_: Any) -> T:
        if is_held_here(self._lock):
            raise interrupting(self.shown, "write")
        with self._lock:
            try:
                connection = self._connect()
                if connection.in_transaction:  # an interrupt hit the end of the last one
                    connection.execute("ROLLBACK")
                return in_transaction_of(connection, work)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, StorageError):
                    raise
                raise as_storage_error(self.shown, "write", error) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            prepare(self._connection)
            in_transaction_of(self._connection, lambda found: make_tables(found, self.shown))
        return self._connection

    @override
    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @override
    def retire(self) -> None:
        self._is_held = self._lock.acquire(timeout=1.0)

    @override
    def is_busy(self) -> bool:
        return False

    @override
    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._lock = RLock()
        elif self._is_held:
            self._lock.release()


class SqliteFile(Pooled):
    """A database in a file.

    Args:
        path: of the file, absolute.
        only_read: it may only be read.
        patience: seconds to wait for other writers; a minute if nothing is said.
        durable: what was written survives a power failure.
        before_making: called when the file is about to be made.
    """

    kind = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        only_read: bool = False,
        patience: float | None = None,
        durable: bool = False,
        before_making: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.shown = str(path)
        self._only_read = only_read
        self._patience = _PATIENCE if patience is None else patience
        self._patience_now = self._patience
        self._durable = durable
        self._before_making = before_making
        self._is_ready = False
        self._identity: tuple[int, int] | None = None
        self._writing = RLock()
        self._looking = RLock()
        self._guest: Guest | None = None
        self._has_warned = False

    # -- the contract ------------------------------------------------------------------------------

    @override
    def fetch(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> list[Any]:
        idle = self._idle
        try:
            connection = idle.pop()
        except IndexError:
            return self._fetch(sql, parameters)
        if self._pid != os.getpid():
            idle.append(connection)
            return self._fetch(sql, parameters)
        try:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            if not is_busy_error(error):
                raise self._explained("read", error) from error
        finally:
            idle.append(connection)
            if self._idle is not idle:  # all were closed meanwhile
                self.drain(idle)
        return self._fetch(sql, parameters)

    def _fetch(self, sql: str, parameters: Parameters) -> list[Any]:
        """Return what is selected, by whatever way the file can be read just now."""

        def select(connection: Any) -> list[Any]:
            if not self._has_tables(connection):
                return []
            return connection.execute(sql, parameters).fetchall()  # type: ignore[no-any-return]

        if is_held_here(self._looking):
            raise interrupting(self.shown, "read")
        if not self._idle:
            status = self._status()
            if status is None or status.st_size == 0:
                return []
            if self._is_guest(status):
                return self._look_at(select)
        try:
            return self._patiently("read", select)
        except StorageError as error:
            if not _says_full(error):
                raise
        return self._look_at(select)  # there is no room for a log, and none is needed

    def _status(self) -> os.stat_result | None:
        try:
            return self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._explained("read", error) from error

    @override
    def is_there(self) -> bool:
        return os.path.exists(self.path)  # Path.exists() raises where it may not look

    def _has_tables(self, connection: sqlite3.Connection) -> bool:
        """Return whether the tables are there; another process may be about to make them.

        Raises:
            StorageError: another fleche has made them.
        """
        if not self._is_ready:
            version = stored_version(connection)
            if version == 0:
                return False
            if version != SCHEMA:
                raise wrong_version(self.shown, version)
            self._is_ready = True
        return True

    @override
    def change(
        self,
        work: Callable[[Connection], T],
        *,
        frees: bool = False,
        patience: float | None = None,
        since: float | None = None,
    ) -> T:
        # To try would leave a log behind that is ours, and would keep the owner from writing.
        if self._only_read or not (self._idle or self._may_write()):
            raise self._explained("write", sqlite3.OperationalError("readonly database"))
        if is_held_here(self._writing):
            raise interrupting(self.shown, "write")
        # before this thread waits for others, which wait for other processes: not one after another
        began = time.monotonic() if since is None else since
        deadline = began + (self._patience_now if patience is None else patience)
        with self._writing:
            self._notice_removal()
            try:
                result = self._patiently("write", work, deadline, transact=True)
                self._patience_now = self._patience
                return result
            except StorageError as error:
                if patience is None and isinstance(error.__cause__, sqlite3.Error):
                    self._lose_patience(error.__cause__)
                # a change that is not worth waiting for is not worth the reserve, either
                if not _says_full(error) or patience is not None:
                    raise
                full = error
            self._free_reserve()
            try:
                self._empty_log()
                if frees:
                    return self._patiently("write", work, transact=True)
            finally:
                self._empty_log()
                self._keep_reserve()
            # The log had the same pages many times, so that the file has grown by less than it has
            # shrunk; and others may have made room meanwhile.
            try:
                return self._patiently("write", work, deadline, transact=True)
            except StorageError:
                self._empty_log()
                raise full from None

    @override
    def insert(self, sql: str, parameters: Sequence[Any], generation: int) -> int | None:
        # A statement by itself is a transaction; to begin and to end one takes two further ones.
        if self._only_read or self._pid != os.getpid() or is_held_here(self._writing):
            return None
        with self._writing:
            self._notice_removal()
            idle = self._idle
            if self.generation != generation or not idle:
                return None
            try:
                connection = idle.pop()
            except IndexError:  # another thread reads with the only one
                return None
            try:
                cursor = connection.execute(sql, parameters)
                inserted: int = cursor.lastrowid if cursor.rowcount == 1 else 0
                del cursor  # before another thread has the connection
            except sqlite3.Error:
                return None
            finally:
                idle.append(connection)
                if self._idle is not idle:  # all were closed meanwhile
                    self.drain(idle)
            self._patience_now = self._patience
            return inserted

    def _lose_patience(self, error: sqlite3.Error) -> None:
        """Wait half as long the next time, if the wait was in vain, until a change succeeds.

        A program that leaves a transaction open for hours, as one that shows databases may, would
        otherwise cost every call of a function a minute.
        """
        if is_busy_error(error):
            shorter = max(_LEAST_PATIENCE, self._patience_now / 2)
            self._patience_now = min(self._patience, shorter)

    def _notice_removal(self) -> None:
        """Forget the file that was opened if another one, or none, has its name by now.

        To go on writing to a file without a name would lose everything without an error.
        """
        if self._identity is None:
            return
        try:
            status = os.stat(self.shown)
        except FileNotFoundError:
            status = None
        except OSError:
            return
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            self.close()
            self._is_ready, self._identity = False, None
            self.generation += 1

    @override
    def is_ours(self) -> bool:
        try:
            return bool(self._idle) or not self._is_guest(self.path.stat())
        except OSError:
            return False

    def _patiently(
        self,
        action: str,
        work: Callable[[Any], T],
        deadline: float | None = None,
        *,
        transact: bool = False,
    ) -> T:
        """Return what ``work`` returns, called with a connection again while others write."""
        if deadline is None:
            deadline = time.monotonic() + self._patience
        shut_out = 0
        while True:
            try:
                idle, connection = self.take()
                try:
                    return in_transaction_of(connection, work) if transact else work(connection)
                finally:
                    self.give_back(idle, connection)
            except sqlite3.Error as error:
                if is_busy_error(error):
                    if time.monotonic() > deadline:
                        raise self._explained(action, error) from error
                    continue
                if shut_out == _ATTEMPTS or not self._is_log_new():
                    raise self._explained(action, error) from error
                shut_out += 1
                time.sleep(0.01)
            except StorageError:
                raise
            except (OSError, UnicodeError) as error:
                raise self._explained(action, error) from error

    # -- connections -------------------------------------------------------------------------------

    @override
    def connect(self) -> Leased:
        if self._inherited:
            raise StorageError(
                f"{self.shown}: cannot be used in this process, which was forked while another "
                "thread had it in use; start workers by spawn or forkserver"
            )
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StorageError(
                f"{self.shown}: SQLite {sqlite3.sqlite_version} is too old, "
                f"{'.'.join(map(str, _OLDEST))} is the oldest that works; keep calls in files"
            )
        path = self.path
        if not path.exists():
            self._make_file()
        connection = sqlite3.connect(
            path,
            timeout=min(_BUSY, self._patience),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        try:
            prepare(connection)
            self._choose_journal(connection)
            self._make_ready(connection)
            self._share_side_files()
            self._refill_reserve()
            if self._identity is None:
                status = path.stat()
                self._identity = status.st_dev, status.st_ino
        except BaseException:
            connection.close()
            raise
        return Leased(connection)

    @override
    def give_back(self, idle: deque[Any], connection: Any) -> None:
        if connection.in_transaction:  # an interrupt hit its very end
            self.discard(connection)
        else:
            super().give_back(idle, connection)

    def _make_file(self) -> None:
        """Make the file, with the mode of what is made there; SQLite's own would be 0644."""
        if self._before_making is not None:
            self._before_making()
        make_directories(str(self.path.parent))
        # another process that finds it is to find it with that mode
        temporary = f"{self.path}.{os.urandom(8).hex()}.tmp"
        os.close(make_file(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            with suppress(FileExistsError):
                os.link(temporary, self.path)
        except OSError:  # a file system without hard links
            os.close(make_file(str(self.path), os.O_CREAT | os.O_WRONLY))
        finally:
            os.unlink(temporary)
        self._keep_reserve(self._spare_room())

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        if is_local(self.path.parent.resolve()):
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                level = "FULL" if self._durable else "NORMAL"
                connection.execute(f"PRAGMA synchronous = {level}")
                # On macOS fsync() leaves it to the disk when, and in which order, it writes.
                connection.execute(f"PRAGMA fullfsync = {self._durable:d}")
                connection.execute("PRAGMA checkpoint_fullfsync = 1")
                connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            return
        # The index of a log is shared memory, which machines do not share.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA locking_mode = NORMAL")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # gives up the lock
        if not self._has_warned:
            self._has_warned = True
            warn_caller(
                f"{self.shown}: on a network file system SQLite is slow, and is only as safe as "
                'the locks of that file system; use files, or type = "ssh" to the machine that '
                "has the disk"
            )

    def _make_ready(self, connection: sqlite3.Connection) -> None:
        if self._is_ready:
            return
        if stored_version(connection) != SCHEMA:
            in_transaction_of(connection, lambda found: make_tables(found, self.shown))
        self._is_ready = True

    @override
    def after_fork(self, *, in_child: bool) -> None:
        super().after_fork(in_child=in_child)
        if in_child:
            self._writing, self._looking = RLock(), RLock()
            self._guest = None

    @override
    def retire(self) -> None:
        super().retire()
        if self._looking.acquire(timeout=_LOOK):
            try:
                if self._guest is not None:
                    self._guest.forget()
            finally:
                self._looking.release()

    # -- a file of another account -----------------------------------------------------------------

    def _is_guest(self, status: os.stat_result) -> bool:
        """Return whether nothing may be left beside the file: it is not ours, or not writable."""
        if self._only_read or status.st_uid != os.geteuid():
            return True
        return not self._may_write()

    def _may_write(self) -> bool:
        """Return whether the file, and a log beside it, may be written to, or are to be made."""
        return not os.path.exists(self.path) or (
            may(os.W_OK, self.path) and may(os.W_OK, self.path.parent)
        )

    def _look_at(self, look: Callable[[Any], T]) -> T:
        """Return what ``look`` returns, called with a connection that leaves nothing behind."""
        from fleche.storage.sql._guest import Guest

        with self._looking:
            if self._guest is None:
                self._guest = Guest(self.path, self._patience, _BUSY, self._looking, self._open)
            guest = self._guest
        try:
            return guest.look(look)
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise self._explained("read", error) from error

    def _share_side_files(self) -> None:
        """Give the log the group of the file, so that a group which shares the file shares both."""
        with suppress(OSError):
            status = self.path.stat()
            if status.st_uid == os.geteuid():
                return
            for side in self._side_files():
                found = side.stat()
                if found.st_uid == os.geteuid() and found.st_gid != status.st_gid:
                    os.chown(side, -1, status.st_gid)

    def _is_log_new(self) -> bool:
        """Return whether another account may have made the log just now.

        SQLite gives it the mode of the file, against the umask, only after it has made it.
        """
        with suppress(OSError):
            found = [side.stat() for side in self._side_files()]
            ours = os.geteuid()
            return any(each.st_uid != ours and time.time() - each.st_ctime < 1 for each in found)
        return False

    def _side_files(self) -> list[Path]:
        return [side for side in map(self._beside, ("-wal", "-shm")) if side.exists()]

    def _beside(self, end: str) -> Path:
        """Return the file beside this one whose name has a certain end."""
        return self.path.with_name(f"{self.path.name}{end}")

    # -- what goes wrong ---------------------------------------------------------------------------

    def _explained(self, action: str, error: BaseException) -> StorageError:
        reason = str(error).lower()
        refused = isinstance(error, PermissionError)
        if refused or any(word in reason for word in ("readonly", "unable to open", "permission")):
            with suppress(OSError):
                if said := self._foreign_side_file():
                    return StorageError(f"{self.shown}: cannot {action}: {said}")
        perhaps = f"perhaps {DAMAGED}" if isinstance(error, sqlite3.DatabaseError) else ""
        return as_storage_error(self.shown, action, error, otherwise=perhaps)

    def _foreign_side_file(self) -> str:
        """Return what a log that another account has left means, and how it is mended."""
        if not may(os.W_OK, self.path):
            return ""
        for side in self._side_files():
            if may(os.W_OK, side):
                continue
            number = side.stat().st_uid
            owner = account_name(number) or f"account {number}"
            log = self._beside("-wal")
            if log.exists() and log.stat().st_size:
                cure = (
                    f"ask {owner} to open the cache once more, or to let you write to it "
                    f"(chmod g+w {side}); it holds calls that are not in the file yet"
                )
            else:
                cure = (
                    f"it is empty: when {owner} has no process left that uses the cache, remove "
                    f"{self.path.name}-wal and {self.path.name}-shm"
                )
            return f"{side} belongs to {owner} and may not be written to ({cure})"
        return ""

    # -- a full disk -------------------------------------------------------------------------------

    def _free_reserve(self) -> None:
        """Give the disk back what was kept for this moment."""
        with suppress(OSError):
            self._beside("-reserve").unlink(missing_ok=True)

    def _empty_log(self) -> None:
        """Bring what is in the log into the file, so that it needs no room twice."""
        with suppress(StorageError):
            self._patiently(
                "write", lambda found: found.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            )

    def _refill_reserve(self) -> None:
        """Keep room again where a full disk has left less of it, now that there is some."""
        with suppress(OSError):
            size = self._beside("-reserve").stat().st_size
            if size < _RESERVE and size < (room := self._spare_room()):
                self._free_reserve()
                self._keep_reserve(room)

    def _spare_room(self) -> int:
        """Return how much of the disk may be kept back."""
        disk = os.statvfs(self.path.parent)
        return min(_RESERVE, disk.f_bavail * disk.f_frsize // 2)

    def _keep_reserve(self, size: int = _RESERVE) -> None:
        """Keep some room on the disk; without it, a full one has no room for removing anything."""
        with (
            suppress(OSError),
            open(self._beside("-reserve"), "xb", buffering=0, opener=make_file) as file,
        ):
            if sys.platform == "linux":
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, size)
                    return
            part = bytes(size // 64)
            file.writelines(part for _ in range(64))  # as much of it as there is room for


# -- files ----------------------------------------------------------------------------------------


def _says_full(error: StorageError) -> bool:
    reason = str(error).lower()
    return any(word in reason for word in _FULL)
