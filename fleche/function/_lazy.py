"""Names that lazy imports have bound (PEP 810, from Python 3.15 on).

The namespace of a module holds a stand-in for what such a name means, until some code loads the
name. Code cannot be followed through a stand-in, so that its names are made real first, as the
interpreter itself does it: what counts is then the same before and after the first call.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from fleche._util import attempt

__all__ = ["is_lazy", "make_real", "names_in"]

LAZY: type | None = getattr(types, "LazyImportType", None)


def is_lazy(value: Any) -> bool:
    """Whether this stands for what was not imported yet, or cannot be."""
    return LAZY is not None and type(value) is LAZY


def make_real(namespace: Any, names: Iterable[str]) -> None:
    """Import what is behind names of a namespace; what cannot be imported stays as it is."""
    if LAZY is None:
        return
    for name in names:
        if type(stand_in := namespace.get(name)) is LAZY:
            namespace[name] = attempt(stand_in.resolve, default=stand_in)  # type: ignore[attr-defined]


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that a code object may load, and those of the functions in it."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from names_in(part)
