"""By what calls are searched: rows of facts, in SQLite written for thousands of calls at once.

A call is stored without its facts, which a later one, or a query, writes for all that have none:
the more at once, the less it takes for each. Up to which call that was done stands in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from fleche.call import CallEntry
from fleche.errors import StorageError
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._errors import DAMAGED
from fleche.storage.sql._rows import LAST_ID, Rows, among
from fleche.storage.sql._schema import FUNCTION, UNINDEXED, facts_of

__all__ = ["FORGET_FACTS", "LOOK", "SearchIndex"]

_TAIL = 10_000
"""After so many calls without facts, those of all of them are written."""

LOOK = 500
"""How many there are is looked at whenever so many have come."""

_AT_ONCE = 500
"""Calls that are in memory at a time while their facts are written."""

_CATCH_UP = 0.1
"""Seconds for which a query waits for other writers, to write the facts that are missing."""

FORGET_FACTS = "DELETE FROM fleche_facts WHERE call = :id"
_INDEXED = "SELECT value FROM fleche_meta WHERE name = 'indexed'"
_PROGRESS = (
    "SELECT value, (SELECT MAX(id) FROM fleche_calls) FROM fleche_meta WHERE name = 'indexed'"
)
_FACT = ("call", "field", "digest", "variant", "held", "kind", "number", "text")
_INSERT_FACT = f"INSERT INTO fleche_facts ({', '.join(_FACT)}) VALUES (:{', :'.join(_FACT)})"
_INSERT_MEMBER = (
    "INSERT INTO fleche_facts (call, field, held, number)"
    f" SELECT id, '{FUNCTION}', 0, function FROM fleche_calls WHERE id > :after AND id <= :last"
)
_INSERT_FACT_BY_PLACE = "INSERT INTO fleche_facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # SQLite alone
_BEHIND = (
    f"SELECT id, key, entry FROM fleche_calls WHERE id > :indexed ORDER BY id LIMIT {_AT_ONCE}"
)
_SET_INDEXED = "UPDATE fleche_meta SET value = :value WHERE name = 'indexed'"
# The id of a call that was removed may be given to another one, which has no facts yet.
_LOWER_INDEXED = (
    "UPDATE fleche_meta SET value = (SELECT CAST(COALESCE(MAX(id), 0) AS TEXT) FROM fleche_calls)"
    " WHERE name = 'indexed'"
    " AND CAST(value AS BIGINT) > (SELECT COALESCE(MAX(id), 0) FROM fleche_calls)"
)

Stored: TypeAlias = Sequence[tuple[str, tuple[CallEntry, bytes]]]
"""Keys, each with its entry and the bytes of that."""


class SearchIndex:
    """The facts of the calls in a database.

    Args:
        database: SQLite or a server.
        rows: its calls.

    Attributes:
        is_late: whether facts are written later: where calls get their ids in order.
        unindexed: the fields of calls that have no facts there.
    """

    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows
        self.is_late = database.kind == "sqlite"
        self.unindexed = UNINDEXED if self.is_late else frozenset()

    def look(self, call: int) -> None:
        """Write the facts of the calls up to one if many have none."""
        with suppress(StorageError):  # the call is stored; its facts can wait
            self._database.change(partial(self._keep_up, call))

    def put(self, connection: Connection, stored: Stored) -> None:
        """Write the facts of calls that have just been stored, now or with those of later ones."""
        select, names = among("SELECT key, id FROM fleche_calls WHERE key", dict(stored))
        ids = dict(tuple(row) for row in connection.execute(select, names).fetchall())
        indexed = self._last(connection) if self.is_late else LAST_ID
        last = 0
        for key, (entry, _) in stored:
            call = ids.get(key)
            if type(call) is not int:
                raise StorageError(
                    f"{self._database.shown}: what has just been stored is not there ({DAMAGED})"
                )
            last = max(last, call)
            if call <= indexed:  # it takes the place of another
                connection.executemany(FORGET_FACTS, [{"id": call}])
                self._insert(connection, [(call, entry)])
                if self.is_late:
                    connection.execute(_INSERT_MEMBER, {"after": call - 1, "last": call})
        if self.is_late:
            self._keep_up(last, connection)

    def note_removed(self, connection: Connection) -> None:
        """Take note that calls were removed, with their facts."""
        if self.is_late:
            connection.execute(_LOWER_INDEXED)

    def last(self) -> int:
        """Return the last call whose facts are there; write what is missing, where that is easy."""
        if not self.is_late:
            return LAST_ID - 1
        rows = self._database.fetch(_PROGRESS)
        if not rows:
            return 0
        indexed, last = _as_number(rows[0][0]), rows[0][1]
        if isinstance(last, int) and last > indexed and self._database.is_ours():
            with suppress(StorageError):
                return self._database.change(
                    lambda found: self._write(found, self._last(found)), patience=_CATCH_UP
                )
        return indexed

    def _last(self, connection: Connection) -> int:
        rows = connection.execute(_INDEXED).fetchall()
        return _as_number(rows[0][0]) if rows else 0

    def _keep_up(self, last: int, connection: Connection) -> None:
        """Write the facts of the calls up to ``last`` if many have none."""
        indexed = self._last(connection)
        if last - indexed >= _TAIL:
            self._write(connection, indexed)

    def _write(self, connection: Connection, indexed: int) -> int:
        """Write the facts of the calls that have none; return the last of them."""
        last = indexed
        while rows := self._rows_behind(connection, last):
            opened = ((call, self._rows.opened(key, data)) for call, key, data in rows)
            sound = ((call, entry) for call, entry in opened if isinstance(entry, CallEntry))
            self._insert(connection, sound)
            last = max(row[0] for row in rows)
        if last > indexed:
            connection.execute(_INSERT_MEMBER, {"after": indexed, "last": last})
            connection.execute(_SET_INDEXED, {"value": str(last)})
        return last

    def _rows_behind(self, connection: Connection, last: int) -> list[Any]:
        found = connection.execute(_BEHIND, {"indexed": last}).fetchall()
        return [row for row in found if type(row[0]) is int and row[0] > last]

    def _insert(self, connection: Connection, calls: Iterable[tuple[int, CallEntry]]) -> None:
        facts = chain.from_iterable(facts_of(call, entry, self.unindexed) for call, entry in calls)
        if self._database.kind == "sqlite":
            connection.executemany(_INSERT_FACT_BY_PLACE, facts)
        else:
            connection.executemany(
                _INSERT_FACT, [dict(zip(_FACT, fact, strict=True)) for fact in facts]
            )


def _as_number(value: Any) -> int:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else 0
