"""Sudden death of either side: whatever is under way fails at once, and nothing is left behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache
from fleche.errors import RemoteConnectionError
from fleche.remote import RemoteCache
from fleche.remote.channel import ProcessChannel
from fleche.testing import example_call
from tests.helpers.caches import cache_factory, make_cache
from tests.helpers.processes import is_gone, status_of
from tests.helpers.serving import Serving
from tests.helpers.sweeps import swept

PROCESSES = ("subprocess", pytest.param("ssh", marks=pytest.mark.ssh))
THREADS = 8
LARGE = 6 << 20


# -- the server, or its ssh, is killed -------------------------------------------------------------


def _value(seed: int, turn: int) -> bytes:
    """A value that is told apart from every other, now small, now of several frames."""
    return b"%d/%d " % (seed, turn) * (LARGE // 10 if turn % 5 == 4 else 3)


class Worker(threading.Thread):
    """Mixed operations until the connection dies; each is right or one `RemoteConnectionError`."""

    def __init__(self, remote: RemoteCache, seed: int) -> None:
        super().__init__(name=f"worker {seed}")
        self.remote = remote
        self.seed = seed
        self.turns = 0
        self.wrong: list[object] = []
        self.died = 0.0

    def run(self) -> None:
        try:
            while True:
                self._turn(self.turns)
                self.turns += 1
        except RemoteConnectionError:
            self.died = time.monotonic()
        except BaseException as error:  # noqa: BLE001 (reported by the test)
            self.wrong.append(error)

    def _turn(self, turn: int) -> None:
        remote, value = self.remote, _value(self.seed, turn)
        key = remote.save(example_call(x=[self.seed, turn, time.time_ns()], result=value))
        checks: list[tuple[str, object, object]] = [
            ("result", remote.load(key).result, value),
            ("contains", remote.contains(key), True),
            ("absent", remote.contains("0" * 64), False),
            ("expand", remote.expand(key[:20]), key),
            ("query", [call.key for call in remote.query(name="square").take(1)] != [], True),
        ]
        self.wrong += [found for found in checks if found[1] != found[2]]


def _kill_under_load(remote: RemoteCache, victim: Callable[[], int], delay: float) -> None:
    remote.info()
    workers = [Worker(remote, seed) for seed in range(THREADS)]
    for worker in workers:
        worker.start()
    time.sleep(delay)
    killed = time.monotonic()
    os.kill(victim(), signal.SIGKILL)
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive(), "a call hangs"
        assert worker.wrong == []
        assert worker.died - killed < 8, "a call was late to fail"
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(RemoteConnectionError, match=r"reconnect\(\)"):
            remote.contains("0" * 64)
    assert time.monotonic() - began < 1, "the dead do not answer at once"
    remote.reconnect()
    remote.info()


def _check_store(factory: Callable[[], BaseCache]) -> None:
    """Nothing half-made is visible, and what is visible is whole."""
    with factory() as cache:
        report = cache.verify()
        assert not report.corrupt, report
        assert not report.dangling, report
        for call in cache.query():
            assert call.result


def _rounds(count: int, longest: float) -> Iterator[float]:
    numbers = random.Random(7)
    return (numbers.uniform(0, longest) for _ in range(count))


def _check_kills(
    serving: Serving, kind: str, root: Path, victim: str, rounds: Iterator[float]
) -> None:
    factory = cache_factory("file", root)
    channel = serving.channel(kind, factory)
    assert isinstance(channel, ProcessChannel)
    remote = serving.cache(channel)
    if victim == "server":
        find = lambda: int(remote.info(refresh=False)["pid"])  # noqa: E731
    else:
        find = lambda: channel.pid or 0  # noqa: E731
    for delay in rounds:
        _kill_under_load(remote, find, delay)
    remote.close()
    _check_store(factory)


VICTIMS = (
    ("subprocess", "server"),
    pytest.param("ssh", "server", marks=pytest.mark.ssh),
    pytest.param("ssh", "ssh", marks=pytest.mark.ssh),
)


@pytest.mark.parametrize(("kind", "victim"), VICTIMS)
def test_killed_under_load(serving: Serving, tmp_path: Path, kind: str, victim: str) -> None:
    """Eight threads at work; the server, or the local ssh, is killed at a random moment."""
    _check_kills(serving, kind, tmp_path / "served", victim, _rounds(2, 0.8))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "victim"), VICTIMS)
def test_killed_under_load_often(serving: Serving, tmp_path: Path, kind: str, victim: str) -> None:
    """The same, many times."""
    _check_kills(serving, kind, tmp_path / "served", victim, _rounds(25, 1.5))


# -- the client is killed --------------------------------------------------------------------------


def _make_slow(root: str, method: str, mark: str) -> BaseCache:
    """Return a file cache of which one operation, once begun, makes the file `mark` and hangs."""
    cache = make_cache("file", root)
    original = getattr(cache.backend, method)

    def slow(*args: Any, **options: Any) -> Any:
        Path(mark).touch()
        time.sleep(30)
        return original(*args, **options)

    setattr(cache.backend, method, slow)
    return cache


def _make_slow_in_the_middle(root: str, mark: str) -> BaseCache:
    """Return a file cache that hangs in the middle of storing a parcel, whatever it locks then."""
    cache = make_cache("file", root)
    original = cache.backend.save

    def slowed(address: Any, parcel: Any) -> Any:
        chunks = parcel.source.chunks

        def slow_chunks(size: int) -> Iterator[Any]:
            for chunk in chunks(size):
                yield chunk
                Path(mark).touch()
                time.sleep(30)

        parcel.source.chunks = slow_chunks
        return address, parcel

    def slow(entries: Any, parcels: Any = (), **options: Any) -> None:
        original(entries, itertools.starmap(slowed, parcels), **options)

    cache.backend.save = slow  # type: ignore[method-assign]
    return cache


_CLIENT = """\
import sys, threading, time
sys.path.insert(0, {root!r})
from fleche.remote import RemoteCache, SshChannel, LocalSubprocessChannel
from fleche.testing import example_call
channel = {channel}
cache = RemoteCache(channel, timeout=60)
key = "{key}"
print(cache.info()["pid"], flush=True)
{action}
"""


class Victim:
    """A client process that is killed while its server is busy."""

    def __init__(self, serving: Serving, kind: str, factory: Any, action: str, key: str) -> None:
        self._channel = serving.channel(kind, factory)
        assert isinstance(self._channel, ProcessChannel)
        code = _CLIENT.format(
            root=str(Path(__file__).parents[1]),
            channel=serving.expression(self._channel),
            key=key,
            action=textwrap.dedent(action),
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.server = int(self.process.stdout.readline())

    def kill(self) -> float:
        """Kill the client; return when."""
        self.process.kill()
        self.process.wait()
        return time.monotonic()

    def close(self) -> None:
        """Leave nothing, whatever the test has found."""
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with suppress(ProcessLookupError):
            if not is_gone(self.server):
                os.kill(self.server, signal.SIGKILL)


def _wait(ready: Callable[[], object], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)


def _check_unlocked(serving: Serving, root: Path, key: str) -> None:
    """Another server on the same store does everything at once."""
    began = time.monotonic()
    remote = serving("subprocess", cache_factory("file", root))
    value = os.urandom(2 << 20)
    assert remote.load(remote.save(example_call(x="after", result=value))).result == value
    remote.evict(key)
    assert not remote.contains(key)
    assert time.monotonic() - began < 15
    remote.close()
    _check_store(cache_factory("file", root))


BUSY = {
    "contains": "cache.contains(key)",
    "save": "cache.save(example_call(x='new'))",
}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("subprocess", "contains"),
        ("subprocess", "save"),
        pytest.param("ssh", "contains", marks=pytest.mark.ssh),
    ],
)
def test_the_client_is_killed_while_the_server_works(
    serving: Serving, tmp_path: Path, kind: str, method: str
) -> None:
    """A server that computes for a client that was killed ends within 5 s and holds no lock."""
    root, mark = tmp_path / "served", tmp_path / "begun"
    with cache_factory("file", root)() as local:
        key = local.save(example_call())
    factory = partial(_make_slow, str(root), method, str(mark))
    victim = Victim(serving, kind, factory, BUSY[method], key)
    try:
        _wait(mark.exists, 20, "the server does nothing")
        killed = victim.kill()
        _wait(lambda: is_gone(victim.server), 5, "the server outlives its client")
        assert time.monotonic() - killed < 5.5
    finally:
        victim.close()
    _check_unlocked(serving, root, key)


def test_the_client_is_killed_while_the_server_stores(serving: Serving, tmp_path: Path) -> None:
    """The same, in the middle of storing a value: nothing half-made is ever visible."""
    root, mark = tmp_path / "served", tmp_path / "begun"
    with cache_factory("file", root)() as local:
        key = local.save(example_call())
    factory = partial(_make_slow_in_the_middle, str(root), str(mark))
    action = "import os; cache.save(example_call(x='new', result=os.urandom(8 << 20)))"
    victim = Victim(serving, "subprocess", factory, action, key)
    try:
        _wait(mark.exists, 20, "the server does nothing")
        victim.kill()
        _wait(lambda: is_gone(victim.server), 5, "the server outlives its client")
    finally:
        victim.close()
    _check_unlocked(serving, root, key)


def _written(pid: int) -> int:
    """Return how many bytes a process has written."""
    return status_of(pid, "io", "wchar")


@pytest.mark.parametrize("kind", swept(PROCESSES, lambda kind: kind != "subprocess"))
def test_the_client_is_killed_while_the_server_writes(
    serving: Serving, tmp_path: Path, kind: str
) -> None:
    """A server that is blocked in a large answer, which is not read, ends within 5 s too."""
    root = tmp_path / "served"
    with cache_factory("file", root)() as local:
        key = local.save(example_call(x="large", result=os.urandom(200 << 20)))
    action = """
    call = cache.load(key)
    threading.Thread(target=lambda: call.result, daemon=True).start()
    time.sleep(60)
    """
    victim = Victim(serving, kind, cache_factory("file", root), action, key)
    try:
        _wait(lambda: _written(victim.server) > 1 << 20, 20, "nothing is sent")
        os.kill(victim.process.pid, signal.SIGSTOP)
        written = -1
        while written != (written := _written(victim.server)):
            time.sleep(0.3)
        assert written < 200 << 20, "the answer was not large enough to block"
        victim.kill()
        _wait(lambda: is_gone(victim.server), 5, "the server outlives its client")
    finally:
        victim.close()
    _check_unlocked(serving, root, key)
