"""Templates of calls as SQL.

What is written here lets through every record that matches, and few others: numbers are compared as
doubles, texts perhaps without regard to case. :meth:`QueryCall.matches` has the last word on each
record that the database returns.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import sqlalchemy as sa

from fleche.call import Condition, QueryCall
from fleche.storage.sql.schema import (
    LONGEST_TEXT,
    OTHER,
    arguments,
    calls,
    is_storable,
    metadata,
)

__all__ = ["begins_with", "filters_of"]

_MANY = 1000  # a list of more values than this is left to the last word
_WILD = re.compile(r"[*?\0\ud800-\udfff]")  # the last ones no column can hold
_LAST = 0x10FFFF

Filter = sa.ColumnElement[bool]


def filters_of(template: QueryCall) -> list[Filter]:
    """Return the conditions that every matching row of ``calls`` meets.

    That it is no lease is not among them: with it, no index alone could answer.
    """
    found: list[Filter] = []
    if template.name is not None:
        found.append(_matches_glob(calls.c.name, template.name))
    if template.module is not None:
        found.append(_matches_glob(calls.c.module, template.module))
    if template.version is not msgspec.UNSET:
        found.append(_meets(_Value(calls.c, "version_"), Condition("=", template.version)))
    if template.code is not None:
        found.append(begins_with(calls.c.code, template.code))
    if template.result is not None:
        found.append(_result_meets(template.result))
    found += [_argument_meets(*item) for item in template.arguments.items() if is_storable(item[0])]
    found += [
        _field_meets(collector, field, condition)
        for collector, fields in template.metadata.items()
        for field, condition in fields.items()
        if is_storable(collector) and is_storable(field)
    ]
    return found


def begins_with(column: sa.ColumnElement[Any], prefix: str) -> Filter:
    """Return the condition that ``column`` begins with ``prefix``; it uses the index."""
    clean = _WILD.split(prefix)[0]
    if not clean:
        return sa.true()
    end = _successor(clean)
    return column >= clean if end is None else sa.and_(column >= clean, column < end)


class _Value:
    """The three columns of a plain value."""

    def __init__(self, columns: Any, prefix: str = "") -> None:
        self.kind: sa.ColumnElement[Any] = columns[f"{prefix}kind"]
        self.number: sa.ColumnElement[Any] = columns[f"{prefix}number"]
        self.text: sa.ColumnElement[Any] = columns[f"{prefix}text"]


def _result_meets(wanted: Condition) -> Filter:
    if wanted.op == "digest":
        return begins_with(calls.c.result, str(wanted.value))
    return _meets(_Value(calls.c, "result_"), wanted)


def _argument_meets(name: str, wanted: Condition) -> Filter:
    if wanted.op == "digest":
        meets = begins_with(arguments.c.digest, str(wanted.value))
    else:
        meets = _meets(_Value(arguments.c), wanted)
    return calls.c.key.in_(sa.select(arguments.c.key).where(arguments.c.name == name, meets))


def _field_meets(collector: str, field: str, wanted: Condition) -> Filter:
    if wanted.matches(None):  # so does a call without the field
        return sa.true()
    return calls.c.key.in_(
        sa.select(metadata.c.key).where(
            metadata.c.collector == collector,
            metadata.c.field == field,
            _meets(_Value(metadata.c), wanted),
        )
    )


def _meets(value: _Value, wanted: Condition) -> Filter:
    """Return the condition on the three columns of one value."""
    op, bound = wanted.op, wanted.value
    if op == "between":
        low, high = bound  # type: ignore[misc, str-unpack]
        return sa.and_(_meets(value, Condition(">=", low)), _meets(value, Condition("<=", high)))
    if op == "in":
        return _is_one_of(value, list(bound))  # type: ignore[arg-type]
    if op == "=":
        return _is_one_of(value, [bound])
    if op == "!=":
        return value.kind.is_not(None)
    if op in ("like", "digest"):
        pattern = str(bound) if op == "like" else f"{bound}*"
        matches = sa.and_(value.kind == "text", _matches_glob(value.text, pattern))
        return sa.or_(matches, value.kind == OTHER)
    return _compares(value, op, bound)


def _compares(value: _Value, op: str, bound: Any) -> Filter:
    """Return the condition for an order; a strict one lets equal values through."""
    if isinstance(bound, str):
        if not is_storable(bound):
            return value.kind.in_(["text", OTHER])
        meets = value.text <= bound if op[0] == "<" else value.text >= bound
        return sa.or_(meets, value.kind == OTHER)
    if _is_number(bound):
        number = _double(bound)
        meets = value.number <= number if op[0] == "<" else value.number >= number
        return sa.and_(value.kind == "number", meets)
    return sa.false()


def _is_one_of(value: _Value, wanted: list[Any]) -> Filter:
    if len(wanted) > _MANY:
        return value.kind.is_not(None)
    texts = [item for item in wanted if isinstance(item, str)]
    numbers = [item for item in wanted if _is_number(item)]
    flags = [float(item) for item in wanted if isinstance(item, bool)]
    choices: list[Filter] = []
    if storable := [text for text in texts if is_storable(text)]:
        choices.append(value.text.in_(storable))
    if doubles := [_double(number) for number in numbers if not _is_nan(number)]:
        choices.append(sa.and_(value.kind == "number", value.number.in_(doubles)))
    if flags:
        choices.append(sa.and_(value.kind == "bool", value.number.in_(flags)))
    if None in wanted:
        choices.append(value.kind == "none")
    if len(storable) + len(numbers) + len(flags) + wanted.count(None) < len(wanted):
        choices.append(value.kind == OTHER)
    return sa.or_(sa.false(), *choices)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(number: float) -> bool:
    return isinstance(number, float) and math.isnan(number)


def _double(number: float) -> float:
    """Return the double next to ``number``, an infinity if it is beyond all of them."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _matches_glob(column: sa.ColumnElement[Any], pattern: str) -> Filter:
    """Return the condition that ``column`` matches a pattern with ``*`` and ``?``."""
    if len(pattern) > LONGEST_TEXT:
        return begins_with(column, pattern[:LONGEST_TEXT])
    if not _WILD.search(pattern):
        return column == pattern
    begins = begins_with(column, pattern)
    if pattern[-1] == "*" and not _WILD.search(pattern[:-1]):
        return begins
    like = "".join(map(_as_like, pattern))
    shortened = sa.func.length(column) >= LONGEST_TEXT
    return sa.and_(begins, sa.or_(column.like(like, escape="\\"), shortened))


def _as_like(character: str) -> str:
    if character == "*":
        return "%"
    if character in "%_\\":
        return f"\\{character}"
    return "_" if _WILD.match(character) else character


def _successor(text: str) -> str | None:
    """Return the least text after all those that begin with ``text``; ``None`` if there is none."""
    while text:
        code = ord(text[-1]) + 1
        if code <= _LAST:
            return text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        text = text[:-1]
    return None
