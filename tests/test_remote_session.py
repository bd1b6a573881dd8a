"""The rules of a conversation: every state, every event, without I/O."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.errors import ProtocolError
from fleche.remote.frames import Flag, Frame, Kind
from fleche.remote.session import (
    FRAME_COST,
    MAX_REQUESTS,
    WINDOW,
    Cancelled,
    Credited,
    Heard,
    Received,
    Refused,
    Session,
    State,
    cost,
)


def _credit(exchange: int, count: int) -> Frame:
    return Frame(Kind.CREDIT, exchange, 0, struct.pack("<I", count))


def _opened(*, end: bool = True) -> tuple[Session, Session, int]:
    """Return a client and a server between which one exchange was opened."""
    client, server = Session("client"), Session("server")
    exchange = client.open()
    request = client.send(exchange, Kind.MESSAGE, b"request", Flag.END if end else Flag.NONE)
    assert server.receive(request) == Received(exchange, request, opening=True)
    return client, server, exchange


class TestExchange:
    """The life of an exchange."""

    def test_question_and_answer(self) -> None:
        """A request, an answer, and both sides have forgotten it."""
        client, server, exchange = _opened()
        assert client.state(exchange) is State.HALF
        answer = server.send(exchange, Kind.MESSAGE, b"answer", Flag.END)
        assert client.receive(answer) == Received(exchange, answer)
        assert len(client) == len(server) == 0

    def test_numbers_rise(self) -> None:
        """Exchanges are numbered from one."""
        client = Session("client")
        assert [client.open() for _ in range(3)] == [1, 2, 3]

    def test_only_the_client_opens(self) -> None:
        """A server opens nothing."""
        with pytest.raises(ProtocolError, match="only the client"):
            Session("server").open()

    def test_many_at_once(self) -> None:
        """Exchanges do not disturb each other, and end in any order."""
        client, server = Session("client"), Session("server")
        numbers = [client.open() for _ in range(5)]
        for number in numbers:
            server.receive(client.send(number, Kind.MESSAGE, b"", Flag.END))
        for number in reversed(numbers):
            client.receive(server.send(number, Kind.DATA, b"", Flag.END))
        assert len(client) == len(server) == 0

    def test_nothing_after_the_end(self) -> None:
        """Who has said END says nothing more."""
        client, server, exchange = _opened()
        with pytest.raises(ProtocolError, match="half"):
            client.send(exchange, Kind.DATA, b"more")
        server.send(exchange, Kind.DATA, b"", Flag.END)
        with pytest.raises(ProtocolError, match="over"):
            server.send(exchange, Kind.DATA, b"more")

    def test_late_frames(self) -> None:
        """What was under way when the other side ended is dropped."""
        client, server, exchange = _opened(end=False)
        late = client.send(exchange, Kind.DATA, b"upload")
        server.send(exchange, Kind.MESSAGE, b"refused", Flag.END)
        assert server.receive(late) is None
        assert server.receive(Frame(Kind.CANCEL, exchange)) is None
        assert server.receive(_credit(exchange, 1)) is None

    def test_too_many(self) -> None:
        """A server takes as many at once as it says, and the next one is to be told."""
        server = Session("server", 3)
        for number in range(1, 4):
            server.receive(Frame(Kind.MESSAGE, number))
        assert server.receive(Frame(Kind.MESSAGE, 4)) == Refused(4)
        assert server.receive(Frame(Kind.DATA, 4, 0, b"late")) is None
        server.send(2, Kind.DATA, b"", Flag.END)
        assert isinstance(server.receive(Frame(Kind.MESSAGE, 5)), Received)

    def test_a_client_counts_along(self) -> None:
        """To a client an exchange is open until its END has come, when the server has forgotten it.

        So a client that keeps to the limit is never refused, however late things arrive.
        """
        client, server = Session("client", 2), Session("server", 2)
        for _ in range(2):
            server.receive(client.send(client.open(), Kind.MESSAGE, b"", Flag.END))
        assert not client.has_room
        with pytest.raises(ProtocolError, match="no room"):
            client.open()
        cancelled = client.cancel(1)
        assert cancelled is not None
        server.receive(cancelled)
        assert not client.has_room
        end = server.send(1, Kind.DATA, b"", Flag.END)
        assert server.has_room
        assert not client.has_room
        client.receive(end)
        assert client.has_room

    def test_the_usual_limit(self) -> None:
        """What is not said is a default."""
        assert Session("server").limit == Session("client").limit == MAX_REQUESTS


PIECE = bytes((1 << 20) - FRAME_COST)
PIECES = WINDOW >> 20


class TestWindow:
    """Nobody sends more than the other side has room for."""

    @pytest.mark.parametrize(
        ("flags", "payload", "price"),
        [
            (0, b"abc", FRAME_COST + 3),
            (0, b"", FRAME_COST),
            (Flag.END, b"", 0),
            (Flag.END, b"x", FRAME_COST + 1),
        ],
    )
    def test_cost(self, flags: int, payload: bytes, price: int) -> None:
        """A frame costs its payload and something for itself; a mere END is free."""
        assert cost(flags, payload) == price

    def test_a_window_and_no_more(self) -> None:
        """A frame may be sent while anything of the window is left."""
        client, server, exchange = _opened(end=False)
        for _ in range(PIECES):
            assert client.may_send(exchange)
            server.receive(client.send(exchange, Kind.DATA, PIECE))
        assert not client.may_send(exchange)
        with pytest.raises(ProtocolError, match="window"):
            client.send(exchange, Kind.DATA, b"x")

    def test_less_than_the_window(self) -> None:
        """A sender may keep to less, so that a reader who stops early has had little."""
        client, _, exchange = _opened(end=False)
        assert client.may_send(exchange, ahead=1 << 20)
        client.send(exchange, Kind.DATA, PIECE)
        assert not client.may_send(exchange, ahead=1 << 20)
        assert client.may_send(exchange)

    def test_credit(self) -> None:
        """What is consumed comes back as credit, small frames in a lump."""
        client, server, exchange = _opened(end=False)
        for _ in range(PIECES):
            server.receive(client.send(exchange, Kind.DATA, PIECE))
        assert server.consumed(Frame(Kind.DATA, exchange, 0, b"")) is None
        grant = server.consumed(Frame(Kind.DATA, exchange, 0, PIECE))
        assert grant is not None
        assert grant.payload == struct.pack("<I", (1 << 20) + FRAME_COST)
        assert client.receive(grant) == Credited(exchange)
        assert client.may_send(exchange)

    def test_an_end_needs_no_credit(self) -> None:
        """An exchange can always be ended."""
        client, server, exchange = _opened(end=False)
        for _ in range(PIECES):
            server.receive(client.send(exchange, Kind.DATA, PIECE))
        assert client.may_send(exchange, bare_end=True)
        end = client.send(exchange, Kind.DATA, b"", Flag.END)
        assert server.receive(end) == Received(exchange, end)

    def test_a_violation(self) -> None:
        """More than the window is the end of the conversation."""
        server = Session("server")
        server.receive(Frame(Kind.MESSAGE, 1))
        with pytest.raises(ProtocolError, match="window"):
            for _ in range(PIECES + 1):
                server.receive(Frame(Kind.DATA, 1, 0, PIECE))

    def test_many_empty_frames(self) -> None:
        """Empty frames cost, too: they take memory."""
        server = Session("server")
        server.receive(Frame(Kind.MESSAGE, 1))
        with pytest.raises(ProtocolError, match="window"):
            for _ in range(WINDOW // FRAME_COST + 1):
                server.receive(Frame(Kind.DATA, 1))

    def test_forged_credit(self) -> None:
        """Credit never exceeds the window, whatever the peer grants."""
        client, _, exchange = _opened(end=False)
        client.receive(_credit(exchange, 0xFFFFFFFF))
        for _ in range(PIECES):
            client.send(exchange, Kind.DATA, PIECE)
        assert not client.may_send(exchange)

    def test_a_credit_of_the_wrong_size(self) -> None:
        """A CREDIT is four bytes."""
        client, _, exchange = _opened(end=False)
        with pytest.raises(ProtocolError, match="CREDIT"):
            client.receive(Frame(Kind.CREDIT, exchange, 0, b"12345"))

    def test_no_credit_for_what_nobody_waits_for(self) -> None:
        """A cancelled exchange grants nothing, so that its sender stops."""
        client, _, exchange = _opened()
        client.cancel(exchange)
        assert client.consumed(Frame(Kind.DATA, exchange, 0, PIECE)) is None


class TestCancel:
    """The client may lose interest."""

    def test_what_comes_is_dropped(self) -> None:
        """After CANCEL, frames are dropped until the server ends the exchange."""
        client, server, exchange = _opened()
        cancel = client.cancel(exchange)
        assert cancel == Frame(Kind.CANCEL, exchange)
        assert server.receive(cancel) == Cancelled(exchange)
        assert client.receive(server.send(exchange, Kind.DATA, b"x")) is None
        assert client.state(exchange) is State.CANCELLED
        assert client.receive(server.send(exchange, Kind.DATA, b"", Flag.END)) is None
        assert len(client) == len(server) == 0

    def test_twice(self) -> None:
        """Only the first cancel is sent, and none after the end."""
        client, server, exchange = _opened()
        client.cancel(exchange)
        assert client.cancel(exchange) is None
        client.receive(server.send(exchange, Kind.DATA, b"", Flag.END))
        assert client.cancel(exchange) is None

    def test_before_the_request_was_sent(self) -> None:
        """An interrupted client cancels what it never asked; the server ends that."""
        client, server = Session("client"), Session("server")
        exchange = client.open()
        cancel = client.cancel(exchange)
        assert cancel is not None
        event = server.receive(cancel)
        assert isinstance(event, Heard)
        assert event.reply is not None
        client.receive(event.reply)
        assert len(client) == len(server) == 0
        again = client.open()
        request = client.send(again, Kind.MESSAGE, b"", Flag.END)
        assert server.receive(request) == Received(again, request, opening=True)

    def test_not_by_the_server(self) -> None:
        """A server ends what it does not want to answer; it never cancels."""
        client, _, exchange = _opened()
        with pytest.raises(ProtocolError, match="cannot cancel"):
            client.receive(Frame(Kind.CANCEL, exchange))

    def test_a_cancelled_exchange_may_be_flooded(self) -> None:
        """What was under way when the CANCEL was sent is no violation."""
        client, server, exchange = _opened()
        client.cancel(exchange)
        for _ in range(PIECES):
            client.receive(server.send(exchange, Kind.DATA, PIECE))


class TestAlive:
    """Pings and pongs."""

    @pytest.mark.parametrize("side", ["client", "server"])
    def test_ping(self, side: str) -> None:
        """Either side answers a PING with its payload."""
        session = Session(side)  # type: ignore[arg-type]
        event = session.receive(Frame(Kind.PING, 0, 0, b"12"))
        assert event == Heard(Frame(Kind.PONG, 0, 0, b"12"))
        assert session.receive(Frame(Kind.PONG, 0, 0, b"12")) == Heard()


class TestUnknown:
    """Frames for exchanges that never were."""

    @pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.DATA, Kind.CREDIT, Kind.CANCEL])
    def test_at_the_client(self, kind: Kind) -> None:
        """The client knows all exchanges that there can be."""
        with pytest.raises(ProtocolError, match="never opened"):
            Session("client").receive(Frame(kind, 1))

    @pytest.mark.parametrize("kind", [Kind.DATA, Kind.CREDIT])
    def test_at_the_server(self, kind: Kind) -> None:
        """An exchange begins with a message."""
        with pytest.raises(ProtocolError, match="never opened"):
            Session("server").receive(Frame(kind, 1))


@given(
    st.sampled_from(["client", "server"]),
    st.lists(
        st.builds(
            Frame,
            st.sampled_from(list(Kind)),
            st.integers(0, 5),
            st.sampled_from([0, 1]),
            st.binary(max_size=4),
        )
    ),
)
def test_any_frames(side: str, received: list[Frame]) -> None:
    """Whatever a peer sends, there is an event or a ProtocolError, and little memory."""
    session = Session(side)  # type: ignore[arg-type]
    if side == "client":
        for _ in range(3):
            session.send(session.open(), Kind.MESSAGE, b"")
    try:
        for frame in received:
            session.receive(frame)
    except ProtocolError:
        pass
    assert len(session) <= 6
