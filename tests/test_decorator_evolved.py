"""Functions that get another parameter, or another name for one, and keep their results."""

from __future__ import annotations

from typing import Any

import pytest

import fleche
from fleche import cache
from fleche.call import where
from tests.helpers.layers import in_memory

# that the code has changed under the same version is told, as always
pytestmark = pytest.mark.filterwarnings("ignore:relax.. uses helper")

runs: list[Any] = []


@pytest.fixture(autouse=True)
def store() -> None:
    runs.clear()
    cache(in_memory())


def make(function: Any, **options: Any) -> Any:
    function.__qualname__ = "relax"
    return fleche.fleche(version=1, **options)(function)


def old(v: float, steps: int = 10) -> float:
    runs.append(v)
    return v * steps


def new(volume: float, steps: int = 10, *, solver: str = "cg") -> float:
    runs.append((volume, solver))
    return volume * steps


def test_old_results_are_hits() -> None:
    """At the value that stands for what it did before, under whatever name."""
    relax = make(old)
    assert relax(2.0) == 20.0
    changed = make(new, added={"solver": "cg"}, renamed={"volume": "v"})
    assert changed(2.0) == changed(volume=2.0, solver="cg") == 20.0
    assert runs == [2.0]
    assert changed.explain(2.0).reason == "hit"
    assert changed.digest(2.0) == relax.digest(2.0)
    assert changed(2.0, solver="bfgs") == 20.0
    assert runs == [2.0, (2.0, "bfgs")]


def test_new_results_are_found_by_either() -> None:
    changed = make(new, added={"solver": "cg"}, renamed={"volume": "v"})
    changed(3.0)
    assert make(old)(3.0) == 30.0
    assert runs == [(3.0, "cg")]
    assert changed.query(volume=where(">", 2)).count() == 1
    assert changed.load(3.0).key == changed.query().only().record.key
    assert list(changed.load(3.0).arguments) == ["v", "steps"]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"added='x': relax\(\) has no such parameter"):
        make(new, added={"x": 1})
    with pytest.raises(ValueError, match="'steps' is a parameter still"):
        make(new, renamed={"volume": "steps"})


def test_the_code_is_accepted_beside() -> None:
    """Without a version the code counts, which has changed with the parameter: `accept()`."""

    def make_unversioned(function: Any, **options: Any) -> Any:
        function.__qualname__ = "relax"
        return fleche.fleche(**options)(function)

    def edited(volume: float, steps: int = 10, *, solver: str = "cg") -> float:
        runs.append((volume, solver))
        if solver == "bfgs":
            steps += 1
        return volume * steps

    relax = make_unversioned(old)
    relax(2.0), relax(3.0, 5)
    changed = make_unversioned(edited, added={"solver": "cg"}, renamed={"volume": "v"})
    assert not changed.contains(2.0)
    assert changed.accept() == 2
    assert (changed(2.0), changed(volume=3.0, steps=5, solver="cg")) == (20.0, 15.0)
    assert runs == [2.0, 3.0]
    assert changed(2.0, solver="bfgs") == 22.0
