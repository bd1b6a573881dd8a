"""Calls that are not cached: the function gets what it would get if they were."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fleche import Cache, Digest, FlecheWarning, Ignored, Required, fleche, wrap_executor
from fleche.errors import Indigestible

pytestmark = [
    pytest.mark.filterwarnings("ignore::fleche.FlecheWarning"),
    pytest.mark.usefixtures("active"),
]


@pytest.fixture
def big(active: Cache) -> Digest:
    """Stands for a list of three."""
    return active.save_value([0.5, 1.5, 2.5])


@fleche
def length(numbers: Any, log: Any = None) -> int:
    return len(numbers)


@fleche
def total(*numbers: Any, log: Any = None, **more: Any) -> int:
    return sum(map(len, numbers)) + sum(map(len, more.values()))


@fleche
def sample(numbers: Any, seed: Required[int | None] = None) -> int:
    return len(numbers)


@fleche
def described(x: Any, numbers: Ignored[Any] = None) -> int:
    return len(numbers)


@fleche
async def measured(numbers: Any, log: Any = None) -> int:
    return len(numbers)


class Body:
    def __init__(self, handle: Any = None) -> None:
        self.handle = handle

    @fleche
    def length(self, numbers: Any) -> int:
        return len(numbers)


class Comparing(type):  # noqa: PLW1641
    """A metaclass whose classes have an equality, and so no hash."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


class Compared(metaclass=Comparing):
    def __len__(self) -> int:
        return 3


class TestClassesWithoutAHash:
    """The function runs, whatever the class of an argument or of a result is like."""

    @pytest.mark.parametrize("value", [Compared(), [Compared()], {"a": Compared}])
    def test_arguments(self, value: Any) -> None:
        assert length(value) == len(value)
        assert total(value, more=value) == 2 * len(value)
        assert length(numbers=[1], log=value) == 1

    def test_results(self) -> None:
        made = fleche(lambda n: Compared())
        assert [len(made(1)), len(made(1))] == [3, 3]


class Counting:
    """Counts how often it was pickled, so that its digest is another one each time."""

    def __init__(self) -> None:
        self.times = 0

    def __len__(self) -> int:
        return 3

    def __getstate__(self) -> dict[str, Any]:
        self.times += 1
        return dict(self.__dict__)


class Noting(Counting):
    """Notes only that it was pickled."""

    def __getstate__(self) -> dict[str, Any]:
        self.times = 1
        return dict(self.__dict__)


class TestUnsteadyDigests:
    """An argument whose digest is another one each time would never be found again."""

    @pytest.mark.parametrize("value", [Counting(), {"a": [Counting()]}], ids=["itself", "inside"])
    def test_nothing_is_stored(self, value: Any, active: Cache) -> None:
        pattern = rf"'numbers'\]: this {type(value).__name__} has another digest each time"
        for _ in range(2):
            with pytest.warns(FlecheWarning, match=pattern):
                assert fleche(length.__wrapped__)(value) == len(value)
        with pytest.raises(Indigestible, match=pattern):
            length.digest(value)
        assert active.query().count() == 0

    def test_what_it_notes_once(self, active: Cache) -> None:
        """The first call has the key of all that follow."""
        value = Noting()
        assert length(value) == length(value) == length(Noting()) == 3
        assert active.query().count() == 1

    def test_as_a_result(self) -> None:
        made = fleche(lambda n: Counting())
        assert len(made(1)) == 3
        assert made.contains(1)

    def test_figures(self, active: Cache, recwarn: pytest.WarningsRecorder) -> None:
        """A hit would draw nothing on them; as results they are stored, and nothing is said."""
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots()
        count = fleche(lambda shown: len(shown.get_children()))
        before = count(axes)
        axes.plot([1, 2])
        assert (count(axes), count(figure) > 1) == (before + 1, True)
        assert active.query().count() == 0
        recwarn.clear()
        drawn = fleche(plt.figure)
        assert drawn(7).number == 7
        assert (drawn.contains(7), list(recwarn)) == (True, [])
        plt.close("all")


class TestDigests:
    """A digest stands for its value, also where the call is none to be cached."""

    def test_beside_what_has_no_digest(self, big: Digest) -> None:
        assert length(big) == length(big, iter("")) == length(numbers=big, log=iter("")) == 3
        assert total(big, Digest(big[:9]), log=iter(""), more=big) == 9
        assert Body(iter("")).length(big) == 3

    def test_without_what_is_required(self, big: Digest) -> None:
        assert sample(big, 1) == sample(big) == 3

    def test_in_an_ignored_parameter(self, big: Digest, active: Cache) -> None:
        """The body gets the value, and the key is still none of its business."""
        assert described(1, big) == described(1) == 3
        assert active.query().count() == 1

    def test_rerun(self, big: Digest) -> None:
        assert length.rerun(big, iter("")) == 3

    def test_coroutines(self, big: Digest) -> None:
        assert asyncio.run(measured(big, iter(""))) == 3
        assert asyncio.run(measured.rerun(big, iter(""))) == 3

    def test_executors(self, big: Digest) -> None:
        """The process that submits still has the cache that the worker has not."""
        with wrap_executor(ThreadPoolExecutor(1)) as pool:
            assert pool.submit(length, big, iter("")).result(30) == 3
            assert pool.submit(sample, big).result(30) == 3
            assert pool.submit(Body(iter("")).length, big).result(30) == 3

    def test_of_nothing(self) -> None:
        """It is an error, as it is in a call that is cached."""
        for call in (lambda x: length(x, iter("")), sample, lambda x: described(1, x)):
            with pytest.raises(KeyError, match="holds no such value"):
                call(Digest("0" * 64))

    def test_as_a_default(self, big: Digest) -> None:
        def defaulted(log: Any, numbers: Any = None) -> int:
            return len(numbers)

        defaulted.__defaults__ = (big,)
        assert fleche(defaulted)(iter("")) == fleche(defaulted)(1) == 3


class TestIsolation:
    def test_arguments(self) -> None:
        """Copies are given whatever becomes of the result."""

        @fleche(isolate=True)
        def drain(items: list[int], log: Any = None, *more: list[int], **named: list[int]) -> int:
            for each in (items, *more, *named.values()):
                each.clear()
            return 0

        mine = [1]
        drain(mine, None, mine, other=mine)
        drain(mine, iter(""), mine, other=mine)
        assert mine == [1]

    def test_the_result(self) -> None:
        """What the caller does to it does not reach what the function has kept."""
        kept: list[list[int]] = []

        def listed(log: Any) -> list[int]:
            kept.append([1])
            return kept[-1]

        async def listed_later(log: Any) -> list[int]:
            return listed(log)

        for log in (0, iter("")):
            fleche(isolate=True)(listed)(log).append(2)
            asyncio.run(fleche(isolate=True)(listed_later)(log)).append(2)
            asyncio.run(fleche(isolate=True)(listed_later).rerun(log)).append(2)
        assert kept == [[1]] * 6

    def test_ignored_arguments(self) -> None:
        """They are left alone: a log is there to be written to."""

        @fleche(isolate=True, ignore=("log", "also", "a"))
        def noting(a: Any, /, x: int, log: list[str], **more: list[str]) -> int:
            for each in (a, log, *more.values()):
                each.append("seen")
            return x

        lists: list[list[str]] = [[], [], [], []]
        noting(lists[0], 1, lists[1], also=lists[2], a=lists[3])
        assert lists == [["seen"], ["seen"], ["seen"], []]
