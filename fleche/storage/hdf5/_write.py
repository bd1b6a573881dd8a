"""From a live value to the objects of an HDF5 file."""

from __future__ import annotations

import io
import pickle
from collections.abc import Container
from typing import Any

import cloudpickle
import numpy as np

from fleche.storage.hdf5 import _layout as layout
from fleche.storage.hdf5._arrays import describe_layout, to_native
from fleche.storage.hdf5._layout import NotNative, is_link_name
from fleche.storage.hdf5._plain import (
    WRITERS,
    Filters,
    class_name,
    is_namedtuple,
    is_native,
    plain_type,
    state_of,
    write_data,
    write_uniform,
)

__all__ = ["Cyclic", "Writer"]

_OPEN = ""
_LONG = 1024  # longer texts and bytes are stored once, however often they occur
_CONSTANT = (str, bytes, tuple, frozenset)
_UNSHARED = WRITERS.keys() - {str, bytes, bytearray}


class Cyclic(Exception):
    """A value contains itself, which takes a pickle to say."""


class Writer:
    """Writes one value into a file.

    Args:
        file: the open file.
        filters: what ``create_dataset`` is told for data that may be compressed.

    Attributes:
        opaque: what HDF5 has no form for, by number, to be written to ``/opaque``.
    """

    def __init__(self, file: Any, filters: Filters) -> None:
        self.opaque: list[Any] = []
        self._file = file
        self._filters = filters
        self._left = layout.BUDGET
        self._paths: dict[int, str] = {}
        self._changeable: set[int] = set()
        self._kept: list[object] = []

    def is_whole(self) -> bool:
        """Return whether the opaque parts share nothing that can change with the others."""
        others = self._changeable.difference(map(id, self.opaque))
        return not self.opaque or not refers_to(self.opaque, others)

    def write(self, value: Any) -> None:
        """Write ``value`` as ``/value``.

        Raises:
            Cyclic: it contains itself.
            Exception: whatever HDF5 says of something that is beyond it.
        """
        self._add(self._file, f"/{layout.VALUE}", value, 0)

    def _add(self, group: Any, path: str, obj: Any, depth: int) -> None:
        name = path.rpartition("/")[2]
        shared = _is_shared(obj)
        if shared:
            known = self._paths.get(id(obj))
            if known == _OPEN:
                raise Cyclic
            if known:
                group[name] = self._file[known]
                self._file.attrs[layout.SHARED] = True
                return
            self._paths[id(obj)] = _OPEN
        try:
            self._add_native(group, path, obj, depth)
        except NotNative:
            self._add_opaque(group, name, obj)
        if shared:
            self._paths[id(obj)] = path
            if not isinstance(obj, _CONSTANT):
                self._changeable.add(id(obj))

    def _add_native(self, group: Any, path: str, obj: Any, depth: int) -> None:
        """Write one object; nothing of it is there yet when NotNative is raised."""
        cls, name = type(obj), path.rpartition("/")[2]
        if cls in WRITERS:
            WRITERS[cls](group, name, obj, self._filters)
        elif cls in (list, tuple, set, frozenset):
            self._add_items(group, path, list(obj), cls.__name__, depth)
        elif cls is dict:
            self._add_dict(group, path, obj, depth)
        elif cls is np.ndarray and obj.dtype.kind == "O":
            self._add_objects(group, path, obj, depth)
        elif cls is np.ndarray:
            self._add_array(group, name, obj, "numpy.ndarray")
        elif isinstance(obj, np.generic) and np.dtype(cls).type is cls:
            self._add_array(group, name, np.asarray(obj), "numpy.scalar")
        else:
            self._add_instance(group, path, obj, depth)

    def _add_opaque(self, group: Any, name: str, obj: Any) -> None:
        cls = type(obj)
        number = np.array(len(self.opaque), np.int64)
        dataset = write_data(group, name, number, "opaque", self._filters)
        dataset.attrs[layout.CLASS] = f"{cls.__module__}:{cls.__qualname__}"
        self.opaque.append(obj)

    def _add_group(self, parent: Any, path: str, kind: str, count: int, depth: int) -> Any:
        if depth > layout.DEEPEST or count > self._left:
            raise NotNative(f"{count} parts, {depth} levels deep")
        self._left -= count
        group = parent.create_group(path.rpartition("/")[2], track_order=True)
        group.attrs[layout.TYPE] = kind
        return group

    def _add_items(self, parent: Any, path: str, items: list[Any], kind: str, depth: int) -> None:
        if plain_type(items):
            write_uniform(parent, path.rpartition("/")[2], items, kind, self._filters)
            return
        self._kept.append(items)  # the ids of what only this list holds stay theirs
        group = self._add_group(parent, path, kind, len(items), depth)
        for number, item in enumerate(items):
            self._add(group, f"{path}/{number}", item, depth + 1)

    def _add_members(self, group: Any, path: str, members: dict[str, Any], depth: int) -> None:
        for name, value in members.items():
            self._add(group, f"{path}/{name}", value, depth + 1)

    def _add_dict(self, parent: Any, path: str, obj: dict[Any, Any], depth: int) -> None:
        if len(obj) <= self._left and all(type(key) is str and is_link_name(key) for key in obj):
            group = self._add_group(parent, path, "dict", len(obj), depth)
            self._add_members(group, path, obj, depth)
            return
        keys, values = list(obj), list(obj.values())
        self._kept += [keys, values]
        group = self._add_group(parent, path, "dict", 2, depth)
        group.attrs[layout.LAYOUT] = "items"
        self._add_members(group, path, {"keys": keys, "values": values}, depth)

    def _add_instance(self, parent: Any, path: str, obj: Any, depth: int) -> None:
        cls = type(obj)
        named = is_namedtuple(cls)
        if not is_native(cls) or (named and getattr(obj, "__dict__", None)):
            raise NotNative(cls)
        state = state_of(obj)
        if not all(map(is_link_name, state)):
            raise NotNative(cls)
        kind = "namedtuple" if named else "dataclass"
        group = self._add_group(parent, path, kind, len(state), depth)
        group.attrs[layout.CLASS] = class_name(cls)
        self._add_members(group, path, state, depth)

    def _add_array(self, group: Any, name: str, array: np.ndarray[Any, Any], kind: str) -> None:
        data, dtype, attributes = to_native(array)
        dataset = write_data(group, name, data, kind, self._filters, dtype)
        dataset.attrs.update(attributes)

    def _add_objects(self, parent: Any, path: str, array: np.ndarray[Any, Any], depth: int) -> None:
        attributes = describe_layout(array)
        items = array.ravel().tolist()
        self._kept.append(items)
        group = self._add_group(parent, path, "numpy.ndarray", 1, depth)
        group.attrs[layout.SHAPE] = np.array(array.shape, np.int64)
        group.attrs.update(attributes)
        self._add(group, f"{path}/items", items, depth + 1)


def _is_shared(obj: object) -> bool:
    """Return whether it matters that an object is met again: it can change, or it is large."""
    if isinstance(obj, _CONSTANT):
        return len(obj) > (_LONG if isinstance(obj, str | bytes) else 0)
    return type(obj) not in _UNSHARED and not isinstance(obj, np.generic)


def refers_to(parts: list[Any], others: Container[int]) -> bool:
    """Return whether pickling ``parts`` meets an object whose id is among ``others``.

    Such a value is not to be taken apart: the object would come back twice.
    """

    class Seeker(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> str | None:
            if id(obj) in others:
                raise _Met
            # an array of numbers refers to nothing, and pickle would write out what it repeats
            return "array" if type(obj) is np.ndarray and not obj.dtype.hasobject else None

    try:
        Seeker(_Nowhere(), protocol=5, buffer_callback=_ignore).dump(parts)
    except _Met:
        return True
    return False


class _Met(Exception):
    pass


class _Nowhere(io.RawIOBase):
    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


def _ignore(_buffer: pickle.PickleBuffer) -> None:
    """Leave large buffers out of the stream."""
