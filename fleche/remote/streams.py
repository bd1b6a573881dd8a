"""Streams: what a thread sees of the exchange it works on, and what it needs of the link below."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition, RLock
from typing import NoReturn, Protocol

from fleche.errors import ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import Buffer
from fleche.remote.compression import decompress_payload
from fleche.remote.frames import CHUNK, Flag, Frame, Kind
from fleche.remote.session import WINDOW

__all__ = [
    "ByteReader",
    "ByteWriter",
    "Place",
    "Stream",
    "StreamCancelled",
    "Transport",
    "message_pieces",
]

MESSAGE_LIMIT = 1 << 26
"""Bytes that a message has at most: who has a longer one does not begin to send it."""


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


class StreamCancelled(Exception):
    """The other side no longer wants this exchange."""


def message_pieces(data: bytes, *, end: bool) -> Iterator[tuple[bytes, Flag]]:
    """Yield the payloads of the frames that a message takes, with their flags.

    Raises:
        Rejected: it is too long; not even the first of them is yielded.
    """
    if len(data) > MESSAGE_LIMIT:
        raise Rejected(
            f"a message of {len(data)} bytes is too long, {MESSAGE_LIMIT} is the most: arguments "
            "and results may be as large as they like, metadata may not"
        )
    for start in range(0, max(len(data), 1), CHUNK):
        last = start + CHUNK >= len(data)
        yield data[start : start + CHUNK], (Flag.END if end else Flag.NONE) if last else Flag.MORE


class Place:
    """Where the data of a parcel is wanted, while its frames arrive.

    The reader thread runs ahead of whoever takes the frames. So it counts, from each message on,
    the bytes of data that came, to know where in the expected memory the next ones belong.
    """

    def __init__(self) -> None:
        self.memory: memoryview | None = None
        self.message = 0
        self.messages_taken = 0
        self._messages_come = 0
        self._data_come = 0

    def allocate(self, kind: Kind, flags: int, length: int) -> memoryview | None:
        """Return where the payload of a frame that comes now belongs, if that is known."""
        if kind is Kind.MESSAGE:
            self._messages_come += 1
            self._data_come = 0
            return None
        begin = self._data_come
        packed = flags & (Flag.ZLIB | Flag.ZSTD)
        self._data_come += CHUNK * CHUNK if packed else length  # out of reach: nobody knows
        wanted = self.memory
        if wanted is None or packed or self.message != self._messages_come:
            return None
        found = wanted[begin : begin + length]
        return found if len(found) == length else None


class Transport(Protocol):
    """What a stream needs of its link."""

    lock: RLock
    failure: str | None

    def send(
        self, stream: Stream, kind: Kind, payload: Buffer, flags: Flag, ahead: int = WINDOW
    ) -> None:
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
        self.place = Place()

    def send_message(self, data: bytes, *, end: bool = False, ahead: int = WINDOW) -> None:
        """Send a message, in several frames where it is long.

        Args:
            data: the message.
            end: it is the last thing that is sent in this exchange.
            ahead: how much may be under way before the other side has used it.

        Raises:
            Rejected: it is too long; nothing of it has been sent.
            StreamCancelled: the other side does not want it.
            RemoteConnectionError: the connection is dead.
        """
        for piece, flags in message_pieces(data, end=end):
            self._link.send(self, Kind.MESSAGE, piece, flags, ahead)

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
        if frame is None:
            return None
        if frame.kind is Kind.MESSAGE:
            self.place.messages_taken += 1
        return decompress_payload(frame)

    def expect(self, memory: memoryview) -> None:
        """Let the data that follows the message just received be read into ``memory`` directly.

        What has arrived already, and what is compressed, comes in memory of its own all the same.
        """
        with self._link.lock:
            self.place.memory = memory
            self.place.message = self.place.messages_taken

    def receive_message(self, begun: Frame | None = None) -> Buffer | None:
        """Wait for the next message and return it whole; ``None`` after the last one.

        Args:
            begun: its first frame, if that has been received already.

        Raises:
            ProtocolError: data came where a message was due, or a message that is too long.
            StreamCancelled, RemoteConnectionError: as :meth:`receive`.
        """
        message = bytearray()
        frame = begun or self.receive()
        while frame is not None:
            if frame.kind is Kind.MESSAGE:
                if not message and not frame.flags & Flag.MORE:
                    return frame.payload
                message += frame.payload
                if len(message) > MESSAGE_LIMIT:
                    raise ProtocolError(f"a message of more than {MESSAGE_LIMIT} bytes")
                if not frame.flags & Flag.MORE:
                    return message
            elif frame.payload or not frame.end:
                raise ProtocolError("data came where a message was due")
            frame = self.receive()
        return None

    def break_off(self, reason: str) -> NoReturn:
        """End the whole connection: the peer breaks the protocol.

        Raises:
            RemoteConnectionError: always.
        """
        self._link.fail(reason)
        raise RemoteConnectionError(self._link.failure or reason)

    def cancel(self) -> None:
        """Give the exchange up; what still comes is dropped. Idempotent, never raises."""
        self._link.cancel(self)
