"""Every byte: whatever happens to the stream, no caller waits for ever or gets a wrong value."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache
from fleche.call import Call
from fleche.digest import digest
from fleche.errors import RemoteConnectionError
from fleche.parcel import pack
from fleche.remote import PipeChannel, RemoteCache, serve
from fleche.remote._frames import HEADER
from fleche.testing import example_call
from tests.helpers.backends import lacking, save_parcel
from tests.helpers.caches import cache_factory
from tests.helpers.faults import Fault, FaultyChannel
from tests.helpers.leaks import check_leaks
from tests.helpers.sweeps import swept

SILENCE = 0.12
VALUE = list(range(100, 160))


@dataclass(frozen=True)
class Operation:
    """One operation on a cache that holds `example_call()`, and the only answer that is right."""

    run: Callable[[BaseCache, str], Any]
    expected: Callable[[BaseCache, str], Any]


def _save(cache: BaseCache, key: str) -> Any:
    return cache.save(Call("saved", {"x": VALUE}, result=VALUE))


OPERATIONS = {
    "info": Operation(lambda c, key: c.info()["fleche_version"], lambda c, key: "0.1.0"),  # type: ignore[attr-defined]
    "load": Operation(lambda c, key: c.load(key).result, lambda c, key: 4),
    "load_value": Operation(lambda c, key: c.load_value(digest(VALUE)), lambda c, key: VALUE),
    "contains": Operation(lambda c, key: c.contains(key), lambda c, key: True),
    "lacking": Operation(
        lambda c, key: lacking(c, [digest(1), digest(VALUE)]), lambda c, key: [digest(1)]
    ),
    "expand": Operation(lambda c, key: c.expand(key[:10]), lambda c, key: key),
    "shrink": Operation(lambda c, key: c.shrink(key), lambda c, key: key[:4]),
    "query": Operation(
        lambda c, key: [call.key for call in c.query(name="square")], lambda c, key: [key]
    ),
    "evict": Operation(lambda c, key: c.evict(key), lambda c, key: None),
    "save_parcel": Operation(
        lambda c, key: save_parcel(c, digest("new"), pack("new", digest=digest("new"))),
        lambda c, key: None,
    ),
    "save": Operation(_save, lambda c, key: Call("saved", {"x": VALUE}).key),
}


class Bench:
    """A served cache, a faulty channel to it, and a connected remote cache."""

    def __init__(self, root: Path, silence: float) -> None:
        self.served = cache_factory("memory", root)()
        self.key = self.served.save(example_call())
        self.served.save_value(VALUE)
        self.channel = FaultyChannel(PipeChannel(lambda i, o: serve(i, o, self.served)))
        self.remote = RemoteCache(self.channel, timeout=20, connect_timeout=20)
        self.remote.info()
        self._set_timeout(silence)

    def _set_timeout(self, silence: float) -> None:
        assert self.remote.backend.lazy.connection is not None
        self.remote.backend.lazy.connection._mux.timeout = silence

    def check(self, operation: Operation, fault: Fault) -> bool:
        """Run `operation` under `fault`; return whether the fault struck."""
        self.channel.arm(fault)
        began = time.monotonic()
        failed = True
        try:
            answer = operation.run(self.remote, self.key)
            failed = False
        except RemoteConnectionError:
            pass
        assert time.monotonic() - began < 15, "no deadline was kept"
        if not failed:
            assert answer == operation.expected(self.served, self.key), "a wrong value"
        elif self.channel.struck:
            self._check_dead()
        self._check_served()
        return self.channel.struck

    def _check_dead(self) -> None:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(RemoteConnectionError, match="reconnect"):
                self.remote.contains(self.key)
        assert time.monotonic() - began < 1, "the dead do not answer at once"

    def _check_served(self) -> None:
        """Nothing half-made is visible behind the server."""
        report = self.served.verify()
        assert not report.corrupt, report
        assert not report.dangling, report
        for call in self.served.query():
            _ = call.result

    def check_recovery(self) -> None:
        """After `reconnect()` all is well again."""
        self.channel.arm(None)
        self.remote.reconnect()
        assert self.remote.contains(digest(VALUE))

    def close(self) -> None:
        self.channel.arm(None)
        self.remote.close()


@contextmanager
def _bench(root: Path, silence: float = 5.0) -> Iterator[Bench]:
    bench = Bench(root, silence)
    try:
        yield bench
    finally:
        bench.close()


def _sizes(root: Path, operation: Operation) -> dict[str, int]:
    """Return how many bytes go up and down in an undisturbed run."""
    with _bench(root) as bench:
        bench.channel.arm(None)
        operation.run(bench.remote, bench.key)
        return dict(bench.channel.passed)


def _offsets(size: int, step: int) -> list[int]:
    """Every byte of the first frame's header, then some."""
    return [*range(min(size, 18)), *range(18, size, step)]


@pytest.mark.parametrize("step", swept([61, 1], lambda step: step > 1))
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(
    ("name", "action"),
    swept(
        itertools.product(OPERATIONS, ("cut", "garble")),
        lambda case: case[1] == "garble" or case[0] in ("load", "save"),
    ),
)
def test_every_byte(tmp_path: Path, name: str, action: Any, direction: Any, step: int) -> None:
    """At every byte of request and answer: cut there, or with one bit flipped there."""
    operation = OPERATIONS[name]
    size = _sizes(tmp_path, operation)[direction]
    assert size > 10
    offsets = _offsets(size, step)
    struck = 0
    with check_leaks():
        for turn, offset in enumerate(offsets):
            with _bench(tmp_path) as bench:
                fault = Fault(direction, action, offset, mask=1 << turn % 8)
                struck += bench.check(operation, fault)
                if turn % 29 == 0:
                    bench.check_recovery()
    # the last frame may be on its way when the answer is complete
    late = sum(offset >= size - 2 * HEADER.size for offset in offsets)
    assert struck >= len(offsets) - late


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_stalls(tmp_path: Path, name: str, direction: Any) -> None:
    """Silence from any byte on ends in an error when the time is up, and not before."""
    operation = OPERATIONS[name]
    size = _sizes(tmp_path, operation)[direction]
    with check_leaks():
        for offset in _offsets(size, 41)[:: 2 if name == "load" else 9]:
            with _bench(tmp_path, SILENCE) as bench:
                bench.check(operation, Fault(direction, "stall", offset))
                if offset == 0:
                    bench.check_recovery()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_stalls_at_every_byte(tmp_path: Path, name: str, direction: Any) -> None:
    """The same at every byte."""
    operation = OPERATIONS[name]
    size = _sizes(tmp_path, operation)[direction]
    with check_leaks():
        for offset in range(size):
            with _bench(tmp_path, SILENCE) as bench:
                bench.check(operation, Fault(direction, "stall", offset))


@pytest.mark.parametrize(
    ("action", "direction"),
    swept(
        itertools.product(("cut", "garble", "stall"), ("up", "down")),
        lambda case: case[0] == "cut" or case[1] == "up",
    ),
)
def test_the_greeting(tmp_path: Path, action: Any, direction: Any) -> None:
    """The same for every byte of the greeting: a typed error, or the right info."""
    served = cache_factory("memory", tmp_path)()
    channel = FaultyChannel(PipeChannel(lambda i, o: serve(i, o, served)))
    step = {"cut": 1, "garble": 7, "stall": 61}[action]
    with check_leaks():
        for offset in itertools.count(0, step):
            channel.arm(Fault(direction, action, offset))
            remote = RemoteCache(channel, timeout=SILENCE, connect_timeout=0.5)
            try:
                info = remote.info(refresh=False)
            except RemoteConnectionError:
                assert channel.struck
            else:
                assert info["fleche_version"] == "0.1.0"
                assert info["read_only"] is False
            finally:
                struck = channel.struck
                channel.arm(None)
                remote.close()
                channel.close(0)
            if not struck:
                break
        assert offset > 100


def test_slow_is_not_silent(tmp_path: Path) -> None:
    """A server that sends a byte now and then is not given up."""
    served = cache_factory("memory", tmp_path)()
    key = served.save(example_call())
    over = threading.Event()

    class Trickle(FaultyChannel):
        def open(self) -> tuple[Any, Any]:
            reader, writer = super().open()

            class Slow:
                def readinto(self, buffer: memoryview, /) -> int | None:
                    piece = buffer if over.wait(0.01) else buffer[:8]
                    return reader.readinto(piece)  # type: ignore[no-any-return]

                close = staticmethod(reader.close)

            return Slow(), writer

    channel = Trickle(PipeChannel(lambda i, o: serve(i, o, served)))
    with check_leaks(), RemoteCache(channel, timeout=0.3, connect_timeout=30) as remote:
        assert remote.load(key).result == 4
        over.set()  # what has piled up on a busy machine would be read for seconds
