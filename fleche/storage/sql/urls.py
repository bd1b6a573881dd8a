"""Database urls: whose paths are absolute, whose passwords are hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from fleche.errors import StorageError

__all__ = ["as_it_is", "is_in_memory", "locate", "parse", "redacted"]


def locate(url: str, resolve: Callable[[str], str]) -> str:
    """Return ``url`` with the path of an SQLite file made absolute by ``resolve``.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.
        resolve: makes a path absolute and expands its ``~``.

    Raises:
        StorageError: it is no URL.
    """
    if "://" not in url:
        return resolve(url)
    parsed = parse(url)
    path = parsed.database or ""
    if parsed.get_backend_name() != "sqlite" or is_in_memory(parsed) or path.startswith("file:"):
        return url
    return parsed.set(database=resolve(path)).render_as_string(hide_password=False)


def redacted(url: str) -> str:
    """Return ``url`` without its passwords."""
    if "://" not in url:
        return url
    parsed = parse(url)
    query = {name: "***" if "pass" in name else value for name, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True)


def parse(url: str) -> sa.URL:
    """Return the parts of ``url``.

    Raises:
        StorageError: it is no URL.
    """
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError:
        raise StorageError(
            f"{url.partition('://')[0]}://...: not a database url; "
            "write sqlite:///path, postgresql+psycopg://user@host/name, or the path of a file"
        ) from None


def is_in_memory(url: sa.URL) -> bool:
    """Tell whether ``url`` is that of an SQLite database without a file."""
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"


def as_it_is(url: sa.URL, path: Path) -> sa.URL:
    """Return the url that reads a file without the locks and logs that need write permission."""
    place = f"file:{quote(str(path))}"
    return url.set(database=place, query={"mode": "ro", "immutable": "1", "uri": "true"})
