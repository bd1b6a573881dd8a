"""What a function does: the syntax tree of its source, its defaults and what it has captured.

A function whose source is not to be had is known by its bytecode, which differs between versions of
Python. "Its source" is what compiles to the very code that the function runs: a file that was
edited after its import, or a function that some tool has rewritten, is not taken for the source.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from fleche._util import renewed_after_fork

from ._builtin import UNSET, Attributes, Raw
from ._registry import Node, node, register
from ._source import find_definition
from ._syntax import without_docstring

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["FunctionCode", "captured_by"]

MANY = 10_000


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


class Definition:
    """A function or lambda in a syntax tree, without its name, decorators and docstring."""

    __slots__ = ("syntax",)

    def __init__(self, syntax: Any) -> None:
        self.syntax = syntax


class Bytecode:
    """A code object that has to do without a source."""

    __slots__ = ("code",)

    def __init__(self, code: types.CodeType) -> None:
        self.code = code


def describe_function(obj: types.FunctionType, _walk: Walk) -> Node:
    registry = getattr(obj, "registry", None)
    if registry is not None and obj.__globals__.get("__name__") == "functools":
        return node(b"singledispatch", (obj.__module__, obj.__qualname__, dict(registry)))
    return node(b"function", (obj.__module__, obj.__qualname__, FunctionCode(obj)))


def describe_function_code(obj: FunctionCode, walk: Walk) -> Node:
    function = obj.function
    return node(
        b"code",
        (
            Raw(token_of_code(function.__code__, function.__globals__, walk)),
            Attributes(defaults_of(function, obj.ignored)),
            Attributes(captured_by(function)),
        ),
    )


def defaults_of(function: types.FunctionType, ignored: Collection[str]) -> dict[str, Any]:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
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


known: dict[int, tuple[types.CodeType, bytes]] = {}
lock = renewed_after_fork(threading.Lock())


def token_of_code(code: types.CodeType, namespace: dict[str, Any], walk: Walk) -> bytes:
    """Return the token of a code object, which is made once: neither it nor its source change."""
    found = known.get(id(code))
    if found is None:
        definition = find_definition(code, namespace)
        subject = Bytecode(code) if definition is None else Definition(definition)
        found = (code, walk.subtoken(subject))
        with lock:
            if len(known) >= MANY:
                known.clear()
            known[id(code)] = found
    return found[1]


def describe_definition(obj: Definition, _walk: Walk) -> Node:
    syntax = obj.syntax
    body = syntax.body if isinstance(syntax.body, list) else [syntax.body]
    if isinstance(syntax.body, list):
        body = without_docstring(body)
    return node(
        b"definition",
        (
            type(syntax).__name__,
            syntax.args,
            body,
            getattr(syntax, "returns", None),
            getattr(syntax, "type_params", []),
        ),
    )


def describe_code(obj: types.CodeType, _walk: Walk) -> Node:
    return node(b"code object", (Bytecode(obj), obj.co_name))


def describe_bytecode(obj: Bytecode, _walk: Walk) -> Node:
    code = obj.code
    return node(
        b"bytecode",
        (
            sys.implementation.cache_tag,
            code.co_code,
            code.co_consts,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
            getattr(code, "co_exceptiontable", b""),
        ),
    )


PAIRS: tuple[tuple[type, Callable[[Any, Any], Node]], ...] = (
    (types.FunctionType, describe_function),
    (types.CodeType, describe_code),
    (FunctionCode, describe_function_code),
    (Definition, describe_definition),
    (Bytecode, describe_bytecode),
)
for cls, handler in PAIRS:
    register(cls, handler)
