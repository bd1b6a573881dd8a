"""What a digest is, which values have the same, and which have not."""

from __future__ import annotations

import array
import builtins
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import math
import pathlib
import pickle
import random
import re
import struct
import sys
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import attrs
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fleche.digest import D, Digest, _tokens, buffer_digest, call_key, digest, digest_arguments
from fleche.errors import Indigestible
from tests.helpers.sweeps import swept

FULL = "0123456789abcdef" * 4
UTC = dt.timezone.utc
MOMENT = dt.datetime(2024, 10, 27, 2, 30)


def test_cells() -> None:
    """Cells count by what they hold, and empty ones by being empty."""
    one, other, empty = types.CellType(1), types.CellType(2), types.CellType()
    assert len({digest(one), digest(other), digest(empty), digest(1)}) == 4
    assert digest(types.CellType()) == digest(empty)


class TestDigest:
    """The string that names a value."""

    def test_is_a_string(self) -> None:
        assert D(FULL) == FULL
        assert {FULL: 1}[D(FULL)] == 1
        assert f"{D(FULL)}" == str(D(FULL)) == FULL
        assert type(str(D(FULL))) is str

    def test_full_and_short(self) -> None:
        """Short prefixes are digests too, and say so."""
        assert Digest(FULL).is_full
        assert not D("ab12").is_full

    def test_repr_makes_it_again(self) -> None:
        assert repr(D("ab12")) == "D('ab12')"
        assert eval(repr(D(FULL))) == D(FULL)

    @pytest.mark.parametrize(
        "clone", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))]
    )
    def test_copies(self, clone: Any) -> None:
        found = clone(D(FULL))
        assert type(found) is Digest
        assert found == FULL

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("", "0 characters"),
            ("abc", "shortest prefix has 4"),
            (FULL + "0", "65 characters"),
            (FULL.upper(), "lowercase"),
            ("xyzw", "0-9 and a-f"),
            ("ab12\n", "0-9 and a-f"),
            ("٣٣٣٣", "0-9 and a-f"),
        ],
    )
    def test_bad_digests(self, text: str, hint: str) -> None:
        """A string that is no digest is refused, with the reason."""
        with pytest.raises(ValueError, match=hint):
            Digest(text)

    def test_only_strings(self) -> None:
        with pytest.raises(TypeError, match="int"):
            Digest(5)  # type: ignore[arg-type]

    def test_digest_of_a_digest(self) -> None:
        """A digest stands for its value, so it is its own digest."""
        assert digest(D(FULL)) == FULL
        assert digest(digest([1, 2])) == digest([1, 2])

    def test_short_digest_has_none(self) -> None:
        """A prefix means nothing without a cache."""
        with pytest.raises(TypeError, match="short digest"):
            digest(D("ab12"))
        with pytest.raises(TypeError, match=r"object\[0\].*short digest"):
            digest([D("ab12")])


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    A = "a"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Access2(enum.Flag):
    READ = 1


class Point(NamedTuple):
    x: int
    y: int


class Vector(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Data:
    x: int
    y: Any = None
    hidden: int = dataclasses.field(default=0, compare=False, repr=False)
    late: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Other:
    x: int
    y: Any = None
    hidden: int = dataclasses.field(default=0, compare=False, repr=False)
    late: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("x",)
    x: int


class BaseSlots:
    __slots__ = ("base",)


class MoreSlots(BaseSlots):
    __slots__ = ("__dict__", "more")


@attrs.define
class Atom:
    symbol: str
    charge: int = attrs.field(default=0, eq=False)


@attrs.define
class Ion:
    symbol: str
    charge: int = 0


@attrs.frozen(cache_hash=True)
class Site:
    name: str


class Bunch(dict[str, Any]):
    """What data sets of scikit-learn come as: a note in it is forgotten when it is pickled."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.__dict__["_deprecated_key_to_warnings"] = {}

    def __setstate__(self, state: Any) -> None:
        pass


class Bag:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Sack(Bag):
    pass


class MyInt(int):
    pass


class MyFloat(float):
    pass


class MyStr(str):
    __slots__ = ()


class MyBytes(bytes):
    pass


class MyComplex(complex):
    pass


class MyList(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("the content is read past what a subclass overrides")


class MyTuple(tuple[Any, ...]):  # noqa: SLOT001 - it is to have attributes
    pass


class MyDict(dict[Any, Any]):
    def items(self) -> Any:
        raise AssertionError("the content is read past what a subclass overrides")


class MySet(set[Any]):
    pass


class MyOrdered(collections.OrderedDict[Any, Any]):
    pass


class MyDeque(collections.deque[Any]):
    pass


class MyDefault(collections.defaultdict[Any, Any]):
    pass


class MyCounter(collections.Counter[Any]):
    pass


class Reduced:
    """Says by itself how to rebuild it."""

    def __init__(self, value: Any, cache: Any = None) -> None:
        self.value = value
        self.cache = cache

    def __reduce__(self) -> Any:
        return (Reduced, (self.value,))


class Stateful(Bag):
    def __getstate__(self) -> Any:
        return {"kept": self.__dict__["kept"]}


class Table:
    """Its state is what it holds, and no attributes of its own."""

    columns: Any = None

    def __init__(self, columns: Any) -> None:
        self.columns = columns

    def __getstate__(self) -> Any:
        return self.columns

    def __setstate__(self, state: Any) -> None:
        self.columns = state


class Noted(Bag):
    """Its state is its attributes, and a note."""

    def __getstate__(self) -> Any:
        return {**self.__dict__, "noted": 1}


class ReducedList(list[Any]):
    def __reduce__(self) -> Any:
        return (ReducedList, (list(self),))


def with_(obj: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(obj, name, value)
    return obj


def float_of(bits: int) -> float:
    found: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return found


def same_named_class() -> Any:
    """A class that shares its name with that of another module."""
    return types.new_class("Bag", (), {}, lambda space: space.update(__module__="somewhere"))


SHARED = [1]

DIFFERENT: list[tuple[Any, Any]] = [
    # hash() of a number is no digest
    (-1, -2),
    (-1.0, -2.0),
    (2.0**61, 1.0),
    (2**61 - 1, 0),
    (math.inf, 314159),
    (math.inf, -math.inf),
    (float("nan"), math.inf),
    (hash("a"), "a"),
    # types
    (True, 1),
    (1, 1.0),
    (1, 1 + 0j),
    (True, 1.0),
    (False, None),
    (0, None),
    (0, False),
    (0.0, -0.0),
    (0j, complex(-0.0, 0.0)),
    (0j, complex(0, -0.0)),
    ("a", b"a"),
    ("1", 1),
    ("", b""),
    ("None", None),
    (b"a", bytearray(b"a")),
    (b"a", memoryview(b"a")),
    (memoryview(b"aa"), memoryview(b"aa").cast("H")),
    (memoryview(b"aa"), memoryview(bytearray(b"aa"))),
    (memoryview(bytes(4)).cast("B", (2, 2)), memoryview(bytes(4))),
    (array.array("b", b"a"), b"a"),
    (array.array("i", [1]), array.array("f", [1])),
    (array.array("b", [1]), array.array("B", [1])),
    ("é", "e\u0301"),
    ("\ud800", "\udfff"),
    ("\ud800\udc00", "\U00010000"),
    ("\udc80", b"\x80".decode("latin-1")),
    ("a", "a\0"),
    ("x" * 70_000, b"x" * 70_000),
    ("x" * 70_000, "x" * 69_999 + "y"),
    (b"x" * 70_000, b"x" * 69_999 + b"y"),
    (b"x" * 70_000, blake3(b"x" * 70_000).digest()),
    (10**4000, 10**4000 + 1),
    (255, -1),
    (128, -128),
    (..., NotImplemented),
    (float_of(0x7FF8000000000000), float_of(0x7FF8000000000001)),
    # structure
    ([], ()),
    ([], {}),
    ({}, set()),
    (set(), frozenset()),
    ([1], (1,)),
    ([1], 1),
    ([], [[]]),
    ([[1], [2]], [[1, 2]]),
    ([[1, 2], [3]], [[1], [2, 3]]),
    (["ab", "c"], ["a", "bc"]),
    ([1, 2], [2, 1]),
    ([None], []),
    ({"a": 1}, {"a": 2}),
    ({"a": "b"}, {"b": "a"}),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    ({1: 2}, [(1, 2)]),
    # an order that a function can see
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (collections.defaultdict(int, a=1, b=2), collections.defaultdict(int, b=2, a=1)),
    (collections.Counter("aab"), collections.Counter("baa")),
    (types.MappingProxyType({"a": 1, "b": 2}), types.MappingProxyType({"b": 2, "a": 1})),
    (MyDict(a=1, b=2), MyDict(b=2, a=1)),
    (Bag(a={"a": 1, "b": 2}), Bag(a={"b": 2, "a": 1})),
    (functools.partial(dict, a=1, b=2), functools.partial(dict, b=2, a=1)),
    ({1, 2}, {1, 3}),
    ({1}, {True}),
    ({1: "a"}, {True: "a"}),
    ({1: "a"}, {1.0: "a"}),
    ({(1, 2)}, {1, 2}),
    (range(3), [0, 1, 2]),
    (range(0, 3, 2), range(0, 4, 2)),
    (slice(1), slice(0, 1)),
    (slice(1, 2), (1, 2, None)),
    (collections.deque([1]), [1]),
    (collections.deque([1]), collections.deque([1], maxlen=1)),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    (collections.defaultdict(list), collections.defaultdict(set)),
    (collections.defaultdict(list), {}),
    (collections.Counter("a"), {"a": 1}),
    (collections.Counter("a"), with_(collections.Counter("a"), unit="m")),
    (types.MappingProxyType({}), {}),
    (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    (types.SimpleNamespace(a=1), {"a": 1}),
    # the library's values
    (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    (decimal.Decimal(0), decimal.Decimal("-0")),
    (decimal.Decimal("NaN"), decimal.Decimal("sNaN")),
    (decimal.Decimal("NaN"), decimal.Decimal("NaN1")),
    (decimal.Decimal("Infinity"), decimal.Decimal(0)),
    (decimal.Decimal(1), 1),
    (fractions.Fraction(1, 2), decimal.Decimal("0.5")),
    (fractions.Fraction(1), 1),
    (uuid.UUID(int=1), uuid.UUID(int=2)),
    (uuid.UUID(int=1), 1),
    (MOMENT, MOMENT.replace(tzinfo=UTC)),
    (MOMENT, MOMENT.replace(fold=1)),
    (MOMENT.time(), MOMENT.time().replace(fold=1)),
    (MOMENT.date(), dt.datetime(2024, 10, 27)),
    (MOMENT.replace(tzinfo=UTC), MOMENT.replace(tzinfo=zoneinfo.ZoneInfo("UTC"))),
    (zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")),
    (UTC, dt.timezone(dt.timedelta(0), "GMT")),
    (dt.timedelta(1), dt.timedelta(2)),
    (dt.timedelta(seconds=1), 1.0),
    (pathlib.Path("a"), "a"),
    (pathlib.Path("a"), pathlib.PurePath("a")),
    (pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (re.compile("a"), re.compile(b"a")),
    (re.compile("a"), "a"),
    (decimal.Context(prec=5), decimal.Context(prec=6)),
    (decimal.Context(traps=[decimal.Inexact]), decimal.Context(traps=[])),
    (struct.Struct("<i"), struct.Struct(">i")),
    (struct.Struct("<i"), "<i"),
    # enumerations
    (Colour.RED, 1),
    (Colour.RED, "RED"),
    (Level.LOW, 1),
    (Level.LOW, Colour.RED),
    (Word.A, "a"),
    (Access.READ, Access.WRITE),
    (Access.READ, Access.READ | Access.WRITE),
    (Access.READ, Access2.READ),
    # objects
    (Point(1, 2), (1, 2)),
    (Point(1, 2), Vector(1, 2)),
    (Point(1, 2), Point(2, 1)),
    (Data(1), Other(1)),
    (Data(1), Data(2)),
    (Data(1), Data(1, hidden=1)),
    (Data(1), with_(Data(1), late=1)),
    (Data(1), with_(Data(1), extra=1)),
    (Data(1), {"x": 1, "y": None, "hidden": 0, "late": 0}),
    (Slotted(1), Slotted(2)),
    (with_(MoreSlots(), base=1), with_(MoreSlots(), more=1)),
    (with_(MoreSlots(), base=1), with_(MoreSlots(), base=2)),
    (with_(MoreSlots(), base=1), with_(MoreSlots(), base=1, other=1)),
    (MoreSlots(), with_(MoreSlots(), more=None)),
    (Atom("H"), Ion("H")),
    (Atom("H"), Atom("H", 1)),
    (Bag(a=1), Bag(a=2)),
    (Bag(a=1), Sack(a=1)),
    (Bag(a=1), Bag(b=1)),
    (Bag(), same_named_class()()),
    (Bag, same_named_class()),
    (Reduced(1), Reduced(2)),
    (Stateful(kept=1), Stateful(kept=2)),
    (Table({"x": 1, "y": 2}), Table({"y": 2, "x": 1})),
    (Table({}), Table(None)),
    (Table((None, {"x": 1, "y": 2})), Table((None, {"y": 2, "x": 1}))),
    (Noted(a=1, b=2), Noted(a=2, b=1)),
    (ValueError("a"), TypeError("a")),
    (ValueError("a"), ValueError("a", None)),
    (ValueError("a"), with_(ValueError("a"), code=1)),
    (MyInt(1), 1),
    (MyInt(1), MyInt(2)),
    (MyInt(1), with_(MyInt(1), unit="m")),
    (MyFloat(1), 1.0),
    (MyFloat(0.0), MyFloat(-0.0)),
    (MyStr("a"), "a"),
    (MyStr("a"), MyStr("b")),
    (MyBytes(b"a"), b"a"),
    (MyComplex(1), 1 + 0j),
    (MyList([1]), [1]),
    (MyList([1]), MyList([2])),
    (MyList([1]), with_(MyList([1]), unit="m")),
    (MyTuple([1]), (1,)),
    (MyTuple([1]), with_(MyTuple([1]), unit="m")),
    (MyDict(a=1), {"a": 1}),
    (MyDict(a=1), MyDict(a=2)),
    (MyDict(a=1), with_(MyDict(a=1), unit="m")),
    (MySet([1]), {1}),
    (MySet([1]), with_(MySet([1]), unit="m")),
    (MyOrdered(a=1, b=2), MyOrdered(b=2, a=1)),
    (MyDeque([1]), MyDeque([1], 5)),
    (MyDeque([1]), with_(MyDeque([1]), unit="m")),
    (MyDefault(list), MyDefault(dict)),
    (MyCounter("a"), MyCounter("b")),
    (ReducedList([1]), ReducedList([2])),
    # names
    (int, float),
    (int, "int"),
    (Bag, Sack),
    (math, "math"),
    (math, types),
    (math.sin, math.cos),
    (len, "len"),
    (str.upper, str.lower),
    ("a".upper, "b".upper),
    ("a".upper, "a".lower),
    ([1].append, [2].append),
    ((1).__add__, (2).__add__),
    (list[int], list[str]),
    (int | str, int | bytes),
    (typing.Optional[int], typing.Optional[str]),  # noqa: UP045 - another type than int | None
    (functools.partial(int, 1), functools.partial(int, 2)),
    (functools.partial(int, base=2), functools.partial(int, base=3)),
    (functools.partial(int), functools.partial(str)),
    (functools.partial(int), with_(functools.partial(int), note=1)),
    (Bag(a=1).__init__, Bag(a=2).__init__),
    (D(FULL), FULL),
    ([D(FULL)], [FULL]),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=lambda value: type(value).__name__)
def test_different(one: Any, other: Any) -> None:
    """A different type or a different value has a different digest, alone and inside containers."""
    assert digest(one) != digest(other)
    assert digest([one]) != digest([other])
    assert digest({"k": (one,)}) != digest({"k": (other,)})


EQUAL: list[tuple[Any, Any]] = [
    (int | None, typing.Optional[int]),  # noqa: UP045 - one type to Python 3.14
    (int | str, typing.Union[int, str]),  # noqa: UP007
    ({1, 2, "a"}, {"a", 2, 1}),
    (frozenset("abc"), frozenset("cba")),
    (types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)),
    (Bag(a=1, b=2), Bag(b=2, a=1)),
    (MySet([1, 2, 3]), MySet([3, 2, 1])),
    ([SHARED, SHARED], [[1], [1]]),
    ((SHARED, (SHARED,)), ([1], ([1],))),
    ([Bag(a=SHARED), SHARED], [Bag(a=[1]), [1]]),
    (memoryview(b"abc"), memoryview(bytearray(b"abc")).toreadonly()),
    (memoryview(b"axbxcx")[::2], memoryview(b"abc")),
    (memoryview(bytes(range(250)) * 600)[::2], memoryview((bytes(range(250)) * 600)[::2])),
    (float("nan"), math.nan),
    (pathlib.Path("a/./b"), pathlib.Path("a/b")),
    (UTC, dt.timezone(dt.timedelta(0))),
    (re.compile("a"), re.compile("a", re.UNICODE)),
    (struct.Struct("<i"), struct.Struct(b"<i")),
    (decimal.Context(flags=[decimal.Inexact]), decimal.Context(flags=[])),
    (Reduced(1, cache="full"), Reduced(1)),
    (Stateful(kept=1, dropped=2), Stateful(kept=1)),
    (Noted(a=1, b=2), Noted(b=2, a=1)),
    (fractions.Fraction(1, 2), fractions.Fraction(2, 4)),
    (Access.READ | Access.WRITE, Access(3)),
    (zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo.no_cache("UTC")),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=lambda value: type(value).__name__)
def test_equal(one: Any, other: Any) -> None:
    """What differs only in memory, or in an order that means nothing, has one digest."""
    assert digest(one) == digest(other)
    assert digest([one]) == digest([other])


COPIED = [value for pair in DIFFERENT for value in pair]


@pytest.mark.parametrize("value", COPIED, ids=lambda value: type(value).__name__)
def test_copies_through_pickle(value: Any) -> None:
    """A value and what pickle makes of it have one digest, so caches can be shared."""
    if type(value) is collections.Counter and vars(value):
        pytest.skip("pickle loses the attributes of a Counter")
    try:
        clone = pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001 - pickle raises whatever it likes
        pytest.skip("cannot be pickled")
    assert digest(clone) == digest(value)


def look(value: Any) -> str:
    return re.sub(r" at 0x\w+", "", f"{type(value)} {value!r}")


class MyDecimal(decimal.Decimal):
    pass


class MyFraction(fractions.Fraction):
    pass


class MyDate(dt.date):
    pass


class MyTime(dt.time):
    pass


class MyMoment(dt.datetime):
    pass


class MySpan(dt.timedelta):
    pass


class MyZone(zoneinfo.ZoneInfo):
    pass


class MyPure(pathlib.PurePosixPath):
    pass


class MyPath(type(pathlib.Path())):  # type: ignore[misc]
    pass


class MyAddress(ipaddress.IPv4Address):
    pass


class MyRandom(random.Random):
    pass


class MyArray(array.array):  # type: ignore[type-arg]
    __slots__ = ("unit",)


class MyError(Exception):
    __slots__ = ("unit",)


class MyNamespace(types.SimpleNamespace):
    __slots__ = ("unit",)


class ThriftyDecimal(decimal.Decimal):
    """Says that its attributes are no part of it."""

    def __reduce__(self) -> Any:
        return (ThriftyDecimal, (str(self),))


class WithOrder(collections.OrderedDict[Any, Any]):
    def __reduce__(self) -> Any:
        return super().__reduce__()


class Pairs:
    """A mapping that may hold a key twice, rebuilt pair by pair."""

    def __init__(self, *pairs: Any) -> None:
        self.pairs = pairs

    def __reduce__(self) -> Any:
        return (Pairs, (), None, None, iter(self.pairs))


class PlainReduced(dict[Any, Any]):
    def __reduce__(self) -> Any:
        return (PlainReduced, (), None, None, iter(self.items()))


@dataclasses.dataclass
class FieldError(Exception):
    unit: int = 1


def behind(error: BaseException, **parts: Any) -> BaseException:
    for name, value in parts.items():
        setattr(error, f"__{name}__", value)
    return error


@pytest.mark.parametrize("make", [ValueError, MyError, FieldError, lambda: OSError(2, "gone")])
def test_exceptions_behind_an_exception(make: Callable[[], BaseException]) -> None:
    """Cause and context count, and whether a traceback shows the latter."""
    found = [
        digest(behind(make(), **parts))
        for parts in (
            {},
            {"cause": KeyError(1)},
            {"cause": KeyError(2)},
            {"context": KeyError(1)},
            {"suppress_context": True},
            {"context": KeyError(1), "suppress_context": True},
            {"context": behind(KeyError(1), cause=KeyError(2))},
        )
    ]
    assert len(set(found)) == len(found)
    raised = make()
    with pytest.raises(type(raised)):
        raise raised
    assert digest(raised) == found[0], "being raised is nothing"


DERIVED: list[tuple[type, Callable[[Any], Any]]] = [
    (MyDecimal, lambda cls: cls("1.5")),
    (MyFraction, lambda cls: cls(1, 2)),
    (MyDate, lambda cls: cls(2024, 1, 2)),
    (MyTime, lambda cls: cls(1, 2)),
    (MyMoment, lambda cls: cls(2024, 1, 2)),
    (MySpan, lambda cls: cls(1)),
    (MyZone, lambda cls: cls.no_cache("UTC")),
    (MyPure, lambda cls: cls("a")),
    (MyPath, lambda cls: cls("a")),
    (MyCounter, lambda cls: cls("ab")),
    (MyAddress, lambda cls: cls("127.0.0.1")),
    (MyRandom, lambda cls: cls(1)),
    (MyArray, lambda cls: cls("b", b"a")),
    (MyError, lambda cls: cls("a")),
    (MyNamespace, lambda cls: cls(a=1)),
    (MyOrdered, lambda cls: cls(a=1)),
    (WithOrder, lambda cls: cls(a=1)),
]


class TestSubclasses:
    """What a subclass has beyond its base counts, even where pickle forgets it."""

    @pytest.mark.parametrize(("cls", "make"), DERIVED)
    def test_attributes(self, cls: type, make: Callable[[Any], Any]) -> None:
        plain, one, same, other = (make(cls) for _ in range(4))
        one.unit = same.unit = "eV"
        other.unit = "K"
        assert digest(one) == digest(same)
        assert len({digest(plain), digest(one), digest(other)}) == 3

    @pytest.mark.parametrize(("cls", "make"), DERIVED)
    def test_class(
        self, cls: type, make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two subclasses of one base differ, and both from the base."""
        twin = type("Twin", cls.__bases__, {"__module__": __name__})
        monkeypatch.setitem(globals(), "Twin", twin)
        assert len({digest(make(kind)) for kind in (cls, twin, *cls.__bases__)}) == 3

    def test_ordered_dict(self) -> None:
        """An OrderedDict may have attributes without being a subclass."""
        values = [collections.OrderedDict(a=1) for _ in range(3)]
        values[1].unit, values[2].unit = "eV", "K"  # type: ignore[attr-defined]
        assert len(set(map(digest, values))) == 3

    def test_content(self) -> None:
        """The content of the base still counts."""
        for one, other in (
            (MyDecimal("1.5"), MyDecimal("1.50")),
            (MyFraction(1, 2), MyFraction(1, 3)),
            (MyMoment(2024, 1, 2), MyMoment(2024, 1, 2, fold=1)),
            (MyPath("a"), MyPath("b")),
            (MyCounter("a"), MyCounter("b")),
            (MyRandom(1), MyRandom(2)),
        ):
            assert digest(one) != digest(other)
        assert digest(MyPath("a/./b")) == digest(MyPath("a/b"))
        assert digest(MyCounter("ab")) != digest(MyCounter("ba"))

    def test_reading_leaves_no_trace(self) -> None:
        """What a path or a fraction notes in its slots is no part of it."""
        path = MyPath("a/b")
        before = digest(path)
        assert (str(path), hash(path), path.parts, path.name) is not None
        assert digest(path) == before

    def test_own_reducer_decides(self) -> None:
        """A class that says how to rebuild it has left out what does not matter."""
        assert digest(with_(ThriftyDecimal(1), cache=1)) == digest(ThriftyDecimal(1))

    def test_dataclasses_of_values(self) -> None:
        """A dataclass that is a number, too, counts with the number."""

        @dataclasses.dataclass(init=False)
        class Amount(decimal.Decimal):
            unit: str = "eV"

        assert digest(Amount(1)) == digest(Amount(1)) != digest(Amount(2))
        assert digest(Amount(1)) != digest(with_(Amount(1), unit="K"))

    def test_unpicklable_bases(self) -> None:
        """A dataclass is its fields, even if it may not be pickled."""

        class Base:
            __reduce_ex__ = None  # type: ignore[assignment]

        @dataclasses.dataclass
        class Local(Base):
            x: int

        assert digest(Local(1)) == digest(Local(1)) != digest(Local(2))

    def test_inherited_reducer(self) -> None:
        """A reducer that a class has inherited may forget the class."""

        class Made:
            def __reduce__(self) -> Any:
                return (dict, ())

        class One(Made):
            pass

        class Other(Made):
            pass

        assert digest(One()) != digest(Other())

    def test_order_of_pairs(self) -> None:
        """What is rebuilt pair by pair keeps their order."""
        assert digest(WithOrder(a=1, b=2)) != digest(WithOrder(b=2, a=1))
        assert digest(Pairs(("a", 1), ("a", 2))) != digest(Pairs(("a", 2)))
        assert digest(PlainReduced(a=1, b=2)) != digest(PlainReduced(b=2, a=1))


def test_zones_from_files(tmp_path: pathlib.Path) -> None:
    """A zone that was read from a file may be any under its key."""
    source = pathlib.Path(zoneinfo.TZPATH[0] if zoneinfo.TZPATH else "", "Europe", "Berlin")
    if not source.exists():
        pytest.skip("no files of time zones")
    for key in (None, "Europe/Paris"):
        with source.open("rb") as file:
            zone = zoneinfo.ZoneInfo.from_file(file, key=key)
        with pytest.raises(Indigestible, match="read from a file"):
            digest(zone)


def test_classes_without_module() -> None:
    """A class that claims no module has a digest all the same."""

    def build(n: int) -> Any:
        return type("Nowhere", (), {"__module__": None, "size": n})

    assert digest(build(1)) == digest(build(1))
    assert digest(build(1)()) == digest(build(1)())
    numbers = type("Number", (float,), {"__module__": None})
    assert digest(numbers(1)) == digest(numbers(1)) != digest(numbers(2))


def test_names_of_python_itself() -> None:
    """A type of Python's own is known by its name, be it in `types`."""
    names = ["NoneType", "FunctionType", "GeneratorType", "MethodType", "CodeType"]
    assert len({digest(getattr(types, name)) for name in names}) == len(names)


def test_all_different() -> None:
    """No two values of the tables above share a digest by accident."""
    found: dict[Digest, Any] = {}
    for value in COPIED:
        name = digest(value)
        if name in found:
            assert look(found[name]) == look(value)
        found[name] = value


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
    | st.binary(max_size=5)
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.uuids()
)
hashables = leaves | st.tuples(leaves, leaves) | st.frozensets(leaves, max_size=3)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.sets(hashables, max_size=3)
        | st.builds(Data, inner, inner)
        | st.builds(Bag, a=inner)
        | st.builds(collections.deque, st.lists(inner, max_size=3))
    ),
    max_leaves=12,
)


def describe(value: Any) -> Any:
    """A value that equals another's only if type and content are the same."""
    kind = type(value)
    if kind in (list, tuple, collections.deque):
        return (kind, tuple(map(describe, value)))
    if kind in (set, frozenset):
        return (kind, frozenset(map(describe, value)))
    if kind is dict:
        return (kind, tuple((describe(key), describe(item)) for key, item in value.items()))
    if kind in (Data, Bag):
        return (kind, tuple((name, describe(item)) for name, item in sorted(vars(value).items())))
    if kind is dt.datetime:
        return (kind, repr(value))
    return (kind, repr(value))


@given(trees, trees)
def test_injective(one: Any, other: Any) -> None:
    """Two values have one digest if and only if they are the same in type and content."""
    assert (digest(one) == digest(other)) == (describe(one) == describe(other))


@given(trees)
def test_copies(value: Any) -> None:
    """Neither a deep copy nor a pickled one is another value."""
    assert digest(copy.deepcopy(value)) == digest(value)
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


@given(trees)
def test_sharing(value: Any) -> None:
    """One object in two places is the same as two equal objects."""
    assert digest([value, [value]]) == digest([value, [copy.deepcopy(value)]])


@given(st.dictionaries(hashables, leaves, min_size=2, max_size=5))
def test_insertion_order(value: dict[Any, Any]) -> None:
    """The order in which a dict was filled counts: a function can see it."""
    other = dict(list(value.items())[::-1])
    assert digest(other) != digest(value)
    assert digest([Bag(a=other)]) != digest([Bag(a=value)])


@given(st.lists(st.binary(max_size=3)), st.integers(1, 10))
def test_sets_of_any_size(tokens: list[bytes], limit: int) -> None:
    """Very many members are sorted by parts, to the same end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tokens, "SORTED_AT_ONCE", limit)
        assert _tokens.sort_tokens(tokens) == sorted(tokens)


class TestUnordered:
    """Digests for which the order of dicts does not count, at any depth."""

    @given(st.dictionaries(hashables, trees, max_size=5), st.randoms())
    def test_insertion_order(self, value: dict[Any, Any], random: Any) -> None:
        items = list(value.items())
        random.shuffle(items)
        for wrap in (lambda it: it, lambda it: [{"k": (it,)}], lambda it: Bag(a=[it])):
            one, other = wrap(value), wrap(dict(items))
            assert digest(one, unordered=True) == digest(other, unordered=True)

    @pytest.mark.parametrize(
        "make",
        [
            lambda pairs: collections.Counter(dict(pairs)),
            lambda pairs: collections.defaultdict(int, pairs),
            lambda pairs: types.MappingProxyType(dict(pairs)),
            MyDict,
            PlainReduced,
        ],
    )
    def test_what_is_built_on_dicts(self, make: Any) -> None:
        pairs = [("a", 1), ("b", 2)]
        one, other = make(pairs), make(pairs[::-1])
        assert digest(one) != digest(other)
        assert digest(one, unordered=True) == digest(other, unordered=True)

    def test_other_orders_count(self) -> None:
        """Lists, and dicts whose very meaning is their order, keep it."""
        for one, other in (
            ([1, 2], [2, 1]),
            ((1, 2), (2, 1)),
            (MyOrdered(a=1, b=2), MyOrdered(b=2, a=1)),
        ):
            assert digest(one, unordered=True) != digest(other, unordered=True)

    @given(trees, trees)
    def test_injective(self, one: Any, other: Any) -> None:
        """Different types and values stay different, and the two kinds of digests never meet."""
        if describe(one) == describe(other):
            assert digest(one, unordered=True) == digest(other, unordered=True)
        if digest(one, unordered=True) == digest(other, unordered=True):
            assert sort_dicts(describe(one)) == sort_dicts(describe(other))
        assert digest(one, unordered=True) != digest(one)

    def test_arguments(self) -> None:
        """Parameters may be named one by one."""
        one, other = (
            digest_arguments({"x": value, "y": value}, unordered={"x"})
            for value in ({1: 2, 3: 4}, {3: 4, 1: 2})
        )
        assert one["x"] == other["x"]
        assert one["y"] != other["y"]

    def test_in_cycles(self) -> None:
        """A dict that contains itself has no order either."""
        one: dict[str, Any] = {"a": 1}
        one["self"] = one
        other: dict[str, Any] = {}
        other["self"] = other
        other["a"] = 1
        assert digest(one) != digest(other)
        assert digest(one, unordered=True) == digest(other, unordered=True)


def sort_dicts(described: Any) -> Any:
    """What `describe` makes of a value, with the dicts in it in one order."""
    if not isinstance(described, (tuple, frozenset)):
        return described
    if isinstance(described, frozenset):
        return frozenset(map(sort_dicts, described))
    if described and described[0] is dict:
        return (dict, frozenset(map(sort_dicts, described[1])))
    return tuple(map(sort_dicts, described))


@given(st.binary(max_size=200_000))
def test_buffer_digest(data: bytes) -> None:
    """The digest of a buffer is the plain BLAKE3 of its bytes."""
    assert buffer_digest(memoryview(data)) == blake3(data).hexdigest()
    assert buffer_digest(data) == blake3(data).hexdigest()


def test_buffer_digest_of_any_layout() -> None:
    """Bytes count in C order, whatever the format and the strides of the buffer."""
    numbers = array.array("d", [1.0, 2.0])
    assert buffer_digest(memoryview(numbers)) == blake3(numbers.tobytes()).hexdigest()
    assert buffer_digest(memoryview(b"axbx")[::2]) == blake3(b"ab").hexdigest()
    assert buffer_digest(memoryview(b"")) == blake3(b"").hexdigest()
    assert buffer_digest(memoryview(bytearray(0)).cast("B")) == blake3(b"").hexdigest()


def test_encoding_is_no_buffer() -> None:
    """The digest of a value is never that of a buffer, even if a value rebuilds the encoding."""
    assert digest(b"") != buffer_digest(b"")
    assert digest(b"a" * 70_000) != buffer_digest(b"a" * 70_000)


class TestCycles:
    """Values that contain themselves."""

    def test_terminates(self) -> None:
        loop: list[Any] = [1]
        loop.append(loop)
        other: list[Any] = [1]
        other.append(other)
        assert digest(loop) == digest(other)
        different: list[Any] = [2]
        different.append(different)
        assert digest(loop) != digest(different)

    def test_is_not_its_unfolding(self) -> None:
        """A loop differs from a list that merely holds a loop, and from one that ends."""
        loop: list[Any] = []
        loop.append(loop)
        assert len({digest(loop), digest([loop]), digest([[]]), digest([[loop]])}) == 4

    def test_through_objects(self) -> None:
        parent = Bag(name="parent")
        parent.child = Bag(name="child", parent=parent)
        assert digest(copy.deepcopy(parent)) == digest(parent)
        assert digest(parent) != digest(parent.child)

    def test_sharing_inside(self) -> None:
        """On a cycle it counts which object is which: one object met twice is not two."""
        one, other = Bag(), Bag()
        shared = Bag(parent=one)
        one.children = [shared, shared]
        other.children = [Bag(parent=other), Bag(parent=other)]
        assert digest(one) != digest(other)

    def test_beside_a_cycle(self) -> None:
        """What hangs on a cycle without being part of it has its ordinary digest."""
        loop: list[Any] = [SHARED, SHARED]
        loop.append(loop)
        other: list[Any] = [[1], [1]]
        other.append(other)
        assert digest(loop) == digest(other)

    def test_through_sets(self) -> None:
        """The order in which a set in a cycle is walked means nothing."""

        def ring(order: list[int]) -> Bag:
            root = Bag(name="root")
            members = {index: Bag(name=index, root=root) for index in order}
            root.members = {members[index] for index in order}
            return root

        assert digest(ring([1, 2, 3, 4, 5])) == digest(ring([5, 3, 1, 2, 4]))
        assert digest(ring([1, 2, 3])) != digest(ring([1, 2, 4]))

    def test_swapped_edges(self) -> None:
        """Two graphs that differ in where one edge leads differ."""

        def graph(target: int) -> Any:
            nodes = [Bag(name="node", next=None) for _ in range(4)]
            for index in range(3):
                nodes[index].next = nodes[index + 1]
            nodes[3].next = nodes[target]
            return [nodes[0], 1]

        found = {digest(graph(target)) for target in (1, 2, 3)}
        assert len(found) == 3

    def test_entangled(self) -> None:
        """A thousand objects that all know one another take no time to speak of."""
        nodes = [Bag(index=index) for index in range(200)]
        for node in nodes:
            node.all = nodes
        assert digest(nodes[0]) != digest(nodes[1])
        assert digest(copy.deepcopy(nodes)) == digest(nodes)

    def test_long_chain(self) -> None:
        first = Bag(previous=None, number=0)
        last = first
        for number in range(1, 300):
            last.next = Bag(previous=last, number=number)
            last = last.next
        assert digest(first) != digest(last)

    def test_deep_branch_in_a_cycle(self) -> None:
        deep: list[Any] = []
        for _ in range(20_000):
            deep = [deep]
        loop: list[Any] = [deep]
        loop.append(loop)
        assert digest(loop).is_full


class TestDepth:
    """Depth is bounded by memory only."""

    @pytest.mark.parametrize("depth", swept([20_000, 100_000], lambda depth: depth == 20_000))
    def test_nested_lists(self, depth: int) -> None:
        def nest(depth: int) -> list[Any]:
            found: list[Any] = []
            for _ in range(depth):
                found = [found]
            return found

        assert digest(nest(depth)) == digest(nest(depth)) != digest(nest(depth - 1))

    def test_linked_objects(self) -> None:
        def link(length: int) -> Any:
            found = None
            for _ in range(length):
                found = Bag(next=found)
            return found

        assert digest(link(5_000)) != digest(link(5_001))

    def test_wide_sharing(self) -> None:
        """An object that is met often is walked once."""
        found: Any = []
        for _ in range(200):
            found = [found, found, {"a": found}]
        assert digest(found).is_full

    def test_long_lists_are_streamed_alike(self) -> None:
        """Lengths around the size of a batch."""
        found = {digest([0] * length) for length in range(4090, 4102)}
        found |= {digest([[]] * length) for length in range(4090, 4102)}
        found |= {digest([0] * length) for length in (8191, 8192, 8193)}
        assert len(found) == 27
        assert digest([[1]] * 5000 + [0] * 5000) == digest([[1] for _ in range(5000)] + [0] * 5000)


class TestArguments:
    """Many arguments at once."""

    def test_order_is_kept(self) -> None:
        found = digest_arguments({"b": 1, "a": "x"})
        assert list(found) == ["b", "a"]
        assert found["a"] == digest("x")


class TestCallKey:
    """The key of a call."""

    PARTS: ClassVar[dict[str, Any]] = {"name": "f", "module": "m", "version": 1, "code": D(FULL)}

    def key(self, arguments: dict[str, Digest] | None = None, **parts: Any) -> Digest:
        return call_key(**{**self.PARTS, **parts}, arguments=arguments or {})

    def test_each_part_counts(self) -> None:
        """Leaving a part out differs from each value of it, and from leaving out another."""
        one = digest(1)
        keys = [
            self.key(),
            *(self.key(**{part: None}) for part in self.PARTS),
            self.key(name="g"),
            self.key(name="None"),
            self.key(name=""),
            self.key(module="n"),
            self.key(version=2),
            self.key(version="1"),
            self.key(version=(1, 2)),
            self.key(code=digest(1)),
            self.key({"x": one}),
            self.key({"y": one}),
            self.key({"x": digest(2)}),
            self.key({"x": one, "y": one}),
            self.key({"y": one, "x": one}),
            self.key({"x": digest(1), "y": digest(2)}),
            self.key({"x": digest(2), "y": digest(1)}),
            self.key(name="m", module="f"),
            self.key(name=None, module="f"),
        ]
        assert len(set(keys)) == len(keys)

    def test_same(self) -> None:
        assert self.key({"x": digest(1)}) == self.key({"x": digest(1)})

    def test_short_digests_are_refused(self) -> None:
        with pytest.raises(ValueError, match="short"):
            self.key({"x": D("ab12")})


def test_the_hash_that_attrs_keeps() -> None:
    """Whether an object has been a member of a set does not matter."""
    site = Site("a")
    before = digest(site)
    assert {site, site} == {site}
    assert digest(site) == before == digest(pickle.loads(pickle.dumps(site)))


def test_the_note_in_a_bunch() -> None:
    bunch = Bunch(data=[1, 2], names=["a"])
    assert digest(pickle.loads(pickle.dumps(bunch))) == digest(bunch)
    assert digest(Bunch(names=["a"], data=[1, 2])) != digest(bunch)


@pytest.mark.skipif(sys.version_info < (3, 15), reason="Python 3.15 brings these types")
class TestTypesOfPython315:
    def test_frozendict(self) -> None:
        """As a dict, and another type; its order can be seen."""
        make: Any = vars(builtins)["frozendict"]
        assert digest(make(a=1, b=[2])) == digest(make({"a": 1, "b": [2]}))
        others = [make(b=[2], a=1), {"a": 1, "b": [2]}, make(a=1, b=[3]), make(a=1)]
        assert digest(make(a=1, b=[2])) not in map(digest, others)
        assert digest([make(a=1)]) != digest([make(a=2)])

    def test_sentinel(self) -> None:
        """It is its module and its name, in a script, too."""
        make: Any = vars(builtins)["sentinel"]
        here = make("MISSING")
        assert digest(here) == digest(make("MISSING")) != digest(make("ABSENT"))
        here.__module__ = "__main__"
        assert digest(here) != digest(make("MISSING"))
