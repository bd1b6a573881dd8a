"""Summaries: what a person sees of a value, in bounded time, and never by an unknown repr."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fleche
from fleche.call import Summary, add_summary, between, summarize, where


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Setup:
    dt: float
    grid: Any
    label: str = "x"


class Failed(Exception):
    """An exception that says more of itself than it was raised with."""

    def __str__(self) -> str:
        raise AssertionError("nobody asked for this")


class Secretive:
    def __repr__(self) -> str:
        raise AssertionError("nobody asked for this")

    __str__ = __repr__


class Speaking:
    def __fleche_summary__(self) -> str:
        return "says something"


class Measured:
    def __fleche_summary__(self) -> float:
        return 1.5


@pytest.mark.parametrize(
    ("value", "shown", "kind"),
    [
        (np.float64(1.25), 1.25, "float64"),
        (np.float32(0.5), 0.5, "float32"),
        (np.int8(-3), -3, "int8"),
        (np.bool_(True), True, str(np.dtype(bool))),
        (np.array(2.5), 2.5, "float64"),
        (Decimal("1.5"), 1.5, "Decimal"),
        (Fraction(1, 4), 0.25, "Fraction"),
        (1 << 100, str(1 << 100), "int"),
        (-(1 << 300), -float(1 << 300), "int"),
    ],
)
def test_scalars_are_shown_by_their_number(value: Any, shown: Any, kind: str) -> None:
    """So that tables sort and search them as numbers."""
    found = summarize(value)
    assert found.shown == shown
    assert type(found.shown) is type(shown)
    assert found.type in (kind, f"{kind}_")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.zeros((12, 3)), "float64[12, 3]"),
        (np.zeros(0, "i4"), "int32[0]"),
        (np.array([1 + 2j]), "complex128[1]"),
        ({"energy": 1.0, "converged": True}, "dict(2): energy, converged"),
        ([1, 2.5, "a"], "list(3): 1, 2.5, a"),
        ([[1, 2], [3, [4]]], "list(2): list(2): 1, 2, list(2): 3, list(1)"),
        ((), "tuple(0)"),
        (list(range(100)), "list(100): 0, 1, 2, 3, 4, 5, …"),
        (b"abc", "bytes, 3 bytes"),
        (memoryview(b"abcd"), "memoryview, 4 bytes"),
        (1 << 5000, "int, 5001 bits"),
        (1 + 2j, "(1+2j)"),
        (Colour.RED, "Colour.RED"),
        (Level.HIGH, "Level.HIGH"),
        (Path("a/b"), "a/b"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        (Setup(0.1, np.zeros(3)), "Setup(dt=0.1, grid=float64[3], label=x)"),
        (Setup, "class Setup"),
        (summarize, "function summarize"),
        (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), "DataFrame 2 \N{MULTIPLICATION SIGN} 2"),
        (pd.Series([1.0, 2.0], name="mass"), "Series mass float64[2]"),
        (ValueError("no\nconvergence"), "ValueError: no convergence"),
        (KeyError("word " * 100), ("KeyError: " + "word " * 100)[:79] + "…"),
        (Failed("after", 100, "steps"), "Failed: after, 100, steps"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("at", Secretive()), "RuntimeError"),
        ([ValueError("no")], "list(1): ValueError"),
        (Secretive(), "Secretive"),
        ([Secretive()], "list(1): Secretive"),
        (Speaking(), "says something"),
        (Measured(), 1.5),
        ("two\nlines  and spaces", "two lines and spaces"),
    ],
)
def test_the_rest_is_shown_by_a_short_text(value: Any, shown: Any) -> None:
    assert summarize(value) == Summary(shown)


def test_texts_are_short_and_legible() -> None:
    """Long texts are cut; half characters, which no record could hold, are escaped."""
    assert summarize("word " * 100).shown == ("word " * 100)[:79] + "…"
    assert summarize("a\ud800").shown == "a\\ud800"


def test_atoms() -> None:
    build = pytest.importorskip("ase.build")
    assert summarize(build.bulk("Cu", cubic=True)).shown == "Atoms Cu4"


def test_a_class_of_others_can_be_taught() -> None:
    class Foreign:
        size = 3

    class Derived(Foreign):
        pass

    add_summary(Foreign, lambda value: f"size {value.size}")
    assert summarize(Foreign()).shown == "size 3"
    assert summarize(Derived()).shown == "size 3"


def test_what_fails_is_shown_by_its_type() -> None:
    """A summary is a courtesy: it never stops a call."""

    class Broken:
        def __fleche_summary__(self) -> str:
            raise ValueError("no")

    assert summarize(Broken()).shown == "Broken"


def test_large_values_take_no_time() -> None:
    """Whatever the size, only a few parts are looked at."""
    large: list[Any] = [["x" * 10_000_000] * 1000] * 1000
    begun = time.process_time()
    for value in (large, dict.fromkeys(range(1000), large), np.zeros((1000, 1000))):
        summarize(value)
    assert time.process_time() - begun < 0.5


class TestNumbersOfLibraries:
    """A scalar of a library is shown, sorted and searched by its number; its type has the unit."""

    def scalars(self, library: str) -> list[Any]:
        if library == "torch":
            torch = pytest.importorskip("torch")
            return [torch.tensor(x) for x in (1.5, 0.5, 2.5)]
        if library == "pint":
            unit = pytest.importorskip("pint").UnitRegistry().meter
            return [x * unit for x in (1.5, 0.5, 2.5)]
        if library == "astropy":
            units = pytest.importorskip("astropy.units")
            return [x * units.m for x in (1.5, 0.5, 2.5)]
        if library == "decimal":
            return [Decimal(x) for x in ("1.5", "0.5", "2.5")]
        return list(map(np.float32, (1.5, 0.5, 2.5)))

    @pytest.mark.parametrize("library", ["numpy", "decimal", "torch", "pint", "astropy"])
    def test_shown_sorted_and_searched(self, library: str) -> None:
        @fleche.fleche(version=1)
        def same(v: Any) -> Any:
            return v

        values = self.scalars(library)
        with fleche.cache("memory"):
            for value in values:
                same(value)
            assert [row.arguments["v"] for row in same.query().sorted("v").table()] == [
                0.5,
                1.5,
                2.5,
            ]
            assert same.query(v=where(">", 1.2)).count() == 2
            assert same.query(v=between(0.4, 1.6), result=where("<", 1)).count() == 1
            assert same.query(v=1.5).only().arguments["v"] == values[0]
            same.clear()
