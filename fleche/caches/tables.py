"""What the table of a stored parcel says, and values by way of it, straight from a storage."""

from __future__ import annotations

from typing import Any, NamedTuple

from fleche.digest import Digest
from fleche.parcel import BUFFER, Packing, Parcel
from fleche.storage.base import ValueStorage

__all__ = ["Table", "open_stored", "read_table", "save_stored", "table_of"]


class Table(NamedTuple):
    """What matters of a table: whether this is a shared buffer, and which ones it refers to."""

    is_buffer: bool = False
    references: tuple[Digest, ...] = ()


def table_of(parcel: Parcel) -> Table:
    """Return what the table of ``parcel`` says."""
    return Table(parcel.head.serializer == BUFFER, parcel.references)


def read_table(values: ValueStorage, key: Digest) -> Table:
    """Return what the table of a stored parcel says; nothing else of it is looked at.

    A storage that opens parcels keeps no references.

    Raises:
        KeyError: there is none.
        ParcelError: it is damaged or not trusted.
        StorageError: it could not be read.
    """
    if values.capabilities.opens_parcels:
        return Table()
    parcel = values.get(key)
    try:
        return table_of(parcel)
    finally:
        parcel.close()


def open_stored(values: ValueStorage, packing: Packing, key: Digest) -> Any:
    """Return a stored value.

    Raises:
        KeyError: the value, or a buffer of it, is gone.
        ParcelError: it is damaged, not trusted, or cannot be made here.
    """
    parcel = values.get(key)
    buffers: dict[Digest, Parcel] = {}
    try:
        for each in parcel.references:
            buffers[each] = values.get(each)
        return packing.unpack(parcel, key, buffers)
    finally:
        for held in (parcel, *buffers.values()):
            held.close()


def save_stored(values: ValueStorage, packing: Packing, key: Digest, value: Any) -> None:
    """Store a value, its buffers first."""
    if values.capabilities.opens_parcels:
        values.put(key, packing.pack(value, key))
        return
    packed = packing.pack_parts(value, key)
    for each, content in packed.buffers.items():
        if not values.renew(each):
            values.put(each, packing.pack_buffer(content, each))
    values.put(key, packed.main)
