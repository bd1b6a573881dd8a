"""Whose code it is: the user's own, or installed.

That is decided by place. Installed is what lies in the standard library or in a directory of
installed packages (``site-packages`` and its kin, wherever they are), and what has no file but
belongs to Python. All else is the user's own, editable installs included. A function is judged by
its globals, never by its ``__module__``, which decorators copy from what they wrap.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib import util as importlib_util
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from types import MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import Any

from fleche._util import attempt
from fleche.digest import HEAP, find_name, is_made_up

__all__ = [
    "directory_of",
    "extension_file",
    "file_of",
    "is_in_prefix",
    "is_made_here",
    "is_made_in_c",
    "is_missing",
    "is_own",
    "is_own_module",
    "is_own_namespace",
    "is_own_object",
    "module_name",
    "places_of",
]

PACKAGE = __name__.partition(".")[0]
INSTALLED = frozenset(["site-packages", "dist-packages"])
SYSTEM = (
    *("/lib/", "/lib32/", "/lib64/", "/gnu/store/", "/nix/store/"),
    *("/System/", "/Library/", "C:\\Windows\\"),
)
USR = "/usr"
KEPT = frozenset(
    [
        "bin",
        "DLLs",
        "include",
        "lib",
        "lib32",
        "lib64",
        "libexec",
        "Library",
        "opt",
        "sbin",
        "share",
    ]
)
"""The directories of a prefix that hold what is installed."""

MAIN = ("__main__", "__mp_main__")


def module_name(namespace: Mapping[str, Any]) -> str:
    """Return the name of the module whose globals these are; the main module has one name."""
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return "?"
    return "__main__" if name == "__mp_main__" else name


def is_own_namespace(namespace: Mapping[str, Any]) -> bool:
    """Whether code with these globals is the user's own."""
    name = namespace.get("__name__")
    file = namespace.get("__file__")
    if not isinstance(name, str):
        return True  # made by exec
    if not isinstance(file, str):
        spec = namespace.get("__spec__")
        file = getattr(spec, "origin", None)
        if getattr(spec, "submodule_search_locations", None) and file is None:
            file = next(iter(spec.submodule_search_locations), None)  # type: ignore[union-attr]
    return is_own(name, file if isinstance(file, str) else "")


def is_own_module(name: str) -> bool:
    """Whether a module, which need not be loaded, is the user's own."""
    module = sys.modules.get(name)
    if module is not None:
        return is_own_namespace(vars(module))
    top = name.partition(".")[0]
    if top != name and is_of_python(top):
        return False
    spec = attempt(importlib_util.find_spec, name)  # it imports the packages above
    if spec is None:
        return False
    return is_own(name, file_of(spec))


def file_of(spec: ModuleSpec) -> str:
    return spec.origin or next(iter(places_of(spec)), "")


def places_of(spec: ModuleSpec | None) -> list[str]:
    """Return the directories of a package."""
    return list((spec and spec.submodule_search_locations) or ())


def is_of_python(top: str) -> bool:
    """Whether a name is one of the standard library, and no own module of this name hides it."""
    return top in sys.stdlib_module_names and not is_own_module(top)


def is_missing(name: str) -> bool:
    """Whether there is no module of this name, neither the user's own nor an installed one."""
    top = name.partition(".")[0]
    if sys.modules.get(name) is not None or is_of_python(top):
        return False
    return attempt(importlib_util.find_spec, name) is None


def is_own_object(obj: Any) -> bool:
    """Whether a class or another object that names its module is the user's own."""
    module = getattr(obj, "__module__", None)
    if not isinstance(module, str):
        return False
    if module in MAIN:
        return True
    top = module.partition(".")[0]
    loaded = sys.modules.get(module) or sys.modules.get(top)
    has_file = loaded is not None and vars(loaded).get("__file__")
    if not has_file and isinstance(obj, type) and is_made_in_c(obj):
        return False
    if loaded is None:
        return top not in sys.stdlib_module_names
    return is_own_namespace(vars(loaded)) or is_made_up(obj)


def is_made_here(obj: Any) -> bool:
    """Whether something is a class that an installed package has made for the program.

    As ``astropy.modeling.custom_model`` does, of a function. The class says that it is from there,
    but its name does not lead to it.
    """
    return isinstance(obj, type) and bool(obj.__flags__ & HEAP) and find_name(obj) is None


def is_made_in_c(cls: type) -> bool:
    """Whether a class comes from an extension module: some of its methods are in C, and its own.

    It may name a module that is no file, as those do that the modules of Cython share.
    """
    return any(
        isinstance(member, (WrapperDescriptorType, MethodDescriptorType))
        and member.__objclass__ is cls
        for member in vars(cls).values()
    )


@cache
def is_own(name: str, file: str) -> bool:
    """Whether a module of this name, in this file if it has one, is the user's own."""
    top = name.partition(".")[0]
    if top == PACKAGE:
        return False
    if name in MAIN and not file:
        return True
    if not file or file in ("built-in", "frozen"):
        return top not in sys.stdlib_module_names and top not in sys.builtin_module_names
    site, entry = place_in_site(file)
    if site:
        return is_linked_home(site, entry)
    path = os.path.abspath(file)
    return not path.startswith(installed_roots())


def place_in_site(file: str) -> tuple[str, str]:
    """Return the directory of packages that a path is in, and its entry there; "" for neither."""
    parts = file.split(os.sep)
    inside = [number for number, part in enumerate(parts, 1) if part in INSTALLED]
    end = inside[-1] if inside else 0
    return os.sep.join(parts[:end]), parts[end] if inside and end < len(parts) else ""


@cache
def is_linked_home(site: str, entry: str) -> bool:
    """Whether what is in a directory of packages is a link that the user has made to own code.

    Stores of packages are linked from there, too: they are in directories of packages themselves,
    in those of the system, or a distribution that is no editable one lists what is linked.
    """
    path = os.path.join(site, entry)
    if not entry or not os.path.islink(path):
        return False
    real = os.path.realpath(path)
    return is_own("", real) and not is_in_prefix(real) and not is_distributed(site, entry)


def is_distributed(site: str, entry: str) -> bool:
    """Whether a distribution has installed what is in a directory of packages."""
    from importlib import metadata  # slow to import

    for each in metadata.distributions(path=[site]):
        record = f"\n{each.read_text('RECORD') or ''}"
        tops = (each.read_text("top_level.txt") or "").split()
        if entry.partition(".")[0] in tops or any(f"\n{entry}{end}" in record for end in "/,"):
            origin = "".join((each.read_text("direct_url.json") or "").split())
            return '"editable":true' not in origin
    return False


def is_in_prefix(path: str) -> bool:
    """Whether a path lies where a system or an environment keeps what is installed.

    A project may lie below a prefix, too, as in ``/usr/src`` or in ``src`` of an environment.
    """
    if path.startswith(SYSTEM):
        return True
    prefixes = {sys.prefix, sys.base_prefix, os.path.join(USR, "local"), USR}
    for prefix in sorted(prefixes, key=len, reverse=True):
        if path.startswith(os.path.join(prefix, "")):
            parts = os.path.relpath(path, prefix).split(os.sep)[:-1]
            return not parts or (parts[0] != "src" and not KEPT.isdisjoint(parts))
    return False


@cache
def installed_roots() -> tuple[str, ...]:
    """Return the directories of the standard library and of installed packages."""
    import site
    import sysconfig

    paths = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.add(site.getusersitepackages())
    with_links = {os.path.realpath(path) for path in paths if path}
    absolute = {os.path.abspath(path) for path in paths if path}
    return tuple(sorted(os.path.join(path, "") for path in with_links | absolute))


def extension_file(module: ModuleType | None) -> str:
    """Return the file of a module that was compiled to machine code; "" if it is none."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str) and file.endswith(tuple(EXTENSION_SUFFIXES)):
        return file
    return ""


def directory_of(namespace: Mapping[str, Any]) -> str:
    """Return the directory of a module's file; "" if it has none."""
    file = namespace.get("__file__")
    return os.path.dirname(os.path.abspath(file)) if isinstance(file, str) else ""
