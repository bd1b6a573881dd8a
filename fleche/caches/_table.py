"""Tables of stored calls for people: in a terminal, in a notebook, as a data frame.

A table is made of what the records say; no value is loaded for it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import msgspec

from fleche.call import CallRecord, LazyCall, Scalar, ValueRef
from fleche.digest import Digest
from fleche.errors import MissingExtra

__all__ = ["Described", "Row", "Table", "started"]

SHORT = 8
_NARROWEST = {"arguments": 22}
_NARROW = len("arguments")
_GAP = "  "
_COLUMNS = ("key", "name", "version", "arguments", "result", "started", "seconds", "where")
_FLEXIBLE = ("name", "arguments", "result", "where")
_DISPENSABLE = ("where", "seconds", "started", "result")


def started(record: CallRecord) -> datetime | None:
    """Return when the call began, in UTC, or ``None`` if its metadata does not say.

    The collector ``runtime`` writes it as ISO-8601 text; a time without a zone is one in UTC.
    """
    text = record.metadata.get("runtime", {}).get("started")
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    if found.tzinfo is None:
        return found.replace(tzinfo=timezone.utc)
    return found.astimezone(timezone.utc)


@dataclass(frozen=True)
class Row:
    """One call, as far as its record tells.

    Attributes:
        key: the complete key.
        short: as many characters of it as stand for it alone, but at least 8.
        name: qualified name of the function.
        module: module of the function.
        version: version that the function declared.
        arguments: small plain arguments and summaries in the clear, others as their digest.
        result: likewise.
        started: when the call began (UTC).
        seconds: how long it took.
        host: where it ran.
        user: who ran it.
    """

    key: Digest
    short: str
    name: str
    module: str | None = None
    version: Scalar = None
    arguments: Mapping[str, Scalar | Digest] = field(default_factory=dict)
    result: Scalar | Digest = None
    started: datetime | None = None
    seconds: float | None = None
    host: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, key: Digest, record: CallRecord, short: str = "") -> Row:
        """Read a row off a record."""
        runtime = record.metadata.get("runtime", {})
        return cls(
            key=key,
            short=key[: max(SHORT, len(short))],
            name=record.name,
            module=record.module,
            version=record.version,
            arguments={name: _shown(ref) for name, ref in record.arguments.items()},
            result=None if record.result is None else _shown(record.result),
            started=started(record),
            seconds=_number(runtime.get("seconds") if record.duration is None else record.duration),
            host=_text(runtime.get("host")),
            user=_text(runtime.get("user")),
        )

    @property
    def where(self) -> str:
        """User and host, as far as they are known."""
        return "@".join(part for part in (self.user, self.host) if part)

    def cells(self) -> dict[str, str]:
        """Return the text of every column, in one line and free of control characters."""
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in self.arguments.items())
        when = self.started.astimezone() if self.started else None
        texts = {
            "key": self.short,
            "name": self.name,
            "version": "" if self.version is None else str(self.version),
            "arguments": arguments,
            "result": _show(self.result),
            "started": f"{when:%Y-%m-%d %H:%M}" if when else "",
            "seconds": "" if self.seconds is None else f"{self.seconds:.3g}",
            "where": self.where,
        }
        return {column: _printable(text) for column, text in texts.items()}


class Table:
    """Stored calls as rows.

    Printed, it fits the width of the terminal; a notebook shows it as HTML.
    """

    def __init__(
        self,
        calls: Iterable[LazyCall],
        shorten: Callable[[Sequence[Digest]], Sequence[Digest | None]] | None = None,
    ) -> None:
        """Read the rows off ``calls``.

        Args:
            calls: the calls, in the order of the rows.
            shorten: returns for each of several keys the beginning that stands for it alone, or
                ``None`` if it is gone.
        """
        found = {call.key: call.record for call in calls}
        none: list[Digest | None] = [None] * len(found)
        shorts = shorten(list(found)) if shorten is not None and found else none
        self.rows: tuple[Row, ...] = tuple(
            Row.of(key, record, short or "")
            for (key, record), short in zip(found.items(), shorts, strict=True)
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_text(self, width: int | None = None) -> str:
        """Return the table as aligned text that fits ``width`` columns (default: the terminal)."""
        if not self.rows:
            return "no calls"
        columns, lines = self._cells()
        wanted = {
            column: max(map(_width, (column, *(line[column] for line in lines))))
            for column in columns
        }
        dispensable = [column for column in _DISPENSABLE if column in columns]
        if "result" in columns and all(line["result"][:1] in ("<", "") for line in lines):
            dispensable.insert(0, dispensable.pop())  # digests alone tell a person little
        from shutil import get_terminal_size

        widths = _fit(wanted, width or get_terminal_size().columns, dispensable)
        head = {column: column for column in widths}
        rule = {column: "-" * width for column, width in widths.items()}
        return "\n".join(_line(cells, widths) for cells in (head, rule, *lines))

    def _repr_html_(self) -> str:
        if not self.rows:
            return "<p>no calls</p>"
        from html import escape

        columns, lines = self._cells()
        head = "".join(f"<th>{column}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(line[column])}</td>" for column in columns) + "</tr>"
            for line in lines
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_pandas(self) -> Any:
        """Return a :class:`pandas.DataFrame` with one column for each argument, ``arguments.x``.

        Versions, arguments and results are exact. A column of whole numbers, of floats or of truth
        values alone has a dtype for them; any other holds Python objects. A call without the
        argument has a gap, which is ``NaN`` among floats and ``pandas.NA`` elsewhere; ``None`` and
        ``NaN`` that were passed stay what they are.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra('to_pandas() needs pandas: pip install "fleche[pandas]"') from None
        names = ("key", "name", "module", "version", "result", "started", "seconds", "host", "user")
        argument_names = dict.fromkeys(name for row in self.rows for name in row.arguments)
        data: dict[str, Any] = {name: [getattr(row, name) for row in self.rows] for name in names}
        for name in ("version", "result"):
            data[name] = _exactly(data[name], pd)
        for name in argument_names:
            values = [row.arguments.get(name, pd.NA) for row in self.rows]
            data[f"arguments.{name}"] = _exactly(values, pd)
        return pd.DataFrame(data)

    def _cells(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns that are not empty throughout, and the cells of every row."""
        lines = [row.cells() for row in self.rows]
        return [column for column in _COLUMNS if any(line[column] for line in lines)], lines


class Described(str):
    """A summary of a value, as opposed to a text that is the value."""

    __slots__ = ()


def _shown(ref: ValueRef) -> Scalar | Digest:
    shown = ref.shown
    if isinstance(shown, msgspec.UnsetType):
        return Digest(ref.digest)
    return Described(shown) if isinstance(shown, str) and not ref.is_literal else shown


def _show(value: Scalar | Digest) -> str:
    if isinstance(value, Described):
        return str(value)
    return f"<{value[:SHORT]}>" if isinstance(value, Digest) else repr(value)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _exactly(values: Sequence[Any], pd: Any) -> Any:
    dtype = _dtype(values, pd.NA)
    if dtype == "float64":
        values = [math.nan if value is pd.NA else value for value in values]
    return pd.Series(values, dtype=dtype)


def _dtype(values: Sequence[Any], gap: Any) -> str:
    """Return the pandas dtype that changes none of ``values`` and mistakes none for a gap."""
    given = [value for value in values if value is not gap]
    gaps = len(given) < len(values)
    kinds = set(map(type, given))
    if kinds == {bool}:
        return "boolean" if gaps else "bool"
    if kinds == {int} and all(-(1 << 63) <= value < 1 << 63 for value in given):
        return "Int64" if gaps else "int64"
    if kinds == {float} and not (gaps and any(map(math.isnan, given))):
        return "float64"
    return "object"


def _width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _fit(wanted: Mapping[str, int], available: int, dispensable: Sequence[str]) -> dict[str, int]:
    """Narrow the widest flexible columns, then leave columns out, until everything fits."""
    widths, rest = dict(wanted), list(dispensable)

    def spare(column: str) -> int:
        return widths[column] - (_NARROWEST.get(column, _NARROW) if rest else _NARROW)

    while sum(widths.values()) + len(_GAP) * (len(widths) - 1) > available:
        column = max((c for c in _FLEXIBLE if c in widths), key=spare)
        if spare(column) > 0:
            widths[column] -= 1
        elif rest:
            del widths[rest.pop(0)]
        else:
            break
    return widths


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    parts = []
    for column, width in widths.items():
        text = _clip(cells[column], width)
        blank = " " * (width - _width(text))
        parts.append(blank + text if column == "seconds" else text + blank)
    return _GAP.join(parts).rstrip()


def _clip(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept = ""
    for char in text:
        if _width(kept) + _width(char) > width - 3:
            break
        kept += char
    return kept + "..."
