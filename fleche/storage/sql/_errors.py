"""What goes wrong with a database, in words for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleche.errors import StorageError
from fleche.storage.sql._schema import SCHEMA

__all__ = ["DAMAGED", "DiskFull", "Disturbed", "as_storage_error", "wrong_version"]

DAMAGED = "the database is damaged; move it away, or restore a copy"
_WITH_ITS_LOG = (
    "move it away with its -wal and -shm, or restore a copy in place of all three: a log that is "
    "another database's damages the copy"
)

_HINTS = {
    "locked": "another process has been writing for more than a minute",
    "readonly": "no permission to write, or a file system that is mounted read-only: ask its "
    "owner, or set read_only = true for this cache",
    "read-only transaction": "this server only reads; set read_only = true for this cache",
    "unable to open": "check that the directory exists and may be written to",
    "permission denied": "ask its owner for permission, or set read_only = true for this cache",
    "disk i/o error": "the system refused it: look at the disk, at quotas, and at the limit on the "
    "size of files (df, quota, ulimit -f); what has been stored stays as it is",
    "name too long": "choose a shorter path",
    "disk is full": "free some space, or remove results (fleche evict, then fleche gc)",
    "not a database": f"the file is something else, or damaged; {_WITH_ITS_LOG}",
    "malformed": f"the database is damaged; {_WITH_ITS_LOG}",
    "decode": DAMAGED,
    "does not exist": "make it first; only the tables are made by themselves",
    "connection": "check the host, the port and that the server runs",
    "resolve host": "check the host in the url",
    "password": "check the user and the password in the url",
}


class Disturbed(StorageError):
    """A file was written to while it was read without its locks, so the look was in vain."""


class DiskFull(StorageError):
    """There is no room for what was to be done; less at a time may still go."""


def as_storage_error(
    shown: str,
    action: str,
    cause: BaseException,
    hints: Mapping[str, str] | None = None,
    otherwise: str = "",
) -> StorageError:
    """Return the error that says what happened to which database, and what to do next.

    Args:
        shown: the database, without passwords.
        action: what was done to it: "read" or "write".
        cause: what the driver raised.
        hints: what to do, by a word of what the driver says, where it is known better.
        otherwise: what to do where no word is known.
    """
    system = cause.strerror if isinstance(cause, OSError) else None  # without the path
    reason = system or str(cause).strip() or type(cause).__name__
    first = hints or {}
    known = {**first, **_HINTS, **first}
    hint = next((hint for word, hint in known.items() if word in reason.lower()), otherwise)
    kind = DiskFull if "disk is full" in reason.lower() else StorageError
    return kind(f"{shown}: cannot {action}: {reason}{f' ({hint})' if hint else ''}")


def wrong_version(shown: str, version: Any) -> StorageError:
    """Return the error that refuses tables of another version."""
    if isinstance(version, int) and version > SCHEMA:
        return StorageError(
            f"{shown}: made by a newer fleche (schema {version}, this one knows {SCHEMA}); "
            "upgrade fleche here, or use another database"
        )
    if isinstance(version, int):
        return StorageError(
            f"{shown}: its tables are of schema {version}, this fleche knows {SCHEMA}; "
            "move it away, or use another database"
        )
    return StorageError(f"{shown}: the version of its tables is {version!r} ({DAMAGED})")
