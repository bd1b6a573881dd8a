"""Storages by name, as fleche.toml calls them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fleche.storage
from fleche.config import cache_from_config
from fleche.errors import ConfigError, MissingExtra
from fleche.parcel._codecs import ZSTD
from fleche.storage import (
    CallFile,
    CallMemory,
    ValueFile,
    ValueMemory,
    ValueStorage,
    register_storage,
    storage_class,
    storage_from_config,
    storage_names,
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's own registrations are forgotten."""
    from fleche.storage import _registry

    monkeypatch.setattr(_registry, "_registered", {"values": {}, "calls": {}})


@pytest.mark.parametrize("module", ["sqlalchemy", "numpy", "h5py", "fsspec", "dill"])
def test_imports_nothing_heavy(module: str) -> None:
    """Importing the storages imports none of what only some of them need."""
    code = f"import fleche.storage, sys; print({module!r} in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize(
    ("name", "kind", "cls"),
    [
        ("memory", "values", ValueMemory),
        ("memory", "calls", CallMemory),
        ("cloudpickle", "values", ValueFile),
        ("pickle", "values", ValueFile),
        ("dill", "calls", CallFile),
    ],
)
def test_built_in_names(name: str, kind: Any, cls: type) -> None:
    """The names of the table in the documentation mean these classes."""
    assert storage_class(name, kind) is cls
    assert name in storage_names(kind)


def test_sql_is_there_when_it_is_asked_for() -> None:
    """``fleche.storage.Sql`` is imported when it is first named."""
    assert storage_class("sql", "calls") is fleche.storage.Sql
    assert "Sql" in dir(fleche.storage)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = fleche.storage.Nothing


def test_a_missing_extra_is_named() -> None:
    """Without h5py, the error says how to get it."""
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from fleche.storage import storage_class\n"
        "try: storage_class('hdf5', 'values')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    assert run(code) == (
        'MissingExtra values of type "hdf5" need the package h5py: pip install h5py'
    )
    assert issubclass(MissingExtra, ImportError)


@pytest.mark.parametrize(
    ("package", "config", "message"),
    [
        ("dill", {"template": "dill"}, 'config.values: serializer "dill" needs the package dill: '),
        (
            ZSTD,
            {"type": "local", "compress": "zstd"},
            'config: compression "zstd" needs Python 3.14, or the package backports.zstd: ',
        ),
        (
            ZSTD,
            {"values": {"type": "cloudpickle", "compress": "zstd", "root": "values"}},
            'config.values: compression "zstd" needs Python 3.14, or the package backports.zstd: ',
        ),
    ],
)
def test_what_packs_is_missing_when_a_cache_is_opened(
    package: str,
    config: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not when the first large result is there, which took a week and would not be stored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    place = {"calls": {"type": "memory"}} if "values" in config else {"root": "results"}
    with pytest.raises(
        MissingExtra, match=f"^{re.escape(message)}pip install (dill|backports.zstd)$"
    ):
        cache_from_config(config | place)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("cloudpikle", "values", "did you mean 'cloudpickle'?; known are local, memory, "),
        ("sql", "values", "'sql' holds calls, not values"),
        ("hdf5", "calls", "'hdf5' holds values, not calls"),
        ("zzz", "calls", "type 'zzz': unknown storage of calls; known are "),
        ("no.such.module:Class", "calls", "there is no module 'no'"),
        ("fleche.storage:Nothing", "calls", "fleche.storage has no 'Nothing'"),
        ("fleche.storage:ValueMemory", "calls", "no subclass of CallStorage"),
    ],
)
def test_unknown_names(name: str, kind: Any, message: str) -> None:
    """An unknown name is a broken configuration; the message helps."""
    with pytest.raises(ConfigError) as caught:
        storage_class(name, kind)
    assert message in str(caught.value)


class Mine(ValueMemory):
    """A user's storage, without options."""

    def __init__(self, color: str = "red") -> None:
        super().__init__()
        self.color = color


def test_a_user_registers_a_storage() -> None:
    """A class of one's own is named like any other, and receives its table as arguments."""
    register_storage("mine", "values", Mine)
    assert storage_class("mine", "values") is Mine
    assert storage_names("values")[-1] == "mine"
    assert "mine" not in storage_names("calls")
    storage: Any = Mine.from_options("mine", Mine.Options(), str)
    assert storage.color == "red"


class Colored(ValueStorage):
    """A user's storage that needs no more than an argument."""

    def __init__(self, color: str) -> None:
        self.color = color

    put_many = get_many = contains_many = delete_many = entries = None  # type: ignore[assignment]


def test_a_class_without_options_receives_its_table() -> None:
    """The other keys of the table are keyword arguments."""
    register_storage("colored", "values", Colored)
    found: Any = storage_from_config({"type": "colored", "color": "blue"}, "values")
    assert found.color == "blue"


def test_an_import_path_is_a_name() -> None:
    """A configuration may name a class that was not registered."""
    path = "fleche.storage:ValueMemory"
    assert storage_class(path, "values") is ValueMemory
    register_storage("lazy", "values", path)
    assert storage_class("lazy", "values") is ValueMemory


def test_what_cannot_be_registered() -> None:
    """Built-in names stay what they are, and only storages of the kind are taken."""
    with pytest.raises(ValueError, match="built in"):
        register_storage("memory", "values", Mine)
    with pytest.raises(TypeError, match="no subclass of CallStorage"):
        register_storage("mine", "calls", Mine)
    wrong: Any = "value"
    with pytest.raises(ValueError, match="one of values, calls"):
        register_storage("mine", wrong, Mine)


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a\nb", "a:b", "a/b", "\ud800", b"a"])
def test_what_is_no_name(name: Any) -> None:
    """What a line of configuration could not say, or would mean otherwise."""
    with pytest.raises(ValueError, match="a name is letters, digits"):
        register_storage(name, "values", Mine)
    assert name not in storage_names("values")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "a storage needs a type: one of local, memory"),
        ({"type": "cloudpickle"}, "missing required field `root`"),
        ({"type": "cloudpickle", "root": "x", "rot": 1}, "unknown field `rot`"),
        ({"type": "cloudpickle", "root": "x", "compress": "gz"}, "'gz'"),
        ({"type": "memory", "root": "x"}, "unknown field `root`"),
    ],
)
def test_broken_tables(table: dict[str, Any], message: str) -> None:
    """A wrong key or value is a broken configuration."""
    with pytest.raises(ConfigError) as caught:
        storage_from_config(table, "values")
    assert message in str(caught.value)


def test_paths_are_resolved(tmp_path: Path) -> None:
    """The reader of a configuration says what its paths are relative to."""

    def resolve(path: str) -> str:
        return str(tmp_path / path)

    values = storage_from_config({"type": "pickle", "root": "v"}, "values", resolve)
    calls = storage_from_config({"type": "sql", "url": "c.db"}, "calls", resolve)
    assert values.to_config() == {"type": "pickle", "root": str(tmp_path / "v")}
    assert calls.to_config() == {"type": "sql", "url": str(tmp_path / "c.db")}
    assert storage_from_config(values.to_config(), "values").to_config() == values.to_config()


def test_paths_are_relative_to_the_working_directory_by_default(tmp_home: Path) -> None:
    """``~`` is expanded, and what is relative is so to where the process is."""
    values = storage_from_config({"type": "cloudpickle", "root": "v"}, "values")
    assert values.to_config()["root"] == str(Path.cwd() / "v")
    values = storage_from_config({"type": "cloudpickle", "root": "~/v"}, "values")
    assert values.to_config()["root"] == str(tmp_home / "v")
