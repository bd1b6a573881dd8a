"""Readings of parts of a syntax tree: chains of names, and what code fills where nothing is yet."""

from __future__ import annotations

from typing import Any, TypeAlias

from fleche.digest import CLOCK_CALLS, inner_nodes

__all__ = [
    "COMPREHENSIONS",
    "FUNCTIONS",
    "NAMED_ACCESS",
    "SCOPED",
    "Chain",
    "chain_of",
    "constant_text",
    "written_lazily",
]

Chain: TypeAlias = tuple[str, ...]

NAMED_ACCESS = ("getattr", "hasattr", "setattr", "delattr")
FUNCTIONS = ("FunctionDef", "AsyncFunctionDef", "Lambda")
COMPREHENSIONS = ("ListComp", "SetComp", "DictComp", "GeneratorExp")
SCOPED = (*FUNCTIONS, *COMPREHENSIONS, "ClassDef")


def chain_of(item: Any) -> Chain | None:
    """Return the chain that an expression is, or None."""
    tail: list[str] = []
    while type(item).__name__ == "Attribute":
        tail.append(item.attr)
        item = item.value
    return (item.id, *reversed(tail)) if type(item).__name__ == "Name" else None


def constant_text(item: Any) -> str | None:
    value = getattr(item, "value", None)
    return value if type(item).__name__ == "Constant" and isinstance(value, str) else None


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
            changed |= found if calls_clock(item.value) else set()
        elif kind in ("AugAssign", "For", "AsyncFor", "Delete", "withitem"):
            targets = getattr(item, "targets", [getattr(item, "target", None)])
            changed |= chains_in([*targets, getattr(item, "optional_vars", None)])
        pending += inner_nodes(item)
    late = asked & assigned - changed
    return late | {chain[1:] for chain in late if len(chain) == 2}


def calls_clock(expression: Any) -> bool:
    """Whether an expression calls something that is called like a function of a clock."""
    function = getattr(expression, "func", None)
    if getattr(function, "id", getattr(function, "attr", "")) in CLOCK_CALLS:
        return True
    return expression is not None and any(map(calls_clock, inner_nodes(expression)))


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
