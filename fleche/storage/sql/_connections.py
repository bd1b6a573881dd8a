"""Connections of SQLite: how one is prepared and let go, and what a transaction on it is."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fleche.errors import StorageError
from fleche.storage.sql._errors import wrong_version
from fleche.storage.sql._schema import SCHEMA, tables_of

__all__ = [
    "Leased",
    "as_version",
    "in_transaction_of",
    "interrupting",
    "is_busy_error",
    "make_tables",
    "may",
    "prepare",
    "stored_version",
]

T = TypeVar("T")


class Leased:
    """A connection that is closed with the last reference to it.

    One of :mod:`sqlite3` leads back to itself, so that one which an interrupt has lost would stay
    open until the next collection of garbage.
    """

    __slots__ = ("__weakref__", "_connection", "execute", "executemany")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()


def prepare(connection: sqlite3.Connection) -> None:
    """Have a connection read damaged texts, too: no fault of the rows that are read with them."""
    connection.text_factory = lambda data: data.decode("utf-8", "replace")


def in_transaction_of(connection: Any, work: Callable[[Any], T]) -> T:
    """Return what ``work`` returns, called inside a transaction that writes; no cursor."""
    try:  # an interrupt that comes while it waits is raised when it has begun
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back already
            connection.execute("ROLLBACK")
        raise
    # With its cursor, a connection that is closed for a fork stays open, and the child inherits
    # locks that nothing in it gives up.
    return None if isinstance(result, sqlite3.Cursor) else result  # type: ignore[return-value]


def stored_version(connection: sqlite3.Connection) -> Any:
    """Return the version of the tables that are there; 0 if there are none."""
    try:
        query = "SELECT value FROM fleche_meta WHERE name = 'schema'"
        row = connection.execute(query).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    if row is None:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'fleche_calls'"
        return 0 if connection.execute(query).fetchone() is None else None
    return as_version(row[0])


def as_version(stored: Any) -> Any:
    """Return the number of a version, or what stands in its place."""
    return int(stored) if isinstance(stored, str) and re.fullmatch("[0-9]+", stored) else stored


def make_tables(connection: Any, shown: str) -> None:
    """Make the tables that are not there.

    Raises:
        StorageError: another fleche has made them.
    """
    version = stored_version(connection)
    if version == SCHEMA:
        return
    if version != 0 or version is None:
        raise wrong_version(shown, version)
    for statement in tables_of("sqlite"):
        connection.execute(statement)
    connection.execute(
        f"INSERT INTO fleche_meta (name, value) VALUES ('schema', '{SCHEMA}'), ('indexed', '0')"
    )


def interrupting(shown: str, action: str) -> StorageError:
    """Return the error of a thread that would have to wait for itself."""
    return StorageError(
        f"{shown}: cannot {action}: the same thread is in the middle of that; a signal handler, or "
        "the finalizer of an object, has come between, and cannot wait for its end"
    )


def is_busy_error(error: Exception) -> bool:
    """Return whether another process writes at the moment."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def may(mode: int, path: Path) -> bool:
    """Return whether this process may read, or write, a file; ``mode`` as of :func:`os.access`."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
