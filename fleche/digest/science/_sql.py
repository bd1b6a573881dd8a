"""SQLAlchemy: tables, columns, types and statements, without what they have noted while in use."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fleche.digest._instances import attributes_of
from fleche.digest.science._parts import Parts, parts, without

__all__ = ["columns", "construct", "name"]

NOTED = frozenset(
    [
        "_creation_order",
        "_memoized_keys",
        "c",
        "columns",
        "comparator",
        "description",
        "dialect_kwargs",
        "dialect_options",
        "dispatch",
    ]
)
"""What follows from other attributes, or from what the process has done before."""


@parts
def construct(obj: Any) -> Parts:
    """Return the attributes of an object but for those that it works out when asked for them."""
    held = attributes_of(obj)
    memoized = {*NOTED, *held.get("_memoized_keys", ()), *memos(type(obj))}
    found = {key: part for key, part in held.items() if key not in memoized}
    if not found.get("info", True):  # is made when it is looked at
        del found["info"]
    if "dialect_options" in held and (told := dict(obj.dialect_kwargs)):
        found["dialect_kwargs"] = told
    return found


@parts
def columns(obj: Any) -> Parts:
    """Return what a collection of columns holds, without by what it finds those of others."""
    return without(obj, "_proxy_index")


@parts
def name(obj: Any) -> Parts:
    """Return the text of a name, without what it is in other letters."""
    return {"text": str.__str__(obj), "quote": obj.quote}


def memos(cls: type) -> set[str]:
    """Return the attributes that stand in objects in place of descriptors that have made them.

    Only private ones: the type of a column is worked out if it is not given.
    """
    members = {key: vars(base)[key] for base in reversed(cls.__mro__) for key in vars(base)}
    return {
        key
        for key, member in members.items()
        if key.startswith("_")
        and hasattr(type(member), "__get__")
        and not hasattr(type(member), "__set__")
        and not isinstance(member, FunctionType)
    }
