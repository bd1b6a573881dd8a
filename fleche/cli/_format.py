"""Figures, values and caches as people read them: units, ages, one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

import msgspec

from fleche._amounts import count, shown_float
from fleche._amounts import shown_bytes as size
from fleche._amounts import shown_seconds as seconds
from fleche._columns import printable
from fleche._redact import redact
from fleche._util import home_shortened
from fleche.caches import BaseCache, CachePool, CacheStack
from fleche.call import CallRecord, ValueRef
from fleche.digest import shown_digest

__all__ = [
    "ago",
    "arguments",
    "brief",
    "count",
    "described",
    "exact",
    "iso",
    "layers_of",
    "outcome",
    "printable",
    "saving",
    "seconds",
    "size",
    "title_of",
    "value",
]

_STEPS = (("y", 365 * 86400), ("mo", 30 * 86400), ("d", 86400), ("h", 3600), ("min", 60))
_LITTLE = 2.0


def ago(then: datetime | float | None) -> str:
    """Return how long ago it was: ``just now``, ``5 min ago``, ``3 d ago``.

    What another clock has told may be yet to come: ``in 3 d``.
    """
    if then is None:
        return ""
    began = then.timestamp() if isinstance(then, datetime) else then
    past = datetime.now(timezone.utc).timestamp() - began
    for unit, step in _STEPS:
        if abs(past) >= _LITTLE * step or (abs(past) >= step and unit in ("min", "h", "d")):
            shown = f"{abs(past) // step:.0f} {unit}"
            return f"{shown} ago" if past > 0 else f"in {shown}"
    return "just now" if past < 10 else f"{past:.0f} s ago"


def iso(then: datetime | float | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, for programs."""
    if then is None:
        return None
    if isinstance(then, float):
        then = datetime.fromtimestamp(then, timezone.utc)
    return then.astimezone(timezone.utc).isoformat(timespec="seconds")


def saving(hits: int, misses: int, saved: float) -> str:
    """Return how many of some calls were hits, and what these saved; empty if there were none."""
    if not hits:
        return ""
    calls = count(hits + misses, "call was a hit", "calls were hits")
    return f"{seconds(saved)}: {100 * hits / (hits + misses):.0f} % of {calls}"


def value(ref: ValueRef | None) -> str:
    """Return what a record shows of a value: it, its summary, or ``<`` its digest ``>``."""
    if ref is None:
        return ""
    shown = ref.shown
    if shown is msgspec.UNSET:
        return shown_digest(ref.digest)
    return printable(repr(shown) if ref.is_literal or not isinstance(shown, str) else shown)


def brief(ref: ValueRef | None) -> str:
    """Return :func:`value` with a float of 6 figures, which never looks like a whole number."""
    shown = msgspec.UNSET if ref is None else ref.shown
    if isinstance(shown, float) and math.isfinite(shown):
        return shown_float(shown, 6)
    return value(ref)


def outcome(record: CallRecord) -> str:
    """Return in brief what a call gave: its result, or what it raised."""
    return brief(record.result) if record.error is None else f"raised {brief(record.error)}"


def arguments(record: CallRecord) -> str:
    """Return all arguments in one line."""
    return ", ".join(f"{name}={brief(ref)}" for name, ref in record.arguments.items())


def exact(ref: ValueRef | None) -> Any:
    """Return a value for programs: a plain value as it is, any other by digest and summary."""
    if ref is None:
        return None
    if ref.is_literal:
        return ref.literal
    found: dict[str, Any] = {"digest": ref.digest, "bytes": ref.size}
    if ref.summary is not None:
        found["summary"] = ref.summary
    if ref.type:
        found["type"] = ref.type
    return found


# -- caches ----------------------------------------------------------------------------------------


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
