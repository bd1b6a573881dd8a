"""What is recorded with every computed call beside its arguments and its result.

A collector is a :class:`MetaData`. It starts before the function's body, finishes after it, and
returns plain data. Nothing that a collector returns is part of a call's key.
"""

from fleche.metadata._base import Collecting, MetaData, metadata_class, metadata_names
from fleche.metadata._environment import Environment
from fleche.metadata._git import Git
from fleche.metadata._runtime import Cpu, Runtime, Tags

__all__ = [
    "Collecting",
    "Cpu",
    "Environment",
    "Git",
    "MetaData",
    "Runtime",
    "Tags",
    "metadata_class",
    "metadata_names",
]
