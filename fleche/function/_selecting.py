"""What ``isinstance``, ``issubclass`` and ``except`` ask of a class, beside its name and bases."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from fleche._util import annotations_of
from fleche.digest import members_of, own_module
from fleche.function._own import is_own_namespace, is_own_object

__all__ = ["asks_own_code", "names_asked_for"]

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
