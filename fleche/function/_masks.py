"""Variables that code writes in part: what it writes does not count, and the rest does.

Code may note something in ``CONFIG["seen"]``, or in ``args.seen``, and read other items of the same
dict, or other options, which the program has set. So each part that is written is left out by
itself, as long as the code shows which it is. Where something is counted (``CALLS["f"] += 1``), so
is what other functions of the module count: they are likely to have parts of their own.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from types import GetSetDescriptorType, MemberDescriptorType, SimpleNamespace
from typing import Any

from fleche.function._kinds import member_of
from fleche.function._libraries import is_native
from fleche.function._own import is_own_object
from fleche.function._trees import Chain, step_to

__all__ = ["Masks", "can_mask", "is_namespace", "step_of"]

BY_ITEMS = (dict, list, OrderedDict, defaultdict, Counter)


class Masks:
    """Parts of objects that do not count.

    Args:
        parts: chains of steps to these parts, by the id of the object.
    """

    def __init__(self, parts: Mapping[int, set[Chain]] | None = None) -> None:
        self._parts = {place: chains for place, chains in (parts or {}).items() if chains}

    def __contains__(self, value: object) -> bool:
        return id(value) in self._parts

    def move(self, value: Any, attributes: Any) -> None:
        """Let the parts of an object not count where all its attributes are looked at as a dict."""
        found = {(step_to(first), *rest) for first, *rest in self._parts.get(id(value), ())}
        if found:
            self._parts[id(attributes)] = found

    def without(self, value: Any, items: Iterable[tuple[str, Any, Any]]) -> list[tuple[Any, Any]]:
        """Return keys and parts of an object, without those that do not count.

        Args:
            value: the object.
            items: the step that leads to a part, its key, and the part.
        """
        found: list[tuple[Any, Any]] = []
        chains = self._parts.get(id(value), ())
        for step, key, part in items:
            inner = {tuple(rest) for first, *rest in chains if first == step}
            if inner and not can_mask(part, inner):
                continue
            if inner:
                self._parts[id(part)] = inner
            found.append((key, part))
        return found


def can_mask(value: Any, parts: set[Chain]) -> bool:
    """Whether an object can be looked at without parts of it: only items, or only attributes."""
    if () in parts:
        return False
    kind: Any = type(value)
    firsts = {first for first, *_ in parts}
    items = {first for first in firsts if first.startswith("[")}
    if items:
        return items == firsts and kind in BY_ITEMS
    if not firsts or is_namespace(kind) or is_native(kind):
        return True
    if not is_own_object(kind) or isinstance(value, type) or hasattr(kind, "__digest__"):
        return False
    return kind.__setattr__ is object.__setattr__ and not any(is_set(kind, n) for n in firsts)


def is_set(kind: type, name: str) -> bool:
    """Whether a class has code that decides where an attribute of its objects is kept."""
    member = member_of(kind, name)
    if isinstance(member, (MemberDescriptorType, GetSetDescriptorType)):
        return False
    return hasattr(type(member), "__set__")


def is_namespace(kind: type) -> bool:
    """Whether all that objects of a class of Python itself hold is in attributes."""
    is_of_argparse = kind.__module__ == "argparse" and kind.__qualname__ == "Namespace"
    return kind is SimpleNamespace or is_of_argparse


def step_of(key: object) -> str:
    """Return the step to an item that has a key; "" if no chain leads there."""
    return step_to(key) if type(key) in (str, int) else ""
