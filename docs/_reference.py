"""Write the pages of the reference: one for every package, each name on one of them only.

Public is what a package's `__init__` exports, some of it for other packages of fleche only. A name
is explained here if a page for users mentions it, or if what is explained takes it, returns it or
is a base of it. A name that a family such as `fleche.caches` has from a package below it is
explained on the family's page, where people import it from. Wherever else a name can be imported
from, there is a link. The front page `fleche` says of each of its names in a sentence what it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from types import FunctionType, ModuleType
from typing import Any, get_args

from sphinx.pycode import ModuleAnalyzer

import fleche

PACKAGE = "fleche"
PAGES = Path(__file__).parent


def write(directory: Path) -> None:
    """Write `<name>.rst` for every package, and for every public module that is in none."""
    rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    homes = _homes()
    (directory / f"{PACKAGE}.rst").write_text(_front_page())
    for name, module in _modules().items():
        if name == PACKAGE:
            continue
        own, links = [], []
        for public in sorted(_public(module), key=_in_reading_order):
            if public not in _explained():
                continue
            home = homes[public, id(getattr(module, public))]
            if home == name:
                own.append(public)
            else:
                links.append(f"{home}.{public}")
        if own:
            heirs = [each for each in own if _is_heir(module, each)]
            (directory / f"{name}.rst").write_text(_page(name, own, heirs, links))


def _page(name: str, own: list[str], heirs: list[str], links: list[str]) -> str:
    lines = [name, "=" * len(name), "", f".. automodule:: {name}"]
    for each in own:
        value = getattr(_modules()[name], each)
        if text := _text_of_data(name, each):
            lines += ["", f".. py:data:: {each}", f"   :module: {name}", ""]
            lines += [f"   {line}".rstrip() for line in text]
        elif not isinstance(value, type):
            kind = "autofunction" if isinstance(value, FunctionType) else "autodata"
            lines += ["", f".. {kind}:: {name}.{each}"] + ["   :no-value:"] * (kind == "autodata")
        else:
            kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
            lines += ["", f".. {kind}:: {name}.{each}", "   :members:"]
            if each in heirs:
                lines.append(f"   :inherited-members: {', '.join(sorted(_EXPLAINED_ELSEWHERE))}")
    if links:
        lines += ["", "Explained where they live:", ""]
        lines += [f"* :py:obj:`{link}`" for link in links]
    return "\n".join([*lines, ""])


def explained_at(name: str) -> str:
    """Where a name of the front page, as `fleche.File`, is explained; any other name as it is."""
    package, _, short = name.partition(".")
    if package != PACKAGE or short not in _public(fleche):
        return name
    value = getattr(fleche, short)
    return name if isinstance(value, ModuleType) else f"{_homes()[short, id(value)]}.{short}"


def _front_page() -> str:
    """The names that most programs need, by what they are, each with a sentence and a link."""
    groups: dict[str, list[str]] = {
        "Functions": [],
        "Markers of parameters": [],
        "Classes": [],
        "Errors and warnings": [],
    }
    own = []
    for name in sorted({*_public(fleche), "open"} - {"__version__"}, key=_in_reading_order):
        value = getattr(fleche, name)
        home = _homes()[name, id(value)]
        if isinstance(value, ModuleType):  # one that can be called
            home, value = value.__name__, getattr(value, name)
        if isinstance(value, type) and issubclass(value, Exception):
            group = "Errors and warnings"
        elif isinstance(value, type) and name[0].isupper():
            group = "Classes"
        elif isinstance(value, (type, FunctionType)):
            group = "Functions"
        else:
            group = "Markers of parameters"
        if home == PACKAGE:
            own += ["", f".. autoclass:: {home}.{name}", "   :members:"]
        text = _text_of_data(home, name) or (value.__doc__ or "").split("\n")
        groups[group].append(f"* :py:obj:`{name} <{home}.{name}>`: {_first_sentence(text)}")
    lines = [PACKAGE, "=" * len(PACKAGE), "", f".. automodule:: {PACKAGE}"]
    for heading, names in groups.items():
        lines += ["", heading, "-" * len(heading), "", *names]
    return "\n".join([*lines, *own, ""])


def _in_reading_order(name: str) -> tuple[bool, bool, str]:
    return name != PACKAGE, name not in _public(fleche), name.lower()


_CONTRIBUTE = {"architecture.md", "protocol.md"}
"""Pages that are not for users."""


@cache
def _explained() -> frozenset[str]:
    """Return the names that pages for users mention, and those that lead on from there."""
    known: dict[str, list[object]] = {}
    heirs: dict[str, set[str]] = {}
    for module in _modules().values():
        for name in _public(module):
            value = getattr(module, name)
            known.setdefault(name, []).append(value)
            for base in getattr(value, "__mro__", ()):
                heirs.setdefault(base.__name__, set()).add(name)
    found: set[str] = set()
    waiting = (_mentioned() | {*_public(fleche)}) & known.keys()
    while waiting:
        name = waiting.pop()
        found.add(name)
        led_to = heirs.get(name, set()).union(*map(_words_of, known[name]))
        waiting |= (led_to & known.keys()) - found
    return frozenset(found)


def _mentioned() -> set[str]:
    """Return every word that pages for users have in code."""
    texts = [
        path.read_text(encoding="utf-8")
        for path in PAGES.rglob("*")
        if path.suffix in {".md", ".ipynb"} and path.name not in _CONTRIBUTE
        if "_build" not in path.parts
    ]
    code = re.findall(r"```.*?```|`[^`\n]+`|\"[^\"\n]*\"", "\n".join(texts), re.DOTALL)
    return set(re.findall(r"\w+", " ".join(code)))


def _words_of(value: object) -> set[str]:
    """Return the words of signatures, and those that docstrings have in code."""
    parts: list[object] = [*get_args(value)]  # of an alias of a type
    for each in getattr(value, "__mro__", (value,)):
        if not str(getattr(each, "__module__", "")).startswith(PACKAGE):
            continue
        members = vars(each) if isinstance(each, type) else {"": each}
        parts += [getattr(each, "__name__", ""), *members.get("__annotations__", {}).values()]
        parts += map(str, members.get("__orig_bases__", ()))
        parts += re.findall("`([^`]+)`", each.__doc__ or "")
        for name, member in members.items():
            if name == "__init__" or not name.startswith("_"):
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                parts += (getattr(function, "__annotations__", None) or {}).values()
                parts += re.findall("`([^`]+)`", getattr(function, "__doc__", "") or "")
    return set(re.findall(r"\w+", " ".join(getattr(part, "__name__", str(part)) for part in parts)))


def _first_sentence(text: list[str]) -> str:
    paragraph = " ".join(line.strip() for line in text).split("  ")[0].strip()
    return re.split(r"(?<=[.)]) (?=[A-Z`])", paragraph)[0]


def _text_of_data(home: str, name: str) -> list[str]:
    """What stands below an assignment; autodoc looks for it in the module that is imported from."""
    value: Any = getattr(_modules()[home], name)
    if isinstance(value, (type, FunctionType, ModuleType)):
        return []
    for module in [each for each in sys.modules if each.startswith(f"{PACKAGE}.")]:
        if vars(sys.modules[module]).get(name) is value:
            found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
            if found:
                return found
    return []


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
