"""Tables: what a person sees of stored calls, without a value being loaded."""

from __future__ import annotations

import builtins
import datetime as dt
import math
import re
import sys
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleche.caches import Row, Table
from fleche.call import Call, CallEntry, LazyCall, ValueRef
from fleche.digest import Digest, digest
from fleche.errors import MissingExtra, StorageError
from tests.helpers.layers import Layer, in_memory

RUNTIME = {
    "started": "2024-05-01T12:00:00+00:00",
    "seconds": 1.23456,
    "host": "bigpc",
    "user": "marvin",
}


def lazy(name: str = "f", result: Any = 4, runtime: Any = RUNTIME, **arguments: Any) -> LazyCall:
    metadata = {"runtime": runtime} if runtime else {}
    made = Call(name=name, arguments=arguments, result=result, metadata=metadata)
    found = made.to_record()
    return LazyCall(found.key, CallEntry(found), in_memory())


def in_the_clear(call: LazyCall, x: Any) -> LazyCall:
    """The same call, as if another program had written ``x`` in the clear."""
    known = call.record.arguments
    record = call.record.replace(arguments={**known, "x": ValueRef(digest(x), literal=x)})
    return LazyCall(call.key, CallEntry(record), in_memory())


def at_second(second: int) -> dict[str, Any]:
    return {"runtime": {"started": f"2024-05-01T12:00:{second:02}.000000+00:00"}}


def columns_taken(text: str) -> int:
    """How many columns of a terminal a line takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def widths_of(text: str) -> dict[str, int]:
    """The width of each column of a printed table."""
    head, rule, *_ = text.splitlines()
    return {
        head[found.start() : found.end()].strip(): len(found[0])
        for found in re.finditer("-+", rule)
    }


words = st.text("ab_ 計算", max_size=60)
stored_calls = st.builds(
    lambda name, result, runtime, arguments: lazy(name, result, runtime, **arguments),
    st.text("ab_計", min_size=1, max_size=60),
    words | st.integers() | st.floats(),
    st.fixed_dictionaries({"started": st.just(RUNTIME["started"])}, optional={"user": words}),
    st.dictionaries(st.sampled_from("xyz"), words | st.integers(), max_size=3),
)


class TestRows:
    def test_what_the_record_says(self) -> None:
        call = lazy(x=3, data=[1, 2])
        row = Table([call]).rows[0]
        assert row.key == call.key
        assert row.short == call.key[:8]
        assert row.name == "f"
        assert row.arguments == {"x": 3, "data": digest([1, 2])}
        assert row.result == 4
        assert row.started == dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc)
        assert (row.seconds, row.host, row.user) == (1.23456, "bigpc", "marvin")
        timed = LazyCall(call.key, CallEntry(call.record.replace(duration=2.5)), in_memory())
        assert Table([timed]).rows[0].seconds == 2.5
        assert row.where == "marvin@bigpc"

    def test_a_result_that_is_no_plain_value(self) -> None:
        assert Table([lazy(result=[1])]).rows[0].result == digest([1])

    def test_metadata_of_any_shape(self) -> None:
        """Metadata comes from anywhere; what is not as expected is left out."""
        row = Table([lazy(runtime={"started": 7, "seconds": "3", "host": 1, "user": None})]).rows[0]
        assert (row.started, row.seconds, row.host, row.user, row.where) == (None,) * 4 + ("",)
        assert lazy(runtime={"started": "yesterday"}).record.began is None

    def test_times_without_a_zone_are_utc(self) -> None:
        found = lazy(runtime={"started": "2024-05-01T12:00:00"}).record.began
        assert found == dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc)

    def test_long_short_keys(self) -> None:
        """At least 8 characters, and more where 8 stand for several."""
        call = lazy()
        shorts = [call.key[:5], call.key[:11]]
        tables = [Table([call], lambda keys, s=short: [Digest(s)]) for short in shorts]
        assert [table.rows[0].short for table in tables] == [call.key[:8], call.key[:11]]

    def test_a_key_that_has_gone(self) -> None:
        """It was there when the calls were found."""
        call = lazy()
        assert Table([call], lambda keys: [None]).rows[0].short == call.key[:8]

    def test_summaries(self) -> None:
        """Numbers of numpy are shown as what they are."""
        np = pytest.importorskip("numpy")
        cache = in_memory()
        cache.save(Call(name="f", arguments={"x": np.float64(2.5)}, result=np.int64(7)))
        (row,) = cache.table()
        assert row.arguments == {"x": 2.5}
        assert row.result == 7

    def test_no_value_is_loaded(self) -> None:
        """Not even of a cache far away: the records and one question for the short keys will do."""
        layer = Layer()
        layer.inner.save(Call(name="f", arguments={"x": [1]}, result=[2]))
        str(layer.table())
        assert layer.asked == {"query": 1, "shrink": 1}

    def test_only_what_is_shown_is_made(self) -> None:
        """Rows beyond those that are printed are made, and their keys shortened, when asked for."""
        layer = Layer()
        for x in range(60):
            layer.inner.save(Call(name="f", arguments={"x": x}, result=x, metadata=at_second(x)))
        table = layer.table()
        assert "10 more" in str(table)
        assert len(table) == 60
        assert layer.asked == {"query": 1, "shrink": 1}
        assert [row.arguments["x"] for row in table] == list(range(59, -1, -1))
        assert layer.asked == {"query": 1, "shrink": 2}
        assert table.rows is table.rows

    def test_rows_of_a_cache_that_has_gone(self) -> None:
        """They are there as before; keys that were not shown have 8 characters."""

        def shorten(keys: Any) -> list[Digest]:
            if opened:
                return [Digest(key[:12]) for key in keys]
            raise StorageError("closed")

        opened = True
        calls = [lazy(x=x) for x in range(52)]
        table = Table(calls, shorten)
        opened = False
        assert [row.short for row in table] == [
            call.key[: 12 if place < 50 else 8] for place, call in enumerate(calls)
        ]

    def test_newest_first(self) -> None:
        """In whatever form and zone the times are; the undated come last."""
        times = [
            *("2024-05-01T12:00:00.500000+00:00", "2024-05-01T12:00:00Z", "2024-05-01T13:59:59"),
            *("2024-05-01T12:00:00.250000+02:00", "no time", None, "2024-05-01T12:00:00.6+00:00"),
        ]
        calls = [lazy(x=x, runtime={"started": text}) for x, text in enumerate(times)]
        rows = Table(calls, newest_first=True).rows
        assert [row.arguments["x"] for row in rows] == [2, 6, 0, 1, 3, 4, 5]

    def test_a_sequence(self) -> None:
        table = Table([lazy(x=1), lazy(x=2)])
        assert len(table) == 2
        assert [row.arguments["x"] for row in table] == [1, 2]
        assert all(isinstance(row, Row) for row in table)


class TestText:
    def test_aligned(self) -> None:
        calls = [lazy(x=1), lazy("much_longer", x=2.5, y="text", result=None)]
        text = Table(calls).to_text(200)
        head, rule, first, second = text.splitlines()
        assert head.split() == [
            *("key", "name", "arguments", "result", "started", "seconds", "where")
        ]
        assert set(rule) == {"-", " "}
        assert "x=2.5, y='text'" in second
        assert first.index("x=1") == second.index("x=2.5") == head.index("arguments")
        assert first.index("1.23") + 4 == head.index("seconds") + 7
        assert second.rstrip().endswith("marvin@bigpc")

    def test_empty_columns_are_left_out(self) -> None:
        assert "seconds" not in Table([lazy(runtime=None)]).to_text(200)

    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_fits_the_width(self, width: int) -> None:
        calls = [lazy("some.package.function_" * 3, text="x" * 150, other=list(range(9)))]
        lines = Table(calls).to_text(width).splitlines()
        assert max(map(len, lines)) <= width
        assert "..." in lines[-1]

    def test_columns_give_way(self) -> None:
        """In a narrow terminal, what matters least is left out."""
        head = Table([lazy(text="x" * 150)]).to_text(45).splitlines()[0]
        assert head.split() == ["key", "name", "arguments", "result"]

    @pytest.mark.parametrize(
        ("calls", "width", "columns"),
        [
            ([("relax_structure_with_magnetic_moments", 4)], 60, ""),
            ([("relax_structure_with_magnetic_moments", 4)], 80, "seconds"),
            ([("f", 4), ("g", 4), ("h", 4)], 41, ""),
            ([("f", 4), ("g", 4), ("h", 4)], 62, "started seconds"),
            ([("f", 1.0), ("f", 2.0)], 80, "started seconds where"),
        ],
    )
    def test_the_result_stays(self, calls: list[tuple[str, Any]], width: int, columns: str) -> None:
        """However long the name, and if the results are alike; other columns take what is left."""
        table = Table([lazy(name, result, x=x) for x, (name, result) in enumerate(calls)])
        head, _, *lines = table.to_text(width).splitlines()
        assert head.split() == ["key", "name", "arguments", "result", *columns.split()]
        for line, (_, result) in zip(lines, calls, strict=True):
            assert line[head.index("result") :].split()[0] == str(result)

    def test_a_result_is_not_cut_beside_an_empty_place(self) -> None:
        """The room of a column that is left out goes to the others."""
        text = Table([lazy(result="x" * 38, x=1)]).to_text(80)
        assert f"'{'x' * 38}'" in text

    def test_columns_of_metadata_are_left_out_whole(self) -> None:
        """Their names are not cut; tags come before what else there is."""
        metadata = {
            "runtime": RUNTIME,
            "environment": {"python": "3.12.1", "platform": "Linux"},
            "tags": {"study": "steel"},
        }
        record = Call(name="f", arguments={"x": 1}, result=4, metadata=metadata).to_record()
        table = Table([LazyCall(record.key, CallEntry(record), in_memory())], metadata=True)
        usual = ["key", "name", "arguments", "result"]
        assert list(widths_of(table.to_text(60))) == [*usual, "seconds", "tags.study"]
        assert list(widths_of(table.to_text(110)))[-2:] == ["tags.study", "environment.python"]
        assert list(widths_of(table.to_text(140)))[-1] == "environment.platform"

    @example(calls=[lazy("______", "", {"started": RUNTIME["started"], "user": "_"})], width=23)
    @given(calls=st.lists(stored_calls, min_size=1, max_size=4), width=st.integers(20, 220))
    def test_any_width(self, calls: list[LazyCall], width: int) -> None:
        """No line is too long, the result is there, and no room is left that a column could use."""
        table = Table(calls)
        wanted, found = widths_of(table.to_text(100_000)), widths_of(table.to_text(width))
        assert max(map(columns_taken, table.to_text(width).splitlines())) <= width
        assert found["key"] == wanted["key"]
        assert "result" in found
        taken = sum(found.values()) + 2 * (len(found) - 1)
        if any(found[column] < wanted[column] for column in found):
            assert taken == width
        else:
            left_out = [wanted[column] for column in wanted if column not in found]
            assert all(taken + 2 + each > width for each in left_out)

    def test_arguments_give_way_last(self) -> None:
        """A column of digests alone goes before the arguments are cut to nothing."""
        head, _, line = Table([lazy(text="x" * 150, result=[1])]).to_text(60).splitlines()
        assert "result" not in head
        assert "text='xxxxx" in line

    def test_versions_are_shown(self) -> None:
        """Two rows that differ in nothing else differ in their version."""
        record = lazy(x=1).record.replace(version=2)
        assert "version" in Table([LazyCall(record.key, CallEntry(record), in_memory())]).to_text(
            200
        )

    def test_too_narrow_for_anything(self) -> None:
        """The key is never cut: it is what one copies."""
        call = lazy(x=1)
        assert call.key[:8] in Table([call]).to_text(10)

    def test_width_of_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "70")
        assert max(map(len, str(Table([lazy(text="x" * 150)])).splitlines())) <= 70

    def test_control_characters(self) -> None:
        """What others have stored does not write into the terminal."""
        runtime = {"host": "evil\x1b[2Jhost\n"}
        text = Table([lazy("name\x1b[31m", text="line\nline\x07", runtime=runtime)]).to_text(200)
        assert len(text.splitlines()) == 3
        assert all(line.isprintable() for line in text.splitlines())

    def test_wide_characters(self) -> None:
        first, second = Table([lazy("計算", x=1), lazy("abcd", x=1)]).to_text(200).splitlines()[2:]
        assert first.index("x=1") == second.index("x=1") - 2

    def test_accents_take_no_room(self) -> None:
        lines = Table([lazy(x="e\u0301" * 3), lazy(x="eee")]).to_text(200).splitlines()
        assert lines[2].replace("\u0301", "") == lines[3].replace(lines[3][:8], lines[2][:8])

    def test_no_calls(self) -> None:
        assert str(Table([])) == "no calls"
        assert repr(Table([])) == "no calls"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


class TestHtml:
    def test_escaped(self) -> None:
        found = Tags(Table([lazy("<script>", text="<b>&", x=1)])._repr_html_())
        assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
        assert "text='<b>&', x=1" in found.text
        assert "<script>" in found.text

    def test_a_long_text_leaves_room_for_what_follows(self) -> None:
        html = Table([lazy(text="<" * 99)])._repr_html_()
        assert f'<td title="text=&#x27;{"&lt;" * 99}&#x27;">' in html
        assert f"{'&lt;' * 51}...</td>" in html

    def test_no_calls(self) -> None:
        assert Tags(Table([])._repr_html_()).text == "no calls"


class TestPandas:
    def test_one_column_for_each_argument(self) -> None:
        pd = pytest.importorskip("pandas")
        frame = Table([lazy(x=1), lazy(y="a", runtime=None)]).to_pandas()
        assert list(frame["name"]) == ["f", "f"]
        assert frame["arguments.x"][0] == 1
        assert pd.isna(frame["arguments.x"][1])
        assert frame["arguments.y"][1] == "a"
        assert frame["started"][0] == pd.Timestamp("2024-05-01T12:00:00Z")
        assert pd.isna(frame["started"][1])

    def test_values_are_exact(self) -> None:
        """No number is rounded and no type is changed, whatever else is in the column."""
        pytest.importorskip("pandas")
        large, larger = 2**53 + 1, 2**62 + 1
        found: list[Any] = [large, 0.5, None, larger]
        frame = Table([lazy(x=value, result=value) for value in found]).to_pandas()
        for column in ("arguments.x", "result"):
            values = frame[column].tolist()
            assert [(type(value), value) for value in values] == [
                (type(value), value) for value in found
            ]
        assert frame[frame["arguments.x"] == large]["result"].tolist() == [large]

    def test_no_calls(self) -> None:
        pytest.importorskip("pandas")
        assert Table([]).to_pandas().empty

    def test_versions_are_exact(self) -> None:
        """A version stays a whole number beside calls of functions without one."""
        pytest.importorskip("pandas")
        records = [lazy(x=x).record.replace(version=version) for x, version in enumerate((1, None))]
        table = Table([LazyCall(record.key, CallEntry(record), in_memory()) for record in records])
        first, second = table.to_pandas()["version"]
        assert (type(first), first, second) == (int, 1, None)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([1, 2**53 + 1], "int64"),
            ([0.5, math.nan], "float64"),
            ([True, False], "bool"),
            ([1, 0.5], "object"),
            ([True, 1], "object"),
            ([0.5, None], "object"),
            ([2**53 + 1, "a"], "object"),
        ],
    )
    def test_columns_of_one_kind_are_numeric(self, values: list[Any], dtype: str) -> None:
        """Whole numbers alone, floats alone and truth values alone can be computed with."""
        pytest.importorskip("pandas")
        frame = Table([lazy(x=value, y=n) for n, value in enumerate(values)]).to_pandas()
        assert frame["arguments.x"].dtype == dtype

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([1, 2**53 + 1], "Int64"),
            ([0.5, 2.5], "float64"),
            ([True, False], "boolean"),
            ([0.5, math.nan], "object"),
            ([1, None], "object"),
            ([2**63, 1], "object"),
            (["a", "b"], "object"),
        ],
    )
    def test_calls_without_the_argument(self, values: list[Any], dtype: str) -> None:
        """They have a gap, which is neither ``None`` nor the NaN of another call."""
        pd = pytest.importorskip("pandas")
        calls = [in_the_clear(lazy(x=value, y=n), value) for n, value in enumerate(values)]
        column = Table([*calls, lazy("other", y=1)]).to_pandas()["arguments.x"]
        *given, gap = column.tolist()
        assert column.dtype == dtype
        assert [(type(value), repr(value)) for value in given] == [
            (type(value), repr(value)) for value in values
        ]
        assert pd.isna(gap)
        assert gap is not None

    def test_chosen_columns(self) -> None:
        """Each column that is shown is there, and no other."""
        pd = pytest.importorskip("pandas")
        call = lazy(x=1, y=2, user="me")
        metadata = {**call.metadata, "tags": {"study": "eos"}}
        record = call.record.with_metadata(metadata)
        found = [LazyCall(record.key, CallEntry(record), in_memory()), lazy(x=2)]
        chosen = ["x", "study", "runtime.host", "seconds", "user"]
        frame = Table(found, columns=chosen).to_pandas()
        names = ["arguments.x", "study", "runtime.host", "seconds", "arguments.user"]
        assert list(frame.columns) == names
        assert [frame[name][0] for name in names] == [1, "eos", "bigpc", 1.23456, "me"]
        assert pd.isna(frame["study"][1])
        assert list(Table(found, columns="x").to_pandas().columns) == ["arguments.x"]
        several = Table(found, columns=["where", "arguments"]).to_pandas()
        arguments = ["arguments.x", "arguments.y", "arguments.user"]
        assert list(several.columns) == ["user", "host", *arguments]

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the command that mends it."""
        real = builtins.__import__

        def fake(name: str, *args: Any, **options: Any) -> Any:
            if name == "pandas":
                raise ImportError(name)
            return real(name, *args, **options)

        monkeypatch.delitem(sys.modules, "pandas", raising=False)
        monkeypatch.setattr(builtins, "__import__", fake)
        with pytest.raises(MissingExtra, match="pip install pandas"):
            Table([lazy()]).to_pandas()
