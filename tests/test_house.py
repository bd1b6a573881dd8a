"""The house: who may import whom, and how a module presents itself.

`LAYERS` is the plan, the ground floor first. A layer may import from every layer below its own. On
one floor, layers do not know each other. Imports count wherever they stand: at the top, in a
function, under TYPE_CHECKING. Inside a layer, modules import in any order that makes no circle.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fleche"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("_path", "errors", "_redact"),
    ("_util", "_turns", "_settings", "_amounts", "_columns", "_html", "_verbose"),
    ("digest",),
    ("parcel",),
    ("function", "call"),
    ("storage",),
    ("caches",),
    ("remote",),
    ("metadata",),
    ("config",),
    ("state",),
    ("decorator",),
    ("executor", "comparison", "exchange", "doctor"),
    ("testing", "report", "browse", "pytest_plugin"),
    ("cli",),
    ("", "__main__"),
)
"""Top-level modules and packages of `fleche`; "" is the package itself."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(importing layer, imported layer): why the plan does not hold there."""

LONG_LINES, LONGEST_LINES = 550, 750


@dataclass(frozen=True)
class Import:
    """`module` names `target`, which is a module, as `name` in it (None for the module itself)."""

    module: str
    line: int
    target: str
    name: str | None
    deferred: bool

    def __str__(self) -> str:
        what = f"{self.name} from {self.target}" if self.name else self.target
        return f"{_path(self.module).relative_to(ROOT)}:{self.line} imports {what}"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name ("caches._base"), parsed; "" is the package."""
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
    tree = modules()[module]
    at_top = {id(node) for node in _top_level(tree)}
    for node in ast.walk(tree):
        deferred = id(node) not in at_top
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _resolve(module, node.lineno, alias.name, None, deferred)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                yield from _resolve(module, node.lineno, source, alias.name, deferred)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, not those for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.orelse
        elif isinstance(node, ast.Try | ast.If):
            yield from node.body
        else:
            yield node


def _resolve(
    module: str, line: int, source: str, name: str | None, deferred: bool
) -> Iterator[Import]:
    if source.partition(".")[0] != PACKAGE:
        return
    target = source[len(PACKAGE) + 1 :]
    submodule = f"{target}.{name}".lstrip(".")
    # `from fleche.digest import digest` may mean either; a module's own names come first
    if name is not None and submodule in modules() and name not in _bindings(target):
        yield Import(module, line, submodule, None, deferred)
    else:
        yield Import(module, line, target, name, deferred)


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


def _layer(module: str) -> str:
    return module.partition(".")[0]


def _floor(layer: str) -> int | None:
    return next((floor for floor, layers in enumerate(LAYERS) if layer in layers), None)


def is_allowed(importer: str, imported: str) -> bool:
    """Whether the plan lets one module import another, exceptions apart."""
    here, there = _layer(importer), _layer(imported)
    if here == there:
        return True
    above, below = _floor(here), _floor(there)
    return above is not None and below is not None and below < above


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def public_modules() -> list[str]:
    return [name for name in modules() if modules()[name].body and not _is_hidden(name)]


def _is_hidden(module: str) -> bool:
    return any(is_private(part) for part in _split(module))


def test_every_module_has_a_layer() -> None:
    """A new top-level module is given its place in LAYERS, deliberately."""
    assert sorted({_layer(name) for name in modules() if _floor(_layer(name)) is None}) == []


def test_imports_go_down() -> None:
    """No import goes to a layer above, or to another layer of the same floor."""
    wrong = [
        str(found)
        for found in imports()
        if not is_allowed(found.module, found.target)
        and (_layer(found.module), _layer(found.target)) not in EXCEPTIONS
    ]
    assert wrong == []


def test_exceptions_are_needed() -> None:
    """An exception that no import uses is struck from the list."""
    used = {(_layer(found.module), _layer(found.target)) for found in imports()}
    assert [pair for pair in EXCEPTIONS if pair not in used or is_allowed(*pair)] == []


def test_private_names_stay_at_home() -> None:
    """A private name never leaves its module, nor a private module its package.

    The package itself is no exception: `fleche._util` is for all modules inside it.
    """
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


def test_modules_make_no_circles() -> None:
    """Modules that import each other when they are imported are one module.

    What is imported in a function, or for type checkers only, makes no circle: it is written so to
    be loaded when it is needed.
    """
    needs: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        target = f"{found.target}.{found.name}" if found.name else found.target
        target = target if target in needs else found.target
        if not found.deferred and target in needs and not _is_package(found.module):
            needs[found.module].add(target)
    while loose := [name for name, targets in needs.items() if not targets & needs.keys()]:
        for name in loose:
            del needs[name]
    held = {target for targets in needs.values() for target in targets}
    assert sorted(held & needs.keys()) == []


def test_public_class_names_are_unique() -> None:
    """One word for one thing: no two classes are offered under one name."""
    offered: dict[str, set[str]] = {}
    for name in public_modules():
        try:
            module = import_module(f"{PACKAGE}.{name}".rstrip("."))
        except ImportError:  # of an optional package
            continue
        for each in getattr(module, "__all__", ()):
            found = getattr(module, each)
            if isinstance(found, type):
                offered.setdefault(each, set()).add(f"{found.__module__}.{found.__qualname__}")
    assert {name: homes for name, homes in offered.items() if len(homes) > 1} == {}


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


def _docstring_lines(tree: ast.Module) -> int:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (each.body[0] for each in ast.walk(tree) if isinstance(each, kinds) and each.body)
    return sum(
        (text.end_lineno or text.lineno) - text.lineno + 1
        for text in texts
        if isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    )


def test_overriding_methods_say_so() -> None:
    """A public method that replaces one of a base in the package carries `@override`."""
    bare = {
        name
        for name, node, bases in _overriding_methods()
        if not any("override" in ast.unparse(each) for each in node.decorator_list)
    }
    assert bare == set()


def test_overriding_methods_do_not_repeat_docstrings() -> None:
    """Without a docstring they have that of the base; one of their own says what is different."""
    repeated = {
        name
        for name, node, bases in _overriding_methods()
        for base in bases
        if _words(ast.get_docstring(node)) and _words(ast.get_docstring(node)) <= _words(base)
    }
    assert repeated == set()


def _words(docstring: str | None) -> set[str]:
    return set(re.findall(r"\w+", (docstring or "").lower()))


def _overriding_methods() -> Iterator[tuple[str, ast.FunctionDef, list[str | None]]]:
    """Yield each public method that a base has too, with its name and the docstrings there."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            try:
                cls = getattr(import_module(f"{PACKAGE}.{module}".rstrip(".")), node.name, None)
            except ImportError:  # of an optional package
                break
            if not isinstance(cls, type):  # made in a function, or for type checkers
                continue
            bases = [each for each in cls.__mro__[1:] if each.__module__.startswith(PACKAGE)]
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    found = [vars(each)[method.name] for each in bases if method.name in vars(each)]
                    if found:
                        name = f"{module}.{node.name}.{method.name}"
                        yield name, method, [each.__doc__ for each in found]


@pytest.mark.filterwarnings("default")
def test_modules_are_not_too_long() -> None:
    """A module that outgrows this holds two ideas; its docstrings do not count."""
    lengths = {
        name: _path(name).read_text(encoding="utf-8").count("\n") - _docstring_lines(tree)
        for name, tree in modules().items()
    }
    for name, lines in lengths.items():
        if LONG_LINES < lines <= LONGEST_LINES:
            warnings.warn(f"fleche.{name} has {lines} lines", stacklevel=1)
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_LINES} == {}


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


def test_scripts_run_in_the_bash_of_macos() -> None:
    """That is 3.2, which lacks some things; to it an empty array is a variable that is not set."""
    lacking = re.compile(
        r"\b(?:mapfile|readarray|(?:declare|local) -[An])\b|\$\{\w+(?:,|\^)|\|&|&>>|\[\[ -v|\[-1\]"
    )
    wrong = []
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.suffix != ".py":
            text = path.read_text(encoding="utf-8")
            empty = "|".join(re.findall(r"\b(\w+)=\(\)", text)) or "$^"
            unset = re.compile(rf'(?<!\+)"\$\{{(?:{empty})\[@\]\}}"')
            wrong += [f"{path.name}: {found[0]}" for found in lacking.finditer(text)]
            wrong += [f"{path.name}: {found[0]}" for found in unset.finditer(text)]
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
            ("parcel._packing", "parcel._layout"),
            ("caches._local", "storage"),
            ("remote._cache", "caches"),
            ("state", "config"),
            ("decorator", "state"),
        ],
    )
    def test_allowed(self, importer: str, imported: str) -> None:
        assert is_allowed(importer, imported)

    @pytest.mark.parametrize(
        ("importer", "imported"),
        [
            ("digest", "parcel"),
            ("errors", "digest"),
            ("storage.file", "caches"),
            ("call", "function"),
            ("caches", "remote"),
            ("config", "state"),
            ("caches._local", ""),
            ("unheard_of", "digest"),
        ],
    )
    def test_forbidden(self, importer: str, imported: str) -> None:
        assert not is_allowed(importer, imported)
