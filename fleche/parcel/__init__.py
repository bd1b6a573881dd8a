"""Parcels: a value, serialized once, as the bytes that every layer keeps and carries."""

from fleche.parcel.codecs import CODECS, zstd_available
from fleche.parcel.incoming import IncomingParcel, StreamSource, receive
from fleche.parcel.layout import ALIGNMENT, MAGIC, VERSION, Head, Parcel, Section
from fleche.parcel.packing import PYTHON, Packing, pack, pack_bytes, read_bytes, unpack, verify
from fleche.parcel.serializers import BUFFER_MIN, SERIALIZERS
from fleche.parcel.source import Buffer

__all__ = [
    "ALIGNMENT",
    "BUFFER_MIN",
    "CODECS",
    "MAGIC",
    "PYTHON",
    "SERIALIZERS",
    "VERSION",
    "Buffer",
    "Head",
    "IncomingParcel",
    "Packing",
    "Parcel",
    "Section",
    "StreamSource",
    "pack",
    "pack_bytes",
    "read_bytes",
    "receive",
    "unpack",
    "verify",
    "zstd_available",
]
