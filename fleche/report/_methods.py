"""The paragraph for the paper: with what, when, and where results were computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from fleche._amounts import count

__all__ = ["full_name", "methods"]

_MOST_NAMES = 8
_MOST_VERSIONS = 4


def methods(functions: Sequence[dict[str, Any]], version: str) -> str:
    """Return a methods paragraph in plain text.

    Args:
        functions: what is known of each function, by far the most expensive first.
        version: of fleche.
    """
    calls = sum(each["calls"] for each in functions)
    if not calls:
        return "No calls."
    sentences = [
        _what(functions, calls),
        _with(functions, calls),
        _from(functions),
        f"Results, their provenance and the versions above were recorded with fleche {version}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _what(functions: Sequence[dict[str, Any]], calls: int) -> str:
    names = [full_name(each["module"], each["name"]) for each in functions[:_MOST_NAMES]]
    more = len(functions) - len(names)
    listed = _listed([*names, *([f"{more} more"] if more else [])])
    seconds = sum(each["seconds"] for each in functions)
    hosts: Counter[str] = Counter()
    for each in functions:
        hosts.update(each["hosts"])
    machines = sorted({name.rpartition("@")[2] for name in hosts if name != "unknown"})
    places = f" on {_listed(machines[:_MOST_NAMES])}" if machines else ""
    return (
        f"{count(calls, 'result')} of {count(len(functions), 'function')} ({listed}) "
        f"{'was' if calls == 1 else 'were'} computed{places}{_when(functions)}, "
        f"in {_duration(seconds)} of computing time."
    )


def _when(functions: Sequence[dict[str, Any]]) -> str:
    first = min(each["first"] for each in functions)
    last = max(each["last"] for each in functions)
    if not math.isfinite(first):
        return ""
    begin, end = (datetime.fromtimestamp(each, timezone.utc) for each in (first, last))
    if begin.date() == end.date():
        return f" on {_day(begin)}"
    return f" between {_day(begin)} and {_day(end)}"


def _day(when: datetime) -> str:
    return f"{when.day} {when:%B %Y}"


def _with(functions: Sequence[dict[str, Any]], calls: int) -> str:
    pythons: Counter[str] = Counter()
    packages: Counter[tuple[str, str]] = Counter()
    for each in functions:
        pythons.update(each["pythons"])
        packages.update(each["packages"])
    if not pythons and not packages:
        return (
            "The versions of the packages used were not recorded (metadata “environment” is off)."
        )
    parts = [f"Python {_versions(pythons)}"] if pythons else []
    by_name: dict[str, Counter[str]] = {}
    for (name, found), number in packages.items():
        if name != "fleche":
            by_name.setdefault(name, Counter())[found] += number
    ordered = sorted(by_name, key=lambda name: (-sum(by_name[name].values()), name.lower()))
    parts += [f"{name} {_versions(by_name[name])}" for name in ordered]
    unknown = calls - sum(pythons.values())
    besides = f" (not recorded for {unknown:,} of them)" if unknown > 0 else ""
    return f"Computed with {_listed(parts)}{besides}."


def _versions(found: Counter[str]) -> str:
    if len(found) == 1:
        return next(iter(found))
    counted = [f"{name} ({number:,})" for name, number in found.most_common(_MOST_VERSIONS)]
    more = len(found) - len(counted)
    return " and ".join(counted) + (f" and {more} more" if more else "")


def _from(functions: Sequence[dict[str, Any]]) -> str:
    commits: Counter[tuple[str, bool]] = Counter()
    for each in functions:
        commits.update(each["commits"])
    if not commits:
        return ""
    shown = [
        f"{commit[:10]}{' with uncommitted changes' if dirty else ''}"
        for (commit, dirty), _ in commits.most_common(_MOST_VERSIONS)
    ]
    more = len(commits) - len(shown)
    named = _listed([*shown, *([f"{more} more"] if more else [])])
    return f"The code is that of git {'commit' if len(commits) == 1 else 'commits'} {named}."


def full_name(module: str, name: str) -> str:
    """Return the name of a function, with that of its module if it is not the program."""
    return name if module in ("", "__main__") else f"{module}.{name}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _listed(items: Iterable[str]) -> str:
    found = list(items)
    if len(found) < 2:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"
