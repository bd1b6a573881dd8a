"""Caches in a few words: what kind, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fleche._amounts import count
from fleche._redact import redact
from fleche._util import home_shortened
from fleche.caches import BaseCache, CachePool, CacheStack

__all__ = ["described", "layers_of", "title_of"]


class Part(NamedTuple):
    """One of the caches that another one is made of.

    Attributes:
        cache: the cache.
        pooled: it is a member of a pool, through which nothing is saved, whatever it would take.
    """

    cache: BaseCache
    pooled: bool = False


def layers_of(cache: BaseCache) -> Iterator[Part]:
    """Yield the layers of a stack, the members of a pool, or the cache itself."""
    if isinstance(cache, CacheStack):
        for layer in cache.layers:
            yield from layers_of(layer)
    elif isinstance(cache, CachePool):
        for member in cache.members:
            yield from (part._replace(pooled=True) for part in layers_of(member))
    else:
        yield Part(cache)


def described(cache: BaseCache) -> tuple[str, str]:
    """Return the kind of a cache and where it is, without asking another machine."""
    try:
        table: Any = redact(cache.to_config())
    except Exception:  # noqa: BLE001 (a cache that no fleche.toml can describe)
        return type(cache).__name__.lower(), repr(cache)
    return _of_table(table)


def title_of(cache: BaseCache) -> str:
    """Return the same in one line."""
    return " ".join(part for part in described(cache) if part)


def _of_table(table: Any) -> tuple[str, str]:
    if isinstance(table, list):
        return "stack", count(len(table), "layer")
    if "pool" in table:
        return "pool", count(len(table["pool"]), "cache")
    if "cache" in table:
        return _of_table(table["cache"])
    kind = table.get("type")
    if kind is None and "values" in table:
        values, calls = table["values"], table.get("calls", {})
        kind = values.get("type", "")
        if calls.get("type") not in (None, kind):
            kind = f"{kind}+{calls['type']}"
        where = _place_of(values) or _place_of(calls)
        if values.get("root") and where.endswith(("/values", "/calls")):
            where = where.rpartition("/")[0]
        return kind, where
    return str(kind or table.get("template", "")), _place_of(table)


def _place_of(table: dict[str, Any]) -> str:
    """Return where a table of ``fleche.toml`` says that something is."""
    for key in ("host", "root", "url", "workdir", "python"):
        if table.get(key):
            text = str(table[key])
            return home_shortened(text) if key in ("root", "workdir", "python") else text
    return ""
