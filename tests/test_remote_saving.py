"""Saving over the wire: what comes before what, and what is left when it ends half-way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import BaseCache, CacheBackend, ViewBackend
from fleche.call import CallEntry
from fleche.digest import Address, Digest, digest
from fleche.errors import Rejected
from fleche.parcel import Parcel, pack
from fleche.remote import RemoteCache
from fleche.testing import example_call
from tests.helpers.caches import cache_factory
from tests.helpers.serving import Serving
from tests.helpers.taps import TappedChannel


class Watched(ViewBackend):
    """A cache that notes what is saved, in order, and may be told to hold something up or refuse.

    Attributes:
        done: addresses and keys, in the order in which they were stored.
        before: called with every address before its parcel is stored.
    """

    def __init__(self, inner: CacheBackend) -> None:
        super().__init__(inner)
        self.done: list[str] = []
        self.before: Callable[[Address], object] = lambda address: None

    def save(
        self,
        entries: Mapping[Digest, CallEntry],
        parcels: Iterable[tuple[Address, Parcel]] = (),
        *,
        unpin: Sequence[Digest] = (),
    ) -> None:
        for address, parcel in parcels:
            self.before(address)
            self.inner.save({}, [(address, parcel)])
            self.done.append(address)
        self.inner.save(entries, unpin=unpin)
        self.done += entries
        self.done += [f"unpin {key}" for key in unpin]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """What is behind the server."""
    return Watched(cache_factory("file", tmp_path)().backend)


@pytest.fixture
def tap(serving: Serving, watched: Watched) -> TappedChannel:
    """A channel to it, overheard."""
    return TappedChannel(serving.channel("pipe", lambda: BaseCache(watched)))


@pytest.fixture
def remote(serving: Serving, tap: TappedChannel) -> RemoteCache:
    """A remote cache in front of it."""
    return serving.cache(tap)


def values(count: int, size: int = 100_000) -> list[tuple[Address, Parcel]]:
    """Return parcels that go each in a request of its own, by their address."""
    found = []
    for number in range(count):
        value = b"%d." % number + os.urandom(size)
        parcel = pack(value, digest=digest(value))
        found.append((Address.of(digest(value), parcel.variant), parcel))
    return found


def settled(remote: RemoteCache) -> bool:
    """Wait until no request is open; return whether that comes."""
    connection = remote.backend.lazy.connection
    assert connection is not None
    deadline = time.monotonic() + 10
    while len(connection._mux._protocol):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestOrder:
    """Whenever it ends, what is there is whole: buffers, then what refers to them, then calls."""

    @pytest.mark.parametrize("size", [1_000, 60_000, 100_000])  # in one group, in two, alone
    def test_values_wait_for_their_buffers(
        self, remote: RemoteCache, watched: Watched, tmp_path: Path, size: int
    ) -> None:
        """A buffer that takes long is not overtaken by a value that refers to it, of any size."""
        local = cache_factory("memory", tmp_path)()
        parcels: list[tuple[Address, Parcel]] = []
        needs: dict[str, str] = {}
        for number in range(12):
            name = local.save_value([np.full(20_000, float(number)), str(number) * size])
            ((_, main),) = local.backend.load_values([Address.of(name)])
            assert isinstance(main, Parcel)
            (needed,) = main.references
            ((_, buffer),) = local.backend.load_values([Address.of(needed)])
            assert isinstance(buffer, Parcel)
            at = Address.of(name, main.variant)
            parcels += [(Address.of(needed), buffer), (at, main)]
            needs[at] = needed
        overtaken = threading.Event()

        def hold_up(address: Address) -> None:
            if address.variant:
                overtaken.set()
            elif not watched.done:
                overtaken.wait(0.3)

        watched.before = hold_up
        remote.backend.save({}, parcels)
        assert sorted(watched.done) == sorted(address for address, _ in parcels)
        for value, buffer_name in needs.items():
            assert watched.done.index(buffer_name) < watched.done.index(value)

    def test_calls_wait_for_all(self, remote: RemoteCache, watched: Watched) -> None:
        """Calls come when all values are there, and pins go when all calls are."""
        release = threading.Event()
        parcels = values(20)
        slow = parcels[3][0]
        watched.before = lambda address: address != slow or release.wait(1)
        entries = {}
        for x in range(2500):
            record = example_call(x=x).to_record()
            entries[record.key] = CallEntry(record)
        pin = digest("a pin that is not there")
        remote.backend.save(entries, parcels, unpin=[pin])
        assert set(watched.done[:20]) == {address for address, _ in parcels}
        assert set(watched.done[20:-1]) == set(entries)
        assert watched.done[-1] == f"unpin {pin}"


class Counted(Parcel):
    """A parcel that tells when it is closed."""

    closed = 0

    def close(self) -> None:
        """Close it, and count."""
        type(self).closed += 1
        super().close()


class TestEndingHalfWay:
    """A save that fails, or is interrupted, leaves nothing behind at this end."""

    @pytest.fixture
    def parcels(self) -> list[tuple[Address, Parcel]]:
        """Parcels that count how many of them are closed."""
        Counted.closed = 0
        return [(address, Counted(parcel.source)) for address, parcel in values(30)]

    def taking(
        self, parcels: list[tuple[Address, Parcel]], taken: list[Address]
    ) -> Iterator[tuple[Address, Parcel]]:
        """Yield parcels, and note which were taken."""
        for address, parcel in parcels:
            taken.append(address)
            yield address, parcel

    @pytest.mark.parametrize("refused", [0, 3, 29])
    def test_refused(
        self,
        remote: RemoteCache,
        watched: Watched,
        parcels: list[tuple[Address, Parcel]],
        refused: int,
    ) -> None:
        """A refusal is told; every parcel that was taken is closed; no call was stored."""

        def refuse(address: Address) -> None:
            if address == parcels[refused][0]:
                raise Rejected("the disk is full")

        watched.before = refuse
        taken: list[Address] = []
        record = example_call().to_record()
        with pytest.raises(Rejected, match="the disk is full"):
            remote.backend.save({record.key: CallEntry(record)}, self.taking(parcels, taken))
        assert Counted.closed >= len(taken) > refused
        assert settled(remote)
        assert not remote.contains(record.key)
        watched.before = lambda address: None
        key = remote.save(example_call())
        assert remote.load(key).result == 4

    def test_refused_in_the_middle_of_an_upload(
        self, remote: RemoteCache, watched: Watched, tap: TappedChannel
    ) -> None:
        """The rest is not sent, and the same connection goes on."""

        def refuse(address: Address) -> None:
            raise Rejected("no room for it")

        watched.before = refuse
        (large,) = values(1, 60 << 20)
        remote.info()
        tap.clear_sent()
        with pytest.raises(Rejected, match="no room for it"):
            remote.backend.save({}, [large])
        assert tap.sent_bytes < 30 << 20
        assert settled(remote)
        watched.before = lambda address: None
        assert remote.load(remote.save(example_call(result=[1]))).result == [1]
        assert tap.opened == 1

    def test_interrupted(
        self, remote: RemoteCache, watched: Watched, parcels: list[tuple[Address, Parcel]]
    ) -> None:
        """Ctrl-C while values are sent: no call is stored, and the next one gets its answer."""

        def interrupted() -> Iterator[tuple[Address, Parcel]]:
            yield from parcels[:20]
            raise KeyboardInterrupt

        record = example_call().to_record()
        with pytest.raises(KeyboardInterrupt):
            remote.backend.save({record.key: CallEntry(record)}, interrupted())
        assert Counted.closed >= 20
        assert settled(remote)
        assert not remote.contains(record.key)
        assert remote.load(remote.save(example_call(result=[1]))).result == [1]
        assert record.key in watched.done


class TestSharedBuffers:
    """A result that came with its call may still need buffers that did not."""

    @pytest.fixture
    def saved(self, remote: RemoteCache) -> tuple[Digest, list[Any]]:
        """A call whose result refers to three buffers."""
        arrays = [np.full(20_000, float(number)) for number in range(3)]
        return Digest(remote.save(example_call(result=arrays))), arrays

    def test_gone(
        self, remote: RemoteCache, watched: Watched, saved: tuple[Digest, list[Any]]
    ) -> None:
        """Without one of them it is a miss, and whole again once it has been computed anew."""
        key, arrays = saved
        buffers = [at for at in watched.done if at != key and "." not in at]
        assert watched.inner.evict([Address.of(buffers[1])]) == [True]
        assert remote.lookup(key) is None
        assert remote.counts()["dangling"] == 1
        assert not remote.contains(key)
        remote.save(example_call(result=arrays))
        found = remote.lookup(key)
        assert found is not None
        np.testing.assert_array_equal(found.result, arrays)

    def test_damaged(
        self,
        remote: RemoteCache,
        watched: Watched,
        tmp_path: Path,
        saved: tuple[Digest, list[Any]],
    ) -> None:
        """So it is if one is damaged: it is replaced, though the server has something there."""
        key, arrays = saved
        (_, buffer, *_) = [at for at in watched.done if at != key and "." not in at]
        (path,) = tmp_path.rglob(f"{buffer[2:]}.value")
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        assert remote.lookup(key) is None
        assert remote.counts()["errors.corrupt"] == 1
        remote.save(example_call(result=arrays))
        found = remote.lookup(key)
        assert found is not None
        np.testing.assert_array_equal(found.result, arrays)
