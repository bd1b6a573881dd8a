"""Database urls: where the database is, with absolute paths and hidden passwords.

They are taken apart here and not by SQLAlchemy, which only servers need. ``urllib`` is imported
where a url is at hand: the path of a file needs none of it, and is opened that much sooner.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fleche.errors import StorageError

__all__ = [
    "SqliteUrl",
    "backend_of",
    "for_sqlalchemy",
    "immutable",
    "locate",
    "parse_sqlite",
    "read_only",
    "redacted",
    "without_locks",
]

_URL = re.compile(r"(?P<name>[a-z][a-z0-9]*)(?:\+\w+)?://(?P<rest>.*)", re.DOTALL)
_SHOWN = "***"
_THREE_SLASHES = "an SQLite url has three slashes: sqlite:///path"
_SERVERS = ("postgresql", "postgres")
_PURE_MYSQL = ("mysql", "mariadb")
_OPTIONS = frozenset({"cache", "check_same_thread", "immutable", "mode", "timeout", "uri"})


class SqliteUrl(NamedTuple):
    """What an SQLite url says.

    Attributes:
        path: of the file; empty for a database in memory.
        read_only: the url says that the file may only be read.
        patience: seconds to wait for other writers, where the url says so.
    """

    path: str = ""
    read_only: bool = False
    patience: float | None = None


def backend_of(url: str) -> str:
    """Return ``"sqlite"`` or ``"postgresql"``.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.

    Raises:
        StorageError: it is no URL, or that of another database.
    """
    if "://" not in url:
        if url.startswith("sqlite:"):
            raise StorageError(f"{url}: {_THREE_SLASHES}")
        return "sqlite"
    found = _URL.fullmatch(url)
    if found is None:
        raise StorageError(
            f"{url.partition('://')[0]}://...: not a database url; "
            "write sqlite:///path, postgresql+psycopg://user@host/name, or the path of a file"
        )
    name = found["name"]
    if name == "sqlite":
        return name
    if name in _SERVERS:
        return "postgresql"
    called = "MySQL and MariaDB" if name in _PURE_MYSQL else f"a database of type {name!r}"
    raise StorageError(
        f"{redacted(url)}: {called} cannot keep calls; use PostgreSQL "
        "(postgresql+psycopg://user@host/name) or SQLite (sqlite:///path)"
    )


def locate(url: str, resolve: Callable[[str], str]) -> str:
    """Return ``url`` with the path of an SQLite file made absolute by ``resolve``.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.
        resolve: makes a path absolute and expands its ``~``.

    Raises:
        StorageError: it is no URL, or that of a database that is not supported.
    """
    if backend_of(url) != "sqlite" or url == ":memory:":
        return url
    if "://" not in url:
        return resolve(url)
    start, path, query = _parts(url)
    if path in ("", ":memory:") or path.startswith("file:"):
        return url
    return f"{start}/{resolve(path)}{query}"


def for_sqlalchemy(url: str) -> str:
    """Return the URL of a server with the name that SQLAlchemy knows; many write ``postgres``.

    Where it names no driver, that is psycopg, unless its predecessor is there: up to version 2.0,
    SQLAlchemy would look for that one only.
    """
    url = re.sub(r"^postgres(?=[+:])", "postgresql", url)
    is_open = url.startswith("postgresql:") and find_spec("psycopg2") is None
    return url.replace(":", "+psycopg:", 1) if is_open else url


def redacted(url: str) -> str:
    """Return ``url`` without its passwords."""
    found = _URL.fullmatch(url)
    if found is None or found["name"] == "sqlite":
        return url
    start = url[: found.start("rest")]
    rest, mark, query = found["rest"].partition("?")
    place, slash, name = rest.partition("/")
    user, at, host = place.rpartition("@")
    if ":" in user:
        user = f"{user.partition(':')[0]}:{_SHOWN}"
    if mark:
        from urllib.parse import parse_qsl, urlencode

        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode(
            [(key, _SHOWN if "pass" in key else value) for key, value in pairs], safe="*/"
        )
    return f"{start}{user}{at}{host}{slash}{name}{mark}{query}"


def parse_sqlite(url: str) -> SqliteUrl:
    """Return what an SQLite url says.

    Args:
        url: the url, or the path of a file.

    Raises:
        StorageError: it says something that is not understood here.
    """
    if "://" not in url:
        return SqliteUrl("" if url == ":memory:" else url)
    from urllib.parse import parse_qsl, unquote

    _, path, query = _parts(url)
    options = dict(parse_qsl(query[1:], keep_blank_values=True))
    if unknown := sorted(options.keys() - _OPTIONS):
        raise StorageError(
            f"{url}: unknown option {unknown[0]!r}; an SQLite url may say mode=ro and timeout"
        )
    if path in ("", ":memory:") or options.get("mode") == "memory":
        return SqliteUrl()
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file:"))
        if path.startswith("//"):
            path = f"/{path.lstrip('/')}"
    try:
        patience = float(options["timeout"]) if "timeout" in options else None
    except ValueError:
        raise StorageError(f"{url}: timeout={options['timeout']!r}: not a number") from None
    read_only = options.get("mode") == "ro" or options.get("immutable") in ("1", "true")
    return SqliteUrl(path, read_only, patience)


def immutable(path: Path) -> str:
    """Return the URI that reads a file without the locks and logs that need write permission."""
    return f"file:{_quoted(path)}?mode=ro&immutable=1"


def read_only(path: Path) -> str:
    """Return the URI that reads a file with its locks and its log, and makes none of them."""
    return f"file:{_quoted(path)}?mode=ro&readonly_shm=1"


def without_locks(path: Path) -> str:
    """Return the URI that reads a file without its locks, and cannot if the file has a log."""
    return f"file:{_quoted(path)}?mode=ro&nolock=1"


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))


def _parts(url: str) -> tuple[str, str, str]:
    """Return what stands before the path, the path, and the query with its question mark."""
    start, _, rest = url.partition("://")
    rest, mark, query = rest.partition("?")
    host, _, path = rest.partition("/")
    if host:
        raise StorageError(f"{url}: {_THREE_SLASHES}")
    return f"{start}://", path, f"{mark}{query}"
