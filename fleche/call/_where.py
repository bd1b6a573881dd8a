"""Conditions as a line of text: ``v >= 0.5 and tag.study == "eos"``.

The text is a small part of Python's grammar. It is parsed with :mod:`ast` and interpreted here;
nothing of it is ever evaluated as code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fleche._amounts import as_stamp
from fleche.call._record import CallRecord
from fleche.call._template import Condition, Operator, QueryCall

__all__ = ["Where", "parse_where"]

_CALL_FIELDS = ("name", "module", "version", "result")
_RUNTIME_FIELDS = ("started", "finished", "user", "host")
_ABSENT: Final = object()

Read = Callable[[CallRecord], Any]
Test = Callable[[CallRecord], bool]


@dataclass(frozen=True)
class Where:
    """A condition on calls.

    Attributes:
        text: as it was written.
        template: what a storage can look for itself; calls that do not match it do not meet the
            condition.
        matches: returns whether a record, of a finished call, meets all of the condition.
        arguments: the names of arguments in it.
    """

    text: str
    template: QueryCall
    matches: Test
    arguments: frozenset[str] = frozenset()


def parse_where(text: str) -> Where:
    """Return the condition that ``text`` says.

    It compares (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``, chains of these)
    and combines by ``and``, ``or``, ``not`` and parentheses. ``like(x, "fit_*")`` is a pattern with
    ``*`` and ``?``. A plain name is an argument of the function. ``name``, ``module``, ``version``,
    ``result``, ``seconds``, ``started``, ``finished``, ``user`` and ``host`` are of the call;
    ``arg.name`` is an argument that is called so. ``tag.study`` is a tag, and ``git.commit`` any
    other field of metadata by its collector. ``started`` and ``finished`` compare with dates and
    ages: ``started >= "2d"`` is what began in the last two days.

    Arguments and results count as far as the record shows them: plain values and summaries. A call
    that lacks what is named meets no comparison.

    Raises:
        ValueError: it is no such condition; the message shows where.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        place = f" at column {error.offset}" if error.offset else ""
        has_one = re.search(r"(?<![=!<>])=(?!=)", text)
        advice = "; what is equal is compared by ==" if has_one else ""
        raise ValueError(f"{text!r}: not a condition{place}: {error.msg}{advice}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text[:80]!r}: not a condition") from None
    reader = _Reader(text.strip())
    template = QueryCall()
    for each in _conjuncts(tree):
        template = reader.narrowed(template, each)
    return Where(text, template, reader.test(tree), frozenset(reader.arguments))


def _conjuncts(tree: ast.expr) -> Iterator[ast.expr]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for each in tree.values:
            yield from _conjuncts(each)
    else:
        yield tree


_OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "=",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
}
_MIRRORED: dict[Operator, Operator] = {"=": "=", "!=": "!=", "<": ">", "<=": ">="}
_MIRRORED.update({">": "<", ">=": "<="})


@dataclass(frozen=True)
class _Field:
    """What a name in a condition stands for: a part of the call, perhaps inside another."""

    part: str
    names: tuple[str, ...] = ()

    @property
    def is_time(self) -> bool:
        return self.part == "metadata" and self.names in (
            ("runtime", "started"),
            ("runtime", "finished"),
        )

    def read(self, record: CallRecord) -> Any:
        if self.part == "metadata":
            found: Any = record.metadata
            for name in self.names:
                found = found.get(name, _ABSENT) if isinstance(found, dict) else _ABSENT
            return found
        if self.part == "seconds":
            runtime = record.metadata.get("runtime", {})
            return runtime.get("seconds", _ABSENT) if record.duration is None else record.duration
        if self.part in ("argument", "result"):
            ref = record.arguments.get(self.names[0]) if self.names else record.result
            shown = msgspec.UNSET if ref is None else ref.shown
            return _ABSENT if shown is msgspec.UNSET else shown
        return getattr(record, self.part)

    def template(self, condition: Condition) -> QueryCall | None:
        """Return the template that asks for the condition, if there is one."""
        if self.part == "argument":
            return QueryCall(arguments={self.names[0]: condition})
        if self.part == "result":
            return QueryCall(result=condition)
        if self.part == "metadata" and len(self.names) == 2:
            if condition.op == "!=":
                return None  # what is not there would match
            return QueryCall(metadata={self.names[0]: {self.names[1]: condition}})
        value = condition.value
        if condition.op == "like" and self.part in ("name", "module"):
            return QueryCall.of(**{self.part: str(value)})  # type: ignore[arg-type]
        if condition.op == "=" and self.part in ("name", "module") and isinstance(value, str):
            plain = not any(char in value for char in "*?")
            return QueryCall.of(**{self.part: value}) if plain else None  # type: ignore[arg-type]
        return None


class _Reader:
    """Reads the parts of one condition."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.arguments: set[str] = set()

    # -- what a storage can look for ---------------------------------------------------------------

    def narrowed(self, template: QueryCall, tree: ast.expr) -> QueryCall:
        """Return ``template`` with what ``tree`` says, too, if templates can say it."""
        for field, condition in self._simple(tree):
            more = field.template(condition)
            if more is None:
                continue
            try:
                template = template.merged(more)
            except ValueError:  # says something of this field already: that is looked at afterwards
                continue
        return template

    def _simple(self, tree: ast.expr) -> Iterator[tuple[_Field, Condition]]:
        if isinstance(tree, ast.Compare):
            for pair in _pairs(tree):
                if found := self._comparison(*pair):
                    yield found
        elif isinstance(tree, ast.Call):
            yield self._like(tree)

    def _comparison(
        self, left: ast.expr, op: ast.cmpop, right: ast.expr
    ) -> tuple[_Field, Condition] | None:
        """Return the field and its condition, where one side is a field, and the other is not."""
        operator = _OPERATORS.get(type(op))
        if operator is None:
            return None
        first, second = self._field(left), self._field(right)
        if first is not None and second is None:
            return first, self._condition(operator, right, first)
        if second is not None and first is None and operator in _MIRRORED:
            return second, self._condition(_MIRRORED[operator], left, second)
        return None

    def _condition(self, operator: Operator, tree: ast.expr, field: _Field) -> Condition:
        value = self._value(tree, field)
        if isinstance(value, list) is not (operator == "in"):
            raise self._error(tree, "'in' is followed by a list, any other comparison by one value")
        return Condition(operator, value)

    # -- the whole meaning -------------------------------------------------------------------------

    def test(self, tree: ast.expr) -> Test:
        """Return the function that decides whether a record meets ``tree``."""
        if isinstance(tree, ast.BoolOp):
            tests = [self.test(each) for each in tree.values]
            combine = all if isinstance(tree.op, ast.And) else any
            return lambda record: combine(test(record) for test in tests)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
            inner = self.test(tree.operand)
            return lambda record: not inner(record)
        if isinstance(tree, ast.Compare):
            chain = [self._test_pair(tree, *pair) for pair in _pairs(tree)]
            return lambda record: all(test(record) for test in chain)
        if isinstance(tree, ast.Call):
            field, condition = self._like(tree)
            return lambda record: condition.matches(field.read(record))
        found = self._field(tree)
        if found is None:
            raise self._error(tree, "a comparison is expected")
        return lambda record: found.read(record) not in (_ABSENT, None, False, 0, "")

    def _test_pair(self, tree: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Test:
        if isinstance(op, ast.NotIn):
            inside = self._test_pair(tree, left, ast.In(), right)
            field = self._field(left)
            return lambda record: (
                field is not None and field.read(record) is not _ABSENT and not inside(record)
            )
        found = self._comparison(left, op, right)
        if found is None:
            raise self._error(tree, "a name is compared with a number, a text or a list of these")
        field, condition = found
        return lambda record: _meets(condition, field.read(record))

    def _like(self, tree: ast.Call) -> tuple[_Field, Condition]:
        named = isinstance(tree.func, ast.Name) and tree.func.id == "like"
        if not named or len(tree.args) != 2 or tree.keywords:
            raise self._error(tree, 'the only function is like(name, "pattern*")')
        field = self._field(tree.args[0])
        if field is None:
            raise self._error(tree.args[0], "a name is expected")
        pattern = self._value(tree.args[1], None)
        if not isinstance(pattern, str):
            raise self._error(tree.args[1], "a pattern is a text")
        return field, Condition("like", pattern)

    # -- leaves ------------------------------------------------------------------------------------

    def _field(self, tree: ast.expr) -> _Field | None:
        names: list[str] = []
        while isinstance(tree, ast.Attribute):
            names.insert(0, tree.attr)
            tree = tree.value
        if not isinstance(tree, ast.Name):
            return None
        first = tree.id
        if not names:
            if first in _CALL_FIELDS:
                return _Field(first)
            if first in _RUNTIME_FIELDS:
                return _Field("metadata", ("runtime", first))
            return _Field("seconds") if first == "seconds" else self._argument(first)
        if first in ("arg", "args", "arguments") and len(names) == 1:
            return self._argument(names[0])
        collector = "tags" if first == "tag" else first
        return _Field("metadata", (collector, *names))

    def _argument(self, name: str) -> _Field:
        self.arguments.add(name)
        return _Field("argument", (name,))

    def _value(self, tree: ast.expr, field: _Field | None) -> Any:
        if isinstance(tree, ast.List | ast.Tuple | ast.Set):
            return [self._value(each, field) for each in tree.elts]
        sign = 1
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(tree.op, ast.USub) else 1
            tree = tree.operand
            if not (isinstance(tree, ast.Constant) and type(tree.value) in (int, float)):
                raise self._error(tree, "a number is expected")
        if not isinstance(tree, ast.Constant):
            raise self._error(tree, "a number, a text, True, False, None or a list is expected")
        value = tree.value
        if value is not None and type(value) not in (bool, int, float, str):
            raise self._error(tree, "a number, a text, True, False or None is expected")
        if field is not None and field.is_time and isinstance(value, str):
            return as_stamp(value)
        return -value if sign < 0 else value  # type: ignore[operator]

    def _error(self, tree: ast.expr, expected: str) -> ValueError:
        part = ast.get_source_segment(self._text, tree) or self._text
        return ValueError(f"{part!r} in {self._text!r}: {expected}")


def _pairs(tree: ast.Compare) -> Iterator[tuple[ast.expr, ast.cmpop, ast.expr]]:
    """Return the comparisons of a chain such as ``0 < x < 1``."""
    return zip((tree.left, *tree.comparators[:-1]), tree.ops, tree.comparators, strict=True)


def _meets(condition: Condition, found: Any) -> bool:
    return found is not _ABSENT and condition.matches(found)
