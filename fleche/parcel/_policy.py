"""How a cache packs values. What does it is imported when there is a value to pack or to open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

import fleche.parcel as package  # which imports what does it, once
from fleche.digest import Address, BufferDigests
from fleche.errors import MissingExtra
from fleche.parcel._codecs import CODECS, zstd_module
from fleche.parcel._layout import Parcel

if TYPE_CHECKING:
    from fleche.parcel._packing import Content, Packed
    from fleche.parcel._pickles import Pickled

__all__ = ["SERIALIZERS", "Packing"]

SERIALIZERS = ("cloudpickle", "pickle", "dill")


class Packing(msgspec.Struct, frozen=True):
    """How one cache packs and opens values: its serializer, compression and secrets.

    Files inside are kept in ``place``; if that is empty, in the cache directory of the user.

    Raises:
        ValueError: the serializer or the compression is unknown.
        MissingExtra: it needs a package that is not installed. That is said here, since the first
            large value comes only when what has computed it is over.
    """

    serializer: str = "cloudpickle"
    compression: str | None = None
    keys: tuple[bytes, ...] = ()
    place: str = ""

    def __post_init__(self) -> None:
        if self.serializer not in SERIALIZERS:
            raise ValueError(f"serializer {self.serializer!r}: one of {', '.join(SERIALIZERS)}")
        if self.compression is not None and self.compression not in CODECS:
            raise ValueError(f"compress {self.compression!r}: one of {', '.join(CODECS)}")
        if self.serializer == "dill" and find_spec("dill") is None:
            raise MissingExtra('serializer "dill" needs the package dill: pip install dill')
        if self.compression == "zstd":
            zstd_module()

    def with_environment(self) -> Packing:
        """Return the same, with the secrets in ``FLECHE_SECRET_KEY`` (by commas) if it has none."""
        secrets = os.environ.get("FLECHE_SECRET_KEY", "")
        if self.keys or not secrets:
            return self
        keys = tuple(part.encode() for part in secrets.split(",") if part)
        return msgspec.structs.replace(self, keys=keys)

    def __repr__(self) -> str:
        return f"Packing({self.serializer!r}, {self.compression!r})"  # the keys are secrets

    def pack(self, obj: Any, digest: str = "", buffers: BufferDigests | None = None) -> Parcel:
        """Pack as :func:`pack` does."""
        return package.pack(
            obj,
            self.serializer,
            digest=digest,
            compression=self.compression,
            keys=self.keys,
            buffers=buffers,
            place=self.place,
        )

    def serialize(self, obj: Any) -> Pickled:
        """Serialize as :meth:`pack_parts` does first."""
        from fleche.parcel._pickles import serialize

        return serialize(self.serializer, obj)

    def pack_parts(
        self,
        obj: Any,
        digest: str = "",
        buffers: BufferDigests | None = None,
        pickled: Pickled | None = None,
    ) -> Packed:
        """Pack as :func:`pack_parts` does."""
        return package.pack_parts(
            obj,
            self.serializer,
            digest=digest,
            compression=self.compression,
            keys=self.keys,
            buffers=buffers,
            place=self.place,
            pickled=pickled,
        )

    def pack_buffer(self, content: Content, digest: str) -> Parcel:
        """Pack one of the buffers of :meth:`pack_parts`, to be kept apart."""
        return package.pack_buffer(content, digest, compression=self.compression, keys=self.keys)

    def unpack(
        self,
        parcel: Parcel,
        digest: str = "",
        buffers: Mapping[Address, Parcel] | None = None,
        *,
        plain: bool = False,
    ) -> Any:
        """Open as :func:`unpack` does."""
        return package.unpack(
            parcel,
            digest=digest,
            keys=self.keys,
            buffers=buffers,
            place=self.place,
            plain=plain,
        )

    def needed(self, parcel: Parcel) -> Sequence[Address]:
        """Return the buffers without which ``parcel`` cannot be opened here.

        Those of files that are kept already are left out.
        """
        if not parcel.head.files:
            return parcel.references
        files = {parcel.sections[index].checksum.hex() for index in parcel.head.files}
        return [
            each
            for each in parcel.references
            if each not in files or not package.is_kept(self.place, each)
        ]
