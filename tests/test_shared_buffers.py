"""Large buffers are shared: stored once per content, sent once, and gone with their last user."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import BaseCache, Cache, CachePool, CacheStack, LayerPolicy, SizeLimitedCache
from fleche.call import Call
from fleche.digest import Address, D, Digest, buffer_digest, digest, digest_with_buffers
from fleche.errors import CorruptParcel, SignatureError, UnpackError
from fleche.parcel import (
    BUFFER,
    BUFFER_MIN,
    SHARED_MAX,
    IncomingParcel,
    Packing,
    Parcel,
    StreamSource,
    inline,
    pack_buffer,
    receive,
    unpack,
    verify,
)
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory
from tests.helpers.layers import Layer, call, in_files, in_memory
from tests.helpers.serving import Serving, serving
from tests.helpers.taps import TappedChannel

__all__ = ["serving"]

SIZE = 1 << 18  # bytes of one array

LARGE = "large " * 5000
"""What keeps a value from travelling with the record of its call."""


@dataclass
class Holder:
    name: str
    inner: Any


def array(seed: int = 0, nbytes: int = SIZE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype="u1").view("f4")


def same(one: Any, other: Any) -> bool:
    return digest(one) == digest(other)


def bytes_of(data: np.ndarray[Any, Any]) -> memoryview:
    return data.view("u1").data


def name_of(data: np.ndarray[Any, Any]) -> Digest:
    return buffer_digest(bytes_of(data))


def stored_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.value"))


def value_files(root: Path) -> int:
    return len(list(root.rglob("*.value")))


def path_of(root: Path, digest: str) -> Path:
    """Return the file of the value, or the buffer, of a digest."""
    (path,) = [each for each in root.rglob("*.value") if digest[8:64] in each.name]
    return path


def is_here(cache: BaseCache, digest: Digest) -> bool:
    """Return whether a value, or a buffer, is in the storage of values."""
    return cache.backend.lacking([Address.of(digest)]) == []


def old(cache: Cache, root: Path, seconds: float = 7200.0) -> None:
    """Make every file look as if it had been stored long ago."""
    for path in root.rglob("*.*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


def values_of(seed: int) -> dict[str, Callable[[], Any]]:
    data = array(seed)
    return {
        "array": lambda: data,
        "reshaped": lambda: data.reshape(256, -1),
        "dict": lambda: {"a": data},
        "dict in a list in a dataclass": lambda: Holder("x", [{"deep": data}]),
        "object array": lambda: np.array([{"in": data}, None], dtype=object),
        "twice": lambda: [data, data],
    }


class TestParcels:
    def test_parts(self) -> None:
        """The main parcel refers to the buffers by the BLAKE3 of their content."""
        data = array()
        packed = Packing().pack_parts({"a": data}, "")
        assert list(packed.buffers) == [name_of(data)]
        assert packed.main.references == (name_of(data),)
        assert packed.main.nbytes < 2000
        assert np.shares_memory(np.frombuffer(packed.buffers[name_of(data)], "u1"), data)

    def test_digests_are_those_of_digesting(self) -> None:
        """What digesting found out is not computed again."""
        data = array()
        found, buffers = digest_with_buffers({"a": data})
        packed = Packing().pack_parts({"a": data}, found, buffers)
        assert list(packed.buffers) == list(buffers.digests.values())

    def test_small_buffers_stay(self) -> None:
        small = np.zeros(BUFFER_MIN - 1, "u1")
        packed = Packing().pack_parts([small])
        assert packed.buffers == {}
        assert packed.main.references == ()

    def test_not_more_than_a_handful(self) -> None:
        """Only the largest are kept apart; the rest stays inside."""
        many = [array(seed, 70_000 + 4 * seed) for seed in range(40)]
        packed = Packing().pack_parts(many)
        assert len(packed.buffers) == SHARED_MAX
        assert min(each.nbytes for each in packed.buffers.values()) == 70_000 + 4 * 24
        buffers = {key: pack_buffer(each, key) for key, each in packed.buffers.items()}
        assert same(unpack(packed.main, buffers=buffers), many)

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("keys", [(), (b"secret",)])
    def test_round_trip(self, compression: str | None, keys: tuple[bytes, ...]) -> None:
        packing = Packing(compression=compression, keys=keys)
        value = Holder("x", {"zeros": np.zeros(SIZE, "u1"), "noise": array()})
        key = digest(value)
        packed = packing.pack_parts(value, key)
        buffers = {
            name: Parcel.from_bytes(packing.pack_buffer(each, name).tobytes())
            for name, each in packed.buffers.items()
        }
        for each in buffers.values():
            assert each.head.serializer == BUFFER
            verify(each, keys=keys)
        whole = inline(packed.main, buffers, keys)
        assert whole.references == ()
        assert whole.tobytes() == packing.pack(value, key).tobytes()
        assert same(packing.unpack(packed.main, key, buffers), value)

    def test_equal_arrays_stay_apart(self) -> None:
        """Two arrays of equal content come back as two."""
        packed = Packing().pack_parts([array(), array()])
        (name,) = packed.buffers
        one, other = unpack(packed.main, buffers={name: pack_buffer(packed.buffers[name], name)})
        assert not np.shares_memory(one, other)
        one[:] = 0
        assert same(other, array())

    def test_owned_memory_is_not_copied(self) -> None:
        packed = Packing().pack_parts([array()])
        (name,) = packed.buffers
        sent = pack_buffer(packed.buffers[name], name)
        memory = memoryview(bytearray(sent.tobytes()))
        arrived = receive(memory, [memory])
        (found,) = unpack(packed.main, buffers={name: arrived})
        assert np.shares_memory(found, np.frombuffer(memory, "u1"))

    def test_without_the_buffer(self) -> None:
        packed = Packing().pack_parts([array()])
        with pytest.raises(CorruptParcel, match="kept elsewhere"):
            unpack(packed.main)
        with pytest.raises(CorruptParcel, match="kept elsewhere"):
            inline(packed.main, {})

    def test_a_buffer_is_no_value(self) -> None:
        data = array()
        with pytest.raises(UnpackError, match="buffer that values share"):
            unpack(pack_buffer(bytes_of(data), name_of(data)))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_another_buffer(self, compression: str | None) -> None:
        """A buffer that says it is the one, and is not, is found out where it comes from elsewhere.

        That is on arrival, by verify(), and where it is signed.
        """
        packed = Packing().pack_parts([np.zeros(SIZE, "u1")])
        (name,) = packed.buffers
        ones = bytes_of(np.ones(SIZE, "u1"))
        honest = pack_buffer(ones, buffer_digest(ones), compression=compression)
        with pytest.raises(CorruptParcel, match="holds"):
            unpack(packed.main, buffers={name: honest})
        forged = pack_buffer(ones, name, compression=compression)
        with pytest.raises(CorruptParcel, match="not that of the buffer"):
            verify(forged)
        data = forged.tobytes()
        with pytest.raises(CorruptParcel, match="not that of the buffer"):
            list(IncomingParcel(StreamSource(len(data), [data])).chunks())

    def test_unsigned_buffer(self) -> None:
        packing = Packing(keys=(b"secret",))
        packed = packing.pack_parts([array()])
        (name,) = packed.buffers
        unsigned = pack_buffer(packed.buffers[name], name)
        with pytest.raises(SignatureError):
            packing.unpack(packed.main, "", {name: unsigned})
        with pytest.raises(SignatureError):
            inline(packed.main, {name: unsigned}, packing.keys)

    def test_every_flipped_byte_is_found(self) -> None:
        data = np.arange(BUFFER_MIN, dtype="u1")
        packed = Packing().pack_parts(data)
        (name,) = packed.buffers
        sound = pack_buffer(packed.buffers[name], name).tobytes()
        (length,) = struct.unpack_from("<I", sound, 12)
        padding = range(32 + length + 16, len(sound) - data.nbytes)
        for position in [*range(0, len(sound) - data.nbytes, 7), 5000, len(sound) - 1]:
            if position in padding:
                continue
            altered = bytearray(sound)
            altered[position] ^= 1
            with pytest.raises((CorruptParcel, UnpackError)):
                unpack(packed.main, buffers={name: Parcel.from_bytes(altered)})


class TestStoredOnce:
    @pytest.mark.parametrize("kind", values_of(0))
    def test_whatever_contains_it(self, tmp_path: Path, kind: str) -> None:
        with in_files(tmp_path) as cache:
            cache.save_value(array(0))
            before = stored_bytes(tmp_path)
            value = values_of(0)[kind]()
            key = cache.save_value(value)
            assert stored_bytes(tmp_path) < before + 8000
            assert same(cache.load_value(key), value)

    def test_data_frames(self, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            np.random.default_rng(1).random((4000, 8)), columns=list("abcdefgh")
        )
        with in_files(tmp_path) as cache:
            cache.save_value({"frame": frame})
            before = stored_bytes(tmp_path)
            cache.save_value(Holder("frame", frame))
            assert stored_bytes(tmp_path) < before + 8000
            assert cache.load_value(digest({"frame": frame}))["frame"].equals(frame)

    def test_calls_that_share_an_argument(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path) as cache:
            for number in range(20):
                cache.save(call(x={"data": data, "number": number}, result=number))
            assert stored_bytes(tmp_path) < SIZE + 4000
            assert value_files(tmp_path) == 1
            assert len(list(tmp_path.rglob("*.call"))) == 20

    def test_result_that_contains_the_argument(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path) as cache:
            key = cache.save(call(x=data, result=("same", data)))
            assert stored_bytes(tmp_path) < SIZE + 8000
            loaded = cache.load(key)
            assert same(loaded.result[1], loaded.arguments["x"])

    def test_a_handful_of_files(self, tmp_path: Path) -> None:
        with in_files(tmp_path) as cache:
            many = [array(seed, 70_000) for seed in range(200)]
            key = cache.save(call(x=1, result=many))
            assert value_files(tmp_path) == 1 + SHARED_MAX
            assert same(cache.load(key).result, many)

    @pytest.mark.parametrize("options", [{"compress": "zlib"}, {"secret_key": "s"}, {"mmap": True}])
    def test_options(self, tmp_path: Path, options: dict[str, Any]) -> None:
        value = {"zeros": np.zeros(4 * SIZE, "u1"), "noise": array(nbytes=2 * SIZE)}
        with Cache(ValueFile(tmp_path, **options), CallFile(tmp_path)) as cache:
            key = cache.save_value(value)
            found = cache.load_value(key)
            assert same(found, value)
            found["noise"][:] = 0
            assert same(cache.load_value(key), value)
            assert cache.verify().ok

    def test_mapped_equal_arrays_stay_apart(self, tmp_path: Path) -> None:
        data = array(nbytes=2 * SIZE)
        with Cache(ValueFile(tmp_path, mmap=True), CallFile(tmp_path)) as cache:
            one, other = cache.load_value(cache.save_value([data, data.copy()]))
            one[:] = 0
            assert same(other, data)

    def test_parcels_with_everything_inside_stay_readable(self, tmp_path: Path) -> None:
        value = {"a": array()}
        key = digest(value)
        with in_files(tmp_path) as cache:
            whole = cache.packing.pack(value, key)
            cache.backend.save({}, [(Address.of(key, whole.variant), whole)])
            assert same(cache.load_value(key), value)
            assert value_files(tmp_path) == 1


class TestEviction:
    def test_neighbours_stay_readable(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path) as cache:
            gone, stays = cache.save_value([data]), cache.save_value({"a": data})
            cache.evict(gone)
            assert same(cache.load_value(stays), {"a": data})

    def test_a_missing_buffer_is_a_miss_that_heals(self, tmp_path: Path) -> None:
        data = array()
        finished = call(x=1, result=[data])
        with in_files(tmp_path) as cache:
            key = D(cache.save(finished))
            cache.evict(name_of(data))
            assert not cache.contains(key)
            with pytest.raises(KeyError):
                _ = cache.load(key).result
            assert cache.lookup(key) is None
            cache.save(finished)
            assert same(cache.load(key).result, [data])
            assert cache.verify().ok

    @pytest.mark.parametrize("position", [0, 100, SIZE // 2])
    def test_a_damaged_buffer_is_a_miss_that_heals(
        self, tmp_path: Path, position: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.ERROR)
        data = array()
        finished = call(x=1, result=[data])
        with in_files(tmp_path) as cache:
            key = D(cache.save(finished))
            path = path_of(tmp_path, name_of(data))
            content = bytearray(path.read_bytes())
            content[position] ^= 1
            path.write_bytes(content)
            assert cache.lookup(key) is None
            assert cache.counts()["errors.corrupt"] == 1
            cache.save(finished)
            assert same(cache.load(key).result, [data])
            assert cache.verify().ok

    def test_limited(self, tmp_path: Path) -> None:
        """Buffers count once, and stay as long as a kept value needs them."""
        data = array()
        with SizeLimitedCache(in_files(tmp_path), max_size=3, max_bytes=3 * SIZE) as cache:
            keys = [
                cache.save(call(x=number, result={"data": data, "n": number}))
                for number in range(12)
            ]
            old(cache.inner, tmp_path)  # type: ignore[arg-type]
            cache.make_room()
            kept = [key for key in keys if cache.contains(key)]
            assert 0 < len(kept) <= 3
            for key in kept:
                assert same(cache.load(key).result["data"], data)
            other = array(1)
            for number in range(12, 24):
                cache.save(call(x=number, result={"data": other, "n": number}))
                old(cache.inner, tmp_path)  # type: ignore[arg-type]
            cache.make_room()
            assert not is_here(cache, name_of(data))
            assert is_here(cache, name_of(other))


class TestHousekeeping:
    @pytest.mark.parametrize("filling", ["", LARGE], ids=["with records", "by themselves"])
    def test_gc_keeps_what_is_needed(self, tmp_path: Path, filling: str) -> None:
        """Whether the values that refer to buffers travel with their records or not."""
        one, other = array(1), array(2)
        with in_files(tmp_path) as cache:
            first = cache.save(call(x=1, result=[one, other, filling]))
            second = cache.save(call(x=2, result={"only": one, "filling": filling}))
            old(cache, tmp_path)
            assert cache.gc().removed == 0
            cache.evict(first)
            gone = 1 + bool(filling)  # the result, and the buffer that only it needed
            assert cache.gc(dry_run=True).removed == gone
            report = cache.gc()
            assert report.removed == gone
            assert report.freed > SIZE
            assert same(cache.load(second).result["only"], one)
            cache.evict(second)
            cache.gc()
            assert value_files(tmp_path) == 0

    def test_gc_keeps_buffers_of_what_is_too_young(self, tmp_path: Path) -> None:
        """A value that was found here by one who saves speaks for its buffers."""
        data = array()
        with in_files(tmp_path) as cache:
            key = cache.save_value([data])
            old(cache, tmp_path)
            assert cache.backend.lacking([Address.of(key)], keep=True) == []
            assert cache.gc().removed == 0
            assert same(cache.load_value(key), [data])

    def test_gc_keeps_buffers_that_were_found_here(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path) as cache:
            key = cache.save_value([data])
            old(cache, tmp_path)
            assert cache.backend.lacking([Address.of(name_of(data))], keep=True) == []
            assert cache.gc().removed == 1
            assert not is_here(cache, key)
            assert is_here(cache, name_of(data))

    def test_gc_while_a_call_runs(self, tmp_path: Path) -> None:
        data = array(nbytes=8 * SIZE)
        with in_files(tmp_path) as cache:
            pending = cache.prepare(Call(name="f", arguments={"x": [data]}))
            assert is_here(cache, name_of(data))
            old(cache, tmp_path)
            assert cache.gc().removed == 0
            key = pending.commit(1)
            assert same(cache.load(key).arguments["x"], [data])

    def test_touched_between(self, tmp_path: Path) -> None:
        """A value that is touched after it was chosen keeps its buffers."""
        data = array()

        class Racing(ValueFile):
            def delete_older(self, limits: Any) -> set[str]:
                self.touch_many([entry.key for entry in self.entries(digest([data]))])
                return super().delete_older(limits)

        with Cache(Racing(tmp_path), CallFile(tmp_path)) as cache:
            key = cache.save_value([data])
            old(cache, tmp_path)
            assert cache.gc().removed == 0
            assert same(cache.load_value(key), [data])

    def test_gc_takes_the_buffers_of_what_is_damaged(self, tmp_path: Path) -> None:
        """It can never be opened."""
        data = array()
        with in_files(tmp_path) as cache:
            value = [data, LARGE]
            cache.save(call(x=1, result=value))
            cache.save_value(array(3))
            path = path_of(tmp_path, digest(value))
            path.write_bytes(path.read_bytes()[:-1])
            old(cache, tmp_path)
            assert cache.gc().removed == 3
            assert not is_here(cache, name_of(data))
            assert not is_here(cache, name_of(array(3)))

    def test_verify(self, tmp_path: Path) -> None:
        data, value = array(), [array(), LARGE]
        with in_files(tmp_path) as cache:
            keys = [cache.save(call(x=x, result=each)) for x, each in enumerate((value, [data]))]
            report = cache.verify()
            assert report.ok
            assert (report.values, report.orphaned) == (2, 0)
            cache.evict(name_of(data))
            report = cache.verify()
            assert not report.ok
            assert report.broken == (digest(value),)
            assert set(report.dangling) == set(keys)
            assert cache.verify(repair=True).removed == 3
            assert cache.verify().ok
            assert not is_here(cache, digest(value))

    def test_verify_tells_orphans(self, tmp_path: Path) -> None:
        with in_files(tmp_path) as cache:
            cache.save_value([array()])
            assert cache.verify().orphaned == 2


def in_hdf5(root: Path) -> Cache:
    pytest.importorskip("h5py")
    from fleche.storage import ValueHdf5

    return Cache(ValueHdf5(root), CallFile(root))


class TestCopying:
    def test_transfer(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path / "a") as source, in_files(tmp_path / "b") as target:
            for number in range(10):
                source.save(call(x=number, result={"data": data, "n": number}))
            asked = Layer(target)
            assert source.transfer(asked) == 10
            assert asked.asked == {"contains": 1, "lacking": 1, "save": 3}
            assert stored_bytes(tmp_path / "b") == stored_bytes(tmp_path / "a")
            for found in target.query():
                assert same(found.result["data"], data)

    def test_a_buffer_that_is_gone(self, tmp_path: Path) -> None:
        with in_files(tmp_path / "a") as source, in_files(tmp_path / "b") as target:
            source.save(call(x=1, result=[array(1)]))
            whole = source.save(call(x=2, result=[array(2)]))
            source.evict(name_of(array(1)))
            assert source.transfer(target) == 1
            assert target.query().only().key == whole
            assert target.verify().ok

    def test_large_parcels_that_wait(self, tmp_path: Path) -> None:
        value = ["x" * 100_000, array()]
        with in_files(tmp_path / "a") as source, in_files(tmp_path / "b") as target:
            key = source.save(call(x=1, result=value))
            source.transfer(target)
            assert same(target.load(key).result, value)

    def test_to_hdf5_and_back(self, tmp_path: Path) -> None:
        value = {"data": array(), "opaque": Holder("x", {1, 2})}
        with (
            in_files(tmp_path / "a") as source,
            in_hdf5(tmp_path / "h") as middle,
            in_files(tmp_path / "b") as target,
        ):
            key = source.save(call(x=1, result=value))
            assert source.transfer(middle) == 1
            assert same(middle.load(key).result, value)
            assert middle.transfer(target) == 1
            assert same(target.load(key).result, value)
            saved = middle.save(call(x=2, result=[value]))
            assert same(middle.load(saved).result, [value])
            assert middle.verify().ok

    def test_back_fill(self, tmp_path: Path) -> None:
        data = array()
        with in_files(tmp_path / "far") as far:
            keys = [far.save(call(x=n, result={"data": data, "n": n})) for n in range(3)]
            near, middle = in_files(tmp_path / "near"), in_memory()
            stack = CacheStack([near, middle, far])
            for key in keys:
                found = stack.lookup(D(key))
                assert found is not None
                assert same(found.result["data"], data)
            for layer in (near, middle):
                assert all(same(layer.load(key).result["data"], data) for key in keys)
            assert stored_bytes(tmp_path / "near") < SIZE + 8000

    def test_back_fill_to_hdf5(self, tmp_path: Path) -> None:
        with in_files(tmp_path / "far") as far:
            key = far.save(call(x=1, result=[array()]))
            near = in_hdf5(tmp_path / "near")
            found = CacheStack([near, far]).lookup(D(key))
            assert found is not None
            assert same(found.result, [array()])
            assert same(near.load(key).result, [array()])

    def test_back_fill_without_the_buffer(self, tmp_path: Path) -> None:
        """What is not whole is not copied down; it is a miss, and heals."""
        finished = call(x=1, result=[array()])
        with in_files(tmp_path / "far") as far, in_memory() as near:
            key = D(far.save(finished))
            far.evict(name_of(array()))
            stack = CacheStack([near, far])
            assert stack.lookup(key) is None
            assert not near.contains(key)
            stack.save(finished)
            assert same(stack.load(key).result, [array()])

    def test_damage_near_is_healed_from_far(self, tmp_path: Path) -> None:
        finished = call(x=1, result=[array()])
        with in_files(tmp_path / "near") as near, in_files(tmp_path / "far") as far:
            key = D(near.save(finished))
            far.save(finished)
            path = path_of(tmp_path / "near", name_of(array()))
            path.write_bytes(path.read_bytes()[:-3] + b"abc")
            found = CacheStack([near, far]).lookup(key)
            assert found is not None
            assert same(found.result, [array()])
            assert near.verify().ok

    def test_write_through(self, tmp_path: Path) -> None:
        far = in_files(tmp_path, LayerPolicy(write_through=True))
        with CacheStack([in_memory(), far]) as stack:
            for number in range(3):
                key = stack.save(call(x=number, result=[array(), number]))
                assert same(far.load(key).result, [array(), number])
            assert stored_bytes(tmp_path) < SIZE + 8000

    def test_pool(self, tmp_path: Path) -> None:
        with in_files(tmp_path) as one, in_memory() as other:
            key = one.save(call(x=1, result=[array()]))
            one.transfer(other)
            one.evict(name_of(array()))
            assert same(CachePool([one, other]).load(key).result, [array()])


def make_files(root: str) -> BaseCache:
    return in_files(root)


def make_hdf5(root: str) -> BaseCache:
    return in_hdf5(Path(root))


@pytest.mark.parametrize("kind", ["pipe", "subprocess"])
class TestRemote:
    def test_sent_once(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        """Many calls that share a large argument send it once."""
        tap = TappedChannel(serving.channel(kind, partial(make_files, str(tmp_path / "there"))))
        remote = serving.cache(tap, compression="none")
        data = array(nbytes=1 << 20)
        keys = [
            remote.save(call(x={"data": data, "n": number}, result=number)) for number in range(100)
        ]
        assert data.nbytes < len(tap.sent) < data.nbytes + 100 * 4000
        assert same(remote.load(keys[7]).arguments["x"], {"data": data, "n": 7})
        assert stored_bytes(tmp_path / "there") < data.nbytes + 200 * 2000

    def test_round_trips(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        """A hit takes one more for all its buffers together; a small one takes one."""
        tap = TappedChannel(serving.channel(kind, partial(make_files, str(tmp_path / "there"))))
        remote = serving.cache(tap)
        large = remote.save(call(x=1, result=[array(seed, 1 << 20) for seed in range(5)]))
        small = remote.save(call(x=2, result=2))
        for key, requests in ((large, 2), (small, 1)):
            before = len(tap.requests())
            assert remote.lookup(D(key)) is not None
            assert len(tap.requests()) == before + requests

    def test_transfer_both_ways(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        remote = serving(kind, partial(make_files, str(tmp_path / "there")))
        data = array()
        with in_memory() as source, in_memory() as target:
            for number in range(5):
                source.save(call(x=number, result=[data, number]))
            assert source.transfer(remote) == 5
            assert remote.transfer(target) == 5
            for found in target.query():
                assert same(found.result[0], data)

    def test_back_fill(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        tap = TappedChannel(serving.channel(kind, partial(make_files, str(tmp_path / "there"))))
        remote = serving.cache(tap, compression="none")
        data = array(nbytes=1 << 20)
        keys = [remote.save(call(x=n, result={"data": data, "n": n})) for n in range(5)]
        before = len(tap.received)
        with in_memory() as near:
            stack = CacheStack([near, remote])
            for number, key in enumerate(keys):
                found = stack.lookup(D(key))
                assert found is not None
                assert same(found.result, {"data": data, "n": number})
        assert len(tap.received) - before < data.nbytes + 5 * 4000

    def test_heals(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        remote = serving(kind, partial(make_files, str(tmp_path / "there")))
        finished = call(x=1, result=[array()])
        key = D(remote.save(finished))
        remote.evict(name_of(array()))
        assert remote.lookup(key) is None
        remote.save(finished)
        assert same(remote.load(key).result, [array()])

    def test_server_that_opens_parcels(self, kind: str, serving: Serving, tmp_path: Path) -> None:
        pytest.importorskip("h5py")
        remote = serving(kind, partial(make_hdf5, str(tmp_path / "there")))
        assert remote.capabilities.opens_parcels
        key = remote.save(call(x=[array()], result={"a": array(1)}))
        assert same(remote.load(key).result, {"a": array(1)})
        with in_memory() as source:
            other = source.save(call(x=3, result=[array(2)]))
            assert source.transfer(remote) == 1
        assert same(remote.load(other).result, [array(2)])


def test_values_in_memory_are_shared_too() -> None:
    values = ValueMemory()
    with Cache(values, CallMemory()) as cache:
        for number in range(5):
            cache.save_value([array(), number])
        assert sum(entry.size for entry in values.entries()) < SIZE + 5 * 2000
