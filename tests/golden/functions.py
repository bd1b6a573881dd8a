# ruff: noqa: ISC001, PIE800, B007, C416
# fmt: off
"""Functions whose syntax has been parsed differently by some version of Python, or might be."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

__all__ = [
    "annotated",
    "asynchronous",
    "comprehensive",
    "decorated",
    "documented",
    "failing",
    "formatted",
    "lambda_alone",
    "matching",
    "nested",
    "setty",
    "starred",
    "undocumented",
    "walrus",
    "yielding",
]


def documented(x):
    """A docstring is no part of a function."""
    # and neither is a comment
    return x + 1


def undocumented(x):
    return x + 1


def annotated(a: int, /, b: str = "b", *args: Any, key: float = 1.5, **kwargs: Any) -> list[int]:
    return [a, b, args, key, kwargs]


def formatted(x, width=3):
    quoted = "it's" f" {x!r:>{width}} " "joined" f"{x=}{x:}" f"{{}}{x:%Y-%m-%d}"
    return f"{quoted}" + f"{x + 1:{width}.{width}f}" + rf"\d{x}" + b"raw".decode() + "a" "b"


def matching(x):
    match x:
        case None | True:
            return 0
        case {"a": [1, *rest], **others}:
            return rest, others
        case str() as text if text:
            return text
        case _:
            return -1


def starred(*xs):
    first, *rest = xs
    return [*rest, first], {**{"a": 1}}, (xs[1:2, ..., None] if False else xs[::2])


def walrus(x):
    if (y := x + 1) > 2 and not x < y <= 3:
        return y
    return -x ** -2 @ +x


def setty(x):
    return x in {"alpha", "beta", "gamma", "delta"} and x not in (1, 2.0, 3j, b"b", None, ...)


def yielding(n):
    total = yield from range(n)
    for i in range(n):
        while True:
            break
        else:
            continue
    return total


async def asynchronous(x):
    async with x as y, contextlib.nullcontext():
        async for z in y:
            await z
    return [w async for w in y if w]


def comprehensive(xs):
    return {k: [v for v in vs if v if v > 1] for k, vs in xs}, {x for x in xs}, (x for x in xs)


def failing(x):
    global _state
    try:
        assert x, "message"
        del x
    except (ValueError, TypeError) as error:
        raise RuntimeError("a") from error
    except Exception:
        raise
    else:
        pass
    finally:
        _state = 1


def nested(x):
    """Outer."""

    def inner(y: int = 1):
        """Inner."""
        nonlocal x
        x = y
        return lambda z, *, w=2: (x, y, z, w)

    class Local:
        """Local."""

        attribute: int = 1

        @property
        def value(self):
            return super().__init__

    return inner, Local


@functools.cache
def decorated(x):
    return x


lambda_alone = lambda x, y=2: x * y  # noqa: E731


def make_adder(n):
    def adder(x):
        return x + n

    return adder


def make_recursive():
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    return factorial


class Shape:
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2
