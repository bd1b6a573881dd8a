"""A file for HDF5 to write to, whose failures wait until HDF5 has done."""

from __future__ import annotations

from io import FileIO, RawIOBase
from typing import Any

__all__ = ["Scratch"]


class Scratch(RawIOBase):
    """Passes everything on to ``file`` until something fails.

    An error that is raised while HDF5 calls back is lost in it, and leaves its file half open. So
    the first one is kept for :meth:`check`; from then on nothing is written, and all that can be
    read is zero bytes, of which HDF5 makes nothing.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong.

        Raises:
            OSError: the first write that failed.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._error is None:
                done += self._file.write(view[done : done + (1 << 30)]) or 0
        except OSError as error:
            self._error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there is something."""
        view = memoryview(buffer).cast("B")
        if self._error is not None:
            view[:] = bytes(len(view))
            return len(view)
        done = 0
        while count := self._file.readinto(view[done : done + (1 << 30)]):
            done += count
        return done

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset, whence)
