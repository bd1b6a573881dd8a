"""What the quick run leaves to ``scripts/test --all``.

Quick is each rule on each implementation once. Slow is what only repeats rules: every pair of
implementations, every variant of one, every byte and every error, storms, other Pythons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

__all__ = ["examples", "is_quick", "swept"]

T = TypeVar("T")


def swept(cases: Iterable[T], quick: Callable[[T], bool], *, timeout: float = 600) -> list[Any]:
    """Return the cases for ``parametrize``, those marked slow that the quick run leaves out.

    Args:
        cases: a tuple for several parameters, or what ``pytest.param`` returns.
        quick: says which ones are in the quick run: of every implementation at least one.
        timeout: seconds for a slow one.
    """
    return [case if quick(case) else _slow(case, timeout) for case in cases]


def is_quick(config: pytest.Config) -> bool:
    """Return whether this is the quick run of ``scripts/test``."""
    return bool(config.option.markexpr == "not slow")


def examples(times: float) -> settings:
    """Return settings with so many times the examples of the profile, which is that of the run."""
    profile = settings()
    return settings(profile, max_examples=round(times * profile.max_examples))


def _slow(case: Any, timeout: float) -> Any:
    values, marks = (case,), []
    if isinstance(case, tuple):  # what pytest.param returns is one
        values, marks = (
            (case.values, [*case.marks]) if hasattr(case, "marks") else (case, [])  # type: ignore[attr-defined]
        )
    return pytest.param(*values, marks=[*marks, pytest.mark.slow, pytest.mark.timeout(timeout)])
