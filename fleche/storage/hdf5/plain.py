"""Plain values, and sequences of one plain type, as one dataset each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import h5py
import numpy as np

from fleche.parcel import Buffer
from fleche.storage.hdf5 import words
from fleche.storage.hdf5.arrays import copy_in, from_dataset
from fleche.storage.hdf5.words import is_plain_text

__all__ = [
    "PLAIN",
    "Filters",
    "plain_type",
    "read_bytes",
    "read_plain",
    "read_uniform",
    "write_bytes",
    "write_data",
    "write_plain",
    "write_uniform",
]

Filters: TypeAlias = Mapping[str, Any]

_REPEATED = 1 << 20
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
_TEXT = h5py.string_dtype()
_NUMBERS: dict[Any, Any] = {bool: np.bool_, float: np.float64, complex: np.complex128}


def write_data(
    group: Any, name: str, data: Any, kind: str, filters: Filters, dtype: Any = None
) -> Any:
    """Store an array as a dataset, in compressed chunks if ``filters`` say so; return it."""
    options = dict(filters) if data.ndim and data.size else {}
    dataset = group.create_dataset(name, shape=data.shape, dtype=dtype or data.dtype, **options)
    copy_in(dataset, data)
    dataset.attrs[words.TYPE] = kind
    return dataset


def write_bytes(group: Any, name: str, content: Buffer, kind: str, filters: Filters) -> None:
    """Store ``content`` as a dataset of uint8."""
    write_data(group, name, np.frombuffer(content, np.uint8), kind, filters)


def read_bytes(dataset: Any) -> bytearray:
    """Return what :func:`write_bytes` stored."""
    content = bytearray(dataset.size)
    if content:
        dataset.read_direct(np.frombuffer(content, np.uint8))
    return content


def write_plain(group: Any, name: str, obj: Any, filters: Filters) -> None:
    """Store one value whose type is in :data:`PLAIN`."""
    _WRITERS[type(obj)](group, name, obj, filters)


def read_plain(dataset: Any, kind: str) -> Any:
    """Return what :func:`write_plain` stored."""
    return _READERS[kind](dataset)


def plain_type(items: Sequence[Any]) -> str:
    """Return the name of the plain type of all items, if one dataset can hold them, else ""."""
    cls = type(items[0]) if items else None
    if cls is None or any(type(item) is not cls for item in items):
        return ""
    if cls in _NUMBERS or (cls is int and _integers(items) is not None):
        return cls.__name__
    if cls is str and all(map(is_plain_text, items)) and not _repeats_itself(items):
        return "str"
    return ""


def write_uniform(group: Any, name: str, items: Sequence[Any], kind: str, filters: Filters) -> None:
    """Store items that have a :func:`plain_type`."""
    word = plain_type(items)
    if word == "str":
        dataset = group.create_dataset(name, data=items, dtype=_TEXT)
        dataset.attrs[words.TYPE] = kind
    else:
        dtype = _NUMBERS.get(type(items[0])) or _integers(items)
        dataset = write_data(group, name, np.array(items, dtype), kind, filters)
    dataset.attrs[words.ITEMS] = word


def read_uniform(dataset: Any, word: str) -> list[Any]:
    """Return the items that :func:`write_uniform` stored."""
    found = dataset.asstr()[()] if word == "str" else from_dataset(dataset, {})
    items: list[Any] = found.tolist()
    return items


def _repeats_itself(items: Sequence[str]) -> bool:
    """Tell whether long strings would be stored many times, which HDF5 does to strings."""
    if sum(map(len, items)) <= _REPEATED:
        return False
    return len(set(map(id, items))) < len(items)


def _integers(items: Sequence[int]) -> Any:
    """Return the 64-bit dtype that holds all of them, if there is one."""
    least, most = min(items), max(items)
    for dtype, span in ((np.int64, _INT64), (np.uint64, _UINT64)):
        if least in span and most in span:
            return dtype
    return None


def _write_none(group: Any, name: str, _obj: None, _filters: Filters) -> None:
    group.create_dataset(name, data=h5py.Empty("f8")).attrs[words.TYPE] = "NoneType"


def _write_number(group: Any, name: str, obj: complex, filters: Filters) -> None:
    write_data(group, name, np.array(obj, _NUMBERS[type(obj)]), type(obj).__name__, filters)


def _write_int(group: Any, name: str, obj: int, filters: Filters) -> None:
    dtype = _integers([obj])
    if dtype is None:
        group.create_dataset(name, data=hex(obj), dtype=_TEXT).attrs[words.TYPE] = "int"
    else:
        write_data(group, name, np.array(obj, dtype), "int", filters)


def _write_str(group: Any, name: str, obj: str, filters: Filters) -> None:
    if is_plain_text(obj):
        group.create_dataset(name, data=obj, dtype=_TEXT).attrs[words.TYPE] = "str"
    else:
        write_bytes(group, name, obj.encode(errors="surrogatepass"), "str", filters)


def _write_raw(group: Any, name: str, obj: bytes | bytearray, filters: Filters) -> None:
    write_bytes(group, name, obj, type(obj).__name__, filters)


def _read_none(_dataset: Any) -> None:
    return None


def _read_number(dataset: Any) -> Any:
    return from_dataset(dataset, {}).item()


def _read_int(dataset: Any) -> int:
    found = dataset[()]
    return int(found, 16) if isinstance(found, str | bytes) else int(found)


def _read_str(dataset: Any) -> str:
    if dataset.shape == ():
        text: str = dataset.asstr()[()]
        return text
    return read_bytes(dataset).decode(errors="surrogatepass")


_WRITERS: dict[type, Callable[[Any, str, Any, Filters], None]] = {
    type(None): _write_none,
    bool: _write_number,
    int: _write_int,
    float: _write_number,
    complex: _write_number,
    str: _write_str,
    bytes: _write_raw,
    bytearray: _write_raw,
}

_READERS: dict[str, Callable[[Any], Any]] = {
    "NoneType": _read_none,
    "bool": _read_number,
    "int": _read_int,
    "float": _read_number,
    "complex": _read_number,
    "str": _read_str,
    "bytes": lambda dataset: bytes(read_bytes(dataset)),
    "bytearray": read_bytes,
}

PLAIN = {cls.__name__: cls for cls in _WRITERS}
"""The types of plain values by name."""
