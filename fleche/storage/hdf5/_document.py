"""One value as one HDF5 file: written so that it comes back exactly, or else as its parcel."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

import h5py
import msgspec
import numpy as np

from fleche.digest import digest
from fleche.errors import ParcelError, StorageError, UnpackError
from fleche.parcel import FileSource, MemorySource, Packing, Parcel, Source, Stretch
from fleche.storage.hdf5 import _layout as layout
from fleche.storage.hdf5._arrays import from_dataset, lay_out
from fleche.storage.hdf5._layout import BLOCK
from fleche.storage.hdf5._plain import (
    READERS,
    Filters,
    find_class,
    make,
    read_bytes,
    read_uniform,
    write_parcel,
)
from fleche.storage.hdf5._write import Writer

__all__ = ["read_document", "write_document"]

log = logging.getLogger("fleche.storage")


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
        with _created(file) as root:
            write_parcel(root, layout.VALUE, item, item.checked_chunks(), filters)
        return
    if not _write_native(file, value, item.head.digest, packing, filters):
        again = msgspec.structs.replace(packing, serializer=item.head.serializer).pack(
            value, item.head.digest
        )
        with _created(file) as root:
            write_parcel(root, layout.VALUE, again, again.chunks(), filters)


def read_document(file: BinaryIO, name: str, digest_: str, packing: Packing) -> Parcel:
    """Return the value in ``file``, whose bytes were checked, as a parcel.

    Raises:
        UnpackError: this process cannot make the value.
        StorageError: the file could not be read.
    """
    try:
        with h5py.File(file, "r") as root:
            node = root[layout.VALUE]
            if node.attrs[layout.TYPE] == layout.PARCEL:
                return _parcel_in(node, file, name)
            value = _read_native(root, file, packing)
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
    """Write the objects of ``value``; return whether they give the same value again."""
    try:
        with _created(file) as root:
            writer = Writer(root, filters)
            writer.write(value)
            if not writer.is_whole() or any(part is value for part in writer.opaque):
                return False
            if writer.opaque:
                packed = packing.pack(writer.opaque)
                write_parcel(root, layout.OPAQUE, packed, packed.chunks(), filters)
        with h5py.File(file, "r") as root:
            again = _read_native(root, file, packing)
        if type(again) is not type(value):
            return False
        found = digest(again)
        return found == name or found == digest(value)
    except (MemoryError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 (the parcel is good for whatever HDF5 is not)
        log.debug("value %s has no HDF5 form: %r", name[:12], error)
        return False


def _read_native(root: Any, file: BinaryIO, packing: Packing) -> Any:
    return Reader(
        root, lambda dataset: list(packing.unpack(_parcel_in(dataset, file, dataset.name)))
    ).read()


def _parcel_in(dataset: Any, file: BinaryIO, name: str) -> Parcel:
    """Return the parcel in ``dataset``, which need not stay open.

    What lies on a disk in one place is not read before the parcel is, and not by HDF5.
    """
    offset = dataset.id.get_offset()
    source: Source
    if offset is None or isinstance(file, BytesIO):
        source = MemorySource((memoryview(read_bytes(dataset)),), owned=True)
        source.name = name
    else:
        source = Stretch(FileSource(name, os.dup(file.fileno())), offset, dataset.size, owned=True)
    return Parcel(source)


def _created(file: BinaryIO) -> Any:
    file.seek(0)
    file.truncate()
    return h5py.File(file, "w", userblock_size=BLOCK)


class Reader:
    """Builds the value of one file.

    Args:
        file: the open file, its bytes checked.
        unpack: makes a list from the parcel in ``/opaque``.
    """

    def __init__(self, file: Any, unpack: Callable[[Any], list[Any]]) -> None:
        self._file = file
        self._shared: dict[Any, Any] | None = {} if layout.SHARED in file.attrs else None
        self._opaque = unpack(file[layout.OPAQUE]) if layout.OPAQUE in file else []
        self._makers: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
            **dict.fromkeys(_SEQUENCES, self._make_sequence),
            **dict.fromkeys(("dataclass", "namedtuple"), self._make_instance),
            "dict": self._make_dict,
            "numpy.ndarray": self._make_array,
            "numpy.scalar": lambda node, attributes: from_dataset(node, attributes)[()],
            "opaque": lambda node, _: self._opaque[int(node[()])],
        }

    def read(self) -> Any:
        """Return the value.

        Raises:
            UnpackError: this process cannot make it.
        """
        return self._read(self._file[layout.VALUE])

    def _read(self, node: Any) -> Any:
        if self._shared is None:
            return self._make(node)
        if node.id in self._shared:
            return self._shared[node.id]
        made = self._shared[node.id] = self._make(node)
        return made

    def _make(self, node: Any) -> Any:
        attributes = dict(node.attrs)
        kind = str(attributes.get(layout.TYPE))
        if kind in READERS:
            return READERS[kind](node)
        if kind not in self._makers:
            raise UnpackError(f"{node.name} is of the unknown type {kind!r}; upgrade fleche")
        return self._makers[kind](node, attributes)

    def _make_sequence(self, node: Any, attributes: dict[str, Any]) -> Any:
        cls = _SEQUENCES[attributes[layout.TYPE]]
        if layout.ITEMS not in attributes:
            return cls(self._read(node[str(number)]) for number in range(len(node)))
        return cls(read_uniform(node, attributes[layout.ITEMS]))

    def _members(self, node: Any) -> Iterator[tuple[str, Any]]:
        return ((name, self._read(child)) for name, child in node.items())

    def _make_dict(self, node: Any, attributes: dict[str, Any]) -> dict[Any, Any]:
        found = dict(self._members(node))
        if attributes.get(layout.LAYOUT) == "items":
            return dict(zip(found["keys"], found["values"], strict=True))
        return found

    def _make_instance(self, node: Any, attributes: dict[str, Any]) -> Any:
        return make(find_class(str(attributes[layout.CLASS])), dict(self._members(node)))

    def _make_array(self, node: Any, attributes: dict[str, Any]) -> Any:
        if layout.SHAPE not in attributes:
            return from_dataset(node, attributes)
        items = self._read(node["items"])
        flat = np.empty(len(items), object)
        for number, item in enumerate(items):
            flat[number] = item
        array = flat.reshape([int(length) for length in attributes[layout.SHAPE]])
        return lay_out(array, attributes)


_SEQUENCES: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
