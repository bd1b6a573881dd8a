"""What ``isinstance``, ``issubclass`` and ``except`` ask of a class, beside its name and bases.

And what asks for the types of its fields, which do not count otherwise.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, ForwardRef, get_type_hints

from fleche._util import annotations_of, attempt
from fleche.digest import members_of, own_module
from fleche.function._facts import Facts
from fleche.function._own import is_own_namespace, is_own_object

__all__ = ["asks_own_code", "names_asked_for", "names_read", "types_of_fields"]

ASKING = ("get_type_hints", "get_annotations")
OF_TYPES = frozenset(
    [
        "apischema",
        "cattr",
        "cattrs",
        "dacite",
        "dataclasses_json",
        "marshmallow_dataclass",
        "mashumaro",
        "msgspec",
        "omegaconf",
        "pydantic",
        "serde",
        "simple_parsing",
        "typer",
        "tyro",
    ]
)
"""Packages that make something of the types of the fields of any class."""

OF_METACLASS = ("__instancecheck__", "__subclasscheck__")
OF_NO_PROTOCOL = frozenset(["__annotations__", "__class_getitem__", "__init__", "__slots__"])
"""Members that a protocol may have, and for which no object is asked."""


def asks_own_code(cls: type) -> bool:
    """Whether code of the user's own decides what belongs to a class."""
    meta: Any = type(cls)
    hooks = [(base, name) for base in meta.__mro__ for name in OF_METACLASS]
    hooks += [(base, "__subclasshook__") for base in cls.__mro__]
    found = (vars(base).get(name) for base, name in hooks)
    functions = (getattr(each, "__func__", each) for each in found)
    return any(isinstance(f, FunctionType) and is_own_namespace(f.__globals__) for f in functions)


def names_asked_for(cls: type) -> str:
    """Return the names of the registered classes of an ABC, and of the members of a protocol."""
    found = {f"{own_module(each)}.{each.__qualname__}" for each in registered(cls)}
    if getattr(cls, "_is_protocol", False):
        own = [base for base in cls.__mro__ if is_own_object(base)]
        members = {name for base in own for name in members_of(base)[0]}
        fields = {name for base in own for name in annotations_of(base)}
        found |= (members | fields) - OF_NO_PROTOCOL
    return " ".join(sorted(found))


def registered(cls: type) -> Iterator[type]:
    """Yield the classes that were registered with an ABC, or with one that belongs to it."""
    pending, seen = [cls], {id(cls)}
    while pending:
        one: Any = pending.pop()
        if not isinstance(one, abc.ABCMeta) or not is_own_object(one):
            continue
        known: list[Any] = [ref() for ref in abc._get_dump(one)[0]]  # type: ignore[attr-defined]  # noqa: SLF001
        yield from filter(None, known)
        known += one.__subclasses__()
        for each in known:
            if each is not None and id(each) not in seen:
                seen.add(id(each))
                pending.append(each)


def names_read(facts: Facts, namespace: Mapping[str, Any]) -> list[str]:
    """Return the attributes that functions of others read for code: annotations, documentation."""
    found = ["__annotations__"] if reads_types(facts, namespace) else []
    return [*found, "__doc__"] if any(chain[-1] == "getdoc" for chain in facts.loads) else found


def reads_types(facts: Facts, namespace: Mapping[str, Any]) -> bool:
    """Whether code asks for annotations, or uses a package that makes something of them."""
    if any(each.module.partition(".")[0] in OF_TYPES for each in facts.imports):
        return True
    for root, *tail in facts.loads:
        end = tail[-1] if tail else root
        if end in ASKING or (end == "fields" and "type" in facts.attributes):
            return True
        value = namespace.get(root)
        home = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", "")
        if isinstance(home, str) and home.partition(".")[0] in OF_TYPES:
            return True
    return False


def types_of_fields(cls: type) -> dict[str, Any]:
    """Return the types of the fields of a class; text where that cannot be looked up."""
    found = annotations_of(cls)
    if any(isinstance(each, (str, ForwardRef)) for each in found.values()):
        hints = attempt(partial(get_type_hints, include_extras=True), cls, default={})
        found.update((name, hints[name]) for name in found if name in hints)
    return found
