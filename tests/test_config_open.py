"""A cache by what a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fleche
from fleche.caches import BaseCache
from fleche.config import cache_from_config
from fleche.errors import ConfigError
from tests.helpers.layers import call


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Caches in directories, each with one call."""
    found = {}
    for kind in ("local", "cloudpickle", "sql"):
        found[kind] = tmp_path / kind
        with cache_from_config({"template": kind, "root": str(found[kind])}) as cache:
            cache.save(call(kind))
    return found


def held(cache: BaseCache) -> list[object]:
    with cache:
        return [each.arguments["x"] for each in cache.query()]


@pytest.mark.parametrize("kind", ["local", "cloudpickle", "sql"])
def test_by_directory(kind: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that holds a cache, absolute or not, of each usual make."""
    assert held(fleche.open(str(roots[kind]))) == [kind]
    monkeypatch.chdir(roots[kind])
    assert held(fleche.open(".")) == [kind]


def test_a_copy_without_its_layout(tmp_path: Path) -> None:
    """The database says what it is as well."""
    place = str(tmp_path)
    with cache_from_config({"type": "local", "root": place}) as cache:
        cache.save(call("kept"))
    (tmp_path / "layout").unlink()
    assert held(fleche.open(place)) == ["kept"]


def test_by_configuration(roots: dict[str, Path]) -> None:
    """A line, in TOML or JSON; a file; a cache of a file; the directory of a ``fleche.toml``."""
    table = {"type": "local", "root": str(roots["local"])}
    assert held(fleche.open(json.dumps(table))) == ["local"]
    assert held(fleche.open(f'{{type = "local", root = "{roots["local"]}"}}')) == ["local"]
    other = roots["local"].parent / "other"
    other.mkdir()
    text = '[a]\ntype="local"\nroot="../local"\n[b]\ntemplate="sql"\nroot="../sql"\n'
    (other / "team.toml").write_text(text)
    assert held(fleche.open(f"{other}/team.toml:a")) == ["local"]
    assert held(fleche.open(f"{other}/team.toml:b")) == ["sql"]
    with pytest.raises(ConfigError, match=r"which cache is not said.*there are: a, b"):
        fleche.open(f"{other}/team.toml")
    (other / "fleche.toml").write_text(f'[default]\ncache = "b"\n{text}')
    assert held(fleche.open(f"{other}/fleche.toml")) == ["sql"]
    assert held(fleche.open(str(other))) == ["sql"]


def test_by_name_first(roots: dict[str, Path]) -> None:
    """A name that is configured is that cache, whatever directories there are."""
    Path("results").mkdir()
    Path("fleche.toml").write_text(
        f'[default]\ncache = "results"\n[results]\ntype = "local"\nroot = "{roots["local"]}"\n'
    )
    assert held(fleche.open("results")) == ["local"]
    assert held(fleche.open()) == ["local"]
    assert held(fleche.open("memory")) == []


def test_a_name_that_is_misspelt(tmp_path: Path) -> None:
    """It is no new directory, unless that is there or is said to be one."""
    Path("fleche.toml").write_text('[results]\ntemplate = "memory"\n')
    with pytest.raises(ConfigError, match=r"'reslts', did you mean 'results'\? .*'./reslts'"):
        fleche.open("reslts")
    assert not Path("reslts").exists()
    with fleche.open("./reslts") as cache:
        cache.save(call("here"))
    assert held(fleche.open("reslts")) == ["here"]
    assert held(fleche.open("other")) == []


def test_what_is_none(tmp_path: Path) -> None:
    """An error says what is there instead; a new directory is made only where that is asked for."""
    with pytest.raises(ConfigError, match=r"holds no cache and no fleche\.toml"):
        fleche.open(str(tmp_path), make=False)
    with pytest.raises(ConfigError, match="no such directory"):
        fleche.open(str(tmp_path / "absent"), make=False)
    with pytest.raises(ConfigError, match=r"no cache is named 'absent'"):
        fleche.open("absent", make=False)
    with pytest.raises(ConfigError, match="no such file"):
        fleche.open("absent.toml", make=False)
    with pytest.raises(ConfigError, match="neither TOML nor JSON"):
        fleche.open("{type: local}", make=False)
    with fleche.open(str(tmp_path / "new")) as cache:
        cache.save(call("new"))
    assert held(fleche.open(str(tmp_path / "new"))) == ["new"]


def test_an_empty_text() -> None:
    """It is neither a name nor the working directory."""
    with pytest.raises(ConfigError, match="an empty text names no cache"):
        fleche.open("")


def test_a_path_is_a_directory(roots: dict[str, Path]) -> None:
    """Whatever names there are; options go to the cache that is made there."""
    Path("fleche.toml").write_text('[results]\ntemplate = "memory"\n')
    with fleche.open(Path("results")) as cache:
        cache.save(call("here"))
    assert held(fleche.open("./results")) == ["here"]
    assert held(fleche.open("results")) == []
    with fleche.open("packed", compress=True) as cache:
        assert cache.to_config()["compress"]
    with pytest.raises(TypeError, match="name one"):
        fleche.open(compress=True)
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="other files; name a new directory"):
        fleche.open("full")


def test_a_path_in_place_of_a_name(tmp_path: Path) -> None:
    """The error says what opens it."""
    with pytest.raises(ConfigError, match=r"opened by fleche.open\('./results'\)"):
        fleche.cache("./results")
    with pytest.raises(TypeError, match=r"in a directory: fleche.open"):
        fleche.open(tmp_path / "one").push("./results")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"configuration.max_bytes: 'lots' is no size"):
        fleche.open('{type = "local", root = "r", max_bytes = "lots"}')
