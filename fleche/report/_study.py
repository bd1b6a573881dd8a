"""What a report knows: the newest calls, sums over all of them, and what they have in common.

Everything is read off records. Texts are cut, so that the size of a page is bounded by the number
of its calls.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeAlias

import msgspec

from fleche.call import CallRecord, LazyCall, Scalar, ValueRef, parts_of
from fleche.digest import short_key, shown_digest
from fleche.report._methods import full_name, methods
from fleche.storage import Usage

__all__ = ["MOST_CALLS", "Study"]

MOST_CALLS = 10_000
"""So many calls, the newest, are in the table of a page."""

_TEXT = 80
_LARGEST_EXACT = 1 << 53
"""Larger integers lose digits in a browser, and are shown as text."""

_FIELD = re.compile(r"(\w+)=(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=[,)])")
_MOST_FIELDS = 6
_MOST_CHILDREN = 200
_MOST_DEPENDENCIES = 100


_Place: TypeAlias = tuple[int, str, tuple[str, str]]
"""A minute since 1970, a machine and a function."""


class Study:
    """Calls, read once.

    Args:
        sizes: bytes that a call takes, by its key, as far as they are known.
        most_calls: so many are kept, the newest.

    Attributes:
        total: how many calls were read.
        calls: those that are kept, the newest first.
        previews: what can be shown of results, by the place of the call.
    """

    def __init__(self, sizes: Mapping[str, float], most_calls: int = MOST_CALLS) -> None:
        self.total = 0
        self.calls: list[LazyCall] = []
        self.previews: dict[int, dict[str, Any]] = {}
        self._sizes = sizes
        self._most = most_calls
        self._sums: dict[tuple[str, str], _Sums] = {}
        self._activity: Counter[_Place] = Counter()
        self._spent: defaultdict[_Place, float] = defaultdict(float)
        self._timed: dict[str, _Timed] = {}
        self._measured = 0
        self._usage: list[Usage] = []
        self._environments = _Table()
        self._shorts: list[str] = []

    # -- reading -----------------------------------------------------------------------------------

    def read(self, calls: Iterable[LazyCall]) -> Study:
        """Read calls, in any order; return this study."""
        for call in calls:
            self.total += 1
            record = call.record
            function = function_of(record)
            sums = self._sums.setdefault(function, _Sums())
            sums.add(record)
            sums.bytes += self._sizes.get(call.key, 0.0)
            self._measured += call.key in self._sizes
            self._note_time(call.key, record, function)
            self.calls.append(call)
            if len(self.calls) >= 2 * self._most + 1000:
                self._trim()
        self._trim()
        self._take_out_nested()
        return self

    def _trim(self) -> None:
        self.calls.sort(key=lambda call: _epoch(call.record) or 0.0, reverse=True)
        del self.calls[self._most :]

    def _note_time(self, key: str, record: CallRecord, function: tuple[str, str]) -> None:
        when = _epoch(record)
        if when is not None:
            host, seconds = where(record), seconds_of(record) or 0.0
            place = int(when // 60), host, function
            self._activity[place] += 1
            self._spent[place] += seconds
            self._timed[key] = _Timed(function, host, when, seconds, record.children)

    def _take_out_nested(self) -> None:
        """Count the time of a call that ran inside another one once: it is no time of the other."""
        for outer in self._timed.values():
            for key in outer.children:
                inner = self._timed.get(key)
                if inner is not None and inner.ran_inside(outer):
                    place = int(outer.when // 60), outer.host, outer.function
                    self._spent[place] = max(self._spent[place] - inner.seconds, 0.0)
                    sums = self._sums[outer.function]
                    sums.seconds = max(sums.seconds - inner.seconds, 0.0)

    def add_usage(self, rows: Iterable[Usage]) -> None:
        """Add the counters of use of the functions that were read."""
        self._usage = [row for row in rows if (row.module, row.name) in self._sums]

    def name_keys(self) -> None:
        """Give each call the shortest beginning of its key that no other of the page has."""
        ordered = sorted(call.key for call in self.calls)
        unique: dict[str, str] = {}
        for before, key, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
            unique[key] = key[: 1 + max(_common(before, key), _common(key, after))]
        self._shorts = [short_key(call.key, unique[call.key]) for call in self.calls]

    # -- writing -----------------------------------------------------------------------------------

    def to_data(self, *, title: str, source: str, version: str) -> dict[str, Any]:
        """Return everything that the page shows, as plain data."""
        places = {str(call.key): place for place, call in enumerate(self.calls)}
        by_time = sorted(self._sums, key=lambda each: (-self._sums[each].seconds, each))
        functions = {function: place for place, function in enumerate(by_time)}
        hosts = _Table()
        shown = [self._row(call, functions, hosts, places) for call in self.calls]
        activity = [
            [minute * 60, hosts.place(host), functions[function], number, _round(spent)]
            for (minute, host, function), number, spent in self._thinned()
        ]
        usage = [
            [
                row.hour * 3600,
                hosts.place(_at(row.user, row.host)),
                functions[(row.module, row.name)],
                row.hits,
                row.misses,
                _round(row.saved),
                _round(row.spent),
                row.bytes,
            ]
            for row in self._usage
        ]
        return {
            "title": _cut(title),
            "source": _cut(source, 200),
            "version": version,
            "made": datetime.now(timezone.utc).timestamp(),
            "total": self.total,
            "measured": self._measured,
            "functions": [
                self._sums[function].to_data(function[0], shown_as)
                for function, shown_as in zip(functions, _told_apart(functions), strict=True)
            ],
            "calls": shown,
            "shorts": self._shorts,
            "hosts": hosts.rows,
            "activity": activity,
            "usage": usage,
            "counted": bool(self._usage),
            "environments": self._environments.rows,
            "previews": {str(place): found for place, found in self.previews.items()},
            "methods": methods(
                [self._sums[function].to_methods(*function) for function in functions], version
            ),
        }

    def _thinned(self) -> list[tuple[_Place, int, float]]:
        """Return the computations by time, and what they took.

        By longer times where there would be too many.
        """
        step = 1
        found, spent = self._activity, self._spent
        while len(found) > _MOST_POINTS and step <= 60 * 24 * 365:
            step = 60 if step == 1 else step * 24
            thinner: Counter[_Place] = Counter()
            sums: defaultdict[_Place, float] = defaultdict(float)
            for (minute, host, function), number in found.items():
                place = minute // step * step, host, function
                thinner[place] += number
                sums[place] += spent[minute, host, function]
            found, spent = thinner, sums
        return sorted((place, number, spent[place]) for place, number in found.items())

    def _row(
        self,
        call: LazyCall,
        functions: Mapping[tuple[str, str], int],
        hosts: _Table,
        places: Mapping[str, int],
    ) -> list[Any]:
        record = call.record
        result = record.result or record.error
        row = [
            functions[function_of(record)],
            {_cut(name): shown(ref) for name, ref in record.arguments.items()},
            _result(result),
            _round(_epoch(record)),
            _round(seconds_of(record)),
            round(self._sizes[call.key]) if call.key in self._sizes else None,
            hosts.place(where(record)),
            [places[key] for key in record.children[:_MOST_CHILDREN] if key in places],
            self._environments.place(_environment(record)),
            _cut(str(record.version)) if record.version is not None else None,
            _details(record, call.dependencies),
            str(call.key),
        ]
        if record.error is not None:
            row.append(True)
        return row


_MOST_POINTS = 5000
_SLACK = 0.01
"""Seconds by which two clocks of one machine may seem to differ."""


class _Timed(NamedTuple):
    """When a call ran, and which calls it made."""

    function: tuple[str, str]
    host: str
    when: float
    seconds: float
    children: tuple[str, ...]

    def ran_inside(self, outer: _Timed) -> bool:
        """Return whether this call began while ``outer`` ran, so that it was no hit there."""
        end = outer.when + outer.seconds + _SLACK
        return self.host == outer.host and outer.when <= self.when <= end


class _Sums:
    """Sums over the calls of one function."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.bytes = 0.0
        self.first = math.inf
        self.last = -math.inf
        self.hosts: Counter[str] = Counter()
        self.packages: Counter[tuple[str, str]] = Counter()
        self.pythons: Counter[str] = Counter()
        self.commits: Counter[tuple[str, bool]] = Counter()

    def add(self, record: CallRecord) -> None:
        """Add a call."""
        self.calls += 1
        self.seconds += seconds_of(record) or 0.0
        when = _epoch(record)
        if when is not None:
            self.first, self.last = min(self.first, when), max(self.last, when)
        self.hosts[where(record)] += 1
        metadata = record.metadata
        environment = _mapping(metadata.get("environment"))
        if isinstance(python := environment.get("python"), str):
            self.pythons[_cut(python)] += 1
        for name, version in _mapping(environment.get("packages")).items():
            self.packages[_cut(str(name)), _cut(str(version))] += 1
        git = _mapping(metadata.get("git"))
        if isinstance(commit := git.get("commit"), str):
            self.commits[_cut(commit), bool(git.get("dirty"))] += 1

    def to_data(self, module: str, name: str) -> dict[str, Any]:
        """Return what the page shows of the function."""
        return {
            "name": _cut(name),
            "module": _cut(module),
            "calls": self.calls,
            "seconds": _round(self.seconds),
            "bytes": round(self.bytes),
        }

    def to_methods(self, module: str, name: str) -> dict[str, Any]:
        """Return what the methods paragraph says of the function."""
        return {"name": _cut(name), "module": _cut(module), **vars(self)}


def _told_apart(functions: Iterable[tuple[str, str]]) -> list[str]:
    """Return a name for each function, of module and name; that of its module where it must."""
    named = Counter(name for _, name in functions)
    return [full_name(*each) if named[each[1]] > 1 else each[1] for each in functions]


class _Table:
    """Rows that occur often, each once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._places: dict[bytes, int] = {}

    def place(self, row: Any) -> int:
        """Return where a row is; it is added if it is new."""
        key = msgspec.msgpack.encode(row)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = len(self.rows)
            self.rows.append(row)
        return found


def function_of(record: CallRecord) -> tuple[str, str]:
    """Return module and name of the function."""
    return record.module or "", record.name


def where(record: CallRecord) -> str:
    """Return account and machine of a call, as far as they are known."""
    runtime = _mapping(record.metadata.get("runtime"))
    return _at(runtime.get("user"), runtime.get("host"))


def seconds_of(record: CallRecord) -> float | None:
    """Return how long a call took."""
    found = record.duration
    if found is None:
        found = _mapping(record.metadata.get("runtime")).get("seconds")
    is_number = isinstance(found, int | float) and math.isfinite(found)
    return float(found) if is_number and found is not None else None


def shown(ref: ValueRef) -> Scalar | list[str]:
    """Return a value as the page holds it: plain as itself, what is no text of JSON in a list.

    That is the summary of a value, and a number that JSON lacks: the page shows it without quotes.
    """
    found = ref.shown
    if isinstance(found, msgspec.UnsetType):
        return [shown_digest(ref.digest)]
    plain = _jsonable(found)
    is_text = ref.is_literal and isinstance(found, str)
    return [plain] if isinstance(plain, str) and not is_text else plain


def _result(ref: ValueRef | None) -> list[Any]:
    """Return the result, its type where that is not plain, and numbers that its summary holds."""
    if ref is None:
        return [None]
    found = shown(ref)
    fields: dict[str, float] = {}
    if isinstance(found, list) and isinstance(ref.shown, str) and "(" in ref.shown:
        for name, number in _FIELD.findall(ref.shown)[:_MOST_FIELDS]:
            fields[name] = float(number)
    return [found, ref.type or None, ref.size, fields or None]


def _details(record: CallRecord, dependencies: Mapping[str, str]) -> dict[str, Any]:
    """Return what only the details of a call show."""
    metadata = record.metadata
    known = ("runtime", "environment", "cpu")
    return {
        "metadata": {
            _cut(name): {
                _cut(str(field)): _cut(str(value), 200)
                for field, value in list(fields.items())[:40]
            }
            for name, fields in metadata.items()
            if name not in known and isinstance(fields, Mapping)
        },
        "cpu": _round(_mapping(metadata.get("cpu")).get("seconds")),
        "code": (record.code or "")[:16],
        "dependencies": [
            f"{_cut(label)}\t{digest[:12]}"
            for label, digest in list(parts_of(dependencies).items())[:_MOST_DEPENDENCIES]
        ],
        "children": len(record.children),
    }


def _environment(record: CallRecord) -> dict[str, Any]:
    environment = _mapping(record.metadata.get("environment"))
    packages = _mapping(environment.get("packages"))
    return {
        "python": _cut(str(environment.get("python") or "")),
        "platform": _cut(str(environment.get("platform") or "")),
        "packages": {
            _cut(str(name)): _cut(str(version)) for name, version in sorted(packages.items())[:60]
        },
    }


def _epoch(record: CallRecord) -> float | None:
    return None if record.began is None else record.began.timestamp()


def _at(user: Any, host: Any) -> str:
    parts = (each for each in (user, host) if isinstance(each, str) and each)
    return _cut("@".join(parts)) or "unknown"


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _jsonable(value: Scalar) -> Scalar:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST_EXACT:
        return str(value)
    return value


def _round(value: Any) -> float | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}") if abs(value) < 1e6 else round(value, 1)


def _cut(text: str, most: int = _TEXT) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _common(one: str, other: str) -> int:
    """Return how many characters two keys have in common at the beginning."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
