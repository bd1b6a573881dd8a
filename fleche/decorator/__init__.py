"""The decorator, and what it makes of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked
from fleche.decorator._decorate import Decorator, fleche
from fleche.decorator._function import BoundMethod, Wrapper
from fleche.errors import FlecheWarning

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

__getattr__ = imported_when_asked(
    __name__,
    {
        "._accept": ("Accepted", "accept_code", "take_back"),
        "._bound": ("BoundWrapper",),
        "._map": ("Batch",),
        "._submit": ("submit",),
    },
)
