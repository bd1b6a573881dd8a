"""Objects to parcels and back: the only place where values are serialized and opened.

A value in parts keeps its large buffers apart, each in a parcel of its own under the BLAKE3 of its
content, so that other values can share them. The table of the value's parcel then refers to the
buffer instead of holding it. A buffer's parcel has the kind :data:`BUFFER` where others have a
serializer; its only section is the buffer. Nothing is pickled in it, and it is kept, carried,
signed and checked like any other.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from fleche._util import override, user_cache_directory
from fleche.digest import Address, BufferDigests, Digest
from fleche.errors import CorruptParcel, ParcelError, StorageError, UnpackError
from fleche.parcel._codecs import compress
from fleche.parcel._files import FileBytes, FileSection
from fleche.parcel._layout import (
    BUFFER,
    Head,
    Parcel,
    Section,
    assemble,
    checksum,
    checksum_of,
    hash_bytes,
    variant_of,
)
from fleche.parcel._pickles import BUFFER_MIN, Pickled, deserialize, serialize
from fleche.parcel._policy import SERIALIZERS
from fleche.parcel._source import BUFFERS, Buffer, Source, StreamSource, explained

__all__ = [
    "PYTHON",
    "SHARED_MAX",
    "IncomingParcel",
    "Packed",
    "inline",
    "pack",
    "pack_buffer",
    "pack_bytes",
    "pack_parts",
    "read_bytes",
    "receive",
    "spool",
    "unpack",
    "verify",
]

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

SHARED_MAX = 16
"""How many buffers of one value are kept apart, the largest: file systems run out of inodes."""

_PIECE = 1 << 20
"""Bytes that are read at a time of what is not in memory."""


Content: TypeAlias = "memoryview | FileBytes"
"""What a buffer holds: memory, or a file."""


class Packed(msgspec.Struct, frozen=True):
    """A value in parts.

    Attributes:
        main: the parcel of the value, which may refer to buffers.
        buffers: the content of those buffers by their BLAKE3; the memory is that of the value, and
            the files are its own, kept.
    """

    main: Parcel
    buffers: Mapping[Digest, Content]


def pack(
    obj: Any,
    serializer: str = "cloudpickle",
    *,
    digest: str = "",
    compression: str | None = None,
    keys: Sequence[bytes] = (),
    buffers: BufferDigests | None = None,
    place: str = "",
) -> Parcel:
    """Serialize ``obj`` once.

    Buffers of 64 KiB and more (of numpy arrays, for one) are not copied: the parcel refers to their
    memory, and must be written or sent before they change.

    Args:
        obj: any object that the serializer takes.
        serializer: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
        digest: the digest of ``obj``, kept in the head so that a parcel cannot pass for another.
        compression: ``"zlib"`` or ``"zstd"``; a section that does not shrink is left as it is.
        keys: secrets; the first one signs.
        buffers: what digesting ``obj`` has found out about its buffers. Should one have changed
            since, a signed parcel will not open: it is not the value of ``digest``.
        place: the directory where files inside are kept; empty: that of the user.

    Raises:
        MissingExtra: a package that is needed is not installed.
        Exception: whatever the serializer raises for an object it cannot take.
    """
    pickled = serialize(serializer, obj)
    strong = bool(keys)
    parts: list[tuple[Section, Buffer | Source]] = []
    for each in _contents(pickled, place):
        known = _known(each, buffers) if strong else None
        if not isinstance(each, FileBytes):
            parts.append(_store(each, compression, strong=strong, known=known))
        elif each.nbytes < BUFFER_MIN:
            parts.append(_store(each.read(), compression, strong=strong, known=known))
        else:
            parts.append((_section_of(each, strong=strong), each.source))
    return _assembled(pickled, parts, serializer, digest, compression, keys)


def _contents(pickled: Pickled, place: str) -> list[Content]:
    """Return what the buffers of a stream hold; files are kept in ``place``."""
    return [
        each if isinstance(each, memoryview) else FileBytes(each, place) for each in pickled.buffers
    ]


def pack_parts(
    obj: Any,
    serializer: str = "cloudpickle",
    *,
    digest: str = "",
    compression: str | None = None,
    keys: Sequence[bytes] = (),
    buffers: BufferDigests | None = None,
    place: str = "",
    pickled: Pickled | None = None,
) -> Packed:
    """Serialize ``obj`` once, its largest buffers apart, so that other values can share them.

    Small buffers, and those beyond the 16 largest, are in the main parcel; files are apart, unless
    they are small. Arguments and exceptions are those of :func:`pack`; ``pickled`` is what
    serializing ``obj`` gave, if that has been done.
    """
    pickled = pickled or serialize(serializer, obj)
    contents = _contents(pickled, place)
    names = [
        each.name
        if isinstance(each, FileBytes)
        else _known(each, buffers) or Digest(hash_bytes(each).hex())
        for each in contents
    ]
    apart = _largest(dict(zip(names, contents, strict=True)), SHARED_MAX)
    parts: list[tuple[Section, Buffer | Source]] = []
    for name, content in zip(names, contents, strict=True):
        if name in apart:
            section = Section(content.nbytes, 0, "", bytes.fromhex(name), inline=False)
            parts.append((section, b""))
        elif isinstance(content, FileBytes):
            parts.append(_store(content.read(), compression, strong=bool(keys), known=name))
        else:
            parts.append(_store(content, compression, strong=bool(keys), known=name))
    return Packed(_assembled(pickled, parts, serializer, digest, compression, keys), apart)


def _assembled(
    pickled: Pickled,
    buffers: list[tuple[Section, Buffer | Source]],
    serializer: str,
    digest: str,
    compression: str | None,
    keys: Sequence[bytes],
) -> Parcel:
    strong = bool(keys)
    variant = variant_of(pickled.stream)
    stream = _store(pickled.stream, compression, strong=strong, weak=variant)
    parts: list[tuple[Section, Buffer | Source]] = [stream, *buffers]
    definitions = None
    if pickled.definitions:
        parts.append(_store(pickled.definitions, compression, strong=strong))
        definitions = parts[-1][0]
    head = Head(
        serializer=serializer,
        python=PYTHON,
        digest=str(digest),
        variant=variant,
        code=pickled.code,
        classes=pickled.classes,
        stream=stream[0],
        buffers=tuple(section for section, _ in buffers),
        definitions=definitions,
        files=tuple(
            index
            for index, each in enumerate(pickled.buffers, 1)
            if not isinstance(each, memoryview)
        ),
    )
    return assemble(head, [stored for section, stored in parts if section.inline], keys)


def _largest(contents: Mapping[Digest, Content], most: int) -> dict[Digest, Content]:
    """Return the ``most`` largest of some buffers, and all files but small ones, in their order."""
    files = {
        found
        for found, content in contents.items()
        if isinstance(content, FileBytes) and content.nbytes >= BUFFER_MIN
    }
    memory = [each for each in contents if not isinstance(contents[each], FileBytes)]
    ranked = sorted(memory, key=lambda found: -contents[found].nbytes)
    kept = files.union(ranked[:most])
    return {found: content for found, content in contents.items() if found in kept}


def _known(content: Content, buffers: BufferDigests | None) -> Digest | None:
    if isinstance(content, FileBytes):
        return content.name
    return buffers.find(content) if buffers else None


def _store(
    content: Buffer,
    compression: str | None,
    *,
    strong: bool,
    known: str | None = None,
    weak: bytes | None = None,
) -> tuple[Section, Buffer]:
    """Return the entry of a section and the bytes to be stored for it.

    Args:
        content: what the section holds.
        compression: the codec, applied where it makes the content smaller.
        strong: whether the checksum is the BLAKE3.
        known: the BLAKE3 of ``content`` in hexadecimal, if it has been computed already.
        weak: the XXH3-128 of ``content``, likewise.
    """
    codec, stored = compress(compression or "", content)
    size, stored_size = memoryview(content).nbytes, memoryview(stored).nbytes
    found = None
    if not codec:
        found = bytes.fromhex(known) if strong and known else weak if not strong else None
    return Section(size, stored_size, codec, found or checksum(stored, strong=strong)), stored


def _section_of(content: FileBytes, *, strong: bool) -> Section:
    """Return the entry of a section that holds a file as it is."""
    found = bytes.fromhex(content.name) if strong else content.weak
    return Section(content.nbytes, content.nbytes, "", found)


def pack_buffer(
    content: Buffer | FileBytes,
    digest: str,
    *,
    compression: str | None = None,
    keys: Sequence[bytes] = (),
) -> Parcel:
    """Return the parcel of a buffer, without copying it.

    Args:
        content: contiguous memory, which must be written or sent before it changes; or a file.
        digest: the BLAKE3 of ``content``.
        compression: ``"zlib"`` or ``"zstd"``; what does not shrink is left as it is, and so is a
            file.
        keys: secrets; the first one signs.
    """
    if isinstance(content, FileBytes):
        section = _section_of(content, strong=bool(keys))
        head = Head(serializer=BUFFER, digest=str(digest), stream=section, files=(0,))
        return assemble(head, [content.source], keys)
    section, stored = _store(content, compression, strong=bool(keys), known=digest)
    return assemble(Head(serializer=BUFFER, digest=str(digest), stream=section), [stored], keys)


def pack_bytes(
    content: bytes,
    kind: str,
    *,
    digest: str = "",
    compression: str | None = None,
    keys: Sequence[bytes] = (),
) -> Parcel:
    """Put ``content`` as it is into a parcel whose serializer is ``kind``.

    :func:`read_bytes` reads it. ``digest`` is the name under which it will be kept, so that it
    cannot pass for another. A ``kind`` that is a serializer makes it the stream of a value.
    """
    section, stored = _store(content, compression, strong=bool(keys))
    variant = variant_of(content) if kind in SERIALIZERS else b""
    head = Head(serializer=kind, digest=str(digest), variant=variant, stream=section)
    return assemble(head, [stored], keys)


def read_bytes(
    parcel: Parcel, kind: str, keys: Sequence[bytes] = (), *, digest: str = ""
) -> Buffer:
    """Return, checked, what :func:`pack_bytes` put in.

    Raises:
        CorruptParcel: damaged, not of ``kind``, or of another ``digest`` (empty: any).
        SignatureError: ``keys`` are given and none of them signed it.
    """
    if keys:
        parcel.check_signature(keys)
    if parcel.head.serializer != kind:
        raise CorruptParcel(f"{parcel.source.name}: holds {parcel.head.serializer!r}, not {kind!r}")
    parcel.check_digest(digest)
    return parcel.content(0)


def unpack(
    parcel: Parcel,
    *,
    digest: str = "",
    keys: Sequence[bytes] = (),
    buffers: Mapping[Address, Parcel] | None = None,
    place: str = "",
    plain: bool = False,
) -> Any:
    """Make the object again, after every check.

    The checksums of all sections are verified first, except of buffers that are memory-mapped:
    those are loaded when they are touched, and :func:`verify` checks them.

    Args:
        parcel: what :func:`pack` returned, from wherever it has been. It may be spent by this.
        digest: the digest or address that the value must have (empty: any).
        keys: secrets; if there are any, one of them must have signed the parcel and its buffers.
        buffers: the parcels of the buffers that it refers to; they may be spent by this. That of a
            file need not be there if the file is kept already.
        place: the directory where files inside are kept; empty: that of the user.
        plain: make nothing but plain data: numbers, text, containers, arrays and tables. No class
            and no function of a user is looked up, let alone run.

    Raises:
        CorruptParcel: altered bytes, another value's parcel, or a buffer is not given.
        SignatureError: not signed by one of ``keys``.
        UnpackError: the bytes are sound, but this process cannot make the object.
    """
    if keys:
        parcel.check_signature(keys)
    head = parcel.head
    parcel.check_digest(digest)
    if head.serializer == BUFFER:
        raise UnpackError(f"{head.digest[:12]} is a buffer that values share, not a value")
    if head.serializer not in SERIALIZERS:
        raise UnpackError(f"value {head.digest[:12]}: unknown serializer {head.serializer!r}")
    if head.code and head.python != PYTHON:
        raise _other_python(head)
    held = buffers or {}
    try:
        shared = _take_shared(parcel, held, keys) if parcel.references else {}
        stream = parcel.stream()
        contents = [
            _file_section(parcel, index, held, keys, place)
            if index in head.files
            else shared[index]
            if index in shared
            else parcel.content(index, lazy=True)
            for index in range(1, len(head.buffers) + 1)
        ]
    except MemoryError:
        size = sum(entry.size for entry in parcel.sections)
        raise UnpackError(
            f"value {head.digest[:12]} needs {size} bytes of memory, more than there are"
        ) from None
    obj = _loads(parcel, stream, contents, plain=plain)
    for spent in (parcel, *held.values()):
        spent.source.opened()
    return obj


def _file_section(
    parcel: Parcel,
    index: int,
    buffers: Mapping[Address, Parcel],
    keys: Sequence[bytes],
    place: str,
) -> FileSection:
    """Return where the content of a file can be read, should it not be kept already."""
    entry = parcel.sections[index]
    if entry.inline:
        return FileSection(parcel, index, place)
    if entry.checksum.hex() not in buffers:
        return FileSection(None, 0, place)
    return FileSection(_held(parcel, entry, buffers, keys), 0, place)


def _other_python(head: Head) -> UnpackError:
    return UnpackError(
        f"value {head.digest[:12]} holds code (a function or class of __main__) compiled by "
        f"Python {head.python}, and this is Python {PYTHON}; "
        "define it in a module that both can import"
    )


def _loads(
    parcel: Parcel, stream: Buffer, buffers: list[Buffer | FileSection], *, plain: bool
) -> Any:
    head = parcel.head

    def definitions() -> Buffer:
        if head.definitions is None:
            return b""
        if head.python != PYTHON:
            raise _other_python(head)
        return parcel.content(len(parcel.sections) - 1)

    try:
        return deserialize(head.serializer, stream, buffers, definitions, plain=plain)
    except (ParcelError, StorageError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name:
            reason = (
                f"it needs the module {error.name!r}, which cannot be imported here: install it, "
                "or name its directory in PYTHONPATH"
            )
        raise UnpackError(
            f"value {head.digest[:12]} (written by Python {head.python}, {head.serializer}) "
            f"cannot be opened here: {reason}"
        ) from error


def verify(parcel: Parcel, *, digest: str = "", keys: Sequence[bytes] = ()) -> None:
    """Check every byte of ``parcel`` without unpickling anything; it is not spent.

    What is compressed is decompressed in small pieces, under the size it claims.

    Raises:
        CorruptParcel: altered bytes, another value's parcel, a size that lies, or a buffer that is
            not that of its name.
        SignatureError: not signed by one of ``keys``.
    """
    if keys:
        parcel.check_signature(keys)
    parcel.check_digest(digest)
    for _ in parcel.checked_chunks(names=True):
        pass


def inline(parcel: Parcel, buffers: Mapping[Address, Parcel], keys: Sequence[bytes] = ()) -> Parcel:
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
    strong = bool(keys)
    sections: list[Section] = []
    contents: list[Buffer | Source] = []
    for index, entry in enumerate(parcel.sections):
        held, place = (parcel, index) if entry.inline else (_held(parcel, entry, buffers, keys), 0)
        section = held.sections[place]
        streams = index in parcel.head.files
        content = held.stretch(place) if streams else held.stored(place)
        if held.signed != strong:
            pieces = [content] if isinstance(content, BUFFERS) else content.chunks(_PIECE)
            section = msgspec.structs.replace(section, checksum=checksum_of(pieces, strong=strong))
        sections.append(section)
        contents.append(content)
    count = len(parcel.head.buffers) + 1
    head = msgspec.structs.replace(
        parcel.head,
        stream=sections[0],
        buffers=tuple(sections[1:count]),
        definitions=sections[count] if len(sections) > count else None,
    )
    return assemble(head, contents, keys)


def _take_shared(
    parcel: Parcel, buffers: Mapping[Address, Parcel], keys: Sequence[bytes]
) -> dict[int, Buffer]:
    """Return the content of every entry of ``parcel`` that is a reference, by its index.

    Every entry has memory of its own, even where two refer to the same buffer.

    Raises:
        CorruptParcel: a buffer is not there, damaged, or not the one that is meant.
        SignatureError: not signed by one of ``keys``.
    """
    taken: dict[bytes, Buffer] = {}
    contents: dict[int, Buffer] = {}
    for index, entry in enumerate(parcel.sections):
        if entry.inline or index in parcel.head.files:
            continue
        held = _held(parcel, entry, buffers, keys)
        if entry.checksum in taken and not held.source.mapped:
            contents[index] = bytearray(taken[entry.checksum])
        else:
            contents[index] = taken[entry.checksum] = held.content(0, lazy=True)
    return contents


def _held(
    parcel: Parcel, entry: Section, buffers: Mapping[Address, Parcel], keys: Sequence[bytes]
) -> Parcel:
    """Return the parcel of the buffer that ``entry`` refers to, if it is what it should be."""
    name = str.__new__(Address, entry.checksum.hex())  # as long as a digest, by the head's check
    held = buffers.get(name)
    if held is None:
        raise CorruptParcel(f"{parcel.source.name}: refers to a buffer that is kept elsewhere")
    if keys:
        held.check_signature(keys)
    stream = held.head.stream
    held.check_digest(name)
    if held.head.serializer != BUFFER or stream.size != entry.size:
        raise CorruptParcel(f"{held.source.name}: not the buffer {name[:12]}")
    if held.signed and not stream.codec and stream.checksum != entry.checksum:
        raise CorruptParcel(
            f"{held.source.name}: its content is not that of the buffer {name[:12]}"
        )
    return held


class IncomingParcel(Parcel):
    """A parcel that comes from elsewhere, and checks its bytes as they are taken.

    Nothing altered is ever stored, nor a buffer under the name of another.
    """

    __slots__ = ()

    @override
    def chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        """Yield all bytes in order, once.

        Raises:
            CorruptParcel: they are not those that the head names.
        """
        return self.checked_chunks(size, names=True)


def receive(memory: memoryview, filled: Iterable[Buffer], name: str = "incoming parcel") -> Parcel:
    """Return the parcel that ``memory`` will hold, checked and owned.

    Args:
        memory: of exactly the size of the parcel, held by nothing else.
        filled: yields consecutive parts of ``memory``, as soon as they are filled.
        name: what it is, for error messages.

    Raises:
        CorruptParcel: the bytes are not those of one sound parcel.
    """
    source = StreamSource(len(memory), filled, name)
    for _ in Parcel(source).checked_chunks():
        pass
    parcel = Parcel.from_bytes(memory, owned=True)
    parcel.checked = True
    return parcel


def spool(source: StreamSource) -> Parcel:
    """Return a parcel that arrives, checked, as a file on this machine, which goes when it closes.

    The file is in the user's cache directory, since that for temporary files may be memory.

    Raises:
        CorruptParcel: the bytes are not those of one sound parcel.
        StorageError: they cannot be written.
    """
    directory = user_cache_directory("kept")
    path = os.path.join(directory, f"{os.urandom(8).hex()}.tmp")
    with explained("write", path):
        os.makedirs(directory, exist_ok=True)
        try:
            with open(path, "xb", buffering=0) as file:
                for chunk in IncomingParcel(source).chunks():
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
            return Parcel.from_file(path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # it is there as long as it is open
