"""What scripts rely on: the names, arguments and answers of `SshCache` and `serve()`.

Every name of the specification, those with an underscore included: classes derived from `SshCache`
call them. How ssh is started is in `test_remote_channel`, over a real sshd in `test_remote_ssh`.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import fleche
from fleche.caches import BaseCache
from fleche.call import Call, LazyCall, QueryCall, like, where
from fleche.config import cache_from_config, cache_to_config
from fleche.digest import Digest, digest
from fleche.errors import AmbiguousDigestError, Rejected
from fleche.remote import (
    PipeChannel,
    RemoteCache,
    RemoteConnectionError,
    SshCache,
    SubprocessCache,
    serve,
    server_info,
)
from fleche.remote import _messages as m
from fleche.testing import example_call
from tests.helpers.caches import cache_factory
from tests.helpers.serving import Serving
from tests.helpers.taps import TappedChannel

ABSENT = digest("a value that was never stored")


@pytest.fixture
def tap(serving: Serving, tmp_path: Path) -> TappedChannel:
    """A channel, overheard, to a server of a cache in files."""
    return TappedChannel(serving.channel("pipe", cache_factory("file", tmp_path / "served")))


@pytest.fixture
def remote(serving: Serving, tap: TappedChannel) -> RemoteCache:
    """A remote cache that has not connected yet."""
    return serving.cache(tap)


# -- names -----------------------------------------------------------------------------------------


def test_a_lost_connection_is_a_runtime_error() -> None:
    """Scripts catch it as one."""
    assert issubclass(RemoteConnectionError, RuntimeError)
    assert RemoteConnectionError is fleche.errors.RemoteConnectionError


def test_an_ssh_cache_is_a_cache() -> None:
    """It can stand wherever a cache can."""
    assert issubclass(SshCache, BaseCache)


def test_the_constructor() -> None:
    """The host is all that must be given; the fields follow in this order, with these defaults."""
    parameters = inspect.signature(SshCache).parameters
    positional = {
        name: found.default
        for name, found in parameters.items()
        if found.kind is found.POSITIONAL_OR_KEYWORD
    }
    assert list(positional.items())[1:] == [
        ("cache_name", None),
        ("python", "python3"),
        ("ssh_options", ()),
        ("setup_commands", ()),
        ("workdir", None),
    ]
    assert parameters["host"].default is inspect.Parameter.empty
    rest = {name: found.default for name, found in parameters.items() if name not in positional}
    assert rest == {
        "timeout": 60.0,
        "connect_timeout": None,
        "compression": "auto",
        "on_error": "raise",
        "read_only": False,
    }


def test_nothing_is_started_by_configuring() -> None:
    """Not even for a host that cannot exist: the first operation connects."""
    cache = SshCache("no.such.host.invalid", "shared", "python3", ("-v",), ("true",), "~/project")
    assert "no.such.host.invalid" in repr(cache)
    assert cache.to_config()["cache_name"] == "shared"
    cache.reconnect()
    cache.close()


# -- the handshake ---------------------------------------------------------------------------------


class TestHandshake:
    """The first operation fetches the server's info; later ones are free of it."""

    def test_by_itself(self, remote: RemoteCache, tap: TappedChannel) -> None:
        """`_ensure_handshake()` connects once, asks nothing besides, and does so no more after."""
        assert remote._ensure_handshake() is None  # type: ignore[func-returns-value]
        sent = tap.sent_bytes
        assert (tap.opened, tap.requests()) == (1, [])
        remote._ensure_handshake()
        assert (tap.opened, tap.sent_bytes) == (1, sent)

    def test_the_check_by_itself(
        self, remote: RemoteCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`_warn_on_version_skew()` says what is different there, and asks nothing."""
        assert remote._warn_on_version_skew() is None  # type: ignore[func-returns-value]
        monkeypatch.setattr("fleche.remote._handshake.__version__", "0.0.0")
        with pytest.warns(UserWarning, match=r"fleche_version|fleche .* there, 0\.0\.0 here"):
            remote._warn_on_version_skew()

    def test_the_check_of_a_subclass(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each new connection is checked by `_warn_on_version_skew()`, which may be another one."""
        seen: list[Any] = []

        class Tolerant(SubprocessCache):
            def _warn_on_version_skew(self) -> None:
                seen.append(self._cached_info()["fleche_version"])

        monkeypatch.setattr("fleche.remote._handshake.__version__", "0.0.0")
        with Tolerant(workdir=str(tmp_path), cache_name="memory") as remote:
            for number in (1, 2):
                remote.contains(ABSENT)
                remote.contains(ABSENT)
                assert seen == [fleche.__version__] * number
                remote.reconnect()

    @pytest.mark.parametrize(
        "operation",
        [
            lambda cache: cache.save(example_call()),
            lambda cache: cache.load(ABSENT),
            lambda cache: cache.load_value(ABSENT),
            lambda cache: cache.save_value([1]),
            lambda cache: cache.contains(ABSENT),
            lambda cache: cache.evict(ABSENT),
            lambda cache: cache.expand("abcd"),
            lambda cache: cache.shrink(ABSENT),
            lambda cache: cache._shrink(ABSENT),
            lambda cache: list(cache.query()),
            lambda cache: list(cache._query(QueryCall())),
            lambda cache: cache.info(),
            lambda cache: cache.info(refresh=False),
            lambda cache: cache._cached_info(),
            lambda cache: cache.read_only,
            lambda cache: cache.verify(),
            lambda cache: cache.prepare(Call(name="f")),
        ],
    )
    def test_with_every_operation(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        operation: Callable[[RemoteCache], object],
    ) -> None:
        """Whichever comes first, versions that differ are told of; once for a connection."""
        monkeypatch.setattr(
            "fleche.remote._server.server_info",
            lambda *args: {**server_info(*args), "fleche_version": "99"},
        )
        served = cache_factory("memory", tmp_path)()
        with RemoteCache(PipeChannel(lambda i, o: serve(i, o, served)), timeout=20) as remote:
            for turn in range(2):
                with pytest.warns(UserWarning, match="fleche 99 there"):
                    _allow_misses(operation, remote)
                _allow_misses(operation, remote)  # a second warning would be an error
                if not turn:
                    remote.reconnect()


def _allow_misses(operation: Callable[[RemoteCache], object], remote: RemoteCache) -> None:
    try:
        operation(remote)
    except KeyError:
        pass


# -- what the methods return -----------------------------------------------------------------------


class TestOperations:
    """Each operation returns what a local cache returns."""

    def test_save(self, remote: RemoteCache) -> None:
        """The key, as text."""
        key = remote.save(example_call())
        assert isinstance(key, str)
        assert key == example_call().key

    def test_load(self, remote: RemoteCache) -> None:
        """A lazy call, of a complete key or its beginning."""
        key = remote.save(example_call())
        for name in (key, Digest(key), key[:12]):
            loaded = remote.load(name)
            assert isinstance(loaded, LazyCall)
            assert (loaded.key, loaded.result) == (key, 4)

    def test_evict(self, remote: RemoteCache) -> None:
        """Nothing is returned; what is gone is gone, text or digest; a second time is a miss."""
        for kind in (str, Digest):
            key = kind(remote.save(example_call()))
            assert remote.evict(key) is None  # type: ignore[func-returns-value]
            assert not remote.contains(key)
            with pytest.raises(KeyError):
                remote.evict(key)

    def test_expand(self, remote: RemoteCache) -> None:
        """The complete digest; of none a `KeyError`, of several an `AmbiguousDigestError`."""
        key = remote.save(example_call())
        for name in (key[:10], Digest(key[:10]), key):
            found = remote.expand(name)
            assert isinstance(found, Digest)
            assert found == key
        with pytest.raises(KeyError):
            remote.expand(ABSENT[:10])
        twice, calls = _of_one_beginning()
        for call in calls:
            remote.save(call)
        with pytest.raises(AmbiguousDigestError, match=twice):
            remote.expand(twice)

    def test_shrink(self, remote: RemoteCache) -> None:
        """One short digest for one key, as many for several; always a tuple underneath."""
        keys = [remote.save(example_call(x=x)) for x in range(3)]
        short = remote._shrink(*keys)
        assert isinstance(short, tuple)
        assert all(isinstance(each, Digest) for each in short)
        assert [remote.expand(each) for each in short] == keys
        assert remote._shrink(keys[0]) == (short[0],)
        assert remote._shrink() == ()
        assert remote.shrink(keys[0]) == short[0]
        assert remote.shrink(*keys) == short
        assert remote._shrink(Digest(short[1]), keys[0], keys[0]) == (short[1], short[0], short[0])
        with pytest.raises(KeyError):
            remote._shrink(keys[0], ABSENT)

    def test_query(self, remote: RemoteCache) -> None:
        """Lazy calls that match, bound to this cache; found results are opened from here."""
        remote.save(example_call(x=[1], result=["one"]))
        remote.save(example_call(name="other"))
        found = list(remote._query(QueryCall(name="square")))
        assert [type(call) for call in found] == [LazyCall]
        assert (found[0].result, found[0].arguments["x"]) == (["one"], [1])
        assert {call.name for call in remote.query()} == {"square", "other"}

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            pytest.param({"arguments": {"x": where("<", 10**30)}}, {1}, id="less"),
            pytest.param(
                {"arguments": {"x": where("!=", 10**30)}}, {1, "text", math.inf}, id="another"
            ),
            pytest.param(
                {"arguments": {"x": where("<", "\ud800")}, "module": "example"}, {"text"}, id="text"
            ),
            pytest.param(
                {"result": where(">=", -(10**400)), "name": "sq*"}, {1, math.inf}, id="result"
            ),
            pytest.param({"arguments": {"x": like("\ud800*")}}, set(), id="pattern"),
            pytest.param({"name": "\ud800"}, set(), id="name"),
            pytest.param({"version": 10**30}, set(), id="version"),
            pytest.param(
                {"metadata": {"runtime": {"pid": where("=", 10**30)}}}, set(), id="metadata"
            ),
            pytest.param({"arguments": {"\ud800": where("=", 1)}}, set(), id="name of argument"),
        ],
    )
    def test_a_query_for_what_no_message_holds(
        self, remote: RemoteCache, wanted: dict[str, Any], expected: set[Any]
    ) -> None:
        """Larger numbers, and halves of characters, are compared on this side."""
        for x in (1, "text", math.inf):
            remote.save(example_call(x=x, result=x))
        template = QueryCall.of(**wanted)
        found = list(remote.query(template))
        assert {call.arguments["x"] for call in found} == expected
        keys = [key for key, entry in remote.backend.query(template, keys_only=True) if not entry]
        assert sorted(keys) == sorted(call.key for call in found)
        assert {call.key for call in remote.query(template).newest(9)} == set(keys)

    @pytest.mark.parametrize(
        "number", [3, m.MOST_NEWEST + 1], ids=["few", "more than a server puts"]
    )
    def test_the_newest(self, remote: RemoteCache, number: int) -> None:
        """A server sends no other calls, unless more are asked for than it puts in order."""
        for day in range(1, 8):
            started = {"started": f"2026-01-0{day}T00:00:00.000000+00:00"}
            remote.save(example_call(x=day, metadata={"runtime": started}))
        asked: list[m.Request] = []
        encode = m.encode

        def noting(message: Any) -> bytes:
            asked.append(message)
            return encode(message)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fleche.remote._connection.encode", noting)
            found = [call.arguments["x"] for call in remote.query().newest(number)]
        assert found == [7, 6, 5, 4, 3, 2, 1][:number]
        (query,) = asked
        assert isinstance(query, m.Query)
        assert query.newest == (3 if number == 3 else 0)


def _of_one_beginning() -> tuple[str, list[Call]]:
    """Return four characters, and two calls whose keys begin with them."""
    seen: dict[str, Call] = {}
    for x in range(100_000):
        call = example_call(x=x)
        other = seen.setdefault(call.key[:4], call)
        if other is not call:
            return call.key[:4], [other, call]
    raise AssertionError("100 000 keys, and no two with the same beginning")


# -- read-only -------------------------------------------------------------------------------------


class TestReadOnly:
    """Whether everything will be refused is known from the info, and asked no more."""

    @pytest.mark.parametrize(("kind", "refuses"), [("file", False), ("read-only", True)])
    def test_the_info_is_fetched_once(
        self, serving: Serving, tmp_path: Path, kind: str, refuses: bool
    ) -> None:
        """The first look connects; no further one asks the server."""
        tap = TappedChannel(serving.channel("pipe", cache_factory(kind, tmp_path)))
        remote = serving.cache(tap)
        assert [remote.read_only for _ in range(3)] == [refuses] * 3
        assert remote.info(refresh=False)["read_only"] is refuses
        assert (tap.opened, tap.requests()) == (1, [])

    def test_refused_without_a_round_trip(self, serving: Serving, tmp_path: Path) -> None:
        """`save` and `evict` end here."""
        tap = TappedChannel(serving.channel("pipe", cache_factory("read-only", tmp_path)))
        remote = serving.cache(tap)
        for act in (lambda: remote.save(example_call()), lambda: remote.evict(ABSENT)):
            with pytest.raises(Rejected, match="read-only"):
                act()
        assert tap.requests() == []

    def test_a_name_stays_what_it_says(self, remote: RemoteCache) -> None:
        """It cannot be assigned: it is the server's word."""
        with pytest.raises(AttributeError):
            remote.read_only = True  # type: ignore[misc]


# -- info ------------------------------------------------------------------------------------------


class TestInfo:
    """The answer to every "the remote isn't doing what I expected"."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """A directory whose fleche.toml names two caches; one has secrets."""
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "usual"\nroot = true\n'
            '[usual]\ntemplate = "cloudpickle"\nroot = "usual"\n'
            "[signed]\n"
            'values = { type = "cloudpickle", root = "values", secret_key = "hunter2" }\n'
            'calls = { type = "sql", url = "sqlite:///calls.db" }\n'
        )
        return tmp_path

    @pytest.fixture
    def far(self, project: Path) -> Iterator[SubprocessCache]:
        """The named cache, in a process of its own."""
        with SubprocessCache(workdir=str(project), cache_name="signed", timeout=30) as cache:
            yield cache

    def test_its_words(self, far: SubprocessCache, project: Path) -> None:
        """Each says what is true over there."""
        info = far.info()
        assert info["cache_name"] == "signed"
        assert info["read_only"] is False
        assert info["fleche_version"] == fleche.__version__
        assert info["cloudpickle_version"] == cloudpickle.__version__
        assert Path(info["cwd"]) == project.resolve()
        assert info["hostname"] == socket.gethostname()
        assert platform.python_version() in info["python"]
        assert sys.executable in info["python"]
        assert info["pid"] != os.getpid()
        os.kill(info["pid"], 0)

    def test_the_cache_round_trips(self, far: SubprocessCache, project: Path) -> None:
        """What it serves is a table that makes such a cache; secrets are hidden over there."""
        table = far.info()["cache"]
        assert json.loads(json.dumps(table)) == table
        assert "hunter2" not in json.dumps(far.info())
        with cache_from_config(table) as made:
            again = cache_to_config(made, redact=True)
        assert again == table
        assert table["values"]["root"] == str(project / "values")

    def test_without_a_name(self, project: Path) -> None:
        """The default of the configuration over there is served, under no name."""
        with SubprocessCache(workdir=str(project), timeout=30) as usual:
            info = usual.info()
        assert info["cache_name"] is None
        assert str(project / "usual") in json.dumps(info["cache"])

    def test_refresh(self, remote: RemoteCache, tap: TappedChannel) -> None:
        """By default it is asked anew; what was told last is what is kept."""
        assert remote.info(refresh=False) == remote._cached_info()
        assert tap.requests() == [], "the handshake told it"
        fresh = remote.info()
        assert len(tap.requests()) == 1
        assert remote._cached_info() == remote.info(refresh=False) == fresh
        assert len(tap.requests()) == 1

    def test_it_changes_with_the_server(
        self, remote: RemoteCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fresh answer replaces what was kept."""
        before = remote.info(refresh=False)["cwd"]
        monkeypatch.setattr(os, "getcwd", lambda: "/elsewhere")
        assert remote.info(refresh=False)["cwd"] == before
        assert remote.info()["cwd"] == "/elsewhere"
        assert remote.info(refresh=False)["cwd"] == "/elsewhere"

    def test_what_is_returned_is_the_callers(self, remote: RemoteCache) -> None:
        """Changing it changes nothing here."""
        remote.info()["read_only"] = True
        remote.info(refresh=False)["read_only"] = True
        assert remote.read_only is False


# -- reconnecting ----------------------------------------------------------------------------------


class TestReconnect:
    """`reconnect()` drops the connection; the next operation makes another."""

    def test_lazily(self, remote: RemoteCache, tap: TappedChannel) -> None:
        """It connects nothing itself, however often it is called, and needs no connection."""
        remote.reconnect()
        assert tap.opened == 0
        remote._ensure_handshake()
        remote.reconnect()
        remote.reconnect()
        assert tap.opened == 1
        assert not remote.contains(ABSENT)
        assert tap.opened == 2


# -- serve() ---------------------------------------------------------------------------------------


class TestServe:
    """The loop at the other end."""

    def test_its_arguments(self) -> None:
        """Two streams, a cache, and by keyword the name that is echoed."""
        parameters = inspect.signature(serve).parameters
        assert list(parameters) == ["input_stream", "output_stream", "cache", "cache_name"]
        assert parameters["cache_name"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["cache_name"].default is None

    def test_it_ends_with_its_input(self, tmp_path: Path) -> None:
        """It returns nothing, when there is no more to read."""
        cache = cache_factory("memory", tmp_path)()
        assert serve(io.BytesIO(), io.BytesIO(), cache) is None  # type: ignore[func-returns-value]

    @pytest.mark.parametrize("name", [None, "shared"])
    def test_the_name_is_echoed(self, tmp_path: Path, name: str | None) -> None:
        """For a client that asks what is served."""
        cache = cache_factory("memory", tmp_path)()
        channel = PipeChannel(lambda i, o: serve(i, o, cache, cache_name=name))
        with RemoteCache(channel, timeout=20) as remote:
            assert remote.info()["cache_name"] == name


def test_the_working_directory_is_importable(tmp_path: Path) -> None:
    """A module of `workdir` can be imported over there, and a configuration can name it."""
    (tmp_path / "local_storage.py").write_text(
        "import pathlib\nfrom fleche.storage import ValueMemory\n"
        "class Ours(ValueMemory):\n    pass\n"
        "pathlib.Path('imported').touch()\n"
    )
    (tmp_path / "fleche.toml").write_text(
        '[default]\ncache = "c"\nroot = true\n'
        '[c]\nvalues.type = "local_storage:Ours"\ncalls.type = "memory"\n'
    )
    with SubprocessCache(workdir=str(tmp_path), timeout=30) as remote:
        assert remote.load(remote.save(example_call(result=[4]))).result == [4]
    assert (tmp_path / "imported").exists()
