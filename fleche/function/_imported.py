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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib import util as importlib_util
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from fleche._util import attempt
from fleche.digest import full_name
from fleche.function._facts import Facts, Import
from fleche.function._names import IMPORTERS, RUNNERS
from fleche.function._own import directory_of, file_of, is_own, is_own_object, places_of
from fleche.function._recheck import Datum
from fleche.function._whole import (
    Source,
    digest_of_file,
    files_named,
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

    def note(
        self, facts: Facts, namespace: Mapping[str, Any], texts: Callable[[], Iterable[str]]
    ) -> None:
        """Note what a function imports so, and the texts in it and in what it names."""
        self._texts.update(facts.texts)
        self._files |= programs_named(facts.texts, directory_of(namespace), texts)
        self._started |= any(each.module == STARTING for each in facts.imports)
        called = {*facts.attributes, *(each.name for each in facts.imports)}
        self._runs |= not called.union(*facts.loads).isdisjoint(RUNNERS)
        for root, *_ in facts.loads:
            value = namespace.get(root)
            if issubclass(type(value), (FunctionType, type)):
                self._started |= value.__module__ == STARTING
            self._started |= value is not None and value is sys.modules.get(STARTING)
        package = namespace.get("__package__") or ""
        for level, pattern in facts.imports_by_name:
            self.is_used = True
            self.names |= modules_of(package, level, pattern)
        for root, *tail in facts.loads:  # under another name, which does not show what it imports
            if not tail and root not in IMPORTERS:
                self.is_used |= any(namespace.get(root) is each for each in IMPORTING)

    def parts(self, values: Iterable[Any]) -> tuple[dict[str, str], list[Datum]]:
        """Return what counts of modules and files, and what to look at again at each call.

        The latter are the files that a body would run then. What it does to them itself is no
        change of the data of a module.

        Args:
            values: texts in them may be names, too.
        """
        if not (self.is_used or self._started):
            return {}, []
        told = set(texts_in(values))
        files = {**self._files, **programs_named(told, "")}
        names = self.names | modules_named(self._texts | told) if self.is_used else set()
        runs = self._runs or self._started
        found, anew = parts_of_modules(names, files, runs=runs, apart=self._started)
        run = sorted(anew) if runs else []
        if not run:
            return found, []
        return found, [Datum("files that are run", run, said_by(run), said_by, settles=always)]


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
                found |= {module, *modules_like(f"{module}.")}
                break
    return found


def programs_named(
    texts: Iterable[str], directory: str, others: Callable[[], Iterable[str]] = tuple
) -> dict[str, str]:
    """Return the own files of Python that texts name, by their names."""
    return {
        os.path.relpath(path, directory or os.path.dirname(path)): path
        for path in files_named(texts, directory, ".py", others)
        if os.path.isabs(path) and is_own("", path)
    }


def modules_of(package: str, level: int, pattern: str) -> set[str]:
    """Return the own modules that code in a package may import by a name made at run time."""
    above = f"{full_name(package, level, '')}." if level else ""
    return modules_like(above + pattern) if len(above + pattern) > 1 else set()


def modules_like(pattern: str) -> set[str]:
    """Return the own modules, at any depth, whose names a name made at run time may be.

    Args:
        pattern: what they begin with; where a ``*`` is in it, what follows is what they end with.
    """
    import pkgutil  # few programs need it

    beginning, _, ending = pattern.partition("*")
    shortest = len(beginning) + len(ending)
    package = beginning.rpartition(".")[0]
    hooked = [name.rpartition(".") for name in editable_finders()]
    found, seen, pending = set[str](), set[str](), [(package, places_below(package))]
    while pending and len(seen) < MANY:
        package, inside = pending.pop()
        places = {os.path.realpath(place): place for place in inside}
        new = [place for real, place in places.items() if real not in seen]  # links make circles
        seen.update(places if package else ())
        listed = {each.name: each.ispkg for each in pkgutil.iter_modules(new)}
        listed |= dict.fromkeys((short for parent, _, short in hooked if parent == package), True)
        folders = namespaces_in(new)
        for short in sorted({*listed, *folders}):
            name = f"{package}.{short}".lstrip(".")
            if not name.startswith(beginning):
                continue
            if short not in listed:
                pending.append((name, folders[short]))
                continue
            if listed[short]:
                pending.append((name, places_below(name)))
            if name.endswith(ending) and len(name) >= shortest:
                found.add(name)
    return found


def places_below(package: str) -> list[str]:
    """Return the directories where the modules of an own package are; of "", those at the top."""
    if package:
        return places_of(own_spec(package))
    return [path or os.curdir for path in sys.path if is_own("", path or os.getcwd())]


def editable_finders() -> dict[str, Any]:
    """Return by the names of modules and packages what finds them for an editable install.

    That is what setuptools puts on ``sys.meta_path``, where no path leads to the package.
    """
    found: dict[str, Any] = {}
    for finder in sys.meta_path:
        place = str(getattr(finder, "__module__", ""))
        for table in ("MAPPING", "NAMESPACES") if place.startswith("__editable__") else ():
            found |= dict.fromkeys(getattr(sys.modules.get(place), table, ()), finder)
    return found


def namespaces_in(places: Iterable[str]) -> dict[str, list[str]]:
    """Return the directories that are packages to Python without a file that says so, by name."""
    found: dict[str, list[str]] = {}
    for place in filter(os.path.isdir, places):
        with suppress(OSError), os.scandir(place) as entries:
            for each in entries:
                if each.name.isidentifier() and each.is_dir():
                    found.setdefault(each.name, []).append(each.path)
    return found


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
        finder = editable_finders().get(name)
        inside = places_of(spec_of(package))
        found = attempt(finder.find_spec, name) if finder else spec_in(inside, name)
    elif found is None and name:
        found = attempt(importlib_util.find_spec, name)
    return found


def spec_in(places: Iterable[str], name: str) -> ModuleSpec | None:
    """Return where a module is that is in one of these directories.

    ``PathFinder`` finds no namespace packages in a package that is not imported.
    """
    import pkgutil

    portions = ModuleSpec(name, None, is_package=True)
    inner = portions.submodule_search_locations = list[str]()
    for place in places:
        finder = pkgutil.get_importer(place)
        found: ModuleSpec | None = attempt(finder.find_spec, name) if finder else None
        if found is not None and found.loader is not None:
            return found
        inner += places_of(found)
    return portions if inner else None


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
    for level, pattern in source.beginnings:
        found |= modules_of(package, level, pattern)
    return found | modules_named(source.texts) if (0, "") in source.beginnings else found
