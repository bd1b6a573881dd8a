"""The decorator, and what it makes of a function."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fleche.decorator._decorate import Decorator, fleche
from fleche.decorator._function import BoundMethod, Wrapper
from fleche.decorator._warnings import FlecheWarning

if TYPE_CHECKING:
    from fleche.decorator._accept import Accepted, accept_code, take_back
    from fleche.decorator._bound import BoundWrapper
    from fleche.decorator._map import Batch
    from fleche.decorator._submit import submit

__all__ = [
    "Accepted",
    "Batch",
    "BoundMethod",
    "BoundWrapper",
    "Decorator",
    "FlecheWarning",
    "Wrapper",
    "accept_code",
    "fleche",
    "submit",
    "take_back",
]

_LAZY = {
    "Accepted": "_accept",
    "Batch": "_map",
    "BoundWrapper": "_bound",
    "accept_code": "_accept",
    "submit": "_submit",
    "take_back": "_accept",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = found
    return found
