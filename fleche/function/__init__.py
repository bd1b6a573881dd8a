"""What a callable is: its name, its signature, its code, and which parameters matter.

Parameters are marked by annotations, which type checkers read through::

    def relax(atoms: Required[Atoms], steps: int = 100, log: Ignored[TextIO | None] = None): ...

or by name, with ``require=`` and ``ignore=`` of the decorator.

* An *ignored* parameter is no part of the key and is not stored.
* A *required* parameter must be passed, and must not be None, for a call to be cached; a call
  without it runs as if it had not been decorated.
* In an *unordered* parameter the order of dicts, and of what is built on them, does not count.
"""

from __future__ import annotations

from ._info import FunctionInfo, inspect_function
from ._markers import IGNORED, REQUIRED, UNORDERED, Ignored, Marker, Required, Unordered
from ._signature import Transparent

__all__ = [
    "IGNORED",
    "REQUIRED",
    "UNORDERED",
    "FunctionInfo",
    "Ignored",
    "Marker",
    "Required",
    "Transparent",
    "Unordered",
    "inspect_function",
]
