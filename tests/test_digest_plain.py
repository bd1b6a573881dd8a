"""The plain door: what goes through it, in which bytes, and what it costs."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from fleche.digest import SCHEME, digest
from fleche.digest import _plain as plain
from fleche.errors import Indigestible
from tests.helpers.sweeps import examples, swept

KEY = blake3(b"fleche.digest scheme %d plain" % SCHEME).digest()


def hash_of(encoding: bytes) -> str:
    return blake3(encoding, key=KEY).hexdigest()


def by_c(value: Any, resolve: Callable[[Any], bytes] = lambda _: b"token") -> bytes:
    """The encoding as C writes it."""
    taken = Recorder()
    door = plain.Door(taken, resolve)
    door.fast = True
    door.dump(value)
    return b"".join(taken.pieces)


def in_python(value: Any) -> bytes:
    """The encoding as our own encoder writes it."""
    encoder = plain.Encoder(value)
    taken = Recorder()
    running = encoder.run(taken)
    token = None
    while True:
        try:
            running.send(token)
        except StopIteration:
            return b"".join(taken.pieces)
        token = b"token"


class Recorder(plain.Sink):
    __slots__ = ()

    def flush(self) -> None:
        """Keep everything."""


class Bag:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Whole(int):
    pass


class Names(dict[Any, Any]):
    pass


class Level(enum.IntEnum):
    LOW = 1


Pair = collections.namedtuple("Pair", "a b")


def nest(depth: int, leaf: Any = None) -> Any:
    found = leaf
    for _ in range(depth):
        found = [found]
    return found


def double(depth: int) -> Any:
    """Few lists, which unfold to 2 ** depth."""
    found: Any = []
    for _ in range(depth):
        found = [found, found]
    return found


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
    | st.binary(max_size=300)
)
others = st.sampled_from([1j, ..., Whole(1), Pair(1, 2), Level.LOW, range(3), int])
trees = st.recursive(
    scalars | others,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=6).map(tuple)
        | st.dictionaries(scalars, inner, max_size=4)
    ),
    max_leaves=25,
)


class TestFormat:
    """One format, written by C and by our own encoder."""

    @pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 999, 1000, 1001, 1002, 2000, 2001])
    @pytest.mark.parametrize(
        "make", [list, tuple, lambda items: dict(zip(range(len(items)), items, strict=True))]
    )
    def test_batches(self, make: Any, length: int) -> None:
        for inner in (list(range(length)), [(i, [i]) for i in range(length)]):
            value = make(inner)
            assert digest([value]) == hash_of(in_python([value]))
            assert in_python(value) == by_c(value) or not plain.ENDS_AS_TOLD

    @pytest.mark.parametrize("length", [1, 999, 1000, 1001, 1002, 2000, 2001])
    @pytest.mark.parametrize("make", [list, dict.fromkeys])
    def test_ends_of_python_3_15(
        self, monkeypatch: pytest.MonkeyPatch, make: Any, length: int
    ) -> None:
        """Its C saves some bytes there: what it would write otherwise is left to Python."""
        value = [1, (make(range(length)), 2)]
        before = digest(value)
        monkeypatch.setattr(plain, "ENDS_AS_TOLD", False)
        assert digest(value) == before == hash_of(in_python(value))
        is_left = length > 1 and length % 1000 in ((1,) if make is list else (0, 1))
        with pytest.raises(plain.Undecided) if is_left else nullcontext():
            assert plain.encode_by_c(value, repr)[0].hex() == before

    @given(trees)
    @example([0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31), -(2**31) - 1])
    @example([2**39, -(2**39), -(2**39) - 1, 2**2040, -(2**2040), 2**2039 - 1, -(2**2039)])
    @example([0.0, -0.0, math.nan, -math.nan, math.inf])
    @example(["\ud800", "\ud800\udc00", "é" * 200, "x" * 70_000, b"x" * 255, b"x" * 70_000])
    def test_random_trees(self, tree: Any) -> None:
        value = [tree]
        assert in_python(value) == by_c(value)

    def test_written_down(self) -> None:
        """The format is the documented one; these bytes never change."""
        value = [
            None,
            True,
            1,
            300,
            2**40,
            1.5,
            "é",
            b"b",
            (),
            (1,),
            [],
            [2],
            {},
            {"k": (1, 2, 3, 4)},
        ]
        assert by_c(value) == (
            b"\x80\x03](N\x88K\x01M\x2c\x01\x8a\x06\0\0\0\0\0\x01G?\xf8\0\0\0\0\0\0"
            b"X\x02\0\0\0\xc3\xa9C\x01b)K\x01\x85]]K\x02a}}X\x01\0\0\0k"
            b"(K\x01K\x02K\x03K\x04tse."
        )
        assert by_c([1j]) == b"\x80\x03]cfleche.digest\nPlainMarker\nC\x05token\x85Ra."

    @given(trees)
    def test_can_be_taken_apart(self, tree: Any) -> None:
        """The format is that of pickle, so one encoding stands for one tree only."""
        value = [tree]
        raw = by_c(value, lambda obj: repr(obj).encode())

        class Apart(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                assert (module, name) == ("fleche.digest", "PlainMarker")
                return Other

        import io

        rebuilt = Apart(io.BytesIO(raw)).load()
        assert by_c(rebuilt, lambda obj: obj.token) == raw

    @given(st.lists(trees, max_size=3) | st.dictionaries(scalars, trees, max_size=3))
    def test_digest(self, value: Any) -> None:
        """The digest of plain data is the keyed hash of these bytes, whatever has written them."""
        if all(type(part) in plain.SCALARS for part in plain.children_of(value)):
            assert digest(value) == blake3(by_c(value), key=KEY).hexdigest()

    @given(scalars)
    def test_scalars(self, value: Any) -> None:
        assert digest(value) == blake3(by_c(value), key=KEY).hexdigest()


class Other:
    def __init__(self, token: bytes) -> None:
        self.token = token


def only_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "Pickler", None)


@given(trees)
def test_without_c(tree: Any) -> None:
    """An interpreter without the C pickler gives the same digests."""
    value = [tree, {"deep": nest(60, tree)}, {1, 2}, Bag(a=[tree], b=Bag(c=(tree,)))]
    expected = digest(value)
    with pytest.MonkeyPatch.context() as patch:
        only_in_python(patch)
        assert digest(value) == expected


OUTSIDE = [
    {1},
    frozenset({1}),
    bytearray(b"x"),
    Whole(1),
    Names(),
    Level.LOW,
    Pair(1, 2),
    1j,
    range(3),
    dt.date(2024, 1, 2),
    np.float64(1),
    np.bool_(True),
    np.str_("a"),
    np.zeros(1),
    collections.OrderedDict(),
    collections.defaultdict(list),
    len,
    int,
    set,
    frozenset,
    bytearray,
    ...,
    NotImplemented,
    memoryview(b"x"),
    digest(1),
    Bag(a=1),
    Bag(a={1}),
]


@pytest.mark.parametrize("value", OUTSIDE, ids=lambda value: type(value).__name__)
class TestOutside:
    """What is no plain data counts as what it is, in the middle of plain data as well."""

    def test_is_not_taken_for_plain_data(self, value: Any) -> None:
        """A subclass is not its base, and nothing passes as what it would be pickled by."""
        plain_forms: list[Any] = []
        for kind in (int, float, str, bytes, list, tuple, dict):
            with suppress(TypeError, ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, before it refuses
                plain_forms.append(kind(value))
        for wrap in (lambda it: [it], lambda it: {"k": (1, it)}, lambda it: ([it], 2)):
            assert digest(wrap(value)) not in {digest(wrap(form)) for form in plain_forms}

    def test_neighbours_count(self, value: Any) -> None:
        found = {digest([value, 1]), digest([value, 2]), digest([1, value]), digest((value, 1))}
        assert len(found) == 4

    def test_is_the_same_in_python(self, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = digest([value, [{"k": value}]])
        only_in_python(monkeypatch)
        assert digest([value, [{"k": value}]]) == expected


class TestSets:
    """Sets keep a tree from the door, wherever they are in it."""

    @pytest.mark.parametrize("value", [set("abc"), frozenset("abc"), bytearray(b"abc")])
    def test_order_of_members(self, value: Any) -> None:
        other = type(value)(sorted(value)[::-1]) if not isinstance(value, bytearray) else value[:]
        assert digest([1, {"k": [value]}]) == digest([1, {"k": [other]}])

    def test_what_is_inside_an_object_does_not_matter(self) -> None:
        """The set of an object does not show in the tree that the object stands in."""
        assert digest([Bag(a={1, 2})]) == digest([Bag(a={2, 1})]) != digest([Bag(a={1, 3})])

    def test_sharing(self) -> None:
        """One list as plain data, as part of a refused tree, and inside an object."""
        shared = [1, 2]
        value = [{1}, shared, Bag(a=shared), [shared, {2}]]
        other = [{1}, [1, 2], Bag(a=[1, 2]), [[1, 2], {2}]]
        assert digest(value) == digest(other)


class TestDepth:
    """Depth is bounded by memory, and leaves no trace in the digest."""

    @pytest.mark.parametrize(
        "depth", swept([49, 50, 51, 99, 101, 400, 5_000, 100_000], lambda depth: depth < 100_000)
    )
    def test_lists(self, depth: int) -> None:
        """Beyond what the C stack holds Python goes on, with the same bytes."""
        assert digest(nest(depth, 1)) == digest(nest(depth, 1))
        assert len({digest(nest(depth + more, leaf)) for more in (0, 1) for leaf in (1, 2)}) == 4

    def test_wherever_c_gives_up(self) -> None:
        """The digest does not depend on how much of the stack the caller has used."""
        values = [nest(300, 1), [Bag(a=[nest(200, 1)])], nest(300, {1})]
        expected = [digest(value) for value in values]

        def below(levels: int) -> list[Any]:
            return below(levels - 1) if levels else [digest(value) for value in values]

        room = sys.getrecursionlimit()
        assert below(room // 3) == expected
        assert below(room - 150) == expected

    @pytest.mark.slow
    def test_objects_in_lists_in_objects(self) -> None:
        def chain(length: int) -> Any:
            found: Any = None
            for number in range(length):
                found = Bag(next=[found, (number, {"k": 1})])
            return found

        assert digest(chain(3_000)) == digest(chain(3_000)) != digest(chain(3_001))

    def test_sets_in_tuples_in_sets(self) -> None:
        found: Any = (1,)
        other: Any = (1,)
        for _ in range(3_000):
            found, other = (frozenset([found]), 1), (frozenset([other]), 1)
        assert digest([found]) == digest([other])


class TestSize:
    """The door takes a bounded number of nodes; what is larger costs what its graph costs."""

    def test_shared_lists(self) -> None:
        """A tree that unfolds beyond all bounds is found out early."""
        started = time.perf_counter()
        assert digest(double(60)) == digest(double(60)) != digest(double(61))
        assert digest(double(1000)).is_full
        assert time.perf_counter() - started < 5

    @pytest.mark.parametrize(
        ("bound", "around"),
        swept([(20, 12), (10_000, 12), (110_000, 1)], lambda case: case[0] < 100_000),
    )
    def test_both_sides_of_the_bound(
        self, bound: int, around: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """C and Python count alike, and only the number of nodes decides."""
        monkeypatch.setattr(plain, "MOST_NODES", bound)
        for others in (0, 2):
            for length in range(bound - around, bound + 2):
                value = [1j] * others + [1] * (length - 4 * others)
                nodes = 1 + len(value) + 3 * others
                assert self.passes_c(value) == self.passes_python(value) == (nodes <= bound)

    @classmethod
    def passes_c(cls, value: Any) -> bool:
        try:
            plain.encode_by_c(value, lambda _: b"token")
        except plain.Refused:
            return False
        except plain.Undecided:  # from Python 3.15 on, where C would end this list otherwise
            assert plain.ends_otherwise(value)
            assert not plain.ENDS_AS_TOLD
            return cls.passes_python(value)
        return True

    @staticmethod
    def passes_python(value: Any) -> bool:
        try:
            in_python(value)
        except plain.Refused:
            return False
        return True

    @pytest.mark.parametrize("bound", [1, 30, 1000])
    def test_decides_nothing_else(self, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sharing leaves no trace on either side of the bound."""
        monkeypatch.setattr(plain, "MOST_NODES", bound)
        shared = [1, {"k": 2}]
        assert digest([shared] * 20) == digest([[1, {"k": 2}] for _ in range(20)])
        assert digest(Bag(a=[shared] * 20)) == digest(Bag(a=[[1, {"k": 2}] for _ in range(20)]))


class TestLongItems:
    """Texts and bytes of any length."""

    def test_long_texts_are_not_kept_twice(self) -> None:
        """C would leave the UTF-8 form of a text in the text itself, for good."""
        text = "é" * (9 * 1024 * 1024)
        before = sys.getsizeof(text)
        expected = digest(text)
        assert sys.getsizeof(text) == before
        assert expected == blake3(b"\x80\x03" + plain.encode_text(text) + b".", key=KEY).hexdigest()

    def test_inside_of_plain_data(self) -> None:
        """A text of more than 16 MiB in a tree is encoded by pieces, to the same bytes."""
        for text in ("é" * (9 * 1024 * 1024), "a" * (17 * 1024 * 1024)):
            raw = b"\x80\x03]" + plain.encode_text(text) + b"a."
            assert digest([text]) == blake3(raw, key=KEY).hexdigest()

    def test_headers_of_giants(self) -> None:
        """Beyond 4 GiB the length has eight bytes."""
        assert plain.text_header(2**32 - 1) == b"X\xff\xff\xff\xff"
        assert plain.text_header(2**32) == b"\x8d\0\0\0\0\x01\0\0\0"
        assert plain.bytes_header(2**32) == b"\x8e\0\0\0\0\x01\0\0\0"

    @pytest.mark.parametrize("length", [1024 * 1024 - 1, 1024 * 1024, 3 * 1024 * 1024 + 1])
    def test_around_the_pieces(self, length: int) -> None:
        for value in (b"x" * length, "x" * length, "é" * length, "\ud800" * length):
            raw = by_c([value])
            assert digest([value]) == blake3(raw, key=KEY).hexdigest()
            assert in_python([value]) == raw


class Changing:
    """Changes the container in which it stands as soon as it is looked at."""

    def __init__(self, change: Callable[[], None]) -> None:
        self.change = change

    def __digest__(self) -> Any:
        self.change()
        return 1


class TestChanges:
    """A container that changes while it is read has no digest."""

    def test_dicts(self) -> None:
        value: dict[Any, Any] = {}
        value.update({"a": Changing(lambda: value.update({len(value): 0})), "b": 0})
        with pytest.raises(Indigestible, match="changed while it was read"):
            digest(value)

    def test_in_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        only_in_python(monkeypatch)
        grown: list[Any] = []
        grown += [Changing(lambda: grown.append(1)), 1]
        shrunk: list[Any] = []
        shrunk += [Changing(shrunk.clear), 1]
        for value in (grown, shrunk):
            with pytest.raises(Indigestible, match="changed while it was read"):
                digest([value])

    @pytest.mark.skipif(
        not plain.ENDS_AS_TOLD, reason="C does not notice it under Python 3.15, and goes on and on"
    )
    def test_by_other_threads(self) -> None:
        """Whatever a busy thread does to a dict: a digest, or a clear refusal."""
        value: dict[Any, Any] = {i: [i] for i in range(3)}
        stop = threading.Event()

        def change() -> None:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 40
                value[number] = [number]
                value.pop((number * 7) % 40, None)

        thread = threading.Thread(target=change)
        thread.start()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(2_000):
                try:
                    assert digest([value, Bag(a=value)]).is_full
                except Indigestible as error:
                    assert "changed" in str(error)  # noqa: PT017 - either is right
        finally:
            sys.setswitchinterval(interval)
            stop.set()
            thread.join()


class TestCyclesThroughTheDoor:
    """Plain data that is met again, from itself or from one of its objects."""

    def test_plain(self) -> None:
        one: list[Any] = [1]
        one.append({"k": (one,)})
        other: list[Any] = [1]
        other.append({"k": (other,)})
        assert digest(one) == digest(other) != digest([1, {"k": ([1],)}])

    def test_through_an_object(self) -> None:
        def build(where: int) -> Any:
            bag = Bag()
            inner: list[Any] = [1, bag]
            outer = [inner, 2]
            bag.back = (inner, outer)[where]
            return outer

        assert digest(build(0)) == digest(build(0))
        assert digest(build(1)) == digest(build(1))
        assert digest(build(0)) != digest(build(1))

    def test_beside_large_data(self) -> None:
        """What hangs on a cycle without being part of it counts as it always does."""
        data = [[i, str(i)] for i in range(100)]
        bag = Bag(data=data)
        bag.me = bag
        same = Bag(data=[list(row) for row in data])
        same.me = same
        assert digest(bag) == digest(same)
        same.data[50][0] = -1
        assert digest(bag) != digest(same)


class TestPaths:
    """Errors name the way to the part without a digest, although C does not know it."""

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            ([1, {"k": (2, iter([]))}], r"object\[1\]\['k'\]\[1\]: "),
            ([1, {"k": Bag(a=[1, iter([])])}], r"object\[1\]\['k'\]\.a\[1\]: "),
            ([{1}, {"k": Bag(a=[1, iter([])])}], r"object\[1\]\['k'\]\.a\[1\]: "),
            ({10**5000: iter([])}, r"object\[<int>\]: "),
            (nest(30, Bag(a=nest(2, iter([])))), r"object(\[0\]){30}\.a\[0\]\[0\]: "),
            ([*list(range(5000)), iter([])], r"object\[5000\]: "),
            ({i: i for i in range(1500)} | {"x": iter([])}, r"object\['x'\]: "),
        ],
    )
    def test_paths(self, value: Any, path: str) -> None:
        with pytest.raises(Indigestible, match=path):
            digest(value)

    def test_long_integers(self) -> None:
        """An integer whose decimal form Python refuses to write has a digest, as a key as well."""
        assert digest(10**5000) != digest(10**5000 + 1)
        assert digest({10**5000: 1}) != digest({10**5000 + 1: 1})


class TestInterrupts:
    """Ctrl-C and other threads get their turn within half a second."""

    SCRIPT = """
import signal, sys, threading, time
from fleche.digest import digest
{value}
class Found(BaseException): pass
def handler(*_): raise Found
signal.signal(signal.SIGALRM, handler)
gaps, running = [], True
def beat():
    last = time.perf_counter()
    while running:
        time.sleep(.01)
        now = time.perf_counter(); gaps.append(now - last); last = now
thread = threading.Thread(target=beat); thread.start()
signal.setitimer(signal.ITIMER_REAL, .15)
started = time.perf_counter()
try:
    for _ in range(1000): digest(value)
except Found:
    print(time.perf_counter() - started - .15, max(gaps))
finally:
    running = False
"""

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm clock")
    @pytest.mark.parametrize(
        "value",
        swept(
            [
                "value = [[i, 1.5] for i in range(2_000_000)]",
                "value = [float(i) for i in range(9_000_000)]",
                "value = bytes(600_000_000)",
                "value = [{i} for i in range(500_000)]",
                "value = set(map(str, range(1_000_000)))",
            ],
            lambda value: "float(" not in value and "{i}" not in value,
        ),
    )
    def test_answered(self, value: str) -> None:
        script = self.SCRIPT.format(value=value)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        late, gap = map(float, done.stdout.split())
        limit = 0.5 * (1 + os.getloadavg()[0])  # a busy machine takes its time
        assert late < limit
        assert gap < limit


def test_from_many_threads() -> None:
    """Digests do not disturb one another."""
    value = [[i, {"k": Bag(a=i)}] for i in range(500)]
    expected = digest(value)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(digest(value))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def generated() -> Iterator[int]:
    raise AssertionError("a generator is not advanced")
    yield 1


@pytest.mark.parametrize("make", [generated, lambda: iter([1]), lambda: zip([1], strict=True)])
def test_iterators_stay_whole(make: Any) -> None:
    """What can be read once is refused, and not read, in plain data too."""
    value = make()
    for wrap in (lambda it: it, lambda it: [it], lambda it: [{1}, it]):
        with pytest.raises(Indigestible):
            digest(wrap(value))
    if make is not generated:
        assert len(list(value)) == 1


members = st.integers(0, 3) | st.text("ab", max_size=1) | st.tuples(st.integers(0, 2))
mixed = st.recursive(
    scalars | others | st.frozensets(members, max_size=3) | st.sets(members, max_size=2),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(members, inner, max_size=3)
        | st.builds(Bag, a=inner)
        | st.builds(Bag, a=inner, b=inner)
        | inner.map(lambda it: [it, it])
        | inner.map(lambda it: (it, Bag(c=it), {"k": it}))
        | inner.map(lambda it: nest(12, Bag(d=it)))
    ),
    max_leaves=12,
)


def unshared(value: Any) -> Any:
    """A copy in which no two places hold one object."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return kind([unshared(part) for part in value])
    if kind is dict:
        return {unshared(key): unshared(part) for key, part in value.items()}
    if kind is Bag:
        return Bag(**{name: unshared(part) for name, part in vars(value).items()})
    return value


@examples(2)
@given(mixed)
def test_how_it_is_read_leaves_no_trace(value: Any) -> None:
    """Sharing, and everything that decides who encodes what, are no part of a digest."""
    expected = digest(value)
    assert digest(unshared(value)) == expected
    for name, setting in (("NESTED", 0), ("NESTED", 1), ("FEW", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"fleche.digest._walk.{name}", setting)
            assert digest(value) == expected
    for name, setting in (("SMALL", -1), ("WORTH_KEEPING", 0), ("FIRST_LOOK", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plain, name, setting)
            assert digest(value) == expected
    with pytest.MonkeyPatch.context() as patch:
        only_in_python(patch)
        assert digest(value) == expected


@examples(2)
@given(mixed)
def test_sharing_on_either_side_of_the_bound(value: Any) -> None:
    """Where the bound is low, it is still the value alone that decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "MOST_NODES", 12)
        expected = digest(value)
        assert digest(unshared(value)) == expected
        only_in_python(patch)
        assert digest(value) == expected


@examples(2)
@given(mixed)
def test_beside_a_ring(value: Any) -> None:
    """The same holds for what stands beside a cycle, or hangs on one."""

    def build(part: Any, other: Any) -> Any:
        bag = Bag(one=part, other=[other])
        bag.me = bag
        return [part, (bag, other), {"k": [other, bag]}]

    expected = digest(build(value, value))
    assert digest(build(unshared(value), unshared(value))) == expected
    with pytest.MonkeyPatch.context() as patch:
        only_in_python(patch)
        assert digest(build(value, unshared(value))) == expected
