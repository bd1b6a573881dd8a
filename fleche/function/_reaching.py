"""What installed code reaches by name in classes of the user's own.

A visitor calls ``getattr(self, "visit_" + kind)``, a server ``getattr(self, "do_" + command)``, and
a mixin a method that it leaves to others to define; a pipeline calls ``step.transform`` of any
object that it is given. Nothing of that stands in the user's own code.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator, Set
from functools import partial
from itertools import chain
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from fleche._util import attempt
from fleche.digest import HEAP
from fleche.function._kinds import inner_function, is_interface
from fleche.function._own import is_made_in_c, is_own_module, module_name
from fleche.function._trees import constant_text, prefix_of

__all__ = ["Calls", "codes_within", "home_of", "reaches", "texts_asked_by"]

MANY = 1000
OF_PYTHON = (builtins.__name__, "collections")
"""Modules whose classes in C call special methods only."""

GETTERS = {"getattr", "hasattr", "methodcaller", "attrgetter"}


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
    if base.__module__ in OF_PYTHON or is_interface(base):
        return False
    if is_made_in_c(base):  # of any name: its code cannot be read
        return True
    if id(base) not in known:
        if len(known) >= MANY:
            known.clear()
        known[id(base)] = (base, reached_by(base))
    reached = known[id(base)][1]
    return name in reached.names or name.startswith(reached.beginnings)


def home_of(value: Any) -> str:
    """Return the module in which a function or class, or that of an object, is written, or ""."""
    value = inner_function(value) or value
    if isinstance(value, FunctionType):
        return module_name(value.__globals__)
    cls = value if isinstance(value, type) else type(value)
    if not cls.__flags__ & HEAP:
        return ""
    for member in map(unwrapped, list(vars(cls).values())):
        if isinstance(member, FunctionType):  # a class may say that it is from elsewhere
            return module_name(member.__globals__)
    return cls.__module__


class Calls:
    """What installed modules may call of the objects that they are given, by name."""

    def __init__(self) -> None:
        self.modules: set[str] = {""}
        self.found: set[str] = set()

    def names(self, modules: Set[str]) -> set[str]:
        """Return the names, given the modules that were met so far."""
        for module in sorted(modules - self.modules):
            self.modules.add(module)
            if not is_own_module(module):
                self.found |= names_called_in(module)
        return self.found


called: dict[str, frozenset[str]] = {}
"""By the name of a module."""


def names_called_in(module: str) -> frozenset[str]:
    """Return the names of attributes that the functions and methods of a module may ask for."""
    if module not in called:
        namespace = getattr(sys.modules.get(module), "__dict__", {})
        names: set[str] = set()
        for value in list(namespace.values()):
            is_class = isinstance(value, type) and home_of(value) == module
            members = list(vars(value).values()) if is_class else [value]
            for member in map(unwrapped, members):
                if isinstance(member, FunctionType) and member.__globals__ is namespace:
                    names |= names_asked_by(member.__code__)
        called[module] = frozenset(name for name in names if not name.startswith("__"))
    return called[module]


def unwrapped(member: Any) -> Any:
    for part in ("__func__", "fget", "func"):  # of class methods and properties
        member = attempt(getattr, member, part, default=member)
    return member


def names_asked_by(code: CodeType) -> set[str]:
    """Return the names in code, and the texts in it that may be names of attributes."""
    return {name for each in codes_within(code) for name in each.co_names} | texts_asked_by(code)


def texts_asked_by(code: CodeType) -> set[str]:
    """Return the texts in code that may be names of attributes, if it asks for these by texts."""
    codes = list(codes_within(code))
    if all(GETTERS.isdisjoint(each.co_names) for each in codes):
        return set()
    return set(filter(is_identifier, chain(*(each.co_consts for each in codes))))


def reached_by(base: type) -> Reached:
    names: set[str] = set()
    beginnings: set[str] = set()
    for member in vars(base).values():
        function = unwrapped(member)
        if isinstance(function, FunctionType):
            asked = names_asked_by(function.__code__)
            names |= asked
            if "getattr" in asked:
                beginnings |= beginnings_in(function)
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
