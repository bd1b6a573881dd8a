"""Results that are damaged at the server: told apart, computed once more, replaced."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleche import cache, fleche
from fleche.caches import BaseCache, CacheStack, SizeLimitedCache
from fleche.digest import Digest, digest
from fleche.errors import CorruptParcel
from fleche.remote import RemoteCache
from tests.helpers.layers import call, in_files, in_memory
from tests.helpers.serving import Serving
from tests.helpers.sweeps import swept

Ruin = Callable[[bytes], bytes]


def in_the_middle(data: bytes) -> bytes:
    """The client finds it: a server does not check what it passes on."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def at_the_beginning(data: bytes) -> bytes:
    """The server finds it: it cannot read the head."""
    return bytes([data[0] ^ 1]) + data[1:]


def cut_off(data: bytes) -> bytes:
    return data[:-1]


RUINS = [in_the_middle, at_the_beginning, cut_off]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the server's cache is."""
    return tmp_path / "far"


@pytest.fixture
def remote(serving: Serving, root: Path) -> Iterator[RemoteCache]:
    with RemoteCache(serving.channel("pipe", partial(in_files, root))) as remote:
        yield remote


APART = "too large to be kept with its call " * 1000


def ruin(root: Path, value: Any, how: Ruin) -> None:
    """Damage the file in which `value` is: its own, or that of its call."""
    name = digest(value)
    of_values = list(root.rglob(f"{name[2:]}.*.value"))
    of_calls = [path for path in root.rglob("*.call") if name.encode() in path.read_bytes()]
    (path,) = of_values or of_calls
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize(
    ("size", "how"),
    swept(
        itertools.product([50, 500_000], RUINS),
        lambda case: case[0] == 50,
    ),
)
def test_it_is_computed_once_more(remote: RemoteCache, root: Path, how: Ruin, size: int) -> None:
    """After that, all have a hit: the damage is gone."""
    runs = []

    @fleche(hash_code=False)
    def compute(x: int) -> list[int]:
        runs.append(x)
        return list(range(x, x + size))

    with cache(remote):
        result = compute(1)
        ruin(root, result, how)
        for _ in range(3):
            assert compute(1) == result
    assert runs == [1, 1]
    with in_files(root) as served:
        assert served.verify().ok


@pytest.mark.parametrize("how", RUINS)
class TestReading:
    def test_one_call(self, remote: RemoteCache, root: Path, how: Ruin) -> None:
        """The rest of it is there; the error names the value and where it is."""
        key = remote.save(call(result=[APART]))
        ruin(root, [APART], how)
        found = remote.load(key)
        assert found.arguments["x"] == 2
        with pytest.raises(CorruptParcel, match=digest([APART])[2:12]):
            _ = found.result

    def test_many_calls(self, remote: RemoteCache, root: Path, how: Ruin) -> None:
        """The damaged one does not stand in the way of the others."""
        keys = [Digest(remote.save(call(x=x, result=[APART, x]))) for x in range(20)]
        ruin(root, [APART, 3], how)
        found = list(remote.load_many(keys))
        assert [each.key for each in found] == keys
        for x, each in enumerate(found):
            if x == 3:
                with pytest.raises(CorruptParcel):
                    _ = each.result
            else:
                assert each.result == [APART, x]

    def test_it_is_told(
        self, remote: RemoteCache, root: Path, how: Ruin, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The miss says which value, and on which machine."""
        key = Digest(remote.save(call(result=[APART])))
        ruin(root, [APART], how)
        with caplog.at_level(logging.WARNING, "fleche.caches"):
            assert remote.lookup(key) is None
        assert remote.counts()["errors.corrupt"] == 1
        assert digest([APART])[2:12] in caplog.text
        assert f"{remote.backend.channel.name}: " in caplog.text

    def test_a_whole_call(
        self, remote: RemoteCache, root: Path, how: Ruin, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A call with its small result in one file is damaged as one; the others are there."""
        keys = [Digest(remote.save(call(x=x, result=["fine", x]))) for x in range(20)]
        ruin(root, ["fine", 3], how)
        with pytest.raises(CorruptParcel, match=keys[3][2:12]):
            remote.load(keys[3])
        assert remote.lookup(keys[3]) is None
        assert remote.counts()["errors.corrupt"] == 1
        assert keys[3][2:12] in caplog.text
        rest = [key for key in keys if key != keys[3]]
        assert [each.key for each in remote.load_many(keys)] == rest
        assert list(remote.lookup_many(keys)) == rest
        assert [each.result[1] for each in remote.load_many(rest)] == [*range(3), *range(4, 20)]


class TestHits:
    """A hit through the wire is a hit for the cache behind the server."""

    def served(self, serving: Serving, made: BaseCache) -> RemoteCache:
        return RemoteCache(serving.channel("pipe", lambda: made))

    def test_a_stack_copies_down(self, serving: Serving) -> None:
        near, far = in_memory(), in_memory()
        key = Digest(far.save(call()))
        with self.served(serving, CacheStack([near, far])) as remote:
            assert remote.load(key).result == 4
        assert near.contains(key)

    def test_a_listing_is_no_hit(self, serving: Serving) -> None:
        near, far = in_memory(), in_memory()
        key = Digest(far.save(call()))
        with self.served(serving, CacheStack([near, far])) as remote:
            assert remote.query().only().record.name == "f"
            assert remote.contains(key)
        assert not near.contains(key)

    def test_a_limited_cache_keeps_what_is_used(self, serving: Serving) -> None:
        limited = SizeLimitedCache(in_memory(), max_size=3)
        keys = [Digest(limited.save(call(x=x, result=[x]))) for x in range(3)]
        with self.served(serving, limited) as remote:
            assert remote.load(keys[0]).result == [0]
            remote.save(call(x=3, result=[3]))
        assert limited.contains(keys[0])
        assert not limited.contains(keys[1])
