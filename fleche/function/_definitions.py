"""How variables are made: the statements that define them, and what modules do to them then.

A variable that code writes counts by these. They stand in the module of the variable, or in that
of the function.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from blake3 import blake3

from fleche.digest import (
    calling_statements,
    changing_statements,
    defining_statements,
    dump_statements,
    expressions_of,
    names_beside,
    origin_of,
    own_module,
    passing_statements,
    setting_statements,
)
from fleche.function._closure import Findings
from fleche.function._code import code_of
from fleche.function._lazy import make_real
from fleche.function._names import MUTATORS, facts_of_expression
from fleche.function._own import is_own_namespace, is_own_object, module_name
from fleche.function._signature import Transparent
from fleche.function._trees import Chain
from fleche.function._values import hashed

__all__ = [
    "CALLABLE",
    "NOTHING",
    "Definitions",
    "Variable",
    "function_of",
    "functions_in",
    "mark_of_attribute",
    "reached",
    "redefined",
    "value_at",
]

CALLABLE = (FunctionType, Transparent)
MANY_CALLED = 100
MANY_NAMES = 4
CHANGING = frozenset(
    [
        *("setitem", "delitem", "shuffle", "copyto", "put", "putmask", "place"),
        *("heapify", "heappush", "insort"),
    ]
)
"""Functions of libraries that change in place what they are given."""

NOTHING = blake3().hexdigest()
"""The hash of no statements."""


class Variable(NamedTuple):
    """What an assignment to a chain of names changes.

    Attributes:
        label: the label of the variable; "" if it is none of the user's own.
        value: what it holds.
        part: the steps from there to the part that is changed; none if it is the variable.
        attribute: the function of which it is an attribute, and its name, if it is one.
        anew: the label of the attribute that the assignment makes of a class, if a base has it.
        space: the names of the module of the variable.
    """

    label: str
    value: Any
    part: Chain = ()
    attribute: tuple[Any, str] | None = None
    anew: str = ""
    space: Mapping[str, Any] = {}


class Changes:
    """What the top of a module changes.

    Attributes:
        changes: statements, each with what decides whether it runs, by the labels of variables.
        calls: likewise, with the labels of what the functions set that they call.
    """

    def __init__(self) -> None:
        self.changes: dict[str, list[list[Any]]] = {}
        self.calls: list[tuple[list[Any], set[str]]] = []

    def changing(self, label: str) -> Iterator[list[Any]]:
        """Yield the statements that change a variable."""
        attribute = f"*.{label.rpartition('.')[2]}"
        yield from self.changes.get(label, ())
        for statements, changed in self.calls:
            if label in changed or ("." in label and attribute in changed):
                yield statements


class Definitions:
    """The definitions of variables, as hashes of syntax; what the statements name is followed.

    Args:
        found: what has been found, for the labels.
        use: lets members so called count.
        load: follows a chain of names that begins in a namespace.
    """

    def __init__(
        self,
        found: Findings,
        use: Callable[[Iterable[str]], None],
        load: Callable[[Mapping[str, Any], str, Chain], None],
    ) -> None:
        self.found = found
        self.use = use
        self.load = load
        self.tops: dict[int, Changes] = {}

    def of(self, namespace: Mapping[str, Any] | None, name: str) -> str:
        """Return what says how a variable is made, and what modules do to it then; follow that.

        These are its own module, and that of the function.
        """
        if namespace is not None:
            namespace, name = origin_of(namespace, name)
        if namespace is None:
            return NOTHING
        made = defining_statements(namespace, name, completed=True)
        found = [self.hash_of(made, namespace, name)]
        label, known = self.found.label(module_name(namespace), name), set(map(id, made))
        home = vars(sys.modules[self.found.home]) if self.found.home in sys.modules else namespace
        for space in [namespace] if home is namespace else [namespace, home]:
            self.found.checks.execution(space)
            changes = self.top_of(space).changing(label)
            found += [self.hash_of(each, space) for each in changes if id(each[0]) not in known]
        return hashed(*found) if found[1:] else found[0]

    def of_attribute(self, function: FunctionType, name: str) -> str:
        """Return the syntax by which an attribute of a function is set, and follow the names in it.

        Of a function that was made by another, that is what the other does.
        """
        namespace, known = function.__globals__, code_of(function)
        last = known.qualname.rpartition(".")[2]
        if last != known.qualname:
            return known.beginnings.get(f"{last}.{name}", "")
        statements = setting_statements(namespace, last, name)
        return self.hash_of(statements, namespace) if statements else ""

    def hash_of(self, statements: list[Any], namespace: Mapping[str, Any], name: str = "") -> str:
        """Return the hash of statements of a module, and follow the names in them.

        Args:
            statements: the statements.
            namespace: the names of the module.
            name: what they make.
        """
        owner = name.rpartition(".")[0]
        for expression in (part for each in statements for part in expressions_of(each, namespace)):
            facts = facts_of_expression(expression)
            self.use(facts.attributes)
            for chain in sorted(facts.loads - {(name,)}):
                if owner and defining_statements(namespace, f"{owner}.{chain[0]}"):
                    self.use(chain)
                else:
                    self.load(namespace, module_name(namespace), chain)
        return blake3(dump_statements(statements, namespace)).hexdigest()

    def top_of(self, namespace: Mapping[str, Any]) -> Changes:
        """Return what the top of a module changes."""
        found = self.tops.get(id(namespace))
        if found is None:
            found = self.tops[id(namespace)] = Changes()
            for chain, statements in changing_statements(namespace):
                for label in self.labels_at(namespace, chain):
                    found.changes.setdefault(label, []).append(statements)
            for chain, function, statements in passing_statements(namespace):
                for label in self.labels_at(namespace, changed_by_call(namespace, chain, function)):
                    found.changes.setdefault(label, []).append(statements)
            for chain, statements in sorted(calling_statements(namespace).items()):
                changed = {
                    label for each in functions_at(namespace, chain) for label in self.set_by(each)
                }
                found.calls += [(statements, changed)] if changed else []
        return found

    def labels_at(
        self, namespace: Mapping[str, Any], chain: Chain, depth: int = MANY_NAMES
    ) -> set[str]:
        """Return the labels of the variables of which the top of a module may change a part.

        They are several where a name stands for one thing after the other, or beside others.
        """
        if not chain:
            return set()
        name, *tail = chain
        space, name = origin_of(namespace, name)
        while space is not None and issubclass(type(value := space.get(name)), ModuleType):
            if not tail or not is_own_namespace(vars(value)):
                return set()
            space, name = origin_of(vars(value), tail.pop(0))
        if space is None:
            return set()
        found = {self.variable(space, (name, *tail)).label}
        for other in names_beside(space, name) if depth else ():
            found |= self.labels_at(space, (*other, *tail), depth - 1)
        return found - {""}

    def set_by(self, function: FunctionType) -> set[str]:
        """Return the labels of the variables that a function sets, or one that it calls.

        And, behind a ``*``, the names of attributes of classes. What a decorated function sets,
        a hit does not.
        """
        found: set[str] = set()
        for each in reached(function, functions_called):
            facts, namespace = code_of(each).facts, each.__globals__
            for chain in facts.writes | facts.mutated | {(name,) for name in facts.stores}:
                found.add(self.variable(namespace, chain).label)
            found |= {f"*.{attribute}" for attribute, *_ in facts.class_writes}
        return found - {""}

    def variable(self, namespace: Mapping[str, Any], chain: Chain) -> Variable:
        """Return the variable that an assignment to a chain changes, or what it ends with does."""
        name, *tail = chain
        value = namespace.get(name, self)
        # what stands for another object, which `__class__` makes or looks for, is not asked
        while tail and issubclass(type(value), ModuleType):
            if not is_own_namespace(vars(value)):
                return Variable("", None)
            namespace, name = vars(value), tail.pop(0)
            make_real(namespace, (name,))
            value = namespace.get(name, self)
        while issubclass(type(value), type) and tail and is_own_object(value):
            name, *tail = tail
            owner, derived = owner_of(value, name), value
            value = vars(owner).get(name)
            if not (issubclass(type(value), type) and tail):
                label, anew = (
                    self.found.label(own_module(cls), f"{cls.__qualname__}.{name}")
                    for cls in (owner, derived)
                )
                return Variable(label, value, tuple(tail), anew=anew)
        if issubclass(type(value), CALLABLE) and tail:
            mark, held = mark_of_attribute(value, tail[0]), vars(value).get(tail[0])
            return Variable(mark, held, tuple(tail[1:]), (value, tail[0]))
        if tail and issubclass(type(value), type):
            return Variable("", None)
        label = self.found.label(module_name(namespace), name)
        return Variable(label, value, tuple(tail), space=namespace)


def redefined(found: Findings, places: Iterable[tuple[Mapping[str, Any] | None, str]]) -> str:
    """Return what says now how some variables are made, and follow nothing."""
    definitions = Definitions(found, lambda *_: None, lambda *_: None)
    return " ".join(definitions.of(*place) for place in places)


def changed_by_call(namespace: Mapping[str, Any], chain: Chain, function: Chain) -> Chain:
    """Return the chain to what a call changes of an argument, or of what it is a method of; or ().

    Args:
        namespace: where the chains begin.
        chain: leads to the argument, or to the object.
        function: leads to what is called.
    """
    if chain[-1] in MUTATORS and function[:-1] != chain:  # a method that another function calls
        return chain[:-1]
    called: Any = value_at(namespace, function) if function else None
    if issubclass(type(called), type) and is_own_object(called):
        called = vars(called).get("__init__")
    if issubclass(type(called), FunctionType) and is_own_namespace(called.__globals__):
        return chain if code_of(called).facts.parameter_writes else ()
    if not function:
        return ()
    of_type = isinstance(vars(builtins).get(function[0]), type)  # as `dict.update(chain, ...)`
    is_method = (of_type or function[:-1] == chain) and function[-1] in MUTATORS
    return chain if is_method or function[-1] in CHANGING else ()


def reached(
    function: FunctionType, called: Callable[[FunctionType], Iterable[FunctionType]]
) -> Iterator[FunctionType]:
    """Yield a function, and once each, of not too many, those that ``called`` leads to from it."""
    pending, seen = [function], set[int]()
    while pending and len(seen) < MANY_CALLED:
        each = pending.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += called(each)


def functions_called(function: FunctionType) -> Iterator[FunctionType]:
    """Yield the own functions that the names in a function lead to."""
    for chain in sorted(code_of(function).facts.loads, reverse=True):
        yield from functions_at(function.__globals__, chain)


def owner_of(cls: type, name: str) -> type:
    """Return the class of the user's own, this one or a base, that has an attribute."""
    return next((base for base in cls.__mro__ if name in vars(base) and is_own_object(base)), cls)


def functions_in(namespace: Mapping[str, Any]) -> Iterator[FunctionType]:
    """Yield the functions and methods of a module, decorated with this package or not."""
    for name, value in list(namespace.items()):
        function = function_of(value)
        found = functions_at(namespace, (name,)) if function is None else [function]
        yield from (each for each in found if each.__globals__ is namespace)


def function_of(value: Any) -> FunctionType | None:
    """Return a plain function, or that of a decorated one whose code counts."""
    if isinstance(value, Transparent) and value.spec.hashes_code:  # type: ignore[attr-defined]
        value = value.spec.function  # type: ignore[attr-defined]
    return value if isinstance(value, FunctionType) else None


def value_at(namespace: Mapping[str, Any], chain: Chain) -> Any:
    """Return what a chain of names through modules and classes leads to, or None."""
    value = namespace.get(chain[0])
    for step in chain[1:]:
        if not issubclass(type(value), (ModuleType, type)):
            return None
        value = vars(value).get(step)
    return value


def functions_at(namespace: Mapping[str, Any], chain: Chain) -> list[FunctionType]:
    """Return the own function that a chain of names leads to, or the methods of a class.

    None of them is decorated with this package.
    """
    value = value_at(namespace, chain)
    if issubclass(type(value), type) and not is_own_object(value):
        return []
    members = vars(value).values() if issubclass(type(value), type) else [value]
    found = (getattr(member, "__func__", member) for member in members)
    functions = [each for each in found if issubclass(type(each), FunctionType)]
    return [each for each in functions if is_own_namespace(each.__globals__)]


def mark_of_attribute(holder: Any, name: str) -> str:
    """Return what an attribute of a function is known by."""
    return f"attribute {id(holder)}.{name}"
