"""The local cache: what the contract leaves open, and what goes wrong on real disks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache, Cache, LayerPolicy, Rejected
from fleche.call import Call
from fleche.digest import D, digest
from fleche.errors import CorruptParcel, SignatureError, StorageError, UnpackError
from fleche.parcel import PYTHON
from fleche.storage import CallFile, CallMemory, Capabilities, ValueFile, ValueMemory
from tests.helpers.layers import call, in_files, in_memory


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with in_files(tmp_path / "cache") as cache:
        yield cache


def files(cache: Cache, root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def damage(cache: Cache, value: object) -> None:
    """Flip the last bit of the file that holds ``value``."""
    (path,) = Path(cache.values.to_config()["root"]).rglob(f"*{digest(value)[8:]}*")
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
        assert cache.missing([digest(1)]) == [digest(1)]

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


class TestOnDisk:
    def test_a_handful_of_files(self, cache: Cache, tmp_path: Path) -> None:
        """However deeply nested the arguments, one call is one file each and one for itself."""
        nested = {"a": [{"b": list(range(50))} for _ in range(50)]}
        cache.save(call(x=nested, result=nested["a"]))
        assert len(files(cache, tmp_path / "cache")) == 3

    def test_nothing_remains_of_an_abandoned_call_but_its_arguments(
        self, cache: Cache, tmp_path: Path
    ) -> None:
        cache.prepare(Call(name="f", arguments={"x": 1})).abandon()
        assert len(files(cache, tmp_path / "cache")) == 1

    def test_what_one_saves_another_finds(self, cache: Cache, tmp_path: Path) -> None:
        key = cache.save(call())
        with in_files(tmp_path / "cache") as other:
            assert other.load(key).result == 4

    def test_a_value_that_is_here_is_not_written_again(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.save(call(x=[1], result=[2]))
        monkeypatch.setattr(type(cache.packing), "pack", None)
        cache.save(call(x=[1], result=[2]))


class TestLeases:
    def test_the_lease_comes_first_and_goes_last(self) -> None:
        """At every moment of a call, its lease or its record tells which values it needs."""
        log: list[str] = []

        class Calls(CallMemory):
            def put(self, key, record):  # type: ignore[no-untyped-def]
                log.append("lease" if record.result is None else "record")
                super().put(key, record)

            def delete(self, key):  # type: ignore[no-untyped-def]
                log.append("end")
                super().delete(key)

        class Values(ValueMemory):
            def put(self, key, item):  # type: ignore[no-untyped-def]
                log.append("value")
                super().put(key, item)

        cache = Cache(Values(), Calls())
        cache.prepare(Call(name="f", arguments={"x": 1})).commit(2)
        assert log == ["lease", "value", "value", "record", "end"]

    @pytest.mark.parametrize("result", [iter("ab"), lambda: (yield)])
    def test_a_failed_commit_ends_the_lease(self, result: object) -> None:
        cache = in_memory()
        pending = cache.prepare(Call(name="f", arguments={"x": 1}))
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is)
            pending.commit(result if not callable(result) else result())
        assert list(cache.calls.keys()) == []

    def test_arguments_that_cannot_be_stored_end_the_lease(self) -> None:
        class Full(ValueMemory):
            def put(self, key, item):  # type: ignore[no-untyped-def]
                raise StorageError("no space left on device")

        cache = Cache(Full(), CallMemory())
        with pytest.raises(StorageError, match="no space left"):
            cache.prepare(Call(name="f", arguments={"x": 1}))
        assert list(cache.calls.keys()) == []

    def test_a_lease_that_cannot_be_ended_is_no_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The result is stored; the lease ends by its age."""

        class Stuck(CallMemory):
            def delete(self, key):  # type: ignore[no-untyped-def]
                raise StorageError("read error")

        cache = Cache(ValueMemory(), Stuck())
        key = cache.prepare(Call(name="f", arguments={"x": 1})).commit(2)
        assert cache.load(key).result == 2
        assert "stays until it is too old: read error" in caplog.text

    def test_a_lease_that_never_was(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where nothing can be stored, the error says so; nobody wonders about a lease."""

        class Broken(Cache):
            def save_record(self, key, record):  # type: ignore[no-untyped-def]
                raise StorageError("no such directory")

            def evict(self, key):  # type: ignore[no-untyped-def]
                raise StorageError("no such directory")

        cache = Broken(ValueMemory(), CallMemory())
        with pytest.raises(StorageError, match="no such directory"):
            cache.prepare(Call(name="f", arguments={"x": 1}))
        assert caplog.text == ""

    def test_a_lease_collected_meanwhile(self) -> None:
        cache = in_memory()
        pending = cache.prepare(Call(name="f", arguments={"x": 1}))
        for key in list(cache.calls.keys()):
            cache.calls.delete(key)
        assert cache.load(pending.commit(2)).result == 2


class TestDamage:
    def test_a_damaged_result_is_a_counted_miss(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = D(cache.save(call(result=[4])))
        damage(cache, [4])
        assert cache.lookup(key) is None
        assert cache.counts() == {"errors.corrupt": 1, "misses": 1}
        assert "computing again" in caplog.text
        with pytest.raises(CorruptParcel):
            cache.lookup(key, strict=True)
        with pytest.raises(CorruptParcel):
            cache.load_value(digest([4]))

    @pytest.mark.parametrize("strict", [True, False])
    def test_saving_again_replaces_it(self, cache: Cache, strict: bool) -> None:
        """The next computation heals the cache."""
        key = D(cache.save(call(result=[4])))
        damage(cache, [4])
        if strict:
            with pytest.raises(CorruptParcel):
                cache.lookup(key, strict=True)
        else:
            cache.lookup(key)
        cache.save(call(result=[4]))
        assert cache.load(key).result == [4]
        found = cache.lookup(key)
        assert found is not None

    def test_a_damaged_record(self, cache: Cache, tmp_path: Path) -> None:
        key = D(cache.save(call()))
        (path,) = (tmp_path / "cache").rglob(f"*{key[8:]}*")
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        assert not cache.contains(key)
        assert cache.lookup(key) is None
        assert cache.counts()["errors.corrupt"] == 1
        assert cache.expand(key[:10]) == key
        cache.save(call())
        assert cache.load(key).result == 4

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
        before = cache.load_parcel(digest(value)).tobytes()
        assert cache.lookup(key) is None
        assert cache.counts()["errors.unpack"] == 1
        with pytest.raises(UnpackError, match="nowhere"):
            cache.lookup(key, strict=True)
        assert cache.load_parcel(digest(value)).tobytes() == before
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
        assert isinstance(cache.query().only().record.result, str)

    def test_left_out_of_a_transfer(self, cache: Cache) -> None:
        cache.save(call(x=1, result=[1]))
        cache.save(call(x=2, result=[2]))
        cache.evict(digest([1]))
        other = in_memory()
        assert cache.transfer(other) == 1
        assert cache.counts() == {"dangling": 1}
        assert other.query().only().result == [2]

    def test_arguments_that_are_gone_do_not_hinder(self, cache: Cache) -> None:
        key = cache.save(call(x=[1], result=[2]))
        cache.evict(digest([1]))
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
    keys = [D(cache.save(call(x=x, result=["result", x]))) for x in range(700)]
    values = [digest(["result", x]) for x in range(700)]
    asked = [*keys, *values, keys[0], values[3][:20]]
    together = cache.shrink(*asked)
    assert together == tuple(cache.shrink(key)[0] for key in asked)
    assert {4, 5} <= {len(short) for short in together}
    assert [cache.expand(short) for short in together[:700]] == keys
    with pytest.raises(KeyError):
        cache.shrink(*asked, "0" * 8)


class TestWrongArguments:
    """What is easily written by mistake is told as such, before anything is done."""

    @pytest.mark.parametrize("wrong", ["memory", None, {"template": "memory"}, Cache])
    def test_where_a_cache_is_due(self, wrong: Any) -> None:
        cache = in_memory()
        cache.save(call())
        for copy in (cache.transfer, cache.sync):
            with pytest.raises(TypeError, match=r"is not a cache; .*load_cache_config"):
                copy(wrong)
        with pytest.raises(TypeError, match=r"not a cache|needs a target"):
            cache.push(wrong)

    @pytest.mark.parametrize("wrong", ["period", {"name": "period"}])
    def test_where_a_template_is_due(self, wrong: Any) -> None:
        cache = in_memory()
        for ask in (cache.query, partial(cache.sync, in_memory())):
            with pytest.raises(TypeError, match=r"is no template; .*query\(name="):
                ask(wrong)
