"""Compression of the sections of a parcel, by the name that the table gives it."""

from __future__ import annotations

import zlib
from typing import Any

from fleche.errors import CorruptParcel, MissingExtra
from fleche.parcel.source import Buffer

__all__ = ["CODECS", "compress", "decompress", "zstd_available"]

CODECS = ("zlib", "zstd")
_SMALLEST = 128


def zstd_available() -> bool:
    """Tell whether the ``zstd`` codec can be used here."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return False
    return True


def compress(codec: str, content: Buffer) -> tuple[str, Buffer]:
    """Compress ``content`` where that makes it smaller.

    Returns:
        The codec that was applied (empty for none) and the bytes.

    Raises:
        MissingExtra: ``codec`` needs a package that is not installed.
    """
    size = memoryview(content).nbytes
    if not codec or size < _SMALLEST:
        return "", content
    packed = zlib.compress(content, 6) if codec == "zlib" else _zstandard().compress(content)
    return (codec, packed) if len(packed) < size else ("", content)


def decompress(codec: str, stored: Buffer, size: int, name: str = "parcel") -> bytearray:
    """Return the ``size`` bytes that ``stored`` holds; never more, whatever the data claims.

    Raises:
        CorruptParcel: the data is damaged, or does not hold exactly ``size`` bytes.
        MissingExtra: ``codec`` needs a package that is not installed.
    """
    content = bytearray()
    try:
        if codec == "zlib":
            content += zlib.decompressobj().decompress(stored, size + 1)
        elif codec == "zstd":
            content += _zstd_decompress(stored, size)
        else:
            raise CorruptParcel(f"{name}: unknown compression {codec!r}; upgrade fleche")
    except (zlib.error, OSError, EOFError) as error:
        raise CorruptParcel(f"{name}: a compressed section is damaged ({error})") from None
    if len(content) != size:
        raise CorruptParcel(f"{name}: a compressed section holds {len(content)} bytes, not {size}")
    return content


def _zstd_decompress(stored: Buffer, size: int) -> bytes:
    module = _zstandard_module()
    try:
        with module.ZstdDecompressor().stream_reader(stored) as reader:
            content: bytes = reader.read(size + 1)
            return content
    except module.ZstdError as error:
        raise EOFError(str(error)) from None


def _zstandard() -> Any:
    return _zstandard_module().ZstdCompressor(level=3)


def _zstandard_module() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra(
            'compression "zstd" needs the package zstandard: pip install "fleche[zstd]"'
        ) from None
    return zstandard
