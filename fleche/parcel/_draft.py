"""Drafts: buffers that are written to a file while another core computes the digest that names it.

The checksum is computed of what is being written, while it is in the processor's cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from xxhash import xxh3_128

from fleche._util import override
from fleche.digest import Digest
from fleche.parcel._layout import BUFFER, Head, Parcel, Section, begin
from fleche.parcel._source import Buffer, MemorySource

__all__ = ["Draft", "DraftSource", "NamelessFile"]

_PIECE = 1 << 21
"""Bytes that are written at a time, from a multiple of them on: a huge page of the page cache."""


class NamelessFile(Protocol):
    """A file that is being written, and that nothing finds before it gets its name."""

    def reserve(self, nbytes: int) -> None:
        """Set so much space aside, if that is possible."""
        ...

    def write(self, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        ...

    def discard(self) -> None:
        """Remove the file, unless it has got its name. Idempotent."""
        ...


class Draft:
    """The parcel of a buffer, on its way to a file before its digest is known.

    Attributes:
        content: the buffer, which must not change meanwhile.
        nbytes: its size.
        file: where it is written.
    """

    def __init__(self, content: memoryview, file: NamelessFile, *, signs: bool) -> None:
        """Make a draft of which nothing is written yet.

        Args:
            content: contiguous memory.
            file: a new file.
            signs: whether the parcel will be signed, and its checksums are BLAKE3.
        """
        self.content = content
        self.nbytes = content.nbytes
        self._bytes = content.cast("B")
        self.file = file
        self._process = os.getpid()
        self._signs = signs
        self._weak = xxh3_128()
        self._written = 0
        self._has_failed = False
        # what stands in the head is of fixed sizes, so that the place of the content is known
        secret = (b"",) if signs else ()
        self._offset = begin(self._head(Digest("0" * 64)), secret).offsets[0]
        file.reserve(self._offset + self.nbytes)

    def _head(self, digest: Digest) -> Head:
        checksum = bytes.fromhex(digest) if self._signs else self._weak.digest()
        section = Section(self.nbytes, self.nbytes, "", checksum)
        return Head(serializer=BUFFER, digest=str(digest), stream=section)

    def write_while(self, goes_on: Callable[[], bool]) -> None:
        """Write on, piece by piece, as long as ``goes_on()``, until all is written or it fails."""
        try:
            while self._written < self.nbytes and not self._has_failed and goes_on():
                place = self._offset + self._written
                piece = self._bytes[self._written :][: _PIECE - place % _PIECE]
                self.file.write(piece, place)
                if not self._signs:
                    self._weak.update(piece)
                self._written += piece.nbytes
        except OSError:  # it is written again, in the usual way, which says what is wrong
            self._has_failed = True

    def finish(self, digest: Digest, keys: tuple[bytes, ...]) -> Parcel | None:
        """Write the rest, and return the parcel; ``None`` if it could not be written.

        A storage may keep it by giving :attr:`file` its name. For all others it is in memory. A
        forked child has no part in what its parent writes.

        Args:
            digest: the BLAKE3 of the content.
            keys: secrets; the first one signs.
        """
        if os.getpid() == self._process:
            self.write_while(lambda: True)
            if self._written == self.nbytes:
                parts = begin(self._head(digest), keys)
                preamble = parts.preamble.ljust(self._offset, b"\0")
                with suppress(OSError):
                    self.file.write(preamble, 0)
                    return Parcel(DraftSource((memoryview(preamble), self._bytes), self), parts)
        self.discard()
        return None

    def discard(self) -> None:
        """Give up, unless the file has got its name. Idempotent."""
        self._has_failed = True
        self.file.discard()


class DraftSource(MemorySource):
    """The bytes of a parcel, in memory, and in a file that has no name yet.

    Attributes:
        file: that file.
    """

    def __init__(self, pieces: tuple[memoryview, ...], draft: Draft) -> None:
        super().__init__(pieces)
        self.file = draft.file
        self._draft = draft

    @override
    def close(self) -> None:
        super().close()
        self._draft.discard()
