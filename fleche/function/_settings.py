"""What the tops of modules set in installed packages: a precision, a seed, what a warning does.

A program says ``decimal.getcontext().prec = 50`` or ``np.random.seed(1)`` once, and all that it
computes with that package depends on it. No function shows that, but the module does. It counts as
it is written there, with the plain values of the variables that are named in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias

from blake3 import blake3

from fleche._util import attempt
from fleche.digest import (
    WITH,
    Definition,
    SettingStatement,
    calling_statements,
    digest,
    dump_statements,
    expressions_of,
    find_definition,
    interactive_sources,
    is_from_clock,
    setting_statements_of,
    settings_and_calls,
)
from fleche.function._closure import Findings
from fleche.function._definitions import reached, value_at
from fleche.function._names import facts_of_expression
from fleche.function._own import is_own_module, is_own_namespace, module_name
from fleche.function._patched import holds_own
from fleche.function._reaching import codes_within
from fleche.function._recheck import Datum
from fleche.function._tops import top_of, tops_run
from fleche.function._trees import Chain, texts_within

__all__ = ["SETTINGS_OF", "note_settings"]

Parts: TypeAlias = "dict[int, tuple[Mapping[str, Any], list[Any]]]"
"""Statements by their ``id``, each with the names that it uses and what decides whether it runs."""


SETTERS = re.compile(
    r"(manual_)?seed(_|$)|set(?!up|ting)|simplefilter|(filter|reset)warnings|(un)?register(_|$)"
    r"|(add_)?(?i:enable|disable)|init_|(use|update|config|configure)(_|$)"
)
"""How the names of functions begin that set something. All else that the top of a module calls may
be its work: it draws, and writes files."""

OF_THE_PROCESS = frozenset(["builtins", "logging", "sys"])
"""Modules of which that says where a program runs, and what it tells people. What is put into the
environment of the process is for the package whose name the variable begins with, if for any."""

MANY_SETTING = 1000
SETTINGS_OF = "settings of "
"""How the labels of what is set in a package begin."""

PLAIN = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (dict, list, tuple, set, frozenset)


class Settings(NamedTuple):
    """What a module sets in an installed package.

    Attributes:
        package: the name of the package.
        token: what stands for it.
        text: the statements.
        places: the variables whose values count in it: the names of their modules, and the chains.
    """

    package: str
    token: str
    text: str
    places: list[tuple[Mapping[str, Any], Chain]]


def note_settings(
    found: Findings,
    packages: set[str],
    namespaces: Collection[Mapping[str, Any]],
    define: Callable[[], str],
) -> None:
    """Let count what modules set in installed packages, and what is typed beside them.

    Args:
        found: where what counts is noted.
        packages: the installed packages that the code uses.
        namespaces: the names of the modules of the code; those that these import count, too.
        define: returns what says how the variables are made that count as they are defined.
    """
    is_typed = interactive_sources() and "__main__" in map(module_name, namespaces)
    if not packages and not is_typed:
        return
    called = CalledSettings(packages)
    for space in tops_run(namespaces):
        module = module_name(space)
        found.checks.execution(space)
        for package, token, text, places in settings_in(space, called):
            label = found.label(module, f"{SETTINGS_OF}{package}")
            found.put(label, "state", token, text)
            if places:
                found.checks.data.append(Datum(label, places, values_at(places), values_at))
        if module == "__main__" and interactive_sources():
            typed = Typed(space, packages, define)
            found.checks.data.append(Datum("typed", space, typed.token(), typed.token))


def settings_in(namespace: Mapping[str, Any], called: CalledSettings) -> Iterator[Settings]:
    """Yield what the top of a module sets in some installed packages, and what it calls for that.

    Args:
        namespace: the names of the module.
        called: what own functions set.
    """
    found: dict[str, Parts] = {}
    packages = called.packages
    if any(may_set(namespace, *change, called) for change in top_of(namespace).changes):
        take(found, parts_at(namespace, setting_statements_of(namespace), packages))
        for chain, statements in sorted(calling_statements(namespace, latest=True).items()):
            take(found, called.by(namespace, chain, statements))
    for package, parts in sorted(found.items()):
        import ast

        hasher = blake3()
        places = []
        for space, statements in parts.values():
            hasher.update(dump_statements(statements, space))
            places += [(space, chain) for chain in chains_in(statements, space)]
        hasher.update(values_at(places).encode())
        text = "\n".join(ast.unparse(statements[0]) for _, statements in parts.values())
        known = [place for place in places if plain_value(*place)]
        yield Settings(package, hasher.hexdigest(), text, known)


def take(found: dict[str, Parts], more: Iterable[tuple[str, Parts]]) -> None:
    """Add statements by package, each once."""
    for package, parts in more:
        found.setdefault(package, {}).update(parts)


def may_set(namespace: Mapping[str, Any], root: str, last: str, called: CalledSettings) -> bool:
    """Whether the top of a module may set something of packages, as far as its text shows.

    Args:
        namespace: the names of the module.
        root: the first name in a statement.
        last: the last name of what the statement calls; "" if it sets something.
        called: what own functions set.
    """
    packages = called.wanted
    value = namespace.get(root)
    kind = type(value)
    if issubclass(kind, ModuleType) and not is_own_namespace(vars(value)):
        return package_of(namespace, root, "") in packages and sets(last)
    is_module = issubclass(kind, ModuleType)
    function = function_at(namespace, (root, last) if is_module else (root,))
    if function is not None or is_module:
        return function is not None and called.leads_there(function)
    is_set = sets(last) or (last == root and not issubclass(kind, type))
    if is_set and root in namespace and package_named(namespace, root) in packages:
        return True
    return is_set and is_imported_from(packages, namespace, root)


def is_imported_from(packages: set[str], namespace: Mapping[str, Any], root: str) -> bool:
    """Whether the top of a module may import a name from one of some packages."""
    return any(
        not level and name.partition(".")[0] in packages and name.rpartition(".")[2] in (root, "*")
        for level, name in top_of(namespace).imports
    )


def may_set_itself(function: FunctionType, packages: set[str]) -> bool:
    """Whether the body of a function may set something of packages, as its names show."""
    codes, names = list(codes_within(function.__code__)), names_in(function)
    namespace = function.__globals__
    leads_there = any(package_named(namespace, each) in packages for each in names)
    leads_there |= any(is_imported_from(packages, namespace, each) for each in names)
    return leads_there and (any(map(SETTERS.match, names)) or any(map(stores, codes)))


def functions_named(function: FunctionType) -> Iterator[FunctionType]:
    """Yield the own functions that names in a function may lead to."""
    namespace, names = function.__globals__, names_in(function)
    roots = {name for name in names if issubclass(type(namespace.get(name)), ModuleType)}
    chains = [*product(names), *product(roots, names)]
    yield from filter(None, (function_at(namespace, chain) for chain in chains))


def names_in(function: FunctionType) -> set[str]:
    return {name for code in codes_within(function.__code__) for name in code.co_names}


def package_named(namespace: Mapping[str, Any], name: str) -> str:
    """Return the package that a name may lead into; that of an import in a body is the name."""
    value = namespace.get(name)
    kind = type(value)
    if issubclass(kind, ModuleType):
        return module_name(vars(value)).partition(".")[0]
    named = value if issubclass(kind, (FunctionType, BuiltinFunctionType, type)) else kind
    return str(named.__module__).partition(".")[0] if name in namespace else name


def stores(code: CodeType) -> bool:
    """Whether code sets an attribute or an item, or has a ``with`` statement."""
    from opcode import opmap

    entering = ("SETUP_WITH", "BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL")
    wanted = {opmap.get(name) for name in ("STORE_ATTR", "STORE_SUBSCR", *entering)}
    return not wanted.isdisjoint(code.co_code[::2])


def sets(called: str) -> bool:
    """Whether a statement sets something, as the name says of what it calls; "" if it assigns."""
    return not called or SETTERS.match(called) is not None


def parts_at(
    namespace: Mapping[str, Any], settings: Iterable[SettingStatement], packages: set[str]
) -> Iterator[tuple[str, Parts]]:
    """Yield, each with its package, those of some statements that set something of packages."""
    for root, module, name, statements in settings:
        package = package_of(namespace, root, module)
        package = package if package != "os" else package_of_variable(statements[0])
        is_code = not name and puts_own_code(statements[0], namespace)
        is_set = sets(name) or type(statements[0]).__name__ in WITH
        if package in packages and is_set and not is_code:
            yield package, {id(statements[0]): (namespace, statements)}


class CalledSettings:
    """What the functions of the user's own set that the top of a module calls.

    Args:
        packages: the packages that matter.
    """

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages
        self.wanted = packages | {"os"}
        self._known: dict[int, dict[str, Parts]] = {}
        self._leads: dict[int, bool] = {}
        self._sets: dict[int, bool] = {}
        self._named: dict[int, list[FunctionType]] = {}

    def leads_there(self, function: FunctionType) -> bool:
        """Whether a function may set something, or one that it calls, as their names show."""
        found = self._leads.get(id(function))
        if found is None:
            found = any(map(self.may_set_itself, reached(function, self.functions_named)))
            self._leads[id(function)] = found
        return found

    def functions_named(self, function: FunctionType) -> list[FunctionType]:
        """Return the own functions that names in a function may lead to."""
        if id(function) not in self._named:
            self._named[id(function)] = list(functions_named(function))
        return self._named[id(function)]

    def may_set_itself(self, function: FunctionType) -> bool:
        """Whether the body of a function may set something, as its names show."""
        if id(function) not in self._sets:
            self._sets[id(function)] = may_set_itself(function, self.wanted)
        return self._sets[id(function)]

    def by(
        self, namespace: Mapping[str, Any], chain: Chain, statements: list[Any]
    ) -> Iterator[tuple[str, Parts]]:
        """Yield by package what a call sets, with the call itself."""
        function = function_at(namespace, chain)
        if function is None or not self.leads_there(function):
            return
        for package, parts in self.of(function).items():
            yield package, {id(statements[0]): (namespace, statements), **parts}

    def of(self, function: FunctionType) -> dict[str, Parts]:
        """Return by package what a function sets, and those that it calls."""
        found = self._known.get(id(function))
        if found is None:
            found = self._known[id(function)] = {}
            namespace = function.__globals__
            definition = find_definition(function.__code__, namespace)
            if definition is None or len(self._known) > MANY_SETTING:
                return found
            settings, calls = settings_and_calls(definition, namespace)
            take(found, parts_at(namespace, settings, self.packages))
            for chain, statements in calls:
                take(found, list(self.by(namespace, chain, statements)))
            defaults = defaults_in(definition)
            for parts in found.values() if defaults else ():
                parts[id(definition.syntax.args)] = namespace, defaults
        return found


def defaults_in(definition: Definition) -> list[Any]:
    """Return the defaults of the parameters of a function, as statements."""
    import ast

    args = definition.syntax.args
    return [ast.Expr(each) for each in (*args.defaults, *args.kw_defaults) if each is not None]


def function_at(namespace: Mapping[str, Any], chain: Chain) -> FunctionType | None:
    """Return the function of the user's own that a chain of names leads to, or None."""
    found = value_at(namespace, chain)
    is_own = type(found) is FunctionType and is_own_namespace(found.__globals__)
    return found if is_own else None


def chains_in(statements: list[Any], namespace: Mapping[str, Any]) -> list[Chain]:
    """Return the chains of names that statements load."""
    expressions = [part for each in statements for part in expressions_of(each, namespace)]
    return [chain for each in expressions for chain in sorted(facts_of_expression(each).loads)]


def puts_own_code(statement: Any, namespace: Mapping[str, Any]) -> bool:
    """Whether an assignment puts code of the user's own there, which counts as what is there."""
    for expression in expressions_of(statement, namespace):
        loads = facts_of_expression(expression).loads
        if type(expression).__name__ == "Lambda" or any(
            holds_own(namespace.get(root)) for root, *_ in loads
        ):
            return True
    return False


class Typed:
    """What was typed so far sets and defines, as a text; looked at anew when more has been typed.

    Args:
        namespace: the names of the main module.
        packages: the installed packages that matter.
        define: returns what says how the variables are made that count as they are defined.
    """

    def __init__(
        self, namespace: Mapping[str, Any], packages: set[str], define: Callable[[], str]
    ) -> None:
        self._namespace = namespace
        self._packages = packages
        self._define = define
        self._sources: object = None
        self._found = ""

    def token(self, _value: object = None) -> str:
        """Return what stands for it; "" if nothing was typed."""
        sources = interactive_sources()
        if sources and sources is not self._sources:
            self._sources = sources
            found = settings_in(self._namespace, CalledSettings(self._packages))
            self._found = " ".join([*(each.token for each in found), self._define()])
        return self._found


def package_of(namespace: Mapping[str, Any], name: str, module: str) -> str:
    """Return the installed package that a name leads into; "" if it is none.

    Args:
        namespace: where the name is bound.
        name: the name.
        module: that from which it is imported; "" if it is one itself.
    """
    value = namespace.get(name)
    if issubclass(type(value), ModuleType):
        module = "" if is_own_namespace(vars(value)) else module_name(vars(value))
    elif not module or is_own_module(module):
        return ""
    top = module.partition(".")[0]
    return "" if top in OF_THE_PROCESS else top


def package_of_variable(statement: Any) -> str:
    """Return what the name of a variable of the environment begins with that a statement sets."""
    call = getattr(statement, "value", None)
    named = [*getattr(statement, "targets", ()), *getattr(call, "args", ())[:1]]
    names = [name for item in named for name in texts_within(item)]
    names += [word.arg or "" for word in getattr(call, "keywords", ())]
    return next((name.partition("_")[0].lower() for name in names), "")


def values_at(places: Iterable[tuple[Mapping[str, Any], Chain]]) -> str:
    """Return what stands for the values of variables, as far as they are plain."""
    return " ".join(plain_value(*place) for place in places)


def plain_value(namespace: Mapping[str, Any], chain: Chain) -> str:
    """Return what stands for the value that a chain of names leads to; "" of all but plain data."""
    name, *tail = chain
    if name == "__name__" or name not in namespace or is_from_clock(namespace, name):
        return ""
    value = namespace[name]
    for step in tail:
        value = attempt(getattr, value, step, default=None)
    if type(value) in PLAIN:
        return repr(value)
    return str(attempt(digest, value, default="")) if type(value) in CONTAINERS else ""
