"""From the objects of an HDF5 file to the value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fleche.errors import UnpackError
from fleche.storage.hdf5 import words
from fleche.storage.hdf5.arrays import from_dataset
from fleche.storage.hdf5.classes import find_class, make
from fleche.storage.hdf5.plain import PLAIN, read_bytes, read_plain, read_uniform

__all__ = ["Reader"]


class Reader:
    """Builds the value of one file.

    Args:
        file: the open file, its bytes checked.
        unpack: makes a list from the bytes in ``/opaque``.
    """

    def __init__(self, file: Any, unpack: Callable[[bytearray], list[Any]]) -> None:
        self._file = file
        self._shared: dict[Any, Any] | None = {} if words.SHARED in file.attrs else None
        self._opaque = unpack(read_bytes(file[words.OPAQUE])) if words.OPAQUE in file else []
        self._makers: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
            **dict.fromkeys(_SEQUENCES, self._make_sequence),
            **dict.fromkeys(("dataclass", "namedtuple"), self._make_instance),
            "dict": self._make_dict,
            "numpy.ndarray": self._make_array,
            "numpy.scalar": self._make_scalar,
            "opaque": self._make_opaque,
        }

    def read(self) -> Any:
        """Return the value.

        Raises:
            UnpackError: this process cannot make it.
        """
        return self._read(self._file[words.VALUE])

    def _read(self, node: Any) -> Any:
        if self._shared is None:
            return self._make(node)
        if node.id in self._shared:
            return self._shared[node.id]
        made = self._shared[node.id] = self._make(node)
        return made

    def _make(self, node: Any) -> Any:
        attributes = dict(node.attrs)
        kind = str(attributes.get(words.TYPE))
        if kind in PLAIN:
            return read_plain(node, kind)
        if kind not in self._makers:
            raise UnpackError(f"{node.name} is of the unknown type {kind!r}; upgrade fleche")
        return self._makers[kind](node, attributes)

    def _make_sequence(self, node: Any, attributes: dict[str, Any]) -> Any:
        cls = _SEQUENCES[attributes[words.TYPE]]
        if words.ITEMS not in attributes:
            return cls(self._read(node[str(number)]) for number in range(len(node)))
        return cls(read_uniform(node, attributes[words.ITEMS]))

    def _members(self, node: Any) -> Iterator[tuple[str, Any]]:
        return ((name, self._read(child)) for name, child in node.items())

    def _make_dict(self, node: Any, attributes: dict[str, Any]) -> dict[Any, Any]:
        found = dict(self._members(node))
        if attributes.get(words.LAYOUT) == "items":
            return dict(zip(found["keys"], found["values"], strict=True))
        return found

    def _make_instance(self, node: Any, attributes: dict[str, Any]) -> Any:
        return make(find_class(str(attributes[words.CLASS])), dict(self._members(node)))

    def _make_array(self, node: Any, attributes: dict[str, Any]) -> Any:
        if words.SHAPE not in attributes:
            return from_dataset(node, attributes)
        items = self._read(node["items"])
        flat = np.empty(len(items), object)
        for number, item in enumerate(items):
            flat[number] = item
        array = flat.reshape([int(length) for length in attributes[words.SHAPE]])
        return np.asfortranarray(array) if attributes.get(words.ORDER) == "F" else array

    def _make_scalar(self, node: Any, attributes: dict[str, Any]) -> Any:
        return from_dataset(node, attributes)[()]

    def _make_opaque(self, node: Any, _attributes: dict[str, Any]) -> Any:
        return self._opaque[int(node[()])]


_SEQUENCES: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
