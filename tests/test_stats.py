"""Counting and clearing: what is stored of a function, what it has saved, how to forget it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import fleche
from fleche import cache
from fleche.caches import CacheStack, Local
from fleche.call import Call
from fleche.digest import digest
from fleche.errors import Rejected
from tests.helpers.layers import Layer, in_memory
from tests.helpers.scripts import run_python


@fleche.fleche
def square(x: float) -> float:
    return x * x


@fleche.fleche
def ones(n: int) -> np.ndarray:
    return np.ones(n)


class TestOfAFunction:
    def test_numbers(self) -> None:
        cache(in_memory())
        for x in (1, 2, 2, 2):
            square(x)
        ones(10_000)
        found = square.stats()
        assert (found.calls, found.hits, found.misses) == (2, 2, 2)
        assert 0 < found.saved < found.spent * 10
        assert ones.stats().bytes > 80_000
        usage = sum(each.bytes for each in cache().disk_usage().calls)
        assert found.bytes + ones.stats().bytes == pytest.approx(usage, rel=0.01)
        assert 0 < found.bytes < 10_000
        assert str(found).startswith(f"square: 2 calls stored ({found.bytes / 1000:.1f} kB); 2 h")
        assert "kB)" in ones.stats()._repr_html_()

    def test_shared_values_count_once(self) -> None:
        cache(in_memory())

        @fleche.fleche(version=1)
        def same(n: int) -> np.ndarray:
            return np.ones(10_000)

        same(1), same(2)
        assert same.stats().calls == 2
        assert same.stats().bytes < 100_000

    def test_over_processes(self, tmp_path: Path) -> None:
        """What other processes have counted is there when they have ended."""
        script = tmp_path / "script.py"
        script.write_text(
            "import fleche\n"
            "@fleche.fleche(version=1)\n"
            "def f(x): return x\n"
            f"fleche.cache(fleche.open({str(tmp_path / 'store')!r}))\n"
            "f(1), f(1), f(1)\n"
            "print(f.stats())\n"
        )
        run_python(script, sys.executable, "0")
        assert "5 hits, 1 miss;" in run_python(script, sys.executable, "1")

    def test_a_hit_writes_nothing(self, tmp_path: Path) -> None:
        """Hits are counted in memory, and stored when the cache is closed."""
        with fleche.open(tmp_path / "store") as store, cache(store):
            square(3)
            square.stats()
            before = _state_of(tmp_path)
            for _ in range(5):
                square(3)
            assert _state_of(tmp_path) == before
        with fleche.open(tmp_path / "store") as store, cache(store):
            assert square.stats().hits == 5

    def test_clear(self) -> None:
        """All calls of the function, and of no other."""
        cache(in_memory())
        square(1), square(2), ones(1)
        assert square.clear() == 2
        assert square.stats().calls == 0
        assert [call.name for call in cache().query()] == ["ones"]


def _state_of(directory: Path) -> list[tuple[str, int, int]]:
    """Every file but the memory that SQLite's processes share, with size and time of change."""
    return sorted(
        (str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    )


class TestOfACache:
    def test_as_a_container(self) -> None:
        """A key, a call or a value is in it or not; it has as many calls as it has."""
        store = in_memory()
        assert len(store) == 0
        assert store, "an empty cache is a cache"
        key = store.save(Call(name="f", arguments={"x": [1, 2]}, result=[3]))
        assert key in store
        assert key[:8] in store
        assert digest([3]) in store
        assert store.load(key) in store
        assert digest("nothing") not in store
        assert len(store) == 1
        with pytest.raises(TypeError, match=r"3 in cache: a key is asked for"):
            3 in store  # noqa: B015

    def test_running_calls_do_not_count(self) -> None:
        store = in_memory()
        store.prepare(Call(name="f", arguments={"x": np.ones(100_000)}))
        assert len(store) == 0
        assert store.clear() == 0

    def test_clear(self) -> None:
        store = in_memory()
        for x in range(3):
            store.save(Call(name="f", arguments={"x": x}, result=x))
        with pytest.raises(Rejected):
            store.readonly().clear()
        assert store.clear() == 3
        assert len(store) == 0
        assert store

    def test_counts_of_each_layer(self) -> None:
        """How often a layer was asked, and had it."""
        near, far = in_memory(), Layer()
        with cache(far.inner):
            square(1)
        stack = CacheStack((near, far))
        with cache(stack):
            square(1), square(1), square(2), square(2)
        counts = [(each.counts()["hits"], each.counts()["misses"]) for each in stack.layers]
        assert counts == [(2, 2), (1, 1)]
        assert stack.counts()["hits"] == 3


class TestOpen:
    def test_a_directory(self, tmp_path: Path) -> None:
        """It needs no configuration, and is made with the first call."""
        store = fleche.open(tmp_path / "results")
        assert isinstance(store, Local)
        assert not (tmp_path / "results").exists()
        with store, cache(store):
            assert square(3) == 9
        with fleche.open(str(tmp_path / "results"), compress="zlib") as again:
            assert again.query().only().result == 9

    def test_wrong_options(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="kompress"):
            fleche.open(tmp_path, kompress=True)
