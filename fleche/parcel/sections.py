"""The bytes of one section: how they get into a parcel, and how they are got out, checked."""

from __future__ import annotations

from blake3 import blake3

from fleche.digest import hash_threads
from fleche.errors import CorruptParcel
from fleche.parcel.codecs import compress, decompress
from fleche.parcel.layout import Parcel, Section
from fleche.parcel.source import Buffer

__all__ = ["check_digest", "content_of", "hash_bytes", "store"]


def hash_bytes(content: Buffer) -> bytes:
    """Return the BLAKE3 of contiguous memory."""
    size = memoryview(content).nbytes
    hasher = blake3(max_threads=hash_threads(size))
    return hasher.update(content).digest()


def store(
    content: Buffer, compression: str | None, known: str | None = None
) -> tuple[Section, Buffer]:
    """Return the entry of a section and the bytes to be stored for it.

    Args:
        content: what the section holds.
        compression: the codec, applied where it makes the content smaller.
        known: the BLAKE3 of ``content`` in hexadecimal, if somebody has computed it already.
    """
    codec, stored = compress(compression or "", content)
    size, stored_size = memoryview(content).nbytes, memoryview(stored).nbytes
    checksum = bytes.fromhex(known) if known and not codec else hash_bytes(stored)
    return Section(size, stored_size, codec, checksum), stored


def content_of(parcel: Parcel, index: int, *, lazy: bool = False) -> Buffer:
    """Return the content of one section, checked, as memory that an object may own.

    Args:
        parcel: holds it; an entry that only refers to a buffer has no content here.
        index: which section; the stream is the first.
        lazy: leave memory-mapped bytes unchecked: they are loaded when they are touched.

    Raises:
        CorruptParcel: the bytes are damaged, or not here.
    """
    entry, name = parcel.head.sections[index], parcel.source.name
    if not entry.inline:
        raise CorruptParcel(f"{name}: refers to a buffer that is kept elsewhere")
    stored = parcel.take(index)
    trusted = parcel.checked or (lazy and parcel.source.mapped and not entry.codec)
    if not trusted and (
        memoryview(stored).nbytes != entry.stored or hash_bytes(stored) != entry.blake3
    ):
        part = f"buffer {index}" if index else "the pickle stream"
        raise CorruptParcel(f"{name}: the checksum of {part} does not match")
    return decompress(entry.codec, stored, entry.size, name) if entry.codec else stored


def check_digest(parcel: Parcel, digest: str) -> None:
    """Check that a parcel says it holds the value of ``digest`` (empty: any).

    Raises:
        CorruptParcel: it says something else.
    """
    if digest and parcel.head.digest != digest:
        raise CorruptParcel(
            f"{parcel.source.name}: holds {parcel.head.digest[:12] or '?'}, not {digest[:12]}"
        )
