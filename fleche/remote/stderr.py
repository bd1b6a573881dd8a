"""The standard error of a child, always drained, its last lines kept."""

from __future__ import annotations

import logging
import os
from collections import deque
from threading import Thread, current_thread
from typing import IO

from fleche.remote.wakeable import WakeableReader

__all__ = ["StderrTail"]

log = logging.getLogger("fleche.remote.stderr")

LINES = 20
LINE_LENGTH = 500
LAST_READS = 64
"""How often it is read once more when nobody wants more: a child may never stop talking."""


class StderrTail:
    """A thread that reads a child's standard error for as long as it is wanted.

    The end of the child need not be the end of the stream: a ControlMaster that ssh leaves behind
    may hold it open. So :meth:`close` does not wait for it.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Read ``stream``, which is taken over, in a thread; log it under ``name``."""
        self._reader = WakeableReader(os.dup(stream.fileno()), last_reads=LAST_READS)
        stream.close()
        self._name = name
        self._lines: deque[str] = deque(maxlen=LINES)
        self._partial = b""
        self._thread = Thread(target=self._run, name=f"fleche {name} stderr", daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """Return the last lines so far."""
        return "\n".join([*self._lines, *([_text(self._partial)] if self._partial else [])])

    def close(self) -> str:
        """Read what is there, stop, and return the last lines.

        In the thread itself (where whatever handles a log record may collect garbage, and so close
        a cache) return those so far; it stops when it goes on.
        """
        self._reader.wake()
        if self._thread is not current_thread():
            self._thread.join()
        return self.tail()

    def forget(self) -> None:
        """In a forked child: close the copies; the thread is the parent's."""
        self._reader.close()

    def _run(self) -> None:
        buffer = memoryview(bytearray(1 << 16))
        try:
            while count := self._reader.readinto(buffer):
                self._take(bytes(buffer[:count]))
        finally:
            self._reader.close()

    def _take(self, data: bytes) -> None:
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LINE_LENGTH:]
        for line in whole:
            text = _text(line[-LINE_LENGTH:])
            self._lines.append(text)
            log.info("%s: %s", self._name, text)


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\r")
    return "".join(c if c.isprintable() or c == "\t" else "·" for c in text)
