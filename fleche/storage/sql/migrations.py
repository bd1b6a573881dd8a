"""How the tables are made, and how older ones become the present ones.

All of it happens in one transaction: where it fails, the older fleche goes on with what was there.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from fleche.errors import StorageError
from fleche.storage.sql.failures import DAMAGED
from fleche.storage.sql.schema import Bytes, calls, meta, tables
from fleche.storage.sql.seals import seal

__all__ = ["MIGRATIONS", "SCHEMA", "lock_tables", "migrate", "stored_version"]

SCHEMA = 2
"""The version of the tables."""

_LOCK = 0x666C65636865  # "fleche"
_BATCH = 500

# As version 2 has it, whatever becomes of the table later.
_CALLS = sa.table(
    "fleche_calls",
    sa.column("key", sa.String()),
    sa.column("record", Bytes()),
    sa.column("seal", Bytes()),
)


def stored_version(connection: sa.Connection, shown: str) -> int:
    """Return the version of the tables that are there; 0 if there are none.

    Args:
        connection: to the database.
        shown: the database, for error messages.

    Raises:
        StorageError: it cannot be told.
    """
    there = sa.inspect(connection)
    # The calls first: others may commit the tables, which come with their version, between two
    # looks. The other way round, there would be calls whose version nobody had seen.
    has_calls = there.has_table(calls.name)
    found = None
    if there.has_table(meta.name):
        found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
    if found is None and not has_calls:
        return 0
    if not (isinstance(found, str) and found.isascii() and found.isdigit()):
        raise StorageError(f"{shown}: the version of its tables is {found!r} ({DAMAGED})")
    return int(found)


def migrate(connection: sa.Connection, shown: str) -> None:
    """Make the tables, or bring them up to date, inside the transaction of ``connection``.

    Args:
        connection: nobody else changes the tables before its transaction ends.
        shown: the database, for error messages.

    Raises:
        StorageError: a newer fleche made the tables.
    """
    lock_tables(connection)
    version = stored_version(connection, shown)
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


def _add_seals(connection: sa.Connection) -> None:
    """Add the column for seals, and give each record its checksum.

    None of them is signed: nobody knows who wrote what is in a database that is found somewhere.
    """
    kind = Bytes().compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE fleche_calls ADD COLUMN seal {kind}")
    change = sa.update(_CALLS).where(_CALLS.c.key == sa.bindparam("of"))
    change = change.values(seal=sa.bindparam("new"))
    all_of_them = sa.select(_CALLS.c.key, _CALLS.c.record)
    with connection.execute(all_of_them, execution_options={"yield_per": _BATCH}) as found:
        for rows in found.partitions():
            seals = [{"of": row.key, "new": seal(str(row.key), row.record)} for row in rows]
            connection.execute(change, seals)


MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _add_seals}
"""For each older version, what turns its tables into those of the next one."""
