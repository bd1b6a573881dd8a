"""Modules whose names are made at run time, as by ``import_module(f"models.{name}")``.

Which ones these may be is told from texts: those of the code, of its variables and of the
arguments that name a module, and the beginnings of names; also those that name a file of Python, as
``runpy.run_path`` and ``subprocess.run`` are told it. Such modules are not imported for that, since
a text may name a program by chance. They count by the syntax of their files, together with the
user's own modules that these import. What a body runs, it reads at each call, and so it is looked
at again then; a module that is loaded stays what it was.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib import util as importlib_util
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

from fleche._util import attempt
from fleche.digest import full_name
from fleche.function._facts import Facts, Import
from fleche.function._names import IMPORTERS, RUNNERS
from fleche.function._own import directory_of, is_own, is_own_object
from fleche.function._recheck import Datum
from fleche.function._whole import (
    Source,
    digest_of_file,
    keep_sources,
    source_of,
    source_of_loaded,
)

__all__ = ["ImportsByName", "absolute", "file_state", "modules_in", "take_from", "texts_in"]

IMPORTING = (import_module, __import__)
STARTING = "subprocess"
"""The module that starts programs, which may be files of Python."""

MANY = 2_000
MANY_TEXTS = 10_000
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class ImportsByName:
    """The imports by names that are made at run time, and what these may be.

    Attributes:
        is_used: whether there are any.
        names: modules that are named elsewhere, as in the arguments of a call.
    """

    def __init__(self) -> None:
        self.is_used = False
        self.names: set[str] = set()
        self._texts: set[str] = set()
        self._files: dict[str, str] = {}
        self._started = False
        self._runs = False
        self._anew: list[str] = []

    def note(self, facts: Facts, namespace: Mapping[str, Any]) -> None:
        """Note what a function imports so, and the texts in it."""
        self._texts.update(facts.texts)
        self._files |= files_named(facts.texts, directory_of(namespace))
        self._started |= any(each.module == STARTING for each in facts.imports)
        called = {*facts.attributes, *(each.name for each in facts.imports)}
        self._runs |= not called.union(*facts.loads).isdisjoint(RUNNERS)
        for root, *_ in facts.loads:
            value = namespace.get(root)
            if issubclass(type(value), (FunctionType, type)):
                self._started |= value.__module__ == STARTING
            self._started |= value is not None and value is sys.modules.get(STARTING)
        for level, beginning in facts.imports_by_name:
            self.is_used = True
            package = absolute(Import(level, "", "", ""), namespace) if level else ""
            prefix = f"{package}.{beginning}" if package else beginning
            self.names |= modules_beginning_with(prefix) if prefix else set()
        for root, *tail in facts.loads:  # under another name, which does not show what it imports
            if not tail and root not in IMPORTERS:
                self.is_used |= any(namespace.get(root) is each for each in IMPORTING)

    def parts(self, values: Iterable[Any]) -> dict[str, str]:
        """Return by name what counts of modules, of which texts in ``values`` may be names, too."""
        if not (self.is_used or self._started):
            return {}
        told = set(texts_in(values))
        files = {**self._files, **files_named(told, "")}
        names = self.names | modules_named(self._texts | told) if self.is_used else set()
        runs = self._runs or self._started
        found, anew = parts_of_modules(names, files, runs=runs, apart=self._started)
        self._anew = sorted(anew) if runs else []
        return found

    def data(self) -> list[Datum]:
        """Return what to look at again at each call: the files that it would run then.

        What a body itself does to them is no change of the data of a module.
        """
        files = self._anew
        if not files:
            return []
        return [Datum("files that are run", files, said_by(files), said_by, settles=always)]


def said_by(files: list[str]) -> str:
    """Return what stands for what some files say."""
    return " ".join(map(part_of_file, files))


def part_of_file(file: str) -> str:
    return source_of(file).syntax if file.endswith(".py") else digest_of_file(file)


def always(_value: object, _token: str) -> bool:
    return True


def modules_in(texts: Iterable[str]) -> list[Import]:
    """Return what stands for the modules that texts in arguments name."""
    return [named_module(name) for name in sorted(modules_named(texts))]


def absolute(item: Import, namespace: Mapping[str, Any]) -> str:
    """Return the full name of the module that an import names."""
    return full_name(namespace.get("__package__") or "", item.level, item.module)


def take_from(module: ModuleType, name: str) -> None:
    """Import a submodule that ``from module import name`` would import."""
    if attempt(getattr, module, name, default=attempt) is attempt:
        attempt(import_module, f"{module.__name__}.{name}")


@cache
def named_module(name: str) -> Import:
    """Return what stands for a module that an argument names, the same for each such argument."""
    return Import(0, name, "", "")


def texts_in(values: Iterable[Any]) -> Iterator[str]:
    """Yield the texts in values: in containers, and in attributes of the user's own objects."""
    pending, seen = list(values), set[int]()
    while pending and len(seen) < MANY_TEXTS:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        if isinstance(value, (str, int, float, bytes)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            pending += value
        elif type(value).__module__.partition(".")[0] == "pathlib":
            yield str(value)
        elif is_own_object(type(value)) or type(value).__module__ in ("argparse", "types"):
            held = attempt(getattr, value, "__dict__", default={})
            pending += list(held.values())


def modules_named(texts: Iterable[str]) -> set[str]:
    """Return the own modules that texts name, also with an object behind, as ``"a.b:c"`` does.

    Of packages, all that is in them is returned.
    """
    found: set[str] = set()
    for text in {text.lstrip(".") for text in texts if len(text) <= 200}:
        name = text.partition(":")[0]
        for module in (name, name.rpartition(".")[0]) if _NAME.fullmatch(name) else ():
            if module not in ("", "__main__") and own_spec(module) is not None:
                found |= {module, *modules_beginning_with(f"{module}.")}
                break
    return found


def files_named(texts: Iterable[str], directory: str) -> dict[str, str]:
    """Return the own files of Python that texts name, by their names.

    Args:
        texts: of them, those in one path may stand apart, as ``os.path.join`` gets them.
        directory: what they may be relative to; "" if they are whole.
    """
    names = {text for text in texts if text.endswith(".py")}
    if not names:
        return {}
    places = [""]
    if directory:
        inner = (os.path.join(directory, text) for text in texts if text not in names)
        places = [directory, *(place for place in inner if os.path.isdir(place))]
    found = (os.path.join(place, name) for place in places for name in names)
    return {
        os.path.relpath(path, directory or os.path.dirname(path)): path
        for path in found
        if os.path.isabs(path) and os.path.isfile(path) and is_own("", path)
    }


def modules_beginning_with(prefix: str) -> set[str]:
    """Return the own modules whose names begin so; with a dot in it, those of that package."""
    import pkgutil  # few programs need it

    package, dot, _ = prefix.rpartition(".")
    if dot:
        spec = own_spec(package)
        places = list((spec and spec.submodule_search_locations) or ())
    else:
        places = [path or os.curdir for path in sys.path if is_own("", path or os.getcwd())]
    names = (f"{package}{dot}{each.name}" for each in pkgutil.iter_modules(places))
    return {name for name in names if name.startswith(prefix)}


def own_spec(name: str) -> ModuleSpec | None:
    """Return where an own module is, if there is one of this name, and import nothing for it."""
    spec = spec_of(name)
    return spec if spec is not None and is_own(name, file_of(spec)) else None


def spec_of(name: str) -> ModuleSpec | None:
    module, package = sys.modules.get(name), name.rpartition(".")[0]
    found: ModuleSpec | None = None
    if issubclass(type(module), ModuleType):
        found = vars(module).get("__spec__")
    if found is None and package:
        places = getattr(spec_of(package), "submodule_search_locations", None)
        found = None if places is None else attempt(PathFinder.find_spec, name, list(places))
    elif found is None and name:
        found = attempt(importlib_util.find_spec, name)
    return found


def file_of(spec: ModuleSpec) -> str:
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def file_state(name: str) -> str:
    """Return in which file an own module is, and when that was written."""
    spec = own_spec(name)
    file = "" if spec is None else file_of(spec)
    found = attempt(os.stat, file)
    return "" if found is None else f"{file} {found.st_mtime_ns} {found.st_size}"


def parts_of_modules(
    names: Iterable[str], files: Mapping[str, str], *, runs: bool, apart: bool
) -> tuple[dict[str, str], set[str]]:
    """Return what modules and files count by, and the own modules that they import.

    Args:
        names: of the modules.
        files: paths by their names.
        runs: the modules may be run, and not only imported.
        apart: another process may import what they import.

    Returns:
        The parts by name, and the files that count as they are now.
    """
    pending, found, asked = sorted(names), dict[str, str](), set[str]()
    anew = {*files.values()}
    targets = set(pending) if runs else set()
    for name, file in sorted(files.items()):
        source = source_of(file)
        found[name] = source.syntax
        pending += named_by(source, "")
    while pending and len(found) < MANY:
        name = pending.pop()
        spec = None if name in asked else own_spec(name)
        asked.add(name)
        if spec is None:
            continue
        file, found[name] = file_of(spec), ""
        parent = name.rpartition(".")[0]
        pending.append(parent)
        is_loaded = name in sys.modules
        is_anew = apart or name in targets or not is_loaded
        if is_anew and os.path.isfile(file):
            anew.add(file)
        if file.endswith(".py"):
            known = source_of_loaded(file, spec if is_loaded else None)
            source = source_of(file) if is_anew else known
            found[name] = source.syntax
            is_package = os.path.basename(file) == "__init__.py"
            pending += named_by(source, name if is_package else parent)
        elif os.path.isfile(file):
            found[name] = digest_of_file(file)
    keep_sources()
    # a text may name a directory, which is a package to Python
    return {name: part for name, part in found.items() if part}, anew


def named_by(source: Source, package: str) -> set[str]:
    """Return the modules that a source file may import, by their names or names made at run time.

    Args:
        source: what the file says.
        package: the package that relative imports in it are relative to.
    """
    found = {full_name(package, *each) for each in source.imports}
    for level, beginning in source.beginnings:
        prefix = full_name(package, level, beginning)
        found |= modules_beginning_with(prefix) if prefix else set()
    return found | modules_named(source.texts) if (0, "") in source.beginnings else found
