"""A failing cache never stops the function: it runs, and there is one clear warning."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fleche as package
from fleche import (
    Cache,
    CacheStack,
    MetaData,
    Runtime,
    cache,
    fleche,
    state,
    wrap_executor,
)
from fleche.caches import BaseCache, LocalBackend, ReadOnlyCache
from fleche.decorator import FlecheWarning
from fleche.errors import (
    AmbiguousDigestError,
    ConfigError,
    CorruptParcel,
    MissingExtra,
    Rejected,
    RemoteConnectionError,
    StorageError,
)
from fleche.remote import PipeChannel, RemoteCache
from fleche.storage import CallMemory, ValueMemory
from tests.helpers.layers import Layer, in_files

runs: list[Any] = []


LARGE = "x" * (2 << 20)
"""An argument that is stored before the body runs, under a pin, since it is not kept meanwhile."""


class FaultyBackend(LocalBackend):
    """A backend that raises what it is told to, where it is told to."""

    def __init__(self) -> None:
        super().__init__(ValueMemory(), CallMemory())
        self.faults: dict[str, BaseException] = {}

    def fault(self, place: str) -> None:
        if place in self.faults:
            raise self.faults[place]

    def load(self, keys: Any, *, inline: int = 0) -> Any:
        self.fault("load")
        return super().load(keys, inline=inline)

    def lacking(self, addresses: Any, *, keep: bool = False) -> Any:
        self.fault("lacking")
        return super().lacking(addresses, keep=keep)

    def save(self, entries: Any, parcels: Any = (), *, unpin: Any = ()) -> None:
        if not entries:
            self.fault("unpin")
        elif any(entry.record.is_pin for entry in entries.values()):
            self.fault("pin")
        else:
            self.fault("save")
        super().save(entries, parcels, unpin=unpin)


class Faulty(Cache):
    """A cache over such a backend."""

    backend: FaultyBackend

    def __init__(self) -> None:
        BaseCache.__init__(self, FaultyBackend())

    @property
    def faults(self) -> dict[str, BaseException]:
        return self.backend.faults

    @faults.setter
    def faults(self, faults: dict[str, BaseException]) -> None:
        self.backend.faults = faults


@pytest.fixture(autouse=True)
def active() -> Iterator[Faulty]:
    runs.clear()
    made = Faulty()
    cache(made)
    package.meta(Runtime())
    yield made
    state.reset()


def fresh(**options: Any) -> Any:
    """A new decorated function, which has been warned of nothing."""

    def twice(x: Any) -> Any:
        """The text of the argument, twice."""
        runs.append(x)
        return str(x) * 2

    return fleche(**options)(twice)


ERRORS = [
    StorageError("the disk is full"),
    RemoteConnectionError("the host is gone"),
    Rejected("this cache is closed"),
    OSError("input/output error"),
    ZeroDivisionError("a bug in a backend"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["load", "pin", "lacking", "save"])
def test_the_function_runs(active: Faulty, place: str, error: Exception) -> None:
    """Wherever the cache fails, and however: the result arrives, with a single warning."""
    active.faults[place] = error
    function = fresh()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert function(LARGE) == LARGE * 2
        assert function(LARGE + "y") == (LARGE + "y") * 2
    assert len(caught) == 1
    assert issubclass(caught[0].category, FlecheWarning)
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert "twice()" in text
    assert f"{type(error).__name__}: {error}" in text
    assert len(runs) == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["pin", "save"])
def test_a_cache_that_can_do_nothing(active: Faulty, place: str, error: Exception) -> None:
    """One that can neither be asked nor store is warned of once, not twice."""
    active.faults = {"load": error, place: error}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fresh()(LARGE) == LARGE * 2
    assert len(caught) == 1


class TestOutOfReach:
    """What has been computed is kept where that is possible, though the cache was not asked."""

    def test_a_lookup_that_fails(self, active: Faulty) -> None:
        active.faults["load"] = RemoteConnectionError("the host is gone")
        function = fresh()
        with pytest.warns(FlecheWarning, match=r"without looking.*gone.*is stored if"):
            assert function(1) == "11"
        active.faults = {}
        assert function(1) == "11"
        assert runs == [1]

    @pytest.mark.parametrize("coalesce", ["threads", "processes"])
    def test_a_far_layer(self, coalesce: str, tmp_path: Path) -> None:
        """Hours of computing are not lost because a far layer, which need not be, is away."""
        near, far = in_files(tmp_path), Layer()
        function = fresh(coalesce=coalesce)
        with cache(CacheStack([near, far])):
            far.error = RemoteConnectionError("the host is gone")
            with pytest.warns(FlecheWarning, match="the host is gone"):
                assert function(1) == "11"
            assert function(1) == "11"
            assert runs == [1]
        with cache(near):
            assert function(1) == "11"
        assert runs == [1]

    def test_a_coroutine(self, tmp_path: Path) -> None:
        near, far = in_files(tmp_path), Layer()
        far.error = RemoteConnectionError("the host is gone")

        @fleche
        async def twice(x: Any) -> Any:
            runs.append(x)
            return str(x) * 2

        with cache(CacheStack([near, far])):
            with pytest.warns(FlecheWarning, match="the host is gone"):
                assert asyncio.run(twice(1)) == "11"
            assert asyncio.run(twice(1)) == "11"
        assert runs == [1]

    @pytest.mark.filterwarnings("ignore:.*the host is gone")
    @pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
    def test_an_executor(self, kind: Any, tmp_path: Path) -> None:
        """The worker computes, and what it returns is stored where it was asked for."""
        near, far = in_files(tmp_path), Layer()
        far.error = RemoteConnectionError("the host is gone")
        with cache(CacheStack([near, far])), kind(1) as pool:
            executor = wrap_executor(pool)
            assert executor.submit(power, 3).result() == 9
            far.error = AssertionError("asked although it was near")
            assert executor.submit(power, 3).result() == 9
        assert near.query(name="power").count() == 1


@fleche
def power(x: int) -> int:
    """Importable by a worker process."""
    return x * x


def test_one_warning_for_each_reason(active: Faulty) -> None:
    """Another failure is another warning; another function is warned too."""
    function = fresh()
    for place in ("load", "save"):
        active.faults = {place: StorageError("full")}
        for number in (1, 2):
            if number == 1:
                with pytest.warns(FlecheWarning):
                    function(place)
            else:
                function(place)
    active.faults = {"load": RemoteConnectionError("gone")}
    with pytest.warns(FlecheWarning, match="gone"):
        function(3)
    with pytest.warns(FlecheWarning, match="gone"):
        fresh()(3)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("fleche.toml: no"),
        MissingExtra("pip install sqlalchemy"),
        AmbiguousDigestError("which?"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_mistakes_are_raised(active: Faulty, error: Exception) -> None:
    """What a person has to mend is not computed around; the function does not even begin."""
    for place in ("load", "pin"):
        active.faults = {place: error}
        with pytest.raises(type(error)):
            fresh()(LARGE)
    assert runs == []


@pytest.mark.parametrize("error", [ConfigError("no"), MissingExtra("no"), CorruptParcel("no")])
def test_the_result_is_never_lost(active: Faulty, error: Exception) -> None:
    """Once the function has computed, nothing that goes wrong in saving keeps its result."""
    active.faults["save"] = error
    with pytest.warns(FlecheWarning, match="not stored"):
        assert fresh()(1) == "11"


def test_a_cache_that_is_away_is_told_of_once(
    active: Faulty, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """However many calls are made meanwhile: one warning, one line of the log."""
    away = RemoteConnectionError("away")
    active.faults = dict.fromkeys(("load", "pin", "save"), away)
    function = fresh()
    with caplog.at_level("WARNING"):
        for x in range(10):
            assert function(x) == 2 * str(x)
    assert len(recwarn.list) == 1
    assert len(caplog.messages) <= 1


def test_a_disk_that_is_nearly_full(active: Faulty, recwarn: pytest.WarningsRecorder) -> None:
    """Where large results fail and small ones do not, warnings end; a later outage is told."""
    function = fresh()

    def warned(x: int, fault: Exception | None) -> int:
        before = len(recwarn.list)
        active.faults = {"save": fault} if fault else {}
        assert function(x) == 2 * str(x)
        return len(recwarn.list) - before

    full = StorageError("no space left on device.")
    told = [warned(x, full if x % 2 else None) for x in range(100)]
    assert sum(told) == 2
    for x in range(100, 110):
        assert warned(x, None) == 0
    assert warned(200, full) == 1
    assert warned(201, full) == 0
    assert "device. " in str(recwarn.list[-1].message)


def test_a_connection_that_was_made_anew(active: Faulty, recwarn: pytest.WarningsRecorder) -> None:
    """When it fails at once, that is told, too."""
    remote = RemoteCache(PipeChannel(lambda i, o: None))
    active.faults = dict.fromkeys(("load", "save"), RemoteConnectionError("away"))
    function = fresh()
    for x in range(6):
        if x % 2 == 0:
            remote.reconnect()
        function(x)
    assert len(recwarn.list) == 3


def test_a_strict_cache_is_obeyed(active: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that raises for a damaged value was told to."""

    def lookup(*args: Any, **options: Any) -> Any:
        raise CorruptParcel("damaged")

    monkeypatch.setattr(active, "lookup", lookup)
    with pytest.raises(CorruptParcel):
        fresh()(1)


def test_interrupts_pass(active: Faulty) -> None:
    """Ctrl-C while the cache works is no failure of the cache, and the next call is a new one."""
    for place in ("load", "pin", "save"):
        active.faults = {place: KeyboardInterrupt()}
        function = fresh()
        with pytest.raises(KeyboardInterrupt):
            function(LARGE)
        active.faults = {}
        assert function(LARGE) == LARGE * 2
        active.evict(function.digest(LARGE))


def test_exception_of_the_body_wins(active: Faulty) -> None:
    """A cache that fails while it cleans up does not hide what the function raised."""

    @fleche
    def fail(x: str) -> int:
        raise LookupError("mine")

    active.faults["unpin"] = ZeroDivisionError("a bug in a backend")
    with pytest.warns(FlecheWarning), pytest.raises(LookupError, match="mine"):
        fail(LARGE)


class TestArguments:
    def test_without_a_digest(self) -> None:
        """An iterator arrives whole; the warning names the argument and says what to do."""

        @fleche
        def total(numbers: Any) -> int:
            return sum(numbers)

        wanted = r"total\(\): runs uncached.*numbers.*Ignored"
        with pytest.warns(FlecheWarning, match=wanted) as told:
            assert total(iter([1, 2, 3])) == 6
        assert str(told[0].message).count("Ignored") == 1
        assert total(iter([1, 2, 3])) == 6

    def test_digest_that_raises(self) -> None:
        class Odd:
            def __digest__(self) -> Any:
                raise RuntimeError("not today")

        with pytest.warns(FlecheWarning, match="not today"):
            assert len(fresh()(Odd())) > 0

    def test_that_does_not_pickle(self) -> None:
        """It may have a digest all the same; then the result is stored, and it is left out."""

        class Handle:
            def __init__(self) -> None:
                self.lock = threading.Lock()

            def __digest__(self) -> str:
                return "handle"

            def __str__(self) -> str:
                return "h"

        function = fresh()
        with pytest.warns(FlecheWarning, match="argument 'x' has a digest, but cannot be pickled"):
            assert function(Handle()) == "hh"
        assert function(Handle()) == "hh"
        assert len(runs) == 1


class TestResults:
    def test_iterator(self) -> None:
        """It arrives unconsumed."""

        @fleche
        def numbers() -> Any:
            return iter([1, 2])

        wanted = "not stored.*Return a value that can be stored"
        with pytest.warns(FlecheWarning, match=wanted) as told:
            assert list(numbers()) == [1, 2]
        assert "Ignored" not in str(told[0].message)  # that is for parameters
        assert list(numbers()) == [1, 2]

    def test_that_nests_too_deep(self) -> None:
        """Its digest is no matter of depth; pickling it is."""

        @fleche
        def deep() -> Any:
            found: list[Any] = []
            for _ in range(100_000):
                found = [found]
            return found

        with pytest.warns(FlecheWarning, match="not stored: Recursion.*nests deeper than can be"):
            assert len(deep()) == 1

    def test_that_cannot_be_opened_any_more(self, active: Faulty) -> None:
        """A damaged result is a miss, and replaced."""
        function = fresh()
        function(LARGE)
        active.values.delete_many([entry.key for entry in active.values.entries()])
        assert function(LARGE) == LARGE * 2
        assert len(runs) == 2
        assert function(LARGE) == LARGE * 2
        assert len(runs) == 2


class TestReadOnly:
    def test_hits_are_silent(self, active: Faulty) -> None:
        function = fresh()
        function(1)
        with cache(ReadOnlyCache(active)):
            assert function(1) == "11"

    def test_misses_are_computed(self, active: Faulty) -> None:
        function = fresh()
        with cache(ReadOnlyCache(active)):
            with pytest.warns(FlecheWarning, match=r"not stored: Rejected.*fleche\.cache"):
                assert function(1) == "11"
            assert function(1) == "11"
        assert runs == [1, 1]

    def test_in_front_of_a_stack(self, active: Faulty) -> None:
        """The far layer fails: that is said, and the call goes on without it."""
        near = Cache(ValueMemory(), CallMemory())
        stack = CacheStack((near, active))
        active.faults["load"] = StorageError("gone")
        with cache(stack), pytest.warns(FlecheWarning, match="gone"):
            assert fresh()(1) == "11"


class TestCollectors:
    @pytest.mark.parametrize("step", ["start", "finish", "data"])
    def test_failing(self, active: Faulty, step: str) -> None:
        """A collector that fails is left out, with a warning; the rest is there."""

        class Broken(MetaData):
            def start(self) -> None:
                if step == "start":
                    raise OSError("broken")

            def finish(self) -> dict[str, Any]:
                if step == "finish":
                    raise OSError("broken")
                return {"thing": object()}

        function = fresh(meta=Broken())
        with pytest.warns(FlecheWarning, match="metadata 'broken' is left out"):
            assert function(1) == "11"
        assert set(function.load(1).metadata) == {"runtime"}
        function(2)


def test_warnings_that_are_errors(active: Faulty) -> None:
    """Who turns warnings into errors gets an error, and a cache that is in order."""
    active.faults["save"] = StorageError("full")
    function = fresh()
    with pytest.raises(FlecheWarning):
        function(1)
    active.faults.clear()
    assert list(active.calls.entries()) == []
    assert function(1) == "11"


def test_without_a_caller() -> None:
    """Where no line of the user's calls, the function's own is the place of the warning."""
    from fleche.decorator._warnings import WarnOnce

    warner = WarnOnce(fresh().__wrapped__, "twice")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warner.warn, args=("reason", "message"))
        thread.start()
        thread.join()
    assert caught[0].filename == __file__


class Held:
    """An object of an own class, with what may be of many kinds."""

    def __init__(self) -> None:
        self.parts = [1.5, {"x": object}]


HELD = Held()


@pytest.mark.parametrize(
    "module",
    [
        "IPython",
        "asyncio",
        "concurrent.futures._base",
        "ctypes",
        "marimo",
        "multiprocessing.process",
        "multiprocessing.util",
        "numpy",
        "pandas",
        "queue",
        "torch",
    ],
)
def test_a_module_that_another_thread_is_importing(
    active: Faulty, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found where modules are, and nothing is in it yet."""

    @fleche(cache=active)
    def shown(number: int, text: bytes = bytes(70_000)) -> list[Any]:
        return [number, len(text), HELD.parts[0]]

    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shown(1) == [1, 70_000, 1.5]
        assert shown(1) == [1, 70_000, 1.5]
    assert shown.contains(1)
