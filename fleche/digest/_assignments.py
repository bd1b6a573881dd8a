"""Where a module or a class defines its names.

A variable that code itself changes counts by the syntax of its defining assignments: its value
depends on what ran before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain as chained
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from fleche.digest._source import (
    Definition,
    SourceText,
    first_line_of,
    interactive_sources,
    read_source,
)
from fleche.digest._syntax import (
    blocks_of,
    chain_of,
    dump_syntax,
    inner_nodes,
    is_type_checking,
)

__all__ = [
    "WITH",
    "SettingStatement",
    "calling_statements",
    "changing_statements",
    "defining_statements",
    "defining_syntax",
    "dump_statements",
    "expressions_of",
    "full_name",
    "imported_as",
    "names_beside",
    "names_bound_in",
    "origin_of",
    "passing_statements",
    "setting_statements",
    "setting_statements_of",
    "settings_and_calls",
    "statements_setting",
    "text_at",
]

T = TypeVar("T")

WITH = ("With", "AsyncWith")
LOOPS = ("For", "AsyncFor")
ASSIGNMENTS = ("Assign", "AnnAssign", "AugAssign", *LOOPS, *WITH)
FUNCTIONS = ("FunctionDef", "AsyncFunctionDef")
DEFINITIONS = (*FUNCTIONS, "ClassDef")
HEADED = ("If", "While", "Try", "TryStar", "ExceptHandler", "Match", "match_case")
"""Statements round others, of which the heads count."""

ROUND = frozenset([*HEADED, *LOOPS, *WITH])
"""Statements and parts of them that hold others."""

CALLING = ("Expr", "Assign", "AnnAssign", "AugAssign", "Assert", "Raise")
STEPS = ("Attribute", "Subscript", "Call")
PACKAGE = __name__.partition(".")[0]
HANDED_OUT = re.compile(r"_?(get|current)(_|context|config|options|$)")
"""How the names of functions begin that hand out what holds settings."""


class Names:
    """What stands at the top of a source, or in the body of a class.

    Attributes:
        assignments: the statements that bind a name, by the name; of functions, those that are
            decorated.
        completions: the statements that call a method of what is bound to a name, or set or delete
            an item or an attribute of it, by the name; each behind the chain of names that leads
            to what it changes, as far as there are names.
        imports: (level, module, name) by what ``from module import name`` binds.
        modules: the modules that ``import module`` binds, by the names.
        stars: (level, module) of each ``from module import *``, the last first.
        defined: the names of functions and classes.
        passed: the statements that pass what has a name to something that they call, or call a
            method of it, by the name; each behind the chain that leads to it, and that which leads
            to what is called.
        entered: ``with`` statements that call a function, each behind the name that leads to it.
        callers: the statements that call something, or decorate with it, by the chain of names that
            leads there.
        conditions: the statements round another one that decide whether and how often it runs, by
            the ``id`` of the latter.
    """

    def __init__(self, body: list[Any]) -> None:
        self.assignments: dict[str, list[Any]] = {}
        self.completions: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
        self.imports: dict[str, tuple[int, str, str]] = {}
        self.modules: dict[str, str] = {}
        self.stars: list[tuple[int, str]] = []
        self.defined: set[str] = set()
        self.passed: dict[str, list[tuple[tuple[str, ...], tuple[str, ...], Any]]] = {}
        self.callers: dict[tuple[str, ...], list[Any]] = {}
        self.entered: list[tuple[str, Any]] = []
        self.conditions: dict[int, tuple[Any, ...]] = {}
        pending = list(reversed(body))
        while pending:
            item = pending.pop()
            kind = type(item).__name__
            self.note_calls(item, kind)
            if kind == "ImportFrom":
                self.note_imports(item)
            elif kind == "Import":
                self.modules |= {each.asname or each.name: each.name for each in item.names}
            elif kind in ASSIGNMENTS or kind in ("Expr", "Delete"):
                self.note(item, kind)
            elif kind in DEFINITIONS:
                self.defined.add(item.name)
                if kind in FUNCTIONS and item.decorator_list:
                    self.assignments.setdefault(item.name, []).append(item)
            pending += self.note_blocks(item, kind)

    def note_blocks(self, item: Any, kind: str) -> list[Any]:
        """Note what decides whether the statements within one run; return these, the last first."""
        if kind == "If" and is_type_checking(item.test):
            return list(reversed(item.orelse))
        found: list[Any] = []
        if kind in WITH:
            self.entered += [(name, item) for name, _ in entered_by(item)]
        for block in blocks_of(item) if kind in ROUND else ():
            decides = otherwise(item) if block is getattr(item, "orelse", None) else item
            round_it = (*self.conditions.get(id(item), ()), decides)
            self.conditions.update((id(inner), round_it) for inner in block)
            found += reversed(block)
        return found

    def note_imports(self, item: Any) -> None:
        for alias in item.names:
            if alias.name == "*":
                self.stars.insert(0, (item.level, item.module or ""))
            else:
                found = (item.level, item.module or "", alias.name)
                self.imports[alias.asname or alias.name] = found

    def imported(self, name: str, namespace: Mapping[str, Any]) -> tuple[str, str]:
        """Return (module, name) of what ``from module import name`` binds in a namespace."""
        level, module, original = self.imports[name]
        return full_name(package_of(namespace), level, module), original

    def note_calls(self, item: Any, kind: str) -> None:
        calls = list(calls_in(item)) if kind in CALLING else []
        made_by = [*getattr(item, "decorator_list", ()), *getattr(item, "bases", ())]
        made_by = [getattr(each, "func", each) for each in made_by]
        for chain in filter(None, map(chain_of, made_by)):
            if len(chain) > 1:
                self.completions.setdefault(chain[0], []).append((chain, item))
        for call in calls:
            function = chain_of(call.func) or ()
            given = [*call.args, *(word.value for word in call.keywords)]
            bound = () if kind == "Expr" and call is item.value else function[:-1]
            for chain in filter(None, [bound, *map(chain_of, given)]):
                self.passed.setdefault(chain[0], []).append((chain, function, item))
        called = filter(None, map(chain_of, [*(call.func for call in calls), *made_by]))
        for chain in dict.fromkeys(called):
            self.callers.setdefault(chain, []).append(item)

    def note(self, item: Any, kind: str) -> None:
        for name in bound_by(item) if kind in ASSIGNMENTS else ():
            self.assignments.setdefault(name, []).append(item)
        for chain in completed_by(item):
            self.completions.setdefault(chain[0], []).append((chain, item))

    def completing(self, name: str) -> list[Any]:
        """Return the statements that change what is bound to a name."""
        return [statement for _, statement in self.completions.get(name, ())]

    def settings(self) -> Iterator[tuple[str, str, Any]]:
        """Yield the statements that may set something of what a name is bound to.

        Each with the name before it, and with that of the function behind it that it calls, or "".
        """
        for name in sorted(self.completions):
            for each in self.completing(name):
                if type(each).__name__ not in DEFINITIONS:
                    yield name, called_by(each), each
        for name, statement in self.entered:
            yield name, called_by(statement), statement
        for chain, statements in sorted(self.callers.items()):
            for each in statements:
                kind = type(each).__name__
                if kind == "Assign" or (kind == "Expr" and len(chain) == 1):
                    yield chain[0], chain[-1], each


def entered_by(statement: Any) -> Iterator[tuple[str, str]]:
    """Yield the first name and the last of each function that a ``with`` statement calls.

    Those of classes, and ``open``, hold a file or a pool of processes, and set nothing.
    """
    for item in statement.items:
        chain = chain_of(getattr(item.context_expr, "func", None))
        if chain and not chain[-1][0].isupper() and chain[-1] != "open":
            yield chain[0], chain[-1]


def calls_in(statement: Any) -> Iterator[Any]:
    """Yield the calls in a statement, but for those in functions that it does not call."""
    pending = [statement]
    while pending:
        item = pending.pop()
        kind = type(item).__name__
        if kind == "Call":
            yield item
            if type(item.func).__name__ == "Lambda":
                pending.append(item.func.body)
        if kind not in ("Lambda", "Constant"):
            pending += inner_nodes(item)


def otherwise(statement: Any) -> Any:
    """Return what decides whether the ``else`` of a statement runs, which may have no condition."""
    import ast

    test: Any = getattr(statement, "test", None)
    test = test or getattr(statement, "iter", ast.Constant(True))
    return ast.Expr(ast.UnaryOp(ast.Not(), test))


def called_by(statement: Any) -> str:
    """Return the name of the method that a statement calls; "" if it assigns."""
    if type(statement).__name__ in WITH:
        return next(filter(None, (name for _, name in entered_by(statement))), "")
    return getattr(statement.value.func, "attr", "") if type(statement).__name__ == "Expr" else ""


def names_bound_in(body: list[Any]) -> dict[str, list[Any]]:
    """Return the statements of a body that bind names, by the name."""
    return Names(body).assignments


def statements_setting(body: list[Any], name: str, attribute: str) -> list[Any]:
    """Return the statements of a body that set an attribute of what is bound to a name."""
    return settings_among(Names(body), name, attribute)


def settings_among(names: Names, name: str, attribute: str) -> list[Any]:
    return [each for each in names.completing(name) if sets(each, name, attribute)]


def sets(statement: Any, name: str, attribute: str) -> bool:
    """Whether a statement sets an attribute of what has a name, or changes what is there."""
    for part in changed_by(statement):
        root = part
        while type(root).__name__ in STEPS:
            inner = root.func if type(root).__name__ == "Call" else root.value
            if getattr(root, "attr", "") == attribute and getattr(inner, "id", "") == name:
                return True
            root = inner
    return False


def setting_statements(namespace: Mapping[str, Any], name: str, attribute: str) -> list[Any]:
    """Return the statements at the top of a module that set an attribute of what has a name."""
    for source in sources_of(namespace):
        (names,) = names_of(source)
        if found := settings_among(names, name, attribute):
            return found
    return []


def bound_by(statement: Any) -> Iterator[str]:
    kind = type(statement).__name__
    if kind in WITH:
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


def completed_by(statement: Any) -> Iterator[tuple[str, ...]]:
    """Yield the chains of names to objects of which a statement calls a method, or sets a part.

    As far as there are names: that of ``a.b[0].c = 1`` is ``a.b``.
    """
    for part in changed_by(statement):
        names, root = list[str](), part
        while (kind := type(root).__name__) in STEPS:
            names = [root.attr, *names] if kind == "Attribute" else []
            root = root.func if kind == "Call" else root.value
        chain = chain_of(root.value if kind == "NamedExpr" else root)
        if root is not part and chain:
            yield *chain, *names


def changed_by(statement: Any) -> list[Any]:
    """Return the methods that a statement calls, or what it assigns to."""
    if type(statement).__name__ == "Expr":
        call = statement.value
        if getattr(getattr(call, "func", None), "id", "") in ("setattr", "delattr") and call.args:
            import ast

            return [ast.Attribute(call.args[0], "", ast.Store())]
        return [call.func] if type(call).__name__ == "Call" else []
    pending = list(getattr(statement, "targets", None) or [getattr(statement, "target", None)])
    found: list[Any] = []
    while pending:
        target = pending.pop(0)
        parts = getattr(target, "elts", None)
        found += [target] if parts is None else []
        pending[:0] = parts or ()
    return found


bodies: WeakKeyDictionary[SourceText, dict[str, list[Names]]] = WeakKeyDictionary()


def names_of(source: SourceText, owner: str = "") -> list[Names]:
    """Return what stands at the top of a source, or in each body of a class so called."""
    known = bodies.setdefault(source, {})
    if owner not in known:
        found = source.tree.classes.get(owner, []) if owner else [source.tree]
        known[owner] = [Names(item.body) for item in found]
    return known[owner]


def sources_of(namespace: Mapping[str, Any]) -> Iterator[SourceText]:
    """Yield what defines the names of a module, the latest text first."""
    if namespace.get("__name__") in ("__main__", "__mp_main__"):
        yield from interactive_sources()
    file = namespace.get("__file__")
    if isinstance(file, str) and not file.endswith((".so", ".pyd")):
        source = read_source(file, namespace)
        if source is not None:
            yield source


def text_at(namespace: Mapping[str, Any], path: str) -> str:
    """Return the lines of a class, with its decorators, or of the whole module if ``path`` is "".

    "" if they are not to be had.
    """
    for source in sources_of(namespace):
        if not path:
            return source.text
        if found := source.tree.classes.get(path):
            return "\n".join(source.lines[first_line_of(found[-1]) - 1 : found[-1].end_lineno])
    return ""


def defining_syntax(namespace: Mapping[str, Any], path: str, *, completed: bool = False) -> bytes:
    """Return the dump of the statements of :func:`defining_statements`."""
    return dump_statements(defining_statements(namespace, path, completed=completed), namespace)


def defining_statements(
    namespace: Mapping[str, Any], path: str, *, completed: bool = False
) -> list[Any]:
    """Return the assignments that define a variable, or an attribute of a class.

    Args:
        namespace: the names of the module.
        path: the name of the variable; that of a class before it if it is an attribute of one.
        completed: return what is done to the object afterwards, too.
    """
    owner, _, name = path.rpartition(".")
    for source in sources_of(namespace):
        bodies_here = names_of(source, owner)
        found = [part for body in bodies_here for part in body.assignments.get(name, [])]
        if found and completed:
            found += [part for body in bodies_here for part in body.completing(name)]
            found += conditions_among(bodies_here, found)
        if found:
            return found
    return []


def calling_statements(
    namespace: Mapping[str, Any], *, latest: bool = False
) -> dict[tuple[str, ...], list[Any]]:
    """Return the statements at the top of a module that call something, by the chain to that.

    Behind each stand those round it that decide whether and how often it runs.

    Args:
        namespace: the names of the module.
        latest: of what was typed in a notebook, take the latest cell that calls the same.
    """
    found: dict[tuple[str, ...], list[Any]] = {}
    for source in sources_of(namespace):
        (names,) = names_of(source)
        for chain, statements in names.callers.items():
            if latest and chain in found:
                continue
            conditions = conditions_among([names], statements)
            found.setdefault(chain, []).extend([*statements, *conditions])
    return found


def changing_statements(
    namespace: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield the statements at the top of a module that change something that has a name.

    Each stands in a list before what decides whether it runs, and behind the chain of names that
    leads to what it changes, as far as there are names. Of what was typed in a notebook, each call
    counts once, and the latest of the assignments to one place.
    """

    def find(names: Names) -> Iterator[tuple[bytes, tuple[tuple[str, ...], list[Any]]]]:
        for chain, statement in chained.from_iterable(names.completions.values()):
            is_call = type(statement).__name__ in ("Expr", *DEFINITIONS)
            targets = changed_by(statement)
            place = dump_statement(statement, namespace) if is_call else dump_syntax(targets)
            yield place, (chain, [statement, *names.conditions.get(id(statement), ())])

    return latest_typed(namespace, find)


def passing_statements(
    namespace: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], list[Any]]]:
    """Yield the statements at the top of a module that pass what has a name to what they call.

    Each as in :func:`changing_statements`, behind the chains that lead to the one and the other.
    """
    for source in sources_of(namespace):
        (names,) = names_of(source)
        for chain, function, statement in chained.from_iterable(names.passed.values()):
            yield chain, function, [statement, *names.conditions.get(id(statement), ())]


def names_beside(namespace: Mapping[str, Any], name: str) -> Iterator[tuple[str, ...]]:
    """Yield the chains to what the top of a module gives a name, too: in ``Q = a.P`` to ``a.P``."""
    for statement in defining_statements(namespace, name):
        given = getattr(statement, "value", None) or getattr(statement, "iter", None)
        is_loop = type(statement).__name__ in LOOPS
        for part in getattr(given, "elts", ()) if is_loop else [given]:
            if chain := chain_of(part):
                yield chain


def latest_typed(
    namespace: Mapping[str, Any], find: Callable[[Names], Iterable[tuple[bytes, T]]]
) -> Iterator[T]:
    """Yield what is found at the top of a module, of each place what was typed last.

    Args:
        namespace: the names of the module.
        find: yields it, each behind the place that it changes.
    """
    typed: set[bytes] = set()
    for source in sources_of(namespace):
        (names,) = names_of(source)
        places: set[bytes] = set()
        for place, found in find(names):
            places.add(place)
            if place not in typed:
                yield found
        typed |= places


class SettingStatement(NamedTuple):
    """A statement that may set something of what is imported.

    Attributes:
        root: the first name in it.
        module: the module from which that is imported; "" if it is bound otherwise.
        function: the name of the function that is called; "" if something is assigned.
        statements: the statement, and what decides whether it runs.
    """

    root: str
    module: str
    function: str
    statements: list[Any]


def setting_statements_of(namespace: Mapping[str, Any]) -> Iterator[SettingStatement]:
    """Yield the statements at the top of a module that may set something of what it has imported.

    Of what was typed anew in a notebook, the latest counts.
    """

    def find(names: Names) -> Iterator[tuple[bytes, SettingStatement]]:
        for found in settings_by(names, namespace):
            yield dump_syntax(changed_by(found.statements[0])), found

    return latest_typed(namespace, find)


def settings_by(names: Names, namespace: Mapping[str, Any]) -> Iterator[SettingStatement]:
    for root, called, statement in names.settings():
        conditions = names.conditions.get(id(statement), ())
        module, original = origin_in(names, namespace, root)
        name = original if called == root else called
        yield SettingStatement(root, module, name, [statement, *conditions])
        for made in made_of_others(names, namespace, root):
            module, _ = origin_in(names, namespace, made[0])
            if made[0] != root:
                yield SettingStatement(made[0], module, name, [statement, *conditions])


def origin_in(names: Names, namespace: Mapping[str, Any], root: str) -> tuple[str, str]:
    """Return from which module a name comes, "" if from none, and what it is called there.

    Args:
        names: what binds it, at the top of the module or in a function.
        namespace: the names of the module.
        root: the name.
    """
    if root in names.modules:
        return names.modules[root], root
    if root in names.imports:
        return names.imported(root, namespace)
    if root in names.assignments:
        return "", root
    return imported_as(namespace, root) or ("", root)


def made_of_others(
    names: Names, namespace: Mapping[str, Any], root: str
) -> Iterator[tuple[str, ...]]:
    """Yield the chains to what a name stands for that is bound to what another one has.

    As in ``c = mpmath.mp``, ``c = getcontext()`` and ``with localcontext() as c``.
    """
    made = names.assignments.get(root) or defining_statements(namespace, root)
    for statement in made:
        kind = type(statement).__name__
        given = [item.context_expr for item in getattr(statement, "items", ())]
        given += [statement.value] if kind in ("Assign", "AnnAssign") else []
        for part in given:
            is_call = type(part).__name__ == "Call"
            chain = chain_of(part.func if is_call else part)
            if chain and (not is_call or kind in WITH or HANDED_OUT.match(chain[-1])):
                yield chain


def settings_and_calls(
    definition: Definition, namespace: Mapping[str, Any]
) -> tuple[list[SettingStatement], list[tuple[tuple[str, ...], list[Any]]]]:
    """Return the statements of a function that may set something of what is imported, and calls.

    The latter are statements by the chain of names to what they call. Behind each stands what
    decides whether it runs.
    """
    body = definition.syntax.body
    names = Names(body if isinstance(body, list) else [])
    calls = [
        (chain, [each, *names.conditions.get(id(each), ())])
        for chain, statements in sorted(names.callers.items())
        for each in statements
    ]
    return list(settings_by(names, namespace)), calls


def conditions_among(bodies_here: list[Names], statements: list[Any]) -> list[Any]:
    """Return, once each, what decides whether and how often some statements run."""
    found = {
        id(condition): condition
        for statement in statements
        for body in bodies_here
        for condition in body.conditions.get(id(statement), ())
    }
    return list(found.values())


def dump_statements(statements: list[Any], namespace: Mapping[str, Any]) -> bytes:
    """Return the dump of statements at the top of a module."""
    return b"\n".join(dump_statement(statement, namespace) for statement in statements)


def dump_statement(statement: Any, namespace: Mapping[str, Any]) -> bytes:
    kind = type(statement).__name__
    if kind in LOOPS:
        return dump_syntax([statement.target, statement.iter])
    if kind == "ClassDef":
        return dump_syntax(
            [*expressions_of(statement, namespace), *statement.keywords, statement.name]
        )
    if kind == "match_case":
        return dump_syntax([statement.pattern, *expressions_of(statement, namespace)])
    if kind in HEADED:
        return dump_syntax(expressions_of(statement, namespace))
    if kind in WITH:
        return dump_syntax(statement.items)
    return dump_syntax(decorators_of(statement, namespace) if kind in FUNCTIONS else statement)


def expressions_of(statement: Any, namespace: Mapping[str, Any]) -> list[Any]:
    """Return what a statement makes a variable of."""
    if type(statement).__name__ in FUNCTIONS:
        return decorators_of(statement, namespace)
    if type(statement).__name__ == "ClassDef":
        words = (word.value for word in statement.keywords)
        return [*statement.decorator_list, *statement.bases, *words]
    if type(statement).__name__ in WITH:
        return [item.context_expr for item in statement.items]
    found = (
        getattr(statement, part, None) for part in ("value", "test", "iter", "subject", "guard")
    )
    return [each for each in found if each is not None]


def decorators_of(function: Any, namespace: Mapping[str, Any]) -> list[Any]:
    """Return the decorators of a function, the innermost first, up to that of this package."""
    found: list[Any] = []
    for decorator in reversed(function.decorator_list):
        root = decorator
        while type(root).__name__ in ("Call", "Attribute"):
            root = getattr(root, "func", None) or root.value
        value = namespace.get(getattr(root, "id", ""))
        module = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if str(module).partition(".")[0] == PACKAGE:
            break
        found.append(decorator)
    return found


def full_name(package: str, level: int, name: str) -> str:
    """Return the full name of the module that an import names, in a module of a package."""
    parts = package.split(".")[: 1 - level or None] if level else []
    return ".".join([*parts, *([name] if name else [])])


def package_of(namespace: Mapping[str, Any]) -> str:
    """Return the package that relative imports of a module are relative to."""
    return str(namespace.get("__package__") or "")


def imported_as(namespace: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """Return (module, name) if a name is bound at the top by ``from module import name``.

    Or by ``from module import *``, if nothing else there binds it.
    """
    for source in sources_of(namespace):
        (names,) = names_of(source)
        if name in names.assignments:
            return None
        if name in names.imports:
            return names.imported(name, namespace)
        if name in names.defined:
            return None
        for star in names.stars:
            module = full_name(package_of(namespace), *star)
            if shows(module, name):
                return module, name
    return None


def shows(module: str, name: str) -> bool:
    """Whether a name is among those that ``from module import *`` binds."""
    space = vars(sys.modules[module]) if module in sys.modules else {}
    return name in space and name in space.get("__all__", () if name[0] == "_" else (name,))


def origin_of(namespace: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any] | None, str]:
    """Return the namespace that defines a name, however often it was imported from there."""
    seen = set()
    while (found := imported_as(namespace, name)) is not None and found not in seen:
        seen.add(found)
        module = sys.modules.get(found[0])
        if module is None:
            return None, found[1]
        namespace, name = vars(module), found[1]
    return namespace, name
