"""Turns: of the threads that look stored results up, one at a time; and none waits for long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche import _turns, cache, fleche
from fleche.caches import Cache, CacheStack, Local
from fleche.digest import hash_threads
from fleche.parcel import FileSource
from fleche.storage import CallMemory, ValueMemory

pytestmark = pytest.mark.skipif(not _turns.INTERPRETER_LOCKS, reason="threads need no turns here")


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """No turn is ever taken for a slow one, and there are other threads."""
    monkeypatch.setattr(_turns, "_LONG", 60.0)
    monkeypatch.setattr(_turns, "_PATIENCE", 60.0)
    monkeypatch.setattr(_turns, "THREADS", (1, 2))
    _turns._turns.begin()
    yield _turns._turns
    _turns._turns.begin()


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns in another thread, which must be soon."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(20)


def turn() -> None:
    _turns.take()
    _turns.leave()


def in_background(work: Callable[[], Any], turns: Any) -> threading.Thread:
    """A thread that waits for its turn, to do `work` in it."""

    def wait() -> None:
        _turns.take()
        try:
            work()
        finally:
            _turns.leave()

    before = len(turns.waiting)
    thread = threading.Thread(target=wait)
    thread.start()
    while len(turns.waiting) == before:
        time.sleep(0.001)
    return thread


class TestTurns:
    def test_one_has_it(self) -> None:
        """Of several threads that come again and again, one is inside; all get through."""
        inside: list[int] = []
        most: list[int] = []

        def come() -> None:
            for _ in range(200):
                _turns.take()
                inside.append(1)
                time.sleep(0)
                most.append(len(inside))
                inside.pop()
                _turns.leave()

        with ThreadPoolExecutor(6) as pool:
            for each in [pool.submit(come) for _ in range(6)]:
                each.result(60)
        assert len(most) == 1200
        assert max(most) == 1

    def test_twice(self, turns: Any) -> None:
        """A thread that has it goes on at once, and leaves it once."""
        _turns.take()
        _turns.take()
        _turns.leave()
        assert turns.owner == 0
        _turns.leave()
        elsewhere(turn)

    def test_handed_to_the_one_that_waits_longest(
        self, turns: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_turns, "_SLICE", 60.0)  # none looks by itself
        order: list[int] = []
        _turns.take()
        threads = [in_background(lambda at=at: order.append(at), turns) for at in range(3)]  # type: ignore[misc]
        monkeypatch.setattr(_turns, "_SLICE", -1.0)  # each hands it on
        _turns.leave()
        for thread in threads:
            thread.join(20)
        assert order == [0, 1, 2]

    def test_kept_for_a_time_slice(self, turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until then others wait, though it is free in between; after it they need not look."""
        monkeypatch.setattr(_turns, "_SLICE", 60.0)
        turns.handed = time.perf_counter()
        _turns.take()
        thread = in_background(lambda: None, turns)
        for _ in range(3):
            _turns.leave()
            assert turns.owner == 0
            _turns.take()
        assert thread.is_alive()
        turns.handed -= 61
        _turns.leave()
        thread.join(20)
        assert turns.owner == 0

    def test_left_and_never_taken_again(self, turns: Any) -> None:
        """One that waits finds that out by itself."""
        turns.handed = time.perf_counter() + 60  # the slice is far from over
        _turns.take()
        threads = [in_background(lambda: None, turns) for _ in range(3)]
        _turns.leave()
        for thread in threads:
            thread.join(20)
        assert not turns.waiting

    def test_slow(self, turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that does not leave it loses it; it is waited for once, not by each."""
        monkeypatch.setattr(_turns, "_PATIENCE", 0.05)
        _turns.take()
        elsewhere(turn)
        monkeypatch.setattr(_turns, "_PATIENCE", 60.0)
        turns.paused = 0.0
        elsewhere(turn)
        elsewhere(_turns.take)
        _turns.leave()
        assert turns.owner, "it ended the turn of another"

    def test_none_after_a_long_one(self, turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is something to wait for, it is waited for at the same time, for a while."""
        _turns.take()
        turns.taken -= 0.1
        monkeypatch.setattr(_turns, "_LONG", 0.05)
        _turns.leave()
        _turns.take()
        assert turns.owner == 0
        assert 0.9 < turns.paused - time.perf_counter() < 10
        turns.paused = 0.0
        turn()
        _turns.take()
        assert turns.owner

    @pytest.mark.parametrize("handed", [False, True])
    def test_interrupted(self, turns: Any, monkeypatch: pytest.MonkeyPatch, handed: bool) -> None:
        """What is raised in waiting leaves nothing behind, even if the turn has just come."""

        class Interrupting:
            def wait(self, timeout: float) -> bool:
                if handed:
                    elsewhere(self.hand)
                raise KeyboardInterrupt

            def hand(self) -> None:
                turns.owner = turns.waiting.popleft()[0]

        elsewhere(_turns.take)
        monkeypatch.setattr(_turns, "Event", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            _turns.take()
        assert not turns.waiting
        assert (turns.owner == 0) == handed

    def test_come_and_taken_away(self, turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that wakes too late for its turn goes on without it."""

        class Late:
            def wait(self, timeout: float) -> bool:
                turns.waiting.clear()
                return False

        elsewhere(_turns.take)
        owner = turns.owner
        monkeypatch.setattr(_turns, "Event", Late)
        turn()
        assert turns.owner == owner

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_waits_for_no_thread_of_its_parent(self) -> None:
        elsewhere(_turns.take)
        child = os.fork()
        if not child:
            signal.alarm(20)
            turn()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    def test_a_handler_of_signals_in_between(self, turns: Any) -> None:
        """It goes through wherever it comes between, also while the turn is being taken."""

        def handle(*_: Any) -> None:
            turn()

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            with turns.lock:
                signal.raise_signal(signal.SIGUSR1)
            _turns.take()
            signal.raise_signal(signal.SIGUSR1)
            _turns.leave()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert turns.owner == 0


class TestHits:
    """What a hit does in its turn, and what it does not."""

    @pytest.fixture
    def local(self, tmp_path: Path) -> Iterator[Local]:
        with Local(tmp_path / "local") as made, cache(made):
            yield made

    @pytest.fixture
    def quick(self, local: Local) -> Any:
        """A function one of whose calls is a hit."""

        @fleche(version=1)
        def quick(x: int) -> int:
            return x

        quick(1)
        return quick

    def test_a_hit_leaves_it(self, quick: Any, turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        taken: list[int] = []
        real = _turns.take

        def take() -> None:
            real()
            taken.append(turns.owner)

        monkeypatch.setattr(_turns, "take", take)
        assert quick(1) == 1
        assert taken == [threading.get_ident()]
        with pytest.raises(TypeError):
            quick()
        assert turns.owner == 0
        monkeypatch.setattr(_turns, "THREADS", (1,))
        assert quick(1) == 1
        assert len(taken) == 2, "alone, one needs no turn"

    def test_not_in_the_body(self, quick: Any) -> None:
        """While a function runs, other threads have their hits."""

        @fleche(version=1)
        def slow(x: int) -> int:
            return int(elsewhere(lambda: quick(x)))

        assert slow(1) == 1

    def test_not_while_much_is_read(self, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        @fleche(version=1)
        def block(x: int) -> Any:
            return np.full(1 << 18, x)

        block(1)
        read, seen = FileSource.read, []

        def slow_read(self: FileSource, *args: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                seen.append(elsewhere(lambda: quick(1)))
            return read(self, *args)

        monkeypatch.setattr(FileSource, "read", slow_read)
        assert block(1)[5] == 1
        assert seen

    def test_not_while_much_is_hashed(self, turns: Any) -> None:
        _turns.take()
        hash_threads(1 << 15)
        assert turns.owner
        hash_threads(1 << 20)
        assert turns.owner == 0

    def test_not_while_a_far_layer_is_asked(self, tmp_path: Path, quick: Any) -> None:
        """What is near is found meanwhile."""

        class Far(CallMemory):
            def get_many(self, keys: Any) -> Any:
                seen.append(elsewhere(lambda: quick(1)))
                return super().get_many(keys)

        seen: list[int] = []

        @fleche(version=1)
        def other(x: int) -> int:
            return x

        with CacheStack([Local(tmp_path / "near"), Cache(ValueMemory(), Far())]) as stack:
            assert other.call_with(stack, 5) == 5
        assert seen

    def test_which_caches(self, local: Local) -> None:
        """Those whose look-ups are quick, also behind a view, or as the first of a stack."""
        memory = Cache(ValueMemory(), CallMemory())
        assert local.backend.takes_turns
        assert local.readonly().backend.takes_turns
        assert CacheStack([local, memory]).backend.takes_turns
        assert not CacheStack([memory, local]).backend.takes_turns
