"""Collecting garbage: what is not needed goes, and what is needed stays, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from fleche.caches import Cache, CacheStack, CacheView, GcReport, Rejected
from fleche.call import Call, CallEntry, decode_entry, encode_entry
from fleche.digest import Address, D, Digest, digest
from fleche.errors import StorageError
from fleche.parcel import Parcel
from fleche.storage import (
    CallFile,
    CallMemory,
    CallStorage,
    Entry,
    ValueFile,
    ValueMemory,
    ValueStorage,
)
from tests.helpers.backends import load_parcel
from tests.helpers.layers import Layer, call, in_files, in_memory, result_of

HOUR = 3600.0
DAY = 24 * HOUR


def age(root: Path, seconds: float) -> None:
    """Make everything below ``root`` older."""
    for path in root.rglob("*"):
        if path.is_file():
            before = path.stat().st_mtime
            os.utime(path, (before - seconds, before - seconds))


LARGE = "large " * 5000
HUGE = "huge " * 500_000
"""An argument that is stored before its function runs, under a pin."""


def large(value: object) -> list[object]:
    """Return a value that does not travel with the record of its call."""
    return [value, LARGE]


def contains(cache: Cache, value: object) -> bool:
    """Return whether a value is in the storage of values."""
    return cache.backend.lacking([Address.of(digest(value))]) == []


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
        gone = cache.save(call(x=large(1), result=large(2)))
        kept = cache.save(call(x=large(2), result=large(3)))
        cache.evict(gone)
        size = load_parcel(cache, digest(large(1))).nbytes
        age(root, 2 * HOUR)
        assert cache.gc() == GcReport(removed=1, freed=size, kept=2, pins=0)
        assert not contains(cache, large(1))
        assert cache.load(kept).arguments["x"] == large(2)
        assert cache.load(kept).result == large(3)

    def test_small_calls_leave_nothing(self, cache: Cache) -> None:
        """Their values go with them."""
        cache.evict(cache.save(call(x=[1], result=[2])))
        assert cache.gc(grace=-1) == GcReport()
        assert cache.stats().bytes == 0

    def test_dry_run_changes_nothing(self, cache: Cache, root: Path) -> None:
        cache.save_value([1])
        cache.prepare(Call(name="f", arguments={"x": HUGE}))
        age(root, 8 * DAY)
        report = cache.gc(dry_run=True)
        assert (report.removed, report.kept, report.pins) == (2, 0, 1)
        assert contains(cache, [1])
        assert cache.gc() == report
        assert not contains(cache, [1])

    def test_young_values_stay(self, cache: Cache, root: Path) -> None:
        """For ``grace`` seconds a value is left alone: the record may be on its way."""
        cache.save_value([1])
        assert cache.gc().kept == 1
        age(root, 50)
        assert cache.gc(grace="1min", dry_run=True) == cache.gc(timedelta(minutes=1), dry_run=True)
        with pytest.raises(ValueError, match="'soon' is no time"):
            cache.gc(grace="soon")
        report = cache.gc(grace=60)
        assert (report.kept, report.young > 0) == (1, True)
        assert cache.gc(grace=40) == GcReport(removed=1, freed=report.young)

    @pytest.mark.parametrize("how", ["save_value", "lacking", "any form", "save"])
    def test_values_found_again_are_young(self, cache: Cache, root: Path, how: str) -> None:
        """A value that was found here, and so not stored again, may be relied on."""
        key = cache.save_value([1])
        parcel = load_parcel(cache, key)
        address = Address.of(key, parcel.variant)
        age(root, 2 * HOUR)
        if how == "save_value":
            cache.save_value([1])
        elif how == "lacking":
            assert cache.backend.lacking([address], keep=True) == []
        elif how == "any form":
            assert cache.backend.lacking([Address.of(key)], keep=True) == []
        else:
            cache.backend.save({}, [(address, parcel)])
        assert cache.gc().kept == 1

    def test_what_is_only_looked_at_grows_old(self, cache: Cache, root: Path) -> None:
        key = cache.save_value([1])
        age(root, 2 * HOUR)
        assert cache.contains(key)
        assert cache.backend.lacking([Address.of(key)]) == []
        assert cache.load_value(key) == [1]
        assert cache.gc().removed == 1

    def test_what_a_digest_stands_for_stays(self, cache: Cache, root: Path) -> None:
        """An argument that was given as a digest is needed in whatever form it is here."""
        named = cache.save_value(large(1))
        key = cache.save(call(x=named, result=2))
        age(root, 2 * HOUR)
        assert cache.gc().removed == 0
        assert cache.load(key).arguments["x"] == large(1)

    def test_the_clock_of_the_storage_counts(self) -> None:
        """A machine whose clock is ahead takes nothing that is fresh there."""

        class Elsewhere(ValueMemory):
            def now(self) -> float:
                return time.time() - 2 * HOUR

            def entries(self, prefix: str = "") -> Any:
                for each in super().entries(prefix):
                    yield each._replace(modified=each.modified - 2 * HOUR)

            def delete_older(self, limits: Any) -> set[str]:
                return super().delete_older({key: at + 2 * HOUR for key, at in limits.items()})

        cache = Cache(Elsewhere(), CallMemory())
        cache.save_value([1])
        assert cache.gc().kept == 1
        assert cache.gc(grace=-1).removed == 1

    def test_an_empty_cache(self, cache: Cache) -> None:
        assert cache.gc() == GcReport()

    def test_in_memory(self) -> None:
        cache = in_memory()
        cache.save_value([1])
        key = cache.save(call())
        assert cache.gc(grace=-1).removed == 1
        assert cache.load(key).result == 4

    def test_a_storage_of_five_methods(self) -> None:
        """Nothing more is needed to collect in it."""
        values, calls = FiveValues(), FiveCalls()
        cache = Cache(values, calls)
        array = np.arange(200_000)
        gone = [cache.save(call(x=x, result=[large(x), array])) for x in range(2)]
        kept = cache.save(call(x="kept", result=large(3)))
        assert cache.evict_many(map(D, gone)) == 2
        cache.prepare(Call(name="f", arguments={"x": HUGE}))
        size = sum(entry.size for entry in values.entries())
        assert cache.gc().removed == 0
        for storage in (values, calls):
            for key, (data, modified) in storage.held.items():
                storage.held[key] = data, modified - 8 * DAY
        report = cache.gc()
        (left,) = values.entries()
        assert report == GcReport(removed=4, freed=size - left.size, kept=1, pins=1)
        assert cache.load(kept).result == large(3)
        assert cache.verify().ok

    def test_progress(self, cache: Cache, root: Path) -> None:
        seen: list[int] = []
        cache.save(call())
        cache.save_value([1])
        age(root, 2 * HOUR)
        cache.gc(progress=seen.append)
        assert seen == [1, 2]


class Five:
    """What a storage must do, and nothing else."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, float]] = {}

    def put_many(self, items: Any) -> None:
        for key, item in items:
            self.held[key] = self.encode(key, item), time.time()

    def get_many(self, keys: Any) -> Any:
        return ((key, self.decode(key, self.held[key][0])) for key in keys if key in self.held)

    def contains_many(self, keys: Any) -> set[str]:
        return {key for key in keys if key in self.held}

    def delete_many(self, keys: Any) -> None:
        for key in keys:
            self.held.pop(key, None)

    def entries(self, prefix: str = "") -> Any:
        return (
            Entry(key, len(data), modified)
            for key, (data, modified) in list(self.held.items())
            if key.startswith(prefix)
        )


class FiveValues(Five, ValueStorage):
    def encode(self, key: str, item: Parcel) -> bytes:
        return item.tobytes()

    def decode(self, key: str, data: bytes) -> Parcel:
        return Parcel.from_bytes(data)


class FiveCalls(Five, CallStorage):
    def encode(self, key: str, item: CallEntry) -> bytes:
        return encode_entry(key, item)

    def decode(self, key: str, data: bytes) -> CallEntry:
        return decode_entry(key, data)


class TestPins:
    def test_a_running_call_keeps_its_arguments(self, cache: Cache, root: Path) -> None:
        """However long it takes, up to ``pin_age``; in any process."""
        array = np.arange(500_000)
        pending = cache.prepare(Call(name="f", arguments={"x": HUGE, "array": [array]}))
        age(root, 6 * DAY)
        with in_files(root) as other:
            assert other.gc().removed == 0
        key = pending.commit(large(2))
        assert cache.load(key).arguments["x"] == HUGE
        assert cache.load(key).arguments["array"][0][7] == 7

    def test_a_call_given_up(self, cache: Cache, root: Path) -> None:
        """The pins of processes that died are dropped, and what they kept goes."""
        cache.prepare(Call(name="f", arguments={"x": HUGE}))
        age(root, 2 * DAY)
        assert cache.gc() == GcReport(kept=1)
        report = cache.gc(pin_age=DAY)
        assert (report.removed, report.pins) == (1, 1)
        assert list(cache.calls.entries()) == []

    def test_a_call_that_outlives_its_pin(self, cache: Cache, root: Path) -> None:
        """Its result is stored all the same."""
        pending = cache.prepare(Call(name="f", arguments={"x": HUGE}))
        age(root, 8 * DAY)
        cache.gc()
        key = pending.commit([2])
        assert cache.load(key).result == [2]


class TestRefusals:
    def test_unreadable_records(self, cache: Cache, root: Path) -> None:
        """It is not known what a damaged record refers to, so nothing goes."""
        key = D(cache.save(call(x=large(1), result=large(2))))
        cache.save_value([1])
        age(root, 2 * HOUR)
        (path,) = root.rglob(f"*{key[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        with pytest.raises(StorageError, match=r"nothing was removed. verify\(repair=True\)"):
            cache.gc()
        assert contains(cache, [1])
        cache.verify(repair=True)
        assert cache.gc(grace=-1).removed == 3

    def test_a_failing_disk(self, root: Path) -> None:
        class Failing(CallFile):
            def get_many(self, keys: Any) -> Any:
                raise StorageError("input/output error")

        cache = Cache(ValueFile(root), Failing(root))
        cache.save(call(result=large(4)))
        with pytest.raises(StorageError, match="input/output error"):
            cache.gc(grace=-1)
        assert contains(cache, large(4))

    def test_read_only(self, cache: Cache) -> None:
        with pytest.raises(Rejected, match="gc refused"):
            cache.readonly().gc()


class TestValuesThatCannotBeRead:
    """Large buffers go with the last value that needs them, whether it can be read here or not."""

    def garble(self, root: Path, key: str, position: int, change: int = 3) -> None:
        (path,) = [each for each in root.rglob("*.value") if key[8:64] in each.name]
        content = bytearray(path.read_bytes())
        content[position] ^= change
        path.chmod(0o644)
        path.write_bytes(content)

    def array(self, number: int = 1) -> Any:
        return np.full(200_000, number, float)

    def garbage(self, cache: Cache) -> Digest:
        """Leave a value with a buffer of its own that no call refers to; return the buffer."""
        array = np.arange(200_000)
        cache.save_value({"garbage": array})
        return buffer_of(array)

    def is_here(self, cache: Cache, buffer: Digest) -> bool:
        return cache.backend.lacking([Address.of(buffer)]) == []

    def test_what_only_their_age_saves(self, cache: Cache) -> None:
        """Buffers that only young garbage needs count with it; those of a call do not."""
        kept = self.array() * 3
        cache.save(call(x=1, result={"large": LARGE, "shared": kept}))
        cache.evict(cache.save(call(x=2, result=[LARGE, kept, self.array()])))
        cache.evict(cache.save(call(x=3, result=[kept, self.array(4)])))
        report = cache.gc()
        assert (report.removed, report.kept) == (0, 5)
        assert cache.gc(grace=-1) == GcReport(removed=3, freed=report.young, kept=2)
        assert not self.is_here(cache, buffer_of(self.array()))
        assert self.is_here(cache, buffer_of(kept))

    def test_a_damaged_one_needs_no_buffers(self, cache: Cache, root: Path) -> None:
        """It can never be opened, so what it referred to goes, too."""
        value = {"array": self.array(), "large": LARGE}
        damaged = D(cache.save(call(result=value)))
        kept = D(cache.save(call(x="other", result=[self.array(0)])))
        buffer = self.garbage(cache)
        self.garble(root, result_of(cache, damaged), 40)
        age(root, 2 * HOUR)
        assert cache.gc().removed == 3
        assert not self.is_here(cache, buffer)
        assert not self.is_here(cache, buffer_of(self.array()))
        assert cache.load(kept).result[0][0] == 0

    @pytest.mark.parametrize("filling", [LARGE, ""], ids=["by itself", "with its record"])
    def test_one_of_another_secret_speaks_for_its_buffers(self, root: Path, filling: str) -> None:
        """It may be trusted elsewhere; the rest of the garbage goes."""
        theirs = Cache(ValueFile(root, secret_key="theirs"), CallFile(root))
        ours = Cache(ValueFile(root, secret_key="ours"), CallFile(root))
        value = {"array": self.array(), "filling": filling}
        key = D(theirs.save(call(x=[1], result=value)))
        buffer, other = self.garbage(ours), self.garbage(theirs)
        assert buffer == other
        age(root, 2 * HOUR)
        assert ours.gc().removed == 2
        assert not self.is_here(ours, buffer)
        assert theirs.load(key).result["array"][0] == 1

    def test_one_of_a_newer_fleche_may_need_any(self, cache: Cache, root: Path) -> None:
        """What it needs is not known, so no buffer goes."""
        newer = D(cache.save(call(result={"array": self.array(), "large": LARGE})))
        buffer = self.garbage(cache)
        self.garble(root, result_of(cache, newer), 8, change=1)
        age(root, 2 * HOUR)
        with pytest.raises(StorageError, match=r"no buffer was removed.*upgrade fleche"):
            cache.gc()
        assert self.is_here(cache, buffer)
        assert self.is_here(cache, buffer_of(self.array()))

    def test_a_record_of_a_newer_fleche(self, cache: Cache, root: Path) -> None:
        key = D(cache.save(call(result=large(1))))
        age(root, 2 * HOUR)
        (path,) = root.rglob(f"*{key[8:]}.call")
        content = bytearray(path.read_bytes())
        content[4] = 2
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
        assert contains(guarded, [1])

    def test_what_is_far_away_keeps_house_itself(self) -> None:
        """It is used by others; asked for itself, it is collected."""
        near, far = in_memory(), Layer(local=False)
        stack = CacheStack([near, far])
        for each in (near, far.inner):
            each.save_value([1])
        assert stack.gc(grace=-1).removed == 1
        assert stack.stats().values == 0
        assert far.gc(grace=-1).removed == 1


# -- races -----------------------------------------------------------------------------------------


class Hooked:
    """A cache that does something else at one moment of a collection."""

    def __init__(self, root: Path, moment: int, action: Callable[[], object]) -> None:  # noqa: C901
        self.steps = 0

        def step() -> None:
            self.steps += 1
            if self.steps == moment:
                action()

        class Values(ValueFile):
            def entries(self, prefix: str = "") -> Any:
                found = list(super().entries(prefix))
                if not prefix:
                    step()
                return iter(found)

            def delete_older(self, limits: Any) -> set[str]:
                step()
                return super().delete_older(limits)

        class Calls(CallFile):
            def entries(self, prefix: str = "") -> Any:
                if not prefix:
                    step()
                found = list(super().entries(prefix))
                if not prefix:
                    step()
                return iter(found)

            def get_many(self, keys: Any) -> Any:
                for key in keys:
                    step()
                    yield from super().get_many([key])

        self.cache = Cache(Values(root), Calls(root))


ARGUMENT, RESULT = ["argument", HUGE], ["result", LARGE]


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
    cache.save(call(x="other", result=large("other")))
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
    assert not contains(cache, "garbage")


def test_moments_are_all_covered(cache: Cache, root: Path) -> None:
    cache.save(call(x="other", result=large("other")))
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
        x, y = large(turn % 90), large([turn % 89, "result"])
        if turn % 2:  # too large to be kept in memory: stored first, under a pin
            x.append(HUGE)
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


def test_the_clock_of_a_file_server_counts(
    cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is ahead of that of the files takes nothing that is fresh."""
    cache.save_value([1])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * HOUR)
    assert cache.gc().kept == 1
    assert cache.values.now() < now + HOUR
    assert len([path for path in root.rglob("*") if path.is_file()]) == 1
    age(root, 2 * HOUR)
    assert cache.gc().removed == 1
