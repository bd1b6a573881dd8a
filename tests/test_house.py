"""The house: who may import whom, and how a module presents itself.

`FLOORS` is the plan. A room is a module, or a package with everything in it. It may import from
every floor below its own, and from the rooms before it on its own floor; but on one floor the
families are strangers. Imports count wherever they stand: at the top, in a function, under
TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fleche"

# Ground floor first; on each floor the most basic room first. "fleche" itself is "".
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_path", "version", "errors", "batches", "redaction", "capabilities", "settings", "callers"),
    ("digest", "claims", "parcel"),
    ("function", "call"),
    (
        *("storage.base", "storage.registry", "storage.secrets", "storage.memory"),
        *("storage.file", "storage.sql", "storage.hdf5", "storage.fsspec", "storage.void"),
        "storage",
        *("table", "query"),
        *("caches.primitives", "caches.pending", "caches.values", "caches.upkeep", "caches.base"),
    ),
    (
        *("caches.layers", "caches.tables", "caches.garbage", "caches.housekeeping"),
        "caches.survey",
        *(
            "caches.local",
            "caches.views",
            "caches.pool",
            "caches.limited",
            "caches.stack",
            "caches",
        ),
        "remote",
    ),
    ("metadata", "state", "decorator", "executor"),
    ("config", "testing"),
    ("", "cli", "__main__"),
)

# Packages of rooms. Their `__init__` re-exports and comes after them; their `_private` modules
# serve the whole family and come before it.
FAMILIES = ("storage", "caches")

# (importer, imported): why the plan does not hold there.
EXCEPTIONS: dict[tuple[str, str], str] = {}

LONG_LINES, LONGEST_LINES = 600, 800

# Modules that may be longer than LONGEST_LINES, and why.
LONG: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """`module` names `target`, which is a module, as `name` in it (None for the module itself)."""

    module: str
    line: int
    target: str
    name: str | None

    def __str__(self) -> str:
        what = f"{self.name} from {self.target}" if self.name else self.target
        return f"{_path(self.module).relative_to(ROOT)}:{self.line} imports {what}"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name ("caches.base"), parsed; "" is the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one module of the package by another."""
    return tuple(found for module in modules() for found in _imports_of(module))


def _imports_of(module: str) -> Iterator[Import]:
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _resolve(module, node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                yield from _resolve(module, node.lineno, source, alias.name)


def _resolve(module: str, line: int, source: str, name: str | None) -> Iterator[Import]:
    if source.partition(".")[0] != PACKAGE:
        return
    target = source[len(PACKAGE) + 1 :]
    submodule = f"{target}.{name}".lstrip(".")
    # `from fleche.digest import digest` may mean either; a module's own names come first
    if name is not None and submodule in modules() and name not in _bindings(target):
        yield Import(module, line, submodule, None)
    else:
        yield Import(module, line, target, name)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = [PACKAGE, *_split(module)]
    climb = node.level - 1 if _is_package(module) else node.level
    return ".".join([*parts[: len(parts) - climb], *(node.module or "").split(".")]).rstrip(".")


def _bindings(module: str) -> set[str]:
    """The names that a module imports or defines at its top."""
    names: set[str] = set()
    for node in getattr(modules().get(module), "body", []):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def _split(module: str) -> list[str]:
    return module.split(".") if module else []


def _path(module: str) -> Path:
    base = (ROOT / PACKAGE).joinpath(*_split(module))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _is_package(module: str) -> bool:
    return _path(module).name == "__init__.py"


def _family(module: str) -> str | None:
    first = module.partition(".")[0]
    return first if first in FAMILIES else None


def _place(module: str) -> tuple[int, int] | None:
    """The floor of a module's room and its place there; None if it has no room."""
    family = _family(module)
    if family and _split(module)[1:2] and _split(module)[1].startswith("_"):
        return _place_of_first(family)
    parts = _split(module)
    rooms = {".".join(parts[:length]) for length in range(1, len(parts) + 1)} or {""}
    if family:
        rooms -= {family} - {module}  # a family has rooms; living at its address is not enough
    for floor, names in enumerate(FLOORS):
        for place, name in enumerate(names):
            if name in rooms:
                return floor, place
    return None


def _place_of_first(family: str) -> tuple[int, int]:
    """Just before the first room of a family."""
    return next(
        (floor, names.index(name) - 1)
        for floor, names in enumerate(FLOORS)
        for name in names
        if _family(name) == family
    )


def is_allowed(importer: str, imported: str) -> bool:
    """Whether the plan lets one module import another, exceptions apart."""
    here, there = _place(importer), _place(imported)
    assert here is not None, f"{importer} has no room in the plan"
    if there is None:
        return False
    if here[0] != there[0]:
        return there[0] < here[0]
    families = {_family(importer), _family(imported)} - {None}
    return there[1] <= here[1] and len(families) < 2


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def public_modules() -> list[str]:
    return [name for name in modules() if modules()[name].body and not _is_hidden(name)]


def _is_hidden(module: str) -> bool:
    return any(is_private(part) for part in _split(module))


def test_every_module_has_a_room() -> None:
    """A new module is given its place in FLOORS, deliberately."""
    assert [name for name in modules() if _place(name) is None] == []


def test_imports_go_down() -> None:
    """No import goes up, sideways into another family, or to a later room of the floor."""
    wrong = [
        str(found)
        for found in imports()
        if not is_allowed(found.module, found.target)
        and (found.module, found.target) not in EXCEPTIONS
    ]
    assert wrong == []


def test_exceptions_are_needed() -> None:
    """Whoever tidies up an exception strikes it from the list."""
    used = {(found.module, found.target) for found in imports()}
    unneeded = [
        pair
        for pair in EXCEPTIONS
        if (pair[0] in modules() and pair not in used) or is_allowed(*pair)
    ]
    assert unneeded == []


def test_private_names_stay_at_home() -> None:
    """A private name never leaves its module, nor a private module its package."""
    wrong = []
    for found in imports():
        package = found.module if _is_package(found.module) else found.module.rpartition(".")[0]
        parts = _split(found.target)
        abroad = any(
            is_private(part) and _split(package)[:depth] != parts[:depth]
            for depth, part in enumerate(parts)
        )
        if abroad or (found.name and is_private(found.name)):
            wrong.append(str(found))
    assert wrong == []


@pytest.mark.parametrize("module", public_modules())
def test_public_modules_declare_what_is_public(module: str) -> None:
    """`__all__` is a literal list at the top of every public module, free of private names."""
    for node in modules()[module].body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names = ast.literal_eval(node.value)
            assert [name for name in names if is_private(name)] == []
            return
    pytest.fail(f"{_path(module).relative_to(ROOT)} has no __all__")


@pytest.mark.filterwarnings("default")
def test_modules_are_short() -> None:
    """A module that outgrows this holds two ideas."""
    lengths = {name: _path(name).read_text(encoding="utf-8").count("\n") for name in modules()}
    for name, lines in lengths.items():
        if LONG_LINES < lines <= LONGEST_LINES:
            warnings.warn(f"fleche.{name} has {lines} lines", stacklevel=1)
    assert {n: c for n, c in lengths.items() if c > LONGEST_LINES and n not in LONG} == {}


def test_no_path_of_one_machine() -> None:
    """What is written works on any machine: no absolute path of a developer's own."""
    machine = re.compile(r"(?<![\w.~}])/(?:work|root|Users|home/(?!you\b|me\b|user\b)\w+)/\w")
    texts = [ROOT / "pyproject.toml", ROOT / "conftest.py", ROOT / ".ci" / "run"]
    for directory in (PACKAGE, "scripts", "tests", "docs"):
        texts += [path for path in (ROOT / directory).rglob("*") if _is_source(path)]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert wrong == []


def _is_source(path: Path) -> bool:
    return (
        path.is_file()
        and (path.suffix in {".py", ".md", ".toml", ".rst", ".sh"} or path.parent.name == "scripts")
        and "_build" not in path.parts
    )


class TestThePlan:
    """The rules themselves, on examples."""

    @pytest.mark.parametrize(
        ("importer", "imported"),
        [
            ("parcel", "digest"),
            ("parcel.packing", "parcel.layout"),
            ("caches.local", "storage.base"),
            ("caches.stack", "caches.local"),
            ("remote._cache", "caches.base"),
            ("storage.file", "storage._atomic"),
            ("storage", "storage.file"),
            ("config", "caches"),
            ("cli.commands", ""),
        ],
    )
    def test_allowed(self, importer: str, imported: str) -> None:
        assert is_allowed(importer, imported)

    @pytest.mark.parametrize(
        ("importer", "imported"),
        [
            ("digest", "parcel"),
            ("errors", "digest"),
            ("storage.file", "query"),
            ("storage.base", "storage.file"),
            ("storage.file", "storage"),
            ("remote.server", "config"),
            ("remote._protocol", "config"),
            ("caches.local", ""),
        ],
    )
    def test_forbidden(self, importer: str, imported: str) -> None:
        assert not is_allowed(importer, imported)

    def test_nobody_squats(self) -> None:
        assert _place("caches.unheard_of") is None
        assert _place("unheard_of") is None
