"""Arrays and scalars of numpy."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleche.digest import buffer_digest, digest, digest_with_buffers
from fleche.errors import Indigestible

BIG = 64 * 1024
FORGETS_SEEDS = np.__version__.startswith("1.")
GRID = np.arange(24).reshape(2, 3, 4)
ALIGNED = np.dtype({"names": ["a", "b"], "formats": ["<i1", "<f8"]}, align=True)


class Quantity(np.ndarray):
    unit: str


def quantity(unit: str) -> Any:
    found = np.ones(2).view(Quantity)
    found.unit = unit
    return found


def masked(mask: Any, fill: float | None = None) -> Any:
    return np.ma.array([1.0, 2.0], mask=mask, fill_value=fill)


DIFFERENT: list[tuple[Any, Any]] = [
    (np.ones(2), [1.0, 1.0]),
    (np.ones(2), (1.0, 1.0)),
    (np.ones(2), np.zeros(2)),
    (np.ones(2, "f4"), np.ones(2, "f8")),
    (np.ones(2, "<f8"), np.ones(2, ">f8")),
    (np.ones(2, "i4"), np.ones(2, "u4")),
    (np.ones(2, "i8"), np.ones(2, "f8")),
    (np.ones(2, "?"), np.ones(2, "u1")),
    (np.zeros(2, "i8"), np.zeros(2, "M8[s]")),
    (np.zeros(2, "M8[s]"), np.zeros(2, "M8[ms]")),
    (np.zeros(2, "M8[s]"), np.zeros(2, "m8[s]")),
    (np.zeros(1, "M8[s]"), np.array(["NaT"], "M8[s]")),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.zeros((2, 3)), np.zeros(6)),
    (np.zeros(1), np.zeros(())),
    (np.zeros(0), np.zeros((0, 1))),
    (np.zeros((0, 1)), np.zeros((0, 2))),
    (np.array(0.0), np.array(-0.0)),
    (np.array(1.0), np.float64(1.0)),
    (np.float64(1.0), 1.0),
    (np.float32(1.0), np.float64(1.0)),
    *([(np.longdouble(1.0), np.float64(1.0))] if np.finfo("g").nmant > 52 else []),
    (np.int64(1), 1),
    (np.int64(1), np.int32(1)),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.str_("a"), np.str_("b")),
    (np.bytes_(b"a"), b"a"),
    (np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00")),
    (np.array(["a"]), np.array(["a"], dtype=object)),
    (np.array(["a"]), np.array([b"a"])),
    (np.array(["a"], "U1"), np.array(["a"], "U2")),
    (np.array([1], object), np.array([1.0], object)),
    (np.array([1], object), np.array([True], object)),
    (np.array([None]), np.array([np.nan], object)),
    (np.array([[1, 2]], object), np.array([[1], [2]], object)),
    (np.array([1], object), np.array([1])),
    (masked([0, 0]), masked([0, 1])),
    (masked([1, 0]), masked([0, 1])),
    (masked([0, 0]), np.array([1.0, 2.0])),
    (masked([0, 1]), masked([0, 1], fill=5)),
    (np.ma.masked, np.ma.array(0.0, mask=True)),
    (np.ma.masked, 0.0),
    (quantity("m"), quantity("s")),
    (quantity("m"), np.ones(2)),
    (np.zeros(2, [("a", "i4")]).view(np.recarray), np.zeros(2, [("a", "i4")])),
    (np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")])),
    (np.zeros(1, [("a", "i4")]), np.zeros(1, "i4")),
    (np.zeros(1, [("a", "i4")]), np.ones(1, [("a", "i4")])),
    (np.zeros(1, [("a", "i1"), ("b", "f8")]), np.zeros(1, ALIGNED)),
    (np.zeros(1, ALIGNED), np.array([(1, 0)], ALIGNED)),
    (np.zeros(1, [("a", "O")]), np.ones(1, [("a", "O")])),
    (np.zeros(1, "V4"), np.zeros(1, "V8")),
    (np.zeros(1, [("a", "i4")])[0], np.zeros(1, [("a", "i4")])),
    (np.dtype("f4"), np.dtype("f8")),
    (np.dtype("f8"), np.float64),
    (np.dtype("f8"), "<f8"),
    (np.dtype([("a", "f8")]), np.dtype([("b", "f8")])),
    (np.dtype((np.float64, (2,))), np.dtype("f8")),
    (np.sin, np.cos),
    (np.mean, np.sum),
    (np.random.default_rng(1), np.random.default_rng(2)),
    (np.random.RandomState(1), np.random.RandomState(2)),
    (np.zeros(BIG, "u1"), np.ones(BIG, "u1")),
    (np.zeros(BIG, "u1"), bytes(BIG)),
    (np.zeros(BIG, "u1"), np.zeros(BIG, "i1")),
    (np.zeros(BIG, "u1"), np.zeros((2, BIG // 2), "u1")),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: Any, other: Any) -> None:
    """A different dtype, shape, kind or content has a different digest."""
    assert digest(one) != digest(other)
    assert digest([one]) != digest([other])


def padded(junk: int) -> Any:
    """A structured array whose padding holds junk."""
    found = np.frombuffer(bytes([junk]) * 2 * ALIGNED.itemsize, ALIGNED).copy()
    found["a"], found["b"] = 1, 2.0
    return found


def extended(junk: int) -> Any:
    """Long doubles whose padding holds junk."""
    found = np.full(3, np.longdouble(1) / 3)
    if np.finfo("g").nmant == 63 and sys.byteorder == "little":
        found.view("u1").reshape(3, -1)[:, 10:] = junk
    return found


EQUAL: list[tuple[Any, Any]] = [
    (GRID, np.asfortranarray(GRID)),
    (GRID, GRID.copy()),
    (GRID, GRID.transpose().copy().transpose()),
    (GRID[:, ::2], GRID[:, ::2].copy()),
    (GRID[::-1], GRID[::-1].copy()),
    (np.broadcast_to(1.0, (3, 3)), np.ones((3, 3))),
    (np.ones(3), np.frombuffer(np.ones(3).tobytes())),
    (padded(0), padded(255)),
    (padded(1)[0], padded(2)[0]),
    (padded(1)[::-1], padded(2)[::-1].copy()),
    (extended(0), extended(255)),
    (extended(1)[0], extended(2)[0]),
    (extended(1) * (1 + 1j), extended(2) * (1 + 1j)),
    (np.zeros(2, [("a", "g"), ("b", "i1")]), np.zeros(2, [("a", "g"), ("b", "i1")])),
    (masked(np.ma.nomask), masked([0, 0])),
    (masked([0, 1]), masked([0, 1]).copy()),
    (np.array([[1, 2], [3, 4]], object), np.asfortranarray(np.array([[1, 2], [3, 4]], object))),
    (np.asfortranarray(np.ones((300, 300))), np.ones((300, 300))),
    (np.dtype("f8"), np.dtype("float64")),
    (np.random.default_rng(1), np.random.default_rng(1)),
    (np.float64("nan"), np.float64("nan")),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal(one: Any, other: Any) -> None:
    """The layout in memory, padding and unused bytes mean nothing."""
    assert digest(one) == digest(other)


COPIED = [value for pair in DIFFERENT for value in pair if not isinstance(value, Quantity)]
# On macOS on ARM, pickling makes double precision of them, and no others are to be made.
COPIED += [np.longdouble(1.0), np.clongdouble(1.0), np.ones(3, "g"), np.ones(3, [("a", "G")])]


@pytest.mark.parametrize("value", COPIED)
def test_copies(value: Any) -> None:
    """A copy has the digest of the original, and so has what pickle makes of it.

    (Older protocols of pickle turn foreign byte orders into the native one, and before numpy 2 a
    copy of a generator has forgotten its seed.)
    """
    if FORGETS_SEEDS and isinstance(value, np.random.Generator):
        pytest.skip("numpy 1 copies the state only")
    assert digest(copy.deepcopy(value)) == digest(value)
    assert digest(pickle.loads(pickle.dumps(value, protocol=5))) == digest(value)


dtypes = (
    hnp.scalar_dtypes()
    | hnp.unicode_string_dtypes(max_len=4)
    | hnp.byte_string_dtypes(max_len=4)
    | hnp.array_dtypes(hnp.scalar_dtypes())
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))


@given(arrays)
def test_layouts(array: Any) -> None:
    """C order, Fortran order and strided views of one array have one digest."""
    expected = digest(array)
    assert digest(np.asfortranarray(array).reshape(array.shape)) == expected
    assert digest(array.copy()) == expected
    strided = np.repeat(array[..., None], 2, axis=-1)[..., 0]
    assert digest(strided) == expected


@given(arrays, arrays)
def test_injective(one: Any, other: Any) -> None:
    """Arrays have one digest only if dtype, shape and bytes are the same."""
    if digest(one) == digest(other):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype.kind not in "fcV":
            assert one.tobytes() == other.tobytes()
    else:
        same = one.dtype == other.dtype and one.shape == other.shape
        assert not (same and one.tobytes() == other.tobytes())


@pytest.mark.parametrize("shape", [(3, 2_000_000), (2_000_000, 3), (6_000_000,)])
def test_large_views(shape: Any) -> None:
    """Large arrays that are not contiguous are hashed piece by piece."""
    array = np.arange(12_000_000, dtype="i4").reshape(*shape, 2)[..., 0]
    assert digest(array) == digest(np.ascontiguousarray(array))


def test_user_dtypes() -> None:
    """Subarrays, and structures in structures."""
    inner = np.dtype([("x", "<i2", (2, 2)), ("y", "g")])
    outer = np.dtype([("a", inner), ("b", "O")])
    one = np.zeros(3, outer)
    other = one.copy()
    assert digest(one) == digest(other)
    other["a"]["x"][1, 0, 1] = 1
    assert digest(one) != digest(other)


class Scale(np.float64):
    unit: str


def test_scalar_subclasses() -> None:
    """The class counts, and every attribute."""
    one, other = Scale(1), Scale(1)
    assert digest(one) == digest(other) != digest(np.float64(1))
    one.unit, other.unit = "eV", "K"
    assert len({digest(one), digest(other), digest(Scale(1))}) == 3


class SlottedArray(np.ndarray):
    __slots__ = ("unit",)


class SlottedMasked(np.ma.MaskedArray):  # type: ignore[type-arg]
    __slots__ = ("unit",)


class Mapped(np.memmap):
    pass


def test_slots() -> None:
    """An attribute counts wherever it is kept."""
    for cls in (SlottedArray, SlottedMasked):
        found = set()
        for unit in ("eV", "K", None):
            array = np.ma.ones(2).view(cls) if cls is SlottedMasked else np.ones(2).view(cls)
            if unit:
                array.unit = unit
            found.add(digest(array))
        assert len(found) == 3


def test_attributes_of_memory_maps(tmp_path: Any) -> None:
    np.ones(5).tofile(tmp_path / "a")
    found = set()
    for unit in ("eV", "K"):
        array = Mapped(tmp_path / "a", dtype="f8", mode="r")
        array.unit = unit  # type: ignore[attr-defined]
        found.add(digest(array))
    assert len(found) == 2


class TestRecords:
    """Records are structures whose fields are attributes, too: of another type."""

    PLAIN = np.array([(1, 2.0)], dtype=[("a", "<i8"), ("b", "<f8")])

    def test_differ(self) -> None:
        records = self.PLAIN.view(np.recarray)
        assert digest(self.PLAIN[0]) != digest(records[0])
        assert digest(self.PLAIN.dtype) != digest(records.dtype)
        assert digest(self.PLAIN) != digest(records.view(np.ndarray)) != digest(records)
        assert digest([np.void]) != digest([np.record])

    def test_copies(self) -> None:
        records = self.PLAIN.view(np.recarray)
        for value in (records, records[0], records.dtype, records.view(np.ndarray)):
            assert digest(copy.deepcopy(value)) == digest(value)
            assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


class TestMasks:
    """What belongs to a masked array."""

    def test_hard_masks(self) -> None:
        """A hard mask says how to write to an array; like "read-only", it is no part of the value.

        Pickling does not keep it, so what comes out of a cache has the digest that it went in by.
        """
        hard = np.ma.array([1.0, 2.0], mask=[0, 1], hard_mask=True)
        back = pickle.loads(pickle.dumps(hard))
        assert (hard.hardmask, back.hardmask) == (True, False)
        assert digest(hard) == digest(back) == digest(masked([0, 1]))

    def test_what_is_masked(self) -> None:
        """The data may be of a class with operators of its own."""
        one, other = np.ma.array(np.ones(2).view(SlottedArray)), np.ma.array(np.ones(2))
        assert type(one.data) is not type(other.data)
        assert digest(one) != digest(other)

    def test_notes(self) -> None:
        one, other = masked([0, 1]), masked([0, 1])
        one._optinfo["unit"], other._optinfo["unit"] = "eV", "K"
        assert len({digest(one), digest(other), digest(masked([0, 1]))}) == 3


def reseeded(seed: int) -> Any:
    """A generator in the state of `default_rng(1)` that spawns what another seed would."""
    found = np.random.default_rng(seed)
    found.bit_generator.state = np.random.default_rng(1).bit_generator.state
    return found


def spawned(count: int, seed: Any = 1) -> Any:
    """A generator that has spawned so many others."""
    found = np.random.default_rng(seed)
    found.bit_generator.seed_seq.spawn(count)  # type: ignore[attr-defined]
    return found


class Labelled(np.random.Generator):
    label: str


class LabelledState(np.random.RandomState):
    label: str


class TestGenerators:
    """A generator is its state, and what it would spawn."""

    def test_spawning(self) -> None:
        """Numbers and children are drawn from the same generator, but not from the same place."""
        found = {digest(rng) for rng in (spawned(0), spawned(1), spawned(2), reseeded(2))}
        assert len(found) == 4
        assert digest(spawned(1)) == digest(spawned(1))
        assert digest(reseeded(1)) == digest(np.random.default_rng(1))

    def test_drawing(self) -> None:
        one, other = np.random.default_rng(1), np.random.default_rng(1)
        before = digest(one)
        assert one.random() == other.random()
        assert digest(one) == digest(other) != before

    @pytest.mark.parametrize("seed", [0, 2**200, [1, 2], np.int64(3), np.random.SeedSequence(4)])
    def test_seeds(self, seed: Any) -> None:
        rng = np.random.default_rng(seed)
        before = digest(rng)
        assert FORGETS_SEEDS or digest(copy.deepcopy(rng)) == before
        rng.spawn(1)
        assert digest(rng) != before
        assert FORGETS_SEEDS or digest(copy.deepcopy(rng)) == digest(rng)

    @pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
    def test_bit_generators(self, kind: str) -> None:
        make = getattr(np.random, kind)
        assert digest(make(1)) == digest(make(1)) != digest(make(2))
        assert FORGETS_SEEDS or digest(pickle.loads(pickle.dumps(make(1)))) == digest(make(1))
        assert digest(np.random.Generator(make(1))) != digest(np.random.Generator(make(2)))
        parent = make(1)
        parent.spawn(1)
        assert digest(parent) != digest(make(1))
        assert digest(np.random.Generator(parent)) != digest(np.random.Generator(make(1)))

    def test_keyed(self) -> None:
        """Philox may have a key instead of a seed."""
        one, same, other = (np.random.Philox(key=key) for key in (1, 1, 2))
        assert digest(one) == digest(same) != digest(other)
        assert digest(np.random.Generator(one)) != digest(np.random.Generator(other))

    def test_seed_sequences(self) -> None:
        one, other = np.random.SeedSequence(1), np.random.SeedSequence(1)
        assert digest(one) == digest(other)
        children = other.spawn(2)
        assert len(set(map(digest, (one, other, *children)))) == 4

    @pytest.mark.parametrize(
        "make", [lambda: Labelled(np.random.PCG64(1)), lambda: LabelledState(1)]
    )
    def test_subclasses(self, make: Any) -> None:
        """The class counts, and every attribute."""
        plain, one, other = make(), make(), make()
        one.label, other.label = "a", "b"
        named = make()
        named.state = "a"  # as numpy calls a part of what it pickles
        base = np.random.default_rng(1) if type(plain) is Labelled else np.random.RandomState(1)
        assert len(set(map(digest, (plain, one, other, named, base)))) == 5
        assert digest(make()) == digest(plain)


def test_memory_maps(tmp_path: Any) -> None:
    """Where a memory map lives does not matter; that it is one does."""
    np.save(tmp_path / "a.npy", np.ones(5))
    np.save(tmp_path / "b.npy", np.ones(5))
    one = np.load(tmp_path / "a.npy", mmap_mode="r")
    other = np.load(tmp_path / "b.npy", mmap_mode="c")
    assert digest(one) == digest(other) != digest(np.ones(5))


def test_is_not_changed() -> None:
    """Digesting leaves the array as it was, read-only ones included."""
    array = masked([0, 1])
    array.flags.writeable = False
    before = dict(vars(array))
    digest(array)
    assert repr(dict(vars(array))) == repr(before)


def test_views_are_released() -> None:
    """A buffer can be resized after it was digested."""
    data = bytearray(100_000)
    digest(data)
    digest([memoryview(data)[::2]])
    data.append(1)
    array = np.zeros(100_000)
    digest(array)
    array.resize(5, refcheck=False)


def test_path_into_objects() -> None:
    """What cannot be digested in an array of objects is named by its index."""
    array = np.array([[1, 2], [iter([]), 3]], dtype=object)
    with pytest.raises(Indigestible, match=r"object\['k'\]\[1\]\[0\]: .*list_iterator"):
        digest({"k": array})


def test_path_into_fields() -> None:
    array = np.zeros(1, [("a", "O"), ("b", "i4")])
    array["a"][0] = iter([])
    with pytest.raises(Indigestible, match=r"object\['a'\]\[0\]: "):
        digest(array)


def shift(x: Any) -> Any:
    return x + 1


class TestUfuncs:
    """Functions over arrays, of numpy, of other packages, and made on the fly."""

    def test_of_other_packages(self) -> None:
        """A ufunc knows no module; it counts by the one that offers it, not by importers."""
        special = pytest.importorskip("scipy.special")
        names = [name for name in dir(special) if isinstance(getattr(special, name), np.ufunc)]
        found = {digest(getattr(special, name)) for name in names}
        assert len(found) == len({getattr(special, name).__name__ for name in names})
        script = "import {0}\nfrom fleche.digest import digest\nprint(digest({0}.erf))"
        for first in ("scipy.special", "scipy.stats, scipy.special"):
            text = script.format("scipy.special").replace("scipy.special", first, 1)
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
            assert done.stdout.strip() == digest(special.erf), done.stderr

    def test_made_from_functions(self) -> None:
        """What `numpy.frompyfunc` makes counts as the function inside."""
        made = np.frompyfunc(shift, 1, 1)
        assert digest(made) == digest(np.frompyfunc(shift, 1, 1))
        others = [np.frompyfunc(abs, 1, 1), np.frompyfunc(max, 2, 1), np.frompyfunc(max, 2, 2)]
        others.append(np.frompyfunc(max, 2, 1, identity=0))
        assert len({digest(value) for value in (made, *others, shift)}) == 6

    def test_vectorize(self) -> None:
        """An object of `numpy.vectorize` counts as what it was made from, before and after use."""
        made = np.vectorize(shift)
        before = digest(made)
        assert made([1, 2]).tolist() == [2, 3]
        assert digest(made) == before == digest(np.vectorize(shift))
        others = [np.vectorize(abs), np.vectorize(shift, otypes=[float]), np.vectorize(shift, "f")]
        others += [np.vectorize(shift, excluded={0}), np.vectorize(shift, signature="(n)->(n)")]
        assert len({before, *map(digest, others)}) == 6
        assert digest(np.vectorize(shift, otypes="d")) == digest(others[1])

    def test_in_plain_data(self) -> None:
        assert digest([np.sin, {"f": np.cos}]) != digest([np.cos, {"f": np.sin}])


class TestMetadata:
    """The metadata of a dtype may be what it means."""

    @staticmethod
    def dtype(**metadata: Any) -> Any:
        return np.dtype("i4", metadata=metadata) if metadata else np.dtype("i4")

    def test_counts(self) -> None:
        kinds = [self.dtype(), self.dtype(unit="m"), self.dtype(unit="s")]
        assert len(set(map(digest, kinds))) == 3
        assert digest(self.dtype(unit="m")) == digest(kinds[1])
        assert len({digest(np.zeros(2, kind)) for kind in kinds}) == 3
        assert len({digest(np.zeros(2, [("a", kind)])) for kind in kinds}) == 3

    def test_of_nothing(self) -> None:
        """Pickled by numpy before 2.3, a type of dates comes back with empty ones."""
        empty = np.dtype("i4", metadata={})
        assert digest(empty) == digest(np.dtype("i4"))
        assert digest(np.zeros(2, empty)) == digest(np.zeros(2, "i4"))
        assert digest(np.zeros(2, [("a", empty)])) == digest(np.zeros(2, [("a", "i4")]))

    def test_h5py(self) -> None:
        h5py = pytest.importorskip("h5py")
        kinds = [h5py.enum_dtype({name: 1}) for name in ("RED", "BLUE")]
        kinds += [h5py.string_dtype(), h5py.vlen_dtype("i4"), h5py.ref_dtype]
        assert len(set(map(digest, kinds))) == 5


class TestNumbers:
    """Single numbers of numpy, which often stand in plain data."""

    KINDS = ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")

    def test_types(self) -> None:
        """Each type is another one, and none is Python's, or an array."""
        values = [np.dtype(kind).type(1) for kind in self.KINDS]
        found = [digest(value) for value in (*values, *map(np.asarray, values), 1, 1.0, 1j, True)]
        assert len(set(found)) == len(found)

    @given(st.floats(width=32), st.floats(width=32))
    def test_values(self, one: float, other: float) -> None:
        same = np.float32(one).tobytes() == np.float32(other).tobytes()
        assert (digest(np.float32(one)) == digest(np.float32(other))) == same
        assert (digest([np.float32(one)]) == digest([np.float32(other)])) == same

    def test_first_of_a_process(self) -> None:
        """It makes no difference which object of numpy is met first."""
        script = (
            "import sys, numpy as np\nfrom fleche.digest import digest\n"
            "values = [np.float64(1), [np.int32(2)], np.zeros(2), np.sin]\n"
            "turn = int(sys.argv[1])\n"
            "found = {i: digest(values[i]) for i in [*range(turn, 4), *range(turn)]}\n"
            "print([found[i] for i in range(4)])"
        )
        command = [sys.executable, "-c", script]
        found = {subprocess.check_output([*command, str(turn)], text=True) for turn in range(4)}
        assert len(found) == 1


def test_variable_strings() -> None:
    """Arrays of variable-width strings count as what they hold."""
    strings = getattr(np.dtypes, "StringDType", None)
    if strings is None:
        pytest.skip("numpy 1")
    one = np.array(["a", "x" * 100], dtype=strings())
    assert digest(one) == digest(one.copy())
    assert digest(one) != digest(np.array(["b", "x" * 100], dtype=strings()))
    assert digest(one) != digest(np.array(["a", "x" * 100], dtype=strings(na_object=None)))


class TestBuffers:
    """Large buffers are hashed once, for the digest and for the parcel."""

    def test_found(self) -> None:
        array = np.random.default_rng(0).random(20_000)
        small = np.zeros(10)
        found, buffers = digest_with_buffers({"a": array, "b": [small], "c": array[:10_000]})
        assert found == digest({"a": array, "b": [small], "c": array[:10_000]})
        assert len(buffers) == 2
        assert buffers.find(memoryview(array)) == blake3(array.tobytes()).hexdigest()
        with pickle.PickleBuffer(array).raw() as raw:
            assert buffers.find(raw) == buffer_digest(raw)
        assert buffers.find(memoryview(array[:10_000])) == buffer_digest(memoryview(array[:10_000]))
        assert buffers.find(memoryview(array[10_000:])) is None
        assert buffers.find(memoryview(small)) is None
        assert buffers.find(memoryview(array.copy())) is None

    def test_other_layouts_are_not_noted(self) -> None:
        """Only a buffer that was hashed as it lies in memory can be used again."""
        array = np.asfortranarray(np.random.default_rng(0).random((300, 300)))
        _, buffers = digest_with_buffers([array, array[::2]])
        assert len(buffers) == 0

    def test_temporaries_stay_alive(self) -> None:
        """No other buffer can take the place of one that is remembered."""

        class Maker:
            def __digest__(self) -> Any:
                return np.arange(20_000)

        _, buffers = digest_with_buffers([Maker(), Maker()])
        assert len(buffers) == 2
        fresh = np.zeros(20_000)
        assert buffers.find(memoryview(fresh)) is None

    @given(st.integers(BIG - 3, BIG + 3))
    def test_around_the_limit(self, length: int) -> None:
        """The same bytes have the same digest in one piece and in many."""
        array = np.arange(2 * length, dtype="u1")[::2]
        assert digest(array) == digest(array.copy())


@pytest.mark.parametrize("kind", ["M8[D]", "m8[s]"])
def test_byte_order_of_times(kind: str) -> None:
    """Times are equal in either byte order: pickling does not keep theirs."""
    times = np.array([1, 2, 3], dtype="<i8").view("<" + kind)
    assert digest(times) == digest(times.astype(">" + kind))
    assert digest(times[0]) == digest(times.astype(">" + kind)[0])
