"""A cache by what a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleche.caches import BaseCache
from fleche.config import cache_from_config, open_cache
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
    assert held(open_cache(str(roots[kind]))) == [kind]
    monkeypatch.chdir(roots[kind])
    assert held(open_cache(".")) == [kind]


def test_by_configuration(roots: dict[str, Path]) -> None:
    """A line, in TOML or JSON; a file; a cache of a file; the directory of a ``fleche.toml``."""
    table = {"type": "local", "root": str(roots["local"])}
    assert held(open_cache(json.dumps(table))) == ["local"]
    assert held(open_cache(f'{{type = "local", root = "{roots["local"]}"}}')) == ["local"]
    other = roots["local"].parent / "other"
    other.mkdir()
    text = '[a]\ntype="local"\nroot="../local"\n[b]\ntemplate="sql"\nroot="../sql"\n'
    (other / "team.toml").write_text(text)
    assert held(open_cache(f"{other}/team.toml:a")) == ["local"]
    assert held(open_cache(f"{other}/team.toml:b")) == ["sql"]
    with pytest.raises(ConfigError, match=r"which cache is not said.*there are: a, b"):
        open_cache(f"{other}/team.toml")
    (other / "fleche.toml").write_text(f'[default]\ncache = "b"\n{text}')
    assert held(open_cache(f"{other}/fleche.toml")) == ["sql"]
    assert held(open_cache(str(other))) == ["sql"]


def test_by_name_first(roots: dict[str, Path]) -> None:
    """A name that is configured is that cache, whatever directories there are."""
    Path("results").mkdir()
    Path("fleche.toml").write_text(
        f'[default]\ncache = "results"\n[results]\ntype = "local"\nroot = "{roots["local"]}"\n'
    )
    assert held(open_cache("results")) == ["local"]
    assert held(open_cache()) == ["local"]
    assert held(open_cache("memory")) == []


def test_what_is_none(tmp_path: Path) -> None:
    """An error says what is there instead; a new directory is made only where that is asked for."""
    with pytest.raises(ConfigError, match=r"holds no cache and no fleche\.toml"):
        open_cache(str(tmp_path))
    with pytest.raises(ConfigError, match="no such directory"):
        open_cache(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"no cache is named 'absent'"):
        open_cache("absent")
    with pytest.raises(ConfigError, match="no such file"):
        open_cache("absent.toml")
    with pytest.raises(ConfigError, match="neither TOML nor JSON"):
        open_cache("{type: local}")
    with open_cache(str(tmp_path / "new"), make=True) as cache:
        cache.save(call("new"))
    assert held(open_cache(str(tmp_path / "new"))) == ["new"]
