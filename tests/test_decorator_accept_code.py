"""Accepting changed code: every function that uses it finds its results again."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fleche
from fleche.caches import BaseCache, Cache, CacheStack, Local
from fleche.exchange import export_calls, import_calls
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.storage import CallFile, CallFsspec, Sql, ValueFile, ValueFsspec
from tests.helpers.layers import in_memory

MAKERS: dict[str, Callable[[Path], BaseCache]] = {
    "memory": lambda path: in_memory(),
    "local": Local,
    "file": lambda path: Cache(ValueFile(path), CallFile(path)),
    "sql": lambda path: Cache(ValueFile(path), Sql(path / "calls.db")),
    "fsspec": lambda path: Cache(ValueFsspec(str(path)), CallFsspec(str(path))),
    "stack": lambda path: CacheStack([Local(path), Local(path / "far")]),
}

SHAPES = """
import fleche

ran = []

def area(w, h):
    return w * h

def unused():
    return 1

@fleche.fleche
def volume(w, h, d):
    ran.append("volume")
    return area(w, h) * d

@fleche.fleche
def tiles(w, h):
    ran.append("tiles")
    return area(w, h) * 4

@fleche.fleche
def length(w):
    ran.append("length")
    return w
"""
REWRITTEN = SHAPES.replace("return w * h", "return h * w")
FACTORED = (
    SHAPES.replace("return w * h", "return times(w, h)")
    + """
SCALE = 1

def times(w, h):
    return math.prod([w, h]) * SCALE

import math
"""
)
WRONG = SHAPES.replace("return w * h", "return w * h + 1")

numbers = count()


@pytest.fixture(params=MAKERS)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    with MAKERS[request.param](tmp_path / "cache") as made:
        yield made


@pytest.fixture
def edit(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Write the module of the user, and import it as a new process would."""

    def load(source: str) -> ModuleType:
        path = tmp_path / f"{next(numbers)}" / "shapes.py"
        path.parent.mkdir()
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("shapes", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["shapes"] = module
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("shapes", None)


def test_a_helper_is_accepted_for_all_that_use_it(
    cache: BaseCache, edit: Callable[[str], ModuleType]
) -> None:
    """Accepted once, with one function; the others hit without being named."""
    with fleche.cache(cache):
        old = edit(SHAPES)
        assert (old.volume(2, 3, 4), old.volume(1, 1, 1), old.tiles(2, 3)) == (24, 1, 24)
        new = edit(REWRITTEN)
        assert not new.volume.contains(2, 3, 4)
        assert new.volume.accept(dry_run=True) == 2
        assert not new.volume.contains(2, 3, 4)
        assert new.volume.accept() == 2
        assert new.volume.accept() == 0
        assert (new.volume(2, 3, 4), new.volume(1, 1, 1), new.tiles(2, 3)) == (24, 1, 24)
        assert new.tiles.explain(2, 3).reason == "hit"
        assert new.tiles.load(2, 3).result == 24
        assert new.ran == []
        assert cache.verify().ok
        assert cache.verify().accepted >= 1
        cache.gc(0)
        assert edit(REWRITTEN).tiles.contains(2, 3)


def test_new_results_are_stored_where_the_old_ones_are(edit: Callable[[str], ModuleType]) -> None:
    """So the old code has them as well, as has the next code that is accepted."""
    with fleche.cache(in_memory()):
        edit(SHAPES).volume(2, 3, 4)
        new = edit(REWRITTEN)
        new.volume.accept()
        new.volume(5, 5, 5), new.tiles(5, 5)
        assert edit(SHAPES).volume.contains(5, 5, 5)
        third = edit(FACTORED)
        assert third.volume.accept() == 2
        assert third.tiles(5, 5) == 100
        assert third.ran == []
        assert fleche.cache().verify().ok


def test_what_was_stored_before_is_not_lost(edit: Callable[[str], ModuleType]) -> None:
    """Results that the new code stored before it was accepted are found as well."""
    with fleche.cache(in_memory()):
        edit(SHAPES).volume(2, 3, 4)
        new = edit(REWRITTEN)
        new.tiles(7, 7), new.volume(7, 7, 7)
        assert new.volume.accept() == 1
        del new.ran[:]
        assert (new.volume(7, 7, 7), new.tiles(7, 7), new.volume(2, 3, 4)) == (343, 196, 24)
        assert list(new.volume.map([7, 2], [7, 3], [7, 4])) == [343, 24]
        assert new.ran == []


@pytest.mark.parametrize("changed", [REWRITTEN, FACTORED])
def test_what_has_changed_since_is_computed(
    changed: str, edit: Callable[[str], ModuleType]
) -> None:
    """Only that very code was accepted, with the variables, helpers and names that came with it."""
    with fleche.cache(in_memory()):
        edit(SHAPES).tiles(2, 3)
        edit(changed).tiles.accept()
        assert edit(changed).tiles.contains(2, 3)
        assert not edit(WRONG).tiles.contains(2, 3)
        if changed is FACTORED:
            assert not edit(FACTORED.replace("SCALE = 1", "SCALE = 2")).tiles.contains(2, 3)
            assert not edit(FACTORED.replace("import math", "import numpy as math")).tiles.contains(
                2, 3
            )


def test_parts_that_changed_together_are_accepted_together(
    edit: Callable[[str], ModuleType],
) -> None:
    """That two helpers compute the same together says nothing of one of them."""
    first = """
import fleche

def half(x):
    return x / 2

def double(x):
    return x * 2

@fleche.fleche
def same(x):
    return double(half(x))

@fleche.fleche
def less(x):
    return half(x)
"""
    with fleche.cache(in_memory()):
        old = edit(first)
        old.same(4), old.less(4)
        new = edit(first.replace("x / 2", "x / 3").replace("x * 2", "x * 3"))
        assert new.same.accept() == 1
        assert new.same.contains(4)
        assert not new.less.contains(4)


def test_a_part_that_is_gone(edit: Callable[[str], ModuleType]) -> None:
    """A helper that was written out where it was used."""
    with fleche.cache(in_memory()):
        edit(FACTORED).volume(2, 3, 4)
        new = edit(SHAPES)
        assert new.volume.accept() == 1
        assert new.volume(2, 3, 4) == 24
        assert new.ran == []


def test_a_version_says_no_more_that_the_code_has_changed(
    edit: Callable[[str], ModuleType], recwarn: pytest.WarningsRecorder
) -> None:
    """With a version the results are hits, and warn; accepted, they do not."""
    with fleche.cache(in_memory()):
        edit(SHAPES.replace("@fleche.fleche", "@fleche.fleche(version=1)")).volume(2, 3, 4)
        new = edit(REWRITTEN.replace("@fleche.fleche", "@fleche.fleche(version=1)"))
        assert new.volume.accept() == 1
        assert new.volume(2, 3, 4) == 24
        assert not recwarn.list
        assert new.volume.accept() == 0


def test_it_travels_with_the_results(tmp_path: Path, edit: Callable[[str], ModuleType]) -> None:
    """With push, pull, sync, and in an exported file."""
    near, far = in_memory(), in_memory()
    with fleche.cache(near):
        old = edit(SHAPES)
        old.volume(2, 3, 4), old.tiles(2, 3)
        edit(REWRITTEN).volume.accept()
    near.push(far)
    with fleche.cache(far):
        assert edit(REWRITTEN).tiles.contains(2, 3)
    export_calls(far, tmp_path / "some.fleche")
    other = in_memory()
    import_calls(tmp_path / "some.fleche", other)
    with fleche.cache(other):
        assert edit(REWRITTEN).tiles.contains(2, 3)
    third = in_memory()
    other.sync(third)
    with fleche.cache(third):
        assert edit(REWRITTEN).tiles.contains(2, 3)


def test_through_a_remote_cache(edit: Callable[[str], ModuleType]) -> None:
    """What one machine accepts counts on all that use the same remote cache."""
    served = in_memory()

    def connect() -> RemoteCache:
        return RemoteCache(PipeChannel(lambda reader, writer: serve(reader, writer, served)))

    with connect() as mine, fleche.cache(mine):
        edit(SHAPES).volume(2, 3, 4)
        assert edit(REWRITTEN).volume.accept() == 1
    with connect() as theirs, fleche.cache(CacheStack([in_memory(), theirs])):
        new = edit(REWRITTEN)
        assert new.volume(2, 3, 4) == 24
        assert new.ran == []


def test_a_hit_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted is read at a miss, and not at each."""
    asked = []
    cache = in_memory()
    fresh = Cache(cache.values, cache.calls)
    accepted = fresh.backend.accepted

    def count_asked(**options: Any) -> Any:
        asked.append(options)
        return accepted(**options)

    monkeypatch.setattr(fresh.backend, "accepted", count_asked)

    @fleche.fleche
    def twice(x: int) -> int:
        return 2 * x

    with fleche.cache(cache):
        twice(1)
    with fleche.cache(fresh):
        twice(1)
        assert asked == []
        for x in range(2, 9):
            twice(x)
        assert len(asked) == 1


def test_taken_back(cache: BaseCache, edit: Callable[[str], ModuleType]) -> None:
    """The code is other code again, for all; and may be accepted once more."""
    with fleche.cache(cache):
        old = edit(SHAPES)
        old.volume(2, 3, 4), old.tiles(2, 3)
        new = edit(REWRITTEN)
        assert new.volume.accept(undo=True) == 0
        new.volume.accept()
        assert new.volume.accept(undo=True) == 1
        assert not new.volume.contains(2, 3, 4)
        assert not edit(REWRITTEN).tiles.contains(2, 3)
        assert new.volume.accept(undo=True) == 0
        assert new.volume.accept() == 1
        assert new.tiles.contains(2, 3)


def test_where_values_are_signed(tmp_path: Path, edit: Callable[[str], ModuleType]) -> None:
    """Nothing signs what is said of code: the calls are accepted, and the code is not."""
    with Local(tmp_path / "cache", secret_key="hush") as cache, fleche.cache(cache):
        old = edit(SHAPES)
        old.volume(2, 3, 4), old.tiles(2, 3)
        new = edit(REWRITTEN)
        assert new.volume.accept() == 1
        assert new.volume(2, 3, 4) == 24
        assert not new.tiles.contains(2, 3)
        assert cache.verify().accepted == 0
    with Local(tmp_path / "cache") as unsigned, fleche.cache(unsigned):
        edit(SHAPES).length(1)
        unsigned.evict(edit(REWRITTEN).volume.digest(2, 3, 4))
        assert edit(REWRITTEN).volume.accept() == 1
    with Local(tmp_path / "cache", secret_key="hush") as cache, fleche.cache(cache):
        assert not edit(REWRITTEN).tiles.contains(2, 3)


def test_some_calls_alone(edit: Callable[[str], ModuleType]) -> None:
    """With conditions, the calls that meet them are accepted, and the code is not."""
    with fleche.cache(in_memory()):
        old = edit(SHAPES)
        old.volume(2, 3, 4), old.volume(1, 1, 1), old.tiles(2, 3)
        new = edit(REWRITTEN)
        assert new.volume.accept(d=4) == 1
        assert new.volume.contains(2, 3, 4)
        assert not new.volume.contains(1, 1, 1)
        assert not new.tiles.contains(2, 3)
