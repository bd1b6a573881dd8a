"""Claims as rows of a table, timed by the clock of the database.

The table is made when somebody first claims something. It is no part of the schema: a database
whose owner has never coalesced anything need not be migrated, and an older fleche can use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fleche.claims import Claim, Claims
from fleche.digest import Digest
from fleche.storage.sql.database import Database
from fleche.storage.sql.schema import lock_tables

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
        self._is_ready = False

    def take(self, key: Digest, owner: str) -> Claim | None:
        """Claim ``key`` unless somebody else has; return the claim that is in the way, if any."""
        self._make_ready()
        with self._database.read() as connection:  # who waits asks often, and only reads
            found = _find(connection, key)
        if found is not None:
            return found
        with self._database.write() as connection:
            now = _now(connection)
            insert = _INSERT[connection.dialect.name](claims)
            row = {"key": str(key), "owner": owner, "beat": now}
            connection.execute(sa.delete(claims).where(claims.c.beat < now - _LEFT))
            connection.execute(insert.values(row).on_conflict_do_nothing())
            found = _find(connection, key) or Claim("", 0.0)  # released in this very moment
        return None if found.owner == owner else found

    def take_over(self, key: Digest, owner: str, old: Claim) -> bool:
        """Claim ``key`` in place of ``old``; tell whether ``old`` was still as it was seen."""
        with self._database.write() as connection:
            change = sa.update(claims).where(
                claims.c.key == str(key), claims.c.owner == old.owner, claims.c.beat == old.beat
            )
            changed = connection.execute(change.values(owner=owner, beat=_now(connection)))
            return changed.rowcount > 0

    def renew(self, key: Digest, owner: str) -> bool:
        """Set the time of the claim to now; tell whether it is still that of ``owner``."""
        with self._database.write() as connection:
            change = sa.update(claims).where(claims.c.key == str(key), claims.c.owner == owner)
            return connection.execute(change.values(beat=_now(connection))).rowcount > 0

    def release(self, key: Digest, owner: str) -> None:
        """Remove the row, if it is that of ``owner``."""
        with self._database.write() as connection:
            mine = sa.and_(claims.c.key == str(key), claims.c.owner == owner)
            connection.execute(sa.delete(claims).where(mine))

    def now(self, key: Digest) -> float:  # noqa: ARG002 (one clock for all keys)
        """Return the time of the database."""
        with self._database.read() as connection:
            return float(connection.scalar(sa.select(_now(connection))) or 0.0)

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        with self._database.read() as connection:
            there = sa.inspect(connection).has_table(claims.name)
        if not there:
            with self._database.write() as connection:
                lock_tables(connection)
                claims.create(connection, checkfirst=True)
        self._is_ready = True


def _find(connection: sa.Connection, key: Digest) -> Claim | None:
    found = connection.execute(
        sa.select(claims.c.owner, claims.c.beat).where(claims.c.key == str(key))
    ).first()
    return None if found is None else Claim(found.owner, found.beat)


def _now(connection: sa.Connection) -> sa.ColumnElement[float]:
    return sa.literal_column(_NOW[connection.dialect.name], sa.Double())
