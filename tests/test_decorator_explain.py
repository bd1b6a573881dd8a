"""`explain`: whether a call would hit, and if not, why; nothing runs for that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fleche as package
from fleche import Cache, Runtime, cache, fleche, state
from fleche.config import cache_from_config
from fleche.digest import digest
from fleche.storage import CallMemory, ValueMemory
from tests.helpers.layers import in_files


@pytest.fixture(autouse=True)
def active() -> Iterator[Cache]:
    made = Cache(ValueMemory(), CallMemory())
    cache(made)
    package.meta(Runtime())
    yield made
    state.reset()


def decorated(step: int = 1, **options: Any) -> Any:
    """One function, in several states of its code."""
    scope: dict[str, Any] = {"__name__": "made_up_module"}
    exec(f"def grow(x, y=(1, 2), z=None):\n    return x + {step}", scope)
    return fleche(**{"hash_code": False, **options})(scope["grow"])


def test_hit() -> None:
    grow = decorated()
    grow(1)
    found = grow.explain(1)
    assert found
    assert found.reason == "hit"
    assert "grow() is stored" in str(found)


def test_never() -> None:
    found = decorated().explain(1)
    assert not found
    assert found.reason == "never"


def test_evicted(active: Cache) -> None:
    """The call is known, and its result is gone."""

    @fleche
    def zeros(number: int) -> bytes:
        return bytes(number)

    zeros(100_000)
    active.values.delete_many([entry.key for entry in active.values.entries()])
    assert zeros.explain(100_000).reason == "evicted"


@pytest.mark.parametrize(
    ("before", "now", "differing", "text"),
    [
        ({"version": 1}, {"version": 2}, ("version",), "the version was 1, not 2"),
        ({"hash_code": True}, {"hash_code": True, "step": 2}, ("code",), "the code was different"),
        ({"hash_module": False}, {}, ("module",), "the module was None, not 'made_up_module'"),
    ],
)
def test_changed(
    before: dict[str, Any], now: dict[str, Any], differing: tuple[str, ...], text: str
) -> None:
    decorated(**before)(1)
    found = decorated(**now).explain(1)
    assert found.reason == "changed"
    assert found.differing == differing
    assert text in str(found)


def test_arguments() -> None:
    """Those that differ from the nearest stored call, in the clear where they are small."""
    grow = decorated()
    grow(10, (3, 4), "a")
    grow(1, (1, 2), "b")
    found = grow.explain(2)
    assert found.reason == "arguments"
    assert found.differing == ("x", "z")
    assert found.nearest == grow.load(1, (1, 2), "b")
    assert "x was 1, not 2 and z was 'b', not None" in str(found)
    assert "y was <" in str(grow.explain(1, (5,), "b"))


def test_scalars_of_numpy() -> None:
    """Shown as the numbers that they are, with their type."""
    grow = decorated()
    grow(np.float64(0.5), (1, 2), "a")
    assert "x was 0.5 (float64), not 0.7" in str(grow.explain(0.7, (1, 2), "a"))


def test_the_newest_of_those_that_are_equally_near() -> None:
    """The same one in every process, whatever order the cache finds them in."""
    grow = decorated()
    for x in (7, 3, 11, 5):
        grow(x, (1, 2), "a")
    assert grow.explain(1, (1, 2), "a").nearest == grow.load(5, (1, 2), "a")
    grow.rerun(3, (1, 2), "a")
    assert grow.explain(1, (1, 2), "a").nearest == grow.load(3, (1, 2), "a")


def test_uncached() -> None:
    grow = decorated(require="z")
    assert "'z' is required" in str(grow.explain(1))
    found = grow.explain(iter([]), z=1)
    assert found.reason == "uncached"
    assert "arguments['x']" in str(found)


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float64(2.0), r"x was 1.0, not (np.float64\(2.0\)|float64 2.0)"),
        (np.zeros((2, 3), "f4"), r"x was 1.0, not ndarray float32 \(2, 3\) <[0-9a-f]{8}>"),
        ([1, 2], r"x was 1.0, not \[1, 2\]"),
        (list(range(1000)), r"x was 1.0, not \[0, 1, 2, 3, 4, 5, \.\.\.\]"),
        (Path("there"), r"x was 1.0, not PosixPath\('there'\)"),
        (Opaque(), r"x was 1.0, not <Opaque instance at \w+>"),
        (digest([7]), r"x was 1.0, not <[0-9a-f]{8}>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_at_hand_is_shown(active: Cache, value: Any, shown: str) -> None:
    """Of what is stored there is a digest; what was passed now, a person knows."""
    grow = decorated()
    grow(1.0)
    assert re.search(shown, grow.explain(value).text)


def test_order() -> None:
    """A difference in order alone is told as such, with what to do about it."""

    @fleche
    def first(table: Any) -> Any:
        return next(iter(table))

    first({"a": 1, "b": [{"c": 1, "d": 2}]})
    found = first.explain({"b": [{"d": 2, "c": 1}], "a": 1})
    assert found.reason == "arguments"
    assert re.search(r"table differs only in order \(Unordered\[", str(found))
    assert "only in order" not in str(first.explain({"b": 1, "a": 1}))


def test_long_integers() -> None:
    """Python refuses to write thousands of digits; a call with them is explained all the same."""
    grow = decorated()
    assert grow.explain(10**5000).reason == "never"
    grow(10**5000)
    assert grow.explain(10**5000)
    assert grow.explain(10**5000 + 1).reason == "arguments"
    assert grow.explain([10**5000]).reason == "arguments"


class TestUnusable:
    """What is stored would not be used, and why."""

    def test_a_damaged_record(self, tmp_path: Path) -> None:
        grow = decorated()
        with in_files(tmp_path) as files, cache(files):
            grow(1)
            (path,) = tmp_path.rglob(f"{grow.digest(1)[2:]}*")
            path.write_bytes(path.read_bytes()[:-1])
            found = grow.explain(1)
        assert not found
        assert found.reason == "unusable"
        assert str(path) in found.text

    def test_a_record_that_nobody_signed(self, tmp_path: Path) -> None:
        grow = decorated()
        with in_files(tmp_path) as files, cache(files):
            grow(1)
        signed = {"type": "cloudpickle", "root": str(tmp_path), "secret_key": "ours"}
        with cache_from_config({"values": signed, "calls": signed}) as made, cache(made):
            found = grow.explain(1)
        assert (found.reason, bool(found)) == ("unusable", False)
        assert "not signed" in found.text
