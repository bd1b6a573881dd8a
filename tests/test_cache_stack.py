"""The stack: near layers answer first, far ones are asked once, and what they say is kept near."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import BaseCache, Cache, CachePool, CacheStack, LayerPolicy, Rejected
from fleche.caches._stack import Flights
from fleche.call import Call
from fleche.digest import D, Digest, digest
from fleche.errors import (
    AmbiguousDigestError,
    CorruptParcel,
    RemoteConnectionError,
    StorageError,
)
from fleche.parcel import Packing
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory, ValueVoid
from tests.helpers.backends import load_parcel
from tests.helpers.layers import (
    Layer,
    LayerBackend,
    call,
    in_files,
    in_memory,
    result_of,
)
from tests.helpers.leaks import check_leaks

OFFLINE = RemoteConnectionError("bigpc: connection refused")
MISS = LayerPolicy(on_error="miss")
LARGE = "large " * 5000
"""A value that does not travel with the record of its call."""


@pytest.fixture
def near() -> Layer:
    return Layer()


@pytest.fixture
def far() -> Layer:
    return Layer()


@pytest.fixture
def stack(near: Layer, far: Layer) -> CacheStack:
    return CacheStack([near, far])


def _noting(digests: list[Digest], pack: Callable[..., object]) -> Callable[..., object]:
    def noted(self: Packing, obj: object, digest: str = "", *rest: Any) -> object:
        digests.append(D(digest))
        return pack(self, obj, digest, *rest)

    return noted


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """The digests of the values that are serialized from here on."""
    digests: list[Digest] = []
    for name in ("pack", "pack_parts"):
        monkeypatch.setattr(Packing, name, _noting(digests, getattr(Packing, name)))
    return digests


class TestSaving:
    def test_goes_to_the_first_layer(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        key = stack.save(call())
        assert near.inner.load(key).result == 4
        assert far.asked == {}

    def test_a_running_call_is_known_to_the_first_layer_alone(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        stack.prepare(Call(name="f", arguments={"x": 1})).abandon()
        pending = stack.prepare(Call(name="f", arguments={"x": 1}))
        pending.commit(2)
        assert far.asked == {}
        assert isinstance(near.inner, Cache)
        assert [entry.key for entry in near.inner.calls.entries()] == [pending.key]

    def test_refused_by_the_first_layer(self, far: Layer) -> None:
        stack = CacheStack([in_memory().readonly(), far])
        assert stack.read_only
        assert stack.capabilities.read_only
        with pytest.raises(Rejected, match="read-only, save refused"):
            stack.save(call())

    def test_a_layer_that_is_asked_nothing_is_not_reached(self, near: Layer) -> None:
        """Not even its capabilities are asked for: that would open a connection."""

        class Unreachable(Layer):
            @property
            def read_only(self) -> bool:
                raise OFFLINE

            @property
            def capabilities(self):  # type: ignore[no-untyped-def]
                raise OFFLINE

        far = Unreachable()
        far.error = OFFLINE
        stack = CacheStack([near, far])
        key = stack.save(call())
        assert stack.load(key).result == 4
        assert stack.contains(key)
        assert stack.lookup(D(key)) is not None


class TestSavingAs:
    """A stored call once more, under another name."""

    def test_from_a_further_layer(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        """It comes to the nearest one with all that it needs."""
        key = far.inner.save(call(x=["large " * 5000], result=["text " * 5000]))
        renamed = stack.save_as(stack.load(key), name="g")
        assert near.inner.load(renamed).result == ["text " * 5000]
        assert near.inner.load(renamed).arguments["x"] == ["large " * 5000]
        assert near.inner.verify().ok
        assert renamed not in far.inner

    def test_what_cannot_be(self, near: Layer) -> None:
        """Where a value is gone, or nothing may be saved."""
        cache = near.inner
        found = cache.load(cache.save(call(x=1, result=["text " * 5000])))
        with pytest.raises(Rejected, match="save refused"):
            cache.readonly().save_as(found, name="g")
        cache.evict(digest(["text " * 5000]))
        with pytest.raises(KeyError, match="it was evicted"):
            cache.save_as(found, name="g")


class TestWriteThrough:
    def through(self, near: Layer) -> tuple[CacheStack, Layer]:
        far = Layer(policy=LayerPolicy(write_through=True))
        return CacheStack([near, Layer(), far]), far

    def test_the_same_parcels(self, near: Layer, packed: list[Digest]) -> None:
        """A further layer receives the call after the first, serialized no second time."""
        stack, far = self.through(near)
        done = call(x=LARGE, result=[2])
        key = stack.save(done)
        assert sorted(packed) == sorted([digest(LARGE), digest([2])])
        assert far.inner.load(key).load() == done
        assert stack.layers[1].query().empty()
        assert stack.counts() == {"written_through": 1}

    def test_a_small_call_is_one_save_in_each(self, near: Layer) -> None:
        stack, far = self.through(near)
        stack.save(call(x=[1], result=[2]))
        assert near.asked == far.asked == {"save": 1}

    def test_only_finished_calls(self, near: Layer) -> None:
        stack, far = self.through(near)
        stack.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        assert near.asked["save"] == 2
        assert far.asked == {}

    def test_the_second_outage_speaks_too(
        self, near: Layer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A warning is armed again after a success."""
        stack, far = self.through(near)
        for x, error in enumerate((OFFLINE, OFFLINE, None, OFFLINE)):
            far.error = error
            stack.save(call(x=x))
        warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
        assert len(warnings) == 2

    def test_a_value_that_is_gone_is_named(self, caplog: pytest.LogCaptureFixture) -> None:
        """It cannot be sent, since large values are read from the first layer."""
        far = in_memory(LayerPolicy(write_through=True))
        stack = CacheStack([Cache(ValueVoid(), CallMemory()), far])
        stack.save(call(result="x" * 100_000))
        (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert f"later: the value {digest('x' * 100_000)} is not in" in warning.getMessage()

    @pytest.mark.parametrize(
        "error", [OFFLINE, Rejected("no"), StorageError("full"), ValueError("bug")]
    )
    def test_a_failure_is_a_warning(
        self, near: Layer, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The result is safe; each failure is counted, and the first is logged."""
        stack, far = self.through(near)
        far.error = error
        keys = [stack.save(call(x=x, result=result)) for x, result in enumerate((4, 4, LARGE))]
        assert [stack.load(key).result for key in keys] == [4, 4, LARGE]
        assert stack.counts() == {"errors.write_through": 3}
        warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert str(error) in warnings[0].getMessage()
        assert "results are not written through; push() sends them" in warnings[0].getMessage()


class TestLookingUp:
    def test_the_near_layer_answers_alone(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        key = stack.save(call())
        assert stack.lookup(D(key)) is not None
        assert stack.contains(key)
        assert far.asked == {}

    def test_one_round_trip(self, stack: CacheStack, far: Layer) -> None:
        """A result that the far layer sends along is not asked for again."""
        for inlines, result in ((False, [2]), (True, LARGE)):
            key = D(far.inner.save(call(x=[1], result=result)))
            far.inlines = inlines
            far.asked.clear()
            found = stack.lookup(key)
            assert found is not None
            assert found.result == result
            assert far.asked == {"load": 1}
            stack.evict(key)

    def test_a_large_result_takes_two(self, stack: CacheStack, far: Layer) -> None:
        key = D(far.inner.save(call(result=LARGE)))
        assert stack.load(key).result == LARGE
        assert far.asked == {"load": 1, "load_values": 1}

    def test_many_at_once(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        """Each layer is asked once for what those before it lack, and told once."""
        keys = [D(near.inner.save(call(x=x, result=[x]))) for x in range(50)]
        keys += [D(far.inner.save(call(x=x, result=[x]))) for x in range(50, 100)]
        assert [each.result for each in stack.load_many(keys)] == [[x] for x in range(100)]
        assert far.asked == {"load": 1}
        assert near.asked == {"load": 1, "save": 1}
        assert stack.counts() == {"copied": 50}
        assert len(stack.lookup_many(keys)) == 100
        assert far.asked == {"load": 1}

    def test_a_miss_asks_each_once(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        assert stack.lookup(digest("absent")) is None
        assert near.asked == far.asked == {"load": 1}
        assert stack.counts() == {"misses": 1}

    def test_a_value_falls_through_and_is_not_kept(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        """Nothing near would refer to it, and the next ``gc()`` would take it."""
        key = far.inner.save_value([1])
        assert stack.load_value(key) == [1]
        assert not near.inner.contains(key)

    def test_a_record_without_its_value_falls_through(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        """A near layer that has lost the result is filled again from a far one."""
        for result in (4, [4], LARGE):
            key = D(near.inner.save(call(result=result)))
            near.inner.evict(digest(result))
            far.inner.save(call(result=result))
            assert stack.load(key).result == result
            assert near.inner.contains(key)

    def test_a_far_record_without_its_value_is_a_miss(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        key = D(far.inner.save(call(result=LARGE)))
        far.inner.evict(digest(LARGE))
        assert stack.lookup(key) is None
        assert near.inner.query().empty()
        assert stack.counts()["misses"] == 1
        assert stack.counts()["dangling"] >= 1

    def test_record_near_and_value_far(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        key = D(near.inner.save(call(result=LARGE)))
        near.inner.evict(digest(LARGE))
        far.inner.save_value(LARGE)
        assert stack.load(key).result == LARGE


class TestCopyingDown:
    @pytest.mark.parametrize("result", [9, [9], "large " * 5000])
    def test_record_and_result(
        self, stack: CacheStack, near: Layer, far: Layer, result: Any
    ) -> None:
        key = D(far.inner.save(call(x=3, result=result)))
        assert stack.load(key).result == result
        assert near.inner.load(key).result == result
        assert near.inner.load(key).record == far.inner.load(key).record
        far.asked.clear()
        assert stack.load(key).result == result
        assert far.asked == {}
        assert stack.counts() == {"copied": 1}

    def test_as_the_same_parcel(
        self, stack: CacheStack, near: Layer, far: Layer, packed: list[Digest]
    ) -> None:
        key = D(far.inner.save(call(x=[3], result=LARGE)))
        before = load_parcel(far.inner, digest(LARGE)).tobytes()
        entry = far.inner.load(key).entry
        packed.clear()
        stack.load(key)
        assert packed == []
        assert load_parcel(near.inner, digest(LARGE)).tobytes() == before
        assert near.inner.load(key).entry == entry

    def test_small_arguments_come_with_the_record(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        """They cost no round trip; large ones stay where they are until they are asked for."""
        arguments = {"x": 3, "items": [1, 2], "text": "a", "large": [LARGE]}
        key = far.inner.save(Call(name="f", arguments=arguments, result=1))
        stack.load(key)
        assert far.asked == {"load": 1}
        for name in ("x", "items", "text"):
            assert near.inner.load(key).arguments[name] == arguments[name]
        with pytest.raises(KeyError):
            near.inner.load(key).arguments["large"]
        assert stack.load(key).arguments["large"] == [LARGE]

    def test_shared_buffers_come_along(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        array = np.arange(500_000)
        for filling in ("", LARGE):  # the value travels with the record, or by itself
            key = D(far.inner.save(call(result=[array, filling])))
            assert stack.load(key).result[0][7] == 7
            assert near.inner.load(key).result[0][7] == 7
            assert near.inner.verify().ok
            stack.evict(key)

    def test_to_every_nearer_layer(self) -> None:
        layers = [Layer(), Layer(), Layer()]
        stack = CacheStack(layers)
        key = layers[2].inner.save(call(result=[4]))
        assert stack.load(key).result == [4]
        assert all(layer.inner.contains(key) for layer in layers)
        assert stack.counts() == {"copied": 2}

    @pytest.mark.parametrize("error", [Rejected("no room"), StorageError("no space left"), OFFLINE])
    def test_a_layer_that_refuses_is_no_error(
        self, stack: CacheStack, near: Layer, far: Layer, error: Exception
    ) -> None:
        key = D(far.inner.save(call(result=[4])))
        near.refuses = error
        for _ in range(2):
            found = stack.lookup(key)
            assert found is not None
            assert found.result == [4]
        assert stack.counts() == {"hits": 2, "refused": 2}

    def test_a_layer_with_another_secret_is_passed(self, tmp_path: Path, far: Layer) -> None:
        """It refuses what it does not trust; what counts is whom the first layer trusts."""
        near = in_memory()
        middle = Cache(
            ValueFile(tmp_path, secret_key="hush"), CallFile(tmp_path, secret_key="hush")
        )
        key = D(far.inner.save(call(result=[4])))
        stack = CacheStack([near, middle, far])
        for _ in range(2):
            found = stack.lookup(key)
            assert found is not None
            assert found.result == [4]
        assert near.load(key).result == [4]
        assert not middle.contains(key)
        assert stack.counts() == {"hits": 2, "refused": 1, "copied": 1}

    @pytest.mark.parametrize("result", [4, [4], "large " * 5000])
    def test_an_unsigned_result_is_none(self, tmp_path: Path, far: Layer, result: Any) -> None:
        """Where values are signed, so are those that records show in the clear."""
        near = Cache(ValueFile(tmp_path, secret_key="hush"), CallFile(tmp_path))
        key = D(far.inner.save(call(result=result)))
        stack = CacheStack([near, far])
        assert stack.lookup(key) is None
        assert near.query().empty()
        stack.save(call(result=result))
        found = stack.lookup(key)
        assert found is not None
        assert found.result == result

    def test_what_is_not_trusted_is_not_copied(self, tmp_path: Path, far: Layer) -> None:
        """A layer further up may have the same call with a signature that counts."""
        near, farthest = (
            Cache(ValueFile(tmp_path / name, secret_key="hush"), CallFile(tmp_path / name))
            for name in ("near", "farthest")
        )
        middle = in_memory()
        key = D(far.inner.save(call(result=[4])))
        farthest.save(call(result=[4]))
        stack = CacheStack([near, middle, far, farthest])
        found = stack.lookup(key)
        assert found is not None
        assert found.result == [4]
        assert near.load(key).result == [4]
        entry = middle.load(key).entry
        parcel = entry.parcel(result_of(middle, key))
        assert parcel is not None
        assert parcel.signed

    def test_read_only_layers_are_passed(self, far: Layer) -> None:
        stack = CacheStack([in_memory(), in_memory().readonly(), far])
        key = far.inner.save(call())
        assert stack.load(key).result == 4
        assert stack.first.contains(key)

    def test_through_files(self, tmp_path: Path, no_leaks: None) -> None:
        """Parcels of files are copied and closed."""
        near, far = in_files(tmp_path / "near"), in_files(tmp_path / "far")
        value = [bytes(300_000)]
        with CacheStack([near, far]) as stack:
            key = far.save(call(result=value))
            assert stack.load(key).result == value
            assert near.load(key).result == value


class TestOpenFiles:
    def test_none_stays_open(self, tmp_path: Path) -> None:
        """A call whose result has not been asked for holds no file, however large the result."""
        far = in_files(tmp_path)
        keys = [far.save(call(x=x, result=f"{x}" * 300_000)) for x in range(8)]
        for near in (in_memory(), in_memory().readonly()):
            stack = CacheStack([near, far])
            with check_leaks():
                calls = [stack.load(key) for key in keys]
            assert [found.result[0] for found in calls] == list("01234567")

    @pytest.mark.parametrize("result", [4, [4], "large " * 5000])
    def test_what_is_damaged_is_not_asked_again(
        self, tmp_path: Path, far: Layer, result: Any
    ) -> None:
        """Not where it cannot be mended either: the sound copy further up answers."""
        files = in_files(tmp_path)
        key = D(files.save(call(result=result)))
        far.inner.save(call(result=result))
        alter(tmp_path, digest(result) if result == LARGE else key)
        stack = CacheStack([files.readonly(), far])
        found = stack.lookup(key)
        assert found is not None
        assert found.result == result


class TestOnceForAllThreads:
    def test_one_thread_asks(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        """However many threads ask for a key at the same time, the far layer is asked once."""
        key = D(far.inner.save(call(result=[4])))
        far.pause = lambda: time.sleep(0.1)
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: stack.load(key).result, range(16)))
        assert results == [[4]] * 16
        assert far.asked == {"load": 1}
        assert stack.counts() == {"copied": 1}

    def test_different_keys_do_not_wait(self, stack: CacheStack, far: Layer) -> None:
        keys = [far.inner.save(call(x=x)) for x in range(4)]
        together = threading.Barrier(4)
        far.pause = lambda: together.wait(10)
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(stack.load, keys))) == 4

    def test_where_nothing_is_kept_all_go_on_at_once(
        self, stack: CacheStack, near: Layer, far: Layer
    ) -> None:
        """If the near layer refuses, those who waited ask for themselves, side by side."""
        key = D(far.inner.save(call(result=[4])))
        near.refuses = Rejected("no room")
        entered, together = threading.Event(), threading.Barrier(3)

        def pause() -> None:
            if not entered.is_set():
                entered.set()
                time.sleep(0.2)
            else:
                together.wait(10)

        far.pause = pause
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(lambda: stack.load(key).result)
            entered.wait(10)
            rest = [pool.submit(lambda: stack.load(key).result) for _ in range(3)]
            assert [each.result(10) for each in [first, *rest]] == [[4]] * 4

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_waits_for_no_thread_of_its_parent(
        self, stack: CacheStack, far: Layer
    ) -> None:
        """The thread that asks for a key here is none of the child's."""
        key = D(far.inner.save(call(result=[4])))
        entered, over = threading.Event(), threading.Event()

        def pause() -> None:
            entered.set()
            over.wait(60)

        far.pause = pause
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(lambda: stack.load(key).result)
            assert entered.wait(30)
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                far.pause = lambda: None
                os._exit(stack.load(key).result != [4])
            assert os.waitpid(child, 0)[1] == 0
            over.set()
            assert found.result(30) == [4]

    def test_an_interruption_frees_the_others(self) -> None:
        """Wherever it comes, no thread waits for a leader that has gone."""
        flights = Flights()

        class Interrupting(dict[Any, Any]):
            def setdefault(self, *arguments: Any) -> Any:
                super().setdefault(*arguments)
                raise KeyboardInterrupt

        flights._flying = Interrupting()
        with pytest.raises(KeyboardInterrupt), flights.join(["key", "other"]):
            pass
        assert flights._flying == {}

    def test_two_that_ask_for_the_same_keys_in_other_order(
        self, stack: CacheStack, far: Layer
    ) -> None:
        """Neither waits for the other while the other waits for it."""
        keys = [D(far.inner.save(call(x=x, result=[x]))) for x in range(2)]
        together = threading.Barrier(2)

        class Meeting(dict[Any, Any]):
            """Lets each of two threads lead one key before either goes on."""

            def setdefault(self, *arguments: Any) -> Any:
                found = super().setdefault(*arguments)
                together.wait(10)
                return found

        stack.backend._flights._flying = Meeting()
        with ThreadPoolExecutor(2) as pool:
            looks = [
                pool.submit(lambda wanted: len(list(stack.load_many(wanted))), wanted)
                for wanted in (keys, keys[::-1])
            ]
            assert [each.result(30) for each in looks] == [2, 2]

    def test_an_error_frees_the_others(self, stack: CacheStack, far: Layer) -> None:
        far.error = OFFLINE
        for _ in range(2):
            with pytest.raises(RemoteConnectionError):
                stack.load(digest("x"))


class TestUnreachable:
    def test_raises_by_default(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        far.error = OFFLINE
        for question in (stack.load, stack.lookup, stack.contains, stack.load_value):
            with pytest.raises(RemoteConnectionError, match="connection refused"):
                question(digest("absent"))
        with pytest.raises(RemoteConnectionError):
            list(stack.query())

    def test_is_a_miss_where_allowed(self, near: Layer, caplog: pytest.LogCaptureFixture) -> None:
        """Work goes on offline: every question counts, the first is logged."""
        far = Layer(policy=MISS)
        far.error = OFFLINE
        stack = CacheStack([near, far])
        key = D(stack.save(call()))
        absent = digest("absent")
        assert stack.lookup(absent) is None
        assert not stack.contains(absent)
        assert stack.contains_many([absent, key]) == [False, True]
        assert stack.query().only().key == key
        assert stack.expand(key[:8]) == key
        assert stack.shrink(key) == key[:4]
        for question in (stack.load_value, stack.load, stack.evict):
            with pytest.raises(KeyError):
                question(absent)
        stack.evict(key)
        assert stack.counts()["unreachable"] > 8
        assert len(caplog.records) == 1
        assert "connection refused" in caplog.text

    def test_the_second_outage_speaks_too(
        self, near: Layer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A warning is armed again after an answer."""
        far = Layer(policy=MISS)
        stack = CacheStack([near, far])
        for error in (OFFLINE, OFFLINE, None, OFFLINE):
            far.error = error
            assert stack.lookup(digest("absent")) is None
        assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 2

    def test_all_layers(self) -> None:
        layer = Layer(policy=MISS)
        layer.error = OFFLINE
        key = digest("x")
        with pytest.raises(KeyError):
            CacheStack([layer]).shrink(key)
        assert not CacheStack([layer]).contains(key)

    def test_within_a_query(self, near: Layer) -> None:
        """A connection that dies while calls stream in ends the search quietly."""

        class Dying(LayerBackend):
            def query(self, template, *, keys_only=False):  # type: ignore[no-untyped-def]
                yield next(super().query(template, keys_only=keys_only))
                raise OFFLINE

        class Far(Layer):
            def _make_backend(self, inner):  # type: ignore[no-untyped-def]
                return Dying(inner, MISS, local=False)

        far = Far()
        for x in range(3):
            far.inner.save(call(x=x))
        near.inner.save(call(x=7))
        assert CacheStack([near, far]).query().count() == 2

    def test_other_errors_are_raised(self, near: Layer) -> None:
        """Only an unreachable layer may be passed over; a broken one is not."""
        far = Layer(policy=MISS)
        far.error = StorageError("disk failure")
        with pytest.raises(StorageError):
            CacheStack([near, far]).load(digest("x"))


class TestNames:
    def test_expand_over_all(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        seen: dict[str, int] = {}
        number = 0
        while seen.setdefault(digest(number)[:4], number) == number:
            number += 1
        other = seen[digest(number)[:4]]
        near.inner.save_value(number)
        assert stack.expand(digest(number)[:4]) == digest(number)
        far.inner.save_value(number)
        assert stack.expand(digest(number)[:4]) == digest(number)
        far.inner.save_value(other)
        with pytest.raises(AmbiguousDigestError):
            stack.expand(digest(number)[:4])
        short, other_short = stack.shrink(digest(number), digest(other))
        assert stack.expand(short) == digest(number)
        assert stack.expand(other_short) == digest(other)

    def test_a_complete_key_asks_no_further_than_needed(
        self, stack: CacheStack, far: Layer
    ) -> None:
        key = stack.save(call())
        assert stack.expand(key) == key
        assert far.asked == {}


class TestQuery:
    def test_unique_and_near_wins(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        near.inner.save(call(x=1, result="near"))
        far.inner.save(call(x=1, result="far"))
        far.inner.save(call(x=2, result="far"))
        assert sorted(stack.query().results()) == ["far", "near"]

    def test_streams(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        near.inner.save(call())
        stack.query().first()
        assert far.asked == {}

    def test_calls_are_bound_to_the_stack(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        key = near.inner.save(call(result=LARGE))
        near.inner.evict(digest(LARGE))
        far.inner.save_value(LARGE)
        found = stack.query().only()
        assert found.result == LARGE
        far.inner.save(call(result=LARGE))
        found.evict()
        assert not far.inner.contains(key)

    def test_bulk_contains(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        """Far layers are asked only for what near ones lack."""
        keys = [D(near.inner.save(call(x=1))), D(far.inner.save(call(x=2))), digest("x")]
        assert stack.contains_many(keys) == [True, True, False]
        assert near.asked == far.asked == {"contains": 1}


class TestEvict:
    def test_in_every_layer(self, stack: CacheStack, near: Layer, far: Layer) -> None:
        key = near.inner.save(call())
        far.inner.save(call())
        stack.evict(key)
        assert not near.inner.contains(key)
        assert not far.inner.contains(key)
        with pytest.raises(KeyError):
            stack.evict(key)

    def test_read_only_layers_keep_what_they_have(self) -> None:
        near, far = in_memory(), in_memory()
        stack = CacheStack([near, far.readonly()])
        key = stack.save(call())
        far.save(call())
        stack.evict(key)
        assert far.contains(key)
        with pytest.raises(Rejected, match="only read-only layers"):
            stack.evict(key)


class TestPush:
    def test_to_the_further_writable_layers(self) -> None:
        layers: list[BaseCache] = [in_memory(), in_memory(), in_memory().readonly(), in_memory()]
        stack = CacheStack(layers)
        for x in range(3):
            stack.save(call(x=x))
        layers[3].save(call(x=0))
        assert stack.push(name="f") == 3 + 2
        assert stack.push() == 0
        assert [layer.query().count() for layer in layers] == [3, 3, 0, 3]

    def test_to_a_target(self, stack: CacheStack, far: Layer) -> None:
        target = in_memory()
        far.inner.save(call())
        assert stack.push(target) == 1
        assert target.query().count() == 1


def alter(root: Path, key: str) -> None:
    """Flip the last bit of the file of a call or a value."""
    (path,) = [each for each in root.rglob("*") if each.is_file() and key[8:64] in each.name]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


class TestDamage:
    """What proves damaged near is taken from further up, and mended."""

    @pytest.fixture(params=[[4], "large " * 5000], ids=["small", "large"])
    def result(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def damaged(self, root: Path, result: Any) -> tuple[Cache, Digest]:
        near = in_files(root)
        key = D(near.save(call(result=result)))
        alter(root, digest(result) if result == LARGE else key)
        return near, key

    def test_mended_from_a_further_layer(self, tmp_path: Path, far: Layer, result: Any) -> None:
        near, key = self.damaged(tmp_path, result)
        far.inner.save(call(result=result))
        stack = CacheStack([near, far])
        found = stack.lookup(key)
        assert found is not None
        assert found.result == result
        assert near.load(key).result == result
        noticed = {"errors.corrupt": 1} if result == LARGE else {}
        assert stack.counts() == {"copied": 1, "hits": 1, **noticed}
        assert stack.lookup(key) is not None
        assert far.asked["load"] == 1

    @pytest.mark.parametrize("strict", [True, False])
    def test_there_is_no_sound_one(self, tmp_path: Path, strict: bool, result: Any) -> None:
        near, key = self.damaged(tmp_path / "near", result)
        far, _ = self.damaged(tmp_path / "far", result)
        stack = CacheStack([near, far])
        if strict:
            with pytest.raises(CorruptParcel):
                stack.lookup(key, strict=True)
        else:
            assert stack.lookup(key) is None
            assert stack.counts()["misses"] == 1
            assert stack.counts()["errors.corrupt"] >= 1
        stack.save(call(result=result))
        assert stack.load(key).result == result
        assert near.load(key).result == result

    def test_only_the_far_one_is_damaged(self, tmp_path: Path, near: Layer, result: Any) -> None:
        """It is not copied down."""
        far, key = self.damaged(tmp_path, result)
        stack = CacheStack([near, far])
        assert stack.lookup(key) is None
        assert near.inner.stats().calls == 0
        stack.save(call(result=result))
        assert stack.load(key).result == result


class TestTheWhole:
    def test_signs_and_opens_as_the_first_layer(self, tmp_path: Path) -> None:
        near = Cache(ValueFile(tmp_path, secret_key="hush"), CallFile(tmp_path))
        far = in_memory()
        key = D(far.save(call(result=[4])))
        stack = CacheStack([near, far])
        assert stack.packing.keys == (b"hush",)
        assert stack.lookup(key) is None
        assert stack.counts()["errors.signature"] == 1
        stack.save(call(result=[4]))
        assert near.load(key).result == [4]

    def test_what_it_is_is_what_receives_saves(self, tmp_path: Path) -> None:
        """What other layers are is of no use to what is saved, and they are not even asked."""
        near, far = Layer(), Layer(in_files(tmp_path))
        assert not CacheStack([near, far]).capabilities.shared
        assert not CacheStack([near, far]).capabilities.persistent
        assert CacheStack([far, near]).capabilities.shared
        through = in_files(tmp_path, LayerPolicy(write_through=True))
        assert CacheStack([near, through]).capabilities.shared
        assert CacheStack([near, through]).capabilities.persistent
        assert CachePool([near, far]).capabilities.shared

        class Unreachable(Layer):
            @property
            def capabilities(self):  # type: ignore[no-untyped-def]
                raise OFFLINE

        assert not CacheStack([near, Unreachable()]).capabilities.shared
        offline = Unreachable(policy=LayerPolicy(write_through=True, on_error="miss"))
        assert not CacheStack([near, offline]).capabilities.shared

    def test_config(self, tmp_path: Path) -> None:
        near, far = in_memory(), in_files(tmp_path)
        tables = [near.to_config(), far.to_config()]
        assert CacheStack([near, far]).to_config() == tables
        assert CacheStack([CacheStack([near, far]), near]).to_config() == [*tables, tables[0]]

    def test_at_least_one_layer(self) -> None:
        for kind in (CacheStack, CachePool):
            with pytest.raises(ValueError, match="at least one"):
                kind([])

    def test_closing_closes_all(self) -> None:
        closed = []

        class Closing(ValueMemory):
            def close(self) -> None:
                closed.append(self)
                raise StorageError("gone")

        layers = [Cache(Closing(), CallMemory()) for _ in range(3)]
        with pytest.raises(StorageError):
            CacheStack(layers).close()
        assert len(closed) == 3

    def test_a_damaged_near_record_is_passed_over(self, tmp_path: Path, far: Layer) -> None:
        near = in_files(tmp_path)
        key = D(near.save(call()))
        far.inner.save(call())
        (path,) = tmp_path.rglob(f"*{key[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        stack = CacheStack([near, far])
        assert stack.load(key).result == 4
        assert near.load(key).result == 4
