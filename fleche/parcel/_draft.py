"""Drafts: buffers that are written to a file while their digest, which will name it, is computed.

Hashing takes one core, and writing another. The checksum, too, is computed beside the writing, of
the memory that was digested.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Protocol

from fleche._util import override
from fleche.digest import Digest, taken_cores
from fleche.parcel._layout import BUFFER, Head, Parcel, Section, begin, checksum
from fleche.parcel._source import Buffer, MemorySource

__all__ = ["Draft", "DraftSource", "NamelessFile"]

_PIECE = 1 << 24
"""Bytes that are written at a time, after which a draft that was given up ends."""


class NamelessFile(Protocol):
    """A file that is being written, and that nothing finds before it gets its name."""

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

    def __init__(
        self, content: memoryview, file: NamelessFile, *, signs: bool, after: Draft | None = None
    ) -> None:
        """Begin to write.

        Args:
            content: contiguous memory.
            file: a new file.
            signs: whether the parcel will be signed, and its checksums are BLAKE3.
            after: the draft that is written first: two at a time gain nothing.
        """
        self.content = content
        self.nbytes = content.nbytes
        self._bytes = content.cast("B")
        self.file = file
        self._signs = signs
        self._is_written = False
        self._is_given_up = False
        # what stands in the head is of fixed sizes, so that the place of the content is known
        secret = (b"",) if signs else ()
        self._offset = begin(self._head(Digest("0" * 64), b""), secret).offsets[0]
        self._thread = Thread(target=self._run, args=(after,), name="fleche-draft", daemon=True)
        self._thread.start()

    def _head(self, digest: Digest, weak: bytes) -> Head:
        checksum = bytes.fromhex(digest) if self._signs else weak or bytes(16)
        section = Section(self.nbytes, self.nbytes, "", checksum)
        return Head(serializer=BUFFER, digest=str(digest), stream=section)

    def _run(self, after: Draft | None) -> None:
        if after is not None:
            after.wait()
        taken_cores.add(id(self))
        with suppress(Exception):  # it is written again, in the usual way, which says what is wrong
            self._write()
            self._is_written = not self._is_given_up
        taken_cores.discard(id(self))

    def _write(self) -> None:
        for start in range(0, self.nbytes, _PIECE):
            if self._is_given_up:
                return
            self.file.write(self._bytes[start : start + _PIECE], self._offset + start)

    def wait(self) -> None:
        """Wait until everything is written, or has failed."""
        self._thread.join()

    def finish(self, digest: Digest, keys: tuple[bytes, ...]) -> Parcel | None:
        """Return the parcel; ``None`` if its content could not be written ahead.

        A storage may keep it by giving :attr:`file` its name. For all others it is in memory.

        Args:
            digest: the BLAKE3 of the content.
            keys: secrets; the first one signs.
        """
        weak = b"" if self._signs else checksum(self._bytes, strong=False)
        self.wait()
        if self._is_written:
            parts = begin(self._head(digest, weak), keys)
            preamble = parts.preamble.ljust(self._offset, b"\0")
            with suppress(OSError):
                self.file.write(preamble, 0)
                views = (memoryview(preamble), self._bytes)
                return Parcel(DraftSource(views, self), parts)
        self.discard()
        return None

    def discard(self) -> None:
        """Give up, unless the file has got its name. Idempotent."""
        self._is_given_up = True
        self.wait()
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
