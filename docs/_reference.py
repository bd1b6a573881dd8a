"""Write the pages of the reference: one for every package, each name on one of them only.

Public is what a package's `__init__` exports. A name that a family such as `fleche.caches` has from
a package below it is explained on the family's page, where people import it from. Wherever else a
name can be imported from, the front page `fleche` above all, there is a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from types import ModuleType

import fleche

PACKAGE = "fleche"


def write(directory: Path) -> None:
    """Write `<name>.rst` for every package, and for every public module that is in none."""
    rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    homes = _homes()
    for name, module in _modules().items():
        own, links = [], []
        for public in _public(module):
            home = homes[public, id(getattr(module, public))]
            if home == name:
                own.append(public)
            else:
                links.append(f"{home}.{public}")
        if own or name == PACKAGE:
            heirs = [each for each in own if _is_heir(module, each)]
            (directory / f"{name}.rst").write_text(_page(name, own, heirs, links))


def _page(name: str, own: list[str], heirs: list[str], links: list[str]) -> str:
    lines = [name, "=" * len(name), "", f".. automodule:: {name}"]
    if rest := [each for each in own if each not in heirs]:
        lines.append(f"   :members: {', '.join(rest)}")
    for heir in heirs:
        lines += ["", f".. autoclass:: {name}.{heir}", "   :members:"]
        lines.append(f"   :inherited-members: {', '.join(sorted(_EXPLAINED_ELSEWHERE))}")
    if links:
        lines += ["", "Explained where they live:", ""]
        lines += [f"* :py:obj:`{link}`" for link in links]
    return "\n".join([*lines, ""])


def _is_heir(module: ModuleType, name: str) -> bool:
    """Whether a class has its methods from one that no reader is sent to."""
    value = getattr(module, name)
    if not isinstance(value, type):
        return False
    homes = _homes()
    for base in value.__bases__:
        home = homes.get((base.__name__, id(base)))
        if base.__module__.startswith(f"{PACKAGE}.") and home is None:
            return True
    return False


_EXPLAINED_ELSEWHERE = {"object", "str", "tuple", "BaseException", "Generic", "ABC", "Struct"}


@cache
def _homes() -> dict[tuple[str, int], str]:
    """Where each public name is explained: a family before what is in it, the front page last."""
    homes: dict[tuple[str, int], str] = {}
    modules = _modules()
    for name in sorted(modules, key=lambda name: (name == PACKAGE, name.count("."), name)):
        for public in _public(modules[name]):
            value = getattr(modules[name], public)
            homes.setdefault((public, id(value)), _origin(name, value))
    return homes


def _origin(name: str, value: object) -> str:
    """The module that defines `value`, unless it is inside the package `name`, or hides it."""
    defined = getattr(value, "__module__", None)
    module = _modules().get(defined) if isinstance(defined, str) else None
    if module is None or module.__name__.startswith(f"{name}."):
        return name
    return module.__name__ if getattr(value, "__name__", None) in _public(module) else name


def _public(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


@cache
def _modules() -> dict[str, ModuleType]:
    return {name: import_module(name) for name in sorted(_names())}


def _names() -> Iterator[str]:
    for root in map(Path, fleche.__path__):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            parts = parts[:-1] if is_package else parts
            public = not any(part.startswith("_") for part in parts)
            if public and (is_package or len(parts) == 1):
                yield ".".join((PACKAGE, *parts))
