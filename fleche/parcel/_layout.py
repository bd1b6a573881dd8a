r"""The layout of a parcel: the bytes that one value is, on every disk and every wire.

All integers are little-endian. Sections begin at multiples of 64 bytes, so that arrays can be used
in place, memory-mapped or not::

    offset  size  what
    0       8     magic: 89 66 6C 65 63 68 65 0A  ("\x89fleche\n")
    8       2     layout version (2)
    10      2     flags (bit 0: signed)
    12      4     length of the head, h
    16      8     length of the whole parcel
    24      8     zero
    32      h     head: a msgpack map, see :class:`Head`
    32+h    c     checksum of everything before
    32+h+c  32    HMAC-SHA256 of everything before (signed parcels only)
    ...           zero bytes up to a multiple of 64
                  the stream (what pickle wrote, perhaps compressed)
                  zero bytes up to a multiple of 64
                  the first inline buffer, and so on
                  last, where the head says so, the definitions

Checksums are XXH3-128 (c = 16 bytes, big-endian as its authors print it). In a signed parcel all
of them are BLAKE3 (c = 32 bytes) instead, for a signature over sums that can be forged protects
nothing. The head holds the checksum of every section as it is stored, so that its own checksum and
signature vouch for the whole, and so that a section can be checked by itself, in passing.
Everything that is said about a value without opening it is in the head; a server reads it and never
unpickles.

An entry of the table that is not *inline* has no bytes here: it refers to a buffer by the BLAKE3 of
its content. That buffer is in a parcel of its own, whose digest is this BLAKE3, whose serializer is
``buffer``, and whose stream is the buffer itself. So a large array is stored and sent once,
whatever contains it; and the heads say which value needs which buffer.

The *definitions* are the classes and functions of ``__main__`` that the value uses, by value, for
a process that does not have the same ones. They are no part of the stream, so that the stream of a
value is the same before and after a line of the script has moved.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
from blake3 import blake3
from xxhash import xxh3_128, xxh3_128_digest

from fleche.digest import Address, hash_threads
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel._codecs import CODECS, Decompressor
from fleche.parcel._source import (
    BUFFERS,
    MIDDLING,
    Buffer,
    FileSource,
    JoinedSource,
    MemorySource,
    Source,
    Stretch,
)

__all__ = [
    "ALIGNMENT",
    "BUFFER",
    "MAGIC",
    "VERSION",
    "ClassName",
    "Head",
    "Parcel",
    "Section",
    "announces_file",
    "assemble",
    "begin",
    "check_signature",
    "checksum",
    "checksum_of",
    "hash_bytes",
    "length_of",
    "sign",
    "variant_of",
]

MAGIC = b"\x89fleche\n"
VERSION = 2
ALIGNMENT = 64
BUFFER = "buffer"
"""What the head of a buffer's parcel says instead of a serializer."""

SIGNATURE = 32
_SIGNED = 1
_PROLOGUE = struct.Struct("<8sHHIQ8x")
_WEAK, _STRONG = 16, 32
_BEGUN = 1024
"""Bytes that are read first; few heads are longer."""
_MAX_HEAD = 4 << 20


class Hasher(Protocol):
    """What computes a checksum piece by piece."""

    def update(self, piece: Buffer, /) -> object:
        """Take the next bytes."""
        ...

    def digest(self) -> bytes:
        """Return the checksum of what has come."""
        ...


class Section(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the table: the pickle stream, one buffer, or the definitions.

    ``size`` is the number of bytes of the content, ``stored`` the number of bytes that lie in the
    parcel after compression by ``codec`` (empty: none), ``checksum`` that of those. An entry that
    is not ``inline`` has none there: it stands for a buffer kept elsewhere, and its ``checksum`` is
    the BLAKE3 of the content.
    """

    size: int
    stored: int
    codec: str
    checksum: bytes
    inline: bool = True


class ClassName(NamedTuple):
    """A class or function that a value uses by reference: its name and its code digest."""

    module: str
    qualname: str
    code: str


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a parcel says of itself.

    ``digest`` is the digest of the value (empty where it was packed without one), ``variant`` the
    XXH3-128 of the stream before compression (empty where the parcel holds no value),
    ``serializer`` and ``python`` name what wrote the stream. ``code`` says that the stream holds
    Python bytecode, which only the same ``python`` can read; ``definitions`` always does, but is
    only read where a class of ``classes`` is not at hand. ``files`` are the entries of the table
    whose content is that of a file, and is never wanted in memory.
    """

    serializer: str
    python: str = ""
    digest: str = ""
    variant: bytes = b""
    code: bool = False
    classes: tuple[ClassName, ...] = ()
    stream: Section
    buffers: tuple[Section, ...] = ()
    definitions: Section | None = None
    files: tuple[int, ...] = ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """All entries in their order: the stream, the buffers, the definitions."""
        last = () if self.definitions is None else (self.definitions,)
        return (self.stream, *self.buffers, *last)

    @property
    def references(self) -> tuple[Address, ...]:
        """The buffers that are kept elsewhere, each once."""
        found: dict[Address, None] = {}
        for entry in self.buffers:
            if not entry.inline:  # as long as a digest: that was checked with the table
                found[str.__new__(Address, entry.checksum.hex())] = None
        return tuple(found)


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode


class Assembled(msgspec.Struct, frozen=True):
    """What a parcel knows of its bytes."""

    head: Head
    sections: tuple[Section, ...]
    signed: bool
    preamble: bytes
    offsets: list[int]
    nbytes: int


class Parcel:
    """The bytes of one value, with the head already read and checked.

    A parcel is read-only. Where its bytes are (in memory, in a file) is the business of its
    :class:`~fleche.parcel.Source`. ``checked`` says that every byte was checked on arrival in
    memory that nothing else holds, so that opening need not do it again. ``references`` are the
    buffers that the value needs and that are kept elsewhere, each once.
    """

    __slots__ = (
        "_offsets",
        "_preamble",
        "checked",
        "head",
        "nbytes",
        "references",
        "sections",
        "signed",
        "source",
    )

    def __init__(self, source: Source, assembled: Assembled | None = None) -> None:
        """Read and check the head of what lies in ``source``.

        Args:
            source: the bytes of exactly one parcel.
            assembled: what is in it, where it was assembled a moment ago and need not be read.

        Raises:
            CorruptParcel: the bytes are truncated, altered or no parcel.
        """
        self.source = source
        self.checked = False
        found = assembled or _read(source)
        self.head = found.head
        self.references = found.head.references if found.head.buffers else ()
        self.sections = found.sections
        self.signed = found.signed
        self._preamble = found.preamble
        self._offsets = found.offsets
        self.nbytes = found.nbytes

    @classmethod
    def from_bytes(cls, data: Buffer, *, owned: bool = False) -> Parcel:
        """Read a parcel from memory.

        Args:
            data: the bytes of exactly one parcel.
            owned: nothing else holds ``data``, so that opening may hand its memory to the object
                instead of a copy. The parcel is then spent.
        """
        return cls(MemorySource((memoryview(data).cast("B"),), owned=owned))

    @classmethod
    def from_file(cls, path: str, *, mmap: bool = False) -> Parcel:
        """Read a parcel from the file at ``path``, open until the parcel is closed.

        Args:
            path: of the file.
            mmap: load large buffers when they are touched.
        """
        return cls.of_source(FileSource(path, mmap=mmap))

    @classmethod
    def of_source(cls, source: Source) -> Parcel:
        """Read a parcel from ``source``, which is closed if that fails."""
        try:
            return cls(source)
        except BaseException:
            source.close()
            raise

    @property
    def nbytes_with_buffers(self) -> int:
        """Bytes of the parcel, and of the content of the buffers that are kept elsewhere."""
        return self.nbytes + sum(part.size for part in self.head.buffers if not part.inline)

    @property
    def variant(self) -> str:
        """The form of the value in 32 hexadecimal characters; empty where there is no value."""
        return self.head.variant.hex()

    @property
    def address(self) -> Address:
        """The digest that the head gives, and the variant."""
        return Address.of(self.head.digest, self.variant)

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes and functions of ``__main__`` that the value uses, sorted."""
        return self.head.classes

    def stored(self, index: int) -> Buffer:
        """Return the stored bytes of entry ``index``, perhaps as a view of them."""
        return self.source.read(self._offsets[index], self.sections[index].stored)

    def stretch(self, index: int) -> Source:
        """Return the stored bytes of entry ``index``, not read; this parcel is to stay open."""
        return Stretch(self.source, self._offsets[index], self.sections[index].stored)

    def stream(self) -> Buffer:
        """Return the pickle stream, checked, perhaps as a view of memory that is held elsewhere.

        Raises:
            CorruptParcel: the bytes are damaged.
        """
        entry, source = self.head.stream, self.source
        if entry.codec or self.checked or self.signed or entry.stored > MIDDLING:
            return self.content(0)
        stored = source.read(self._offsets[0], entry.stored)
        if len(stored) != entry.stored or xxh3_128_digest(stored) != entry.checksum:
            raise self._mismatch(0)
        return stored

    def _mismatch(self, index: int) -> CorruptParcel:
        part = f"buffer {index}" if index else "the pickle stream"
        return CorruptParcel(f"{self.source.name}: the checksum of {part} does not match")

    def content(self, index: int, *, lazy: bool = False) -> Buffer:
        """Return the content of one section, checked, as memory that an object may own.

        Args:
            index: which section; the stream is the first.
            lazy: leave memory-mapped bytes unchecked: they are loaded when they are touched.

        Raises:
            CorruptParcel: the bytes are damaged, or not here.
        """
        entry, source = self.sections[index], self.source
        if not entry.inline:
            raise CorruptParcel(f"{source.name}: refers to a buffer that is kept elsewhere")
        if self.checked or (lazy and source.mapped and not entry.codec):
            stored = source.take(self._offsets[index], entry.stored)
        else:
            hasher: Hasher = (
                blake3(max_threads=hash_threads(entry.stored)) if self.signed else xxh3_128()
            )
            stored = source.take(self._offsets[index], entry.stored, hasher.update)
            if len(stored) != entry.stored or hasher.digest() != entry.checksum:
                raise self._mismatch(index)
        content = stored
        if entry.codec:
            content = bytearray()
            with Decompressor(entry.codec, entry.size, content.extend, source.name) as decompressor:
                decompressor.feed(stored)
        if not index and self.head.variant and (entry.codec or self.signed):
            self._check_variant(variant_of(content))
        return content

    def content_chunks(self, index: int, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield the content of one section in pieces, checked at its end.

        Args:
            index: which section; the stream is the first.
            size: of what is read at a time at most.

        Raises:
            CorruptParcel: at the end, the bytes are damaged; or they are not here.
        """
        entry, source = self.sections[index], self.source
        if not entry.inline:
            raise CorruptParcel(f"{source.name}: refers to a buffer that is kept elsewhere")
        hasher = _hasher(entry.stored, strong=self.signed)
        ready: list[Buffer] = []
        decompressor = None
        if entry.codec:
            decompressor = Decompressor(entry.codec, entry.size, ready.append, source.name)
        begin = self._offsets[index]
        for offset in range(0, entry.stored, size):
            piece = source.read(begin + offset, min(size, entry.stored - offset))
            hasher.update(piece)
            if decompressor is None:
                yield piece
                continue
            decompressor.feed(piece)
            yield from ready
            ready.clear()
        if decompressor is not None:
            decompressor.finish()
            yield from ready
        if hasher.digest() != entry.checksum:
            raise CorruptParcel(f"{source.name}: the checksum of a file does not match")

    def _check_variant(self, found: bytes) -> None:
        if found != self.head.variant:
            raise CorruptParcel(f"{self.source.name}: its stream is not that of its variant")

    def chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield all bytes in order, in pieces of at most ``size`` bytes, without copying them."""
        return self.source.chunks(size)

    def checked_chunks(self, size: int = 1 << 20, *, names: bool = False) -> Iterator[Buffer]:
        """Yield what :meth:`chunks` does, and check it on the way.

        Args:
            size: of a piece at most.
            names: check also what the content is called: the BLAKE3 of a buffer that values share,
                the variant of a stream, and the sizes of what is compressed, which is decompressed
                for that in small pieces.

        Raises:
            CorruptParcel: at the end of a section whose bytes are not those that the head names.
        """
        checks = [
            _SectionCheck(self, index, offset, names=names)
            for index, offset in enumerate(self._offsets)
            if self.sections[index].inline
        ]
        position = 0
        for chunk in self.source.chunks(size):
            view = memoryview(chunk)
            for check in checks:
                check.see(view, position)
            position += len(view)
            yield chunk
        if position != self.nbytes:
            raise CorruptParcel(f"{self.source.name}: ends after {position} of {self.nbytes} bytes")

    def tobytes(self) -> bytes:
        """Return all bytes as one object."""
        return b"".join(self.chunks())

    def check_digest(self, digest: str) -> None:
        """Check that the head says that this is the value of ``digest``.

        Args:
            digest: a full digest (any variant will do), an address, or empty: anything.

        Raises:
            CorruptParcel: it says something else.
        """
        held: str = self.address if "." in digest else self.head.digest
        if digest and held != digest:
            raise CorruptParcel(
                f"{self.source.name}: holds {_short(held) or '?'}, not {_short(digest)}"
            )

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


class _SectionCheck:
    """The check of one section while the bytes of its parcel go by."""

    __slots__ = ("_content", "_decompressor", "_hasher", "_parcel", "begin", "end", "index")

    def __init__(self, parcel: Parcel, index: int, offset: int, *, names: bool) -> None:
        entry = parcel.sections[index]
        self._parcel = parcel
        self.index = index
        self.begin, self.end = offset, offset + entry.stored
        self._hasher = _hasher(entry.stored, strong=parcel.signed)
        self._content: Hasher | None = None
        self._decompressor: Decompressor | None = None
        if not names:
            return
        if not index and parcel.head.serializer == BUFFER:
            self._content = _hasher(entry.size, strong=True)
        elif not index and parcel.head.variant and (entry.codec or parcel.signed):
            self._content = _hasher(entry.size, strong=False)
        if entry.codec:
            sink: Callable[[Buffer], object] = self._content.update if self._content else len
            self._decompressor = Decompressor(entry.codec, entry.size, sink, parcel.source.name)

    def see(self, view: memoryview, position: int) -> None:
        """Take note of the bytes of the parcel that begin at ``position``."""
        if self.begin < position + len(view) and position < self.end:
            part = view[max(0, self.begin - position) : self.end - position]
            self._hasher.update(part)
            if self._decompressor:
                self._decompressor.feed(part)
            elif self._content:
                self._content.update(part)
        if position < self.end <= position + len(view):
            self._finish()

    def _finish(self) -> None:
        head, name = self._parcel.head, self._parcel.source.name
        if self._hasher.digest() != self._parcel.sections[self.index].checksum:
            raise CorruptParcel(f"{name}: altered bytes: a checksum does not match")
        if self._decompressor:
            self._decompressor.finish()
        if self._content is None:
            return
        found = self._content.digest()
        if head.serializer == BUFFER and found.hex() != head.digest:
            raise CorruptParcel(f"{name}: its content is not that of the buffer {head.digest[:12]}")
        if head.serializer != BUFFER and found != head.variant:
            raise CorruptParcel(f"{name}: its stream is not that of its variant")


def assemble(head: Head, contents: Sequence[Buffer | Source], keys: Sequence[bytes] = ()) -> Parcel:
    """Lay out the stored bytes of the sections of ``head`` as a parcel, without a copy.

    Args:
        head: the head; its sections must describe ``contents``, with strong checksums if there are
            ``keys``.
        contents: the stored bytes of each inline section in their order; what is a source is not
            read before the parcel is.
        keys: the first one, if any, signs.
    """
    parts = begin(head, keys)
    pieces: list[Buffer | Source] = [parts.preamble]
    position = len(parts.preamble)
    inline = [at for at, entry in zip(parts.offsets, parts.sections, strict=True) if entry.inline]
    streams = False
    for offset, content in zip(inline, contents, strict=True):
        if offset > position:
            pieces.append(bytes(offset - position))
        if isinstance(content, BUFFERS):
            size = memoryview(content).nbytes
        else:
            size, streams = content.size, True
        if size:
            pieces.append(content)
        position = offset + size
    if streams:
        return Parcel(JoinedSource(pieces), parts)
    views = [memoryview(piece).cast("B") for piece in pieces]  # type: ignore[arg-type]
    return Parcel(MemorySource(views), parts)


def begin(head: Head, keys: Sequence[bytes]) -> Assembled:
    """Lay out everything before the first section."""
    encoded = _encode_head(head)
    sections = head.sections
    start = _PROLOGUE.size + len(encoded) + (_STRONG + SIGNATURE if keys else _WEAK)
    offsets, total = _lay_out(start, sections)
    prologue = _PROLOGUE.pack(MAGIC, VERSION, _SIGNED if keys else 0, len(encoded), total)
    preamble = prologue + encoded
    preamble += checksum(preamble, strong=bool(keys))
    preamble += sign(preamble, keys)
    return Assembled(head, sections, bool(keys), preamble, offsets, total)


def _short(address: str) -> str:
    digest, dot, variant = address.partition(".")
    return digest[:12] + dot + variant[:8]


def announces_file(begun: Buffer) -> bool:
    """Return whether the first bytes of a parcel say that the content of a file is in it.

    Nothing is checked: to take it for one in error costs time, not more.
    """
    if len(begun) < _PROLOGUE.size:
        return False
    length = _PROLOGUE.unpack(begun[: _PROLOGUE.size])[3]
    try:
        head = _decode_head(begun[_PROLOGUE.size : _PROLOGUE.size + length])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    sections = head.sections
    return any(0 <= index < len(sections) and sections[index].inline for index in head.files)


def length_of(begun: Buffer) -> int:
    """Return how many bytes a parcel has, by what its first 32 bytes say; nothing is checked."""
    _, _, _, _, total = _PROLOGUE.unpack(begun[: _PROLOGUE.size])
    return int(total)


def hash_bytes(content: Buffer) -> bytes:
    """Return the BLAKE3 of contiguous memory."""
    return blake3(max_threads=hash_threads(memoryview(content).nbytes)).update(content).digest()


def checksum(content: Buffer, *, strong: bool) -> bytes:
    """Return the checksum of a section: BLAKE3 in signed parcels, XXH3-128 in others."""
    return hash_bytes(content) if strong else xxh3_128_digest(content)


def checksum_of(pieces: Iterable[Buffer], *, strong: bool) -> bytes:
    """Return the same of what comes in pieces."""
    hasher = _hasher(sys.maxsize, strong=strong)
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def variant_of(stream: Buffer) -> bytes:
    """Return the variant of the value that has this pickle stream, in 16 bytes."""
    return xxh3_128_digest(stream)


def sign(covered: bytes, keys: Sequence[bytes]) -> bytes:
    """Return the signature of ``covered``, an HMAC-SHA256; empty if there are no keys.

    What is signed says at its beginning what kind of thing it is, so that the signature of one
    thing cannot pass for that of another.
    """
    if not keys:
        return b""
    import hmac  # slow to import, and needed by few

    return hmac.digest(keys[0], covered, "sha256")


def check_signature(covered: bytes, signature: bytes, keys: Sequence[bytes], name: str) -> None:
    """Check that one of ``keys`` signed ``covered``.

    Args:
        covered: what must have been signed.
        signature: what :func:`sign` returned for it; empty if it is not signed.
        keys: secrets; one of them is enough.
        name: where it comes from, for the error.

    Raises:
        SignatureError: it is not signed, or none of ``keys`` did it.
    """
    if not signature:
        raise SignatureError(f"{name}: not signed, and a secret_key is configured; refused")
    import hmac

    for key in keys:
        if hmac.compare_digest(sign(covered, (key,)), signature):
            return
    raise SignatureError(f"{name}: signed by a key that is not configured here; refused")


def _hasher(size: int, *, strong: bool) -> Hasher:
    return blake3(max_threads=hash_threads(size)) if strong else xxh3_128()


def _read(source: Source) -> Assembled:
    """Read and check everything before the first section."""
    begun = bytes(source.read(0, _BEGUN))
    if len(begun) < _PROLOGUE.size:
        raise CorruptParcel(f"{source.name}: {len(begun)} bytes are too few for a parcel")
    magic, version, flags, length, nbytes = _PROLOGUE.unpack_from(begun)
    if magic != MAGIC:
        raise CorruptParcel(f"{source.name}: not a parcel (it begins with {magic!r})")
    if version != VERSION:
        error = CorruptParcel(
            f"{source.name}: parcel layout {version}, this fleche reads {VERSION}; upgrade fleche"
        )
        error.newer = version > VERSION
        raise error
    if nbytes != source.size or length > min(source.size, _MAX_HEAD):
        raise CorruptParcel(f"{source.name}: {source.size} bytes where the parcel says {nbytes}")
    signed = bool(flags & _SIGNED)
    body = _PROLOGUE.size + length
    end = body + (_STRONG + SIGNATURE if signed else _WEAK)
    preamble = begun[:end] if end <= len(begun) else bytes(source.read(0, end))
    expected = preamble[body : body + (_STRONG if signed else _WEAK)]
    held = preamble[:body]
    if (hash_bytes(held) if signed else xxh3_128_digest(held)) != expected:
        raise CorruptParcel(f"{source.name}: the checksum of the head does not match")
    try:
        head = _decode_head(preamble[_PROLOGUE.size : body])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise CorruptParcel(f"{source.name}: the head cannot be read ({error})") from None
    sections = head.sections
    _check_table(head, sections, source.name, signed=signed)
    offsets, total = _lay_out(end, sections)
    if total != nbytes:
        raise CorruptParcel(f"{source.name}: the table and the length {nbytes} disagree")
    return Assembled(head, sections, signed, preamble, offsets, nbytes)


def _check_table(head: Head, sections: Sequence[Section], name: str, *, signed: bool) -> None:
    """Check every bound of a head, before anything is done by its numbers.

    Raises:
        CorruptParcel: an entry cannot be.
    """
    size = _STRONG if signed else _WEAK
    for entry in sections:
        stored, length = entry.stored, len(entry.checksum)
        if not entry.inline:
            possible = length == _STRONG and not stored and not entry.codec
        elif entry.codec:
            possible = length == size and entry.codec in CODECS
        else:
            possible = length == size and entry.size == stored
        if not (possible and 0 <= stored <= sys.maxsize and 0 <= entry.size <= sys.maxsize):
            raise CorruptParcel(f"{name}: the table has an impossible entry")
    if not head.stream.inline or (head.definitions and not head.definitions.inline):
        raise CorruptParcel(f"{name}: the stream or the definitions are not in it")
    if head.files:
        most = 0 if head.serializer == BUFFER else len(head.buffers)
        if any(not min(1, most) <= index <= most for index in head.files):
            raise CorruptParcel(f"{name}: the table has no such file")
    if len(head.variant) not in (0, _WEAK):
        raise CorruptParcel(f"{name}: the variant has {len(head.variant)} bytes")
    plain = not signed and not head.stream.codec
    if plain and head.variant and head.variant != head.stream.checksum:
        raise CorruptParcel(f"{name}: the variant and the checksum of the stream disagree")


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
