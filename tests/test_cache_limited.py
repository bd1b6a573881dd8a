"""Limits: what was not used for longest goes, and nothing that somebody needs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import Cache, CacheStack, Candidate, Rejected, SizeLimitedCache
from fleche.call import Call
from fleche.digest import D, Digest, digest
from fleche.errors import StorageError
from fleche.storage import CallMemory, Capabilities, Sql, ValueFile, ValueMemory
from tests.helpers.layers import call, in_files, in_memory


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


def held(cache: Cache) -> int:
    entries = (*cache.values.entries(), *cache.calls.entries())
    return sum(entry.size for entry in entries)


class TestEntries:
    def test_the_oldest_goes(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=3)
        keys = [save(cache, x) for x in range(5)]
        assert [cache.contains(key) for key in keys] == [False, False, True, True, True]
        assert cache.counts()["evicted"] == 2

    def test_another_policy(self, inner: Cache) -> None:
        """Whoever knows better what to keep says in which order calls go, and which never."""

        def cheapest_first(calls: Sequence[Candidate]) -> list[Candidate]:
            dear = [call for call in calls if call.record.literals["x"] != 0]
            return sorted(dear, key=lambda call: -float(call.record.literals["x"] or 0))

        cache = SizeLimitedCache(inner, max_size=3, eviction=cheapest_first)
        keys = [save(cache, x) for x in range(5)]
        assert [cache.contains(key) for key in keys] == [True, True, False, False, True]

    def test_its_values_go_too(self, inner: Cache) -> None:
        """Except those that another call needs."""
        cache = SizeLimitedCache(inner, max_size=1)
        cache.save(Call(name="f", arguments={"x": 1, "y": 2}, result=3))
        time.sleep(0.01)
        cache.save(Call(name="f", arguments={"x": 2, "y": 4}, result=5))
        left = {value for value in range(1, 6) if inner.contains(digest(value))}
        assert left == {2, 4, 5}
        assert cache.verify().ok

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
        assert not cache.contains(digest("." * 80_000))

    def test_garbage_stays_if_a_record_cannot_be_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        inner = in_files(tmp_path)
        cache = SizeLimitedCache(inner, max_size=2)
        bad = save(cache, 0)
        (path,) = tmp_path.rglob(f"*{bad[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        for x in range(1, 5):
            save(cache, x)
        assert "nothing was removed" in caplog.text
        assert cache.query().count() == 2


class TestOthers:
    def test_what_a_running_call_needs_stays(self, inner: Cache) -> None:
        cache = SizeLimitedCache(inner, max_size=1)
        save(cache, [1])
        pending = SizeLimitedCache(inner, max_size=1).prepare(Call(name="f", arguments={"x": [1]}))
        for x in range(5):
            save(cache, x)
        key = pending.commit("done")
        assert cache.load(key).arguments["x"] == [1]

    def test_a_value_found_meanwhile_stays(self, inner: Cache) -> None:
        """Somebody has found it here, and his record is on its way."""
        cache = SizeLimitedCache(inner, max_size=1)
        save(cache, 1)
        result = ["result", 1, "." * 10]
        assert inner.missing([digest(result)]) == []
        save(cache, 2)
        assert inner.contains(digest(result))
        assert not inner.contains(digest(1))

    @pytest.mark.parametrize("method", ["save_parcel", "save_record"])
    def test_found_before_others_have_used_it(
        self, inner: Cache, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is evicted after he has found it takes his record along, and nothing dangles."""
        cache, other = (SizeLimitedCache(inner, max_size=1) for _ in range(2))
        array = np.arange(20_000)
        key = D(other.save(call(x=1, result={"array": array})))
        save_anyway, started = getattr(inner, method), []

        def save_late(digest: Digest, item: Any) -> None:
            if not started and getattr(item, "result", digest) == found:
                started.append(digest)
                time.sleep(0.01)
                assert other.lookup(key) is not None
                time.sleep(0.01)
                save(other, 2)
            save_anyway(digest, item)

        result = {"array": array} if method == "save_record" else {"same array": array}
        found = digest(result)
        monkeypatch.setattr(inner, method, save_late)
        cache.save(call(x=3, result=result))
        assert started
        assert not inner.contains(key)
        report = inner.verify()
        assert report.ok, report
        saved = D(cache.save(call(x=3, result=result)))
        assert np.array_equal(next(iter(cache.load(saved).result.values())), array)

    def test_filled_by_others(self, inner: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Now and then everybody looks how full the cache has become."""
        cache = SizeLimitedCache(inner, max_size=10)
        save(cache, "first")
        for x in range(20):
            inner.save(call(x=x))
        save(cache, "second")
        now = time.monotonic() + 61
        monkeypatch.setattr("fleche.caches._budget.time.monotonic", lambda: now)
        save(cache, "third")
        assert cache.query().count() == 9

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

    def test_read_only(self) -> None:
        """What can only be read is not even marked as used."""

        class ReadOnly(CallMemory):
            capabilities = Capabilities(read_only=True)

            def renew(self, key: Digest) -> bool:
                raise StorageError("read-only file system")

        calls = ReadOnly()
        inner = Cache(ValueMemory(), calls)
        record = call().seal()
        calls.put(record.key, record)
        inner.values.put(digest(4), inner.packing.pack(4, digest(4)))
        cache = SizeLimitedCache(inner, max_size=2)
        assert cache.lookup(record.key) is not None
        with pytest.raises(Rejected):
            cache.save(call())


class TestTheWhole:
    @pytest.mark.parametrize("limits", [{"max_size": 0}, {"max_bytes": -1}])
    def test_limits_are_positive(self, limits: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="is at least 1"):
            SizeLimitedCache(in_memory(), **limits)

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
