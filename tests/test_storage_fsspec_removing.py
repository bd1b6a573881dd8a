"""Removing old objects while others make them young: nothing that somebody relies on goes."""

from __future__ import annotations

import itertools
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
from fleche.digest import D, Digest, digest
from fleche.errors import StorageError
from fleche.parcel import Parcel, pack
from fleche.storage import CallFsspec, CallMemory, ValueFsspec
from fleche.storage.fsspec import notices
from fleche.storage.fsspec.source import BLOCK
from fleche.testing.corpus import Block, a_record
from tests.helpers.s3 import S3Server

KEY = digest("key")
OTHER = digest("other")


def parcel(value: Any = 1, key: Any = KEY) -> Parcel:
    return pack(value, digest=key)


Act = Callable[[ValueFsspec], bool]
"""Makes the entry young, and tells whether it is there then."""


def put(values: ValueFsspec) -> bool:
    values.put(KEY, parcel())
    return True


def put_many(values: ValueFsspec) -> bool:
    values.put_many({KEY: parcel(), OTHER: parcel(2, OTHER)})
    return True


def put_anew(values: ValueFsspec) -> bool:
    values.delete(KEY)
    return put(values)


def renew(values: ValueFsspec) -> bool:
    return values.renew(KEY)


class TestEverywhere:
    @pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
    def make(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[], ValueFsspec]]:
        """Open the same values each time it is called, as another process would."""
        monkeypatch.setattr(notices, "WARNING", 0.3)
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

    @pytest.mark.parametrize("act", [put, put_many, put_anew, renew])
    @pytest.mark.parametrize("after", [1, 2])
    def test_made_young_at_any_moment(
        self, make: Callable[[], ValueFsspec], act: Act, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a look at its age: it stays, or whoever relies on it knows that it is gone."""
        remover, other = make(), make()
        other.put(KEY, parcel())
        pause = 2.1 if remover._connection.traits.whole_seconds else 0.1
        time.sleep(pause)
        is_old, looks = remover._remover._is_old, itertools.count(1)
        done: list[Future[bool]] = []

        with ThreadPoolExecutor(1) as pool:

            def look(key: Digest, limit: float) -> bool:
                found = is_old(key, limit)
                if next(looks) == after:
                    done.append(pool.submit(act, other))
                    time.sleep(0.7)  # he is done, or waits
                return found

            monkeypatch.setattr(remover._remover, "_is_old", look)
            remover.delete_older(KEY, time.time() - pause / 2)
            if done and done[0].result(20):
                assert other.packing.unpack(other.get(KEY), KEY) == 1
        assert done or (after == 2 and remover._connection.traits.renames)

    def test_the_young_are_not_taken_for_old(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In whole seconds, what was renewed a moment ago looks as it did before."""
        values = make()
        values.put(KEY, parcel())
        seen = values.entry(KEY).modified
        time.sleep(0.02)
        assert values.renew(KEY)
        assert not values.delete_older(KEY, seen)
        monkeypatch.setattr("fleche.storage.fsspec.stored._YOUNG", 0.0)
        time.sleep(2.1)
        ((_, _, seen),) = values.entries()
        assert values.delete_older(KEY, seen)


class TestSettingAside:
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
        values.put(KEY, parcel())
        assert not values.delete_older(KEY, time.time() - 60)
        assert values.contains(KEY)
        assert values.delete_older(KEY, time.time() + 60)
        assert not values.contains(KEY)
        assert not values.delete_older(KEY, time.time() + 60)

    @pytest.mark.parametrize("how", ["put", "renew"])
    def test_made_young_in_time(
        self, values: ValueFsspec, after_the_look: Any, how: str, tmp_path: Path
    ) -> None:
        """Whoever renews it before it is set aside keeps it."""
        values.put(KEY, parcel())
        time.sleep(0.02)
        limit = time.time()
        time.sleep(0.02)
        other = ValueFsspec(f"file://{tmp_path}")
        after_the_look(lambda: other.put(KEY, parcel()) if how == "put" else other.renew(KEY))
        assert not values.delete_older(KEY, limit)
        assert values.packing.unpack(values.get(KEY), KEY) == 1
        other.close()

    def test_gone_before(self, values: ValueFsspec, after_the_look: Any) -> None:
        values.put(KEY, parcel())
        after_the_look(lambda: values.delete(KEY))
        assert not values.delete_older(KEY, time.time() + 60)

    def test_written_anew_while_it_is_aside(
        self, values: ValueFsspec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The old one goes, the new one stays."""
        values.put(KEY, parcel())
        other = ValueFsspec(f"file://{tmp_path}")
        real = values._remover._rename  # type: ignore[attr-defined]

        def rename(source: str, target: str) -> None:
            real(source, target)
            if target.endswith(".tmp"):
                assert not other.renew(KEY)
                other.put(KEY, parcel())

        limit = time.time() + 0.01
        time.sleep(0.02)
        monkeypatch.setattr(values._remover, "_rename", rename)
        assert values.delete_older(KEY, limit)
        monkeypatch.undo()
        assert other.packing.unpack(other.get(KEY), KEY) == 1
        other.close()


@pytest.mark.s3
class TestAnnouncing:
    """On object stores: whoever removes says so beforehand, and writers look out for that."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notices, "WARNING", 0.1)
        monkeypatch.setattr(notices, "_PATIENCE", 2.0)

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
        values.put(KEY, parcel())
        values.put(OTHER, parcel(2, OTHER))
        assert not values.delete_older(KEY, time.time() - 60)
        assert len(self.names(values)) == 2, "a notice, although there is nothing to remove"
        assert values.delete_older(KEY, time.time() + 60)
        assert list(values.keys()) == [OTHER]
        assert len(self.names(values)) == 2, "no notice"
        values.close()
        assert self.names(make()) == [f"{OTHER[:2]}/{OTHER[2:]}.value"]

    def notices(self, values: ValueFsspec) -> int:
        return sum("notice" in name for name in self.names(values))

    def fill(self, values: ValueFsspec) -> list[Digest]:
        keys = [digest(number) for number in range(3)]
        values.put_many({key: parcel(1, key) for key in keys})
        return keys

    def test_several_at_once(self, make: Callable[[], ValueFsspec]) -> None:
        """The notice goes at the end of them, so that nobody goes on taking care in vain."""
        values = make()
        first, second, third = self.fill(values)
        with values.removing():
            assert self.notices(values) == 0
            with values.removing():
                values.delete_older(first, time.time() + 60)
            values.delete_older(second, time.time() + 60)
            assert self.notices(values) == 1, "each block has one of its own"
        assert self.notices(values) == 0
        assert values._remover.calm() > time.monotonic()
        with values.removing():
            assert values.delete_older(third, time.time() + 60)
        assert self.notices(values) == 0

    def test_a_removal_that_may_still_happen(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The notice stays: whoever writes looks at what he has written."""
        values = make()
        key, *_ = self.fill(values)

        def remove(key: Any) -> None:
            raise StorageError("timed out")

        monkeypatch.setattr(values._objects, "remove", remove)
        with pytest.raises(StorageError), values.removing():
            values.delete_older(key, time.time() + 60)
        assert self.notices(values) == 1

    def test_two_threads(self, make: Callable[[], ValueFsspec]) -> None:
        """What the one has done does not end what the other announced."""
        values = make()
        first, second, _ = self.fill(values)
        with ThreadPoolExecutor(1) as pool, values.removing():
            values.delete_older(first, time.time() + 60)

            def another() -> None:
                with values.removing():
                    values.delete_older(second, time.time() + 60)
                    assert self.notices(values) == 2

            pool.submit(another).result(60)
            assert self.notices(values) == 1

    @pytest.mark.parametrize("how", ["gc", "make_room", "repair"])
    def test_keeping_house(self, make: Callable[[], ValueFsspec], how: str) -> None:
        """Whoever removes values, whatever for, takes his notice away at the end."""
        values = make()
        cache = Cache(values, CallMemory())
        keys = [cache.save(Call(name="f", arguments={"x": x}, result=[x])) for x in range(3)]
        before = len(list(values.keys()))
        time.sleep(6.1)  # younger ones may be in use
        assert cache.calls.renew_many(map(D, keys)) == []
        if how == "gc":
            cache.evict(keys[0])
            assert cache.gc(0).removed == 2
        elif how == "make_room":
            assert SizeLimitedCache(cache, max_size=1).make_room() == 2
        else:
            values._objects.connection.fs.pipe_file(values._objects.path(digest([0])), b"nonsense")
            time.sleep(6.1)
            assert cache.verify(repair=True).removed == 2
        assert len(list(values.keys())) < before
        assert self.notices(values) == 0

    def test_written_while_it_is_removed(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer waits until the removal is over, and writes again."""
        remover, writer = make(), make()
        remover.put(KEY, parcel())
        real, done = remover._objects.remove, threading.Event()

        def write() -> None:
            writer.put(KEY, parcel())
            done.set()

        thread = threading.Thread(target=write)

        def remove(key: Any) -> None:
            thread.start()  # after the second look at the age
            assert not done.wait(0.5), "the writer did not wait"
            real(key)

        monkeypatch.setattr(remover._objects, "remove", remove)
        assert remover.delete_older(KEY, time.time() + 60)
        thread.join(20)
        assert done.is_set()
        assert writer.packing.unpack(writer.get(KEY), KEY) == 1

    def test_renewed_before_the_second_look(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It stays; the writer has not been kept waiting for long."""
        remover, writer = make(), make()
        remover.put(KEY, parcel())
        limit = time.time()
        time.sleep(2.1)  # the store counts in seconds
        real = remover._remover._leave

        def leave(path: str) -> None:
            if "/removing/" not in path:
                writer.put(KEY, parcel())
            real(path)

        monkeypatch.setattr(remover._remover, "_leave", leave)
        assert not remover.delete_older(KEY, limit + 1)
        assert writer.contains(KEY)

    def test_the_mark_of_the_killed(self, make: Callable[[], ValueFsspec]) -> None:
        """It delays a writer once, who takes it away."""
        dead, writer = make(), make()
        dead._remover._announce()
        fs, place = dead._objects.connection.fs, dead._objects.place(KEY)
        fs.pipe_file(f"{place}.removing-0123", b"1")
        began = time.monotonic()
        writer.put(KEY, parcel())
        assert time.monotonic() - began > 1.5
        assert writer.contains(KEY)
        began = time.monotonic()
        writer.put(KEY, parcel())
        assert time.monotonic() - began < 1.5
        assert not [name for name in self.names(writer) if "0123" in name]

    def test_the_notice_of_the_killed(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It lapses."""
        dead, writer = make(), make()
        dead._remover._announce()
        assert writer._remover.calm() < time.monotonic()
        monkeypatch.setattr(notices, "_LAPSED", -5.0)
        time.sleep(0.2)
        assert writer._remover.calm() > time.monotonic()
        assert self.names(writer) == []

    def test_one_notice_for_many(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And one for the child of a fork, who leaves that of its parent alone."""
        values = make()
        keys = [digest(number) for number in range(4)]
        values.put_many({key: parcel(1, key) for key in keys})
        for key in keys[:3]:
            assert values.delete_older(key, time.time() + 60)
        (notice,) = [name for name in self.names(values) if "notice" in name]
        monkeypatch.setattr(notices.os, "getpid", os.getppid)  # as after a fork
        assert values.delete_older(keys[3], time.time() + 60)
        assert len(self.names(values)) == 2
        values.close()
        assert self.names(make()) == [notice]

    def test_removed_for_ever(
        self, make: Callable[[], ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever cannot get it stored says so."""
        values = make()
        monkeypatch.setattr(values._remover, "lasts", lambda key, until: False)
        with pytest.raises(StorageError, match="removed again at once"):
            values.put(KEY, parcel())
        with pytest.raises(StorageError, match="removed again at once"):
            values.put_many({KEY: parcel()})
        with pytest.raises(StorageError, match="removed again at once"):
            values.put(KEY, parcel(Block(bytes(BLOCK))))

    def test_records_need_none_of_this(self, s3: S3Server) -> None:
        """A record is written last, and nobody relies on one that is there."""
        calls = CallFsspec(s3.url(), s3.options)
        calls.put(KEY, a_record())
        assert calls.delete_older(KEY, time.time() + 60)
        assert list(calls.keys()) == []
        assert calls._objects.connection.fs.find(calls._objects.connection.root) == []
        calls.close()
