"""Peers that speak the wire without fleche's own client or server, and need not keep its rules."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any
from zlib import crc32

from fleche._util import __version__
from fleche.errors import ProtocolError
from fleche.parcel import Buffer
from fleche.remote import Channel, PipeChannel
from fleche.remote._frames import Flag, Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._handshake import ClientGreeting
from fleche.remote._messages import Answer, Request, decode_answer, decode_request, encode

__all__ = ["INFO", "Wire", "hostile_server", "message", "raw_client", "seal"]

INFO = {
    "fleche_version": __version__,
    "cloudpickle_version": __import__("cloudpickle").__version__,
    "read_only": False,
    "pid": 1,
}


def seal(body: bytes) -> bytes:
    """Return the JSON `body` as it stands in a line of the greeting."""
    return b"%08x %s" % (crc32(body), body)


def message(exchange: int, said: Request | Answer | bytes, *, end: bool = True) -> Frame:
    """Return a frame that holds a whole message."""
    data = said if isinstance(said, bytes) else encode(said)
    return Frame(Kind.MESSAGE, exchange, Flag.END if end else Flag.NONE, data)


class Wire:
    """One end of a greeted connection: whole frames, read by a thread, so that writing goes on.

    Attributes:
        over: set when the other side says no more.
        reads: while it is not set, nothing that comes is read.
        seen: room for frames that a test keeps.
        pid: the process at the other end, if it is one.
    """

    pid = 0

    def __init__(self, reader: Any, writer: Any, leftover: bytes = b"") -> None:
        self._reader, self._writer = reader, writer
        self._decoder = FrameDecoder()
        self._frames: SimpleQueue[Frame | None] = SimpleQueue()
        self.over, self.reads = Event(), Event()
        self.reads.set()
        self.seen: list[Frame] = []
        self._leftover = leftover
        self._thread = Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        buffer = memoryview(bytearray(1 << 16))
        with suppress(OSError, ValueError, ProtocolError):
            for frame in self._decoder.feed(self._leftover):
                self._frames.put(frame)
            while self.reads.wait() and (count := self._reader.readinto(buffer)):
                for frame in self._decoder.feed(buffer[:count]):
                    self._frames.put(frame)
        self.over.set()
        self._frames.put(None)

    def read(self, timeout: float = 20) -> Frame | None:
        """Return the next frame; `None` at the end."""
        return self._frames.get(timeout=timeout)

    def request(self) -> tuple[int, Request]:
        """Return the number and the message of the next request."""
        while (frame := self.read()) is not None:
            if frame.kind is Kind.MESSAGE:
                return frame.stream_id, decode_request(frame.payload)
        raise BrokenPipeError("no more requests")

    def answers(self, exchange: int) -> Iterator[Answer | bytes]:
        """Yield messages, and data as bytes, until the other side ends the exchange."""
        while (frame := self.read()) is not None:
            if frame.stream_id != exchange:
                continue
            if frame.payload:
                is_message = frame.kind is Kind.MESSAGE
                yield decode_answer(frame.payload) if is_message else bytes(frame.payload)
            if frame.end:
                return

    def write(self, *frames: Frame) -> None:
        """Send frames; raises `OSError` when the other side is gone."""
        for frame in frames:
            self.write_bytes(encode_frame(frame))

    def write_bytes(self, data: Buffer) -> None:
        """Send anything at all."""
        view = memoryview(data)
        while view:
            if self.over.is_set():
                raise BrokenPipeError("the other side is gone")
            view = view[self._writer.write(view) or 0 :]
        self._writer.flush()

    def join(self) -> None:
        """Wait for the reading thread."""
        self._thread.join(10)


def hostile_server(act: Callable[[Wire], None], **greeting: Any) -> Channel:
    """Return a channel to a server that greets and then does whatever `act` does.

    Args:
        act: is called with the greeted wire; when it returns, the server ends.
        greeting: fields of the greeting in place of the right ones.
    """
    body = {"protocol": 1, "features": ["zlib"], "version": __version__, "info": INFO, **greeting}

    def serve(reader: Any, writer: Any) -> None:
        token, leftover = _read_opening(reader)
        line = b"\nfleche-remote! " + token + b" " + seal(json.dumps(body).encode()) + b"\n"
        with suppress(OSError):
            writer.write(line)
            wire = Wire(reader, writer, leftover)
            with suppress(OSError):
                act(wire)
            writer.close()
            wire.join()

    return PipeChannel(serve)


def _read_opening(reader: Any) -> tuple[bytes, bytes]:
    seen, buffer = bytearray(), memoryview(bytearray(1 << 16))
    while b"\n" not in seen:
        count = reader.readinto(buffer)
        if not count:
            return b"", b""
        seen += buffer[:count]
    line, _, leftover = bytes(seen).partition(b"\n")
    return line.split(b" ")[1], leftover


@contextmanager
def raw_client(command: Sequence[str], directory: Path, **env: str) -> Iterator[Wire]:
    """A client that has greeted the server that `command` starts, and may do anything."""
    greeting = ClientGreeting((1, 1), ("compress=",), "raw")
    with subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, **env},
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(greeting.opening)
        leftover = None
        while leftover is None:
            data = os.read(process.stdout.fileno(), 1 << 16)
            assert data, "no server"
            leftover = greeting.feed(data)
        wire = Wire(process.stdout, process.stdin, leftover)
        wire.pid = process.pid
        try:
            yield wire
        finally:
            with suppress(OSError):
                process.stdin.close()
            wire.reads.set()
            wire.join()
            process.wait(10)
