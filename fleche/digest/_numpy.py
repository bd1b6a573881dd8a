"""Handlers for numpy, and for sparse matrices of scipy, which are made of its arrays.

Neither is ever imported here: what an object comes from is loaded already.

A random generator is what it will draw next and what it will spawn: the state of its bit generator,
and the seed sequence that it came from, which counts the children that it has spawned.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Any

from fleche.digest._builtin import UNSET, Attributes, Raw, shape_token
from fleche.digest._instances import attributes_of
from fleche.digest._names import find_name, look_up
from fleche.digest._registry import Node, node, package_of, register, register_leaf
from fleche.digest._tokens import (
    BIG,
    ORDERED,
    bytes_token,
    global_token,
    hash_node,
    node_token,
    raw_token,
    size,
    text_token,
)
from fleche.errors import Indigestible

if TYPE_CHECKING:
    from fleche.digest._walk import Walk

__all__ = [
    "MEMORY_MAP_STATE",
    "attributes_of_masked",
    "describe_array",
    "describe_bit_generator",
    "describe_dtype",
    "describe_generator",
    "describe_masked",
    "describe_random_state",
    "describe_scalar",
    "describe_seed_sequence",
    "describe_sparse",
    "describe_ufunc",
    "describe_vectorize",
]

PLAIN_KINDS = "biufcmMSUV"
SIMPLE = "?bBhHiIlLqQefdFDSU"
"""Characters of the types whose arrays are exactly their bytes."""
NUMBERS = "?bBhHiIlLqQefdFD"
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
DERIVED_OF_VECTORIZE = ("__doc__", "__name__", "_doc", "_in_and_out_core_dims", "_ufunc")
FOUND_OUT = ("_has_canonical_format", "_has_sorted_indices", "has_canonical_format", "_dict")
IS_HARD = False
"""Every mask counts as a soft one: it says how to write to the array, and pickling loses it."""


def numpy() -> Any:
    """Return numpy, which is loaded."""
    return sys.modules["numpy"]


def describe_array(obj: Any, walk: Walk) -> bytes | Node:
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


def describe_base_array(obj: Any, walk: Walk) -> bytes | Node:
    if obj.dtype.char in SIMPLE and obj.nbytes < BIG and not obj.dtype.metadata:
        return token_of_small(obj, walk)
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
        elements = obj.tolist() if obj.ndim else [obj.item()]
        return node(b"object array", (dtype, shape, elements))
    if is_extended(dtype):
        return node(b"array", (dtype, shape, *long_double(obj, walk)))
    if dtype.kind not in PLAIN_KINDS:
        raise Indigestible(f"arrays of {dtype} are not supported")
    return node(b"array", (dtype, shape, Raw(content(obj, walk))))


def token_of_small(array: Any, walk: Walk) -> bytes:
    """Return the token of a small array at once: the same as that of the node for a large one."""
    parts = [
        b"n" + text_token(array.dtype.str),
        raw_token(b"".join(map(size, array.shape))),
        bytes_token(array.tobytes()),
    ]
    return node_token(hash_node(ORDERED, b"array", parts, walk.key))


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
    return dtype.kind in PLAIN_KINDS and not is_extended(dtype) and not dtype.hasobject


def is_extended(dtype: Any) -> bool:
    """Whether its numbers have more bits than double precision.

    Those of long double have none more on macOS on ARM, where pickling makes double of it.
    """
    return dtype.char in "gG" and numpy().dtype("g").itemsize > 8


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


def describe_scalar(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe a number by its type and bytes, any other scalar as an array without dimensions.

    Of a subclass counts what it has beyond.
    """
    if token_of := number_tokens().get(type(obj)):
        return token_of(obj)
    array = numpy().asarray(obj)
    if not is_foreign(type(obj)):
        return node(b"numpy scalar", (None, array))
    return node(b"numpy scalar", (type(obj), array, extras_of(obj, ())))


known_numbers: dict[type, Callable[[Any], bytes]] = {}


def number_tokens() -> dict[type, Callable[[Any], bytes]]:
    """Return the token functions of numpy's numbers, which are leaves from now on."""
    if not known_numbers:
        found: dict[type, Callable[[Any], bytes]] = {}
        for char in NUMBERS if is_extended(numpy().dtype("g")) else f"{NUMBERS}gG":
            dtype = numpy().dtype(char).newbyteorder("<")
            found[dtype.type] = make_number_token(dtype)
        known_numbers.update(found)  # all at once: a thread may be asking, a signal may come
        for cls, function in found.items():
            register_leaf(cls, function)
    return known_numbers


def make_number_token(dtype: Any) -> Callable[[Any], bytes]:
    prefix = b"z" + text_token(dtype.str)
    if sys.byteorder == "big":
        return lambda obj: prefix + numpy().asarray(obj, dtype).tobytes()
    return lambda obj: prefix + obj.tobytes()


def is_foreign(cls: type) -> bool:
    return cls.__module__ != "numpy" and package_of(cls) != "numpy"


class Bare:
    """A dtype without its metadata."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


def describe_dtype(obj: Any, walk: Walk) -> bytes | Node:
    """Describe a dtype; its metadata may be what it means, as that of h5py is.

    Before numpy 2.3, pickling gives those of dates empty metadata.
    """
    if obj.metadata:
        return node(b"numpy dtype", (Bare(obj), dict(obj.metadata)))
    return describe_bare_dtype(Bare(obj), walk)


def describe_bare_dtype(bare: Bare, _walk: Walk) -> bytes | Node:
    obj = bare.dtype
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
    return node(
        b"masked array",
        (
            type(obj),
            numpy().asarray(obj.data).view(numpy().ndarray),
            numpy().asarray(masked.getmaskarray(obj)),
            obj.view().fill_value,
            IS_HARD,
            Attributes(attributes_of_masked(obj)),
        ),
    )


def attributes_of_masked(obj: Any) -> dict[str, Any]:
    """Return what a masked array has beside data, mask and fill value."""
    found = extras_of(obj, MASK_STATE).values
    for name, usual in (("_baseclass", numpy().ndarray), ("_optinfo", {})):
        if found.get(name) == usual:
            del found[name]
    return found


def describe_ufunc(obj: Any, _walk: Walk) -> bytes | Node:
    """Describe a ufunc by its name, or by the function that `numpy.frompyfunc` has made it from."""
    if (place := place_of_ufunc(obj)) is not None:
        return global_token(*place)
    inside = [found for found in gc.get_referents(obj) if callable(found)]
    if len(inside) == 1:
        return node(b"numpy frompyfunc", (obj.nin, obj.nout, obj.identity, inside[0]))
    raise Indigestible(
        f"the ufunc {obj.__name__!r} is not found under its name, and does not show what it calls; "
        "pass a function that calls it"
    )


def place_of_ufunc(obj: Any) -> tuple[str, str] | None:
    """Return the module and name of a ufunc, which knows nothing but its name by itself.

    That is the extension module in which it was made, or the outermost package of it that offers
    the same under the same name; so it does not matter what else has imported it.
    """
    name = obj.__name__
    if look_up("numpy", name) is obj:
        return "numpy", name
    if (place := find_name(obj)) is not None:
        return place
    homes = [
        module
        for module, loaded in list(sys.modules.items())
        if getattr(loaded, "__dict__", {}).get(name) is obj and is_extension(loaded)
    ]
    if not homes:
        return None
    parts = min(homes).split(".")
    offers = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next(module for module in offers if look_up(module, name) is obj), name


def is_extension(module: Any) -> bool:
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return isinstance(origin, str) and origin.endswith(tuple(EXTENSION_SUFFIXES))


def describe_vectorize(obj: Any, _walk: Walk) -> Node:
    """Describe what `numpy.vectorize` has made, without what it has worked out while in use."""
    extras = extras_of(obj, DERIVED_OF_VECTORIZE)
    if (kinds := extras.values.get("otypes")) is not None:  # before numpy 2 as one string
        extras.values["otypes"] = [numpy().dtype(kind) for kind in kinds]
    return node(b"numpy vectorize", (type(obj), extras))


def describe_generator(obj: Any, walk: Walk) -> Node:
    """Describe a generator by its bit generator; by the state alone if the seed tells that."""
    source = obj.bit_generator
    part = source.state if is_as_seeded(source, walk) else source
    return node(b"numpy Generator", (part,))


def is_as_seeded(source: Any, walk: Walk) -> bool:
    """Whether a bit generator of numpy's own is as a plain number has made it."""
    seed = seed_of(source)
    entropy = getattr(seed, "entropy", None)
    if type(entropy) is not int or package_of(type(source)) != "numpy":
        return False
    fresh = type(source)(entropy)
    plain = seed_of(fresh)
    if type(seed) is not type(plain) or seed.state != plain.state:
        return False
    return walk.subtoken(fresh.state) == walk.subtoken(source.state)


def seed_of(source: Any) -> Any:
    """Return the seed sequence of a bit generator; before numpy 1.25 it was none of the public."""
    return getattr(source, "seed_seq", None) or getattr(source, "_seed_seq", None)


def describe_bit_generator(obj: Any, _walk: Walk) -> Node:
    state, attributes = obj.state, Attributes(attributes_of(obj))
    return node(b"numpy bit generator", (type(obj), state, seed_of(obj), attributes))


def describe_seed_sequence(obj: Any, _walk: Walk) -> Node:
    return node(b"numpy SeedSequence", (obj.state,))


def describe_random_state(obj: Any, _walk: Walk) -> Node:
    return node(b"numpy RandomState", (obj.get_state(legacy=False),))


def describe_sparse(obj: Any, _walk: Walk) -> Node:
    """Describe a sparse matrix of scipy; whether its entries are in order is seen from them."""
    attributes = extras_of(obj, FOUND_OUT).values
    if obj.format == "dok":
        attributes["entries"] = dict(obj.items())
    return node(b"scipy sparse", (type(obj), Attributes(attributes)))


register(Bare, describe_bare_dtype)
