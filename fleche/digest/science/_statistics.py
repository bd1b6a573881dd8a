"""Fits and state spaces of statsmodels."""

from __future__ import annotations

from typing import Any

from fleche._util import attempt
from fleche.digest.science._parts import Parts, parts, without

__all__ = ["estimating_equations", "fit", "state_space"]

WORKED_OUT = ("_cache", "_summary_cache", "_summary_statistics_cache", "_nobs_int", "diagn")
ASKED = ("predict_start", "predict_end", "predict_dates")
"""What the latest prediction was made for, which the data of a series note."""
FORMULA = ("model_spec", "restore_model_spec")
"""How columns were made from a formula, which pickling leaves out and opening makes again."""
FORGOTTEN = frozenset(["callback", "cov_params_func"])
"""Functions for fitting, of which pickling a fit makes ``None``, in this very object."""
FILTERS = (
    "_representations",
    "_statespaces",
    "_kalman_filters",
    "_kalman_smoothers",
    "_simulators",
)
"""What a state space works with in C: made of its matrices when something is computed."""


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
    found = {**without(obj, *WORKED_OUT, *ASKED, *FORMULA), **settable}
    if isinstance(settings := found.get("mle_settings"), dict):
        found["mle_settings"] = {**settings, **dict.fromkeys(FORGOTTEN & settings.keys())}
    return found


@parts
def state_space(obj: Any) -> Parts:
    return without(obj, *FILTERS)


@parts
def estimating_equations(obj: Any) -> Parts:
    """Describe a GEE model without its work array, which begins as uninitialised memory."""
    return without(obj, "_tmp_like_exog")
