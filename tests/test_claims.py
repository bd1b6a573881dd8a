"""Claims: one owner for each key, whoever asks, in files and in a database."""

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
from fleche.claims import Claim, Claims
from fleche.digest import Digest, digest
from fleche.storage import CallFile, CallMemory, CallVoid, Sql, ValueFile, ValueMemory
from fleche.testing.corpus import a_record
from tests.helpers.layers import in_files, in_memory
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401

KEY = digest("key")
OTHER = digest("other")

KINDS = ["file", "sql", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CallFile | Sql]:
    made: dict[str, Callable[[], CallFile | Sql]] = {
        "file": lambda: CallFile(tmp_path / "calls"),
        "sql": lambda: Sql(tmp_path / "calls.db"),
        "postgres": lambda: Sql(request.getfixturevalue("postgres")()),
    }
    found = made[request.param]()
    yield found
    found.close()


@pytest.fixture
def claims(storage: CallFile | Sql) -> Claims:
    return storage.claims


def taken(claims: Claims, owner: str = "a") -> Claim:
    """The claim of an owner, as others see it."""
    assert claims.take(KEY, owner) is None
    found = claims.take(KEY, "somebody")
    assert found is not None
    return found


class TestClaims:
    def test_the_first_has_it(self, claims: Claims) -> None:
        """Others see who; another key is another matter."""
        found = taken(claims)
        assert found.owner == "a"
        assert claims.take(OTHER, "b") is None

    def test_released(self, claims: Claims) -> None:
        """Whoever comes next has it; only the owner gives it up."""
        taken(claims)
        claims.release(KEY, "b")
        assert claims.take(KEY, "b") is not None
        claims.release(KEY, "a")
        assert claims.take(KEY, "b") is None
        claims.release(OTHER, "b")

    def test_renewed(self, claims: Claims) -> None:
        """Others see that the owner is alive; whoever has lost it is told."""
        before = taken(claims)
        time.sleep(0.05)
        assert claims.renew(KEY, "a")
        after = claims.take(KEY, "b")
        assert after is not None
        assert after.owner == "a"
        assert after.beat > before.beat
        assert not claims.renew(KEY, "b")
        assert not claims.renew(OTHER, "a")

    def test_the_clock_is_that_of_the_storage(self, claims: Claims) -> None:
        """The age of a claim is the difference of two readings of one clock."""
        found = taken(claims)
        assert 0 <= claims.now(KEY) - found.beat < 5
        time.sleep(0.2)
        assert 0.15 < claims.now(KEY) - found.beat < 5

    def test_taken_over(self, claims: Claims) -> None:
        """Another owner takes the place of one who was seen; the old one has it no more."""
        old = taken(claims)
        assert claims.take_over(KEY, "b", old)
        assert not claims.renew(KEY, "a")
        claims.release(KEY, "a")
        found = claims.take(KEY, "c")
        assert found is not None
        assert found.owner == "b"
        assert not claims.take_over(KEY, "c", old)

    def test_an_owner_who_was_only_slow(self, claims: Claims) -> None:
        """A claim that has been renewed since it was seen stays."""
        old = taken(claims)
        time.sleep(0.05)
        assert claims.renew(KEY, "a")
        assert not claims.take_over(KEY, "b", old)
        assert claims.renew(KEY, "a")

    def test_gone_meanwhile(self, claims: Claims) -> None:
        """What was released cannot be taken over; it can be taken."""
        old = taken(claims)
        claims.release(KEY, "a")
        assert not claims.take_over(KEY, "b", old)
        assert claims.take(KEY, "b") is None

    def test_one_of_many(self, claims: Claims) -> None:
        """Of many who ask at once one has it, and so it is with taking over."""
        with ThreadPoolExecutor(8) as pool:
            for turn in range(5):
                key = digest(turn)
                asked = list(pool.map(lambda n, key=key: claims.take(key, f"o{n}"), range(16)))
                assert asked.count(None) == 1
                old = claims.take(key, "somebody")
                assert old is not None
                over = pool.map(
                    lambda n, key=key, old=old: claims.take_over(key, f"p{n}", old), range(16)
                )
                assert list(over).count(True) == 1

    def test_nobody_slips_in(self, claims: Claims) -> None:
        """While several take over from one who has died, those who come new find it taken."""
        for turn in range(20):
            key = digest(("slip", turn))
            assert claims.take(key, "dead") is None
            old = claims.take(key, "somebody")
            assert old is not None
            together = threading.Barrier(8)

            def come(
                number: int, key: Digest = key, old: Claim = old, wait: Any = together.wait
            ) -> bool:
                wait(20)
                if number % 2:
                    return claims.take_over(key, f"heir {number}", old)
                return any(claims.take(key, f"new {number}") is None for _ in range(20))

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(come, range(8))).count(True) == 1

    def test_one_after_the_other_dies(self, claims: Claims) -> None:
        """Each can be taken over, and what the last one releases is free."""
        old = taken(claims, "first")
        for name in ("second", "third", "fourth"):
            assert claims.take_over(KEY, name, old)
            assert claims.renew(KEY, name)
            found = claims.take(KEY, "new")
            assert found is not None
            assert found.owner == name
            old = found
        for name in ("first", "second", "third"):
            assert not claims.renew(KEY, name)
            claims.release(KEY, name)
        claims.release(KEY, "fourth")
        assert claims.take(KEY, "new") is None
        claims.release(KEY, "new")

    def test_no_entry(self, storage: CallFile | Sql) -> None:
        """A claim is no call: it is not listed, counted, found or renewed."""
        storage.put(OTHER, a_record())
        taken(storage.claims)
        assert list(storage.keys()) == [OTHER]
        assert [entry.key for entry in storage.entries()] == [OTHER]
        assert not storage.contains(KEY)
        assert not storage.renew(KEY)
        storage.delete(KEY)
        assert storage.claims.renew(KEY, "a")


def claim_file(root: Path) -> Path:
    return root / KEY[:2] / f"{KEY[2:]}.call.claim.tmp"


class TestInFiles:
    def test_what_a_killed_owner_leaves_is_swept(self, tmp_path: Path) -> None:
        """It goes with the other leftovers; while its owner lives, it stays."""
        calls = CallFile(tmp_path)
        taken(calls.claims)
        list(calls.keys())
        assert claim_file(tmp_path).exists()
        then = time.time() - 4000
        os.utime(claim_file(tmp_path), (then, then))
        list(calls.keys())
        assert not claim_file(tmp_path).exists()

    def test_an_owner_killed_before_it_wrote_its_name(self, tmp_path: Path) -> None:
        """An empty file is a claim of nobody, which can be taken over."""
        calls = CallFile(tmp_path)
        claim_file(tmp_path).parent.mkdir()
        claim_file(tmp_path).touch()
        found = calls.claims.take(KEY, "a")
        assert found is not None
        assert found.owner == ""
        assert calls.claims.take_over(KEY, "a", found)

    def test_nothing_else_is_left(self, tmp_path: Path) -> None:
        """Neither probes nor what was set aside."""
        calls = CallFile(tmp_path)
        old = taken(calls.claims)
        calls.claims.now(KEY)
        calls.claims.take_over(KEY, "b", Claim("a", 0.0))
        calls.claims.take_over(KEY, "b", old)
        calls.claims.release(KEY, "b")
        assert [found for found in tmp_path.rglob("*") if found.is_file()] == []

    def test_values_are_not_claimed(self, tmp_path: Path) -> None:
        ValueFile(tmp_path).sweep(0)


class TestInADatabase:
    def test_old_claims_go(self, tmp_path: Path) -> None:
        """What processes left that died long ago does not pile up."""
        calls = Sql(tmp_path / "calls.db")
        old = taken(calls.claims)
        import sqlite3

        with sqlite3.connect(tmp_path / "calls.db") as connection:
            connection.execute("UPDATE fleche_claims SET beat = ?", (old.beat - 100_000,))
        assert calls.claims.take(OTHER, "b") is None
        rows = sqlite3.connect(tmp_path / "calls.db").execute("SELECT key FROM fleche_claims")
        assert rows.fetchall() == [(OTHER,)]
        calls.close()


class TestWhoHasThem:
    def test_storages_of_one_process(self) -> None:
        """What no other process sees grants everything."""
        for calls in (CallMemory(), CallVoid(), Sql()):
            assert not calls.claims.shared
            assert calls.claims.take(KEY, "a") is calls.claims.take(KEY, "b") is None
            assert calls.claims.renew(KEY, "a")
            assert calls.claims.take_over(KEY, "a", Claim("b", 0.0))
            calls.claims.release(KEY, "a")
            calls.claims.now(KEY)

    def test_caches(self, tmp_path: Path) -> None:
        """Claims are those of where saves go."""
        files, memory = in_files(tmp_path), in_memory()
        assert files.claims is files.calls.claims
        assert files.filter(name="f").claims is files.claims
        assert CacheStack((files, memory)).claims is files.claims
        assert not CacheStack((memory, files)).claims.shared
        assert not CachePool((files,)).claims.shared
        assert not RefreshingCache(files).claims.shared
        assert not Cache(ValueMemory(), CallMemory()).claims.shared
