"""What code fills when it is first wanted, by its syntax: attributes of objects, and variables.

That is what a method sets where it has not found it::

    if self._table is None:          if not self._loaded:          if self._rows:
        self._table = ...                self._table = ...             return
                                         self._loaded = True       self._names = ...
                                                                   self._rows = ...

A method that is called where an attribute has not been found, and sets it, fills it likewise.
What is made of its own last value (``self.count = self.count + 1``) is no such thing. Nor is a flag
that is public, or stands alone, or is taken back (``self._busy = False``): it may be a state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from fleche.digest import CLOCK_CALLS, blocks_of, inner_nodes
from fleche.function._trees import SCOPED, Chain, chain_of, constant_text

__all__ = ["Fills", "filled_by_all", "fills_of", "set_by_clock", "written_lazily"]

ASSIGNMENTS = ("Assign", "AnnAssign", "NamedExpr")
LEAVING = ("Return", "Raise", "Continue", "Break")
ACCESS = ("getattr", "hasattr")
CHANCE = frozenset(["random", "randint", "randrange", "getrandbits", "uniform", "choice", "gauss"])
"""What these return may be set to anything by the program, and looks the same."""
NONE: Mapping[str, str] = MappingProxyType({})
ADDING = ("add", "append", "appendleft", "extend", "insert", "setdefault", "update")


class Fills(msgspec.Struct, frozen=True):
    """What one method fills.

    Attributes:
        names: the attributes that it sets where it has not found them.
        flags: those of these of which ``False`` says that nothing has been filled.
        sets: those that it sets whenever it is called, not from what they were.
        leaves: those of these that hold something then.
        calls: the methods of ``self`` that it calls where it has not found attributes, and which.
    """

    names: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    calls: tuple[tuple[str, frozenset[str]], ...] = ()


def filled_by_all(methods: Iterable[tuple[str, Fills]]) -> dict[str, bool]:
    """Return what the methods of a class fill together, each with its name.

    Returns:
        The attributes, and of each whether ``False`` says that nothing has been filled.
    """
    names: set[str] = set()
    flags: set[str] = set()
    known = list(methods)
    for _, fills in known:
        names |= fills.names
        flags |= fills.flags
        for called, wanted in fills.calls:
            for name, other in known:
                if name == called and (guards := wanted & other.leaves):
                    names |= other.sets
                    flags |= flags_among(guards, other.sets)
    return {name: name in flags for name in sorted(names)}


def fills_of(body: list[Any], first: str, named: Callable[[str], str]) -> Fills:
    """Return what a method fills.

    Args:
        body: its statements.
        first: its first parameter.
        named: returns under which name an attribute is kept.
    """
    aliases = aliases_in(body, first)
    names = asked_for(body, first, aliases) & settings_in(body, first, aliases=aliases).keys()
    everything = settings_in(body, first, ADDING)
    flags: set[str] = set()
    calls: list[tuple[str, frozenset[str]]] = []
    for region, wanted in guarded_in(body, first):
        settings = settings_in(region, first, ADDING)
        made = made_anew(settings, first)
        if guards := {name for name in wanted & made if leaves_something(settings[name])}:
            names |= made
            flags |= flags_among(guards, made)
        kept = frozenset(map(named, wanted))
        calls += [(called, kept) for called in sorted(methods_called(region, first))]
    sets = made_anew(everything, first)
    leaves = {name for name in sets if leaves_something(everything[name])}
    return Fills(
        names=frozenset(map(named, names)),
        flags=frozenset(map(named, flags)),
        sets=frozenset(map(named, sets)),
        leaves=frozenset(map(named, leaves)),
        calls=tuple(calls),
    )


def set_by_clock(body: list[Any], first: str, named: Callable[[str], str]) -> frozenset[str]:
    """Return the attributes that a method sets to what the clock returns, or an identifier."""
    found = {
        name
        for name, values in settings_in(body, first).items()
        for item in (part for value in values for part in walk(value))
        if called_name(item) in CLOCK_CALLS - CHANCE
    }
    return frozenset(map(named, found))


def called_name(item: Any) -> str:
    """Return the last name of what is called; "" if it is no call."""
    function = getattr(item, "func", None)
    return str(getattr(function, "attr", getattr(function, "id", "")))


def flags_among(guards: Collection[str], made: Collection[str]) -> set[str]:
    """Return the private ones of some attributes if others are set along with them."""
    if not set(made) - set(guards):
        return set()
    return {name for name in guards if name.startswith("_")}


def made_anew(settings: Mapping[str, list[Any]], first: str) -> set[str]:
    """Return the attributes that are not set from what they were."""
    return {
        name for name, values in settings.items() if name not in attributes_of_name(values, first)
    }


def leaves_something(values: list[Any]) -> bool:
    """Return whether no value of an attribute says that there is nothing."""
    return not any(
        (type(value).__name__ == "Constant" and not value.value)
        or (type(value).__name__ in ("List", "Tuple", "Set") and not value.elts)
        or (type(value).__name__ == "Dict" and not value.keys)
        for value in values
    )


def aliases_in(body: list[Any], first: str) -> dict[str, str]:
    """Return the local names that stand for an attribute, as ``memo = self._memo`` makes one.

    Or ``memo = self._memo = {}``, which gives a value to both.
    """
    found: dict[str, set[str]] = {}
    for item in parts_within(body):
        if type(item).__name__ not in ASSIGNMENTS:
            continue
        targets = getattr(item, "targets", None) or [item.target]
        names = {attribute_of(each, first) for each in (item.value, *targets)} - {""}
        for target in targets:
            if type(target).__name__ == "Name":
                found.setdefault(target.id, set()).update(names or {""})
    return {name: each.pop() for name, each in found.items() if len(each) == 1 and "" not in each}


def asked_for(body: list[Any], first: str, aliases: Mapping[str, str]) -> set[str]:
    """Return the attributes of ``first`` that a method looks at, or for, in a condition.

    That is ``self.x is None``, ``not hasattr(self, "x")``, ``key not in self.x``, or an exception.
    """
    found: set[str] = set()
    for item in parts_within(body):
        kind = type(item).__name__
        if kind in ("If", "IfExp", "While"):
            found |= attributes_of_name([item.test], first)
            found.update(filter(None, (attribute_of(each, first) for each in walk(item.test))))
            found |= attributes_by_alias([item.test], aliases)
        elif kind in ("Try", "TryStar"):
            names = {getattr(each.type, "id", "") for each in item.handlers}
            if names & {"AttributeError", "KeyError", "LookupError"}:
                found |= attributes_of_name(item.body, first)
                found |= attributes_by_alias(item.body, aliases)
    return found


def guarded_in(body: list[Any], first: str) -> Iterator[tuple[list[Any], set[str]]]:
    """Yield statements that run only where attributes hold nothing yet, and these attributes."""
    for index, statement in enumerate(body):
        if type(statement).__name__ == "If":
            if wanted := absent_if(statement.test, True, first):
                yield statement.body, wanted
            if wanted := absent_if(statement.test, False, first):
                yield statement.orelse, wanted
                if statement.body and type(statement.body[-1]).__name__ in LEAVING:
                    yield body[index + 1 :], wanted
        if type(statement).__name__ not in SCOPED:
            for block in blocks_of(statement):
                yield from guarded_in(block, first)


def absent_if(test: Any, outcome: bool, first: str) -> set[str]:
    """Return the attributes that certainly hold nothing if a condition has this outcome."""
    kind = type(test).__name__
    if kind == "UnaryOp" and type(test.op).__name__ == "Not":
        return absent_if(test.operand, not outcome, first)
    if kind == "BoolOp" and (type(test.op).__name__ == "And") is outcome:
        return set().union(*(absent_if(value, outcome, first) for value in test.values))
    if kind == "Compare" and len(test.ops) == 1:
        operator, other = type(test.ops[0]).__name__, test.comparators[0]
        if type(other).__name__ != "Constant" or (other.value is not None and other.value):
            return set()
        if operator in (("Is", "Eq") if outcome else ("IsNot", "NotEq")):
            return named_by(test.left, first)
        return set()
    return set() if outcome else named_by(test, first)


def named_by(item: Any, first: str) -> set[str]:
    """Return, as a set, the attribute that an expression is, or has the length of."""
    if getattr(getattr(item, "func", None), "id", "") in ("len", "bool") and len(item.args) == 1:
        item = item.args[0]
    name = attribute_of(item, first)
    return {name} if name else set()


def attribute_of(item: Any, first: str) -> str:
    """Return the attribute that ``self.x``, or ``hasattr(self, "x")``, asks for."""
    if type(item).__name__ == "Attribute":
        return str(item.attr) if getattr(item.value, "id", "") == first else ""
    is_access = getattr(getattr(item, "func", None), "id", "") in ACCESS and len(item.args) > 1
    if is_access and getattr(item.args[0], "id", "") == first:
        return constant_text(item.args[1]) or ""
    return ""


def settings_in(
    body: list[Any],
    first: str,
    adding: Collection[str] = (),
    aliases: Mapping[str, str] = NONE,
) -> dict[str, list[Any]]:
    """Return the attributes that statements set, or items of them, each with its values.

    Args:
        body: the statements.
        first: whose attributes.
        adding: methods of containers that set them, too.
        aliases: local names that stand for attributes, of which items may be set.
    """
    found: dict[str, list[Any]] = {}
    for item in parts_within(body):
        method: Any = getattr(item, "func", None)
        if getattr(method, "attr", "") in adding and (name := attribute_of(method.value, first)):
            found.setdefault(name, []).extend(item.args)
        if type(item).__name__ not in ASSIGNMENTS or item.value is None:
            continue
        targets = list(getattr(item, "targets", None) or [item.target])
        while targets:
            target = targets.pop()
            targets += getattr(target, "elts", ())
            if type(target).__name__ in ("Subscript", "Starred"):
                target = target.value
                if name := aliases.get(getattr(target, "id", ""), ""):
                    found.setdefault(name, []).append(item.value)
            if type(target).__name__ == "Attribute" and getattr(target.value, "id", "") == first:
                found.setdefault(target.attr, []).append(item.value)
    return found


def methods_called(body: list[Any], first: str) -> set[str]:
    """Return the methods of ``first`` that statements call."""
    functions = (getattr(item, "func", None) for item in parts_within(body))
    return {attribute_of(each, first) for each in functions if each is not None} - {""}


def attributes_of_name(syntax: list[Any], name: str) -> set[str]:
    """Return the attributes of a name that occur somewhere."""
    return {
        item.attr
        for part in syntax
        for item in walk(part)
        if type(item).__name__ == "Attribute" and getattr(item.value, "id", "") == name
    }


def attributes_by_alias(syntax: list[Any], aliases: Mapping[str, str]) -> set[str]:
    """Return the attributes that occur somewhere under a local name."""
    names = (getattr(item, "id", "") for part in syntax for item in walk(part))
    return {aliases[name] for name in names if name in aliases}


def parts_within(body: list[Any]) -> Iterator[Any]:
    """Yield the parts of statements, but of functions, classes and comprehensions inside."""
    pending = list(body)
    while pending:
        item = pending.pop()
        yield item
        if type(item).__name__ not in SCOPED:
            pending += inner_nodes(item)


def walk(item: Any) -> Iterator[Any]:
    """Yield an expression or statement, and all that is in it."""
    pending = [item]
    while pending:
        found = pending.pop()
        yield found
        pending += inner_nodes(found)


def written_lazily(body: list[Any]) -> set[Chain]:
    """Return the chains that code assigns to where it has found nothing: ``if x is None: x = ...``.

    Those of two steps are there without the first as well, as attributes of a class. What is
    assigned by the clock or by chance is not among them: it is another value in each run, wherever
    it was assigned first.
    """
    asked: set[Chain] = set()
    assigned: set[Chain] = set()
    changed: set[Chain] = set()
    pending = list(body)
    while pending:
        item = pending.pop()
        kind = type(item).__name__
        if kind in ("If", "IfExp", "While"):
            asked |= chains_asked_for(item.test)
        if kind in ("Assign", "AnnAssign", "NamedExpr"):
            found = chains_in(getattr(item, "targets", None) or [item.target])
            assigned |= found
            changed |= found if item.value and calls_clock(item.value) else set()
        elif kind in ("AugAssign", "For", "AsyncFor", "Delete", "withitem"):
            targets = getattr(item, "targets", [getattr(item, "target", None)])
            changed |= chains_in([*targets, getattr(item, "optional_vars", None)])
        pending += inner_nodes(item)
    late = asked & assigned - changed
    return late | {chain[1:] for chain in late if len(chain) == 2}


def calls_clock(expression: Any) -> bool:
    """Whether an expression calls something that is called like a function of a clock."""
    return any(called_name(item) in CLOCK_CALLS for item in walk(expression))


def chains_in(syntax: list[Any]) -> set[Chain]:
    """Return those of some expressions that are chains."""
    return set(filter(None, map(chain_of, syntax)))


def chains_asked_for(test: Any) -> set[Chain]:
    """Return the chains of which a condition asks whether there is anything."""
    kind = type(test).__name__
    if kind == "BoolOp":
        return set().union(*map(chains_asked_for, test.values))
    if kind == "UnaryOp":
        return chains_asked_for(test.operand)
    if kind == "Compare":
        is_identity = type(test.ops[0]).__name__ in ("Is", "IsNot")
        return chains_in([test.left]) if is_identity else set()
    return chains_in([test])
