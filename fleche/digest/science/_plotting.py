"""Colormaps, norms, triangulations and transforms of matplotlib."""

from __future__ import annotations

import copy
from typing import Any

from fleche._util import attempt
from fleche.digest._instances import attributes_of
from fleche.digest.science._parts import Parts, parts, without

__all__ = ["WORKED_OUT_IN_C", "colormap", "norm", "transform", "triangulation"]

WORKED_OUT_IN_C = ("_cpp_triangulation", "_trifinder")
"""What a triangulation notes, and cannot be pickled."""


@parts
def colormap(obj: Any) -> Parts:
    """Describe a colormap with its table of colours, which programs may write to.

    The table is made when the first value is looked up: here, of a copy.
    """
    worked = copy.copy(obj)
    if not worked._isinit:  # noqa: SLF001
        attempt(worked._init)  # noqa: SLF001 - one of a program's own may have no table
    return attributes_of(worked)


@parts
def norm(obj: Any) -> Parts:
    """Describe a norm without who is told when it changes, which is counted whenever it pickles."""
    return without(obj, "callbacks", "callbacksSM")


@parts
def triangulation(obj: Any) -> Parts:
    return without(obj, "_edges", "_neighbors", *WORKED_OUT_IN_C)


@parts
def transform(obj: Any) -> Parts:
    return without(obj, "_parents", "_invalid", "_inverted")
