"""Accepting new code: stored results are hits again, and nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fleche
from fleche import cache
from fleche.errors import Rejected
from tests.helpers.layers import in_memory

runs: list[Any] = []


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    runs.clear()
    with cache(in_memory()):
        yield


def before(x: Any, n: int = 2) -> Any:
    runs.append(n)
    return x * n


def after(x: Any, n: int = 2) -> Any:
    runs.append(n)
    return n * x


def other(x: Any, n: int = 2) -> Any:
    runs.append(n)
    return x * n + 0 * n


def decorated(function: Any, **options: Any) -> Any:
    function.__qualname__ = "scaled"
    return fleche.fleche(**options)(function)


def test_old_results_are_hits_again() -> None:
    """Small ones and large ones."""
    old, new = decorated(before), decorated(after)
    large = np.ones(100_000)
    old(3), old(large, n=3)
    assert not new.contains(3)
    assert new.accept(dry_run=True) == 2
    assert not new.contains(3)
    assert new.accept() == 2
    assert new(3) == 6
    assert new(large, n=3).sum() == 300_000
    assert runs == [2, 3]
    assert old.contains(3), "the old code has its results still"
    assert new.accept() == 0
    assert cache().verify().ok


def test_some_of_them() -> None:
    old, new = decorated(before), decorated(after)
    old(3), old(4), old(4, n=5)
    assert new.accept(x=4) == 2
    assert [new.contains(3), new.contains(4), new.contains(4, n=5)] == [False, True, True]
    assert new.load(4).metadata["fleche"]["accepted"]


def test_the_newest_counts() -> None:
    """Where the same call is stored for several codes."""
    old, between, new = map(decorated, (before, other, after))
    old(3)
    between(3)
    newest = between.load(3).metadata["runtime"]["started"]
    assert new.accept() == 1
    assert new.load(3).metadata["runtime"]["started"] == newest


def test_of_another_version() -> None:
    """A version was given since they do not compute the same."""
    decorated(before, version=1, hash_code=True)(3)
    assert decorated(after, version=2, hash_code=True).accept() == 0


def test_read_only() -> None:
    decorated(before)(3)
    with cache(cache().readonly()), pytest.raises(Rejected, match="accept refused"):
        decorated(after).accept()
