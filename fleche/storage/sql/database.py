"""A database: where it is, and connections to it.

SQLite is set up so that many threads and processes may write at once: transactions that write say
so when they begin (``BEGIN IMMEDIATE``) and wait for each other.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

import sqlalchemy as sa

from fleche.errors import StorageError
from fleche.storage.sql.failures import explained, is_broken_connection
from fleche.storage.sql.migrations import SCHEMA, migrate, stored_version
from fleche.storage.sql.urls import as_it_is, is_in_memory, parse, redacted

__all__ = ["Database", "is_local"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for others who write."""

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "9p",
    "fuse.",
    "glusterfs",
)

_NO_PERMISSION = ("readonly", "must be owner", "permission denied")
_LET_SOMEBODY = "let somebody who may write to it open it once with this fleche"

_inherited: list[Any] = []  # engines of a parent process, kept so that nothing here closes them


def is_local(path: Path) -> bool:
    """Tell whether ``path`` is on a file system of this machine, as far as that can be known."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    kinds = {}
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[place.replace("\\040", " ")] = kind
    for parent in (path, *path.parents):
        if str(parent) in kinds:
            return not kinds[str(parent)].startswith(_NETWORK)
    return True


class Database:
    """Connections to one database, made when they are needed, by each process for itself.

    Args:
        url: an SQLAlchemy URL, or the absolute path of an SQLite file.
    """

    def __init__(self, url: str) -> None:
        self.shown = redacted(url)
        self._url = parse(url) if "://" in url else sa.URL.create("sqlite", database=url)
        self.in_memory = is_in_memory(self._url)
        self.kind = self._url.get_backend_name()
        self._live: _Live | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection for a short look.

        Raises:
            StorageError: the database failed.
        """
        with explained(self.shown, "read"):
            live = self._connect()
            with live.alone, live.engine.connect() as connection:
                yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection inside a transaction, which is committed unless the block raises.

        Raises:
            StorageError: the database failed; it is as it was.
        """
        with explained(self.shown, "write"):
            live = self._connect()
            with live.alone, live.writing, live.begin() as connection:
                yield connection

    def fetch(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        """Return the rows that a statement selects; if the connection breaks, ask once more.

        Raises:
            StorageError: the database failed.
        """

        def look() -> Sequence[sa.Row[Any]]:
            with self.read() as connection:
                return connection.execute(statement, parameters).all()

        return _at_most_twice(look)

    def change(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what ``work`` returns, called with a connection inside a transaction.

        If the connection breaks, ``work`` is done once more on a new one. The first time may have
        been committed all the same: that the answer got lost does not mean that the database did
        not hear. So ``work`` must do no harm when it is done twice.

        Raises:
            StorageError: the database failed; unless it was the connection, it is as it was.
        """

        def act() -> T:
            with self.write() as connection:
                return work(connection)

        return _at_most_twice(act)

    def close(self) -> None:
        """Close the connections; the next use opens new ones. Idempotent."""
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def _connect(self) -> _Live:
        live = self._live
        if live is not None and live.pid == os.getpid():
            return live
        with _connecting:
            if self._live is None or self._live.pid != os.getpid():
                if self._live is not None:
                    _inherited.append(self._live)
                self._live = self._open()
            return self._live

    def _open(self) -> _Live:
        live = _Live(self._url, in_memory=self.in_memory)
        try:
            with live.engine.connect() as connection:
                version = stored_version(connection, self.shown)
            if version != SCHEMA:
                self._migrate(live, version)
        except BaseException:
            live.close()
            raise
        weakref.finalize(self, live.close)
        return live

    def _migrate(self, live: _Live, version: int) -> None:
        action = f"bring its tables from schema {version} to {SCHEMA}"
        hints = dict.fromkeys(_NO_PERMISSION, _LET_SOMEBODY)
        with (
            explained(self.shown, action, hints) if version else nullcontext(),
            live.begin() as connection,
        ):
            migrate(connection, self.shown)


def _at_most_twice(action: Callable[[], T]) -> T:
    try:
        return action()
    except StorageError as error:
        if not is_broken_connection(error):
            raise
    return action()


_connecting = RLock()
if hasattr(os, "register_at_fork"):  # a child must not inherit it locked by a thread it has not
    os.register_at_fork(
        before=_connecting.acquire,
        after_in_parent=_connecting.release,
        after_in_child=_connecting.release,
    )


class _Live:
    """The connections of one process."""

    def __init__(self, url: sa.URL, *, in_memory: bool) -> None:
        self.pid = os.getpid()
        # One connection serves all threads of an in-memory database, one at a time.
        self.alone: AbstractContextManager[Any] = RLock() if in_memory else nullcontext()
        self.writing: AbstractContextManager[Any] = nullcontext()
        if url.get_backend_name() != "sqlite":
            self.engine = sa.create_engine(url, pool_pre_ping=True, pool_timeout=_PATIENCE)
            return
        self.writing = Lock() if not in_memory else nullcontext()
        self.engine = _sqlite_engine(url, in_memory=in_memory)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Give a connection inside a transaction that writes."""
        options = self.engine.execution_options(fleche_write=True)
        with options.begin() as connection:
            yield connection

    def close(self) -> None:
        if self.pid == os.getpid():
            self.engine.dispose()


def _sqlite_engine(url: sa.URL, *, in_memory: bool) -> sa.Engine:
    arguments: dict[str, Any] = {"check_same_thread": False}
    if "timeout" not in url.query:
        arguments["timeout"] = _PATIENCE
    wal = False
    if in_memory:
        pool: dict[str, Any] = {"poolclass": sa.StaticPool}
    else:
        pool = {"poolclass": sa.QueuePool, "max_overflow": -1}
        path = Path(url.database or "")
        if _is_out_of_reach(path):
            url, pool = as_it_is(url, path), {"poolclass": sa.NullPool}
        elif not str(path).startswith("file:"):
            path.parent.mkdir(parents=True, exist_ok=True)
            wal = is_local(path.parent.resolve())
    engine = sa.create_engine(url, connect_args=arguments, **pool)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not behind our back
        connection.text_factory = _as_text
        connection.execute("PRAGMA foreign_keys = ON")
        if wal:
            _use_wal(connection)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("fleche_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _as_text(data: bytes) -> str:
    """Return a text even if it is damaged: no fault of the other rows that are read with it."""
    return data.decode("utf-8", "replace")


def _is_out_of_reach(path: Path) -> bool:
    """Tell whether nobody writes the file at ``path``, and this process may not."""
    log = path.with_name(f"{path.name}-wal")
    ours = os.access in os.supports_effective_ids
    return (
        path.exists()
        and not log.exists()
        and not os.access(path.parent, os.W_OK, effective_ids=ours)
    )


def _use_wal(connection: Any) -> None:
    """Keep a write-ahead log, so that readers and a writer do not wait for each other.

    Where that cannot be (a read-only file, perhaps), the journal that is there does as well.
    """
    deadline = time.monotonic() + _PATIENCE
    while (mode := _try_wal(connection)) == "locked" and time.monotonic() < deadline:
        time.sleep(0.02)
    if mode == "wal":
        connection.execute("PRAGMA synchronous = NORMAL")


def _try_wal(connection: Any) -> str:
    try:
        return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    except sqlite3.OperationalError as error:
        return "locked" if "locked" in str(error) else ""
