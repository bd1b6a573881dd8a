"""Streams: what a thread sees of the one request that it makes, or answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from fleche.errors import ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import Buffer
from fleche.remote._frames import CHUNK, Flag, Frame, Kind
from fleche.remote._protocol import MESSAGE_LIMIT, WINDOW

if TYPE_CHECKING:
    from fleche.remote._multiplexer import Multiplexer

__all__ = [
    "ByteReader",
    "ByteWriter",
    "Piece",
    "ReceiveBuffer",
    "Stream",
    "StreamCancelled",
    "Wakeup",
    "message_pieces",
]


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
    """The other side no longer wants this stream."""


class Piece(NamedTuple):
    """What becomes one frame: ``size`` is the length of ``payload`` before compression."""

    kind: Kind
    payload: Buffer
    flags: int
    size: int

    @property
    def bare_end(self) -> bool:
        """Whether it is nothing but an END."""
        return self.flags == Flag.END and not self.payload


def message_pieces(data: bytes, *, end: bool) -> Iterator[tuple[bytes, int]]:
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


class ReceiveBuffer:
    """Where the data of a parcel is wanted, while its frames arrive.

    The reader thread runs ahead of the thread that takes the frames. So it counts, from each
    message on, the bytes of data that came, to know where in the expected memory the next ones
    belong.
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
        self._data_come += 1 << 62 if packed else length  # its size is not known: out of reach
        wanted = self.memory
        if wanted is None or packed or self.message != self._messages_come:
            return None
        found = wanted[begin : begin + length]
        return found if len(found) == length else None


class Wakeup:
    """A flag that one thread waits for, and others set.

    No lock is held while Python code runs, unlike in a :class:`threading.Event`: a thread may be
    interrupted anywhere by code that waits for another one to set it. And what is set before the
    wait is not lost, unlike with a :class:`threading.Condition`, whose lock such code has to give
    up.
    """

    def __init__(self) -> None:
        self._unset = Lock()
        self._unset.acquire()

    def set(self) -> None:
        """Wake the thread that waits, or will."""
        try:  # noqa: SIM105 (which takes four times as long, here of all places)
            self._unset.release()
        except RuntimeError:  # it is set
            pass

    def clear(self) -> None:
        """Forget that it was set."""
        self._unset.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and clear it; return whether it was."""
        return self._unset.acquire(timeout=-1 if timeout is None else timeout)


class Stream:
    """One stream of a connection, for the one thread that works on it.

    Attributes:
        stream_id: its number; 0 until its first frame is written.
        senders: of threads that wait until they may send, one at a time.
        receivers: of threads that wait for what is to come, one at a time.
        frames: received and not taken yet.
        outgoing: to be sent.
        ahead: how much may be under way before the other side has used it.
        ended: the other side has sent its END.
        cancelled: one of the sides does not want the rest.
        buffer: where its data is wanted.
    """

    def __init__(self, mux: Multiplexer, stream_id: int = 0) -> None:
        self._mux = mux
        self.stream_id = stream_id
        self.senders: list[Wakeup] = []
        self.receivers: list[Wakeup] = []
        self.frames: deque[Frame] = deque()
        self.outgoing: deque[Piece] = deque()
        self.ahead = WINDOW
        self.ended = False
        self.cancelled = False
        self.buffer = ReceiveBuffer()
        self.using: Frame | None = None

    def wake(self) -> None:
        """Let the threads look at it that wait for a change of it."""
        for wakeup in (*self.senders, *self.receivers):
            wakeup.set()

    def wake_sender(self) -> None:
        """Let the one look at it that waits until it may send."""
        for wakeup in tuple(self.senders):
            wakeup.set()

    # -- sending -----------------------------------------------------------------------------------

    def send_message(
        self,
        data: bytes,
        *,
        end: bool = False,
        ahead: int = WINDOW,
        going_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Send a message, in several frames where it is long.

        Args:
            data: the message.
            end: it is the last thing that is sent in this stream.
            ahead: how much may be under way before the other side has used it.
            going_on: called after each frame.

        Raises:
            Rejected: it is too long; nothing of it has been sent.
            StreamCancelled: the other side does not want it.
            RemoteConnectionError: the connection is dead.
        """
        for piece, flags in message_pieces(data, end=end):
            self._mux.send(self, Kind.MESSAGE, piece, flags, ahead)
            going_on()

    def send_data(self, chunk: Buffer, *, going_on: Callable[[], None] = lambda: None) -> None:
        """Send bytes of a parcel; raises as :meth:`send_message`."""
        view = memoryview(chunk)
        for start in range(0, len(view), CHUNK):
            self._mux.send(self, Kind.DATA, view[start : start + CHUNK], Flag.NONE)
            going_on()

    def end(self) -> None:
        """Send nothing more; raises as :meth:`send_message`."""
        self._mux.send(self, Kind.DATA, b"", Flag.END)

    # -- receiving ---------------------------------------------------------------------------------

    def receive(self) -> Frame | None:
        """Wait for the next frame and return it; ``None`` after the last one.

        The memory of the one before counts as free from now on.

        Raises:
            StreamCancelled: the other side gave the stream up.
            RemoteConnectionError: the connection is dead, or was silent for too long.
        """
        frame = self._mux.take(self)
        if frame is not None and frame.kind is Kind.MESSAGE:
            self.buffer.messages_taken += 1
        return frame

    def expect(self, memory: memoryview) -> None:
        """Let the data that follows the message just received be read into ``memory`` directly.

        What has arrived already, and what is compressed, comes in memory of its own all the same.
        """
        with self._mux.lock:
            self.buffer.memory = memory
            self.buffer.message = self.buffer.messages_taken

    def receive_message(self, begun: Frame | None = None) -> Buffer | None:
        """Wait for the next message and return it whole; ``None`` after the last one.

        Args:
            begun: its first frame, if that has been received already.

        Raises:
            ProtocolError: data came where a message was due.
            StreamCancelled, RemoteConnectionError: as :meth:`receive`.
        """
        message = bytearray()
        frame = begun or self.receive()
        while frame is not None:
            if frame.kind is Kind.MESSAGE:
                if not message and not frame.flags & Flag.MORE:
                    return frame.payload
                message += frame.payload
                if not frame.flags & Flag.MORE:
                    return message
            elif frame.payload or not frame.end:
                raise ProtocolError("data came where a message was due")
            frame = self.receive()
        return None

    def receive_data(self) -> Buffer | None:
        """Wait for the next bytes of a parcel and return them; ``None`` after the last ones.

        Raises:
            ProtocolError: a message came where data was due.
            StreamCancelled, RemoteConnectionError: as :meth:`receive`.
        """
        while (frame := self.receive()) is not None:
            if frame.kind is not Kind.DATA:
                raise ProtocolError("a message came in the middle of a parcel")
            if frame.payload:
                return frame.payload
        return None

    def check(self) -> None:
        """Raise if it is of no use to work for this stream any more.

        Raises:
            StreamCancelled: the other side does not want the rest.
            RemoteConnectionError: the connection is dead.
        """
        self._mux.check(self)

    # -- the end -----------------------------------------------------------------------------------

    def break_off(self, reason: str) -> NoReturn:
        """End the whole connection: the peer breaks the protocol.

        Raises:
            RemoteConnectionError: always.
        """
        self._mux.fail(reason)
        raise RemoteConnectionError(self._mux.failure or reason)

    def cancel(self) -> None:
        """Give the stream up; what still comes is dropped. Idempotent, never raises."""
        self._mux.cancel(self)
