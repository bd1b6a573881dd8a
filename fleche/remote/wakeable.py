"""Reading from a descriptor until there is nothing more, or until somebody says stop."""

from __future__ import annotations

import os
import select
from threading import Lock

__all__ = ["WakeableReader"]


class WakeableReader:
    """A readable stream over ``fd``, which another thread can bring to its end."""

    def __init__(self, fd: int, *, last_reads: int = 0) -> None:
        """Take ``fd`` over; it is closed with the stream.

        Args:
            fd: a descriptor that can be polled.
            last_reads: how often what is there is still read after :meth:`wake`; bounded, since
                the other side may never stop.
        """
        self._fd = fd
        self._last_reads = last_reads
        self._wake_read, self._wake_write = os.pipe()
        self._lock = Lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read some bytes into ``buffer`` and return their number; 0 at the end, or when woken."""
        ready = {fd for fd, _ in self._poll.poll()}
        if self._wake_read in ready:
            if not self._last_reads or self._fd not in ready:
                return 0
            self._last_reads -= 1
        return os.readv(self._fd, [buffer])

    def wake(self) -> None:
        """Make reads return the end, after the last reads."""
        with self._lock:
            if self._wake_write >= 0:
                os.close(self._wake_write)
                self._wake_write = -1

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self.wake()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                os.close(self._wake_read)
                self._fd = -1
