"""What the class of an object says of it: whether it is code, can change, or says all there is."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cached_property, partial, partialmethod
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple

from fleche._util import loaded_types
from fleche.function._clocks import attributes_by_clock, is_from_clock_now
from fleche.function._own import is_own_object
from fleche.function._signature import Transparent

__all__ = [
    "CONTAINERS",
    "IMMUTABLE",
    "OF_CONTEXT",
    "PLAIN",
    "OwnKind",
    "attribute_of",
    "full_name",
    "inner_function",
    "is_by_type",
    "is_callable_code",
    "is_frozen",
    "is_interface",
    "member_of",
    "overloads_of",
    "own_kind",
]

IMMUTABLE = frozenset(
    [type(None), bool, int, float, complex, bytes, type(...), type(NotImplemented)]
)
PLAIN = IMMUTABLE | {str}
CONTAINERS = (dict, list, tuple, set, frozenset)

OF_CONTEXT = frozenset(["_contextvars.ContextVar", "_thread._local"])
"""Types whose objects hold something else in each context or thread; what they hold here counts."""

FROZEN = frozenset(
    [
        "decimal.Decimal",
        "fractions.Fraction",
        "datetime.date",
        "datetime.time",
        "datetime.datetime",
        "datetime.timedelta",
        "datetime.timezone",
        "uuid.UUID",
        "builtins.range",
        "builtins.slice",
        "zoneinfo.ZoneInfo",
        "Boost.Python.function",
        "inspect.Parameter",
        "inspect.Signature",
        "numpy.dtype",
        "builtins.classmethod_descriptor",
        "builtins.getset_descriptor",
        "builtins.member_descriptor",
        "builtins.method_descriptor",
        "builtins.wrapper_descriptor",
    ]
)
"""Types of other immutable values."""

CALLABLE = (
    *(FunctionType, type, MethodType, staticmethod, classmethod, property, partial),
    *(partialmethod, cached_property, BuiltinFunctionType, Transparent),
)
"""Types of values that are code."""

INWARD = ("__wrapped__", "py_func", "pyfunc", "func", "fget", "__func__")
"""Where objects of installed packages keep the function that they are made of."""

BY_TYPE = frozenset(
    [
        "_thread.lock",
        "_thread.RLock",
        "_thread._local",
        "_io.TextIOWrapper",
        "_io.BufferedReader",
        "_io.BufferedWriter",
        "_io.FileIO",
        "_contextvars.ContextVar",
        "weakref.WeakKeyDictionary",
        "weakref.WeakValueDictionary",
        "_weakrefset.WeakSet",
        "weakref.WeakSet",
        "weakref.ReferenceType",
        "functools._lru_list_elem",
        "os._Environ",
    ]
)
"""Types that say all there is to say of their objects."""

BY_TYPE_WITH_BASES = (
    ("logging", "Logger", "LoggerAdapter", "Handler", "Formatter"),
    ("threading", "Thread", "Condition", "Event", "Semaphore", "Barrier"),
    ("queue", "Queue"),
    ("warnings", "catch_warnings"),
)

OF_FUNCTIONS = frozenset(
    ["__annotations__", "__doc__", "__module__", "__name__", "__qualname__", "__wrapped__"]
)
"""What a descriptor takes over from the function that it is made of."""


class OwnKind(NamedTuple):
    """How objects of a class of the user's own are looked at.

    Attributes:
        cls: the class.
        base: the first of its bases that is not the user's own.
        left_out: attributes that do not count.
        cached: attributes that a ``cached_property`` fills.
        by_clock: attributes that methods set to what the clock returns.
        takes_digest: whether it says itself what its objects count by.
    """

    cls: type
    base: type
    left_out: frozenset[str]
    cached: frozenset[str]
    by_clock: frozenset[str]
    takes_digest: bool

    def seen(self, name: str, part: Any) -> Any:
        """Return what an attribute counts by, given what it holds."""
        return "by the clock" if name in self.by_clock and is_from_clock_now(part) else part


def own_kind(cls: type, *, is_special: bool) -> OwnKind:
    """Return how objects of a class are looked at.

    Args:
        cls: the class.
        is_special: whether they are not taken apart.
    """
    base = next(b for b in cls.__mro__ if b is object or not is_own_object(b))
    left_out = names_in_methods(cls) if is_special else {"__doc__"}
    members = {name: vars(b)[name] for b in reversed(cls.__mro__) for name in vars(b)}
    cached = frozenset(n for n, member in members.items() if isinstance(member, cached_property))
    by_clock = attributes_by_clock(cls)
    return OwnKind(cls, base, frozenset(left_out), cached, by_clock, "__digest__" in dir(cls))


def full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def is_by_type(kind: type) -> bool:
    """Whether the class of an object says all there is to say of it."""
    if full_name(kind) in BY_TYPE:
        return True
    return any(issubclass(kind, loaded_types(*found)) for found in BY_TYPE_WITH_BASES)


def member_of(kind: type, name: str) -> Any:
    """Return what a class has under a name, without asking a descriptor."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def names_in_methods(kind: type) -> set[str]:
    """Return the attributes that belong to bases from libraries: those that their methods name."""
    methods = [
        method
        for base in kind.__mro__
        if not is_own_object(base)
        for method in vars(base).values()
        if isinstance(method, FunctionType)
    ]
    return set().union(OF_FUNCTIONS, *(method.__code__.co_names for method in methods))


def is_interface(cls: type) -> bool:
    """Whether a base of the library says what its subclasses can do, and holds nothing."""
    return cls.__module__ in ("abc", "typing", "collections.abc", "typing_extensions")


def is_frozen(kind: type) -> bool:
    """Whether objects of a class never hold anything else."""
    of_numpy = loaded_types("numpy", "generic", "dtype", "ufunc")
    return full_name(kind) in FROZEN or issubclass(kind, of_numpy)


def is_callable_code(value: Any) -> bool:
    """Whether a value is code rather than data: a function, a class, or what stands for one."""
    kind: type = type(value)
    if isinstance(value, CALLABLE) and kind is not GenericAlias:
        return True
    return not is_own_object(type(value)) and inner_function(value) is not None


def inner_function(value: Any) -> Any:
    """Return the function that an object of an installed class is made of, or None."""
    if isinstance(value, (ModuleType, *CONTAINERS)) or type(value) in PLAIN:
        return None
    for name in INWARD:
        if isinstance(found := attribute_of(value, name), FunctionType):
            return found
    return None


def overloads_of(function: Any) -> list[FunctionType]:
    """Return what compiled functions call in place of one, as `numba.extending.overload` says."""
    templates = sys.modules.get("numba.core.typing.templates")
    registered = getattr(getattr(templates, "builtin_registry", None), "globals", ())
    found = (
        getattr(template, "_overload_func", None)
        for value, kind in registered
        if value is function
        for template in getattr(kind, "templates", ())
    )
    return [each for each in found if isinstance(each, FunctionType)]


def attribute_of(value: Any, name: str) -> Any:
    """Return what an object holds under a name, or None.

    Objects that load something when they are asked, or that answer to every name, are not asked.
    """
    member = member_of(type(value), name)
    if isinstance(member, (MemberDescriptorType, GetSetDescriptorType)):
        with suppress(Exception):  # what an object raises when it is looked into
            return member.__get__(value)
    with suppress(Exception):
        return object.__getattribute__(value, "__dict__").get(name)
    return None
