"""What a function depends on, as it was found, and where that is noted."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from fleche.digest import Digest
from fleche.function._own import is_own_object
from fleche.function._recheck import Checks

if TYPE_CHECKING:
    from fleche.function._texts import NamesAsked

__all__ = [
    "ENTRY",
    "MARKS",
    "Closure",
    "Findings",
    "Node",
    "digest_of_node",
    "digest_of_parts",
    "show",
]

ENTRY = "<function>"
"""What the function itself is called where it is no plain function: a method, a partial."""

MARKS = {"installed": "=", "absent": "-"}
"""Kinds of mere names, and what comes before the token of one where others have a digest."""


class Node(NamedTuple):
    """One thing that a result depends on.

    Attributes:
        kind: "function", "class", "data", "state", "name", "installed", "absent", "file",
            "package", "version" or "extra".
        token: what stands for it.
        text: its source, or a short text that shows it; "" if there is none.
    """

    kind: str
    token: str
    text: str = ""


class Closure:
    """What a function depends on, as it was found.

    Attributes:
        nodes: what counts, by name; names of the function's own module stand without the module.
        digest: the one digest of all nodes.
        notes: what does not count, or only in part, and why; by name.
        checks: tell whether it still is so.
        unsteady: variables whose digest changes whenever it is taken, and the types of which.
        asked: what code makes of texts among the arguments; None if it reads none as code.
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        notes: dict[str, str],
        checks: Checks,
        unsteady: dict[str, str],
        asked: NamesAsked | None,
    ) -> None:
        self.asked = asked
        self.nodes = nodes
        self.notes = notes
        self.checks = checks
        self.unsteady = unsteady
        self.digest: Digest = digest_of_parts(self.digests)
        checks.compile()

    def changed_data(self) -> list[str]:
        """Return the names of the variables whose content is not what it was."""
        return sorted(self.checks.changed_data()) if self.checks.has_data else []

    @cached_property
    def digests(self) -> dict[str, str]:
        """What each node counts by, by its name: a digest, or of a mere name what it stands for."""
        return {label: digest_of_node(node) for label, node in sorted(self.nodes.items())}

    def record(self) -> dict[str, str]:
        """Return a copy of :attr:`digests`."""
        return dict(self.digests)


def digest_of_node(node: Node) -> str:
    """Return what a node counts by, without its name."""
    if node.kind in MARKS:
        return MARKS[node.kind] + node.token
    hasher = blake3(b"fleche code 3")
    for part in (node.kind, node.token):
        update(hasher, part)
    return hasher.hexdigest()


def digest_of_parts(parts: Mapping[str, str]) -> Digest:
    """Return the digest of code, of what each of its nodes counts by; see :attr:`Closure.digests`.

    A record has these: so the digest that it has, too, can be found again from them.
    """
    hasher = blake3(b"fleche code 3")
    for label, part in sorted(parts.items()):
        update(hasher, label)
        update(hasher, part)
    return Digest(hasher.hexdigest())


def update(hasher: Any, part: str) -> None:
    raw = part.encode("utf-8", "surrogatepass")
    hasher.update(b"%d:%b" % (len(raw), raw))


class Findings:
    """What one resolution has found so far.

    Attributes:
        home: the module whose names stand without it.
        nodes: what counts, by label.
        notes: what does not count, or only in part, and why; by label.
        checks: what is looked at when the function is called again.
        unsteady: variables whose digest changes whenever it is taken, and the types of which.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.nodes: dict[str, Node] = {}
        self.notes: dict[str, str] = {}
        self.checks = Checks()
        self.unsteady: dict[str, str] = {}
        self._taken: set[str] = set()

    def forget_code(self) -> None:
        """Forget what was found, but for the versions of packages."""
        self.nodes = {label: node for label, node in self.nodes.items() if node.kind == "version"}
        self.checks = Checks()

    def closure(self, asked: NamesAsked | None) -> Closure:
        """Return all of it."""
        return Closure(self.nodes, self.notes, self.checks, self.unsteady, asked)

    def put(self, label: str, kind: str, token: str, text: str = "") -> None:
        self.nodes[label] = Node(kind, token, text)

    def label(self, module: str, path: str) -> str:
        return path if module == self.home else f"{module}:{path}"

    def beside(self, label: str) -> str:
        """Return the label of what a name stands for, beside a function or class so called."""
        found = f"{label}~" if label in self._taken else label
        self._taken.add(found)
        return found

    def fresh_label(self, module: str, path: str) -> str:
        label, number = self.label(module, path), 1
        while label in self._taken:
            number += 1
            label = f"{self.label(module, path)}#{number}"
        self._taken.add(label)
        return label


def show(value: Any) -> str:
    """Return a short text that shows a value, never by the ``repr`` of an unknown class."""
    if type(value) in (bool, int, float, complex, str, bytes, type(None)):
        return reprlib.repr(value)
    if type(value) in (list, tuple, dict, set, frozenset):
        kinds = {type(part) for part in [*value, *(value.values() if type(value) is dict else ())]}
        if kinds <= {bool, int, float, str, type(None)}:
            return reprlib.repr(value)
    kind, shape = type(value), None
    if hasattr(kind, "shape") and not is_own_object(kind):
        with suppress(Exception):  # what an object raises when it is looked into
            shape = value.shape
    return f"{kind.__qualname__}{list(shape) if isinstance(shape, tuple) else ''}"
