"""Shared libraries that ctypes and cffi have loaded, and their functions.

A library of the user's own counts by the bytes of its file as it was when it was first met, and any
other by its name. With it count the types of results and arguments that the program has set.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from fleche._util import loaded_types
from fleche.function._own import is_in_prefix, is_own
from fleche.function._whole import digest_of_file, files_named

__all__ = [
    "SUFFIXES",
    "extension_of",
    "is_native",
    "libraries_named",
    "library_of",
    "made_of",
    "set_types",
]

SUFFIXES = (".so", ".dylib", ".dll")
MODULES = frozenset(["ctypes", "_ctypes", "cffi.api", "_cffi_backend"])
OF_CFFI = "FFILibrary_"
"""How cffi begins the name of the class that it makes for a library, before the file."""

PARTS = ("restype", "argtypes", "errcheck")

known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""By what counts each library that was met: a loaded one stays what it is."""


def is_native(kind: type) -> bool:
    """Whether a class is one of libraries, or of their functions."""
    if kind.__module__ not in MODULES:
        return False
    return kind.__name__.startswith(OF_CFFI) or is_of_ctypes(kind)


def is_of_ctypes(kind: type) -> bool:
    return issubclass(kind, loaded_types("ctypes", "CDLL", "_CFuncPtr"))


def library_of(value: Any) -> str | None:
    """Return what the file of a library counts by; None of what is no library."""
    kind = type(value)
    if kind.__name__.startswith(OF_CFFI):
        name: Any = kind.__name__.removeprefix(OF_CFFI)
    elif hasattr(value, "_handle"):
        name = value._name  # noqa: SLF001
    else:
        return None
    if value not in known:
        known[value] = token_of_file(name) if isinstance(name, str) else "of the process"
    return known[value]


def token_of_file(name: str) -> str:
    searched = (
        [] if os.path.dirname(name) else [os.path.join(d, name) for d in searched_by_dlopen()]
    )
    for path in (name, *searched):
        if os.path.dirname(path) and os.path.isfile(path) and is_own_library(path):
            return f"{os.path.basename(path)} {digest_of_file(path)}"
    return name


def searched_by_dlopen() -> Iterator[str]:
    """Yield the directories of the user where the system looks for a library without one."""
    for variable in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        yield from filter(None, os.environ.get(variable, "").split(os.pathsep))
    if sys.platform == "darwin":
        yield os.curdir
    yield from filter(None, os.environ.get("DYLD_FALLBACK_LIBRARY_PATH", "").split(os.pathsep))


def is_own_library(path: str) -> bool:
    absolute = os.path.abspath(path)
    return is_own("", absolute) and not is_in_prefix(absolute)


def extension_of(module: ModuleType) -> ModuleType:
    """Return a module; of what cffi has compiled, which claims to be one, that it belongs to."""
    if type(module).__module__ != "_cffi_backend":
        return module
    name: str = module.__name__.rpartition(".")[0]
    return sys.modules.get(name, module)


def libraries_named(
    texts: Iterable[str], directory: str, others: Callable[[], Iterable[str]] = tuple
) -> list[str]:
    """Return the files of own libraries that texts name, from here or from a directory."""
    return list(filter(is_own_library, files_named(texts, directory, SUFFIXES, others)))


def made_of(value: Any) -> Iterator[Any]:
    """Yield what a function of a library is made of: its name and types, the library, functions."""
    kind = type(value)
    if library_of(value) is None:
        yield getattr(value, "__name__", "")
        yield getattr(kind, "_restype_", None)
        yield getattr(kind, "_argtypes_", None)
        held = [*(value._objects or {}).values(), *gc.get_referents(value)]  # noqa: SLF001
        codes = (FunctionType, MethodType)
        yield from (each for each in held if isinstance(each, codes) or hasattr(each, "_handle"))


def set_types(function: Any) -> list[tuple[str, Any]]:
    """Return which types of a function in C the program has set, and to what."""
    defaults = (getattr(type(function), "_restype_", None), None, None)
    found = [(name, getattr(function, name, None)) for name in PARTS]
    return [one for one, default in zip(found, defaults, strict=True) if one[1] is not default]
