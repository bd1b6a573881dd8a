"""Tables of stored calls for people: in a terminal, in a notebook, as a data frame.

A table is made of what the records say; no value is loaded for it.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from fleche._columns import Span, fit_columns, printable
from fleche._html import grid, paragraph
from fleche.call import CallRecord, LazyCall, Scalar, ValueRef
from fleche.digest import Digest, short_key, shown_digest
from fleche.errors import FlecheError, MissingExtra

__all__ = ["Described", "Row", "Table", "field_of_metadata"]

_LEAST = len("arguments")
_EASY = {"name": 60, "arguments": 22, "result": 40}
_READABLE = 16
"""A column of this width, or of that in ``_EASY``, is easy to read."""

_GAP = "  "
_COLUMNS = ("key", "name", "version", "arguments", "result", "started", "seconds", "where")
_CORE = ("key", "result", "name", "arguments")
_RIGID = ("key", "started", "seconds")
_FRAMED = ("key", "name", "module", "version", "result", "started", "seconds", "host", "user")
"""The columns of a data frame that are neither arguments nor metadata."""

_MOST = 50
"""So many calls are shown at most."""

_RUNTIME = ("started", "seconds", "host", "user")
"""What of the metadata ``runtime`` has a column of its own."""


def field_of_metadata(
    metadata: Mapping[str, Mapping[str, Any]], name: str, default: Any = None
) -> Any:
    """Return a field of the metadata: of ``"collector.field"``, or of ``"field"`` of any collector.

    Of several collectors with such a field, the tags come first.
    """
    collector, _, field = name.partition(".")
    if field and field in metadata.get(collector, {}):
        return metadata[collector][field]
    for each in ("tags", *metadata):
        if name in metadata.get(each, {}):
            return metadata[each][name]
    return default


class Row(msgspec.Struct, frozen=True, gc=False):
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
        user: the account that ran it.
        metadata: plain data by the name of what collected it.
    """

    key: Digest
    short: str
    name: str
    module: str | None = None
    version: Scalar = None
    arguments: Mapping[str, Scalar | Digest] = {}
    result: Scalar | Digest = None
    started: datetime | None = None
    seconds: float | None = None
    host: str | None = None
    user: str | None = None
    metadata: Mapping[str, Mapping[str, Any]] = {}

    @classmethod
    def of(cls, key: Digest, record: CallRecord, short: str = "") -> Row:
        """Read a row off a record."""
        metadata = record.metadata
        runtime = metadata.get("runtime", {})
        outcome = record.result or record.error
        return cls(
            key=key,
            short=short_key(key, short),
            name=record.name,
            module=record.module,
            version=record.version,
            arguments={name: _shown(ref) for name, ref in record.arguments.items()},
            result=None if outcome is None else _shown(outcome),
            started=record.began,
            seconds=_number(runtime.get("seconds") if record.duration is None else record.duration),
            host=_text(runtime.get("host")),
            user=_text(runtime.get("user")),
            metadata=metadata,
        )

    @property
    def where(self) -> str:
        """User and host, as far as they are known."""
        return "@".join(part for part in (self.user, self.host) if part)

    @property
    def tags(self) -> Mapping[str, Any]:
        """What the user has said about the call."""
        return self.metadata.get("tags", {})

    def cell(self, column: str) -> str:
        """Return the text of a column: a usual one, an argument, or a field of metadata.

        It is one line and free of control characters. A column that the call has not is empty.
        """
        cells = self.cells()
        if column in cells:
            return cells[column]
        if column == "module":
            return printable(self.module or "")
        name = column.removeprefix("arguments.")
        if name in self.arguments:
            return printable(_show(self.arguments[name]))
        found = self.field(column)
        return "" if found is None else printable(str(found))

    def field(self, name: str, default: Any = None) -> Any:
        """Return a field of the metadata, of ``"collector.field"`` or ``"field"``."""
        return field_of_metadata(self.metadata, name, default)

    def cells(self) -> dict[str, str]:
        """Return the text of every usual column, in one line and free of control characters."""
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
        return {column: printable(text) for column, text in texts.items()}


class Table:
    """Stored calls as rows.

    Printed, it shows the first 50 and fits the width of the terminal; a notebook shows it as HTML.
    The other rows are made when one is asked for.
    """

    def __init__(
        self,
        calls: Iterable[LazyCall],
        shorten: Callable[[Sequence[Digest]], Sequence[Digest | None]] | None = None,
        *,
        columns: Iterable[str] | None = None,
        metadata: bool = False,
        newest_first: bool = False,
    ) -> None:
        """Read the rows off ``calls``.

        Args:
            calls: the calls, in the order of the rows.
            shorten: returns for each of several keys the beginning that stands for it alone, or
                ``None`` if it is gone.
            columns: what to show: usual columns, names of arguments, fields of metadata; one or
                several.
            metadata: show a column for each tag and each other field of metadata, too.
            newest_first: order the rows by when the calls began, the undated last.

        Raises:
            ValueError: no call has a column of that name.
        """
        records = self._records = {call.key: call.entry.record for call in calls}
        keys = list(records)
        if newest_first:
            keys.sort(key=lambda key: records[key].sort_time, reverse=True)
        self._keys = keys
        self._shorten = shorten
        self._first = self._made(keys[:_MOST])  # while it is certain that the cache is there
        columns = (columns,) if isinstance(columns, str) else columns
        self._columns = None if columns is None else tuple(columns)
        self._with_metadata = metadata
        if self._columns is not None and keys:
            self._check_columns(self._columns)

    def _made(self, keys: Sequence[Digest]) -> list[Row]:
        shorts: Sequence[Digest | None] = [None] * len(keys)
        if self._shorten is not None and keys:
            shorts = self._shorten(keys)
        return [
            Row.of(key, self._records[key], short or "")
            for key, short in zip(keys, shorts, strict=True)
        ]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All rows. Short keys that are asked for after the cache has gone have 8 characters."""
        rest = self._keys[_MOST:]
        try:
            return (*self._first, *self._made(rest))
        except FlecheError:
            return (*self._first, *(Row.of(key, self._records[key]) for key in rest))

    def _check_columns(self, columns: Sequence[str]) -> None:
        names = dict.fromkeys(
            name for record in self._records.values() for name in record.arguments
        )
        absent = object()
        for column in columns:
            if column in (*_COLUMNS, "module") or column.removeprefix("arguments.") in names:
                continue
            metadata = (record.metadata for record in self._records.values())
            if all(field_of_metadata(each, column, absent) is absent for each in metadata):
                known = [*_COLUMNS, "module", *names, *self._fields()]
                raise ValueError(f"no column {column!r}; there are {', '.join(known)}")

    def _fields(self) -> list[str]:
        """Return the names of the fields of metadata that have no column of their own."""
        found = dict.fromkeys(
            f"{collector}.{name}"
            for record in self._records.values()
            for collector, data in record.metadata.items()
            for name in data
            if collector != "runtime" or name not in _RUNTIME
        )
        return sorted(found, key=lambda name: not name.startswith("tags."))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_text(self, width: int | None = None, *, most: int | None = _MOST) -> str:
        """Return the table as aligned text.

        Key, name, arguments and result are shown in a narrow terminal too, cut where they must be.
        Another column is shown if these stay readable beside it; one that says the same in every
        row, if nothing has to be cut for it. Columns that were chosen are all shown.

        Args:
            width: of how many columns; by default those of the terminal.
            most: show so many rows; ``None``: all.
        """
        if not self._keys:
            return "no calls"
        columns, lines = self._cells(most)
        from shutil import get_terminal_size

        widths = self._fit(columns, lines, width or get_terminal_size().columns or 80)
        head = {column: column for column in widths}
        rule = {column: "-" * width for column, width in widths.items()}
        text = [_line(cells, widths) for cells in (head, rule, *lines)]
        return "\n".join([*text, *self._rest(lines)])

    def _fit(
        self, columns: Sequence[str], lines: Sequence[Mapping[str, str]], room: int
    ) -> dict[str, int]:
        """Return how wide each column is that is shown."""
        spans = {
            column: _span(column, max(map(_width, (column, *(line[column] for line in lines)))))
            for column in columns
        }
        if self._columns is not None:
            least = sum(span.least for span in spans.values()) + len(_GAP) * (len(spans) - 1)
            return fit_columns(spans, max(room, least), len(_GAP), core=columns)
        core = [column for column in _CORE if column in spans]
        others = [column for column in columns if column not in core]
        others.sort(key=lambda column: not column.startswith("tags."))
        if "result" in core and all(line["result"][:1] in ("<", "") for line in lines):
            core.remove("result")  # digests alone tell a person little
            others.append("result")
        alike = [
            column
            for column in others
            if len(lines) > 1 and len({line[column] for line in lines}) == 1
        ]
        others = [column for column in others if column not in alike]
        return fit_columns(spans, room, len(_GAP), core=core, others=others, alike=alike)

    def _rest(self, shown: Sequence[Any]) -> list[str]:
        more = len(self) - len(shown)
        return [f"\N{HORIZONTAL ELLIPSIS} {more} more"] if more else []

    def _repr_html_(self) -> str:
        if not self._keys:
            return "<p>no calls</p>"
        columns, lines = self._cells(_MOST)
        rest = "".join(map(paragraph, self._rest(lines)))
        return grid(columns, ([line[column] for column in columns] for line in lines)) + rest

    def to_pandas(self) -> Any:
        """Return a :class:`pandas.DataFrame` of all calls.

        It has one column for each argument, ``arguments.x``, and one for each field of metadata,
        ``tags.study``, ``git.commit``; or those that were chosen.

        Versions, arguments, results and metadata are exact. A column of whole numbers, of floats or
        of truth values alone has a dtype for them; any other holds Python objects. A call without
        the argument has a gap, which is ``NaN`` among floats and ``pandas.NA`` elsewhere; ``None``
        and ``NaN`` that were passed stay what they are.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("to_pandas() needs pandas: pip install pandas") from None
        arguments = {f"arguments.{name}": name for row in self.rows for name in row.arguments}
        wanted: Iterable[str] = (*_FRAMED, *arguments, *self._fields())
        if self._columns is not None:
            parts = (_parts_of(column, arguments) for column in self._columns)
            wanted = dict.fromkeys(itertools.chain.from_iterable(parts))
        data: dict[str, Any] = {}
        for column in wanted:
            if (name := arguments.get(column)) is not None:
                values = [row.arguments.get(name, pd.NA) for row in self.rows]
            elif column in _FRAMED:
                values = [getattr(row, column) for row in self.rows]
            else:
                values = [row.field(column, pd.NA) for row in self.rows]
            is_typed = column in _FRAMED and column not in ("version", "result")
            data[column] = values if is_typed else _exactly(values, pd)
        return pd.DataFrame(data)

    def _cells(self, most: int | None) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns that are not empty throughout, and the cells of the first rows."""
        rows = self._first if most == _MOST else self.rows[:most]
        if self._columns is not None:
            lines = [{column: row.cell(column) for column in self._columns} for row in rows]
            return list(self._columns), lines
        lines = [row.cells() for row in rows]
        columns = list(_COLUMNS)
        if self._with_metadata:
            fields = self._fields()
            columns += fields
            for row, line in zip(rows, lines, strict=True):
                line.update((name, row.cell(name)) for name in fields)
        return [column for column in columns if any(line[column] for line in lines)], lines


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
    return shown_digest(value) if isinstance(value, Digest) else repr(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _parts_of(column: str, arguments: Collection[str]) -> Collection[str]:
    """Return which columns of a data frame stand for a chosen one."""
    if column == "where":
        return "user", "host"
    if column == "arguments":
        return arguments
    name = f"arguments.{column}"
    return (name if name in arguments and column not in (*_COLUMNS, "module") else column,)


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
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):  # an accent over the character before it
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _span(column: str, wanted: int) -> Span:
    if column in _RIGID:
        return Span.rigid(wanted)
    easy = max(_READABLE, len(column))
    return Span.between(_LEAST, _EASY.get(column, easy), wanted)


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
