"""Locks as rows of a table, timed by the clock of the database."""

from __future__ import annotations

import time
from typing import Any

from fleche._util import override
from fleche.storage._locks import Lock, LockTable
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._schema import WORDS

__all__ = ["SqlLocks"]

_LEFT = 86400.0
"""Seconds after which nobody waits for a lock any more; a process that died has left it."""

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
        now = WORDS[database.kind]["now"]
        self._sweep, self._insert, self._steal, self._renew = (
            statement.format(now=now) for statement in (_SWEEP, _INSERT, _STEAL, _RENEW)
        )

    @override
    def acquire(self, key: str, owner: str) -> Lock | None:
        names = {"key": str(key), "owner": owner, "left": _LEFT}
        found = self._find(names)
        if found is None:  # whoever waits asks often, and has only read
            found = self._database.change(lambda connection: self._acquire(connection, names))
        return None if found.owner == owner else found

    def _acquire(self, connection: Connection, names: dict[str, Any]) -> Lock:
        timed = {**names, "now": time.time()}
        connection.execute(self._sweep, timed)
        connection.execute(self._insert, timed)
        rows = connection.execute(_FIND, names).fetchall()
        return Lock(*rows[0]) if rows else Lock("", 0.0)  # released in this very moment

    @override
    def steal(self, key: str, owner: str, old: Lock) -> bool:
        names = {"key": str(key), "owner": owner, "old": old.owner, "seen": old.heartbeat}

        def steal(connection: Connection) -> bool:
            connection.execute(self._steal, {**names, "now": time.time()})
            # the rows that it changed are none when it is done for the second time
            rows = connection.execute(_FIND, names).fetchall()
            return bool(rows) and rows[0][0] == owner

        return self._database.change(steal)

    @override
    def heartbeat(self, key: str, owner: str) -> bool:
        names = {"key": str(key), "owner": owner, "now": time.time()}
        return self._database.change(lambda found: found.execute(self._renew, names).rowcount > 0)

    @override
    def release(self, key: str, owner: str) -> None:
        names = {"key": str(key), "owner": owner}
        self._database.change(lambda found: found.execute(_RELEASE, names))

    @override
    def now(self, key: str) -> float:
        if self._database.kind == "sqlite":  # its clock is that of this machine
            return time.time()
        return float(self._database.fetch(f"SELECT {WORDS[self._database.kind]['now']}")[0][0])

    def _find(self, names: dict[str, Any]) -> Lock | None:
        rows = self._database.fetch(_FIND, names)
        return Lock(*rows[0]) if rows else None
