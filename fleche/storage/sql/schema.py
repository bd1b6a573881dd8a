"""The tables, and the rows of one record.

The record of a call is kept whole in ``fleche_calls.record``; that is the truth, for which
``fleche_calls.seal`` vouches (:mod:`fleche.storage.sql.seals`). Everything else is there to search
by, in columns that any SQL client can read. A plain value takes three columns: its kind, its number
and its text (see :func:`columns_of`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleche.call import CallRecord, encode_record
from fleche.digest import Digest
from fleche.storage.sql.seals import seal

__all__ = [
    "LONGEST_TEXT",
    "OTHER",
    "Bytes",
    "arguments",
    "calls",
    "columns_of",
    "is_storable",
    "meta",
    "metadata",
    "rows_of",
    "tables",
]

LONGEST_TEXT = 500
"""Longer texts are not in the columns to search by: PostgreSQL cannot index them."""

OTHER = "other"
"""The kind of what is no plain value, or a text that cannot be in a column."""


class Bytes(sa.TypeDecorator[bytes]):
    """Bytes; what else a damaged file holds in their place is read as none.

    Of a number, SQLAlchemy by itself would make as many zero bytes.
    """

    impl = sa.LargeBinary
    cache_ok = True
    """Statements with it may be compiled once."""

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], bytes]:
        """Return what turns a value from the driver into bytes."""
        del dialect, coltype
        return _as_bytes


def _as_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    return bytes(value) if isinstance(value, bytearray | memoryview) else b""


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
    sa.Column("record", Bytes(), nullable=False),
    sa.Column("seal", Bytes()),
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
    key: Digest, record: CallRecord, keys: Sequence[bytes] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the row of ``calls`` and the rows of ``arguments`` and ``metadata`` for one record.

    The first of ``keys``, if there are any, signs it.
    """
    call = _call_row(key, record, keys)
    return call, _argument_rows(key, record), _metadata_rows(key, record.metadata)


def _call_row(key: Digest, record: CallRecord, keys: Sequence[bytes]) -> dict[str, Any]:
    now = time.time()
    encoded = encode_record(record)
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
        "record": encoded,
        "seal": seal(key, encoded, keys),
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
