"""What is known of one code object: what it says and what it does with names, found out once.

Code that travels to another process by value, as functions of a notebook do, has no source there.
So what is known of it travels along: :func:`pack_knowledge` in one process, :func:`take_knowledge`
in the other.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator, Mapping
from itertools import chain
from types import CodeType, FunctionType, ModuleType
from typing import Any

import msgspec
from blake3 import blake3

from fleche._util import renewed_after_fork
from fleche.digest import (
    Definition,
    bytecode_of,
    dump_syntax,
    find_definition,
    names_bound_in,
    statements_setting,
)
from fleche.function._facts import Facts
from fleche.function._names import facts_of_expression, facts_of_syntax
from fleche.function._own import is_own_namespace, is_own_object, module_name

__all__ = ["KnownCode", "code_of", "pack_knowledge", "take_knowledge"]

MANY = 50_000
MANY_SENT = 2_000


class KnownCode(msgspec.Struct, frozen=True):
    """What is known of a code object.

    Attributes:
        token: the hash of what it says.
        qualname: its qualified name where it was defined, whatever a decorator has made of it.
        owner: the innermost class that it stands in, which private names belong to.
        method_of: the qualified name of the class that it is a method of.
        facts: what it does with names.
        text: its source; "" if that is not to be had.
        beginnings: of the variables that it captures and writes, and of the attributes of these, by
            the name, the hash of the statements that give them what they begin with.
        needs_maker: whether that depends on how the function was made: on parameters of the
            functions around it, or on other names.
    """

    token: str
    qualname: str
    owner: str
    method_of: str
    facts: Facts
    text: str
    beginnings: dict[str, str] = {}
    needs_maker: bool = False


lock = renewed_after_fork(threading.RLock())
known: dict[int, tuple[CodeType, KnownCode, str]] = {}
"""By the id of the code object, which is kept beside; the module last."""

twins: dict[CodeType, KnownCode] = {}
"""By the code object as a value: what unpickling makes equals the original, and has no file."""

foreign: dict[str, KnownCode] = {}
"""What other processes have sent, by the name and the bytecode of the code."""


def code_of(function: FunctionType) -> KnownCode:
    """Return what is known of the code of a function."""
    code = function.__code__
    found = known.get(id(code))
    if found is None:
        module = module_name(function.__globals__)
        found = (code, find_out(function, code), module)
        with lock:
            if len(known) >= MANY:
                known.clear()
                twins.clear()
            known[id(code)] = found
            if found[1].text:
                twins[code] = found[1]
    return found[1]


def find_out(function: FunctionType, code: CodeType) -> KnownCode:
    definition = find_definition(code, function.__globals__)
    if definition is not None:
        return from_definition(definition, code, function.__globals__)
    if code in twins:
        return twins[code]
    if (name := name_of_foreign(code)) in foreign:
        return foreign[name]
    token = blake3(bytecode_of(code)).hexdigest()
    from fleche.function._bytecode import facts_of_bytecode

    qualname = getattr(code, "co_qualname", function.__qualname__)
    outer = qualname.rpartition(".")[0]
    method_of = "" if outer.endswith("<locals>") else outer
    owner = outer.rpartition(".")[2].strip("<>") if method_of else ""
    return KnownCode(token, qualname, owner, method_of, facts_of_bytecode(code), "")


def from_definition(
    definition: Definition, code: CodeType, namespace: Mapping[str, Any]
) -> KnownCode:
    facts = facts_of_syntax(definition.syntax, definition.owner, code.co_freevars)
    statements = {name: list(beginnings_of(definition, name)) for name in facts.captured_writes}
    attributes = {path: list(settings_of(definition, *path)) for path in facts.captured_attributes}
    return KnownCode(
        blake3(definition.dump).hexdigest(),
        definition.qualname,
        definition.owner,
        definition.method_of,
        facts,
        definition.text,
        {
            **{name: blake3(dump_syntax(found)).hexdigest() for name, found in statements.items()},
            **{
                ".".join(path): blake3(dump_syntax(found)).hexdigest()
                for path, found in attributes.items()
                if found
            },
        },
        any(not found or uses_names(found, namespace) for found in statements.values()),
    )


def beginnings_of(definition: Definition, name: str) -> Iterator[Any]:
    """Yield the statements of the functions around a definition that bind one of its names."""
    for outer in definition.enclosing():
        if isinstance(outer.syntax.body, list):  # that of a lambda is an expression
            yield from names_bound_in(outer.syntax.body).get(name, [])


def settings_of(definition: Definition, name: str, attribute: str) -> Iterator[Any]:
    """Yield the statements of the functions around a definition that set an attribute of a name."""
    for outer in definition.enclosing():
        if isinstance(outer.syntax.body, list):
            yield from statements_setting(outer.syntax.body, name, attribute)


def uses_names(statements: list[Any], namespace: Mapping[str, Any]) -> bool:
    """Whether statements use other names than those of Python and of installed packages."""
    if not all(hasattr(statement, "value") for statement in statements):
        return True
    loads = [facts_of_expression(statement.value).loads for statement in statements]
    roots = {root for root, *_ in chain.from_iterable(loads) if not hasattr(builtins, root)}
    return not all(is_installed(namespace.get(root)) for root in roots)


def is_installed(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return not is_own_namespace(vars(value))
    return callable(value) and not is_own_object(value)


def pack_knowledge(module: str) -> dict[str, KnownCode]:
    """Return what is known of the main module and of another, for :func:`take_knowledge`."""
    modules = ("__main__", module)
    with lock:
        entries = [entry for entry in list(known.values()) if entry[2] in modules and entry[1].text]
    packed: dict[str, KnownCode] = {}
    for code, found, _ in entries[-MANY_SENT:]:
        packed[name_of_foreign(code)] = found
    return packed


def name_of_foreign(code: CodeType) -> str:
    """Return what code is known by in all processes: others may do the same under another name."""
    return blake3(b"%b %b" % (code.co_name.encode(), bytecode_of(code))).hexdigest()


def take_knowledge(packed: dict[str, Any]) -> None:
    """Believe what another process knows of code that has no source here."""
    with lock:
        if len(foreign) >= MANY:
            foreign.clear()
        foreign.update(packed)
