"""Asking for stored calls: by the function's own parameters, by age, by place, as a table."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

import fleche
from fleche import cache, tags
from fleche.caches import BaseCache, QueryIterator
from fleche.call import Call, between, like, one_of, parse_where, where
from tests.helpers.layers import Layer, in_memory


@fleche.fleche(version=1)
def energy(el: str, v: float, log: fleche.Ignored[Any] = None) -> float:
    return (v - 1) ** 2


@fleche.fleche(version=1)
def awkward(name: str, version: int, since: int = 0, **options: Any) -> int:
    return version


@pytest.fixture(autouse=True)
def store() -> BaseCache:
    made = in_memory()
    cache(made)
    return made


def scan() -> None:
    for el in ("Fe", "Cu"):
        for v in (0.25, 0.5, 1.0):
            energy(el, v)


class TestParameters:
    def test_by_name(self) -> None:
        """Parameters are given as they are to the function; conditions are those of fleche.call."""
        scan()
        assert energy.query(el="Fe").count() == 3
        assert energy.query(el="Fe", v=between(0.1, 0.5)).count() == 2
        assert energy.query(v=where(">", 0.4), el=like("C*")).count() == 2
        assert energy.query(el=one_of("Fe", "Ni"), arguments={"v": 0.5}).count() == 1
        assert energy.query(result=0.25).count() == 2

    def test_numbers_count_by_what_they_are_worth(self) -> None:
        """Whether 1 was passed as an int, a float or a scalar of numpy."""
        for v in (1, 1.0, np.float64(1), np.int32(1)):
            energy("Fe", v)
        assert energy.query(v=1).count() == energy.query(v=np.float32(1)).count() == 4
        assert energy.query(arguments={"v": 1}).count() == 1
        energy("Fe", True)
        assert energy.query(v=True).count() == 1
        energy("Fe", 10**30)
        assert energy.query(v=10**30).count() == 1

    def test_long_numbers(self) -> None:
        """Whole numbers of more than 64 bits have their place among the others."""
        numbers = [-(10**30), 2, 10.5, 2**63, 2**63 + 1, 10**30, 10**30 + 1, 10**100, 10**100 + 1]
        for v in numbers[::-1]:
            energy("Fe", v)
        for bound in (0, 2**63, 1e25, 10**30):
            found = energy.query(v=where(">", bound)).sorted("v")
            assert [call.arguments["v"] for call in found][:-2] == [
                v for v in numbers[:-2] if v > bound
            ]
        assert energy.query(arguments={"v": between(2**63, 10**30)}).count() == 3
        query = energy.query().sorted("v")
        assert [call.arguments["v"] for call in query][:-2] == numbers[:-2]
        assert query.unique("v").count() == len(query.groupby("v")) == len(numbers)
        holds = parse_where("v > 9223372036854775807 and v != 1000000000000000000000000000000")
        assert sum(holds.matches(call.record) for call in query) == 5

    def test_a_scan_over_linspace(self) -> None:
        """Scalars of numpy are numbers to every condition."""
        for v in np.linspace(0.5, 1.5, 11):
            energy("Fe", v)
        assert energy.query(v=where(">", 1.25)).count() == 3
        assert energy.query(v=between(0.95, 1.05)).only().result == pytest.approx(0)

    def test_other_values_count_by_their_digest(self) -> None:
        awkward("n", 1, since=3, options=[1, 2])
        assert awkward.query(name="n", version=1, since=3).count() == 1
        assert awkward.query(options={"options": [1, 2]}).count() == 1
        assert awkward.query(since=4).empty()

    def test_names_that_do_not_exist(self) -> None:
        """The message says which do."""
        with pytest.raises(TypeError, match=r"'volume' is no parameter. .* are el, v; .*since"):
            energy.query(volume=1)
        with pytest.raises(TypeError, match=r"did you mean 'el'\?"):
            energy.query(els="Fe")
        with pytest.raises(TypeError, match="'volume' is no parameter"):
            energy.query(arguments={"volume": 1})
        with pytest.raises(TypeError, match="'log' is ignored, and not recorded"):
            energy.query(log=1)
        with pytest.raises(ValueError, match="'v' is given twice"):
            energy.query(v=1, arguments={"v": 1})

    @pytest.mark.parametrize("function", [lambda v: v > 1, len, "".join])
    def test_a_function_is_no_condition(self, function: Any) -> None:
        with pytest.raises(TypeError, match=r"filter\(function\)"):
            energy.query(v=function)


EAST = dt.timezone(dt.timedelta(hours=9))


class TestAges:
    @pytest.fixture(autouse=True)
    def calls(self, store: BaseCache) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        for days in (0, 1, 3, 10):
            started = (now - dt.timedelta(days=days)).isoformat(timespec="microseconds")
            metadata = {"runtime": {"started": started}}
            store.save(Call(name="f", arguments={"d": days}, result=days, metadata=metadata))
        store.save(Call(name="f", arguments={"d": -1}, result=None))

    @pytest.mark.parametrize(
        "since",
        [
            "2d",
            "48h",
            dt.timedelta(days=2),
            "1d23h59m60s",
            "2880m",
            "0.2857142857w",
            "2 days ago",
            "1 Day 24 hours",
        ],
    )
    def test_so_long_ago(self, store: BaseCache, since: Any) -> None:
        assert {call.result for call in store.query(since=since)} == {0, 1}
        assert {call.result for call in store.query(until=since)} == {3, 10}

    def test_no_time_needs_no_unit(self, store: BaseCache) -> None:
        assert store.query(since="0").count() == store.query(since="0s").count() == 0
        assert store.query(until="0").count() == 4

    def test_dates(self, store: BaseCache) -> None:
        """A time without a zone is local; a day begins at midnight."""
        moment = dt.datetime.now() - dt.timedelta(days=2)
        for since in (moment, moment.isoformat(), moment.astimezone(), moment.date(), str(moment)):
            assert store.query(since=since).count() in (2, 3)
        assert {call.result for call in store.query(since="1w", until="2d")} == {3}
        assert store.query(since="2000-01-01").count() == 4

    def test_days_by_name(self, store: BaseCache) -> None:
        """Today and yesterday begin at midnight, of local time."""
        today = dt.date.today()
        for name, day in (("today", today), ("Yesterday", today - dt.timedelta(days=1))):
            assert list(store.query(since=name)) == list(store.query(since=day))
            assert list(store.query(until=name)) == list(store.query(until=str(day)))

    def test_what_is_no_age(self, store: BaseCache) -> None:
        for wrong in ("two days", "2 moons", "", "d", "2d!", "ago", "2days3"):
            with pytest.raises(ValueError, match=r"no time: .*'30d'.*may be a date"):
                store.query(since=wrong)
        for early in (
            "9000000d",
            dt.timedelta.max,
            dt.datetime.min.replace(tzinfo=EAST),
            dt.datetime.min,
            dt.date.min,
            "0001-01-01",
        ):
            with pytest.raises(ValueError, match="before the first date that there is"):
                store.query(since=early)
        with pytest.raises(TypeError, match="3 is no moment"):
            store.query(since=3)
        with pytest.raises(ValueError, match="given twice"):
            store.query(since="2d", metadata={"runtime": {"started": like("20*")}})

    def test_of_a_function(self) -> None:
        energy("Fe", 1.0)
        assert energy.query(since="1h").count() == 1
        assert energy.query(until="1h").count() == 0


class TestPlaces:
    def numbers(self, query: QueryIterator) -> list[Any]:
        return [call.arguments["v"] for call in query]

    def test_length(self) -> None:
        scan()
        assert len(energy.query()) == 6
        assert len(energy.query(el="Fe").take(2)) == 2

    def test_a_list_is_one_search(self) -> None:
        """list() asks for the length as well; that is not another question to a far cache."""
        layer = Layer()
        with cache(layer.inner):
            scan()
        for take in (list, tuple, sorted):
            layer.asked.clear()
            query = layer.query()
            assert len(take(query, key=lambda c: c.key) if take is sorted else take(query)) == 6
            assert layer.asked == {"query": 1}
        assert len(query) == len(query) == 6

    def test_a_search_that_is_begun_is_another_one(self) -> None:
        scan()
        query = energy.query()
        calls = iter(query)
        next(calls)
        assert len(query) == 6
        assert len(list(calls)) == 5
        fresh = iter(query)
        assert len(query) == 6
        assert len(list(fresh)) == 6
        assert next(fresh, None) is None

    def test_one_call(self) -> None:
        scan()
        query = energy.query(el="Fe").sorted("v")
        assert [query[place].arguments["v"] for place in (0, 2, -1)] == [0.25, 1.0, 1.0]
        for wrong in (3, -4):
            with pytest.raises(IndexError, match=f"there is no call {wrong}"):
                query[wrong]

    def test_slices(self) -> None:
        """They are queries."""
        scan()
        query = energy.query(el="Fe").sorted("v")
        assert self.numbers(query[:2]) == [0.25, 0.5]
        assert self.numbers(query[1:]) == [0.5, 1.0]
        assert self.numbers(query[::2]) == [0.25, 1.0]
        assert self.numbers(query[-1:]) == [1.0]
        assert self.numbers(query[::-1]) == [1.0, 0.5, 0.25]
        assert list(reversed(query)) == list(query[::-1])
        assert query[:2].evict() == 2
        assert len(query) == 1

    def test_no_more_is_found_than_is_needed(self) -> None:
        given = 0

        def source() -> Any:
            nonlocal given
            scan()
            for call in energy.query():
                given += 1
                yield call

        assert QueryIterator(source)[1] is not None
        assert given == 2


class TestGroups:
    def test_by_metadata(self) -> None:
        """By a field, of whatever collector, or of the one that is named."""
        with tags(study="a", host="mine"):
            energy("Fe", 1.0)
        with tags(study="b"):
            energy("Fe", 2.0)
        groups = energy.query().groupby("tags.study")
        assert {study: len(calls) for study, calls in groups.items()} == {"a": 1, "b": 1}
        assert list(energy.query().groupby("user")) == [
            energy.query()[0].metadata["runtime"]["user"]
        ]
        assert list(energy.query(v=1).groupby("host")) == ["mine"]
        assert list(energy.query(v=1).groupby("runtime.host")) != ["mine"]
        assert [c.arguments["v"] for c in energy.query().sorted("study", reverse=True)] == [
            2.0,
            1.0,
        ]

    def test_what_nothing_has(self) -> None:
        energy("Fe", 1.0)
        with pytest.raises(ValueError, match=r"'mood'.*field of metadata \(.*runtime.host"):
            energy.query().groupby("mood")


def test_evict_as_a_trial() -> None:
    scan()
    assert energy.query(el="Fe").evict(dry_run=True) == 3
    assert len(energy.query(el="Fe")) == 3


class TestTables:
    def test_the_newest_come_first(self) -> None:
        """Unless another order was asked for."""
        scan()
        shown = [row.arguments["v"] for row in energy.query(el="Fe").table()]
        assert shown == [1.0, 0.5, 0.25]
        table = energy.query(el="Fe").sorted("v").take(2).table()
        assert [row.arguments["v"] for row in table] == [0.25, 0.5]
        assert next(iter(cache().table())).arguments["el"] == "Cu"

    def test_fifty_rows(self) -> None:
        for v in range(60):
            energy("Fe", v)
        table = energy.query().table()
        assert len(table) == 60
        lines = str(table).splitlines()
        assert len(lines) == 53
        assert lines[-1] == "… 10 more"
        assert table._repr_html_().endswith("<p>… 10 more</p>")
        assert len(table.to_text(most=None).splitlines()) == 62

    def test_columns(self) -> None:
        """Usual ones, arguments and fields of metadata, in the order in which they are named."""
        with tags(study="a"):
            energy("Fe", 0.5)
        energy("Cu", 1.0)
        text = energy.query().table(columns=["v", "tags.study", "result"]).to_text(80)
        assert [line.split() for line in text.splitlines()] == [
            ["v", "tags.study", "result"],
            ["-" * 3, "-" * 10, "-" * 6],
            ["1.0", "0.0"],
            ["0.5", "a", "0.25"],
        ]
        with pytest.raises(ValueError, match=r"no column .volume.; there are key, name, .*el, v"):
            energy.query().table(columns=["volume"])
        assert list(cache().table(columns=["el"]).to_pandas().columns) == ["arguments.el"]

    def test_metadata(self) -> None:
        with tags(study="a"):
            energy("Fe", 0.5)
        head = energy.query().table(metadata=True).to_text(1000).splitlines()[0].split()
        assert head[:8] == [
            *("key", "name", "version", "arguments", "result", "started", "seconds", "where")
        ]
        assert head[8] == "tags.study"
        assert "runtime.pid" in head
        assert "tags.study" in str(cache().table(metadata=True).to_text(1000))
        assert len(cache().table(metadata={"tags": {"study": "a"}})) == 1

    def test_whole_names_before_times(self) -> None:
        """In 80 columns a long name is whole, and what is alike in all rows makes room."""
        name = "a_function_with_quite_a_long_name_as_people_have"
        runtime = {"started": "2024-05-01T12:00:00+00:00", "host": "bigpc", "user": "marvin"}
        for x in range(2):
            metadata = {"runtime": {**runtime, "seconds": x}}
            cache().save(Call(name=name, arguments={"x": x}, result=x, metadata=metadata))
        head, _, first, _ = cache().table().to_text(80).splitlines()
        assert name in first
        assert "where" not in head

    def test_what_is_alike_goes_before_results_are_cut(self) -> None:
        runtime = {"started": "2024-05-01T12:00:00+00:00", "host": "bigpc.example.com", "user": "m"}
        for x in range(2):
            metadata = {"runtime": runtime}
            text = f"a result of some length, {x}"
            cache().save(Call(name="f", arguments={"x": x}, result=text, metadata=metadata))
        lines = cache().table().to_text(60).splitlines()
        assert lines[0].split() == ["key", "name", "arguments", "result"]
        assert "'a result of some length, 1'" in lines[2] + lines[3]

    def test_pandas_has_the_metadata(self) -> None:
        pytest.importorskip("pandas")
        with tags(study="a", sample=7):
            energy("Fe", 0.5)
        energy("Fe", 1.0)
        frame = energy.query().sorted("v").table().to_pandas()
        assert frame["tags.study"][0] == "a"
        assert frame["tags.sample"].dtype == "Int64"
        assert isinstance(frame["environment.packages"][0], dict)
        assert "runtime.pid" in frame
        assert "runtime.host" not in frame
