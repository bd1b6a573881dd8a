"""What the wire costs: round trips, bytes sent, and work that is not done."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche import cache, fleche, wrap_executor
from fleche.caches import BaseCache, CachePool, CacheStack
from fleche.call import Call, ValueRef
from fleche.digest import Digest, digest
from fleche.remote import RemoteCache
from fleche.remote import _messages as m
from fleche.remote._frames import Kind
from fleche.testing import example_call
from tests.helpers.backends import save_records
from tests.helpers.caches import cache_factory
from tests.helpers.processes import status_of
from tests.helpers.serving import Serving
from tests.helpers.taps import TappedChannel


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was just looked up count as fresh, however busy the machine."""
    monkeypatch.setattr("fleche.caches._batch.FRESH", inf)


@fleche
def doubled(x: int) -> list[int]:
    return [2 * x]


@pytest.fixture
def factory(tmp_path: Path) -> Callable[[], BaseCache]:
    """A factory of caches over the same files."""
    return cache_factory("file", tmp_path / "served")


@pytest.fixture
def tap(serving: Serving, factory: Callable[[], BaseCache]) -> TappedChannel:
    """A channel that is overheard."""
    return TappedChannel(serving.channel("pipe", factory))


@pytest.fixture
def remote(serving: Serving, tap: TappedChannel) -> RemoteCache:
    """A connected remote cache; nothing has been asked yet."""
    cache = serving.cache(tap)
    cache.info()
    return cache


@pytest.fixture
def requests(tap: TappedChannel, remote: RemoteCache) -> Callable[[], list[str]]:
    """Returns the kinds of the requests since the connection was made."""
    before = len(tap.requests())

    def since() -> list[str]:
        return [type(request).__name__ for request in tap.requests()[before:]]

    return since


class TestRoundTrips:
    """How many questions an operation asks; each waits for its answer."""

    def test_a_hit(self, remote: RemoteCache, factory: Any, requests: Any) -> None:
        """A hit with a small result is one question: the result comes with the record."""
        with factory() as local:
            key = Digest(local.save(example_call()))
        hit = remote.lookup(key)
        assert hit is not None
        assert hit.result == 4
        assert requests() == ["Load"]

    def test_a_hit_with_a_result_apart(
        self, remote: RemoteCache, factory: Any, requests: Any
    ) -> None:
        """So is one whose result is too large to be kept with its record, up to a megabyte."""
        with factory() as local:
            key = Digest(local.save(example_call(result="wide " * 10_000)))
        hit = remote.lookup(key)
        assert hit is not None
        assert hit.result == "wide " * 10_000
        assert requests() == ["Load"]

    def test_a_hit_with_shared_buffers(
        self, remote: RemoteCache, factory: Any, requests: Any
    ) -> None:
        """Buffers that a result shares with other values are a second question, all of them one."""
        arrays = [np.full(20_000, float(number)) for number in range(3)]
        with factory() as local:
            key = Digest(local.save(example_call(result=arrays)))
        hit = remote.lookup(key)
        assert hit is not None
        np.testing.assert_array_equal(hit.result, arrays)
        assert requests() == ["Load", "LoadValues"]

    def test_a_miss(self, remote: RemoteCache, requests: Any) -> None:
        """A miss is one question."""
        assert remote.lookup(Digest("0" * 64)) is None
        assert requests() == ["Load"]

    def test_a_save(self, remote: RemoteCache, requests: Any) -> None:
        """Arguments, result and record of a small call are saved with one question."""
        remote.save(example_call(x=[2], result=[4]))
        assert requests() == ["Save"]

    def test_a_call_of_a_function(self, remote: RemoteCache, requests: Any) -> None:
        """A small miss is one look-up and one save, and a hit is one look-up."""

        @fleche(cache=remote)
        def total(numbers: list[int]) -> list[int]:
            return [sum(numbers)]

        assert total([1, 2, 3]) == [6]
        assert requests() == ["Load", "Save"]
        assert total([1, 2, 3]) == [6]
        assert requests() == ["Load", "Save", "Load"]

    def test_a_stored_call_of_a_function(self, remote: RemoteCache, requests: Any) -> None:
        """To load it, to ask for it and to explain it is one question each, also if it is none."""

        @fleche(cache=remote)
        def total(numbers: list[int]) -> list[int]:
            return [sum(numbers)]

        def asked(operation: Callable[..., Any], numbers: list[int]) -> list[str]:
            before = len(requests())
            with suppress(KeyError):
                operation(numbers)
            found: list[str] = requests()[before:]
            return found

        total([1, 2, 3])
        assert asked(total.load, [1, 2, 3]) == asked(total.load, [4]) == ["Load"]
        assert asked(total.contains, [1, 2, 3]) == asked(total.contains, [4]) == ["Contains"]
        assert asked(total.explain, [1, 2, 3]) == ["Load"]
        assert asked(total.explain, [4]) == ["Load", "Query"], "the nearest call is looked for"

    def test_many_calls_of_a_function(self, remote: RemoteCache, requests: Any) -> None:
        """`map` asks once for all calls, and saves those that are small and quick together."""

        @fleche(cache=remote)
        def double(x: int) -> list[int]:
            return [2 * x]

        results = list(double.map(range(100)))
        assert requests() == ["Load", "Save"]
        assert list(double.map(range(100))) == results
        assert requests() == ["Load", "Save", "Load"]

    def test_many_calls_in_workers(self, remote: RemoteCache, requests: Any) -> None:
        """The same from `executor.map`: workers leave the saving to the process that asked."""
        with cache(remote), wrap_executor(ThreadPoolExecutor(2)) as executor:
            results = list(executor.map(doubled, range(100)))
            assert requests() == ["Load", "Save"]
            assert list(executor.map(doubled, range(100))) == results
            assert requests() == ["Load", "Save", "Load"]

    def test_a_large_value(self, remote: RemoteCache, requests: Any) -> None:
        """What is large is asked for before it is sent, and the last of it goes with the record."""
        remote.save(example_call(x=1, result=np.zeros(1_000_000)))
        assert requests() == ["Lacking", "Save"]
        remote.save(example_call(x=2, result=[np.ones(1_000_000), np.full(1_000_000, 2.0)]))
        assert requests()[2:] == ["Lacking", "Save", "Save"]

    def test_what_is_there_already(self, remote: RemoteCache, requests: Any) -> None:
        """A large value that the server has is not sent again: the question, and the record."""
        array = np.zeros(1_000_000)
        remote.save(example_call(x=1, result=array))
        before = len(requests())
        remote.save(example_call(x=2, result=array))
        assert requests()[before:] == ["Lacking", "Save"]

    def test_a_thousand_hits(self, remote: RemoteCache, factory: Any, requests: Any) -> None:
        """A thousand small calls are loaded, results and all, with one question."""
        with factory() as local:
            keys = [Digest(local.save(example_call(x=x, result=[-x]))) for x in range(1000)]
        assert [call.result for call in remote.load_many(keys)] == [[-x] for x in range(1000)]
        assert len(remote.lookup_many(keys)) == 1000
        assert remote.contains_many(keys) == [True] * 1000
        assert requests() == ["Load", "Load", "Contains"]

    def test_a_transfer(self, remote: RemoteCache, tmp_path: Path, requests: Any) -> None:
        """A thousand small calls are sent with no more than a dozen questions."""
        local = cache_factory("memory", tmp_path)()
        for x in range(1000):
            local.save(example_call(x=x, result=[x]))
        assert local.transfer(remote) == 1000
        asked = requests()
        assert asked.count("Contains") == 1
        assert set(asked) == {"Contains", "Save"}
        assert len(asked) <= 12, asked

    def test_entries_are_sent_ahead(self, serving: Serving, tmp_path: Path) -> None:
        """Of several messages of entries, none waits for the answer to another."""
        served = cache_factory("memory", tmp_path)()
        store, lock, together = served.backend.save, threading.Lock(), threading.Event()
        under_way = 0

        def save(entries: Any, parcels: Any = (), *, unpin: Any = ()) -> None:
            nonlocal under_way
            with lock:
                under_way += 1
                if under_way > 1:
                    together.set()
            together.wait(20)
            with lock:
                under_way -= 1
            store(entries, parcels, unpin=unpin)

        served.backend.save = save  # type: ignore[method-assign]
        remote = serving.cache(serving.channel("pipe", lambda: served))
        local = cache_factory("memory", tmp_path)()
        for x in range(100):
            local.save(example_call(x=x, result=["long" * 3000, x]))
        assert local.transfer(remote) == 100
        assert together.is_set()
        assert remote.query().count() == 100

    def test_a_transfer_of_large_values(
        self, remote: RemoteCache, tmp_path: Path, requests: Any
    ) -> None:
        """Of large values, the server is asked once what it lacks; each is sent alone."""
        local = cache_factory("memory", tmp_path)()
        for x in range(10):
            local.save(example_call(x=x, result="large " * 20_000 + str(x)))
        assert local.transfer(remote) == 10
        assert requests().count("Lacking") == 1
        assert len(requests()) <= 16, requests()

    def test_a_stack(
        self, remote: RemoteCache, factory: Any, tmp_path: Path, requests: Any
    ) -> None:
        """A hit through a stack is one question, and the next one none."""
        with factory() as local:
            key = Digest(local.save(example_call()))
        stack = CacheStack((cache_factory("memory", tmp_path)(), remote))
        for _ in range(2):
            hit = stack.lookup(key)
            assert hit is not None
            assert hit.result == 4
        assert requests() == ["Load"]


WRAPPERS: dict[str, Callable[[BaseCache], BaseCache]] = {
    "filter": lambda cache: cache.filter(name="square"),
    "filter by a function": lambda cache: cache.filter(lambda call: call.name == "square"),
    "readonly": lambda cache: cache.readonly(),
    "pool": lambda cache: CachePool((cache,)),
    "stack": lambda cache: CacheStack((cache,)),
    "all of them": lambda cache: CachePool((CacheStack((cache.filter(name="s*"),)),)).readonly(),
}
TAKING = [name for name in WRAPPERS if name in {"filter", "filter by a function", "stack"}]


class TestWrappers:
    """Through any wrapper, an operation costs the questions that it costs at the remote alone."""

    @pytest.fixture
    def cost(self, requests: Any) -> Callable[[Callable[[], Any]], list[str]]:
        """Returns the questions that an operation asks."""

        def measured(operation: Callable[[], Any]) -> list[str]:
            before = len(requests())
            operation()
            found: list[str] = requests()[before:]
            return found

        return measured

    @pytest.mark.parametrize("name", WRAPPERS)
    def test_transfer_from(
        self, remote: RemoteCache, factory: Any, tmp_path: Path, cost: Any, name: str
    ) -> None:
        """A hundred calls are fetched with the same few questions."""
        with factory() as local:
            for x in range(100):
                local.save(example_call(x=x, result=[x]))
        plain, wrapped = (cache_factory("memory", tmp_path)() for _ in range(2))
        alone = cost(lambda: remote.transfer(plain))
        assert len(alone) <= 4, alone
        assert cost(lambda: WRAPPERS[name](remote).transfer(wrapped)) == alone
        assert wrapped.query().count() == plain.query().count() == 100

    @pytest.mark.parametrize("name", TAKING)
    def test_transfer_to(self, remote: RemoteCache, tmp_path: Path, cost: Any, name: str) -> None:
        """A hundred calls are sent with the same few questions."""
        near = cache_factory("memory", tmp_path)()
        for x in range(100):
            near.save(example_call(x=x, result=[x]))
        alone = cost(lambda: near.transfer(remote))
        assert len(alone) <= 4, alone
        remote.evict_many([call.key for call in near.query()])
        assert cost(lambda: near.transfer(WRAPPERS[name](remote))) == alone
        assert remote.query().count() == 100

    @pytest.mark.parametrize("name", WRAPPERS)
    def test_looking_up(self, remote: RemoteCache, factory: Any, cost: Any, name: str) -> None:
        """Hits, one or a hundred, and misses are one question each."""
        with factory() as local:
            keys = [Digest(local.save(example_call(x=x, result=[x]))) for x in range(100)]
        wrapper = WRAPPERS[name](remote)
        assert cost(lambda: wrapper.lookup(keys[0])) == ["Load"]
        assert cost(lambda: wrapper.lookup(Digest("0" * 64))) == ["Load"]
        assert cost(lambda: wrapper.lookup_many(keys)) == ["Load"]

    @pytest.mark.parametrize("name", TAKING)
    def test_saving(self, remote: RemoteCache, cost: Any, name: str) -> None:
        """A small call is saved with one question."""
        wrapper = WRAPPERS[name](remote)
        assert cost(lambda: wrapper.save(example_call(x=[1], result=[2]))) == ["Save"]


class TestBytes:
    """What is sent, and what is not."""

    def test_a_shared_argument(self, remote: RemoteCache, tap: TappedChannel) -> None:
        """A hundred calls that share one large argument send it once."""
        array = np.random.default_rng(1).normal(size=1_000_000)
        tap.clear_sent()
        for x in range(100):
            remote.save(Call("f", {"a": array, "x": x}, result=x))
        assert array.nbytes < tap.sent_bytes < array.nbytes * 1.2

    def test_a_value_that_is_there(
        self, remote: RemoteCache, factory: Any, tap: TappedChannel
    ) -> None:
        """Of a value that the server has, the name is sent alone."""
        array = np.random.default_rng(2).normal(size=2_000_000)
        with factory() as local:
            key = local.save_value(array)
        tap.clear_sent()
        assert remote.save_value(array) == key
        assert tap.sent_bytes < array.nbytes / 100

    def test_a_listing_that_nobody_reads_on(
        self, remote: RemoteCache, factory: Any, tap: TappedChannel
    ) -> None:
        """`take(10)` transfers no more than what is sent ahead of a reader."""
        with factory() as local:
            value = local.save_value(0)
            calls = (
                Call("f", {"x": x}).to_record().replace(result=ValueRef(value))
                for x in range(12_000)
            )
            save_records(local, {record.key: record for record in calls})
        assert len(list(remote.query(name="f").take(10))) == 10
        assert tap.received_bytes < 2 << 20

    def test_compression(self, serving: Serving, factory: Any) -> None:
        """What shrinks is sent compressed where that was asked for."""
        zeros = np.zeros(4_000_000)
        for codec in ("zlib", "zstd"):
            tap = TappedChannel(serving.channel("pipe", factory))
            cache = serving.cache(tap, compression=codec)
            key = cache.save(Call("f", {"codec": codec}, result=zeros))
            np.testing.assert_array_equal(cache.load(key).result, zeros)
            assert tap.sent_bytes < zeros.nbytes / 10
            assert tap.received_bytes < zeros.nbytes / 10
            cache.evict(digest(zeros))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_gigabytes(serving: Serving, factory: Any) -> None:
    """A value of 5 GiB comes back; the server never has it in memory."""
    cache = serving("subprocess", factory)
    array = np.arange(5 << 27, dtype="f8")
    key = Digest(cache.save(Call("f", {"x": 1}, result=array)))
    checksum = float(array[::4096].sum())
    del array
    pid = cache.info()["pid"]
    found = cache.load(key).result
    assert found.nbytes == 5 << 30
    assert float(found[::4096].sum()) == checksum
    peak = status_of(pid, "status", "VmHWM")
    assert peak < 200 << 10, f"the server took {peak >> 10} MiB"


class TestNothingIsOpened:
    """Values pass as bytes."""

    def test_back_fill(
        self,
        serving: Serving,
        tmp_path: Path,
        factory: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A value is copied down, and a call transferred, without a pickle call on either side."""
        with factory() as local:
            key = Digest(local.save(example_call(x=[1, 2], result=[3, 4])))
        opened: list[str] = []
        monkeypatch.setattr(pickle, "loads", lambda *_, **__: opened.append("loads"))
        monkeypatch.setattr(pickle, "dumps", lambda *_, **__: opened.append("dumps"))
        near, other = cache_factory("memory", tmp_path)(), cache_factory("memory", tmp_path)()
        far = serving("pipe", factory)
        assert not CacheStack((near, far)).load(key).record.arguments["x"].is_literal
        assert near.contains(key)
        assert far.transfer(other) == 1
        assert opened == []


def test_small_frames_travel_together(remote: RemoteCache, tap: TappedChannel) -> None:
    """Every frame that was sent is whole, whatever was written together."""
    remote.save(example_call())
    assert {frame.kind for frame in tap.sent_frames()} <= set(Kind)
    assert all(isinstance(request, m.Message) for request in tap.requests())
