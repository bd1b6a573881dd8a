"""Objects that their own methods fill when something is first wanted.

``if self._table is None: self._table = ...`` leaves an object what it was: what is there follows
from the rest of it. So a variable that holds such an object has not changed, and its key in this
process stays the one that it has in the next, where nothing is filled yet. Which attributes are
filled so is told from the syntax of the methods; and only what has appeared there while a body ran
is taken for it. What the program itself sets in such an attribute counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any
from weakref import ref

from fleche.function._fills import Fills, filled_by_all
from fleche.function._looking import place_of

__all__ = ["filled_by", "fillings", "late"]

MANY = 10_000
"""Objects that are remembered although they take no weak reference."""


class Fillings:
    """What methods have put into attributes of objects when it was first wanted.

    Such an object is still the one that it was before. What the program has set itself is not
    among it, and counts.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[Callable[[], Any], Any]] = {}
        self._kept: deque[tuple[int, str]] = deque()

    def note(self, obj: Any, name: str, part: Any) -> None:
        """Remember that a method has put ``part`` into an attribute."""
        place = id(obj), name
        try:
            found: Callable[[], Any] = ref(obj, lambda _: self._known.pop(place, None))
        except TypeError:  # there are slots, and none for a weak reference: it stays in memory
            found = partial(same, obj)
            self._kept.append(place)
        self._known[place] = found, part
        while len(self._kept) > MANY:
            self._known.pop(self._kept.popleft(), None)

    def holds(self, obj: Any, name: str, part: Any) -> bool:
        """Return whether a method has put ``part`` there."""
        found = self._known.get((id(obj), name))
        return found is not None and found[0]() is obj and found[1] is part


def same(obj: Any) -> Any:
    return obj


class LateVariables:
    """Variables that a body has given a value, where there was nothing yet.

    So they are what they were. What the program gives them itself counts.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, str, str]] = {}

    def note(self, place: str, value: Any, token: str, before: str) -> None:
        """Remember what a body has left in a variable, and the token of what was there before."""
        self._known[place] = (value, token, before)

    def before(self, place: str, value: Any, retake: Callable[[Any], str]) -> str | None:
        """Return the token of what was there before, if a body has left there what is there now."""
        left, token, before = self._known.get(place, (None, "", ""))
        return before if token and left is value and retake(value) == token else None


fillings = Fillings()
late = LateVariables()


def filled_by(fills: Mapping[str, Mapping[str, Fills]]) -> Callable[[type], dict[str, bool]]:
    """Return what returns the attributes that methods of a class fill, see :func:`filled_by_all`.

    Args:
        fills: what methods fill, by the place of their class and by their name.
    """

    def filled(cls: type) -> dict[str, bool]:
        if not fills:
            return {}
        methods = (fills.get(place_of(base), {}).items() for base in cls.__mro__)
        return filled_by_all(chain.from_iterable(methods))

    return filled
