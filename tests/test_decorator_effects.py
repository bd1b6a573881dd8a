"""What a body does beside returning: random numbers, changed arguments, calls inside, its depth."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche import Cache, Digest, cache, fleche, wrap_executor
from fleche.decorator import FlecheWarning
from fleche.storage import CallMemory, ValueMemory
from tests.helpers.layers import in_files

runs: list[Any] = []
"""What the bodies note."""


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    runs.clear()


def legacy(seed: int) -> np.random.RandomState:
    """A generator of numpy that has drawn one of a pair of normal numbers."""
    made = np.random.RandomState(seed)
    made.normal()
    return made


def torch_generator(seed: int) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.Generator().manual_seed(seed)


def draw_of(rng: Any) -> float:
    """The next number of a generator of any kind."""
    if isinstance(rng, random.Random):
        return rng.random()
    if isinstance(rng, np.random.BitGenerator):
        return float(rng.random_raw())
    if isinstance(rng, np.random.SeedSequence):
        return float(rng.spawn(1)[0].generate_state(1)[0])
    if hasattr(rng, "normal"):
        return float(rng.normal())
    import torch

    return float(torch.rand(1, generator=rng))


@fleche
def noise(rng: Any, count: int = 3) -> list[float]:
    runs.append("noise")
    return [draw_of(rng) for _ in range(count)]


@fleche(isolate=True)
def apart(rng: Any) -> float:
    runs.append("apart")
    return draw_of(rng)


class Dice(random.Random):
    """A generator of the user's own."""


KINDS: list[Callable[[int], Any]] = [
    random.Random,
    Dice,
    np.random.default_rng,
    lambda seed: np.random.Generator(np.random.MT19937(seed)),
    np.random.PCG64,
    np.random.RandomState,
    legacy,
    np.random.SeedSequence,
    torch_generator,
]


class TestGenerators:
    """A random generator that is an argument is left by a hit as the body has left it."""

    @pytest.mark.parametrize("make", KINDS)
    def test_a_hit_draws(self, make: Callable[[int], Any]) -> None:
        """After a hit the next number is the one that follows those that the body has drawn."""
        first, second = make(1), make(1)
        results = [noise(first), noise(second)]
        assert results[0] == results[1]
        assert runs == ["noise"]
        assert draw_of(first) == draw_of(second)

    def test_a_chain_of_calls_hits(self) -> None:
        """Each call of a script that goes on drawing hits when the script runs again."""

        def script() -> list[Any]:
            rng = np.random.default_rng(1)
            return [noise(rng), noise(rng), noise(rng, 1), rng.normal()]

        assert script() == script()
        assert len(runs) == 3

    def test_children_that_it_has_spawned(self) -> None:
        """A hit spawns, too: the next child is another one."""

        @fleche
        def split(rng: np.random.Generator) -> float:
            return float(rng.spawn(2)[1].normal())

        first, second = np.random.default_rng(5), np.random.default_rng(5)
        assert split(first) == split(second)
        assert first.spawn(1)[0].normal() == second.spawn(1)[0].normal()

    def test_among_gathered_arguments(self) -> None:
        """In ``*args`` and ``**kwargs`` they count as well."""

        @fleche
        def mixed(*rngs: random.Random, **named: random.Random) -> float:
            runs.append("mixed")
            return sum(rng.random() for rng in (*rngs, *named.values()))

        ends = []
        for _ in range(2):
            one, two = random.Random(1), random.Random(2)
            mixed(one, extra=two)
            ends.append((one.random(), two.random()))
        assert ends[0] == ends[1]
        assert runs == ["mixed"]

    def test_of_coroutine_functions_and_futures(self) -> None:
        @fleche
        async def soon(rng: random.Random) -> float:
            return rng.random()

        @fleche
        def later(rng: random.Random) -> Future[float]:
            done: Future[float] = Future()
            done.set_result(rng.random())
            return done

        first, second = random.Random(1), random.Random(1)
        assert asyncio.run(soon(first)) == asyncio.run(soon(second))
        assert later(first).result() == later(second).result()
        assert first.random() == second.random()

    def test_isolated(self) -> None:
        """What is isolated advances the caller's generator in no case."""
        rng = random.Random(1)
        before = rng.getstate()
        assert apart(rng) == apart(rng)
        assert rng.getstate() == before
        assert runs == ["apart"]

    @pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
    def test_in_workers(self, pool: Any, tmp_path: Path) -> None:
        """What runs in a worker advances the caller's generator in no case."""
        rng = random.Random(1)
        before = rng.getstate()
        with cache(in_files(tmp_path)), wrap_executor(pool(1)) as workers:
            first = workers.submit(noise, rng).result()
            assert workers.submit(noise, rng).result() == first
            assert rng.getstate() == before
            assert noise(rng) == first
        assert rng.getstate() != before

    @pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
    def test_in_workers_that_do_not_see_the_cache(self, pool: Any, active: Cache) -> None:
        """The state comes back with the result, so that later calls hit, in workers and here."""
        rng = random.Random(1)
        before = rng.getstate()
        with wrap_executor(pool(1)) as workers:
            first = workers.submit(noise, rng).result()
            assert active.load(noise.digest(rng)).states.keys() == {"rng"}
            assert workers.submit(noise, rng).result() == first
        assert rng.getstate() == before
        here = len(runs)
        assert noise(rng) == first
        assert len(runs) == here
        alike = random.Random(1)
        noise.rerun(alike)
        assert rng.getstate() == alike.getstate()

    def test_in_workers_that_isolate(self, active: Cache) -> None:
        """Nothing is to be advanced there, and what is stored is a hit all the same."""
        rng = random.Random(1)
        before = rng.getstate()
        with wrap_executor(ProcessPoolExecutor(1)) as workers:
            first = workers.submit(apart, rng).result()
            assert workers.submit(apart, rng).result() == first
        assert apart(rng) == first
        assert rng.getstate() == before
        assert not runs

    def test_stored_where_its_state_was_not_seen(self, active: Cache) -> None:
        """A result without the state is no hit where there is a generator to advance."""
        rng = random.Random(1)
        call = noise.call(rng)
        call.result = [0.0]
        active.save(call)
        fresh = random.Random(1)
        assert noise(rng) != [0.0]
        noise(fresh)
        assert rng.getstate() == fresh.getstate()

    @pytest.mark.parametrize("make", [random.Random, np.random.default_rng, np.random.PCG64])
    def test_passed_twice(self, make: Callable[[int], Any], active: Cache) -> None:
        """One generator is not two in the same state, which draw the same numbers."""

        @fleche
        def both(one: Any, two: Any) -> list[float]:
            return [draw_of(one), draw_of(two)]

        def expected(twice: bool) -> list[float]:
            one = make(1)
            return [draw_of(one), draw_of(one if twice else make(1))]

        one = make(1)
        with pytest.warns(FlecheWarning, match="'one' and 'two' are one random generator"):
            assert both(one, one) == expected(twice=True)
        assert both(make(1), make(1)) == expected(twice=False)
        assert both(make(1), make(1)) == expected(twice=False)
        assert active.query().count() == 1
        one = make(1)
        with wrap_executor(ThreadPoolExecutor(1)) as pool:
            assert pool.submit(both, one, one).result() == expected(twice=True)

    def test_two_that_share_a_source(self) -> None:
        @fleche
        def both(one: Any, two: Any) -> list[float]:
            return [draw_of(one), draw_of(two)]

        bits = np.random.PCG64(1)
        with pytest.warns(FlecheWarning, match="are one random generator"):
            found = both(np.random.Generator(bits), np.random.Generator(bits))
        assert found[0] != found[1]

    def test_in_the_record(self) -> None:
        """The state is stored under the name of the argument."""
        rng = random.Random(1)
        noise(rng)
        assert noise.load(random.Random(1)).states["rng"] == rng.getstate()


class TestModuleGenerators:
    """A function that draws from a generator of a module is warned of once."""

    @pytest.mark.parametrize(
        ("draw", "name"),
        [(random.random, "random"), (np.random.rand, "numpy.random")],
    )
    def test_warned_of_once(self, draw: Callable[[], float], name: str) -> None:
        @fleche
        def jump(x: int) -> float:
            return draw() + x

        with pytest.warns(FlecheWarning, match=rf"jump\(\): draws .* module {name}, or") as told:
            assert jump(1) != jump(2)
        assert len(told) == 1

    def test_not_of_what_was_passed(self) -> None:
        @fleche
        def calm(rng: random.Random) -> float:
            return rng.random()

        calm(random.Random(1))

    def test_only_the_function_that_draws(self) -> None:
        """Of functions inside each other the innermost is told of."""

        @fleche
        def inner(x: int) -> float:
            return random.random()

        @fleche
        def outer(x: int) -> float:
            return inner(x) + inner(x + 1)

        with pytest.warns(FlecheWarning) as told:
            assert outer(1) != outer(2)
        assert ["inner" in str(one.message) for one in told] == [True]

    def test_said_to_be_ignored(self) -> None:
        @fleche(ignore_globals="random")
        def jump(x: int) -> float:
            return random.random()

        jump(1)

    def test_other_threads_draw(self) -> None:
        """What another computation draws at the same time is not laid at its door."""
        started, drawn, begun = threading.Event(), threading.Event(), threading.Event()
        runs.extend((started, drawn, begun))

        @fleche(ignore_globals="random")
        def drawer(x: int) -> float:
            runs[2].set()
            runs[0].wait(10)
            found = random.random()
            runs[1].set()
            return found

        @fleche
        def quiet(x: int) -> int:
            runs[0].set()
            runs[1].wait(10)
            return x

        thread = threading.Thread(target=drawer, args=(1,))
        thread.start()
        begun.wait(10)
        quiet(1)
        thread.join()


class TestChangedArguments:
    """A function that changes its arguments is warned of once: a hit will not repeat that."""

    def test_warned_of_once(self) -> None:
        @fleche
        def sort(items: list[int]) -> int:
            items.sort()
            return len(items)

        with pytest.warns(FlecheWarning, match=r"sort\(\): changes its argument 'items'") as told:
            assert sort([3, 1]) == sort([4, 2])
        assert len(told) == 1

    def test_of_objects(self) -> None:
        class Model:
            def __init__(self) -> None:
                self.steps = 0

            @fleche
            def step(self, by: int) -> int:
                self.steps += by
                return by

        with pytest.warns(FlecheWarning, match="changes its argument 'self'"):
            Model().step(2)

    def test_not_if_isolated_or_ignored_or_unchanged(self) -> None:
        @fleche(isolate=True)
        def isolated(items: list[int]) -> None:
            items.append(1)

        @fleche(ignore="log")
        def logging(items: list[int], log: list[int]) -> None:
            log.append(1)

        isolated([1])
        logging([1], [])

    def test_large_arguments_are_not_digested_again(self) -> None:
        """Where it would cost more than a small part of the body's time, they are not looked at."""

        class Slow:
            looked = 0

            def __digest__(self) -> Any:
                type(self).looked += 1
                return [list(range(1_000_000)), 1]

        @fleche
        def fast(x: Any) -> int:
            return 1

        fast(Slow())
        looked = Slow.looked
        fast.digest(Slow())
        assert looked == Slow.looked - looked


def make_sibling() -> Any:
    count = 0

    def bump() -> None:
        nonlocal count
        count += 1

    @fleche
    def sibling(x: int) -> int:
        runs.append(x)
        bump()
        return x + count

    return sibling


def put(where: list[int], x: int) -> None:
    where.append(x)


def make_indirect() -> Any:
    seen: list[int] = []

    @fleche
    def indirect(x: int) -> int:
        runs.append(x)
        put(seen, x)
        return x

    return indirect


class TestCaptured:
    """A closure that changes what it captured never hits; that is said once, with the name."""

    @pytest.mark.parametrize(("make", "name"), [(make_sibling, "count"), (make_indirect, "seen")])
    def test_told_once(self, make: Callable[[], Any], name: str) -> None:
        function = make()
        with pytest.warns(FlecheWarning, match=f"never hits, .* since `{name}`, which") as told:
            assert [function(1), function(1)]
        assert len(told) == 1
        assert runs == [1, 1]


@fleche
def leaf(x: int) -> int:
    return x


@fleche
def branch(x: int) -> int:
    return leaf(x) + leaf(x + 1) + leaf(x)


class TestLineage:
    """The record of a call holds the keys of the calls that were made while it ran."""

    def test_children(self) -> None:
        """Each once, in order, hits included; not the children's own children."""

        @fleche
        def tree(x: int) -> int:
            return leaf(x + 7) + branch(x)

        leaf(1)
        tree(1)
        call = tree.load(1)
        assert [child.name for child in call.children()] == ["leaf", "branch"]
        assert [child.key for child in branch.load(1).children()] == [
            leaf.digest(1),
            leaf.digest(2),
        ]
        assert leaf.load(1).children() == []
        assert [parent.key for parent in branch.load(1).parents()] == [call.key]

    def test_evicted_children_are_left_out(self) -> None:
        branch(1)
        leaf.load(1).evict()
        assert [child.key for child in branch.load(1).children()] == [leaf.digest(2)]

    def test_threads_and_tasks(self) -> None:
        """Calls made in tasks, in an executor and in threads that got the context are edges."""

        @fleche
        async def soon(x: int) -> int:
            return x

        @fleche
        async def gather(x: int) -> int:
            return sum(await asyncio.gather(soon(x), soon(x + 1)))

        @fleche
        def spread(x: int) -> int:
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(leaf, x))
            thread.start()
            thread.join()
            with wrap_executor(ThreadPoolExecutor(1)) as pool:
                return pool.submit(leaf, x + 1).result()

        asyncio.run(gather(1))
        spread(1)
        assert len(gather.load(1).children()) == 2
        assert [child.key for child in spread.load(1).children()] == [
            leaf.digest(1),
            leaf.digest(2),
        ]

    def test_duration(self) -> None:
        """The time that the body took is in the record, with what it waited for."""

        @fleche
        def waits(x: int) -> int:
            threading.Event().wait(0.05)
            return x

        waits(1)
        duration = waits.load(1).duration
        assert duration is not None
        assert 0.04 < duration < 10


@fleche
def countdown(n: int, attempt: int) -> int:
    return 0 if n == 0 else 1 + countdown(n - 1, attempt)


def plain(n: int, attempt: int) -> int:
    return 0 if n == 0 else 1 + plain(n - 1, attempt)


class Object:
    """The least that an object which is called instead of a function can be."""

    def __call__(self, n: int, attempt: int) -> int:
        return 0 if n == 0 else 1 + bare(n - 1, attempt)


bare = Object()


def deepest(function: Callable[[int, int], int]) -> int:
    """How deep a recursion gets, to ten levels."""
    low, high, attempt = 0, 2000, 0
    gc.disable()  # what others do at each collection runs out of stack there, too
    try:
        while high - low > 10:
            middle, attempt = (low + high) // 2, attempt + 1
            try:
                assert function(middle, attempt) == middle
                low = middle
            except RecursionError:
                high = middle
    finally:
        gc.enable()
    return low


class TestRecursion:
    """A decorated function calls itself about as deep as a plain one."""

    def test_depth(self) -> None:
        limit = sys.getrecursionlimit()
        # the first releases of 3.12 allow 1500 steps through C, whatever the limit says, and a call
        # of an object takes three of them: one for the object, two for the frame behind it
        share = 0.5 if sys.version_info[:2] == (3, 12) else 0.8
        countdown(1, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is swallowed on the way
            depth = deepest(countdown)
        assert depth >= share * deepest(plain)
        assert depth >= deepest(bare) - 10, "a nested call goes through C more than once"
        assert sys.getrecursionlimit() == limit

    def test_frames(self) -> None:
        """A nested call has one frame of the package between the two bodies."""

        @fleche
        def depth(n: int) -> int:
            if n:
                return depth(n - 1)
            count, frame = 0, sys._getframe()
            while frame.f_back is not None:
                count, frame = count + 1, frame.f_back
            return count

        found = []
        for levels in (1, 4):
            with cache(Cache(ValueMemory(), CallMemory())):
                found.append(depth(levels))
        assert found[1] - found[0] == 3 * 2

    def test_endless(self) -> None:
        """A recursion without an end is a RecursionError."""

        @fleche
        def endless(n: int) -> int:
            return endless(n + 1)

        with pytest.raises(RecursionError):
            endless(0)
        assert endless.contains(0) is False


def test_digest_in_place_of_a_generator(active: Cache) -> None:
    """A digest stands for a generator that nothing holds: there is nothing to advance."""
    rng = random.Random(1)
    digest = Digest(active.save_value(rng))
    assert noise(digest) == noise(digest)
    assert runs == ["noise"]
