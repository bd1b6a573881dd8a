"""Locks: one owner for each key at a time, in files and in a database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import Cache, CachePool, CacheStack, RefreshingCache
from fleche.digest import Digest, digest
from fleche.storage import (
    CallFile,
    CallMemory,
    CallStorage,
    CallVoid,
    Lock,
    LockTable,
    Sql,
    ValueMemory,
)
from fleche.storage.local import CallLocal
from fleche.testing.corpus import an_entry
from tests.helpers.layers import in_files, in_memory
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401
from tests.helpers.storing import delete, has, keys, put, touch

KEY = digest("key")
OTHER = digest("other")

KINDS = ["file", "local", "sql", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CallStorage]:
    made: dict[str, Callable[[], CallStorage]] = {
        "file": lambda: CallFile(tmp_path / "calls"),
        "local": lambda: CallLocal(tmp_path / "calls"),
        "sql": lambda: Sql(tmp_path / "calls.db"),
        "postgres": lambda: Sql(request.getfixturevalue("postgres")()),
    }
    found = made[request.param]()
    yield found
    found.close()


@pytest.fixture
def locks(storage: CallStorage) -> LockTable:
    return storage.locks


def locked(locks: LockTable, owner: str = "a") -> Lock:
    """The lock of an owner, as others see it."""
    assert locks.acquire(KEY, owner) is None
    found = locks.acquire(KEY, "another")
    assert found is not None
    return found


class TestLockTable:
    def test_the_first_has_it(self, locks: LockTable) -> None:
        """Others see which; another key is another matter."""
        found = locked(locks)
        assert found.owner == "a"
        assert locks.acquire(OTHER, "b") is None

    def test_released(self, locks: LockTable) -> None:
        """The next that comes has it; only the owner gives it up."""
        locked(locks)
        locks.release(KEY, "b")
        assert locks.acquire(KEY, "b") is not None
        locks.release(KEY, "a")
        assert locks.acquire(KEY, "b") is None
        locks.release(OTHER, "b")

    def test_renewed(self, locks: LockTable) -> None:
        """Others see that the owner is alive; an owner that has lost it is told."""
        before = locked(locks)
        time.sleep(0.05)
        assert locks.heartbeat(KEY, "a")
        after = locks.acquire(KEY, "b")
        assert after is not None
        assert after.owner == "a"
        assert after.heartbeat > before.heartbeat
        assert not locks.heartbeat(KEY, "b")
        assert not locks.heartbeat(OTHER, "a")

    def test_the_clock_is_that_of_the_storage(self, locks: LockTable) -> None:
        """The age of a lock is the difference of two readings of one clock."""
        found = locked(locks)
        assert 0 <= locks.now(KEY) - found.heartbeat < 5
        time.sleep(0.2)
        assert 0.15 < locks.now(KEY) - found.heartbeat < 5

    def test_stolen(self, locks: LockTable) -> None:
        """Another owner takes the place of the one that was seen; the old one has it no more."""
        old = locked(locks)
        assert locks.steal(KEY, "b", old)
        assert not locks.heartbeat(KEY, "a")
        locks.release(KEY, "a")
        found = locks.acquire(KEY, "c")
        assert found is not None
        assert found.owner == "b"
        assert not locks.steal(KEY, "c", old)

    def test_an_owner_that_was_only_slow(self, locks: LockTable) -> None:
        """A lock that has been renewed since it was seen stays."""
        old = locked(locks)
        time.sleep(0.05)
        assert locks.heartbeat(KEY, "a")
        assert not locks.steal(KEY, "b", old)
        assert locks.heartbeat(KEY, "a")

    def test_gone_meanwhile(self, locks: LockTable) -> None:
        """What was released cannot be stolen; it can be acquired."""
        old = locked(locks)
        locks.release(KEY, "a")
        assert not locks.steal(KEY, "b", old)
        assert locks.acquire(KEY, "b") is None

    def test_one_of_many(self, locks: LockTable) -> None:
        """Of many owners that ask at once one has it, and so it is with stealing."""
        with ThreadPoolExecutor(8) as pool:
            for turn in range(5):
                key = digest(turn)
                asked = list(pool.map(lambda n, key=key: locks.acquire(key, f"o{n}"), range(16)))
                assert asked.count(None) == 1
                old = locks.acquire(key, "another")
                assert old is not None
                over = pool.map(
                    lambda n, key=key, old=old: locks.steal(key, f"p{n}", old), range(16)
                )
                assert list(over).count(True) == 1

    def test_none_slips_in(self, locks: LockTable) -> None:
        """While several steal from an owner that has died, those that come new find it locked."""
        for turn in range(20):
            key = digest(("slip", turn))
            assert locks.acquire(key, "dead") is None
            old = locks.acquire(key, "another")
            assert old is not None
            together = threading.Barrier(8)

            def come(
                number: int, key: Digest = key, old: Lock = old, wait: Any = together.wait
            ) -> bool:
                wait(20)
                if number % 2:
                    return locks.steal(key, f"heir {number}", old)
                return any(locks.acquire(key, f"new {number}") is None for _ in range(20))

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(come, range(8))).count(True) == 1

    def test_one_after_the_other_dies(self, locks: LockTable) -> None:
        """Each can be stolen from, and what the last one releases is free."""
        old = locked(locks, "first")
        for name in ("second", "third", "fourth"):
            assert locks.steal(KEY, name, old)
            assert locks.heartbeat(KEY, name)
            found = locks.acquire(KEY, "new")
            assert found is not None
            assert found.owner == name
            old = found
        for name in ("first", "second", "third"):
            assert not locks.heartbeat(KEY, name)
            locks.release(KEY, name)
        locks.release(KEY, "fourth")
        assert locks.acquire(KEY, "new") is None
        locks.release(KEY, "new")

    def test_no_entry(self, storage: CallStorage) -> None:
        """A lock is no call: it is not listed, found, touched or removed as one."""
        put(storage, OTHER, an_entry())
        locked(storage.locks)
        assert keys(storage) == [OTHER]
        assert not has(storage, KEY)
        assert not touch(storage, KEY)
        delete(storage, KEY)
        assert storage.locks.heartbeat(KEY, "a")


def lock_file(root: Path) -> Path:
    return root / KEY[:2] / f"{KEY[2:]}.call.lock.tmp"


class TestInFiles:
    def test_what_a_killed_owner_leaves_is_swept(self, tmp_path: Path) -> None:
        """It goes with the other leftovers; while its owner lives, it stays."""
        calls = CallFile(tmp_path)
        locked(calls.locks)
        keys(calls)
        assert lock_file(tmp_path).exists()
        then = time.time() - 4000
        os.utime(lock_file(tmp_path), (then, then))
        keys(calls)
        assert not lock_file(tmp_path).exists()

    def test_an_owner_killed_before_it_wrote_its_name(self, tmp_path: Path) -> None:
        """An empty file is a lock without an owner, which can be stolen."""
        calls = CallFile(tmp_path)
        lock_file(tmp_path).parent.mkdir()
        lock_file(tmp_path).touch()
        found = calls.locks.acquire(KEY, "a")
        assert found is not None
        assert found.owner == ""
        assert calls.locks.steal(KEY, "a", found)

    def test_nothing_else_is_left(self, tmp_path: Path) -> None:
        """Neither probes nor what was set aside."""
        calls = CallFile(tmp_path)
        old = locked(calls.locks)
        calls.locks.now(KEY)
        calls.locks.steal(KEY, "b", Lock("a", 0.0))
        calls.locks.steal(KEY, "b", old)
        calls.locks.release(KEY, "b")
        assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


class TestWhoHasThem:
    def test_storages_of_one_process(self) -> None:
        """What no other process sees grants everything."""
        for calls in (CallMemory(), CallVoid(), Sql()):
            assert not calls.locks.shared
            assert calls.locks.acquire(KEY, "a") is calls.locks.acquire(KEY, "b") is None
            assert calls.locks.heartbeat(KEY, "a")
            assert calls.locks.steal(KEY, "a", Lock("b", 0.0))
            calls.locks.release(KEY, "a")
            calls.locks.now(KEY)

    def test_caches(self, tmp_path: Path) -> None:
        """Locks are those of where saves go."""
        files, memory = in_files(tmp_path), in_memory()
        assert files.locks is files.calls.locks
        assert files.filter(name="f").locks is files.locks
        assert CacheStack((files, memory)).locks is files.locks
        assert not CacheStack((memory, files)).locks.shared
        assert not CachePool((files,)).locks.shared
        assert not RefreshingCache(files).locks.shared
        assert not Cache(ValueMemory(), CallMemory()).locks.shared
