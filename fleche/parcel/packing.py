"""Objects to parcels and back: the only place where values are serialized and opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blake3 import blake3

from fleche.digest import BufferDigests, hash_threads
from fleche.errors import CorruptParcel, UnpackError
from fleche.parcel.codecs import CODECS, compress, decompress
from fleche.parcel.layout import Head, Parcel, Section, assemble
from fleche.parcel.serializers import SERIALIZERS, deserialize, serialize
from fleche.parcel.source import Buffer

__all__ = ["PYTHON", "Packing", "pack", "pack_bytes", "read_bytes", "unpack", "verify"]

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def pack(
    obj: Any,
    serializer: str = "cloudpickle",
    *,
    digest: str = "",
    compression: str | None = None,
    keys: Sequence[bytes] = (),
    buffers: BufferDigests | None = None,
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
        buffers: what digesting ``obj`` has found out about its buffers, so that they are read
            once. Should one have changed since, the parcel will not open: it is not the value of
            ``digest``.

    Raises:
        MissingExtra: a package that is needed is not installed.
        Exception: whatever the serializer raises for an object it cannot take.
    """
    stream, out_of_band, code = serialize(serializer, obj)
    sections, contents = [], []
    for content in (stream, *out_of_band):
        codec, stored = compress(compression or "", content)
        size, stored_size = memoryview(content).nbytes, memoryview(stored).nbytes
        known = buffers.find(content) if buffers and isinstance(content, memoryview) else None
        checksum = bytes.fromhex(known) if known and not codec else _hash(stored)
        sections.append(Section(size, stored_size, codec, checksum))
        contents.append(stored)
    head = Head(
        serializer=serializer,
        python=PYTHON,
        digest=str(digest),
        code=code,
        stream=sections[0],
        buffers=tuple(sections[1:]),
    )
    return assemble(head, contents, keys)


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
    cannot pass for another.
    """
    codec, stored = compress(compression or "", content)
    section = Section(len(content), memoryview(stored).nbytes, codec, _hash(stored))
    return assemble(Head(serializer=kind, digest=str(digest), stream=section), [stored], keys)


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
    _check_digest(parcel, digest)
    return _content(parcel, 0)


def unpack(parcel: Parcel, *, digest: str = "", keys: Sequence[bytes] = ()) -> Any:
    """Make the object again, after every check.

    The checksums of all sections are verified first, except of buffers that are memory-mapped:
    those are loaded when they are touched, and :func:`verify` checks them.

    Args:
        parcel: what :func:`pack` returned, from wherever it has been. It may be spent by this.
        digest: the digest that the value must have (empty: any).
        keys: secrets; if there are any, one of them must have signed the parcel.

    Raises:
        CorruptParcel: altered bytes, or another value's parcel.
        SignatureError: not signed by one of ``keys``.
        UnpackError: the bytes are sound, but this process cannot make the object.
    """
    if keys:
        parcel.check_signature(keys)
    head = parcel.head
    _check_digest(parcel, digest)
    if head.serializer not in SERIALIZERS:
        raise UnpackError(f"value {head.digest[:12]}: unknown serializer {head.serializer!r}")
    if head.code and head.python != PYTHON:
        raise UnpackError(
            f"value {head.digest[:12]} holds code (a function or class of __main__) compiled by "
            f"Python {head.python}, and this is Python {PYTHON}; "
            "define it in a module that both can import"
        )
    contents = [_content(parcel, index) for index in range(len(head.sections))]
    obj = _loads(head, contents[0], contents[1:])
    parcel.source.opened()
    return obj


def verify(parcel: Parcel, *, digest: str = "", keys: Sequence[bytes] = ()) -> None:
    """Check every byte of ``parcel`` without unpickling anything; it is not spent.

    Raises:
        CorruptParcel: altered bytes, or another value's parcel.
        SignatureError: not signed by one of ``keys``.
    """
    if keys:
        parcel.check_signature(keys)
    _check_digest(parcel, digest)
    for _ in parcel.checked_chunks():
        pass


@dataclass(frozen=True)
class Packing:
    """How one cache packs and opens values: its serializer, compression and secrets."""

    serializer: str = "cloudpickle"
    compression: str | None = None
    keys: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.serializer not in SERIALIZERS:
            raise ValueError(f"serializer {self.serializer!r}: one of {', '.join(SERIALIZERS)}")
        if self.compression is not None and self.compression not in CODECS:
            raise ValueError(f"compress {self.compression!r}: one of {', '.join(CODECS)}")

    def with_environment(self) -> Packing:
        """Return the same, with the secrets in ``FLECHE_SECRET_KEY`` (by commas) if it has none."""
        secrets = os.environ.get("FLECHE_SECRET_KEY", "")
        if self.keys or not secrets:
            return self
        return replace(self, keys=tuple(part.encode() for part in secrets.split(",") if part))

    def pack(self, obj: Any, digest: str = "", buffers: BufferDigests | None = None) -> Parcel:
        """Pack as :func:`pack` does."""
        return pack(
            obj,
            self.serializer,
            digest=digest,
            compression=self.compression,
            keys=self.keys,
            buffers=buffers,
        )

    def unpack(self, parcel: Parcel, digest: str = "") -> Any:
        """Open as :func:`unpack` does."""
        return unpack(parcel, digest=digest, keys=self.keys)


def _hash(content: Buffer) -> bytes:
    size = memoryview(content).nbytes
    hasher = blake3(max_threads=hash_threads(size))
    return hasher.update(content).digest()


def _check_digest(parcel: Parcel, digest: str) -> None:
    if digest and parcel.head.digest != digest:
        raise CorruptParcel(
            f"{parcel.source.name}: holds {parcel.head.digest[:12] or '?'}, not {digest[:12]}"
        )


def _content(parcel: Parcel, index: int) -> Buffer:
    """Return the content of one section, checked, as memory that the object may own."""
    entry, name = parcel.head.sections[index], parcel.source.name
    if not entry.inline:
        raise CorruptParcel(f"{name}: refers to a buffer that is kept elsewhere")
    stored = parcel.take(index)
    trusted = parcel.checked or (index and parcel.source.mapped and not entry.codec)
    if not trusted and (memoryview(stored).nbytes != entry.stored or _hash(stored) != entry.blake3):
        part = f"buffer {index}" if index else "the pickle stream"
        raise CorruptParcel(f"{name}: the checksum of {part} does not match")
    return decompress(entry.codec, stored, entry.size, name) if entry.codec else stored


def _loads(head: Head, stream: Buffer, buffers: list[Buffer]) -> Any:
    try:
        return deserialize(head.serializer, stream, buffers)
    except Exception as error:
        hint = ""
        if isinstance(error, ImportError):
            hint = f"; it needs the module {error.name!r}, which cannot be imported here"
        raise UnpackError(
            f"value {head.digest[:12]} (written by Python {head.python}, {head.serializer}) "
            f"cannot be opened here: {type(error).__name__}: {error}{hint}"
        ) from error
