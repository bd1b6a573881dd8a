"""Processes that are killed, and processes that get in each other's way, on whole caches."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from fleche.caches import Cache
from fleche.storage import CallFile, ValueFile
from tests.helpers.jobs import DIFFERENT, expected, open_cache, save
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401

pytestmark = pytest.mark.timeout(240)

KINDS = ["file", "sql", pytest.param("postgres", marks=pytest.mark.postgres)]


def check(cache: Cache, committed: set[str]) -> None:
    """Every listed record loads, every value verifies, nothing that was committed is lost."""
    report = cache.verify()
    assert report.ok, report
    assert report.incomplete == ()
    listed = set()
    for found in cache.query():
        assert found.result == expected(found.arguments["x"])
        listed.add(str(found.key))
    assert committed <= listed


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = {"file": "", "sql": str(tmp_path / "calls.db")}.get(request.param)
    if url is None:
        url = request.getfixturevalue("postgres")()
    return f"{tmp_path / 'root'}|{url}"


# -- killed ----------------------------------------------------------------------------------------

WRITER = "import sys; from tests.helpers.jobs import write; write(sys.argv[1], int(sys.argv[2]))"


class Writer:
    """A process that saves calls without end and says which are committed."""

    def __init__(self, where: str, start: int, committed: set[str]) -> None:
        command = [sys.executable, "-c", WRITER, where, str(start)]
        root = Path(__file__).parents[1]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        assert self.process.stdout is not None
        self._first = threading.Event()
        arguments = (self.process.stdout, committed)
        self._reader = threading.Thread(target=self._read, args=arguments)
        self._reader.start()

    def _read(self, stream: IO[str], committed: set[str]) -> None:
        for line in stream:
            if line.endswith("\n"):
                committed.add(line.strip())
                self._first.set()

    def wait(self) -> None:
        """Wait until it has committed something."""
        assert self._first.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.mark.parametrize(
    "kills",
    [20, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_killed_writers(where: str, kills: int) -> None:
    """Four processes write, and are killed one after the other at any moment."""
    chance, committed = random.Random(kills), set[str]()
    writers = [Writer(where, chance.randrange(DIFFERENT), committed) for _ in range(4)]
    try:
        for turn in range(kills):
            writer = writers.pop(0)
            writer.wait()
            if not turn % 3:
                threading.Event().wait(chance.uniform(0, 0.05))
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
        cache.gc(0, lease_age=0)
        for storage in (cache.values, cache.calls):
            if isinstance(storage, ValueFile | CallFile):
                storage.sweep(0)
        check(cache, committed)
    assert list(Path(where.partition("|")[0]).rglob("*.tmp")) == []


# -- in each other's way ---------------------------------------------------------------------------

WORKER = """
import sys
from tests.helpers.jobs import work
work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


@pytest.fixture
def run_workers(where: str) -> Iterator[Callable[[int, str], list[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def run(turns: int, kind: str) -> list[str]:
        for seed in range(8):
            command = [sys.executable, "-c", WORKER, where, str(seed), str(turns), kind]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            root = Path(__file__).parents[1]
            processes.append(subprocess.Popen(command, text=True, cwd=root, **pipes))  # type: ignore[call-overload]
        ends = [(process.communicate(timeout=800), process.returncode) for process in processes]
        for (_, errors), status in ends:
            assert status == 0, errors
        return [output for (output, _), _ in ends]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["plain", "limited"])
@pytest.mark.parametrize(
    "turns",
    [40, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_eight_processes(
    where: str, run_workers: Callable[[int, str], list[str]], turns: int, kind: str
) -> None:
    """They save and evict the same calls at once; what is there at the end is whole."""
    run_workers(turns, kind)
    with open_cache(where) as cache:
        check(cache, set())
        assert len(list(cache.query())) <= 30
        for number in range(30):
            save(cache, number)
        check(cache, set())
        assert len(list(cache.query())) == 30
