"""Handlers for numpy, which is never imported here: whose array arrives is loaded already."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from fleche.errors import Indigestible

from ._builtin import UNSET, Attributes, Raw, shape_token
from ._instances import attributes_of
from ._registry import Node, node, package_of, register
from ._tokens import global_token, text_token

if TYPE_CHECKING:
    from ._walk import Walk

__all__ = [
    "describe_array",
    "describe_dtype",
    "describe_masked",
    "describe_scalar",
]

PLAIN_KINDS = "biufcmMSUV"
CHUNK = 4 * 1024 * 1024
MEMORY_MAP_STATE = ("_mmap", "filename", "mode", "offset")
MASK_STATE = (
    "_mask",
    "_fill_value",
    "_hardmask",
    "_sharedmask",
    "_isfield",
    "_basedict",
)
IS_HARD = False
"""Every mask counts as a soft one: it says how to write to the array, and pickling loses it."""


def numpy() -> Any:
    """Return numpy, which is loaded."""
    return sys.modules["numpy"]


def describe_array(obj: Any, walk: Walk) -> Node:
    """Describe an array by dtype, shape and content; a subclass by its class and attributes too."""
    base = numpy().ndarray
    if type(obj) is base:
        return describe_base_array(obj, walk)
    content = obj.view(base)
    if isinstance(obj, numpy().recarray) and obj.dtype.type is numpy().record:
        content = content.view(numpy().dtype((numpy().void, obj.dtype)))  # goes without saying
    # Where a memory map lives does not matter.
    skipped = MEMORY_MAP_STATE if isinstance(obj, numpy().memmap) else ()
    return node(b"derived array", (type(obj), content, extras_of(obj, skipped)))


def extras_of(obj: Any, skipped: Collection[str]) -> Attributes:
    """Return the attributes of an object of a subclass, but for those that numpy has made."""
    attributes = attributes_of(obj).items()
    return Attributes({name: value for name, value in attributes if name not in skipped})


def describe_base_array(obj: Any, walk: Walk) -> Node:
    if obj.dtype.kind in "mM" and not obj.dtype.isnative:
        obj = obj.astype(obj.dtype.newbyteorder("="))  # pickling does not keep this byte order
    dtype = obj.dtype
    shape = shape_token(obj.shape)
    if dtype.names is not None and not is_packed(dtype):
        fields = tuple(obj[name] for name in dtype.names)
        return node(
            b"structured array",
            (dtype, shape, *fields),
            step=lambda _, index: f"[{dtype.names[index - 2]!r}]" if index > 1 else "",
        )
    if dtype.kind in "OT":
        return node(b"object array", (dtype, shape, Elements(obj)))
    if dtype.char in "gG":
        return node(b"array", (dtype, shape, *long_double(obj, walk)))
    if dtype.kind not in PLAIN_KINDS:
        raise Indigestible(f"arrays of {dtype} are not supported")
    return node(b"array", (dtype, shape, Raw(content(obj, walk))))


class Elements:
    """The elements of an array of objects, in C order."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


def describe_elements(obj: Elements, _walk: Walk) -> Node:
    array = obj.array
    shape = array.shape

    def step(_: Any, index: int) -> str:
        return str([int(part) for part in numpy().unravel_index(index, shape)]) if shape else "[()]"

    return node(b"elements", array.ravel(order="C").tolist(), step=step)


def is_packed(dtype: Any) -> bool:
    """Whether every byte of the items belongs to the value of one plain field."""
    end = 0
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        plain = field.base
        nested = plain.names is not None and is_packed(plain)
        if offset != end or not (nested or (plain.names is None and is_plain(plain))):
            return False
        end += field.itemsize
    return end == dtype.itemsize  # type: ignore[no-any-return]


def is_plain(dtype: Any) -> bool:
    """Whether the value of an item is exactly its bytes."""
    return dtype.kind in PLAIN_KINDS and dtype.char not in "gG" and not dtype.hasobject


def content(array: Any, walk: Walk) -> bytes:
    """Return the token of the elements in C order, without a copy where they lie so in memory."""
    if array.nbytes == 0:
        return walk.chunks(0, ())
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view("u1")
        with memoryview(flat) as view:
            return walk.buffer(view, owner=array, address=array.__array_interface__["data"][0])
    return walk.chunks(array.nbytes, pieces(array))


def pieces(array: Any) -> Iterator[bytes]:
    """Yield the elements in C order as bytes, a few MiB at a time."""
    if array.nbytes <= CHUNK or array.ndim == 0:
        yield array.tobytes()
        return
    row = array.nbytes // len(array)
    if row > CHUNK:
        for part in array:
            yield from pieces(part)
        return
    step = CHUNK // row
    for start in range(0, len(array), step):
        yield array[start : start + step].tobytes()


def long_double(array: Any, walk: Walk) -> tuple[Any, ...]:
    """Return mantissa size and content of extended precision, whose items may contain padding."""
    precision = numpy().finfo("g").nmant
    native = array.astype(array.dtype.newbyteorder("="), order="C").reshape(-1)
    parts = native.view("u1").reshape(-1, numpy().dtype("g").itemsize)
    if precision == 63:
        parts = parts[:, :10] if sys.byteorder == "little" else parts[:, -10:]
    with memoryview(parts.tobytes()) as view:
        return (int(precision), Raw(walk.buffer(view)))


def describe_scalar(obj: Any, _walk: Walk) -> Node:
    """Describe a scalar as an array without dimensions; of a subclass, with what it has beyond."""
    array = numpy().asarray(obj)
    if not is_foreign(type(obj)):
        return node(b"numpy scalar", (None, array))
    return node(b"numpy scalar", (type(obj), array, extras_of(obj, ())))


def is_foreign(cls: type) -> bool:
    return cls.__module__ != "numpy" and package_of(cls) != "numpy"


def describe_dtype(obj: Any, walk: Walk) -> bytes | Node:
    """Describe a dtype, with the metadata in which h5py keeps what it means."""
    if not obj.metadata:
        return describe_plain_dtype(obj, walk)
    return node(b"dtype with metadata", (bare(obj), dict(obj.metadata)))


def bare(dtype: Any) -> Any:
    """Return a dtype without its metadata."""
    if dtype.subdtype is not None:
        return numpy().dtype((dtype.base, dtype.shape))
    if dtype.names is not None:
        spec = {
            "names": dtype.names,
            "formats": [dtype.fields[name][0] for name in dtype.names],
            "offsets": [dtype.fields[name][1] for name in dtype.names],
            "titles": [(*dtype.fields[name], None)[2] for name in dtype.names],
            "itemsize": dtype.itemsize,
        }
        return numpy().dtype((dtype.type, numpy().dtype(spec)))
    return numpy().dtype(dtype.str)


def describe_plain_dtype(obj: Any, _walk: Walk) -> bytes | Node:
    if obj.subdtype is not None:
        return node(b"numpy subarray", (obj.base, shape_token(obj.shape)))
    if obj.names is not None:
        fields = tuple((name, *obj.fields[name]) for name in obj.names)
        kind = () if obj.type is numpy().void else (obj.type,)
        return node(b"numpy structure", (fields, obj.itemsize, *kind))
    if obj.kind == "T":
        return node(b"numpy strings", (getattr(obj, "na_object", UNSET), bool(obj.coerce)))
    if is_foreign(obj.type) or obj.type is numpy().record:
        return node(b"foreign dtype", (obj.type, obj.str))
    return b"n" + text_token(obj.str)


def describe_masked(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe a masked array by data, mask and fill value; no mask is the same as an empty one."""
    masked = sys.modules["numpy.ma"]
    if obj is masked.masked:
        return global_token("numpy.ma", "masked")
    extras = extras_of(obj, MASK_STATE)
    for name, usual in (("_baseclass", numpy().ndarray), ("_optinfo", {})):
        if extras.values.get(name) == usual:
            del extras.values[name]
    return node(
        b"masked array",
        (
            type(obj),
            obj.data.view(numpy().ndarray),
            masked.getmaskarray(obj),
            obj.view().fill_value,
            IS_HARD,
            extras,
        ),
    )


register(Elements, describe_elements)
