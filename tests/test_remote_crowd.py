"""A crowd on one connection: every answer right, none waits for the large, forks disturb none."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleche.digest import Digest, digest
from fleche.errors import AmbiguousDigestError
from fleche.parcel import pack
from fleche.remote import RemoteCache
from fleche.testing import example_call
from tests.helpers.backends import lacking, load_parcel, load_record, save_parcel
from tests.helpers.caches import cache_factory
from tests.helpers.serving import CHANNELS, Serving

PROCESSES = ("subprocess", pytest.param("ssh", marks=pytest.mark.ssh))
MIB = 1 << 20
ABSENT = "0" * 64


# -- many threads ----------------------------------------------------------------------------------


class Person:
    """One of many threads; knows what is right for it, whatever the others do."""

    def __init__(self, remote: RemoteCache, seed: int) -> None:
        self._remote = remote
        self._seed = seed
        self._random = random.Random(seed)
        self._mine: dict[Digest, bytes] = {}

    def work(self, turns: int) -> int:
        """Do `turns` random operations; return how many."""
        operations = [
            self._save,
            self._load,
            self._load_many,
            self._contains,
            self._value,
            self._absent,
            self._names,
            self._query,
            self._evict,
            self._fail,
        ]
        for turn in range(turns):
            self._random.choice(operations)(turn)
        return turns

    def _bytes(self, turn: int) -> bytes:
        size = self._random.choice([1, 1_000, 70_000, 1_500_000])
        return b"%d.%d." % (self._seed, turn) + self._random.randbytes(size)

    def _some(self, turn: int) -> tuple[Digest, bytes]:
        if not self._mine:
            self._save(turn)
        return self._random.choice(list(self._mine.items()))

    def _save(self, turn: int) -> None:
        value = self._bytes(turn)
        call = example_call(x=[self._seed, turn], result=value)
        key = self._remote.save(call)
        assert key == call.key
        self._mine[key] = value

    def _load(self, turn: int) -> None:
        key, value = self._some(turn)
        assert self._remote.load(key).result == value

    def _load_many(self, turn: int) -> None:
        keys = list(self._mine)[:5]
        found = {call.key: call for call in self._remote.load_many([*keys, Digest(ABSENT)])}
        assert list(found) == keys
        assert all(call.record.key == key for key, call in found.items())
        assert all(call.result == self._mine[key] for key, call in found.items())

    def _contains(self, turn: int) -> None:
        key, _ = self._some(turn)
        answer = self._remote.contains_many([key, Digest(ABSENT), key])
        assert answer == [True, False, True]

    def _value(self, turn: int) -> None:
        value = self._bytes(turn)
        name = digest(value)
        save_parcel(self._remote, name, pack(value, digest=name))
        assert self._remote.load_value(name) == value
        assert self._remote.contains(name)

    def _absent(self, turn: int) -> None:
        absent = digest([self._seed, turn, "absent"])
        with pytest.raises(KeyError, match=absent):
            self._remote.load(absent)
        with pytest.raises(KeyError, match=absent):
            load_parcel(self._remote, absent)
        assert lacking(self._remote, [absent]) == [absent]

    def _names(self, turn: int) -> None:
        key, _ = self._some(turn)
        assert self._remote.expand(key[:24]) == key
        assert key.startswith(self._remote.shrink(key))

    def _query(self, turn: int) -> None:
        key, value = self._some(turn)
        x = load_record(self._remote, key).arguments["x"]
        (call,) = self._remote.query(name="square", arguments={"x": Digest(x.digest)})
        assert (call.key, call.result) == (key, value)

    def _evict(self, turn: int) -> None:
        if len(self._mine) > 5:
            key, _ = self._some(turn)
            self._remote.evict(key)
            del self._mine[key]
            assert not self._remote.contains(key)

    def _fail(self, turn: int) -> None:
        with pytest.raises((KeyError, AmbiguousDigestError)):
            self._remote.expand(ABSENT)


def _check_crowd(remote: RemoteCache, threads: int, turns: int, seconds: float) -> None:
    with ThreadPoolExecutor(threads) as pool:
        people = [pool.submit(Person(remote, seed).work, turns) for seed in range(threads)]
        assert sum(person.result(seconds) for person in people) == threads * turns
    assert remote.backend.lazy.connection is not None
    link = remote.backend.lazy.connection._mux
    deadline = time.monotonic() + 5
    while len(link._protocol) + len(link._streams):
        assert time.monotonic() < deadline, "an exchange is left"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", CHANNELS)
def test_a_crowd(serving: Serving, tmp_path: Path, kind: str) -> None:
    """Sixteen threads, mixed operations, one connection: every answer is right."""
    remote = serving(kind, cache_factory("file", tmp_path / "served"))
    _check_crowd(remote, 16, 12, 50)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", CHANNELS)
def test_a_large_crowd(serving: Serving, tmp_path: Path, kind: str) -> None:
    """32 threads and 200 operations each."""
    remote = serving(kind, cache_factory("file", tmp_path / "served"), timeout=120)
    _check_crowd(remote, 32, 200, 800)


# -- the small beside the large --------------------------------------------------------------------


def _check_overtaking(serving: Serving, kind: str, root: Path, size: int) -> None:
    factory = cache_factory("file", root)
    with factory() as local:
        large = local.save(example_call(x="large", result=bytes(size)))
        result = load_record(local, large).result
        assert result is not None
        small = local.save(example_call(x="small", result=b"s" * 1024))
    remote = serving(kind, factory, timeout=120)
    remote.load(small)
    took: list[float] = []

    def load() -> None:
        began = time.monotonic()
        while len(waits) < 20:  # a fast machine may need it more than once
            load_parcel(remote, result.digest)
            took.append(time.monotonic() - began)
            began = time.monotonic()

    waits: list[float] = []
    loading = threading.Thread(target=load)
    loading.start()
    try:
        while loading.is_alive():
            began = time.monotonic()
            assert remote.load(small).result == b"s" * 1024
            waits.append(time.monotonic() - began)
            time.sleep(0.005)
    finally:
        waits += [0.0] * 20
        loading.join()
    chunk = statistics.mean(took) / (size / MIB)
    waits = waits[:-20]
    assert len(waits) >= 20
    # the queue, the pipe, and the threads of two busy processes lie before it; not the large value
    assert statistics.median(waits) < max(0.05, 32 * chunk), (statistics.median(waits), chunk)
    assert max(waits) < max(1.0, statistics.mean(took) / 2), (max(waits), took)


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_small_answer_overtakes(serving: Serving, tmp_path: Path, kind: str) -> None:
    """A load of 1 KiB during one of 128 MiB waits for a few chunks of it, not for all."""
    _check_overtaking(serving, kind, tmp_path / "served", 128 * MIB)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", PROCESSES)
def test_a_small_answer_overtakes_1_gib(serving: Serving, tmp_path: Path, kind: str) -> None:
    """The same beside 1 GiB."""
    _check_overtaking(serving, kind, tmp_path / "served", 1024 * MIB)


# -- forks -----------------------------------------------------------------------------------------

_FORKING = """\
import gc, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
sys.path.insert(0, {root!r})
from fleche.remote import LocalSubprocessChannel, RemoteCache, SshChannel
from fleche.testing import example_call

cache = RemoteCache({channel}, timeout=30, connect_timeout=30)
key = cache.save(example_call())
large = cache.save(example_call(x="large", result=os.urandom(40 << 20)))
value = cache.load(large).record.result.address
pid = cache.info()["pid"]


def collected():
    global cache
    del cache
    gc.collect()
    os._exit(0)

def exited():
    gc.collect()
    sys.exit(0)

def closed():
    cache.close()
    cache.close()
    sys.exit(0)

def used():
    assert cache.load(key).result == 4
    assert cache.info()["pid"] != pid
    sys.exit(0)

def used_and_collected():
    global cache
    assert cache.contains(key)
    del cache
    gc.collect()
    os._exit(0)

def forked_again():
    child = os.fork()
    if not child:
        used()
    assert os.waitpid(child, 0)[1] == 0
    assert cache.load(key).result == 4
    sys.exit(0)


def check():
    assert cache.load(key).result == 4
    assert cache.info()["pid"] == pid
    os.kill(pid, 0)  # it is there

stop = threading.Event()
users = (used, used_and_collected, forked_again)

def work():
    while not stop.is_set():
        for _, parcel in cache.backend.load_values([value]):
            parcel.close()

for busy in (False, True):
    if busy:
        worker = threading.Thread(target=work)
        worker.start()
    for action in (collected, exited, closed, *(users if busy else ())):
        child = os.fork()
        if not child:
            stop.set()
            action()
        check()
        _, status = os.waitpid(child, 0)
        assert status == 0, (action.__name__, busy, status)
        check()
stop.set()
worker.join()
cache.close()
print("undisturbed")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "kind", ["subprocess", pytest.param("ssh", marks=[pytest.mark.ssh, pytest.mark.slow])]
)
def test_forks(serving: Serving, tmp_path: Path, kind: str) -> None:
    """Children that drop, close, use or merely inherit the cache do not disturb the parent.

    At rest and while another thread is in the middle of a load, with the locks it then holds.
    """
    channel = serving.channel(kind, cache_factory("file", tmp_path / "served"))
    shown = serving.expression(channel)
    code = _FORKING.format(root=str(Path(__file__).parents[1]), channel=shown)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "undisturbed\n", "")
