"""Collecting garbage: what nobody needs goes, and what somebody needs stays, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from fleche.caches import Cache, CacheStack, CacheView, GcReport, Rejected
from fleche.call import Call
from fleche.digest import D, Digest, digest
from fleche.errors import StorageError
from fleche.storage import CallFile, ValueFile
from tests.helpers.layers import call, in_files, in_memory

HOUR = 3600.0
DAY = 24 * HOUR


def age(root: Path, seconds: float) -> None:
    """Make everything below ``root`` older."""
    for path in root.rglob("*"):
        if path.is_file():
            before = path.stat().st_mtime
            os.utime(path, (before - seconds, before - seconds))


def buffer_of(array: Any) -> Digest:
    """Return the name under which the memory of a large array is kept."""
    return Digest(blake3(array.tobytes()).hexdigest())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> Iterator[Cache]:
    with in_files(root) as cache:
        yield cache


class TestWhatGoes:
    def test_values_of_no_call(self, cache: Cache, root: Path) -> None:
        """What evicted calls leave behind goes; what another call needs stays."""
        gone, kept = cache.save(call(x=[1], result=[2])), cache.save(call(x=[2], result=[3]))
        cache.evict(gone)
        size = cache.load_parcel(digest([1])).nbytes
        age(root, 2 * HOUR)
        assert cache.gc() == GcReport(removed=1, freed=size, kept=2, leases=0)
        assert not cache.contains(digest([1]))
        assert cache.load(kept).arguments["x"] == [2]
        assert cache.load(kept).result == [3]

    def test_dry_run_only_tells(self, cache: Cache, root: Path) -> None:
        cache.save_value([1])
        cache.prepare(Call(name="f", arguments={"x": [2]}))
        age(root, 8 * DAY)
        report = cache.gc(dry_run=True)
        assert (report.removed, report.kept, report.leases) == (2, 0, 1)
        assert cache.contains(digest([1]))
        assert cache.gc() == report
        assert not cache.contains(digest([1]))

    def test_young_values_stay(self, cache: Cache, root: Path) -> None:
        """For ``grace`` seconds a value is left alone: the record may be on its way."""
        cache.save_value([1])
        assert cache.gc().kept == 1
        age(root, 50)
        assert cache.gc(grace=60).kept == 1
        assert cache.gc(grace=40).removed == 1

    @pytest.mark.parametrize("how", ["save_value", "missing", "save_parcel"])
    def test_values_found_again_are_young(self, cache: Cache, root: Path, how: str) -> None:
        """Whoever finds a value here and does not store it again may rely on it."""
        key = cache.save_value([1])
        age(root, 2 * HOUR)
        if how == "save_value":
            cache.save_value([1])
        elif how == "missing":
            assert cache.missing([key]) == []
        else:
            cache.save_parcel(key, cache.load_parcel(key))
        assert cache.gc().kept == 1

    def test_an_empty_cache(self, cache: Cache) -> None:
        assert cache.gc() == GcReport()

    def test_in_memory(self) -> None:
        cache = in_memory()
        cache.save_value([1])
        key = cache.save(call())
        assert cache.gc(grace=-1).removed == 1
        assert cache.load(key).result == 4

    def test_progress(self, cache: Cache, root: Path) -> None:
        seen: list[int] = []
        cache.save(call())
        cache.save_value([1])
        age(root, 2 * HOUR)
        cache.gc(progress=seen.append)
        assert seen == [1, 2]


class TestLeases:
    def test_a_running_call_keeps_its_arguments(self, cache: Cache, root: Path) -> None:
        """However long it takes, up to ``lease_age``; in whatever process."""
        pending = cache.prepare(Call(name="f", arguments={"x": [1]}))
        age(root, 6 * DAY)
        with in_files(root) as other:
            assert other.gc() == GcReport(kept=1)
        key = pending.commit([2])
        assert cache.load(key).arguments["x"] == [1]

    def test_a_call_given_up(self, cache: Cache, root: Path) -> None:
        """The marks of processes that died are dropped, and what they kept goes."""
        cache.prepare(Call(name="f", arguments={"x": [1]}))
        age(root, 2 * DAY)
        assert cache.gc() == GcReport(kept=1)
        report = cache.gc(lease_age=DAY)
        assert (report.removed, report.leases) == (1, 1)
        assert list(cache.calls.keys()) == []

    def test_a_call_that_outlives_its_lease(self, cache: Cache, root: Path) -> None:
        """Its result is stored all the same."""
        pending = cache.prepare(Call(name="f", arguments={"x": [1]}))
        age(root, 8 * DAY)
        cache.gc()
        key = pending.commit([2])
        assert cache.load(key).result == [2]


class TestRefusals:
    def test_unreadable_records(self, cache: Cache, root: Path) -> None:
        """Nobody knows what a damaged record refers to, so nothing goes."""
        key = D(cache.save(call()))
        cache.save_value([1])
        age(root, 2 * HOUR)
        (path,) = root.rglob(f"*{key[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        with pytest.raises(StorageError, match=r"nothing was removed. verify\(repair=True\)"):
            cache.gc()
        assert cache.contains(digest([1]))
        cache.verify(repair=True)
        assert cache.gc(grace=-1).removed == 3

    def test_a_failing_disk(self, root: Path) -> None:
        class Failing(CallFile):
            def get(self, key: Digest) -> Any:
                raise StorageError("input/output error")

        cache = Cache(ValueFile(root), Failing(root))
        cache.save(call())
        with pytest.raises(StorageError, match="input/output error"):
            cache.gc(grace=-1)
        assert cache.contains(digest(4))

    def test_read_only(self, cache: Cache) -> None:
        with pytest.raises(Rejected, match="gc refused"):
            cache.readonly().gc()


class TestValuesThatCannotBeRead:
    """Large buffers go with the last value that needs them, whoever can read that value."""

    def garble(self, root: Path, key: str, position: int) -> None:
        (path,) = root.rglob(f"*{key[8:]}.value")
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)

    def garbage(self, cache: Cache) -> Digest:
        """Leave a value with a buffer of its own that no call refers to; return the buffer."""
        array = np.arange(20_000)
        cache.save_value({"garbage": array})
        return buffer_of(array)

    def test_a_damaged_one_needs_no_buffers(self, cache: Cache, root: Path) -> None:
        """It can never be opened, so what it referred to goes, too."""
        array = np.ones(20_000)
        damaged = D(cache.save(call(result={"array": array})))
        kept = D(cache.save(call(x="other", result=[np.zeros(20_000)])))
        buffer = self.garbage(cache)
        self.garble(root, cache.load(damaged).record.result or "", 40)
        age(root, 2 * HOUR)
        assert cache.gc().removed == 3
        assert not cache.contains(buffer)
        assert not cache.contains(buffer_of(array))
        assert cache.load(kept).result[0][0] == 0

    def test_one_of_another_secret_speaks_for_its_buffers(self, root: Path) -> None:
        """Whoever trusts it may need it; the rest of the garbage goes."""
        theirs = Cache(ValueFile(root, secret_key="theirs"), CallFile(root))
        ours = Cache(ValueFile(root, secret_key="ours"), CallFile(root))
        key = D(theirs.save(call(x=[1], result={"array": np.ones(20_000)})))
        buffer, other = self.garbage(ours), self.garbage(theirs)
        assert buffer == other
        age(root, 2 * HOUR)
        assert ours.gc().removed == 2
        assert not ours.contains(buffer)
        assert theirs.load(key).result["array"][0] == 1

    def test_one_of_a_newer_fleche_may_need_any(self, cache: Cache, root: Path) -> None:
        """Nobody knows how to read it, so no buffer goes."""
        newer = D(cache.save(call(result={"array": np.ones(20_000)})))
        buffer = self.garbage(cache)
        self.garble(root, cache.load(newer).record.result or "", 8)
        age(root, 2 * HOUR)
        with pytest.raises(StorageError, match=r"no buffer was removed.*upgrade fleche"):
            cache.gc()
        assert cache.contains(buffer)
        assert cache.contains(buffer_of(np.ones(20_000)))

    def test_a_record_of_a_newer_fleche(self, cache: Cache, root: Path) -> None:
        key = D(cache.save(call()))
        age(root, 2 * HOUR)
        (path,) = root.rglob(f"*{key[8:]}.call")
        content = bytearray(path.read_bytes())
        content[8] = 3
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"nothing was removed\. Upgrade fleche"):
            cache.gc()


class TestLayers:
    def test_a_stack_collects_in_its_writable_layers(self) -> None:
        near, far, guarded = in_memory(), in_memory(), in_memory()
        stack = CacheStack([near, CacheView(far), guarded.readonly()])
        for each in (near, far, guarded):
            each.save_value([1])
        assert stack.gc(grace=-1).removed == 2
        assert guarded.contains(digest([1]))


# -- races -----------------------------------------------------------------------------------------


class Hooked:
    """A cache that does something else at one moment of a collection."""

    def __init__(self, root: Path, moment: int, action: Callable[[], object]) -> None:
        self.steps = 0

        def step() -> None:
            self.steps += 1
            if self.steps == moment:
                action()

        class Values(ValueFile):
            def entries(self) -> Any:
                found = list(super().entries())
                step()
                return iter(found)

            def delete_older(self, key: Digest, limit: float) -> bool:
                step()
                return super().delete_older(key, limit)

        class Calls(CallFile):
            def keys(self) -> Any:
                step()
                found = list(super().keys())
                step()
                return iter(found)

            def get(self, key: Digest) -> Any:
                step()
                return super().get(key)

        self.cache = Cache(Values(root), Calls(root))


ARGUMENT, RESULT = ["argument"], ["result"]


class Save:
    """Saves, at once, a call whose values are here as garbage."""

    def before(self, cache: Cache) -> None: ...

    def during(self, cache: Cache) -> None:
        cache.save(call(x=ARGUMENT, result=RESULT))

    def after(self, cache: Cache) -> None: ...


class Begin(Save):
    """Begins a call during the collection."""

    def during(self, cache: Cache) -> None:
        self.pending = cache.prepare(Call(name="f", arguments={"x": ARGUMENT}))

    def after(self, cache: Cache) -> None:
        self.pending.commit(RESULT)


class Finish(Save):
    """Finishes, during the collection, a call that began long before."""

    def before(self, cache: Cache) -> None:
        self.pending = cache.prepare(Call(name="f", arguments={"x": ARGUMENT}))

    def during(self, cache: Cache) -> None:
        self.pending.commit(RESULT)


class Receive(Save):
    """Receives a call from another cache."""

    def during(self, cache: Cache) -> None:
        source = in_memory()
        source.save(call(x=ARGUMENT, result=RESULT))
        source.transfer(cache)


@pytest.mark.parametrize("kind", [Save, Begin, Finish, Receive])
@pytest.mark.parametrize("moment", range(14))
def test_at_any_moment(cache: Cache, root: Path, kind: type[Save], moment: int) -> None:
    """Whatever comes between any two steps of a collection, no call loses a value."""
    action = kind()
    cache.save_value(ARGUMENT)
    cache.save_value(RESULT)
    cache.save_value("garbage")
    cache.save(call(x="other"))
    action.before(cache)
    age(root, 2 * HOUR)
    hooked = Hooked(root, moment, lambda: action.during(cache))
    hooked.cache.gc()
    if hooked.steps < moment or moment == 0:
        action.during(cache)
    action.after(cache)
    key = call(x=ARGUMENT).key
    assert cache.load(key).arguments["x"] == ARGUMENT
    assert cache.load(key).result == RESULT
    assert cache.contains(call(x="other").key)
    assert not cache.contains(digest("garbage"))


def test_moments_are_all_covered(cache: Cache, root: Path) -> None:
    cache.save(call(x="other"))
    cache.prepare(Call(name="f", arguments={"x": ARGUMENT}))
    for value in (ARGUMENT, RESULT, "garbage"):
        cache.save_value(value)
    age(root, 2 * HOUR)
    hooked = Hooked(root, 0, lambda: None)
    hooked.cache.gc()
    assert 8 <= hooked.steps < 13


def use(cache: Cache, number: int, turns: int = 200) -> None:
    """Call functions of values that were garbage for a while, and leave them as garbage again."""
    for turn in range(turns):
        x, y = [turn % 90], [turn % 89, "result"]
        pending = cache.prepare(Call(name=f"f{number}", arguments={"x": x}))
        time.sleep(0.02)
        key = pending.commit(y)
        found = cache.load(key)
        assert (found.arguments["x"], found.result) == (x, y)
        cache.evict(key)


GRACE = 1.5  # seconds: less than it takes until a value is used again, more than a save takes


@pytest.mark.slow
def test_with_threads(root: Path) -> None:
    """Two threads use and leave the same values while two others collect without pause."""
    with in_files(root) as cache, ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use, cache, number) for number in range(2)]

        def collect() -> int:
            removed = 0
            while not all(user.done() for user in users):
                removed += cache.gc(GRACE).removed
            return removed

        collectors = [pool.submit(collect) for _ in range(2)]
        for user in users:
            user.result()
        assert sum(collector.result() for collector in collectors) > 50


WORKER = """
import sys
from tests.helpers.layers import in_files
from tests.test_cache_gc import use

with in_files(sys.argv[1]) as cache:
    use(cache, int(sys.argv[2]))
print("done")
"""


@pytest.mark.slow
def test_with_processes(root: Path) -> None:
    """The same across processes."""
    command = [sys.executable, "-c", WORKER, str(root)]
    options: dict[str, Any] = {"text": True, "cwd": Path(__file__).parents[1]}
    children = [
        subprocess.Popen(
            [*command, str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        for number in range(2)
    ]
    removed = 0
    with in_files(root) as cache:
        while any(child.poll() is None for child in children):
            removed += cache.gc(GRACE).removed
    for child in children:
        assert child.communicate(timeout=30) == ("done\n", "")
        assert child.returncode == 0
    assert removed > 50
