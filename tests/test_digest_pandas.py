"""Frames, series, indexes and scalars of pandas."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import sys
import types
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.digest import digest
from fleche.errors import Indigestible
from fleche.parcel import pack, unpack

pd = pytest.importorskip("pandas")

FRAME = pd.DataFrame(
    {
        "a": [1, 2],
        "b": [1.0, np.nan],
        "c": ["x", None],
        "d": pd.Categorical(["p", "q"]),
        "e": pd.date_range("2020", periods=2, tz="Europe/Berlin"),
        "f": pd.array([1, None], dtype="Int64"),
        "g": pd.period_range("2020", periods=2, freq="D"),
        "h": pd.interval_range(0, 2),
        "i": pd.array(["x", None], dtype="string"),
        "j": pd.arrays.SparseArray([0, 1]),
        "k": pd.to_timedelta([1, 2], unit="s"),
        "l": pd.to_datetime(["2020", "2021"]),
        "m": pd.array([True, None], dtype="boolean"),
        "n": [[1], {"a": 2}],
    }
)
PAIR = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
LEVELS = pd.MultiIndex.from_product([[1, 2], ["x", "y"]], names=["n", "s"])
SPARSE = pd.arrays.SparseArray([0, 1])
MANY = pd.MultiIndex.from_product([range(300), ["x", "y"]])


class Table(pd.DataFrame):
    _metadata = ["unit"]  # noqa: RUF012 - as pandas wants it

    @property
    def _constructor(self) -> Any:
        return Table


def table(unit: str) -> Any:
    found = Table({"a": [1]})
    found.unit = unit
    return found


def changed(row: Any, column: str, value: Any) -> Any:
    found = FRAME.copy()
    found.loc[row, column] = value
    return found


def with_attrs(**attrs: Any) -> Any:
    found = PAIR.copy()
    found.attrs.update(attrs)
    return found


def with_freq(freq: str | None) -> Any:
    return pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"], freq=freq)


def reordered(index: Any) -> Any:
    """The same labels, each level of which is in the other order, as `pd.concat` leaves it."""
    levels = [level[::-1] for level in index.levels]
    codes = [len(level) - 1 - code for level, code in zip(index.levels, index.codes, strict=True)]
    return pd.MultiIndex(levels, codes, names=index.names)


def storing_a_zero() -> Any:
    found = SPARSE.copy()
    found.sp_values[:] = 0
    return found


DIFFERENT: list[tuple[Any, Any]] = [
    (PAIR, PAIR.to_dict()),
    (PAIR, PAIR.to_numpy()),
    (PAIR, PAIR[["b", "a"]]),
    (PAIR, PAIR.rename(columns={"a": "c"})),
    (PAIR, PAIR.astype({"a": float})),
    (PAIR, PAIR.set_index("a")),
    (PAIR, PAIR.set_index(pd.Index([5, 6]))),
    (PAIR, PAIR.rename_axis("rows")),
    (PAIR, PAIR.rename_axis("columns", axis=1)),
    (PAIR, PAIR.iloc[::-1]),
    (PAIR, with_attrs(unit="m")),
    (with_attrs(unit="m"), with_attrs(unit="s")),
    (PAIR, PAIR.set_flags(allows_duplicate_labels=False)),
    (pd.DataFrame(), pd.DataFrame(index=[0])),
    (pd.DataFrame(), pd.DataFrame(columns=["a"])),
    (table("m"), table("s")),
    (table("m"), pd.DataFrame({"a": [1]})),
    *((FRAME, FRAME.drop(columns=[column])) for column in FRAME),
    (FRAME, changed(0, "a", 5)),
    (FRAME, changed(1, "b", 5.0)),
    (FRAME, changed(0, "c", "y")),
    (FRAME, changed(0, "d", "q")),
    (FRAME, changed(0, "e", pd.Timestamp("2022", tz="Europe/Berlin"))),
    (FRAME, changed(1, "f", 0)),
    (FRAME, changed(1, "i", "")),
    (FRAME, changed(1, "m", False)),
    (FRAME["a"], FRAME["a"].rename("z")),
    (FRAME["a"], FRAME[["a"]]),
    (FRAME["a"], FRAME["a"].to_numpy()),
    (FRAME["a"], FRAME["a"].astype("Int64")),
    (FRAME["a"], FRAME["a"].astype("int32")),
    (FRAME["c"].astype("category"), FRAME["c"]),
    (FRAME["c"].astype(object), FRAME["c"].astype("string")),
    (FRAME["e"], FRAME["e"].dt.tz_convert("UTC")),
    (FRAME["e"], FRAME["e"].dt.tz_localize(None)),
    (pd.Categorical(["a"]), pd.Categorical(["a"], categories=["a", "b"])),
    (pd.Categorical(["a"]), pd.Categorical(["a"], ordered=True)),
    (pd.Categorical(["a", "b"]), pd.Categorical(["a", "b"], categories=["b", "a"])),
    (pd.Categorical(["a", None]), pd.Categorical(["a", "a"])),
    (pd.array([1, None], dtype="Int64"), pd.array([1, 0], dtype="Int64")),
    (pd.array([1, None], dtype="Int64"), pd.array([1, None], dtype="Int32")),
    (pd.array([1.0, None], dtype="Float64"), pd.array([1.0, 0.0], dtype="Float64")),
    (pd.array(["a"], dtype="string"), np.array(["a"], dtype=object)),
    (pd.arrays.SparseArray([0, 1]), pd.arrays.SparseArray([0, 1], fill_value=1)),
    (SPARSE[[0, 0]], storing_a_zero()),
    (SPARSE, pd.arrays.SparseArray([0, 1], kind="block")),
    (pd.RangeIndex(3), pd.Index([0, 1, 2])),
    (pd.RangeIndex(3), pd.RangeIndex(4)),
    (pd.Index([1, 2]), pd.Index([1, 2], name="x")),
    (pd.Index([1, 2]), pd.Index([1.0, 2.0])),
    (pd.Index(["a"]), pd.CategoricalIndex(["a"])),
    (with_freq(None), with_freq("D")),
    (LEVELS, LEVELS.set_names(["a", "b"])),
    (LEVELS, LEVELS[::-1]),
    (LEVELS, LEVELS.swaplevel()),
    (LEVELS, pd.Index(list(LEVELS), tupleize_cols=False)),
    (LEVELS, reordered(LEVELS)),
    (LEVELS, LEVELS[[0, 1, 2, 2]]),
    (pd.Series(range(4), LEVELS), pd.Series(range(4), reordered(LEVELS))),
    (pd.MultiIndex.from_arrays([["a", None]]), pd.MultiIndex.from_arrays([["a", "a"]])),
    (pd.MultiIndex.from_arrays([with_freq("D")]), pd.MultiIndex.from_arrays([with_freq(None)])),
    (pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC")),
    (pd.Timestamp("2020"), dt.datetime(2020, 1, 1)),
    (pd.Timestamp("2020"), np.datetime64("2020-01-01")),
    (pd.Timestamp("2020", tz="UTC"), pd.Timestamp("2020", tz="Europe/London")),
    (pd.Timestamp(0), pd.Timestamp(1)),
    (pd.Timedelta(1), pd.Timedelta(2)),
    (pd.Timedelta(days=1), dt.timedelta(days=1)),
    (pd.NaT, pd.NA),
    (pd.NaT, None),
    (pd.NA, float("nan")),
    (pd.Period("2020", "D"), pd.Period("2020", "h")),
    (pd.Interval(0, 1), pd.Interval(0, 1, closed="both")),
    (pd.Interval(0, 1), pd.Interval(0, 2)),
    (pd.CategoricalDtype(["a"]), pd.CategoricalDtype(["a"], ordered=True)),
    (pd.DatetimeTZDtype(tz="UTC"), pd.DatetimeTZDtype(tz="Europe/Berlin")),
    (pd.Int64Dtype(), pd.Int32Dtype()),
    (pd.offsets.Day(1), pd.offsets.Day(2)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: Any, other: Any) -> None:
    """Data, labels, names, dtypes, attributes and the class itself count."""
    assert digest(one) != digest(other)
    assert digest([one]) != digest([other])


def blocks(consolidated: bool) -> Any:
    """The same frame, in one block or in a block for each column."""
    if consolidated:
        return pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=list("abc"))
    found = pd.DataFrame({"a": [0.0, 3.0]})
    found["b"] = [1.0, 4.0]
    found["c"] = [2.0, 5.0]
    return found


EQUAL: list[tuple[Any, Any]] = [
    (FRAME, FRAME.copy()),
    (FRAME, FRAME.iloc[:]),
    (FRAME, pd.concat([FRAME.iloc[:, :3], FRAME.iloc[:, 3:]], axis=1)),
    (blocks(True), blocks(False)),
    (LEVELS[2:], pd.MultiIndex.from_tuples([(2, "x"), (2, "y")], names=["n", "s"])),
    (LEVELS[:0], LEVELS[2:][:0]),
    (MANY[:4], MANY[:4].remove_unused_levels()),
    (
        pd.MultiIndex.from_arrays([["a", None]]),
        pd.MultiIndex([["b", "a"]], [[1, -1]], names=[None]),
    ),
    (PAIR.iloc[::2], pd.DataFrame({"a": [1], "b": [3]}, index=pd.RangeIndex(0, 2, 2))),
    (table("m"), table("m").copy()),
    (
        pd.Timestamp("2020", tz="Europe/Berlin"),
        pd.Timestamp("2020", tz=zoneinfo.ZoneInfo("Europe/Berlin")),
    ),
    (pd.array([1, None], dtype="Int64"), pd.array([1, 5], dtype="Int64")[[0, -1]].copy()),
]
EQUAL[-1][1][1] = None


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal(one: Any, other: Any) -> None:
    """Blocks, unused levels and what lies under a missing value mean nothing."""
    assert digest(one) == digest(other)


@pytest.mark.parametrize("value", [value for pair in DIFFERENT for value in pair])
def test_copies(value: Any) -> None:
    """A copy has the digest of the original, and so has what pickle makes of it."""
    assert digest(copy.deepcopy(value)) == digest(value)
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


@given(st.lists(st.tuples(st.integers(-9, 9), st.text(max_size=3) | st.none()), max_size=6))
def test_rows(rows: list[tuple[int, str | None]]) -> None:
    """A frame is its data, however it came about."""
    frame = pd.DataFrame(rows, columns=["n", "s"])
    assert digest(frame) == digest(frame.copy())
    bigger = pd.concat([frame, frame], ignore_index=True)
    part = bigger.iloc[: len(frame)]
    part.index = frame.index
    if len(frame):
        assert digest(part) == digest(frame)


def test_path_to_a_column() -> None:
    frame = pd.DataFrame({"a": [1], "b": [iter([])]})
    with pytest.raises(Indigestible, match=r"object\['b'\]\[0\]: .*list_iterator"):
        digest(frame)


def test_is_not_changed() -> None:
    """Digesting a frame leaves no trace in it."""
    frame = FRAME.copy()
    before = set(vars(frame))
    digest(frame)
    assert set(vars(frame)) == before
    assert frame.equals(FRAME)


def test_accessors_leave_no_trace() -> None:
    """What pandas keeps in a series for its own use is no part of it."""
    series = FRAME["e"].copy()
    before = digest(series)
    assert series.dt.year[0] == 2020
    assert digest(series) == before


def test_attributes_count() -> None:
    """What a program has hung on a frame is part of it, be it private or not."""
    frame = PAIR.copy()
    with pytest.warns(UserWarning, match="attribute"):
        frame.note = [1]
    other = PAIR.copy()
    other._note = 1
    assert len({digest(frame), digest(other), digest(PAIR)}) == 3


class Measured(pd.DataFrame):
    """A frame with an attribute that has a default."""

    unit = "eV"

    @property
    def _constructor(self) -> Any:
        return Measured


class Slotted(pd.Series):
    __slots__ = ("unit",)


class Labels(pd.Index):
    pass


def labels() -> Any:
    found = object.__new__(Labels)  # the constructor makes a plain one
    vars(found).update(vars(pd.Index([1, 2])))
    return found


@pytest.mark.parametrize("name", ["unit", "_unit", "other"])
@pytest.mark.parametrize("make", [lambda: Measured({"a": [1]}), labels])
def test_attributes_of_subclasses(make: Any, name: str) -> None:
    """An attribute counts under any name, with or without a default in the class."""
    plain, one, other = make(), make(), make()
    object.__setattr__(one, name, "K")
    object.__setattr__(other, name, "Pa")
    assert len({digest(plain), digest(one), digest(other)}) == 3
    assert digest(make()) == digest(plain)


def test_slots() -> None:
    one, other = Slotted([1]), Slotted([1])
    object.__setattr__(one, "unit", "eV")
    object.__setattr__(other, "unit", "K")
    assert digest(one) != digest(other)


def test_attributes_of_indexes() -> None:
    index = pd.Index([1, 2])
    before = digest(index)
    index.unit = "eV"
    assert digest(index) != before


class Span(pd.Timedelta):
    unit_of: str


class Month(pd.Period):
    unit_of: str


class Range(pd.Interval):
    unit_of: str


class Fortnight(pd.offsets.Week):
    unit_of: str


class Moment(pd.Timestamp):
    pass


SCALARS: list[tuple[Any, Callable[[Any], Any]]] = [
    (pd.Timestamp, lambda cls: cls("2020", tz="UTC")),
    (pd.Timedelta, lambda cls: cls("1h")),
    (pd.Period, lambda cls: cls("2020", "D")),
    (Span, lambda cls: cls("1h 3ns")),
    (Span, lambda cls: cls(np.timedelta64(3, "s"))),
    (Month, lambda cls: cls("2020", "D")),
    (Range, lambda cls: cls(0, 1)),
    (Fortnight, lambda cls: cls(2, weekday=1)),
]


@pytest.mark.parametrize(("cls", "make"), SCALARS)
def test_what_a_scalar_has_beyond(cls: Any, make: Any) -> None:
    """The class counts, and every attribute; neither is lost, and looking at it adds none."""
    plain, one, other = make(cls), make(cls), make(cls)
    one.unit_of, other.unit_of = "a", "b"
    found = {digest(plain), digest(one), digest(other)}
    assert len(found) == 3
    if cls.__module__ == __name__:
        assert digest(make(cls.__mro__[1])) not in found
    for value in (plain, one):
        before = digest(value)
        for name in ("freq", "seconds", "components", "length", "freqstr", "hour"):
            assert repr(getattr(value, name, None))
        back = unpack(pack([value]))[0]
        assert type(back) is cls
        assert getattr(back, "unit_of", None) == getattr(value, "unit_of", None)
        assert (digest(value), digest(back), back) == (before, before, value)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "UTC"])
@pytest.mark.parametrize("wrap", [list, lambda items: pd.Series(items, dtype=object)])
@pytest.mark.parametrize("month", [6, 10])
def test_the_second_of_two_equal_hours(wrap: Any, zone: Any, month: int) -> None:
    """It comes back as that, also where there is only one."""
    first, second = (
        pd.Timestamp(dt.datetime(2020, month, 25, 2, fold=fold), tz=zone) for fold in (0, 1)
    )
    assert digest(second) != digest(first)
    back = unpack(pack(wrap([second])))[0]
    assert (back.fold, back, digest(back)) == (1, second, digest(second))


def test_a_scalar_that_cannot_be_made_again() -> None:
    """It is not stored as one of the class of its base."""
    moment = pd.Timestamp.__base__.__new__(Moment, 2020, 1, 1)
    assert type(moment) is Moment
    with pytest.raises(pickle.PicklingError, match="Moment"):
        pack(moment)


def lab(hours: int) -> dt.timezone:
    """The zone of a laboratory, which calls it as every other does."""
    return dt.timezone(dt.timedelta(hours=hours), "LAB")


class TestZones:
    """A zone is known by its name only where the name says all."""

    NOON = pd.Timestamp("2020-01-01T12", tz="UTC")

    def test_timestamps(self) -> None:
        assert digest(self.NOON.tz_convert(lab(1))) == digest(self.NOON.tz_convert(lab(1)))
        assert digest(self.NOON.tz_convert(lab(1))) != digest(self.NOON.tz_convert(lab(2)))

    @pytest.mark.parametrize("wrap", [pd.Series, pd.DatetimeIndex, pd.array])
    def test_arrays(self, wrap: Any) -> None:
        def build(hours: int) -> Any:
            return wrap([self.NOON.tz_convert(lab(hours))])

        assert digest(build(1)) == digest(build(1)) != digest(build(2))

    def test_unnamed(self) -> None:
        """A zone without a name of its own is its offset, and no name can be taken for it."""
        plain = dt.timezone(dt.timedelta(hours=1))
        named = dt.timezone(dt.timedelta(hours=2), str(plain))
        assert digest(self.NOON.tz_convert(plain)) != digest(self.NOON.tz_convert(named))
        assert digest(self.NOON.tz_convert(plain)) != digest(self.NOON.tz_convert(lab(1)))

    def test_own_zones(self) -> None:
        """A zone that a program has defined counts by what it holds, not by its text."""

        class Zone(dt.tzinfo):
            key = "Europe/Berlin"

            def __init__(self, hours: int) -> None:
                self.hours = hours

            def utcoffset(self, _: Any) -> Any:
                return dt.timedelta(hours=self.hours)

            def dst(self, _: Any) -> Any:
                return dt.timedelta(0)

            def __str__(self) -> str:
                return "Europe/Berlin"

        found = {digest(self.NOON.tz_convert(zone)) for zone in (Zone(1), Zone(2), "Europe/Berlin")}
        assert len(found) == 3

    def test_dateutil(self) -> None:
        zones = pytest.importorskip("dateutil.tz")
        local = digest(self.NOON.tz_convert(zones.tzlocal()))
        assert digest(self.NOON.tz_convert(zones.tzoffset("LAB", 3600))) != digest(
            self.NOON.tz_convert(zones.tzoffset("LAB", 7200))
        )
        assert local == digest(self.NOON.tz_convert(zones.tzlocal()))
        if (berlin := zones.gettz("Europe/Berlin")) is not None:
            assert digest(self.NOON.tz_convert(berlin)) != local


class TestFrequencies:
    """A frequency counts with all that it says."""

    @staticmethod
    def build(freq: Any) -> Any:
        return pd.date_range("2020-01-01", periods=2, freq=freq)

    def test_holidays(self) -> None:
        custom = pd.offsets.CustomBusinessDay
        one, other = self.build(custom()), self.build(custom(holidays=["2020-01-03"]))
        assert one.equals(other)
        assert one.shift(1)[-1] != other.shift(1)[-1]
        assert digest(one) != digest(other)
        assert digest(other) == digest(self.build(custom(holidays=["2020-01-03"])))
        assert digest(other) != digest(self.build(custom(holidays=["2020-01-06"])))

    def test_without_a_code(self) -> None:
        months = [pd.offsets.DateOffset(months=1, days=days) for days in (1, 2)]
        assert digest(self.build(months[0])) != digest(self.build(months[1]))

    def test_written_out(self) -> None:
        """It does not matter how a plain frequency was written."""
        assert digest(self.build("D")) == digest(self.build(pd.offsets.Day(1)))
        assert digest(self.build("2h")) != digest(self.build("3h"))


def test_using_leaves_no_trace() -> None:
    """Neither frames nor indexes show that they were looked at."""
    for make in (FRAME.copy, FRAME["c"].copy, lambda: Measured({"a": [1, 2]})):
        value = make()
        before = digest(value)
        assert value.iloc[0] is not None
        assert value.T is not None
        assert repr(value)
        if value.ndim == 1:
            assert value.str.upper() is not None
        else:
            assert value.groupby("a").size() is not None
            assert value["a"].loc[0] == 1
        assert digest(value) == before
    for index in (with_freq("D"), LEVELS.copy(), pd.Index(["a"]), pd.RangeIndex(3)):
        before = digest(index)
        assert index.is_unique
        assert index.get_loc(index[0]) == 0
        assert (index.hasnans if index.nlevels == 1 else None) in (False, None)
        if index.dtype != "int64" and index.nlevels == 1:
            assert index.map(str).str.upper() is not None
        assert digest(index) == before


class Noted(pd.DataFrame):  # type: ignore[misc, unused-ignore]
    """A frame of a class with an attribute that pandas pickles, and one that it does not know."""

    _metadata = ["unit"]  # noqa: RUF012 - pandas wants a list


@pytest.mark.filterwarnings("ignore:Pandas doesn't allow columns to be created via a new attribute")
@pytest.mark.parametrize("make", [pd.DataFrame, pd.Series, pd.Index, Noted])
def test_what_hangs_on_a_frame_comes_back(make: Any) -> None:
    """It counts, and pandas forgets it when it pickles."""
    value = make({"a": [1, 2]} if issubclass(make, pd.DataFrame) else [1, 2])
    value.unit, value.note = "eV", ["x"]
    found = unpack(pack(value))
    assert type(found) is make
    assert (found.unit, found.note) == ("eV", ["x"])
    assert digest(found) == digest(value)


def test_what_pandas_notes_for_itself_is_not_stored() -> None:
    """Some versions note in a block what they found out; a frame is plain data all the same."""
    frame = pd.DataFrame({"a": range(3), "b": ["x"] * 3})
    assert (len(frame.dtypes), frame["a"].sum()) == (2, 3)
    assert b"restore_attributes" not in pack(frame).tobytes()


STORED = ["string[python]", "string[pyarrow]", "str"]


def test_what_patsy_hangs_on_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be pickled, and statsmodels, whose results hold such frames, makes it again."""

    def refuse(_self: Any, _protocol: int) -> Any:
        raise NotImplementedError("pickling not yet supported")

    module = types.ModuleType("patsy.design_info")
    plan = type("DesignInfo", (), {"__module__": module.__name__, "__reduce_ex__": refuse})
    module.DesignInfo = plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    frame = pd.DataFrame({"a": [1.0]})
    frame.design_info = plan()
    assert digest(frame) == digest(pd.DataFrame({"a": [1.0]}))
    assert not hasattr(unpack(pack(frame)), "design_info")
    frame.unit = plan  # a class that is called so
    assert digest(frame) != digest(pd.DataFrame({"a": [1.0]}))


class TestStrings:
    """Arrays of strings, which pandas keeps as objects or in the format of Arrow."""

    @staticmethod
    def array(dtype: str, *values: Any) -> Any:
        try:
            found = pd.array(list(values), dtype=dtype)
        except (ImportError, TypeError):
            pytest.skip(f"no {dtype}")
        if not hasattr(found.dtype, "storage"):
            pytest.skip(f"{dtype} means objects")
        return found

    @pytest.mark.parametrize("dtype", STORED)
    def test_content(self, dtype: str) -> None:
        """Each string, its place, its ends, and where there is none count."""
        variants = [("a", "bc"), ("ab", "c"), ("bc", "a"), ("a", None), (None, "a"), ("", None)]
        variants += [(None, ""), (), ("a",), ("", ""), (None,), ("",), ("\xe9", "\u20ac")]
        arrays = [self.array(dtype, *values) for values in variants]
        assert len({digest(pd.Series(values)) for values in arrays}) == len(variants)
        for values, array in zip(variants, arrays, strict=True):
            assert digest(array) == digest(self.array(dtype, *values)) == digest(array.copy())
            assert digest(pickle.loads(pickle.dumps(array))) == digest(array)

    @pytest.mark.parametrize("dtype", STORED)
    def test_layout(self, dtype: str) -> None:
        """Slices and chunks mean nothing."""
        whole = self.array(dtype, "x", "a", None, "bc", "y")
        part = self.array(dtype, "a", None, "bc")
        assert digest(whole[1:4]) == digest(part) == digest(whole[[1, 2, 3]])
        assert digest(whole[::-1][1:4][::-1]) == digest(part)
        joined = pd.concat([pd.Series(part[:1]), pd.Series(part[1:])], ignore_index=True)
        assert digest(joined) == digest(pd.Series(part))
        assert digest(whole[:0]) == digest(self.array(dtype))

    def test_storage(self) -> None:
        """How strings are kept shows in the dtype, so it counts."""
        python, arrow = (self.array(dtype, "a", None) for dtype in STORED[:2])
        assert python.dtype != arrow.dtype
        assert digest(python) != digest(arrow)

    def test_large(self) -> None:
        values = [f"text {i}" for i in range(50_000)]
        arrays = [self.array("string[pyarrow]", *values) for _ in range(2)]
        assert digest(arrays[0]) == digest(arrays[1])
        arrays[1][40_000] = "other"
        assert digest(arrays[0]) != digest(arrays[1])
