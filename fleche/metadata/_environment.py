"""The Python and the packages that a call ran with."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from fleche.metadata._base import MetaData

__all__ = ["Environment"]


class Environment(MetaData):
    """The interpreter and the versions of packages.

    Its data are ``python``, ``implementation``, ``platform`` and ``packages``, a dict of versions.

    Args:
        packages: names of the packages, as they are installed or as they are imported; if not
            given, those that the module of the function has imported, as far as they are not of
            the standard library.
    """

    def __init__(self, packages: Iterable[str] | None = None) -> None:
        self.packages = None if packages is None else tuple(packages)

    def finish(self) -> dict[str, Any]:
        """Look up the versions; each is looked up once in a process."""
        wanted = self.packages if self.packages is not None else imported_by(self.function)
        versions = {name: _version(name) for name in wanted}
        return {
            "python": ".".join(map(str, sys.version_info[:3])),
            "implementation": sys.implementation.name,
            "platform": _platform(),
            "packages": {name: version for name, version in versions.items() if version},
        }


def imported_by(function: Callable[..., Any] | None) -> list[str]:
    """Return the packages, other than the standard library, in the globals of ``function``."""
    found: set[str] = set()
    for value in list(getattr(function, "__globals__", {}).values()):
        module = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
        found.add(module.partition(".")[0])
    own = (getattr(function, "__module__", None) or "").partition(".")[0]
    return sorted(found - {"", "__main__", own} - sys.stdlib_module_names)


def _module_of(value: Any) -> str:
    # only of classes and functions: asking a lazy object for an attribute may have effects
    if isinstance(value, type) or type(value).__name__ in {"function", "ufunc", "builtin"}:
        module = getattr(value, "__module__", None)
        return module if isinstance(module, str) else ""
    module = type(value).__module__
    return module if isinstance(module, str) else ""


@functools.cache
def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except (PackageNotFoundError, ValueError):
        found = getattr(sys.modules.get(name), "__version__", None)
        return found if isinstance(found, str) else None


@functools.cache
def _platform() -> str:
    import platform

    return platform.platform()
