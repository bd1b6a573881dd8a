"""Records of calls in a database, through SQLAlchemy: SQLite and PostgreSQL.

Importing this package needs ``pip install "fleche[sql]"``.
"""

from fleche.errors import MissingExtra

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401
except ImportError:
    raise MissingExtra(
        'calls of type "sql" need the package sqlalchemy: pip install "fleche[sql]"'
    ) from None

from fleche.storage.sql.storage import Sql, SqlOptions

__all__ = ["Sql", "SqlOptions"]
