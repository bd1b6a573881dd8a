"""Digests: one name for one value, in every process, on every machine, under every Python version.

:func:`digest` maps an object to its :class:`Digest`. Objects of different type or value have
different digests; objects that differ only in how they lie in memory have the same. What has no
value that can be told from outside (an open file, an iterator, a lock) is
:class:`~fleche.errors.Indigestible`.
"""

from __future__ import annotations

from ._difference import Difference, find_difference
from ._digest import D, Digest
from ._keys import call_key, code_digest, digest, digest_arguments, digest_with_buffers
from ._plain import PlainMarker  # noqa: F401 - the encoding of plain data calls it by this name
from ._registry import add_hook
from ._tokens import SCHEME, BufferDigests, buffer_digest, hash_threads
from .science import find_reducer, register_rows

__all__ = [
    "SCHEME",
    "BufferDigests",
    "D",
    "Difference",
    "Digest",
    "add_hook",
    "buffer_digest",
    "call_key",
    "code_digest",
    "digest",
    "digest_arguments",
    "digest_with_buffers",
    "find_difference",
    "find_reducer",
    "hash_threads",
]

register_rows()
