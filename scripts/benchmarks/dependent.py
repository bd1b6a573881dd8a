"""A function that depends on much: ten helpers, two classes and an array of 1 MB."""

from __future__ import annotations

import numpy as np

__all__ = ["entangled"]

TABLE = np.random.default_rng(0).random(125_000)


class Scale:
    """Multiplies."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, number: float) -> float:
        """Return a multiple."""
        return self.factor * number


class Shift:
    """Adds."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def apply(self, number: float) -> float:
        """Return a sum."""
        return self.offset + number


def first(number: float) -> float:
    """Look up a number."""
    return float(TABLE[int(number) % len(TABLE)])


def second(number: float) -> float:
    """Scale a number."""
    return Scale(2.0).apply(first(number))


def third(number: float) -> float:
    """Shift a number."""
    return Shift(1.0).apply(second(number))


def fourth(number: float) -> float:
    """Square a number."""
    return third(number) ** 2


def fifth(number: float) -> float:
    """Halve a number."""
    return fourth(number) / 2


def sixth(number: float) -> float:
    """Negate a number."""
    return -fifth(number)


def seventh(number: float) -> float:
    """Return the absolute value."""
    return abs(sixth(number))


def eighth(number: float) -> float:
    """Round a number."""
    return round(seventh(number), 3)


def ninth(number: float) -> float:
    """Increase a number."""
    return eighth(number) + 1


def tenth(number: float) -> float:
    """Double a number."""
    return 2 * ninth(number)


def entangled(number: int) -> float:
    """Use all of it."""
    return tenth(number)
