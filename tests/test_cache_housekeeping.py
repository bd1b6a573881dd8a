"""Checking everything, and counting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fleche.caches import (
    BaseCache,
    Cache,
    CachePool,
    CacheStack,
    CallSize,
    DiskUsageReport,
    Rejected,
    SizeLimitedCache,
    StatsReport,
    VerifyReport,
)
from fleche.call import Call, CallEntry, CallRecord, ValueRef
from fleche.digest import Address, D, Digest, buffer_digest, digest
from fleche.errors import StorageError
from fleche.storage import CallFile, CallMemory, Sql, ValueFile, ValueMemory
from tests.helpers.layers import call, in_files, in_memory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> Iterator[Cache]:
    with in_files(root) as cache:
        yield cache


LARGE = "large " * 5000


def large(value: object) -> list[object]:
    """Return a value that does not travel with the record of its call."""
    return [value, LARGE]


def file_of(root: Path, key: str) -> Path:
    (path,) = [each for each in root.rglob("*") if each.is_file() and key[8:64] in each.name]
    return path


def contains(cache: Cache, value: object) -> bool:
    """Return whether a value is in the storage of values."""
    return cache.backend.lacking([Address.of(digest(value))]) == []


def save_as(cache: BaseCache, key: Digest, other: str) -> None:
    """File the entry of a call under another key."""
    cache.backend.save({key: cache.load(other).entry})


def garble(root: Path, key: str) -> None:
    path = file_of(root, key)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


class TestReports:
    def test_many_parts(self) -> None:
        """Of many calls, a report shows how many there are, and what they take together."""
        calls = [CallSize(digest(number), 1.5, 0.0) for number in range(1000)]
        report = DiskUsageReport(tuple(calls), loose=2)
        assert repr(report) == "DiskUsageReport(calls=<1000 CallSize>, loose=2, other=0)"
        assert str(report) == "calls: 1000, bytes: 1502, loose: 2, other: 0"
        report = DiskUsageReport(tuple(calls[:1]))
        assert repr(report) == f"DiskUsageReport(calls=({calls[0]!r},), loose=0, other=0)"
        assert "dangling=<9 Digest>" in repr(VerifyReport(dangling=(calls[0].key,) * 9))


class TestDiskUsage:
    def test_the_clock_of_the_storage_counts(self) -> None:
        """How long a call was not used does not depend on the clock of the machine that asks."""

        class Elsewhere(CallMemory):
            def now(self) -> float:
                return super().now() + 1e6

            def entries(self, prefix: str = "") -> Iterator[Any]:
                for each in super().entries(prefix):
                    yield each._replace(modified=each.modified + 1e6 - 500)

        cache = Cache(ValueMemory(), Elsewhere())
        cache.save(call())
        (found,) = cache.disk_usage().calls
        assert 500 <= found.idle < 600


class TestVerify:
    def test_all_is_well(self, cache: Cache) -> None:
        cache.save(call(x=large(1), result=large(2)))
        cache.save(call(x=[3], result=[4]))
        cache.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        report = cache.verify()
        assert report == VerifyReport(values=3, calls=2)
        assert report.ok
        assert str(report).startswith("values: 3, calls: 2, corrupt: 0")

    def test_everything_that_can_be_wrong(self, cache: Cache, root: Path) -> None:
        keys = [D(cache.save(call(x=large(x), result=large(["result", x])))) for x in range(5)]
        garble(root, digest(large(["result", 0])))
        cache.evict(digest(large(["result", 1])))
        cache.evict(digest(large(2)))
        garble(root, keys[3])
        wrong = digest("wrong")
        save_as(cache, wrong, keys[4])
        cache.evict(keys[4])
        cache.save_value("orphan")
        report = cache.verify()
        assert set(report.corrupt) == {digest(large(["result", 0])), keys[3]}
        assert set(report.dangling) == {keys[0], keys[1]}
        assert report.incomplete == (keys[2],)
        assert report.misfiled == (wrong,)
        assert (report.values, report.calls) == (9, 4)
        assert report.orphaned == 3  # and what the damaged record refers to
        assert not report.ok

    def test_a_record_of_what_is_no_digest(self) -> None:
        """It is damaged, however well it can be read."""
        cache, key = in_memory(), digest("a call")
        record = CallRecord(name="f", arguments={"x": ValueRef("a`" * 32)}, result=ValueRef(key))
        cache.backend.save({key: CallEntry(record)})
        report = cache.verify()
        assert report.corrupt == (key,)
        assert report.misfiled == ()

    def test_what_travels_with_a_record(self) -> None:
        """It is checked, too: a call with a damaged parcel is damaged."""
        cache = in_memory()
        key = D(cache.save(call(x=[1], result=[2])))
        entry = cache.load(key).entry
        for address, data in entry.parcels.items():
            altered = bytes([*data[:-1], data[-1] ^ 1])
            cache.backend.save({key: CallEntry(entry.record, {**entry.parcels, address: altered})})
            assert cache.verify().corrupt == (key,)
        array = np.arange(200_000)
        other = D(cache.save(call(x="array", result=[array])))
        cache.evict(buffer_digest(array.data.cast("B")))
        assert cache.verify().dangling == (other,)
        assert cache.verify(repair=True).removed == 2
        assert cache.verify() == VerifyReport()

    def test_metadata(self) -> None:
        """A call whose metadata cannot be read answers, and is damaged."""
        cache = in_memory()
        key = D(cache.save(call(x=[1], result=2)))
        entry = cache.load(key).entry
        unread = msgspec.Raw(msgspec.msgpack.encode(["no", "metadata"]))
        record = entry.record.replace(encoded_metadata=unread)
        cache.backend.save({key: CallEntry(record, entry.parcels)})
        assert cache.load(key).result == 2
        assert cache.verify().corrupt == (key,)

    def test_a_value_in_any_form(self, cache: Cache) -> None:
        """An argument that was given as a digest is there in whatever form."""
        named = cache.save_value(large(1))
        key = D(cache.save(call(x=named)))
        assert cache.verify() == VerifyReport(values=1, calls=1)
        cache.evict(named)
        assert cache.verify() == VerifyReport(calls=1, incomplete=(key,))

    def test_repair(self, cache: Cache, root: Path) -> None:
        """What cannot be answered goes; what can be stays."""
        keys = [D(cache.save(call(x=large(x), result=large(["result", x])))) for x in range(4)]
        garble(root, digest(large(["result", 0])))
        cache.evict(digest(large(["result", 1])))
        garble(root, keys[2])
        report = cache.verify(repair=True)
        assert report.removed == 4
        after = cache.verify()
        assert after.ok
        assert after.calls == 1
        assert cache.load(keys[3]).result == large(["result", 3])

    def test_untrusted_values_are_left_alone(self, cache: Cache, root: Path) -> None:
        """They may be trusted by others."""
        key = cache.save(call(x=large(2), result=large(4)))
        small = cache.save(call(x=[2], result=[4]))
        guarded = Cache(ValueFile(root, secret_key="hush"), CallFile(root))
        report = guarded.verify(repair=True)
        assert set(report.untrusted) == {digest(large(2)), digest(large(4)), small}
        assert not report.ok
        assert cache.load(key).result == large(4)
        assert cache.load(small).result == [4]

    @pytest.mark.parametrize("kind", ["file", "sql"])
    def test_untrusted_records_are_left_alone(self, root: Path, kind: str) -> None:
        """With the secret forgotten, or a wrong one, nothing is destroyed."""

        def opened(secret: str | None) -> Cache:
            if kind == "sql":
                return Cache(ValueFile(root), Sql(root / "calls.db", secret_key=secret))
            return Cache(ValueFile(root), CallFile(root, secret_key=secret))

        with opened("ours") as ours, opened("theirs") as theirs:
            key = D(ours.save(call(x=large(2), result=large(4))))
            report = theirs.verify(repair=True)
            assert report == VerifyReport(values=2, untrusted=(key,), orphaned=2)
            assert not report.ok
            with pytest.raises(StorageError, match=r"evict\(\) what is in verify\(\).untrusted"):
                theirs.gc(0)
            assert ours.load(key).result == large(4)
            assert ours.verify().ok
            for each in theirs.verify().untrusted:
                theirs.evict(each)
            assert theirs.gc(-1).removed == 2

    def test_values_are_not_opened(self, cache: Cache) -> None:
        class Trap:
            def __reduce__(self) -> object:
                return exec, ("raise SystemExit('opened')",)

            def __digest__(self) -> str:
                return "trap"

        cache.save(call(result=Trap()))
        assert cache.verify().ok

    def test_what_a_newer_fleche_has_stored_is_left_alone(self, cache: Cache, root: Path) -> None:
        key = cache.save(call(x=1, result=large(4)))
        other = cache.save(call(x=2, result=[5]))
        for found, position in ((digest(large(4)), 8), (other, 4)):
            file = file_of(root, found)
            content = bytearray(file.read_bytes())
            content[position] = 77
            file.write_bytes(content)
        report = cache.verify(repair=True)
        assert set(report.untrusted) == {digest(large(4)), other}
        assert (report.removed, report.ok) == (0, False)
        assert contains(cache, large(4))
        assert cache.contains_many([D(key)]) == [True]

    @pytest.mark.parametrize("filling", [LARGE, ""])
    def test_what_an_untrusted_value_needs_is_no_orphan(self, root: Path, filling: str) -> None:
        with in_files(root) as cache:
            cache.save(call(result={"array": np.ones(200_000), "filling": filling}))
        guarded = Cache(ValueFile(root, secret_key="hush"), CallFile(root))
        assert guarded.verify().orphaned == 0

    def test_progress(self, cache: Cache) -> None:
        seen: list[int] = []
        cache.save(call(x=large(1), result=large(2)))
        cache.verify(progress=seen.append)
        assert seen == [1, 2, 3]

    def test_read_only(self, cache: Cache, root: Path) -> None:
        """To look is allowed; to repair is not."""
        cache.save(call(result=large(4)))
        garble(root, digest(large(4)))
        assert cache.readonly().verify().dangling
        with pytest.raises(Rejected, match="repair refused"):
            cache.readonly().verify(repair=True)

    def test_interrupted(self, cache: Cache, root: Path) -> None:
        """Stopped halfway, nothing is lost."""
        key = cache.save(call(x=large(2), result=[4]))
        garble(root, digest(large(2)))

        def stop(number: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.verify(repair=True, progress=stop)
        assert cache.load(key).result == [4]


class TestRepairWhileOthersWork:
    """What was stored since it was looked at is not what was looked at."""

    NUMBER = 3

    def at(self, root: Path, moment: int, action: Callable[[], object]) -> Cache:
        """Return a cache that does something else between two steps of its repair."""
        passed = []

        def step() -> None:
            passed.append(None)
            if len(passed) == moment:
                action()

        class Values(ValueFile):
            def check_many(self, keys: Iterable[str], secrets: Sequence[bytes] = ()) -> Any:
                for key in keys:
                    step()
                    yield from super().check_many([key], secrets)
                    step()

            def delete_older(self, limits: Mapping[str, float]) -> set[str]:
                step()
                return super().delete_older(limits)

        class Calls(CallFile):
            def get_many(self, keys: Iterable[str]) -> Any:
                for key in keys:
                    step()
                    yield from super().get_many([key])

            def delete_older(self, limits: Mapping[str, float]) -> set[str]:
                step()
                return super().delete_older(limits)

        self.passed = passed
        return Cache(Values(root), Calls(root))

    @pytest.fixture
    def keys(self, cache: Cache, root: Path) -> list[Digest]:
        """Return the keys of some calls; the results of two are damaged or gone."""
        keys = [
            D(cache.save(call(x=large(x), result=large(["result", x])))) for x in range(self.NUMBER)
        ]
        garble(root, digest(large(["result", 0])))
        cache.evict(digest(large(["result", 1])))
        time.sleep(0.02)
        return keys

    @pytest.mark.parametrize("moment", range(1, 25))
    def test_computed_anew(self, cache: Cache, root: Path, keys: list[Digest], moment: int) -> None:
        def compute() -> None:
            for number in range(self.NUMBER):
                if cache.lookup(keys[number]) is None:
                    cache.save(call(x=large(number), result=large(["result", number])))
                assert cache.lookup(keys[number]) is not None

        self.at(root, moment, compute).verify(repair=True)
        if len(self.passed) < moment:
            compute()
        assert all(cache.lookup(key) is not None for key in keys)
        assert cache.verify().ok

    def test_moments_are_all_covered(self, root: Path, keys: list[Digest]) -> None:
        self.at(root, 0, lambda: None).verify(repair=True)
        assert 15 < len(self.passed) < 25

    @pytest.mark.parametrize("moment", range(1, 25))
    def test_saved_anew(self, cache: Cache, root: Path, keys: list[Digest], moment: int) -> None:
        """No record comes to stand on nothing."""

        def save() -> None:
            cache.save(call(x="another", result=large(["result", 0])))

        self.at(root, moment, save).verify(repair=True)
        keys = [D(entry.key) for entry in cache.calls.entries()]
        assert len(keys) >= 1 + (len(self.passed) >= moment)
        assert cache.contains_many(keys) == [True] * len(keys)


def test_reports_of_layers_add_up() -> None:
    near, far = in_memory(), in_memory()
    stack = CacheStack([near, far.readonly()])
    for cache in (near, far):
        save_as(cache, digest("wrong"), cache.save(call(result=large(1))))
        cache.evict(digest(large(1)))
    report = stack.verify()
    assert (report.calls, len(report.dangling)) == (4, 4)
    assert stack.verify(repair=True).removed == 2
    assert far.query().count() == 2
    assert near.query().empty()


def test_progress_goes_on_from_layer_to_layer() -> None:
    stack = CacheStack([in_memory(), in_memory()])
    for layer in stack.layers:
        layer.save(call())
    for keep_house in (stack.verify, stack.gc, stack.stats):
        seen: list[int] = []
        keep_house(progress=seen.append)
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= 2


def test_a_pool_is_checked_and_counted() -> None:
    """Its members can be read, so they can be looked through; they are not changed."""
    member = in_memory()
    member.save(call())
    pool = CachePool([member, in_memory()])
    assert pool.verify() == member.verify()
    assert pool.stats().calls == 1
    with pytest.raises(Rejected):
        pool.gc()


class TestStats:
    def test_entries_and_bytes(self, cache: Cache, root: Path) -> None:
        """Bytes are those of the files."""
        for x in range(3):
            cache.save(call(x=[x], result=LARGE))
        found = cache.stats()
        assert (found.values, found.calls) == (1, 3)
        files = [path for path in root.rglob("*") if path.is_file()]
        assert found.bytes == sum(path.stat().st_size for path in files)
        cache.evict(D(next(iter(cache.query())).key))
        assert cache.stats().calls == 2
        assert cache.stats().bytes < found.bytes

    def test_nothing(self, cache: Cache) -> None:
        assert cache.stats() == StatsReport()

    def test_events(self, cache: Cache, root: Path) -> None:
        """Hits, misses, and errors by their kind, of this object; another one counts anew."""
        key = D(cache.save(call(result=large("value"))))
        cache.lookup(key)
        cache.lookup(key)
        cache.lookup(digest("nothing"))
        garble(root, digest(large("value")))
        cache.lookup(key)
        found = cache.stats()
        assert (found.hits, found.misses, found.errors) == (2, 2, {"corrupt": 1})
        assert str(found).endswith("errors.corrupt: 1, hits: 2, misses: 2")
        with in_files(root) as other:
            assert other.stats() == StatsReport(found.values, found.calls, found.bytes)

    def test_layers_add_up(self, cache: Cache) -> None:
        """What is in two layers is there twice; the stack and each layer count their own events."""
        near = in_memory()
        stack = CacheStack([near, cache])
        key = D(cache.save(call()))
        assert stack.lookup(key) is not None
        found = stack.stats()
        assert found.calls == near.stats().calls + cache.stats().calls == 2
        assert found.bytes == near.stats().bytes + cache.stats().bytes
        assert (found.hits, near.stats().hits, cache.stats().hits) == (1, 0, 1)
        assert near.stats().misses == 1

    def test_views_count_what_is_behind_them(self, cache: Cache) -> None:
        cache.save(call())
        assert cache.readonly().stats() == cache.stats()
        assert cache.filter(name="other").stats().calls == 1
        assert SizeLimitedCache(cache, max_size=5).stats().calls == 1

    def test_interrupted(self, cache: Cache) -> None:
        for x in range(5):
            cache.save(call(x=x))

        def stop(number: int) -> None:
            if number == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.stats(progress=stop)
        assert cache.stats().calls == 5
