"""Compression of the sections of a parcel, by the name that the table gives it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fleche.errors import CorruptParcel, MissingExtra
from fleche.parcel._source import Buffer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "CODECS",
    "Compress",
    "Decompressor",
    "codec_of",
    "compress",
    "zstd_available",
    "zstd_decompressor",
    "zstd_module",
]

CODECS = ("zlib", "zstd")
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_SMALLEST = 128
_PIECE = 1 << 18
_WINDOW = 23
"""The binary logarithm of the history that a frame may ask for; ours need a quarter of that."""


def zstd_available() -> bool:
    """Return whether the ``zstd`` codec can be used here."""
    try:
        zstd_module()
    except MissingExtra:
        return False
    return True


def zstd_decompressor() -> Any:
    """Return an object that decompresses one zstd frame, as ``zlib.decompressobj()`` does.

    A frame may claim that it needs a window of 128 MiB, which would be allocated: no more than
    8 MiB are.

    Raises:
        MissingExtra: there is no zstd here.
    """
    module = zstd_module()
    return module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _WINDOW})


def zstd_module() -> Any:
    """Return the module that knows zstd: Python's own from 3.14 on, before that its backport.

    Raises:
        MissingExtra: there is none.
    """
    try:
        return import_module(ZSTD)
    except ImportError:
        raise MissingExtra(
            'compression "zstd" needs Python 3.14, or the package backports.zstd: '
            "pip install backports.zstd"
        ) from None


Compress: TypeAlias = Literal["zlib", "zstd"] | bool | None
"""How a storage is told to compress: ``True`` takes the best codec that there is."""


def codec_of(compress: Compress) -> str | None:
    """Return the codec that is meant, or ``None`` for none."""
    if compress is True:
        return "zstd" if zstd_available() else "zlib"
    return compress or None


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
    packed = zlib.compress(content, 6) if codec == "zlib" else zstd_module().compress(content, 3)
    return (codec, packed) if len(packed) < size else ("", content)


class Decompressor:
    """Decompresses a section that comes in pieces, in bounded memory, under the size it claims.

    As a context it is finished at the end, unless an exception is on its way.

    Args:
        codec: ``"zlib"`` or ``"zstd"``.
        size: how many bytes the content must have; not one more is ever handed out.
        sink: is called with each piece of the content.
        name: where the section comes from, for the error.

    Raises:
        CorruptParcel: the codec is unknown.
        MissingExtra: the codec needs a package that is not installed.
    """

    def __init__(
        self, codec: str, size: int, sink: Callable[[Buffer], object], name: str = "parcel"
    ) -> None:
        self._size = size
        self._sink = sink
        self._name = name
        self._done = 0
        self._errors: tuple[type[Exception], ...]
        if codec == "zlib":
            self._feed: Callable[[Buffer], object] = self._feed_zlib
            self._zlib = zlib.decompressobj()
            self._errors = (zlib.error,)
        elif codec == "zstd":
            self._feed = self._feed_zstd
            self._zstd = zstd_decompressor()
            self._errors = (zstd_module().ZstdError,)
        else:
            raise CorruptParcel(f"{name}: unknown compression {codec!r}; upgrade fleche")

    def feed(self, stored: Buffer) -> None:
        """Take the next bytes of the section.

        Raises:
            CorruptParcel: they are damaged, or hold more than the section claims.
        """
        try:
            self._feed(stored)
        except self._errors as error:
            raise CorruptParcel(
                f"{self._name}: a compressed section is damaged ({error})"
            ) from None

    def _write(self, piece: bytes) -> None:
        self._done += len(piece)
        if self._done > self._size:
            raise CorruptParcel(
                f"{self._name}: a compressed section holds {self._done} bytes or more, "
                f"not {self._size}"
            )
        self._sink(piece)

    def finish(self) -> None:
        """Check that everything has come.

        Raises:
            CorruptParcel: less than the section claims.
        """
        if self._done != self._size:
            raise CorruptParcel(
                f"{self._name}: a compressed section holds {self._done} bytes, not {self._size}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()

    def _feed_zlib(self, stored: Buffer) -> None:
        rest: Buffer = stored
        while rest and not self._zlib.eof:
            piece = self._zlib.decompress(rest, _PIECE)
            rest = self._zlib.unconsumed_tail
            if piece:
                self._write(piece)
        # zlib may hold back what it has decompressed already
        while not self._zlib.eof and (piece := self._zlib.decompress(b"", _PIECE)):
            self._write(piece)

    def _feed_zstd(self, stored: Buffer) -> None:
        rest: Buffer = stored
        while not self._zstd.eof:
            piece = self._zstd.decompress(rest, _PIECE)
            rest = b""  # it keeps what it has not decompressed yet
            if piece:
                self._write(piece)
            if self._zstd.needs_input:
                return
