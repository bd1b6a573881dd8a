"""The rules of a connection, without I/O.

A connection carries many *streams* at once, each of them one request and its answer. The client
opens a stream with a request; each side then sends frames until one of them has END. The whole
state of a stream is in one table:

===============  ==================================  ============================================
state            this side may                       the other side may
===============  ==================================  ============================================
OPEN             send, end, cancel                   send, end, cancel
HALF             (client: has ended its request)     send, end, cancel
CANCELLED        nothing more                        send and end; all of it is dropped
(forgotten)      nothing                             be late: its frames are dropped
===============  ==================================  ============================================

A stream is over when the server ends it, and both sides forget it then. The client numbers streams
1, 2, 3, ... in the order in which their first frames are written; a number that is not above all
earlier ones and not in the table belongs to a forgotten stream, and what comes for it is late, not
wrong.

Three bounds keep the memory of a receiver small, whatever the peer does. All of them count bytes
as they are after decompression, and something for each frame (:func:`cost`); a frame may be sent
while anything is left.

- In each stream and direction, :data:`WINDOW` may be under way and not used up.
- From client to server, :data:`CONNECTION_WINDOW` may be, in all streams together. DATA counts
  until it is used up, a request until it is answered. So the bound holds for what a server
  collects, too.
- A message has at most :data:`MESSAGE_LIMIT` bytes. From client to server, the frames of one
  message are not mixed with those of another, and what has begun may be finished even when the
  window of the connection is used up meanwhile. So messages cannot block each other half-way.

The receiver says with CREDIT what it has used up, of a stream or (stream 0) of the connection. A
frame that is nothing but an END is free, so that a stream can always be ended.

Both sides use :class:`Protocol`; they differ in which side opens streams and whose END closes them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from fleche.errors import ProtocolError
from fleche.parcel import Buffer
from fleche.remote._frames import Flag, Frame, Kind

__all__ = [
    "CONNECTION_WINDOW",
    "FRAME_COST",
    "MAX_STREAMS",
    "MESSAGE_LIMIT",
    "PROTOCOL",
    "WINDOW",
    "Cancelled",
    "Credited",
    "Event",
    "Heard",
    "Protocol",
    "Received",
    "Refused",
    "Side",
    "State",
    "cost",
]

PROTOCOL = 1
"""Version of frames, messages and rules."""

WINDOW = 16 << 20
CONNECTION_WINDOW = 32 << 20
MESSAGE_LIMIT = 8 << 20
FRAME_COST = 1 << 10

GRANT = 1 << 16
"""CREDIT is due when so much of a stream has been used up."""

CONNECTION_GRANT = 1 << 20
"""The same for the connection."""

MAX_STREAMS = 64
"""How many streams a server has open at once, unless it says otherwise in its greeting."""

MAX_PING = 64
_COUNT = struct.Struct("<I")

Side: TypeAlias = Literal["client", "server"]


class State(Enum):
    """State of a stream, as in the table above."""

    OPEN = "open"
    HALF = "half"
    CANCELLED = "cancelled"


@dataclass
class _Stream:
    """What is counted of one stream.

    Attributes:
        send_credit: what may still be sent.
        receive_credit: what the peer may still send.
        used: what has been used up since the last CREDIT.
        held: what the stream takes of the connection's window (server).
        message: bytes so far of the message that is being received.
        peer_ended: the peer has sent its END.
    """

    state: State
    send_credit: int = WINDOW
    receive_credit: int = WINDOW
    used: int = 0
    held: int = 0
    message: int = 0
    peer_ended: bool = False


@dataclass(frozen=True)
class Received:
    """A frame of a stream has come. ``opening``: it is the first of a new one."""

    stream_id: int
    frame: Frame
    opening: bool = False


@dataclass(frozen=True)
class Credited:
    """More may be sent in this stream; in any, if it is 0."""

    stream_id: int


@dataclass(frozen=True)
class Cancelled:
    """The other side does not want the rest of this stream."""

    stream_id: int


@dataclass(frozen=True)
class Refused:
    """A request has come that cannot be taken; the client is to be told to send it again."""

    stream_id: int


@dataclass(frozen=True)
class Heard:
    """The peer is alive, and so is the stream (0: none); ``reply`` is to be sent, if any."""

    stream_id: int = 0
    reply: Frame | None = None


Event: TypeAlias = Received | Credited | Cancelled | Refused | Heard


class Protocol:
    """The state of all streams of one connection, as one side sees it.

    Attributes:
        limit: how many streams may be open at once, as the server has told in its greeting. A
            stream counts until the server has ended it. The server forgets it before that END goes
            out, so that a client that counts along is never refused.
        due: the streams to which CREDIT is to be written; 0 is the connection.
    """

    def __init__(self, side: Side, limit: int | None = None) -> None:
        self.side: Side = side
        self.limit = MAX_STREAMS if limit is None else limit
        self._streams: dict[int, _Stream] = {}
        self._highest = 0
        self._credit = CONNECTION_WINDOW  # a client's to send, a server's to receive
        self._released = 0
        self._message: int | None = None  # the stream whose message has begun to come (server)
        self.due: dict[int, None] = {}  # an ordered set

    def __len__(self) -> int:
        return len(self._streams)

    def state(self, stream_id: int) -> State | None:
        """Return the state of a stream; ``None`` if it is over or never was."""
        found = self._streams.get(stream_id)
        return found.state if found else None

    # -- sending -----------------------------------------------------------------------------------

    @property
    def may_open(self) -> bool:
        """Whether one more stream may be opened now."""
        return len(self._streams) < self.limit and self._credit > 0

    def open(self) -> int:
        """Begin a stream (client only) and return its number; its request is to be written next.

        Raises:
            ProtocolError: :attr:`may_open` is not true.
        """
        if self.side != "client":
            raise ProtocolError("only the client opens streams")
        if not self.may_open:
            raise ProtocolError(f"{len(self)} streams are open; the server has no room")
        self._highest += 1
        self._streams[self._highest] = _Stream(State.OPEN)
        return self._highest

    def may_send(self, stream_id: int, *, bare_end: bool = False, ahead: int = WINDOW) -> bool:
        """Return whether a frame may be sent now; if not, a :class:`Credited` will say when.

        Args:
            stream_id: in which stream.
            bare_end: the frame is nothing but an END, which needs no credit.
            ahead: how much may be under way; at most the window.

        Raises:
            ProtocolError: this side has ended or cancelled the stream, or it is over.
        """
        found = self._sending(stream_id)
        if bare_end:
            return True
        open_ = self.side == "server" or self._credit > 0
        return open_ and found.send_credit > WINDOW - ahead

    def send(
        self, stream_id: int, kind: Kind, payload: Buffer, flags: int = 0, size: int | None = None
    ) -> Frame:
        """Return the frame to write and take note of it.

        Args:
            stream_id: in which stream.
            kind: what it is.
            payload: perhaps compressed.
            flags: which say so.
            size: length of the payload before compression; by default as it is.

        Raises:
            ProtocolError: there is no credit, or the stream is over.
        """
        found = self._sending(stream_id)
        price = cost(flags, len(payload) if size is None else size)
        if price and found.send_credit <= 0:
            raise ProtocolError(f"stream {stream_id}: the window is full")
        found.send_credit -= price
        if self.side == "client":
            self._credit -= price
        if flags & Flag.END:
            if self.side == "server":
                self._release(found.held)
                self._forget(stream_id)
            else:
                found.state = State.HALF
        return Frame(kind, stream_id, flags, payload)

    def release(self, frame: Frame) -> None:
        """Take note that a received frame was used up, and its memory is free."""
        found = self._streams.get(frame.stream_id)
        if found is None or found.state is State.CANCELLED:
            return
        price = cost(frame.flags, len(frame.payload))
        if self.side == "server":
            if frame.kind is Kind.MESSAGE:
                return  # it counts until the request is answered
            found.held -= price
            self._release(price)
        found.used += price
        if found.used >= GRANT and not found.peer_ended:
            self.due[frame.stream_id] = None

    def credits_due(self) -> list[Frame]:
        """Return the CREDIT frames to write now."""
        frames = []
        for stream_id in self.due:
            if stream_id == 0:
                count, self._released = self._released, 0
                self._credit += count
            elif (found := self._streams.get(stream_id)) is not None:
                count, found.used = found.used, 0
                found.receive_credit += count
            else:
                continue
            frames.append(Frame(Kind.CREDIT, stream_id, 0, _COUNT.pack(count)))
        self.due.clear()
        return frames

    def cancel(self, stream_id: int) -> Frame | None:
        """Give up a stream; return the CANCEL to write, if it is not over already."""
        found = self._streams.get(stream_id)
        if found is None or found.state is State.CANCELLED:
            return None
        found.state = State.CANCELLED
        return Frame(Kind.CANCEL, stream_id)

    # -- receiving ---------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> Event | None:
        """Take a decompressed frame from the peer and return what it means; ``None``: nothing.

        Raises:
            ProtocolError: the rules do not allow it; the connection is of no more use.
        """
        if frame.kind is Kind.PING:
            return self._receive_ping(frame)
        if frame.kind is Kind.PONG:
            return Heard(frame.stream_id)
        if frame.kind is Kind.CREDIT and not frame.stream_id:
            if self.side == "server":
                raise ProtocolError("credit for a direction that has no window")
            self._credit = min(CONNECTION_WINDOW, self._credit + _read_count(frame))
            return Credited(0)
        found = self._streams.get(frame.stream_id)
        if frame.kind is Kind.CREDIT:
            return self._receive_credit(frame, found)
        if frame.kind is Kind.CANCEL:
            return self._receive_cancel(frame, found)
        if self.side == "server":
            self._charge(frame, found)
        if found is None:
            return self._receive_unknown(frame)
        return self._receive_content(frame, found)

    def _receive_ping(self, frame: Frame) -> Event | None:
        if len(frame.payload) > MAX_PING:
            raise ProtocolError(f"a PING of {len(frame.payload)} bytes")
        if self.side == "server" and frame.stream_id and frame.stream_id not in self._streams:
            return Refused(frame.stream_id)
        reply = Frame(Kind.PONG, frame.stream_id, 0, bytes(frame.payload))
        return Heard(frame.stream_id, reply)

    def _receive_credit(self, frame: Frame, found: _Stream | None) -> Event | None:
        if found is None:
            self._check_late(frame)
            return None
        found.send_credit = min(WINDOW, found.send_credit + _read_count(frame))
        return Credited(frame.stream_id)

    def _receive_cancel(self, frame: Frame, found: _Stream | None) -> Event | None:
        if self.side == "client":
            raise ProtocolError("the server cannot cancel a stream; it ends it")
        if found is None:
            self._check_late(frame)
            return None
        if self._message == frame.stream_id:
            self._message = None
        return Cancelled(frame.stream_id)

    def _check_late(self, frame: Frame) -> None:
        if frame.stream_id > self._highest or not frame.stream_id:
            raise ProtocolError(
                f"a {frame.kind.name} frame for stream {frame.stream_id}, never opened"
            )

    def _charge(self, frame: Frame, found: _Stream | None) -> None:
        """Check the window of the connection, and that no message begins within another."""
        price = cost(frame.flags, len(frame.payload))
        begun, message = self._message, frame.kind is Kind.MESSAGE
        goes_on = message and begun == frame.stream_id
        if message:
            if begun is not None and not goes_on and begun in self._streams:
                raise ProtocolError(f"a message began before that of stream {begun} had ended")
            self._message = frame.stream_id if frame.flags & Flag.MORE else None
        if found is None and frame.stream_id <= self._highest:
            self._release(price)  # it is late, and dropped
        elif price and self._credit <= 0 and not goes_on:
            raise ProtocolError("more than the window of the connection allows")
        self._credit -= price

    def _receive_unknown(self, frame: Frame) -> Event | None:
        """Handle a frame of a stream that is not in the table: of a new one, or a late one."""
        if self.side == "client" or (
            frame.kind is not Kind.MESSAGE and frame.stream_id > self._highest
        ):
            self._check_late(frame)
            return None
        if not frame.stream_id:
            raise ProtocolError("a message for stream 0")
        if frame.stream_id <= self._highest:
            return Refused(frame.stream_id) if frame.kind is Kind.MESSAGE else None
        self._highest = frame.stream_id
        if len(self._streams) >= self.limit:
            self._release(cost(frame.flags, len(frame.payload)))
            return Refused(frame.stream_id)
        opened = self._streams[frame.stream_id] = _Stream(State.OPEN)
        return self._receive_content(frame, opened, opening=True)

    def _receive_content(
        self, frame: Frame, found: _Stream, *, opening: bool = False
    ) -> Event | None:
        if found.peer_ended:
            raise ProtocolError(f"stream {frame.stream_id}: a frame after the END")
        found.peer_ended = frame.end
        price = cost(frame.flags, len(frame.payload))
        if price and found.receive_credit <= 0 and found.state is not State.CANCELLED:
            raise ProtocolError(f"stream {frame.stream_id}: more than the window allows")
        found.receive_credit -= price
        found.held += price
        if frame.kind is Kind.MESSAGE:
            found.message += len(frame.payload)
            if found.message > MESSAGE_LIMIT:
                raise ProtocolError(f"a message of more than {MESSAGE_LIMIT} bytes")
            if not frame.flags & Flag.MORE:
                found.message = 0
        cancelled = found.state is State.CANCELLED
        if found.peer_ended and self.side == "client":
            self._forget(frame.stream_id)
        return None if cancelled else Received(frame.stream_id, frame, opening)

    # -- details -----------------------------------------------------------------------------------

    def _sending(self, stream_id: int) -> _Stream:
        found = self._streams.get(stream_id)
        if found is None or found.state is not State.OPEN:
            state = "over" if found is None else found.state.value
            raise ProtocolError(f"stream {stream_id} is {state}; nothing may be sent")
        return found

    def _release(self, price: int) -> None:
        self._released += price
        if self._released >= CONNECTION_GRANT:
            self.due[0] = None

    def _forget(self, stream_id: int) -> None:
        del self._streams[stream_id]


def cost(flags: int, size: int) -> int:
    """Return what a frame of ``size`` bytes takes of a window: these, and something for itself.

    A frame that is nothing but an END is free.
    """
    return size + FRAME_COST if size or not flags & Flag.END else 0


def _read_count(frame: Frame) -> int:
    if len(frame.payload) != _COUNT.size:
        raise ProtocolError(f"a CREDIT of {len(frame.payload)} bytes")
    count: int = _COUNT.unpack(frame.payload)[0]
    return count
