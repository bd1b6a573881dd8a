"""Frames: how messages and data are cut for the wire. No I/O here.

Every frame is a header of 16 bytes, little-endian, and a payload of at most :data:`MAX_PAYLOAD`
bytes::

    offset  size  what
    0       4     length of the payload
    4       4     number of the stream (0: the connection itself)
    8       1     kind, see :class:`Kind`
    9       1     flags, see :class:`Flag`
    10      2     the lower half of the CRC-32 of bytes 0 to 9
    12      4     CRC-32 of the payload as sent

The short check makes a damaged length known before it is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeAlias
from zlib import crc32

from fleche.errors import ProtocolError
from fleche.parcel import Buffer

__all__ = [
    "CHUNK",
    "HEADER",
    "MAX_PAYLOAD",
    "Allocate",
    "Flag",
    "Frame",
    "FrameDecoder",
    "Kind",
    "encode_frame",
]

CHUNK = 1 << 18
"""Bytes that this side puts into one frame at most: a small answer waits for no more than that."""

MAX_PAYLOAD = (1 << 20) + (1 << 12)
"""Bytes that a frame may have, before and after decompression."""

HEADER = struct.Struct("<IIBBHI")
_CHECKED = struct.Struct("<IIBB")
_STAGE = 1 << 16


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    """A request or a part of an answer, as msgpack."""
    DATA = 2
    """A piece of a parcel."""
    CREDIT = 3
    """The receiver has used frames up: the payload is what they have cost (4 bytes)."""
    CANCEL = 4
    """The client does not want the rest of this stream."""
    PING = 5
    """Are you there, and is this stream open? The payload comes back."""
    PONG = 6
    """Yes."""


class Flag:
    """Properties of a frame: bits of a plain number, since those of an enumeration are slow."""

    NONE = 0
    END = 1
    """The last frame of this side in this stream."""
    ZLIB = 2
    """The payload is compressed with zlib."""
    ZSTD = 4
    """The payload is compressed with zstd."""
    MORE = 8
    """The message goes on in the next MESSAGE frame of this stream."""


_KINDS = {int(kind): kind for kind in Kind}
_ALL_FLAGS = Flag.END | Flag.ZLIB | Flag.ZSTD | Flag.MORE


class Frame(NamedTuple):
    """One frame; ``payload`` is memory that belongs to the frame alone."""

    kind: Kind
    stream_id: int
    flags: int = 0
    payload: Buffer = b""

    @property
    def end(self) -> bool:
        """Whether this is the sender's last frame in the stream."""
        return bool(self.flags & Flag.END)


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of ``frame``, a copy of its payload included.

    Raises:
        ValueError: the payload is too long for one frame.
    """
    payload = frame.payload
    length = len(payload)
    if length > MAX_PAYLOAD:
        raise ValueError(f"a payload of {length} bytes is too long for a frame")
    checked = (length, frame.stream_id, frame.kind, frame.flags)
    short = crc32(_CHECKED.pack(*checked)) & 0xFFFF
    return b"".join((HEADER.pack(*checked, short, crc32(payload)), payload))


Allocate: TypeAlias = Callable[[Kind, int, int, int], "memoryview | None"]


class FrameDecoder:
    """Bytes in, frames out, however the bytes arrive.

    A reader fills a beginning of :meth:`buffer` and reports its length to :meth:`received`. Large
    payloads are thus read to where they stay: to memory that ``allocate`` gives for a header, or
    else to memory of their own, of at most one frame whatever the bytes claim. After a
    :class:`~fleche.errors.ProtocolError` the decoder is of no more use.
    """

    def __init__(self, allocate: Allocate | None = None) -> None:
        """Begin.

        Args:
            allocate: called when a header has come, with kind, number of the stream, flags and
                length; returns memory of exactly that length for the payload, or ``None``.
        """
        self._allocate = allocate or (lambda *_: None)
        self._stage = bytearray(_STAGE)
        self._start = 0
        self._end = 0
        self._header: tuple[int, int, int, int, int, int] | None = None
        self._payload: memoryview | None = None
        self._filled = 0

    @property
    def idle(self) -> bool:
        """Whether everything received so far was whole frames."""
        return self._header is None and self._start == self._end

    def buffer(self) -> memoryview:
        """Return memory to read into; never empty."""
        if self._payload is not None:
            return self._payload[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif _STAGE - self._end < HEADER.size:
            rest = self._stage[self._start : self._end]
            self._stage[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return memoryview(self._stage)[self._end :]

    def received(self, count: int) -> list[Frame]:
        """Take note that ``count`` bytes were read into the buffer; return the frames now complete.

        Raises:
            ProtocolError: the bytes are no frames.
        """
        frames: list[Frame] = []
        if self._payload is not None:
            self._filled += count
            if self._filled == len(self._payload):
                frames.append(self._finish(self._payload))
        else:
            self._end += count
        while self._payload is None and (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def feed(self, data: Buffer) -> list[Frame]:
        """Take ``data`` and return the frames now complete.

        Raises:
            ProtocolError: the bytes are no frames.
        """
        view, frames = memoryview(data), list[Frame]()
        while view:
            target = self.buffer()
            count = min(len(target), len(view))
            target[:count] = view[:count]
            target.release()
            frames += self.received(count)
            view = view[count:]
        return frames

    def _next(self) -> Frame | None:
        """Return a frame if the stage holds it whole; else prepare to receive its payload."""
        if self._end - self._start < HEADER.size:
            return None
        self._header = _check_header(HEADER.unpack_from(self._stage, self._start))
        self._start += HEADER.size
        length, stream_id, kind, flags, _, _ = self._header
        have = min(length, self._end - self._start)
        payload = self._allocate(_KINDS[kind], stream_id, flags, length)
        if payload is None:
            payload = memoryview(bytearray(length))
        payload[:have] = memoryview(self._stage)[self._start : self._start + have]
        self._start += have
        if have == length:
            return self._finish(payload)
        self._payload, self._filled = payload, have
        return None

    def _finish(self, payload: memoryview) -> Frame:
        assert self._header is not None
        _, stream_id, kind, flags, _, check = self._header
        self._header = self._payload = None
        if crc32(payload) != check:
            raise ProtocolError(
                "a frame arrived damaged: the checksum of its payload does not match"
            )
        return Frame(_KINDS[kind], stream_id, flags, payload)


def _check_header(
    header: tuple[int, int, int, int, int, int],
) -> tuple[int, int, int, int, int, int]:
    length, _, kind, flags, short, _ = header
    if crc32(_CHECKED.pack(*header[:4])) & 0xFFFF != short:
        raise ProtocolError(
            "the bytes received are no frame: the check of the header does not match"
        )
    if length > MAX_PAYLOAD or kind not in _KINDS or flags & ~_ALL_FLAGS:
        raise ProtocolError(f"a frame of kind {kind}, flags {flags}, {length} bytes is not allowed")
    return header
