"""Buffers that values share: each in a parcel of its own, under the BLAKE3 of its content.

The table of a value's parcel then refers to the buffer instead of holding it. A buffer's parcel has
the kind :data:`BUFFER` where others have a serializer; its only section is the buffer. Nothing is
pickled in it, and it is kept, carried, signed and checked like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fleche.digest import Digest
from fleche.errors import CorruptParcel
from fleche.parcel.layout import Head, Parcel, Section, assemble
from fleche.parcel.sections import check_digest, content_of, hash_bytes, store
from fleche.parcel.source import Buffer

__all__ = [
    "BUFFER",
    "SHARED_MAX",
    "Packed",
    "check_buffer",
    "chosen",
    "inline",
    "pack_buffer",
    "reference",
    "take_shared",
]

BUFFER = "buffer"
"""What the head of a buffer's parcel says instead of a serializer."""

SHARED_MAX = 16
"""How many buffers of one value are kept apart, the largest: file systems run out of inodes."""


@dataclass(frozen=True)
class Packed:
    """A value in parts.

    Attributes:
        main: the parcel of the value, which may refer to buffers.
        buffers: the content of those buffers by their BLAKE3; the memory is that of the value.
    """

    main: Parcel
    buffers: Mapping[Digest, memoryview]


def chosen(contents: Mapping[Digest, memoryview], most: int) -> dict[Digest, memoryview]:
    """Return the ``most`` largest of some buffers, in their order."""
    ranked = sorted(contents, key=lambda found: -contents[found].nbytes)
    kept = set(ranked[:most])
    return {found: content for found, content in contents.items() if found in kept}


def pack_buffer(
    content: Buffer, digest: str, *, compression: str | None = None, keys: Sequence[bytes] = ()
) -> Parcel:
    """Return the parcel of a buffer, without copying it.

    Args:
        content: contiguous memory, which must be written or sent before it changes.
        digest: the BLAKE3 of ``content``.
        compression: ``"zlib"`` or ``"zstd"``; what does not shrink is left as it is.
        keys: secrets; the first one signs.
    """
    section, stored = store(content, compression, digest)
    return assemble(Head(serializer=BUFFER, digest=str(digest), stream=section), [stored], keys)


def reference(digest: Digest, content: memoryview) -> Section:
    """Return the entry that stands for a buffer kept elsewhere."""
    return Section(content.nbytes, 0, "", bytes.fromhex(digest), inline=False)


def take_shared(
    parcel: Parcel, buffers: Mapping[Digest, Parcel], keys: Sequence[bytes]
) -> dict[int, Buffer]:
    """Return the content of every entry of ``parcel`` that is a reference, by its index.

    Every entry has memory of its own, even where two refer to the same buffer.

    Args:
        parcel: refers to buffers.
        buffers: their parcels.
        keys: secrets; if there are any, one of them must have signed each.

    Raises:
        CorruptParcel: a buffer is not there, damaged, or not the one that is meant.
        SignatureError: not signed by one of ``keys``.
    """
    taken: dict[bytes, Buffer] = {}
    contents: dict[int, Buffer] = {}
    for index, entry in enumerate(parcel.head.sections):
        if entry.inline:
            continue
        held = _held(parcel, entry, buffers, keys)
        if entry.blake3 in taken and not held.source.mapped:
            contents[index] = bytearray(taken[entry.blake3])
        else:
            contents[index] = taken[entry.blake3] = _content(held)
    return contents


def inline(parcel: Parcel, buffers: Mapping[Digest, Parcel], keys: Sequence[bytes] = ()) -> Parcel:
    """Return ``parcel`` with the buffers that it refers to inside, without opening anything.

    Args:
        parcel: refers to buffers; one that does not is returned as it is.
        buffers: their parcels, which are to stay open as long as the new one is used.
        keys: secrets; if there are any, one of them must have signed each, and the first signs.

    Raises:
        CorruptParcel: a buffer is not there, or not the one that is meant.
        SignatureError: not signed by one of ``keys``.
    """
    if not parcel.references:
        return parcel
    if keys:
        parcel.check_signature(keys)
    sections: list[Section] = []
    contents: list[Buffer] = []
    for index, entry in enumerate(parcel.head.sections):
        held = parcel if entry.inline else _held(parcel, entry, buffers, keys)
        sections.append(entry if entry.inline else held.head.stream)
        contents.append(held.stored(index if entry.inline else 0))
    head = msgspec.structs.replace(parcel.head, stream=sections[0], buffers=tuple(sections[1:]))
    return assemble(head, contents, keys)


def check_buffer(parcel: Parcel) -> None:
    """Check that the parcel of a buffer holds what its digest says.

    Raises:
        CorruptParcel: it does not.
    """
    stream, digest = parcel.head.stream, parcel.head.digest
    found = hash_bytes(content_of(parcel, 0)) if stream.codec else stream.blake3
    if found.hex() != digest:
        raise _other_content(parcel)


def _held(
    parcel: Parcel, entry: Section, buffers: Mapping[Digest, Parcel], keys: Sequence[bytes]
) -> Parcel:
    """Return the parcel of the buffer that ``entry`` refers to, if it is what it should be."""
    name = Digest(entry.blake3.hex())
    held = buffers.get(name)
    if held is None:
        raise CorruptParcel(f"{parcel.source.name}: refers to a buffer that is kept elsewhere")
    if keys:
        held.check_signature(keys)
    stream = held.head.stream
    check_digest(held, name)
    if held.head.serializer != BUFFER or stream.size != entry.size:
        raise CorruptParcel(f"{held.source.name}: not the buffer {name[:12]}")
    if not stream.codec and stream.blake3 != entry.blake3:
        raise _other_content(held)
    return held


def _content(held: Parcel) -> Buffer:
    content = content_of(held, 0, lazy=True)
    if held.head.stream.codec and hash_bytes(content).hex() != held.head.digest:
        raise _other_content(held)
    return content


def _other_content(held: Parcel) -> CorruptParcel:
    digest = held.head.digest[:12]
    return CorruptParcel(f"{held.source.name}: its content is not that of the buffer {digest}")
