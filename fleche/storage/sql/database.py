"""A database: where it is, and connections to it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, RLock
from typing import Any, TypeVar

import sqlalchemy as sa

from fleche.errors import StorageError
from fleche.storage.sql.failures import explained, is_broken_connection
from fleche.storage.sql.migrations import SCHEMA, migrate, stored_version
from fleche.storage.sql.sqlite import engine_of, undisturbed, until_undisturbed
from fleche.storage.sql.urls import is_in_memory, parse, redacted

__all__ = ["Database"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for a connection, where there are as many as there may be."""

_ISOLATION = "READ COMMITTED"
"""Who writes waits for others who do, and then sees what they wrote; whatever the server's default.

Where transactions are isolated further, all but one of those who write the same record fail.
"""

_NO_PERMISSION = ("readonly", "must be owner", "permission denied")
_LET_SOMEBODY = "let somebody who may write to it open it once with this fleche"

_inherited: list[Any] = []  # engines of a parent process, kept so that nothing here closes them


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
        """Give a connection for a short look; :meth:`look` has one that never is in vain.

        Raises:
            StorageError: the database failed.
        """
        with explained(self.shown, "read"):
            live = self._connect()
            with (
                live.alone,
                live.engine.connect() as connection,
                undisturbed(connection, self.shown),
            ):
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
        return self.look(lambda connection: connection.execute(statement, parameters).all())

    def look(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what ``work`` returns, called with a connection to read from.

        It is called once more if the connection breaks, and again if somebody has written to a file
        that was read as it is.

        Raises:
            StorageError: the database failed.
        """

        def act() -> T:
            with self.read() as connection:
                return work(connection)

        return until_undisturbed(lambda: _at_most_twice(act))

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
            version = until_undisturbed(lambda: self._stored_version(live))
            if version != SCHEMA:
                self._migrate(live, version)
        except BaseException:
            live.close()
            raise
        weakref.finalize(self, live.close)
        return live

    def _stored_version(self, live: _Live) -> int:
        with live.engine.connect() as connection, undisturbed(connection, self.shown):
            return stored_version(connection, self.shown)

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
            self.engine = sa.create_engine(
                url, pool_pre_ping=True, pool_timeout=_PATIENCE, isolation_level=_ISOLATION
            )
            return
        self.writing = Lock() if not in_memory else nullcontext()
        self.engine = engine_of(url, in_memory=in_memory)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Give a connection inside a transaction that writes."""
        options = self.engine.execution_options(fleche_write=True)
        with options.begin() as connection:
            yield connection

    def close(self) -> None:
        if self.pid == os.getpid():
            self.engine.dispose()
