"""Trees of calls: what a call made, or what used it, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from fleche._amounts import shown_seconds
from fleche._html import paragraph
from fleche.call._live import LazyCall, Opener
from fleche.digest import Digest

__all__ = ["CallTree", "tree_of"]

_SHORT = 8


class CallTree(msgspec.Struct, frozen=True):
    """A call with the calls below it.

    Attributes:
        key: the key of the call.
        call: the call; ``None`` if it is known by its key and not stored here.
        children: the calls below it, in the order in which they were made.
        is_repeated: the same call is elsewhere in the tree, where what is below it is shown.
        is_cut: what is below it was not looked for, since the tree is only so deep.
    """

    key: Digest
    call: LazyCall | None
    children: tuple[CallTree, ...] = ()
    is_repeated: bool = False
    is_cut: bool = False

    def walk(self, depth: int = 0) -> Iterator[tuple[int, CallTree]]:
        """Yield the nodes, each before those below it, with how deep it is."""
        rest = [(depth, self)]
        while rest:
            depth, node = rest.pop()
            yield depth, node
            rest += [(depth + 1, child) for child in reversed(node.children)]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return paragraph("", str(self))

    @property
    def line(self) -> str:
        """What is said of the call itself, in one line."""
        if self.call is None:
            return f"<{self.key[:_SHORT]}> is not stored here"
        seconds = self.call.duration
        facts = [self.key[:_SHORT], *([] if seconds is None else [shown_seconds(seconds)])]
        below = " (see above)" if self.is_repeated else " ..." if self.is_cut else ""
        return f"{self.call.text}  [{', '.join(facts)}]{below}"

    def _lines(self) -> Iterator[str]:
        rest = [("", "", self)]
        while rest:
            first, beside, node = rest.pop()
            yield first + node.line
            below = [(f"{beside}├── ", f"{beside}│   ", child) for child in node.children]
            if below:
                below[-1] = (f"{beside}└── ", f"{beside}    ", node.children[-1])
            rest += reversed(below)


_Below: TypeAlias = dict[Digest, list[Digest]]
_Step: TypeAlias = Callable[[Sequence[LazyCall]], tuple[_Below, dict[Digest, LazyCall]]]


def tree_of(call: LazyCall, cache: Opener, depth: int | None, *, used_by: bool) -> CallTree:
    """Return the tree of a call.

    Args:
        call: its root.
        cache: where the other calls are.
        depth: how many levels below the root at most.
        used_by: whether below a call are those that used it, and not those that it made.
    """

    def made(level: Sequence[LazyCall]) -> tuple[_Below, dict[Digest, LazyCall]]:
        below = {each.key: [Digest(key) for key in each.record.children] for each in level}
        wanted = dict.fromkeys(key for keys in below.values() for key in keys)
        new = [key for key in wanted if key not in calls]
        return below, {each.key: each for each in (cache.load_many(new) if new else ())}

    def users(level: Sequence[LazyCall]) -> tuple[_Below, dict[Digest, LazyCall]]:
        found = {each.key: each.used_by() for each in level}
        below = {key: [each.key for each in calls] for key, calls in found.items()}
        return below, {each.key: each for calls in found.values() for each in calls}

    step: _Step = users if used_by else made
    calls = {call.key: call}
    below: _Below = {}
    level = [call]
    while level and (depth is None or depth > 0):
        further, found = step(level)
        below.update(further)
        level = [each for key, each in found.items() if key not in calls]
        calls.update(found)
        depth = None if depth is None else depth - 1
    return _grown(call.key, calls, below)


def _grown(root: Digest, calls: dict[Digest, LazyCall], below: _Below) -> CallTree:
    """Put the nodes together. A call that is met again is not followed again, nor is a circle."""
    # with lists in place of recursion: a chain of calls may be longer than Python's stack
    seen: set[Digest] = set()
    nodes: list[tuple[Digest, int, bool]] = []  # the key, the place of what is above, and if new
    rest = [(root, -1)]
    while rest:
        key, above = rest.pop()
        is_new = key in calls and key not in seen
        nodes.append((key, above, is_new))
        if is_new:
            seen.add(key)
            rest += [(child, len(nodes) - 1) for child in reversed(below.get(key, ()))]
    grown: dict[int, list[CallTree]] = {}  # from the last to the first
    for place in range(len(nodes) - 1, -1, -1):
        key, above, is_new = nodes[place]
        call = calls.get(key)
        tree = CallTree(
            key,
            call,
            tuple(reversed(grown.pop(place, []))),
            is_repeated=call is not None and not is_new and bool(below.get(key)),
            is_cut=is_new and key not in below and call is not None and bool(call.record.children),
        )
        grown.setdefault(above, []).append(tree)
    return grown[-1][0]
