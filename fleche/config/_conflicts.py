"""Caches that would take each other's values: they share those, but not the calls.

A collection removes the values that no call refers to. Of the calls of another cache it knows
nothing. Only what the tables tell is refused: nothing is opened, and no package is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from fleche.config._schema import (
    Layer,
    LocalTable,
    Reference,
    Spec,
    Stack,
    StoragesTable,
    TemplateTable,
    expand_template,
)
from fleche.config._validate import ConfigPath
from fleche.errors import ConfigError

__all__ = ["check_conflicts"]

_FILES = ("cloudpickle", "pickle", "dill")
_PATHS = ("files", "hdf5", "local", "database")

Where: TypeAlias = "tuple[str, ...] | None"
"""What kind of place it is, and its name there. None where that cannot be told."""


class _Kept(NamedTuple):
    """Where a cache keeps what."""

    place: ConfigPath
    values: tuple[str, ...]
    calls: tuple[str, ...]
    read_only: bool


def check_conflicts(specs: Iterable[Spec]) -> None:
    """Check that no two of some caches share their values and nothing else.

    Raises:
        ConfigError: two of them do; the message names both.
    """
    seen: dict[tuple[str, ...], list[_Kept]] = {}
    for kept in (kept for spec in specs for kept in _kept(spec, read_only=False)):
        for other in seen.setdefault(kept.values, []):
            harmless = kept.read_only and other.read_only
            if not harmless and _followed(kept.calls) != _followed(other.calls):
                raise kept.place.error(
                    f"keeps its values where {other.place} keeps its own, but its calls elsewhere, "
                    "so that gc() of one would remove what the other needs; let them share the "
                    "calls, too, or nothing"
                )
        seen[kept.values].append(kept)


def _kept(spec: Spec, *, read_only: bool) -> Iterator[_Kept]:
    """Yield where the caches keep what that ``spec`` itself describes."""
    if isinstance(spec, Reference):
        return
    if isinstance(spec, Stack):
        for layer in spec.layers:
            yield from _kept(layer, read_only=read_only)
        return
    read_only = read_only or spec.table.read_only is True
    for inner in spec.inner:
        yield from _kept(inner, read_only=read_only)
    if isinstance(spec.table, StoragesTable | TemplateTable | LocalTable):
        tables = _storages(spec)
        values, calls = _where_values(tables[0], spec.place), _where_calls(tables[1], spec.place)
        if values is not None and calls is not None:
            yield _Kept(spec.place, values, calls, read_only)


def _storages(layer: Layer) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if isinstance(layer.table, StoragesTable):
        return layer.table.values, layer.table.calls
    if isinstance(layer.table, LocalTable):
        store = {"type": layer.table.type, "root": layer.table.root}
        return store, store
    assert isinstance(layer.table, TemplateTable)
    return expand_template(layer.table)


def _where_values(table: Mapping[str, Any], place: ConfigPath) -> Where:
    match table:
        case {"type": "hdf5" | "local" as kind, "root": str(root)}:
            return _resolved(kind, root, place)
        case {"type": "fsspec", "url": str(url)} if "://" in url.removeprefix("file://"):
            return "objects", url.rstrip("/"), repr(table.get("options", {}))
        case {"type": "fsspec", "url": str(url)}:
            return _resolved("files", url.removeprefix("file://"), place)
        case {"type": str(name), "root": str(root)} if name in _FILES:
            return _resolved("files", root, place)
    return None


def _where_calls(table: Mapping[str, Any], place: ConfigPath) -> Where:
    match table:
        case {"type": "sql", "url": str(url)}:
            return _where_database(url, place)
        case {"type": "fsspec", "url": str(url)} if "://" in url.removeprefix("file://"):
            return "objects", url.rstrip("/")
        case {"type": "memory" | "void"}:
            return "memory", str(place)  # no other process sees them
        case {"type": "sql"} if "url" not in table:
            return "memory", str(place)
    return _where_values(table, place)


def _where_database(url: str, place: ConfigPath) -> Where:
    """Return the file, or of a server, which has many names, the database alone."""
    scheme, _, rest = url.rpartition("://")
    path = rest.partition("?")[0]
    if scheme and not scheme.startswith("sqlite"):
        return "server", path.partition("/")[2]
    path = path.removeprefix("/") if scheme else path
    if path in ("", ":memory:"):
        return "memory", str(place)
    return None if path.startswith("file:") else _resolved("database", path, place)


def _followed(where: tuple[str, ...]) -> tuple[str, ...]:
    """Return the place that links lead to; asked for only if there is reason to."""
    kind, name, *_ = where
    return (kind, os.path.realpath(name)) if kind in _PATHS else where


def _resolved(kind: str, path: str, place: ConfigPath) -> Where:
    try:
        return kind, place.resolve(path)
    except ConfigError:  # no user of that name: an error when the cache is opened
        return None
