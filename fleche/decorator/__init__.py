"""The decorator, and what it makes of a function."""

from fleche.decorator._bound import BoundWrapper
from fleche.decorator._decorate import Decorator, fleche
from fleche.decorator._function import BoundMethod, Wrapper
from fleche.decorator._map import Batch
from fleche.decorator._submit import submit
from fleche.decorator._warnings import FlecheWarning

__all__ = [
    "Batch",
    "BoundMethod",
    "BoundWrapper",
    "Decorator",
    "FlecheWarning",
    "Wrapper",
    "fleche",
    "submit",
]
