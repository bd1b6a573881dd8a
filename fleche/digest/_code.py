"""What a function does: the syntax of its source, its defaults, attributes, and captured values.

A function whose source is not to be had is known by its bytecode, which differs between versions of
Python.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Collection
from functools import WRAPPER_ASSIGNMENTS
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import UNSET, Attributes
from fleche.digest._names import own_module
from fleche.digest._registry import Node, node, register
from fleche.digest._source import MANY_CODES, find_definition

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "FunctionCode",
    "attributes_of_function",
    "attributes_of_wrapper",
    "bytecode_of",
    "captured_by",
    "defaults_of",
]


_GENERIC = ("dispatch", "register", "_clear_cache")

dumps: dict[int, tuple[types.CodeType, bytes]] = {}
"""What code objects say, by their id; they are kept beside."""


class FunctionCode:
    """What a plain function does, apart from its name.

    Args:
        function: the function; decorators are no part of it.
        ignored: parameters whose defaults do not matter.
    """

    __slots__ = ("function", "ignored")

    def __init__(self, function: types.FunctionType, ignored: Collection[str] = ()) -> None:
        self.function = function
        self.ignored = frozenset(ignored)


def describe_function(obj: types.FunctionType, _walk: Walk) -> Node:
    registry = getattr(obj, "registry", None)
    if registry is not None and obj.__globals__.get("__name__") == "functools":
        attributes = attributes_of_wrapper(obj, registry[object], "registry", *_GENERIC)
        return node(
            b"singledispatch",
            (obj.__module__, obj.__qualname__, dict(registry), *map(Attributes, attributes)),
        )
    name = obj.__name__
    renamed = [] if obj.__qualname__.endswith(name) else [name]
    return node(b"function", (own_module(obj), obj.__qualname__, FunctionCode(obj), *renamed))


def describe_function_code(obj: FunctionCode, _walk: Walk) -> Node:
    function = obj.function
    return node(
        b"code",
        (
            token_of_code(function.__code__, function.__globals__),
            Attributes(defaults_of(function, obj.ignored)),
            Attributes(captured_by(function)),
            Attributes(attributes_of_function(function)),
        ),
    )


def defaults_of(function: types.FunctionType, ignored: Collection[str]) -> dict[str, Any]:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    # a tool may have set more defaults than there are parameters; the last ones count
    found = dict(zip(reversed(positional), reversed(defaults), strict=False))
    found.update(function.__kwdefaults__ or {})
    return {name: value for name, value in found.items() if name not in ignored}


def captured_by(function: types.FunctionType) -> dict[str, Any]:
    """Return the values of the free variables; the class that ``super()`` needs is not captured."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: content_of(cell) for name, cell in cells if name != "__class__"}


def content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return UNSET


def attributes_of_function(function: types.FunctionType) -> dict[str, Any]:
    """Return what was set on a function, but for copies of what is known of it anyway."""
    found: dict[str, Any] = {}
    for name, value in function.__dict__.items():
        if name == "__wrapped__":
            if not any(value is captured for captured in captured_by(function).values()):
                found[name] = value
        elif value is None or value is not function.__doc__:
            found[name] = value
    return found


def attributes_of_wrapper(wrapper: Any, function: Any, *own: str) -> list[dict[str, Any]]:
    """Return what was set on the wrapper that a decorator of functools makes; often there is none.

    Args:
        wrapper: what the decorator returned.
        function: what it wraps, whose attributes it has copied.
        own: what it sets itself.
    """
    known = ("__wrapped__", *WRAPPER_ASSIGNMENTS, *own)
    copied = getattr(function, "__dict__", {})
    found = {
        name: value
        for name, value in vars(wrapper).items()
        if name not in known and copied.get(name, UNSET) is not value
    }
    return [found] if found else []


def token_of_code(code: types.CodeType, namespace: dict[str, Any]) -> bytes:
    """Return what a code object says, by its source if that is to be had."""
    found = dumps.get(id(code))
    if found is None:
        definition = find_definition(code, namespace)
        if definition is None:  # it may be to be had later
            return bytecode_of(code)
        if len(dumps) >= MANY_CODES:
            dumps.clear()
        found = dumps[id(code)] = (code, definition.dump)
    return found[1]


def describe_code(obj: types.CodeType, _walk: Walk) -> Node:
    return node(b"code object", (bytecode_of(obj), obj.co_name))


def bytecode_of(code: types.CodeType) -> bytes:
    """Return what a code object says without its source: equal only under one Python version."""
    written: list[bytes] = [sys.implementation.cache_tag.encode()]
    pending: list[Any] = [code]
    while pending:
        item = pending.pop()
        if isinstance(item, types.CodeType):
            written.append(b"(code")
            counts = (item.co_argcount, item.co_posonlyargcount, item.co_kwonlyargcount)
            pending += [
                *(item.co_consts, item.co_names, item.co_varnames, item.co_freevars),
                *(item.co_cellvars, (*counts, item.co_flags), item.co_code),
                getattr(item, "co_exceptiontable", b""),
            ]
        elif isinstance(item, tuple):
            written.append(b"(%d" % len(item))
            pending += item
        elif isinstance(item, frozenset):
            written.append(b"{%d" % len(item))
            pending += sorted(item, key=lambda part: (type(part).__name__, repr(part)))
        else:
            shown = hex(item) if type(item) is int else repr(item)
            raw = shown.encode("utf-8", "surrogatepass")
            written.append(b"%b %d:%b" % (type(item).__name__.encode(), len(raw), raw))
    return b" ".join(written)


PAIRS: tuple[tuple[type, Callable[[Any, Any], Node]], ...] = (
    (types.FunctionType, describe_function),
    (types.CodeType, describe_code),
    (FunctionCode, describe_function_code),
)
for cls, handler in PAIRS:
    register(cls, handler)
