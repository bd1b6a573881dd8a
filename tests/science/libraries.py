"""The cases of each library."""

from __future__ import annotations

from collections.abc import Callable

from . import Cases
from .numerics import numba, numpy, scipy, sympy
from .tensors import jax, torch

__all__ = ["LIBRARIES"]

LIBRARIES: dict[str, Callable[[], Cases]] = {
    "jax": jax,
    "numba": numba,
    "numpy": numpy,
    "scipy": scipy,
    "sympy": sympy,
    "torch": torch,
}
