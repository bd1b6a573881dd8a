"""Parcels: a value, serialized once, as the bytes that every layer keeps and carries."""

from fleche.parcel.codecs import CODECS, zstd_available
from fleche.parcel.incoming import IncomingParcel, StreamSource, receive
from fleche.parcel.layout import ALIGNMENT, MAGIC, VERSION, Head, Parcel, Section
from fleche.parcel.memory import allocate
from fleche.parcel.packing import (
    PYTHON,
    Packing,
    pack,
    pack_bytes,
    pack_parts,
    read_bytes,
    unpack,
    verify,
)
from fleche.parcel.serializers import BUFFER_MIN, SERIALIZERS
from fleche.parcel.shared import BUFFER, SHARED_MAX, Packed, inline, pack_buffer
from fleche.parcel.signatures import check_signature, sign
from fleche.parcel.source import Buffer

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
    "Head",
    "IncomingParcel",
    "Packed",
    "Packing",
    "Parcel",
    "Section",
    "StreamSource",
    "allocate",
    "check_signature",
    "inline",
    "pack",
    "pack_buffer",
    "pack_bytes",
    "pack_parts",
    "read_bytes",
    "receive",
    "sign",
    "unpack",
    "verify",
    "zstd_available",
]
