"""What goes wrong with a database, in words for a person."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from fleche.errors import FlecheError, MissingExtra, StorageError

__all__ = ["DAMAGED", "explained", "is_broken_connection"]

DAMAGED = "the database is damaged; move it away, or restore a copy"

_HINTS = {
    "locked": "another process has been writing for more than a minute",
    "readonly": "no permission to write; set read_only = true for this cache",
    "unable to open": "check that the directory exists and may be written to",
    "disk is full": "free some space, or remove results that nobody needs (gc)",
    "not a database": "the file is something else, or damaged; choose another url",
    "malformed": DAMAGED,
    "decode": DAMAGED,
    "does not exist": "make it first; only the tables are made by themselves",
    "connection": "check the host, the port and that the server runs",
    "password": "check the user and the password in the url",
}
_PERHAPS = f"perhaps {DAMAGED}"


@contextmanager
def explained(shown: str, action: str, hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn the exceptions of drivers into those of this package.

    Args:
        shown: the database, without passwords.
        action: what is done to it: "read" or "write".
        hints: what to do, by a word of what the driver may say, where it is known better.

    Raises:
        StorageError: the database failed.
        MissingExtra: its driver is not installed.
    """
    try:
        yield
    except FlecheError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{shown}: needs the driver {error.name!r}: pip install {error.name}"
        ) from error
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "orig", None) or error
        reason = str(cause).strip()
        known = {**_HINTS, **(hints or {})}
        hint = next((hint for word, hint in known.items() if word in reason.lower()), "")
        if not hint and isinstance(cause, sqlite3.DatabaseError):
            hint = _PERHAPS
        raise StorageError(
            f"{shown}: cannot {action}: {reason}{f' ({hint})' if hint else ''}"
        ) from error


def is_broken_connection(error: StorageError) -> bool:
    """Tell whether a connection broke in use; nothing is known of what it was used for."""
    return bool(getattr(error.__cause__, "connection_invalidated", False))
