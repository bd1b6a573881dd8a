"""The behaviour matrix: what a remote cache does, over every channel, in front of any cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import BaseCache, CacheStack
from fleche.call import Call
from fleche.digest import Address
from fleche.errors import AmbiguousDigestError, Rejected
from fleche.remote import RemoteCache
from fleche.testing import CACHE_CHECKS, check_read_only_cache, example_call
from tests.helpers.caches import READ_ONLY, WRITABLE, cache_factory
from tests.helpers.serving import CHANNELS, Faulty, Serving, faulty
from tests.helpers.sweeps import swept
from tests.helpers.taps import TappedChannel

SSH_KINDS = ("file",)
PAIRS = swept(
    (
        pytest.param(channel, kind, marks=pytest.mark.ssh if channel == "ssh" else ())
        for channel, kind in itertools.product(("pipe", "subprocess", "ssh"), WRITABLE)
        if channel != "ssh" or kind in SSH_KINDS
    ),
    # ssh does all that a subprocess does; behind the wire each cache is the one that is tested here
    lambda case: case.values[0] == "ssh" or case.values in (("pipe", "sql"), ("pipe", "stack")),
)


@pytest.fixture
def file_cache(tmp_path: Path) -> Callable[[], BaseCache]:
    """A factory of caches over the same files."""
    return cache_factory("file", tmp_path / "files")


@pytest.mark.parametrize("check", CACHE_CHECKS)
@pytest.mark.parametrize(("channel", "kind"), PAIRS)
def test_a_remote_cache_is_a_cache(
    serving: Serving, tmp_path: Path, channel: str, kind: str, check: Any
) -> None:
    """A remote cache passes the very suite that a local one passes."""
    check(serving(channel, cache_factory(kind, tmp_path / "served")))


@pytest.mark.parametrize("kind", READ_ONLY)
def test_a_read_only_cache_behind_the_server(
    serving: Serving, tmp_path: Path, channel_kind: str, kind: str
) -> None:
    """What may not be changed behind the server may not be changed from here."""
    with cache_factory("file", tmp_path)() as local:
        key = local.save(example_call())
    remote = serving(channel_kind, cache_factory(kind, tmp_path))
    check_read_only_cache(remote, key)


def test_read_only_is_known_here(serving: Serving, tmp_path: Path, channel_kind: str) -> None:
    """A save or evict on a read-only cache is refused without a request to the server."""
    factory = cache_factory("read-only", tmp_path)
    tap = TappedChannel(serving.channel(channel_kind, factory))
    remote = serving.cache(tap)
    for attempt in (
        lambda: remote.save(example_call()),
        lambda: remote.evict("0" * 64),
        lambda: remote.prepare(example_call()),
    ):
        with pytest.raises(Rejected, match="read-only"):
            attempt()
    assert tap.requests() == []
    assert tap.opened == 1


class TestErrors:
    """Exceptions of the cache behind the server arrive as themselves."""

    def test_a_miss(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """A miss is a KeyError."""
        remote = serving(channel_kind, file_cache)
        with pytest.raises(KeyError, match="0000"):
            remote.load("0" * 64)
        with pytest.raises(KeyError):
            remote.load_value("0" * 64)
        with pytest.raises(KeyError):
            remote.evict("0" * 64)
        with pytest.raises(KeyError):
            remote.expand("0000")

    def test_an_ambiguous_digest(
        self, serving: Serving, channel_kind: str, file_cache: Any
    ) -> None:
        """A short digest with several meanings raises AmbiguousDigestError."""
        with file_cache() as local:
            digests = [local.save_value(number) for number in range(400)]
        heads = sorted(digest[:4] for digest in digests)
        twice = next((a for a, b in itertools.pairwise(heads) if a == b), None)
        if twice is None:
            pytest.fail("400 values without two of the same beginning: choose others")
        remote = serving(channel_kind, file_cache)
        with pytest.raises(AmbiguousDigestError, match=twice):
            remote.expand(twice)

    def test_rejected(self, serving: Serving, tmp_path: Path, channel_kind: str) -> None:
        """A refusal of the cache behind the server is Rejected, with its reason."""

        def only_squares() -> BaseCache:
            return cache_factory("file", tmp_path)().filter(name="square")

        remote = serving(channel_kind, only_squares)
        with pytest.raises(Rejected):
            remote.save(example_call(name="cube"))
        assert remote.contains(remote.save(example_call(name="square")))

    def test_an_exception_of_the_user(
        self, serving: Serving, channel_kind: str, file_cache: Any
    ) -> None:
        """Any exception that pickles arrives as itself, with the remote traceback in a note."""
        remote = serving(
            channel_kind, faulty(file_cache, partial(Faulty.Picklable, "disk on fire"))
        )
        with pytest.raises(Faulty.Picklable, match="disk on fire") as caught:
            remote.load("0" * 64)
        told = "".join(getattr(caught.value, "__notes__", [str(caught.value.__cause__)]))
        assert "remote traceback" in told
        assert "in fail" in told

    def test_an_unpicklable_exception(
        self, serving: Serving, channel_kind: str, file_cache: Any
    ) -> None:
        """Another arrives as a RuntimeError with its type, repr and remote traceback."""
        remote = serving(channel_kind, faulty(file_cache, partial(Faulty.Unpicklable, "a frame")))
        with pytest.raises(RuntimeError) as caught:
            remote.load("0" * 64)
        assert type(caught.value) is RuntimeError
        for part in ("Unpicklable('a frame')", "Traceback", "in fail"):
            assert part in str(caught.value)

    def test_the_connection_survives(
        self, serving: Serving, channel_kind: str, file_cache: Any
    ) -> None:
        """After any of these the same connection goes on."""
        remote = serving(channel_kind, faulty(file_cache, partial(Faulty.Unpicklable, "a frame")))
        pid = remote.info()["pid"]
        with pytest.raises(RuntimeError):
            remote.load("0" * 64)
        absent = [Address.of("0" * 64)]
        assert remote.backend.lacking(absent) == absent
        assert remote.info()["pid"] == pid


class TestHandshake:
    """One handshake for each connection, on the first operation."""

    def test_lazily(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """Nothing is started before the first operation, and one connection serves all."""
        tap = TappedChannel(serving.channel(channel_kind, file_cache))
        remote = serving.cache(tap)
        assert tap.opened == 0
        assert not remote.contains("0" * 64)
        remote.save(example_call())
        assert remote.read_only is False
        assert tap.opened == 1
        assert tap.sent.count(b"fleche-remote?") == 1

    def test_info(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """The server tells what it is, with every key that was promised."""
        info = serving(channel_kind, file_cache).info()
        assert set(info) >= {
            "cache",
            "cache_name",
            "read_only",
            "fleche_version",
            "cloudpickle_version",
            "cwd",
            "hostname",
            "python",
            "pid",
        }
        assert info["cache"]["values"]["type"] == "cloudpickle"

    def test_cached_info(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """`refresh=False` asks nothing that is known; `refresh=True` asks again."""
        tap = TappedChannel(serving.channel(channel_kind, file_cache))
        remote = serving.cache(tap)
        first = remote.info(refresh=False)
        assert remote.info(refresh=False) == first
        assert tap.requests() == []
        assert {**remote.info(), "free_bytes": first["free_bytes"]} == first
        assert len(tap.requests()) == 1

    def test_reconnect(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """`reconnect()` gives a new server, whose info is fetched anew."""
        tap = TappedChannel(serving.channel(channel_kind, file_cache))
        remote = serving.cache(tap)
        pid = remote.info(refresh=False)["pid"]
        remote.reconnect()
        assert tap.opened == 1, "it connects when it is used, not before"
        again = remote.info(refresh=False)["pid"]
        assert tap.opened == 2
        assert channel_kind == "pipe" or again != pid


class TestValues:
    """Values travel as they were packed."""

    def test_large_arrays(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """An array of many chunks comes back bit for bit, writable, and is listed without it."""
        remote = serving(channel_kind, file_cache)
        array = np.random.default_rng(1).normal(size=(1_000_000, 3))
        key = remote.save(example_call(x=array, result=array * 2))
        call = remote.load(key)
        np.testing.assert_array_equal(call.result, array * 2)
        np.testing.assert_array_equal(call.arguments["x"], array)
        assert call.result.flags.writeable

    def test_a_mutated_argument(self, serving: Serving, channel_kind: str, file_cache: Any) -> None:
        """A body that changes its arguments changes neither the sealed key nor what was stored."""
        remote = serving(channel_kind, file_cache)
        array = np.zeros(100_000)
        pending = remote.prepare(Call(name="f", arguments={"a": array}))
        array += 1
        key = pending.commit("done")
        assert key == Call(name="f", arguments={"a": np.zeros(100_000)}).key
        np.testing.assert_array_equal(remote.load(key).arguments["a"], np.zeros(100_000))

    def test_transfer(
        self, serving: Serving, tmp_path: Path, channel_kind: str, file_cache: Any
    ) -> None:
        """Calls move from a local cache to the remote one and back."""
        near = cache_factory("memory", tmp_path)()
        keys = {near.save(example_call(x=number, result=number**2)) for number in range(20)}
        remote = serving(channel_kind, file_cache)
        assert near.transfer(remote) == 20
        assert near.transfer(remote) == 0
        other = cache_factory("sql", tmp_path / "other")()
        with other:
            assert remote.transfer(other) == 20
            assert {call.key for call in other.query()} == keys

    def test_back_fill(
        self, serving: Serving, tmp_path: Path, channel_kind: str, file_cache: Any
    ) -> None:
        """In a stack, a hit of the remote is copied down, and the next one needs no connection."""
        with file_cache() as far:
            key = far.save(example_call())
        near = cache_factory("memory", tmp_path)()
        tap = TappedChannel(serving.channel(channel_kind, file_cache))
        stack = CacheStack((near, serving.cache(tap)))
        assert stack.load(key).result == 4
        assert near.load(key).result == 4
        tap.clear()
        assert stack.load(key).result == 4
        assert tap.sent == b""

    def test_saves_stay_near(
        self, serving: Serving, tmp_path: Path, channel_kind: str, file_cache: Any
    ) -> None:
        """A save goes to the first layer alone; `push()` brings it to the remote."""
        stack = CacheStack((cache_factory("memory", tmp_path)(), serving(channel_kind, file_cache)))
        key = stack.save(example_call())
        far = stack.layers[1]
        assert isinstance(far, RemoteCache)
        assert not far.contains(key)
        assert stack.push() == 1
        assert far.contains(key)


def test_every_channel_is_in_the_matrix() -> None:
    """The matrix covers a thread, a process and a real sshd."""
    names = [getattr(channel, "values", (channel,))[0] for channel in CHANNELS]
    assert names == ["pipe", "subprocess", "ssh"]
