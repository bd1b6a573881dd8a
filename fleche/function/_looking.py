"""What code looks into by names that are made at run time, as ``getattr(model, method)`` does."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from fleche.digest import own_module
from fleche.function._own import is_own_namespace, is_own_object, module_name

__all__ = [
    "ARGUMENTS",
    "LookedInto",
    "classes_among",
    "identities_of_subclasses",
    "is_of_module",
    "place_of",
    "subclasses_of",
]

ARGUMENTS = "<arguments>"
"""The place of what occurs in arguments; that of all else is the module whose code refers to it."""


class LookedInto:
    """Classes and modules of which everything counts, since any name may be looked up in them.

    Where code does not show what it looks into, that is one of the arguments, or what its module
    refers to, or, if the module of the entry calls it, what that refers to. It might be anything in
    the closure; but then one such look-up would let a large package count as a whole.

    Args:
        home: the module of the entry.

    Attributes:
        place: where code refers to something now; "" if that is no matter.
        shown: the names of classes and modules of which the code shows that it looks into them.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.place = ""
        self.shown: set[str] = set()
        self._places: dict[str, set[str]] = {}
        self._searched: set[str] = set()
        self._searchers: set[str] = set()
        self._names: set[str] | None = None

    def note(self, obj: Any) -> None:
        """Note that a function, class or module is referred to."""
        if self.place and is_own(obj):
            places = self._places.setdefault(place_of(obj), set())
            if self.place not in places:
                places.add(self.place)
                self._names = None

    def search(self, function: FunctionType) -> None:
        """Note that a function looks into something that its code does not show."""
        self._searchers.add(place_of(function))
        self._searched |= {module_name(function.__globals__), ARGUMENTS}
        self._names = None

    def places_of(self, functions: Iterable[str]) -> set[str]:
        """Return the modules that functions are in, by their names, and those that use them."""
        found = {each.partition(":")[0] for each in functions}
        return found.union(*(self._places.get(each, ()) for each in functions))

    def names(self) -> set[str]:
        """Return the names of all that may be looked into."""
        if self._names is None:
            if any(self.home in self._places.get(each, ()) for each in self._searchers):
                self._searched.add(self.home)
            met = self._places.items()
            self._names = {name for name, found in met if not found.isdisjoint(self._searched)}
        return self.shown | self._names

    def is_empty(self) -> bool:
        """Whether nothing is looked into."""
        return not (self.shown or self._searched)


def classes_among(names: set[str], classes: Iterable[type]) -> set[type]:
    """Return those of ``classes`` that have one of the names, their subclasses, and their bases."""
    found: set[type] = set()
    for cls in classes:
        if not names.isdisjoint(map(place_of, cls.__mro__)):
            found.update(cls.__mro__)
    return found


def place_of(obj: Any) -> str:
    """Return the name of a function, class or module."""
    if isinstance(obj, ModuleType):
        return module_name(vars(obj))
    return f"{own_module(obj)}:{obj.__qualname__}"


def is_own(obj: Any) -> bool:
    if isinstance(obj, type):
        return is_own_object(obj)
    if isinstance(obj, ModuleType):
        return is_own_namespace(vars(obj))
    return isinstance(obj, FunctionType) and is_own_namespace(obj.__globals__)


def is_of_module(value: Any) -> bool:
    """Whether what a module holds may be its own: not another module, nor code of an installed."""
    if isinstance(value, ModuleType):
        return False
    own = is_own(value) or is_own_object(value if isinstance(value, type) else type(value))
    return own or not callable(value)


def subclasses_of(cls: type) -> dict[str, type]:
    """Return the classes that are derived from a class, by their names.

    Of those with one name the last counts: a class that was replaced, by ``dataclass(slots=True)``
    or in a notebook, is there until the next collection of garbage.
    """
    found: list[type] = type.__subclasses__(cls)
    return {place_of(each): each for each in found}


def identities_of_subclasses(cls: type) -> str:
    """Return a text that changes with the classes that are derived from a class."""
    return " ".join(f"{name} {id(each)}" for name, each in subclasses_of(cls).items())
