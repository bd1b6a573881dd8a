"""Where two values that ought to be one differ.

A class whose objects come back from a cache with another digest never hits, and nothing says so. So
a cache opens what it has just stored of a class that no handler knows
(:attr:`BufferDigests.unfamiliar`), and asks here what differs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from fleche.digest._builtin import Attributes, Raw
from fleche.digest._plain import CONTAINERS, children_of
from fleche.digest._registry import Step, item_step, key_step
from fleche.digest._tokens import UNORDERED
from fleche.digest._walk import Walk
from fleche.errors import Indigestible

__all__ = ["Difference", "find_difference"]

LONGEST = 2.0
INTERNAL = (Attributes, Raw)
Parts = tuple[bytes, Sequence[Any], Step]


class Difference(NamedTuple):
    """What makes two values differ.

    Attributes:
        cls: the class of the innermost object that differs by itself.
        path: the way to the part in question, such as ``.cache['last']``; empty for the value
            itself.
    """

    cls: type
    path: str


def find_difference(one: object, other: object, *, longest: float = LONGEST) -> Difference | None:
    """Return what differs between a value and its copy, or None if they have one digest.

    Args:
        one: the value.
        other: the copy.
        longest: seconds after which the way that has been found so far is returned.

    Raises:
        Indigestible: one of them has no digest.
    """
    return Comparison(longest).run(one, other)


class Comparison:
    """One search for a difference."""

    def __init__(self, longest: float) -> None:
        self.walks = (Walk(), Walk())
        self.ends = time.monotonic() + longest
        self.cls: type = object
        self.path = ""
        self.seen: set[int] = set()

    def run(self, one: object, other: object) -> Difference | None:
        if not self.differ(one, other):
            return None
        self.cls = type(one)
        pair: tuple[Any, Any] | None = (one, other)
        while pair is not None:
            try:
                pair = self.go_on(*pair)
            except Indigestible:
                break
        return Difference(self.cls, self.path)

    def differ(self, one: object, other: object) -> bool:
        return self.walks[0].token(one) != self.walks[1].token(other)

    def go_on(self, one: Any, other: Any) -> tuple[Any, Any] | None:
        """Return the first parts that differ, having taken down the way; None at its end."""
        if id(one) in self.seen:
            return None
        self.seen.add(id(one))
        parts, others = self.parts(one, 0), self.parts(other, 1)
        if parts is None or others is None:
            return None
        if type(one) not in CONTAINERS and not isinstance(one, INTERNAL):
            self.cls = type(one)
        label, children, step = parts
        if label != others[0] or len(children) != len(others[1]):
            return None
        for index, pair in enumerate(zip(children, others[1], strict=True)):
            if time.monotonic() > self.ends:
                return None
            if self.differ(*pair):
                self.path += step(children, index)
                return pair
        return None

    def parts(self, obj: Any, side: int) -> Parts | None:
        """Return what an object consists of, if that has an order."""
        if type(obj) in CONTAINERS:
            step = key_step if type(obj) is dict else item_step
            return (type(obj).__name__.encode(), children_of(obj), step)
        described = self.walks[side].describe(obj)
        if isinstance(described, bytes) or described[0] == UNORDERED:
            return None
        return (described[0] + described[1], *described[2:])
