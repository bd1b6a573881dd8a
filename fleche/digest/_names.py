"""Things that are identified by their name: classes, and functions that rebuild objects.

So are bare objects, as a program makes them to have something that is nothing else: they mean what
has a name, in a module or a class of it. One without a name has no digest if it stands alone; what
has it as a part has made it for itself.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fleche._util import attempt
from fleche.digest._registry import Node, node, register
from fleche.digest._source import remember_file
from fleche.digest._tokens import global_token
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "HEAP",
    "Named",
    "array_of",
    "check_bare",
    "find_name",
    "is_made_up",
    "look_up",
    "name_of_bare",
    "own_module",
]


REORGANISED = ("numpy", "pandas")
STDLIB = sys.stdlib_module_names
HEAP = 1 << 9
"""The flag of a class that Python code may have made."""

MADE_HERE = HEAP | (1 << 10)
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
    if not isinstance(module, str) or not isinstance(name, str) or own_module(obj) == "__main__":
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


def array_of(cls: type) -> tuple[Any, int] | None:
    """Return the type and the number of the elements if a class is that of arrays of ctypes.

    Such a class is made where it is first written, as ``c_double * 3``, and says it is from there.
    """
    if type(cls).__module__ != "_ctypes":
        return None
    own: Any = vars(cls)
    element, length = own.get("_type_"), own.get("_length_")
    try:
        return (element, length) if element * length is cls else None
    except TypeError:
        return None


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
    """Return what a loaded module has under a dotted name, or None.

    A module that makes names when they are asked for may raise, or warn of some: also as an error.
    """
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = attempt(getattr, found, part)
    return found


MANY_BARE = 1000

bare: dict[int, tuple[object, tuple[str, str] | None]] = {}
"""Where bare objects were found, by their id; the object is kept beside."""


def name_of_bare(obj: object) -> tuple[str, str] | None:
    """Return the module and the name under which a bare object is found, if there is one.

    Of several modules that have it, that one counts which defines it: what else is loaded does not
    matter.
    """
    known = bare.get(id(obj))
    if known is not None and (known[1] is None or look_up(*known[1]) is obj):
        return known[1]
    homes = sorted(find_homes(obj))
    if len(homes) > 1:
        homes = [home for home in homes if is_defined_in(*home)] or homes
    found = homes[0] if homes else None
    if len(bare) >= MANY_BARE:
        bare.clear()
    bare[id(obj)] = (obj, found)
    return found


def find_homes(obj: object) -> Iterator[tuple[str, str]]:
    """Yield the names under which loaded modules and their classes hold an object."""
    for module, loaded in list(sys.modules.items()):
        if not issubclass(type(loaded), types.ModuleType):
            continue
        place = "__main__" if module == "__mp_main__" else module
        for name, value in list(object.__getattribute__(loaded, "__dict__").items()):
            if value is obj:
                yield place, name
            elif issubclass(type(value), type) and vars(value).get("__module__") == module:
                yield from ((place, f"{name}.{key}") for key in keys_of(obj, vars(value)))


def keys_of(obj: object, namespace: Any) -> list[str]:
    return [key for key, value in namespace.items() if value is obj]


def is_defined_in(module: str, name: str) -> bool:
    """Whether the text of a module makes a bare object of that name."""
    namespace = vars(sys.modules[module])
    text = remember_file(str(namespace.get("__file__")), namespace)
    last = re.escape(name.rpartition(".")[2])
    return re.search(rf"^[^#\n]*\b{last}\b[^#\n]*=\s*object\(\)", text, re.MULTILINE) is not None


def describe_bare(obj: object, _walk: Walk) -> Node:
    return node(b"bare object", name_of_bare(obj) or ())


def check_bare(obj: object, name: str) -> None:
    """Refuse a bare object that stands alone, and that no name leads to.

    One that is a part of something else is as good as another: only what has made it knows it.

    Raises:
        Indigestible: it is one.
    """
    if name_of_bare(obj) is None:
        raise Indigestible(
            f"{name}: a bare object() is equal to itself only; give it a name in a module or in a "
            "class of it, or pass None, a text or a member of an enumeration"
        )


def describe_named(obj: Named, walk: Walk) -> bytes | Node:
    if (token := walk.note_code(obj.obj)) is not None:
        return token
    name = find_name(obj.obj)
    return global_token(*name) if name else node(b"unnamed", (obj.obj,))


register(object, describe_bare)
register(Named, describe_named)
