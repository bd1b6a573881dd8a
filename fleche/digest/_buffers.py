"""Digests of large buffers, remembered between digesting a value and packing it."""

from __future__ import annotations

import sys

from ._digest import Digest
from ._tokens import BIG

__all__ = ["BufferDigests"]


class BufferDigests:
    """What digesting a value has found out about the large buffers inside it.

    It keeps the buffers alive, so an address means one buffer as long as this object lives. Its
    answers hold as long as nobody writes to the buffers.
    """

    def __init__(self) -> None:
        self.digests: dict[tuple[int, int], Digest] = {}
        self.owners: list[object] = []

    def __len__(self) -> int:
        return len(self.digests)

    def note(self, address: int, nbytes: int, found: Digest, owner: object) -> None:
        """Remember the digest of the bytes at ``address``, which ``owner`` keeps there."""
        self.digests[address, nbytes] = found
        self.owners.append(owner)

    def update(self, other: BufferDigests) -> None:
        """Take over what ``other`` knows."""
        self.digests.update(other.digests)
        self.owners += other.owners

    def clear(self) -> None:
        """Forget everything, and let go of the buffers."""
        self.digests.clear()
        self.owners.clear()

    def find(self, view: memoryview) -> Digest | None:
        """Return the plain BLAKE3 of a contiguous buffer if it is known, else None."""
        if not self.digests or view.nbytes < BIG:
            return None
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return None
        with view.cast("B") if view.c_contiguous else memoryview(b"") as flat:
            if not flat.nbytes:
                return None
            address = numpy.frombuffer(flat, dtype="u1").__array_interface__["data"][0]
        return self.digests.get((address, view.nbytes))
