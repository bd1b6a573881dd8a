"""Removing old objects while others make them young: nothing that a writer relies on goes."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec")

from fleche.caches import Cache, SizeLimitedCache
from fleche.call import Call
from fleche.digest import Address, D, digest
from fleche.errors import StorageError
from fleche.parcel import Parcel, pack
from fleche.storage import CallFsspec, CallMemory, ValueFsspec
from fleche.storage.fsspec import _deletion
from fleche.storage.fsspec._objects import BLOCK
from fleche.testing.corpus import Block, an_entry
from tests.helpers.s3 import S3Server
from tests.helpers.storing import delete, entry, get, has, keys, put, take_older, touch
from tests.helpers.sweeps import swept

KEY = digest("key")
OTHER = digest("other")


def parcel(value: Any = 1, key: Any = KEY) -> Parcel:
    return pack(value, digest=key)


Act = Callable[[ValueFsspec], bool]
"""Makes the entry young, and returns whether it is there then."""


def put_one(values: ValueFsspec) -> bool:
    put(values, KEY, parcel())
    return True


def put_many(values: ValueFsspec) -> bool:
    values.put_many({KEY: parcel(), OTHER: parcel(2, OTHER)}.items())
    return True


def put_anew(values: ValueFsspec) -> bool:
    delete(values, KEY)
    return put_one(values)


def touch_it(values: ValueFsspec) -> bool:
    return touch(values, KEY)


class TestEverywhere:
    @pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
    def make(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[], ValueFsspec]]:
        """Open the same values each time it is called, as another process would."""
        monkeypatch.setattr(_deletion, "WARNING", 0.3)
        opened: list[ValueFsspec] = []
        url, options = f"file://{tmp_path}/values", {}
        if request.param == "s3":
            server = request.getfixturevalue("s3")
            url, options = server.url(), server.options

        def open_it() -> ValueFsspec:
            opened.append(ValueFsspec(url, options))
            return opened[-1]

        yield open_it
        for values in opened:
            values.close()

    @pytest.mark.parametrize(
        ("act", "after"),
        swept(
            itertools.product([put_one, put_many, put_anew, touch_it], [1, 2]),
            lambda case: case[0] is put_one,
        ),
    )
    def test_made_young_at_any_moment(
        self, make: Callable[[], ValueFsspec], act: Act, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a look at its age: it stays, or the writer that relies on it knows it is gone."""
        remover, other = make(), make()
        put(other, KEY, parcel())
        pause = 2.1 if remover._connection.traits.whole_seconds else 0.1
        time.sleep(pause)
        is_old, looks = remover._remover._is_old, itertools.count(1)
        done: list[Future[bool]] = []

        with ThreadPoolExecutor(1) as pool:

            def look(key: str, limit: float) -> bool:
                found = is_old(key, limit)
                if next(looks) == after:
                    done.append(pool.submit(act, other))
                    time.sleep(0.7)  # he is done, or waits
                return found

            monkeypatch.setattr(remover._remover, "_is_old", look)
            take_older(remover, KEY, time.time() - pause / 2)
            if done and done[0].result(20):
                assert other.packing.unpack(get(other, KEY), KEY) == 1
        assert done or (after == 2 and remover._connection.traits.renames)

    def test_the_young_are_not_taken_for_old(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In whole seconds, what was touched a moment ago looks as it did before."""
        values = make()
        put(values, KEY, parcel())
        seen = entry(values, KEY).modified
        time.sleep(0.02)
        assert touch(values, KEY)
        assert not take_older(values, KEY, seen)
        monkeypatch.setattr("fleche.storage.fsspec._storage._YOUNG", 0.0)
        time.sleep(2.1)
        ((_, _, seen),) = values.entries()
        assert take_older(values, KEY, seen)


class TestRenaming:
    """On filesystems that can rename: the object leaves its place before its age counts."""

    @pytest.fixture
    def values(self, tmp_path: Path) -> Iterator[ValueFsspec]:
        values = ValueFsspec(f"file://{tmp_path}")
        yield values
        values.close()
        assert list(tmp_path.rglob("*.tmp")) == []

    @pytest.fixture
    def after_the_look(
        self, values: ValueFsspec, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Callable[[], Any]], None]:
        """Have something done when the age has been looked at for the first time."""

        def when(action: Callable[[], Any]) -> None:
            real = values._remover._is_old

            def is_old(key: Any, limit: float) -> bool:
                found = real(key, limit)
                action()
                return found

            monkeypatch.setattr(values._remover, "_is_old", is_old)

        return when

    def test_an_old_one_goes(self, values: ValueFsspec) -> None:
        put(values, KEY, parcel())
        assert not take_older(values, KEY, time.time() - 60)
        assert has(values, KEY)
        assert take_older(values, KEY, time.time() + 60)
        assert not has(values, KEY)
        assert not take_older(values, KEY, time.time() + 60)

    @pytest.mark.parametrize("how", ["put", "touch"])
    def test_made_young_in_time(
        self, values: ValueFsspec, after_the_look: Any, how: str, tmp_path: Path
    ) -> None:
        """A writer that touches it before it is set aside keeps it."""
        put(values, KEY, parcel())
        time.sleep(0.02)
        limit = time.time()
        time.sleep(0.02)
        other = ValueFsspec(f"file://{tmp_path}")
        after_the_look(lambda: put(other, KEY, parcel()) if how == "put" else touch(other, KEY))
        assert not take_older(values, KEY, limit)
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        other.close()

    def test_gone_before(self, values: ValueFsspec, after_the_look: Any) -> None:
        put(values, KEY, parcel())
        after_the_look(lambda: delete(values, KEY))
        assert not take_older(values, KEY, time.time() + 60)

    def test_written_anew_while_it_is_aside(
        self, values: ValueFsspec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The old one goes, the new one stays."""
        put(values, KEY, parcel())
        other = ValueFsspec(f"file://{tmp_path}")
        real = values._objects.rename

        def rename(source: str, target: str) -> None:
            real(source, target)
            if target.endswith(".tmp"):
                assert not touch(other, KEY)
                put(other, KEY, parcel())

        limit = time.time() + 0.01
        time.sleep(0.02)
        monkeypatch.setattr(values._objects, "rename", rename)
        assert take_older(values, KEY, limit)
        monkeypatch.undo()
        assert other.packing.unpack(get(other, KEY), KEY) == 1
        other.close()


@pytest.mark.s3
class TestCoordinated:
    """On object stores: a process that removes says so beforehand, and writers look out for it."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_deletion, "WARNING", 0.1)
        monkeypatch.setattr(_deletion, "_PATIENCE", 2.0)

    @pytest.fixture
    def make(self, s3: S3Server) -> Iterator[Callable[[], ValueFsspec]]:
        """Open the same values each time it is called, as another process would."""
        url, opened = s3.url(), []

        def open_it() -> ValueFsspec:
            opened.append(ValueFsspec(url, s3.options))
            return opened[-1]

        yield open_it
        for values in opened:
            values.close()

    def names(self, values: ValueFsspec) -> list[str]:
        """Whatever lies in the store, by its name below the root."""
        connection = values._objects.connection
        connection.fs.invalidate_cache()
        return [
            path.removeprefix(f"{connection.root}/") for path in connection.fs.find(connection.root)
        ]

    def test_an_old_one_goes(self, make: Callable[[], ValueFsspec]) -> None:
        """And nothing stays behind."""
        values = make()
        put(values, KEY, parcel())
        put(values, OTHER, parcel(2, OTHER))
        assert not take_older(values, KEY, time.time() - 60)
        assert len(self.names(values)) == 2, "a notice, although there is nothing to remove"
        assert take_older(values, KEY, time.time() + 60)
        assert keys(values) == [OTHER]
        assert len(self.names(values)) == 1, "the notice, or a mark"
        values.close()
        assert self.names(make()) == [f"{OTHER[:2]}/{OTHER[2:]}.value"]

    def notices(self, values: ValueFsspec) -> int:
        return sum("notice" in name for name in self.names(values))

    def fill(self, values: ValueFsspec) -> list[str]:
        stored: list[str] = [digest(number) for number in range(3)]
        values.put_many((key, parcel(1, key)) for key in stored)
        return stored

    def test_several_at_once(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One notice is for all, and goes at the end, so that writers need no more care."""
        values = make()
        stored = self.fill(values)
        seen: list[int] = []
        remove = values._objects.remove

        def count(key: str) -> None:
            seen.append(self.notices(values))
            remove(key)

        monkeypatch.setattr(values._objects, "remove", count)
        limits = dict.fromkeys((*stored[:2], OTHER), time.time() + 60)
        assert values.delete_older(limits) == set(stored[:2])
        assert seen == [1, 1]
        assert self.notices(values) == 0
        assert values._remover.safe_until() > time.monotonic()
        assert take_older(values, stored[2], time.time() + 60)
        assert self.notices(values) == 0

    def test_a_removal_that_may_still_happen(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The notice stays: a writer looks at what it has written."""
        values = make()
        key, *_ = self.fill(values)

        def remove(key: Any) -> None:
            raise StorageError("timed out")

        monkeypatch.setattr(values._objects, "remove", remove)
        with pytest.raises(StorageError):
            take_older(values, key, time.time() + 60)
        assert self.notices(values) == 1

    def test_two_threads(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the one has done does not end what the other announced."""
        values = make()
        first, second, _ = self.fill(values)
        remove, seen = values._objects.remove, list[int]()

        def count(key: str) -> None:
            if key == first:
                with ThreadPoolExecutor(1) as pool:
                    assert pool.submit(take_older, values, second, time.time() + 60).result(60)
            seen.append(self.notices(values))
            remove(key)

        monkeypatch.setattr(values._objects, "remove", count)
        assert take_older(values, first, time.time() + 60)
        assert seen == [2, 1]
        assert self.notices(values) == 0

    @pytest.mark.parametrize("how", swept(["gc", "make_room", "repair"], "make_room".__eq__))
    def test_keeping_house(self, make: Callable[[], ValueFsspec], how: str) -> None:
        """Values that are removed for any reason leave no notice at the end."""
        values = make()
        cache = Cache(values, CallMemory())
        results = [bytes([x]) * 50_000 for x in range(3)]
        saved = [
            cache.save(Call(name="f", arguments={"x": x}, result=result))
            for x, result in enumerate(results)
        ]
        stored = {Address(found.key).digest: found.key for found in values.entries()}
        assert len(stored) == 3
        time.sleep(6.1)  # younger ones may be in use
        assert cache.calls.touch_many(map(D, saved)) == set(saved)
        if how == "gc":
            cache.evict(saved[0])
            assert cache.gc(0).removed == 1
        elif how == "make_room":
            assert SizeLimitedCache(cache, max_size=1).make_room() == 2
        else:
            path = values._objects.path(stored[digest(results[0])])
            values._objects.connection.fs.pipe_file(path, b"nonsense")
            time.sleep(6.1)
            assert cache.verify(repair=True).removed == 2
        assert len(keys(values)) < 3
        assert self.notices(values) == 0

    def test_written_while_it_is_removed(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer waits until the removal is over, and writes again."""
        remover, writer = make(), make()
        put(remover, KEY, parcel())
        real, done = remover._objects.remove, threading.Event()

        def write() -> None:
            put(writer, KEY, parcel())
            done.set()

        thread = threading.Thread(target=write)

        def remove(key: Any) -> None:
            thread.start()  # after the second look at the age
            assert not done.wait(0.5), "the writer did not wait"
            real(key)

        monkeypatch.setattr(remover._objects, "remove", remove)
        assert take_older(remover, KEY, time.time() + 60)
        thread.join(20)
        assert done.is_set()
        assert writer.packing.unpack(get(writer, KEY), KEY) == 1

    def test_touched_before_the_second_look(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It stays; the writer has not been kept waiting for long."""
        remover, writer = make(), make()
        put(remover, KEY, parcel())
        limit = time.time()
        time.sleep(2.1)  # the store counts in seconds
        real = remover._remover._leave

        def leave(path: str) -> None:
            if "/removing/" not in path:
                put(writer, KEY, parcel())
            real(path)

        monkeypatch.setattr(remover._remover, "_leave", leave)
        assert not take_older(remover, KEY, limit + 1)
        assert has(writer, KEY)

    def test_the_mark_of_the_killed(self, make: Callable[[], ValueFsspec]) -> None:
        """It delays a writer once, which takes it away."""
        dead, writer = make(), make()
        dead._remover._announce()
        fs, place = dead._objects.connection.fs, dead._objects.place(KEY)
        fs.pipe_file(f"{place}.removing-0123", b"1")
        began = time.monotonic()
        put(writer, KEY, parcel())
        assert time.monotonic() - began > 1.5
        assert has(writer, KEY)
        began = time.monotonic()
        put(writer, KEY, parcel())
        assert time.monotonic() - began < 1.5
        assert not [name for name in self.names(writer) if "0123" in name]

    def test_the_notice_of_the_killed(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It lapses."""
        dead, writer = make(), make()
        dead._remover._announce()
        assert writer._remover.safe_until() < time.monotonic()
        monkeypatch.setattr(_deletion, "_LAPSED", -5.0)
        deadline = time.monotonic() + 20
        while writer._remover.safe_until() == -math.inf:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert self.names(writer) == []

    def test_a_fork(self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch) -> None:
        """A child leaves the notice of its parent alone."""
        values = make()
        first, second, _ = self.fill(values)
        values._remover._announce()
        (notice,) = [name for name in self.names(values) if "notice" in name]
        monkeypatch.setattr(_deletion.os, "getpid", os.getppid)  # as after a fork
        values.delete_older(dict.fromkeys((first, second), time.time() + 60))
        values.close()
        assert [name for name in self.names(make()) if "notice" in name] == [notice]

    def test_marks_of_another_form(self, make: Callable[[], ValueFsspec]) -> None:
        """The removal of one form of a value is no matter of the others."""
        dead, writer = make(), make()
        dead._remover._announce()
        form = Address.of(KEY, "0123456789abcdef" * 2)
        fs, place = dead._objects.connection.fs, dead._objects.place(form)
        fs.pipe_file(f"{place}.removing-0123", b"1")
        began = time.monotonic()
        put(writer, KEY, parcel())
        assert time.monotonic() - began < 1.5
        assert has(writer, KEY)

    def test_removed_for_ever(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be stored is an error."""
        values = make()
        monkeypatch.setattr(values._remover, "survived", lambda key, until: False)
        with pytest.raises(StorageError, match="removed again at once"):
            put(values, KEY, parcel())
        with pytest.raises(StorageError, match="removed again at once"):
            values.put_many({KEY: parcel()}.items())
        with pytest.raises(StorageError, match="removed again at once"):
            put(values, KEY, parcel(Block(bytes(BLOCK))))

    def test_records_need_none_of_this(self, s3: S3Server) -> None:
        """An entry is written last, and no writer relies on one that is there."""
        calls = CallFsspec(s3.url(), s3.options)
        put(calls, KEY, an_entry())
        assert take_older(calls, KEY, time.time() + 60)
        assert keys(calls) == []
        assert calls._objects.connection.fs.find(calls._objects.connection.root) == []
        calls.close()
