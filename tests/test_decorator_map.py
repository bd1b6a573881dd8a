"""Many calls of one function: looked up at once, computed as they are asked for, saved together."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche import Ignored, cache, fleche, wrap_executor
from fleche.caches import BaseCache, BatchCache, Cache, Local, SizeLimitedCache
from fleche.call import QueryCall
from fleche.digest import Digest
from fleche.errors import FlecheWarning, Rejected
from fleche.storage import CallMemory, ValueMemory
from fleche.testing import example_call


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was just looked up count as fresh, however busy the machine."""
    monkeypatch.setattr("fleche.caches._batch.FRESH", inf)


@fleche
def area(x: int) -> tuple[int, int]:
    return x * x, x


@fleche
def calls_area(x: int) -> tuple[int, int]:
    return area(x)


@fleche
def bulky(x: int) -> Any:
    return np.full(100_000, x)


@fleche
def slow(x: int) -> int:
    time.sleep(0.6)
    return x


@pytest.fixture
def memory() -> Iterator[Cache]:
    """The active cache."""
    with Cache(ValueMemory(), CallMemory()) as made, cache(made):
        yield made


def asked(watched: BaseCache) -> list[tuple[str, int]]:
    """Returns, as it grows, what the backend is asked for, and how many calls at once."""
    log: list[tuple[str, int]] = []
    load, save = watched.backend.load, watched.backend.save

    def loading(keys: Any, **options: Any) -> Any:
        log.append(("load", len(keys)))
        return load(keys, **options)

    def saving(entries: Any, *rest: Any, **options: Any) -> None:
        log.append(("save", len(entries)))
        save(entries, *rest, **options)

    watched.backend.load = loading  # type: ignore[method-assign]
    watched.backend.save = saving  # type: ignore[method-assign]
    return log


def squares(log: list[int]) -> Any:
    """Returns a decorated function that notes what it computes."""

    @fleche
    def square(x: int, log: Ignored[list[int]] = log) -> list[int]:
        log.append(x)
        return [x * x]

    return square


class TestMap:
    """`f.map(xs)`."""

    def test_results(self, memory: Cache) -> None:
        """They come in order, whether they were stored or not; each is computed once."""
        log: list[int] = []
        square = squares(log)
        square(3)
        assert list(square.map([1, 3, 2, 1])) == [[1], [9], [4], [1]]
        assert log == [3, 1, 2]
        assert memory.stats().calls == 3
        assert (memory.stats().hits, memory.stats().misses) == (2, 3)

    def test_one_look_up_and_one_save(self, memory: Cache) -> None:
        """A hundred small calls cost one question, and one operation to save them."""
        square, log = squares([]), asked(memory)
        results = list(square.map(range(100)))
        assert log == [("load", 100), ("save", 100)]
        assert list(square.map(range(100))) == results
        assert log[2:] == [("load", 100)]

    def test_several_arguments(self, memory: Cache) -> None:
        """As for the builtin, the shortest ends it; a method brings its object."""

        class Scale:
            def __init__(self, by: int) -> None:
                self.by = by

            @fleche
            def shifted(self, x: int, y: int = 0) -> int:
                return self.by * x + y

        assert list(Scale(2).shifted.map([1, 2, 3], [10, 20])) == [12, 24]
        assert list(Scale(3).shifted.map([1])) == [3]
        assert memory.stats().calls == 3

    def test_lazy(self, memory: Cache) -> None:
        """Nothing is computed before it is asked for, and the arguments may have no end."""
        log: list[int] = []
        results = squares(log).map(count())
        assert log == []
        assert list(islice(results, 3)) == [[0], [1], [4]]
        assert log == [0, 1, 2]

    def test_left_early(self, memory: Cache) -> None:
        """What was computed is stored when the iterator is closed, or a body raises."""
        log: list[int] = []
        results = squares(log).map(range(5))
        next(results)
        results.close()
        assert memory.stats().calls == 1

        @fleche
        def half(x: int) -> list[int]:
            if x % 2:
                raise ValueError("odd")
            return [x // 2]

        with pytest.raises(ValueError, match="odd"):
            list(half.map([2, 4, 5, 6]))
        assert half.contains(2)
        assert half.contains(4)
        assert not half.contains(6)

    def test_long_ones_are_saved_at_once(self, memory: Cache) -> None:
        """What took long to compute does not wait."""

        @fleche
        def slow(x: int) -> list[int]:
            time.sleep(0.6)
            return [x]

        results = slow.map([1, 2])
        next(results)
        assert slow.contains(1)

    def test_processes_that_wait(self, memory: Cache) -> None:
        """Where other processes may wait for a call, its result is stored before they go on."""

        @fleche(coalesce="processes")
        def quick(x: int) -> list[int]:
            return [x]

        log = asked(memory)
        assert list(quick.map([1, 2])) == [[1], [2]]
        assert [what for what, _ in log if what == "save"] == ["save", "save"]

    def test_changed_by_a_body(self, memory: Cache) -> None:
        """The key of a call is that of its arguments when it is made, not when they were listed."""

        @fleche(ignore="log")
        def total(items: list[int], log: list[Any]) -> int:
            found = sum(items)
            log[-1].append(1)
            return found

        shared = [1]
        assert list(total.map([[5], shared], [[shared], [[]]])) == [5, 2]
        assert total([1, 1], [[]]) == 2
        assert total([1], [[]]) == 1

    def test_generators(self, memory: Cache) -> None:
        """Random generators go on from call to call, in hits as in misses."""

        @fleche
        def draw(rng: random.Random) -> list[float]:
            return [rng.random()]

        first, second, plain = random.Random(1), random.Random(1), random.Random(1)
        expected = [[plain.random()] for _ in range(3)]
        assert list(draw.map([first] * 3)) == expected
        assert list(draw.map([second] * 3)) == expected
        assert first.getstate() == second.getstate() == plain.getstate()

    def test_others_compute_meanwhile(self, memory: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """What another process stores after the look-up is found, unless that was just now."""
        monkeypatch.setattr("fleche.caches._batch.FRESH", 0.0)
        log: list[int] = []
        square = squares(log)
        results = square.map([1, 2])
        next(results)
        square(2)
        assert next(results) == [4]
        assert log == [1, 2]

    def test_large_results(self, memory: Cache) -> None:
        """They are stored at once, and what comes back is shared with no other caller."""

        @fleche
        def full(x: int) -> Any:
            return np.full(100_000, x)

        for result in full.map([1, 2]):
            result[:] = 0
        assert [int(each[0]) for each in full.map([1, 2])] == [1, 2]

    def test_a_changed_result(self, memory: Cache) -> None:
        """A result that its caller changes before it is saved is stored as it was computed."""
        square = squares([])
        for result in square.map([2, 3]):
            result.append(0)
        assert list(square.map([2, 3])) == [[4], [9]]

    def test_a_cache_that_fails(self, memory: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """The function runs all the same, and one warning says that nothing is stored."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise Rejected("no")

        square = squares([])
        monkeypatch.setattr(memory.backend, "load", refuse)
        monkeypatch.setattr(memory.backend, "save", refuse)
        with pytest.warns(FlecheWarning, match="no") as caught:
            assert list(square.map([1, 2])) == [[1], [4]]
        assert len(caught) <= 2

    def test_one_refused(self, memory: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that the cache refuses costs none of those that are saved with it."""
        square, save = squares([]), memory.backend.save
        bad = square.digest(2)

        def picky(entries: Any, *rest: Any, **options: Any) -> None:
            if bad in entries:
                raise Rejected("not this one")
            save(entries, *rest, **options)

        monkeypatch.setattr(memory.backend, "save", picky)
        with pytest.warns(FlecheWarning, match="not this one"):
            assert list(square.map([1, 2, 3])) == [[1], [4], [9]]
        assert [square.contains(x) for x in (1, 2, 3)] == [True, False, True]

    def test_one_refused_beside_large_ones(
        self, memory: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It costs neither the large one that is stored next nor one that is a hit."""
        ran: list[int] = []

        @fleche
        def scaled(x: int, log: Ignored[list[int]] = ran) -> Any:
            log.append(x)
            return np.full(200_000, x) if x > 10 else [x]

        scaled(11)
        save, bad = memory.backend.save, {scaled.digest(1), scaled.digest(2)}

        def picky(entries: Any, *rest: Any, **options: Any) -> None:
            if not bad.isdisjoint(entries):
                raise Rejected("not this one")
            save(entries, *rest, **options)

        monkeypatch.setattr(memory.backend, "save", picky)
        with pytest.warns(FlecheWarning, match="not this one"):
            assert len(list(scaled.map([1, 11, 2, 12]))) == 4
        assert ran == [11, 1, 2, 12]
        assert [scaled.contains(x) for x in (1, 11, 2, 12)] == [False, True, False, True]

    def test_not_for_coroutines(self, memory: Cache) -> None:
        """They are gathered."""

        @fleche
        async def wait(x: int) -> int:
            return x

        with pytest.raises(TypeError, match="gather"):
            wait.map([1])
        with pytest.raises(TypeError, match="one argument"):
            squares([]).map()

    def test_views(self, memory: Cache) -> None:
        """A limited cache stays within its limit."""
        with cache(SizeLimitedCache(memory, max_size=10)):
            list(squares([]).map(range(50)))
        assert memory.stats().calls <= 10


class TestBatch:
    """The cache of a batch answers like the one that it saves into."""

    @pytest.mark.parametrize(
        "look",
        [
            lambda batch, key: batch.contains(key),
            lambda batch, key: batch.load(key).result == 4,
            lambda batch, key: batch.expand(key[:10]) == key,
            lambda batch, key: key.startswith(batch.shrink(key)),
            lambda batch, key: [each.key for each in batch.query()] == [key],
            lambda batch, _key: batch.stats().calls == 1,
        ],
    )
    def test_unsaved(self, memory: Cache, look: Callable[[BatchCache, Digest], bool]) -> None:
        """What is unsaved is there for everything."""
        batch = BatchCache(memory)
        key = Digest(batch.prepare(example_call()).commit(4, duration=0.0))
        assert memory.stats().calls == 0
        assert look(batch, key)

    def test_asked_again(self, memory: Cache) -> None:
        """That a call is not there is told once: who asks again has reason to."""
        batch, key = BatchCache(memory), example_call().key
        batch.batch.look_ahead([key])
        assert batch.lookup(key) is None
        memory.save(example_call())
        assert batch.lookup(key) is not None

    def test_evict(self, memory: Cache) -> None:
        """What is unsaved, or was found already, is forgotten with the rest."""
        batch = BatchCache(memory)
        key = Digest(batch.prepare(example_call()).commit(4, duration=0.0))
        batch.evict(key)
        assert not list(memory.query(QueryCall()))
        memory.save(example_call())
        batch.batch.look_ahead([key])
        batch.evict(key)
        assert batch.lookup(key) is None


class TestExecutor:
    """`executor.map`."""

    def test_one_look_up(self, memory: Cache) -> None:
        """What is stored is looked up at once, and nothing is submitted for it."""
        log: list[int] = []
        square = squares(log)
        with wrap_executor(ThreadPoolExecutor(2)) as executor:
            assert list(executor.map(square, range(20))) == [[x * x] for x in range(20)]
            questions = asked(memory)
            assert list(executor.map(square, range(20))) == [[x * x] for x in range(20)]
        assert questions == [("load", 20)]
        assert sorted(log) == list(range(20))

    def test_saved_together(self, memory: Cache) -> None:
        """Misses cost one question and one operation to save, and the last one ends it."""
        square, log = squares([]), asked(memory)
        with wrap_executor(ThreadPoolExecutor(2)) as executor:
            results = executor.map(square, range(100))
        assert log == [("load", 100), ("save", 100)]
        assert memory.stats().calls == 100
        assert list(results) == [[x * x] for x in range(100)]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_saved_here(self, method: str, tmp_path: Path) -> None:
        """What workers in other processes compute is saved together here; they ask nothing."""
        context = multiprocessing.get_context(method)
        with (
            Local(tmp_path / "cache") as kept,
            cache(kept),
            wrap_executor(ProcessPoolExecutor(2, mp_context=context)) as executor,
        ):
            log = asked(kept)
            results = list(executor.map(area, range(50)))
            assert results == [(x * x, x) for x in range(50)]
            assert log == [("load", 50), ("save", 50)]
            with Local(tmp_path / "cache") as other:
                assert other.stats().calls == 50

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_large_ones_are_saved_there(self, method: str, tmp_path: Path) -> None:
        """A large result, or one that took long, is saved by its worker, as is what it calls."""
        context = multiprocessing.get_context(method)
        with (
            Local(tmp_path / "cache") as kept,
            cache(kept),
            wrap_executor(ProcessPoolExecutor(2, mp_context=context)) as executor,
        ):
            log = asked(kept)
            assert [each[0] for each in executor.map(bulky, range(3))] == [0, 1, 2]
            assert list(executor.map(slow, range(2))) == [0, 1]
            assert list(executor.map(calls_area, range(3))) == [(x * x, x) for x in range(3)]
            assert log == [("load", 3), ("load", 2), ("load", 3), ("save", 3)]
            assert kept.stats().calls == 3 + 2 + 3 + 3

    def test_a_body_that_raises(self, memory: Cache) -> None:
        """The others are stored all the same."""

        @fleche
        def half(x: int) -> list[int]:
            if x % 2:
                raise ValueError("odd")
            return [x // 2]

        with wrap_executor(ThreadPoolExecutor(2)) as executor:
            results = executor.map(half, [2, 4, 3])
            assert [next(results), next(results)] == [[1], [2]]
            with pytest.raises(ValueError, match="odd"):
                next(results)
        assert half.contains(2)
        assert half.contains(4)

    def test_an_executor_that_is_shut_down(self, memory: Cache) -> None:
        """What was computed before it refused is stored."""
        executor = wrap_executor(ThreadPoolExecutor(1))
        executor.shutdown()
        square = squares([])
        square(1)
        with pytest.raises(RuntimeError):
            executor.map(square, [1, 2])

    def test_a_cache_that_fails(self, memory: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """The results come all the same, and one warning says that they are not stored."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise Rejected("no")

        monkeypatch.setattr(memory.backend, "save", refuse)
        with (
            pytest.warns(FlecheWarning, match="no") as caught,
            wrap_executor(ThreadPoolExecutor(2)) as executor,
        ):
            assert list(executor.map(squares([]), [1, 2])) == [[1], [4]]
        assert len(caught) == 1

    def test_other_functions(self, memory: Cache) -> None:
        """Partial and plain ones are mapped as ever."""

        @fleche
        def power(n: int, x: int) -> int:
            return int(x**n)

        with wrap_executor(ThreadPoolExecutor(2)) as executor:
            assert list(executor.map(partial(power, 2), [1, 2, 3])) == [1, 4, 9]
            assert list(executor.map(partial(power, x=2), [1, 2, 3], timeout=60)) == [2, 4, 8]
            assert list(executor.map(abs, [-1])) == [1]
            assert list(executor.map(power, [])) == []
            questions = asked(memory)
            assert list(executor.map(partial(power, x=2), [1, 2, 3])) == [2, 4, 8]
        assert questions == [("load", 3)]
