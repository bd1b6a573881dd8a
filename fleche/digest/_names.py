"""Things that are identified by their name: classes, and functions that rebuild objects."""

from __future__ import annotations

import sys
import types
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fleche._util import attempt

from ._registry import Node, node, register
from ._tokens import global_token

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = ["Named", "find_name", "is_made_up", "look_up", "own_module"]


REORGANISED = ("numpy", "pandas")
STDLIB = sys.stdlib_module_names
MADE_HERE = (1 << 9) | (1 << 10)
"""The flags of classes that are made at run time, and that may have subclasses."""

missing: set[str] = set()
"""Modules that cannot be imported."""


class Named:
    """A child that stands for its name, if it has one that leads back to it, else for itself."""

    __slots__ = ("obj",)

    def __init__(self, obj: object) -> None:
        self.obj = obj


def own_module(obj: Any) -> str:
    """Return the module that a function or class says it is from; the main one has one name."""
    module = getattr(obj, "__module__", None)
    return "__main__" if module == "__mp_main__" else str(module)


def find_name(obj: Any) -> tuple[str, str] | None:
    """Return the module and qualified name under which any process finds ``obj``, if it has one.

    There is none in ``__main__``, which is another module in every script, nor inside a function.
    Of a private module, such as ``pathlib._local``, and in packages that reorganise themselves, the
    outermost one is taken that offers the same thing under the same name.
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    if look_up(load(module), name) is not obj:
        return find_in_types(obj) if module == "builtins" else None
    parts = module.split(".")
    for length in range(1, len(parts)):
        if parts[length].startswith("_") or parts[0] in REORGANISED:
            public = ".".join(parts[:length])
            if look_up(public, name) is obj:
                return public, name
    return module, name


def is_made_up(obj: Any) -> bool:
    """Whether a class has been made by Python's own library on behalf of a program.

    It says that it is from there, as what `types.new_class`, some versions of `make_dataclass` or a
    metaclass makes does, but its name does not lead back to it.
    """
    if not isinstance(obj, type) or obj.__flags__ & MADE_HERE != MADE_HERE:
        return False
    return own_module(obj).partition(".")[0] in STDLIB and find_name(obj) is None


def find_in_types(obj: object) -> tuple[str, str] | None:
    """Return the name of a type of Python's own that is not among the builtins, such as None's."""
    names = [name for name, value in vars(types).items() if value is obj]
    return ("types", min(names)) if names else None


def load(module: str) -> str:
    """Import a module that an object claims to be from, as pickle does.

    Otherwise it would depend on what else has happened in the process whether the name leads back.
    """
    known = module in sys.modules or module in missing
    if not known and attempt(import_module, module) is None:
        missing.add(module)
    return module


def look_up(module: str, name: str) -> object:
    """Return what a loaded module has under a dotted name, or None."""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def describe_named(obj: Named, walk: Walk) -> bytes | Node:
    if (token := walk.note_code(obj.obj)) is not None:
        return token
    name = find_name(obj.obj)
    return global_token(*name) if name else node(b"unnamed", (obj.obj,))


register(Named, describe_named)
