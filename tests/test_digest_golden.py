"""Digests are the same in every process: under other hash seeds and other versions of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleche.digest import SCHEME
from tests.golden import values
from tests.helpers.pythons import PYTHON_VERSIONS, Pythons

ROOT = Path(__file__).parents[1]
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / "digests.json").read_text())
ALWAYS = {"core", "plain", "graphs", "unordered", "code", "keys"}
SECTIONS = [section for section in GOLDEN if section != "scheme"]


def collect_with(python: str, seed: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "tests.golden.values"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], needed: set[str]) -> None:
    assert needed <= set(found)
    for section, digests in found.items():
        assert digests == GOLDEN[section], section


def test_scheme() -> None:
    """With a change of a golden digest the version of the scheme is raised."""
    assert GOLDEN["scheme"] == SCHEME


@pytest.mark.parametrize("section", SECTIONS)
def test_here(section: str) -> None:
    """The pinned digests hold in this very process."""
    if section in ("numpy", "pandas", "attrs"):
        pytest.importorskip(section)
    assert values.collect()[section] == GOLDEN[section]


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_hash_seeds(seed: str) -> None:
    """The hash seed moves sets and dicts about, and no digest."""
    check(collect_with(sys.executable, seed), ALWAYS)


@pytest.mark.parametrize("version", PYTHON_VERSIONS)
def test_versions(version: str, pythons: Pythons) -> None:
    """Every supported version of Python gives the same digests, those of functions included."""
    check(collect_with(pythons[version], "1"), ALWAYS | {"numpy"})


def test_bytecode_under_hash_seeds() -> None:
    """A function without source is known by its bytecode; a set literal in it does no harm."""
    script = (
        "from fleche.digest import digest\n"
        "space = {}\n"
        'exec(\'def f(x): return x in {"a", "b", "c", "d"}\', space)\n'
        "print(str(digest(space['f'])))"
    )
    found = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        found.add(subprocess.check_output([sys.executable, "-c", script], env=environment))
    assert len(found) == 1
