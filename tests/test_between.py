"""What comes between: an interrupt, a signal handler, a finalizer, the end of the process.

Python lets them in where a function begins, and after each call of one in C. So they are let in at
each of these moments, one after the other; what is looked at is what is left behind.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fleche import cache as active
from fleche import fleche, state
from fleche.caches import BaseCache, Cache, Local
from fleche.call import Call
from fleche.decorator._singleflight import flights, inside
from fleche.errors import FlecheError
from fleche.storage import CallFile, CallMemory, Sql, ValueFile, ValueMemory
from fleche.storage.sql._database import Pooled
from tests.helpers.sweeps import is_quick, swept

PATIENCE = 60.0
MOMENTS = ("call", "c_return")
KINDS = ("local", "sql", "files", "memory")


def make_cache(kind: str, root: Path) -> BaseCache:
    """Return a cache whose calls are kept in a database, in files or in memory."""
    if kind == "local":
        return Local(root)
    if kind == "memory":
        return Cache(ValueMemory(), CallMemory())
    calls = Sql(root / "calls.db") if kind == "sql" else CallFile(root / "calls")
    return Cache(ValueFile(root / "values"), calls)


@pytest.fixture(params=KINDS)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    with make_cache(request.param, tmp_path) as made, active(made), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield made
    flights.forget()  # an interrupt may leave one that nothing waits for
    state.reset()


def events_of(work: Callable[[], object]) -> int:
    """Return how many moments there are while ``work`` runs."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in MOMENTS

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def coming_between(work: Callable[[], object], moment: int, what: Callable[[], object]) -> object:
    """Run ``work``, and ``what`` at its ``moment``, in the same thread."""
    count = 0

    def come(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in MOMENTS
        if count == moment:
            sys.setprofile(None)
            what()

    sys.setprofile(come)
    try:
        return work()
    finally:
        sys.setprofile(None)


def interrupt() -> None:
    raise KeyboardInterrupt


@fleche(version=1)
def square(x: int) -> int:
    return x * x


@fleche(version=1)
def beat(x: int) -> int:
    return -x


@fleche(version=1)
def square_of_square(x: int) -> int:
    return square(square(x))


def moments(work: Callable[[], object], config: pytest.Config) -> range:
    """Return when something may come between; every seventh moment in the quick run."""
    work()
    return range(1, events_of(work) + 1, 7 if is_quick(config) else 1)


class Numbers:
    """Numbers that no call has had."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self) -> int:
        self.last += 1
        return self.last


new = Numbers()

WORK: dict[str, Callable[[BaseCache], Callable[[], object]]] = {
    "hit": lambda cache: lambda: square(0),
    "miss": lambda cache: lambda: square(new()),
    "a miss inside a miss": lambda cache: lambda: square_of_square(new()),
    "the first of a function": lambda cache: lambda: cache.save(Call(f"f{new()}", {}, result=1)),
    "query": lambda cache: lambda: cache.query(name="square", arguments={"x": 0}).count(),
}


@pytest.mark.parametrize("kind_of_work", WORK)
class TestBetween:
    def test_interrupts(
        self, cache: BaseCache, kind_of_work: str, pytestconfig: pytest.Config
    ) -> None:
        """An interrupt ends the call, and nothing else.

        No connection is lost, none is in use, and later calls are not taken for part of it.
        """
        work = WORK[kind_of_work](cache)
        square(0)
        for moment in moments(work, pytestconfig):
            with suppress(KeyboardInterrupt):
                coming_between(work, moment, interrupt)
            _check_at_rest(cache)
            assert not inside.get()
            fresh = new()
            assert square(fresh) == fresh * fresh
            assert square.contains(fresh)
            assert square(0) == 0

    def test_handlers(
        self, cache: BaseCache, kind_of_work: str, pytestconfig: pytest.Config
    ) -> None:
        """A signal handler may call a cached function; at worst its result is not stored."""
        work = WORK[kind_of_work](cache)
        square(0)
        reached = 0
        for moment in (wanted := moments(work, pytestconfig)):
            came: list[int] = []

            def come(came: list[int] = came) -> None:
                number = new()
                came.append(beat(number) + number)
                came.append(square(0))

            assert coming_between(work, moment, come) is not None
            assert came in ([0, 0], [])  # where it took fewer calls this time
            reached += bool(came)
            _check_at_rest(cache)
            fresh = new()
            assert square(fresh) == fresh * fresh
            assert square.contains(fresh)
        assert reached > len(wanted) / 2


def _check_at_rest(cache: BaseCache) -> None:
    """Check that no connection is in use, and that others may write."""
    database: Any = getattr(getattr(cache.backend, "calls", None), "_database", None)
    if not isinstance(database, Pooled):
        return
    assert set(database._open) == set(database._idle)
    with closing(sqlite3.connect(database.shown, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("kind", swept(["local", "sql"], "local".__eq__))
def test_daemon_threads_at_the_end(kind: str, tmp_path: Path) -> None:
    """Threads that are at work when the process ends keep their connections, and end with it."""
    script = """
    import sys, threading, time
    from pathlib import Path
    from fleche import cache, fleche
    from tests.test_between import make_cache
    made = make_cache(sys.argv[1], Path(sys.argv[2]))
    @fleche(version=1)
    def f(x):
        return [x] * 10
    def work(turn):
        with cache(made):
            for number in range(10**6):
                f((turn, number))
    work_begun = [threading.Thread(target=work, args=(turn,), daemon=True) for turn in range(4)]
    with cache(made):
        f(0)
    for each in work_begun:
        each.start()
    time.sleep(0.3)
    """
    for attempt in range(4):
        done = run(script, kind, str(tmp_path / str(attempt)))
        assert done.returncode == 0, done.stderr


def test_threads_wait_together(tmp_path: Path) -> None:
    """While another process writes, each thread waits as long as one, not one after another."""
    patience, threads = 2.0, 6
    calls = Sql(f"sqlite:///{tmp_path / 'calls.db'}?timeout={patience}")
    took: list[float] = []

    def save(number: int) -> None:
        began = time.monotonic()
        with suppress(FlecheError):
            store.save(Call("f", {"x": number}, result=number))
        took.append(time.monotonic() - began)

    with Cache(ValueMemory(), calls) as store:
        save(-1)
        with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [threading.Thread(target=save, args=(turn,)) for turn in range(threads)]
            for each in waiting:
                each.start()
            for each in waiting:
                each.join()
            other.execute("ROLLBACK")
    assert len(took) == threads + 1
    assert max(took) < patience * (threads - 1)


def test_a_writer_that_does_not_end(tmp_path: Path) -> None:
    """A transaction that is left open elsewhere does not cost every call the full wait."""
    took: list[float] = []
    with Cache(ValueMemory(), Sql(f"sqlite:///{tmp_path / 'calls.db'}?timeout=3")) as store:
        store.save(Call("f", {"x": 0}, result=0))
        with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(4):
                began = time.monotonic()
                with pytest.raises(FlecheError, match="locked"):
                    store.save(Call("f", {"x": number}, result=number))
                took.append(time.monotonic() - began)
            other.execute("ROLLBACK")
        assert took[0] > 2.9  # in an ordinary crowd none is given up early
        assert max(took[2:]) < 2.25
        store.save(Call("f", {"x": 1}, result=1))
        with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(FlecheError, match="locked"):
                store.save(Call("f", {"x": 2}, result=2))
            assert time.monotonic() - began > 2.9  # what succeeded restores it
            other.execute("ROLLBACK")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit of this system")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """A quota is no damage: the message leads to the quota, and what is stored stays."""
    script = """
    import resource, sys, warnings
    from pathlib import Path
    from fleche.caches import Local
    from fleche.call import Call
    with Local(sys.argv[1]) as cache:
        cache.save(Call("f", {"x": 1}, result=1))
        unlimited = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited))
        for number in range(100):
            try:
                cache.save(Call("f", {"x": number}, result="x" * 10_000))
            except Exception as error:
                print(error)
                break
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
        print(cache.verify().ok, cache.query(name="f").count() > 0)
    """
    done = run(script, str(tmp_path / "cache"))
    assert "quota" in done.stdout, done
    assert "damaged" not in done.stdout
    assert done.stdout.endswith("True True\n")
