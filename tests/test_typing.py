"""What type checkers see: decorated functions keep their types, and calls know their result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RIGHT = """\
from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from typing_extensions import assert_type

from fleche import LazyCall, fleche
from fleche.caches import QueryIterator


@fleche
def half(x: int, unit: str = "") -> float:
    return x / 2


@fleche(version=1)
def names(n: int) -> list[str]:
    return ["a"] * n


@fleche
async def soon(x: int) -> float:
    return x / 2


@fleche
def begun(x: int) -> Future[float]:
    return ThreadPoolExecutor().submit(half, x)


class Box:
    @fleche
    def method(self, x: int) -> float:
        return x / 2

    @classmethod
    @fleche
    def inside(cls, x: int) -> float:
        return x / 2

    @fleche
    @classmethod
    def outside(cls, x: int) -> float:
        return x / 2

    @fleche(version=1)
    @classmethod
    def optioned(cls, x: int) -> float:
        return x / 2

    @staticmethod
    @fleche
    def static_inside(x: int) -> float:
        return x / 2

    @fleche
    @staticmethod
    def static_outside(x: int) -> float:
        return x / 2


assert_type(half(1), float)
assert_type(half(1, unit="m"), float)
assert_type(half.load(1), LazyCall[float])
assert_type(half.load(1).result, float)
assert_type(half.rerun(1), float)
assert_type(half.query(x=1), QueryIterator[float])
assert_type(half.query()[0], LazyCall[float])
assert_type(half.query()[1:], QueryIterator[float])
assert_type(half.query().sorted("x").take(3).only().result, float)
assert_type(half.query().results(), Generator[float, None, None])
assert_type(half.map([1, 2]), Iterator[float])
assert_type(half.contains(1), bool)
assert_type(names.load(2).result, list[str])
assert_type(asyncio.run(soon(1)), float)
assert_type(soon.load(1).result, float)
assert_type(soon.query().only().result, float)
assert_type(begun(1).result(), float)
assert_type(begun.load(1).result, float)
assert_type(begun.query().only().result, float)
assert_type(Box().method(1), float)
assert_type(Box().method.load(1).result, float)
assert_type(Box.inside(1), float)
assert_type(Box.outside(1), float)
assert_type(Box().outside(1), float)
assert_type(Box.optioned(1), float)
assert_type(Box.static_inside(1), float)
assert_type(Box.static_outside(1), float)


def shown(call: LazyCall) -> str:
    return call.name
"""

WRONG = """\
from fleche import fleche


@fleche
def half(x: int) -> float:
    return x / 2


half("1")
half.load("1")
half(1, 2)
half.contains()
"""

CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--python-version", "3.10", "--no-error-summary"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


def check(checker: str, text: str, directory: Path) -> str:
    pytest.importorskip(checker)
    file = directory / "snippet.py"
    file.write_text(text)
    options = CHECKERS[checker]
    if checker == "mypy":
        options = [*options, "--cache-dir", str(directory / "cache")]
    done = subprocess.run(
        [sys.executable, *options, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if checker == "pyright" and "node" in done.stderr and not done.stdout:
        pytest.skip(f"pyright needs node: {done.stderr[:200]}")
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_right(checker: str, tmp_path: Path) -> None:
    """Results, calls and queries have the type that the function returns."""
    said = check(checker, RIGHT, tmp_path)
    assert "error" not in said.replace("0 errors", ""), said


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_wrong(checker: str, tmp_path: Path) -> None:
    """Every wrong call is an error on its line."""
    said = check(checker, WRONG, tmp_path)
    for line in range(9, 13):
        assert f"snippet.py:{line}:" in said, (line, said)
