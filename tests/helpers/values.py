"""Classes of values, as a user's module has them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Fit", "Touches"]


@dataclass(frozen=True)
class Fit:
    """A result with numbers in it."""

    a0: float
    bulk_modulus: float


class Touches:
    """Makes a directory when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)

    def __digest__(self) -> Any:
        return self.path
