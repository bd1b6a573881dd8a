"""Caches that would take each other's values are refused, as far as their tables tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleche.config import load_cache_config, load_config
from fleche.errors import ConfigError


@pytest.fixture
def file(tmp_home: Path) -> Path:
    return tmp_home / "work" / "fleche.toml"


def cache(name: str, values: str, calls: str, more: str = "") -> str:
    """Return the table of a cache, its storages as ``type = ..., root = ...``."""
    return f"[{name}]\nvalues = {{ {values} }}\ncalls = {{ {calls} }}\n{more}\n"


FILES = 'type = "cloudpickle", root = "values"'
OTHER = 'type = "cloudpickle", root = "other values"'
HDF5 = 'type = "hdf5", root = "values"'
S3 = 'type = "fsspec", url = "s3://bucket/values"'
CALLS = 'type = "cloudpickle", root = "calls"'
SQL = 'type = "sql", url = "calls.db"'
MEMORY = 'type = "memory"'
POSTGRES = 'type = "sql", url = "postgresql+psycopg://reader@db.example.org/results"'

APART = {
    "files and a database": (FILES, CALLS, FILES, SQL),
    "two databases": (FILES, SQL, FILES, 'type = "sql", url = "sqlite:///others.db"'),
    "two databases of one server": (
        *(FILES, POSTGRES),
        *(FILES, 'type = "sql", url = "postgresql+psycopg://reader@db.example.org/others"'),
    ),
    "other serializers": ('type = "dill", root = "values"', CALLS, FILES, SQL),
    "other spellings": ('type = "dill", root = "./x/../values/"', CALLS, FILES, SQL),
    "a url of files": ('type = "fsspec", url = "file:///x"', CALLS, FILES[:-8] + '"/x"', SQL),
    "a path for objects": ('type = "fsspec", url = "values"', CALLS, FILES, SQL),
    "in memory": (FILES, CALLS, FILES, MEMORY),
    "both in memory": (FILES, MEMORY, FILES, 'type = "sql"'),
    "hdf5": (HDF5, SQL, HDF5, CALLS),
    "objects": (S3, 'type = "fsspec", url = "s3://bucket/a"', f'{S3[:-1]}/"', SQL),
}


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("stacked", [False, True])
def test_refused(file: Path, name: str, stacked: bool) -> None:
    values, calls, other_values, other_calls = APART[name]
    second = cache("b", other_values, other_calls)
    if stacked:
        second = '[[b]]\ntemplate = "memory"\n[[b]]\n' + second.partition("\n")[2]
    file.write_text(cache("a", values, calls) + second)
    place = "b[1]" if stacked else "b"
    with pytest.raises(ConfigError) as caught:
        load_cache_config("a")
    assert str(caught.value) == (
        f"{file}: {place}: keeps its values where {file}: a keeps its own, but its calls "
        "elsewhere, so that gc() of one would remove what the other needs; let them share the "
        "calls, too, or nothing"
    )


@pytest.mark.parametrize("key", ["type", "template"])
def test_the_values_of_a_store(file: Path, key: str) -> None:
    """A cache that is one store has its calls there, too."""
    values = cache("b", 'type = "local", root = "store"', CALLS)
    file.write_text(f'[a]\n{key} = "local"\nroot = "./store"\n{values}')
    with pytest.raises(ConfigError, match="b: keeps its values where"):
        load_config()


TOGETHER = {
    "the same calls": (FILES, CALLS, FILES, CALLS),
    "the same, otherwise spelt": (FILES, SQL, FILES, 'type = "sql", url = "sqlite:///calls.db"'),
    "a url of the same files": (
        *(FILES, 'type = "cloudpickle", root = "/x"'),
        *(FILES, 'type = "fsspec", url = "file:///x/"'),
    ),
    "other values": (FILES, CALLS, OTHER, SQL),
    "other files": (FILES, CALLS, HDF5, SQL),
    "another login": (
        *(FILES, POSTGRES),
        *(FILES, 'type = "sql", url = "postgresql+psycopg://owner:x@db/results?a=b"'),
    ),
    "another endpoint": (S3, CALLS, S3 + ', options = { endpoint_url = "https://x" }', SQL),
    "in memory": (MEMORY, CALLS, MEMORY, SQL),
    "of nobody known": ('type = "cloudpickle", root = "~nobody0/x"', CALLS, FILES, SQL),
    "of another kind": ('type = "x:Y", root = "values"', CALLS, 'type = "x:Y"', SQL),
    "calls of another kind": (FILES, 'type = "x:Y"', FILES, CALLS),
    "a database that says where itself": (
        *(FILES, 'type = "sql", url = "sqlite:///file:calls.db?uri=true"'),
        *(FILES, SQL),
    ),
    "what is no storage": ("root = 3", "url = 3", 'type = "sql", url = 3', 'type = "hdf5"'),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_accepted(file: Path, name: str) -> None:
    values, calls, other_values, other_calls = TOGETHER[name]
    file.write_text(cache("a", values, calls) + cache("b", other_values, other_calls))
    assert set(load_config().tables) == {"a", "b"}


def test_links(file: Path) -> None:
    """One database is one, however one gets there."""
    (file.parent / "link").symlink_to(file.parent)
    file.write_text(
        cache("a", FILES, SQL) + cache("b", FILES, 'type = "sql", url = "link/calls.db"')
    )
    load_config()


def test_templates(file: Path) -> None:
    file.write_text(
        '[a]\ntemplate = "sql"\nroot = "results"\n[b]\ntemplate = "cloudpickle"\nroot = "results"\n'
    )
    with pytest.raises(ConfigError, match="b: keeps its values where"):
        load_config()
    file.write_text(
        '[a]\ntemplate = "sql"\nroot = "results"\n[b]\ntemplate = "hdf5"\nroot = "results"\n'
        '[c]\ntemplate = "sql"\nroot = "./results"\nmax_size = 3\n[d]\ntemplate = "memory"\n'
    )
    load_config()


def test_both_read_only(file: Path) -> None:
    """Neither removes anything; one that does is enough."""
    read_only = "read_only = true"
    file.write_text(cache("a", FILES, CALLS, read_only) + cache("b", FILES, SQL, read_only))
    load_config()
    nested = cache("a.cache", FILES, CALLS) + "[a]\nread_only = true\n"
    file.write_text(nested + cache("b", FILES, SQL, read_only))
    load_config()
    file.write_text(cache("a", FILES, CALLS, read_only) + cache("b", FILES, SQL))
    with pytest.raises(ConfigError, match="b: keeps its values where"):
        load_config()


def test_two_files(file: Path, tmp_home: Path) -> None:
    """It does not matter which file says so, unless a nearer one hides it."""
    file.write_text(cache("a", FILES, CALLS))
    outer = tmp_home / "fleche.toml"
    outer.write_text(cache("b", FILES.replace("values", "work/values"), SQL))
    with pytest.raises(ConfigError, match=r"home/fleche\.toml: b: keeps its values where"):
        load_config()
    outer.write_text(cache("a", FILES.replace("values", "work/values"), SQL))
    load_config()
