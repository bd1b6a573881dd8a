"""Calls in a database: SQLite with the standard library alone, PostgreSQL through SQLAlchemy."""

from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._rows import among
from fleche.storage.sql._sqlite import SqliteFile
from fleche.storage.sql._storage import Sql, SqlCalls, SqlOptions

__all__ = [
    "Connection",
    "Database",
    "Sql",
    "SqlCalls",
    "SqlOptions",
    "SqliteFile",
    "among",
]
