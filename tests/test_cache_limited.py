"""Limits: what was not used for longest goes, and nothing that is needed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import (
    BaseCache,
    Cache,
    CacheStack,
    Candidate,
    Rejected,
    SizeLimitedCache,
    least_recently_used,
)
from fleche.call import Call, CallEntry
from fleche.digest import Address, D, buffer_digest, digest
from fleche.errors import StorageError
from fleche.storage import (
    CallFile,
    CallMemory,
    CallStorage,
    Capabilities,
    Entry,
    Sql,
    ValueFile,
    ValueMemory,
    ValueStorage,
)
from tests.helpers.layers import call, in_files, in_memory, result_of


@pytest.fixture(params=["memory", "files", "sql"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    if request.param == "memory":
        return in_memory()
    if request.param == "files":
        return in_files(tmp_path / "cache")
    return Cache(ValueFile(tmp_path / "cache"), Sql(tmp_path / "calls.db"))


def save(cache: SizeLimitedCache, x: object, size: int = 10) -> str:
    """Save a call, and wait until the clock of the file system has moved on."""
    key = cache.save(call(x=x, result=["result", x, "." * size]))
    time.sleep(0.01)
    return key


def garble(root: Path, key: str | None, position: int) -> None:
    """Alter one byte of a stored value."""
    assert key is not None
    (path,) = [each for each in root.rglob("*.value") if key[8:64] in each.name]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


PAD = "." * 20_000
"""What keeps a value from travelling with the record of its call."""


def large(value: object) -> list[object]:
    return [value, PAD]


def is_here(cache: BaseCache, value: object) -> bool:
    """Return whether a value is in the storage of values."""
    return cache.backend.lacking([Address.of(digest(value))]) == []


def held(cache: BaseCache) -> int:
    assert isinstance(cache, Cache)
    entries = (*cache.values.entries(), *cache.calls.entries())
    return sum(entry.size for entry in entries)


class TestEntries:
    def test_the_oldest_goes(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=3)
        keys = [save(cache, x) for x in range(5)]
        assert [cache.contains(key) for key in keys] == [False, False, True, True, True]
        assert cache.counts()["evicted"] == 2

    def test_another_policy(self, inner: Cache) -> None:
        """A function may say in which order calls go, and which never."""

        def cheapest_first(calls: Sequence[Candidate]) -> list[Candidate]:
            dear = [call for call in calls if call.record.arguments["x"].shown != 0]
            return sorted(dear, key=lambda call: -float(call.record.arguments["x"].shown or 0))

        cache = SizeLimitedCache(inner, max_size=3, eviction=cheapest_first)
        keys = [save(cache, x) for x in range(5)]
        assert [cache.contains(key) for key in keys] == [True, True, False, False, True]

    def test_its_values_go_too(self, inner: Cache) -> None:
        """Except those that another call needs."""
        cache = SizeLimitedCache(inner, max_size=1)
        one, two, three, four, five = map(large, range(1, 6))
        cache.save(Call(name="f", arguments={"x": one, "y": two}, result=three))
        time.sleep(0.01)
        cache.save(Call(name="f", arguments={"x": two, "y": four}, result=five))
        left = {value for value in range(1, 6) if is_here(inner, large(value))}
        assert left == {2, 4, 5}
        assert cache.verify().ok

    def test_values_go_where_nothing_can_be_touched(self) -> None:
        """A storage of five methods makes values young by storing them again, and no call."""

        class Values(ValueMemory):
            touch_many = ValueStorage.touch_many

        class Calls(CallMemory):
            capabilities = Capabilities()
            touch_many = CallStorage.touch_many

        cache = SizeLimitedCache(Cache(Values(), Calls()), max_bytes=100_000)
        for x in range(10):
            cache.save(call(x=x, result=large(x)))
            time.sleep(0.01)
        assert cache.stats().bytes < 100_000
        assert cache.verify().orphaned == 0

    def test_used_is_young(self, inner: Cache) -> None:
        """A hit counts as use, whichever process or object it was."""
        cache = SizeLimitedCache(inner, max_size=3)
        keys = [D(save(cache, x)) for x in range(3)]
        other = SizeLimitedCache(inner, max_size=3)
        assert other.lookup(keys[0]) is not None
        time.sleep(0.01)
        save(cache, 3)
        assert [cache.contains(key) for key in keys] == [True, False, True]

    def test_looking_at_is_no_use(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=2)
        keys = [save(cache, x) for x in range(2)]
        assert cache.contains(keys[0])
        assert cache.query().count() == 2
        save(cache, 2)
        assert not cache.contains(keys[0])

    def test_a_larger_number(self, inner: Cache) -> None:
        """Room is made a tenth at a time, and the limit holds at any time."""
        cache = SizeLimitedCache(inner, max_size=20)
        numbers = []
        for x in range(50):
            cache.save(call(x=x))
            numbers.append(cache.query().count())
        assert max(numbers) == 20
        assert min(numbers[20:]) == 18

    def test_one(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=1)
        first, second = save(cache, 1), save(cache, 2)
        assert not cache.contains(first)
        assert cache.load(second).arguments["x"] == 2

    def test_saving_again_takes_no_room(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=2)
        for _ in range(5):
            keys = [save(cache, x) for x in range(2)]
        assert [cache.contains(key) for key in keys] == [True, True]


class TestBytes:
    def test_the_limit_holds(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_bytes=100_000)
        for x in range(30):
            save(cache, x, size=9_000)
            assert held(inner) <= 100_000
        assert held(inner) > 50_000
        assert cache.contains(call(x=29).key)
        assert cache.verify().ok

    def test_too_large_for_the_cache(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_bytes=50_000)
        key = save(cache, 1)
        with pytest.raises(Rejected, match=r"takes 6\d* bytes, and max_bytes is 50000"):
            cache.save(call(x=2, result="x" * 60_000))
        assert cache.contains(key)
        assert cache.query().count() == 1

    @pytest.mark.parametrize("how", ["save", "prepare", "stack", "transfer"])
    def test_too_large_with_its_buffers(self, inner: Cache, how: str) -> None:
        """Each of them would fit, all of them do not: the calls that are here stay."""
        cache = SizeLimitedCache(inner, max_bytes=1_000_000)
        keys = [save(cache, x) for x in range(20)]
        large = call(x="large", result=[np.full(50_000, float(x)) for x in range(5)])
        if how == "transfer":
            other = in_memory()
            other.save(large)
            assert other.transfer(cache) == 0
        else:
            with pytest.raises(Rejected, match=r"takes 200\d+ bytes, and max_bytes is 1000000"):
                if how == "prepare":
                    cache.prepare(Call(name="f", arguments={"x": large.result}))
                else:
                    (cache if how == "save" else CacheStack([cache])).save(large)
        keys += [save(cache, x) for x in range(20, 30)]
        assert all(map(cache.contains, keys))
        cache.make_room()
        assert held(inner) < 1_000_000
        assert cache.verify().ok

    def test_refused_before_it_is_stored(self, inner: Cache) -> None:
        """A value that comes alone, as results do, is not written first."""
        cache = SizeLimitedCache(inner, max_bytes=1_000_000)
        with pytest.raises(Rejected):
            cache.save(call(x=1, result=[np.full(50_000, float(x)) for x in range(5)]))
        assert held(inner) < 10_000

    def test_small_when_compressed(self, tmp_path: Path) -> None:
        """What counts is what is stored."""
        inner = Cache(ValueFile(tmp_path, compress="zlib"), CallFile(tmp_path))
        cache = SizeLimitedCache(inner, max_bytes=1_000_000)
        key = cache.save(call(result=[np.full(50_000, float(x)) for x in range(5)]))
        assert cache.load(key).result[4][0] == 4

    def test_the_last_call_stays(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_bytes=50_000)
        save(cache, 1)
        key = cache.save(call(x="x" * 30_000, result="y" * 30_000))
        assert cache.query().only().key == key

    def test_garbage_goes_first(self, tmp_path: Path) -> None:
        inner = in_files(tmp_path)
        cache = SizeLimitedCache(inner, max_bytes=100_000)
        inner.save_value("." * 80_000)
        for path in tmp_path.rglob("*"):
            if path.is_file():
                os.utime(path, (1, 1))
        keys = [save(cache, x, size=20_000) for x in range(3)]
        assert all(map(cache.contains, keys))
        assert not is_here(inner, "." * 80_000)

    def test_garbage_stays_if_a_record_cannot_be_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        inner = in_files(tmp_path)
        cache = SizeLimitedCache(inner, max_size=2)
        bad = save(cache, 0)
        (path,) = tmp_path.rglob(f"*{bad[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        caplog.clear()
        for x in range(1, 9):
            save(cache, x)
        assert cache.query().count() == 2
        first = [text for text in caplog.messages if "nothing was removed" in text]
        assert len(first) == 1, "it is told again and again"
        cache.verify(repair=True)
        for x in range(10, 14):
            save(cache, x)
        bad = save(cache, 14)
        (path,) = tmp_path.rglob(f"*{bad[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        for x in range(15, 20):
            save(cache, x)
        again = [text for text in caplog.messages if "nothing was removed" in text]
        assert len(again) == 2, "the second time is not told"


class TestValuesThatCannotBeRead:
    """One bad value among many does not keep the others from making room."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path

    def limited(self, root: Path, secret: str | None = None) -> SizeLimitedCache:
        inner = Cache(ValueFile(root, secret_key=secret), CallFile(root, secret_key=secret))
        return SizeLimitedCache(inner, max_bytes=1_500_000)

    def fill(self, cache: SizeLimitedCache) -> int:
        """Save more than there is room for; return how many calls are left of it."""
        for x in range(20):
            cache.save(call(x=x, result=np.full(20_000, x, float)))
        return cache.query(name="f").count()

    @pytest.mark.parametrize("position", [3, 40])
    def test_a_damaged_one(self, root: Path, position: int) -> None:
        cache = self.limited(root)
        key = cache.save(call(result=large("to be damaged"), name="first"))
        garble(root, result_of(cache, key), position)
        assert self.fill(cache) > 5
        assert held(cache.inner) <= 1_500_000

    def test_one_of_another_secret(self, root: Path) -> None:
        self.limited(root, "retired").save(call(result=[np.ones(20_000), PAD], name="first"))
        cache = self.limited(root, "new")
        assert self.fill(cache) > 5
        assert held(cache.inner) <= 1_700_000
        assert len(list(cache.inner.values.entries())) < 30

    def test_one_of_a_newer_fleche(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It is not known which buffers it needs, so none can go, and no call goes in vain."""
        cache = self.limited(root)
        key = cache.save(call(result=large("of the future"), name="first"))
        garble(root, result_of(cache, key), 8)
        assert self.fill(cache) == 20
        (warning,) = caplog.messages
        assert "no room is made" in warning
        assert "upgrade fleche" in warning


class TestWhatNothingNeeds:
    """It makes room before any call does, and no call goes for it in vain."""

    def limited(self, inner: Cache) -> SizeLimitedCache:
        """Return a cache with many small calls, which take a fifth of it."""
        cache = SizeLimitedCache(inner, max_bytes=2_000_000)
        for x in range(20):
            cache.save(call(x=x, result="small" * 4000, name="small"))
        return cache

    def big(self, number: int) -> Any:
        return np.full(50_000, number, float)

    def left(self, cache: BaseCache) -> int:
        return cache.query(name="small").count()

    def test_results_computed_anew(self, inner: Cache) -> None:
        cache = self.limited(inner)
        for number in range(12):
            time.sleep(0.01)
            cache.save(call(x="random", result=self.big(number)))
        assert self.left(cache) == 20
        assert held(inner) <= 2_000_000
        assert cache.query(name="f").only().result[0] == 11
        assert cache.verify().ok

    @pytest.mark.parametrize("how", ["evict", "query", "view"])
    def test_calls_evicted_by_hand(self, inner: Cache, how: str) -> None:
        cache = self.limited(inner)
        keys = [cache.save(call(x=x, result=self.big(x))) for x in range(3)]
        if how == "query":
            assert cache.query(name="f").evict() == 3
        else:
            for key in keys:
                (cache if how == "evict" else CacheStack([cache])).evict(key)
        for x in range(3, 6):
            cache.save(call(x=x, result=self.big(x)))
        assert self.left(cache) == 20
        assert cache.query(name="f").count() == 3
        assert held(inner) <= 2_000_000

    def test_what_another_call_needs_stays(self, inner: Cache) -> None:
        """However it was evicted; and what a call that runs needs, too."""
        cache = self.limited(inner)
        running = cache.prepare(Call(name="f", arguments={"x": self.big(0)}))
        key = cache.save(call(x=self.big(0), result=self.big(1), name="g"))
        other = cache.save(call(x="other", result=[self.big(1)]))
        cache.evict(key)
        for number in range(2, 8):
            cache.evict(cache.save(call(x=number, result=self.big(number))))
        assert np.array_equal(cache.load(other).result[0], self.big(1))
        assert cache.load(running.commit(1)).arguments["x"][0] == 0
        assert cache.verify().ok

    def test_what_was_found_since_stays(self, inner: Cache) -> None:
        """A call may be about to be saved with the values that an evicted one has left."""
        cache = self.limited(inner)
        key = cache.save(call(x="one", result=[self.big(0), PAD]))
        found = result_of(cache, key)
        buffer = Address.of(buffer_digest(self.big(0).data.cast("B")))
        cache.evict(key)
        time.sleep(0.01)
        assert inner.backend.lacking([found, buffer], keep=True) == []
        for number in range(1, 8):
            cache.evict(cache.save(call(x=number, result=self.big(number))))
        assert cache.load_value(found.digest)[0][0] == 0

    def test_functions_that_raise(self, inner: Cache) -> None:
        """What was stored for them goes, although no call is saved."""
        cache = self.limited(inner)
        for number in range(20):
            arguments = {"x": np.full(200_000, number, float)}
            cache.prepare(Call(name="f", arguments=arguments)).abandon()
            assert held(inner) <= 2_000_000 + 2 * 1_600_000
        cache.save(call(x="last"))
        assert self.left(cache) == 20
        assert held(inner) <= 2_000_000

    def test_functions_that_raise_elsewhere(self, inner: Cache) -> None:
        """What others leave behind goes when it is old; until then, nothing goes in its place."""
        cache = self.limited(inner)
        for number in range(20):
            inner.save_value(self.big(number))
        cache.make_room()
        for x in range(5):
            cache.save(call(x=x))
        assert self.left(cache) == 20

    def test_a_value_that_was_refused(self, inner: Cache) -> None:
        """Some of its buffers may have been stored before."""
        far = in_memory()
        key = D(far.save(call(x="big", result=[self.big(0), np.arange(300_000)])))
        stack = CacheStack([self.limited(inner), far])
        for _ in range(3):
            assert stack.lookup(key) is not None
        assert stack.counts()["refused"] == 3
        for x in range(5):
            stack.save(call(x=x))
        assert self.left(stack.layers[0]) == 20
        assert held(inner) <= 2_000_000

    def test_no_more_is_remembered_than_needed(self) -> None:
        cache = SizeLimitedCache(in_memory(), max_size=10**6)
        state = cache.backend._here
        pending = [
            cache.prepare(Call(name="f", arguments={"x": [x, "." * 2_000_000]})) for x in range(5)
        ]
        for number, each in enumerate(pending):
            each.abandon() if number % 2 else each.commit(number)
        assert not state.pinned
        left = {Address.of(address).digest for address in state.take_leftovers()}
        assert left == {digest([x, "." * 2_000_000]) for x in (1, 3)}
        state.leave(map(str, range(20_000)), 1.0)
        assert len(state.take_leftovers()) == 10_000
        assert not state.take_leftovers()


class TestOthers:
    def test_what_a_running_call_needs_stays(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=1)
        argument = [1, "." * 2_000_000]
        save(cache, argument)
        pending = SizeLimitedCache(inner, max_size=1).prepare(
            Call(name="f", arguments={"x": argument})
        )
        for x in range(5):
            save(cache, x)
        key = pending.commit("done")
        assert cache.load(key).arguments["x"] == argument

    def test_a_value_found_meanwhile_stays(self, inner: Cache) -> None:
        """It has been found here, and a record that needs it is on its way."""
        cache = SizeLimitedCache(inner, max_size=1)
        save(cache, large(1), 20_000)
        result = ["result", large(1), "." * 20_000]
        assert inner.backend.lacking([Address.of(digest(result))], keep=True) == []
        save(cache, 2)
        assert is_here(inner, result)
        assert not is_here(inner, large(1))

    @pytest.mark.parametrize("filling", [PAD, ""], ids=["by itself", "with its record"])
    @pytest.mark.parametrize("moment", ["values", "calls"])
    def test_found_before_others_have_used_it(
        self, inner: Cache, moment: str, filling: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is evicted after it was found here takes the record along, and nothing dangles."""
        cache, other = (SizeLimitedCache(inner, max_size=1) for _ in range(2))
        array = np.arange(200_000)
        key = D(other.save(call(x=1, result={"array": array, "filling": filling})))
        storage = getattr(inner, moment)
        put_anyway, begun = storage.put_many, []

        def put_late(items: Iterable[Any]) -> None:
            if not begun:
                begun.append(True)
                time.sleep(0.01)
                assert other.lookup(key) is not None
                time.sleep(0.01)
                save(other, 2)
            put_anyway(items)

        result = {"array": array, "filling": filling, "more": "." * 30_000}
        monkeypatch.setattr(storage, "put_many", put_late)
        cache.save(call(x=3, result=result))
        assert begun
        assert not inner.contains(key)
        report = inner.verify()
        assert report.ok, report
        saved = D(cache.save(call(x=3, result=result)))
        assert np.array_equal(cache.load(saved).result["array"], array)

    def test_filled_by_others(self, inner: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Now and then each looks how full the cache has become."""
        cache = SizeLimitedCache(inner, max_size=20)
        save(cache, "first")
        for x in range(40):
            inner.save(call(x=x))
        save(cache, "second")
        assert cache.query().count() == 42
        now = time.monotonic() + 61
        monkeypatch.setattr("fleche.caches._limited.time.monotonic", lambda: now)
        save(cache, "third")
        assert cache.query().count() == 18

    def test_several_make_room_at_once(self, inner: Cache) -> None:
        """What the one evicts, the other counts as gone, and evicts nothing in its place."""
        cache, other = (SizeLimitedCache(inner, max_size=20) for _ in range(2))

        def late(candidates: Sequence[Candidate]) -> Iterable[Candidate]:
            assert other.make_room() == 12
            return least_recently_used(candidates)

        cache.eviction = late
        for x in range(30):
            inner.save(call(x=x, result=large(x)))
        assert cache.make_room() == 0
        assert inner.query().count() == 18
        assert inner.verify().ok
        assert len(list(inner.values.entries())) == 18

    @pytest.mark.parametrize("number", [2, 8])
    def test_many_that_save_at_once(self, inner: Cache, number: int) -> None:
        """They take turns, each with a cache object of its own, as processes have."""
        caches = [SizeLimitedCache(inner, max_size=50) for _ in range(number)]
        counts = []
        for x in range(160):
            caches[x % number].save(call(x=x))
            counts.append(len(list(inner.calls.entries())))
        assert max(counts) <= 55
        assert min(counts[60:]) >= 45

    def test_threads(self, inner: Cache) -> None:
        caches = [SizeLimitedCache(inner, max_size=10) for _ in range(4)]

        def work(number: int) -> None:
            for turn in range(20):
                cache = caches[number]
                key = cache.prepare(Call(name="f", arguments={"x": [number, turn]})).commit([turn])
                found = cache.lookup(D(key))
                assert found is None or found.result == [turn]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        caches[0].make_room()
        assert caches[0].query().count() <= 10
        assert caches[0].verify().ok

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_child_of_a_fork(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It waits for no thread that makes room in its parent, and looks itself what is free."""
        inner = in_memory()
        cache = SizeLimitedCache(inner, max_size=10)
        for x in range(8):
            cache.save(call(x=x))
        parent, begun, done = os.getpid(), threading.Event(), threading.Event()
        real = inner.calls.entries

        def entries(prefix: str = "") -> Iterator[Entry]:
            if os.getpid() == parent:
                begun.set()
                assert done.wait(60)
            return real(prefix)

        monkeypatch.setattr(inner.calls, "entries", entries)
        thread = threading.Thread(target=cache.make_room)
        thread.start()
        try:
            assert begun.wait(60)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                try:
                    for x in range(20, 40):
                        cache.save(call(x=x))
                    os._exit(cache.query().count())
                finally:
                    os._exit(255)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (9, 10)
        finally:
            done.set()
            thread.join()

    def test_read_only(self) -> None:
        """What can only be read is not even marked as used."""

        class ReadOnly(CallMemory):
            capabilities = Capabilities(read_only=True)

            def touch_many(self, keys: Iterable[str]) -> set[str]:
                raise StorageError("read-only file system")

        calls = ReadOnly()
        inner = Cache(ValueMemory(), calls)
        record = call().to_record()
        calls.put_many([(record.key, CallEntry(record))])
        cache = SizeLimitedCache(inner, max_size=2)
        assert cache.lookup(record.key) is not None
        with pytest.raises(Rejected):
            cache.save(call())


class TestTheWhole:
    @pytest.mark.parametrize("limits", [{"max_size": 0}, {"max_bytes": -1}])
    def test_limits_are_positive(self, limits: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="is at least 1"):
            SizeLimitedCache(in_memory(), **limits)

    @pytest.mark.parametrize("limits", [{"max_size": 1.5}, {"max_size": "5"}, {"max_bytes": 1e9}])
    def test_limits_are_whole_numbers(self, limits: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match="a number of"):
            SizeLimitedCache(in_memory(), **limits)

    def test_only_what_is_local(self) -> None:
        with pytest.raises(TypeError, match="only a cache with storages of its own"):
            SizeLimitedCache(CacheStack([in_memory()]), max_size=3)  # type: ignore[arg-type]

    def test_config(self) -> None:
        inner = in_memory()
        assert SizeLimitedCache(inner, max_size=3).to_config() == {
            **inner.to_config(),
            "max_size": 3,
        }
        assert SizeLimitedCache(inner, max_bytes=4).to_config()["max_bytes"] == 4

    def test_as_a_near_layer(self) -> None:
        """A small cache in front of a large one."""
        near, far = SizeLimitedCache(in_memory(), max_size=2), in_memory()
        stack = CacheStack([near, far])
        keys = [far.save(call(x=x, result=[x])) for x in range(5)]
        assert [stack.load(key).result for key in keys] == [[x] for x in range(5)]
        assert near.query().count() == 2

    def test_too_small_a_near_layer(self) -> None:
        near, far = SizeLimitedCache(in_memory(), max_bytes=1000), in_memory()
        key = far.save(call(result="x" * 2000))
        stack = CacheStack([near, far])
        assert stack.load(key).result == "x" * 2000
        assert stack.counts() == {"refused": 1}
