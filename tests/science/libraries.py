"""The cases of each library."""

from __future__ import annotations

from collections.abc import Callable

from . import Cases
from .tensors import jax, torch

__all__ = ["LIBRARIES"]

LIBRARIES: dict[str, Callable[[], Cases]] = {
    "jax": jax,
    "torch": torch,
}
