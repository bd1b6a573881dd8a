"""One value as one HDF5 file: written so that it comes back exactly, or else as its parcel."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, BinaryIO

import h5py

from fleche.digest import digest
from fleche.errors import ParcelError, StorageError, UnpackError
from fleche.parcel import Buffer, MemorySource, Packing, Parcel
from fleche.storage.hdf5 import words
from fleche.storage.hdf5.plain import Filters, read_bytes, write_bytes
from fleche.storage.hdf5.read import Reader
from fleche.storage.hdf5.seal import BLOCK
from fleche.storage.hdf5.write import Writer

__all__ = ["read_document", "write_document"]

log = logging.getLogger("fleche.storage")

_PARCEL = "parcel"


def write_document(file: BinaryIO, item: Parcel, packing: Packing, filters: Filters) -> None:
    """Write the value in ``item`` into the empty ``file``, the block of the seal left free.

    Raises:
        CorruptParcel: the parcel is damaged.
        SignatureError: there are secrets and none of them signed it.
    """
    try:
        value = packing.unpack(item)
    except UnpackError as error:
        log.warning("stored unopened, so that HDF5 tools see only its bytes: %s", error)
        _write_parcel(file, b"".join(item.checked_chunks()), filters)
        return
    if not _write_native(file, value, item.head.digest, packing, filters):
        again = replace(packing, serializer=item.head.serializer).pack(value, item.head.digest)
        _write_parcel(file, again.tobytes(), filters)


def read_document(file: BinaryIO, name: str, digest_: str, packing: Packing) -> Parcel:
    """Return the value in ``file``, whose bytes were checked, as a parcel.

    Raises:
        UnpackError: this process cannot make the value.
        StorageError: the file could not be read.
    """
    try:
        with h5py.File(file, "r") as root:
            node = root[words.VALUE]
            if node.attrs[words.TYPE] == _PARCEL:
                return _as_parcel(read_bytes(node), name)
            value = _read_native(root, packing)
    except (MemoryError, ParcelError) as error:
        if isinstance(error, UnpackError):
            raise UnpackError(f"{name}: {error}") from error
        raise
    except OSError as error:
        raise StorageError(f"{name}: cannot read: {error}") from error
    except Exception as error:
        raise UnpackError(
            f"{name}: value {digest_[:12]} cannot be made here: {type(error).__name__}: {error}"
        ) from error
    return packing.pack(value, digest_)


def _write_native(
    file: BinaryIO, value: Any, name: str, packing: Packing, filters: Filters
) -> bool:
    """Write the objects of ``value``; tell whether they give the same value again."""
    try:
        with _created(file) as root:
            writer = Writer(root, filters)
            writer.write(value)
            if not writer.is_whole() or any(part is value for part in writer.opaque):
                return False
            if writer.opaque:
                packed = packing.pack(writer.opaque).tobytes()
                write_bytes(root, words.OPAQUE, packed, _PARCEL, filters)
        with h5py.File(file, "r") as root:
            again = _read_native(root, packing)
        return type(again) is type(value) and _is_same(again, value, name)
    except (MemoryError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 (the parcel is good for whatever HDF5 is not)
        log.debug("value %s has no HDF5 form: %r", name[:12], error)
        return False


def _is_same(again: Any, value: Any, name: str) -> bool:
    found = digest(again)
    return found == name or found == digest(value)


def _read_native(root: Any, packing: Packing) -> Any:
    return Reader(
        root, lambda data: list(packing.unpack(Parcel.from_bytes(data, owned=True)))
    ).read()


def _write_parcel(file: BinaryIO, content: Buffer, filters: Filters) -> None:
    with _created(file) as root:
        write_bytes(root, words.VALUE, content, _PARCEL, filters)


def _created(file: BinaryIO) -> Any:
    file.seek(0)
    file.truncate()
    return h5py.File(file, "w", userblock_size=BLOCK)


def _as_parcel(content: bytearray, name: str) -> Parcel:
    source = MemorySource((memoryview(content),), owned=True)
    source.name = name
    return Parcel(source)
