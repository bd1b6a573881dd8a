"""Executors whose workers know the cache, and functions that take it along."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fleche as package
from fleche import BoundWrapper, Cache, Runtime, cache, fleche, state, tags, wrap_executor
from fleche.caches import CacheStack, LayerPolicy
from fleche.decorator import FlecheWarning
from fleche.decorator._singleflight import Flight, Role, flights
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory

METHODS = ["fork", "spawn"]

runs: list[Any] = []


def memory() -> Cache:
    return Cache(ValueMemory(), CallMemory())


def files(root: Path) -> Cache:
    return Cache(ValueFile(str(root / "values")), CallFile(str(root / "calls")))


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    runs.clear()
    package.meta(Runtime())
    yield
    state.reset()


@pytest.fixture(params=METHODS)
def processes(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context(request.param)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool


@pytest.fixture(params=["thread", *METHODS])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "thread":
        with ThreadPoolExecutor(2) as threads:
            yield threads
        return
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(request.param)) as pool:
        yield pool


@fleche
def where(x: Any, delay: float = 0.0) -> tuple[Any, int]:
    """The argument, and the process that computed."""
    runs.append(x)
    time.sleep(delay)
    if x == "fail":
        raise ValueError(x)
    return x, os.getpid()


@fleche
def outer(x: int) -> Any:
    return where(x)


@fleche
async def slowly(x: int) -> int:
    await asyncio.sleep(0)
    return x


def plain(x: int) -> int:
    return x + 1


def calls_where(x: Any) -> Any:
    return where(x)


class Older(Executor):
    """An executor with the `shutdown` of old, and a keyword of its own."""

    def __init__(self) -> None:
        self.inner = ThreadPoolExecutor(1)
        self.resources: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, resources: Any = None, **kwargs: Any) -> Any:
        self.resources.append(resources)
        return self.inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self.inner.shutdown(wait)


class Body:
    def __init__(self, mass: int) -> None:
        self.mass = mass

    @fleche
    def weight(self, gravity: int) -> int:
        return self.mass * gravity


class TestEveryExecutor:
    @pytest.mark.parametrize("make", [memory, files])
    def test_stores_and_hits(
        self, executor: Executor, make: Callable[..., Cache], tmp_path: Path
    ) -> None:
        """A result is stored by the time that it arrives; a hit submits nothing."""
        with cache(make(tmp_path) if make is files else make()) as active:
            pool = wrap_executor(executor)
            first = pool.submit(where, 1).result(30)
            assert first[0] == 1
            assert where.contains(1)
            hit = pool.submit(where, x=1)
            assert hit.done()
            assert hit.result() == first == where(1)
            assert active.query().count() == 1
            assert where.load(1).metadata["runtime"]["seconds"] >= 0

    def test_map(self, executor: Executor, tmp_path: Path) -> None:
        with cache(files(tmp_path)):
            pool = wrap_executor(executor)
            found = list(pool.map(where, range(5), timeout=30))
            assert [number for number, _ in found] == list(range(5))
            assert list(pool.map(where, range(5))) == found

    def test_identical_calls_run_once(self, executor: Executor, tmp_path: Path) -> None:
        with cache(files(tmp_path)) as active:
            pool = wrap_executor(executor)
            futures = [pool.submit(where, 1, 0.3) for _ in range(6)]
            assert len({future.result(30) for future in futures}) == 1
            assert len({id(future) for future in futures}) == 6
            assert active.query().count() == 1

    def test_exception(self, executor: Executor, tmp_path: Path) -> None:
        with cache(files(tmp_path)) as active:
            pool = wrap_executor(executor)
            with pytest.raises(ValueError, match="fail"):
                pool.submit(where, "fail").result(30)
            assert [entry.key for entry in active.calls.entries()] == []

    def test_nested_calls(self, executor: Executor, tmp_path: Path) -> None:
        """Calls inside the call use the same cache."""
        with cache(files(tmp_path)):
            wrap_executor(executor).submit(outer, 3).result(30)
            assert where.contains(3)

    def test_settings_go_along(self, executor: Executor, tmp_path: Path) -> None:
        """Those of where it was submitted, not of where it runs."""
        with cache(files(tmp_path)):
            pool = wrap_executor(executor)
            with tags(sample=7), package.meta("runtime", "tags"):
                future = pool.submit(where, 1)
            with tags(sample=8):
                future.result(30)
            assert where.load(1).metadata["tags"] == {"sample": 7}

    def test_not_decorated(self, executor: Executor) -> None:
        assert wrap_executor(executor).submit(plain, 1).result(30) == 2

    def test_a_plain_function_takes_the_settings_along(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        """Decorated functions that it calls use the active cache, not the default of the worker."""
        with cache(files(tmp_path)), tags(sample=7):
            wrap_executor(executor).submit(calls_where, 9).result(30)
            assert where.query(metadata={"tags": {"sample": 7}}).count() == 1

    def test_methods_and_partials(self, executor: Executor, tmp_path: Path) -> None:
        with cache(files(tmp_path)):
            pool = wrap_executor(executor)
            assert pool.submit(Body(3).weight, 4).result(30) == 12
            assert Body(3).weight.contains(4)
            assert pool.submit(partial(where, delay=0.0), 5).result(30)[0] == 5
            assert where.contains(5)

    def test_digests(self, executor: Executor, tmp_path: Path) -> None:
        """A digest is loaded where the call is computed."""
        for active in (files(tmp_path), memory()):
            with cache(active):
                pool = wrap_executor(executor)
                name = active.save_value([1, 2])
                assert pool.submit(where, name).result(30)[0] == [1, 2]
                assert where.contains([1, 2])


class TestExecutor:
    def test_undigestible(self) -> None:
        """It runs uncached, with a warning where it was submitted."""
        function = fleche(hash_code=True)(plain_length)
        with cache(memory()), wrap_executor(ThreadPoolExecutor(1)) as pool:
            with pytest.warns(FlecheWarning, match="uncached") as caught:
                assert pool.submit(function, iter([1])).result(30) == 1
            assert caught[0].filename == __file__

    def test_unsubmitted(self) -> None:
        """A hit needs no worker."""

        class Never(Executor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                raise AssertionError("submitted")

        with cache(memory()):
            where(1)
            assert wrap_executor(Never()).submit(where, 1).done()
            with pytest.raises(AssertionError):
                wrap_executor(Never()).submit(where, 2)
            with pytest.raises(AssertionError):  # nothing waits for what was never begun
                wrap_executor(Never()).submit(where, 2)

    def test_closes_the_inner_one(self) -> None:
        with wrap_executor(ThreadPoolExecutor(1)) as pool:
            assert "CachedExecutor" in repr(pool)
        with pytest.raises(RuntimeError):
            pool.inner.submit(plain, 1)

    def test_cancelling(self, tmp_path: Path) -> None:
        """What has not begun is not computed."""
        with cache(files(tmp_path)), wrap_executor(ThreadPoolExecutor(1)) as pool:
            blocker = pool.submit(where, "blocker", 0.2)
            future = pool.submit(where, 1)
            assert future.cancel()
            blocker.result(30)
        assert runs == ["blocker"]

    def test_joined_by_a_plain_call(self, tmp_path: Path) -> None:
        """A plain call of what a thread of the executor computes waits for it."""
        with cache(files(tmp_path)), wrap_executor(ThreadPoolExecutor(1)) as pool:
            future = pool.submit(where, 1, 0.3)
            time.sleep(0.1)
            assert where(1, 0.3) == future.result(30)
        assert runs == [1]

    def test_failing_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise OSError("gone")

        active = memory()
        monkeypatch.setattr(active, "lookup", fail)
        with cache(active), wrap_executor(ThreadPoolExecutor(1)) as pool:
            with pytest.warns(FlecheWarning, match="gone"):
                future = pool.submit(where, 1)
            assert future.result(30)[0] == 1

    def test_what_may_not_wait_for_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where to wait for the same call would never end, it is computed once more."""
        monkeypatch.setattr(flights, "join", lambda slot, since: (Role.ALONE, Flight()))
        with cache(memory()), wrap_executor(ThreadPoolExecutor(1)) as pool:
            assert pool.submit(where, 1).result(30)[0] == 1

    def test_coroutine_functions(self) -> None:
        """They are bound; what they return is awaited where it is wanted."""
        with cache(memory()) as active, wrap_executor(ThreadPoolExecutor(1)) as pool:
            assert asyncio.run(pool.submit(slowly, 1).result(30)) == 1
            assert active.query().count() == 1

    def test_required_parameters(self) -> None:
        with cache(memory()) as active, wrap_executor(ThreadPoolExecutor(1)) as pool:
            drawn = fleche(require="seed")(plain_draw)
            assert pool.submit(drawn).result(30) is None
            assert active.query().count() == 0


def plain_length(items: Any) -> int:
    return len(list(items))


def plain_draw(seed: int | None = None) -> int | None:
    return seed


@pytest.mark.parametrize("thing", [ThreadPoolExecutor, 3, multiprocessing])
def test_what_is_no_executor(thing: Any) -> None:
    """A class that was not called, or a pool without ``submit``: it is said where it is passed."""
    with pytest.raises(TypeError, match=r"is no executor of concurrent.futures; .*\.bind\(\)"):
        wrap_executor(thing)


class TestForeignExecutors:
    def test_one_that_does_not_know_cancel_futures(self) -> None:
        """It is said only where it was asked for."""
        with cache(memory()), wrap_executor(Older()) as pool:
            assert list(pool.map(plain, range(3))) == [1, 2, 3]

    def test_keywords_for_the_executor(self) -> None:
        """They reach it, and are no part of the key."""
        inner = Older()
        with cache(memory()), wrap_executor(inner) as pool:
            assert pool.submit(where, 1, resources={"gpu": 1}).result(30)[0] == 1
            assert pool.submit(plain, 1, resources={"gpu": 2}).result(30) == 2
            assert where.contains(1)
        assert inner.resources == [{"gpu": 1}, {"gpu": 2}]

    def test_loky(self, tmp_path: Path) -> None:
        loky = pytest.importorskip("loky")
        with cache(files(tmp_path)), wrap_executor(loky.ProcessPoolExecutor(1)) as pool:
            assert pool.submit(where, 1).result(60)[0] == 1
            assert where.contains(1)
            assert list(pool.map(calls_where, [1])) == [where(1)]

    def test_dask(self, tmp_path: Path) -> None:
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, processes=True
        )
        with (
            cluster,
            distributed.Client(cluster) as client,
            cache(files(tmp_path)),
            wrap_executor(client.get_executor()) as pool,
        ):
            assert pool.submit(where, 1).result(60)[0] == 1
            assert where.contains(1)

    def test_executorlib(self, tmp_path: Path) -> None:
        executorlib = pytest.importorskip("executorlib")
        inner = executorlib.SingleNodeExecutor(max_workers=1)
        with cache(files(tmp_path)), wrap_executor(inner) as pool:
            assert pool.submit(where, 1, resource_dict={"cores": 1}).result(60)[0] == 1
            assert where.contains(1)


class TestBoundWrapper:
    def test_freezes(self) -> None:
        """What is active when it is called does not matter."""
        one, two = memory(), memory()
        with cache(one), tags(sample=7):
            bound = where.bind()
        with cache(two), tags(sample=8):
            bound(1)
            assert two.query().count() == 0
        assert one.query().only().metadata["tags"] == {"sample": 7}

    def test_given(self) -> None:
        one = memory()
        with cache(memory()) as active:
            BoundWrapper(where, cache=one, meta=())(1)
            assert active.query().count() == 0
        assert one.query().only().metadata == {}

    def test_coroutine_function(self) -> None:
        one = memory()
        bound = slowly.bind(cache=one)
        with cache(memory()):
            assert asyncio.run(bound(1)) == 1
        assert one.query().count() == 1

    def test_pickles(self, tmp_path: Path) -> None:
        """In one process, all that come with the same cache share one."""
        with cache(files(tmp_path)), tags(sample=7):
            pickled = pickle.dumps(where.bind())
            other = pickle.dumps(outer.bind())
        bound = pickle.loads(pickled)
        assert bound(1)[0] == 1
        assert bound.tags == {"sample": 7}
        assert bound.cache is pickle.loads(other).cache
        with cache(files(tmp_path)):
            assert where.contains(1)
        assert "BoundWrapper" in repr(bound)

    def test_pickles_a_local_function(self, tmp_path: Path) -> None:
        @fleche
        def local(x: int) -> int:
            return x + 1

        with cache(files(tmp_path)):
            bound = pickle.loads(pickle.dumps(local.bind()))
            assert bound(1) == 2
            assert local.contains(1)

    def test_memory_stays_here(self) -> None:
        """Another process cannot share it: the function runs uncached there, which is said once."""
        with cache(memory()):
            function = fleche(hash_code=True)(plain)
            with pytest.warns(FlecheWarning, match="other process") as caught:
                bound = pickle.loads(pickle.dumps(function.bind()))
            assert len(caught) == 1
            pickle.dumps(function.bind())
            assert bound(1) == 2
            assert not function.contains(1)
            pickle.dumps(bound)

    def test_only_functions(self) -> None:
        with pytest.raises(TypeError, match="not a function"):
            BoundWrapper(3)  # type: ignore[arg-type]

    def test_plain_functions(self, tmp_path: Path) -> None:
        """What a plain function calls uses the cache, metadata and tags that go along."""
        with cache(files(tmp_path)) as mine, tags(sample=7):
            bound = BoundWrapper(calls_where)
        with cache("void"):
            assert pickle.loads(pickle.dumps(bound))(3) == where.__wrapped__(3)
        assert mine.query(metadata={"tags": {"sample": 7}}).only().name == "where"

    def test_caches_of_a_worker_are_few(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one that was not used for longest is closed."""
        from fleche.decorator import _bound as module

        monkeypatch.setattr(module, "KEPT", 2)
        monkeypatch.setattr(module, "_caches", type(module._caches)())
        for number in range(4):
            active = files(tmp_path / str(number))
            assert pickle.loads(pickle.dumps(where.bind(cache=active))).cache is not active
        assert len(module._caches) == 2

    def test_cache_that_cannot_be_opened(self, tmp_path: Path) -> None:
        """In the other process it fails like any other cache: the function runs uncached."""
        with cache(Brittle(tmp_path)):
            bound = pickle.loads(pickle.dumps(fleche(hash_code=True)(plain).bind()))
        with pytest.warns(FlecheWarning, match="cannot be opened in this process.*brittle"):
            assert bound(1) == 2
        with pytest.raises(AttributeError):
            _ = bound.nothing


class Brittle(Cache):
    def __init__(self, root: Path) -> None:
        super().__init__(ValueFile(str(root / "values")), CallFile(str(root / "calls")))

    def __reduce__(self) -> Any:
        return shatter, ()


def shatter() -> None:
    raise OSError("brittle")


@pytest.mark.parametrize("write_through", [False, True])
def test_a_stack_whose_first_layer_is_memory(
    processes: ProcessPoolExecutor, tmp_path: Path, write_through: bool
) -> None:
    """What a worker saves there is gone with it: unless it goes further, it is saved here."""
    root = str(tmp_path)
    policy = LayerPolicy(write_through=write_through)
    further = Cache(ValueFile(root), CallFile(root), policy=policy)
    near = memory()
    with cache(CacheStack([near, further])), wrap_executor(processes) as workers:
        found = [workers.submit(where, x).result(60) for x in (1, 2)]
        assert [x for x, _ in found] == [1, 2]
        assert os.getpid() not in {process for _, process in found}
        assert where.contains(1)
        assert where(2) == found[1]
    assert further.query().count() == (2 if write_through else 0)
