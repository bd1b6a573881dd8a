"""The small tables beside the calls: counters of use, and code that was accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from fleche._util import override
from fleche.storage._base import CallStorage
from fleche.storage._notes import FIGURES, Acceptance, Usage
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._schema import shortened

__all__ = ["NotesInTables"]

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


class NotesInTables(CallStorage):
    """What a database keeps beside its calls."""

    _database: Database

    @override
    def note_usage(self, rows: Iterable[Usage]) -> None:
        """Add counters; those of a transaction that a broken connection hides may count twice."""
        names = ("host", "user", "name", "module")
        found = [
            {
                **msgspec.structs.asdict(row),
                **{name: shortened(getattr(row, name)) for name in names},
            }
            for row in sorted(rows, key=lambda row: row.place)  # no two writers wait for each other
        ]
        if found:
            self._database.change(lambda connection: connection.executemany(_ADD_USAGE, found))

    @override
    def usage(self) -> Iterator[Usage]:
        names = Usage.__struct_fields__
        for row in self._database.fetch(_USAGE):
            with suppress(msgspec.ValidationError):  # a damaged row
                yield msgspec.convert(dict(zip(names, row, strict=True)), Usage)

    @override
    def usage_name(self) -> str:
        for (value,) in self._database.fetch(_NAME):
            return str(value)

        def name(connection: Connection) -> str:
            connection.execute(_ADD_NAME, {"value": os.urandom(16).hex()})
            ((value,),) = connection.execute(_NAME).fetchall()
            return str(value)

        return self._database.change(name)

    @override
    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        found = [
            {"key": str(row.key), "content": msgspec.json.encode(row).decode()}
            for row in sorted(rows, key=lambda row: row.key)
        ]
        if found:
            self._database.change(lambda connection: connection.executemany(_ADD_ACCEPTED, found))

    @override
    def accepted(self) -> Iterator[Acceptance]:
        for (content,) in self._database.fetch(_ACCEPTED):
            with suppress(msgspec.MsgspecError):  # a damaged row
                yield msgspec.json.decode(content, type=Acceptance)
