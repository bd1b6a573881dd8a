"""Fits of statsmodels."""

from __future__ import annotations

from typing import Any

from fleche._util import attempt
from fleche.digest.science._parts import Parts, parts, without

__all__ = ["fit"]

WORKED_OUT = ("_cache", "_summary_cache", "_summary_statistics_cache", "_nobs_int", "diagn")
FORMULA = ("model_spec", "restore_model_spec")
"""How columns were made from a formula, which pickling leaves out and opening makes again."""


@parts
def fit(obj: Any) -> Parts:
    """Describe a fit, or its data, without what it has worked out.

    What it keeps there in place of what it would work out, since a program has set it, counts.
    """
    worked = object.__new__(type(obj))
    vars(worked).update(vars(obj), _cache=dict(vars(obj).get("_cache") or {}))
    settable = {
        name: attempt(getattr, worked, name)
        for base in type(obj).__mro__
        for name, value in vars(base).items()
        if type(value).__name__ == "CachedWritableAttribute"
    }
    return {**without(obj, *WORKED_OUT, *FORMULA), **settable}
