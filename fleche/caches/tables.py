"""Values with the buffers that their tables name, straight from a storage and back."""

from __future__ import annotations

from typing import Any

from fleche.digest import Digest
from fleche.parcel import Packing, Parcel
from fleche.storage.base import ValueStorage

__all__ = ["open_stored", "save_stored"]


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
