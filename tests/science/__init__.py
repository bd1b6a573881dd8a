"""Values of scientific libraries, and what must hold of their digests: tables of values.

A library is one function that imports it and returns its cases by name. The functions run in fresh
processes, `python -m tests.science ORDER LIBRARY...`, which print what they have found as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "Cases", "Refused"]

COPIES = ("copy", "deepcopy", "parcel")


@dataclass(frozen=True)
class Case:
    """A value, values that differ from it, and a use that leaves it as it is.

    Args:
        make: makes the value anew.
        others: make values whose digests differ from that of the value, and from one another.
        use: an operation that fills caches of the value.
        equal: make the value in other ways, to the same digest.
        copies: the ways of copying that the library has for this value.
    """

    make: Callable[[], Any]
    others: Sequence[Callable[[], Any]] = ()
    use: Callable[[Any], object] | None = None
    equal: Sequence[Callable[[], Any]] = ()
    copies: Sequence[str] = field(default=COPIES)


@dataclass(frozen=True)
class Refused:
    """A value that has no digest, and a word of the hint that says what to pass in its place."""

    make: Callable[[], Any]
    hint: str


Cases = dict[str, "Case | Refused"]
