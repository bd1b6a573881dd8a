"""``coalesce="processes"``: what several processes want at the same time is computed once."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from fleche import cache, fleche, state, wrap_executor
from fleche.caches import BaseCache, Cache
from fleche.decorator import FlecheWarning, _locking
from fleche.decorator._singleflight import flights
from fleche.digest import Digest
from fleche.errors import ConfigError, StorageError
from fleche.storage import CallFile, CallMemory, Lock, LockTable, Sql, ValueFile, ValueMemory
from tests.helpers.layers import in_files, in_memory
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401

ROOT = Path(__file__).parents[1]
KINDS = ["file", "sql", pytest.param("postgres", marks=pytest.mark.postgres)]

runs: list[Any] = []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signs of life in fractions of a second, and little patience."""
    runs.clear()
    monkeypatch.setattr(_locking, "BEAT", 0.05)
    monkeypatch.setattr(_locking, "PATIENCE", 1.0)
    yield
    patch.stopall()
    state.reset()


@pytest.fixture
def active(tmp_path: Path) -> Iterator[Cache]:
    with in_files(tmp_path / "cache") as made, cache(made):
        yield made


def fresh(**options: Any) -> Any:
    """A new decorated function."""

    def twice(x: Any) -> Any:
        runs.append(x)
        return x * 2

    return fleche(coalesce="processes", **options)(twice)


def soon(done: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.01)


# -- real processes --------------------------------------------------------------------------------

WORKER = """
import os, sys, time
where, log, seconds, skew = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
real = time.time
time.time = lambda: real() + skew
from fleche import Cache, cache, fleche
from fleche.decorator import _locking
from fleche.storage import CallFile, Sql, ValueFile
_locking.BEAT, _locking.PATIENCE = 0.1, 3.0
root, url = where.split("|")
calls = Sql(url) if url else CallFile(root)

@fleche(version=1, hash_code=False, coalesce="processes")
def work(x):
    with open(log, "a") as file:
        print(os.getpid(), file=file, flush=True)
    time.sleep(seconds)
    return x * 7

with cache(Cache(ValueFile(root), calls)):
    print("ready", flush=True)
    sys.stdin.readline()
    print(work(6), flush=True)
"""


class Workers:
    """Processes that call the same function when they are told to."""

    def __init__(self, where: str, log: Path) -> None:
        self.where, self.log = where, log
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, count: int, seconds: float, skew: float = 0.0) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-c", WORKER, self.where, str(self.log), str(seconds), str(skew)]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(count)]
        self.processes += started
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return started

    def go(self, processes: list[subprocess.Popen[str]]) -> None:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def ran(self) -> list[int]:
        """The processes that have run the body, in order."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def answers(self, processes: list[subprocess.Popen[str]]) -> list[str]:
        found = []
        for process in processes:
            out, errors = process.communicate(timeout=40)
            assert errors == ""
            found.append(out.strip())
        return found


@pytest.fixture(params=KINDS)
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    url = {"file": "", "sql": str(tmp_path / "calls.db")}.get(request.param)
    if url is None:
        url = request.getfixturevalue("postgres")()
    made = Workers(f"{tmp_path / 'root'}|{url}", tmp_path / "log")
    yield made
    for process in made.processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


class TestProcesses:
    def test_one_computes(self, workers: Workers) -> None:
        """Of four that ask at once, one runs the body; all have the result."""
        asked = workers.start(4, seconds=1.5)
        workers.go(asked)
        assert workers.answers(asked) == ["42"] * 4
        assert len(workers.ran()) == 1

    def test_a_killed_owner(self, workers: Workers) -> None:
        """It costs the others some patience and one more computation."""
        first = workers.start(1, seconds=60)
        others = workers.start(2, seconds=1.5)
        workers.go(first)
        soon(workers.ran)
        workers.go(others)
        time.sleep(0.5)
        begun = time.monotonic()
        first[0].send_signal(signal.SIGKILL)
        assert workers.answers(others) == ["42"] * 2
        assert time.monotonic() - begun < 25
        assert len(workers.ran()) == 2

    def test_clocks_that_differ(self, workers: Workers) -> None:
        """Machines an hour apart compute once, and still notice a dead owner."""
        early = workers.start(1, seconds=1.5, skew=-3600)
        late = workers.start(1, seconds=1.5, skew=3600)
        workers.go(early + late)
        assert workers.answers(early + late) == ["42"] * 2
        assert len(workers.ran()) == 1


# -- another process, as this one sees it ----------------------------------------------------------


class Other:
    """Another process that computes: all that is seen of it is its lock.

    It gives a sign of life before each look at its lock, and no load makes it look dead.
    """

    def __init__(self, found: BaseCache, key: Digest) -> None:
        self.locks, self.key = found.locks, key
        self._alive = self.locks.acquire(key, "other") is None
        assert self._alive
        self._living = threading.Lock()
        self._patched = patch.object(self.locks, "acquire", self._look)
        self._patched.start()

    def _look(self, key: str, owner: str) -> Lock | None:
        with self._living:  # a look may have begun before the death, and come here after it
            if self._alive:
                assert self.locks.heartbeat(self.key, "other")
        return type(self.locks).acquire(self.locks, key, owner)

    def die(self) -> None:
        self._patched.stop()
        with self._living:
            self._alive = False

    def release(self) -> None:
        self.die()
        self.locks.release(self.key, "other")


@pytest.fixture(params=["file", "sql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    calls = CallFile(tmp_path) if request.param == "file" else Sql(tmp_path / "calls.db")
    with Cache(ValueFile(tmp_path), calls) as made, cache(made):
        yield made


class TestWaiting:
    def test_for_the_result(self, no_leaks: None, shared: Cache) -> None:
        """Who waits returns what the other one has stored."""
        function = fresh()
        other = Other(shared, function.digest(4))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(function.call_with, shared, 4)
            time.sleep(1.5)  # longer than its patience
            assert not waiting.done()
            finished = function.call(4)
            finished.result = 8
            shared.save(finished)
            other.release()
            assert waiting.result(10) == 8
        assert runs == []

    def test_for_nothing(self, shared: Cache) -> None:
        """An owner that has failed is not waited for; nor are those who waited with us."""
        function = fresh()
        other = Other(shared, function.digest(4))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(function.call_with, shared, 4)
            time.sleep(0.2)
            other.release()
            assert waiting.result(10) == 8
        assert runs == [4]
        assert function.contains(4)
        assert shared.locks.acquire(function.digest(4), "next") is None

    @pytest.mark.parametrize("is_wanted", [True, False])
    def test_with_the_directory(self, shared: Cache, *, is_wanted: bool) -> None:
        """No other process is waited for while a thread here may want the working directory.

        What it computes may be what the other process waits for, with a directory of its own.
        """
        function = fresh()

        @fleche(version=1, coalesce="processes", isolate="directory")
        def at_home(x: int) -> int:
            return x

        @fleche(version=1, isolate="directory")
        def around(x: int) -> Any:
            if is_wanted:
                waiting.append(pool.submit(at_home.call_with, shared, x))
                soon(flights.others_run)
            waiting.append(x)
            return function.call_with(shared, x)

        waiting: list[Any] = []
        other = Other(shared, function.digest(4))
        with ThreadPoolExecutor(2) as pool:
            found = pool.submit(around.call_with, shared, 4)
            try:
                soon(lambda: 4 in waiting)
                if not is_wanted:
                    time.sleep(0.2)
                    assert not found.done()
                    other.release()
                assert found.result(10) == 8
            finally:
                other.release()
        assert runs == [4]

    def test_a_miss_is_one(self, active: Cache) -> None:
        """It is looked for once more with the lock in hand, which counts no further miss."""
        function = fresh()
        assert [function(x) for x in (4, 5, 4)] == [8, 10, 8]
        found = active.stats()
        assert (found.hits, found.misses) == (1, 2)

    def test_for_the_dead(self, shared: Cache) -> None:
        """A lock without signs of life is taken over, also while one waits for it."""
        function = fresh()
        other = Other(shared, function.digest(4))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(function.call_with, shared, 4)
            time.sleep(0.2)
            other.die()
            assert waiting.result(10) == 8
        assert runs == [4]
        assert shared.locks.acquire(function.digest(4), "next") is None

    def test_a_lock_that_is_old_at_first_sight(
        self, shared: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An owner that died long ago is not waited for."""
        function = fresh()
        Other(shared, function.digest(4)).die()
        time.sleep(1.3)
        monkeypatch.setattr(_locking.time, "sleep", None)
        assert function(4) == 8

    def test_a_lock_from_the_future(self, active: Cache, tmp_path: Path) -> None:
        """If the clock is of no use, one's own patience decides."""
        function = fresh()
        Other(active, function.digest(4)).die()
        (lock,) = (tmp_path / "cache").rglob("*.lock.tmp")
        os.utime(lock, (time.time() + 86400,) * 2)
        begun = time.monotonic()
        assert function(4) == 8
        assert 0.9 < time.monotonic() - begun < 20

    def test_interrupted(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C while one waits is passed on, and the next call begins anew."""

        def interrupt(seconds: float) -> None:
            raise KeyboardInterrupt

        function = fresh()
        other = Other(active, function.digest(4))
        with monkeypatch.context() as patch:
            patch.setattr(_locking.time, "sleep", interrupt)
            with pytest.raises(KeyboardInterrupt):
                function(4)
        other.release()
        assert function(4) == 8

    def test_the_lock_of_this_very_process(self, active: Cache, tmp_path: Path) -> None:
        """A body that asks for its own result through another cache does not wait for itself."""
        again = in_files(tmp_path / "cache")

        @fleche(coalesce="processes", hash_code=False)
        def deep(x: int) -> int:
            runs.append(x)
            return deep.call_with(again, x) if len(runs) < 2 else x

        assert deep(3) == 3
        assert runs == [3, 3]

    def test_where_nothing_can_be_stored(self, active: Cache) -> None:
        """There is no use in waiting if the next one could not be told."""
        function = fresh()
        other = Other(active, function.digest(4))
        with cache(active.readonly()), pytest.warns(FlecheWarning, match="not stored"):
            assert function(4) == 8
        other.release()

    def test_a_rerun_waits_for_nobody(self, active: Cache) -> None:
        function = fresh()
        other = Other(active, function.digest(4))
        assert function.rerun(4) == 8
        other.release()

    def test_other_functions_do_not(self, active: Cache) -> None:
        """Only those wait that were told to."""
        plain = fleche(lambda x: x * 2)
        other = Other(active, plain.digest(4))
        assert plain(4) == 8
        other.release()


class TestComputing:
    def test_others_see_it(self, no_leaks: None, active: Cache) -> None:
        """While the body runs there is a lock, which is renewed; afterwards there is none."""
        seen = []

        @fleche(coalesce="processes", hash_code=False)
        def look(x: int) -> int:
            for _ in range(2):
                seen.append(active.locks.acquire(look.digest(x), "other"))
                time.sleep(0.3)
            return x

        assert look(1) == 1
        first, second = seen
        assert first.owner == second.owner
        assert second.heartbeat > first.heartbeat
        assert active.locks.acquire(look.digest(1), "other") is None

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_body_that_raises(self, active: Cache, error: type[BaseException]) -> None:
        """The lock is gone with it."""

        @fleche(coalesce="processes", hash_code=False)
        def fail(x: int) -> int:
            raise error

        with pytest.raises(error):
            fail(1)
        assert active.locks.acquire(fail.digest(1), "other") is None

    def test_forgotten(self, active: Cache) -> None:
        """A lock to which nothing refers any more (an interrupt at the worst moment) ends."""
        key = fresh().digest(1)
        assert active.locks.acquire(key, "mine") is None
        turn = _locking.ComputeLock(active.locks, key, "mine")
        assert active.locks.acquire(key, "other") is not None
        del turn
        gc.collect()
        soon(lambda: active.locks.acquire(key, "other") is None)

    def test_lost(self, no_leaks: None, active: Cache) -> None:
        """Who was taken for dead computes to the end, and takes nothing from his heir."""

        @fleche(coalesce="processes", hash_code=False)
        def slow(x: int) -> int:
            key = slow.digest(x)
            found = active.locks.acquire(key, "heir")
            while not active.locks.steal(key, "heir", found):
                found = active.locks.acquire(key, "heir")
            time.sleep(0.3)
            return x

        assert slow(1) == 1
        found = active.locks.acquire(slow.digest(1), "other")
        assert found is not None
        assert found.owner == "heir"

    def test_a_fork_owns_nothing(self, active: Cache) -> None:
        """A child that the body forks does not end the lock of its parent."""

        @fleche(coalesce="processes", hash_code=False)
        def forks(x: int) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks
                child = os.fork()
            if not child:
                raise SystemExit
            os.waitpid(child, 0)
            return active.locks.acquire(forks.digest(x), "other")

        parent = os.getpid()
        try:
            found = forks(1)
        except SystemExit:
            if os.getpid() != parent:
                os._exit(0)
            raise
        assert found is not None

    def test_async(self, no_leaks: None, active: Cache) -> None:
        """A coroutine waits without holding up the others, and may be cancelled."""

        @fleche(coalesce="processes", hash_code=False)
        async def work(x: int) -> int:
            runs.append(x)
            return x * 2

        async def main() -> None:
            assert await work(1) == 2
            other = Other(active, work.digest(4))
            try:
                cancelled = asyncio.create_task(work(4))  # type: ignore[arg-type, var-annotated]
                await asyncio.sleep(0.1)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                waiting = [asyncio.ensure_future(work(4)) for _ in range(2)]  # type: ignore[arg-type, var-annotated]
                await asyncio.sleep(0.3)
                finished = work.call(4)
                finished.result = 8
                active.save(finished)
            finally:
                other.release()
            assert await asyncio.gather(*waiting) == [8, 8]

        asyncio.run(main())
        assert runs == [1]

    def test_async_strict(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is raised in waiting reaches the task that awaits."""

        @fleche(coalesce="processes", hash_code=False)
        async def work(x: int) -> int:
            return x

        def broken(key: Digest, owner: str) -> None:
            raise ConfigError("no")

        monkeypatch.setattr(active.locks, "acquire", broken)
        with pytest.raises(ConfigError):
            asyncio.run(work(1))  # type: ignore[arg-type]

    def test_futures(self, active: Cache) -> None:
        """The lock of a function that returns a future lasts as long as that."""
        inner: Future[int] = Future()

        @fleche(coalesce="processes", hash_code=False)
        def begin(x: int) -> Future[int]:
            return inner

        outer = begin(1)
        assert active.locks.acquire(begin.digest(1), "other") is not None
        inner.set_result(5)
        assert outer.result(5) == 5
        assert active.locks.acquire(begin.digest(1), "other") is None
        assert begin(1).result(5) == 5

    def test_a_future_that_another_process_has_stored(self, active: Cache) -> None:
        """It is a future for this one, too, and for those who waited with it."""

        def start(x: int) -> Future[int]:
            done: Future[int] = Future()
            done.set_result(x)
            return done

        function = fleche(coalesce="processes")(start)
        other = Other(active, function.digest(1))
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(function.call_with, active, 1) for _ in range(2)]
            time.sleep(0.2)
            function.rerun(1)
            other.release()
            assert [found.result(10).result(5) for found in waiting] == [1, 1]


class Broken(LockTable):
    """Locks that fail where they are told to."""

    shared = True

    def __init__(self, place: str, error: Exception) -> None:
        self._place, self._error = place, error

    def _fail(self, place: str) -> None:
        if place == self._place:
            raise self._error

    def acquire(self, key: Digest, owner: str) -> Lock | None:
        self._fail("acquire")
        return None if self._place in ("release", "heartbeat") else Lock("other", 0.0)

    def now(self, key: Digest) -> float:
        self._fail("now")
        return 1e9

    def steal(self, key: Digest, owner: str, old: Lock) -> bool:
        self._fail("steal")
        return True

    def heartbeat(self, key: Digest, owner: str) -> bool:
        self._fail("heartbeat")
        return True

    def release(self, key: Digest, owner: str) -> None:
        self._fail("release")


ERRORS = [StorageError("the disk is full"), OSError("input/output error"), ZeroDivisionError("bug")]


class TestFailures:
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("place", ["acquire", "now", "steal", "heartbeat", "release"])
    def test_locks_that_fail(
        self, place: str, error: Exception, active: Cache, no_leaks: None
    ) -> None:
        """They never stop a function: it computes and stores, with one warning at most."""
        active.backend.locks = Broken(place, error)

        @fleche(coalesce="processes", hash_code=False)
        def slow(x: int) -> int:
            time.sleep(0.12)
            return x

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert slow(1) == 1
            assert slow(2) == 2
        assert len(caught) == (0 if place in ("heartbeat", "release") else 1)
        if caught:
            assert f"{type(error).__name__}: {error}" in str(caught[0].message)
            assert "does not wait for other processes" in str(caught[0].message)
        assert slow.contains(1)
        assert slow.contains(2)

    def test_a_cache_that_fails_after_the_lock(
        self, active: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lock does not outlive it."""
        function, looks = fresh(), []
        real = active.lookup

        def lookup(key: Digest, **options: Any) -> Any:
            looks.append(key)
            if len(looks) == 2:
                raise StorageError("gone")
            return real(key, **options)

        monkeypatch.setattr(active, "lookup", lookup)
        with pytest.warns(FlecheWarning, match="without looking"):
            assert function(4) == 8
        assert active.locks.acquire(function.digest(4), "other") is None

    def test_a_strict_cache_is_obeyed(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        function, looks = fresh(), []

        def lookup(key: Digest, **options: Any) -> Any:
            looks.append(key)
            if len(looks) == 2:
                raise ConfigError("no")

        monkeypatch.setattr(active, "lookup", lookup)
        with pytest.raises(ConfigError):
            function(4)
        assert active.locks.acquire(function.digest(4), "other") is None

    def test_no_thread_to_be_had(self, active: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock that cannot be kept alive is given back."""

        def start(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        function = fresh()
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.warns(FlecheWarning, match="can't start new thread"):
            assert function(4) == 8
        assert active.locks.acquire(function.digest(4), "other") is None

    def test_a_read_only_directory(self, active: Cache) -> None:
        """Where no lock can be made, no result can be stored either; the function runs."""
        function = fresh()
        root = Path(active.calls.to_config()["root"])
        root.parent.mkdir(exist_ok=True)
        root.write_text("in the way")
        with pytest.warns(FlecheWarning):
            assert function(4) == 8


class TestTheOption:
    def test_names(self) -> None:
        with pytest.raises(ValueError, match="coalesce='machines': 'threads' or 'processes'"):
            fleche(coalesce="machines")  # type: ignore[call-overload]
        assert fleche(coalesce="threads")(len)([1]) == 1

    def test_it_does_not_count(self, active: Cache) -> None:
        """Results are the same with it and without."""
        plain = fresh()
        plain(4)
        assert fleche(plain.__wrapped__)(4) == 8
        assert runs == [4]

    def test_in_memory(self) -> None:
        """Caches that no other process sees have no use for it, and no harm from it."""
        with cache(Cache(ValueMemory(), CallMemory())):
            function = fresh()
            assert function(4) == function(4) == 8
        with cache(in_memory()):
            assert fresh()(4) == 8
        assert runs == [4, 4]

    def test_it_pickles(self) -> None:
        assert pickle.loads(pickle.dumps(computed)).spec.options.coalesce == "processes"

    def test_executors(self, active: Cache, tmp_path: Path) -> None:
        """Workers of several executors compute once among them."""
        context = multiprocessing.get_context("spawn")
        with (
            wrap_executor(ProcessPoolExecutor(1, mp_context=context)) as one,
            wrap_executor(ProcessPoolExecutor(1, mp_context=context)) as two,
        ):
            log = str(tmp_path / "log")
            futures = [pool.submit(computed, log, 3) for pool in (one, two)]
            assert [future.result(40) for future in futures] == [3, 3]
        assert (tmp_path / "log").read_text() == "x"


@fleche(coalesce="processes", ignore="log")
def computed(log: str, x: int) -> int:
    """Leave a mark, and take some time."""
    with Path(log).open("a") as file:
        file.write("x")
    time.sleep(2)
    return x
