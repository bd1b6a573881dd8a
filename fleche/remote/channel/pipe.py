"""A server in a thread of this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import FileIO
from threading import Thread
from typing import TypeAlias

from fleche.remote.channel.base import Channel
from fleche.remote.streams import ByteReader, ByteWriter
from fleche.remote.wakeable import WakeableReader

__all__ = ["PipeChannel", "Serve"]

Serve: TypeAlias = Callable[[ByteReader, ByteWriter], None]


class PipeChannel(Channel):
    """A server in a thread of this process, over two pipes: the whole protocol, and no process."""

    def __init__(self, serve: Serve, name: str = "pipe") -> None:
        """Serve with ``serve(input_stream, output_stream)``, in a thread for each connection."""
        self.name = name
        self._serve = serve
        self._thread: Thread | None = None
        self._ends: tuple[WakeableReader, FileIO] | None = None
        self._error: BaseException | None = None

    def open(self) -> tuple[ByteReader, ByteWriter]:
        """Start the thread."""
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        self._error = None
        self._ends = WakeableReader(down_read), FileIO(up_write, "wb")
        self._thread = Thread(
            target=self._run, args=self._ends, name=f"fleche {self.name} server", daemon=True
        )
        self._thread.start()
        return FileIO(up_read, "rb"), FileIO(down_write, "wb")

    def _run(self, reader: ByteReader, writer: ByteWriter) -> None:
        try:
            self._serve(reader, writer)
        except Exception as error:  # noqa: BLE001 (it is reported by diagnose)
            self._error = error
        finally:
            reader.close()
            writer.close()

    def forget(self) -> None:
        """Forget the thread, which is the parent's, and close the copies of its streams."""
        ends, self._ends, self._thread = self._ends, None, None
        for end in ends or ():
            end.close()

    def close(self, grace: float = 2.0) -> None:
        """Wait for the thread; then make it see the end of its input, and wait once more."""
        thread, self._thread = self._thread, None
        if thread is None or self._ends is None:
            return
        reader, _ = self._ends
        thread.join(grace)
        reader.wake()
        thread.join(max(grace, 1.0))

    def diagnose(self) -> str:
        """Return the exception that ended the server, if one did."""
        return f"the server raised {self._error!r}" if self._error else ""
