"""Streams: what a thread sees of the exchange it works on, and what it needs of the link below."""

from __future__ import annotations

from collections import deque
from threading import Condition, RLock
from typing import NoReturn, Protocol

from fleche.errors import ProtocolError, RemoteConnectionError
from fleche.parcel import Buffer
from fleche.remote.compression import decompress_payload
from fleche.remote.frames import CHUNK, Flag, Frame, Kind

__all__ = [
    "ByteReader",
    "ByteWriter",
    "ConnectionDied",
    "Stream",
    "StreamCancelled",
    "Transport",
]

MESSAGE_LIMIT = 1 << 28
"""Bytes of the longest message that is put together."""


class ByteReader(Protocol):
    """Where bytes come from; ``readinto`` returns as soon as there are some, 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read some bytes into ``buffer``; return how many."""
        ...

    def close(self) -> None:
        """Close the stream."""
        ...


class ByteWriter(Protocol):
    """Where bytes go."""

    def write(self, data: Buffer, /) -> int | None:
        """Write some of ``data``; return how many bytes."""
        ...

    def flush(self) -> None:
        """Send on what is buffered."""
        ...

    def close(self) -> None:
        """Close the stream."""
        ...


class ConnectionDied(RemoteConnectionError):
    """The connection at hand is dead, as opposed to one of the cache that is served over it."""


class StreamCancelled(Exception):
    """The other side no longer wants this exchange."""


class Transport(Protocol):
    """What a stream needs of its link."""

    lock: RLock
    failure: str | None

    def send(self, stream: Stream, kind: Kind, payload: Buffer, flags: Flag) -> None:
        """Queue a frame, when there is room."""
        ...

    def take(self, stream: Stream) -> Frame | None:
        """Return the next frame, when it is there."""
        ...

    def cancel(self, stream: Stream) -> None:
        """Give an exchange up."""
        ...

    def fail(self, reason: str) -> None:
        """Declare the connection dead."""
        ...


class Stream:
    """One exchange of a link, for the one thread that works on it."""

    def __init__(self, link: Transport, exchange: int) -> None:
        self._link = link
        self.exchange = exchange
        self.changed = Condition(link.lock)
        self.frames: deque[Frame] = deque()
        self.ended = False
        self.cancelled = False

    def send_message(self, data: bytes, *, end: bool = False) -> None:
        """Send a message, in several frames where it is long.

        Raises:
            StreamCancelled: the other side does not want it.
            RemoteConnectionError: the connection is dead.
        """
        for start in range(0, max(len(data), 1), CHUNK):
            last = start + CHUNK >= len(data)
            flags = (Flag.END if end else Flag.NONE) if last else Flag.MORE
            self._link.send(self, Kind.MESSAGE, data[start : start + CHUNK], flags)

    def send_data(self, chunk: Buffer) -> None:
        """Send at most :data:`CHUNK` bytes of a parcel; raises as :meth:`send_message`."""
        self._link.send(self, Kind.DATA, chunk, Flag.NONE)

    def end(self) -> None:
        """Send nothing more; raises as :meth:`send_message`."""
        self._link.send(self, Kind.DATA, b"", Flag.END)

    def receive(self) -> Frame | None:
        """Wait for the next frame and return it, decompressed; ``None`` after the last one.

        Raises:
            StreamCancelled: the other side gave the exchange up.
            RemoteConnectionError: the connection is dead, or was silent for too long.
        """
        frame = self._link.take(self)
        return None if frame is None else decompress_payload(frame)

    def receive_message(self) -> bytes | None:
        """Wait for the next message and return it whole; ``None`` after the last one.

        Raises:
            ProtocolError: data came where a message was due.
            StreamCancelled, RemoteConnectionError: as :meth:`receive`.
        """
        parts: list[Buffer] = []
        while (frame := self.receive()) is not None:
            if frame.kind is not Kind.MESSAGE:
                if frame.end and not frame.payload:
                    continue
                raise ProtocolError("data came where a message was due")
            parts.append(frame.payload)
            if not frame.flags & Flag.MORE:
                return b"".join(parts)
            if len(parts) * CHUNK > MESSAGE_LIMIT:
                raise ProtocolError(f"a message of more than {MESSAGE_LIMIT} bytes")
        return None

    def break_off(self, reason: str) -> NoReturn:
        """End the whole connection: the peer breaks the protocol.

        Raises:
            RemoteConnectionError: always.
        """
        self._link.fail(reason)
        raise ConnectionDied(self._link.failure or reason)

    def cancel(self) -> None:
        """Give the exchange up; what still comes is dropped. Idempotent, never raises."""
        self._link.cancel(self)
