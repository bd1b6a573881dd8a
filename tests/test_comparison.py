"""In what two stored calls differ."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fleche import cache as active
from fleche.caches import Local
from fleche.call import Call, LazyCall
from fleche.comparison import compare_calls
from tests.helpers.commands import fleche_command
from tests.helpers.layers import in_memory


def stored(**fields: Any) -> LazyCall:
    """A call that is stored."""
    cache = in_memory()
    settings: dict[str, Any] = {"name": "fit", "arguments": {"v": 1.0}, "result": 2.0, **fields}
    return cache.load(cache.save(Call(**settings)))


def differing(one: LazyCall, other: LazyCall, **options: Any) -> dict[str, str]:
    return {each.name: each.remark for each in compare_calls(one, other, **options).differing}


def test_equal_calls() -> None:
    """When, where and for whom they ran is no difference."""
    one = stored(metadata={"runtime": {"user": "ada", "seconds": 1}})
    other = stored(metadata={"runtime": {"user": "bob", "seconds": 2}})
    found = compare_calls(one, other)
    assert not found
    assert found.same == ("v", "result")


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"name": "fit2"}, {"name"}),
        ({"module": "m"}, {"module"}),
        ({"version": 2}, {"version"}),
        ({"arguments": {"v": 1.5}}, {"v"}),
        ({"arguments": {"v": 1}}, {"v"}),
        ({"arguments": {"v": 1.0, "n": None}}, {"n"}),
        ({"result": 3.0}, {"result"}),
        ({"metadata": {"environment": {"packages": {"numpy": "2"}}}}, {"numpy"}),
        ({"metadata": {"environment": {"python": "3.13"}}}, {"python"}),
    ],
    ids=str,
)
def test_parts(changed: dict[str, Any], names: set[str]) -> None:
    """Each part in which they differ, and only that."""
    assert set(differing(stored(), stored(**changed))) == names
    assert set(differing(stored(**changed), stored())) == names


def test_by_how_much() -> None:
    """Numbers of the records; arrays and others if they may be loaded."""
    assert differing(stored(), stored(result=2.5))["result"] == "+0.5 (+25 %)"
    one, other = stored(result=np.zeros(9)), stored(result=np.array([0.0] * 8 + [0.25]))
    assert differing(one, other)["result"] == ""
    assert differing(one, other, values=True)["result"] == "1 of 9 elements differ, by 0.25 at most"
    wide = stored(result=np.zeros((3, 3)))
    assert "shapes (9,) and (3, 3)" in differing(one, wide, values=True)["result"]
    nan = stored(result=np.array([np.nan]))
    assert "equal" in differing(nan, stored(result=-np.array([np.nan])), values=True)["result"]


@dataclass
class Cell:
    a: float
    atoms: Any = ()


class Opaque:
    def __init__(self, number: int) -> None:
        self.number = number


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


ROWS = "DataFrame 1 \N{MULTIPLICATION SIGN} 1 and DataFrame 2 \N{MULTIPLICATION SIGN} 1"


@pytest.mark.parametrize(
    ("one", "other", "remark"),
    [
        ({"tol": 1.0, "n": [1, 2]}, {"tol": 1.0, "n": [1, 4]}, "['n'][1]: +2 (+100 %)"),
        ({"a": 1}, {"b": 1}, "['a']: is in the first alone; ['b']: is in the second alone"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "in another order"),
        (["x", None], ["y", True], "[0]: 'x' and 'y'; [1]: None and True"),
        ([1, 2], [1, 2, 3], "lengths 2 and 3"),
        ([1], (1,), "list(1): 1 and tuple(1): 1"),
        (
            list(range(9)),
            list(range(1, 10)),
            "[0]: +1; [1]: +1 (+100 %); [2]: +1 (+50 %); 6 more",
        ),
        ([np.float32(1)], [np.float32(2)], "[0]: +1 (+100 %)"),
        ({1, 2}, {1, 3}, "set(2): 1, 2 and set(2): 1, 3"),
        (Cell(1.0, ["Cu"]), Cell(1.0, ["Ag"]), ".atoms[0]: 'Cu' and 'Ag'"),
        (
            {"v": np.zeros(3)},
            {"v": np.array([0, 0, 0.5])},
            "['v']: 1 of 3 elements differ, by 0.5 at most",
        ),
        ([Opaque(1)], [Opaque(2)], "[0]: not compared (Opaque)"),
        (Opaque(1), Opaque(2), "not compared (Opaque)"),
        (
            frame(x=[1.0, np.nan, 3.0], s=["a", "b", None]),
            frame(x=[1.0, np.nan, 3.5], s=["a", "c", None]),
            "['x']: 1 of 3 elements differ, by 0.5 at most; ['s']: 1 of 3 elements differ",
        ),
        (frame(x=[1, 2]), frame(x=[1.0, 2.0]), "['x']: int64 and float64"),
        (frame(x=[1]), frame(y=[1]), "['x']: is in the first alone; ['y']: is in the second alone"),
        (frame(x=[1]), frame(x=[1, 2]), ROWS),
        ([10**400], [-(10**400)], "[0]: not compared (int)"),
        (frame(x=[1]), frame(x=[1]).set_index(pd.Index([7])), ".index: "),
        (pd.Series([1, 2]), pd.Series([1, 5]), "1 of 2 elements differ, by 3 at most"),
        (
            [np.ma.array([1, 2], mask=[0, 1])],
            [np.ma.array([1, 2], mask=[1, 0])],
            "[0]: 2 of 2 elements are masked in one of them alone",
        ),
        (
            [np.ma.array([1.0, 2], mask=[0, 1])],
            [np.ma.array([1.5, 2], mask=[0, 1])],
            "[0]: 1 of 2 elements differ, by 0.5 at most",
        ),
        ([np.ma.array([1, 2])], [np.array([1, 2])], "[0]: MaskedArray and ndarray"),
        (np.zeros(1), -np.zeros(1), "equal, but for the sign of a zero or the bits of a nan"),
        ([0.0], [-0.0], "[0]: the sign of the zero"),
        (
            np.array([1, np.nan, np.inf]),
            np.array([2, 1, np.inf]),
            "2 of 3 elements differ, by 1 at most",
        ),
        (
            np.array([2**63, 0], "u8"),
            np.array([2**63 + 1, 0], "u8"),
            "1 of 2 elements differ, by 1 at most",
        ),
        (
            np.array([-(2**63), 0], "i8"),
            np.array([2**63 - 1, 0], "i8"),
            "1 of 2 elements differ, by 18,446,744,073,709,551,615 at most",
        ),
        (["a" * 400 + "b"], ["a" * 400 + "c"], "[0]: from place 400 on: 'b' and 'c'"),
        (b"\0a", b"\0b", "from place 1 on: b'a' and b'b'"),
        (
            frame(t=pd.to_datetime(["2026-01-01", None])),
            frame(t=pd.to_datetime(["2026-01-02", None])),
            "['t']: 1 of 2 elements differ",
        ),
    ],
    ids=lambda each: str(each)[:40],
)
def test_where_and_by_how_much(one: Any, other: Any, remark: str) -> None:
    """Inside containers, data classes and data frames; or that it is not compared."""
    calls = stored(result=one), stored(result=other)
    found = differing(*calls, values=True)["result"]
    assert found == remark or (remark.endswith(": ") and found.startswith(remark))
    assert remark not in differing(*calls)["result"]


def test_quantities() -> None:
    """Their units tell them apart; some do not take part in every operation."""
    units = pytest.importorskip("astropy.units")
    for one, other, remark in (
        ([1, 2] * units.m, [100, 200] * units.cm, "m and cm"),
        (1 * units.m, 1.5 * units.m, "1 of 1 elements differ, by 0.5 m at most"),
        (3 * units.mag, 4 * units.mag, "1 of 1 elements differ, by 1 mag at most"),
    ):
        assert differing(stored(result=one), stored(result=other), values=True)["result"] == remark


def test_values_that_hold_themselves() -> None:
    rings: list[Any] = [[1], [2]]
    for ring in rings:
        ring.append(ring)
    one, other = (stored(result=ring) for ring in rings)
    assert differing(one, other, values=True)["result"] == "[0]: +1 (+100 %)"


MODULE = """\
from fleche import fleche
FACTOR = {factor}

def scaled(x):
    return x * FACTOR{more}

@fleche
def fit(v):
    return scaled(v)
"""


@pytest.fixture
def edited(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The keys of two calls in the default cache, between which the code was edited."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_home / "cache"))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("fleche.toml").write_text(
        '[default]\ncache = "c"\n[c]\ntype = "local"\nroot = "results"\n'
    )
    keys = []
    with Local("results") as cache, active(cache):
        for factor, more in ((2, ""), (3, " + 0")):
            Path("compared.py").write_text(MODULE.format(factor=factor, more=more))
            sys.modules.pop("compared", None)
            importlib.invalidate_caches()
            module = importlib.import_module("compared")
            module.fit(1.5)
            keys.append(str(module.fit.digest(1.5)))
    sys.modules.pop("compared", None)
    return keys[0], keys[1]


def test_code(edited: tuple[str, str]) -> None:
    """What has changed of it, with the sources."""
    with Local("results") as cache:
        found = compare_calls(*(cache.load(key) for key in edited))
    changes = {change.name.rpartition(":")[2].rpartition(".")[2]: change for change in found.code}
    assert "+    return x * FACTOR + 0" in changes["scaled"].diff
    assert "FACTOR" in changes
    assert [each.name for each in found.differing] == ["result"]


def test_the_command(edited: tuple[str, str]) -> None:
    """A table, and the difference of the sources."""
    told = fleche_command("diff", *edited)
    assert told.status == 0
    assert "+    return x * FACTOR + 0" in told.out
    assert "-    return x * FACTOR" in told.out
    assert "same: v" in told.out
    found = fleche_command("diff", *edited, "--json").json
    assert [each["name"] for each in found["differing"]] == ["result"]
    assert found["differing"][0]["second"] == 4.5
    assert len(found["code"]) == 2
    told = fleche_command("diff", edited[0], edited[0])
    assert (told.status, "nothing differs" in told.out) == (1, True)
    assert fleche_command("diff", edited[0], "f" * 12).status == 1
