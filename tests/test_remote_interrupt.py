"""Calls that are given up: at once, stopped at the sender, and without a trace afterwards."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleche.digest import Digest, digest
from fleche.errors import RemoteConnectionError
from fleche.parcel import pack
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote import _messages as m
from fleche.remote._frames import Kind
from fleche.testing import example_call
from tests.helpers.backends import load_parcel, load_record, save_parcel
from tests.helpers.caches import cache_factory
from tests.helpers.leaks import check_leaks
from tests.helpers.peers import Wire, hostile_server, message
from tests.helpers.processes import open_files, rss, status_of
from tests.helpers.serving import Serving

ABSENT = "0" * 64
NINE = digest(9)
PROCESSES = ("subprocess", pytest.param("ssh", marks=pytest.mark.ssh))
MIB = 1 << 20
SMALL = 64 * MIB
LARGE = 256 * MIB


class Rig:
    """A remote cache that holds a large and a small call."""

    def __init__(self, serving: Serving, kind: str, root: Path, size: int) -> None:
        factory = cache_factory("file", root)
        with factory() as local:
            self.large = local.save(example_call(x="large", result=os.urandom(size)))
            self.small = local.save(example_call(x="small", result="small"))
            result = load_record(local, self.large).result
            assert result is not None
            self.value = Digest(result.digest)
        self.remote = serving(kind, factory, timeout=60)
        self.server: int = self.remote.info()["pid"]

    def check(self) -> None:
        """The next call gets its own answer, on the same connection."""
        assert self.remote.load(self.small).result == "small"
        assert self.remote.contains(self.small)
        assert self.remote.info()["pid"] == self.server

    def read_bytes(self) -> int:
        """Return how much the server has read, from files and from us."""
        return status_of(self.server, "io", "rchar")

    def open_values(self) -> list[str]:
        """Return the files of values that the server has open."""
        return [path for path in open_files(self.server) if "/values" in path]

    def open_exchanges(self) -> int:
        """Return how many exchanges the client still keeps account of."""
        assert self.remote.backend.lazy.connection is not None
        link = self.remote.backend.lazy.connection._mux
        return len(link._protocol) + len(link._streams)

    def settle(self) -> None:
        """Wait until nothing of what was given up is left on either side."""
        _wait(lambda: not self.open_values(), "the server keeps a file open")
        _wait(lambda: not self.open_exchanges(), "the client keeps an exchange")


def _wait(ready: Callable[[], object], complaint: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


@contextmanager
def _interrupted(ready: Callable[[], object]) -> Iterator[list[float]]:
    """Send the main thread a SIGINT as soon as `ready()`; assert that it gets there at once."""
    sent: list[float] = []
    over = threading.Event()

    def interrupt() -> None:
        while not ready() and not over.is_set():
            time.sleep(0.001)
        sent.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            yield sent
            over.set()
            thread.join()
            time.sleep(5)  # for a signal that comes after the work
        assert time.monotonic() - sent[0] < 2, "the interrupt was late"
    finally:
        over.set()
        thread.join()


def _check_interrupt(rig: Rig, size: int) -> None:
    before = rig.read_bytes()
    with _interrupted(lambda: rig.read_bytes() > before + 2 * MIB):
        load_parcel(rig.remote, rig.value)
        rig.remote.load(rig.large)
    rig.check()
    rig.settle()


@pytest.mark.parametrize("kind", PROCESSES)
def test_ctrl_c_during_a_load(serving: Serving, tmp_path: Path, kind: str) -> None:
    """Ctrl-C during a large load returns at once; the next call gets its own answer."""
    _check_interrupt(Rig(serving, kind, tmp_path / "served", SMALL), SMALL)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", PROCESSES)
def test_ctrl_c_during_a_load_of_256_mib(serving: Serving, tmp_path: Path, kind: str) -> None:
    """The same with 256 MiB, ten times."""
    rig = Rig(serving, kind, tmp_path / "served", LARGE)
    for _ in range(10):
        _check_interrupt(rig, LARGE)


def test_ctrl_c_during_a_save(serving: Serving, tmp_path: Path) -> None:
    """The same during a save: the value is not there, nor any part of it."""
    rig = Rig(serving, "subprocess", tmp_path / "served", MIB)
    call = example_call(x="new", result=os.urandom(SMALL))
    before = rig.read_bytes()
    with _interrupted(lambda: rig.read_bytes() > before + 2 * MIB):
        for number in range(20):
            rig.remote.save(example_call(x=["new", number], result=call.result + b"%d" % number))
    rig.check()
    rig.settle()
    with cache_factory("file", tmp_path / "served")() as local:
        report = local.verify()
        assert not report.corrupt
        assert not report.dangling


def test_ctrl_c_at_any_moment(serving: Serving, tmp_path: Path) -> None:
    """Wherever an interrupt strikes, nothing of the call is left, and every answer stays right."""
    rig = Rig(serving, "subprocess", tmp_path / "served", 2 * MIB)
    main, over = threading.main_thread().ident or 0, threading.Event()
    numbers = random.Random(3)
    interrupts = 0

    def interrupt(delay: float) -> None:
        time.sleep(delay)
        if not over.is_set():
            signal.pthread_kill(main, signal.SIGINT)

    for _ in range(60):
        over.clear()
        thread = threading.Thread(target=interrupt, args=(numbers.uniform(0, 0.02),))
        try:
            thread.start()
            for _ in range(30):
                load_parcel(rig.remote, rig.value)
                assert rig.remote.contains(rig.small)
                assert [call.key for call in rig.remote.query(name="square").take(1)]
            over.set()
            thread.join()
        except KeyboardInterrupt:
            interrupts += 1
            thread.join()
    assert interrupts > 40
    rig.check()
    rig.settle()


@contextmanager
def _begun(rig: Rig) -> Iterator[Any]:
    """A load of which the first part has come, and that is then given up."""
    from fleche.remote._messages import Found, LoadValues

    with rig.remote.backend.connected().request(LoadValues([str(rig.value)])) as exchange:
        found = exchange.answer(Found)
        assert found.size
        yield exchange


def _abandon(rig: Rig) -> None:
    with _begun(rig) as exchange:
        for _ in range(4):
            assert exchange._stream.receive() is not None


def _check_sender_stops(rig: Rig, size: int) -> None:
    """What is given up is no longer read from the disk: the server stays within a window of it."""
    before = rig.read_bytes()
    with _begun(rig):
        previous = -1
        while previous != (previous := rig.read_bytes()):
            time.sleep(0.2)
        assert previous - before < min(size, 30 * MIB), "the server does not wait for its reader"
        assert rig.open_values(), "nothing is under way"
    rig.settle()
    assert rig.read_bytes() - before < min(size, 34 * MIB), "the server has read on"
    rig.check()


def _check_growth(rig: Rig, repetitions: int) -> None:
    baseline = (0, 0)
    for turn in range(repetitions):
        _abandon(rig)
        rig.check()
        if turn == min(10, repetitions // 3):
            rig.settle()
            baseline = (rss(os.getpid()), rss(rig.server))
    rig.settle()
    grown = (rss(os.getpid()) - baseline[0], rss(rig.server) - baseline[1])
    assert max(grown) < 48 * MIB, grown


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_sender_stops(serving: Serving, tmp_path: Path, kind: str) -> None:
    """An abandoned stream is cancelled at the sender, which reads no more of its file."""
    _check_sender_stops(Rig(serving, kind, tmp_path / "served", SMALL), SMALL)


def test_memory_does_not_grow(serving: Serving, tmp_path: Path) -> None:
    """Many loads given up half-way leave no memory taken, on neither side."""
    _check_growth(Rig(serving, "subprocess", tmp_path / "served", SMALL), 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", PROCESSES)
def test_memory_does_not_grow_over_100_loads_of_256_mib(
    serving: Serving, tmp_path: Path, kind: str
) -> None:
    """The same, 100 times, with 256 MiB."""
    rig = Rig(serving, kind, tmp_path / "served", LARGE)
    _check_sender_stops(rig, LARGE)
    _check_growth(rig, 100)


def test_queries_that_are_given_up(serving: Serving, tmp_path: Path) -> None:
    """Iterators of queries that are not finished leave nothing on either side."""
    rig = Rig(serving, "subprocess", tmp_path / "served", MIB)
    for _ in range(300):
        next(iter(rig.remote.query()))
    rig.check()
    rig.settle()


# -- what interrupts may use the cache -------------------------------------------------------------

WAYS: dict[str, Callable[[RemoteCache], Any]] = {
    "a question": lambda cache: cache.contains(ABSENT),
    "a listing": lambda cache: list(cache.query(name="nothing")),
    "an upload": lambda cache: save_parcel(cache, NINE, pack(9, digest=NINE)),
}


def _interrupted_at(cache: RemoteCache, act: Callable[[RemoteCache], Any], line: int) -> bool:
    """Do `act`, and ask something else when it comes to its `line`-th line below the cache.

    That is what a signal handler does, or a finalizer. Returns whether it came so far.
    """
    left = line

    def at_each_line(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if f"{os.sep}remote{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                assert cache.contains(ABSENT) is False
                return None
        return at_each_line

    tracing = sys.gettrace()
    sys.settrace(at_each_line)
    try:
        act(cache)
    finally:
        sys.settrace(tracing)
    return left <= 0


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_that_uses_the_cache(tmp_path: Path, way: str) -> None:
    """Wherever an operation is interrupted, the handler may use the same connection, and both end.

    Requests are numbered as they are written, so that neither is lost.
    """
    served = cache_factory("memory", tmp_path)()
    channel = PipeChannel(lambda i, o: serve(i, o, served))
    with check_leaks(), RemoteCache(channel, timeout=20) as cache:
        assert cache.contains(ABSENT) is False
        line = 1
        while _interrupted_at(cache, WAYS[way], line):
            line += 1
        assert line > 50, "it was not interrupted where it counts"
        assert cache.contains(ABSENT) is False


def test_a_finalizer_in_a_thread_of_the_connection(tmp_path: Path) -> None:
    """There it would wait for itself: it is told so, and the connection goes on."""
    served = cache_factory("memory", tmp_path)()
    told: list[str] = []

    class Collecting:
        """Writes, and the second time something is collected that uses the cache."""

        def __init__(self, writer: Any) -> None:
            self._writer, self._writes = writer, 0
            self.flush, self.close = writer.flush, writer.close

        def write(self, data: Any) -> Any:
            self._writes += 1
            if self._writes == 2:
                try:
                    cache.contains(ABSENT)
                except RemoteConnectionError as error:
                    told.append(str(error))
            return self._writer.write(data)

    class Channel(PipeChannel):
        def open(self) -> Any:
            reader, writer = super().open()
            return reader, Collecting(writer)

    with check_leaks():
        cache = RemoteCache(Channel(lambda i, o: serve(i, o, served)), timeout=20)
        with cache:
            assert cache.contains(ABSENT) is False
            assert cache.contains(ABSENT) is False
    assert ["finalizer" in text for text in told] == [True]


def test_a_request_that_a_server_does_not_know(tmp_path: Path) -> None:
    """A client that waits asks about that very request; what a server has lost is sent again."""

    def act(wire: Wire) -> None:
        lost, request = wire.request()
        while (frame := wire.read()) is not None and frame.kind is not Kind.PING:
            pass
        assert frame is not None
        assert frame.stream_id == lost
        wire.write(message(lost, m.Failure("busy")))
        again, repeated = wire.request()
        assert repeated == request
        wire.write(message(again, m.Flags([True])))

    with check_leaks(), RemoteCache(hostile_server(act), timeout=2) as cache:
        assert cache.contains(ABSENT) is True
