"""The local cache: what the contract leaves open, and what goes wrong on real disks."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import (
    BaseCache,
    Cache,
    CachePool,
    CacheStack,
    FilteredCache,
    LayerPolicy,
    RefreshingCache,
    Rejected,
    SizeLimitedCache,
)
from fleche.call import Call, CallEntry, QueryCall, ValueRef
from fleche.digest import Address, D, Digest, digest
from fleche.errors import (
    AmbiguousDigestError,
    CorruptParcel,
    Indigestible,
    SignatureError,
    StorageError,
    UnpackError,
)
from fleche.parcel import PYTHON, Packing, Parcel
from fleche.storage import CallFile, CallMemory, Capabilities, ValueFile, ValueMemory
from fleche.storage.local import local_storages
from tests.helpers.backends import load_parcel
from tests.helpers.layers import call, in_files, in_memory, result_of


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with in_files(tmp_path / "cache") as cache:
        yield cache


LARGE = "large " * 5000
"""A value that does not travel with the record of its call."""

HUGE = "huge " * 500_000
"""An argument that is not kept in memory while its function runs."""


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def alter(root: Path, key: str) -> None:
    """Flip the last bit of the file of a call or a value."""
    (path,) = [each for each in files(root) if key[8:64] in each.name]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


class TestWhatItIs:
    def test_capabilities_of_both_storages(self) -> None:
        class ReadOnly(CallMemory):
            capabilities = Capabilities(read_only=True, persistent=True, shared=True)

        class Objects(ValueMemory):
            capabilities = Capabilities(opens_parcels=True, persistent=True)

        cache = Cache(Objects(), ReadOnly())
        assert cache.capabilities == Capabilities(
            read_only=True, persistent=True, shared=False, opens_parcels=True
        )
        with pytest.raises(Rejected, match="read-only, save refused"):
            cache.save(call())
        with pytest.raises(Rejected, match="read-only, evict refused"):
            cache.evict(digest(1))
        with pytest.raises(Rejected, match="read-only, gc refused"):
            cache.gc()
        absent = Address.of(digest(1))
        assert cache.backend.lacking([absent], keep=True) == [absent]

    def test_config(self, tmp_path: Path) -> None:
        cache = in_files(tmp_path, LayerPolicy(write_through=True))
        assert cache.to_config() == {
            "values": ValueFile(tmp_path).to_config(),
            "calls": CallFile(tmp_path).to_config(),
            "write_through": True,
        }
        assert in_memory().to_config() == {
            "values": {"type": "memory"},
            "calls": {"type": "memory"},
        }
        whole = Cache(*local_storages(tmp_path / "local"), policy=LayerPolicy(write_through=True))
        assert whole.to_config() == {
            "type": "local",
            "root": str(tmp_path / "local"),
            "write_through": True,
        }

    def test_its_name_tells_no_secret(self, tmp_path: Path) -> None:
        cache = Cache(ValueFile(tmp_path, secret_key="hush"), CallFile(tmp_path))
        assert "hush" not in repr(cache) + str(cache)

    def test_secret_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cache signs with ``FLECHE_SECRET_KEY`` where its storage has no secret of its own."""
        monkeypatch.setenv("FLECHE_SECRET_KEY", "hush")
        assert in_memory().packing.keys == (b"hush",)

    def test_closing_closes_both(self) -> None:
        closed = []

        class Values(ValueMemory):
            def close(self) -> None:
                closed.append("values")
                raise StorageError("the disk is gone")

        class Calls(CallMemory):
            def close(self) -> None:
                closed.append("calls")

        with pytest.raises(StorageError):
            Cache(Values(), Calls()).close()
        assert closed == ["values", "calls"]


class TestMisses:
    """An error says what is not there, and where."""

    @pytest.mark.parametrize("key", ["abcd1234", "ab" * 32])
    @pytest.mark.parametrize("operation", ["load", "evict", "expand", "shrink", "load_value"])
    def test_keys(self, operation: str, key: str) -> None:
        with pytest.raises(KeyError, match=rf"{key}.* in Cache\(ValueMemory"):
            getattr(in_memory(), operation)(key)

    def test_values(self) -> None:
        """Whether a call has an argument is known without its value."""
        cache = in_memory()
        call = cache.load(cache.save(Call("f", {"x": bytes(100_000)}, result=bytes(200_000))))
        cache.values.delete_many([entry.key for entry in cache.values.entries()])
        assert "x" in call.arguments
        assert "y" not in call.arguments
        for name in ("arguments", "result"):
            with pytest.raises(KeyError, match=r"the value [0-9a-f]{64} is not in .* evicted, or"):
                _ = dict(call.arguments) if name == "arguments" else call.result


class TestOnDisk:
    def test_a_small_call_is_one_file(self, cache: Cache, tmp_path: Path) -> None:
        """However deeply nested the arguments, they travel with the record."""
        nested = {"a": [{"b": list(range(5))} for _ in range(50)]}
        cache.save(call(x=nested, result=nested["a"]))
        assert len(files(tmp_path / "cache")) == 1

    def test_a_large_value_is_one_more(self, cache: Cache, tmp_path: Path) -> None:
        cache.save(call(x=[1], result=LARGE))
        assert len(files(tmp_path / "cache")) == 2

    def test_together_they_are_small_or_not(self, cache: Cache, tmp_path: Path) -> None:
        """16 KiB travel with a record, the result first, then the smallest."""
        arguments = {f"x{size}": "x" * size for size in (3000, 4000, 5000)}
        key = cache.save(Call(name="f", arguments=arguments, result="r" * 8000))
        assert len(files(tmp_path / "cache")) == 2
        entry = cache.load(key).entry
        assert [len(data) > 8000 for data in entry.parcels.values()] == [True, False, False]
        assert dict(cache.load(key).arguments) == arguments

    def test_nothing_remains_of_an_abandoned_call(self, cache: Cache, tmp_path: Path) -> None:
        cache.prepare(Call(name="f", arguments={"x": [1], "y": LARGE})).abandon()
        assert files(tmp_path / "cache") == []

    def test_what_one_saves_another_finds(self, cache: Cache, tmp_path: Path) -> None:
        key = cache.save(call())
        with in_files(tmp_path / "cache") as other:
            assert other.load(key).result == 4

    def test_a_literal_is_not_packed(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("pack", "pack_parts"):
            monkeypatch.setattr(Packing, name, None)
        key = cache.save(call(x="short", result=2.5))
        assert cache.load(key).result == 2.5
        assert cache.load(key).entry.parcels == {}

    def test_a_large_value_that_is_here_is_not_written_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[str] = []

        class Values(ValueFile):
            def put_many(self, items):  # type: ignore[no-untyped-def]
                def noted():  # type: ignore[no-untyped-def]
                    for key, item in items:
                        written.append(key)
                        yield key, item

                super().put_many(noted())

        cache = Cache(Values(tmp_path), CallFile(tmp_path))
        for x in range(2):
            cache.save(call(x=x, result=HUGE))
        assert len(written) == 1
        assert cache.verify().ok

    def test_a_storage_that_keeps_all(self, tmp_path: Path) -> None:
        """What is small goes to it, too: it shows values to other programs."""

        class Values(ValueMemory):
            capabilities = Capabilities(keeps_all=True)

        values = Values()
        cache = Cache(values, CallMemory())
        key = cache.save(call(x=[1], result=[2]))
        assert cache.load(key).entry.parcels == {}
        assert {entry.key[:64] for entry in values.entries()} == {digest([1]), digest([2])}
        assert cache.load(key).load() == call(x=[1], result=[2])

    def test_saved_under_another_name(self, tmp_path: Path) -> None:
        """It took as long as it took: what its hits save is counted by that."""
        with in_files(tmp_path) as cache:
            pending = cache.prepare(call(x=[1]))
            old = cache.load(pending.commit([2], duration=9.5))
            new = cache.load(cache.save(old.load().replace(name="g")))
        assert (new.name, new.duration, new.key != old.key) == ("g", 9.5, True)

    def test_an_entry_that_brings_a_large_result_along(self) -> None:
        """As one from a remote cache may: what does not travel with a record is kept apart."""
        cache, other = in_memory(), in_memory()
        key = D(cache.save(call(result=LARGE)))
        entry = cache.load(key).entry
        result = result_of(cache, key)
        parcel = load_parcel(cache, result)
        other.backend.save({key: CallEntry(entry.record, {result: parcel.tobytes()})})
        assert other.load(key).entry.parcels == {}
        assert other.load(key).result == LARGE


class TestForms:
    """Two objects of one digest and different form are two values."""

    def forms(self) -> list[Any]:
        array = np.arange(12.0).reshape(3, 4)
        return [array, np.asfortranarray(array)]

    def test_each_call_gets_back_its_own(self) -> None:
        cache = in_memory()
        plain, fortran = self.forms()
        assert digest(plain) == digest(fortran)
        keys = [cache.save(call(x=x, result=each)) for x, each in enumerate((plain, fortran))]
        assert [cache.load(key).result.flags.f_contiguous for key in keys] == [False, True]

    def test_a_bare_digest_takes_the_oldest(self) -> None:
        cache = in_memory()
        plain, fortran = self.forms()
        key = cache.save_value(fortran)
        time.sleep(0.01)
        assert cache.save_value(plain) == key
        assert len(list(cache.values.entries())) == 2
        assert cache.load_value(key).flags.f_contiguous
        assert cache.backend.lacking([Address.of(key)]) == []
        cache.evict(key)
        assert list(cache.values.entries()) == []

    def test_forms_of_different_classes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Equal in digest, and not in what they are: that is ambiguous."""
        cache = in_memory()
        for each in self.forms():
            key = cache.save_value(each)
        names = iter([("one",), ("other",)])
        monkeypatch.setattr(Parcel, "classes", property(lambda self: next(names)))
        with pytest.raises(AmbiguousDigestError, match="2 forms whose classes differ"):
            cache.load_value(key)


class TestRunningCalls:
    """What is small is kept in memory; what is not is stored first, under a pin."""

    def log_of(self, act: Callable[[Cache], object]) -> list[str]:
        log: list[str] = []

        class Calls(CallMemory):
            def put_many(self, items):  # type: ignore[no-untyped-def]
                found = list(items)
                log.extend("pin" if entry.record.is_pin else "record" for _, entry in found)
                super().put_many(found)

            def delete_many(self, keys):  # type: ignore[no-untyped-def]
                log.append("unpin")
                super().delete_many(keys)

        class Values(ValueMemory):
            def put_many(self, items):  # type: ignore[no-untyped-def]
                log.append("values")
                super().put_many(items)

        act(Cache(Values(), Calls()))
        return log

    def test_a_small_call_writes_once(self) -> None:
        assert self.log_of(
            lambda cache: cache.prepare(Call(name="f", arguments={"x": [1]})).commit([2])
        ) == ["record"]
        assert self.log_of(lambda cache: cache.save(call(x=[1], result=[2]))) == ["record"]

    def test_a_larger_one_writes_its_values_first(self) -> None:
        assert self.log_of(
            lambda cache: cache.prepare(Call(name="f", arguments={"x": LARGE})).commit(LARGE)
        ) == ["values", "record"]

    def test_the_pin_comes_first_and_goes_last(self) -> None:
        """At every moment of a call, its pin or its record says which values it needs."""
        assert self.log_of(
            lambda cache: cache.prepare(Call(name="f", arguments={"x": HUGE})).commit(LARGE)
        ) == ["pin", "values", "values", "record", "unpin"]

    def test_saving_needs_no_pin(self) -> None:
        """No function runs meanwhile."""
        assert self.log_of(lambda cache: cache.save(call(x=HUGE))) == ["values", "record"]

    def test_all_running_calls_together(self) -> None:
        """64 MiB of arguments are kept in memory, of all calls of the process."""
        cache = in_memory()
        argument = bytes(900_000)
        calls = [
            cache.prepare(Call(name="f", arguments={"x": argument, "y": y})) for y in range(90)
        ]
        pins = len(list(cache.calls.entries()))
        assert 90 * 900_000 - 64 * 2**20 <= pins * 900_000 < 60 * 900_000
        for pending in calls:
            pending.abandon()
        assert list(cache.calls.entries()) == []
        with_room = cache.prepare(Call(name="f", arguments={"x": argument}))
        assert list(cache.calls.entries()) == []
        with_room.abandon()

    def test_arrays_that_are_altered(self) -> None:
        """The bytes that are kept are those of the beginning."""
        cache = in_memory()
        for size in (10, 50_000, 500_000):
            array = np.arange(float(size))
            pending = cache.prepare(Call(name="f", arguments={"x": array}))
            array[:] = -1
            key = pending.commit(array)
            assert cache.load(key).arguments["x"][5] == 5
            assert cache.load(key).result[5] == -1
            assert cache.verify().ok

    @pytest.mark.parametrize("argument", [[1], HUGE])
    def test_a_failed_commit_ends_the_pin(self, argument: object) -> None:
        cache = in_memory()
        pending = cache.prepare(Call(name="f", arguments={"x": argument}))
        with pytest.raises(Indigestible):
            pending.commit(iter("ab"))
        assert list(cache.calls.entries()) == []

    def test_arguments_that_cannot_be_stored_end_the_pin(self) -> None:
        class Full(ValueMemory):
            def put_many(self, items):  # type: ignore[no-untyped-def]
                raise StorageError("no space left on device")

        cache = Cache(Full(), CallMemory())
        with pytest.raises(StorageError, match="no space left"):
            cache.prepare(Call(name="f", arguments={"x": HUGE}))
        assert list(cache.calls.entries()) == []

    def test_a_pin_that_cannot_be_ended_is_no_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It ends by its age."""

        class Stuck(CallMemory):
            def delete_many(self, keys):  # type: ignore[no-untyped-def]
                raise StorageError("read error")

        cache = Cache(ValueMemory(), Stuck())
        key = cache.prepare(Call(name="f", arguments={"x": HUGE})).commit(2)
        assert cache.load(key).result == 2
        assert "stays until it is too old: read error" in caplog.text

    def test_a_pin_that_never_was(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where nothing can be stored, the error says so; a pin is not mentioned."""

        class Broken(CallMemory):
            def put_many(self, items):  # type: ignore[no-untyped-def]
                raise StorageError("no such directory")

            def delete_many(self, keys):  # type: ignore[no-untyped-def]
                raise StorageError("no such directory")

        cache = Cache(ValueMemory(), Broken())
        with pytest.raises(StorageError, match="no such directory"):
            cache.prepare(Call(name="f", arguments={"x": HUGE}))
        assert caplog.text == ""

    def test_a_pin_collected_meanwhile(self) -> None:
        cache = in_memory()
        pending = cache.prepare(Call(name="f", arguments={"x": HUGE}))
        cache.calls.delete_many([entry.key for entry in cache.calls.entries()])
        assert cache.load(pending.commit(2)).result == 2

    def test_what_the_record_says(self) -> None:
        """Sizes, variants and summaries are known when the call is stored."""
        cache = in_memory()
        arguments = {"n": np.float64(2.5), "a": np.arange(1e5), "x": 3}
        pending = cache.prepare(Call(name="f", arguments=arguments))
        key = pending.commit(np.int64(7), states={"a": [1, 2]}, duration=1.5, children=("c",))
        record = cache.load(key).record
        assert (record.arguments["n"].summary, record.arguments["n"].type) == (2.5, "float64")
        assert record.arguments["a"].size > 800_000
        assert record.arguments["x"] == ValueRef(digest(3), literal=3)
        assert record.result is not None
        assert record.result.shown == 7
        assert (record.duration, record.children) == (1.5, ("c",))
        assert cache.open_ref(record.states["a"], cache.load(key).entry) == [1, 2]
        assert type(cache.load(key).result) is np.int64


class TestDamage:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"

    @pytest.fixture(params=[4, [4], LARGE], ids=["literal", "small", "large"])
    def result(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def damaged(self, cache: Cache, root: Path, result: Any) -> Digest:
        """Return the key of a call whose result is damaged, wherever it is kept."""
        key = D(cache.save(call(result=result)))
        alter(root, digest(result) if result is LARGE else key)
        return key

    def test_a_counted_miss(
        self, cache: Cache, root: Path, result: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = self.damaged(cache, root, result)
        assert cache.lookup(key) is None
        assert cache.counts() == {"errors.corrupt": 1, "misses": 1}
        assert "computing again" in caplog.text
        assert cache.lookup_many([key]) == {}
        assert cache.counts() == {"errors.corrupt": 2, "misses": 2}
        with pytest.raises(CorruptParcel):
            cache.lookup(key, strict=True)
        if result is LARGE:
            with pytest.raises(CorruptParcel):
                cache.load_value(digest(result))

    @pytest.mark.parametrize("strict", [True, False])
    def test_saving_again_replaces_it(
        self, cache: Cache, root: Path, result: Any, strict: bool
    ) -> None:
        """The next computation heals the cache."""
        key = self.damaged(cache, root, result)
        if strict:
            with pytest.raises(CorruptParcel):
                cache.lookup(key, strict=True)
        else:
            cache.lookup(key)
        cache.save(call(result=result))
        assert cache.load(key).result == result
        assert cache.lookup(key) is not None

    def test_a_huge_one_is_sent_again(self, cache: Cache, root: Path) -> None:
        """Although the storage says that it is there."""
        key = D(cache.save(call(result=HUGE)))
        alter(root, digest(HUGE))
        assert cache.lookup(key) is None
        cache.save(call(result=HUGE))
        assert cache.load(key).result == HUGE

    def test_a_damaged_record(self, cache: Cache, root: Path) -> None:
        key = D(cache.save(call()))
        alter(root, key)
        assert not cache.contains(key)
        assert list(cache.load_many([key])) == []
        assert cache.counts()["errors.corrupt"] == 1
        assert cache.expand(key[:10]) == key
        with pytest.raises(CorruptParcel):
            cache.load(key)
        cache.save(call())
        assert cache.load(key).result == 4

    def test_a_damaged_parcel_in_a_sound_entry(self) -> None:
        """As another machine may send it; not even its head can be read."""
        cache = in_memory()
        key = D(cache.save(call(result=[4])))
        entry = cache.load(key).entry
        torn = {address: bytes(data)[:-1] for address, data in entry.parcels.items()}
        cache.calls.put_many([(key, CallEntry(entry.record, torn))])
        assert cache.lookup(key) is None
        assert cache.lookup_many([key]) == {}
        assert cache.counts() == {"errors.corrupt": 2, "misses": 2}
        cache.save(call(result=[4]))
        assert cache.lookup(key) is not None

    def test_unsigned_where_a_secret_is_configured(self, tmp_path: Path) -> None:
        """Values from before the secret are misses, and are stored again, signed."""
        key = D(in_files(tmp_path).save(call(result=[4])))
        calls = CallFile(tmp_path)
        cache = Cache(ValueFile(tmp_path, secret_key="hush"), calls)
        assert cache.lookup(key) is None
        with pytest.raises(SignatureError):
            cache.lookup(key, strict=True)
        cache.save(call(result=[4]))
        assert cache.load(key).result == [4]

    def test_a_value_that_cannot_be_made_here_stays(self, cache: Cache) -> None:
        """Sound bytes are of use to others, and are never replaced."""

        def made_here() -> None:
            raise ModuleNotFoundError("nowhere", name="nowhere")

        class Elsewhere:
            def __reduce__(self) -> object:
                return made_here, ()

            def __digest__(self) -> str:
                return "elsewhere"

        value = Elsewhere()
        key = D(cache.save(call(result=value)))
        before = dict(cache.load(key).entry.parcels)
        assert cache.lookup(key) is None
        assert cache.counts()["errors.unpack"] == 1
        with pytest.raises(UnpackError, match="nowhere"):
            cache.lookup(key, strict=True)
        assert dict(cache.load(key).entry.parcels) == before
        with pytest.raises(UnpackError, match=PYTHON):
            cache.load_value(digest(value))


class TestDangling:
    def test_counted(self, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
        """A record whose value is gone is told apart in the statistics."""
        caplog.set_level(logging.WARNING)
        key = D(cache.save(call(result=[4])))
        cache.evict(digest([4]))
        assert cache.lookup(key) is None
        assert cache.counts() == {"misses": 1, "dangling": 1}
        with pytest.raises(KeyError):
            _ = cache.load(key).result
        assert cache.query().only().record.result is not None

    def test_left_out_of_a_transfer(self, cache: Cache) -> None:
        cache.save(call(x=1, result=[1]))
        cache.save(call(x=2, result=[2]))
        cache.evict(digest([1]))
        other = in_memory()
        assert cache.transfer(other) == 1
        assert cache.counts() == {"dangling": 1}
        assert other.query().only().result == [2]

    @pytest.mark.parametrize("argument", [1, [1], LARGE])
    def test_arguments_that_are_gone_do_not_hinder(self, cache: Cache, argument: Any) -> None:
        key = cache.save(call(x=argument, result=[2]))
        cache.evict(digest(argument))
        other: BaseCache = in_memory()
        assert cache.transfer(other) == 1
        assert other.load(key).result == [2]

    def test_transfer_to_read_only(self, cache: Cache) -> None:
        with pytest.raises(Rejected, match="read-only, transfer refused"):
            cache.transfer(in_memory().readonly())

    def test_push_needs_a_target(self, cache: Cache) -> None:
        cache.save(call())
        other = in_memory()
        assert cache.push(other, name="f") == 1
        with pytest.raises(TypeError, match="needs a target"):
            cache.push()


def test_many_short_keys_are_found_together(cache: Cache) -> None:
    """However many are asked for at once, the answers are those to each by itself."""
    keys = [D(cache.save(call(x=x, result=["result", x]))) for x in range(300)]
    values = [cache.save_value(["value", x]) for x in range(300)]
    held = [digest(["result", x]) for x in range(5)]
    asked = [*keys, *values, *held, keys[0], values[3][:20]]
    together = cache.shrink(*asked)
    assert together == tuple(cache.shrink(key) for key in asked)
    assert {len(short) for short in together} == {4, 5}
    assert [cache.expand(short) for short in together[:605]] == [*keys, *values, *held]
    with pytest.raises(KeyError):
        cache.shrink(*asked, "0" * 8)


def test_what_only_entries_hold_stands_back(cache: Cache) -> None:
    """A beginning of a call's key stands for the call, whatever values entries hold."""
    keys = {D(call(x=x, result="r").key)[:4]: x for x in range(1000)}
    number = next(each for each in range(1000, 10_000) if digest(each)[:4] in keys)
    key = cache.save(call(x=keys[digest(number)[:4]], result="r"))
    cache.save(call(x="holds it", result=number))
    assert cache.expand(digest(number)[:4]) == key
    short = cache.shrink(digest(number))
    assert len(short) > 4
    assert cache.expand(short) == digest(number)
    assert cache.load_value(short) == number


class TestWrongArguments:
    """What is easily written by mistake is told as such, before anything is done."""

    @pytest.mark.parametrize("wrong", ["memory", None, {"template": "memory"}, Cache])
    def test_where_a_cache_is_due(self, wrong: Any) -> None:
        cache = in_memory()
        cache.save(call())
        for act in (cache.transfer, cache.sync):
            with pytest.raises(TypeError, match=r"is not a cache; .*fleche\.open"):
                act(wrong)
        with pytest.raises(TypeError, match=r"not a cache|needs a target"):
            cache.push(wrong)

    @pytest.mark.parametrize("wrong", [["ab12"], [1]])
    def test_where_calls_are_due(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="is no call: those that a query gives"):
            in_memory().transfer(in_memory(), wrong)

    @pytest.mark.parametrize("wrong", ["period", {"name": "period"}])
    def test_where_a_template_is_due(self, wrong: Any) -> None:
        cache = in_memory()
        for ask in (cache.query, partial(cache.sync, in_memory())):
            with pytest.raises(TypeError, match=r"is no template; .*query\(name="):
                ask(wrong)

    def test_where_a_dictionary_is_due(self) -> None:
        cache = in_memory()
        for ask in (cache.query, cache.table, cache.filter, partial(cache.sync, in_memory())):
            with pytest.raises(TypeError, match=r"arguments='x': a dictionary"):
                ask(arguments="x")
            with pytest.raises(TypeError, match=r"name=3: the name"):
                ask(name=3)


class TestTemplatesAndFields:
    """A template and further fields ask for both."""

    def test_together(self) -> None:
        cache = in_memory()
        for name in ("f", "g"):
            for x in (1, 2):
                cache.save(call(x=x, name=name))
        template = QueryCall(name="f")
        assert cache.query(template).count() == 2
        assert cache.query(template, arguments={"x": 1}).count() == 1
        assert len(cache.table(template, arguments={"x": 1})) == 1
        assert cache.filter(template, arguments={"x": 1}).query().count() == 1
        assert cache.query(template, name="f").count() == 2
        with pytest.raises(ValueError, match="name is given twice, as 'f' and as 'g'"):
            cache.query(template, name="g")
        with pytest.raises(TypeError, match="not both"):
            cache.filter(lambda call: True, name="f")


def is_even(call: Any) -> bool:
    return call.record.arguments["x"].shown % 2 == 0


WRAPPERS: dict[str, Callable[[BaseCache], BaseCache]] = {
    "itself": lambda cache: cache,
    "stack": lambda cache: CacheStack([in_memory(), cache]),
    "pool": lambda cache: CachePool([cache, in_memory()]),
    "read-only": BaseCache.readonly,
    "filter": lambda cache: cache.filter(name="f"),
    "filter by function": lambda cache: FilteredCache(cache, is_even),
    "refreshing": RefreshingCache,
    "limited": lambda cache: SizeLimitedCache(cache, max_size=3),  # type: ignore[arg-type]
}


def test_the_local_store_is_found_elsewhere(tmp_path: Path) -> None:
    """Its two halves go together."""
    cache = Cache(*local_storages(tmp_path))
    key = cache.save(call(x=[1], result=LARGE))
    for again in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert again.to_config() == cache.to_config()
        assert again.load(key).result == LARGE


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("again", [lambda cache: pickle.loads(pickle.dumps(cache)), copy.deepcopy])
class TestPickling:
    """Caches go to other processes as what they are made from."""

    def test_files_are_found_there(
        self, cache: Cache, wrap: Callable[[BaseCache], BaseCache], again: Callable[[Any], Any]
    ) -> None:
        key = cache.save(call(name="f"))
        shown = wrap(cache)
        found = again(shown)
        assert type(found) is type(shown)
        assert repr(found) == repr(shown)
        assert found.to_config() == shown.to_config()
        assert found.policy == shown.policy
        assert found.query().only().key == key
        assert found.counts() == {}

    def test_memory_arrives_empty(
        self, wrap: Callable[[BaseCache], BaseCache], again: Callable[[Any], Any]
    ) -> None:
        cache = in_memory(LayerPolicy(write_through=True))
        cache.save(call(name="f"))
        found = again(wrap(cache))
        assert found.query().empty()
        assert found.policy == wrap(cache).policy
        assert cache.query().count() == 1
