"""What the tops of modules set in installed packages: a precision, a seed, what a warning does.

A program says ``decimal.getcontext().prec = 50`` or ``np.random.seed(1)`` once, and all that it
computes with that package depends on it. No function shows that, but the module does. It counts as
it is written there, with the plain values of the variables that are named in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from blake3 import blake3

from fleche._util import attempt
from fleche.digest import (
    dump_statements,
    expressions_of,
    interactive_sources,
    is_from_clock,
    setting_statements_of,
)
from fleche.function._names import facts_of_expression
from fleche.function._own import is_own_module, is_own_namespace, module_name
from fleche.function._patched import holds_own
from fleche.function._trees import Chain

__all__ = ["SETTINGS_OF", "Settings", "Typed", "modules_round", "settings_in"]

SETTERS = re.compile(
    r"(manual_)?seed(_|$)|set(?!up|ting)|simplefilter|(filter|reset)warnings|(un)?register(_|$)"
    r"|(add_)?(?i:enable|disable)|init_|(use|update|config|configure)(_|$)"
)
"""How the names of functions begin that set something. All else that the top of a module calls may
be its work: it draws, and writes files."""

OF_THE_PROCESS = frozenset(["builtins", "logging", "os", "sys"])
"""Modules of which that says where a program runs, and what it tells people."""

SETTINGS_OF = "settings of "
"""How the labels of what is set in a package begin."""

PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Settings(NamedTuple):
    """What a module sets in an installed package.

    Attributes:
        package: the name of the package.
        token: what stands for it.
        text: the statements.
    """

    package: str
    token: str
    text: str


def modules_round(home: str, spaces: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the namespaces of own modules whose tops have run before some code does.

    Args:
        home: the module of the function; what it imports is among them.
        spaces: the namespaces of the code.
    """
    entry = sys.modules.get(home)
    found = [*spaces, *([vars(entry)] if entry else ())]
    names = {str(space.get("__package__") or "") for space in found}
    names |= {name.rpartition(".")[0] for name in names}
    # what stands for another object, which `__class__` makes or looks for, is not asked
    modules = [sys.modules[name] for name in sorted(names & sys.modules.keys())]
    modules += list(vars(entry).values()) if entry else []
    found += [vars(each) for each in modules if issubclass(type(each), ModuleType)]
    seen: set[int] = set()
    for space in found:
        if id(space) not in seen and is_own_namespace(space):
            seen.add(id(space))
            yield space


def settings_in(namespace: Mapping[str, Any], packages: set[str]) -> Iterator[Settings]:
    """Yield what the top of a module sets in some installed packages."""
    found: dict[str, list[list[Any]]] = {}
    for root, name, statements in setting_statements_of(namespace):
        package = package_of(namespace, *root)
        if package not in packages or (name and not SETTERS.match(name)):
            continue
        if name or not puts_own_code(statements[0], namespace):
            found.setdefault(package, []).append(statements)
    for package, groups in sorted(found.items()):
        import ast

        parts = [part for statements in groups for part in statements]
        hasher = blake3(dump_statements(parts, namespace))
        for expression in (each for part in parts for each in expressions_of(part, namespace)):
            for chain in sorted(facts_of_expression(expression).loads):
                hasher.update(repr(plain_value(namespace, chain)).encode())
        text = "\n".join(ast.unparse(statements[0]) for statements in groups)
        yield Settings(package, hasher.hexdigest(), text)


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
    """What was typed so far sets, as a text; looked at anew when more has been typed.

    Args:
        namespace: the names of the main module.
        packages: the installed packages that matter.
    """

    def __init__(self, namespace: Mapping[str, Any], packages: set[str]) -> None:
        self._namespace = namespace
        self._packages = packages
        self._sources: object = None
        self._found = ""

    def token(self, _value: object = None) -> str:
        """Return what stands for it; "" if nothing was typed."""
        sources = interactive_sources()
        if sources and sources is not self._sources:
            self._sources = sources
            found = settings_in(self._namespace, self._packages)
            self._found = " ".join(each.token for each in found)
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


def plain_value(namespace: Mapping[str, Any], chain: Chain) -> object:
    """Return the value that a chain of names leads to if it is plain; "" of all else."""
    name, *tail = chain
    if name == "__name__" or name not in namespace or is_from_clock(namespace, name):
        return ""
    value = namespace[name]
    for step in tail:
        value = attempt(getattr, value, step, default=None)
    return value if type(value) in PLAIN else ""
