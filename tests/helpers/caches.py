"""Caches of every kind in a directory, by name, for servers that are told the name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fleche.caches import BaseCache, Cache, CachePool, CacheStack
from fleche.storage import CallFile, CallMemory, Sql, ValueFile, ValueMemory

__all__ = ["READ_ONLY", "WRITABLE", "cache_factory", "make_cache"]

WRITABLE = ("memory", "file", "sql", "stack", "filtered")
READ_ONLY = ("read-only", "pool")


def make_cache(kind: str, root: str) -> BaseCache:
    """Return the cache of `kind` whose files are below `root`."""
    return _MAKERS[kind](Path(root))


def cache_factory(kind: str, root: Path) -> Callable[[], BaseCache]:
    """Return a function without arguments that makes the cache, here or in another process."""
    return partial(make_cache, kind, str(root))


def _memory(root: Path) -> BaseCache:
    return Cache(ValueMemory(), CallMemory())


def _file(root: Path) -> BaseCache:
    return Cache(ValueFile(str(root / "values")), CallFile(str(root / "calls")))


def _sql(root: Path) -> BaseCache:
    root.mkdir(parents=True, exist_ok=True)
    return Cache(ValueFile(str(root / "values")), Sql(str(root / "calls.db")))


def _stack(root: Path) -> BaseCache:
    return CacheStack((_file(root / "near"), _sql(root / "far")))


def _filtered(root: Path) -> BaseCache:
    return _file(root).filter(lambda call: True)


def _read_only(root: Path) -> BaseCache:
    return _file(root).readonly()


def _pool(root: Path) -> BaseCache:
    return CachePool((_file(root), _file(root / "other")))


_MAKERS: dict[str, Callable[[Path], BaseCache]] = {
    "memory": _memory,
    "file": _file,
    "sql": _sql,
    "stack": _stack,
    "filtered": _filtered,
    "read-only": _read_only,
    "pool": _pool,
}
