"""The small tables beside the calls: counters of use, and code that was accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from fleche.storage._acceptance import Acceptance
from fleche.storage._usage import FIGURES, Usage
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._schema import shortened

__all__ = ["add_accepted", "add_usage", "name_of_usage", "read_accepted", "read_usage"]

# Copies of a counter are not added up: of these the larger counts.
_MERGED = ", ".join(
    f"{name} = CASE WHEN excluded.cache = '' THEN fleche_usage.{name} + excluded.{name}"
    f" WHEN excluded.{name} > fleche_usage.{name} THEN excluded.{name}"
    f" ELSE fleche_usage.{name} END"
    for name in FIGURES
)
_ADD_USAGE = (
    "INSERT INTO fleche_usage"
    " (hour, host, account, name, module, cache, hits, misses, saved, spent, bytes)"
    " VALUES (:hour, :host, :user, :name, :module, :cache, :hits, :misses, :saved, :spent, :bytes)"
    f" ON CONFLICT (hour, host, account, name, module, cache) DO UPDATE SET {_MERGED}"
)
_USAGE = (
    "SELECT hour, host, account, name, module, hits, misses, saved, spent, bytes, cache"
    " FROM fleche_usage"
)
_NAME = "SELECT value FROM fleche_meta WHERE name = 'usage'"
_ADD_NAME = (
    "INSERT INTO fleche_meta (name, value) VALUES ('usage', :value) ON CONFLICT (name) DO NOTHING"
)
_ADD_ACCEPTED = (
    "INSERT INTO fleche_accepted (key, content) VALUES (:key, :content)"
    " ON CONFLICT (key) DO UPDATE SET content = excluded.content"
)
_ACCEPTED = "SELECT content FROM fleche_accepted"


def add_usage(database: Database, rows: Iterable[Usage]) -> None:
    """Add counters; those of a transaction that a broken connection hides may count twice."""
    names = ("host", "user", "name", "module")
    found = [
        {**msgspec.structs.asdict(row), **{name: shortened(getattr(row, name)) for name in names}}
        for row in sorted(rows, key=lambda row: row.place)  # no two writers wait for each other
    ]
    if found:
        database.change(lambda connection: connection.executemany(_ADD_USAGE, found))


def read_usage(database: Database) -> Iterator[Usage]:
    """Yield all counters."""
    names = Usage.__struct_fields__
    for row in database.fetch(_USAGE):
        with suppress(msgspec.ValidationError):  # a damaged row
            yield msgspec.convert(dict(zip(names, row, strict=True)), Usage)


def name_of_usage(database: Database) -> str:
    """Return what tells these counters from those of all other databases."""
    for (value,) in database.fetch(_NAME):
        return str(value)

    def name(connection: Connection) -> str:
        connection.execute(_ADD_NAME, {"value": os.urandom(16).hex()})
        ((value,),) = connection.execute(_NAME).fetchall()
        return str(value)

    return database.change(name)


def add_accepted(database: Database, rows: Iterable[Acceptance]) -> None:
    """Keep what was accepted."""
    found = [
        {"key": str(row.key), "content": msgspec.json.encode(row).decode()}
        for row in sorted(rows, key=lambda row: row.key)
    ]
    if found:
        database.change(lambda connection: connection.executemany(_ADD_ACCEPTED, found))


def read_accepted(database: Database) -> Iterator[Acceptance]:
    """Yield everything that was accepted."""
    for (content,) in database.fetch(_ACCEPTED):
        with suppress(msgspec.MsgspecError):  # a damaged row
            yield msgspec.json.decode(content, type=Acceptance)
