"""What a function depends on, as people and records see it.

A :class:`CodeTracker` belongs to one function. It resolves the closure when the function is first
called, and at each further call looks whether it still holds. The sources of what a stored result
depended on are kept in the user's cache directory, so that a later change can be shown as a diff.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import RLock
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import msgspec

from fleche._util import renewed_after_fork
from fleche.digest import Digest, digest
from fleche.function._closure import MARKS, Closure, Node, digest_of_node
from fleche.function._own import is_made_here, is_own_namespace, is_own_object
from fleche.function._resolve import resolve
from fleche.function._settings import SETTINGS_OF
from fleche.function._values import GETTERS, names_of_getter
from fleche.function._visits import in_order
from fleche.function._whole import cache_directory, write_json

__all__ = [
    "Change",
    "CodeTracker",
    "Dependencies",
    "Dependency",
    "Depends",
    "changes_between",
    "changes_of_stored",
    "own_code",
]

Depends: TypeAlias = "Callable[[], Any] | str"

MANY_CLOSURES = 256
MANY_PATHS = 100_000


class Dependency(msgspec.Struct, frozen=True):
    """One thing that the results of a function depend on.

    Attributes:
        name: what it is called; without the module if that is the function's own.
        kind: ``"function"``, ``"class"``, ``"data"``, ``"state"`` (a variable that the code itself
            writes, which counts as it is defined), ``"name"`` (what a name stands for),
            ``"installed"`` (a name that leads into an installed package), ``"absent"``,
            ``"file"``, ``"package"``, ``"version"``, ``"extra"`` (of ``depends=``), or
            ``"ignored"``.
        digest: what it counts by; None if it does not count.
        note: why it counts in part only, or not at all; "" else.
        text: its source, or a short text that shows it.
    """

    name: str
    kind: str
    digest: Digest | None
    note: str = ""
    text: str = ""

    def __str__(self) -> str:
        digest = self.digest[:12] if self.digest else "-" * 12
        shown = self.shown_note or (self.text if "\n" not in self.text else "")
        return f"{digest}  {self.kind:<9}  {self.shown_name}" + (f"  ({shown})" if shown else "")

    @property
    def shown_name(self) -> str:
        """The name as it is in the code."""
        return self.name.rstrip("~")

    @property
    def shown_note(self) -> str:
        """The note; of a name beside a function or class that is called so, what it is."""
        return self.note or ("what this name leads to" if self.name.endswith("~") else "")


class Dependencies(tuple[Dependency, ...]):
    """All that the results of a function depend on, in the order of the names."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """Return the dependency of a name, or at an index."""
        if isinstance(key, str):
            for found in self:
                if found.name == key:
                    return found
            raise KeyError(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        return any(found.name == key or found == key for found in self)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from fleche._html import grid

        head = ("digest", "kind", "name", "note")
        return grid(
            head, ((str(d.digest or "")[:12], d.kind, d.shown_name, d.shown_note) for d in self)
        )


class CodeTracker:
    """Knows at each call what a function depends on.

    Args:
        function: the function as it was written.
        module: its module.
        ignored: parameters whose defaults do not count.
        depends: what counts besides: functions without parameters whose values count, and names of
            distributions whose versions count.
        ignore_globals: variables that do not count.

    Raises:
        ValueError: no distribution of a name in ``depends`` is installed.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        module: str,
        *,
        ignored: Collection[str] = (),
        depends: tuple[Depends, ...] = (),
        ignore_globals: Collection[str] = (),
    ) -> None:
        self.function = function
        self.module = "__main__" if module == "__mp_main__" else module
        self.ignored = ignored
        self.depends = depends
        self.ignore_globals = ignore_globals
        self._closures: dict[tuple[int, ...], tuple[Closure, tuple[Any, ...]]] = {}
        self._lock = renewed_after_fork(RLock())

    def closure(self, roots: Iterable[Any] = ()) -> Closure:
        """Return what the function depends on now.

        Args:
            roots: functions, classes and modules that occur in the arguments of a call.
        """
        kept = tuple(roots)
        place = tuple(map(id, kept))
        found = self._closures.get(place)
        if found is not None and found[0].checks.hold():
            return found[0]
        closure = resolve(
            self.function,
            home=self.module,
            roots=kept,
            ignored=self.ignored,
            ignore_globals=self.ignore_globals,
        )
        with self._lock:
            if len(self._closures) >= MANY_CLOSURES:
                self._closures.clear()
            self._closures[place] = (closure, kept)
        return closure

    def extras(self) -> dict[str, Node]:
        """Return what ``depends=`` adds, as it is now.

        Raises:
            Indigestible: a value has no digest.
            Exception: whatever one of the functions raises.
        """
        found: dict[str, Node] = {}
        for index, item in enumerate(self.depends):
            if isinstance(item, str):
                version = version_of(item)
                found[f"depends[{item}]"] = Node("version", version, version)
            else:
                value = item()
                token = str(value if isinstance(value, Digest) else digest(value))
                found[f"depends[{index}]"] = Node("extra", token)
        return found

    def extra_parts(self) -> dict[str, str]:
        """Return what :meth:`extras` count by."""
        return {label: digest_of_node(node) for label, node in self.extras().items()}

    def listing(self, closure: Closure) -> Dependencies:
        """Return a closure and what is added, for people."""
        nodes = {**closure.nodes, **self.extras()}
        found = [
            Dependency(
                label,
                node.kind,
                digest_shown(node),
                closure.notes.get(label, ""),
                node.text,
            )
            for label, node in nodes.items()
        ]
        found += [
            Dependency(label, "ignored", None, note)
            for label, note in closure.notes.items()
            if label not in nodes
        ]
        return Dependencies(sorted(found, key=lambda one: one.name))


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution.

    Raises:
        ValueError: it is not installed.
    """
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        raise ValueError(
            f"depends={distribution!r}: no distribution of this name is installed; name it as "
            "pip does, or pass a function that returns what counts"
        ) from None


def own_code(met: Iterable[Any]) -> list[Any]:
    """Return what is the user's own of the code that was met in values, and names that it gets."""
    found: list[Any] = []
    for obj in met:
        if isinstance(obj, GETTERS):
            found += names_of_getter(obj)
        elif is_own_code(obj):
            found.append(obj)
    codes = [obj.__code__ for obj in found if isinstance(obj, FunctionType)]
    # several made by one function may come from a set, which has no order
    return found if len(set(codes)) == len(codes) else in_order(found)


def is_own_code(obj: Any) -> bool:
    if isinstance(obj, FunctionType):  # an installed decorator may have wrapped what is one's own
        return is_own_namespace(obj.__globals__) or bool(obj.__closure__ or obj.__dict__)
    if isinstance(obj, ModuleType):
        return is_own_namespace(vars(obj))
    return isinstance(obj, type) and (is_own_object(obj) or is_made_here(obj))


_NOUNS = {
    "data": "variable",
    "state": "variable",
    "class": "class",
    "installed": "name",
    "absent": "name",
}


class Change(msgspec.Struct, frozen=True):
    """What has changed of one dependency between a stored result and now.

    Attributes:
        name: what it is called.
        kind: what it is now, or was.
        what: "changed", "new" or "gone".
        diff: the difference of the sources, if both are known.
    """

    name: str
    kind: str
    what: str
    diff: str = ""

    def __str__(self) -> str:
        name = self.name.rpartition("<locals>.")[2].replace(":", ".").rstrip("~")
        if name.endswith("]"):
            return f"the captured value `{name[name.rindex('[') + 1 : -1]}`"
        if name.endswith(")"):
            return f"the default of `{name[name.rindex('(') + 1 : -1]}`"
        if (at := name.find(SETTINGS_OF)) >= 0:
            return f"what is set in `{name[at + len(SETTINGS_OF) :]}`"
        noun = _NOUNS.get(self.kind, "helper")
        return f"{noun} `{name}`"


def changes_between(
    stored: Mapping[str, str], closure: Closure, code: str | None = None
) -> list[Change]:
    """Return what has changed since a result was stored, what matters most first.

    Args:
        stored: the dependencies in the record of the result.
        closure: what there is now.
        code: the digest under which the sources of then were kept.
    """
    now = closure.digests
    changed = changed_labels(stored, now)
    old = load_texts(code) if changed and code is not None else {}
    found: list[Change] = []
    for label in changed:
        node = closure.nodes.get(label)
        kind, text = old.get(label, (kind_of(stored.get(label, "")), ""))
        what = "changed" if label in stored and label in now else "new" if label in now else "gone"
        diff = diff_of(label, text, node.text if node else "") if text or what != "changed" else ""
        found.append(Change(label, node.kind if node else kind, what, diff))
    return found


def changes_of_stored(
    before: Mapping[str, str], after: Mapping[str, str], codes: tuple[str | None, str | None]
) -> list[Change]:
    """Return what differs between the dependencies in the records of two results.

    Args:
        before: the dependencies of the one.
        after: those of the other.
        codes: the digests of the code of both, under which the sources were kept, if that was on
            this machine.
    """
    labels = changed_labels(before, after)
    texts = [load_texts(code) if labels and code is not None else {} for code in codes]
    found: list[Change] = []
    for label in labels:
        (old_kind, old), (new_kind, new) = (
            each.get(label, (kind_of(parts.get(label, "")), ""))
            for each, parts in zip(texts, (before, after), strict=True)
        )
        what = "changed" if label in before and label in after else "gone"
        what = what if label in before else "new"
        known = what != "changed" or (old and new)
        diff = diff_of(label, old, new, ("first", "second")) if known else ""
        found.append(Change(label, new_kind or old_kind, what, diff))
    return found


def changed_labels(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return what differs: first what has changed, then what is new or gone; mere names last."""
    labels = {label for label in (*before, *after) if before.get(label) != after.get(label)}

    def place(label: str) -> tuple[bool, bool, bool, str]:
        is_name = bool(kind_of(after.get(label) or before.get(label) or ""))
        return is_name, label not in before, label not in after, label

    return sorted(labels, key=place)


def kind_of(part: str) -> str:
    """Return the kind of a mere name by what it counts by; "" of everything else."""
    return next((kind for kind, mark in MARKS.items() if part.startswith(mark)), "")


def digest_shown(node: Node) -> Digest:
    part = digest_of_node(node)
    return digest(part) if node.kind in MARKS else Digest(part)


def diff_of(label: str, before: str, after: str, names: tuple[str, str] = ("stored", "now")) -> str:
    if before == after or not (before or after):
        return ""
    import difflib

    first, second = (f"{label} ({name})" for name in names)
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), first, second, lineterm=""
    )
    return "\n".join(lines)


def texts_file(code: str) -> str:
    return cache_directory(code[:2], f"{code[2:]}.json")


written: set[str] = set()


def save_texts(code: str, closure: Closure) -> None:
    """Keep the sources of a closure in the user's cache directory, once; best effort."""
    path = texts_file(code)
    if path in written:
        return
    if len(written) > MANY_PATHS:
        written.clear()
    written.add(path)
    if not os.path.exists(path):
        write_json(path, {label: [node.kind, node.text] for label, node in closure.nodes.items()})


def load_texts(code: str) -> dict[str, tuple[str, str]]:
    """Return kind and source of each dependency of then, as far as they are known here."""
    import json

    try:
        with open(texts_file(code), encoding="utf-8") as file:
            found = json.load(file)
        return {str(label): (str(kind), str(text)) for label, (kind, text) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
