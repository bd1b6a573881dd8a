"""Heads of objects are read without the rest: keeping house must not fetch what it only counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fsspec")

from fleche.caches import Cache, SizeLimitedCache
from fleche.call import Call
from fleche.digest import D, Digest, digest
from fleche.errors import CorruptParcel, StorageError
from fleche.parcel import pack
from fleche.storage import BufferRefs, CallFsspec, CallMemory, ValueFsspec
from fleche.storage.fsspec import _storage as module
from fleche.testing.corpus import Block
from tests.helpers.storing import put

KEY = digest("key")


class Traffic:
    """What was fetched from the objects of a storage."""

    def __init__(self, values: ValueFsspec, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nbytes = self.requests = 0
        real = values._objects._cat

        def cat(paths: list[str], ranges: Any) -> list[Any]:
            found = real(paths, ranges)
            self.requests += 1
            self.nbytes += sum(len(each) for each in found if isinstance(each, bytes))
            return found

        def find(key: Digest) -> Any:
            raise AssertionError("another request for each")

        monkeypatch.setattr(values._objects, "_cat", cat)
        monkeypatch.setattr(values._objects, "find", find)


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        return server.url(), server.options
    return f"{request.param}://{tmp_path}/{request.param}", {}


@pytest.fixture
def make(place: tuple[str, dict[str, Any]]) -> Iterator[Callable[..., ValueFsspec]]:
    """Open the same values each time it is called."""
    opened: list[ValueFsspec] = []

    def open_it(**options: Any) -> ValueFsspec:
        opened.append(ValueFsspec(*place, **options))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def refs(values: ValueFsspec, key: str) -> Any:
    """What the head of a parcel says of buffers."""
    ((_, found),) = values.buffer_refs([key])
    return found


def missing(key: Digest, *_: Any) -> Any:
    raise KeyError(key)


def alter(values: ValueFsspec, key: Digest, position: int, mask: int = 3) -> None:
    fs, path = values._objects.connection.fs, values._objects.path(key)
    content = bytearray(fs.cat_file(path))
    content[position] ^= mask
    fs.pipe_file(path, bytes(content))


class TestBufferRefs:
    @pytest.mark.parametrize("size", [10, 5000, 100_000, 5_000_000])
    def test_size_makes_no_difference(
        self, make: Callable[..., ValueFsspec], size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = make()
        put(values, KEY, pack(Block(bytes(size)), digest=KEY))
        traffic = Traffic(values, monkeypatch)
        assert refs(values, KEY) == BufferRefs()
        assert list(values.buffer_refs([digest("none"), KEY])) == [(KEY, BufferRefs())]
        assert traffic.requests == 2
        assert traffic.nbytes <= 10_000

    def test_a_long_head(
        self, make: Callable[..., ValueFsspec], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is fetched to its end."""
        monkeypatch.setattr(module, "_REFS", 100)
        values = make()
        cache = Cache(values, CallMemory())
        name = cache.save_value([np.full(20_000, x) for x in range(3)])
        (key,) = [found.key for found in values.entries(name)]
        assert len(refs(values, key).references) == 3
        monkeypatch.setattr(values._objects, "read_ranges", missing)
        assert list(values.buffer_refs([key])) == []

    def test_what_is_damaged_needs_nothing(self, make: Callable[..., ValueFsspec]) -> None:
        values = make()
        put(values, KEY, pack(1, digest=KEY))
        for position in (3, 20, 40):
            alter(values, KEY, position)
            assert refs(values, KEY) == BufferRefs()
            alter(values, KEY, position)
        alter(values, KEY, 8, 64)  # the version of the layout: what a newer fleche wrote
        error = refs(values, KEY)
        assert isinstance(error, CorruptParcel)
        assert str(values._objects.name(KEY)) in str(error)

    def test_signed_by_others(self, make: Callable[..., ValueFsspec]) -> None:
        theirs, ours = make(secret_key="theirs"), make(secret_key="ours")
        cache = Cache(theirs, CallMemory())
        name = cache.save_value({"array": np.arange(20_000)})
        (key,) = [found.key for found in theirs.entries(name)]
        needed = refs(theirs, key)
        assert len(needed.references) == 1
        assert refs(ours, key) == needed
        assert refs(ours, needed.references[0]) == BufferRefs(is_buffer=True)


class TestHousekeeping:
    @pytest.fixture
    def cache(
        self, make: Callable[..., ValueFsspec], place: tuple[str, dict[str, Any]]
    ) -> Iterator[Cache]:
        with Cache(make(), CallFsspec(*place)) as cache:
            yield cache

    def test_little_is_fetched(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether garbage is looked for, or room is to be made."""
        for x in range(6):
            result = [np.full(600_000, x), b"x" * 100_000]
            cache.save(Call(name="f", arguments={"x": x}, result=result))
        assert cache.stats().bytes > 25_000_000
        assert isinstance(cache.values, ValueFsspec)
        cache.evict(next(iter(cache.query())).key)
        traffic = Traffic(cache.values, monkeypatch)
        assert cache.gc(-10, dry_run=True).removed == 2
        assert traffic.nbytes < 100_000
        traffic.nbytes = 0
        SizeLimitedCache(cache, max_size=1, eviction=lambda _: []).make_room()
        assert traffic.nbytes < 200_000

    def test_a_store_that_fails(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is taken for damaged that was not read."""
        key = D(cache.save(Call(name="f", arguments={"x": 1}, result=[np.ones(20_000)])))
        assert isinstance(cache.values, ValueFsspec)

        def fail(*_: Any) -> Any:
            return [OSError("the network is down")]

        with monkeypatch.context() as patched:
            patched.setattr(cache.values._objects, "_cat", fail)
            with pytest.raises(StorageError, match="the network is down"):
                refs(cache.values, digest(1))
        assert cache.load(key).result[0][0] == 1
