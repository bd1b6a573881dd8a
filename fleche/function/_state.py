"""State that code writes, and where a module defines its names.

A variable that code itself changes counts by the syntax of its defining assignments: its value
depends on what ran before. So do values that are taken from the clock and its kin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from fleche.digest import (
    SourceText,
    dump_syntax,
    interactive_sources,
    is_type_checking,
    read_source,
)
from fleche.function._own import module_name

__all__ = ["defining_statements", "defining_syntax", "directory_of", "imported_as", "is_from_clock"]

BLOCKS = ("body", "orelse", "finalbody", "handlers")
ASSIGNMENTS = ("Assign", "AnnAssign", "AugAssign", "For", "AsyncFor", "With")
CLOCKS = {
    "time": None,
    "uuid": ("uuid1", "uuid4", "getnode"),
    "random": ("random", "randint", "randrange", "getrandbits", "uniform", "choice", "gauss"),
    "secrets": None,
    "socket": ("gethostname", "getfqdn", "gethostbyname"),
    "getpass": ("getuser",),
    "datetime": ("now", "utcnow", "today"),
    "tempfile": ("gettempdir", "mkdtemp", "mkstemp", "mktemp"),
    "os": ("getpid", "getppid", "urandom"),
    "posix": ("getpid", "getppid", "urandom"),
}
"""Modules whose functions return something else in each run, and which functions do."""


PLAIN = (int, float, str, bytes)
"""Types of what a clock or chance gives, and other variables may be made from."""


class Names:
    """What stands at the top of a source, or in the body of a class.

    Attributes:
        assignments: the statements that bind a name, by the name.
        imports: (module, name) by what ``from module import name`` binds.
    """

    def __init__(self, body: list[Any]) -> None:
        self.assignments: dict[str, list[Any]] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        pending = list(reversed(body))
        while pending:
            item = pending.pop()
            kind = type(item).__name__
            if kind == "ImportFrom" and not item.level:
                for alias in item.names:
                    self.imports[alias.asname or alias.name] = (item.module, alias.name)
            elif kind in ASSIGNMENTS:
                for name in bound_by(item):
                    self.assignments.setdefault(name, []).append(item)
            if kind == "If" and is_type_checking(item.test):
                pending += reversed(item.orelse)
            elif kind in ("If", "Try", "TryStar", "With", "For", "While", "ExceptHandler"):
                for block in BLOCKS:
                    pending += reversed(getattr(item, block, []))


def bound_by(statement: Any) -> Iterator[str]:
    kind = type(statement).__name__
    if kind == "With":
        pending = [part.optional_vars for part in statement.items if part.optional_vars]
    else:
        pending = list(getattr(statement, "targets", None) or [statement.target])
    while pending:
        target = pending.pop()
        if type(target).__name__ == "Name":
            yield target.id
        pending += getattr(target, "elts", [])
        if type(target).__name__ == "Starred":
            pending.append(target.value)


tops: WeakKeyDictionary[SourceText, Names] = WeakKeyDictionary()


def names_of(source: SourceText) -> Names:
    found = tops.get(source)
    if found is None:
        found = tops[source] = Names(source.tree.body)
    return found


def sources_of(namespace: Mapping[str, Any]) -> Iterator[SourceText]:
    """Yield what defines the names of a module, the latest text first."""
    if module_name(namespace) == "__main__":
        yield from interactive_sources()
    file = namespace.get("__file__")
    if isinstance(file, str) and not file.endswith((".so", ".pyd")):
        source = read_source(file, namespace)
        if source is not None:
            yield source


def defining_syntax(namespace: Mapping[str, Any], path: str) -> bytes:
    """Return the dump of the assignments that define a variable, or an attribute of a class."""
    return b"\n".join(map(dump_statement, defining_statements(namespace, path)))


def defining_statements(namespace: Mapping[str, Any], path: str) -> list[Any]:
    """Return the assignments that define a variable, or an attribute of a class."""
    owner, _, name = path.rpartition(".")
    for source in sources_of(namespace):
        if not owner:
            found = names_of(source).assignments.get(name)
        else:
            bodies = [item.body for item in source.classes.get(owner, [])]
            found = [part for body in bodies for part in Names(body).assignments.get(name, [])]
        if found:
            return found
    return []


def dump_statement(statement: Any) -> bytes:
    kind = type(statement).__name__
    if kind in ("For", "AsyncFor"):
        return dump_syntax([statement.target, statement.iter])
    if kind == "With":
        return dump_syntax(statement.items)
    return dump_syntax(statement)


def imported_as(namespace: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """Return (module, name) if a name is bound at the top by ``from module import name``."""
    for source in sources_of(namespace):
        names = names_of(source)
        if name in names.assignments:
            return None
        if name in names.imports:
            return names.imports[name]
    return None


def is_from_clock(namespace: Mapping[str, Any], name: str, depth: int = 4) -> bool:
    """Whether a variable is made by a call that returns something else in each run."""
    for source in sources_of(namespace):
        found = names_of(source).assignments.get(name)
        if found:
            values = [getattr(part, "value", None) for part in found]
            return any(calls_clock(value, namespace, depth) for value in values if value)
    return False


def calls_clock(expression: Any, namespace: Mapping[str, Any], depth: int) -> bool:
    import ast

    for item in ast.walk(expression):
        if type(item).__name__ == "Name" and depth:
            name = item.id  # type: ignore[attr-defined]
            if type(namespace.get(name)) in PLAIN and is_from_clock(namespace, name, depth - 1):
                return True
        if type(item).__name__ != "Call":
            continue
        function, last = item.func, ""  # type: ignore[attr-defined]
        while type(function).__name__ in ("Attribute", "Call"):
            last = last or getattr(function, "attr", "")
            function = function.value if hasattr(function, "attr") else function.func
        root = namespace.get(getattr(function, "id", ""))
        module = getattr(root, "__module__", None) or getattr(root, "__name__", None)
        module = "random" if type(getattr(root, "__self__", None)).__name__ == "Random" else module
        last = last or getattr(root, "__name__", "")
        if module in CLOCKS:
            allowed = CLOCKS[module]
            if allowed is None or last in allowed:
                return True
    return False


def directory_of(namespace: Mapping[str, Any]) -> str:
    """Return the directory of a module's file; "" if it has none."""
    file = namespace.get("__file__")
    return os.path.dirname(os.path.abspath(file)) if isinstance(file, str) else ""
