"""Claims as rows of a table, timed by the clock of the database.

The table is made when somebody first claims something. It is no part of the schema: a database
whose owner has never coalesced anything need not be migrated, and an older fleche can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fleche.claims import Claim, Claims
from fleche.digest import Digest
from fleche.storage.sql.database import Database
from fleche.storage.sql.migrations import lock_tables

__all__ = ["SqlClaims"]

claims = sa.Table(
    "fleche_claims",
    sa.MetaData(),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("beat", sa.Double(), nullable=False),
)

_LEFT = 86400.0
"""Seconds after which nobody waits for a claim any more; it was left by a process that died."""

_INSERT: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}


class SqlClaims(Claims):
    """Claims in ``database``: SQLite or PostgreSQL."""

    shared = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = _INSERT[database.kind](claims).on_conflict_do_nothing()
        self._now: sa.ColumnElement[float] = sa.literal_column(_NOW[database.kind], sa.Double())
        self._is_ready = False

    def take(self, key: Digest, owner: str) -> Claim | None:
        """Claim ``key`` unless somebody else has; return the claim that is in the way, if any."""
        self._make_ready()
        found = _first(self._database.fetch(_FIND, {"key": str(key)}))
        if found is None:  # who waits asks often, and has only read
            found = self._database.change(lambda found: self._take(found, key, owner))
        return None if found.owner == owner else found

    def _take(self, connection: sa.Connection, key: Digest, owner: str) -> Claim:
        connection.execute(sa.delete(claims).where(claims.c.beat < self._now - _LEFT))
        connection.execute(self._insert.values(key=str(key), owner=owner, beat=self._now))
        found = _first(connection.execute(_FIND, {"key": str(key)}))
        return found or Claim("", 0.0)  # released in this very moment

    def take_over(self, key: Digest, owner: str, old: Claim) -> bool:
        """Claim ``key`` in place of ``old``; tell whether ``old`` was still as it was seen."""
        seen = sa.and_(_is(key, old.owner), claims.c.beat == old.beat)
        change = sa.update(claims).where(seen).values(owner=owner, beat=self._now)

        def take_over(connection: sa.Connection) -> bool:
            connection.execute(change)
            # the rows that it changed are none when it is done for the second time
            found = _first(connection.execute(_FIND, {"key": str(key)}))
            return found is not None and found.owner == owner

        return self._database.change(take_over)

    def renew(self, key: Digest, owner: str) -> bool:
        """Set the time of the claim to now; tell whether it is still that of ``owner``."""
        change = sa.update(claims).where(_is(key, owner)).values(beat=self._now)
        return self._database.change(lambda connection: connection.execute(change).rowcount > 0)

    def release(self, key: Digest, owner: str) -> None:
        """Remove the row, if it is that of ``owner``."""
        gone = sa.delete(claims).where(_is(key, owner))
        self._database.change(lambda connection: connection.execute(gone))

    def now(self, key: Digest) -> float:  # noqa: ARG002 (one clock for all keys)
        """Return the time of the database."""
        return float(self._database.fetch(sa.select(self._now))[0][0])

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        if not self._database.look(lambda found: sa.inspect(found).has_table(claims.name)):
            self._database.change(_create)
        self._is_ready = True


_FIND = sa.select(claims.c.owner, claims.c.beat).where(claims.c.key == sa.bindparam("key"))


def _first(rows: Iterable[Any]) -> Claim | None:
    return next((Claim(row.owner, row.beat) for row in rows), None)


def _is(key: Digest, owner: str) -> sa.ColumnElement[bool]:
    return sa.and_(claims.c.key == str(key), claims.c.owner == owner)


def _create(connection: sa.Connection) -> None:
    lock_tables(connection)
    claims.create(connection, checkfirst=True)
