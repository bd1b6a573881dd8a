"""Queries: lazy, re-iterable, and never holding on to a stream that is not read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import Local, QueryIterator
from fleche.call import Call, CallEntry, LazyCall
from tests.helpers.layers import in_memory


def lazy(x: Any, name: str = "f", started: str | None = None) -> LazyCall:
    metadata = {"runtime": {"started": started}} if started else {}
    call = Call(name=name, arguments={"x": x}, result=[x, x], metadata=metadata)
    record = call.to_record()
    return LazyCall(record.key, CallEntry(record), in_memory())


class Stream:
    """A source that tells how many searches were begun, how far they went and which were closed."""

    def __init__(self, *calls: LazyCall) -> None:
        self.calls = calls
        self.begun = self.closed = self.given = 0

    def __call__(self) -> Iterator[LazyCall]:
        self.begun += 1
        try:
            for call in self.calls:
                self.given += 1
                yield call
        finally:
            self.closed += 1


@pytest.fixture
def stream() -> Stream:
    return Stream(*map(lazy, range(5)))


@pytest.fixture
def query(stream: Stream) -> QueryIterator:
    return QueryIterator(stream)


def numbers(calls: object) -> list[object]:
    return [call.record.arguments["x"].shown for call in calls]  # type: ignore[attr-defined]


class TestLaziness:
    def test_nothing_happens_before_it_is_asked(self, query: QueryIterator, stream: Stream) -> None:
        """To build a query, however long, begins no search."""
        query.filter(bool).take(3).skip(1).unique().sorted()
        assert stream.begun == 0

    def test_each_iteration_asks_anew(self, query: QueryIterator, stream: Stream) -> None:
        """A query may be iterated as often as one likes."""
        assert numbers(query) == numbers(query) == [0, 1, 2, 3, 4]
        assert stream.begun == stream.closed == 2

    def test_no_more_is_found_than_is_asked_for(self, query: QueryIterator, stream: Stream) -> None:
        assert numbers(query.take(2)) == [0, 1]
        assert stream.given == 2

    @pytest.mark.parametrize(
        "leave_early",
        [
            QueryIterator.first,
            QueryIterator.any,
            QueryIterator.empty,
            bool,
            lambda query: next(iter(query.filter(bool).skip(1).unique())),
            lambda query: next(query.results()),
            lambda query: list(query.take(2)),
            lambda query: next(iter(query.sorted().take(1))),
        ],
    )
    def test_an_abandoned_search_is_closed(
        self, query: QueryIterator, stream: Stream, leave_early: object
    ) -> None:
        """To leave early closes the stream, at once."""
        with suppress(KeyError):  # the calls of this test are stored nowhere
            leave_early(query)  # type: ignore[operator]
        assert stream.begun == stream.closed == 1

    def test_a_break_closes(self, query: QueryIterator, stream: Stream) -> None:
        for _ in query.filter(bool):
            break
        assert stream.closed == 1

    def test_an_error_of_the_predicate_closes(self, query: QueryIterator, stream: Stream) -> None:
        with pytest.raises(ZeroDivisionError):
            list(query.filter(lambda call: 1 / 0))
        assert stream.closed == 1

    def test_any_iterator_with_close_is_closed(self) -> None:
        """A stream need not be a generator."""

        class Closable:
            closed = False

            def __iter__(self) -> Closable:
                return self

            def __next__(self) -> LazyCall:
                return lazy(1)

            def close(self) -> None:
                self.closed = True

        source = Closable()
        assert QueryIterator(lambda: source).first() == lazy(1)
        assert source.closed

    def test_a_plain_list_will_do(self) -> None:
        assert QueryIterator(lambda: [lazy(1)]).count() == 1


class TestOneCall:
    def test_only(self, query: QueryIterator) -> None:
        """One call that matches is handed out; none or several are errors of their own."""
        assert numbers([query.skip(4).only()]) == [4]
        with pytest.raises(KeyError, match="no call matches"):
            query.skip(5).only()
        with pytest.raises(LookupError, match="more than one call") as caught:
            query.only()
        assert not isinstance(caught.value, KeyError)

    def test_none(self, tmp_path: Path) -> None:
        """What was asked for is said, and of which cache."""
        with Local(tmp_path) as cache:
            for pick in (QueryIterator.only, QueryIterator.first, QueryIterator.latest):
                with pytest.raises(KeyError, match=r"no call matches name='fit' in Local\("):
                    pick(cache.query(name="fit"))

    def test_only_looks_no_further_than_two(self, query: QueryIterator, stream: Stream) -> None:
        with pytest.raises(LookupError):
            query.only()
        assert stream.given == 2

    def test_any(self, query: QueryIterator) -> None:
        assert numbers([query.any()]) == [0]
        assert query.skip(5).any() is None

    def test_first(self, query: QueryIterator) -> None:
        assert numbers([query.first()]) == [0]
        with pytest.raises(KeyError, match="no call matches"):
            query.skip(5).first()

    def test_latest_and_oldest(self) -> None:
        """By when the calls began, whatever the zone; those that do not say come last."""
        times = {
            1: "2024-05-01T12:00:00+00:00",
            2: "2024-05-01T13:30:00+02:00",
            3: "2024-05-01T11:59:59Z",
            4: None,
            5: "long ago",
        }
        query = QueryIterator(lambda: [lazy(x, started=when) for x, when in times.items()])
        assert numbers([query.latest(), query.oldest()]) == [1, 2]
        assert numbers(query.sorted()) == [4, 5, 2, 3, 1]
        undated = query.skip(3)
        assert numbers([undated.latest(), undated.oldest()]) == [4, 4]
        with pytest.raises(KeyError):
            query.skip(5).latest()


class TestHowMany:
    def test_count_and_empty(self, query: QueryIterator) -> None:
        assert query.count() == 5
        assert not query.empty()
        assert query.skip(5).empty()
        assert query
        assert not query.skip(5)


class TestFurtherQueries:
    def test_take_and_skip(self, query: QueryIterator) -> None:
        assert numbers(query.skip(1).take(2)) == [1, 2]
        assert numbers(query.take(0)) == []
        assert numbers(query.take(99)) == [0, 1, 2, 3, 4]

    def test_filter(self, query: QueryIterator) -> None:
        assert numbers(query.filter(lambda call: call.record.arguments["x"].shown % 2)) == [1, 3]

    def test_sorted(self, query: QueryIterator) -> None:
        """By a function or by the name of an attribute."""
        assert numbers(query.sorted(lambda call: -call.record.arguments["x"].shown)) == [
            4,
            3,
            2,
            1,
            0,
        ]
        named = QueryIterator(lambda: [lazy(1, "b"), lazy(2, "a")])
        assert numbers(named.sorted("name")) == [2, 1]
        assert numbers(named.sorted("name", reverse=True)) == [1, 2]

    def test_by_an_argument(self) -> None:
        """By its name; what is of another kind, or lacks it, has its place."""
        query = QueryIterator(lambda: [lazy(3), lazy(1), lazy("b"), lazy(None), lazy(2), lazy("a")])
        assert numbers(query.sorted("x")) == [None, 1, 2, 3, "a", "b"]
        assert numbers(query.sorted("arguments.x", reverse=True)) == ["b", "a", 3, 2, 1, None]
        assert list(query.groupby("x")) == [3, 1, "b", None, 2, "a"]
        assert query.unique("x").count() == 6
        assert numbers(query.sorted("version")) == numbers(query)

    def test_what_is_no_number_comes_after_those_that_are(self) -> None:
        """Wherever it stands among them, and is one group."""
        nan = float("nan")
        values = [2.0, nan, 1, -float("inf"), float("nan"), 0.5]
        for place in range(len(values)):
            turned = values[place:] + values[:place]
            query = QueryIterator(lambda turned=turned: list(map(lazy, turned)))
            found = numbers(query.sorted("x"))
            assert [repr(each) for each in found] == ["-inf", "0.5", "1", "2.0", "nan", "nan"]
            assert len(query.groupby("x")) == query.unique("x").count() == 5
            assert len(query.groupby("x")[math.nan]) == 2
            assert len(query.groupby(lambda call: call.record.arguments["x"].shown)) == 5

    def test_values_that_look_alike(self) -> None:
        """What a record shows by the same summary are different values, where they are."""
        cache = in_memory()
        for place, last in enumerate((1, 2, 1)):
            value = [0] * 20 + [last]
            cache.save(Call(name="f", arguments={"v": value, "x": place}, result=value))
        assert len({call.record.arguments["v"].text for call in cache.query()}) == 1
        for name in ("v", "arguments.v", "result"):
            groups = cache.query().sorted("x").groupby(name)
            assert [str(key)[:9] for key in groups] == ["list(21):", "list(21):"]
            assert [numbers(group) for group in groups.values()] == [[0, 2], [1]]
            assert cache.query().unique(name).count() == 2

    def test_by_the_result(self) -> None:
        """What has no order says so, and what to do."""
        cache = in_memory()
        for x, result in enumerate([3, 1.5, None, 10**30]):
            cache.save(Call(name="f", arguments={"x": x}, result=result))
        assert numbers(cache.query().sorted("result")) == [2, 1, 0, 3]
        cache.save(Call(name="f", arguments={"x": 4}, result={}))
        cache.save(Call(name="f", arguments={"x": 5}, result={1: 2}))
        with pytest.raises(TypeError, match=r"no order by 'result' .*give sorted\(\) a function"):
            list(cache.query().sorted("result"))
        assert cache.query().unique("result").count() == 6

    @pytest.mark.parametrize("act", ["sorted", "groupby", "unique"])
    def test_by_what_no_call_has(self, query: QueryIterator, act: str) -> None:
        """The message says what there is."""
        with pytest.raises(ValueError, match=r"'volume': .*attribute \(.*name.*argument \(x\)"):
            list(getattr(query, act)("volume"))
        assert list(getattr(query.take(0), act)("volume")) == []
        with pytest.raises(TypeError, match="3: a function of a call"):
            list(getattr(query, act)(3))

    def test_unique(self) -> None:
        """The first call of each key."""
        query = QueryIterator(lambda: [lazy(1), lazy(1), lazy(2, "g"), lazy(3, "g")])
        assert numbers(query.unique()) == [1, 2, 3]
        assert numbers(query.unique("name")) == [1, 2]

    def test_groupby(self) -> None:
        """Groups need not be adjacent, and are queries themselves."""
        query = QueryIterator(lambda: [lazy(1), lazy(2, "g"), lazy(3)])
        groups = query.groupby("name")
        assert {name: numbers(group) for name, group in groups.items()} == {"f": [1, 3], "g": [2]}
        assert numbers(groups["f"]) == [1, 3]


@pytest.mark.parametrize("take", [list, tuple, sorted, set, lambda query: [*query]])
@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyboardInterrupt])
def test_an_error_on_the_way_is_raised(take: Any, kind: type[BaseException]) -> None:
    """What collects the calls asks for their number first, and overhears a TypeError of that."""

    def fails(call: LazyCall) -> bool:
        if call.record.arguments["x"].shown == 2:
            raise kind("of a filter")
        return True

    query = QueryIterator(lambda: map(lazy, range(4))).filter(fails)
    with pytest.raises(kind, match="of a filter"):
        take(query)
    with pytest.raises(kind, match="of a filter"):
        len(query)
    search = iter(query)
    with pytest.raises(kind, match="of a filter"):
        len(query)
    assert numbers([next(search), next(search)]) == [0, 1]
    with pytest.raises(kind, match="of a filter"):
        next(search)


def test_how_many_are_not_negative(query: QueryIterator) -> None:
    for act in (query.take, query.skip):
        with pytest.raises(ValueError, match="-1: how many calls"):
            act(-1)
        with pytest.raises(TypeError):
            act(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        query["x"]  # type: ignore[call-overload]


class TestWithACache:
    def test_results(self) -> None:
        cache = in_memory()
        for x in range(3):
            cache.save(Call(name="f", arguments={"x": x}, result=x * x))
        assert sorted(cache.query().results()) == [0, 1, 4]

    def test_evict(self) -> None:
        """What is evicted elsewhere meanwhile is no error and does not count."""
        cache = in_memory()
        keys = [cache.save(Call(name="f", arguments={"x": x}, result=x)) for x in range(3)]
        gone = [*cache.query(), *cache.query(arguments={"x": 1})]
        cache.evict(keys[1])
        assert QueryIterator(lambda: gone, cache).evict() == 2
        assert cache.query().empty()

    def test_transfer(self) -> None:
        cache, other, done = in_memory(), in_memory(), []
        for x in range(3):
            cache.save(Call(name="f", arguments={"x": x}, result=x))
        assert cache.query().take(2).transfer(other, progress=done.append) == 2
        assert done == [2]
        assert other.query().count() == 2

    @pytest.mark.parametrize("ask", ["query", "filter", "table"])
    def test_unknown_fields(self, ask: str) -> None:
        """A name that calls do not have is told, with what was probably meant, and how else."""
        with pytest.raises(TypeError, match="no field 'nme' to ask for, did you mean 'name'"):
            getattr(in_memory(), ask)(nme="f")
        with pytest.raises(
            TypeError, match=r"'x' to ask for\. There are name, .*, until; .*'x': \.\.\."
        ):
            getattr(in_memory(), ask)(x=3)

    def test_without_a_cache(self, query: QueryIterator) -> None:
        with pytest.raises(ValueError, match="belongs to no cache"):
            query.evict()
        with pytest.raises(ValueError, match="belongs to no cache"):
            query.transfer(in_memory())
        assert len(query.table()) == 5
        assert "QueryIterator" in repr(query)


def test_to_pandas() -> None:
    """A query is a data frame as its table is: the newest first."""
    pandas = pytest.importorskip("pandas")
    cache = in_memory()
    for x in (1, 2):
        cache.save(Call(name="f", arguments={"x": x}, result=-x))
    frame = cache.query(name="f").to_pandas()
    pandas.testing.assert_frame_equal(frame, cache.query(name="f").table().to_pandas())
    assert sorted(frame["arguments.x"]) == [1, 2]
