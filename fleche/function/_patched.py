"""The user's own code in installed places: in a module, or as a method or accessor of a class."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from fleche.digest import HEAP
from fleche.function._kinds import is_callable_code
from fleche.function._own import is_own_namespace, is_own_object
from fleche.function._signature import Transparent
from fleche.function._values import Values, token_of_installed

__all__ = ["Place", "holds_own", "installed_places", "own_members", "own_parts"]

IMMUTABLE = 1 << 8
"""The flag of a class in which nothing can be put."""


class Place:
    """Installed classes that Python code may add to, by the names of their members.

    Attributes:
        foreign: members in which there was nothing of the user's own, by class and name.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        every = {id(base): base for cls in classes for base in cls.__mro__ if is_open(base)}
        self.classes = list(every.values())
        self.size = self.members()
        self.by_name: dict[str, list[type]] = {}
        self.foreign: dict[tuple[int, str], Any] = {}
        for cls in self.classes:
            for name in vars(cls):
                self.by_name.setdefault(name, []).append(cls)

    def members(self) -> int:
        """Return how many members the classes have now."""
        return sum(map(len, map(vars, self.classes)))

    def members_called(self, names: Collection[str]) -> Iterator[tuple[type, str, Any]]:
        """Yield each class, name and member that has one of the names, and may be one's own."""
        for name in sorted(self.by_name.keys() & names):
            for cls in self.by_name[name]:
                member = vars(cls).get(name)
                if self.foreign.get((id(cls), name), self) is not member:
                    yield cls, name, member


known: dict[int, tuple[ModuleType, int, Place]] = {}
"""The classes in installed modules by the id of the module; how many names it had."""


class Probe:
    """Sees whether there is own code in what a value is made of."""

    def __init__(self) -> None:
        self.found = False
        self.values = Values(self.refer)
        self.seen: set[int] = set()

    def refer(self, obj: Any) -> str:
        if isinstance(obj, FunctionType):
            self.found |= is_own_namespace(obj.__globals__)
            wraps = obj.__closure__ or obj.__dict__
            if wraps and not self.found and id(obj) not in self.seen:
                self.seen.add(id(obj))
                return token_of_installed(obj, self.values)
        elif isinstance(obj, type):
            self.found |= is_own_object(obj)
        return ""


def holds_own(value: Any) -> bool:
    """Whether something is code of the user's own, is made of such code, or does what it says."""
    if isinstance(value, Transparent):
        return True
    probe = Probe()
    if isinstance(value, FunctionType):
        probe.refer(value)
    elif is_callable_code(value) or is_own_object(type(value)):
        probe.values.token(value)
    return probe.found


def installed_places(namespace: Mapping[str, Any]) -> Iterator[Place]:
    """Yield the installed classes that a namespace shows, by themselves or in their modules."""
    # what stands for another object, which `__class__` makes or looks for, is not asked
    values = [value for value in namespace.values() if issubclass(type(value), (ModuleType, type))]
    for value in values:
        if isinstance(value, ModuleType) and not is_own_namespace(vars(value)):
            yield place_of(value)
    yield Place(value for value in values if isinstance(value, type) and not is_own_object(value))


def place_of(module: ModuleType) -> Place:
    size = len(vars(module))
    found = known.get(id(module))
    if found is None or found[1] != size or found[2].size != found[2].members():
        place = Place(value for value in list(vars(module).values()) if isinstance(value, type))
        found = known[id(module)] = (module, size, place)
    return found[2]


def is_open(cls: type) -> bool:
    return bool(cls.__flags__ & HEAP) and not cls.__flags__ & IMMUTABLE and not is_own_object(cls)


def own_parts(member: Any) -> dict[str, Any]:
    """Return what is the user's own of a member of an installed class, by its path from there.

    What the package has written as text and executed has no module, and says nothing new.
    """
    if holds_own(member):
        found = {"": member}
    elif isinstance(member, (FunctionType, type)):
        return {}
    else:  # of an accessor
        parts = getattr(member, "__dict__", {})
        found = {f".{name}": part for name, part in sorted(parts.items()) if holds_own(part)}
    return {path: part for path, part in found.items() if not is_of_text(part)}


def is_of_text(part: Any) -> bool:
    function = getattr(part, "__func__", part)  # a named tuple says that it is from a module
    return isinstance(function, FunctionType) and (
        function.__globals__.get("__name__") not in sys.modules
    )


def own_members(cls: type) -> Iterator[tuple[str, Any, str, Any]]:
    """Yield the name, the member, and the path and the part that is the user's own, of a class."""
    for name, member in sorted(vars(cls).items()):
        for path, part in own_parts(member).items():
            yield name, member, path, part
