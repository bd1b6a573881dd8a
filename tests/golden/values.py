"""The values whose digests are pinned in `digests.json`, by section and name.

`python -m tests.golden.values` prints their digests as JSON, under any Python that has blake3;
sections whose library is missing there are left out. Values are built when they are asked for,
from nothing that depends on the hash seed, the platform or the version.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import importlib.util
import json
import math
import operator
import pathlib
import re
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Generic, List, NamedTuple, Optional, TypeVar  # noqa: UP035

from fleche.digest import SCHEME, D, Digest, call_key, code_digest, digest
from tests.golden import functions

T = TypeVar("T")
SECTIONS = ("core", "plain", "graphs", "unordered", "code", "numpy", "pandas", "attrs", "keys")


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Plain:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)
    seen: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    __slots__ = ("x",)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a = 1


class Node:
    def __init__(self, parent: Node | None = None) -> None:
        self.parent = parent
        self.children: list[Node] = []


class Names(dict[str, int]):
    unit: str


class Meters(float):
    pass


class Loop(list[Any]):
    pass


class Amount(decimal.Decimal):
    unit: str


class Ratio(fractions.Fraction):
    unit: str


class Moment(dt.datetime):
    unit: str


class Place(pathlib.PurePosixPath):
    unit: str


class Tally(collections.Counter[str]):
    unit: str


class Zone(zoneinfo.ZoneInfo):
    unit: str


def build_tree() -> Node:
    root = Node()
    root.children = [Node(root), Node(root)]
    return root


def build_loop() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


def with_unit(value: Any) -> Any:
    value.unit = "m"
    return value


def build_enum() -> Any:
    class Local(int, enum.Enum):
        ONE = 1
        UNO = 1  # noqa: PIE796
        TWO = 2

        def __call__(self) -> int:
            return 1

    return Local


def build_generic() -> Any:
    class Local(Generic[T]):
        pass

    class Derived(Local[int]):
        pass

    return Derived


def build_dataclass() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Local:
        b: int = dataclasses.field(default=1, metadata={"unit": "m"})
        a: int = 2

    return Local


def build_names() -> Names:
    names = Names(b=2, a=1)
    names.unit = "m"
    return names


def core() -> dict[str, Any]:
    zone = zoneinfo.ZoneInfo("UTC")
    moment = dt.datetime(2024, 10, 27, 2, 30, 0, 5)
    return {
        "none": None,
        "true": True,
        "false": False,
        "int 0": 0,
        "int 1": 1,
        "int -1": -1,
        "int 127": 127,
        "int 128": 128,
        "int -128": -128,
        "int 2**200": 2**200,
        "float 0.0": 0.0,
        "float -0.0": -0.0,
        "float 1.5": 1.5,
        "float inf": math.inf,
        "float nan": float("nan"),
        "complex": 1 - 2j,
        "str empty": "",
        "str ascii": "abc",
        "str unicode": "für 🏹",
        "str surrogate": "\ud800",
        "str long": "x" * 70_000,
        "bytes": b"abc",
        "bytes long": bytes(70_000),
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abc"),
        "array": array.array("d", [1.0, 2.0]),
        "ellipsis": ...,
        "not implemented": NotImplemented,
        "list": [1, "a", [2.0]],
        "list empty": [],
        "list long": list(range(10_000)),
        "tuple": (1, "a"),
        "dict": {"b": 1, "a": [2], 3: None},
        "set": {"a", "b", 3, (4, 5)},
        "frozenset": frozenset({"a", "b"}),
        "deque": collections.deque([1, 2], maxlen=3),
        "OrderedDict": collections.OrderedDict(b=1, a=2),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "Counter": collections.Counter("abca"),
        "mappingproxy": types.MappingProxyType({"a": 1}),
        "namespace": types.SimpleNamespace(b=1, a=2),
        "range": range(1, 10, 2),
        "slice": slice(1, None, 2),
        "Decimal": decimal.Decimal("1.00"),
        "Decimal nan": decimal.Decimal("NaN"),
        "Fraction": fractions.Fraction(1, 3),
        "UUID": uuid.UUID(int=5),
        "date": moment.date(),
        "time": moment.time(),
        "datetime": moment,
        "datetime fold": moment.replace(fold=1),
        "datetime utc": moment.replace(tzinfo=dt.timezone.utc),
        "datetime zone": moment.replace(tzinfo=zone),
        "timedelta": dt.timedelta(1, 2, 3),
        "timezone": dt.timezone(dt.timedelta(hours=2), "CEST"),
        "pure path": pathlib.PurePosixPath("a/b"),
        "windows path": pathlib.PureWindowsPath("a/b"),
        "pattern": re.compile(r"a+", re.IGNORECASE),
        "enum": Colour.RED,
        "int enum": Level.LOW,
        "flag": Access.READ | Access.WRITE,
        "named tuple": Point(1, 2),
        "dataclass": Plain(1, ["a"]),
        "dataclass slots": Frozen(1),
        "slots": Slotted(),
        "tree": build_tree(),
        "loop": build_loop(),
        "dict subclass": build_names(),
        "float subclass": Meters(2.0),
        "list subclass": Loop([1]),
        "exception": ValueError("a", 1),
        "class": Plain,
        "builtin class": int,
        "path class": pathlib.PurePath,
        "builtin function": len,
        "method descriptor": str.upper,
        "bound builtin": "abc".upper,
        "module": math,
        "generic alias": list[int],
        "union": int | str,
        "operator": operator.itemgetter(1),
        "digest inside": [D("ab" * 32)],
        "OrderedDict with an attribute": with_unit(collections.OrderedDict(b=1, a=2)),
        "Counter subclass": with_unit(Tally("abca")),
        "Decimal subclass": with_unit(Amount("1.00")),
        "Fraction subclass": with_unit(Ratio(1, 3)),
        "datetime subclass": with_unit(Moment(2024, 10, 27, 2, 30, fold=1)),
        "path subclass": with_unit(Place("a/b")),
        "zone subclass": with_unit(Zone.no_cache("UTC")),
        "exception with an attribute": with_unit(ValueError("a", 1)),
        "exception of a missing attribute": AttributeError("a", name="b", obj=[]),
        "exception of a missing name": with_unit(NameError("a", name="b")),
        "class of None": type(None),
        "optional": Optional[int],  # noqa: UP045 - another type than int | None before Python 3.14
        "list of optional": [list[Optional[int]], List[int | None]],  # noqa: UP006, UP045
        "union with text": Optional["Plain"],
        "union with None": int | None,
        "type variable": T,
    }


class Neighbour:
    """An object that knows its neighbours."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def plain() -> dict[str, Any]:
    """Plain data, around every number at which its encoding changes."""
    numbers = [0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31), -(2**31) - 1]
    numbers += [2**39, -(2**39), -(2**39) - 1, 2**2039 - 1, 2**2040, -(2**2039)]
    shared: list[Any] = [1, "a"]
    deep: Any = None
    for _ in range(3_000):
        deep = [deep]
    doubled: list[Any] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    return {
        "integers": numbers,
        "texts": ["", "a", "\xe9" * 200, "\ud800", "x" * 70_000],
        "long text": "\xe9" * (9 * 1024 * 1024),
        "bytes": [b"", b"x" * 255, b"x" * 256, b"x" * 70_000],
        **{f"list of {n}": list(range(n)) for n in (0, 1, 2, 999, 1000, 1001, 2000, 2001)},
        **{f"dict of {n}": {i: str(i) for i in range(n)} for n in (1, 2, 999, 1000, 1001, 2000)},
        **{f"tuple of {n}": tuple(range(n)) for n in (0, 1, 2, 3, 4, 1001)},
        "order": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        "shared": [shared, shared, {"k": shared}],
        "other objects": [1j, Level.LOW, Point(1, 2), {"k": (fractions.Fraction(1, 2), ...)}],
        "deep": deep,
        "deep with a set": [deep, {1}],
        "unfolds beyond all bounds": doubled,
        "a set inside": [shared, {"k": {1, "a", (2,)}}],
        "a set inside an object": [shared, Neighbour(a={1, "a"}), Neighbour(b=[{"a": 1, "b": 2}])],
        "counter": collections.Counter("abac"),
        "default dict": collections.defaultdict(list, b=1, a=2),
    }


def ring(length: int, near: Any = list) -> list[Neighbour]:
    nodes = [Neighbour(element="C") for _ in range(length)]
    for i, node in enumerate(nodes):
        node.near = near((nodes[i - 1], nodes[(i + 1) % length]))
    return nodes


def graphs() -> dict[str, Any]:
    """Objects that know one another."""
    first = last = Neighbour(before=None, after=None)
    for _ in range(100):
        last.after = Neighbour(before=last, after=None)
        last = last.after
    members = Neighbour(name="owner")
    members.all = {Neighbour(name=name, owner=members) for name in "abcdef"}
    one = ring(3)
    return {
        "ring of six": ring(6),
        "two rings of three": ring(3) + ring(3),
        "one ring twice": [one, one[1], (one[2],)],
        "ring in sets": ring(5, set),
        "chain": first,
        "members": members,
        "list in itself": loop(),
    }


def loop() -> list[Any]:
    found: list[Any] = [1, {"k": []}]
    found.append(found)
    return found


def unordered() -> dict[str, Digest]:
    """Digests for which order does not count."""
    values = {
        "dict": {"b": 1, "a": {"d": 2, "c": 3}},
        "list": [{"b": 1, "a": 2}, Neighbour(a={"b": 1, "a": 2})],
        "counter": collections.Counter("abac"),
        "number": 1,
    }
    return {name: digest(value, unordered=True) for name, value in values.items()}


def code() -> dict[str, Any]:
    found = {name: getattr(functions, name) for name in functions.__all__}
    found["partial"] = functools.partial(functions.annotated, 1, key=2)
    found["closure"] = functions.make_adder(3)
    found["recursive closure"] = functions.make_recursive()
    found["bound method"] = functions.Shape(2.0).area
    found["local enum"] = build_enum()
    found["local enum member"] = build_enum().TWO
    found["local generic"] = build_generic()
    found["local dataclass"] = build_dataclass()
    found["local dataclass instance"] = build_dataclass()(3)
    return found


def numpy() -> dict[str, Any]:
    import numpy as np

    spawned = np.random.default_rng(1)
    spawned.bit_generator.seed_seq.spawn(2)  # type: ignore[attr-defined]
    drawn = np.random.default_rng(1)
    drawn.random(3)
    records = np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")]).view(np.recarray)

    plain = np.arange(6, dtype="<i8").reshape(2, 3)
    padded = np.zeros(
        2, dtype=np.dtype({"names": ["a", "b"], "formats": ["<i1", "<f8"]}, align=True)
    )
    return {
        "int64": plain,
        "fortran": np.asfortranarray(plain),
        "view": np.arange(12, dtype="<i8").reshape(2, 6)[:, ::2],
        "float32": np.array([1.5, -0.0, np.inf], dtype="<f4"),
        "float64 large": np.zeros(20_000, dtype="<f8"),
        "big endian": np.array([1, 2], dtype=">i4"),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j], dtype="<c16"),
        "strings": np.array(["a", "bc"], dtype="<U2"),
        "bytes": np.array([b"a"], dtype="|S1"),
        "datetime64": np.array(["2020-01-01", "NaT"], dtype="<M8[D]"),
        "timedelta64": np.array([5], dtype="<m8[s]"),
        "0-d": np.array(1.0),
        "empty": np.zeros((0, 3)),
        "objects": np.array([1, "a", None], dtype=object),
        "structured": np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "padded": padded,
        "nested": np.zeros(1, dtype=[("a", [("b", "<i2", (2,))]), ("c", "<f4")]),
        "masked": np.ma.array([1.0, 2.0], mask=[True, False]),
        "masked constant": np.ma.masked,
        "records": np.zeros(2, [("a", "<i4")]).view(np.recarray),
        "scalar": np.float64(1.5),
        "scalar str": np.str_("ab"),
        "scalar datetime": np.datetime64("2020-01-01"),
        "dtype": np.dtype("<f8"),
        "dtype structured": np.dtype([("a", "<i4"), ("b", "<f8", (2,))]),
        "ufunc": np.sin,
        "generator": np.random.default_rng(1),
        "inside": {"a": [np.ones(2)]},
        "masked hard": np.ma.array([1.0, 2.0], mask=[True, False], hard_mask=True),
        "masked of another class": np.ma.array(np.zeros(2, [("a", "<i4")]).view(np.recarray)),
        "record": records[0],
        "record dtype": records.dtype,
        "array of records": records.view(np.ndarray),
        "numbers": [np.dtype(kind).type(1) for kind in "?bBhHiIqQefdFD"],
        "dtype with metadata": np.dtype("<i4", metadata={"unit": "m"}),
        "objects in two dimensions": np.array([[{"b": 1, "a": 2}, [1]], [None, 1j]], dtype=object),
        "frompyfunc": np.frompyfunc(max, 2, 1),
        "vectorize": np.vectorize(math.sin, otypes=[float]),
        "generator that has spawned": spawned,
        "generator that has drawn": drawn,
        "generator of two seeds": np.random.default_rng([1, 2]),
        "bit generator": np.random.Philox(1),
        "bit generator with a key": np.random.Philox(key=1),
        "seed sequence": np.random.SeedSequence(1, spawn_key=(2,)),
        "random state": np.random.RandomState(1),
    }


def pandas() -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    labels = pd.Index(["a", "b"], dtype=object)
    frame = pd.DataFrame(
        {0: np.array([1, 2], dtype="<i8"), 1: np.array([0.5, np.nan]), 2: np.array([True, False])},
        index=labels,
    )
    frame.columns = pd.Index(["x", 1, "z"], dtype=object)
    moment = np.datetime64("2020-01-01", "ns")
    times = pd.DatetimeIndex(np.array(["2020-01-01", "2020-01-02"], dtype="M8[ns]"), freq="D")
    hour = dt.timezone(dt.timedelta(hours=1))
    lab = dt.timezone(dt.timedelta(hours=1), "LAB")
    holidays = pd.offsets.CustomBusinessDay(holidays=["2020-01-03"])
    return {
        "frame": frame,
        "series": pd.Series(np.array([1, 2], dtype="<i8"), name="s"),
        "range index": pd.RangeIndex(3),
        "object index": labels,
        "multi index": pd.MultiIndex.from_product([[1, 2], [3, 4]], names=["x", "y"]),
        "times": times,
        "zoned": pd.DatetimeIndex(times, freq=None).tz_localize("Europe/Berlin"),
        "periods": pd.period_range("2020-01-01", periods=2, freq="D"),
        "categorical": pd.Categorical.from_codes([0, 1, -1], pd.Index([3, 4]), ordered=True),
        "nullable": pd.array([1, None], dtype="Int64"),
        "boolean": pd.array([True, None], dtype="boolean"),
        "intervals": pd.interval_range(0, 2),
        "sparse": pd.arrays.SparseArray([0, 1, 0]),
        "timestamp": pd.Timestamp(np.datetime64("2020-01-01", "ns")),
        "timedelta": pd.Timedelta(np.timedelta64(5, "ns")),
        "period": pd.Period("2020-01-01", freq="D"),
        "interval": pd.Interval(0, 1),
        "missing": [pd.NA, pd.NaT],
        "zone of one's own": pd.DatetimeIndex(times, freq=None).tz_localize(lab),
        "timestamp in a zone of one's own": pd.Timestamp(moment).tz_localize(lab),
        "zone without a name": pd.DatetimeIndex(times, freq=None).tz_localize(hour),
        "holidays": pd.DatetimeIndex(list(times), freq=holidays),
    }


def attrs() -> dict[str, Any]:
    import attrs as library

    Atom = library.make_class(
        "Atom", {"symbol": library.field(), "charge": library.field(default=0)}
    )
    Atom.__module__, Atom.__qualname__ = __name__, "Atom"
    globals()["Atom"] = Atom
    return {"instance": Atom("H"), "class": Atom}


def keys() -> dict[str, Digest]:
    arguments = {"x": digest(1), "y": digest("a")}
    full: dict[str, Any] = {"name": "f", "module": "m", "version": 2, "code": digest("code")}
    bare: dict[str, Any] = dict.fromkeys(full)
    return {
        "full": call_key(**full, arguments=arguments),
        "bare": call_key(**bare, arguments=arguments),
        "no arguments": call_key(**full, arguments={}),
    }


BUILDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "core": core, "plain": plain, "graphs": graphs, "unordered": unordered, "code": code,
    "numpy": numpy, "pandas": pandas, "attrs": attrs, "keys": keys,
}  # fmt: skip


def collect() -> dict[str, dict[str, str]]:
    """The digests of all sections that can be built here."""
    found: dict[str, dict[str, str]] = {}
    for section, build in BUILDERS.items():
        if section in ("numpy", "pandas", "attrs") and not importlib.util.find_spec(section):
            continue
        found[section] = {name: str(digest(value)) for name, value in build().items()}
    found["code"] |= {
        f"code of {name}": str(code_digest(getattr(functions, name))) for name in functions.__all__
    }
    return found


if __name__ == "__main__":
    from tests.golden.values import collect as collect_as_module

    json.dump({"scheme": SCHEME, **collect_as_module()}, sys.stdout, indent=1, sort_keys=True)
