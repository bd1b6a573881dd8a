"""Values as HDF5: what other programs see, exactness, damage, many threads."""

from __future__ import annotations

import collections
import dataclasses
import errno
import fcntl
import importlib
import json
import logging
import math
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.caches import Cache
from fleche.call import Call
from fleche.digest import digest
from fleche.errors import (
    ConfigError,
    CorruptParcel,
    ParcelError,
    SignatureError,
    StorageError,
    UnpackError,
)
from fleche.parcel import Packing, Parcel, pack, verify
from fleche.storage import BufferRefs, CallMemory, Capabilities, storage_from_config
from fleche.testing import check_value_storage
from fleche.testing.corpus import values
from tests.golden import values as golden
from tests.helpers import storing
from tests.helpers.permissions import as_somebody
from tests.helpers.storing import check, delete, get, has, keys, touch

h5py = pytest.importorskip("h5py")
np = pytest.importorskip("numpy")

from fleche.storage.hdf5 import ValueHdf5, _layout, _storage  # noqa: E402
from fleche.storage.hdf5._layout import read_seal, sealed  # noqa: E402
from tests.helpers.sweeps import examples, swept  # noqa: E402

KEY = digest("key")
OTHER = digest("other")


@dataclasses.dataclass
class Run:
    energy: float
    forces: Any
    label: str = "run"


@dataclasses.dataclass
class Slotted:
    x: int
    y: Any
    __slots__ = ("x", "y")


@dataclasses.dataclass
class Cached:
    x: int

    def __post_init__(self) -> None:
        self.seen = [self.x]


@dataclasses.dataclass
class Handle:
    """Says itself how it is pickled."""

    x: int

    def __getstate__(self) -> dict[str, Any]:
        return {"x": self.x}


@dataclasses.dataclass
class Many(list[int]):
    x: int = 0


class Pair(NamedTuple):
    first: Any
    second: Any


class Pairs(collections.namedtuple("Pairs", "a b")):  # noqa: SLOT002
    """A named tuple with room for more."""


class Custom:
    def __init__(self, part: Any) -> None:
        self.part = part


def make_slots() -> Any:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Dense:
        x: int
        y: Any = None

    Dense.__qualname__ = "Dense"
    globals()["Dense"] = Dense
    return Dense


Dense = make_slots()


def path_of(values: ValueHdf5, key: Any = KEY) -> Path:
    return Path(values.to_config()["root"]) / key[:2] / f"{key[2:]}.h5"


def put(values: ValueHdf5, value: Any) -> Path:
    key = digest(value)
    storing.put(values, key, values.packing.pack(value, key))
    return path_of(values, key)


def load(values: ValueHdf5, value: Any) -> Any:
    key = digest(value)
    return values.packing.unpack(get(values, key), key)


def round_trip(value: Any, root: Any, **options: Any) -> Any:
    held = ValueHdf5(root, **options)
    put(held, value)
    return load(held, value)


@pytest.fixture
def held(tmp_path: Path) -> ValueHdf5:
    return ValueHdf5(tmp_path / "root")


@pytest.mark.parametrize("compress", swept([None, "gzip", "lzf", 9], lambda c: c in (None, 9)))
def test_it_keeps_the_contract(tmp_path: Path, compress: Any, no_leaks: None) -> None:
    """The suite of all value storages."""
    numbers = iter(range(1000))
    check_value_storage(lambda: ValueHdf5(tmp_path / str(next(numbers)), compress=compress))


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    """It opens parcels, lasts, is shared, and pickles as its configuration."""
    held = ValueHdf5(tmp_path, compress=4)
    assert held.capabilities == Capabilities(
        persistent=True, shared=True, opens_parcels=True, keeps_all=True
    )
    table = {"type": "hdf5", "root": str(tmp_path), "compress": 4}
    assert held.to_config() == pickle.loads(pickle.dumps(held)).to_config() == table
    assert ValueHdf5(tmp_path).to_config() == {"type": "hdf5", "root": str(tmp_path)}
    assert type(storage_from_config(table, "values")) is ValueHdf5


@pytest.mark.parametrize("compress", ["zlib", 10, -1, 1.5])
def test_other_compression_is_refused(tmp_path: Path, compress: Any) -> None:
    """A compression that HDF5 tools do not have is a mistake, in the table and in code."""
    with pytest.raises(ValueError, match="gzip"):
        ValueHdf5(tmp_path, compress=compress)
    with pytest.raises(ConfigError, match="compress"):
        storage_from_config({"type": "hdf5", "root": "x", "compress": compress}, "values")


def test_a_missing_extra_is_named() -> None:
    """Without h5py, the error says how to get it."""
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from fleche.storage import storage_class\n"
        "try: storage_class('hdf5', 'values')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        'MissingExtra values of type "hdf5" need the package h5py: pip install h5py'
    )


def attributes(node: Any) -> dict[str, Any]:
    return dict(node.attrs)


def shown(node: Any) -> Any:
    """What plain h5py shows of an object: its members, or its data as Python values."""
    if isinstance(node, h5py.Group):
        return {name: shown(child) for name, child in node.items()}
    if node.shape is None:
        return None
    found = node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]
    return found.tolist() if isinstance(found, np.ndarray | np.generic) else found


OBJECT_ARRAY = np.array([["a", None]], dtype=object)
TIMES = np.array(["2020-01-01", "NaT"], dtype="M8[D]")

DATED = "{'names': ['t', 'n'], 'formats': ['<M8[D]', '<U2'], 'offsets': [0, 8], 'itemsize': 16}"

# value: (what is in /value, attributes besides those of the type)
LAYOUTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "None": (None, None, {"type": "NoneType"}),
    "bool": (True, True, {"type": "bool"}),
    "int": (-5, -5, {"type": "int"}),
    "int unsigned": (2**63, 2**63, {"type": "int"}),
    "int large": (-(2**70), "-0x400000000000000000", {"type": "int"}),
    "float": (-0.0, -0.0, {"type": "float"}),
    "complex": (1 - 2j, 1 - 2j, {"type": "complex"}),
    "str": ("für 🏹", "für 🏹", {"type": "str"}),
    "str empty": ("", "", {"type": "str"}),
    "str with NUL": ("a\0", [97, 0], {"type": "str"}),
    "str with surrogate": ("\ud800", [0xED, 0xA0, 0x80], {"type": "str"}),
    "bytes": (b"ab", [97, 98], {"type": "bytes"}),
    "bytes empty": (b"", [], {"type": "bytes"}),
    "bytearray": (bytearray(b"ab"), [97, 98], {"type": "bytearray"}),
    "list of int": ([1, 2], [1, 2], {"type": "list", "items": "int"}),
    "list of bool": ([True], [True], {"type": "list", "items": "bool"}),
    "tuple of float": ((1.5, -0.0), [1.5, -0.0], {"type": "tuple", "items": "float"}),
    "list of complex": ([1j], [1j], {"type": "list", "items": "complex"}),
    "list of str": (["a", ""], ["a", ""], {"type": "list", "items": "str"}),
    "set": ({7}, [7], {"type": "set", "items": "int"}),
    "frozenset": (frozenset("a"), ["a"], {"type": "frozenset", "items": "str"}),
    "list empty": ([], {}, {"type": "list"}),
    "list mixed": ([1, 1.0, None], {"0": 1, "1": 1.0, "2": None}, {"type": "list"}),
    "list of large ints": ([1, 2**64], {"0": 1, "1": hex(2**64)}, {"type": "list"}),
    "list of str with NUL": (["\0"], {"0": [0]}, {"type": "list"}),
    "tuple nested": (((1,), [2]), {"0": [1], "1": [2]}, {"type": "tuple"}),
    "dict": ({"b": 1, "a": [1.0]}, {"b": 1, "a": [1.0]}, {"type": "dict"}),
    "dict empty": ({}, {}, {"type": "dict"}),
    "dict of ints": ({1: "x"}, {"keys": [1], "values": ["x"]}, {"type": "dict", "layout": "items"}),
    "dict of paths": (
        {"a/b": 1, "": 2},
        {"keys": ["a/b", ""], "values": [1, 2]},
        {"type": "dict", "layout": "items"},
    ),
    "dataclass": (
        Run(1.0, np.zeros(2)),
        {"energy": 1.0, "forces": [0.0, 0.0], "label": "run"},
        {"type": "dataclass", "class": f"{__name__}:Run"},
    ),
    "dataclass with slots": (
        Slotted(1, "a"),
        {"x": 1, "y": "a"},
        {"type": "dataclass", "class": f"{__name__}:Slotted"},
    ),
    "dataclass with more": (
        Cached(1),
        {"x": 1, "seen": [1]},
        {"type": "dataclass", "class": f"{__name__}:Cached"},
    ),
    "dataclass frozen with slots": (
        Dense(1),
        {"x": 1, "y": None},
        {"type": "dataclass", "class": f"{__name__}:Dense"},
    ),
    "namedtuple": (
        Pair(1, [2]),
        {"first": 1, "second": [2]},
        {"type": "namedtuple", "class": f"{__name__}:Pair"},
    ),
    "array": (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]], {"type": "numpy.ndarray"}),
    "array of bool": (np.array([True, False]), [True, False], {"type": "numpy.ndarray"}),
    "array of complex": (np.array([1j]), [1j], {"type": "numpy.ndarray"}),
    "array 0-d": (np.array(3.0), 3.0, {"type": "numpy.ndarray"}),
    "array empty": (np.zeros((0, 3)), [], {"type": "numpy.ndarray"}),
    "array big-endian": (np.array([1, 2], ">i4"), [1, 2], {"type": "numpy.ndarray"}),
    "array Fortran": (
        np.asfortranarray([[1, 2], [3, 4]]),
        [[1, 2], [3, 4]],
        {"type": "numpy.ndarray", "order": "F"},
    ),
    "array of bytes": (np.array([b"a", b"bc"]), ["a", "bc"], {"type": "numpy.ndarray"}),
    "array structured": (
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        [(1, 2.0)],
        {"type": "numpy.ndarray"},
    ),
    "array of dates": (TIMES, [18262, -(2**63)], {"type": "numpy.ndarray", "dtype": "<M8[D]"}),
    "array of spans": (
        np.array([5], "<m8[s]"),
        [5],
        {"type": "numpy.ndarray", "dtype": "<m8[s]"},
    ),
    "array of str": (
        np.array(["é", "ab"]),
        ["é", "ab"],
        {"type": "numpy.ndarray", "dtype": "<U2"},
    ),
    "array of surrogates": (
        np.array(["\ud800"]),
        [[0xD800]],
        {"type": "numpy.ndarray", "dtype": "<U1"},
    ),
    "array structured with dates": (
        np.array([("2020-01-01", "ab")], dtype=[("t", "M8[D]"), ("n", "U2")]),
        [(18262, np.array([97, 98], "u4"))],
        {"type": "numpy.ndarray", "dtype": DATED},
    ),
    "scalar": (np.float32(1.5), 1.5, {"type": "numpy.scalar"}),
    "scalar str": (np.str_("ab"), "ab", {"type": "numpy.scalar", "dtype": "<U2"}),
    "scalar date": (TIMES[0], 18262, {"type": "numpy.scalar", "dtype": "<M8[D]"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, held: ValueHdf5) -> None:
    """What plain h5py sees of a value, and the value that comes back."""
    value, expected, described = LAYOUTS[name]
    with h5py.File(put(held, value)) as file:
        assert repr(shown(file["value"])) == repr(expected)
        assert attributes(file["value"]) == described
        assert list(file) == ["value"]
    again = load(held, value)
    assert type(again) is type(value)
    assert digest(again) == digest(value)


def test_an_array_of_objects(held: ValueHdf5) -> None:
    """Objects are a list beside their shape."""
    with h5py.File(put(held, OBJECT_ARRAY)) as file:
        assert shown(file["value"]) == {"items": {"0": "a", "1": None}}
        assert file["value"].attrs["shape"].tolist() == [1, 2]
    again = load(held, OBJECT_ARRAY)
    assert again.tolist() == [["a", None]]
    assert again.dtype == object


def test_an_opaque_part(held: ValueHdf5) -> None:
    """What HDF5 has no form for is a number in its place, and its class is named."""
    value = {"x": np.arange(3), "y": Custom(1), "z": [Custom(2), len]}
    with h5py.File(put(held, value)) as file:
        assert shown(file["value"]) == {"x": [0, 1, 2], "y": 0, "z": {"0": 1, "1": 2}}
        assert attributes(file["value/y"]) == {"type": "opaque", "class": f"{__name__}:Custom"}
        parts = Packing().unpack(Parcel.from_bytes(bytearray(file["opaque"][()].tobytes())))
        assert [type(part) for part in parts] == [Custom, Custom, type(len)]
    again = load(held, value)
    assert list(again) == ["x", "y", "z"]
    assert again["y"].part == 1
    assert again["z"][0].part == 2
    assert again["z"][1] is len


WHOLE: dict[str, Callable[[], Any]] = {
    "object": lambda: Custom(1),
    "class with state of its own": lambda: Handle(1),
    "dataclass that is a list": lambda: Many(2),
    "loop": golden.build_loop,
    "tree": golden.build_tree,
    "subclass": golden.build_names,
    "enum": lambda: golden.Colour.RED,
    "recarray": lambda: np.zeros(1, [("a", "i4")]).view(np.recarray),
    "masked": lambda: np.ma.array([1.0], mask=[True]),
    "array of no bytes": lambda: np.zeros(2, np.dtype([])),
    "array that repeats its elements": lambda: np.broadcast_to(np.arange(3.0), (1000, 3)),
    "structured with objects": lambda: np.zeros(1, [("a", "O"), ("b", "i4")]),
    "overlapping fields": lambda: np.zeros(
        1, np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]})
    ),
    "named tuple with more": lambda: vars(found := Pairs(1, 2)).update(c=3) or found,
    "shared by a native and an opaque part": lambda: [part := [1], Custom(part)],
    "more objects than are good": lambda: [{"n": n} for n in range(_layout.BUDGET + 1)],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_parcel(name: str, held: ValueHdf5) -> None:
    """A value that HDF5 cannot hold exactly is the bytes of its parcel."""
    value = WHOLE[name]()
    with h5py.File(put(held, value)) as file:
        assert list(file) == ["value"]
        assert attributes(file["value"]) == {"type": "parcel"}
        verify(Parcel.from_bytes(file["value"][()].tobytes()), digest=digest(value))
    again = load(held, value)
    assert type(again) is type(value)
    assert digest(again) == digest(value)


def test_large_dicts_are_columns(held: ValueHdf5) -> None:
    """A dict of more keys than are good as objects is two datasets."""
    value = {f"key {number}": number / 7 for number in range(50_000)}
    path = put(held, value)
    with h5py.File(path) as file:
        assert file["value/keys"].shape == file["value/values"].shape == (50_000,)
    assert list(load(held, value).items()) == list(value.items())


def test_order_is_kept(held: ValueHdf5) -> None:
    """Dicts keep their order, arrays their order in memory; both stay writable."""
    names = [f"k{number}" for number in random.Random(1).sample(range(300), 300)]
    value = {**dict.fromkeys(names), "f": np.asfortranarray(np.ones((2, 3)))}
    put(held, value)
    again = load(held, value)
    assert list(again) == list(value)
    assert again["f"].flags.f_contiguous
    assert not again["f"].flags.c_contiguous
    again["f"][0, 0] = 2


def test_sharing_is_kept(held: ValueHdf5) -> None:
    """What occurs twice is stored once, and comes back as one object."""
    block = np.arange(100_000)
    part: Any = {"x": block}
    value = [part, [part, None], block, "s" * 5000, {"a": block}]
    path = put(held, value)
    assert path.stat().st_size < 1.2 * block.nbytes
    again = load(held, value)
    assert again[0] is again[1][0]
    assert again[0]["x"] is again[2] is again[4]["a"]


def test_doubling_is_no_bomb(held: ValueHdf5) -> None:
    """Thirty levels of pairs of one object are thirty objects."""
    value: Any = [None, 1.0]
    for _ in range(30):
        value = [value, value]
    put(held, value)
    again = load(held, value)
    assert again[0] is again[1]


def test_depth_has_a_bound(held: ValueHdf5) -> None:
    """What is nested deeper than is good for HDF5 is opaque from there on."""
    value: Any = [1, None]
    for _ in range(_layout.DEEPEST + 20):
        value = [value, None]
    with h5py.File(put(held, value)) as file:
        assert "opaque" in file
    assert digest(load(held, value)) == digest(value)


def test_long_strings_are_not_multiplied(held: ValueHdf5) -> None:
    """A list that holds one long string many times is no larger than the string."""
    value = ["x" * 2_000_000] * 50
    assert put(held, value).stat().st_size < 3_000_000
    assert load(held, value) == value


def is_picklable(value: Any) -> bool:
    """Return whether Python itself gives the value back; a frozen class with slots it does not."""
    try:
        return digest(Packing().unpack(pack(value))) == digest(value)
    except ParcelError:
        return False


CORPUS = [
    value
    for value in (*values(), *golden.core().values(), *golden.numpy().values())
    if is_picklable(value)
]


@pytest.mark.parametrize("compress", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_the_corpus_is_exact(tmp_path: Path, compress: Any) -> None:
    """Every value of the golden tables comes back with its type and digest, alone or nested."""
    held = ValueHdf5(tmp_path, compress=compress)
    assert len(CORPUS) > 100
    for value in CORPUS:
        for each in (value, Run(1.0, {"a": (value, None)})):
            put(held, each)
            again = load(held, each)
            assert type(again) is type(each)
            assert digest(again) == digest(each), repr(each)[:80]


def test_pandas_is_exact(held: ValueHdf5) -> None:
    """Tables are opaque parts, and as exact as everything else."""
    pytest.importorskip("pandas")
    for value in golden.pandas().values():
        put(held, {"x": 1, "frame": value})
        assert digest(load(held, {"x": 1, "frame": value})["frame"]) == digest(value)


@pytest.mark.parametrize(
    "dtype",
    [
        *("?", "i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"),
        *("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g", "<c8", ">c8", "<c16", ">c16", "G"),
        *("S1", "S7", "U1", ">U3", "V5", "M8[ns]", ">M8[D]", "M8", "m8[us]", "M8[25s]", "q", "l"),
        [("a", "?"), ("é", ">f4", (2, 3)), ("c", [("x", "S3"), ("y", ">m8[s]")])],
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
        np.dtype({"names": ["b", "a"], "formats": ["i1", "f8"], "offsets": [9, 0], "itemsize": 32}),
        [(("title", "a"), "i4")],
        [("a", "c16"), ("b", "U2", 2), ("c", "V3")],
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 2), (2, 3)], ids=str)
def test_dtypes(dtype: Any, shape: tuple[int, ...], held: ValueHdf5) -> None:
    """Any bits of any dtype, in any shape, come back natively."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    content = bytes(random.Random(size).choices(range(64), k=size))
    if "U" in str(dtype) or "?" in str(dtype) or "bool" in str(dtype):
        content = bytes(size)
    array = np.frombuffer(content, dtype).reshape(shape).copy()
    array = pickle.loads(pickle.dumps(array))  # which turns big-endian dates
    dtype = array.dtype
    with h5py.File(put(held, array)) as file:
        assert file["value"].attrs["type"] == "numpy.ndarray"
    again = load(held, array)
    assert again.dtype == dtype
    assert again.dtype.str == dtype.str
    assert again.dtype.isalignedstruct == dtype.isalignedstruct
    assert again.shape == shape
    if dtype.names is None and dtype.char not in "gG":
        assert again.tobytes() == array.tobytes()
    assert digest(again) == digest(array)


CUBE = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("dtype", ["f8", "M8[s]", "U3", "O"])
@pytest.mark.parametrize(
    "array",
    [CUBE, CUBE.T, CUBE.transpose(1, 0, 2), CUBE[::-1, :, ::2].transpose(2, 0, 1), CUBE[0, 0, 0]],
    ids=["C", "F", "other axes", "a part", "0-d"],
)
def test_arrays_lie_as_they_did(array: Any, dtype: str, writeable: bool, held: ValueHdf5) -> None:
    """The order of axes in memory comes back, and what was not writeable is not."""
    array = np.asarray(array).astype(dtype, order="K")
    array.flags.writeable = writeable
    with h5py.File(put(held, [array, None])) as file:
        assert file["value/0"].attrs["type"] == "numpy.ndarray"
        if dtype == "f8":
            assert np.array_equal(file["value/0"][()], array)
    again = load(held, [array, None])[0]
    assert again.flags.writeable == writeable
    assert again.strides == array.copy("K").strides
    assert again.tolist() == array.tolist()


def test_repeated_elements_are_not_written_out(held: ValueHdf5) -> None:
    """Neither in the file nor on the way into it, be the array as large as it may."""
    value = {"x": np.arange(3), "y": np.broadcast_to(1.0, (3000, 3000))}
    key = digest(value)
    parcel = held.packing.pack(value, key)
    tracemalloc.start()
    try:
        storing.put(held, key, parcel)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < value["y"].nbytes / 4
    assert path_of(held, key).stat().st_size < 20_000
    assert load(held, value)["y"].strides == (0, 0)


def test_aligned_structures_stay_aligned(held: ValueHdf5) -> None:
    """Wherever in a structure the alignment was asked for."""
    aligned = np.dtype([("a", "i1"), ("t", "M8[s]")], align=True)
    for dtype in (aligned, np.dtype([("p", aligned, (2,)), ("q", "i1")])):
        put(held, array := np.zeros(2, dtype))
        assert repr(load(held, array).dtype) == repr(dtype)


def test_nan_payloads_survive(held: ValueHdf5) -> None:
    """Not a bit of a number changes, signalling NaNs included."""
    for dtype, bits in (("<f4", 0x7F800001), (">f4", 0xFFC12345), ("<f8", 0x7FF0000000000001)):
        array = np.array(bits, dtype.replace("f", "u")).view(dtype)
        again = round_trip(array, held.to_config()["root"])
        assert again.tobytes() == array.tobytes()


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(codec=None), max_size=8)
    | st.binary(max_size=8)
)
HASHABLE = st.recursive(PLAIN, lambda part: st.tuples(part, part), max_leaves=4)
NUMBERS = st.sampled_from(["<i4", ">f8", "?", "<c8", "M8[s]", "U2", "S2"]).flatmap(
    lambda dtype: st.integers(0, 3).map(lambda size: np.ones(size, dtype))
)


def as_objects(items: list[Any]) -> Any:
    array = np.empty(len(items), object)
    for number, item in enumerate(items):
        array[number] = item
    return array


ANYTHING = st.recursive(
    PLAIN | NUMBERS | st.just(golden.Colour.RED),
    lambda part: (
        st.lists(part, max_size=4)
        | st.tuples(part, part)
        | st.dictionaries(HASHABLE, part, max_size=3)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=4), part, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.builds(Run, st.floats(), part)
        | st.builds(Pair, part, part)
        | st.builds(Custom, part)
        | st.lists(part, max_size=3).map(as_objects)
    ),
    max_leaves=12,
)


def describe(value: Any) -> Any:
    """Types and values, order included, all the way down."""
    cls = type(value)
    if cls in (list, tuple, Pair):
        return cls, [describe(item) for item in value]
    if cls is dict:
        return cls, [(describe(key), describe(item)) for key, item in value.items()]
    if cls is np.ndarray:
        return cls, value.dtype.str, value.shape, [describe(item) for item in value.tolist()]
    if cls in (Run, Custom):
        return cls, describe(vars(value))
    return cls, str(digest(value))


@examples(1.5)
@given(ANYTHING)
def test_anything_is_exact(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Whatever is put comes back in type, value and order."""
    again = round_trip(value, tmp_path_factory.getbasetemp() / "anything")
    assert describe(again) == describe(value)


def test_compression_is_on_request(tmp_path: Path) -> None:
    """Arrays are contiguous, or in compressed chunks."""
    zeros = np.zeros(100_000)
    plain, packed = ValueHdf5(tmp_path / "a"), ValueHdf5(tmp_path / "b", compress="gzip")
    for held, compression, level in ((plain, None, None), (packed, "gzip", 4)):
        with h5py.File(put(held, zeros)) as file:
            assert file["value"].compression == compression
            assert file["value"].compression_opts == level
            assert (file["value"].chunks is None) == (compression is None)
    assert path_of(packed, digest(zeros)).stat().st_size < 20_000
    assert (load(packed, zeros) == zeros).all()


@pytest.mark.skipif(not shutil.which("h5dump"), reason="no h5dump here (package hdf5-tools)")
def test_h5dump_reads_it(tmp_path: Path) -> None:
    """The tool of the HDF5 library, older than ours perhaps, shows every value."""
    held = ValueHdf5(tmp_path, compress="gzip")
    value = {"energy": -1.5, "forces": np.arange(3.0), "name": "water", "run": Run(1.0, None)}
    done = subprocess.run(["h5dump", put(held, value)], capture_output=True, text=True, check=True)
    assert 'DATASET "energy"' in done.stdout
    assert "(0): -1.5" in done.stdout
    assert "(0): 0, 1, 2" in done.stdout
    assert '(0): "water"' in done.stdout
    files = [str(put(held, value)) for value in (*CORPUS, [v for v, _, _ in LAYOUTS.values()])]
    done = subprocess.run(["h5dump", "-H", *files], capture_output=True, text=True, check=True)
    assert all(f'HDF5 "{file}" {{' in done.stdout for file in files)


class TestOpening:
    @pytest.fixture
    def atom(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """An instance of a class whose module can be lost."""
        source = "import dataclasses\n@dataclasses.dataclass\nclass Atom:\n    z: int\n"
        (tmp_path / "chemistry_of_mine.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        yield importlib.import_module("chemistry_of_mine").Atom(8)
        sys.modules.pop("chemistry_of_mine", None)

    def lose_module(self) -> None:
        sys.modules.pop("chemistry_of_mine")
        Path(sys.path[0], "chemistry_of_mine.py").unlink()
        shutil.rmtree(Path(sys.path[0], "__pycache__"), ignore_errors=True)
        importlib.invalidate_caches()

    def test_a_class_needs_its_module(self, held: ValueHdf5, atom: Any) -> None:
        """Where the module of a class is not installed, the error names file and module."""
        key, path = digest(atom), put(held, atom)
        assert held.packing.unpack(get(held, key)) == atom
        self.lose_module()
        with pytest.raises(UnpackError, match="module 'chemistry_of_mine'") as caught:
            get(held, key)
        assert str(path) in str(caught.value)
        with h5py.File(path) as file:
            assert file["value/z"][()] == 8
        assert has(held, key)

    def test_a_class_that_changed(self, held: ValueHdf5, monkeypatch: pytest.MonkeyPatch) -> None:
        """A class that is no dataclass any more is not guessed at."""
        put(held, value := Run(1.0, None))
        key = digest(value)
        monkeypatch.setattr(sys.modules[__name__], "Run", Custom)
        with pytest.raises(UnpackError, match="no dataclass or named tuple"):
            get(held, key)
        monkeypatch.setattr(sys.modules[__name__], "Run", None)
        with pytest.raises(UnpackError):
            get(held, key)

    def test_a_parcel_that_cannot_be_opened_is_kept(
        self, held: ValueHdf5, atom: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A server without the user's modules keeps the bytes, and says so."""
        parcel = pack(atom, digest=KEY)
        self.lose_module()
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            storing.put(held, KEY, parcel)
        assert "stored unopened" in caplog.text
        assert "chemistry_of_mine" in caplog.text
        assert get(held, KEY).tobytes() == parcel.tobytes()

    def test_checking_needs_no_module(
        self, held: ValueHdf5, atom: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every byte is checked without opening the value, and without HDF5."""
        key, path = digest(atom), put(held, atom)
        cache = Cache(held, CallMemory())
        cache.save(Call(name="f", arguments={"x": 1}, result=atom))
        self.lose_module()
        monkeypatch.setattr(_storage, "read_document", None)
        assert check(held, key) == BufferRefs()
        report = cache.verify(repair=True)
        assert (report.values, report.calls, report.ok) == (2, 1, True)
        assert has(held, key)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert cache.verify().corrupt == (key,)

    def test_a_newer_layout(self, held: ValueHdf5) -> None:
        """What a later version calls a type is no miss."""
        rewrite(put(held, 1), lambda file: file["value"].attrs.__setitem__("type", "quaternion"))
        with pytest.raises(UnpackError, match="quaternion"):
            get(held, digest(1))
        rewrite(path_of(held, digest(1)), lambda file: file.__delitem__("value"))
        with pytest.raises(UnpackError, match=r"\.h5"):
            get(held, digest(1))

    def test_the_digest_is_in_the_seal(self, held: ValueHdf5) -> None:
        """Two lines of text before the HDF5 data say what a file is."""
        path = put(held, 1.5)
        first, second = path.read_bytes()[:512].rstrip(b"\0").splitlines()
        assert first.startswith(b"fleche hdf5 1 ")
        assert json.loads(second)["digest"] == digest(1.5)
        assert json.loads(second)["size"] == path.stat().st_size - 512


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Alter a file as an attacker would who knows about the seal."""
    data = BytesIO(path.read_bytes())
    seal = read_seal(data.getvalue()[:512], "", [])
    with h5py.File(data, "r+") as file:
        change(file)
    path.write_bytes(b"".join(sealed(data, seal.digest, [])))


class TestSecrets:
    def test_signatures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With ``FLECHE_SECRET_KEY``, an unsigned or foreign file is refused, and replaced."""
        plain = ValueHdf5(tmp_path)
        monkeypatch.setenv("FLECHE_SECRET_KEY", "new,old")
        signed = ValueHdf5(tmp_path)
        monkeypatch.setenv("FLECHE_SECRET_KEY", "other")
        foreign = ValueHdf5(tmp_path)
        put(plain, 1)
        with pytest.raises(SignatureError, match="not signed"):
            get(signed, digest(1))
        for store, secrets in ((signed, ()), (plain, (b"new",))):
            with pytest.raises(SignatureError, match="not signed"):
                check(store, digest(1), secrets)
        assert not touch(signed, digest(1))
        with pytest.raises(SignatureError):
            storing.put(signed, KEY, pack(1, digest=KEY))
        put(signed, 1)
        assert load(signed, 1) == load(plain, 1) == 1
        assert check(signed, digest(1), (b"new", b"old")) == BufferRefs()
        with pytest.raises(SignatureError, match="not configured here"):
            get(foreign, digest(1))
        put(signed, value := {"opaque": len, "n": 1})
        assert load(signed, value) == value


DAMAGED = {"a": 1, "b": [1.5, 2.5], "c": "text", "d": np.arange(4), "e": Custom(1)}


class TestDamage:
    def is_refused(self, held: ValueHdf5, key: Any) -> bool:
        """Return whether the file is known to be damaged; otherwise it had better be whole."""
        try:
            check(held, key)
        except CorruptParcel as error:
            if str(path_of(held, key)) not in str(error):
                return False
        else:
            get(held, key).close()
        try:
            found = held.packing.unpack(get(held, key), key)
        except CorruptParcel as error:
            return str(path_of(held, key)) in str(error)
        assert digest(found) == key
        return False

    def test_every_truncation(self, held: ValueHdf5) -> None:
        """A file that is cut anywhere is corrupt, and HDF5 never sees it."""
        path, key = put(held, DAMAGED), digest(DAMAGED)
        data = path.read_bytes()
        for length in [*range(1024), *range(1024, len(data), 97), len(data) - 1]:
            path.write_bytes(data[:length])
            assert self.is_refused(held, key)
        path.write_bytes(data + b"\0")
        assert self.is_refused(held, key)

    def test_bit_flips_in_the_seal(self, held: ValueHdf5) -> None:
        """No bit of the seal can be flipped unseen."""
        block = bytearray(put(held, DAMAGED).read_bytes()[:512])
        for bit in range(512 * 8):
            block[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CorruptParcel):
                read_seal(bytes(block), "file", [])
            block[bit // 8] ^= 1 << bit % 8
        assert read_seal(bytes(block), "file", []).digest == digest(DAMAGED)

    def test_bit_flips(self, held: ValueHdf5) -> None:
        """Nor can one of the rest; here, of a sample."""
        path, key = put(held, DAMAGED), digest(DAMAGED)
        data = bytearray(path.read_bytes())
        chance = random.Random(1)
        for bit in (chance.randrange(len(data) * 8) for _ in range(600)):
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            assert self.is_refused(held, key), bit
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert not self.is_refused(held, key)

    @pytest.mark.parametrize("content", [b"", b"x" * 2000, b"\x89HDF\r\n\x1a\n" * 200])
    def test_other_files(self, held: ValueHdf5, content: bytes) -> None:
        """Files of another program, or of none."""
        path = put(held, 1)
        path.write_bytes(content)
        assert self.is_refused(held, digest(1))
        assert not touch(held, digest(1))
        put(held, 1)
        assert load(held, 1) == 1

    def test_another_value(self, held: ValueHdf5) -> None:
        """A file under another's name does not pass for it."""
        other = path_of(held, digest(2))
        other.parent.mkdir(parents=True)
        shutil.copy(put(held, 1), other)
        with pytest.raises(CorruptParcel, match="holds"):
            load(held, 2)
        with pytest.raises(CorruptParcel, match="holds"):
            check(held, digest(2))
        assert not touch(held, digest(2))

    def test_a_damaged_parcel_is_not_stored(self, held: ValueHdf5) -> None:
        """Nothing is made of bytes that do not check."""
        data = bytearray(pack(1, digest=KEY).tobytes())
        data[-1] ^= 1
        with pytest.raises(ParcelError):
            storing.put(held, KEY, Parcel.from_bytes(data))
        assert not has(held, KEY)


class TestLarge:
    """Values that are put together and read on the disk; here, all of them."""

    @pytest.fixture(autouse=True)
    def nothing_is_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_storage, "_SMALL", -1)

    def test_round_trip(self, held: ValueHdf5, no_leaks: None) -> None:
        """They are as exact, and leave no other file."""
        for value in (np.arange(200_000), DAMAGED, Custom(1), "x"):
            put(held, value)
            assert digest(load(held, value)) == digest(value)
        root = Path(held.to_config()["root"])
        assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".h5"}

    def test_damage(self, held: ValueHdf5) -> None:
        """They are checked as a whole before anything is read."""
        path = put(held, np.arange(200_000))
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptParcel):
            get(held, digest(np.arange(200_000)))

    @pytest.mark.parametrize("room", [0, 600, 5000, 1_000_000, 1_601_000])
    def test_a_full_disk(self, held: ValueHdf5, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that fills up while HDF5 writes is an error in words, and no entry."""

        class Full(BytesIO):
            def write(self, data: Any) -> int:
                if self.tell() + len(data) > room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return super().write(data)

        monkeypatch.setattr(_storage.tempfile, "TemporaryFile", lambda **_: Full())
        with pytest.raises(StorageError, match=r"\.h5: cannot write: .*No space left on device"):
            put(held, np.arange(200_000))
        assert keys(held) == []


def test_the_file_of_a_colleague() -> None:
    """Where only its owner may set its age, a value that others rely on is written again."""
    with tempfile.TemporaryDirectory() as place:
        held = ValueHdf5(place)
        path = put(held, [1.5, "x"])
        os.utime(path, (1000, 1000))
        path.chmod(0o644)
        for directory in (path.parent, Path(place)):
            directory.chmod(0o777)
        with as_somebody():
            assert touch(held, digest([1.5, "x"]))
            assert path.stat().st_mtime > 1000
            assert load(held, [1.5, "x"]) == [1.5, "x"]
        assert len(list(path.parent.iterdir())) == 1


def test_errors_name_the_file(tmp_path: Path) -> None:
    """A root that is a file is an error in _layout."""
    (tmp_path / "root").write_text("")
    held = ValueHdf5(tmp_path / "root")
    with pytest.raises(StorageError, match="a file stands where a directory is needed"):
        put(held, 1)


def test_threads_share_a_storage(held: ValueHdf5) -> None:
    """Threads put and get different values at once."""

    def work(number: int) -> bool:
        value = {"n": number, "array": np.full(1000, number)}
        put(held, value)
        return digest(load(held, value)) == digest(value)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))


def test_file_locks_are_not_used(held: ValueHdf5) -> None:
    """A program that locks a file, as HDF5 does, keeps no other from reading or replacing it."""
    with put(held, 1).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert load(held, 1) == 1
        delete(held, digest(1))
        put(held, 1)
        assert load(held, 1) == 1
