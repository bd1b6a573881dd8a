"""What an installed class reaches by name in the classes that are derived from it.

A visitor calls ``getattr(self, "visit_" + kind)``, a server ``getattr(self, "do_" + command)``, and
a mixin a method that it leaves to others to define. Nothing of that stands in the user's own code.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from functools import partial
from itertools import chain
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from fleche.function._names import prefix_of
from fleche.function._trees import constant_text
from fleche.function._values import is_interface

__all__ = ["reaches"]

MANY = 1000


class Reached(NamedTuple):
    """What the methods of a class reach.

    Attributes:
        names: of attributes of anything.
        beginnings: of names that are made at run time; "" for names of any kind.
    """

    names: frozenset[str]
    beginnings: tuple[str, ...]


known: dict[int, tuple[type, Reached]] = {}
"""By the id of the class, which is kept beside."""


def reaches(base: type, name: str) -> bool:
    """Whether code of an installed base class may call a method of a class below it."""
    if name in vars(base):
        return True
    if base.__module__ == builtins.__name__ or is_interface(base):
        return False
    if id(base) not in known:
        if len(known) >= MANY:
            known.clear()
        known[id(base)] = (base, reached_by(base))
    reached = known[id(base)][1]
    return name in reached.names or name.startswith(reached.beginnings)


def reached_by(base: type) -> Reached:
    names: set[str] = set()
    beginnings: set[str] = set()
    for member in vars(base).values():
        for part in ("__func__", "fget", "func"):  # of class methods and properties
            member = getattr(member, part, member)
        if isinstance(member, FunctionType):
            codes = list(codes_within(member.__code__))
            loaded = {name for code in codes for name in code.co_names}
            names |= loaded
            if loaded & {"getattr", "hasattr"}:
                names.update(filter(is_identifier, chain(*(code.co_consts for code in codes))))
            if "getattr" in loaded:
                beginnings |= beginnings_in(member)
    return Reached(frozenset(names), tuple(sorted(beginnings)))


def codes_within(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object, and those of the functions that are defined in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes_within(const)


def is_identifier(const: object) -> bool:
    return isinstance(const, str) and const.isidentifier()


def beginnings_in(method: FunctionType) -> set[str]:
    """Return how the names begin that a method looks up in its object; "" if it calls any."""
    import ast
    import inspect

    try:
        tree: Any = ast.parse(dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return set()
    calls: list[Any] = [item for item in ast.walk(tree) if isinstance(item, ast.Call)]
    called = {getattr(call.func, "id", id(call.func)) for call in calls}
    values: dict[str, list[Any]] = {}
    for item in ast.walk(tree):
        for target in getattr(item, "targets", [getattr(item, "target", None)]):
            if isinstance(target, ast.Name):
                value: Any = getattr(item, "value", None)
                values.setdefault(target.id, []).append(value)
                called |= {id(value)} if target.id in called else set()
    found: set[str] = set()
    for call in filter(partial(asks_object_of, method), calls):
        attribute = call.args[1]
        for value in values.get(getattr(attribute, "id", ""), [attribute]):
            beginning = prefix_of(value)
            if constant_text(value) is None and (beginning or id(call) in called):
                found.add(beginning)
    return found


def asks_object_of(method: FunctionType, call: Any) -> bool:
    """Whether a call is one of ``getattr`` on the first parameter of a method."""
    if getattr(call.func, "id", "") != "getattr" or len(call.args) < 2:
        return False
    return (getattr(call.args[0], "id", ""),) == method.__code__.co_varnames[:1]
