"""What an instance holds: its attributes, and its content seen as that of a known base class."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from fleche.errors import Indigestible

from ._builtin import Attributes
from ._registry import Node, is_genuine, module_of, node

__all__ = ["attributes_of", "derived", "find_content", "key_of_zone"]

Content = Callable[[Any, Any], Any]
Slot = tuple[type, str, types.MemberDescriptorType]

MANY_TYPES = 20_000


def attributes_of(obj: object, beyond: type = object) -> dict[str, Any]:
    """Return what is in the ``__dict__`` and the slots of an object; unset slots are left out.

    So are the slots of ``beyond`` and its bases: what they hold is the content of that class.
    """
    found = dict(getattr(obj, "__dict__", {}))
    for base, name, slot in slots_of(type(obj)):
        if base not in beyond.__mro__:
            try:
                found[name] = slot.__get__(obj)
            except AttributeError:
                continue
    return found


known: dict[int, tuple[type, tuple[Slot, ...]]] = {}


def slots_of(cls: type) -> tuple[Slot, ...]:
    """Return the slots of a class and its bases, which are looked for once.

    Classes are remembered by identity: a metaclass may hold two of them for equal.
    """
    found = known.get(id(cls))
    if found is None:
        found = (cls, tuple(find_slots(cls)))
        if len(known) >= MANY_TYPES:
            known.clear()
        known[id(cls)] = found
    return found[1]


def find_slots(cls: type) -> Iterator[Slot]:
    for base in cls.__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, types.MemberDescriptorType) and slot.__objclass__ is base:
                yield base, name, slot


def derived(obj: Any, base: type, content: Any) -> Node:
    """Describe an object by its class, its content as one of ``base``, and what it has beyond."""
    return node(b"derived", (type(obj), content, Attributes(attributes_of(obj, beyond=base))))


def key_of_zone(obj: Any) -> str:
    """Return the name of a ZoneInfo, under which every system has the zone.

    Raises:
        Indigestible: if it was read from a file, which may hold any zone under any name.
    """
    from pickle import PicklingError

    try:
        obj.__reduce__()
    except PicklingError as error:
        raise Indigestible("a ZoneInfo that was read from a file has no digest") from error
    return str(obj.key)


def path_of(base: Any, obj: Any) -> Any:
    return base(base.__str__(obj))


CONTENTS: dict[tuple[str, str], Content] = {
    ("collections", "OrderedDict"): lambda base, obj: base(base.items(obj)),
    ("collections", "defaultdict"): lambda base, obj: base(obj.default_factory, base.items(obj)),
    ("collections", "deque"): lambda base, obj: base(base.__iter__(obj), obj.maxlen),
    ("fractions", "Fraction"): lambda base, obj: base(
        base.numerator.__get__(obj), base.denominator.__get__(obj)
    ),
    ("zoneinfo", "ZoneInfo"): lambda _, obj: key_of_zone(obj),
    ("builtins", "list"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "tuple"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "dict"): lambda base, obj: base(base.items(obj)),
    ("builtins", "set"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "frozenset"): lambda base, obj: base(base.__iter__(obj)),
    ("builtins", "str"): lambda base, obj: base.__str__(obj),
    ("builtins", "bytes"): lambda _, obj: bytes(memoryview(obj)),
    ("builtins", "bytearray"): lambda _, obj: bytearray(memoryview(obj)),
    ("builtins", "int"): lambda base, obj: base.__int__(obj),
    ("builtins", "float"): lambda base, obj: base.__float__(obj),
    ("builtins", "complex"): lambda base, obj: base.__pos__(obj),
    **{
        (module, name): path_of
        for module in ("pathlib", "pathlib._local")
        for name in (
            *("PurePosixPath", "PureWindowsPath", "PurePath"),
            *("PosixPath", "WindowsPath", "Path"),
        )
    },
}
"""How to see an object of a subclass as one of its base, whatever the subclass overrides.

These are the types whose own reducers cannot serve: they iterate over the object by methods that a
subclass may override, or what they return depends on the version of Python.
"""


def find_content(base: type) -> Content | None:
    """Return how to see an object of a subclass as one of ``base``, if that is known."""
    content = CONTENTS.get((module_of(base), base.__qualname__))
    return content if content is not None and is_genuine(base) else None
