"""Digests: one name for one value, in every process, on every machine, under every Python version.

:func:`digest` maps an object to its :class:`Digest`. Objects of different type or value have
different digests; objects that differ only in how they lie in memory have the same. What has no
value that can be told from outside (an open file, an iterator, a lock) is
:class:`~fleche.errors.Indigestible`.
"""

from __future__ import annotations

import sys
from types import ModuleType

from ._buffers import BufferDigests
from ._classes import members_of, told_to
from ._digest import Address, D, Digest
from ._keys import call_key, code_digest, digest, digest_arguments, digest_with_buffers
from ._registry import add_hook
from ._tokens import SCHEME, buffer_digest, hash_threads

__all__ = [
    "SCHEME",
    "Address",
    "BufferDigests",
    "D",
    "Digest",
    "add_hook",
    "buffer_digest",
    "call_key",
    "code_digest",
    "digest",
    "digest_arguments",
    "digest_with_buffers",
    "hash_threads",
    "members_of",
    "told_to",
]


class _CallablePackage(ModuleType):
    """This package, which is also the function that ``from fleche import digest`` gives.

    Importing any module of it makes it the attribute ``digest`` of ``fleche``, so that no function
    could keep that place.
    """

    def __call__(self, obj: object) -> Digest:
        """Return the digest of a value; see :func:`fleche.digest.digest`."""
        return digest(obj)


sys.modules[__name__].__class__ = _CallablePackage
