"""The tables, and how older ones become these.

The record of a call is kept whole in ``fleche_calls.record``; that is the truth. Everything else is
there to search by, in columns that any SQL client can read. A plain value takes three columns: its
kind, its number and its text (see :func:`columns_of`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from fleche.call import CallRecord, encode_record
from fleche.digest import Digest
from fleche.errors import StorageError

__all__ = [
    "LONGEST_TEXT",
    "MIGRATIONS",
    "OTHER",
    "SCHEMA",
    "arguments",
    "calls",
    "columns_of",
    "is_storable",
    "lock_tables",
    "metadata",
    "migrate",
    "rows_of",
    "stored_version",
]

SCHEMA = 1
"""The version of the tables below."""

MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {}
"""For each older version, what turns its tables into those of the next one."""

LONGEST_TEXT = 500
"""Longer texts are not in the columns to search by: PostgreSQL cannot index them."""

OTHER = "other"
"""The kind of what is no plain value, or a text that cannot be in a column."""

_LOCK = 0x666C65636865  # "fleche"

tables = sa.MetaData()

# Texts are ordered by code points, as in Python, and as in SQLite by itself.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_KEY = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def _plain_value(prefix: str) -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(f"{prefix}kind", sa.String(8)),
        sa.Column(f"{prefix}number", sa.Double()),
        sa.Column(f"{prefix}text", _TEXT),
    )


def _call_key() -> sa.Column[Any]:
    owner = sa.ForeignKey("fleche_calls.key", ondelete="CASCADE")
    return sa.Column("key", _KEY, owner, primary_key=True)


meta = sa.Table(
    "fleche_meta",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
)

calls = sa.Table(
    "fleche_calls",
    tables,
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("name", _TEXT, nullable=False),
    sa.Column("module", _TEXT),
    *_plain_value("version_"),
    sa.Column("code", _KEY),
    sa.Column("result", _KEY),
    *_plain_value("result_"),
    sa.Column("metadata", sa.Text(), nullable=False),
    sa.Column("created", sa.Double(), nullable=False),
    sa.Column("modified", sa.Double(), nullable=False),
    sa.Column("lease", sa.Boolean(), nullable=False),
    sa.Column("record", sa.LargeBinary(), nullable=False),
    sa.Index("fleche_calls_name", "name", "key"),
    sa.Index("fleche_calls_module", "module"),
    sa.Index("fleche_calls_code", "code"),
    sa.Index("fleche_calls_result", "result"),
    sa.Index("fleche_calls_result_number", "result_number"),
    sa.Index("fleche_calls_result_text", "result_text"),
)

arguments = sa.Table(
    "fleche_arguments",
    tables,
    _call_key(),
    sa.Column("name", _TEXT, primary_key=True),
    sa.Column("digest", _KEY, nullable=False),
    *_plain_value(""),
    sa.Index("fleche_arguments_digest", "name", "digest"),
    sa.Index("fleche_arguments_number", "name", "number"),
    sa.Index("fleche_arguments_text", "name", "text"),
    sqlite_with_rowid=False,
)

metadata = sa.Table(
    "fleche_metadata",
    tables,
    _call_key(),
    sa.Column("collector", _TEXT, primary_key=True),
    sa.Column("field", _TEXT, primary_key=True),
    *_plain_value(""),
    sa.Index("fleche_metadata_number", "collector", "field", "number"),
    sa.Index("fleche_metadata_text", "collector", "field", "text"),
    sqlite_with_rowid=False,
)


def stored_version(connection: sa.Connection) -> int:
    """Return the version of the tables that are there; 0 if there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return 0
    found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
    return int(found or 0)


def migrate(connection: sa.Connection, shown: str) -> None:
    """Make the tables, or bring them up to date, inside the transaction of ``connection``.

    Args:
        connection: nobody else changes the tables before its transaction ends.
        shown: the database, for error messages.

    Raises:
        StorageError: a newer fleche made the tables.
    """
    lock_tables(connection)
    version = stored_version(connection)
    if version > SCHEMA:
        raise StorageError(
            f"{shown}: made by a newer fleche (schema {version}, this one knows {SCHEMA}); "
            "upgrade fleche here, or use another database"
        )
    if version == SCHEMA:
        return
    if version == 0:
        tables.create_all(connection)
    else:
        for step in range(version, SCHEMA):
            MIGRATIONS[step](connection)
    connection.execute(sa.delete(meta).where(meta.c.name == "schema"))
    connection.execute(sa.insert(meta).values(name="schema", value=str(SCHEMA)))


def lock_tables(connection: sa.Connection) -> None:
    """Keep others from making tables until the transaction of ``connection`` ends."""
    if connection.dialect.name == "postgresql":  # in SQLite only one transaction writes at a time
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def is_storable(text: str) -> bool:
    """Tell whether ``text`` can be in a column: not too long, no NUL, no half characters."""
    if len(text) > LONGEST_TEXT or "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def columns_of(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the three columns of a plain value; of what is no plain value, ``kind`` is "other".

    Numbers are doubles, to which larger integers are rounded; NaN has no number.
    """
    kind, number, text = OTHER, None, None
    if value is None:
        kind = "none"
    elif isinstance(value, bool):
        kind, number = "bool", float(value)
    elif isinstance(value, int | float):
        kind = "number"
        number = None if isinstance(value, float) and math.isnan(value) else float(value)
    elif isinstance(value, str) and is_storable(value):
        kind, text = "text", value
    return {f"{prefix}kind": kind, f"{prefix}number": number, f"{prefix}text": text}


def _no_columns(prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{name}": None for name in ("kind", "number", "text")}


def rows_of(
    key: Digest, record: CallRecord
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the row of ``calls`` and the rows of ``arguments`` and ``metadata`` for one record."""
    return _call_row(key, record), _argument_rows(key, record), _metadata_rows(key, record.metadata)


def _call_row(key: Digest, record: CallRecord) -> dict[str, Any]:
    now = time.time()
    literal = record.literal
    no_literal = literal is msgspec.UNSET
    return {
        "key": str(key),
        "name": _shortened(record.name),
        "module": None if record.module is None else _shortened(record.module),
        **columns_of(record.version, "version_"),
        "code": None if record.code is None else str(record.code),
        "result": None if record.result is None else str(record.result),
        **(_no_columns("result_") if no_literal else columns_of(literal, "result_")),
        "metadata": msgspec.json.encode(record.metadata, enc_hook=str).decode(),
        "created": now,
        "modified": now,
        "lease": record.result is None,
        "record": encode_record(record),
    }


def _shortened(text: str) -> str:
    """Return what a name is searched by: NUL replaced, and cut where it cannot be indexed."""
    return text.replace("\0", "\ufffd")[:LONGEST_TEXT]


def _argument_rows(key: Digest, record: CallRecord) -> list[dict[str, Any]]:
    return [
        {
            "key": str(key),
            "name": name,
            "digest": str(digest),
            **(columns_of(record.literals[name]) if name in record.literals else _no_columns()),
        }
        for name, digest in record.arguments.items()
        if is_storable(name)
    ]


def _metadata_rows(key: Digest, found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"key": str(key), "collector": collector, "field": field, **columns_of(value)}
        for collector, fields in found.items()
        if is_storable(collector)
        for field, value in fields.items()
        if is_storable(field)
    ]
