r"""The layout of a parcel: the bytes that one value is, on every disk and every wire.

All integers are little-endian. Sections begin at multiples of 64 bytes, so that arrays can be used
in place, memory-mapped or not::

    offset  size  what
    0       8     magic: 89 66 6C 65 63 68 65 0A  ("\x89fleche\n")
    8       2     layout version (1)
    10      2     flags (bit 0: a signature follows the checksum)
    12      4     length of the head, h
    16      8     length of the whole parcel
    24      8     zero
    32      h     head: a msgpack map, see :class:`Head`
    32+h    32    BLAKE3 of everything before
    64+h    32    HMAC-SHA256 of everything before (only where flag bit 0 is set)
    ...           zero bytes up to a multiple of 64
                  the stream (what pickle wrote, perhaps compressed)
                  zero bytes up to a multiple of 64
                  the first inline buffer, and so on

The head holds the BLAKE3 of every section as it is stored, so that its own checksum and signature
vouch for the whole, and so that a section can be checked (or fetched from elsewhere) by itself, in
passing. Everything that is said about a value without opening it is in the head; a server reads it
and never unpickles.

An entry of the table that is not *inline* has no bytes here: it refers to a buffer by the BLAKE3 of
its content. That buffer is in a parcel of its own, whose digest is this BLAKE3, whose serializer is
``buffer``, and whose stream is the buffer itself (see :mod:`fleche.parcel.shared`). So a large
array is stored and sent once, whatever contains it; and the heads tell who needs which buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec
from blake3 import blake3

from fleche.digest import Digest, hash_threads
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel.signatures import SIGNATURE, check_signature, sign
from fleche.parcel.source import Buffer, FileSource, MemorySource, Source

__all__ = ["ALIGNMENT", "MAGIC", "VERSION", "Head", "Parcel", "Section", "assemble", "length_of"]

MAGIC = b"\x89fleche\n"
VERSION = 1
ALIGNMENT = 64
_SIGNED = 1
_PROLOGUE = struct.Struct("<8sHHIQ8x")
_CHECKSUM = 32
_MAX_HEAD = 1 << 28


class Section(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the table: the pickle stream, or one buffer.

    ``size`` is the number of bytes of the content, ``stored`` the number of bytes that lie in the
    parcel after compression by ``codec`` (empty: none), ``blake3`` the BLAKE3 of those. An entry
    that is not ``inline`` has none there: it stands for a buffer kept elsewhere, and gives the
    BLAKE3 of its content.
    """

    size: int
    stored: int
    codec: str
    blake3: bytes
    inline: bool = True


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a parcel says of itself.

    ``digest`` is the digest of the value (empty where it was packed without one), ``serializer``
    and ``python`` name what wrote the stream, ``code`` says that the stream holds Python bytecode,
    which only the same ``python`` can read.
    """

    serializer: str
    python: str = ""
    digest: str = ""
    code: bool = False
    stream: Section
    buffers: tuple[Section, ...] = ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """All entries, the stream first."""
        return (self.stream, *self.buffers)

    @property
    def references(self) -> tuple[Digest, ...]:
        """The buffers that are kept elsewhere, each once."""
        found = (entry.blake3 for entry in self.buffers if not entry.inline)
        return tuple(Digest(each.hex()) for each in dict.fromkeys(found))


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode


class Parcel:
    """The bytes of one value, with the head already read and checked.

    A parcel is read-only. Where its bytes are (in memory, in a file) is the business of its
    :class:`~fleche.parcel.source.Source`. ``checked`` says that every byte was checked on arrival
    in memory that nobody else holds, so that opening need not do it again.
    """

    __slots__ = ("_offsets", "_preamble", "checked", "head", "nbytes", "signed", "source")

    @property
    def variant(self) -> str:
        """The variant of the form that is packed: 32 hexadecimal characters from its stream."""
        return "" if self.head.serializer == "buffer" else self.head.stream.blake3[:16].hex()

    def __init__(self, source: Source) -> None:
        """Read and check the head of what lies in ``source``.

        Raises:
            CorruptParcel: the bytes are truncated, altered or no parcel.
        """
        self.source = source
        self.checked = False
        length, self.signed, self.nbytes = _read_prologue(source)
        body = _PROLOGUE.size + length
        end = body + _CHECKSUM + (SIGNATURE if self.signed else 0)
        self._preamble = bytes(source.read(0, end))
        if blake3(self._preamble[:body]).digest() != self._preamble[body : body + _CHECKSUM]:
            raise CorruptParcel(f"{source.name}: the checksum of the head does not match")
        try:
            self.head = _decode_head(self._preamble[_PROLOGUE.size : body])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CorruptParcel(f"{source.name}: the head cannot be read ({error})") from None
        if not all(map(_is_possible, self.head.sections)) or not self.head.stream.inline:
            raise CorruptParcel(f"{source.name}: the table has an impossible entry")
        self._offsets, total = _lay_out(end, self.head.sections)
        if total != self.nbytes:
            raise CorruptParcel(f"{source.name}: the table and the length {self.nbytes} disagree")

    @classmethod
    def from_bytes(cls, data: Buffer, *, owned: bool = False) -> Parcel:
        """Read a parcel from memory.

        Args:
            data: the bytes of exactly one parcel.
            owned: nobody else holds ``data``, so that opening may hand its memory to the object
                instead of a copy. The parcel is then spent.
        """
        return cls(MemorySource((memoryview(data).cast("B"),), owned=owned))

    @classmethod
    def from_file(cls, path: str, *, mmap: bool = False) -> Parcel:
        """Read a parcel from the file at ``path``, open until the parcel is closed."""
        source = FileSource(path, mmap=mmap)
        try:
            return cls(source)
        except BaseException:
            source.close()
            raise

    @property
    def references(self) -> tuple[Digest, ...]:
        """The buffers that this value needs and that are kept elsewhere, each once."""
        return self.head.references

    def stored(self, index: int) -> Buffer:
        """Return the stored bytes of entry ``index``, perhaps as a view of them."""
        return self.source.read(self._offsets[index], self.head.sections[index].stored)

    def take(self, index: int) -> Buffer:
        """Return the stored bytes of entry ``index`` as memory that a live object may own."""
        return self.source.take(self._offsets[index], self.head.sections[index].stored)

    def chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield all bytes in order, in pieces of at most ``size`` bytes, without copying them."""
        return self.source.chunks(size)

    def checked_chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield what :meth:`chunks` does, and check it on the way.

        Raises:
            CorruptParcel: at the end of a section whose bytes are not those that the head names.
        """
        checks = [
            (
                offset,
                offset + entry.stored,
                entry.blake3,
                blake3(max_threads=hash_threads(entry.stored)),
            )
            for offset, entry in zip(self._offsets, self.head.sections, strict=True)
            if entry.inline
        ]
        position = 0
        for chunk in self.source.chunks(size):
            view = memoryview(chunk)
            for begin, end, expected, hasher in checks:
                if begin < position + len(view) and position < end:
                    hasher.update(view[max(0, begin - position) : end - position])
                if position < end <= position + len(view) and hasher.digest() != expected:
                    raise CorruptParcel(
                        f"{self.source.name}: altered bytes: a checksum does not match"
                    )
            position += len(view)
            yield chunk
        if position != self.nbytes:
            raise CorruptParcel(f"{self.source.name}: ends after {position} of {self.nbytes} bytes")

    def tobytes(self) -> bytes:
        """Return all bytes as one object."""
        return b"".join(self.chunks())

    def check_signature(self, keys: Sequence[bytes]) -> None:
        """Check that one of ``keys`` signed this parcel.

        Raises:
            SignatureError: it is not signed, or none of ``keys`` did it; with the head.
        """
        end = len(self._preamble) - (SIGNATURE if self.signed else 0)
        try:
            check_signature(self._preamble[:end], self._preamble[end:], keys, self.source.name)
        except SignatureError as error:
            error.head = self.head
            raise

    def close(self) -> None:
        """Give up the bytes (a file is closed). Idempotent."""
        self.source.close()

    def __repr__(self) -> str:
        head = self.head
        return f"<Parcel {head.digest[:12] or '?'} {head.serializer} {self.nbytes} bytes>"


def assemble(head: Head, contents: Sequence[Buffer], keys: Sequence[bytes] = ()) -> Parcel:
    """Lay out the stored bytes of the sections of ``head`` as a parcel, without a copy.

    Args:
        head: the head; its sections must describe ``contents``.
        contents: the stored bytes of each inline section, the stream first.
        keys: the first one, if any, signs.
    """
    encoded = _encode_head(head)
    start = _PROLOGUE.size + len(encoded) + _CHECKSUM + (SIGNATURE if keys else 0)
    offsets, total = _lay_out(start, head.sections)
    prologue = _PROLOGUE.pack(MAGIC, VERSION, _SIGNED if keys else 0, len(encoded), total)
    covered = prologue + encoded
    preamble = covered + blake3(covered).digest()
    preamble += sign(preamble, keys)
    pieces: list[Buffer] = [preamble]
    position = len(preamble)
    inline = [offset for offset, entry in zip(offsets, head.sections, strict=True) if entry.inline]
    for offset, content in zip(inline, contents, strict=True):
        pieces += [bytes(offset - position), content]
        position = offset + memoryview(content).nbytes
    return Parcel(MemorySource([memoryview(piece).cast("B") for piece in pieces if len(piece)]))


def length_of(begun: Buffer) -> int:
    """Return how many bytes a parcel has, by what its first 32 bytes say; nothing is checked."""
    _, _, _, _, total = _PROLOGUE.unpack(begun[: _PROLOGUE.size])
    return int(total)


def _read_prologue(source: Source) -> tuple[int, bool, int]:
    """Return the length of the head, whether a signature follows, and that of the parcel."""
    prologue = bytes(source.read(0, _PROLOGUE.size))
    if len(prologue) < _PROLOGUE.size:
        raise CorruptParcel(f"{source.name}: {len(prologue)} bytes are too few for a parcel")
    magic, version, flags, length, total = _PROLOGUE.unpack(prologue)
    if magic != MAGIC:
        raise CorruptParcel(f"{source.name}: not a parcel (it begins with {magic!r})")
    if version != VERSION:
        error = CorruptParcel(
            f"{source.name}: parcel layout {version}, this fleche reads {VERSION}; upgrade fleche"
        )
        error.newer = version > VERSION
        raise error
    if total != source.size or length > min(source.size, _MAX_HEAD):
        raise CorruptParcel(f"{source.name}: {source.size} bytes where the parcel says {total}")
    return length, bool(flags & _SIGNED), total


def _is_possible(entry: Section) -> bool:
    return len(entry.blake3) == _CHECKSUM and (entry.inline or not (entry.stored or entry.codec))


def _lay_out(start: int, sections: Sequence[Section]) -> tuple[list[int], int]:
    """Return the offset of each section and the length of the whole parcel."""
    offsets = []
    position = start
    for entry in sections:
        if entry.stored:
            position = -(-position // ALIGNMENT) * ALIGNMENT
        offsets.append(position)
        position += entry.stored
    return offsets, position
