"""What runs in processes of its own. It imports nothing but what is measured, when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.peers import Remembered, remember

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Reader", "large"]


def large(size: int) -> npt.NDArray[np.float64]:
    """Return an array of ``size`` bytes that does not compress."""
    import numpy as np

    return np.random.default_rng(0).random(size // 8)


class Reader:
    """A peer that finds an array in a cache which another process has filled. It pickles."""

    def __init__(self, name: str, directory: Path, size: int) -> None:
        self.name = name
        self.directory = directory
        self.size = size

    def open(self) -> Remembered:
        """Return the function that makes the arrays."""
        return remember(self.name, large, self.directory)

    def fill(self) -> None:
        """Store a small array and the one that is wanted."""
        for size in (8, self.size):
            self.open().call(size)

    def warm(self) -> None:
        """Read the small array, so that everything is imported."""
        self.open().call(8)

    def read(self) -> int:
        """Read the one that is wanted."""
        return int(self.open().call(self.size).nbytes)
