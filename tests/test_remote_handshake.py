"""The first words: a client finds its server's answer in whatever comes before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.errors import ProtocolError
from fleche.remote._handshake import NOISE_LIMIT, ClientGreeting, ServerGreeting, mask

INFO = {"hostname": "bigpc", "pid": 7, "cache": {"type": "memory"}}


def _answer(client: ClientGreeting, protocols: tuple[int, int] = (1, 1)) -> bytes:
    server = ServerGreeting(protocols)
    assert server.feed(client.opening) == b""
    return server.answer(("zlib",), "9.9", INFO)


def _client(protocols: tuple[int, int] = (1, 1)) -> ClientGreeting:
    return ClientGreeting(protocols, ("zstd",), "0.1")


def test_both_sides() -> None:
    """Each side learns of the other what it said."""
    client, server = _client(), ServerGreeting((1, 1))
    assert server.feed(client.opening + b"frames") == b"frames"
    assert server.hello is not None
    assert (server.hello.features, server.hello.version) == (("zstd",), "0.1")
    assert client.feed(server.answer(("zlib",), "9.9", INFO) + b"frames") == b"frames"
    assert client.hello is not None
    assert (client.hello.protocol, client.hello.features) == (1, ("zlib",))
    assert client.hello.info == INFO


def test_the_bytes() -> None:
    """The lines are those of the specification."""
    client = _client()
    words = client.opening.split(b" ", 3)
    assert words[0] == b"fleche-remote?"
    assert len(words[1]) == 32
    assert words[3] == b'{"protocol":[1,1],"features":["zstd"],"version":"0.1"}\n'
    reply = _answer(client)
    assert reply.startswith(b"\nfleche-remote! " + words[1] + b" ")
    assert reply.endswith(b"\n")


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"Welcome to the cluster\n",
        b"no newline",
        b"\n" * 10,
        b"fleche-remote! ",
        b"\nfleche-remote! " + b"0" * 32 + b" 00000000 {}\n",
        b"line\n" * 400 + b"fleche-remote? and an unterminated line",
        bytes(range(256)),
    ],
)
class TestNoise:
    """What login shells and modules print before the server speaks does no harm."""

    def test_whole(self, noise: bytes) -> None:
        """Noise and answer at once."""
        client = _client()
        assert client.feed(noise + _answer(client) + b"x") == b"x"

    def test_byte_by_byte(self, noise: bytes) -> None:
        """One byte at a time; what follows the answer is left for the frames."""
        client = _client()
        for byte in noise + _answer(client)[:-1]:
            assert client.feed(bytes([byte])) is None
        assert client.feed(b"\nrest") == b"rest"


def test_endless_noise() -> None:
    """Beyond a bound the client gives up; what it saw can be quoted, made harmless."""
    client = _client()
    with pytest.raises(ProtocolError, match=f"{NOISE_LIMIT} bytes came"):
        for _ in range(NOISE_LIMIT // 1000 + 2):
            client.feed(b"Password expired\x1b" + b"." * 1000)
    assert "Password expired·" in client.noise
    assert "\x1b" not in client.noise
    assert len(client.noise) < 1000


def test_noise_is_what_came_before_the_answer() -> None:
    """The answer is none, whole or not; nor is nothing."""
    client = _client()
    assert client.noise == ""
    client.feed(_answer(client)[:60])
    assert client.noise == ""
    client = _client()
    client.feed(b"Welcome!" + _answer(client)[:60])
    assert client.noise == "'Welcome!'"


def test_an_endless_answer() -> None:
    """An answer without an end is given up too."""
    client = _client()
    client.feed(_answer(client)[:60])
    with pytest.raises(ProtocolError, match="no end"):
        for _ in range(1100):
            client.feed(b"x" * 1000)


@pytest.mark.parametrize(
    ("client_speaks", "server_speaks", "who"),
    [((2, 3), (1, 1), "on the remote machine"), ((1, 1), (2, 3), "on this machine")],
)
def test_no_common_protocol(
    client_speaks: tuple[int, int], server_speaks: tuple[int, int], who: str
) -> None:
    """One sentence says which side is to be upgraded."""
    client = _client(client_speaks)
    with pytest.raises(ProtocolError, match=f"upgrade fleche {who}"):
        client.feed(_answer(client, server_speaks))


def test_a_common_protocol() -> None:
    """The newest that both speak."""
    client = _client((1, 3))
    client.feed(_answer(client, (2, 5)))
    assert client.hello is not None
    assert client.hello.protocol == 3


def test_damage() -> None:
    """A greeting with a flipped byte is not believed: not one of them gives another info."""
    client = _client()
    reply = _answer(client)
    for position in range(len(reply)):
        again = ClientGreeting((1, 1), (), "0.1")
        again._token, again._mark = client._token, client._mark
        damaged = bytearray(reply)
        damaged[position] ^= 0x20
        try:
            again.feed(damaged)
        except ProtocolError:
            continue
        assert again.hello is None or again.hello.info == INFO


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"fleche-remote? short 00000000 {}\n",
        b"fleche-remote? " + b"0" * 32 + b" 00000000 {}\n",
        b"fleche-remote? " + b"0" * 32 + b" a7b4a8f3 []\n",
        b"fleche-remote? " + b"0" * 32 + b"\n",
        b"\x00" * 100,
    ],
)
def test_no_client(line: bytes) -> None:
    """A server tells strangers at once that they are wrong here."""
    with pytest.raises(ProtocolError):
        ServerGreeting((1, 1)).feed(line)


@given(st.binary(max_size=500))
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes: waiting, or a ProtocolError."""
    for greeting in (ServerGreeting((1, 1)), _client()):
        try:
            assert greeting.feed(data) is None
        except ProtocolError:
            pass


def test_mask() -> None:
    """Foreign output becomes one harmless, bounded line."""
    assert mask(b"a\x1b[31mb\nc") == "'a·[31mb ⏎ c'"
    long = mask(b"Welcome!" + b"x" * 10_000 + b"Go away.")
    assert long.startswith("'Welcome!")
    assert long.endswith("Go away.'")
    assert len(long) < 400
