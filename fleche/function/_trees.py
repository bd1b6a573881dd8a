"""How parts of a syntax tree are read: chains of names, steps to items, and the scope of a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from fleche.digest import chain_of, inner_nodes

__all__ = [
    "COMPREHENSIONS",
    "FUNCTIONS",
    "SCOPED",
    "Chain",
    "Scope",
    "chain_of",
    "constant_text",
    "hides_names",
    "is_class_of_self",
    "is_own_package",
    "item_step",
    "items_changed",
    "mangle",
    "mentions_own_package",
    "names_in_format",
    "prefix_of",
    "step_to",
    "suffix_of",
    "texts_within",
]

Chain: TypeAlias = tuple[str, ...]

FUNCTIONS = ("FunctionDef", "AsyncFunctionDef", "Lambda")
COMPREHENSIONS = ("ListComp", "SetComp", "DictComp", "GeneratorExp")
SCOPED = (*FUNCTIONS, *COMPREHENSIONS, "ClassDef")

_FIELD = re.compile(r"\{\w*((?:\.[^\W\d]\w*|\[[^][{}]*\])+)")
_STEP = re.compile(r"\.([^\W\d]\w*)")
_MADE = re.compile(r"%[^a-zA-Z%]*[a-zA-Z]|\}")
"""The end of what ``%`` and ``format`` replace in a text."""


def constant_text(item: Any) -> str | None:
    value = getattr(item, "value", None)
    return value if type(item).__name__ == "Constant" and isinstance(value, str) else None


def prefix_of(item: Any) -> str:
    """Return what text made at run time begins with, as ``do_`` in ``f"do_{x}"``.

    Likewise in ``"do_" + x + y``, ``"do_%s" % x`` and ``"do_{}".format(x)``.
    """
    while type(item).__name__ == "BinOp":
        item = item.left
    if type(item).__name__ == "JoinedStr" and item.values:
        item = item.values[0]
    elif getattr(getattr(item, "func", None), "attr", "") == "format":
        item = item.func.value
    return (constant_text(item) or "").partition("%")[0].partition("{")[0]


def suffix_of(item: Any) -> str:
    """Return what such text ends with, as ``_all`` in ``f"do_{x}_all"``."""
    while type(item).__name__ == "BinOp":
        item = item.right if type(item.op).__name__ == "Add" else item.left
    if type(item).__name__ == "JoinedStr" and item.values:
        item = item.values[-1]
    elif getattr(getattr(item, "func", None), "attr", "") == "format":
        item = item.func.value
    return _MADE.split(constant_text(item) or "")[-1]


def texts_within(item: Any) -> Iterator[str]:
    """Yield the constant texts in an expression."""
    pending = [item]
    while pending:
        part = pending.pop()
        if text := constant_text(part):
            yield text
        pending += inner_nodes(part)


def names_in_format(text: str) -> Iterator[str]:
    """Yield the attributes that ``text.format(...)`` gets, as ``x`` in ``"{0.x:.2f}"``."""
    for field in _FIELD.findall(text):
        yield from _STEP.findall(field)


def hides_names(name: str, args: list[Any]) -> bool:
    """Whether a call passes ``getattr`` on, as to ``map``, or calls it as ``getattr(*pair)``."""
    starred = name == "getattr" and any(type(each).__name__ == "Starred" for each in args)
    return starred or any(getattr(each, "id", "") == "getattr" for each in args)


def is_class_of_self(item: Any) -> bool:
    """Whether this is ``type(self)``, ``self.__class__`` or ``super()``."""
    if type(item).__name__ == "Call":
        name, count = getattr(item.func, "id", ""), len(item.args)
        return (name == "type" and count == 1) or (name == "super" and not count)
    return type(item).__name__ == "Attribute" and item.attr == "__class__"


def is_own_package(item: Any) -> bool:
    """Whether an expression says to which package a relative import is relative: to its own."""
    return getattr(item, "id", "") in ("__package__", "__name__")


def mentions_own_package(item: Any) -> bool:
    """Whether an expression has the name of its own package or module in it."""
    return is_own_package(item) or any(map(mentions_own_package, inner_nodes(item)))


def item_step(index: Any) -> str:
    """Return the step to an item with a constant index or key, or "" for any other."""
    value = getattr(index, "value", None)
    is_constant = type(index).__name__ == "Constant" and type(value) in (str, int)
    return step_to(value) if is_constant else ""


def step_to(key: object) -> str:
    """Return the step of a chain that leads to an item."""
    return f"[{key!r}]"


def items_changed(name: str, call: Any) -> list[Chain]:
    """Return the steps to the items that a mutating method changes; none of them leads to all."""
    words = [word.arg for word in call.keywords]
    if name in ("setdefault", "pop") and call.args and (step := item_step(call.args[0])):
        return [(step,)]
    if name == "update" and not call.args and all(words):
        return [(step_to(word),) for word in words]
    return [()]


def mangle(name: str, owner: str) -> str:
    """Return the name under which a private name is kept in the class ``owner``."""
    if not owner or not name.startswith("__") or name.endswith("__") or "." in name:
        return name
    stripped = owner.lstrip("_")
    return f"_{stripped}{name}" if stripped else name


class Scope:
    """A function, comprehension or class body, and the names that it binds."""

    __slots__ = (
        *("bound", "first", "globals", "imported", "is_class", "nonlocals", "owner", "parent"),
    )

    def __init__(self, syntax: Any, parent: Scope | None, owner: str) -> None:
        kind = type(syntax).__name__
        self.parent = parent
        self.owner = owner
        self.is_class = kind == "ClassDef"
        self.bound: set[str] = set()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.imported: set[str] = set()
        self.first = ""
        if kind in FUNCTIONS:
            self.bind_parameters(syntax.args)
            self.collect(syntax.body if isinstance(syntax.body, list) else [syntax.body])
        elif kind in COMPREHENSIONS:
            for generator in syntax.generators:
                self.collect([generator.target])
        else:
            self.collect(syntax.body)
        self.bound -= self.globals | self.nonlocals

    def bind_parameters(self, args: Any) -> None:
        positional = [*args.posonlyargs, *args.args]
        self.first = positional[0].arg if positional else ""
        extra = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
        self.bound.update(arg.arg for arg in (*positional, *args.kwonlyargs, *extra))

    def collect(self, syntax: list[Any]) -> None:
        """Note what is bound here, but not in scopes within."""
        pending = list(syntax)
        while pending:
            item = pending.pop()
            kind = type(item).__name__
            if kind in COMPREHENSIONS:
                self.collect_walruses(item)
                continue
            if kind in SCOPED:
                if kind != "Lambda":
                    self.bound.add(item.name)
                continue
            self.bind(kind, item)
            pending += inner_nodes(item)

    def bind(self, kind: str, item: Any) -> None:
        if kind == "Name":
            if type(item.ctx).__name__ != "Load":
                self.bound.add(item.id)
        elif kind == "Global":
            self.globals.update(item.names)
        elif kind == "Nonlocal":
            self.nonlocals.update(item.names)
        elif kind in ("Import", "ImportFrom"):
            names = {(alias.asname or alias.name).partition(".")[0] for alias in item.names}
            self.bound |= names
            self.imported |= names
        elif kind in ("ExceptHandler", "MatchAs", "MatchStar", "MatchMapping"):
            name = item.rest if kind == "MatchMapping" else item.name
            if name:
                self.bound.add(name)

    def collect_walruses(self, comprehension: Any) -> None:
        pending = [comprehension]
        while pending:
            item = pending.pop()
            if type(item).__name__ == "NamedExpr":
                self.bound.add(item.target.id)
            if type(item).__name__ != "Lambda":
                pending += inner_nodes(item)

    def find(self, name: str) -> tuple[str, Scope | None]:
        """Return whether a name is "local", "global" or "free", and the scope that binds it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.globals:
                return "global", None
            if name in scope.bound and (scope is self or not scope.is_class):
                return "local", scope
            scope = scope.parent
        return "free", None
