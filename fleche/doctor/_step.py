"""What the doctor says of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["State", "Step", "sized"]

State: TypeAlias = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Step:
    """One step on the way to a cache.

    Attributes:
        name: of the step.
        state: ``"ok"``; ``"note"``: it works, and there is something to know; ``"failed"``: here it
            ends.
        found: what was found.
        advice: what to do next; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def sized(nbytes: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.4g} TB"
