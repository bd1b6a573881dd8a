"""Arrays and numpy scalars: which HDF5 types they have, and what stands in for the others."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from fleche.parcel import axes_in_memory, by_axes
from fleche.storage.hdf5._layout import DTYPE, ORDER, READONLY, NotNative

__all__ = ["copy_in", "describe_layout", "from_dataset", "lay_out", "to_native"]

_PLAIN = "biufcSV"
_COUNTED = "mM"
_UTF8 = "utf-8"
_LONGEST = 30_000  # characters of an attribute, which may take 64 KiB


def to_native(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Any, dict[str, Any]]:
    """Return what to store of ``array``: data that HDF5 has a type for, that type, attributes.

    Raises:
        NotNative: nothing can stand in for it without loss.
    """
    dtype = array.dtype
    attributes = describe_layout(array)
    if dtype.kind == "U" and (encoded := _encode(array)) is not None:
        attributes[DTYPE] = dtype.str
        return encoded, h5py.string_dtype(_UTF8, encoded.dtype.itemsize), attributes
    standing = np.dtype(_specify(dtype, _stand_in, whole=False))
    _check_type(standing.base)
    if standing != dtype or _is_aligned(dtype):
        attributes[DTYPE] = _describe(dtype)
    data = array if array.flags.c_contiguous else array.copy(order="C")
    return data.view(standing), standing.base, attributes


def copy_in(dataset: Any, data: np.ndarray[Any, Any]) -> None:
    """Write contiguous ``data`` bit for bit: HDF5 is told that it converts nothing."""
    if data.size:
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, data, mtype=dataset.id.get_type())


def from_dataset(dataset: Any, attributes: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the array that :func:`to_native` was given."""
    # without what h5py adds to the types of strings, which is none of the array's
    dtype = np.dtype(_specify(dataset.dtype, lambda part: part.str, whole=False))
    data = np.empty(dataset.shape, dtype)
    if data.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, data, mtype=dataset.id.get_type())
    if DTYPE in attributes:
        data = _restore(data, _dtype_of(attributes[DTYPE]))
    return lay_out(data, attributes)


def describe_layout(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return attributes that say how an array lies in memory, as far as that is not the usual way.

    Raises:
        NotNative: elements of it are repeated, which HDF5 would write out.
    """
    attributes: dict[str, Any] = {}
    flags = array.flags
    if not flags.forc:
        repeated, axes = axes_in_memory(array)
        if repeated:
            raise NotNative("arrays that repeat their elements")
        if axes != sorted(axes):
            attributes[ORDER] = ",".join(map(str, axes))
    elif array.ndim > 1 and flags.f_contiguous and not flags.c_contiguous:
        attributes[ORDER] = "F"
    if not flags.writeable:
        attributes[READONLY] = True
    return attributes


def lay_out(array: np.ndarray[Any, Any], attributes: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return an array, which lies in memory row by row, as :func:`describe_layout` has seen it."""
    order = attributes.get(ORDER)
    if order == "F":
        array = np.asfortranarray(array)
    elif order:
        content, inverse = by_axes(array, tuple(map(int, str(order).split(","))))
        array = content.transpose(inverse)
    if READONLY in attributes:
        array.flags.writeable = False
    return array


def _is_aligned(dtype: np.dtype[Any]) -> bool:
    """Return whether numpy was told to align a structure in ``dtype``, which HDF5 cannot be."""
    base = dtype.base
    fields = [base.fields[name][0] for name in base.names or () if base.fields]
    return base.isalignedstruct or any(map(_is_aligned, fields))


def _specify(dtype: np.dtype[Any], leaf: Callable[[np.dtype[Any]], Any], *, whole: bool) -> Any:
    """Return what ``np.dtype()`` makes ``dtype`` of, each simple dtype in it replaced by ``leaf``.

    Metadata, which numpy does not compare, are left out; and titles and alignment, unless
    ``whole``.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _specify(base, leaf, whole=whole), shape
    if dtype.names is None or dtype.fields is None:
        return leaf(dtype)
    fields = [dtype.fields[name] for name in dtype.names]
    spec = {
        "names": list(dtype.names),
        "formats": [_specify(field[0], leaf, whole=whole) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    found = [field[2] if len(field) > 2 else None for field in fields]
    if whole and any(found):
        spec["titles"] = found
    if whole and dtype.isalignedstruct:
        spec["aligned"] = True
    return spec


def _stand_in(dtype: np.dtype[Any]) -> Any:
    """Return a type of the same size that HDF5 has, for one that has no parts."""
    if dtype.itemsize and dtype.kind in _COUNTED:
        return f"{dtype.str[0]}i8"
    if dtype.itemsize and dtype.kind == "U":
        return f"{dtype.str[0]}u4", (dtype.itemsize // 4,)
    if dtype.itemsize and dtype.kind in _PLAIN:
        return dtype.str
    raise NotNative(f"arrays of {dtype}")


def _check_type(dtype: np.dtype[Any]) -> None:
    """Check that HDF5 gives this type back as it is."""
    try:
        same = h5py.h5t.py_create(dtype, logical=True).dtype == dtype
    except (TypeError, ValueError, RuntimeError, UnicodeError) as error:
        raise NotNative(f"arrays of {dtype}") from error
    if not same:
        raise NotNative(f"arrays of {dtype}")


def _describe(dtype: np.dtype[Any]) -> str:
    text = str(_specify(dtype, lambda part: part.str, whole=True))
    if len(text) > _LONGEST or _dtype_of(text) != dtype:
        raise NotNative(f"arrays of {dtype}")
    return text


def _dtype_of(text: str) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(ast.literal_eval(text) if text.startswith("{") else text)
    return found


def _encode(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return the strings of ``array`` in UTF-8, if that and reading them lose nothing."""
    if not array.size:
        return np.empty(array.shape, "S1")
    try:
        encoded: np.ndarray[Any, Any] = np.asarray(np.char.encode(array, _UTF8))
        if encoded.dtype.itemsize and np.array_equal(_decode(encoded, array.dtype), array):
            return encoded
    except UnicodeError:
        pass
    return None


def _decode(data: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if not data.size:
        return np.empty(data.shape, dtype)
    return np.asarray(np.char.decode(data, _UTF8)).astype(dtype)


def _restore(data: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    restored: np.ndarray[Any, Any]
    if dtype.kind != "U":
        restored = data.view(dtype)
    elif data.dtype.kind == "S":
        restored = _decode(data, dtype)
    else:
        restored = data.view(dtype).reshape(data.shape[:-1])
    return restored
