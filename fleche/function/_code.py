"""What is known of one code object: what it says and what it does with names, found out once.

Code that travels to another process by value, as functions of a notebook do, has no source there.
So what is known of it travels along: :func:`pack_knowledge` in one process, :func:`take_knowledge`
in the other.
"""

from __future__ import annotations

import threading
from types import CodeType, FunctionType
from typing import Any

import msgspec
from blake3 import blake3

from fleche._util import renewed_after_fork
from fleche.digest import Definition, bytecode_of, find_definition
from fleche.function._names import Facts, facts_of_bytecode, facts_of_syntax
from fleche.function._own import module_name

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
    """

    token: str
    qualname: str
    owner: str
    method_of: str
    facts: Facts
    text: str


lock = renewed_after_fork(threading.RLock())
known: dict[int, tuple[CodeType, KnownCode, str]] = {}
"""By the id of the code object, which is kept beside; the module last."""

twins: dict[CodeType, KnownCode] = {}
"""By the code object as a value: what unpickling makes equals the original, and has no file."""

foreign: dict[str, KnownCode] = {}
"""What other processes have sent, by the hash of the bytecode."""


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
        return from_definition(definition, code)
    if code in twins:
        return twins[code]
    bytecode = bytecode_of(code)
    token = blake3(bytecode).hexdigest()
    if token in foreign:
        return foreign[token]
    qualname = getattr(code, "co_qualname", function.__qualname__)
    outer = qualname.rpartition(".")[0]
    method_of = "" if outer.endswith("<locals>") else outer
    owner = outer.rpartition(".")[2].strip("<>") if method_of else ""
    return KnownCode(token, qualname, owner, method_of, facts_of_bytecode(code), "")


def from_definition(definition: Definition, code: CodeType) -> KnownCode:
    return KnownCode(
        blake3(definition.dump).hexdigest(),
        definition.qualname,
        definition.owner,
        definition.method_of,
        facts_of_syntax(definition.syntax, definition.owner, code.co_freevars),
        definition.text,
    )


def pack_knowledge(module: str) -> dict[str, KnownCode]:
    """Return what is known of the main module and of another, for :func:`take_knowledge`."""
    modules = ("__main__", module)
    with lock:
        entries = [entry for entry in list(known.values()) if entry[2] in modules and entry[1].text]
    packed: dict[str, KnownCode] = {}
    for code, found, _ in entries[-MANY_SENT:]:
        packed[blake3(bytecode_of(code)).hexdigest()] = found
    return packed


def take_knowledge(packed: dict[str, Any]) -> None:
    """Believe what another process knows of code that has no source here."""
    with lock:
        if len(foreign) >= MANY:
            foreign.clear()
        foreign.update(packed)
