"""Copying calls between caches, and bringing two caches to the same state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import (
    BaseCache,
    Cache,
    CacheBackend,
    CachePool,
    CacheStack,
    CacheView,
    Gc,
    RefreshingCache,
    Reported,
    SizeLimitedCache,
    SyncReport,
    ViewBackend,
    _transfer,
)
from fleche.call import Call, CallEntry, QueryCall
from fleche.digest import Address, D, Digest, buffer_digest, digest
from fleche.errors import Rejected, RemoteConnectionError, StorageError
from fleche.parcel import Parcel
from fleche.remote import RemoteCache
from fleche.storage import CallFile, CallMemory, Sql, ValueFile, ValueMemory
from tests.helpers.layers import Layer, call, in_files, in_memory
from tests.helpers.serving import Serving
from tests.helpers.sweeps import swept
from tests.helpers.taps import TappedChannel

PAIRS = [
    ("memory", "pipe"),
    ("pipe", "memory"),
    ("file", "sql"),
    ("sql", "file"),
    ("stack", "memory"),
    ("memory", "stack"),
]


def make(kind: str, root: Path) -> BaseCache:
    if kind == "memory":
        return in_memory()
    if kind == "sql":
        return Cache(ValueFile(root), Sql(root / "calls.db"))
    if kind == "stack":
        return CacheStack([in_memory(), in_files(root)])
    return in_files(root)


@pytest.fixture(params=PAIRS, ids=" to ".join)
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, serving: Serving
) -> Iterator[tuple[BaseCache, BaseCache]]:
    """Two caches, each of some kind; one may be at the other end of a pipe."""

    def opened(kind: str, root: Path) -> BaseCache:
        if kind == "pipe":
            return RemoteCache(serving.channel("pipe", lambda: make("file", root)))
        return make(kind, root)

    here, there = request.param
    with opened(here, tmp_path / "source") as source, opened(there, tmp_path / "target") as target:
        yield source, target


@pytest.fixture
def source(pair: tuple[BaseCache, BaseCache]) -> BaseCache:
    return pair[0]


@pytest.fixture(params=["memory", "sql", "pipe"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, serving: Serving) -> Iterator[BaseCache]:
    """A target for what a cache of files holds."""
    root = tmp_path / "fresh"
    if request.param == "pipe":
        with RemoteCache(serving.channel("pipe", lambda: make("file", root))) as remote:
            yield remote
    else:
        with make(request.param, root) as cache:
            yield cache


@pytest.fixture
def target(pair: tuple[BaseCache, BaseCache]) -> BaseCache:
    return pair[1]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Cache]:
    with in_files(tmp_path / "files") as cache:
        yield cache


LARGE = "large " * 5000


def large(value: object) -> list[object]:
    """Return a value that does not travel with the record of its call."""
    return [value, LARGE]


def path_of(cache: Cache, kind: str, key: Digest | str) -> Path:
    root = Path(cache.values.to_config()["root"])
    (path,) = [each for each in root.rglob(f"*.{kind}") if key[8:64] in each.name]
    return path


def buffer_of(array: Any) -> Digest:
    """Return the name under which the memory of a large array is kept."""
    return buffer_digest(array.data.cast("B"))


def is_here(cache: BaseCache, value: object) -> bool:
    return cache.backend.lacking([Address.of(digest(value))]) == []


def damage(cache: Cache, kind: str, key: Digest | str) -> None:
    path = path_of(cache, kind, key)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def state(cache: BaseCache) -> dict[str, Any]:
    """What can be had from a cache: the result and the arguments of each call."""
    return {found.key: (found.result, dict(found.arguments)) for found in cache.query()}


class TestTransfer:
    def test_everything(self, source: BaseCache, target: BaseCache) -> None:
        for x in range(20):
            source.save(call(x=large(x), result={"result": large(x)}))
        assert source.transfer(target) == 20
        assert state(target) == state(source)
        assert source.transfer(target) == 0

    def test_some(self, source: BaseCache, target: BaseCache) -> None:
        """A template, a query, or any calls say which."""
        for name in ("one", "two", "three"):
            source.save(call(name=name))
        assert source.transfer(target, QueryCall(name="one")) == 1
        assert source.transfer(target, source.query(name="two")) == 1
        assert source.query(name="two").transfer(target) == 0
        assert source.transfer(target, [source.query(name="three").only()]) == 1

    def test_to_itself(self, source: BaseCache) -> None:
        source.save(call())
        assert source.transfer(source) == 0

    def test_running_calls_stay(self, source: BaseCache, target: BaseCache) -> None:
        """Where a call runs, the pin of it is of use; elsewhere it is not."""
        source.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        source.save(call(x=2))
        assert source.transfer(target) == 1
        assert target.query().count() == 1

    def test_what_the_target_has_stays(self, source: BaseCache, target: BaseCache) -> None:
        """A call that both know is left as it is: each is right by its own provenance."""
        target.save(call(started="2026-01-01T00:00:00+00:00"))
        source.save(call(started="2027-01-01T00:00:00+00:00"))
        assert source.transfer(target) == 0
        (found,) = target.query()
        assert found.metadata["runtime"]["started"].startswith("2026")

    def test_a_call_whose_result_is_gone_from_the_target(
        self, source: BaseCache, target: BaseCache
    ) -> None:
        """It is not there, whatever the record says."""
        for x, result in enumerate((4, [4], large(4))):
            for cache in (source, target):
                cache.save(call(x=x, result=result))
            target.evict(digest(result))
            assert source.transfer(target) == 1
            assert target.load(call(x=x).key).result == result

    def test_read_only(self, source: BaseCache, target: BaseCache) -> None:
        with pytest.raises(Rejected, match="transfer refused"):
            source.transfer(target.readonly())

    def test_progress(self, source: BaseCache, target: BaseCache) -> None:
        """After each batch, how many calls have been copied; a batch of known ones says nothing."""
        for x in range(1100):
            source.save(call(x=x, result=x % 3))
        seen: list[int] = []
        assert source.transfer(target, progress=seen.append) == 1100
        assert seen == [1024, 1100]
        assert source.transfer(target, progress=seen.append) == 0
        assert len(seen) == 2


class TestCompleteness:
    """What a target lacks of a call that it can answer is brought, too."""

    def test_arguments(self, source: BaseCache, target: BaseCache) -> None:
        """As after a back-fill, which leaves large arguments where they are."""
        for cache in (source, target):
            for x in range(3):
                cache.save(call(x=large(x), result={"result": large(x)}))
        target.evict(digest(large(1)))
        assert source.transfer(target) == 1
        assert state(target) == state(source)
        assert source.sync(target) == SyncReport()

    def test_after_a_back_fill(self, tmp_path: Path) -> None:
        near, far = in_memory(), in_files(tmp_path)
        key = far.save(call(x=large(1), result=[2]))
        assert CacheStack((near, far)).load(key).result == [2]
        assert not is_here(near, large(1))
        assert far.sync(near) == SyncReport(sent=1)
        assert near.load(key).arguments["x"] == large(1)

    def test_shared_buffers(self, source: BaseCache, target: BaseCache) -> None:
        """A value whose buffer is gone from the target is there, and yet is not."""
        np = pytest.importorskip("numpy")
        arrays = [np.full(200_000, float(x)) for x in range(4)]
        for cache in (source, target):
            cache.save(call(x=arrays[0], result=arrays[1]))
            cache.save(call(x=arrays[2], result=arrays[3]))
        for array in (arrays[0], arrays[3]):
            target.evict(buffer_of(array))
        assert source.transfer(target) == 2
        found = target.load(call(x=arrays[0]).key)
        assert (found.arguments["x"] == arrays[0]).all()
        assert (target.load(call(x=arrays[2]).key).result == arrays[3]).all()
        assert source.transfer(target) == 0

    def test_a_new_call_of_old_values(self, source: BaseCache, target: BaseCache) -> None:
        """It may rest on a value that is there, and whose buffer is not."""
        np = pytest.importorskip("numpy")
        array = np.zeros(200_000)
        target.save(call(x=1, result=array))
        source.save(call(x=2, result=array))
        target.evict(buffer_of(array))
        assert source.transfer(target) == 1
        assert [len(found.result) for found in target.query()] == [200_000] * 2

    def test_results_that_differ_stay(self, source: BaseCache) -> None:
        """What the result of the source needs is of no use where another one is kept."""
        np = pytest.importorskip("numpy")
        target = Layer()
        target.inner.save(call(result=np.zeros(200_000)))
        source.save(call(result=np.ones(200_000)))
        assert source.transfer(target) == 0
        assert target.asked["save"] == 0
        assert target.inner.query().only().result.sum() == 0

    def test_what_neither_has(self, source: BaseCache, target: BaseCache) -> None:
        for cache in (source, target):
            cache.save(call(x=large(1), result=[2]))
            cache.evict(digest(large(1)))
        assert source.transfer(target) == 0
        assert target.query().only().result == [2]

    def test_of_two_remotes(self, serving: Serving, tmp_path: Path) -> None:
        remotes = []
        for name in ("one", "two"):
            with make("file", tmp_path / name) as cache:
                cache.save(call(x=large("x"), result=["result"]))
            remotes.append(
                RemoteCache(serving.channel("pipe", partial(make, "file", tmp_path / name)))
            )
        one, two = remotes
        with one, two:
            two.evict(digest(large("x")))
            assert one.transfer(two) == 1
            assert state(one) == state(two)


class TestRefusals:
    """What a target refuses is left out, counted and logged, and the rest is copied."""

    @pytest.fixture(params=["here", "pipe"])
    def served(
        self, request: pytest.FixtureRequest, serving: Serving
    ) -> Iterator[Callable[[BaseCache], BaseCache]]:
        """The same cache, here or at the other end of a pipe."""
        with ExitStack() as stack:

            def served(cache: BaseCache) -> BaseCache:
                if request.param == "here":
                    return cache
                channel = serving.channel("pipe", lambda: cache)
                return stack.enter_context(RemoteCache(channel))

            yield served

    @pytest.mark.parametrize("large", ["text", "array", "argument"])
    def test_a_value_that_is_too_large(
        self,
        served: Callable[[BaseCache], BaseCache],
        large: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It may be a result, a buffer of one, or an argument, without which a call is of use."""
        source, limited = in_memory(), SizeLimitedCache(in_memory(), max_bytes=200_000)
        target = served(limited)
        for x in range(10):
            source.save(call(x=x, result=[x]))
        if large == "array":
            np = pytest.importorskip("numpy")
            source.save(call(x=10, result=np.zeros(100_000)))
        elif large == "text":
            source.save(call(x=10, result="x" * 300_000))
        else:
            source.save(call(x="x" * 300_000, result=[10]))
        for x in range(11, 20):
            source.save(call(x=x, result=[x]))
        copied = 19 + (large == "argument")
        assert source.transfer(target) == copied
        assert limited.query().count() == copied
        assert source.counts()["refused"] == 1
        assert "max_bytes is 200000" in caplog.text
        assert source.transfer(target) == 0

    def test_a_call_that_a_filter_hides(
        self, served: Callable[[BaseCache], BaseCache], caplog: pytest.LogCaptureFixture
    ) -> None:
        source, inner = in_memory(), in_memory()
        target = served(inner.filter(name="f"))
        for name in ("f", "g", "f"):
            for x in range(3):
                source.save(call(name=name, x=(name, x), result=[x]))
        assert source.transfer(target) == 3
        assert {found.name for found in inner.query()} == {"f"}
        assert source.counts() == {"refused": 3}
        assert "does not match the filter" in caplog.text

    def test_a_value_that_is_not_signed(
        self, served: Callable[[BaseCache], BaseCache], tmp_path: Path
    ) -> None:
        source = in_files(tmp_path / "source")
        signing = Cache(ValueFile(tmp_path / "source", secret_key="s"), source.calls)
        for x in range(10):
            result = {"result": x, "filling": LARGE if x % 2 else ""}
            (source if x == 5 else signing).save(call(x=[x], result=result))
        root = tmp_path / "target"
        trusting = Cache(ValueFile(root, secret_key="s"), CallFile(root, secret_key="s"))
        assert source.transfer(served(trusting)) == 9
        assert sorted(found.result["result"] for found in trusting.query()) == [
            *range(5),
            *range(6, 10),
        ]
        assert source.counts()["refused"] >= 1
        assert source.transfer(served(trusting)) == 0


class CollectingBackend(ViewBackend):
    """A cache whose garbage, of any age, is collected each time that something arrives."""

    def save(self, entries: Any, parcels: Any = (), *, unpin: Any = ()) -> None:
        def arriving() -> Iterator[Any]:
            for each in parcels:
                yield each
                self.inner.maintain(Gc(grace=-60))

        super().save(entries, arriving(), unpin=unpin)
        self.inner.maintain(Gc(grace=-60))


class Collecting(CacheView):
    def _make_backend(self, inner: CacheBackend) -> CacheBackend:
        return CollectingBackend(inner)


class TestCollectors:
    """However long a transfer takes, what has arrived and has no record yet is not collected."""

    def test_values(self, files: Cache) -> None:
        keys = [files.save(call(x=large(x), result={"result": large(x)})) for x in range(8)]
        target = in_memory()
        assert files.transfer(Collecting(target)) == 8
        assert state(target) == state(files)
        assert {each.key for each in target.calls.entries()} == set(keys), "a pin is left"

    def test_values_that_were_there(self, files: Cache) -> None:
        """They are not sent, and count on it that they stay."""
        target = in_memory()
        for x in range(4):
            files.save(call(x=large(x), result={"result": large(x)}))
            target.save_value(large(x))
        assert files.transfer(Collecting(target)) == 4
        assert state(target) == state(files)

    @pytest.mark.parametrize("filling", [LARGE, ""])
    def test_shared_buffers(self, files: Cache, filling: str) -> None:
        np = pytest.importorskip("numpy")
        value = {"a": np.zeros(200_000), "b": np.ones(200_000), "filling": filling}
        key = files.save(call(x=1, result=value))
        target = in_memory()
        assert files.transfer(Collecting(target)) == 1
        assert target.load(key).result["b"].sum() == 200_000
        assert [each.key for each in target.calls.entries()] == [key], "a pin is left"

    def test_a_pin_that_cannot_be_removed(
        self, files: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is as if the transfer had been killed: the pin goes when it is too old."""

        class Stubborn(CallMemory):
            def delete_many(self, keys: Iterable[str]) -> None:
                raise StorageError("it stays")

        files.save(call(x=large(1), result=large(2)))
        target = Cache(ValueMemory(), Stubborn())
        assert files.transfer(target) == 1
        assert "stays until it is too old" in caplog.text
        assert target.query().only().result == large(2)
        assert target.gc(pin_age=-60).pins == 1

    def test_an_interruption_leaves_no_pin(self, files: Cache) -> None:
        for x in range(8):
            files.save(call(x=large(x), result={"result": large(x)}))
        target = in_memory()
        with pytest.raises(KeyboardInterrupt):
            files.transfer(Broken(target, 3, KeyboardInterrupt()))
        assert list(target.calls.entries()) == []


class TestPortions:
    def test_records_follow_soon(
        self, source: BaseCache, target: BaseCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Large values do not wait for each other: each is soon followed by its record."""
        monkeypatch.setattr(_transfer, "_PORTION", 100_000)
        for x in range(6):
            source.save(call(x=x, result=bytes([x]) * 60_000))
        seen: list[int] = []
        assert source.transfer(target, progress=seen.append) == 6
        assert seen[-1] == 6
        assert len(seen) > 2
        assert state(target) == state(source)

    def test_shared_buffers_count(
        self, source: BaseCache, target: BaseCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np = pytest.importorskip("numpy")
        monkeypatch.setattr(_transfer, "_PORTION", 100_000)
        for x in range(4):
            source.save(call(x=x, result=np.full(200_000, float(x))))
        seen: list[int] = []
        assert source.transfer(target, progress=seen.append) == 4
        assert len(seen) == 4
        assert sorted(found.result[0] for found in target.query()) == [0, 1, 2, 3]


class BrokenBackend(ViewBackend):
    """Fails after so many parcels, as if its disk were full or its line cut."""

    def __init__(self, inner: CacheBackend, after: int, error: BaseException) -> None:
        super().__init__(inner)
        self.left, self.error = after, error
        self.taken: list[Address] = []

    def save(self, entries: Any, parcels: Any = (), *, unpin: Any = ()) -> None:
        def passing() -> Iterator[Any]:
            for address, parcel in parcels:
                if not self.left:
                    raise self.error
                self.left -= 1
                yield address, parcel
                self.taken.append(address)

        super().save(entries, passing(), unpin=unpin)


class Broken(CacheView):
    backend: BrokenBackend

    def __init__(self, inner: BaseCache, after: int, error: BaseException) -> None:
        self._options = after, error
        super().__init__(inner)

    def _make_backend(self, inner: CacheBackend) -> CacheBackend:
        return BrokenBackend(inner, *self._options)


class TestInterruptions:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RemoteConnectionError("cut")])
    def test_what_has_arrived_is_not_sent_again(
        self, source: BaseCache, target: BaseCache, error: BaseException
    ) -> None:
        """Interrupted anywhere, it goes on where it was, and every call that is there is whole."""
        for x in range(12):
            source.save(call(x=[x, LARGE * 3], result={"result": [x, LARGE * 3]}))
        taken: list[Address] = []
        for after in range(4, 40, 4):
            through = Broken(target, after, error)
            try:
                source.transfer(through)
            except (KeyboardInterrupt, RemoteConnectionError):
                pass
            else:
                break
            finally:
                taken += through.backend.taken
            assert state(target).items() <= state(source).items()
        assert state(target) == state(source)
        assert len(set(taken)) == 24
        # over a wire, what was on its way when it broke off is sent again
        assert len(taken) < 48 if isinstance(target, RemoteCache) else len(taken) == 24

    def test_evicted_meanwhile(self, files: Cache, fresh: BaseCache) -> None:
        """Calls that go while others are copied are left out."""
        for x in range(8):
            files.save(call(x=large(x), result={"result": large(x)}))

        def evicting() -> Iterator[Any]:
            for found in list(files.query()):
                files.evict(found.key)
                yield found
            files.save(call(x=[100], result="new"))
            yield files.query(arguments={"x": digest([100])}).only()

        assert files.transfer(fresh, evicting()) == 1
        assert fresh.query().only().result == "new"

    def test_a_value_that_goes_while_it_is_read(
        self, files: Cache, fresh: BaseCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an object of a store may."""
        for x in range(4):
            files.save(call(x=large(x), result={"result": large(x)}))
        gone = digest({"result": large(2)})
        real = Parcel.checked_chunks

        def vanishing(parcel: Parcel, *args: Any, **options: Any) -> Any:
            if parcel.head.digest == gone:
                raise KeyError(gone)
            return real(parcel, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Parcel, "checked_chunks", vanishing)
            assert files.transfer(fresh) == 3
        assert files.counts() == {"dangling": 1}
        assert sorted(found.arguments["x"][0] for found in fresh.query()) == [0, 1, 3]


class TestDamage:
    """Damage does not travel, and does not keep the rest from travelling."""

    @pytest.fixture
    def keys(self, files: Cache) -> list[str]:
        return [files.save(call(x=large(x), result={"result": large(x)})) for x in range(6)]

    def test_a_record(self, files: Cache, fresh: BaseCache, keys: list[str]) -> None:
        damage(files, "call", keys[2])
        assert files.transfer(fresh) == 5
        assert files.counts()["errors.corrupt"] == 1
        assert state(fresh) == state(files)

    def test_a_result(
        self, files: Cache, fresh: BaseCache, keys: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        damage(files, "value", digest({"result": large(2)}))
        assert files.transfer(fresh) == 5
        assert files.counts() == {"errors.corrupt": 1, "dangling": 1}
        assert "checksum does not match" in caplog.text
        assert keys[2] not in state(fresh)
        assert not is_here(fresh, {"result": large(2)})

    def test_an_argument(self, files: Cache, fresh: BaseCache, keys: list[str]) -> None:
        """The call can still be answered, so it is copied."""
        damage(files, "value", digest(large(2)))
        assert files.transfer(fresh) == 6
        assert not is_here(fresh, large(2))
        assert fresh.load(keys[2]).result == {"result": large(2)}

    def test_several(self, files: Cache, fresh: BaseCache, keys: list[str]) -> None:
        for x in (0, 3, 5):
            damage(files, "value", digest({"result": large(x)}))
        damage(files, "call", keys[4])
        path_of(files, "value", digest({"result": large(1)})).write_bytes(b"")
        assert files.transfer(fresh) == 1
        assert state(fresh).keys() == {keys[2]}

    def test_what_is_left_out_is_told(
        self, files: Cache, fresh: BaseCache, keys: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The progress knows how many calls were left out, each time; a pin is not one of them."""
        damage(files, "value", digest({"result": large(0)}))
        damage(files, "call", keys[4])
        files.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        seen: list[Reported] = []
        for copied in (4, 0):
            assert files.transfer(fresh, progress=seen.append) == copied
            assert seen[-1].left_out == 2
        assert CacheStack((files, in_memory(), in_memory())).push(progress=seen.append) == 8
        assert seen[-1].left_out == 4
        files.transfer(in_memory(), progress=True)
        assert "4 of 7, 2 left out" in capsys.readouterr().err

    def test_a_large_one(self, files: Cache, fresh: BaseCache) -> None:
        """So it is with a value that is read piece by piece."""
        large = ["x" * 3_000_000]
        files.save(call(x=1, result=large))
        files.save(call(x=2, result="sound"))
        damage(files, "value", digest(large))
        assert files.transfer(fresh) == 1
        assert fresh.query().only().result == "sound"

    def test_a_shared_buffer(self, files: Cache, fresh: BaseCache) -> None:
        """A value that lacks a part is no value."""
        np = pytest.importorskip("numpy")
        for x in range(3):
            files.save(call(x=x, result={"array": np.full(200_000, float(x))}))
        damage(files, "value", buffer_of(np.full(200_000, 1.0)))
        assert files.transfer(fresh) == 2
        assert sorted(found.arguments["x"] for found in fresh.query()) == [0, 2]

    def test_from_a_remote(
        self, files: Cache, keys: list[str], serving: Serving, tmp_path: Path
    ) -> None:
        """The server finds it, the client goes on."""
        huge = ["x" * 3_000_000]
        files.save(call(x=1, result=huge))
        damage(files, "value", digest(huge))
        damage(files, "call", keys[1])
        damage(files, "value", digest({"result": large(4)}))
        path_of(files, "value", digest({"result": large(5)})).write_bytes(b"")
        root = tmp_path / "files"
        with RemoteCache(serving.channel("pipe", lambda: make("file", root))) as remote:
            other = in_memory()
            assert remote.transfer(other) == 3
            assert state(other).keys() == {keys[0], keys[2], keys[3]}
            assert remote.counts()["errors.corrupt"] == 4
            assert remote.contains(keys[0])

    def test_a_value_under_a_wrong_name(self, files: Cache, fresh: BaseCache) -> None:
        files.save(call(x=1, result=large("one")))
        files.save(call(x=2, result=large("two")))
        one, two = (path_of(files, "value", digest(large(name))) for name in ("one", "two"))
        two.write_bytes(one.read_bytes())
        assert files.transfer(fresh) == 1
        assert fresh.query().only().result == large("one")

    def test_what_travels_with_a_record(self, fresh: BaseCache) -> None:
        """It is checked, too, wherever the record comes from."""
        source = in_memory()
        keys = [D(source.save(call(x=[x], result=["result", x]))) for x in range(3)]
        for key, index in ((keys[0], 0), (keys[1], -1)):
            entry = source.load(key).entry
            address = [ref.address for ref in entry.record.values()][index]
            data = bytearray(entry.parcels[address])
            data[-1] ^= 1
            altered = CallEntry(entry.record, {**entry.parcels, address: bytes(data)})
            source.backend.save({key: altered})
        assert source.transfer(fresh) == 2
        assert source.counts()["errors.corrupt"] == 2
        assert {found.key for found in fresh.query()} == {keys[0], keys[2]}
        with pytest.raises(KeyError):
            fresh.load(keys[0]).arguments["x"]


class TestSync:
    def test_both_ways(self, source: BaseCache, target: BaseCache) -> None:
        """Afterwards each has what either had."""
        for x in range(10):
            source.save(call(x=large(x), result={"here": large(x)}))
        for x in range(5, 13):
            target.save(call(x=large(x), result={"there": large(x)}))
        before = {**state(source), **state(target)}
        assert source.sync(target) == SyncReport(sent=5, received=3)
        assert state(source).keys() == state(target).keys() == before.keys()
        assert source.sync(target) == target.sync(source) == SyncReport()

    def test_some(self, source: BaseCache, target: BaseCache) -> None:
        for name in ("one", "two"):
            source.save(call(name=name, x=1))
            target.save(call(name=name, x=2))
        assert source.sync(target, name="one") == SyncReport(sent=1, received=1)
        assert source.sync(target, QueryCall(name="one")) == SyncReport()
        assert source.query(name="two").count() == 1

    def test_progress(self, source: BaseCache, target: BaseCache) -> None:
        """It counts on from one way to the other."""
        source.save(call(x=1))
        target.save(call(x=2))
        target.save(call(x=3))
        seen: list[int] = []
        report = source.sync(target, progress=seen.append)
        assert seen == [1, 3]
        assert str(report) == "sent: 1, received: 2"

    @pytest.mark.parametrize("which", ["here", "there"])
    def test_read_only(self, source: BaseCache, target: BaseCache, which: str) -> None:
        """Nothing moves if one of them may not be written to."""
        source.save(call(x=1))
        target.save(call(x=2))
        here, there = (
            (source.readonly(), target) if which == "here" else (source, target.readonly())
        )
        with pytest.raises(Rejected, match="read-only, sync refused"):
            here.sync(there)
        assert source.query().count() == target.query().count() == 1

    def test_interrupted(self, source: BaseCache, target: BaseCache) -> None:
        """Whichever way it was going, it goes on there."""
        for x in range(1, 8):
            source.save(call(x=large(x), result={"here": large(x)}))
            target.save(call(x=large(-x), result={"there": large(x)}))
        for after in (1, 3, 2):
            for here, there in ((source, target), (target, source)):
                with pytest.raises(KeyboardInterrupt):
                    here.sync(Broken(there, after, KeyboardInterrupt()))
        source.sync(target)
        assert state(source).keys() == state(target).keys()

    def test_of_two_remotes(self, serving: Serving, tmp_path: Path) -> None:
        """Either side may be remote, or both."""
        remotes = []
        for name in ("one", "two"):
            root = tmp_path / name
            with make("file", root) as cache:
                cache.save(call(x=name, result=[name]))
            channel = serving.channel("pipe", partial(make, "file", root))
            remotes.append(RemoteCache(channel))
        one, two = remotes
        with one, two:
            assert one.sync(two) == SyncReport(sent=1, received=1)
            assert state(one) == state(two)


VIEWS: dict[str, Callable[[BaseCache], BaseCache]] = {
    "itself": lambda remote: remote,
    "filter": lambda remote: remote.filter(name="f"),
    "filter by function": lambda remote: remote.filter(lambda call: call.name == "f"),
    "read-only": BaseCache.readonly,
    "pool": lambda remote: CachePool([in_memory(), remote]),
    "stack": lambda remote: CacheStack([in_memory(), remote]),
    "stack, first": lambda remote: CacheStack([remote, in_memory()]),
    "refreshing": lambda remote: RefreshingCache(remote, datetime(2000, 1, 1)),
}
WRITABLE = ("itself", "filter", "filter by function", "stack, first", "refreshing")
SOME_VIEWS = swept(VIEWS, lambda name: name in ("itself", "filter by function", "stack", "pool"))


class TestRequests:
    """A hundred keys cost a remote cache a few requests, through whatever they go."""

    @pytest.fixture(params=[False, True], ids=["small", "large"])
    def is_large(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    def calls(self, is_large: bool) -> Iterator[Call]:
        for x in range(100):
            result = [x, LARGE] if is_large else [x]
            yield call(x=[x], result=result, started="2024-01-01T00:00:00")

    @pytest.fixture
    def served(
        self, serving: Serving, tmp_path: Path, is_large: bool
    ) -> Iterator[tuple[RemoteCache, TappedChannel, Cache]]:
        """A remote cache, what crosses the wire, and the cache that is served."""
        far = in_files(tmp_path / "far")
        tap = TappedChannel(serving.channel("pipe", lambda: far))
        with RemoteCache(tap) as remote:
            remote.contains_many([digest(0)])
            yield remote, tap, far

    @pytest.mark.parametrize("name", SOME_VIEWS)
    def test_out_of(
        self,
        served: tuple[RemoteCache, TappedChannel, Cache],
        name: str,
        is_large: bool,
    ) -> None:
        remote, tap, far = served
        for each in self.calls(is_large):
            far.save(each)
        target, before = in_memory(), len(tap.requests())
        assert VIEWS[name](remote).transfer(target) == 100
        assert len(tap.requests()) - before <= 3 + is_large + 1  # for the counters of use
        assert state(target) == state(far)

    @pytest.mark.parametrize("name", WRITABLE)
    def test_into(
        self, served: tuple[RemoteCache, TappedChannel, Cache], name: str, is_large: bool
    ) -> None:
        remote, tap, far = served
        source = in_memory()
        for each in self.calls(is_large):
            source.save(each)
        before = len(tap.requests())
        assert source.transfer(VIEWS[name](remote)) == 100
        # large values are pinned and asked for first, and go up in groups of half a megabyte
        assert len(tap.requests()) - before <= (12 if is_large else 2)
        assert state(far) == state(source)

    @pytest.mark.parametrize("name", SOME_VIEWS)
    def test_many(
        self,
        served: tuple[RemoteCache, TappedChannel, Cache],
        name: str,
        is_large: bool,
    ) -> None:
        remote, tap, far = served
        keys = [D(far.save(each)) for each in self.calls(is_large)]
        shown, before = VIEWS[name](remote), len(tap.requests())
        assert shown.contains_many(keys) == [True] * 100
        assert len(tap.requests()) - before <= 2
        before = len(tap.requests())
        assert [each.key for each in shown.load_many(keys)] == keys
        assert len(tap.requests()) - before == 1
        before = len(tap.requests())
        assert len(shown.lookup_many(keys)) == 100
        assert len(tap.requests()) - before <= 1


class TestEconomy:
    def test_only_what_is_missing_moves(self, serving: Serving, tmp_path: Path) -> None:
        """Where nothing is missing, keys are all that crosses the wire.

        A remote target is asked for the arguments, too: a call that came to it by a back-fill may
        lack them. Whether a target on this machine does can be told here.
        """
        root = tmp_path / "far"
        with make("sql", root) as far, in_memory() as near:
            for x in range(1000):
                far.save(call(x=x, result=["result", x]))
            far.transfer(near)
        tap = TappedChannel(serving.channel("pipe", lambda: make("sql", root)))
        with RemoteCache(tap, compression="none") as remote:
            remote.contains(digest(0))
            tap.clear_sent()
            received = tap.received_bytes
            assert remote.transfer(near) == 0
            assert tap.received_bytes - received < 1000 * 80
            assert near.transfer(remote) == 0
            assert tap.sent_bytes < 1000 * 140
            near.save(call(x="new", result=["new"]))
            tap.clear_sent()
            assert near.sync(remote) == SyncReport(sent=1)
            assert tap.sent_bytes < 1001 * 140 + 5_000

    def test_records_are_read_once(self, tmp_path: Path) -> None:
        """A transfer opens the records of those calls that it copies."""
        opened: list[str] = []

        class Calls(CallMemory):
            def get_many(self, keys: Iterable[str]) -> Any:
                for key in keys:
                    opened.append(key)
                    yield from super().get_many([key])

        here, there = Cache(ValueMemory(), Calls()), in_memory()
        keys = [Digest(here.save(call(x=x))) for x in range(10)]
        here.transfer(there)
        opened.clear()
        there.evict(keys[3])
        here.transfer(there)
        assert opened == [keys[3]]


def test_a_thousand_are_asked_for_together(tmp_path: Path) -> None:
    """`contains_many` of a local cache reads records in batches, with the same answers."""
    with Cache(ValueFile(tmp_path), Sql(tmp_path / "calls.db")) as cache:
        keys = [D(cache.save(call(x=x, result=large(x) if x % 2 else [x]))) for x in range(30)]
        cache.evict(digest(large(3)))
        cache.evict(digest([6]))
        cache.evict(keys[4])
        running = cache.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        asked = [*keys, digest("absent"), running.key, keys[0]]
        found = cache.contains_many(asked)
        assert found == [cache.contains(key) for key in asked]
        assert found.count(False) == 5


def test_damaged_records_are_not_there(tmp_path: Path) -> None:
    with Cache(ValueFile(tmp_path), CallFile(tmp_path)) as cache:
        keys = [Digest(cache.save(call(x=x))) for x in range(5)]
        damage(cache, "call", keys[2])
        assert cache.contains_many(keys) == [True, True, False, True, True]
