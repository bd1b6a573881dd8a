"""Identical calls at the same time: each caller gets a result of his own, as it was returned."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from fleche import Cache, cache, fleche, state, wrap_executor
from fleche.caches import BaseCache, ReadOnlyCache
from fleche.decorator._singleflight import flights
from fleche.digest import Digest
from fleche.errors import CorruptParcel
from fleche.storage import CallMemory, CallVoid, ValueMemory, ValueVoid

pytestmark = pytest.mark.filterwarnings("ignore::fleche.FlecheWarning")

runs: list[Any] = []


class Slow(Cache):
    """A cache whose second look-up by a rider waits until it is told to go on."""

    def __init__(self, values: Any, calls: Any) -> None:
        super().__init__(values, calls)
        self.resume = threading.Event()
        self.looks = 0

    def lookup(self, key: Digest, **options: Any) -> Any:
        if threading.current_thread().name == "rider":
            self.looks += 1
            if self.looks == 2:
                assert self.resume.wait(20)
        return super().lookup(key, **options)


def memory() -> Cache:
    return Cache(ValueMemory(), CallMemory())


def void() -> Cache:
    return Cache(ValueVoid(), CallVoid())


def read_only() -> BaseCache:
    return ReadOnlyCache(memory())


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    runs.clear()
    yield
    state.reset()


@pytest.fixture(params=[memory, void, read_only])
def active(request: pytest.FixtureRequest) -> BaseCache:
    made: BaseCache = request.param()
    cache(made)
    return made


def until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def riders() -> int:
    """How many callers share the flights that are under way."""
    return sum(flight.waiters for flight in list(flights._active.values()))


def test_threads() -> None:
    """What the first caller does to its result, the second one does not see."""
    slow = Slow(ValueVoid(), CallVoid())
    gate = threading.Event()

    @fleche(hash_code=False, cache=slow)
    def numbers(x: int) -> list[int]:
        runs.append(x)
        assert gate.wait(20)
        return [1, 2, 3]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(numbers, 1)
        until(lambda: runs)
        seen: list[Any] = []
        rider = threading.Thread(target=lambda: seen.append(numbers(1)), name="rider")
        rider.start()
        until(lambda: riders() == 2)
        gate.set()
        first.result(20).clear()
        slow.resume.set()
        rider.join(20)
    assert seen == [[1, 2, 3]]
    assert runs == [1]


@pytest.mark.parametrize("isolate", [False, True])
def test_tasks(active: BaseCache, isolate: bool) -> None:
    @fleche(isolate=isolate)
    async def numbers(x: int) -> list[int]:
        runs.append(x)
        await asyncio.sleep(0.01)
        return [1, 2, 3]

    async def user() -> list[int]:
        mine = await numbers(1)
        seen = list(mine)
        mine.clear()
        return seen

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(user() for _ in range(3)))

    assert asyncio.run(main()) == [[1, 2, 3]] * 3
    assert runs == [1]


def test_tasks_whose_first_is_cancelled() -> None:
    """What is stored nowhere is still computed only once."""
    cache(void())

    async def main() -> list[list[int]]:
        gate = asyncio.Event()

        @fleche(hash_code=False)
        async def numbers(x: int) -> list[int]:
            runs.append(x)
            await gate.wait()
            return [1, 2, 3]

        tasks = [asyncio.create_task(numbers(1)) for _ in range(3)]
        await asyncio.sleep(0)
        assert riders() == 3
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        gate.set()
        return await asyncio.gather(*tasks[1:])

    assert asyncio.run(main()) == [[1, 2, 3]] * 2
    assert runs == [1]


def clear(future: Future[list[int]]) -> None:
    """Do with a result what its owner may do, as soon as it is there."""
    future.result().clear()


@fleche(hash_code=False)
def later_the_second_time(x: int) -> asyncio.Future[str]:
    """A future that is never done, or, from the second run on, one that is."""
    runs.append(x)
    future = asyncio.get_running_loop().create_future()
    if len(runs) > 1:
        future.set_result("done")
    return future


class TestFutures:
    def test_of_functions(self, active: BaseCache) -> None:
        inner: Future[list[int]] = Future()

        @fleche(hash_code=False)
        def later(x: int) -> Future[list[int]]:
            runs.append(x)
            return inner

        first = later(1)
        first.add_done_callback(clear)
        others = [later(1) for _ in range(2)]
        inner.set_result([1, 2, 3])
        assert [future.result(20) for future in others] == [[1, 2, 3]] * 2
        assert others[0].result() is not others[1].result()
        assert runs == [1]

    def test_joined_when_it_is_over(self, active: BaseCache) -> None:
        """Who joined a computation and comes for its result late gets one of his own, too."""
        inner: Future[list[int]] = Future()

        @fleche(hash_code=False)
        def later(x: int) -> Future[list[int]]:
            runs.append(x)
            return inner

        first, _ = later(1), later(1)
        (flight,) = flights._active.values()
        inner.set_result([1, 2, 3])
        first.result(20).clear()
        assert flight.deferred.join(flight, lambda: "alone").result(20) == [1, 2, 3]
        assert runs == [1]

    def test_of_executors(self, active: BaseCache) -> None:
        gate = threading.Event()

        @fleche(hash_code=False)
        def numbers(x: int) -> list[int]:
            runs.append(x)
            assert gate.wait(20)
            return [1, 2, 3]

        with wrap_executor(ThreadPoolExecutor(1)) as pool:
            first = pool.submit(numbers, 1)
            first.add_done_callback(clear)
            others = [pool.submit(numbers, 1) for _ in range(2)]
            gate.set()
            assert [future.result(20) for future in others] == [[1, 2, 3]] * 2
        assert runs == [1]

    def test_of_event_loops(self, active: BaseCache) -> None:
        async def main() -> list[list[int]]:
            inner = asyncio.get_running_loop().create_future()

            @fleche(hash_code=False)
            def later(x: int) -> asyncio.Future[list[int]]:
                runs.append(x)
                return inner

            first = later(1)
            first.add_done_callback(lambda future: future.result().clear())
            others = [later(1) for _ in range(2)]
            inner.set_result([1, 2, 3])
            return [await other for other in others]

        assert asyncio.run(main()) == [[1, 2, 3]] * 2
        assert runs == [1]

    def test_whose_event_loop_is_closed(self, active: BaseCache) -> None:
        """A future that can no longer be done is not waited for: the next caller computes."""

        async def forget() -> None:
            later_the_second_time(1)

        async def ask() -> str:
            return await asyncio.wait_for(later_the_second_time(1), 20)

        asyncio.run(forget())
        assert asyncio.run(ask()) == "done"
        assert runs == [1, 1]

    def test_that_all_callers_have_just_left(self, active: BaseCache) -> None:
        """The next caller computes, though the future of the others is not quite cancelled yet."""

        async def main() -> str:
            first = later_the_second_time(1)
            first.cancel()
            await asyncio.sleep(0)  # the flight has been left, and its future has not ended yet
            return await asyncio.wait_for(later_the_second_time(1), 20)

        assert asyncio.run(main()) == "done"
        assert runs == [1, 1]

    def test_that_one_caller_gives_up(self, active: BaseCache) -> None:
        """The function's own future is cancelled with the last caller, and not before."""
        inner: Future[str] = Future()

        @fleche(hash_code=False)
        def later(x: int) -> Future[str]:
            return inner

        first, second, third = later(1), later(1), later(1)
        assert first.cancel()
        assert second.cancel()
        assert not inner.cancelled()
        inner.set_result("done")
        assert third.result(20) == "done"


def test_a_cache_that_is_strict() -> None:
    """What keeps a caller from the stored result is told to that caller, who does not wait on."""

    class Strict(Cache):
        def lookup(self, key: Digest, **options: Any) -> Any:
            if runs:
                raise CorruptParcel("damaged")
            return super().lookup(key, **options)

    strict = Strict(ValueMemory(), CallMemory())
    inner: Future[list[int]] = Future()

    @fleche(hash_code=False, cache=strict)
    def later(x: int) -> Future[list[int]]:
        return inner

    futures = [later(1), later(1)]
    runs.append("from now on")
    inner.set_result([1])
    assert futures[0].result(20) == [1]
    assert isinstance(futures[1].exception(20), CorruptParcel)


class TestWhatCannotBeCopied:
    """Those that wait for it compute by themselves, in the settings of their own calls."""

    def test_of_functions(self) -> None:
        own = memory()
        inner = [Future(), Future()]

        @fleche(hash_code=False)
        def later(x: int) -> Future[Any]:
            runs.append(state.cache())
            return inner[len(runs) - 1]

        with cache(own):
            first, second = later(1), later(1)
        inner[1].set_result(threading.Lock())
        inner[0].set_result(threading.Lock())
        assert first.result(20) is inner[0].result()
        assert second.result(20) is inner[1].result()
        assert runs == [own, own]

    def test_failing(self) -> None:
        """What then goes wrong is told to the caller whose call it is."""
        inner: Future[Any] = Future()

        @fleche(hash_code=False)
        def later(x: int) -> Any:
            runs.append(x)
            if len(runs) == 2:
                raise LookupError("second")
            return inner if len(runs) == 1 else "at once"

        cache(memory())
        futures = [later(1) for _ in range(3)]
        inner.set_result(threading.Lock())
        assert futures[0].result(20) is inner.result()
        found = sorted(str(future.exception(20) or future.result()) for future in futures[1:])
        assert found == ["at once", "second"]

    def test_of_executors(self) -> None:
        cache(memory())
        gate = threading.Event()

        @fleche(hash_code=False)
        def lock(x: int) -> Any:
            assert gate.wait(20)
            return threading.Lock()

        with wrap_executor(ThreadPoolExecutor(1)) as pool:
            futures = [pool.submit(lock, 1) for _ in range(3)]
            gate.set()
            assert len({id(future.result(20)) for future in futures}) == 3

    def test_of_event_loops(self) -> None:
        cache(memory())

        async def main() -> list[Any]:
            async def make() -> Any:
                await asyncio.sleep(0)
                return threading.Lock()

            @fleche(hash_code=False)
            def later(x: int) -> asyncio.Future[Any]:
                return asyncio.ensure_future(make())

            return await asyncio.gather(*(later(1) for _ in range(3)))

        assert len({id(lock) for lock in asyncio.run(main())}) == 3
