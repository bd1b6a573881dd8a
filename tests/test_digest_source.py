"""The text behind code: found again, and held in memory no longer than it is needed."""

from __future__ import annotations

import ast
import gc
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleche import Cache, fleche
from fleche.digest import _source, find_definition
from fleche.digest._source import SourceText, Tree, keeping_trees, recent
from fleche.storage import CallMemory, ValueMemory

PLACES = {
    "a decorator": "@(lambda f: f)\ndef g(): ...",
    "the second decorator": "@staticmethod\n@(\n  lambda f: f\n)\ndef g(): ...",
    "a default": "def g(x=lambda: 1): ...",
    "a base": "class A((lambda: object)()): ...",
    "a keyword of a class": "class A(metaclass=lambda *args: 1): ...",
    "an annotation": "def g(x: (lambda: 1)): ...",
    "a table": "t = {\n 'a': [lambda x: x],\n 'b': (\n  lambda x: x + 1),\n}",
    "a comprehension": "t = [(lambda: i) for i in range(3)]",
    "another lambda": "t = lambda x: (\n  lambda y: x + y\n)",
    "a condition": "if (lambda: 1)():\n  pass\nelif (lambda: 2)():\n  pass",
    "a formatted text": "t = f'{(lambda: 1)()}'",
    "with": "with open(lambda: 1) as f, g: pass",
    "a handler": "try:\n  pass\nexcept (lambda: E)():\n  t = lambda: 1\nfinally:\n  u = lambda: 2",
    "match": "match x:\n  case 1 if (lambda: 1)():\n    def g(): ...\n  case _:\n    t = lambda: 2",
    "a loop": "for i in g(lambda: 1):\n  while (lambda: 2)(): pass\n  else:\n    def h(): ...",
    "a method": "class A:\n  class B:\n    @p\n    def g(self):\n      def h(): return lambda: 1",
    "returned": "async def g():\n  await (lambda: 1)()\n  return [lambda: 2 async for x in y]",
    "other ends of lines": "x = '''\r\n'''\r\nt = lambda: 1\rdef g():\r\n  return lambda: 2\n",
}


def codes_in(text: str) -> Iterator[types.CodeType]:
    """Yield the code of all functions of a text."""
    pending = [compile(text, "text.py", "exec", dont_inherit=True)]
    while pending:
        code = pending.pop()
        pending += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        if code.co_flags & 0x2:  # CO_NEWLOCALS: neither a module nor the body of a class
            yield code


@pytest.mark.parametrize("text", PLACES.values(), ids=PLACES.keys())
def test_every_function_is_found(text: str) -> None:
    """Wherever it is defined."""
    kinds = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)
    wanted = [ast.dump(node) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    source = SourceText(text, "text.py")
    found = [source.find(code) for code in codes_in(text) if not code.co_name.endswith("comp>")]
    assert sorted(ast.dump(each.syntax) for each in found if each) == sorted(wanted)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A package of many modules, and a function that leads into all of them."""
    root = tmp_path / "many_modules"
    root.mkdir()
    modules = [f"m{number}" for number in range(3 * (recent.maxlen or 0))]
    for number, name in enumerate(modules):
        root.joinpath(f"{name}.py").write_text(f"def f(x):\n    return x + {number}\n")
    calls = " + ".join(f"{name}.f(x)" for name in modules)
    root.joinpath("__init__.py").write_text(
        f"from . import {', '.join(modules)}\n\ndef total(x):\n    return {calls}\n\n"
        f"def twice(x):\n    return 2 * total(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("many_modules")
    for name in [each for each in sys.modules if each.partition(".")[0] == "many_modules"]:
        del sys.modules[name]


def test_trees_are_let_go(package: types.ModuleType) -> None:
    """A large code base does not stay in memory as syntax trees, which are much larger than it."""
    total = fleche(cache=Cache(ValueMemory(), CallMemory()))(package.total)
    assert total(1) == package.total(1)
    code = package.m0.f.__code__
    before = find_definition(code, vars(package.m0))
    assert before is not None
    dump = before.dump
    del before
    gc.collect()
    alive = [each for each in gc.get_objects() if issubclass(type(each), Tree)]
    assert len(alive) <= (recent.maxlen or 0)
    del alive
    recent.clear()
    again = find_definition(code, vars(package.m0))
    assert again is not None
    assert again.dump == dump


def test_each_text_is_parsed_once_for_a_function(
    package: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many modules there are."""
    parsed: list[str] = []
    parse = _source.parse

    def counting(source: SourceText) -> Tree:
        parsed.append(source.filename)
        return parse(source)

    monkeypatch.setattr(_source, "parse", counting)
    total = fleche(cache=Cache(ValueMemory(), CallMemory()))(package.total)
    total(1)
    inside = [name for name in parsed if "many_modules" in name]
    assert len(inside) == len(set(inside)) > (recent.maxlen or 0)


@pytest.mark.parametrize("collects", [True, False])
def test_collections_go_on_as_before(collects: bool) -> None:
    """Also after an error, and where one asks for trees inside another."""
    was = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(ValueError, match="x"), keeping_trees():
            with keeping_trees():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise ValueError("x")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if was else gc.disable)()
