"""Plain values as datasets, and instances of dataclasses and named tuples as what they hold."""

from __future__ import annotations

import copyreg
import dataclasses
import importlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import h5py
import numpy as np

from fleche.errors import UnpackError
from fleche.parcel import Buffer, Parcel
from fleche.storage.hdf5 import _layout as layout
from fleche.storage.hdf5._arrays import copy_in, from_dataset
from fleche.storage.hdf5._layout import is_plain_text

__all__ = [
    "READERS",
    "WRITERS",
    "Filters",
    "class_name",
    "find_class",
    "is_namedtuple",
    "is_native",
    "make",
    "plain_type",
    "read_bytes",
    "read_uniform",
    "state_of",
    "write_data",
    "write_parcel",
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
    dataset.attrs[layout.TYPE] = kind
    return dataset


def write_parcel(
    group: Any, name: str, parcel: Parcel, chunks: Iterable[Buffer], filters: Filters
) -> None:
    """Store the bytes of a parcel as a dataset of uint8, piece by piece.

    Where files are in it, the bytes stand in one place, to be read in pieces.
    """
    options = {} if parcel.head.files else filters
    dataset = group.create_dataset(name, shape=(parcel.nbytes,), dtype=np.uint8, **options)
    position = 0
    for chunk in chunks:
        piece = np.frombuffer(chunk, np.uint8)
        if piece.size:
            dataset.write_direct(piece, dest_sel=np.s_[position : position + piece.size])
        position += piece.size
    dataset.attrs[layout.TYPE] = layout.PARCEL


def read_bytes(dataset: Any) -> bytearray:
    """Return what was stored as a dataset of uint8."""
    content = bytearray(dataset.size)
    if content:
        dataset.read_direct(np.frombuffer(content, np.uint8))
    return content


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
        dataset.attrs[layout.TYPE] = kind
    else:
        dtype = _NUMBERS.get(type(items[0])) or _integers(items)
        dataset = write_data(group, name, np.array(items, dtype), kind, filters)
    dataset.attrs[layout.ITEMS] = word


def read_uniform(dataset: Any, word: str) -> list[Any]:
    """Return the items that :func:`write_uniform` stored."""
    found = dataset.asstr()[()] if word == "str" else from_dataset(dataset, {})
    items: list[Any] = found.tolist()
    return items


def _repeats_itself(items: Sequence[str]) -> bool:
    """Return whether long strings would be stored many times, which HDF5 does to strings."""
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
    group.create_dataset(name, data=h5py.Empty("f8")).attrs[layout.TYPE] = "NoneType"


def _write_number(group: Any, name: str, obj: complex, filters: Filters) -> None:
    write_data(group, name, np.array(obj, _NUMBERS[type(obj)]), type(obj).__name__, filters)


def _write_int(group: Any, name: str, obj: int, filters: Filters) -> None:
    dtype = _integers([obj])
    if dtype is None:
        group.create_dataset(name, data=hex(obj), dtype=_TEXT).attrs[layout.TYPE] = "int"
    else:
        write_data(group, name, np.array(obj, dtype), "int", filters)


def _write_str(group: Any, name: str, obj: str, filters: Filters) -> None:
    if is_plain_text(obj):
        group.create_dataset(name, data=obj, dtype=_TEXT).attrs[layout.TYPE] = "str"
    else:
        _write_raw(group, name, obj.encode(errors="surrogatepass"), filters, "str")


def _write_raw(
    group: Any, name: str, obj: bytes | bytearray, filters: Filters, kind: str = ""
) -> None:
    write_data(group, name, np.frombuffer(obj, np.uint8), kind or type(obj).__name__, filters)


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


WRITERS: dict[type, Callable[[Any, str, Any, Filters], None]] = {
    type(None): _write_none,
    bool: _write_number,
    int: _write_int,
    float: _write_number,
    complex: _write_number,
    str: _write_str,
    bytes: _write_raw,
    bytearray: _write_raw,
}
"""What stores a plain value under a name of a group, by its type."""

READERS: dict[str, Callable[[Any], Any]] = {
    "NoneType": lambda _: None,
    "bool": _read_number,
    "int": _read_int,
    "float": _read_number,
    "complex": _read_number,
    "str": _read_str,
    "bytes": lambda dataset: bytes(read_bytes(dataset)),
    "bytearray": read_bytes,
}
"""What reads it again, by the name of its type."""


# -- instances -------------------------------------------------------------------------------------

_BY_VALUE = ("__main__", "__mp_main__")
_REDUCING = ("__reduce__", "__reduce_ex__")


def is_native(cls: type) -> bool:
    """Return whether instances of ``cls`` are no more than their attributes, and it has a name.

    A class that says itself how it is pickled knows better, and one of ``__main__`` or of a
    function is not found by others.
    """
    inherited = all(getattr(cls, name) is getattr(object, name) for name in _REDUCING)
    if not inherited or cls in copyreg.dispatch_table or class_name(cls) is None:
        return False
    if is_namedtuple(cls):
        return not _state_is_custom(cls)
    bare = dataclasses.is_dataclass(cls) and cls.__new__ is object.__new__
    return bare and not _state_is_custom(cls)


def is_namedtuple(cls: type) -> bool:
    """Return whether ``cls`` is a named tuple."""
    fields = getattr(cls, "_fields", None)
    return issubclass(cls, tuple) and isinstance(fields, tuple) and hasattr(cls, "_make")


def state_of(obj: Any) -> dict[str, Any]:
    """Return all attributes that ``obj`` has of its own, in order."""
    if isinstance(obj, tuple):
        return dict(zip(type(obj)._fields, obj, strict=True))  # type: ignore[attr-defined]
    found = {}
    for name, slot in _slots(type(obj)):
        with suppress(AttributeError):  # a slot that was never set
            found[name] = slot.__get__(obj)
    return found | getattr(obj, "__dict__", {})


def make(cls: Any, state: dict[str, Any]) -> Any:
    """Return an instance of ``cls`` with these attributes; nothing of the class is run."""
    if is_namedtuple(cls):
        return tuple.__new__(cls, [state[name] for name in cls._fields])
    obj = object.__new__(cls)
    slots = {name for name, _ in _slots(cls)}
    for name, value in state.items():
        if name in slots:
            object.__setattr__(obj, name, value)
        else:
            obj.__dict__[name] = value
    return obj


def class_name(cls: type) -> str | None:
    """Return ``module:name``, if that is where ``cls`` is found."""
    module, name = cls.__module__, cls.__qualname__
    if module in _BY_VALUE or _look_up(sys.modules.get(module), name) is not cls:
        return None
    return f"{module}:{name}"


def find_class(path: str) -> type:
    """Return the class that ``module:name`` means.

    Raises:
        UnpackError: it cannot be imported, or is no longer what it was.
    """
    module, _, name = path.partition(":")
    try:
        found = _look_up(importlib.import_module(module), name)
    except ImportError as error:
        raise UnpackError(
            f"it needs the module {error.name or module!r}, which cannot be imported here"
        ) from error
    if not isinstance(found, type) or not is_native(found):
        raise UnpackError(f"{path} is no dataclass or named tuple here")
    return found


def _look_up(place: Any, name: str) -> Any:
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def _state_is_custom(cls: type) -> bool:
    for name in ("__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"):
        for base in cls.__mro__:
            if base in (tuple, object):
                continue
            method = vars(base).get(name)
            if method is not None and not _is_generated(method):
                return True
    return False


def _is_generated(method: Any) -> bool:
    """Return whether a method is what :mod:`dataclasses` or :mod:`collections` gives to classes."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_filename in _GENERATORS


_GENERATORS = {
    dataclasses.dataclass.__code__.co_filename,
    sys.modules["collections"].namedtuple.__code__.co_filename,
}


def _slots(cls: type) -> list[tuple[str, Any]]:
    return [
        (name, slot)
        for base in cls.__mro__
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType) and slot.__objclass__ is base
    ]
