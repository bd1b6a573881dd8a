"""From `fleche.toml` to caches, and back."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche import cache, fleche
from fleche._util import home_shortened
from fleche.caches import (
    BaseCache,
    Cache,
    CachePool,
    CacheStack,
    LayerPolicy,
    ReadOnlyCache,
    SizeLimitedCache,
)
from fleche.config import (
    cache_from_config,
    cache_to_config,
    load_cache_config,
    load_config,
    load_default_metadata,
    redact,
)
from fleche.config._schema import TemplateTable, expand_template
from fleche.errors import ConfigError, MissingExtra
from fleche.metadata import Environment, Git, MetaData, Runtime
from fleche.remote import SshCache, SubprocessCache
from fleche.storage import CallMemory, ValueFile, ValueMemory, register_storage
from tests.helpers.pages import config_file

ROOT = Path(__file__).parents[1]
MEMORY = {"type": "memory"}

SEED = """
[default]
cache = "shared"
[[shared]] # local layer (saves go here)
values.type = "cloudpickle"
values.root = "~/.fleche/values"
calls.type = "sql"
calls.url = "sqlite:///~/.fleche/calls.db"
[[shared]] # remote layer (read-through)
type = "ssh"
host = "marvin@bigpc.example.com"
cache_name = "shared" # optional: named cache on remote
python = "python3" # optional
ssh_options = ["-o", "ControlMaster=auto",
"-o", "ControlPath=~/.ssh/cm-%r@%h:%p",
"-o", "ControlPersist=10m"]
setup_commands = ["module load python/3.11",
"source ~/.venv/bin/activate"] # optional
workdir = "~/project" # optional: cd before launching server
"""


@pytest.fixture
def write(tmp_home: Path) -> Callable[..., Path]:
    """Write the `fleche.toml` of the working directory, or of another below home."""

    def write(text: str, directory: str = "work") -> Path:
        path = tmp_home / directory / "fleche.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_example_of_the_specification(write: Callable[..., Path], tmp_home: Path) -> None:
    write(SEED)
    stack = load_cache_config()
    assert isinstance(stack, CacheStack)
    near, far = stack.layers
    assert isinstance(near, Cache)
    assert cache_to_config(near)["values"]["root"] == str(tmp_home / ".fleche" / "values")
    assert cache_to_config(near)["calls"]["url"] == f"sqlite:///{tmp_home / '.fleche' / 'calls.db'}"
    assert isinstance(far, SshCache)
    assert far.host == "marvin@bigpc.example.com"
    assert far.cache_name == "shared"
    assert far.python == "python3"
    assert far.ssh_options == (
        *("-o", "ControlMaster=auto", "-o", "ControlPath=~/.ssh/cm-%r@%h:%p"),
        *("-o", "ControlPersist=10m"),
    )
    assert far.setup_commands == ("module load python/3.11", "source ~/.venv/bin/activate")
    assert far.workdir == "~/project"
    assert cache_to_config(cache_from_config(cache_to_config(stack))) == cache_to_config(stack)


class TestAlwaysThere:
    def test_memory(self) -> None:
        assert cache_to_config(load_cache_config("memory")) == {"values": MEMORY, "calls": MEMORY}

    def test_void(self) -> None:
        void = {"type": "void"}
        assert cache_to_config(load_cache_config("void")) == {"values": void, "calls": void}

    @pytest.mark.parametrize("name", [None, "default"])
    @pytest.mark.parametrize("text", [None, "", '[default]\ncache = "default"\n'])
    def test_default_is_a_persistent_cache(
        self,
        tmp_home: Path,
        write: Callable[..., Path],
        caplog: pytest.LogCaptureFixture,
        name: str | None,
        text: str | None,
    ) -> None:
        if text is not None:
            write(text)
        with caplog.at_level(logging.INFO, "fleche.config"):
            cache = load_cache_config(name)
        root = tmp_home / ".local" / "share" / "fleche" / "default"
        config = cache_to_config(cache)
        assert cache.capabilities.persistent
        assert config == {"type": "local", "root": str(root)}
        (line,) = caplog.messages
        assert str(root) in line

    def test_caches_of_which_none_is_the_default(
        self, tmp_home: Path, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where results go then is no secret, nor how to use what was configured."""
        path = write('[results]\ntemplate = "memory"\n[far]\ntype = "ssh"\nhost = "bigpc"\n')
        root = tmp_home / ".local" / "share" / "fleche" / "default"
        load_cache_config()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        for word in (str(path), str(root), '[default] and below it cache = "results"'):
            assert word in record.getMessage()

    def test_default_that_is_misspelt(
        self, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        write('[defalt]\ncache = "results"\n[results]\ntemplate = "memory"\n')
        load_cache_config()
        assert caplog.messages[0].endswith("; did you mean [default] where it says [defalt]?")

    @pytest.mark.parametrize(("value", "used"), [("data", False), ("", False), ("~/x", False)])
    def test_xdg_data_home_must_be_absolute(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch, value: str, used: bool
    ) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", value)
        root = cache_to_config(load_cache_config())["root"]
        assert root == str(tmp_home / ".local" / "share" / "fleche" / "default")

    def test_xdg_data_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        root = cache_to_config(load_cache_config())["root"]
        assert root == str(tmp_path / "data" / "fleche" / "default")

    def test_no_home(self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a container: what is missing is said, and no directory is called ``~``."""

        def unknown(number: int) -> None:
            raise KeyError(f"getpwuid(): uid not found: {number}")

        monkeypatch.setattr("pwd.getpwuid", unknown)
        for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match=r"no home directory is known here .* FLECHE_CACHE="):
            load_cache_config()

        @fleche(version=1)
        def size(path: Path) -> int:
            return len(path.read_text())

        before = set(os.listdir())
        Path("in.txt").write_text("in")
        with load_cache_config("memory") as kept, cache(kept):
            assert size(Path("in.txt")) == 2
            assert size.contains(Path("in.txt"))
        assert set(os.listdir()) - before == {"in.txt"}

    @pytest.mark.parametrize(
        ("home", "text", "shown"),
        [
            ("/u/ada", "/u/ada/r", "~/r"),
            ("/u/ada", "/u/ada", "~"),
            ("/u/ada", "/u/adam/r", "/u/adam/r"),
            ("/u/ada", "/mnt/u/ada/r", "/mnt/u/ada/r"),
            ("/u/ada", "CacheStack(Local('/u/ada/r'))", "CacheStack(Local('~/r'))"),
            ("/", "Local('/tmp/r')", "Local('/tmp/r')"),
        ],
    )
    def test_the_home_is_shown_short(
        self, home: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", home)
        assert home_shortened(text) == shown

    def test_they_can_be_configured(self, write: Callable[..., Path]) -> None:
        write('[memory]\ntemplate = "memory"\nmax_size = 3\n')
        assert cache_to_config(load_cache_config("memory"))["max_size"] == 3

    def test_default_names_another(self, write: Callable[..., Path]) -> None:
        write('[default]\ncache = "fast"\n[fast]\ntemplate = "memory"\n')
        expected = {"values": MEMORY, "calls": MEMORY}
        assert cache_to_config(load_cache_config()) == expected
        assert cache_to_config(load_cache_config("default")) == expected


class TestKinds:
    """What each kind of table makes."""

    def load(self, write: Callable[..., Path], text: str) -> BaseCache:
        write(text)
        return load_cache_config("a")

    @pytest.mark.parametrize("name", ["cloudpickle", "pickle", "dill"])
    def test_template_of_files(self, write: Callable[..., Path], name: str, tmp_home: Path) -> None:
        cache = self.load(write, f'[a]\ntemplate = "{name}"\nroot = "x/"\n')
        config = cache_to_config(cache)
        assert config["values"]["type"] == config["calls"]["type"] == name
        assert config["values"]["root"] == str(tmp_home / "work" / "x" / "values")
        assert config["calls"]["root"] == str(tmp_home / "work" / "x" / "calls")

    def test_template_with_a_database(self, write: Callable[..., Path], tmp_home: Path) -> None:
        config = cache_to_config(self.load(write, '[a]\ntemplate = "sql"\nroot = "~/x"\n'))
        assert config["values"]["type"] == "cloudpickle"
        assert config["values"]["root"] == str(tmp_home / "x" / "values")
        assert config["calls"]["type"] == "sql"
        assert config["calls"]["url"].endswith(str(tmp_home / "x" / "calls.db"))

    def test_template_in_hdf5(self, write: Callable[..., Path], tmp_home: Path) -> None:
        pytest.importorskip("fleche.storage.hdf5", exc_type=ImportError)
        config = cache_to_config(self.load(write, '[a]\ntemplate = "hdf5"\nroot = "x"\n'))
        assert config["values"]["type"] == "hdf5"
        assert config["values"]["root"] == str(tmp_home / "work" / "x" / "values")
        assert config["calls"]["type"] == "cloudpickle"

    def test_template_in_fsspec(self, write: Callable[..., Path]) -> None:
        pytest.importorskip("fleche.storage.fsspec", exc_type=ImportError)
        config = cache_to_config(
            self.load(write, '[a]\ntemplate = "fsspec"\nroot = "memory://x"\n')
        )
        assert config["values"]["url"].endswith("x/values")
        assert config["calls"]["url"].endswith("x/calls")

    @pytest.mark.parametrize(
        ("name", "values", "calls"),
        [
            (
                "hdf5",
                {"type": "hdf5", "root": "r/values"},
                {"type": "cloudpickle", "root": "r/calls"},
            ),
            ("fsspec", {"type": "fsspec", "url": "r/values"}, {"type": "fsspec", "url": "r/calls"}),
        ],
    )
    def test_what_a_template_stands_for(self, name: Any, values: Any, calls: Any) -> None:
        assert expand_template(TemplateTable(template=name, root="r")) == (values, calls)

    def test_storages(self, write: Callable[..., Path]) -> None:
        text = '[a]\nvalues.type = "pickle"\nvalues.root = "v"\nvalues.compress = "zlib"\n'
        cache = self.load(write, f'{text}calls.type = "memory"\n')
        assert isinstance(cache, Cache)
        assert isinstance(cache.values, ValueFile)
        assert isinstance(cache.calls, CallMemory)
        assert cache.packing.serializer == "pickle"
        assert cache.packing.compression == "zlib"

    def test_ssh_with_every_key(self, write: Callable[..., Path]) -> None:
        text = (
            '[a]\ntype = "ssh"\nhost = "h"\ntimeout = 5\nconnect_timeout = 7.5\n'
            'compression = "zlib"\non_error = "miss"\n'
        )
        cache = self.load(write, text)
        assert isinstance(cache, SshCache)
        assert (cache.timeout, cache.connect_timeout, cache.compression) == (5, 7.5, "zlib")
        assert cache.policy == LayerPolicy(on_error="miss")

    def test_subprocess(self, write: Callable[..., Path], tmp_home: Path) -> None:
        text = (
            '[a]\ntype = "subprocess"\npython = "v/bin/python"\nworkdir = "~/p"\nenv = {A = "1"}\n'
        )
        cache = self.load(write, text)
        assert isinstance(cache, SubprocessCache)
        assert cache.python == str(tmp_home / "work" / "v" / "bin" / "python")
        assert cache.workdir == str(tmp_home / "p")
        assert cache.env == {"A": "1"}

    def test_subprocess_with_an_interpreter_of_the_path(self, write: Callable[..., Path]) -> None:
        cache = self.load(write, '[a]\ntype = "subprocess"\npython = "python3"\n')
        assert isinstance(cache, SubprocessCache)
        assert (cache.python, cache.workdir) == ("python3", None)

    def test_pool(self, write: Callable[..., Path]) -> None:
        text = '[a]\npool = ["memory", "b", {template = "void"}, [{template = "memory"}, "b"]]\n'
        pool = self.load(write, f'{text}[b]\ntype = "ssh"\nhost = "h"\n')
        assert isinstance(pool, CachePool)
        memory, ssh, void, stack = pool.members
        assert isinstance(memory, Cache)
        assert isinstance(void, Cache)
        assert isinstance(stack, CacheStack)
        assert stack.layers[1] is ssh, "one name, one cache, one connection"

    def test_stack_by_names(self, write: Callable[..., Path]) -> None:
        stack = self.load(write, 'a = ["memory", "b"]\n[b]\ntemplate = "void"\n')
        assert isinstance(stack, CacheStack)
        assert len(stack.layers) == 2

    def test_a_stack_of_one(self, write: Callable[..., Path]) -> None:
        assert isinstance(self.load(write, '[[a]]\ntemplate = "memory"\n'), CacheStack)

    def test_nested_stack(self, write: Callable[..., Path]) -> None:
        stack = self.load(
            write, '[[a]]\ncache = ["memory", "void"]\nread_only = true\n[[a]]\ncache = "void"'
        )
        assert isinstance(stack, CacheStack)
        assert isinstance(stack.layers[0], ReadOnlyCache)


class TestEveryLayer:
    """The keys that go with any kind of cache."""

    def test_read_only(self) -> None:
        cache = cache_from_config({"template": "memory", "read_only": True})
        assert isinstance(cache, ReadOnlyCache)
        assert cache.read_only
        assert not cache_from_config({"template": "memory", "read_only": False}).read_only

    def test_limits(self) -> None:
        cache = cache_from_config({"template": "memory", "max_size": 3, "max_bytes": 10**9})
        assert isinstance(cache, SizeLimitedCache)
        config = cache_to_config(cache)
        assert (config["max_size"], config["max_bytes"]) == (3, 10**9)

    def test_limits_of_a_read_only_cache(self) -> None:
        cache = cache_from_config({"template": "memory", "max_size": 3, "read_only": True})
        assert isinstance(cache, ReadOnlyCache)
        assert cache_to_config(cache)["max_size"] == 3

    @pytest.mark.parametrize(
        "extra", [{}, {"read_only": True}, {"max_size": 3}, {"max_size": 3, "read_only": True}]
    )
    def test_policy_is_that_of_the_outermost(self, extra: dict[str, Any]) -> None:
        policy = {"on_error": "miss"} if "read_only" in extra else {
            "on_error": "miss", "write_through": True
        }  # fmt: skip
        cache = cache_from_config({"template": "memory", **policy, **extra})
        assert cache.policy == LayerPolicy(**policy)

    def test_policy_of_a_wrapped_cache_goes_on(self) -> None:
        inner = {"type": "ssh", "host": "h", "on_error": "miss"}
        assert cache_from_config({**inner, "read_only": True}).policy.on_error == "miss"
        nested = cache_from_config(
            {"cache": {"cache": inner, "read_only": True}, "read_only": True}
        )
        assert nested.policy.on_error == "miss"

    def test_policy_of_a_mention_is_not_that_of_the_cache(self, write: Callable[..., Path]) -> None:
        """`write_through` belongs to the place in this stack, not to what else uses the name."""
        write('a = ["b", {cache = "b", write_through = true}, "b"]\n[b]\ntemplate = "memory"\n')
        stack = load_cache_config("a")
        assert isinstance(stack, CacheStack)
        assert [layer.policy.write_through for layer in stack.layers] == [False, True, False]
        assert stack.layers[0] is stack.layers[2]

    def test_a_view_of_a_shared_cache_shares_it(self, write: Callable[..., Path]) -> None:
        write('a = ["b", {cache = "b", read_only = true}]\n[b]\ntype = "ssh"\nhost = "h"\n')
        stack = load_cache_config("a")
        assert isinstance(stack, CacheStack)
        assert stack.layers[0] is not stack.layers[1]


class TestPaths:
    def test_relative_to_the_declaring_file(
        self, write: Callable[..., Path], tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write('[far]\ntemplate = "pickle"\nroot = "results"\n', directory=".")
        write('[near]\ntemplate = "pickle"\nroot = "../results"\n')
        (tmp_home / "work" / "deep").mkdir()
        monkeypatch.chdir(tmp_home / "work" / "deep")
        for name in ("far", "near"):
            root = cache_to_config(load_cache_config(name))["values"]["root"]
            assert root == str(tmp_home / "results" / "values")

    def test_start(self, write: Callable[..., Path], tmp_home: Path) -> None:
        write('[a]\ntemplate = "pickle"\nroot = "x"\n', directory="elsewhere")
        cache = load_cache_config("a", start=tmp_home / "elsewhere")
        assert cache_to_config(cache)["values"]["root"] == str(tmp_home / "elsewhere/x/values")

    def test_base(self, tmp_home: Path) -> None:
        table = {"template": "pickle", "root": Path("x")}
        here, there = cache_from_config(table), cache_from_config(table, base="~/there")
        assert cache_to_config(here)["values"]["root"] == str(tmp_home / "work/x/values")
        assert cache_to_config(there)["values"]["root"] == str(tmp_home / "there/x/values")

    def test_names_of_a_configuration(self, write: Callable[..., Path]) -> None:
        write('[a]\ntemplate = "memory"\n')
        assert isinstance(cache_from_config(["a", "void"], config=load_config()), CacheStack)

    @pytest.mark.parametrize("url", ["calls.db", "sqlite:///calls.db"])
    def test_of_a_database(self, write: Callable[..., Path], tmp_home: Path, url: str) -> None:
        write(f'[a]\nvalues.type = "memory"\ncalls = {{type = "sql", url = "{url}"}}\n')
        config = cache_to_config(load_cache_config("a"))
        assert config["calls"]["url"].endswith(str(tmp_home / "work" / "calls.db"))


class TestMetadata:
    def test_unconfigured(self) -> None:
        assert [type(each) for each in load_default_metadata()] == [Runtime, Environment]

    def test_named(self, write: Callable[..., Path]) -> None:
        write('[default]\nmetadata = ["git", "runtime"]\n')
        assert [type(each) for each in load_default_metadata()] == [Git, Runtime]

    def test_none(self, write: Callable[..., Path], tmp_home: Path) -> None:
        write("[default]\nmetadata = []\n", directory="quiet")
        assert load_default_metadata(start=tmp_home / "quiet") == ()

    def test_own(self, write: Callable[..., Path]) -> None:
        class Humidity(MetaData):
            pass

        write('[default]\nmetadata = ["humidity"]\n')
        (found,) = load_default_metadata()
        assert isinstance(found, Humidity)


class TestOwnStorages:
    @pytest.fixture(autouse=True)
    def _forget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fleche.storage import _registry as registry

        known = {kind: dict(names) for kind, names in registry._registered.items()}
        monkeypatch.setattr(registry, "_registered", known)

    def test_keys_become_arguments(self) -> None:
        class ValueShelf(ValueMemory):
            Options = None  # type: ignore[assignment]

            def __init__(self, shelf: str) -> None:
                super().__init__()
                self.shelf = shelf

            def to_config(self) -> dict[str, Any]:
                return {"type": "shelf", "shelf": self.shelf}

        register_storage("shelf", "values", ValueShelf)
        table = {"values": {"type": "shelf", "shelf": "~/verbatim"}, "calls": MEMORY}
        assert cache_to_config(cache_from_config(table)) == table

    def test_a_missing_extra_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A database server needs SQLAlchemy; SQLite does not."""
        monkeypatch.setitem(sys.modules, "sqlalchemy", None)
        monkeypatch.delitem(sys.modules, "fleche.storage.sql._server", raising=False)
        cache_from_config({"values": MEMORY, "calls": {"type": "sql"}}).close()
        table = {"values": MEMORY, "calls": {"type": "sql", "url": "postgresql://me@here/x"}}
        with pytest.raises(MissingExtra, match=r"^config\.calls: .*pip install sqlalchemy"):
            cache_from_config(table)


# -- there and back --------------------------------------------------------------------------------

texts = st.text("abc~./-", min_size=1, max_size=6).map(lambda text: f"x{text}")
common = st.fixed_dictionaries(
    {},
    optional={
        "on_error": st.sampled_from(["raise", "miss"]),
        "write_through": st.sampled_from([False, True, "background"]),
        "read_only": st.booleans(),
    },
)
limits = st.fixed_dictionaries(
    {}, optional={"max_size": st.integers(1, 10**12), "max_bytes": st.integers(1, 10**15)}
)
stores = st.one_of(
    st.just({"type": "memory"}),
    st.just({"type": "void"}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["cloudpickle", "pickle", "dill"]), "root": texts},
        optional={
            "compress": st.sampled_from(["zlib", "zstd"]),
            "secret_key": st.one_of(texts, st.lists(texts, min_size=1, max_size=2)),
            "mmap": st.booleans(),
            "durable": st.booleans(),
        },
    ),
)
databases = st.fixed_dictionaries({"type": st.just("sql")}, optional={"url": texts})
local = st.fixed_dictionaries({"values": stores, "calls": stores | databases})
templates = st.one_of(
    st.fixed_dictionaries({"template": st.sampled_from(["memory", "void"])}),
    st.fixed_dictionaries({"template": st.sampled_from(["cloudpickle", "sql"]), "root": texts}),
)
patience = {
    "cache_name": texts,
    "timeout": st.integers(1, 1000) | st.floats(0.5, 1e3),
    "connect_timeout": st.integers(1, 1000),
    "compression": st.sampled_from(["auto", "none", "zlib", "zstd"]),
}
ssh = st.fixed_dictionaries(
    {"type": st.just("ssh"), "host": texts},
    optional={
        **patience,
        "python": texts,
        "ssh_options": st.lists(texts, max_size=3),
        "setup_commands": st.lists(texts, max_size=3),
        "workdir": texts,
    },
)
processes = st.fixed_dictionaries(
    {"type": st.just("subprocess")},
    optional={
        **patience,
        "python": texts,
        "workdir": texts,
        "env": st.dictionaries(texts, texts, max_size=2),
    },
)


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


leaves = st.builds(merged, local | templates, common, limits) | st.builds(
    merged, ssh | processes, common
)
caches = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.builds(
            merged,
            st.fixed_dictionaries(
                {"pool": st.lists(inner | st.just("memory"), min_size=1, max_size=3)}
            ),
            common,
        ),
        st.builds(merged, st.fixed_dictionaries({"cache": inner}), common),
    ),
    max_leaves=5,
)


@given(config=caches)
def test_there_and_back(config: Any) -> None:
    """What a cache says of itself makes the same cache, with secrets or without."""
    once = cache_to_config(cache_from_config(config))
    assert cache_to_config(cache_from_config(once)) == once
    assert plain_data(once)
    hidden = cache_to_config(cache_from_config(config), redact=True)
    assert hidden == redact(once)
    assert cache_to_config(cache_from_config(hidden), redact=True) == hidden


def plain_data(config: Any) -> bool:
    if isinstance(config, dict):
        return all(isinstance(key, str) and plain_data(item) for key, item in config.items())
    if isinstance(config, list):
        return all(map(plain_data, config))
    return isinstance(config, str | int | float | bool)


# -- cost and documentation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "needed_by"),
    [("sqlalchemy", "sql"), ("fleche.remote", "ssh"), ("h5py", "hdf5"), ("fsspec", "fsspec")],
)
def test_only_what_is_needed_is_imported(module: str, needed_by: str) -> None:
    code = (
        "import sys; from fleche.config import cache_from_config, load_cache_config; "
        "cache_from_config([{'template': 'cloudpickle', 'root': 'x'}, {'template': 'memory'}]); "
        f"load_cache_config(); print({module!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False", f"only {needed_by} needs it"


def examples() -> list[str]:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", examples())
def test_the_examples_of_the_documentation(text: str) -> None:
    config_file(text).write_text(text)
    config = load_config()
    assert config.files
    for name in [*config.tables, None]:
        load_cache_config(name)
    load_default_metadata()
