"""Forks: pools of workers, daemons, and locks that another thread held in that moment.

Nothing that a process of a forked family has stored may be lost, whichever ends first and however,
none of them may find the store damaged, and none may wait for a thread that it does not have.
"""

from __future__ import annotations

import ast
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

import fleche._util as util
from fleche.digest import digest
from fleche.errors import StorageError
from fleche.storage import CallStorage
from fleche.storage.local import CallLocal
from fleche.storage.sql import Sql
from fleche.storage.sql._sqlite import SqliteFile
from fleche.testing.corpus import an_entry
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401
from tests.helpers.storing import has, put
from tests.helpers.sweeps import swept

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

PACKAGE = Path(util.__file__).parent
KINDS = ["local", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]

COMMON = """
import os, signal, sys, threading, time, warnings
from fleche.digest import digest
from fleche.storage.local import CallLocal
from fleche.storage.sql import Sql
from fleche.storage.sql._sqlite import SqliteFile
from fleche.testing.corpus import an_entry

def open_it(url):
    return CallLocal(url.removeprefix("local:")) if url.startswith("local:") else Sql(url)

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
calls = open_it(sys.argv[1])

def save(*which):
    calls.put_many([(digest(which), an_entry("f", x=repr(which), y=["y"] * 50))])

def say(text):
    os.write(1, (text + "\\n").encode())
"""

LOOK = f"""{COMMON}
from fleche.call import QueryCall
say(str(len(list(calls.query(QueryCall.of(name="f"))))))
"""


@pytest.fixture(params=swept(KINDS, lambda kind: kind != "sqlite"))  # as "local" is one
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is, as the scripts take it."""
    made: dict[str, Callable[[], str]] = {
        "local": lambda: f"local:{tmp_path / 'store'}",
        "sqlite": lambda: f"sqlite:///{tmp_path / 'calls.db'}",
        "postgres": lambda: str(request.getfixturevalue("postgres")()),
    }
    return made[request.param]()


@pytest.fixture
def storage(url: str) -> Iterator[CallStorage]:
    """The store, opened in this process."""
    found = CallLocal(url.removeprefix("local:")) if url.startswith("local:") else Sql(url)
    yield found
    found.close()


def run(script: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMON + script, url]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def look(url: str) -> int:
    """How many calls a colleague sees, who comes, looks and goes."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    return int(done.stdout)


def finish(process: subprocess.Popen[str]) -> str:
    """What a script and the children that outlive it have said; they said nothing else."""
    try:
        said, errors = process.communicate(timeout=50)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert errors == ""
    return said


def wait_for(pid: int, seconds: float = 20.0) -> int:
    """The status of a child, which must end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the forked child hangs")


def in_child(action: Callable[[], object]) -> int:
    """Fork, and return the pid of a child that exits with 0 if ``action`` succeeds there."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


class TestFamilies:
    def test_the_parent_ends_first(self, url: str) -> None:
        """A child goes on after its parent has closed the store and gone, as a daemon does."""
        process = run(
            """
save("parent")
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent: time.sleep(0.01)
    for number in range(60):
        save(number)
        time.sleep(0.005)
    say("done")
    os._exit(0)
""",
            url,
        )
        seen = [look(url) for _ in range(2)]
        assert finish(process) == "done\n"
        assert seen == sorted(seen)
        assert look(url) == 61

    def test_the_child_ends_first(self, url: str) -> None:
        """A child that ends, in whatever way, takes nothing from its parent."""
        process = run(
            """
save("parent")
for number in range(6):
    pid = os.fork()
    if pid == 0:
        save("child", number)
        if number % 3 == 0:
            os._exit(0)
        if number % 3 == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(0)  # closes what it has
    os.waitpid(pid, 0)
    save("parent", number)
say("done")
""",
            url,
        )
        assert finish(process) == "done\n"
        assert look(url) == 13

    def test_grandchildren(self, url: str) -> None:
        """Each generation has connections of its own."""
        process = run(
            """
save(0)
for depth in range(1, 5):
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        save("after", depth)
        os._exit(os.waitstatus_to_exitcode(status))
    save(depth)
""",
            url,
        )
        assert finish(process) == ""
        assert process.returncode == 0
        assert look(url) == 9

    def test_a_store_that_was_closed(self, storage: CallStorage) -> None:
        """A child may use, and close, what its parent has closed."""
        put(storage, digest(1), an_entry())
        storage.close()

        def work() -> None:
            assert has(storage, digest(1))
            put(storage, digest(2), an_entry())
            storage.close()

        assert wait_for(in_child(work)) == 0
        assert has(storage, digest(2))


class TestThreads:
    def test_a_fork_while_others_write(self, storage: CallStorage) -> None:
        """The child neither waits for a transaction of another thread nor inherits it."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def hammer(thread: int) -> None:
            number = 0
            try:
                while not stop.is_set():
                    put(storage, digest((thread, number)), an_entry(x=number))
                    number += 1
            except BaseException as error:  # noqa: BLE001 (told below)
                failures.append(error)

        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(8):
                key = digest(("child", turn))

                def work(key: str = key) -> None:
                    put(storage, key, an_entry())
                    assert has(storage, key)

                assert wait_for(in_child(work), 10.0) == 0
                assert has(storage, key)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []

    def test_what_a_change_returns_keeps_no_connection_open(self, tmp_path: Path) -> None:
        """A thread that still had its cursor left a child locks that were never given up."""
        database = SqliteFile(tmp_path / "calls.db")
        returned = database.change(lambda connection: connection.execute("SELECT 1"))
        database.retire()
        assert [path.name for path in tmp_path.glob("calls.db-*l")] == [], returned

    def test_threads_go_on_after_a_fork(self, storage: CallStorage) -> None:
        """The parent's other threads find their storage as it was, and lose nothing."""
        with ThreadPoolExecutor(4) as pool:
            done = [
                pool.submit(put, storage, digest(number), an_entry(x=number))
                for number in range(200)
            ]
            for _ in range(5):
                assert wait_for(in_child(threading.active_count)) == 0
            for each in done:
                each.result(50)
        assert len(storage.contains_many([digest(number) for number in range(200)])) == 200

    def test_a_memory_of_ones_own(self) -> None:
        """A database in memory goes along with the child, which then has its own."""
        storage = Sql()
        put(storage, digest(1), an_entry())
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                put(storage, digest(2), an_entry())

        thread = threading.Thread(target=hammer)
        thread.start()
        try:

            def work() -> None:
                assert has(storage, digest(1))
                put(storage, digest(3), an_entry())

            for _ in range(5):
                assert wait_for(in_child(work)) == 0
        finally:
            stop.set()
            thread.join()
        assert not has(storage, digest(3))
        storage.close()

    def test_a_transaction_that_does_not_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fork waits for a while only; the child is then told, at once, what it cannot do.

        SQLite takes the locks of an inherited connection for its own, so that a second one in the
        child would wait for itself, or believe to hold locks that it has not.
        """
        monkeypatch.setattr("fleche.storage.sql._database._FORK_PATIENCE", 0.2)
        storage = Sql(tmp_path / "calls.db")
        put(storage, digest(1), an_entry())
        begun, over = threading.Event(), threading.Event()

        def slow(connection: object) -> None:
            begun.set()
            over.wait(30)

        thread = threading.Thread(target=storage._database.change, args=(slow,))
        thread.start()
        begun.wait(30)

        def work() -> None:
            with pytest.raises(StorageError, match=r"was forked while another thread .* spawn"):
                put(storage, digest(2), an_entry())

        try:
            assert wait_for(in_child(work), 5.0) == 0
        finally:
            over.set()
            thread.join()
        put(storage, digest(3), an_entry())
        assert has(storage, digest(3))
        storage.close()


STORM = """
def many(worker):
    for number in range(int(sys.argv[2])):
        save(worker, number)
        say(f"{worker} {number}")
    say(f"{worker} end")

save("first")
for worker in range(3):
    pid = os.fork()
    if pid == 0:
        many(worker)
        os._exit(0)
    say(f"child {pid}")
for _ in range(3):
    os.wait()
"""


def storm(url: str, victim: str, chance: random.Random, each: int) -> None:
    """Kill the parent or a child of a pool at any moment, while a colleague looks.

    Every call that a worker has said to have stored is there, and what was not killed finishes.
    """
    command = [sys.executable, "-c", COMMON + STORM, url, str(each)]
    pipe = subprocess.PIPE
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        lines = process.stdout
        assert lines is not None
        reader = threading.Thread(target=lambda: said.extend(lines))
        try:
            begun: list[list[str]] = []
            # a child may say much before its parent says that there is one
            while len(begun) < 5 or not any(words[0] == "child" for words in begun):
                begun.append(next(lines).split())
            said += [" ".join(words) for words in begun]
            reader.start()
            time.sleep(chance.uniform(0.0, 0.3))
            if victim == "parent":
                process.kill()
            else:
                pids = [int(words[1]) for words in begun if words[0] == "child"]
                with suppress(ProcessLookupError):  # it has done its work
                    os.kill(chance.choice(pids), signal.SIGKILL)
            seen = [look(url) for _ in range(2)]
            assert seen == sorted(seen)
            reader.join(40)
            assert not reader.is_alive(), "a worker stalls"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    words = [line.split() for line in said if not line.startswith("child")]
    stored = {digest((int(worker), int(number))) for worker, number in words if number != "end"}
    storage = CallLocal(url.removeprefix("local:")) if url.startswith("local:") else Sql(url)
    found = {key for key, entry in storage.get_many(stored) if not isinstance(entry, Exception)}
    assert found == stored, f"{len(stored - found)} of {len(stored)} are lost"
    started = {worker for worker, _ in words}
    ended = {worker for worker, number in words if number == "end"}
    assert len(started - ended) <= (victim == "child"), "a worker did not finish"
    storage.close()


class TestStorms:
    @pytest.mark.parametrize("victim", swept(["parent", "child"], "parent".__eq__))
    def test_a_pool(self, url: str, victim: str) -> None:
        storm(url, victim, random.Random(victim), 40)

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("victim", ["parent", "child"])
    def test_many_pools(self, url: str, victim: str) -> None:
        for turn in range(25):
            storm(url, victim, random.Random(100 + turn), 100)


class TestLocks:
    def test_the_first_digest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A child of a process that is listing its extensions lists them itself."""
        script = """
import importlib.metadata, threading
listed, slow = importlib.metadata.entry_points, threading.Event()
def entry_points(**options):
    slow.set()
    time.sleep(0.5)
    return listed(**options)
importlib.metadata.entry_points = entry_points
import fractions
from fleche.digest import _registry
_registry.extensions.loaded = False
thread = threading.Thread(target=digest, args=(fractions.Fraction(1, 2),))
thread.start()
slow.wait(5)
pid = os.fork()
if pid == 0:
    digest(fractions.Fraction(1, 3))
    assert _registry.extensions.loaded
    os._exit(0)
thread.join()
deadline = time.time() + 10
while time.time() < deadline and not os.waitpid(pid, os.WNOHANG)[0]:
    time.sleep(0.01)
else:
    if time.time() >= deadline:
        os.kill(pid, 9)
        say("the child hangs")
"""
        assert finish(run(script, ":memory:")) == ""

    def test_renewed(self) -> None:
        """A lock that another thread holds in the moment of a fork is open in the child."""
        lock = util.renewed_after_fork(threading.Lock())
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                over.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)

        def work() -> None:
            assert lock.acquire(timeout=5)

        try:
            assert wait_for(in_child(work)) == 0
            assert lock.locked()
        finally:
            over.set()
            thread.join()

    def test_every_one_is_known(self) -> None:
        """What becomes of each lock and thread in a forked child is said here."""
        found = {
            place: kinds
            for path in sorted(PACKAGE.rglob("*.py"))
            if (kinds := sorted(set(_bare_primitives(path))))
            for place in [path.relative_to(PACKAGE).as_posix()]
            if not place.startswith(ELSEWHERE)
        }
        assert found == PRIMITIVES

    def test_none_waits_for_itself(self) -> None:
        """A signal handler goes through a lock that its thread holds, or finds out that it does."""
        plain = {
            path.relative_to(PACKAGE).as_posix()
            for path in sorted(PACKAGE.rglob("*.py"))
            if any(name == "Lock" for name, _ in _primitives(path))
        }
        assert {place for place in plain if not place.startswith(ELSEWHERE)} == set()


# Suites for the developers of backends; a program of its own; and what talks to another process, to
# which a child opens a connection of its own.
ELSEWHERE = ("testing/", "remote/", "cli/", "browse/")

# What is not made by `renewed_after_fork`, and why it needs not be.
PRIMITIVES = {
    # a child begins with no turns of its parent's threads
    "_turns.py": ["Event", "RLock"],
    # a child forgets the calls that run in its parent
    "decorator/_singleflight.py": ["RLock"],
    "decorator/_futures.py": ["Thread"],
    "decorator/_locking.py": ["Event", "Thread"],
    # a child begins anew, and leaves what waits, or is computed again, to its parent
    "caches/_background.py": ["Condition", "Thread"],
    "decorator/_rules.py": ["Thread"],
    # those of a thread that waits in the parent; a key is that of a process
    "caches/_stack.py": ["Event"],
    # joined before anything can fork, unless other threads do: their child has no part in it
    "digest/_ahead.py": ["Thread"],
    # shut down where they are made
    "storage/fsspec/_objects.py": ["ThreadPoolExecutor"],
    "storage/fsspec/_storage.py": ["ThreadPoolExecutor"],
    # renewed by hooks of their own, together with what they guard
    "parcel/_definitions.py": ["RLock"],
    "state/_active.py": ["RLock"],
    "storage/sql/_database.py": ["RLock"],
    "storage/sql/_server.py": ["BoundedSemaphore"],
    "storage/sql/_sqlite.py": ["RLock"],
}

_MAKERS = {
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "ThreadPoolExecutor",
    "Timer",
}


def _bare_primitives(path: Path) -> Iterator[str]:
    """Yield the names of the primitives of `threading` that a module makes and does not renew."""
    return (name for name, is_renewed in _primitives(path) if not is_renewed)


@cache
def _primitives(path: Path) -> list[tuple[str, bool]]:
    """Return the primitives of `threading` that a module makes, and whether it renews them."""
    text = path.read_text(encoding="utf-8")
    if not any(maker in text for maker in _MAKERS):
        return []
    nodes = list(ast.walk(ast.parse(text)))
    imported = {
        name.asname or name.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module in ("threading", "concurrent.futures")
        for name in node.names
    }
    renewed = {
        id(argument)
        for node in nodes
        if isinstance(node, ast.Call) and _name_of(node) == "renewed_after_fork"
        for argument in node.args
    }
    found = []
    for node in nodes:
        if isinstance(node, ast.Call):
            name = _name_of(node)
            is_imported = isinstance(node.func, ast.Attribute) or name in imported
            if name in _MAKERS and is_imported:
                found.append((name, id(node) in renewed))
    return found


def _name_of(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr if getattr(call.func.value, "id", "") == "threading" else ""
    return getattr(call.func, "id", "")
