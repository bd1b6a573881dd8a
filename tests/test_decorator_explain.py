"""`explain`: whether a call would hit, and if not, why; nothing runs for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import fleche as package
from fleche import Cache, Runtime, cache, fleche, state
from fleche.digest import digest
from fleche.storage import CallMemory, ValueMemory


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
    grow = decorated()
    grow(1)
    active.values.delete(digest(2))
    assert grow.explain(1).reason == "evicted"


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


def test_uncached() -> None:
    grow = decorated(require="z")
    assert "'z' is required" in str(grow.explain(1))
    found = grow.explain(iter([]), z=1)
    assert found.reason == "uncached"
    assert "arguments['x']" in str(found)
