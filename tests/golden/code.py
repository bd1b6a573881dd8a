"""Functions and classes whose closures are pinned in `code.json`; print them as a program."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import re
import sys
import typing
from typing import Any

from blake3 import blake3

from fleche.digest import find_definition
from fleche.function import CodeTracker
from tests.golden import functions

__all__ = ["collect"]

SCALE = 2.5
NAMES = {"a": [1, 2.0, None], "b": (True, "text", b"bytes")}
PATTERN = re.compile(r"\d+", re.IGNORECASE)
memo: dict[int, int] = {}


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration."""

    scale: float = SCALE
    names: list[str] = dataclasses.field(default_factory=list)

    def total(self, x: float) -> float:
        return self.scale * x + self._offset

    @property
    def _offset(self) -> int:
        return len(self.names)


class Point(typing.NamedTuple):
    x: int
    y: int = 3


class Base:
    weight = 2

    def area(self) -> int:
        return self.__hidden() * self.weight

    def __hidden(self) -> int:
        return 3


class Shape(Base):
    def area(self) -> int:
        return super().area() + 1


CONFIG = Config(names=["a"])
SHAPES = {"shape": Shape, "base": Base}


@functools.cache
def helper(x: int) -> int:
    return memo.setdefault(x, x * x)


def twice(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args) + function(*args)

    return wrapper


@twice
def decorated(x: int, y: int = 3) -> int:
    return x + y


def entry(x: int) -> Any:
    if isinstance(x, Colour) or PATTERN.match(str(x)) is None:
        return Colour.RED
    parts = [CONFIG.total(y) for y in (x, SCALE, math.pi) if y]
    total = SHAPES["shape"]().area() + helper(x) + decorated(x) + Point(x).y
    scaled = lambda z: z * SCALE  # noqa: E731
    return NAMES["a"], parts, total, scaled(x)


def method_entry(shape: Shape) -> Any:
    return shape.area()


def collect() -> dict[str, dict[str, str]]:
    """The hashes of the dumps of functions, and the digests of the nodes of closures."""
    dumps = {}
    for name in functions.__all__:
        function = getattr(functions, name)
        function = getattr(function, "__wrapped__", function)
        definition = find_definition(function.__code__, function.__globals__)
        assert definition is not None, name
        dumps[name] = blake3(definition.dump).hexdigest()
    tracker = CodeTracker(entry, __name__)
    with_class = CodeTracker(method_entry, __name__).closure([Shape])
    return {
        "dumps": dumps,
        "closure": dict(tracker.closure().record()),
        "with a class": dict(with_class.record()),
        "digests": {"entry": tracker.closure().digest, "with a class": with_class.digest},
    }


if __name__ == "__main__":
    from tests.golden.code import collect as collect_as_module

    json.dump(collect_as_module(), sys.stdout, indent=1, sort_keys=True)
