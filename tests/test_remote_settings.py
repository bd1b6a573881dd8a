"""What a remote cache can be told: refused where it is wrong, the same by Python and by TOML."""

from __future__ import annotations

import inspect
import json
import math
import pickle
import pydoc
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fleche
from fleche.caches import BaseCache, CachePool, CacheStack, ReadOnlyCache
from fleche.config import cache_from_config, cache_to_config
from fleche.config._schema import parse
from fleche.config._validate import ConfigPath
from fleche.digest import digest
from fleche.errors import ConfigError, Rejected, RemoteConnectionError
from fleche.remote import (
    ChannelCache,
    LocalSubprocessChannel,
    PipeChannel,
    RemoteCache,
    SshCache,
    SshChannel,
    SubprocessCache,
    serve,
)
from fleche.remote._handshake import server_info
from fleche.testing import check_read_only_cache, example_call
from tests.helpers.backends import lacking, save_parcels, save_record, save_records
from tests.helpers.caches import cache_factory
from tests.helpers.peers import INFO, Wire, hostile_server
from tests.helpers.serving import Serving

NUL = "a\0b"
ABSENT = digest("a value that nobody has stored")
STORED = "a value of some length" * 20
HERE = ConfigPath("here", Path("/"))

TEXT = ["", NUL, 3, ["x"]]
SECONDS = [0, -1, -math.inf, math.nan, "60", True, [1]]
COMMON: dict[str, list[Any]] = {
    "cache_name": TEXT,
    "timeout": SECONDS,
    "connect_timeout": SECONDS,
    "compression": ["gzip", "", 3, True],
    "on_error": ["mis", "", 3],
    "read_only": ["no", 1, 0],
    "workdir": TEXT,
    "python": TEXT,
}
SEQUENCES = ["-v", {"a": "b"}, 3, [3], ["a", ""], [NUL], [["x"]]]
WRONG: dict[type, dict[str, list[Any]]] = {
    SshCache: {
        **COMMON,
        "host": ["", "-v", "-oProxyCommand=touch x", NUL, 3, ["h"]],
        "ssh_options": SEQUENCES,
        "setup_commands": SEQUENCES,
    },
    SubprocessCache: {
        **COMMON,
        "env": [
            "A=1",
            ["A=1"],
            {"A": 1},
            {"A": None},
            {"": "x"},
            {"A=B": "x"},
            {"A": NUL},
            {NUL: "x"},
        ],
    },
}
RIGHT: dict[type, dict[str, list[Any]]] = {
    SshCache: {
        "host": ["h", "me@h", "h-1", "ssh://me@h:22"],
        "cache_name": ["shared", "--read-only", "a b"],
        "python": ["python3", "~/my env/bin/python"],
        "ssh_options": [[], ["-v"], ["-o", "ControlMaster=auto"]],
        "setup_commands": [[], ["module load python", "a\nb"]],
        "workdir": ["~", "-x", "~/a b"],
        "timeout": [1, 0.5, math.inf, 1e30],
        "connect_timeout": [1, 0.5, math.inf],
        "compression": ["auto", "none", "zlib", "zstd"],
        "on_error": ["raise", "miss"],
        "read_only": [True, False],
    },
    SubprocessCache: {"env": [{}, {"A": ""}, {"A": "x=y\n"}], "workdir": ["."], "python": ["p"]},
}


def make(kind: type, **settings: Any) -> Any:
    return kind(**({"host": "h"} if kind is SshCache else {}) | settings)


def table(kind: type, **settings: Any) -> dict[str, Any]:
    required = {"host": "h"} if kind is SshCache else {}
    return {"type": kind.config_type, **required, **settings}  # type: ignore[attr-defined]


def cases(settings: dict[type, dict[str, list[Any]]]) -> Any:
    found = [
        (kind, name, value)
        for kind, fields in settings.items()
        for name, values in fields.items()
        for value in values
    ]
    return pytest.mark.parametrize(
        ("kind", "name", "value"),
        found,
        ids=[f"{kind.__name__}-{name}-{value!r}" for kind, name, value in found],
    )


class TestRefused:
    """A mistake is told where it is made."""

    @cases(WRONG)
    def test_by_the_constructor(self, kind: type, name: str, value: Any) -> None:
        """The error names the setting, and what would be right."""
        with pytest.raises((TypeError, ValueError), match=rf"^{name}.*: expected .*, got "):
            make(kind, **{name: value})

    @cases(WRONG)
    def test_by_the_configuration(self, kind: type, name: str, value: Any) -> None:
        """The same is refused in `fleche.toml`, before the cache is used."""
        with pytest.raises(ConfigError, match=rf"^here\.{name}"):
            parse(table(kind, **{name: value}), HERE)

    @cases(RIGHT)
    def test_what_is_right(self, kind: type, name: str, value: Any) -> None:
        """What one of them takes, the other takes, and it survives the way through both."""
        made = make(kind, **{name: value})
        configured = cache_from_config(table(kind, **{name: value}), base="/")
        assert cache_from_config(cache_to_config(made), base="/") == configured

    @pytest.mark.parametrize("kind", [SshCache, SubprocessCache])
    def test_every_setting_is_tried(self, kind: type) -> None:
        assert set(WRONG[kind]) == set(inspect.signature(kind).parameters)

    @pytest.mark.parametrize("kind", [SshCache, SubprocessCache, ChannelCache, RemoteCache])
    def test_help_shows_every_setting(self, kind: Any) -> None:
        """The constructor names each with its default, and explains it; `help()` prints that."""
        shown = pydoc.render_doc(kind, renderer=pydoc.plaintext)
        parameters = inspect.signature(kind).parameters
        assert {"timeout", "connect_timeout", "compression", "on_error", "read_only"} < {
            *parameters
        }
        for name, parameter in parameters.items():
            assert re.search(rf"^ *\|? +{name}: \w", shown, re.MULTILINE), (
                f"{name} is not explained"
            )
            if parameter.default is not parameter.empty:
                assert re.search(rf"\b{name}: [^=]+ = {parameter.default!r}", shown)

    def test_the_signature_is_that_of_the_seed(self) -> None:
        """Six may be given by position, in this order; what is more goes by keyword."""
        parameters = inspect.signature(SshCache).parameters
        given = {each: parameters[each].default for each in list(parameters)[:6]}
        assert given == {
            "host": inspect.Parameter.empty,
            "cache_name": None,
            "python": "python3",
            "ssh_options": (),
            "setup_commands": (),
            "workdir": None,
        }
        with pytest.raises(TypeError):
            SshCache("h", None, "python3", (), (), None, 60.0)  # type: ignore[misc]

    @pytest.mark.parametrize("kind", [SshCache, SubprocessCache, ChannelCache, RemoteCache])
    def test_what_is_not_a_setting(self, kind: Any) -> None:
        with pytest.raises(TypeError, match="'tiemout'"):
            make(kind, tiemout=3)

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ({"setup_commands": "module load python"}, "['module load python']"),
            ({"ssh_options": "-p 2222"}, "['-p', '2222']"),
        ],
    )
    def test_a_text_for_a_sequence_of_texts(self, wrong: dict[str, Any], right: str) -> None:
        """The error shows the right form; a str is not taken for a sequence of its characters."""
        with pytest.raises(TypeError) as caught:
            SshCache("h", **wrong)
        ((name, given),) = wrong.items()
        assert str(caught.value) == (
            f"{name}: expected a sequence of str such as {right}, got {given!r}"
        )

    @pytest.mark.parametrize("wrong", [b"-v", None, {"-v"}])
    def test_what_only_python_has(self, wrong: Any) -> None:
        for name in ("ssh_options", "setup_commands"):
            with pytest.raises(TypeError, match=f"^{name}: expected a sequence of str"):
                SshCache("h", **{name: wrong})

    def test_values_say_what_is_possible(self) -> None:
        with pytest.raises(ValueError, match="'auto', 'none', 'zlib', 'zstd', got 'gzip'"):
            SshCache("h", compression="gzip")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'raise', 'miss', got 'mis'"):
            SshCache("h", on_error="mis")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout: expected seconds above 0, got -1"):
            SshCache("h", timeout=-1)

    @pytest.mark.parametrize("name", ["timeout", "connect_timeout", "compression", "on_error"])
    def test_over_any_channel(self, name: str) -> None:
        """What every remote cache can be told is checked for every one."""
        for wrong in COMMON[name]:
            with pytest.raises((TypeError, ValueError), match=f"^{name}"):
                RemoteCache(PipeChannel(lambda *_: None), **{name: wrong})

    @pytest.mark.parametrize("name", ["host", "python", "workdir", "setup_commands"])
    def test_by_the_channel_of_ssh(self, name: str) -> None:
        for wrong in WRONG[SshCache][name]:
            with pytest.raises((TypeError, ValueError), match=f"^{name}"):
                SshChannel(**{"host": "h", name: wrong})

    @pytest.mark.parametrize("name", ["python", "workdir", "cache_name", "env", "arguments"])
    def test_by_the_channel_of_a_subprocess(self, name: str) -> None:
        for wrong in {**WRONG[SubprocessCache], "arguments": SEQUENCES}[name]:
            with pytest.raises((TypeError, ValueError), match=f"^{name}"):
                LocalSubprocessChannel(**{name: wrong})


class TestTaken:
    """What is meant is understood."""

    @pytest.mark.parametrize("never", [None, math.inf, 1e30, 10**400])
    def test_without_a_limit(self, never: Any) -> None:
        """More seconds than anything can wait are no limit, in every way to say so."""
        cache = SshCache("h", timeout=never, connect_timeout=never)
        expected = None if never is None else math.inf  # that is up to whether there is a terminal
        assert (cache.timeout, cache.connect_timeout) == (None, expected)
        assert cache.to_config()["timeout"] == math.inf
        assert threading.TIMEOUT_MAX < 1e30

    def test_paths(self, tmp_path: Path) -> None:
        """A path object is its text."""
        near = SubprocessCache(workdir=tmp_path, python=tmp_path / "python")  # type: ignore[arg-type]
        assert (near.workdir, near.python) == (str(tmp_path), str(tmp_path / "python"))
        far = SshCache("h", workdir=tmp_path)  # type: ignore[arg-type]
        assert far.to_config()["workdir"] == str(tmp_path)

    def test_sequences_are_kept_as_tuples(self) -> None:
        options = ["-v"]
        cache = SshCache("h", ssh_options=options)
        options.append("-x")
        assert cache.ssh_options == ("-v",)


class TestWords:
    """What the remote shell, the server and the remote python make of the settings."""

    def command(self, **settings: Any) -> str:
        return SshChannel("h", **settings).command()[-1]

    def test_a_cache_that_is_called_like_an_option(self) -> None:
        """A name is a name, whatever it begins with."""
        assert "--cache=--read-only" in self.command(cache_name="--read-only")
        assert "'--cache=a b'" in self.command(cache_name="a b")
        near = LocalSubprocessChannel(cache_name="--read-only").command()
        assert near[-1] == "--cache=--read-only"

    def test_the_server_takes_it_for_a_name(self, tmp_path: Path) -> None:
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "void"\nroot = true\n[--read-only]\ntemplate = "memory"\n'
        )
        with SubprocessCache(workdir=str(tmp_path), cache_name="--read-only") as remote:
            assert remote.info()["cache_name"] == "--read-only"
            assert not remote.read_only

    @pytest.mark.parametrize("name", ["-x", "-", "--", "-P"])
    def test_a_directory_that_is_called_like_an_option(self, name: str) -> None:
        """Not ``cd --``, which not every shell knows, and which takes ``-`` for another place."""
        assert self.command(workdir=name).startswith(f"cd ./{name} && ")

    def test_a_python_that_is_called_like_an_option(self) -> None:
        assert "exec ./-x -m" in self.command(python="-x")


def _silent(_: Wire) -> None:
    """Say nothing after the greeting."""


def told(**info: Any) -> RemoteCache:
    """A cache whose server says this of itself."""
    return RemoteCache(hostile_server(lambda wire: wire.read() and None, info={**INFO, **info}))


class TestInfo:
    """What a server says of itself is looked at before it is used."""

    @pytest.mark.parametrize("wrong", ["x", [1], 5, None, True])
    def test_capabilities_that_are_no_map(self, wrong: Any) -> None:
        """They count as not said."""
        with told(capabilities=wrong) as remote:
            found = remote.capabilities
        assert (found.persistent, found.shared, found.opens_parcels) == (True, True, False)

    @pytest.mark.parametrize("wrong", ["no", 0, [], {"x": 1}, None])
    def test_what_is_neither_true_nor_false(self, wrong: Any) -> None:
        """Likewise, one by one."""
        said = {"persistent": wrong, "shared": False, "opens_parcels": wrong}
        with told(capabilities=said, read_only=wrong) as remote:
            found = remote.capabilities
        assert (found.persistent, found.shared, found.opens_parcels) == (True, False, False)
        assert found.read_only is False

    def test_what_is_right(self) -> None:
        said = {"persistent": False, "shared": False, "opens_parcels": True}
        with told(capabilities=said, read_only=True) as remote:
            found = remote.capabilities
        assert (found.persistent, found.shared, found.opens_parcels) == (False, False, True)
        assert found.read_only


@fleche.fleche
def squared(x: int) -> int:
    return x * x


class TestSkew:
    """A warning about other versions is of use only where the user can see what it is about."""

    @pytest.fixture
    def skewed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], RemoteCache]:
        """Make caches whose server is of another version."""
        other = {"fleche_version": "99"}
        monkeypatch.setattr(
            "fleche.remote._server.server_info", lambda *args: {**server_info(*args), **other}
        )
        served = cache_factory("file", tmp_path)()
        return lambda: RemoteCache(PipeChannel(lambda i, o: serve(i, o, served)))

    @pytest.mark.parametrize(
        "use",
        [
            lambda cache: cache.info(),
            lambda cache: cache.contains(ABSENT),
            lambda cache: cache.read_only,
            lambda cache: list(cache.query()),
            lambda cache: cache.query().count(),
            lambda cache: cache.save(example_call()),
            lambda cache: CacheStack([cache]).contains(ABSENT),
        ],
    )
    def test_it_points_to_who_called(self, skewed: Callable[[], RemoteCache], use: Any) -> None:
        """However deep in the package it was found."""
        with skewed() as remote, pytest.warns(UserWarning, match="fleche 99 there") as caught:
            use(remote)
        assert [warning.filename for warning in caught] == [__file__]
        assert caught[0].lineno == use.__code__.co_firstlineno

    def test_it_points_to_who_called_a_function(self, skewed: Callable[[], RemoteCache]) -> None:
        use = lambda: squared(3)  # noqa: E731 (a line of its own)
        with (
            skewed() as remote,
            fleche.cache(remote),
            pytest.warns(UserWarning, match="fleche 99 there") as caught,
        ):
            use()
        assert (caught[0].filename, caught[0].lineno) == (__file__, use.__code__.co_firstlineno)

    def test_in_a_thread_that_nobody_called(self, skewed: Callable[[], RemoteCache]) -> None:
        """There is no line of the user's; the warning is made all the same."""
        with skewed() as remote, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            thread = threading.Thread(target=remote.info)
            thread.start()
            thread.join()
        assert ["fleche 99 there" in str(warning.message) for warning in caught] == [True]


def test_what_is_told_to_others() -> None:
    """Whatever a command holds is kept here, and hidden where a server is asked."""
    cache = SshCache(
        "h",
        setup_commands=["export PGPASS=hunter2"],
        ssh_options=["-o", "ProxyCommand=sshpass -p hunter2 nc", "-v"],
    )
    assert cache_from_config(cache_to_config(cache)) == cache
    told = cache_to_config(cache, redact=True)
    assert told["setup_commands"] == ["***"]
    assert told["ssh_options"] == ["-o", "ProxyCommand=***", "-v"]


def unreachable() -> SubprocessCache:
    """A cache that is not there: every question is answered by an error."""
    return SubprocessCache(python="/no/such/python", read_only=True)


class TestReadOnly:
    """A remote cache that is told to be read-only stays a remote cache."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """A directory with a cache, and a call in it."""
        (tmp_path / "fleche.toml").write_text(
            '[default]\ncache = "c"\nroot = true\n[c]\ntemplate = "cloudpickle"\nroot = "r"\n'
        )
        with cache_from_config({"template": "cloudpickle", "root": str(tmp_path / "r")}) as local:
            local.save(example_call())
            local.save_value(STORED)
        return tmp_path

    @pytest.fixture
    def configured(self, project: Path) -> dict[str, Any]:
        return {"type": "subprocess", "workdir": str(project), "read_only": True}

    def test_what_every_error_recommends(self, configured: dict[str, Any]) -> None:
        """`info()` and `reconnect()` are where they always are."""
        with cache_from_config([{"template": "memory"}, configured]) as stack:
            assert isinstance(stack, CacheStack)
            remote = stack.layers[1]
            assert isinstance(remote, SubprocessCache)
            pid = remote.info()["pid"]
            remote.reconnect()
            assert remote.info()["pid"] != pid

    def test_the_contract(self, configured: dict[str, Any]) -> None:
        with cache_from_config(configured) as remote:
            check_read_only_cache(remote, example_call().key)

    @pytest.mark.parametrize(
        "act",
        [
            lambda cache: cache.save(example_call()),
            lambda cache: cache.prepare(example_call()),
            lambda cache: cache.save_value(1),
            lambda cache: save_record(cache, ABSENT, example_call().to_record()),
            lambda cache: save_records(cache, {ABSENT: example_call().to_record()}),
            lambda cache: save_parcels(cache, []),
            lambda cache: cache.evict(ABSENT),
            lambda cache: cache.evict_many([ABSENT]),
            lambda cache: cache.gc(),
            lambda cache: cache.verify(repair=True),
            lambda cache: cache.backend.save({}, unpin=[ABSENT]),
        ],
    )
    def test_nothing_crosses_the_wire(self, act: Callable[[BaseCache], object]) -> None:
        """It is refused here, connected or not."""
        remote = unreachable()
        assert remote.read_only
        with pytest.raises(Rejected, match="read-only"):
            act(remote)
        with pytest.raises(RemoteConnectionError):
            remote.contains(ABSENT)

    def test_a_visitor_leaves_no_trace(self, configured: dict[str, Any], project: Path) -> None:
        """Asking what is lacking, and to keep the rest, does not make the rest younger."""
        before = snapshot(project)
        with cache_from_config(configured) as remote:
            assert lacking(remote, [digest(STORED), ABSENT], keep=True) == [ABSENT]
        assert snapshot(project) == before

    def test_there_and_back(self, configured: dict[str, Any]) -> None:
        remote = cache_from_config(configured)
        assert cache_to_config(remote) == configured
        assert cache_from_config(cache_to_config(remote)) == remote
        copy = pickle.loads(pickle.dumps(remote))
        assert copy == remote
        assert copy.read_only
        assert "read_only" not in cache_to_config(SubprocessCache())

    def test_policy(self, configured: dict[str, Any]) -> None:
        remote = cache_from_config({**configured, "on_error": "miss"})
        assert remote.policy.on_error == "miss"
        assert json.loads(json.dumps(cache_to_config(remote)))["on_error"] == "miss"

    def test_a_view_is_over_the_same_connection(self, project: Path) -> None:
        """`readonly()` asks for no second factor."""
        with SubprocessCache(workdir=str(project)) as remote:
            view = remote.readonly()
            assert isinstance(view, SubprocessCache)
            assert view.info()["pid"] == remote.info()["pid"]
            assert view.read_only
            assert view.readonly().read_only
            assert view.packing is remote.packing
            assert not remote.read_only
            assert view != remote
            pid = remote.info()["pid"]
            view.reconnect()
            assert remote.info()["pid"] == view.info()["pid"] != pid
            check_read_only_cache(view, example_call().key)

    def test_a_name_with_something_changed(self, configured: dict[str, Any]) -> None:
        """So does a table that names a remote cache."""
        open_to_all = {key: value for key, value in configured.items() if key != "read_only"}
        with cache_from_config({"cache": open_to_all, "read_only": True}) as remote:
            assert isinstance(remote, SubprocessCache)
            assert remote.read_only
            assert remote.info()["read_only"] is False, "that is what the server says of itself"

    def test_other_caches_are_wrapped(self) -> None:
        local = cache_from_config({"template": "memory", "read_only": True})
        assert isinstance(local, ReadOnlyCache)

    def test_in_a_pool(self, configured: dict[str, Any], project: Path) -> None:
        before = snapshot(project)
        with CachePool([cache_from_config(configured)]) as pool:
            assert pool.query().only().result == 4
            assert lacking(pool, [digest(STORED), ABSENT], keep=True) == [ABSENT]
        assert snapshot(project) == before


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and age of every file."""
    found = {str(path.relative_to(root)): path.stat() for path in root.rglob("*") if path.is_file()}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in sorted(found.items())}


def test_a_read_only_server(serving: Serving, tmp_path: Path, channel_kind: str) -> None:
    """A client that asks what is lacking, and to keep the rest, renews nothing behind it."""
    with cache_factory("file", tmp_path)() as local:
        local.save_value(STORED)
    before = snapshot(tmp_path)
    remote = serving(channel_kind, cache_factory("read-only", tmp_path))
    assert lacking(remote, [digest(STORED), ABSENT], keep=True) == [ABSENT]
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before


def test_channels_are_what_they_were_told() -> None:
    """The settings of a channel can be read."""
    far = SshChannel("h", "c", "p", ["-v"], ["s"], "w")
    assert (far.host, far.cache_name, far.python) == ("h", "c", "p")
    assert (far.ssh_options, far.setup_commands, far.workdir) == (("-v",), ("s",), "w")
    near = LocalSubprocessChannel("p", "w", "c", {"A": "x"}, ["--read-only"])
    assert (near.python, near.workdir, near.cache_name) == ("p", "w", "c")
    assert (near.env, near.arguments) == ({"A": "x"}, ("--read-only",))
