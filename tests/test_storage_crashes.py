"""Processes that are killed, and processes that get in each other's way, on whole caches.

Every kind of storage that outlives its process goes through the same.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import Cache
from fleche.call import QueryCall
from fleche.digest import Digest
from tests.helpers.jobs import (
    DIFFERENT,
    FEW,
    check_result,
    described,
    open_cache,
    save,
    start,
    work,
    write,
)
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401
from tests.helpers.sweeps import swept

pytestmark = pytest.mark.timeout(240)

KINDS = [
    "local",
    "file",
    "sql",
    "hdf5",
    "fsspec",
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("s3", marks=pytest.mark.s3),
]
LONG = [pytest.mark.slow, pytest.mark.timeout(1800)]


def check(cache: Cache, committed: set[str]) -> None:
    """Every listed record loads, every value verifies, nothing that was committed is lost."""
    report = cache.verify()
    assert report.ok, report
    assert report.incomplete == ()
    listed = set()
    for found in cache.query():
        check_result(found.arguments["x"], found.result)
        listed.add(str(found.key))
    assert committed <= listed


@pytest.fixture(params=swept(KINDS, lambda kind: kind in ("local", "file", "hdf5", "fsspec")))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def where(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A cache of that kind, for any process to open; it leaves nothing unfinished."""
    root = str(tmp_path / "root")
    values: dict[str, Any] = {"type": "cloudpickle", "root": root}
    calls = values
    if kind == "local":
        values = calls = {"type": "local", "root": root}
    elif kind == "sql":
        calls = {"type": "sql", "url": str(tmp_path / "calls.db")}
    elif kind == "postgres":
        calls = {"type": "sql", "url": request.getfixturevalue("postgres")()}
    elif kind == "hdf5":
        values = {"type": "hdf5", "root": root}
    elif kind == "fsspec":
        values = calls = {"type": "fsspec", "url": f"file://{root}"}
    elif kind == "s3":
        server = request.getfixturevalue("s3")
        values = calls = {"type": "fsspec", "url": server.url(), "options": server.options}
    yield described(values, calls)
    assert list(tmp_path.rglob("*.tmp")) == []


# -- killed ----------------------------------------------------------------------------------------


class Writer:
    """A process that saves calls without end and tells which are committed."""

    def __init__(self, where: str, first: int, committed: set[str]) -> None:
        self._process, told = start(write, where, first)
        self._first = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(told, committed))
        self._reader.start()

    def _read(self, told: Connection, committed: set[str]) -> None:
        with told:
            while True:
                try:
                    committed.add(told.recv_bytes().decode())
                except EOFError:
                    return
                self._first.set()

    def wait(self) -> None:
        """Wait until it has committed something."""
        assert self._first.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._reader.join()
        self._process.close()


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=LONG)])
def test_killed_writers(kind: str, where: str, kills: int) -> None:
    """Four processes write, and are killed one after the other at any moment."""
    if kind == "s3":
        kills = 6 if kills == 20 else 60
    chance, committed = random.Random(kills), set[str]()
    writers = [Writer(where, chance.randrange(DIFFERENT), committed) for _ in range(4)]
    try:
        for turn in range(kills):
            writer = writers.pop(0)
            writer.wait()
            if not turn % 3:
                time.sleep(chance.uniform(0, 0.05))
            writer.kill()
            writers.append(Writer(where, chance.randrange(DIFFERENT), committed))
            if turn % 10 == 9:
                with open_cache(where) as cache:
                    check(cache, set(committed))
    finally:
        for writer in writers:
            writer.kill()
    with open_cache(where) as cache:
        check(cache, committed)
        assert len(committed) > kills / 2
        cache.gc(0, pin_age=0)
        for storage in (cache.values, cache.calls):
            storage.sweep(0)
        check(cache, committed)


# -- in each other's way ---------------------------------------------------------------------------


def run_workers(where: str, turns: int, way: str) -> None:
    """Let four of them do so many turns, eight if there are many."""
    workers = [start(work, where, seed, turns, way) for seed in range(8 if turns > 40 else 4)]
    try:
        for process, told in workers:
            with pytest.raises(EOFError):
                pytest.fail(told.recv())
            process.join(20)
            assert process.exitcode == 0
    finally:
        for process, told in workers:
            told.close()
            process.kill()
            process.join()
            process.close()


@contextmanager
def watched(where: str) -> Iterator[None]:
    """Meanwhile, no call stays listed for a second or longer while a value of it is gone."""
    over, lost = threading.Event(), list[str]()
    pause = 0.4 if "s3://" in where else 0.1  # there each look is dozens of requests

    def watch() -> None:
        gone: dict[Digest, float] = {}
        with open_cache(where) as cache:
            while not over.wait(pause):
                now = time.monotonic()
                gone = {key: gone.get(key, now) for key in dangling(cache)}
                lost.extend(key for key, since in gone.items() if now - since > 1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert lost == []


def dangling(cache: Cache) -> Iterator[Digest]:
    for key, entry in list(cache.calls.query(QueryCall())):
        assert entry is not None
        needed = {ref.address for ref in entry.record.values() if ref.variant} - set(entry.parcels)
        if needed - cache.values.contains_many(needed) and cache.calls.contains_many([key]):
            yield Digest(key)


TURNS = [
    pytest.param("plain", 40, id="plain-40"),
    pytest.param("limited", 40, marks=LONG, id="limited-40"),
    pytest.param("plain", 500, marks=LONG, id="plain-500"),
    pytest.param("limited", 500, marks=LONG, id="limited-500"),
    pytest.param("collected", 500, marks=LONG, id="collected-500"),
]
S3_TURNS = {
    ("plain", 40): 5,
    ("limited", 40): 2,
    ("plain", 500): 200,
    ("limited", 500): 20,
    ("collected", 500): 60,
}


@pytest.mark.parametrize(("way", "turns"), TURNS)
def test_many_processes(kind: str, where: str, way: str, turns: int) -> None:
    """They save, evict and collect the same calls at once; what is there at the end is whole.

    The S3 server of these tests answers some hundred requests a second. There it is fewer turns.
    """
    if kind == "s3":
        turns = S3_TURNS[way, turns]
    with watched(where):
        run_workers(where, turns, way)
    with open_cache(where) as cache:
        check(cache, set())
        assert len(list(cache.query())) <= FEW
        for number in range(FEW):
            save(cache, number)
        check(cache, set())
        assert len(list(cache.query())) == FEW
