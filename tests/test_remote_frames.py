"""Frames: bytes in, frames out, however the bytes arrive."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.errors import ProtocolError
from fleche.remote._compression import Compression, available_codecs, decompress_payload
from fleche.remote._frames import HEADER, MAX_PAYLOAD, Flag, Frame, FrameDecoder, Kind, encode_frame

# (frame, its bytes): the specification, byte for byte.
TABLE = [
    (
        Frame(Kind.MESSAGE, 1, Flag.END, b"hello"),
        "05000000 01000000 01 01 4071 86a61036 68656c6c6f",
    ),
    (Frame(Kind.DATA, 2, Flag.NONE, b"\x00\xff"), "02000000 02000000 02 00 c27b 72fddb6c 00ff"),
    (Frame(Kind.CREDIT, 3, 0, b"\x08\0\0\0"), "04000000 03000000 03 00 61e9 f3f7f0e4 08000000"),
    (Frame(Kind.CANCEL, 4), "00000000 04000000 04 00 64ef 00000000"),
    (Frame(Kind.PING, 0), "00000000 00000000 05 00 339c 00000000"),
    (Frame(Kind.PONG, 0), "00000000 00000000 06 00 f0cf 00000000"),
]

frames = st.builds(
    Frame,
    st.sampled_from(list(Kind)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 4, 8, 9]),
    st.binary(max_size=2000),
)


def _plain(found: list[Frame]) -> list[Frame]:
    return [frame._replace(payload=bytes(frame.payload)) for frame in found]


def _header(length: int, exchange: int, kind: int, flags: int, payload: bytes = b"") -> bytes:
    checked = struct.pack("<IIBB", length, exchange, kind, flags)
    return checked + struct.pack("<HI", zlib.crc32(checked) & 0xFFFF, zlib.crc32(payload)) + payload


@pytest.mark.parametrize(("frame", "expected"), TABLE)
class TestTable:
    """Each frame of the table, as it is written and read."""

    def test_encode(self, frame: Frame, expected: str) -> None:
        """The bytes are those of the specification."""
        assert encode_frame(frame).hex() == expected.replace(" ", "")

    def test_whole(self, frame: Frame, expected: str) -> None:
        """All bytes at once."""
        assert _plain(FrameDecoder().feed(bytes.fromhex(expected))) == [frame]

    def test_byte_by_byte(self, frame: Frame, expected: str) -> None:
        """One byte at a time: nothing before the last one."""
        decoder = FrameDecoder()
        *early, last = bytes.fromhex(expected)
        for byte in early:
            assert decoder.feed(bytes([byte])) == []
            assert not decoder.idle
        assert _plain(decoder.feed(bytes([last]))) == [frame]
        assert decoder.idle

    def test_trailing(self, frame: Frame, expected: str) -> None:
        """What follows belongs to the next frame."""
        decoder = FrameDecoder()
        data = bytes.fromhex(expected)
        assert _plain(decoder.feed(data + data[:7])) == [frame]
        assert _plain(decoder.feed(data[7:])) == [frame]


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 3000), max_size=30))
def test_any_frames_in_any_pieces(sent: list[Frame], cuts: list[int]) -> None:
    """Whatever the pieces in which bytes arrive, the same frames come out."""
    data = b"".join(map(encode_frame, sent))
    decoder, received, start = FrameDecoder(), [], 0
    for size in [*cuts, len(data) + 1]:
        received += decoder.feed(data[start : start + size])
        start += size
    assert _plain(received) == sent
    assert decoder.idle


def test_large_payloads() -> None:
    """Payloads larger than the decoder's stage, next to small ones."""
    sent = [
        Frame(Kind.DATA, 1, 0, bytes([number % 256]) * size)
        for number, size in enumerate([MAX_PAYLOAD, 1, 1 << 16, (1 << 16) - 16, 0, 1 << 20])
    ]
    data = b"".join(map(encode_frame, sent))
    decoder, received = FrameDecoder(), []
    for start in range(0, len(data), 100_003):
        received += decoder.feed(data[start : start + 100_003])
    assert _plain(received) == sent


@pytest.mark.parametrize("missing", range(1, 17))
def test_a_header_at_the_end_of_what_is_read_at_once(missing: int) -> None:
    """Its rest, of any length, is read behind its beginning."""
    size = len(FrameDecoder().buffer())
    first = Frame(Kind.DATA, 1, 0, bytes(size - 2 * HEADER.size - (HEADER.size - missing)))
    sent = [Frame(Kind.CANCEL, 1), first, Frame(Kind.MESSAGE, 2, 0, b"next")]
    data = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder()
    assert _plain(decoder.feed(data[:size])) == sent[:2]
    assert not decoder.idle or missing == 16
    assert _plain(decoder.feed(data[size:])) == sent[2:]


def test_payloads_are_independent() -> None:
    """A payload is not overwritten by what comes later."""
    decoder = FrameDecoder()
    first = decoder.feed(encode_frame(Frame(Kind.DATA, 1, 0, b"a" * 100)))[0]
    decoder.feed(encode_frame(Frame(Kind.DATA, 1, 0, b"b" * 100)))
    assert bytes(first.payload) == b"a" * 100


def test_too_long_to_send() -> None:
    """A payload that no frame may carry is refused before it is sent."""
    with pytest.raises(ValueError, match="too long"):
        encode_frame(Frame(Kind.DATA, 1, 0, bytes(MAX_PAYLOAD + 1)))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (_header(MAX_PAYLOAD + 1, 1, 2, 0), "not allowed"),
        (_header(0xFFFFFFFF, 1, 2, 0), "not allowed"),
        (_header(0, 1, 99, 0), "not allowed"),
        (_header(0, 1, 1, 64), "not allowed"),
        (b"Welcome to the cluster\n", "no frame"),
        (bytes(16), "no frame"),
        (_header(3, 1, 2, 0, b"abc")[:-1] + b"d", "damaged"),
    ],
)
def test_no_frames(data: bytes, complaint: str) -> None:
    """What the protocol does not allow is a ProtocolError, as soon as the header says so."""
    with pytest.raises(ProtocolError, match=complaint):
        FrameDecoder().feed(data)


def test_every_bit_counts() -> None:
    """A single flipped bit is noticed, or leaves the decoder waiting; it never passes."""
    frame = Frame(Kind.DATA, 7, Flag.END, b"payload")
    data = encode_frame(frame)
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            FrameDecoder().feed(bytes(damaged) + bytes(HEADER.size))


@given(st.binary(max_size=4000))
def test_garbage(data: bytes) -> None:
    """Arbitrary bytes give frames or a ProtocolError, nothing else."""
    decoder = FrameDecoder()
    try:
        decoder.feed(data)
    except ProtocolError:
        pass


class TestCompression:
    """Payloads that are compressed on their way, with each codec that there is."""

    @pytest.mark.parametrize("codec", ["zlib", "zstd"])
    @pytest.mark.parametrize("size", [1 << 10, MAX_PAYLOAD])
    def test_round_trip(self, codec: str, size: int) -> None:
        assert codec in available_codecs()
        packed, flag = Compression(codec).apply(bytes(size))
        assert len(packed) < size / 10
        plain = decompress_payload(Frame(Kind.DATA, 1, flag | Flag.END, packed))
        assert plain == Frame(Kind.DATA, 1, Flag.END, bytes(size))

    @pytest.mark.parametrize("codec", ["zlib", "zstd"])
    def test_cut_short(self, codec: str) -> None:
        """Half a payload is none."""
        packed, flag = Compression(codec).apply(bytes(range(256)) * 100)
        frame = Frame(Kind.DATA, 1, flag, bytes(packed)[:-5])
        with pytest.raises(ProtocolError, match="cut short"):
            decompress_payload(frame)
