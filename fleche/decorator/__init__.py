"""The decorator, and what it makes of a function."""

from fleche.decorator._complaints import FlecheWarning
from fleche.decorator._factory import Decorator, fleche
from fleche.decorator._submit import submit
from fleche.decorator.bound import BoundWrapper
from fleche.decorator.wrapper import BoundMethod, Wrapper

__all__ = [
    "BoundMethod",
    "BoundWrapper",
    "Decorator",
    "FlecheWarning",
    "Wrapper",
    "fleche",
    "submit",
]
