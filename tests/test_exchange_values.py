"""A value as a file that other programs read."""

from __future__ import annotations

import csv
import enum
import json
import pickle
from collections import namedtuple
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fleche.exchange import SUFFIXES, as_json, json_text, write_value
from fleche.parcel import File


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    TWO = 2


@dataclass
class Fit:
    a0: float
    points: list[int]


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": (1, 2.5, None, True)}, {"a": [1, 2.5, None, True]}),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.float64(1.5), 1.5),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.array(["2026-01-01"], dtype="M8[D]"), ["2026-01-01"]),
        (float("nan"), "nan"),
        (Fit(4.05, [1]), {"a0": 4.05, "points": [1]}),
        (Pair(1, "x"), {"left": 1, "right": "x"}),
        (Colour.RED, "red"),
        (Number.TWO, 2),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: "a", (1, 2): "b"}, {"1": "a", "[1, 2]": "b"}),
        (date(2026, 1, 2), "2026-01-02"),
        (Path("a/b"), "a/b"),
        (Decimal("1.10"), "1.10"),
        (b"\x00\xff", "00ff"),
        (1 + 2j, [1.0, 2.0]),
        (pd.DataFrame({"x": [1, 2]}), [{"x": 1}, {"x": 2}]),
        (pd.Series([1.0, 2.0]), [1.0, 2.0]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (np.longdouble(0.5), 0.5),
        (np.array([1 + 2j], np.clongdouble), [[1.0, 2.0]]),
    ],
    ids=str,
)
def test_as_json(value: object, expected: object) -> None:
    """What has a form in JSON, and that JSON can write it."""
    found = as_json(value)
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


def test_what_has_no_form() -> None:
    """The error names the type, wherever it is inside."""
    with pytest.raises(ValueError, match=r"builtins\.object has no form in JSON"):
        as_json({"a": [object()]})


def test_arrays(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    write_value(array, tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    with pytest.raises(ValueError, match="no array of numbers"):
        write_value({"a": 1}, tmp_path / "b.npy")


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"x": [1, 2], "y": [0.5, 1.5]}),
        {"x": [1, 2], "y": [0.5, 1.5]},
        [{"x": 1, "y": 0.5}, {"x": 2, "y": 1.5}],
    ],
    ids=["frame", "columns", "records"],
)
def test_tables(table: object, tmp_path: Path) -> None:
    """Whatever is a table is one in a file, without a column of mere row numbers."""
    pytest.importorskip("pyarrow")
    write_value(table, tmp_path / "t.csv")
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows == [["x", "y"], ["1", "0.5"], ["2", "1.5"]]
    write_value(table, tmp_path / "t.parquet")
    assert list(pd.read_parquet(tmp_path / "t.parquet").columns) == ["x", "y"]


@pytest.mark.parametrize("package", ["polars", "pyarrow"])
def test_tables_of_others(package: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    module = pytest.importorskip(package)
    make = getattr(module, "DataFrame" if package == "polars" else "table")
    test_tables(make({"x": [1, 2], "y": [0.5, 1.5]}), tmp_path)


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def holding_itself() -> list[object]:
    found: list[object] = [1]
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "suffix", "message"),
    [
        ({1: "a", "1": "b"}, ".json", "two of its keys are one"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ".json", "two of its columns have one name"),
        (holding_itself(), ".json", "it contains itself"),
        (np.ma.array([1, 2], mask=[False, True]), ".npy", "no place for a mask"),
        (Silent(), ".txt", r"Silent has no form .*RuntimeError: no words.*\.pickle"),
        (np.array([1j]), ".parquet", "ndarray has no form in such a file"),
    ],
)
def test_what_would_be_lost(value: object, suffix: str, message: str, tmp_path: Path) -> None:
    """A part that the file has no place for is told, and nothing is written."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=message):
        write_value(value, tmp_path / f"t{suffix}")
    assert list(tmp_path.glob("*t*")) == []


def test_arrays_of_others() -> None:
    units = pytest.importorskip("astropy.units")
    with pytest.raises(ValueError, match=r"dict has no form in JSON: .*Quantities"):
        as_json({"a": 3 * units.m})


def test_structures_and_texts_of_numpy() -> None:
    structure = np.array([(1, [0.5, 1.5])], [("n", "i4"), ("v", "f8", 2)])
    assert as_json(structure) == [{"n": 1, "v": [0.5, 1.5]}]
    assert as_json(structure[0]) == {"n": 1, "v": [0.5, 1.5]}
    if hasattr(np.dtypes, "StringDType"):
        assert as_json(np.array(["é"], np.dtypes.StringDType())) == ["é"]


def test_labels_of_rows_are_kept(tmp_path: Path) -> None:
    write_value(pd.DataFrame({"x": [1]}, index=["first"]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == ",x\nfirst,1\n"


@pytest.mark.parametrize("value", [3, np.zeros((2, 2, 2))], ids=["number", "three axes"])
def test_what_is_no_table(value: object, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is no table, as a \.csv file holds( \(.*axes\))?; \.json"
    ):
        write_value(value, tmp_path / "t.csv")
    assert list(tmp_path.glob("*t*")) == []


def test_text_and_pickles(tmp_path: Path) -> None:
    write_value("as it is", tmp_path / "t.txt")
    assert (tmp_path / "t.txt").read_text() == "as it is"
    write_value([1, {2}], tmp_path / "t.pkl")
    assert pickle.loads((tmp_path / "t.pkl").read_bytes()) == [1, {2}]
    write_value({"é": 1}, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == {"é": 1}


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """The new file takes the place of the old one when it is whole."""
    target = tmp_path / "t.json"
    target.write_text("old")
    with pytest.raises(ValueError, match="no form in JSON"):
        write_value(object(), target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if "t" in path.suffixes[0:1]] == []


@pytest.mark.parametrize("name", ["copy.xyz", "copy.txt", "copy.npy", "copy"])
def test_files(name: str, tmp_path: Path) -> None:
    """A file is copied as it is, whatever its name says."""
    (tmp_path / "frames.xyz").write_bytes(b"\x00frames\xff")
    file = File(tmp_path / "frames.xyz")
    write_value(file, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"\x00frames\xff"
    assert as_json([file]) == [str(tmp_path / "frames.xyz")]


HALF = "half of \ud83d"


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_text_that_a_file_cannot_hold(suffix: str, tmp_path: Path) -> None:
    """A lone surrogate is told, with what can hold it, and leaves the old file."""
    target = tmp_path / f"t{suffix}"
    target.write_text("old")
    with pytest.raises(ValueError, match=r"half of a character.*\.json or \.pickle can"):
        write_value(HALF if suffix == ".txt" else [HALF], target)
    assert target.read_text() == "old"


def test_text_that_other_files_can_hold(tmp_path: Path) -> None:
    for name in ("t.json", "t.pickle"):
        write_value(HALF, tmp_path / name)
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == HALF
    assert pickle.loads((tmp_path / "t.pickle").read_bytes()) == HALF


@pytest.mark.parametrize(
    ("found", "encoding", "text"),
    [("é", "utf-8", '"é"'), ("é", "ascii", r'"\u00e9"'), (HALF, "utf-8", r'"half of \ud83d"')],
)
def test_json_text(found: str, encoding: str, text: str) -> None:
    """As it is where the encoding has it, else in ASCII, which says the same."""
    assert json_text(found, encoding) == text
    assert json.loads(text) == found


def test_unknown_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"known are \.npy") as caught:
        write_value(1, tmp_path / "t.xlsx")
    assert all(suffix in str(caught.value) for suffix in SUFFIXES)
