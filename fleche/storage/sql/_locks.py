"""Locks as rows of a table, timed by the clock of the database."""

from __future__ import annotations

from typing import Any

from fleche._util import override
from fleche.storage._locks import Lock, LockTable
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._schema import WORDS

__all__ = ["SqlLocks"]

_LEFT = 86400.0
"""Seconds after which a lock is free: a process that died has left it."""

_CLOCKS = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": WORDS["postgresql"]["now"],
}
"""The time by the clock of the database, in seconds since the epoch."""

_FIND = "SELECT owner, heartbeat FROM fleche_locks WHERE key = :key"
_SWEEP = "DELETE FROM fleche_locks WHERE heartbeat < {now} - :left"
_INSERT = (
    "INSERT INTO fleche_locks (key, owner, heartbeat) VALUES (:key, :owner, {now})"
    " ON CONFLICT (key) DO NOTHING"
)
_STEAL = (
    "UPDATE fleche_locks SET owner = :owner, heartbeat = {now}"
    " WHERE key = :key AND owner = :old AND heartbeat = :seen"
)
_RENEW = "UPDATE fleche_locks SET heartbeat = {now} WHERE key = :key AND owner = :owner"
_RELEASE = "DELETE FROM fleche_locks WHERE key = :key AND owner = :owner"


class SqlLocks(LockTable):
    """Locks in ``database``."""

    shared = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = now = _CLOCKS[database.kind]
        self._sweep, self._insert, self._steal, self._renew = (
            statement.format(now=now) for statement in (_SWEEP, _INSERT, _STEAL, _RENEW)
        )

    @override
    def acquire(self, key: str, owner: str) -> Lock | None:
        names = {"key": str(key), "owner": owner, "left": _LEFT}
        found = self._find(names)
        if found is None:  # a process that waits asks often; this was a read
            found = self._database.change(lambda connection: self._acquire(connection, names))
        return None if found.owner == owner else found

    def _acquire(self, connection: Connection, names: dict[str, Any]) -> Lock:
        connection.execute(self._sweep, names)
        connection.execute(self._insert, names)
        rows = connection.execute(_FIND, names).fetchall()
        return Lock(*rows[0]) if rows else Lock("", 0.0)  # released in this very moment

    @override
    def steal(self, key: str, owner: str, old: Lock) -> bool:
        names = {"key": str(key), "owner": owner, "old": old.owner, "seen": old.heartbeat}

        def steal(connection: Connection) -> bool:
            connection.execute(self._steal, names)
            # the rows that it changed are none when it is done for the second time
            rows = connection.execute(_FIND, names).fetchall()
            return bool(rows) and rows[0][0] == owner

        return self._database.change(steal)

    @override
    def heartbeat(self, key: str, owner: str) -> bool:
        names = {"key": str(key), "owner": owner}
        return self._database.change(lambda found: found.execute(self._renew, names).rowcount > 0)

    @override
    def release(self, key: str, owner: str) -> None:
        names = {"key": str(key), "owner": owner}
        self._database.change(lambda found: found.execute(_RELEASE, names))

    @override
    def now(self, key: str) -> float:
        return float(self._database.fetch(f"SELECT {self._now}")[0][0])

    def _find(self, names: dict[str, Any]) -> Lock | None:
        rows = self._database.fetch(_FIND, names)
        return Lock(*rows[0]) if rows else None
