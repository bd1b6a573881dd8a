"""Results that expire or must be valid, and exceptions that are kept."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import fleche
from fleche import cache
from fleche.caches import CacheStack
from tests.helpers.layers import in_memory

runs: list[Any] = []


class ConvergenceError(Exception):
    pass


class Worse(ConvergenceError):
    pass


@pytest.fixture(autouse=True)
def store() -> None:
    runs.clear()
    cache(in_memory())


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class TestExpiry:
    @pytest.mark.parametrize("expires", ["0.2s", timedelta(seconds=0.2)])
    def test_what_is_older_is_computed_anew(self, expires: Any) -> None:
        @fleche.fleche(version=1, expires=expires)
        def now(x: int) -> int:
            runs.append(x)
            return len(runs)

        with fleche.meta(None):  # it does not take the metadata to know when that was
            assert now(1) == now(1) == 1
            assert now.contains(1)
            time.sleep(0.25)
            assert not now.contains(1)
            assert now.explain(1).reason == "refused"
            assert "old, and expires after 200 ms" in str(now.explain(1))
            assert now(1) == 2
            assert now(1) == 2

    @pytest.mark.parametrize("validate", [None, lambda result: result > 1])
    def test_what_is_refused_is_no_hit(self, validate: Any) -> None:
        """Nothing was saved by it: neither the counters of the cache nor those of use say so."""

        @fleche.fleche(version=1, expires=None if validate else "0.2s", validate=validate)
        def now(x: int) -> int:
            runs.append(x)
            return len(runs)

        now(1)
        time.sleep(0 if validate else 0.25)
        assert (now(1), now(1)) == (2, 2)
        counts = cache().backend.counts()
        assert (counts["hits"], counts["misses"]) == (1, 2)
        assert [(row.hits, row.misses) for row in cache().usage()] == [(1, 2)]

    def test_in_a_stack(self) -> None:
        """What a far layer still has does not come back."""

        @fleche.fleche(version=1, expires="0.2s")
        def now(x: int) -> int:
            runs.append(x)
            return len(runs)

        far = in_memory()
        with cache(far):
            now(1)
        time.sleep(0.25)
        with cache(CacheStack((in_memory(), far))):
            assert now(1) == 2
            assert now(1) == 2

    def test_a_clock_that_was_ahead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a machine stored whose clock was a year ahead does not hold for a year."""

        @fleche.fleche(version=1, expires="1h")
        def now(x: int) -> int:
            runs.append(x)
            return len(runs)

        assert now(1) == now(1) == 1

        class Right(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) - timedelta(days=365)

        monkeypatch.setattr("fleche.decorator._rules.datetime", Right)
        assert "from now, by another clock" in str(now.explain(1))
        assert now(1) == 2

    def test_stale_while_it_is_recomputed(self) -> None:
        """The old one comes at once, and the new one is there for the next call."""
        go = threading.Event()

        @fleche.fleche(version=1, expires="0.1s", stale=True)
        def now(x: int) -> int:
            runs.append(x)
            if len(runs) > 1:
                go.wait(20)
            return len(runs)

        assert now(1) == 1
        time.sleep(0.15)
        assert now(1) == now(1) == 1
        wait_for(lambda: len(runs) == 2)
        go.set()
        wait_for(lambda: now.load(1).result == 2)
        assert len(runs) == 2

    def test_no_thread_to_be_had(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The old one comes; it is computed anew when there is a thread for that."""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        @fleche.fleche(version=1, expires="0.1s", stale=True)
        def now(x: int) -> int:
            runs.append(x)
            return len(runs)

        assert now(1) == 1
        time.sleep(0.15)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert now(1) == 1
        assert "not computed anew: can't start new thread" in caplog.text
        assert now(1) == 1
        wait_for(lambda: now.load(1).result == 2)

    def test_mistakes(self) -> None:
        with pytest.raises(ValueError, match="'soon' is no time"):
            fleche.fleche(expires="soon")(len)
        with pytest.raises(ValueError, match="say expires="):
            fleche.fleche(stale=True)
        with pytest.raises(TypeError, match="not coroutines"):

            @fleche.fleche(expires="1d", stale=True)
            async def f() -> None: ...

        with pytest.raises(TypeError, match="validate=3"):
            fleche.fleche(validate=3)  # type: ignore[call-overload]
        wrong: Any
        for wrong in (True, None, "x", ["x"]):
            with pytest.raises(TypeError, match=r"errors=.*: classes of exceptions are wanted"):
                fleche.fleche(errors=wrong)  # type: ignore[call-overload]


def test_validity(tmp_path: Path) -> None:
    """A stored result that is not right any more is computed anew, and replaced."""

    @fleche.fleche(version=1, validate=lambda path: Path(path).exists())
    def made(name: str) -> str:
        runs.append(name)
        (tmp_path / name).touch()
        return str(tmp_path / name)

    assert made("a") == made("a")
    assert runs == ["a"]
    Path(made("a")).unlink()
    assert "not valid any more" in str(made.explain("a"))
    assert Path(made("a")).exists()
    assert runs == ["a", "a"]


@pytest.mark.parametrize("error", [KeyError("energy"), OSError("the disk is away")], ids=str)
def test_validity_that_cannot_be_told(error: Exception) -> None:
    """A ``validate=`` that raises is told as the reason; a call raises the same."""

    def check(_: object) -> bool:
        raise error

    @fleche.fleche(version=1, validate=check)
    def made(x: int) -> int:
        return x

    made(1)
    with pytest.raises(type(error)):
        made(1)
    found = made.explain(1)
    assert found.reason == "refused"
    assert not found
    assert "would raise what validate= does" in found.text
    assert found.text.endswith(f"{type(error).__name__}: {error}")


class TestErrors:
    def test_kept_like_results(self) -> None:
        """The same class, with the same arguments, without running; of subclasses, too."""

        @fleche.fleche(version=1, errors=(ConvergenceError,))
        def relax(x: int) -> int:
            runs.append(x)
            raise (Worse if x else ConvergenceError)("after 100 steps", x)

        for x in (0, 1):
            for _ in range(3):
                with pytest.raises(ConvergenceError) as caught:
                    relax(x)
                assert caught.value.args == ("after 100 steps", x)
                assert type(caught.value) is (Worse if x else ConvergenceError)
        assert runs == [0, 1]
        call = relax.query(x=1).only()
        assert isinstance(call.error, Worse)
        assert "Worse" in str(cache().table())
        assert bool(relax.explain(1))
        assert relax.clear() == 2
        assert cache().verify().ok

    def test_they_are_hits(self, caplog: pytest.LogCaptureFixture) -> None:
        """They are counted and told as such, and nothing is said to be gone."""

        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            raise ConvergenceError("after 100 steps", x)

        with caplog.at_level("DEBUG", "fleche.calls"):
            for _ in range(3):
                with pytest.raises(ConvergenceError):
                    relax(1)
        found = cache().stats()
        assert (found.hits, found.misses, found.events["dangling"]) == (2, 1, 0)
        assert (relax.stats().hits, relax.stats().misses) == (2, 1)
        told = [line for line in caplog.messages if line.startswith("hit: ") and "x=1" in line]
        assert len(told) == 2
        assert "ConvergenceError: after 100 steps, 1" in told[0]

    def test_others_do_not_find_them(self) -> None:
        """A call that raised is no result, and none that is gone."""

        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            raise ConvergenceError(x)

        with pytest.raises(ConvergenceError):
            relax(1)
        key = relax.digest(1)
        assert cache().lookup(key) is None
        assert cache().lookup_many([key]) == {}
        assert cache().stats().events["dangling"] == 0

    def test_beside_results(self) -> None:
        """What looks at stored calls meets some that have no result."""

        @fleche.fleche(version=1, errors=ConvergenceError, validate=lambda found: found != 3)
        def relax(x: int) -> int:
            if x < 0:
                raise ConvergenceError(x)
            return x

        with pytest.raises(ConvergenceError):
            relax(-1)
        assert [relax(x) for x in (1, 3)] == [1, 3]
        assert [relax.contains(x) for x in (-1, 1, 3, 4)] == [True, True, False, False]
        assert sorted(relax.query().results()) == [1, 3]
        assert len(relax.query()) == 3

    def test_others_are_not(self) -> None:
        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            runs.append(x)
            raise ValueError(x)

        for _ in range(2):
            with pytest.raises(ValueError, match="1"):
                relax(1)
        assert runs == [1, 1]
        assert len(cache()) == 0

    def test_a_later_result_replaces_it(self) -> None:
        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            runs.append(x)
            if len(runs) == 1:
                raise ConvergenceError
            return x

        with pytest.raises(ConvergenceError):
            relax(1)
        assert relax.rerun(1) == 1
        assert relax(1) == 1
        assert runs == [1, 1]

    def test_without_the_option(self) -> None:
        """A function that does not keep exceptions runs, whatever others have kept."""

        def relax(x: int) -> int:
            runs.append(x)
            raise ConvergenceError

        keeping = fleche.fleche(version=1, errors=ConvergenceError)(relax)
        plain = fleche.fleche(version=1)(relax)
        for function in (keeping, keeping, plain, plain):
            with pytest.raises(ConvergenceError):
                function(1)
        assert runs == [1, 1, 1]

    def test_coroutines(self) -> None:
        @fleche.fleche(version=1, errors=ConvergenceError)
        async def relax(x: int) -> int:
            runs.append(x)
            raise ConvergenceError

        for _ in range(2):
            with pytest.raises(ConvergenceError):
                asyncio.run(relax(1))
        assert runs == [1]

    def test_executors(self) -> None:
        """A kept exception is that of the future, as one is that has just been raised."""

        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            runs.append(x)
            raise ConvergenceError("no", x)

        with fleche.wrap_executor(ThreadPoolExecutor(1)) as pool:
            for _ in range(2):
                error = pool.submit(relax, 1).exception(20)
                assert isinstance(error, ConvergenceError)
                assert error.args == ("no", 1)
            with pytest.raises(ConvergenceError):
                list(pool.map(relax, [1, 1]))
        assert runs == [1]

    def test_they_travel(self) -> None:
        """From cache to cache, like results."""

        @fleche.fleche(version=1, errors=ConvergenceError)
        def relax(x: int) -> int:
            runs.append(x)
            raise ConvergenceError("no")

        other = in_memory()
        with pytest.raises(ConvergenceError):
            relax(1)
        assert cache().transfer(other) == 1
        with cache(other), pytest.raises(ConvergenceError, match="no"):
            relax(1)
        assert runs == [1]
