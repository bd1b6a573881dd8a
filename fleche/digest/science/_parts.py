"""What the functions of this package have in common: from parts to a handler of the registry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import Attributes
from fleche.digest._instances import attributes_of
from fleche.digest._names import Named, find_name
from fleche.digest._registry import Node, describe_type, node
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._registry import Handler
    from fleche.digest._walk import Walk

__all__ = [
    "CLASS",
    "Named",
    "Parts",
    "filled",
    "find_name",
    "parts",
    "refuse",
    "uncached",
    "without",
]

Parts = dict[str, Any]

CLASS = "class"
"""The part that counts in place of the class of the object, where that is made anew each time."""


def parts(function: Callable[[Any], Parts]) -> Handler:
    """Make a handler of a function that returns the named parts of an object."""

    @wraps(function)
    def describe(obj: Any, _walk: Walk) -> Node:
        found = dict(function(obj))
        return node(b"science", (found.pop(CLASS, type(obj)), Attributes(found)))

    return describe


def without(obj: object, *names: str) -> Parts:
    """Return the attributes of an object, in its dict and its slots, but for some."""
    return {name: value for name, value in attributes_of(obj).items() if name not in names}


def uncached(obj: object) -> Parts:
    """Return the attributes of an object, but for what a ``cached_property`` has put there."""
    caches = {
        name
        for base in type(obj).__mro__
        for name, value in vars(base).items()
        if type(value).__name__ in ("cached_property", "lazyproperty")
    }
    return without(obj, *caches)


def filled(obj: Any, kind: str) -> Parts:
    """Return the attributes of an object with all that it works out on demand worked out.

    So it does not matter what was asked of the object before. ``kind`` is the name of the type
    of descriptor that keeps what it has worked out under its own name. The object itself is
    left alone: a shallow copy does the work.
    """
    worked = copy.copy(obj)
    for base in type(obj).__mro__:
        for name, value in vars(base).items():
            if type(value).__name__ == kind:
                try:
                    getattr(worked, name)
                except Exception:  # noqa: BLE001 - what cannot be worked out now never was before
                    continue
    return attributes_of(worked)


def refuse(obj: object, why: str, instead: str) -> Indigestible:
    """Return the error for an object that has no digest, with what to pass in its place."""
    return Indigestible(f"{describe_type(type(obj))} has no digest: {why}; {instead}")
