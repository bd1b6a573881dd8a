"""The rules of a conversation, without I/O.

One connection carries many *exchanges* at once. The client opens an exchange with a request; each
side then sends frames until one of them has END. The whole state of an exchange is in one table:

===============  ==================================  ============================================
state            this side may                       the other side may
===============  ==================================  ============================================
OPEN             send, end, cancel                   send, end, cancel
HALF             (client: has ended its request)     send, end, cancel
CANCELLED        nothing more                        send and end; all of it is dropped
(forgotten)      nothing                             be late: its frames are dropped
===============  ==================================  ============================================

An exchange is over when the server ends it, and both sides forget it then. The client numbers
exchanges 1, 2, 3, ...; a number that is not above all earlier ones and not in the table belongs to
a forgotten exchange, and what comes for it is late, not wrong. (The one exception: a client that
was interrupted before it could send its request sends a CANCEL alone, and the server ends that
exchange.)

In each exchange and direction, what is under way and not yet consumed is bounded by a window: a
frame costs its payload and :data:`FRAME_COST` (:func:`cost`), and may be sent while anything of
:data:`WINDOW` is left. More is a violation, so that memory is bounded whatever the peer does. The
receiver says with CREDIT how much it has consumed. A frame that is nothing but an END is free, so
that an exchange can always be ended.

Both sides use :class:`Session`; they differ only in who opens and whose END closes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from fleche.errors import ProtocolError
from fleche.parcel import Buffer
from fleche.remote.frames import Flag, Frame, Kind

__all__ = [
    "FEATURES",
    "FRAME_COST",
    "MAX_REQUESTS",
    "PROTOCOL",
    "WINDOW",
    "Cancelled",
    "Credited",
    "Event",
    "Heard",
    "Received",
    "Refused",
    "Session",
    "Side",
    "State",
    "cost",
]

PROTOCOL = 1
"""Version of frames, messages and rules."""

FEATURES: tuple[str, ...] = ("upkeep",)
"""What a server can beyond protocol version 1: ``upkeep`` is to keep house when asked to."""

WINDOW = 16 << 20
"""What may be under way in each exchange and direction; see :func:`cost`."""

FRAME_COST = 1 << 10
GRANT = 1 << 16
"""The receiver says how much it has consumed when it is so much."""

MAX_REQUESTS = 256
"""How many exchanges a server has open at once, unless it says otherwise in its greeting."""

MAX_PING = 64
_COUNT = struct.Struct("<I")

Side: TypeAlias = Literal["client", "server"]


class State(Enum):
    """State of an exchange, as in the table above."""

    OPEN = "open"
    HALF = "half"
    CANCELLED = "cancelled"


@dataclass
class _Exchange:
    state: State
    send_credit: int = WINDOW
    receive_credit: int = WINDOW
    consumed: int = 0
    peer_ended: bool = False


@dataclass(frozen=True)
class Received:
    """A frame of an exchange has come. ``opening``: it is the first of a new one."""

    exchange: int
    frame: Frame
    opening: bool = False


@dataclass(frozen=True)
class Credited:
    """More may be sent in this exchange."""

    exchange: int


@dataclass(frozen=True)
class Cancelled:
    """The other side does not want the rest of this exchange."""

    exchange: int


@dataclass(frozen=True)
class Refused:
    """A request has come for which there is no room; the client is to be told to send it again."""

    exchange: int


@dataclass(frozen=True)
class Heard:
    """The peer is alive; ``reply`` is to be sent, if there is one."""

    reply: Frame | None = None


Event: TypeAlias = Received | Credited | Cancelled | Refused | Heard


class Session:
    """The state of all exchanges of one connection, as one side sees it.

    Attributes:
        limit: how many exchanges may be open at once, as the server has told in its greeting. An
            exchange counts until the server has ended it. The server forgets it before that END
            goes out, so that a client that counts along is never refused.
    """

    def __init__(self, side: Side, limit: int | None = None) -> None:
        self.side: Side = side
        self.limit = MAX_REQUESTS if limit is None else limit
        self._exchanges: dict[int, _Exchange] = {}
        self._highest = 0

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def has_room(self) -> bool:
        """Whether one more exchange may be opened now."""
        return len(self._exchanges) < self.limit

    def state(self, exchange: int) -> State | None:
        """Return the state of an exchange; ``None`` if it is over or never was."""
        found = self._exchanges.get(exchange)
        return found.state if found else None

    # -- sending -----------------------------------------------------------------------------------

    def open(self) -> int:
        """Begin an exchange (client only) and return its number; its request is to be sent next."""
        if self.side != "client":
            raise ProtocolError("only the client opens exchanges")
        if not self.has_room:
            raise ProtocolError(f"{self.limit} exchanges are open, and the server has no room")
        self._highest += 1
        self._exchanges[self._highest] = _Exchange(State.OPEN)
        return self._highest

    def may_send(self, exchange: int, *, bare_end: bool = False, ahead: int = WINDOW) -> bool:
        """Tell whether a frame may be sent now; if not, a :class:`Credited` will say when.

        Args:
            exchange: which exchange.
            bare_end: the frame is nothing but an END, which needs no credit.
            ahead: how much may be under way; at most the window.

        Raises:
            ProtocolError: this side has ended or cancelled the exchange, or it is over.
        """
        found = self._sending(exchange)
        return bare_end or found.send_credit > WINDOW - ahead

    def send(self, exchange: int, kind: Kind, payload: Buffer, flags: int = 0) -> Frame:
        """Return the frame to write and take note of it.

        Raises:
            ProtocolError: :meth:`may_send` is not true.
        """
        found = self._sending(exchange)
        price = cost(flags, payload)
        if price and found.send_credit <= 0:
            raise ProtocolError(f"exchange {exchange}: the window is full")
        found.send_credit -= price
        if flags & Flag.END:
            if self.side == "server":
                del self._exchanges[exchange]
            else:
                found.state = State.HALF
        return Frame(kind, exchange, int(flags), payload)

    def consumed(self, frame: Frame) -> Frame | None:
        """Take note that a received frame was used up; return a CREDIT to write when it is time."""
        found = self._exchanges.get(frame.exchange)
        if found is None or found.state is State.CANCELLED:
            return None
        found.consumed += cost(frame.flags, frame.payload)
        if found.consumed < GRANT:
            return None
        return self._grant(frame.exchange, found)

    def cancel(self, exchange: int) -> Frame | None:
        """Give up an exchange; return the CANCEL to write, if it is not over already."""
        found = self._exchanges.get(exchange)
        if found is None or found.state is State.CANCELLED:
            return None
        found.state = State.CANCELLED
        return Frame(Kind.CANCEL, exchange)

    # -- receiving ---------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> Event | None:
        """Take a frame from the peer and return what it means; ``None``: nothing.

        Raises:
            ProtocolError: the rules do not allow it; the connection is of no more use.
        """
        if frame.kind is Kind.PING:
            if len(frame.payload) > MAX_PING:
                raise ProtocolError(f"a PING of {len(frame.payload)} bytes")
            return Heard(Frame(Kind.PONG, 0, 0, bytes(frame.payload)))
        if frame.kind is Kind.PONG:
            return Heard()
        found = self._exchanges.get(frame.exchange)
        if found is None:
            return self._receive_unknown(frame)
        if frame.kind is Kind.CREDIT:
            found.send_credit = min(WINDOW, found.send_credit + _read_count(frame))
            return Credited(frame.exchange)
        if frame.kind is Kind.CANCEL:
            return self._receive_cancel(frame.exchange)
        return self._receive_content(frame, found)

    def _receive_unknown(self, frame: Frame) -> Event | None:
        if frame.exchange <= self._highest:
            return None
        if self.side == "server" and frame.kind is Kind.CANCEL:
            self._highest = frame.exchange
            return Heard(Frame(Kind.DATA, frame.exchange, Flag.END))
        if self.side == "client" or frame.kind is not Kind.MESSAGE:
            raise ProtocolError(
                f"a {frame.kind.name} frame for exchange {frame.exchange}, never opened"
            )
        self._highest = frame.exchange
        if not self.has_room:
            return Refused(frame.exchange)
        opened = _Exchange(State.OPEN, peer_ended=frame.end)
        opened.receive_credit -= cost(frame.flags, frame.payload)
        self._exchanges[frame.exchange] = opened
        return Received(frame.exchange, frame, opening=True)

    def _receive_cancel(self, exchange: int) -> Event | None:
        if self.side == "client":
            raise ProtocolError("the server cannot cancel an exchange; it ends it")
        return Cancelled(exchange)

    def _receive_content(self, frame: Frame, found: _Exchange) -> Event | None:
        if found.peer_ended:
            raise ProtocolError(f"exchange {frame.exchange}: a frame after the END")
        found.peer_ended = frame.end
        price = cost(frame.flags, frame.payload)
        if price and found.receive_credit <= 0 and found.state is not State.CANCELLED:
            raise ProtocolError(f"exchange {frame.exchange}: more than the window allows")
        found.receive_credit -= price
        if frame.end and self.side == "client":
            del self._exchanges[frame.exchange]
        if found.state is State.CANCELLED:
            return None
        return Received(frame.exchange, frame)

    # -- details -----------------------------------------------------------------------------------

    def _sending(self, exchange: int) -> _Exchange:
        found = self._exchanges.get(exchange)
        if found is None or found.state is not State.OPEN:
            state = "over" if found is None else found.state.value
            raise ProtocolError(f"exchange {exchange} is {state}; nothing may be sent")
        return found

    def _grant(self, exchange: int, found: _Exchange) -> Frame:
        count, found.consumed = found.consumed, 0
        found.receive_credit += count
        return Frame(Kind.CREDIT, exchange, 0, _COUNT.pack(count))


def cost(flags: int, payload: Buffer) -> int:
    """Return what a frame takes of the window: its bytes, and something for being a frame.

    A frame that is nothing but an END is free.
    """
    return len(payload) + FRAME_COST if payload or not flags & Flag.END else 0


def _read_count(frame: Frame) -> int:
    if len(frame.payload) != _COUNT.size:
        raise ProtocolError(f"a CREDIT of {len(frame.payload)} bytes")
    count: int = _COUNT.unpack(frame.payload)[0]
    return count
