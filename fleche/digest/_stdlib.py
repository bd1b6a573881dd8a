"""Handlers for types of the standard library whose modules are loaded only if they are used.

The modules are never imported here: handlers ask the objects, and the registry knows types by name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import Attributes, Raw
from fleche.digest._code import attributes_of_wrapper
from fleche.digest._instances import derived, key_of_zone
from fleche.digest._registry import Node, key_step, node
from fleche.digest._tokens import ORDERED

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "describe_array",
    "describe_cached_property",
    "describe_counter",
    "describe_date",
    "describe_datetime",
    "describe_decimal",
    "describe_decimal_context",
    "describe_default_dict",
    "describe_deque",
    "describe_fraction",
    "describe_generic_method",
    "describe_lru_cache",
    "describe_ordered_dict",
    "describe_partial",
    "describe_path",
    "describe_pattern",
    "describe_struct",
    "describe_time",
    "describe_timedelta",
    "describe_timezone",
    "describe_uuid",
    "describe_zoneinfo",
]


def describe_deque(obj: Any, _walk: Walk) -> Node:
    return node(b"deque", (obj.maxlen, *obj), step=lambda _, index: f"[{index - 1}]")


def describe_ordered_dict(obj: Any, _walk: Walk) -> Node:
    """Describe an OrderedDict, which may have attributes although it is no subclass."""
    if vars(obj):
        return derived(obj, type(obj), type(obj)(obj))
    children = [part for item in obj.items() for part in item]
    return (ORDERED, b"OrderedDict", children, key_step)


def describe_default_dict(obj: Any, _walk: Walk) -> Node:
    return node(b"defaultdict", (obj.default_factory, dict(obj)))


def describe_counter(obj: Any, _walk: Walk) -> Node:
    """Describe a Counter; unlike other dicts of the library it has attributes of its own."""
    return node(b"Counter", (dict(obj), Attributes(vars(obj))))


def describe_array(obj: Any, walk: Walk) -> Node:
    if sys.byteorder == "big":
        obj = obj[:]
        obj.byteswap()
    with memoryview(obj) as view:
        return node(b"array", (obj.typecode, obj.itemsize, Raw(walk.buffer(view))))


def describe_partial(obj: Any, _walk: Walk) -> Node:
    return node(
        b"partial",
        (obj.func, obj.args, obj.keywords, Attributes(vars(obj))),
        step=lambda _, index: (".func", ".args", ".keywords", "")[index],
    )


def describe_cached_property(obj: Any, _walk: Walk) -> Node:
    """Describe a cached property by its function; until Python 3.11 it also holds a lock."""
    return node(b"cached_property", (obj.func,))


def describe_lru_cache(obj: Any, _walk: Walk) -> Node:
    function = obj.__wrapped__
    attributes = attributes_of_wrapper(obj, function, "cache_parameters")
    return node(b"lru_cache", (function, *map(Attributes, attributes)))


def describe_generic_method(obj: Any, _walk: Walk) -> Node:
    """Describe a method with implementations by type; since Python 3.13 it also notes look-ups."""
    return node(b"singledispatchmethod", (obj.func, obj.dispatcher))


def describe_decimal(obj: Any, _walk: Walk) -> Node:
    sign, digits, exponent = obj.as_tuple()
    return node(b"Decimal", (sign, "".join(map(str, digits)), exponent))


def describe_decimal_context(obj: Any, _walk: Walk) -> Node:
    """Describe a context without its flags, which tell what has happened in it."""
    limits = (obj.prec, obj.rounding, obj.Emin, obj.Emax, obj.capitals, obj.clamp)
    return node(
        b"Context", (*limits, sorted(trap.__name__ for trap in obj.traps if obj.traps[trap]))
    )


def describe_fraction(obj: Any, _walk: Walk) -> Node:
    return node(b"Fraction", (obj.numerator, obj.denominator))


def describe_uuid(obj: Any, _walk: Walk) -> Node:
    return node(b"UUID", (obj.bytes,))


def describe_date(obj: Any, _walk: Walk) -> Node:
    return node(b"date", (obj.year, obj.month, obj.day))


def describe_time(obj: Any, _walk: Walk) -> Node:
    return node(b"time", (obj.hour, obj.minute, obj.second, obj.microsecond, obj.fold, obj.tzinfo))


def describe_datetime(obj: Any, _walk: Walk) -> Node:
    clock = (obj.hour, obj.minute, obj.second, obj.microsecond, obj.fold, obj.tzinfo)
    return node(
        b"datetime",
        (obj.year, obj.month, obj.day, *clock),
        step=lambda _, index: ".tzinfo" if index == 8 else "",
    )


def describe_timedelta(obj: Any, _walk: Walk) -> Node:
    return node(b"timedelta", (obj.days, obj.seconds, obj.microseconds))


def describe_timezone(obj: Any, _walk: Walk) -> Node:
    return node(b"timezone", obj.__getinitargs__())


def describe_zoneinfo(obj: Any, _walk: Walk) -> Node:
    return node(b"ZoneInfo", (key_of_zone(obj),))


def describe_path(obj: Any, walk: Walk) -> Node:
    if walk.buffers is not None and hasattr(obj, "stat"):  # one that leads somewhere here
        walk.buffers.paths[str(obj)] = None
    return node(b"Path", (type(obj).__name__, str(obj)))


def describe_pattern(obj: Any, _walk: Walk) -> Node:
    return node(b"Pattern", (obj.pattern, int(obj.flags)))


def describe_struct(obj: Any, _walk: Walk) -> Node:
    return node(b"Struct", (obj.format,))
