"""Objects to parcels and back: the only place where values are serialized and opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleche.digest import BufferDigests, Digest
from fleche.errors import CorruptParcel, UnpackError
from fleche.parcel.codecs import CODECS
from fleche.parcel.layout import Head, Parcel, Section, assemble
from fleche.parcel.sections import check_digest, content_of, hash_bytes, store
from fleche.parcel.serializers import SERIALIZERS, deserialize, serialize
from fleche.parcel.shared import (
    BUFFER,
    SHARED_MAX,
    Packed,
    check_buffer,
    chosen,
    pack_buffer,
    reference,
    take_shared,
)
from fleche.parcel.source import Buffer

__all__ = [
    "PYTHON",
    "Packing",
    "pack",
    "pack_bytes",
    "pack_parts",
    "read_bytes",
    "unpack",
    "verify",
]

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
    parts = [store(stream, compression)]
    parts += [store(each, compression, _known(each, buffers)) for each in out_of_band]
    return _assembled(parts, serializer, digest, code, keys)


def pack_parts(
    obj: Any,
    serializer: str = "cloudpickle",
    *,
    digest: str = "",
    compression: str | None = None,
    keys: Sequence[bytes] = (),
    buffers: BufferDigests | None = None,
) -> Packed:
    """Serialize ``obj`` once, its largest buffers apart, so that other values can share them.

    Small buffers, and those beyond the 16 largest, are in the main parcel. Arguments and exceptions
    are those of :func:`pack`.
    """
    stream, out_of_band, code = serialize(serializer, obj)
    names = [_known(each, buffers) or Digest(hash_bytes(each).hex()) for each in out_of_band]
    apart = chosen(dict(zip(names, out_of_band, strict=True)), SHARED_MAX)
    parts: list[tuple[Section, Buffer]] = [store(stream, compression)]
    for name, content in zip(names, out_of_band, strict=True):
        known = (reference(name, content), b"")
        parts.append(known if name in apart else store(content, compression, name))
    return Packed(_assembled(parts, serializer, digest, code, keys), apart)


def _assembled(
    parts: list[tuple[Section, Buffer]],
    serializer: str,
    digest: str,
    code: bool,
    keys: Sequence[bytes],
) -> Parcel:
    sections = [section for section, _ in parts]
    head = Head(
        serializer=serializer,
        python=PYTHON,
        digest=str(digest),
        code=code,
        stream=sections[0],
        buffers=tuple(sections[1:]),
    )
    return assemble(head, [stored for section, stored in parts if section.inline], keys)


def _known(content: memoryview, buffers: BufferDigests | None) -> Digest | None:
    return buffers.find(content) if buffers else None


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
    section, stored = store(content, compression)
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
    check_digest(parcel, digest)
    return content_of(parcel, 0)


def unpack(
    parcel: Parcel,
    *,
    digest: str = "",
    keys: Sequence[bytes] = (),
    buffers: Mapping[Digest, Parcel] | None = None,
) -> Any:
    """Make the object again, after every check.

    The checksums of all sections are verified first, except of buffers that are memory-mapped:
    those are loaded when they are touched, and :func:`verify` checks them.

    Args:
        parcel: what :func:`pack` returned, from wherever it has been. It may be spent by this.
        digest: the digest that the value must have (empty: any).
        keys: secrets; if there are any, one of them must have signed the parcel and its buffers.
        buffers: the parcels of the buffers that it refers to; they may be spent by this.

    Raises:
        CorruptParcel: altered bytes, another value's parcel, or a buffer is not given.
        SignatureError: not signed by one of ``keys``.
        UnpackError: the bytes are sound, but this process cannot make the object.
    """
    if keys:
        parcel.check_signature(keys)
    head = parcel.head
    check_digest(parcel, digest)
    if head.serializer == BUFFER:
        raise UnpackError(f"{head.digest[:12]} is a buffer that values share, not a value")
    if head.serializer not in SERIALIZERS:
        raise UnpackError(f"value {head.digest[:12]}: unknown serializer {head.serializer!r}")
    if head.code and head.python != PYTHON:
        raise UnpackError(
            f"value {head.digest[:12]} holds code (a function or class of __main__) compiled by "
            f"Python {head.python}, and this is Python {PYTHON}; "
            "define it in a module that both can import"
        )
    held = buffers or {}
    shared = take_shared(parcel, held, keys)
    contents = [
        shared[index] if index in shared else content_of(parcel, index, lazy=index > 0)
        for index in range(len(head.sections))
    ]
    obj = _loads(head, contents[0], contents[1:])
    for spent in (parcel, *held.values()):
        spent.source.opened()
    return obj


def verify(parcel: Parcel, *, digest: str = "", keys: Sequence[bytes] = ()) -> None:
    """Check every byte of ``parcel`` without unpickling anything; it is not spent.

    Raises:
        CorruptParcel: altered bytes, or another value's parcel.
        SignatureError: not signed by one of ``keys``.
    """
    if keys:
        parcel.check_signature(keys)
    check_digest(parcel, digest)
    for _ in parcel.checked_chunks():
        pass
    if parcel.head.serializer == BUFFER:
        check_buffer(parcel)


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

    def pack_parts(
        self, obj: Any, digest: str = "", buffers: BufferDigests | None = None
    ) -> Packed:
        """Pack as :func:`pack_parts` does."""
        return pack_parts(
            obj,
            self.serializer,
            digest=digest,
            compression=self.compression,
            keys=self.keys,
            buffers=buffers,
        )

    def pack_buffer(self, content: Buffer, digest: str) -> Parcel:
        """Pack one of the buffers of :meth:`pack_parts`, to be kept apart."""
        return pack_buffer(content, digest, compression=self.compression, keys=self.keys)

    def unpack(
        self,
        parcel: Parcel,
        digest: str = "",
        buffers: Mapping[Digest, Parcel] | None = None,
    ) -> Any:
        """Open as :func:`unpack` does."""
        return unpack(parcel, digest=digest, keys=self.keys, buffers=buffers)


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
