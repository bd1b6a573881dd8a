"""What code reads of other code, which does not count otherwise: annotations, docstrings, its text.

Where the source shows that something asks for one of these, it counts of all code that is followed.
And what ``isinstance``, ``issubclass`` and ``except`` ask of a class, beside its name and bases.
"""

from __future__ import annotations

import abc
import builtins
import sys
from collections.abc import Iterator, Mapping, Set
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, ForwardRef, get_type_hints

from fleche._util import annotations_of, attempt
from fleche.digest import members_of, own_module, text_at, types_in
from fleche.function._closure import Findings
from fleche.function._code import code_of
from fleche.function._facts import Facts
from fleche.function._own import is_own_namespace, is_own_object
from fleche.function._recheck import Datum
from fleche.function._values import hashed

__all__ = [
    "Read",
    "asks_own_code",
    "names_asked_for",
    "names_read",
    "types_of_fields",
    "uses_any",
]

ASKING = ("get_type_hints", "get_annotations")
OF_TYPES = frozenset(
    [
        "apischema",
        "cattr",
        "cattrs",
        "dacite",
        "dataclasses_json",
        "marshmallow_dataclass",
        "mashumaro",
        "msgspec",
        "omegaconf",
        "pydantic",
        "serde",
        "simple_parsing",
        "typer",
        "tyro",
    ]
)
"""Packages that make something of the types of the fields of any class."""

SOURCE = "<source>"
"""Stands among the names of attributes for what asks for the text of code."""

READING = ("getsource", "getsourcelines", "findsource")

OF_METACLASS = ("__instancecheck__", "__subclasscheck__")
OF_NO_PROTOCOL = frozenset(["__annotations__", "__class_getitem__", "__init__", "__slots__"])
"""Members that a protocol may have, and for which no object is asked."""


class Read:
    """What is read of the code that is followed.

    Args:
        found: where what counts is noted.
        taken: the labels of what counts already.
    """

    def __init__(self, found: Findings, taken: set[str]) -> None:
        self._found = found
        self._taken = taken
        self._untyped: list[tuple[Any, str]] = []
        self._undocumented: list[tuple[Any, str]] = []
        self._unread: list[tuple[Any, str]] = []

    def note(self, obj: Any, label: str) -> None:
        """Note a function or class that is followed."""
        for waiting in (self._untyped, self._undocumented, self._unread):
            waiting.append((obj, label))

    def take(self, used: Set[str], modules: Mapping[str, ModuleType]) -> None:
        """Let count what is read of the code that was noted, and of modules.

        Args:
            used: names that occur as attributes, with those of :func:`names_read`.
            modules: those that are followed, by their names.
        """
        if not used.isdisjoint(("__annotations__", "annotation")):
            self._take_types()
        if "__doc__" in used:
            self._take_docs()
        if SOURCE in used:
            self._take_texts(modules)

    def _take_types(self) -> None:
        """Let the annotations of functions count, as some code asks for them."""
        for obj, label in self._yet_without("__annotations__", self._untyped):
            if isinstance(obj, FunctionType) and (types := types_in(obj)):
                self._found.put(label, "data", types, types)

    def _take_docs(self) -> None:
        """Let the documentation of functions and classes count, as some code reads it."""
        for obj, label in self._yet_without("__doc__", self._undocumented):
            text = doc_of(obj)
            if text:
                self._found.put(label, "data", text, text)
            self._found.checks.data.append(Datum(label, obj, text, doc_of))

    def _take_texts(self, modules: Mapping[str, ModuleType]) -> None:
        """Let the very text of functions, classes and modules count, as some code reads it."""
        self._unread += [(module, name) for name, module in modules.items()]
        for obj, label in self._yet_without(SOURCE, self._unread):
            text = text_of(obj)
            self._found.put(label, "data", hashed(text), text)

    def _yet_without(self, name: str, waiting: list[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
        """Yield what is followed, and the label of its attribute, once."""
        while waiting:
            obj, label = waiting.pop()
            place = f"{label}.{name}"
            if place not in self._taken:
                self._taken.add(place)
                yield obj, place


def names_read(facts: Facts, namespace: Mapping[str, Any]) -> list[str]:
    """Return what functions of others read of code: annotations, documentation, its text."""
    ends = {chain[-1] for chain in (*facts.loads, *facts.lazy)}
    found = ["__annotations__"] if reads_types(facts, namespace) else []
    found += ["__doc__"] if "getdoc" in ends else []
    return found if ends.isdisjoint(READING) else [*found, SOURCE]


def reads_types(facts: Facts, namespace: Mapping[str, Any]) -> bool:
    """Whether code asks for annotations, or uses a package that makes something of them."""
    ends = {chain[-1] for chain in facts.loads}
    asks = not ends.isdisjoint(ASKING) or ("fields" in ends and "type" in facts.attributes)
    return asks or uses_any(OF_TYPES, facts, namespace)


def uses_any(packages: Set[str], facts: Facts, namespace: Mapping[str, Any]) -> bool:
    """Whether code uses one of some packages."""
    if any(each.module.partition(".")[0] in packages for each in facts.imports):
        return True
    for root, *_ in facts.loads:
        value = namespace.get(root)
        home = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", "")
        if isinstance(home, str) and home.partition(".")[0] in packages:
            return True
    return False


def types_of_fields(cls: type) -> dict[str, Any]:
    """Return the types of the fields of a class; text where that cannot be looked up."""
    found = annotations_of(cls)
    if any(isinstance(each, (str, ForwardRef)) for each in found.values()):
        hints = attempt(partial(get_type_hints, include_extras=True), cls, default={})
        found.update((name, hints[name]) for name in found if name in hints)
    return found


def doc_of(obj: Any) -> str:
    """Return the documentation of a function or class; "" if there is none."""
    found = obj.__doc__
    return found if isinstance(found, str) else ""


def text_of(obj: Any) -> str:
    """Return the text of a function, class or module, comments included; "" if there is none."""
    if isinstance(obj, FunctionType):
        return code_of(obj).text
    if isinstance(obj, ModuleType):
        return text_at(vars(obj), "")
    return text_at(vars(sys.modules.get(own_module(obj), builtins)), obj.__qualname__)


# -- what is asked of classes ----------------------------------------------------------------------


def asks_own_code(cls: type) -> bool:
    """Whether code of the user's own decides what belongs to a class."""
    meta: Any = type(cls)
    hooks = [(base, name) for base in meta.__mro__ for name in OF_METACLASS]
    hooks += [(base, "__subclasshook__") for base in cls.__mro__]
    found = (vars(base).get(name) for base, name in hooks)
    functions = (getattr(each, "__func__", each) for each in found)
    return any(isinstance(f, FunctionType) and is_own_namespace(f.__globals__) for f in functions)


def names_asked_for(cls: type) -> str:
    """Return the names of the registered classes of an ABC, and of the members of a protocol."""
    found = {f"{own_module(each)}.{each.__qualname__}" for each in registered(cls)}
    if getattr(cls, "_is_protocol", False):
        own = [base for base in cls.__mro__ if is_own_object(base)]
        members = {name for base in own for name in members_of(base)[0]}
        fields = {name for base in own for name in annotations_of(base)}
        found |= (members | fields) - OF_NO_PROTOCOL
    return " ".join(sorted(found))


def registered(cls: type) -> Iterator[type]:
    """Yield the classes that were registered with an ABC, or with one that belongs to it."""
    pending, seen = [cls], {id(cls)}
    while pending:
        one: Any = pending.pop()
        if not isinstance(one, abc.ABCMeta) or not is_own_object(one):
            continue
        known: list[Any] = [ref() for ref in abc._get_dump(one)[0]]  # type: ignore[attr-defined]  # noqa: SLF001
        yield from filter(None, known)
        known += one.__subclasses__()
        for each in known:
            if each is not None and id(each) not in seen:
                seen.add(id(each))
                pending.append(each)
