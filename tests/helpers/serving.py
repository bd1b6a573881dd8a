"""Remote caches over every channel, whatever cache is behind the server.

    @pytest.fixture
    def test_something(channel_kind, serving):
        remote = serving(channel_kind, make_file_cache)

The server runs in a thread (pipe), in a process (subprocess), or behind a real sshd (ssh).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from fleche.caches import BaseCache
from fleche.remote import (
    Channel,
    LocalSubprocessChannel,
    PipeChannel,
    RemoteCache,
    SshChannel,
    serve,
)
from tests.helpers.leaks import check_leaks
from tests.helpers.sshd import Sshd

__all__ = ["CHANNELS", "Serving", "channel_kind", "serving"]

ROOT = Path(__file__).parents[2]
CHANNELS = ("pipe", "subprocess", pytest.param("ssh", marks=pytest.mark.ssh))

_SERVER = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
import cloudpickle
from fleche.cli.remote import guard_standard_streams
from fleche.remote import serve
reader, writer = guard_standard_streams()
with open({factory!r}, "rb") as file:
    cache = cloudpickle.load(file)()
serve(reader, writer, cache)
"""

Factory = Callable[[], BaseCache]


class Serving:
    """Makes channels and remote caches, and closes them all at the end."""

    def __init__(self, directory: Path, request: pytest.FixtureRequest) -> None:
        self._directory = directory
        self._request = request
        self._made: list[RemoteCache] = []
        self._scripts = 0

    @property
    def sshd(self) -> Sshd:
        """The SSH server."""
        found: Sshd = self._request.getfixturevalue("sshd")
        return found

    def expression(self, channel: Channel) -> str:
        """Return the code that makes such a channel in another process."""
        if isinstance(channel, LocalSubprocessChannel):
            return f"LocalSubprocessChannel(python={channel.python!r})"
        assert isinstance(channel, SshChannel)
        host, options = self.sshd.host, self.sshd.ssh_options
        return f"SshChannel({host!r}, python={channel.python!r}, ssh_options={options!r})"

    def channel(self, kind: str, factory: Factory) -> Channel:
        """Return a channel of `kind` to a server of the cache that `factory` makes."""
        if kind == "pipe":
            return PipeChannel(lambda reader, writer: serve(reader, writer, factory()))
        script = self._script(factory)
        if kind == "subprocess":
            return LocalSubprocessChannel(python=script)
        return SshChannel(self.sshd.host, python=script, ssh_options=self.sshd.ssh_options)

    def _script(self, factory: Factory) -> str:
        self._scripts += 1
        pickled = self._directory / f"factory{self._scripts}.pkl"
        pickled.write_bytes(cloudpickle.dumps(factory))
        script = self._directory / f"server{self._scripts}"
        script.write_text(
            _SERVER.format(python=sys.executable, root=str(ROOT), factory=str(pickled))
        )
        script.chmod(0o755)
        return str(script)

    def cache(self, channel: Channel, **options: Any) -> RemoteCache:
        """Return a remote cache over `channel`."""
        made = RemoteCache(channel, **{"timeout": 20.0, "connect_timeout": 20.0, **options})
        self._made.append(made)
        return made

    def __call__(self, kind: str, factory: Factory, **options: Any) -> RemoteCache:
        """Return a remote cache over a channel of `kind` to the cache that `factory` makes."""
        return self.cache(self.channel(kind, factory), **options)

    def close(self) -> None:
        """Close all of them."""
        for cache in self._made:
            cache.close()


@pytest.fixture
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Servers of any cache over any channel; when they are closed, nothing may be left."""
    if request.node.get_closest_marker("ssh"):
        request.getfixturevalue("sshd")
    made = Serving(tmp_path, request)
    with check_leaks():
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(params=CHANNELS)
def channel_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of channel in turn."""
    kind: str = request.param
    return kind


class Faulty:
    """Exceptions that a cache may raise, by the module that a server can import."""

    class Picklable(Exception):
        """Survives pickling."""

    class Unpicklable(Exception):
        """Holds what cannot be pickled."""

        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.handle = sys._getframe()


def make_faulty(factory: Factory, error: Callable[[], BaseException]) -> BaseCache:
    """Return the cache of `factory`, whose backend raises `error()` when calls are loaded."""
    cache = factory()

    def fail(keys: object, *, inline: int = 0) -> Any:
        raise error()

    cache.backend.load = fail  # type: ignore[method-assign]
    return cache


def faulty(factory: Factory, error: Callable[[], BaseException]) -> Factory:
    """Return a factory of caches that raise `error()` when a call is loaded."""
    return partial(make_faulty, factory, error)
