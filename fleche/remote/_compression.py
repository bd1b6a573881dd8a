"""Compression of single payloads on the wire, where it is worth it."""

from __future__ import annotations

import zlib

from fleche._settings import WireCodec
from fleche.errors import MissingExtra, ProtocolError
from fleche.parcel import Buffer, zstd_available, zstd_decompressor, zstd_module
from fleche.remote._frames import MAX_PAYLOAD, Flag, Frame

__all__ = ["Compression", "WireCodec", "available_codecs", "choose_codec", "decompress_payload"]

_SMALLEST = 1 << 10
_SAMPLE = 1 << 12
_WORTH = 0.9
_PACKED = Flag.ZLIB | Flag.ZSTD


def available_codecs() -> tuple[str, ...]:
    """Return the codecs that this process can use, the best first."""
    return ("zstd", "zlib") if zstd_available() else ("zlib",)


def choose_codec(wanted: WireCodec, peer: tuple[str, ...], *, local: bool, name: str = "") -> str:
    """Return the codec to use with the peer ``name`` that offers ``peer``; empty for none.

    ``"auto"`` compresses with zstd where both sides have it and the bytes leave the machine: zlib
    is slower than most networks.

    Raises:
        MissingExtra: a codec is asked for by name that one side lacks.
    """
    if wanted == "none" or (wanted == "auto" and (local or "zstd" not in peer)):
        return ""
    if wanted == "auto":
        return "zstd" if zstd_available() else ""
    if wanted == "zstd":
        zstd_module()
    if wanted not in peer:
        advice = "pip install backports.zstd there, or " if wanted == "zstd" else ""
        raise MissingExtra(
            f'{name} lacks compression "{wanted}": {advice}say compression = "auto" here'
        )
    return wanted


class Compression:
    """What to do to payloads before they are sent."""

    def __init__(self, codec: str = "") -> None:
        self._flag = {"": Flag.NONE, "zlib": Flag.ZLIB, "zstd": Flag.ZSTD}[codec]

    def apply(self, payload: Buffer) -> tuple[Buffer, int]:
        """Return the payload to send and the flag that says what was done to it."""
        if not self._flag or len(payload) < _SMALLEST:
            return payload, Flag.NONE
        sample = memoryview(payload)[:_SAMPLE]
        if len(self._shrink(sample)) > _WORTH * len(sample):
            return payload, Flag.NONE
        packed = self._shrink(payload)
        return (packed, self._flag) if len(packed) < len(payload) else (payload, Flag.NONE)

    def _shrink(self, payload: Buffer) -> bytes:
        if self._flag == Flag.ZLIB:
            return zlib.compress(payload, 1)
        packed: bytes = zstd_module().compress(payload, 1)
        return packed


def decompress_payload(frame: Frame) -> Frame:
    """Return the frame with its payload as it was, never more than a frame may hold.

    Raises:
        ProtocolError: the payload is damaged, too large, or cannot be decompressed here.
    """
    if not frame.flags & _PACKED:
        return frame
    try:
        decompressor = zlib.decompressobj() if frame.flags & Flag.ZLIB else zstd_decompressor()
        payload = decompressor.decompress(frame.payload, MAX_PAYLOAD + 1)
    except Exception as error:  # noqa: BLE001 (two libraries, each with errors of its own)
        raise ProtocolError(f"a compressed frame cannot be read: {error}") from None
    if len(payload) > MAX_PAYLOAD:
        raise ProtocolError("a compressed frame is larger than a frame may be")
    if not decompressor.eof:
        raise ProtocolError("a compressed frame is cut short")
    return frame._replace(payload=payload, flags=frame.flags & ~_PACKED)
