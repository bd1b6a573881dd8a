"""What a callable is: its name, its signature, its code, and which parameters matter.

Parameters are marked by annotations, which type checkers read through::

    def relax(atoms: Required[Atoms], steps: int = 100, log: Ignored[TextIO | None] = None): ...

or by name, with ``require=`` and ``ignore=`` of the decorator.

* An *ignored* parameter is no part of the key and is not stored.
* A *required* parameter must be passed, and must not be None, for a call to be cached; a call
  without it runs as if it had not been decorated.
* In a parameter that counts by *content*, paths count by what the files that they name hold.
* In an *unordered* parameter the order of dicts, and of what is built on them, does not count.
"""

from __future__ import annotations

from fleche.function._closure import ENTRY, Closure, Node, digest_of_parts
from fleche.function._code import pack_knowledge, take_knowledge
from fleche.function._dependencies import (
    Change,
    CodeTracker,
    Dependencies,
    Dependency,
    Depends,
    changes_between,
    changes_of_stored,
    own_code,
    save_texts,
    version_of,
)
from fleche.function._info import FunctionInfo, inspect_function
from fleche.function._markers import (
    CONTENT,
    IGNORED,
    REQUIRED,
    SECRET,
    UNORDERED,
    Content,
    Ignored,
    Marker,
    Required,
    Secret,
    Unordered,
)
from fleche.function._own import is_own_module
from fleche.function._signature import Transparent, signature_of

__all__ = [
    "CONTENT",
    "ENTRY",
    "IGNORED",
    "REQUIRED",
    "SECRET",
    "UNORDERED",
    "Change",
    "Closure",
    "CodeTracker",
    "Content",
    "Dependencies",
    "Dependency",
    "Depends",
    "FunctionInfo",
    "Ignored",
    "Marker",
    "Node",
    "Required",
    "Secret",
    "Transparent",
    "Unordered",
    "changes_between",
    "changes_of_stored",
    "digest_of_parts",
    "inspect_function",
    "is_own_module",
    "own_code",
    "pack_knowledge",
    "save_texts",
    "signature_of",
    "take_knowledge",
    "version_of",
]
