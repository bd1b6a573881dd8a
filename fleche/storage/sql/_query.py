"""Templates of calls as SQL, with named parameters.

What is written here lets through every call that matches, and few others: numbers are compared as
doubles, texts perhaps without regard to case. :meth:`QueryCall.matches` has the last word on each
record that the database returns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from fleche.call import Condition, QueryCall
from fleche.storage.sql._schema import (
    LONGEST_TEXT,
    METADATA,
    OTHER,
    STARTED,
    field_of_metadata,
    is_storable,
)

__all__ = ["Plan", "begins_with", "plan_of"]

_MANY = 100  # a list of more values than this is left to the last word
_MOST_PARAMETERS = 500  # SQLite takes 999 before version 3.32; the rest is left to the last word
_WILD = re.compile(r"[*?\0\ud800-\udfff]")  # the last ones no column can hold
_LAST = 0x10FFFF
_FULL = 64

_ANY = "1 = 1"
_NONE = "1 = 0"


class Plan(NamedTuple):
    """The conditions that every matching call meets. That it is no pin is not among them.

    Attributes:
        functions: conditions on a row of ``fleche_functions``.
        facts: conditions on a row ``f`` of ``fleche_facts``; for each of them the call has one.
        parameters: what the conditions name.
        steps: the conditions that an index answers, as places in :attr:`facts`.
        member: the condition that a fact is of a call of one of the functions, where such facts
            are written.
    """

    functions: list[str]
    facts: list[str]
    parameters: dict[str, Any]
    steps: list[int]
    member: str = ""

    def of_functions(self) -> str:
        """Return the statement that selects the ids of the functions which match."""
        return f"SELECT id FROM fleche_functions WHERE {' AND '.join(self.functions) or _ANY}"

    def select(self, calls: Sequence[str], first: int | None = None) -> str:
        """Return the statement that selects the ids of calls which match, up to an ``ORDER BY``.

        Args:
            calls: conditions on a row ``c`` of ``fleche_calls``.
            first: which of :attr:`facts` to begin with; ``None`` begins with :attr:`member`, or
                with the calls.
        """
        where = [*calls, *self._all_facts(but=first)]
        begin = self.member if first is None else self.facts[first]
        if not begin:
            return f"SELECT c.id FROM fleche_calls c WHERE {' AND '.join(where) or _ANY}"
        # SQLite takes the tables of a CROSS JOIN in the order in which they are written.
        where = ["c.id = f.call", begin, *where]
        return (
            f"SELECT c.id FROM fleche_facts f CROSS JOIN fleche_calls c WHERE {' AND '.join(where)}"
        )

    def select_latest(self, calls: Sequence[str], few: str = "") -> str:
        """Return the statement that selects when calls which match began, and their ids.

        Args:
            calls: conditions on a row ``c`` of ``fleche_calls``.
            few: selects the ids of these calls where they are few, to begin with; empty goes
                through all calls in the order of time, of which few are needed then.
        """
        where = [f"s.field = '{STARTED}' AND s.text IS NOT NULL"]
        tables = "fleche_facts s"
        if few:
            tables = f"({few}) m CROSS JOIN fleche_facts s"
            where.append("s.call = m.id")
        elif calls or self.facts:
            tables = "fleche_facts s CROSS JOIN fleche_calls c"
            where += ["c.id = s.call", *calls, *self._all_facts()]
        return f"SELECT s.text, s.call FROM {tables} WHERE {' AND '.join(where)}"

    def _all_facts(self, *, but: int | None = None) -> list[str]:
        """Return the conditions on a row ``c`` that it has :attr:`facts`, all ``but`` one."""
        return [
            f"EXISTS (SELECT 1 FROM fleche_facts f WHERE f.call = c.id AND {fact})"
            for number, fact in enumerate(self.facts)
            if number != but
        ]


def plan_of(template: QueryCall, unindexed: Collection[tuple[str, str]] = ()) -> Plan:
    """Return what the database can tell of a template.

    Args:
        template: what to look for.
        unindexed: the metadata that have no facts, by collector and name.
    """
    return _Compiler(unindexed).compile(template)


class _Value(NamedTuple):
    """The three columns of a plain value."""

    kind: str = "f.kind"
    number: str = "f.number"
    text: str = "f.text"


_FACT = _Value()


class _Compiler:
    """Writes conditions, and collects their parameters."""

    def __init__(self, unindexed: Collection[tuple[str, str]] = ()) -> None:
        self.unindexed = unindexed
        self.parameters: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        """Return the name under which ``value`` is bound."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def compile(self, template: QueryCall) -> Plan:
        """Return the conditions of a template."""
        functions: list[str] = []
        if template.name is not None:
            functions.append(self.matches_glob("name", template.name))
        if template.module is not None:
            functions.append(self.matches_glob("module", template.module))
        if template.code:
            functions.append(self.begins_with("code", template.code))
        steps: list[int] = []
        facts: list[str] = []
        for field, condition in _conditions(template, self.unindexed):
            if len(self.parameters) > _MOST_PARAMETERS:
                break
            if condition.op != "!=":
                steps.append(len(facts))
            facts.append(f"f.field = {self.bind(field)} AND {self.meets_fact(field, condition)}")
        for group in template.uses:
            if len(self.parameters) + len(group) > _MOST_PARAMETERS:
                break
            steps.append(len(facts))
            facts.append(self.is_used(group))
        return Plan(functions, facts, self.parameters, steps)

    def is_used(self, group: Sequence[str]) -> str:
        """Return the condition that a fact names one of several digests."""
        full = [each for each in group if len(each) == _FULL]
        choices = [self.begins_with("f.digest", each) for each in group if len(each) != _FULL]
        if full:
            choices.append(self.is_in("f.digest", full))
        return f"({' OR '.join(choices) or _NONE})"

    def meets_fact(self, field: str, wanted: Condition) -> str:
        """Return the condition on a fact; one by digest is on what is no plain value, too.

        Metadata have no digests: theirs are texts like others.
        """
        if wanted.op != "digest" or field.startswith(METADATA):
            return self.meets(wanted)
        text = str(wanted.value)
        if len(text) == _FULL:
            return f"f.digest = {self.bind(text)}"
        return self.begins_with("f.digest", text)

    def meets(self, wanted: Condition) -> str:
        """Return the condition on the three columns of a value."""
        op, bound = wanted.op, wanted.value
        if op == "between":
            low, high = bound  # type: ignore[misc, str-unpack]
            first, second = self.meets(Condition(">=", low)), self.meets(Condition("<=", high))
            return f"({first} AND {second})"
        if op == "in":
            return self.is_one_of(list(bound))  # type: ignore[arg-type]
        if op == "=":
            return self.is_one_of([bound])
        if op == "!=":
            return f"{_FACT.kind} IS NOT NULL"
        if op in ("like", "digest"):
            pattern = str(bound) if op == "like" else f"{bound}*"
            matches = self.matches_glob(_FACT.text, pattern)
            return f"({matches} OR {_FACT.kind} = '{OTHER}')"
        return self.compares(op, bound)

    def compares(self, op: str, bound: Any) -> str:
        """Return the condition for an order; a strict one lets equal values through."""
        sign = f"{op[0]}="
        if isinstance(bound, str):
            if not is_storable(bound):
                return f"{_FACT.kind} IN ('text', '{OTHER}')"
            return f"({_FACT.text} {sign} {self.bind(bound)} OR {_FACT.kind} = '{OTHER}')"
        if _is_number(bound):
            return (
                f"({_FACT.number} {sign} {self.bind(_double(bound))} AND {_FACT.kind} = 'number')"
            )
        return _NONE

    def is_one_of(self, wanted: list[Any]) -> str:
        """Return the condition that a value is one of ``wanted``."""
        if len(wanted) > _MANY:
            return f"{_FACT.kind} IS NOT NULL"
        texts = [item for item in wanted if isinstance(item, str) and is_storable(item)]
        numbers = [item for item in wanted if _is_number(item)]
        flags = [float(item) for item in wanted if isinstance(item, bool)]
        choices: list[str] = []
        if texts:
            choices.append(self.is_in(_FACT.text, texts))
        for kind, found in (
            ("number", [_double(number) for number in numbers if number == number]),  # no NaN
            ("bool", flags),
        ):
            if found:
                choices.append(f"({self.is_in(_FACT.number, found)} AND {_FACT.kind} = '{kind}')")
        if None in wanted:
            choices.append(f"{_FACT.kind} = 'none'")
        if len(texts) + len(numbers) + len(flags) + wanted.count(None) < len(wanted):
            choices.append(f"{_FACT.kind} = '{OTHER}'")
        if len(choices) > 1:
            return f"({' OR '.join(choices)})"
        return choices[0] if choices else _NONE

    def is_in(self, column: str, values: list[Any]) -> str:
        """Return the condition that ``column`` has one of ``values``."""
        if len(values) == 1:
            return f"{column} = {self.bind(values[0])}"
        return f"{column} IN ({', '.join(map(self.bind, values))})"

    def begins_with(self, column: str, prefix: str) -> str:
        """Return the condition that ``column`` begins with ``prefix``; it uses the index."""
        clean = _WILD.split(prefix)[0]
        if not clean:
            return f"{column} IS NOT NULL"
        end = successor(clean)
        begins = f"{column} >= {self.bind(clean)}"
        return begins if end is None else f"({begins} AND {column} < {self.bind(end)})"

    def matches_glob(self, column: str, pattern: str) -> str:
        """Return the condition that ``column`` matches a pattern with ``*`` and ``?``."""
        if len(pattern) > LONGEST_TEXT:
            return self.begins_with(column, pattern[:LONGEST_TEXT])
        if not _WILD.search(pattern):
            return f"{column} = {self.bind(pattern)}"
        begins = self.begins_with(column, pattern)
        if pattern[-1] == "*" and not _WILD.search(pattern[:-1]):
            return begins
        like = self.bind("".join(map(_as_like, pattern)))
        shortened = f"length({column}) >= {LONGEST_TEXT}"
        return f"({begins} AND ({column} LIKE {like} ESCAPE '!' OR {shortened}))"


def begins_with(column: str, prefix: str) -> tuple[str, dict[str, Any]]:
    """Return the condition that ``column`` begins with ``prefix``, and its parameters."""
    compiler = _Compiler()
    return compiler.begins_with(column, prefix), compiler.parameters


def _conditions(
    template: QueryCall, unindexed: Collection[tuple[str, str]]
) -> list[tuple[str, Condition]]:
    """Return the conditions on facts, with the name of each."""
    found: list[tuple[str, Condition]] = []
    found += [
        (f"argument/{name}", wanted)
        for name, wanted in template.arguments.items()
        if is_storable(name)
    ]
    if template.result is not None:
        found.append(("result", template.result))
    if template.version is not msgspec.UNSET and template.version is not None:
        found.append(("version", Condition("=", template.version)))
    found += [
        (place, condition)
        for collector, fields in template.metadata.items()
        for field, condition in fields.items()
        if (collector, field) not in unindexed
        if (place := field_of_metadata(collector, field)) is not None
        if not condition.matches(None)  # which a call without the field does, too
    ]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _double(number: float) -> float:
    """Return the double next to ``number``, an infinity if it is beyond all of them."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _as_like(character: str) -> str:
    if character == "*":
        return "%"
    if character in "%_!":
        return f"!{character}"
    return "_" if _WILD.match(character) else character


def successor(text: str) -> str | None:
    """Return the least text after all those that begin with ``text``; ``None`` if there is none."""
    while text:
        code = ord(text[-1]) + 1
        if code <= _LAST:
            return text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        text = text[:-1]
    return None
