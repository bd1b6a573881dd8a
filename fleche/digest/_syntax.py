"""Abstract syntax trees: what a piece of source says, however it is laid out.

The tree of one source is the same under all versions of Python, apart from fields that only some of
them have and from the way they cut the literal parts of f-strings; both are smoothed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._registry import Node, no_step, node
from ._tokens import ORDERED

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["describe_syntax", "without_docstring"]


def describe_syntax(obj: Any, _walk: Walk) -> Node:
    """Describe a node of an abstract syntax tree without its positions.

    Empty fields are left out, so that fields which only later versions of Python have do not
    matter.
    """
    name = type(obj).__name__
    if name in ("Constant", "MatchSingleton"):
        return node(name.encode(), (obj.value,))
    children: list[Any] = []
    for field in sorted(obj._fields):
        value: Any = getattr(obj, field, None)
        if field == "body" and name in ("FunctionDef", "AsyncFunctionDef", "ClassDef"):
            value = without_docstring(value)
        elif field == "values" and name == "JoinedStr":
            value = merge_literals(value)
        if field not in ("ctx", "type_comment", "type_ignores", "kind") and not is_empty(value):
            children += (field, value)
    return (ORDERED, b"ast." + name.encode(), children, no_step)


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing; an empty format specification is nothing."""
    if type(value).__name__ == "JoinedStr":
        return not value.values
    return value is None or (isinstance(value, list) and not value)


def without_docstring(body: Any) -> Any:
    """Return the statements of a function or class without its documentation."""
    first: Any = body[0] if body else None
    if type(first).__name__ != "Expr":
        return body
    is_text = isinstance(getattr(getattr(first, "value", None), "value", None), str)
    return body[1:] if is_text else body


def merge_literals(values: Any) -> list[Any]:
    """Join the neighbouring literal parts of an f-string; where they are cut is up to Python."""
    merged: list[Any] = []
    for value in values:
        text = value.value if type(value).__name__ == "Constant" else None
        if text is None:
            merged.append(value)
        elif merged and isinstance(merged[-1], str):
            merged[-1] += text
        elif text:
            merged.append(text)
    return merged
