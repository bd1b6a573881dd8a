"""Parcels: a value, serialized once, as the bytes that every layer keeps and carries."""

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked
from fleche.parcel._codecs import CODECS, Compress, codec_of, zstd_available
from fleche.parcel._layout import (
    ALIGNMENT,
    BUFFER,
    MAGIC,
    VERSION,
    ClassName,
    Head,
    Parcel,
    Section,
    announces_file,
    check_signature,
    hash_bytes,
    length_of,
    sign,
)
from fleche.parcel._policy import SERIALIZERS, Packing
from fleche.parcel._source import (
    Buffer,
    FileSource,
    MemorySource,
    Seen,
    Source,
    StreamSource,
    Stretch,
    allocate,
    explained,
)

if TYPE_CHECKING:
    from fleche.parcel._draft import Draft, DraftSource
    from fleche.parcel._files import File, FileBytes, is_kept, sweep_files
    from fleche.parcel._packing import (
        PYTHON,
        SHARED_MAX,
        IncomingParcel,
        Packed,
        inline,
        pack,
        pack_buffer,
        pack_bytes,
        pack_parts,
        read_bytes,
        receive,
        spool,
        unpack,
        verify,
    )
    from fleche.parcel._pickles import BUFFER_MIN

__all__ = [
    "ALIGNMENT",
    "BUFFER",
    "BUFFER_MIN",
    "CODECS",
    "MAGIC",
    "PYTHON",
    "SERIALIZERS",
    "SHARED_MAX",
    "VERSION",
    "Buffer",
    "ClassName",
    "Compress",
    "Draft",
    "DraftSource",
    "File",
    "FileBytes",
    "FileSource",
    "Head",
    "IncomingParcel",
    "MemorySource",
    "Packed",
    "Packing",
    "Parcel",
    "Section",
    "Seen",
    "Source",
    "StreamSource",
    "Stretch",
    "allocate",
    "announces_file",
    "check_signature",
    "codec_of",
    "explained",
    "hash_bytes",
    "inline",
    "is_kept",
    "length_of",
    "pack",
    "pack_buffer",
    "pack_bytes",
    "pack_parts",
    "read_bytes",
    "receive",
    "sign",
    "spool",
    "sweep_files",
    "unpack",
    "verify",
    "zstd_available",
]

__getattr__ = imported_when_asked(
    __name__,
    {
        "._draft": ("Draft", "DraftSource"),
        "._files": ("File", "FileBytes", "is_kept", "kept_file", "sweep_files"),
        "._packing": (
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
        ),
        "._pickles": ("BUFFER_MIN",),
        # These are not for users: streams name them.
        "._definitions": (
            "born",
            "cached_property",
            "class_apart",
            "class_named",
            "function_named",
            "type_named",
        ),
        "._forms": (
            "bit_generator",
            "masked_array",
            "memory_view",
            "random_generator",
            "random_state",
            "seed_sequence",
            "transposed",
        ),
    },
)
