"""Keeping house on the other side: garbage, checks and counts, asked for over the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import (
    BaseCache,
    CacheStack,
    Gc,
    Measure,
    Pin,
    Progress,
    Report,
    StatsReport,
    Task,
    VerifyReport,
    ViewBackend,
)
from fleche.digest import Address, D, Digest, digest
from fleche.errors import ProtocolError, Rejected, StorageError
from fleche.remote import RemoteCache
from fleche.remote import _messages as m
from tests.helpers.backends import save_parcel, save_record
from tests.helpers.layers import call, in_files, in_memory
from tests.helpers.peers import Wire, hostile_server, message
from tests.helpers.serving import Serving
from tests.helpers.taps import TappedChannel

APART = "too large to be kept with its call " * 1000


def ended(x: int) -> dict[str, Any]:
    """A result."""
    return {"result": x, "text": APART}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the server's cache is: ten calls, two values of no call, one damaged result."""
    with in_files(tmp_path / "far") as cache:
        for x in range(10):
            cache.save(call(x=[x, APART], result=ended(x)))
        cache.save_value("garbage")
        cache.save_value(["more", "garbage"])
        (path,) = (tmp_path / "far").rglob(f"{digest(ended(3))[2:]}.*.value")
        path.write_bytes(path.read_bytes()[:-1])
    return tmp_path / "far"


@pytest.fixture
def remote(channel_kind: str, serving: Serving, root: Path) -> Iterator[RemoteCache]:
    with RemoteCache(serving.channel(channel_kind, partial(in_files, root))) as remote:
        yield remote


class Touching:
    """Opening it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestReports:
    """What comes back is what the server's cache says there."""

    def test_verify(self, remote: RemoteCache, root: Path) -> None:
        report = remote.verify()
        assert report.corrupt == (digest(ended(3)),)
        assert len(report.dangling) == 1
        assert all(isinstance(key, Digest) for key in (*report.corrupt, *report.dangling))
        with in_files(root) as local:
            assert report == local.verify()

    def test_repair(self, remote: RemoteCache) -> None:
        assert remote.verify(repair=True).removed == 2
        assert remote.verify().ok
        assert remote.query().count() == 9

    def test_gc(self, remote: RemoteCache) -> None:
        assert remote.gc().removed == 0  # all of it is young
        remote.verify(repair=True)
        found = remote.gc(0, dry_run=True)
        assert found.removed == 3  # and the argument of the call whose result was damaged
        assert remote.gc(0) == found
        assert remote.gc(0).removed == 0

    def test_pins(self, remote: RemoteCache) -> None:
        """What a call under way has stored stays, until the pin is too old."""
        remote.verify(repair=True)
        remote.gc(0)
        pin = Pin("upload", [Address.of(remote.save_value(["arrived already"]))])
        remote.backend.save(pin.entries)
        assert (remote.gc(0, pin_age=3600).removed, remote.gc(0, pin_age=3600).pins) == (0, 0)
        found = remote.gc(0, pin_age=0)
        assert (found.removed, found.pins) == (1, 1)

    def test_stats(self, remote: RemoteCache, root: Path) -> None:
        """Entries are the server's; events are those of this client."""
        remote.lookup(digest("nothing"))
        with in_files(root) as local:
            found = remote.stats()
            assert (found.values, found.calls) == (22, 10)
            assert found == local.stats() + StatsReport(events=found.events)
        assert (found.hits, found.misses) == (0, 1)

    def test_misfiled(self, remote: RemoteCache) -> None:
        """A record under the key of another call is found, by its key."""
        record = next(iter(remote.query())).record
        save_record(remote, digest("wrong"), record)
        assert remote.verify().misfiled == (digest("wrong"),)

    def test_nothing_is_opened(self, remote: RemoteCache, tmp_path: Path) -> None:
        """Who may write to a server must not make it run code."""
        name, proof = digest("a value that touches"), tmp_path / "proof"
        save_parcel(remote, name, remote.packing.pack(Touching(proof), name))
        assert remote.verify(repair=True).values == 23
        assert remote.stats().values >= 22
        assert remote.gc(0).removed >= 1
        assert not proof.exists()

    def test_large(self, serving: Serving) -> None:
        """A report may name any number of entries."""
        keys = tuple(digest(x) for x in range(10_000))
        report = VerifyReport(values=10_000, corrupt=keys, dangling=keys[:5000], orphaned=3)

        class Ruined(ViewBackend):
            def maintain(self, task: Task, progress: Progress | None = None) -> Report:
                return report

        served = BaseCache(Ruined(in_memory().backend))
        with RemoteCache(serving.channel("pipe", lambda: served)) as remote:
            assert remote.verify() == report


class Slow(ViewBackend):
    """A cache that counts for as long as it is not interrupted."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__(in_memory().backend)
        self.ended = ended

    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        assert isinstance(task, Measure)
        assert progress is not None
        try:
            for number in range(1, 2000):
                progress(number)
                time.sleep(0.01)
        finally:
            self.ended.set()
        return StatsReport(values=1999)


class TestProgress:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleche.remote._handlers.TELL_SECONDS", 0.02)

    def test_it_is_told(self, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleche.remote._handlers.TELL_SECONDS", 0.0)
        cache = in_memory()
        for x in range(20):
            cache.save(call(x=x))
        with RemoteCache(serving.channel("pipe", lambda: cache)) as remote:
            for keep_house in (remote.verify, remote.gc, remote.stats):
                seen: list[int] = []
                keep_house(progress=seen.append)
                assert seen == list(range(1, len(seen) + 1))
                assert len(seen) >= 20

    def test_interrupted(self, serving: Serving) -> None:
        """An interrupt here interrupts it there; the connection goes on."""
        ended = threading.Event()

        def stop(number: int) -> None:
            raise KeyboardInterrupt

        with RemoteCache(serving.channel("pipe", lambda: BaseCache(Slow(ended)))) as remote:
            with pytest.raises(KeyboardInterrupt):
                remote.stats(progress=stop)
            assert ended.wait(5)
            assert not remote.contains(digest(1))

    def test_others_go_on_meanwhile(self, serving: Serving) -> None:
        """A long walk over everything keeps no other request waiting."""
        ended, begun = threading.Event(), threading.Event()
        with RemoteCache(serving.channel("pipe", lambda: BaseCache(Slow(ended)))) as remote:

            def count() -> None:
                with pytest.raises(KeyboardInterrupt):
                    remote.stats(progress=stop)

            def stop(number: int) -> None:
                begun.set()
                if done.is_set():
                    raise KeyboardInterrupt

            done = threading.Event()
            thread = threading.Thread(target=count)
            thread.start()
            assert begun.wait(10)
            key = D(remote.save(call(result=["meanwhile"])))
            assert remote.load(key).result == ["meanwhile"]
            assert not ended.is_set()
            done.set()
            thread.join(10)
            assert ended.wait(5)


class TestRefusals:
    @pytest.fixture
    def read_only(self, serving: Serving, root: Path) -> Iterator[RemoteCache]:
        channel = serving.channel("pipe", lambda: in_files(root).readonly())
        with RemoteCache(channel) as remote:
            yield remote

    def test_read_only(self, read_only: RemoteCache) -> None:
        """What changes nothing is allowed."""
        for refused in (read_only.gc, partial(read_only.verify, True)):
            with pytest.raises(Rejected, match="read-only"):
                refused()
        assert read_only.verify().values == 22
        assert read_only.stats().calls == 10

    def test_errors_are_those_of_the_server(self, serving: Serving) -> None:
        class Failing(ViewBackend):
            def maintain(self, task: Task, progress: Progress | None = None) -> Report:
                assert isinstance(task, Gc)
                raise StorageError("the disk is on fire")

        failing = BaseCache(Failing(in_memory().backend))
        with (
            RemoteCache(serving.channel("pipe", lambda: failing)) as remote,
            pytest.raises(StorageError, match="the disk is on fire"),
        ):
            remote.gc()

    @pytest.mark.parametrize(
        "answer",
        [
            m.Done(),
            m.Reported({"removed": "many"}),
            m.Reported({"corrupt": ["no digest"]}),
            m.Reported({"corrupt": 3}),
            m.Flags([True]),
        ],
        ids=repr,
    )
    def test_nonsense(self, answer: m.Answer) -> None:
        def act(wire: Wire) -> None:
            exchange, _ = wire.request()
            wire.write(message(exchange, answer))
            wire.read()

        with (
            RemoteCache(hostile_server(act), timeout=5) as remote,
            pytest.raises(ProtocolError),
        ):
            remote.verify()


def test_a_stack_keeps_house_here_alone(serving: Serving, root: Path) -> None:
    """What others own too is left to those that ask for it."""
    tap = TappedChannel(serving.channel("pipe", lambda: in_files(root)))
    with RemoteCache(tap) as remote:
        remote.contains(digest(0))
        before = len(tap.requests())
        near: BaseCache = in_memory()
        stack = CacheStack([near, remote])
        near.save_value("garbage")
        assert stack.verify().values == 1
        assert stack.stats().values == 1
        assert stack.gc(0).removed == 1
        assert stack.readonly().stats() == stack.stats()
        assert len(tap.requests()) == before
        assert remote.readonly().stats().values == 22
