"""Which members of the user's own classes count: those that some code may ask for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from fleche.function._looking import classes_among
from fleche.function._own import is_made_in_c, is_own_object
from fleche.function._reaching import Calls, reaches

__all__ = ["Members"]


class Members:
    """The members of the classes that were met, and which of them count.

    Args:
        follow: is called with class, label, name and value of each that comes to count later than
            :meth:`add`.

    Attributes:
        used: names that occur as attributes.
        classes: the classes with their labels and members.
        taken: the labels of what counts already.
    """

    def __init__(self, follow: Callable[[type, str, str, Any], None]) -> None:
        self.used: set[str] = set()
        self.classes: list[tuple[type, str, dict[str, Any]]] = []
        self.taken: set[str] = set()
        self._follow = follow
        self._waiting: dict[str, list[tuple[type, str, Any]]] = {}
        self._prefixes: set[str] = set()
        self._sets_any = False
        self._calls = Calls()

    def add(self, cls: type, label: str, members: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield names and values of those members of a class that count; the others wait."""
        self.classes.append((cls, label, members))
        for name, value in sorted(members.items()):
            if self.takes(cls, name, value):
                yield name, value
            else:
                self._waiting.setdefault(name, []).append((cls, label, value))

    def use(self, name: str) -> None:
        """Let the members count that have this name."""
        self.used.add(name)
        for cls, label, value in self._waiting.pop(name, ()):
            self._follow(cls, label, name, value)

    def use_any(self, prefixes: set[str], *, sets: bool) -> None:
        """Let the members count that have names made at run time.

        Args:
            prefixes: with what names begin of which attributes are looked up.
            sets: whether attributes of any name are set.
        """
        if prefixes <= self._prefixes and sets <= self._sets_any:
            return
        self._prefixes |= prefixes
        self._sets_any |= sets
        for cls, label, members in self.classes:
            for name, value in members.items():
                if self.takes(cls, name, value):
                    self._follow(cls, label, name, value)

    def use_called_in(self, modules: Set[str]) -> None:
        """Let the members count that installed modules may call of what they are given."""
        called = self._calls.names(modules) if self._waiting else set()
        for name in sorted(called & self._waiting.keys()):
            for cls, label, value in self._waiting.pop(name):
                self._follow(cls, label, name, value)

    def take_all(self, names: set[str]) -> None:
        """Let all members count of the classes that have one of these names."""
        whole = classes_among(names, [cls for cls, _, _ in self.classes])
        for cls, label, members in self.classes:
            for name, value in members.items() if cls in whole else ():
                if name != "__annotations__" and f"{label}.{name}" not in self.taken:
                    self._follow(cls, label, name, value)

    def takes(self, cls: Any, name: str, value: Any) -> bool:
        """Whether a member counts."""
        if name in self.used or name == "__annotations__":  # if it is used, these count
            return name in self.used
        if name.startswith("__") and name.endswith("__"):
            return True
        if name in ("_fields", "_field_defaults") and issubclass(cls, tuple):
            return True
        if any(name.startswith(prefix) for prefix in self._prefixes):
            return True
        if self._sets_any and is_set_by_code(value):
            return True
        if type(cls) is not type and is_made_in_c(type(cls)):
            return True  # a metaclass without a source reads any of them
        return any(reaches(base, name) for base in cls.__mro__[1:-1] if not is_own_object(base))


def is_set_by_code(member: Any) -> bool:
    """Whether code runs where an attribute is set or deleted that a class has as this member."""
    if isinstance(member, property):
        return not (member.fset is None and member.fdel is None)
    if isinstance(member, (MemberDescriptorType, GetSetDescriptorType)):
        return False
    return hasattr(type(member), "__set__") or hasattr(type(member), "__delete__")
