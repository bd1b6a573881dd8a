"""Checking everything, and filing calls anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fleche.storage.base import Table

from fleche.caches import (
    Cache,
    CachePool,
    CacheStack,
    RedigestReport,
    Rejected,
    SizeLimitedCache,
    StatsReport,
    VerifyReport,
)
from fleche.call import Call, CallRecord
from fleche.digest import SCHEME, D, Digest, digest
from fleche.errors import StorageError
from fleche.storage import CallFile, Sql, ValueFile
from tests.helpers.layers import call, in_files, in_memory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> Iterator[Cache]:
    with in_files(root) as cache:
        yield cache


def garble(root: Path, key: str) -> None:
    (path,) = root.rglob(f"*{key[8:]}*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


class TestVerify:
    def test_all_is_well(self, cache: Cache) -> None:
        cache.save(call(x=[1], result=[2]))
        cache.prepare(Call(name="f", arguments={"x": [3]}))
        report = cache.verify()
        assert report == VerifyReport(values=3, calls=1)
        assert report.ok
        assert str(report).startswith("values: 3, calls: 1, corrupt: 0")

    def test_everything_that_can_be_wrong(self, cache: Cache, root: Path) -> None:
        keys = [D(cache.save(call(x=[x], result=["result", x]))) for x in range(5)]
        garble(root, digest(["result", 0]))
        cache.evict(digest(["result", 1]))
        cache.evict(digest([2]))
        garble(root, keys[3])
        wrong = digest("wrong")
        cache.save_record(wrong, cache.load_record(keys[4]))
        cache.evict(keys[4])
        cache.save_value("orphan")
        report = cache.verify()
        assert set(report.corrupt) == {digest(["result", 0]), keys[3]}
        assert set(report.dangling) == {keys[0], keys[1]}
        assert report.incomplete == (keys[2],)
        assert report.misfiled == (wrong,)
        assert (report.values, report.calls) == (9, 4)
        assert report.orphaned == 3  # and what the damaged record refers to
        assert not report.ok

    def test_repair(self, cache: Cache, root: Path) -> None:
        """What cannot be answered goes; what can be stays."""
        keys = [D(cache.save(call(x=[x], result=["result", x]))) for x in range(4)]
        garble(root, digest(["result", 0]))
        cache.evict(digest(["result", 1]))
        garble(root, keys[2])
        report = cache.verify(repair=True)
        assert report.removed == 4
        after = cache.verify()
        assert after.ok
        assert after.calls == 1
        assert cache.load(keys[3]).result == ["result", 3]

    def test_untrusted_values_are_left_alone(self, cache: Cache, root: Path) -> None:
        """They may be trusted by others."""
        key = cache.save(call(result=[4]))
        guarded = Cache(ValueFile(root, secret_key="hush"), CallFile(root))
        report = guarded.verify(repair=True)
        assert set(report.untrusted) == {digest(2), digest([4])}
        assert not report.ok
        assert cache.load(key).result == [4]

    @pytest.mark.parametrize("kind", ["file", "sql"])
    def test_untrusted_records_are_left_alone(self, root: Path, kind: str) -> None:
        """Whoever has forgotten the secret, or has a wrong one, destroys nothing."""

        def opened(secret: str | None) -> Cache:
            if kind == "sql":
                return Cache(ValueFile(root), Sql(root / "calls.db", secret_key=secret))
            return Cache(ValueFile(root), CallFile(root, secret_key=secret))

        with opened("ours") as ours, opened("theirs") as theirs:
            key = D(ours.save(call(result=[4])))
            report = theirs.verify(repair=True)
            assert report == VerifyReport(values=2, untrusted=(key,), orphaned=2)
            assert not report.ok
            with pytest.raises(StorageError, match=r"evict\(\) what is in verify\(\).untrusted"):
                theirs.gc(0)
            assert ours.load(key).result == [4]
            assert ours.verify().ok
            for each in theirs.verify().untrusted:
                theirs.evict(each)
            assert theirs.gc(0).removed == 2

    def test_values_are_not_opened(self, cache: Cache) -> None:
        class Trap:
            def __reduce__(self) -> object:
                return exec, ("raise SystemExit('opened')",)

            def __digest__(self) -> str:
                return "trap"

        cache.save(call(result=Trap()))
        assert cache.verify().ok

    def test_what_a_newer_fleche_has_stored_is_left_alone(self, cache: Cache, root: Path) -> None:
        key = cache.save(call(result=[4]))
        for path in root.rglob(f"*{digest([4])[8:]}*"), root.rglob(f"*{key[8:]}*"):
            (file,) = path
            content = bytearray(file.read_bytes())
            content[8] = 3
            file.write_bytes(content)
        report = cache.verify(repair=True)
        assert set(report.untrusted) == {digest([4]), key}
        assert (report.removed, report.ok) == (0, False)
        assert cache.values.contains(digest([4]))

    def test_what_an_untrusted_value_needs_is_no_orphan(self, root: Path) -> None:
        with in_files(root) as cache:
            cache.save(call(result={"array": np.ones(20_000)}))
        guarded = Cache(ValueFile(root, secret_key="hush"), CallFile(root))
        assert guarded.verify().orphaned == 0

    def test_progress(self, cache: Cache) -> None:
        seen: list[int] = []
        cache.save(call(x=[1], result=[2]))
        cache.verify(progress=seen.append)
        assert seen == [1, 2, 3]

    def test_read_only(self, cache: Cache, root: Path) -> None:
        """To look is allowed; to repair is not."""
        cache.save(call(result=[4]))
        garble(root, digest([4]))
        assert cache.readonly().verify().dangling
        with pytest.raises(Rejected, match="repair refused"):
            cache.readonly().verify(repair=True)

    def test_interrupted(self, cache: Cache, root: Path) -> None:
        """Whoever stops halfway loses nothing."""
        key = cache.save(call(result=[4]))
        garble(root, digest(2))

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
            def check(self, key: Digest, secrets: Sequence[bytes] = ()) -> Table:
                step()
                try:
                    return super().check(key, secrets)
                finally:
                    step()

            def delete_older(self, key: Digest, limit: float) -> bool:
                step()
                return super().delete_older(key, limit)

        class Calls(CallFile):
            def get(self, key: Digest) -> CallRecord:
                step()
                return super().get(key)

            def delete_older(self, key: Digest, limit: float) -> bool:
                step()
                return super().delete_older(key, limit)

        self.passed = passed
        return Cache(Values(root), Calls(root))

    @pytest.fixture
    def keys(self, cache: Cache, root: Path) -> list[Digest]:
        """Return the keys of some calls; the results of two are damaged or gone."""
        keys = [D(cache.save(call(x=[x], result=["result", x]))) for x in range(self.NUMBER)]
        garble(root, digest(["result", 0]))
        cache.evict(digest(["result", 1]))
        time.sleep(0.02)
        return keys

    @pytest.mark.parametrize("moment", range(1, 25))
    def test_computed_anew(self, cache: Cache, root: Path, keys: list[Digest], moment: int) -> None:
        def compute() -> None:
            for number in range(self.NUMBER):
                if cache.lookup(keys[number]) is None:
                    cache.save(call(x=[number], result=["result", number]))
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
        """Nobody's record comes to stand on nothing."""

        def save() -> None:
            cache.save(call(x="another", result=["result", 0]))

        self.at(root, moment, save).verify(repair=True)
        for _, record in cache.calls.get_many(cache.calls.keys()):
            assert record.result is None or cache.values.contains(record.result)


class TestRedigest:
    def stale(self, cache: Cache, **changes: object) -> tuple[Digest, Digest]:
        """Store a call under a digest scheme of long ago; return its old key and its new one."""
        live = call(x=[1], result=[2])
        old = {name: digest(("old", name)) for name in ("x", "result", "key")}
        for name, value in {"x": [1], "result": [2]}.items():
            cache.save_parcel(old[name], cache.packing.pack(value, old[name]))
        record: CallRecord = live.seal().replace(
            arguments={"x": old["x"]}, result=old["result"], scheme=SCHEME - 1, **changes
        )
        cache.save_record(old["key"], record)
        return old["key"], live.key

    def test_a_key_that_does_not_match(self, cache: Cache) -> None:
        key = D(cache.save(call()))
        wrong = digest("wrong")
        cache.save_record(wrong, cache.load_record(key))
        cache.evict(key)
        assert cache.redigest() == RedigestReport(calls=1, rekeyed=(key,))
        assert cache.load(key).result == 4
        assert not cache.contains(wrong)
        assert cache.redigest() == RedigestReport(calls=1)

    def test_an_older_scheme(self, cache: Cache) -> None:
        """The values are digested again, so that the next call finds its result."""
        old, new = self.stale(cache)
        assert cache.verify().misfiled == (old,)
        assert cache.redigest() == RedigestReport(calls=1, rekeyed=(new,))
        found = cache.lookup(new)
        assert found is not None
        assert found.result == [2]
        assert found.arguments["x"] == [1]
        assert found.record == call(x=[1], result=[2]).seal()
        assert cache.verify().ok
        assert cache.gc(grace=-1).removed == 2

    def test_without_opening_anything(self, cache: Cache) -> None:
        """Calls of an older scheme stay as they are; the others need no opening."""
        old, _ = self.stale(cache)
        key = D(cache.save(call(x="y")))
        cache.save_record(digest("wrong"), cache.load_record(key))
        report = cache.redigest(unpickle=False)
        assert (report.rekeyed, report.failed) == ((key,), (old,))
        assert cache.load(old).result == [2]

    def test_a_newer_result_is_kept(self, cache: Cache) -> None:
        old, new = self.stale(cache)
        cache.save(call(x=[1], result="newer"))
        cache.redigest()
        assert cache.load(new).result == "newer"
        assert not cache.contains(old)

    def test_what_cannot_be_digested_again_stays(self, cache: Cache) -> None:
        """A value is gone, or only the author of a function can digest its code."""
        old, _ = self.stale(cache, code=digest("code"))
        assert cache.redigest() == RedigestReport(calls=1, failed=(old,))
        assert cache.load(old).result == [2]
        record = cache.load_record(old)
        cache.save_record(old, record.replace(unhashed=("code",)))
        cache.evict(record.arguments["x"])
        assert cache.redigest().failed == (old,)
        assert cache.load(old).result == [2]

    def test_running_calls_and_damaged_records_are_left_alone(
        self, cache: Cache, root: Path
    ) -> None:
        key = cache.save(call())
        garble(root, key)
        pending = cache.prepare(Call(name="f", arguments={"x": 1}))
        assert cache.redigest() == RedigestReport()
        assert cache.load(pending.commit(2)).result == 2

    def test_progress(self, cache: Cache) -> None:
        seen: list[int] = []
        for x in range(3):
            cache.save(call(x=x))
        cache.redigest(progress=seen.append)
        assert seen == [1, 2, 3]


def test_reports_of_layers_add_up() -> None:
    near, far = in_memory(), in_memory()
    stack = CacheStack([near, far.readonly()])
    for cache in (near, far):
        cache.save(call())
        cache.save_record(digest("wrong"), cache.query().only().record)
    assert stack.verify().calls == 4
    assert stack.verify(repair=True).calls == 2
    assert stack.redigest().calls == 2
    assert far.contains(digest("wrong"))
    assert not near.contains(digest("wrong"))


def test_progress_goes_on_from_layer_to_layer() -> None:
    stack = CacheStack([in_memory(), in_memory()])
    for layer in stack.layers:
        layer.save(call())
    for keep_house in (stack.verify, stack.gc, stack.redigest, stack.stats):
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
            cache.save(call(x=[x], result="same"))
        found = cache.stats()
        assert (found.values, found.calls) == (4, 3)
        files = [path for path in root.rglob("*") if path.is_file()]
        assert found.bytes == sum(path.stat().st_size for path in files)
        cache.evict(D(next(iter(cache.query())).key))
        assert cache.stats().calls == 2
        assert cache.stats().bytes < found.bytes

    def test_nothing(self, cache: Cache) -> None:
        assert cache.stats() == StatsReport()

    def test_events(self, cache: Cache, root: Path) -> None:
        """Hits, misses, and errors by their kind, of this object; another one counts anew."""
        key = D(cache.save(call(result=["value"])))
        cache.lookup(key)
        cache.lookup(key)
        cache.lookup(digest("nothing"))
        garble(root, digest(["value"]))
        cache.lookup(key)
        found = cache.stats()
        assert (found.hits, found.misses, found.errors) == (2, 2, {"corrupt": 1})
        assert str(found).endswith("errors.corrupt: 1, hits: 2, misses: 2")
        with in_files(root) as other:
            assert other.stats() == StatsReport(found.values, found.calls, found.bytes)

    def test_layers_add_up(self, cache: Cache) -> None:
        """What is in two layers is there twice; events are those of the stack."""
        near = in_memory()
        stack = CacheStack([near, cache])
        key = D(cache.save(call()))
        assert stack.lookup(key) is not None
        found = stack.stats()
        assert found.calls == near.stats().calls + cache.stats().calls == 2
        assert found.bytes == near.stats().bytes + cache.stats().bytes
        assert (found.hits, near.stats().hits, cache.stats().hits) == (1, 0, 0)

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
