"""Parcels: a value, serialized once, as the bytes that every layer keeps and carries."""

from fleche.parcel._codecs import CODECS, Compress, codec_of, zstd_available
from fleche.parcel._definitions import born as born
from fleche.parcel._definitions import cached_property as cached_property
from fleche.parcel._definitions import class_apart as class_apart
from fleche.parcel._definitions import class_named as class_named
from fleche.parcel._definitions import function_named as function_named
from fleche.parcel._definitions import type_named as type_named
from fleche.parcel._files import File, FileBytes, is_kept, sweep_files
from fleche.parcel._files import kept_file as kept_file
from fleche.parcel._forms import bit_generator as bit_generator
from fleche.parcel._forms import masked_array as masked_array
from fleche.parcel._forms import memory_view as memory_view
from fleche.parcel._forms import random_generator as random_generator
from fleche.parcel._forms import random_state as random_state
from fleche.parcel._forms import seed_sequence as seed_sequence
from fleche.parcel._forms import transposed as transposed
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
from fleche.parcel._packing import (
    PYTHON,
    SHARED_MAX,
    IncomingParcel,
    Packed,
    Packing,
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
from fleche.parcel._pickles import BUFFER_MIN, SERIALIZERS
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

# What is imported under its own name again is not for users: streams name it.
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
