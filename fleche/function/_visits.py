"""Where a walk over objects has been: each of them is described once, however often it is met.

Objects may lead to each other by many ways, and in circles: atoms that know their neighbours,
units that know their registry. What is within itself a whole has a description of its own, which
stands wherever it is met again. Part of a circle is named by a number, relative to the place where
it is met, so that the description of what holds all of the circle does not depend on what is round
it. What lies very deep waits until the rest is described, since each level takes room on the stack.
"""

from __future__ import annotations

from collections.abc import Collection
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from fleche._util import attempt
from fleche.digest import attributes_of, captured_by, defaults_of, digest

__all__ = ["Visits", "in_order"]

DEEPEST = 60
MANY = 200
"""So many members of a set are told apart by all that they hold; more, by their plain parts."""

NEVER = 1 << 62
DEPTH = 3
ORDERED: Any = (list, tuple, dict)
ATOMS = (type(None), bool, int, float, complex, bytes, str)


class Entered(NamedTuple):
    """What a walk goes back to when it leaves an object."""

    place: int
    depth: int
    numbered: int
    outermost: int
    earliest: int


class Visits:
    """Objects that a walk is in, or was in.

    Attributes:
        is_begun: whether a walk is under way.
    """

    def __init__(self) -> None:
        self.is_begun = False
        self.forget()

    def forget(self) -> None:
        """Forget all objects: the next walk begins."""
        self._active: dict[int, int] = {}
        self._whole: dict[int, tuple[Any, str]] = {}
        self._parts: dict[int, tuple[Any, int]] = {}
        self._deep: dict[int, tuple[Any, int]] = {}
        self._waiting: list[Any] = []
        # the outermost of the objects round it, and the earliest of those before it, that what is
        # described at the moment refers to
        self._outermost = self._earliest = NEVER

    def reference(self, value: Any) -> str:
        """Return what stands for an object that was met before, or lies too deep; "" if none."""
        place = id(value)
        if (whole := self._whole.get(place)) is not None:
            return whole[1]
        if (depth := self._active.get(place)) is not None:
            self._outermost = min(self._outermost, depth)
            return f"again {len(self._active) - depth}"
        if (part := self._parts.get(place)) is not None:
            self._earliest = min(self._earliest, part[1])
            return f"met {len(self._parts) - part[1]}"
        if len(self._active) <= DEEPEST:
            return ""
        if place not in self._deep:
            self._deep[place] = value, len(self._deep)
            self._waiting.append(value)
        self._outermost = -1
        return f"deep {self._deep[place][1]}"

    def enter(self, value: Any) -> Entered:
        """Begin to describe an object."""
        count = len(self._parts)
        entered = Entered(id(value), len(self._active), count, self._outermost, self._earliest)
        self._active[entered.place] = entered.depth
        self._outermost = self._earliest = NEVER
        return entered

    def leave(self, entered: Entered, value: Any, token: str | None) -> None:
        """End to describe an object: with its token, or None if that has failed."""
        del self._active[entered.place]
        outermost = self._outermost if self._outermost < entered.depth else NEVER
        earliest = self._earliest if self._earliest < entered.numbered else NEVER
        self._outermost = min(outermost, entered.outermost)
        self._earliest = min(earliest, entered.earliest)
        if token is None:
            return
        if outermost is NEVER and earliest is NEVER:
            self._whole[entered.place] = value, token
        else:
            self._parts[entered.place] = value, len(self._parts)

    def waiting(self) -> list[Any]:
        """Return, once, what lies too deep to have been described where it was met."""
        found, self._waiting = self._waiting, []
        return found


def in_order(members: Collection[Any]) -> list[Any]:
    """Return the members of a set in an order that is the same in each process.

    The order in which they are met decides which of two closures is called the first.
    """
    groups: dict[str, list[Any]] = {}
    for member in members:
        groups.setdefault(attempt(outline, member, default=""), []).append(member)
    found: list[Any] = []
    for _, group in sorted(groups.items()):
        if 1 < len(group) <= MANY:
            group.sort(key=lambda member: str(attempt(digest, member, default="")))
        found += group
    return found


def outline(value: Any, depth: int = DEPTH) -> str:
    """Return what of an object is seen without following it far."""
    kind = type(value)
    if kind in ATOMS:
        return f"{kind.__name__} {value!r}"
    if issubclass(kind, ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type):  # other objects are not asked for a name: some answer to any
        return f"{kind.__name__} {value.__module__}.{value.__qualname__}"
    label = f"{kind.__module__}.{kind.__qualname__}"
    if not depth:
        return label
    if isinstance(value, FunctionType):
        parts, label = {**captured_by(value), **defaults_of(value, ())}, value.__code__.co_name
    else:
        parts = attributes_of(value, beyond=object)
    inner = [f"{name} {outline(part, depth - 1)}" for name, part in sorted(parts.items())]
    for base in filter(kind.__mro__.__contains__, ORDERED):
        inner += [outline(part, depth - 1) for part in base.__iter__(value)]
    return f"{label}({', '.join(inner)})"
