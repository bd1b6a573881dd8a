"""Instances of dataclasses and named tuples: what they hold, and how they are made again."""

from __future__ import annotations

import copyreg
import dataclasses
import importlib
import sys
import types
from contextlib import suppress
from typing import Any

from fleche.errors import UnpackError

__all__ = ["class_name", "find_class", "is_namedtuple", "is_native", "make", "state_of"]

_BY_VALUE = ("__main__", "__mp_main__")
_REDUCING = ("__reduce__", "__reduce_ex__")


def is_native(cls: type) -> bool:
    """Tell whether instances of ``cls`` are no more than their attributes, and it has a name.

    A class that says itself how it is pickled knows better, and one of ``__main__`` or of a
    function is not found by others.
    """
    inherited = all(getattr(cls, name) is getattr(object, name) for name in _REDUCING)
    if not inherited or cls in copyreg.dispatch_table or class_name(cls) is None:
        return False
    if is_namedtuple(cls):
        return not _state_is_custom(cls)
    bare = dataclasses.is_dataclass(cls) and cls.__new__ is object.__new__
    return bare and not _state_is_custom(cls)


def is_namedtuple(cls: type) -> bool:
    """Tell whether ``cls`` is a named tuple."""
    fields = getattr(cls, "_fields", None)
    return issubclass(cls, tuple) and isinstance(fields, tuple) and hasattr(cls, "_make")


def state_of(obj: Any) -> dict[str, Any]:
    """Return all attributes that ``obj`` has of its own, in order."""
    if isinstance(obj, tuple):
        return dict(zip(type(obj)._fields, obj, strict=True))  # type: ignore[attr-defined]
    found = {}
    for name, slot in _slots(type(obj)):
        with suppress(AttributeError):  # a slot that was never set
            found[name] = slot.__get__(obj)
    return found | getattr(obj, "__dict__", {})


def make(cls: Any, state: dict[str, Any]) -> Any:
    """Return an instance of ``cls`` with these attributes; nothing of the class is run."""
    if is_namedtuple(cls):
        return tuple.__new__(cls, [state[name] for name in cls._fields])
    obj = object.__new__(cls)
    slots = {name for name, _ in _slots(cls)}
    for name, value in state.items():
        if name in slots:
            object.__setattr__(obj, name, value)
        else:
            obj.__dict__[name] = value
    return obj


def class_name(cls: type) -> str | None:
    """Return ``module:name``, if that is where ``cls`` is found."""
    module, name = cls.__module__, cls.__qualname__
    if module in _BY_VALUE or _look_up(sys.modules.get(module), name) is not cls:
        return None
    return f"{module}:{name}"


def find_class(path: str) -> type:
    """Return the class that ``module:name`` means.

    Raises:
        UnpackError: it cannot be imported, or is no longer what it was.
    """
    module, _, name = path.partition(":")
    try:
        found = _look_up(importlib.import_module(module), name)
    except ImportError as error:
        raise UnpackError(
            f"it needs the module {error.name or module!r}, which cannot be imported here"
        ) from error
    if not isinstance(found, type) or not is_native(found):
        raise UnpackError(f"{path} is no dataclass or named tuple here")
    return found


def _look_up(place: Any, name: str) -> Any:
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def _state_is_custom(cls: type) -> bool:
    for name in ("__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"):
        for base in cls.__mro__:
            if base in (tuple, object):
                continue
            method = vars(base).get(name)
            if method is not None and not _is_generated(method):
                return True
    return False


def _is_generated(method: Any) -> bool:
    """Tell whether a method is what :mod:`dataclasses` or :mod:`collections` gives to classes."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_filename in _GENERATORS


_GENERATORS = {
    dataclasses.dataclass.__code__.co_filename,
    sys.modules["collections"].namedtuple.__code__.co_filename,
}


def _slots(cls: type) -> list[tuple[str, Any]]:
    return [
        (name, slot)
        for base in cls.__mro__
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType) and slot.__objclass__ is base
    ]
