"""The canonical dump of a syntax tree: what a piece of source says, however it is laid out.

The dump of one source is the same under all supported versions of Python. Positions, comments,
docstrings, ``pass``, the annotations of parameters, returns and local variables, and what stands
under ``if TYPE_CHECKING`` say nothing about what code does, so they are left out. In the body of a
class annotations make fields, so there they count. Under ``python -O`` no ``assert`` does anything,
and ``__debug__`` is ``False``.

Grammar of the dump: a node is ``(Name field value ...)`` with its fields in alphabetical order and
empty ones left out, a list is ``[...]``, and text is ``length:text``. The tree is walked with a
stack of this module's own, so depth is bounded by memory alone.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = [
    "blocks_of",
    "chain_of",
    "dump_definition",
    "dump_syntax",
    "inner_nodes",
    "is_type_checking",
    "statements",
]

SKIPPED = frozenset(
    ["ctx", "is_lazy", "kind", "simple", "type_comment", "type_ignores", "type_params"]
)
"""Fields that say nothing, or that only some versions of Python have."""

FUNCTIONS = ("AsyncFunctionDef", "FunctionDef")
DOCUMENTED = (*FUNCTIONS, "ClassDef")
BODIES = ("body", "finalbody", "orelse")

IDLE = ("Pass", "Assert") if sys.flags.optimize else ("Pass",)
"""Statements that do nothing."""


LEAVES = frozenset(
    [
        *("arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs"),
        *("level", "module", "op", "ops", "rest", "simple", "type_comment"),
    ]
)
"""Fields that hold no expression and no statement."""

inner_fields: dict[type, tuple[str, ...]] = {}


def inner_nodes(item: Any) -> list[Any]:
    """Return the expressions, statements and other parts that a node of a syntax tree holds."""
    kind = type(item)
    fields = inner_fields.get(kind)
    if fields is None:
        fields = tuple(name for name in item._fields if name not in LEAVES)
        inner_fields[kind] = fields
    found: list[Any] = []
    for name in fields:
        value = getattr(item, name, None)
        if type(value) is list:
            found += [part for part in value if hasattr(part, "_fields")]
        elif hasattr(value, "_fields"):
            found.append(value)
    return found


def chain_of(item: Any) -> tuple[str, ...] | None:
    """Return the chain of names that an expression is, as ``a.b.c``, or None."""
    tail: list[str] = []
    while type(item).__name__ == "Attribute":
        tail.append(item.attr)
        item = item.value
    return (item.id, *reversed(tail)) if type(item).__name__ == "Name" else None


BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of statements that hold further ones."""


def blocks_of(item: Any) -> list[list[Any]]:
    """Return the lists of statements inside a statement."""
    found = (getattr(item, block, None) for block in BLOCKS)
    return [block for block in found if type(block) is list]


def dump_definition(definition: Any) -> bytes:
    """Return the dump of a function or lambda without its name and its decorators."""
    kind = type(definition).__name__
    body = definition.body
    shown = statements(definition) if isinstance(body, list) else body
    return b" ".join((kind.encode(), dump_syntax(definition.args), dump_syntax(shown)))


def dump_syntax(syntax: Any) -> bytes:
    """Return the dump of a node of a syntax tree, or of a list of nodes."""
    written: list[bytes] = []
    pending: list[Any] = [syntax]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is bytes:
            written.append(item)
        elif kind is list:
            pending.append(b"]")
            pending.extend(reversed(item))
            written.append(b"[")
        elif kind is str:
            written.append(text(item))
        elif hasattr(item, "_fields"):
            pending.extend(reversed(parts_of(item)))
        else:
            written.append(constant(item))
    return b"".join(written)


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(raw), raw)


def constant(value: Any) -> bytes:
    # repr() refuses integers of many digits
    shown = hex(value) if type(value) is int else repr(value)
    return b"<%b %b>" % (type(value).__name__.encode(), text(shown))


def parts_of(item: Any) -> list[Any]:
    """Return what a node is written as: pieces of bytes, and what is still to be dumped."""
    name = type(item).__name__
    if name in ("Constant", "MatchSingleton"):
        return [constant(item.value)]
    if name == "Name" and item.id == "__debug__" and sys.flags.optimize:
        return [constant(False)]
    if name == "AnnAssign":
        return parts_of_annotated(item)
    parts: list[Any] = [b"(" + name.encode()]
    for field, written in fields_of(type(item), name):
        value = getattr(item, field, None)
        if value is None or value == []:
            continue
        if field in BODIES and isinstance(value, list):
            value = statements(item, field)
            if name == "ClassDef":
                value = [Field(part) if is_annotated(part) else part for part in value]
        elif field == "values" and name == "JoinedStr":
            value = merge_literals(value)
        if not is_empty(value):
            parts += (written, value)
    parts.append(b")")
    return parts


known_fields: dict[type, tuple[tuple[str, bytes], ...]] = {}


def fields_of(kind: type, name: str) -> tuple[tuple[str, bytes], ...]:
    """Return the fields of a kind of node that say something, and how they are written."""
    found = known_fields.get(kind)
    if found is None:
        fields: list[str] = sorted(kind._fields)  # type: ignore[attr-defined]
        found = known_fields[kind] = tuple(
            (field, b" " + field.encode() + b" ")
            for field in fields
            if field not in SKIPPED and not is_annotation(name, field)
        )
    return found


class Field:
    """An annotated name in the body of a class, whose annotation counts."""

    _fields = ("annotation", "target", "value")

    def __init__(self, statement: Any) -> None:
        self.annotation, self.target = statement.annotation, statement.target
        self.value = statement.value


def parts_of_annotated(item: Any) -> list[Any]:
    """Show ``x: int = 1`` as ``x = 1``; without a value it still makes a name local."""
    if item.value is None:
        return [b"(Declare ", item.target, b")"]
    return [b"(Assign targets ", [item.target], b" value ", item.value, b")"]


def is_annotated(statement: Any) -> bool:
    return type(statement).__name__ == "AnnAssign"


def is_annotation(name: str, field: str) -> bool:
    return (name == "arg" and field == "annotation") or (name in FUNCTIONS and field == "returns")


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing; an empty format specification is nothing."""
    if type(value).__name__ == "JoinedStr":
        return not value.values
    return value is None or (isinstance(value, list) and not value)


def statements(item: Any, field: str = "body") -> list[Any]:
    """Return the statements of a block that do something."""
    block: list[Any] = getattr(item, field)
    if field == "body" and type(item).__name__ in DOCUMENTED and block and is_text(block[0]):
        block = block[1:]
    found: list[Any] = []
    for statement in block:
        kind = type(statement).__name__
        if kind == "If" and is_type_checking(statement.test):
            found += statements(statement, "orelse")
        elif kind not in IDLE:
            found.append(statement)
    return found


def is_text(statement: Any) -> bool:
    value = getattr(statement, "value", None)
    return type(statement).__name__ == "Expr" and isinstance(getattr(value, "value", None), str)


def is_type_checking(test: Any) -> bool:
    """Whether this is the condition that only type checkers hold for true."""
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def merge_literals(values: list[Any]) -> list[Any]:
    """Join the neighbouring literal parts of an f-string; where they are cut is up to Python."""
    merged: list[Any] = []
    for value in values:
        literal = value.value if type(value).__name__ == "Constant" else None
        if literal is None:
            merged.append(value)
        elif merged and isinstance(merged[-1], str):
            merged[-1] += literal
        elif literal:
            merged.append(literal)
    return merged
