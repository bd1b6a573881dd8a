"""The statements that are executed for every record, built once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.storage.sql.schema import arguments, calls, metadata, rows_of

__all__ = ["ENTRY", "KEY", "KEYS", "RECORD", "RECORDS", "among", "replace_records"]

ENTRY = (calls.c.key, sa.func.length(calls.c.record).label("size"), calls.c.modified)
KEYS = sa.select(calls.c.key)
KEY = KEYS.where(calls.c.key == sa.bindparam("key"))
RECORDS = sa.select(calls.c.key, calls.c.record, calls.c.seal)
RECORD = RECORDS.where(calls.c.key == sa.bindparam("key"))

_PARTS = (arguments, metadata)
_DELETE = {
    table: sa.delete(table).where(table.c.key == sa.bindparam("old")) for table in (calls, *_PARTS)
}
_INSERT = {table: sa.insert(table) for table in (calls, *_PARTS)}


def among(keys: list[Digest]) -> sa.ColumnElement[bool]:
    """Return the condition that a call is one of ``keys``."""
    return calls.c.key.in_([str(key) for key in keys])


def replace_records(
    connection: sa.Connection, items: list[tuple[Digest, CallRecord]], keys: Sequence[bytes]
) -> None:
    """Write the rows of some records in all tables, in place of those that are there.

    Where the database can do so, ``created`` stays what it was. The first of ``keys``, if there are
    any, signs the records.
    """
    rows: list[Any] = [rows_of(key, record, keys) for key, record in items]
    old = [{"old": str(key)} for key, _ in items]
    upsert = _upsert(connection.dialect.name)
    if upsert is None:
        connection.execute(_DELETE[calls], old)
    connection.execute(_INSERT[calls] if upsert is None else upsert, [row[0] for row in rows])
    for number, table in enumerate(_PARTS, 1):
        connection.execute(_DELETE[table], old)
        if parts := [part for row in rows for part in row[number]]:
            connection.execute(_INSERT[table], parts)


@cache
def _upsert(dialect: str) -> Any:
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}.get(dialect)
    if insert is None:
        return None
    statement = insert(calls)
    changed = {
        column.name: statement.excluded[column.name]
        for column in calls.c
        if column.name not in ("key", "created")
    }
    return statement.on_conflict_do_update(index_elements=["key"], set_=changed)
