"""What a ``joblib.Memory`` directory holds becomes hits, as far as its arguments are known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleche import cache as active
from fleche.caches import Cache
from fleche.errors import Rejected
from fleche.exchange import JoblibResult, import_joblib
from tests.helpers.commands import fleche_command
from tests.helpers.layers import in_memory

pytest.importorskip("joblib")

BEFORE = """\
from joblib import Memory
memory = Memory("stored", verbose=0)


@memory.cache
def total(a, b=2, *rest, scale=1, **named):
    return (a + b + sum(rest) + sum(named.values())) * scale


@memory.cache(ignore=["log"])
def mean(x, log=None):
    return float(sum(x) / len(x))


@memory.cache
def edited(a):
    return a


@memory.cache
def gone(a):
    return a
"""

CALLS = """
import numpy as np
from studied_before import *
half = np.float64(0.5) if np.__version__ >= "2" else 0.5  # numpy 1 writes both in one way
total(1); total(1, 3, 4, z=5); total(2, scale=10); total(half); total(1, 2)
mean([1, 2, 3]); mean((1.0, 2.5)); mean(np.arange(3)); mean(np.array([0.1, 0.2]), log=print)
mean({1, 2}); mean(np.linspace(0, 1, 50_000)); mean(np.array([1 / 3, 2 / 3]))
edited(1); gone(1)
"""

AFTER = """\
from fleche import fleche

ran = []


@fleche
def total(a, b=2, *rest, scale=1, **named):
    return (a + b + sum(rest) + sum(named.values())) * scale


@fleche
def mean(x, log=None):
    # with another comment
    return float(sum(x) / len(x))


def edited(a):
    return a + 1
"""


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of joblib; the module has come to use fleche since."""
    work = tmp_path / "joblib-study"
    work.mkdir()
    module = work / "studied_before.py"
    module.write_text(BEFORE)
    subprocess.run([sys.executable, "-c", CALLS], cwd=work, check=True)
    module.write_text(AFTER)
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    yield work / "stored"
    sys.modules.pop("studied_before", None)


def reasons(results: list[JoblibResult], name: str) -> list[str]:
    return [each.reason for each in results if each.function.endswith(name) and each.key is None]


def test_a_directory_further_up(stored: Path) -> None:
    """That of the study, say: functions are called as they are from the ``joblib`` there on."""
    whole = [each.function for each in import_joblib(stored, in_memory())]
    found = import_joblib(stored.parent, in_memory())
    assert [each.function for each in found] == whole


def test_results_are_hits(stored: Path) -> None:
    """The function does not run again, whatever kinds of arguments it was called with."""
    import numpy as np

    cache = in_memory()
    results = list(import_joblib(stored, cache))
    assert reasons(results, "total") == []
    import studied_before as study

    with active(cache):
        assert study.total.contains(1)
        assert study.total(1, 3, 4, z=5) == 13
        assert study.total(2, scale=10) == 40
        assert study.total.contains(np.float64(0.5) if np.__version__ >= "2" else 0.5)
        assert study.mean([1, 2, 3]) == 2
        assert study.mean.contains((1.0, 2.5))
        assert study.mean.contains(np.arange(3))
        assert study.mean.contains({1, 2})
        assert cache.counts().get("misses", 0) == 0
        call = study.total.load(1)
    assert call.metadata["imported"] == {"from": "joblib"}
    assert call.metadata["runtime"]["seconds"] < 10
    assert call.duration == call.metadata["runtime"]["seconds"]
    assert "started" in call.metadata["runtime"]


def test_what_is_left_out(stored: Path) -> None:
    """Arguments that the text does not spell exactly, and functions that are others now."""
    results = list(import_joblib(stored, in_memory()))
    assert len(reasons(results, "mean")) == 2, "the long array, and the one with more digits"
    assert all("text" in reason for reason in reasons(results, "mean"))
    (reason,) = reasons(results, "edited")
    assert "its code has changed" in reason
    (reason,) = reasons(results, "gone")
    assert "has no function gone" in reason


def test_changed_code_if_wished(stored: Path) -> None:
    """A plain function will do, too."""
    cache = in_memory()
    results = list(import_joblib(stored / "joblib", cache, changed=True))
    assert reasons(results, "edited") == []
    assert cache.query(name="edited").only().result == 1


def test_again_and_dry(stored: Path) -> None:
    """Nothing is written twice; a dry run writes nothing."""
    cache: Cache = in_memory()
    dry = list(import_joblib(stored, cache, dry_run=True))
    assert cache.query().count() == 0
    first = list(import_joblib(stored, cache))
    assert [each.key for each in dry] == [each.key for each in first]
    again = list(import_joblib(stored, cache))
    assert [each.key for each in again if each.key] == []
    assert any(each.reason == "there already" for each in again)
    with pytest.raises(Rejected):
        import_joblib(stored, cache.readonly())


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results of joblib"):
        import_joblib(tmp_path, in_memory())


def test_the_command(stored: Path) -> None:
    """Counts by function, and why the rest is left out."""
    told = fleche_command("import-joblib", stored, "--dry-run", "--json")
    assert told.status == 0
    found = {each["function"]: each for each in told.lines}
    assert set(found) == {f"studied_before.{each}" for each in ("total", "mean", "edited", "gone")}
    told = fleche_command("import-joblib", stored)
    assert told.status == 0
    assert "imported 9 results" in told.out, told
    assert "left out" in told.out
    assert "code has changed" in told.out
    assert len(fleche_command("log", "--json", "-n", "0").lines) == 9
    assert fleche_command("import-joblib", stored).status == 1
    (stored / "empty").mkdir()
    assert fleche_command("import-joblib", stored / "empty").status == 1
