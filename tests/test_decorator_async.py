"""The decorator on coroutine functions, and on functions that return futures."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

import pytest

import fleche as package
from fleche import Cache, Runtime, fleche
from fleche.decorator import FlecheWarning

runs: list[Any] = []


@pytest.fixture(autouse=True)
def fresh(active: Cache) -> None:
    runs.clear()
    package.meta(Runtime())


@fleche
async def fetch(x: Any, delay: float = 0.05) -> list[Any]:
    """Wait a little."""
    runs.append(x)
    await asyncio.sleep(delay)
    return [x]


class Session:
    def __init__(self, name: str) -> None:
        self.name = name

    @fleche
    async def get(self, path: str) -> str:
        runs.append(path)
        await asyncio.sleep(0)
        return f"{self.name}/{path}"


class TestCoroutines:
    def test_awaits_on_a_miss_only(self) -> None:
        """A hit is there at once: no other task gets a turn."""

        async def main() -> None:
            assert await fetch(1) == [1]
            coroutine = fetch(1)
            with pytest.raises(StopIteration) as done:
                coroutine.send(None)
            assert done.value.value == [1]

        asyncio.run(main())
        assert runs == [1]

    def test_at_the_same_time_compute_once(self) -> None:
        """Each caller gets a result of its own."""

        async def main() -> list[list[int]]:
            return await asyncio.gather(*(fetch(1) for _ in range(32)))

        results = asyncio.run(main())
        assert results == [[1]] * 32
        assert len({id(result) for result in results}) == 32
        assert runs == [1]

    def test_across_loops(self) -> None:
        """Two threads, each with a loop of its own, share a computation too."""
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda _: asyncio.run(fetch(1, 0.3)), range(2)))
        assert results == [[1], [1]]
        assert runs == [1]

    def test_cancelling_one_leaves_the_others(self, active: Cache) -> None:
        """Even if it is the one who began: the computation goes on for the others that wait."""

        async def main() -> None:
            first = asyncio.create_task(fetch(1, 0.2))
            others = [asyncio.create_task(fetch(1, 0.2)) for _ in range(3)]
            await asyncio.sleep(0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            others[0].cancel()
            assert await others[1] == await others[2] == [1]

        asyncio.run(main())
        assert runs == [1]
        assert fetch.contains(1, 0.2)

    def test_cancelling_all_ends_it(self, active: Cache) -> None:
        """The body is cancelled and has cleaned up when the last caller is; nothing is stored."""

        @fleche
        async def careful(x: int) -> str:
            try:
                await asyncio.sleep(30)
            finally:
                runs.append("cleaned")
            return "never"

        async def main() -> None:
            tasks = [asyncio.create_task(careful(1)) for _ in range(2)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert runs == ["cleaned"]

        asyncio.run(main())
        assert [entry.key for entry in active.calls.entries()] == []

    def test_what_a_cancelled_body_returns_is_not_stored(self, active: Cache) -> None:
        """Half a result is no result."""

        @fleche
        async def stubborn(x: int) -> str:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return "half"
            return "whole"

        async def main() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stubborn(1), 0.05)

        asyncio.run(main())
        assert not stubborn.contains(1)
        assert [entry.key for entry in active.calls.entries()] == []

    def test_cancelled_across_loops(self) -> None:
        """The last caller may sit in another loop than the computation."""

        async def begin() -> None:
            task = asyncio.create_task(fetch(1, 1.5))
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.sleep(0.5)

        async def join() -> None:
            await asyncio.sleep(0.1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(fetch(1, 1.5), 0.4)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(asyncio.run, main()) for main in (begin, join)]:
                done.result(10)
        assert not fetch.contains(1, 1.5)

    def test_others_try_when_one_fails(self) -> None:
        """An exception is not a result."""

        @fleche
        async def flaky(x: int) -> int:
            runs.append(x)
            await asyncio.sleep(0.02)
            if len(runs) == 1:
                raise ValueError("first")
            return x

        async def main() -> list[Any]:
            calls = (flaky(1) for _ in range(5))
            return await asyncio.gather(*calls, return_exceptions=True)

        assert sorted(map(str, asyncio.run(main()))) == ["1"] * 4 + ["first"]
        assert len(runs) == 2

    def test_the_same_call_inside_itself(self) -> None:
        """Also in a task that the body starts: it computes, and does not wait."""

        @fleche
        async def again(x: int) -> int:
            runs.append(x)
            if len(runs) > 1:
                return 1
            inner = await asyncio.gather(again(x), again(x))
            return sum(inner)

        assert asyncio.run(asyncio.wait_for(again(0), 5)) == 2

    def test_recursion(self) -> None:
        @fleche
        async def fib(n: int) -> int:
            runs.append(n)
            return n if n < 2 else sum(await asyncio.gather(fib(n - 1), fib(n - 2)))

        assert asyncio.run(fib(15)) == 610
        assert len(runs) == 16

    def test_methods(self) -> None:
        async def main() -> None:
            assert await Session("a").get("x") == await Session("a").get("x") == "a/x"

        asyncio.run(main())
        assert runs == ["x"]

    def test_surface(self) -> None:
        async def main() -> None:
            await fetch(1)
            assert fetch.contains(1)
            assert fetch.load(1).result == [1]
            assert await fetch.rerun(1) == [1]
            assert await fetch.bind()(1) == [1]

        asyncio.run(main())
        assert runs == [1, 1]

    def test_looks_like_a_coroutine_function(self) -> None:
        assert inspect.iscoroutinefunction(fetch)
        assert fetch.__doc__ == "Wait a little."

    def test_callable_objects(self) -> None:
        """An object whose call is a coroutine is awaited on a miss only, too."""

        class Fetch:
            async def __call__(self, x: int) -> int:
                runs.append(x)
                await asyncio.sleep(0)
                return x

        function = fleche(Fetch())
        assert asyncio.run(function(1)) == asyncio.run(function(1)) == 1
        assert runs == [1]

    def test_undigestible(self) -> None:
        async def main() -> None:
            with pytest.warns(FlecheWarning, match="uncached") as caught:
                assert len(await fetch(iter([]))) == 1
            assert caught[0].filename == __file__

        asyncio.run(main())

    def test_failing_cache(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise OSError("gone")

        monkeypatch.setattr(active, "lookup", fail)
        with pytest.warns(FlecheWarning, match="gone"):
            assert asyncio.run(fetch(1)) == [1]

    def test_uncopied_results_are_computed_by_each(self) -> None:
        @fleche
        async def lock(x: int) -> Any:
            await asyncio.sleep(0.01)
            return threading.Lock()

        async def main() -> list[Any]:
            return await asyncio.gather(*(lock(1) for _ in range(3)))

        with pytest.warns(FlecheWarning):
            assert len({id(each) for each in asyncio.run(main())}) == 3

    def test_a_loop_that_was_closed(self) -> None:
        """A computation whose event loop is gone is not waited for."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(fetch(1, 0.02))
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        assert asyncio.run(asyncio.wait_for(fetch(1, 0.02), 5)) == [1]
        assert not task.done()

    def test_interrupt_passes(self, active: Cache) -> None:
        @fleche
        async def interrupted(x: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(interrupted(1))
        assert [entry.key for entry in active.calls.entries()] == []


class Pause:
    """What the loop of another library is given: it means nothing to asyncio."""

    def __await__(self) -> Iterator[str]:
        yield "pause"


def turn_by_turn(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines in an event loop that is not asyncio's, as that of trio: each in a context."""
    results: dict[int, Any] = {}
    contexts = [copy_context() for _ in coroutines]
    while len(results) < len(coroutines):
        for place, each in enumerate(coroutines):
            if place not in results:
                try:
                    assert contexts[place].run(each.send, None) == "pause"
                except StopIteration as end:
                    results[place] = end.value
    return [results[place] for place in range(len(coroutines))]


class TestOtherEventLoops:
    """Without a running loop of asyncio, a body is awaited where it is called."""

    @pytest.mark.parametrize("coalesce", ["threads", "processes"])
    def test_misses_and_hits(self, coalesce: Any) -> None:
        @fleche(coalesce=coalesce)
        async def inner(x: int) -> list[int]:
            runs.append(x)
            await Pause()
            return [x]

        @fleche
        async def outer(x: int) -> list[int]:
            return [*await inner(x), 0]

        assert turn_by_turn(outer(1), outer(2)) == [[1, 0], [2, 0]]
        assert turn_by_turn(outer(1), inner(2)) == [[1, 0], [2]]
        assert runs == [1, 2]
        assert turn_by_turn(inner.rerun(1)) == [[1]]
        assert runs == [1, 2, 1]

    def test_at_the_same_time_each_computes(self) -> None:
        @fleche
        async def slow(x: int) -> list[int]:
            await Pause()
            return [x]

        one, two = turn_by_turn(slow(1), slow(1))
        assert one == two == [1]
        assert one is not two

    def test_a_body_that_raises_or_is_left(self, active: Cache) -> None:
        @fleche
        async def failing(x: int) -> None:
            await Pause()
            raise ValueError(x)

        with pytest.raises(ValueError, match="1"):
            turn_by_turn(failing(1))
        left, context = failing(2), copy_context()
        context.run(left.send, None)
        context.run(left.close)
        assert [entry.key for entry in active.calls.entries()] == []


pool: ThreadPoolExecutor


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    global pool
    with ThreadPoolExecutor(4) as pool:
        yield pool


@fleche
def later(x: Any, delay: float = 0.05) -> Future[list[Any]]:
    def work() -> list[Any]:
        runs.append(x)
        time.sleep(delay)
        if x == "fail":
            raise ValueError(x)
        return [x]

    return pool.submit(work)


@fleche
def soon(x: Any, delay: float = 0.05) -> asyncio.Future[list[Any]]:
    async def work() -> list[Any]:
        runs.append(x)
        await asyncio.sleep(delay)
        if x == "fail":
            raise ValueError(x)
        return [x]

    return asyncio.ensure_future(work())


@pytest.mark.usefixtures("workers")
class TestConcurrentFutures:
    def test_hit_is_a_future_that_is_done(self) -> None:
        """The result is stored by the time the caller has it."""
        first = later(1)
        assert first.result(5) == [1]
        assert later.contains(1)
        hit = later(1)
        assert isinstance(hit, Future)
        assert hit.done()
        assert hit.result() == [1]
        assert runs == [1]
        assert later.load(1).result == [1]

    def test_under_way(self) -> None:
        """A second caller does not wait to get a future of his own, and nothing runs twice."""
        begin = time.perf_counter()
        first, second = later(1, 0.3), later(1, 0.3)
        assert time.perf_counter() - begin < 0.25
        assert first is not second
        assert wait([first, second], 5).not_done == set()
        assert first.result() == second.result() == [1]
        assert first.result() is not second.result()
        assert runs == [1]

    def test_failing(self, active: Cache) -> None:
        first, second = later("fail"), later("fail")
        for future in (first, second):
            with pytest.raises(ValueError, match="fail"):
                future.result(5)
        assert not later.contains("fail")
        assert [entry.key for entry in active.calls.entries()] == []
        with pytest.raises(ValueError, match="fail"):
            later("fail").result(5)
        assert runs == ["fail", "fail"]

    def test_cancelling_one_leaves_the_others(self) -> None:
        first, second = later(1, 0.2), later(1, 0.2)
        assert first.cancel()
        assert second.result(5) == [1]
        assert later.contains(1, 0.2)

    def test_cancelling_all_cancels_the_functions_own(self, active: Cache) -> None:
        blockers = [pool.submit(time.sleep, 0.3) for _ in range(4)]
        only = later(1)
        assert only.cancel()
        wait(blockers)
        assert runs == []
        assert [entry.key for entry in active.calls.entries()] == []
        assert later(1).result(5) == [1]

    def test_functions_own_is_cancelled(self) -> None:
        """By the caller that runs it: all callers hear of it."""
        inner: Future[int] = Future()
        runs.append(inner)

        @fleche
        def handed(x: int) -> Future[int]:
            return runs[0]

        first, second = handed(1), handed(1)
        inner.cancel()
        inner.set_running_or_notify_cancel()
        assert first.cancelled()
        assert second.cancelled()

    def test_done_at_once(self) -> None:
        @fleche
        def ready(x: int) -> Future[int]:
            future: Future[int] = Future()
            future.set_result(x)
            return future

        assert ready(1).result(0) == 1
        assert ready.contains(1)

    def test_joined_when_just_done(self) -> None:
        """Who comes while the result is being stored gets it."""
        futures = []
        for number in range(200):
            futures += [later(number % 10, 0.001) for _ in range(2)]
        assert [future.result(10) for future in futures] == [
            [number % 10] for number in range(200) for _ in range(2)
        ]
        assert sorted(runs) == list(range(10))

    def test_warnings_that_are_errors(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """They reach the caller that asks for the result."""

        def fail(*args: Any, **kwargs: Any) -> Any:
            raise OSError("gone")

        monkeypatch.setattr(active.backend, "save", fail)
        with pytest.raises(FlecheWarning, match="gone"):
            later([1]).result(5)

    def test_rerun(self) -> None:
        assert later(1).result(5) == later.rerun(1).result(5) == [1]
        assert runs == [1, 1]


class TestAsyncioFutures:
    def test_hit_is_a_future_that_is_done(self) -> None:
        async def main() -> None:
            assert await soon(1) == [1]
            assert soon.contains(1)
            hit = soon(1)
            assert isinstance(hit, asyncio.Future)
            assert hit.done()
            assert await hit == [1]

        asyncio.run(main())
        assert runs == [1]

    def test_under_way(self) -> None:
        async def main() -> None:
            results = await asyncio.gather(soon(1), soon(1), soon(1))
            assert results == [[1]] * 3
            assert len({id(result) for result in results}) == 3

        asyncio.run(main())
        assert runs == [1]

    def test_failing(self, active: Cache) -> None:
        async def main() -> None:
            results = await asyncio.gather(soon("fail"), soon("fail"), return_exceptions=True)
            assert [str(result) for result in results] == ["fail", "fail"]

        asyncio.run(main())
        assert [entry.key for entry in active.calls.entries()] == []

    def test_cancelling(self, active: Cache) -> None:
        async def main() -> None:
            first, second = soon(1), soon(1)
            first.cancel()
            assert await second == [1]
            only = soon(2)
            only.cancel()
            await asyncio.sleep(0.1)

        asyncio.run(main())
        assert [entry.key for entry in active.calls.entries()] == [soon.digest(1)]

    def test_joined_when_just_done(self) -> None:
        """Who comes when the function's own future is done, and not yet stored, gets it too."""

        async def main() -> None:
            inner = asyncio.get_running_loop().create_future()
            runs.append(inner)

            first = ready(1)
            inner.set_result([5])
            second = ready(1)
            assert await first == await second == [5]

        @fleche
        def ready(x: int) -> asyncio.Future[list[int]]:
            return runs[0]

        asyncio.run(main())

    def test_functions_own_is_cancelled(self) -> None:
        """By the caller that runs it: all callers hear of it."""

        async def main() -> None:
            runs.append(asyncio.get_running_loop().create_future())
            first, second = handed(1), handed(1)
            runs[0].cancel()
            for future in (first, second):
                with pytest.raises(asyncio.CancelledError):
                    await future

        @fleche
        def handed(x: int) -> asyncio.Future[int]:
            return runs[0]

        asyncio.run(main())

    def test_joined_without_a_loop(self) -> None:
        """A thread that runs no loop may join, and gets a future of the function's loop."""

        async def main() -> None:
            first = soon(1, 0.3)
            second = await asyncio.to_thread(soon, 1, 0.3)
            assert await first == await second == [1]
            assert runs == [1]

        asyncio.run(main())

    def test_across_loops(self) -> None:
        """Each caller's future is of his own loop."""

        async def main(delay: float) -> list[Any]:
            await asyncio.sleep(delay)
            return await soon(1, 0.4)

        with ThreadPoolExecutor(2) as threads:
            results = list(threads.map(lambda delay: asyncio.run(main(delay)), (0, 0.15)))
        assert results == [[1], [1]]
        assert runs == [1]
