"""The Python and the packages that a call ran with."""

from __future__ import annotations

import dis
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from fleche._util import override, package_version
from fleche.call import legible_text
from fleche.function import Transparent, is_own_module
from fleche.metadata._base import MetaData

__all__ = ["Environment"]


class Environment(MetaData):
    """The interpreter and the versions of packages.

    Its data are ``python``, ``implementation``, ``platform``, ``executable``, ``cwd`` (the working
    directory) and ``packages``, a dict of versions.

    Args:
        packages: names of the packages, as they are installed or as they are imported; if not
            given, those that the function and the user's own code behind it import, at the top of
            modules or in bodies, as far as they are not of the standard library.
    """

    _is_plain = True

    def __init__(self, packages: Iterable[str] | None = None) -> None:
        self.packages = None if packages is None else tuple(packages)

    @override
    def finish(self) -> dict[str, Any]:
        """Look up the versions; each is looked up once in a process."""
        packages = imports_of(self.function) if self.packages is None else versions(self.packages)
        return {
            **_interpreter(sys.executable),
            "cwd": _working_directory(),
            "packages": dict(packages),
        }


class _Imports(NamedTuple):
    """What :func:`imports_of` has found.

    It holds while no module is imported, and no namespace grows or shrinks.
    """

    packages: dict[str, str]
    namespaces: list[Mapping[str, Any]]
    sizes: list[int]
    modules: int

    def is_current(self) -> bool:
        return len(sys.modules) == self.modules and list(map(len, self.namespaces)) == self.sizes


_found: weakref.WeakKeyDictionary[Any, _Imports] = weakref.WeakKeyDictionary()


def imports_of(function: Callable[..., Any] | None) -> dict[str, str]:
    """Return the versions of the packages that :func:`imported_by` names; looked up once."""
    try:
        known = _found.get(function)
    except TypeError:  # a callable object that has no hash, or takes no weak reference
        return versions(imported_by(function))
    if known is None or not known.is_current():
        names, namespaces = _find_imports(function)
        packages = versions(names)  # to look for them may import
        sizes = list(map(len, namespaces))
        known = _Imports(packages, namespaces, sizes, len(sys.modules))
        _found[function] = known
    return known.packages


def imported_by(function: Callable[..., Any] | None) -> list[str]:
    """Return the installed packages that a function, and the user's own code behind it, imports.

    These are the packages that the function's module imports, those that its functions import in
    their bodies, and the same for every module of the user's own that these lead to.
    """
    return _find_imports(function)[0]


def _find_imports(
    function: Callable[..., Any] | None,
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return what :func:`imported_by` does, and the namespaces that were looked through."""
    plain = inspect.unwrap(function) if callable(function) else None
    code = getattr(plain, "__code__", None)
    found = {name.partition(".")[0] for name in _imports_of_code(code)} if code else set()
    pending: list[Mapping[str, Any]] = [getattr(plain, "__globals__", {})]
    seen: dict[int, Mapping[str, Any]] = {}
    while pending:
        namespace = pending.pop()
        if id(namespace) in seen:
            continue
        seen[id(namespace)] = namespace
        for name in _modules_in(namespace):
            if is_own_module(name):
                pending.append(vars(sys.modules.get(name, sys)))
            else:
                found.add(name.partition(".")[0])
    names = (name for name in found if name not in _NO_PACKAGES and not is_own_module(name))
    return sorted(names), list(seen.values())


_NO_PACKAGES = {"", "__main__", "__mp_main__", *sys.stdlib_module_names}


def _modules_in(namespace: Mapping[str, Any]) -> set[str]:
    """Return the names of the modules that a namespace refers to, or imports in its functions."""
    found: set[str] = set()
    for value in list(namespace.values()):
        kind = type(value)  # a lazy object says that it is what it stands for, and makes it
        found.add(value.__name__ if issubclass(kind, ModuleType) else _module_of(value))
        if (
            issubclass(kind, (FunctionType, Transparent))
            and getattr(value, "__globals__", None) is namespace
        ):
            code = getattr(inspect.unwrap(value), "__code__", None)
            found.update(_imports_of_code(code) if code else ())  # or it is round a builtin
        elif issubclass(kind, type) and value.__module__ == namespace.get("__name__"):
            for member in list(vars(value).values()):
                if isinstance(member, FunctionType):
                    found.update(_imports_of_code(member.__code__))
    return found - {namespace.get("__name__")}


_IMPORT = dis.opmap["IMPORT_NAME"]


@functools.lru_cache(maxsize=4096)
def _imports_of_code(code: CodeType) -> frozenset[str]:
    """Return the modules that code imports in its body; relative imports stay in the package."""
    found = set(_imported_in(code)) if _IMPORT in code.co_code[::2] else set()  # few functions do
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _imports_of_code(constant)
    return frozenset(found - {""})


def _imported_in(code: CodeType) -> Iterator[str]:
    """Yield the modules that code imports.

    ``dis.get_instructions`` works out much more, which takes seconds for a large package.
    """
    if sys.version_info >= (3, 15):  # what it is told says also whether the import is lazy
        steps = dis.get_instructions(code)
        yield from (str(step.argval) for step in steps if step.opname == "IMPORT_NAME")
        return
    raw, more = code.co_code, 0
    for operation, argument in zip(raw[::2], raw[1::2], strict=True):
        name = argument | more
        if operation == _IMPORT:
            yield code.co_names[name]
        more = name << 8 if operation == dis.EXTENDED_ARG else 0


def _module_of(value: Any) -> str:
    # only of classes and functions: asking a lazy object for an attribute may have effects
    kind = type(value)
    is_own = issubclass(kind, type) or kind.__name__ in {"function", "ufunc", "builtin"}
    module = getattr(value, "__module__", None) if is_own else kind.__module__
    return module if isinstance(module, str) else ""


def _working_directory() -> str | None:
    try:
        found = os.getcwd()
    except OSError:  # it has been removed
        return None
    return found if found.isascii() else legible_text(found)


_versions: dict[str, str] = {}


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of the packages that have one."""
    found = {name: _versions.get(name) or _version(name) for name in names}
    return {legible_text(name): version for name, version in found.items() if version}


def _version(name: str) -> str | None:
    """Return the version of a package; that of one that is not there may be known later."""
    found = package_version(name)
    if found is None:
        return None
    _versions[name] = legible_text(found)
    return _versions[name]


@functools.cache
def _interpreter(executable: str | None) -> dict[str, str]:
    """Return what is the same for all calls of a process."""
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "platform": legible_text(_platform()),
        "executable": legible_text(executable or ""),
    }


def _platform() -> str:
    """Return what ``platform.platform()`` says, which runs ``uname``, and on macOS ``file``."""
    import platform

    if mac := platform.mac_ver()[0]:
        return f"macOS-{mac}-{os.uname().machine}"
    system = os.uname()
    libc = "".join(platform.libc_ver())
    shown = f"{system.sysname}-{system.release}-{system.machine}"
    return f"{shown}-with-{libc}" if libc else shown
