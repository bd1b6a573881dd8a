"""The rules of a conversation: every state, every event, without I/O."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.errors import ProtocolError
from fleche.remote._frames import Flag, Frame, Kind
from fleche.remote._protocol import (
    CONNECTION_WINDOW,
    FRAME_COST,
    MAX_STREAMS,
    MESSAGE_LIMIT,
    WINDOW,
    Cancelled,
    Credited,
    Heard,
    Protocol,
    Received,
    Refused,
    State,
    cost,
)


def _credit(stream: int, count: int) -> Frame:
    return Frame(Kind.CREDIT, stream, 0, struct.pack("<I", count))


def _opened(*, end: bool = True) -> tuple[Protocol, Protocol, int]:
    """Return a client and a server between which one stream was opened."""
    client, server = Protocol("client"), Protocol("server")
    stream = client.open()
    request = client.send(stream, Kind.MESSAGE, b"request", Flag.END if end else Flag.NONE)
    assert server.receive(request) == Received(stream, request, opening=True)
    return client, server, stream


class TestStream:
    """The life of a stream."""

    def test_question_and_answer(self) -> None:
        """A request, an answer, and both sides have forgotten it."""
        client, server, stream = _opened()
        assert client.state(stream) is State.HALF
        answer = server.send(stream, Kind.MESSAGE, b"answer", Flag.END)
        assert client.receive(answer) == Received(stream, answer)
        assert len(client) == len(server) == 0

    def test_numbers_rise(self) -> None:
        """Streams are numbered from one."""
        client = Protocol("client")
        assert [client.open() for _ in range(3)] == [1, 2, 3]

    def test_only_the_client_opens(self) -> None:
        """A server opens nothing."""
        with pytest.raises(ProtocolError, match="only the client"):
            Protocol("server").open()

    def test_many_at_once(self) -> None:
        """Streams do not disturb each other, and end in any order."""
        client, server = Protocol("client"), Protocol("server")
        numbers = [client.open() for _ in range(5)]
        for number in numbers:
            server.receive(client.send(number, Kind.MESSAGE, b"", Flag.END))
        for number in reversed(numbers):
            client.receive(server.send(number, Kind.DATA, b"", Flag.END))
        assert len(client) == len(server) == 0

    def test_nothing_after_the_end(self) -> None:
        """Who has said END says nothing more."""
        client, server, stream = _opened()
        with pytest.raises(ProtocolError, match="half"):
            client.send(stream, Kind.DATA, b"more")
        server.send(stream, Kind.DATA, b"", Flag.END)
        with pytest.raises(ProtocolError, match="over"):
            server.send(stream, Kind.DATA, b"more")

    def test_late_frames(self) -> None:
        """What was under way when the other side ended is dropped."""
        client, server, stream = _opened(end=False)
        late = client.send(stream, Kind.DATA, b"upload")
        server.send(stream, Kind.MESSAGE, b"refused", Flag.END)
        assert server.receive(late) is None
        assert server.receive(Frame(Kind.CANCEL, stream)) is None
        assert server.receive(_credit(stream, 1)) is None

    def test_too_many(self) -> None:
        """A server takes as many at once as it says, and the next one is to be told."""
        server = Protocol("server", 3)
        for number in range(1, 4):
            server.receive(Frame(Kind.MESSAGE, number))
        assert server.receive(Frame(Kind.MESSAGE, 4)) == Refused(4)
        assert server.receive(Frame(Kind.DATA, 4, 0, b"late")) is None
        server.send(2, Kind.DATA, b"", Flag.END)
        assert isinstance(server.receive(Frame(Kind.MESSAGE, 5)), Received)

    def test_a_client_counts_along(self) -> None:
        """To a client a stream is open until its END has come, when the server has forgotten it.

        So a client that keeps to the limit is never refused, however late things arrive.
        """
        client, server = Protocol("client", 2), Protocol("server", 2)
        for _ in range(2):
            server.receive(client.send(client.open(), Kind.MESSAGE, b"", Flag.END))
        assert not client.may_open
        with pytest.raises(ProtocolError, match="no room"):
            client.open()
        cancelled = client.cancel(1)
        assert cancelled is not None
        server.receive(cancelled)
        assert not client.may_open
        end = server.send(1, Kind.DATA, b"", Flag.END)
        assert server.may_open
        assert not client.may_open
        client.receive(end)
        assert client.may_open

    def test_the_usual_limit(self) -> None:
        """What is not said is a default."""
        assert Protocol("server").limit == Protocol("client").limit == MAX_STREAMS


PIECE = bytes((1 << 20) - FRAME_COST)
PIECES = WINDOW >> 20


class TestWindow:
    """Neither side sends more than the other has room for."""

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
        assert cost(flags, len(payload)) == price

    def test_a_window_and_no_more(self) -> None:
        """A frame may be sent while anything of the window is left."""
        client, server, stream = _opened(end=False)
        for _ in range(PIECES):
            assert client.may_send(stream)
            server.receive(client.send(stream, Kind.DATA, PIECE))
        assert not client.may_send(stream)
        with pytest.raises(ProtocolError, match="window"):
            client.send(stream, Kind.DATA, b"x")

    def test_less_than_the_window(self) -> None:
        """A sender may keep to less, so that a reader who stops early has had little."""
        client, _, stream = _opened(end=False)
        assert client.may_send(stream, ahead=1 << 20)
        client.send(stream, Kind.DATA, PIECE)
        assert not client.may_send(stream, ahead=1 << 20)
        assert client.may_send(stream)

    def test_credit(self) -> None:
        """What is consumed comes back as credit, small frames in a lump."""
        client, server, stream = _opened(end=False)
        for _ in range(PIECES):
            server.receive(client.send(stream, Kind.DATA, PIECE))
        server.release(Frame(Kind.DATA, stream, 0, b""))
        assert server.credits_due() == []
        server.release(Frame(Kind.DATA, stream, 0, PIECE))
        of_the_connection, of_the_stream = server.credits_due()
        assert of_the_stream.payload == struct.pack("<I", (1 << 20) + FRAME_COST)
        assert client.receive(of_the_stream) == Credited(stream)
        assert of_the_connection == _credit(0, (1 << 20) + FRAME_COST)
        assert client.receive(of_the_connection) == Credited(0)
        assert server.credits_due() == []
        assert client.may_send(stream)

    def test_an_end_needs_no_credit(self) -> None:
        """A stream can always be ended."""
        client, server, stream = _opened(end=False)
        for _ in range(PIECES):
            server.receive(client.send(stream, Kind.DATA, PIECE))
        assert client.may_send(stream, bare_end=True)
        end = client.send(stream, Kind.DATA, b"", Flag.END)
        assert server.receive(end) == Received(stream, end)

    def test_a_violation(self) -> None:
        """More than the window is the end of the conversation."""
        server = Protocol("server")
        server.receive(Frame(Kind.MESSAGE, 1))
        with pytest.raises(ProtocolError, match="window"):
            for _ in range(PIECES + 1):
                server.receive(Frame(Kind.DATA, 1, 0, PIECE))

    def test_many_empty_frames(self) -> None:
        """Empty frames cost, too: they take memory."""
        server = Protocol("server")
        server.receive(Frame(Kind.MESSAGE, 1))
        with pytest.raises(ProtocolError, match="window"):
            for _ in range(WINDOW // FRAME_COST + 1):
                server.receive(Frame(Kind.DATA, 1))

    def test_forged_credit(self) -> None:
        """Credit never exceeds the window, whatever the peer grants."""
        client, _, stream = _opened(end=False)
        client.receive(_credit(stream, 0xFFFFFFFF))
        for _ in range(PIECES):
            client.send(stream, Kind.DATA, PIECE)
        assert not client.may_send(stream)

    def test_a_credit_of_the_wrong_size(self) -> None:
        """A CREDIT is four bytes."""
        client, _, stream = _opened(end=False)
        with pytest.raises(ProtocolError, match="CREDIT"):
            client.receive(Frame(Kind.CREDIT, stream, 0, b"12345"))

    def test_no_credit_for_what_nobody_waits_for(self) -> None:
        """A cancelled stream grants nothing, so that its sender stops."""
        client, _, stream = _opened()
        client.cancel(stream)
        client.release(Frame(Kind.DATA, stream, 0, PIECE))
        assert client.credits_due() == []


class TestConnectionWindow:
    """A server never holds more than one window, however many streams there are."""

    def _filled(self) -> tuple[Protocol, Protocol, list[int], list[Frame]]:
        """Return two sides between which uploads have used up the window of the connection."""
        client, server = Protocol("client"), Protocol("server")
        streams = []
        for _ in range(1 + CONNECTION_WINDOW // WINDOW):
            streams.append(client.open())
            server.receive(client.send(streams[-1], Kind.MESSAGE, b"upload"))
        sent = []
        for stream in streams:
            while client.may_send(stream):
                sent.append(client.send(stream, Kind.DATA, PIECE))
                server.receive(sent[-1])
        return client, server, streams, sent

    def test_uploads_share_it(self) -> None:
        """What all uploads have under way together is bounded."""
        client, server, streams, sent = self._filled()
        assert sum(len(frame.payload) for frame in sent) <= CONNECTION_WINDOW
        assert not client.may_open
        assert client.may_send(streams[-1], bare_end=True)
        with pytest.raises(ProtocolError, match="window of the connection"):
            server.receive(Frame(Kind.DATA, streams[-1], 0, PIECE))

    def test_what_is_used_up_comes_back(self) -> None:
        """Data, as it is stored."""
        client, server, streams, sent = self._filled()
        server.release(sent[0])
        for credit in server.credits_due():
            client.receive(credit)
        assert client.may_open
        assert client.may_send(streams[-1])

    def test_what_is_over_comes_back(self) -> None:
        """When a server ends a stream, all that it held is free, and what is late is, too."""
        client, server, streams, _ = self._filled()
        late = Frame(Kind.DATA, streams[0], 0, PIECE)
        client.receive(server.send(streams[0], Kind.MESSAGE, b"refused", Flag.END))
        server.receive(late)
        (credit,) = server.credits_due()
        (count,) = struct.unpack("<I", credit.payload)
        assert (credit.stream_id, count > WINDOW) == (0, True)

    def test_a_request_counts_until_it_is_answered(self) -> None:
        """What a server makes of a request lives as long as the request."""
        client, server = Protocol("client"), Protocol("server")
        stream = client.open()
        request = client.send(stream, Kind.MESSAGE, PIECE + PIECE, Flag.END)
        server.receive(request)
        server.release(request)
        assert server.credits_due() == []
        server.send(stream, Kind.DATA, b"", Flag.END)
        assert [frame.stream_id for frame in server.credits_due()] == [0]

    def test_messages_are_not_mixed(self) -> None:
        """A message begins when the one before is whole, so that none waits half-way for room."""
        server = Protocol("server")
        server.receive(Frame(Kind.MESSAGE, 1, Flag.MORE, PIECE))
        with pytest.raises(ProtocolError, match="before that of stream 1 had ended"):
            server.receive(Frame(Kind.MESSAGE, 2, Flag.END, b"short"))

    @pytest.mark.parametrize("how", ["cancelled", "over"])
    def test_but_for_one_that_is_not_wanted(self, how: str) -> None:
        """A message that will never be whole stops no other."""
        server = Protocol("server")
        server.receive(Frame(Kind.MESSAGE, 1, Flag.MORE, PIECE))
        if how == "cancelled":
            server.receive(Frame(Kind.CANCEL, 1))
        else:
            server.send(1, Kind.MESSAGE, b"refused", Flag.END)
            assert server.receive(Frame(Kind.MESSAGE, 1, Flag.MORE, PIECE)) == Refused(1)
        request = Frame(Kind.MESSAGE, 2, Flag.END, b"short")
        assert server.receive(request) == Received(2, request, opening=True)

    def test_a_message_that_has_begun_may_end(self) -> None:
        """Even when there is no room left meanwhile."""
        client, server, streams, sent = self._filled()
        server.release(sent[0])
        for credit in server.credits_due():
            client.receive(credit)
        stream = client.open()
        for start in range(0, MESSAGE_LIMIT, len(PIECE)):
            last = start + len(PIECE) >= MESSAGE_LIMIT
            piece = PIECE[: MESSAGE_LIMIT - start]
            flags = Flag.END if last else Flag.MORE
            server.receive(client.send(stream, Kind.MESSAGE, piece, flags))
        assert not client.may_send(streams[-1])

    def test_a_message_without_an_end(self) -> None:
        """It has a bound of its own."""
        server = Protocol("server")
        with pytest.raises(ProtocolError, match=str(MESSAGE_LIMIT)):
            for _ in range(MESSAGE_LIMIT // len(PIECE) + 1):
                server.receive(Frame(Kind.MESSAGE, 1, Flag.MORE, PIECE))

    def test_compressed_bytes_count_as_what_they_become(self) -> None:
        """A sender charges what a receiver will have to hold."""
        client, _, stream = _opened(end=False)
        for _ in range(PIECES):
            client.send(stream, Kind.DATA, b"packed", Flag.ZLIB, size=len(PIECE))
        assert not client.may_send(stream)


class TestCancel:
    """The client may lose interest."""

    def test_what_comes_is_dropped(self) -> None:
        """After CANCEL, frames are dropped until the server ends the stream."""
        client, server, stream = _opened()
        cancel = client.cancel(stream)
        assert cancel == Frame(Kind.CANCEL, stream)
        assert server.receive(cancel) == Cancelled(stream)
        assert client.receive(server.send(stream, Kind.DATA, b"x")) is None
        assert client.state(stream) is State.CANCELLED
        assert client.receive(server.send(stream, Kind.DATA, b"", Flag.END)) is None
        assert len(client) == len(server) == 0

    def test_twice(self) -> None:
        """Only the first cancel is sent, and none after the end."""
        client, server, stream = _opened()
        client.cancel(stream)
        assert client.cancel(stream) is None
        client.receive(server.send(stream, Kind.DATA, b"", Flag.END))
        assert client.cancel(stream) is None

    def test_not_by_the_server(self) -> None:
        """A server ends what it does not want to answer; it never cancels."""
        client, _, stream = _opened()
        with pytest.raises(ProtocolError, match="cannot cancel"):
            client.receive(Frame(Kind.CANCEL, stream))

    def test_a_cancelled_stream_may_be_flooded(self) -> None:
        """What was under way when the CANCEL was sent is no violation."""
        client, server, stream = _opened()
        client.cancel(stream)
        for _ in range(PIECES):
            client.receive(server.send(stream, Kind.DATA, PIECE))


class TestAlive:
    """Pings and pongs."""

    @pytest.mark.parametrize("side", ["client", "server"])
    def test_ping(self, side: str) -> None:
        """Either side answers a PING with its payload."""
        protocol = Protocol(side)  # type: ignore[arg-type]
        event = protocol.receive(Frame(Kind.PING, 0, 0, b"12"))
        assert event == Heard(0, Frame(Kind.PONG, 0, 0, b"12"))
        assert protocol.receive(Frame(Kind.PONG, 0, 0, b"12")) == Heard()

    def test_a_ping_about_a_stream(self) -> None:
        """A server says whether it knows the stream, so that no client waits for what is lost."""
        _, server, stream = _opened()
        known = Heard(stream, Frame(Kind.PONG, stream, 0, b""))
        assert server.receive(Frame(Kind.PING, stream)) == known
        server.send(stream, Kind.DATA, b"", Flag.END)
        assert server.receive(Frame(Kind.PING, stream)) == Refused(stream)


class TestUnknown:
    """Frames for streams that never were."""

    @pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.DATA, Kind.CREDIT, Kind.CANCEL])
    def test_at_the_client(self, kind: Kind) -> None:
        """The client knows all streams that there can be."""
        with pytest.raises(ProtocolError, match=r"never opened|cannot cancel"):
            Protocol("client").receive(Frame(kind, 1))

    @pytest.mark.parametrize("kind", [Kind.DATA, Kind.CREDIT])
    def test_at_the_server(self, kind: Kind) -> None:
        """A stream begins with a message."""
        with pytest.raises(ProtocolError, match="never opened"):
            Protocol("server").receive(Frame(kind, 1))


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
    protocol = Protocol(side)  # type: ignore[arg-type]
    if side == "client":
        for _ in range(3):
            protocol.send(protocol.open(), Kind.MESSAGE, b"")
    try:
        for frame in received:
            protocol.receive(frame)
    except ProtocolError:
        pass
    assert len(protocol) <= 6
