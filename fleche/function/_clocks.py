"""Attributes that the clock or chance has given an object: a start, a number of the run.

``self.started = time.time()`` is another number in each run, and the same to what follows. So it
counts as it is written. That the attribute holds what such a call returns is looked at as well: the
program may have set it to something that matters.
"""

from __future__ import annotations

import os
import sys
import time
from functools import cached_property
from types import FunctionType
from typing import Any

from fleche.digest import CLOCK_CALLS
from fleche.function._code import code_of
from fleche.function._own import is_own_namespace

__all__ = ["attributes_by_clock", "is_from_clock_now"]

RECENT = 24 * 3600


def attributes_by_clock(cls: type) -> frozenset[str]:
    """Return the attributes that own methods of a class set to what a clock returns.

    And the fields of a dataclass that begin so, and what cached properties keep of it.
    """
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    found = {name for name, field in fields.items() if is_clock(field.default_factory)}
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, cached_property) and is_clock(member.func):
                found.add(name)
            if isinstance(member, FunctionType) and is_own_namespace(member.__globals__):
                is_asking = not CLOCK_CALLS.isdisjoint(member.__code__.co_names)
                found |= code_of(member).facts.by_clock if is_asking else frozenset()
    return frozenset(found)


def is_clock(factory: Any) -> bool:
    """Whether a function is that of a clock, or calls one."""
    names = getattr(getattr(factory, "__code__", None), "co_names", ())
    return not CLOCK_CALLS.isdisjoint((getattr(factory, "__name__", ""), *names))


def is_from_clock_now(value: Any) -> bool:
    """Whether a value may be what the clock has given in this process, or a new identifier."""
    kind: Any = type(value)
    if kind is float:
        is_counted = 0 < value <= time.perf_counter() and value != round(value, 3)
        return is_counted or is_recent(value)
    if kind is int:
        is_counted = 10**9 < value <= time.perf_counter_ns() and value % 10**6 > 0
        return value == os.getpid() or is_counted or is_recent(value / 1e9)
    if kind is str and len(value) in (32, 36):
        return is_identifier(value)
    if kind.__module__ == "uuid":
        return getattr(value, "version", None) in (1, 4)
    datetime = sys.modules.get("datetime")
    if datetime is not None and kind is datetime.datetime:
        return is_recent(value.timestamp())
    return False


def is_recent(seconds: float) -> bool:
    """Whether a time is of the last day, and not a round one."""
    return -1 < time.time() - seconds < RECENT and seconds != round(seconds)


def is_identifier(text: str) -> bool:
    """Whether a text is a random identifier."""
    from uuid import UUID

    try:
        return UUID(text).version in (1, 4)
    except ValueError:
        return False
