"""A database server, with connections from SQLAlchemy: PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from threading import BoundedSemaphore
from typing import Any, TypeVar

from fleche._util import override
from fleche.errors import MissingExtra, StorageError
from fleche.storage.sql._database import NO_PARAMETERS, Connection, Parameters, Pooled
from fleche.storage.sql._errors import as_storage_error, wrong_version
from fleche.storage.sql._schema import SCHEMA, tables_of
from fleche.storage.sql._urls import for_sqlalchemy, redacted

try:
    import sqlalchemy as sa
except ImportError:
    raise MissingExtra(
        "calls in a database server need the package sqlalchemy: pip install sqlalchemy"
    ) from None

__all__ = ["Server"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for a connection, where there are as many as there may be."""

_MOST = 15
"""So many connections at most; a server has a limit for all its clients."""

_ISOLATION = "READ COMMITTED"
"""A writer waits for the others, and then sees what they wrote; whatever the server's default.

Where transactions are isolated further, all but one of the writers of one record fail.
"""

_TALKING = ("psycopg", "psycopg2", "pg8000")
"""Drivers that can be told in which encoding to talk."""

_LOCK = 0x666C65636865  # "fleche"
_HINTS = {"permission denied": "ask the owner of the database to let you write to its tables"}


class _Session:
    """A connection of SQLAlchemy as a :class:`Connection`."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Any = NO_PARAMETERS, /) -> Any:
        return self.connection.execute(_text(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Any], /) -> Any:
        if many := list(rows):
            return self.connection.execute(_text(sql), many)
        return None

    def close(self) -> None:
        self.connection.close()


@lru_cache(maxsize=256)
def _text(sql: str) -> sa.TextClause:
    return sa.text(sql)


class Server(Pooled):
    """A database of a PostgreSQL server.

    Args:
        url: an SQLAlchemy URL.
    """

    kind = "postgresql"

    def __init__(self, url: str) -> None:
        super().__init__()
        self.shown = redacted(url)
        self._url = for_sqlalchemy(url)
        self._engine: sa.Engine | None = None
        self._is_ready = False
        self._room = BoundedSemaphore(_MOST)

    @override
    def fetch(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> list[Any]:
        def select(session: _Session) -> list[Any]:
            with session.connection.begin():
                return [_without_views(row) for row in session.execute(sql, parameters).fetchall()]

        return self._at_most_twice("read", select)

    @override
    def change(self, work: Callable[[Connection], T], **_: Any) -> T:
        def act(session: _Session) -> T:
            with session.connection.begin():
                return work(session)

        return self._at_most_twice("write", act)

    def _at_most_twice(self, action: str, work: Callable[[_Session], T]) -> T:
        """Return what ``work`` returns; if the connection breaks, a new one does it once more.

        The first time may have been committed all the same: that the answer got lost does not mean
        that the database did not hear.
        """
        try:
            return self._act(action, work)
        except StorageError as error:
            if not getattr(error.__cause__, "connection_invalidated", False):
                raise
        self.close()  # the others were made before the server went away, too
        self.generation += 1
        return self._act(action, work)

    def _act(self, action: str, work: Callable[[_Session], T]) -> T:
        try:
            if not self._room.acquire(timeout=_PATIENCE):
                raise StorageError(f"{self.shown}: cannot {action}: all its connections are in use")
            room = self._room
            try:
                idle, session = self.take()
                try:
                    result = work(session)
                except BaseException:
                    self.discard(session)
                    raise
                self.give_back(idle, session)
                return result
            finally:
                room.release()
        except StorageError:
            raise
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"{self.shown}: needs the driver {error.name!r}: pip install {error.name}"
            ) from error
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise as_storage_error(self.shown, action, cause, _HINTS) from error

    @override
    def connect(self) -> _Session:
        if self._engine is None:
            # else a database of bytes (SQL_ASCII) answers in bytes, before it can be refused
            talks = sa.make_url(self._url).get_driver_name() in _TALKING
            options = {"client_encoding": "utf8"} if talks else {}
            self._engine = sa.create_engine(
                self._url, poolclass=sa.NullPool, isolation_level=_ISOLATION, **options
            )
        session = _Session(self._engine.connect())
        try:
            if not self._is_ready:
                self._make_ready(session)
        except BaseException:
            session.close()
            raise
        return session

    def _make_ready(self, session: _Session) -> None:
        with session.connection.begin():
            version = _stored_version(session)
        if version != SCHEMA:
            with session.connection.begin():
                self._make_tables(session)
        self._is_ready = True

    def _make_tables(self, session: _Session) -> None:
        session.execute("SELECT pg_advisory_xact_lock(:lock)", {"lock": _LOCK})
        version = _stored_version(session)
        if version == SCHEMA:
            return
        if version != 0:
            raise wrong_version(self.shown, version)
        encoding = session.execute("SHOW server_encoding").fetchall()[0][0]
        if encoding != "UTF8":
            raise StorageError(
                f"{self.shown}: a database in {encoding} cannot hold every text; make one by "
                "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
            )
        for statement in tables_of(self.kind):
            session.execute(statement)
        statement = "INSERT INTO fleche_meta (name, value) VALUES ('schema', :version)"
        session.execute(statement, {"version": str(SCHEMA)})

    @override
    def after_fork(self, *, in_child: bool) -> None:
        super().after_fork(in_child=in_child)
        if in_child:
            self._room = BoundedSemaphore(_MOST)
            self._inherited = False  # sessions of a server belong to their socket, not to a file
            self._engine = None


def _without_views(row: Any) -> Any:
    """Return a row with bytes where a driver (psycopg2) gives views of its memory."""
    if memoryview not in map(type, row):
        return row
    return tuple(bytes(each) if type(each) is memoryview else each for each in row)


def _stored_version(session: _Session) -> Any:
    """Return the version of the tables that are there; 0 if there are none."""
    # The calls first: others may commit the tables, which come with their version, between two
    # looks. The other way round, there would be calls whose version had not been looked at.
    has_calls = _has_table(session, "fleche_calls")
    rows: list[Any] = []
    if _has_table(session, "fleche_meta"):
        query = "SELECT value FROM fleche_meta WHERE name = 'schema'"
        rows = session.execute(query).fetchall()
    if not rows:
        return None if has_calls else 0
    text = rows[0][0]
    return int(text) if text.isascii() and text.isdigit() else text


def _has_table(session: _Session, name: str) -> bool:
    # Not to_regclass(), which may answer from a memory that is older than the lock on the tables.
    query = (
        "SELECT 1 FROM pg_catalog.pg_class"
        " WHERE relname = :name AND pg_catalog.pg_table_is_visible(oid)"
    )
    return bool(session.execute(query, {"name": name}).fetchall())
