"""Forms: what a value is besides its digest comes back, and equal forms give equal streams."""

from __future__ import annotations

import copyreg
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pickle
import random
import re
import statistics
import subprocess
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.digest import digest
from fleche.digest.science import find_reducer
from fleche.parcel import SERIALIZERS, Parcel, _pickles, pack, pack_bytes, unpack
from tests.helpers.pythons import NUMPY_1, Pythons
from tests.helpers.sweeps import examples

np = pytest.importorskip("numpy")


def again(value: Any, serializer: str = "cloudpickle") -> Any:
    return unpack(Parcel.from_bytes(pack(value, serializer).tobytes()))


def variant(value: Any) -> str:
    return pack(value).variant


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def fresh(text: str) -> str:
    """Return an equal text that is another object."""
    return "".join(list(text))


class TestStreams:
    """The variant of a value is that of its form, and does not depend on accidents."""

    def test_equal_texts(self) -> None:
        """It does not matter whether two equal texts are one object."""
        text, raw = fresh("some text"), bytes([1, 2, 3])
        assert variant([text, text]) == variant([text, fresh(text)])
        assert variant({text: {text: 1}}) == variant({text: {fresh(text): 1}})
        assert variant([raw, raw]) == variant([raw, bytes(list(raw))])
        assert variant([text, "other", text]) != variant([text, text, "other"])

    SETS = """
    import sys
    from fleche.parcel import pack
    letters = [chr(97 + n) * 3 for n in range(20)]
    value = [set(letters), frozenset([*letters, 1, None, (2, "b")]), {frozenset("ab"): {1.5, "x"}}]
    print(pack(value, sys.argv[1]).variant)
    """

    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_sets(self, serializer: str) -> None:
        """Members stand in an order that does not depend on the hash seed."""
        found = set()
        for seed in "0", "1", "2":
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "\n".join(map(str.strip, self.SETS.split("\n"))),
                    serializer,
                ],
                capture_output=True,
                text=True,
                check=True,
                env={"PYTHONHASHSEED": seed},
            )
            found.add(done.stdout)
        assert len(found) == 1

    def test_sets_come_back(self) -> None:
        """With everything in them, also where they are shared or hold what holds them."""
        shared = {1, "a"}
        value = {"one": shared, "two": shared, "many": set(range(5000)), "none": frozenset()}
        found = again(value)
        assert found == value
        assert found["one"] is found["two"]

    def test_what_a_program_can_see_does_show(self) -> None:
        """Sharing of objects that can change, and the order of a dict, are part of the form."""
        part = [1]
        assert variant([part, part]) != variant([part, [1]])
        assert variant({"a": 1, "b": 2}) != variant({"b": 2, "a": 1})
        assert variant([1.0]) != variant([1])

    @pytest.mark.parametrize(
        ("value", "times"), [(list(range(40_000)), 1), ({38033: "x"}, 1), ({1, 2}, 2)]
    )
    def test_numbers_are_written_once(
        self, monkeypatch: pytest.MonkeyPatch, value: Any, times: int
    ) -> None:
        """What is written again takes long; the bytes of a number may look like those of a set."""
        written: list[Any] = []
        write = _pickles._write_unless_accidents

        def noted(*args: Any, **kwargs: Any) -> Any:
            written.append(args)
            return write(*args, **kwargs)

        monkeypatch.setattr(_pickles, "_write_unless_accidents", noted)
        assert again(value) == value
        assert len(written) == times

    def test_deeper_than_python_can_follow(self) -> None:
        """What C can pickle is pickled, though there are accidents in it."""
        value: list[Any] = ["x", fresh("x")]
        for _ in range(300):
            value = [value]
        assert again(value) == value

    @pytest.mark.parametrize("size", [0, 1, 2, 999, 1000, 1001, 1002, 2000, 2001, 30_000])
    @pytest.mark.parametrize(
        "make",
        [
            lambda n: [f"n{i}" for i in range(n)],
            lambda n: {f"n{i}": [i] for i in range(n)},
            lambda n: tuple({"key": i, "name": f"n{i}"} for i in range(n)),
            lambda n: [np.zeros(i % 300, "u1") for i in range(n // 10)],
        ],
        ids=["list", "dict", "records", "arrays"],
    )
    def test_of_any_size(self, make: Callable[[int], Any], size: int) -> None:
        """However it was written, by C or again in Python, an equal form is an equal stream."""
        key = "key of the value"
        assert variant([make(size), key, key]) == variant([make(size), key, fresh(key)])

    @pytest.mark.parametrize("make", [list, dict.fromkeys])
    def test_ends_of_python_3_15(self, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
        """What C ends otherwise there is written by Python, as the other versions end it."""
        values = [make(range(size)) for size in (1, 999, 1000, 1001, 2000, 2001)]
        before = [variant(value) for value in values]
        monkeypatch.setattr("fleche.parcel._pickles.ENDS_AS_TOLD", False)
        written: list[Any] = []
        exactly = _pickles._ExactPickler
        dump = exactly.dump
        monkeypatch.setattr(
            exactly, "dump", lambda self, obj: written.append(obj) or dump(self, obj)
        )
        assert [variant(value) for value in values] == before
        assert list(map(len, written)) == (
            [1001, 2001] if make is list else [1000, 1001, 2000, 2001]
        )


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary()
TREES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=5)
        | st.sets(st.text(max_size=2) | st.integers(), max_size=5)
    ),
    max_leaves=20,
)


def copied(value: Any, chance: random.Random) -> Any:
    """Return an equal value in which texts are or are not the same objects, at random."""
    if type(value) is str:
        return fresh(value) if chance.random() < 0.5 else sys.intern(value)
    if type(value) in (list, tuple, set):
        items = [copied(item, chance) for item in value]
        chance.shuffle(items) if type(value) is set else None
        return type(value)(items)
    if type(value) is dict:
        return {copied(key, chance): copied(item, chance) for key, item in value.items()}
    return value


@examples(2)
@given(TREES, st.integers(0, 1000), st.sampled_from(SERIALIZERS))
def test_accidents_do_not_show(value: Any, seed: int, serializer: str) -> None:
    """Whatever is shared by accident, two copies of a tree have one variant and come back equal."""
    one, other = (copied(value, random.Random(seed + n)) for n in (0, 1))
    packed = pack(one, serializer)
    assert packed.variant == pack(other, serializer).variant
    assert digest(unpack(packed)) == digest(value)


class TestArrays:
    """An array comes back with its layout in memory, not only with its elements."""

    @pytest.mark.parametrize("serializer", SERIALIZERS)
    @pytest.mark.parametrize("size", [3, 60], ids=["small", "large"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x,
            np.asfortranarray,
            lambda x: x.transpose(1, 0, 2),
            lambda x: x.transpose(2, 0, 1),
            lambda x: x.transpose(1, 0, 2)[::2, :, ::2],
            lambda x: x.swapaxes(1, 2)[:, :, ::-1],
            lambda x: x[0].T,
            lambda x: x[:, ::2],
        ],
    )
    def test_order_of_axes(self, change: Callable[[Any], Any], size: int, serializer: str) -> None:
        array = change(np.arange(float(size**3)).reshape(size, size, size))
        found = again(array, serializer)
        np.testing.assert_array_equal(found, array)
        assert found.ravel("K").tolist() == np.copy(array, order="K").ravel("K").tolist()
        assert found.flags.f_contiguous == np.copy(array, order="K").flags.f_contiguous
        assert found.flags.c_contiguous == np.copy(array, order="K").flags.c_contiguous

    @pytest.mark.parametrize("serializer", SERIALIZERS)
    @pytest.mark.parametrize("kind", ["f8", "i4,f8", "M8[s]", "O", "O,i4"])
    @pytest.mark.parametrize("size", [3, 100], ids=["small", "large"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: np.broadcast_to(x, (2, *x.shape)),
            lambda x: np.broadcast_to(x[:, None], (x.shape[0], 4, x.shape[1])),
            lambda x: np.broadcast_to(x.T[..., None], (*x.T.shape, 4)),
            lambda x: np.broadcast_to(x[0, 0], (4, 3)),
            lambda x: np.broadcast_to(x[0], (2, x.shape[1])),
            read_only,
            lambda x: read_only(x.T),
            lambda x: read_only(x[::2, ::-1]),
            lambda x: read_only(x[0, ::2]),
            lambda x: read_only(x[0, 0, ...]),
            lambda x: np.lib.stride_tricks.as_strided(x, (2, *x.shape), (0, *x.strides)),
        ],
    )
    def test_repeated_and_read_only(
        self, change: Callable[[Any], Any], size: int, kind: str, serializer: str
    ) -> None:
        """What repeats its elements does so again, and what cannot be written to cannot."""
        array = change(np.arange(size * size).astype(kind).reshape(size, size))
        found = again(array, serializer)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tolist() == array.tolist()
        if 0 in array.strides:
            assert found.ravel("K").tolist() == array.ravel("K").tolist()
        assert [step == 0 for step in found.strides] == [step == 0 for step in array.strides]
        assert found.flags.writeable == array.flags.writeable
        assert digest(found) == digest(array)

    def test_objects_in_other_orders(self) -> None:
        array = np.array([[{"a": 1}, None], [[1], "x"]] * 3, dtype=object).reshape(2, 3, 2)
        found = again(array.transpose(1, 2, 0))
        assert found.tolist() == array.transpose(1, 2, 0).tolist()
        assert again([array, array])[0] is not None

    def test_layouts_have_addresses_of_their_own(self) -> None:
        array = np.arange(24.0).reshape(2, 3, 4)
        forms = [
            array,
            np.asfortranarray(array),
            array.transpose(1, 0, 2).copy().transpose(1, 0, 2),
        ]
        assert len({digest(form) for form in forms}) == 1
        assert len({variant(form) for form in forms}) == 3

    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_masked(self, serializer: str) -> None:
        """A hardened mask stays hard, and no mask stays no mask."""
        soft = np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0], fill_value=-1)
        hard = soft.copy()
        hard.harden_mask()
        bare = np.ma.masked_array([1.0, 2.0])
        record = np.ma.masked_array(np.zeros(2, "i4,f8"), [(0, 1), (1, 0)])
        assert variant(soft) != variant(hard)
        for array in (soft, hard, bare, record):
            found = again(array, serializer)
            assert type(found) is np.ma.MaskedArray
            assert (found.dtype, found.fill_value) == (array.dtype, array.fill_value)
            assert np.array_equal(found.data, array.data)
            assert np.array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(array))
            assert found.hardmask == array.hardmask
            assert (found.mask is np.ma.nomask) == (array.mask is np.ma.nomask)
        found = again(hard)
        found[1] = 9
        assert found[1] is np.ma.masked
        assert again(np.ma.masked) is np.ma.masked

    @pytest.mark.filterwarnings("ignore:the matrix subclass")
    def test_others(self) -> None:
        """Matrices, records, scalars, views of a kind of their own."""
        for value in (
            np.matrix([[1, 2]]),
            np.rec.array([(1, 2.0)], dtype="i4,f8"),
            np.float32(1),
            np.datetime64("2020-01-01"),
            np.poly1d([1, 2]),
            np.ma.masked_array(np.zeros(2, "i4,f8"), [(0, 1), (1, 0)])[0],
        ):
            found = again(value)
            assert type(found) is type(value)
            assert digest(found) == digest(value)
            assert np.array_equal(np.asarray(found), np.asarray(value))

    @pytest.mark.parametrize(
        "make", [lambda: np.random.Philox(key=3), lambda: np.random.RandomState(3)._bit_generator]
    )
    def test_random_bits_without_a_sequence_of_seeds(self, make: Callable[[], Any]) -> None:
        """None comes with what is made from a key, or in the older way."""
        bits = make()
        bits.random_raw(3)
        found = again(bits)
        assert digest(found) == digest(bits)
        assert found.random_raw() == bits.random_raw()


class WithUnit(np.ndarray):
    """An array with a unit, in the way of numpy's manual: pickling knows nothing of it."""

    def __array_finalize__(self, origin: Any) -> None:
        self.unit = getattr(origin, "unit", None)


class WithSlot(np.ndarray):
    __slots__ = ("unit",)


class Demanding(np.ndarray):
    """An array that is never made of a plain one."""

    unit: Any

    def __array_finalize__(self, origin: Any) -> None:
        if type(origin) is np.ndarray:
            raise TypeError("give it a unit")


class WithMask(np.ma.MaskedArray):  # type: ignore[type-arg, unused-ignore]
    pass


class Moment(dt.datetime):
    pass


class Amount(decimal.Decimal):
    pass


class Share(Fraction):
    pass


class Tally(Counter[str]):
    pass


class Dice(random.Random):
    pass


class Host(ipaddress.IPv4Address):
    pass


class Bell(statistics.NormalDist):
    pass


class Scale(np.float64):
    """A number with a unit: numpy pickles it as one of its own."""


class Count(np.int64):
    pass


class Phase(np.complex128):
    pass


class Label(np.str_):
    pass


class Raw(np.bytes_):
    pass


class SlottedScale(np.float64):
    __slots__ = ("unit",)


class Draws(np.random.Generator):
    pass


class Coins(np.random.RandomState):
    pass


class Bits(np.random.PCG64):
    pass


class Open(msgspec.Struct, dict=True):
    x: int = 1


def demanding() -> Any:
    found = np.ndarray.__new__(Demanding, 3)
    found[:] = 1.5
    return found


HOLDERS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(6.0).view(WithUnit),
    "large": lambda: np.arange(30_000.0).view(WithUnit),
    "fortran": lambda: np.asfortranarray(np.ones((3, 4))).view(WithUnit),
    "swapped": lambda: np.ones((2, 3, 4)).transpose(1, 0, 2).view(WithUnit),
    "read-only": lambda: read_only(np.ones(3).view(WithUnit)),
    "objects": lambda: np.array([{"a": 1}, None], dtype=object).view(WithUnit),
    "big-endian": lambda: np.arange(3, dtype=">i4").view(WithUnit),
    "slot": lambda: np.arange(6.0).view(WithSlot),
    "demanding": demanding,
    "masked": lambda: np.ma.masked_array([1, 2], [0, 1], hard_mask=True),
    "masked, of a class": lambda: np.ma.masked_array([1, 2], [0, 1]).view(WithMask),
    "moment": lambda: Moment(2020, 1, 1),
    "amount": lambda: Amount("1.50"),
    "struct": Open,
    "share": lambda: Share(1, 3),
    "tally": lambda: Tally("aab"),
    "dice": lambda: Dice(3),
    "host": lambda: Host("10.0.0.1"),
    "bell": lambda: Bell(1.0, 2.0),
    "float": lambda: Scale("nan"),
    "int": lambda: Count(3),
    "complex": lambda: Phase(1 - 0j),
    "text": lambda: Label("a"),
    "bytes": lambda: Raw(b"a"),
    "float with a slot": lambda: SlottedScale(1.5),
}
if not np.__version__.startswith("1."):  # which pickles a generator without its seed
    HOLDERS["generator"] = lambda: Draws(Bits(1))
    HOLDERS["older generator"] = lambda: Coins(1)
    HOLDERS["bits"] = lambda: Bits(1)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", HOLDERS)
def test_what_hangs_on_an_object(name: str, serializer: str) -> None:
    """What a library forgets when it pickles comes back: class, attributes, and all else."""
    bare = HOLDERS[name]()
    assert type(again(bare, serializer)) is type(bare)
    assert digest(again(bare, serializer)) == digest(bare)
    value = HOLDERS[name]()
    value.unit = ["eV"]
    found = again(value, serializer)
    assert type(found) is type(value)
    assert found.unit == ["eV"]
    assert digest(found) == digest(value)
    for form in ("dtype", "strides", "hardmask"):
        assert getattr(found, form, None) == getattr(value, form, None)
    if isinstance(value, np.ndarray):
        assert found.flags.writeable == value.flags.writeable
    found.unit.append("K")
    assert value.unit == ["eV"]


class Level(enum.Enum):
    LOW = 1


def test_members_of_enumerations() -> None:
    """They are known by their class and name, and are left to Python."""
    assert find_reducer(Level) is None
    assert again(Level.LOW) is Level.LOW


def test_what_comes_with_its_base() -> None:
    """A package that pickles its classes by a base in C of its own knows what counts."""
    own = type("Local", (dt.datetime,), {"__module__": "datetime"})
    assert find_reducer(own) is None
    assert find_reducer(Moment) is not None


def test_what_the_program_has_told_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """How the program has told pickle to write a class comes first."""
    monkeypatch.setitem(copyreg.dispatch_table, Scale, lambda obj: (Count, (int(obj),)))
    assert type(again(Scale(2))) is Count


def test_no_copy_of_a_large_array_of_a_class() -> None:
    array = HOLDERS["large"]()
    assert [section.size for section in pack(array).head.buffers] == [array.nbytes]


class TestTensors:
    """Tensors are written as arrays are: what they show, each large one apart."""

    def test_forms(self) -> None:
        torch = pytest.importorskip("torch")
        noted = torch.arange(3.0)
        noted.unit = ["eV"]
        leaf = torch.ones(2, requires_grad=True)
        (leaf * leaf).sum().backward()
        for value in (
            torch.ones(2, 3, 4).permute(1, 0, 2),
            torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
            torch.ones(3, 1).expand(3, 4),
            torch.empty(0, 3),
            torch.tensor(True),
            torch.ones(3, dtype=torch.bfloat16),
            torch.full((1, 1), 1j),
            torch.nn.Parameter(torch.ones(2), requires_grad=False),
            noted,
            leaf,
        ):
            found = again(value)
            assert type(found) is type(value)
            assert digest(found) == digest(value)
            assert (found.stride(), vars(found)) == (value.stride(), vars(value))
        assert torch.equal(again(leaf).grad, leaf.grad)

    def test_parts(self) -> None:
        """A part of a large one does not bring all of it."""
        torch = pytest.importorskip("torch")
        whole = torch.ones(100, 1000)
        assert pack(whole[3]).nbytes < 5000
        assert pack(list(whole)).nbytes < 1.1 * pack(whole).nbytes

    def test_no_copy_of_a_large_one(self) -> None:
        torch = pytest.importorskip("torch")
        sizes = [section.size for section in pack(torch.nn.Linear(200, 100)).head.buffers]
        assert sizes == [4 * 200 * 100]


@pytest.mark.parametrize("shape", [(), (3, 4), (100, 200)])
def test_quantities(shape: tuple[int, ...]) -> None:
    """Quantities of astropy are written as arrays are, too, and come back as they were."""
    units = pytest.importorskip("astropy.units")
    value = units.Quantity(np.asfortranarray(np.ones(shape)), "m")
    value.flags.writeable = False
    found = again(value)
    assert (type(found), found.unit, found.strides) == (type(value), value.unit, value.strides)
    assert not found.flags.writeable
    assert digest(found) == digest(value)
    assert len(pack(value).head.buffers) == (value.nbytes > 1 << 16)


def test_what_mpmath_makes_for_itself() -> None:
    """Matrices and intervals are of the classes that a program sees, and bring no code along."""
    mpmath = pytest.importorskip("mpmath")
    for context in (mpmath.mp, mpmath.fp, mpmath.iv):
        for value in (context.matrix([[1, 2]]), context.mpf(2), context.mpc(1, 2)):
            found = again(value)
            assert type(found) is type(value)
            assert digest(found) == digest(value)
            assert pack(value).nbytes < 1000
    own = mpmath.MPContext()
    own.dps = 50
    assert again(own.matrix([[1, 2]])).rows == 1


def test_a_table_with_an_index() -> None:
    """The key of a table of astropy comes back, which finds its rows, and what hangs on it."""
    tables = pytest.importorskip("astropy.table")
    table = tables.Table({"a": [2, 1], "b": [3, 4]})
    table.add_index("a")
    table.note = ["x"]
    found = again(table)
    assert found.loc[2]["b"] == 3
    assert found.note == ["x"]
    assert digest(found) == digest(table)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_groups_of_a_table_of_astropy(serializer: str) -> None:
    """Its sums are those of its groups, as they are of the table that was returned."""
    tables = pytest.importorskip("astropy.table")
    plain = tables.Table({"a": [1, 1, 2], "b": [1.0, 2.0, 4.0]})
    table = plain.group_by("a")
    before = digest(table)
    for each in (table, *again([table, table], serializer)):
        assert [len(group) for group in each["b"].groups] == [2, 1]
        assert list(each.groups.aggregate(np.sum)["b"]) == [3.0, 4.0]
        assert digest(each) == before != digest(plain)
    column = plain["b"].group_by(np.array([1, 1, 2]))
    found = again(column, serializer)
    assert list(found.groups.aggregate(np.sum)) == [3.0, 4.0]
    assert digest(found) == digest(column) != digest(plain["b"])


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_columns_of_a_fits_table(serializer: str) -> None:
    """They are big-endian parts of its rows, and stay so."""
    tables = pytest.importorskip("astropy.table")
    rows = np.array([(1, 2.0, [3, 4])] * 6, [("a", ">i4"), ("b", ">f8"), ("c", ">f4", 2)])
    masked = np.ma.array(rows["b"], mask=rows["a"] > 3)
    for table in (
        tables.Table(rows, copy=False),
        tables.Table(rows, copy=False)[::2],
        tables.Table([masked[::2]], names=["m"], copy=False),
    ):
        table[table.colnames[0]].unit = "m"
        found = again(table, serializer)
        assert found.dtype == table.dtype
        assert found[found.colnames[0]].unit == "m"
        assert digest(found) == digest(table)
    late, early = tables.MaskedColumn([1], mask=[0]), tables.MaskedColumn([1], mask=[0], unit="m")
    late.unit = "m"
    assert digest(late) == digest(early)


class TestViews:
    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_a_memoryview_is_one(self, serializer: str) -> None:
        """With format, shape, and whether it can be written to."""
        numbers = np.arange(12.0).reshape(3, 4)
        for view in (
            memoryview(b"abc"),
            memoryview(bytearray(b"abc")),
            memoryview(b""),
            numbers.data,
            numbers.T.data,
            numbers[:, ::2].data,
            np.arange(100_000).data,
        ):
            found = again(view, serializer)
            assert type(found) is memoryview
            assert (found.format, found.shape) == (view.format, view.shape)
            assert found.readonly == view.readonly
            assert found.tolist() == view.tolist()

    def test_no_copy_of_a_large_one(self) -> None:
        view = np.arange(100_000).data
        assert [section.size for section in pack(view).head.buffers] == [view.nbytes]


class Variable:
    """A number that is itself, and nothing that is equal: as of a package for uncertainties."""

    def __init__(self, value: float, parts: dict[Variable, float] | None = None) -> None:
        self.value = value
        self.parts = {self: 1.0} if parts is None else parts

    def __add__(self, other: Variable) -> Variable:
        parts = dict(self.parts)
        for part, weight in other.parts.items():
            parts[part] = parts.get(part, 0.0) + weight
        return Variable(self.value + other.value, parts)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_what_is_one_object_stays_one(serializer: str) -> None:
    """Sharing inside a result survives, where identity carries the meaning."""
    x = Variable(1.0)
    found_x, found_sum, found_list = again([x, x + x, [x]], serializer)
    assert found_list[0] is found_x
    assert found_sum.parts == {found_x: 2.0}


class StatefulError(Exception):
    def __reduce__(self) -> Any:
        return (type(self), (), {"args": self.args, "unit": "eV"}, None, None, set_state)


def set_state(error: StatefulError, state: dict[str, Any]) -> None:
    error.args = state["args"]
    vars(error)["unit"] = state["unit"]


def with_traceback(error: BaseException) -> Any:
    """Reduce as tblib does, which some executors install for all exceptions that there are."""
    return type(error), error.args, {"lines": [each.lineno for each in tb_of(error)]}


def tb_of(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def raised(error: ValueError) -> ValueError:
    try:
        raise error
    except ValueError as found:
        return found


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_traceback_is_no_part_of_an_exception(
    serializer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of one that is raised, nor where tblib says how exceptions are pickled."""
    expected = digest(ValueError("x"))
    assert digest(raised(ValueError("x"))) == expected
    monkeypatch.setattr(with_traceback, "__module__", "tblib.pickling_support")
    monkeypatch.setitem(copyreg.dispatch_table, ValueError, with_traceback)
    error = raised(ValueError("x"))
    found = again(error, serializer)
    assert digest(error) == digest(found) == expected
    assert (type(found), found.args, vars(found)) == (ValueError, ("x",), {})


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", [ValueError, StatefulError])
def test_the_exceptions_behind_one(kind: type[Exception], serializer: str) -> None:
    """An exception comes back with its cause and its context, be it in a circle."""
    error = kind("a", 1)
    vars(error)["unit"] = "eV"
    error.__cause__, error.__context__ = KeyError(1), LookupError(2)
    error.__context__.__context__ = error
    found = again(error, serializer)
    assert (type(found), found.args, vars(found)) == (kind, ("a", 1), {"unit": "eV"})
    assert repr((found.__cause__, found.__context__)) == "(KeyError(1), LookupError(2))"
    assert found.__context__.__context__ is found
    assert found.__suppress_context__
    assert digest(found) == digest(error)


class UnitError(ValueError):
    """Tells its base a text that is none of its own arguments."""

    def __init__(self, value: float, *, unit: str) -> None:
        super().__init__(f"{value} {unit}")
        self.unit = unit


class DerivedError(UnitError):
    pass


class FileError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "is not there", path)


class StopError(SystemExit):
    __slots__ = ("why",)

    def __init__(self, code: int, why: str) -> None:
        super().__init__(code)
        self.why = why


@dataclasses.dataclass
class FieldError(Exception):
    unit: str


class MissingError(AttributeError):
    __slots__ = ("why",)


class NamelessError(AttributeError):
    @property
    def name(self) -> str:  # type: ignore[override]
        return "none"


def with_why(error: Any, why: str) -> Any:
    error.why = why
    return error


class NewError(Exception):
    unit: str

    def __new__(cls, unit: str) -> NewError:
        found = super().__new__(cls, f"in {unit}")
        found.unit = unit
        return found


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("behind", [None, KeyError(1)])
@pytest.mark.parametrize(
    "error",
    [
        UnitError(1.5, unit="eV"),
        DerivedError(1.5, unit="eV"),
        FileError("a.xyz"),
        StopError(3, "tired"),
        FieldError(unit="eV"),
        subprocess.CalledProcessError(returncode=1, cmd="ls"),
        NewError("eV"),
        AttributeError("no such thing", name="volume"),
        NameError("no such thing", name="volume"),
        with_why(MissingError("no such thing", name="volume", obj=0), "tired"),
        NamelessError("no such thing"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_exception_with_what_pickle_loses(
    error: BaseException, behind: BaseException | None, serializer: str
) -> None:
    """It comes back whatever it has told its base, which pickle would pass to its class.

    So do its slots, and the name that was missing, which pickle loses before Python 3.12.
    """
    error.__cause__ = behind
    found: Any = again(error, serializer)
    assert (type(found), repr(found.args), str(found)) == (
        type(error),
        repr(error.args),
        str(error),
    )
    assert vars(found) == vars(error)
    for name in ("filename", "code", "name", "why"):
        assert getattr(found, name, None) == getattr(error, name, None)
    assert repr(found.__cause__) == repr(behind)
    assert digest(found) == digest(error)


ONE = object()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_bare_object_is_the_one_of_its_name(serializer: str) -> None:
    """So that `is` holds for what comes back, as for what was returned."""
    assert again([ONE, {"k": ONE}], serializer) == [ONE, {"k": ONE}]


def test_a_bare_object_whose_name_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack([ONE]).tobytes()
    monkeypatch.setattr(sys.modules[__name__], "ONE", 1)
    assert [type(found) for found in unpack(Parcel.from_bytes(packed))] == [object]


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("size", [6, 60_000])
@pytest.mark.parametrize(
    "dtype",
    [">f8", ">c16", ">i4", ">U2", "<f8", "i4,M8[s]", "M8[s]", [("a", ">f4", 2), ("b:", "i4")]],
)
def test_an_array_in_no_order(dtype: Any, size: int, writeable: bool) -> None:
    """It comes back as one in order, and otherwise as it was: with its order of bytes, too."""
    array = np.zeros(size, "i8").astype(dtype)
    for view in (array, array[::-1], array[::2], array.reshape(2, -1)[:, ::-1]):
        view.flags.writeable = writeable
        found = again(view)
        assert (found.dtype, found.dtype.str) == (view.dtype, view.dtype.str)
        assert found.flags.writeable is writeable
        assert np.array_equal(found, view)
        assert digest(found) == digest(view)
        if writeable:
            assert pack(view).variant == pack(found).variant


def test_limits_of_floats() -> None:
    for kind in ("f4", "f8"):
        info = np.finfo(kind)
        assert again([info])[0].eps == info.eps
        assert digest(again(info)) == digest(info)


class TestGenerators:
    @pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
    def test_they_go_on(self, name: str) -> None:
        """A generator draws on from where it was, and can spawn what it would have spawned."""
        generator = np.random.Generator(getattr(np.random, name)(42))
        generator.random(3)
        generator.integers(10, dtype="u4")
        found = again(generator)
        assert type(found.bit_generator) is type(generator.bit_generator)
        assert found.random(5).tolist() == generator.random(5).tolist()
        if hasattr(generator, "spawn"):
            one, other = found.spawn(1)[0], generator.spawn(1)[0]
            assert one.random() == other.random()

    def test_the_older_kind(self) -> None:
        state = np.random.RandomState(7)
        state.normal(size=3)
        found = again(state)
        assert found.normal(size=5).tolist() == state.normal(size=5).tolist()

    def test_what_is_shared(self) -> None:
        """Two generators over one source of bits still take from each other."""
        bits = np.random.PCG64(1)
        one, other = again((np.random.Generator(bits), np.random.Generator(bits)))
        assert one.bit_generator is other.bit_generator
        state = again(np.random.SeedSequence(5, spawn_key=(1, 2)))
        assert state.generate_state(4).tolist() == (
            np.random.SeedSequence(5, spawn_key=(1, 2)).generate_state(4).tolist()
        )


class TestOtherVersionsOfNumpy:
    """numpy 1 and 2 keep their insides in places of different names."""

    @pytest.mark.filterwarnings("ignore:the matrix subclass")
    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_one_place(self, serializer: str) -> None:
        """A stream that names the other one is read."""
        value = [np.float64(1.5), np.arange(3), np.zeros(2, "i4,f8"), np.matrix([[1.0]])]
        stream = pickle.dumps(value, protocol=5)
        assert len(stream) < 1 << 16  # one frame, which is taken off
        stream = stream[:2] + re.sub(rb"\x8c(.)(numpy\._?core[\w.]*)", self.renamed, stream[11:])
        found = unpack(pack_bytes(stream, serializer))
        assert all(np.array_equal(one, two) for one, two in zip(found, value, strict=True))

    @staticmethod
    def renamed(found: re.Match[bytes]) -> bytes:
        name = found[2]
        other = (
            name.replace(b"._core", b".core")
            if b"._core" in name
            else name.replace(b".core", b"._core")
        )
        return b"\x8c" + bytes([len(other)]) + other

    VALUES = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import numpy as np, pandas as pd
    from fleche.digest import digest
    from fleche.parcel import Parcel, pack, unpack
    pd.options.mode.string_storage = "python"
    generator = np.random.default_rng(1)
    generator.random(3)
    state = np.random.RandomState(1)
    state.normal(size=3)
    values = {
        "array": np.arange(5.0),
        "large": np.arange(30_000),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        "nested": [np.float32(1), {"k": np.arange(3)}, np.str_("x"), np.bool_(True)],
        "structured": np.zeros(2, "i4,f8"),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "poly": np.poly1d([1, 2]),
        "matrix": np.matrix([[1, 2]]),
        "masked": np.ma.masked_array([1, 2], [0, 1], hard_mask=True),
        "record": np.rec.array([(1, 2.0)], dtype="i4,f8"),
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "frame": pd.DataFrame({"a": [1.5, 2.5], "b": ["x", None]}, index=["r", "s"]),
        "index": pd.MultiIndex.from_product([[1, 2], ["a", "b"]]),
        "generator": generator,
        "state": state,
        "seed": np.random.SeedSequence(3),
    }
    def known(value):
        if isinstance(value, (np.random.Generator, np.random.RandomState)):
            return value.normal(size=4).tolist()
        if isinstance(value, np.random.SeedSequence):
            return value.generate_state(4).tolist()
        return repr(value)
    if sys.argv[1] == "write":
        for name, value in values.items():
            with open(name, "wb") as file:
                file.write(pack(value).tobytes())
    else:
        for name, value in values.items():
            found = unpack(Parcel.from_file(name))
            assert type(found) is type(value), name
            assert known(found) == known(value), (name, found)
        print("all", len(values), np.__version__[:2])
    """

    @pytest.mark.timeout(300)
    def test_there_and_back(self, pythons: Pythons, tmp_path: Path) -> None:
        """What one of them has written the other reads: arrays, frames, generators."""
        pd = pytest.importorskip("pandas")
        if np.__version__.startswith("1.") or pd.__version__.startswith("2."):
            pytest.skip("needs numpy 2 and pandas 3 here")

        def run(python: str, what: str) -> str:
            code = textwrap.dedent(self.VALUES)
            done = subprocess.run(
                [python, "-c", code, what], capture_output=True, text=True, cwd=tmp_path
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        old, new = pythons[NUMPY_1], sys.executable
        for writer, reader, version in ((new, old, "1."), (old, new, "2.")):
            run(writer, "write")
            assert run(reader, "read").split() == ["all", "17", version]
