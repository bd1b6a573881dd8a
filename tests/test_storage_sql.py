"""Calls in a database: what queries mean, many writers, errors, files of another account."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pickle
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche._redact import redact
from fleche.call import CallEntry, Condition, QueryCall, encode_entry, like, one_of, where
from fleche.digest import digest
from fleche.errors import CorruptParcel, MissingExtra, SignatureError, StorageError
from fleche.storage import _mounts, storage_from_config
from fleche.storage.sql import Sql, _guest, _query, _sqlite
from fleche.testing.corpus import a_record, an_entry, entries, templates
from tests.helpers.permissions import as_somebody
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401
from tests.helpers.storing import delete, entry, get, has, keys, put, take_older, touch
from tests.helpers.sweeps import examples, swept

KEY = digest("key")
OTHER = digest("other")

Make = Callable[[], Sql]


@pytest.fixture(
    params=[
        "memory",
        "file",
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Open the same empty database each time it is called (in memory: another one)."""
    url = {"memory": lambda: None, "file": lambda: str(tmp_path / "calls.db")}
    found = url.get(request.param) or request.getfixturevalue("postgres")
    opened: list[Sql] = []
    place = found()

    def open_it() -> Sql:
        opened.append(Sql(place))
        return opened[-1]

    yield open_it
    for storage in opened:
        storage.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Sql]:
    storage = Sql(tmp_path / "calls.db")
    yield storage
    storage.close()


def a_call(name: str = "f", result: Any = 0, **arguments: Any) -> CallEntry:
    """The entry of a call without parcels."""
    return CallEntry(a_record(name, result, **arguments))


def with_metadata(entry: CallEntry, **fields: Any) -> CallEntry:
    """The same, computed at some place."""
    return entry._replace(record=entry.record.replace(metadata={"run": fields}))


def begun(entry: CallEntry, started: str) -> CallEntry:
    """The same call, begun then."""
    metadata = {"runtime": {"started": started}}
    return CallEntry(entry.record.replace(metadata=metadata), entry.parcels)


def statements_of(storage: Sql, action: Callable[[], Any]) -> tuple[int, int]:
    """How often `action` reads from the database, and how many transactions it makes."""
    database, seen = storage._database, [0, 0]
    real = database.fetch, database.change

    def fetch(*arguments: Any) -> Any:
        seen[0] += 1
        return real[0](*arguments)

    def change(*arguments: Any, **options: Any) -> Any:
        seen[1] += 1
        return real[1](*arguments, **options)

    database.fetch, database.change = fetch, change  # type: ignore[method-assign]
    try:
        action()
    finally:
        del database.fetch, database.change
    return seen[0], seen[1]


def alter(storage: Sql, statement: str, **parameters: Any) -> None:
    """Change what is in the tables behind the storage's back."""
    storage._database.change(lambda connection: connection.execute(statement, parameters))


def rows(storage: Sql, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in storage._database.fetch(statement)]


def index(storage: Sql) -> None:
    """Have all facts written."""
    storage._index.last()


INDEXED = [
    QueryCall.of(name="f"),
    QueryCall.of(name="f*"),
    QueryCall.of(module="m.*"),
    QueryCall.of(code="abcdef"),
    QueryCall.of(result=1),
    QueryCall.of(result=where("=", 1)),
    QueryCall.of(arguments={"x": 1}),
    QueryCall.of(arguments={"x": where(">", 1)}),
    QueryCall.of(arguments={"x": like("ab*")}),
    QueryCall.of(metadata={"run": {"host": "h"}}),
]


def candidates(storage: Sql, template: QueryCall) -> list[Any]:
    """The ids of what the database returns before the last word is spoken."""
    plan = _query.plan_of(template)
    plan, calls, names = storage._with_functions(plan)
    if plan.functions and not names:
        return []
    select = plan.select(calls, storage._first_of(plan, names))
    return storage._database.fetch(select, {**plan.parameters, **names})


class TestQueries:
    @pytest.mark.parametrize("every", swept([False, True], lambda every: not every))
    def test_every_template_means_the_same(self, make: Make, every: bool) -> None:
        """The database and QueryCall.matches() agree on every operator, field and awkward value.

        It makes no difference whether their facts are written already.
        """
        storage, corpus = make(), entries()
        for turn in range(2):
            storage.put_many(list(corpus.items()))
            if turn:
                index(storage)
            for template in templates(every=every):
                expected = sorted(
                    key for key, each in corpus.items() if template.matches(each.record)
                )
                assert sorted(key for key, _ in storage.query(template)) == expected, template

    def test_the_latest_come_first(self, make: Make) -> None:
        """The first of many are those that were stored last."""
        storage = make()
        numbers = list(range(700))
        storage.put_many([(digest(number), a_call(x=number)) for number in numbers])
        found = [each.record.arguments["x"].literal for _, each in storage.query(QueryCall())]
        assert sorted(found) == numbers
        assert sorted(found[:300]) == numbers[400:]
        put(storage, digest("last"), a_call(x=-1))
        assert next(storage.query(QueryCall()))[1] == a_call(x=-1)
        assert next(storage.query(QueryCall.of(name="f")))[1] == a_call(x=-1)

    def test_filters_leave_little_to_the_last_word(self, make: Make) -> None:
        """Each kind of condition is the database's work: what it returns is nearly what matches."""
        storage = make()
        storage.put_many(
            [
                (
                    digest(number),
                    with_metadata(
                        a_call(f"f{number % 10}", x=number, y=f"t{number:03}"), host=f"h{number}"
                    ),
                )
                for number in range(100)
            ]
        )
        index(storage)
        for template, most in [
            (QueryCall.of(name="f1"), 10),
            (QueryCall.of(name="f[12]*"), 0),
            (QueryCall.of(name="?1"), 10),
            (QueryCall.of(arguments={"x": 7}), 1),
            (QueryCall.of(arguments={"x": where("<", 7)}), 8),
            (QueryCall.of(arguments={"x": one_of(1, 2)}), 2),
            (QueryCall.of(arguments={"y": like("t01*")}), 10),
            (QueryCall.of(arguments={"y": where("digest", str(digest("t005"))[:12])}), 1),
            (QueryCall.of(metadata={"run": {"host": "h5"}}), 1),
            (QueryCall.of(name="f5", arguments={"x": 5}, metadata={"run": {"host": "h5"}}), 1),
            (QueryCall.of(code="abcd"), 0),
            (QueryCall.of(version=1), 0),
            (QueryCall.of(result=1), 0),
        ]:
            assert len(candidates(storage, template)) <= most, template

    @pytest.mark.parametrize("template", INDEXED, ids=str)
    def test_queries_use_indexes(self, file: Sql, template: QueryCall) -> None:
        """No condition makes the database read everything there is."""
        record = a_record("f", 1).replace(module="m.n", code="abcdef" + 58 * "0")
        put(file, KEY, CallEntry(record))
        index(file)
        plan = _query.plan_of(template)
        steps = []
        if plan.functions:
            explain = f"EXPLAIN QUERY PLAN {plan.of_functions()}"
            steps += [row[3] for row in file._database.fetch(explain, plan.parameters)]
        plan, calls, _ = file._with_functions(plan)
        select = plan.select(calls, file._first_of(plan, {"f0": 1}))
        last = "f.call" if plan.facts or plan.member else "c.id"
        paged = f"{select} AND {last} < 99 ORDER BY {last} DESC LIMIT 9"
        names = {**plan.parameters, "f0": 1}
        steps += [row[3] for row in file._database.fetch(f"EXPLAIN QUERY PLAN {paged}", names)]
        assert steps
        steps = [step.replace("SCAN TABLE", "SCAN") for step in steps]  # before SQLite 3.36
        few = "SCAN fleche_functions"  # a row for each function, however many calls there are
        scanned = [step for step in steps if step.startswith("SCAN") and not step.startswith(few)]
        assert scanned == [], steps
        assert not [step for step in steps if "(rowid<?)" in step], steps

    @pytest.mark.postgres
    def test_queries_use_indexes_of_postgres(self, postgres: Callable[[], str]) -> None:  # noqa: F811
        """Nor there, where something is known of how the values are spread."""
        storage = Sql(postgres())
        storage.put_many(
            [
                (
                    digest(number),
                    CallEntry(
                        a_record(f"f{number}", number, x=number, y=f"ab{number}").replace(
                            module=f"m.{number}",
                            code=digest(f"code {number}"),
                            metadata={"run": {"host": f"h{number}"}},
                        )
                    ),
                )
                for number in range(1000)
            ]
        )

        def explain(connection: Any, statement: str, names: Any) -> list[str]:
            connection.execute("SET LOCAL enable_seqscan = off")
            found = connection.execute(f"EXPLAIN {statement}", names).fetchall()
            return [row[0] for row in found]

        storage._database.change(lambda connection: connection.execute("ANALYZE"))
        for template in INDEXED:
            plan = _query.plan_of(template)
            statement = plan.of_functions() if plan.functions else plan.select([])
            names = plan.parameters
            steps = storage._database.change(
                lambda connection, s=statement, n=names: explain(connection, s, n)
            )
            assert not [step for step in steps if "Seq Scan on fleche_" in step], (template, steps)
            assert [step for step in steps if "Index Cond" in step], (template, steps)
        storage.close()

    def test_no_statement_for_each_row(self, make: Make) -> None:
        """A query of a thousand calls is a few statements; so are the other batched forms."""
        storage = make()
        corpus = [(digest(number), a_call("f", x=number)) for number in range(1000)]
        wanted = [key for key, _ in corpus]
        storage.put_many(corpus)
        index(storage)
        assert statements_of(storage, lambda: list(storage.query(QueryCall.of(name="f")))) <= (
            10,
            0,
        )
        assert statements_of(storage, lambda: list(storage.get_many(wanted))) == (3, 0)
        assert statements_of(storage, lambda: storage.contains_many(wanted)) == (3, 0)
        assert statements_of(storage, lambda: keys(storage)) <= (3, 0)
        assert statements_of(storage, lambda: storage.put_many(corpus)) == (0, 3)

    def test_one_statement_a_hit_and_one_transaction_a_miss(self, make: Make) -> None:
        """What is small travels with the record, so that nothing else is asked for."""
        storage = make()
        found = an_entry("f", result=[1, 2], x={"a": 1})
        assert statements_of(storage, lambda: put(storage, KEY, found)) == (0, 1)
        assert statements_of(storage, lambda: get(storage, KEY)) == (1, 0)
        assert statements_of(storage, lambda: list(storage.get_many([OTHER]))) == (1, 0)

    def test_the_first_answer_comes_early(self, make: Make) -> None:
        """To take one answer is not to wait for all."""
        storage = make()
        storage.put_many([(digest(number), a_call("f", x=number)) for number in range(1000)])
        index(storage)
        answers = storage.query(QueryCall())
        assert statements_of(storage, lambda: next(answers))[0] <= 4

    def test_no_transaction_while_the_caller_works(self, file: Sql, tmp_path: Path) -> None:
        """Between two answers another process writes without waiting."""
        file.put_many([(digest(number), a_call(x=number)) for number in range(1000)])
        other = Sql(f"sqlite:///{tmp_path}/calls.db?timeout=0.1")
        for answers in (file.query(QueryCall()), file.entries(), file.holders("")):
            next(answers)
            put(other, KEY, a_call())
            with closing(sqlite3.connect(tmp_path / "calls.db")) as raw:
                checkpoint = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert checkpoint[0] == 0, "a reader is in the way"
        other.close()

    def test_damaged_entries(self, file: Sql, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged entry is named by get_many() and skipped by query(), with one warning."""
        file.put_many([(digest(number), a_call(x=number)) for number in range(4)])
        bad = [str(digest(0)), str(digest(1))]
        for key in bad:
            broken = "UPDATE fleche_calls SET entry = :bytes WHERE key = :key"
            alter(file, broken, bytes=encode_entry(OTHER, a_call()), key=key)
        with pytest.raises(CorruptParcel, match=f"calls.db: call {bad[0][:12]}: altered bytes"):
            get(file, digest(0))
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert len(list(file.query(QueryCall()))) == 2
        assert len(caplog.records) == 1


class TestTheNewest:
    """Those calls that began last are found by an index, whatever else is asked of them."""

    @pytest.fixture
    def many(self, make: Make) -> tuple[Sql, dict[str, CallEntry]]:
        """Return a storage of 600 calls, of which most are of one function."""
        corpus: dict[str, CallEntry] = {}
        for number in range(600):
            started = f"2026-01-01T{number * 7 % 24:02}:{number % 60:02}:{number // 60:02}.5+00:00"
            entry = a_call("g" if number % 20 else "f", x=number % 50)
            corpus[digest(number)] = begun(entry, started)
        storage = make()
        storage.put_many(corpus.items())
        index(storage)
        return storage, corpus

    @pytest.mark.parametrize("few", [0, 50, 30_000], ids=["in time", "either", "of those"])
    def test_few_are_read(
        self,
        many: tuple[Sql, dict[str, CallEntry]],
        few: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """However many match, and whichever way they are found."""
        storage, corpus = many
        monkeypatch.setattr("fleche.storage.sql._storage._PROBES", (few, few))
        times = {key: each.record.sort_time for key, each in corpus.items()}
        in_order = sorted(corpus, key=times.__getitem__, reverse=True)
        read: list[str] = []
        opened = storage._rows.opened

        def noting(key: str, data: Any) -> Any:
            read.append(key)
            return opened(key, data)

        monkeypatch.setattr(storage._rows, "opened", noting)
        for template in (
            QueryCall(),
            QueryCall.of(name="f"),
            QueryCall.of(name="?"),
            QueryCall.of(arguments={"x": 7}),
            QueryCall.of(name="g", arguments={"x": where("<", 40)}),
            QueryCall.of(until="2026-01-01T03:00:00+00:00"),
            QueryCall.of(name="h"),
        ):
            read.clear()
            expected = [key for key in in_order if template.matches(corpus[key].record)][:10]
            assert [key for key, _ in storage.newest(template, 10)] == expected, template.text
            assert len(read) <= 25, template.text

    def test_what_was_just_stored(self, file: Sql) -> None:
        """A call counts before its facts are written, in a file that cannot be written too."""
        said = "2026-01-0{}T00:00:00.000000+00:00"
        for day in (3, 1):
            entry = begun(a_call(x=day), said.format(day))
            put(file, digest(day), entry)
        index(file)
        for day in (4, 2):
            entry = begun(a_call(x=day), said.format(day))
            put(file, digest(day), entry)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file._database, "is_ours", lambda: False)
            found = [key for key, _ in file.newest(QueryCall(), 9)]
        assert found == [digest(day) for day in (4, 3, 2, 1)]


class TestHolders:
    @pytest.mark.parametrize("written", [False, True])
    def test_who_holds_what(self, make: Make, written: bool) -> None:
        """Parcels that travel with records, and literals, are found by how a digest begins."""
        storage = make()
        held = an_entry("f", result=[1, 2], x={"a": 1}, n=5)
        put(storage, KEY, held)
        if written:
            index(storage)
        everything = {str(address) for address in held.parcels} | {str(digest(5))}
        assert {str(address) for address, _ in storage.holders("")} == everything
        for address in everything:
            assert list(storage.holders(address)) == [(address, KEY)]
            assert list(storage.holders(address[:8])) == [(address, KEY)]
        assert list(storage.holders("0" * 64)) == []

    def test_replaced(self, make: Make) -> None:
        """An entry that takes another's place is found by what it has, and by nothing else."""
        storage = make()
        put(storage, KEY, an_entry("f", result=[1]))
        index(storage)
        put(storage, KEY, an_entry("f", result=[2]))
        assert [address.digest for address, _ in storage.holders("") if address.variant] == [
            digest([2])
        ]
        delete(storage, KEY)
        assert list(storage.holders("")) == []

    def test_a_place_that_is_used_again(self, make: Make) -> None:
        """Whatever is removed, what is stored afterwards is found."""
        storage = make()
        for turn in range(4):
            storage.put_many(
                [(digest((turn, number)), a_call(x=(number))) for number in range(300)]
            )
            index(storage)
            storage.delete_many([digest((turn, number)) for number in range(20, 300)])
            put(storage, digest(turn), a_call("g", x=turn))
            found = [key for key, _ in storage.query(QueryCall.of(arguments={"x": turn}, name="g"))]
            assert found == [digest(turn)]


LITERALS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
SMALL = LITERALS | st.sampled_from([0, 1, 1.0, True, "a", "A", "ab", "%", "_", 2**53, 2**53 + 1])
PATTERNS = st.text(alphabet="ab*?[]!-%_\\é\0", max_size=6)
CONDITIONS = (
    st.builds(Condition, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), SMALL)
    | st.builds(Condition, st.just("between"), st.tuples(SMALL, SMALL).map(list))
    | st.builds(Condition, st.just("in"), st.lists(SMALL, max_size=4))
    | st.builds(like, PATTERNS)
)


@pytest.fixture(scope="module")
def module_storage() -> Iterator[Sql]:
    storage = Sql()
    yield storage
    storage.close()


@given(
    found=st.lists(st.tuples(st.text(alphabet="abA_%*[é", min_size=1), SMALL, SMALL), max_size=5),
    name=st.none() | PATTERNS,
    argument=st.none() | CONDITIONS,
    field=st.none() | CONDITIONS,
    written=st.booleans(),
)
@examples(1.5)
def test_any_query_means_the_same(
    module_storage: Sql, found: list[Any], name: Any, argument: Any, field: Any, written: bool
) -> None:
    """Whatever the records and the template, the database and QueryCall.matches() agree."""
    module_storage.delete_many(keys(module_storage))
    corpus = {
        digest(number): with_metadata(a_call(text, x=x), field=y)
        for number, (text, x, y) in enumerate(found)
    }
    module_storage.put_many(list(corpus.items()))
    if written:
        index(module_storage)
    template = QueryCall(
        name=name,
        arguments={} if argument is None else {"x": argument},
        metadata={} if field is None else {"run": {"field": field}},
    )
    expected = sorted(key for key, each in corpus.items() if template.matches(each.record))
    assert sorted(key for key, _ in module_storage.query(template)) == expected
    assert sorted(key for key, _ in module_storage.newest(template, 9)) == expected


class TestRecords:
    def test_replacing(self, make: Make) -> None:
        """Putting a key again renews it and replaces everything else."""
        storage = make()
        put(storage, KEY, with_metadata(a_call("f", x=1, y=2), a=1, b=2))
        index(storage)
        before = entry(storage, KEY)
        put(storage, KEY, a_call("g", x=3))
        assert entry(storage, KEY).modified > before.modified
        fields = rows(
            storage,
            "SELECT field, number FROM fleche_facts WHERE field <> 'function' ORDER BY field",
        )
        assert fields == [("argument/x", 3.0), ("result", 0.0)]
        assert list(storage.query(QueryCall.of(name="f"))) == []
        assert list(storage.query(QueryCall.of(name="g"))) == [(KEY, a_call("g", x=3))]

    @pytest.mark.parametrize("together", [True, False])
    def test_of_many_calls_those_in_front_can_be_searched(self, file: Sql, together: bool) -> None:
        """What calls are searched by is written in time, for thousands at once, if no query asks.

        A reader who may not write has few of them to look through then.
        """
        one = a_call(x=1)
        file.put_many([(digest(number), one) for number in range(9_900)])
        assert rows(file, "SELECT count(*) FROM fleche_facts") == [(0,)]
        rest = [(digest(number), one) for number in range(9_900, 10_600)]
        for batch in [rest] if together else [[each] for each in rest]:
            file.put_many(batch)
        ((facts, calls),) = rows(file, "SELECT count(*), count(DISTINCT call) FROM fleche_facts")
        assert calls >= 10_000
        assert facts == 3 * calls  # the function, the argument, the result
        found = file.query(QueryCall.of(arguments={"x": 1}), keys_only=True)
        assert sum(1 for _ in found) == 10_600

    def test_deleting_takes_everything_along(self, make: Make) -> None:
        """No row of a deleted record stays but that of its function."""
        storage = make()
        for key in (KEY, OTHER):
            put(storage, key, with_metadata(a_call(x=1), a=1))
        index(storage)
        delete(storage, KEY)
        assert take_older(storage, OTHER, time.time() + 10)
        for table in ("calls", "facts"):
            assert rows(storage, f"SELECT * FROM fleche_{table}") == []

    def test_a_batch_is_all_or_nothing(self, make: Make) -> None:
        """What breaks off in the middle leaves the database as it was."""
        storage = make()
        put(storage, KEY, a_call("old"))
        real = storage._database.change

        def failing(work: Any, **options: Any) -> Any:
            def half(connection: Any) -> Any:
                work(connection)
                raise OSError("the cable was pulled")

            return real(half, **options)

        storage._database.change = failing  # type: ignore[method-assign]
        try:
            with pytest.raises(StorageError, match="cannot write: the cable was pulled"):
                storage.put_many([(KEY, a_call("new")), (OTHER, a_call("new"))])
        finally:
            del storage._database.change
        assert get(storage, KEY) == a_call("old")
        assert not has(storage, OTHER)

    def test_items_that_are_made_on_the_way(self, make: Make) -> None:
        """The caller's code runs outside of every transaction, and may use the storage."""
        storage = make()

        def items() -> Iterator[tuple[str, CallEntry]]:
            for number in range(900):
                assert not has(storage, digest(("other", number)))
                yield digest(number), a_call(x=number)

        storage.put_many(items())
        assert len(keys(storage)) == 900

    def test_the_entry_is_the_truth(self, make: Make) -> None:
        """What is too long or too strange for a column is in the entry all the same."""
        storage = make()
        record = a_record("n" * 3000, **{"a\0" * 300: 1}, x="a\0b").replace(
            module="m\0", metadata={"tags": {"long": "x" * 10_000, "k" * 5000: 1, "nul": "\0"}}
        )
        put(storage, KEY, CallEntry(record))
        index(storage)
        assert get(storage, KEY) == CallEntry(record)
        wanted = QueryCall.of(metadata={"tags": {"long": "x" * 10_000}}, name="n" * 3000)
        assert [key for key, _ in storage.query(wanted)] == [KEY]
        assert [address for address, _ in storage.holders(digest(1))] == [digest(1)]

    def test_people_can_read_the_tables(self, file: Sql, tmp_path: Path) -> None:
        """Any SQL client shows names, arguments, results and metadata."""
        put(file, KEY, with_metadata(a_call("f", 5, x=3), host="h"))
        index(file)
        file.close()
        with closing(sqlite3.connect(tmp_path / "calls.db")) as connection:
            query = (
                "SELECT n.name, n.module, f.field, f.number, f.text FROM fleche_calls c"
                " JOIN fleche_functions n ON n.id = c.function"
                " JOIN fleche_facts f ON f.call = c.id ORDER BY f.field"
            )
            found = connection.execute(query).fetchall()
        assert found == [
            ("f", "m", "argument/x", 3.0, None),
            ("f", "m", "function", 1.0, None),
            ("f", "m", "metadata/run/host", None, "h"),
            ("f", "m", "result", 5.0, None),
        ]


class TestSeals:
    """Every entry has a checksum and, where there are secrets, a signature."""

    def test_columns_to_search_by_are_not_believed(self, make: Make) -> None:
        """What a query finds is what the sealed record says, whatever stands beside it."""
        storage = make()
        put(storage, KEY, a_call("f", 5, x=3))
        index(storage)
        alter(storage, "UPDATE fleche_functions SET name = 'g'")
        alter(storage, "UPDATE fleche_facts SET number = 4.0")
        assert get(storage, KEY) == a_call("f", 5, x=3)
        for wanted in ({"name": "g"}, {"arguments": {"x": 4}}, {"result": where("=", 4)}):
            assert list(storage.query(QueryCall.of(**wanted))) == []

    def test_altered(self, make: Make) -> None:
        storage = make()
        put(storage, KEY, a_call())
        for data in (b"", b"\xc1", encode_entry(KEY, a_call())[:-1]):
            alter(storage, "UPDATE fleche_calls SET entry = :data", data=data)
            with pytest.raises(CorruptParcel, match=f"call {KEY[:12]}"):
                get(storage, KEY)

    def test_what_may_stand_in_a_damaged_row(
        self, file: Sql, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """SQLite keeps anything in any column: of that, nothing is taken for what it is not."""
        file.put_many([(digest(number), a_call("f", x=number)) for number in range(6)])
        all_keys = [str(digest(number)) for number in range(6)]
        with closing(sqlite3.connect(tmp_path / "calls.db")) as raw, raw:
            change = "UPDATE fleche_calls SET {} = {} WHERE key = ?"
            raw.execute(change.format("key", "x'ff00'"), all_keys[:1])
            raw.execute(change.format("key", "CAST(x'6162ff64' AS TEXT)"), all_keys[1:2])
            raw.execute(change.format("entry", "1e12"), all_keys[2:3])
            raw.execute(change.format("entry", "CAST(x'ff' AS TEXT)"), all_keys[3:4])
            raw.execute(change.format("modified", "'yesterday'"), all_keys[4:5])
        assert sorted(keys(file)) == sorted(all_keys[2:])
        assert "whose key is damaged" in caplog.text
        for key in all_keys[2:4]:
            with pytest.raises(CorruptParcel):
                get(file, key)
        assert abs(entry(file, all_keys[4]).modified - time.time()) < 60
        assert sorted(key for key, _ in file.query(QueryCall())) == sorted(all_keys[4:])

    def test_rows_in_disorder(self, file: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where pages do not lead on, it ends with an error and not never."""
        for size in ("_FIRST_PAGE", "_LARGEST_PAGE"):
            monkeypatch.setattr(f"fleche.storage.sql._rows.{size}", 2)
        put(file, KEY, a_call())
        row = (1, KEY, 100, 1.0)
        for page in ([row, row], [("x", KEY, 100, 1.0), row]):
            monkeypatch.setattr(file._database, "fetch", lambda *_, page=page: page)
            with pytest.raises(StorageError, match=r"rows in disorder .the database is damaged"):
                keys(file)
        for page in ([("b", 1), ("b", 1)], [("a", 1), ("b", 2)], [(b"b", 1)], [("b", None)]):
            monkeypatch.setattr(file._database, "fetch", lambda *_, page=page: page)
            with pytest.raises(StorageError, match=r"rows in disorder .the database is damaged"):
                list(file._rows.latest("", {}))

    def test_under_another_key(self, file: Sql, tmp_path: Path) -> None:
        """An entry that is put in another's place does not pass for it, signed or not."""
        signed = Sql(tmp_path / "signed.db", secret_key="ours")
        for storage in (file, signed):
            storage.put_many([(KEY, a_call("one")), (OTHER, a_call("two"))])
            alter(
                storage,
                "UPDATE fleche_calls SET entry = (SELECT entry FROM fleche_calls WHERE key = :key)"
                " WHERE key = :other",
                key=str(KEY),
                other=str(OTHER),
            )
            with pytest.raises(CorruptParcel, match="another call's"):
                get(storage, OTHER)
            assert [key for key, _ in storage.query(QueryCall())] == [KEY]
        signed.close()

    def test_secrets(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The first secret signs, all of them are accepted, and no other."""
        place = tmp_path / "calls.db"
        old, new, both, foreign, none = (
            Sql(place, secret_key=keys)
            for keys in ("old", "new", ["new", "old"], ["foreign"], None)
        )
        put(old, KEY, a_call("old"))
        put(both, OTHER, a_call("new"))
        for reader in (both, none):
            assert get(reader, KEY) == a_call("old")
            assert get(reader, OTHER) == a_call("new")
        assert get(new, OTHER) == a_call("new")
        with pytest.raises(SignatureError, match=f"call {KEY[:12]}: signed by a key that is not"):
            get(new, KEY)
        put(none, KEY, a_call("unsigned"))
        for refusing in (old, both, foreign):
            with pytest.raises(SignatureError):
                get(refusing, KEY)
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert list(foreign.query(QueryCall())) == []
        assert len(caplog.records) == 1
        assert [key for key, _ in both.query(QueryCall())] == [OTHER]
        for storage in (old, new, both, foreign, none):
            storage.close()

    def test_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = Sql(tmp_path / "calls.db")
        put(plain, KEY, a_call())
        monkeypatch.setenv("FLECHE_SECRET_KEY", "new,old")
        signed = Sql(tmp_path / "calls.db")
        with pytest.raises(SignatureError, match="not signed"):
            get(signed, KEY)
        put(signed, KEY, a_call())
        new = Sql(tmp_path / "calls.db", secret_key="new")
        assert get(new, KEY) == a_call()
        for storage in (plain, signed, new):
            storage.close()

    def test_in_the_configuration(self, tmp_path: Path) -> None:
        """Secrets are part of it, and travel with a pickle, but are shown nowhere."""
        url = str(tmp_path / "calls.db")
        storage = Sql(url, secret_key=["new", "old"])
        table = {"type": "sql", "url": url, "secret_key": ["new", "old"]}
        assert storage.to_config() == table
        again = storage_from_config(table, "calls")
        assert again.to_config() == pickle.loads(pickle.dumps(storage)).to_config() == table
        assert "new" not in repr(storage)
        assert redact(table)["secret_key"] == ["***", "***"]
        assert Sql(url).to_config() == {"type": "sql", "url": url}
        for wrong in ("", ["good", ""]):
            with pytest.raises(ValueError, match="an empty secret signs nothing"):
                Sql(url, secret_key=wrong)


class TestWhere:
    @pytest.mark.parametrize("url", ["$SCRATCH/calls.db", "sqlite:///${SCRATCH}/calls.db"])
    def test_variables_are_expanded(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in the paths of all other storages, in code and in a configuration."""
        monkeypatch.setenv("SCRATCH", str(tmp_path))
        for storage in (Sql(url), storage_from_config({"type": "sql", "url": url}, "calls")):
            put(storage, KEY, a_call())
            storage.close()
            assert storage.to_config()["url"].endswith(f"{tmp_path}/calls.db")

    @pytest.mark.parametrize("url", ["~/a b/calls.db", "sqlite:///~/a b/calls.db"])
    def test_home_is_expanded(self, url: str, tmp_home: Path) -> None:
        """``~`` works in a path and in a url; the directory is made."""
        storage = Sql(url)
        put(storage, KEY, a_call())
        storage.close()
        assert (tmp_home / "a b" / "calls.db").exists()
        again = storage_from_config(storage.to_config(), "calls")
        assert has(again, KEY)
        again.close()

    @pytest.mark.parametrize("url", ["sub/calls.db", "sqlite:///sub/calls.db"])
    def test_relative_paths(self, url: str, tmp_path: Path) -> None:
        """They are relative to the file that declares them, and absolute in the configuration."""
        table = {"type": "sql", "url": url}
        storage = storage_from_config(table, "calls", lambda path: str(tmp_path / path))
        assert str(tmp_path / "sub" / "calls.db") in storage.to_config()["url"]
        put(storage, KEY, a_call())
        storage.close()
        assert (tmp_path / "sub" / "calls.db").exists()
        assert str(Path.cwd() / "sub") in Sql(url).to_config()["url"]

    @pytest.mark.parametrize("url", [None, "sqlite://", "sqlite:///:memory:"])
    def test_in_memory(self, url: str | None, no_leaks: None) -> None:
        """Without a place, the database is this object's own, shared by all threads."""
        storage = Sql(url)
        thread = threading.Thread(target=put, args=(storage, KEY, a_call()))
        thread.start()
        thread.join()
        assert has(storage, KEY)
        assert not has(Sql(url), KEY)
        assert not storage.capabilities.persistent
        assert storage.to_config() == {"type": "sql"} | ({} if url is None else {"url": url})
        storage.close()
        assert not has(storage, KEY)
        storage.close()

    def test_passwords_are_not_shown(self) -> None:
        """The configuration has the url as given; what people see has not."""
        url = "postgresql+psycopg://me:secret@127.0.0.1:9/db?sslpassword=hidden"
        storage = Sql(url)
        assert storage.to_config() == {"type": "sql", "url": url}
        with pytest.raises(StorageError) as caught:
            get(storage, KEY)
        for shown in (repr(storage), str(caught.value)):
            assert "secret" not in shown
            assert "hidden" not in shown
            assert "127.0.0.1:9" in shown
        assert repr(Sql()) == "Sql()"

    def test_pickles_as_its_configuration(self, file: Sql) -> None:
        """Another process that receives the storage opens connections of its own."""
        put(file, KEY, a_call())
        again = pickle.loads(pickle.dumps(file))
        assert get(again, KEY) == a_call()
        again.close()

    @pytest.mark.parametrize("indexed", [False, True])
    def test_queries_of_readers(self, file: Sql, tmp_path: Path, indexed: bool) -> None:
        """What has no facts yet is found by any condition where facts cannot be written."""
        for number in range(3):
            put(file, digest(number), a_call(f"f{number}", x=number))
        if indexed:
            index(file)
            put(file, digest(3), a_call("f1", x=3))
        reader = Sql(f"sqlite:///file:{tmp_path}/calls.db?mode=ro&uri=true")
        for wanted, most in (
            ({"name": "f1"}, {1, 3}),
            ({"name": "f*"}, {0, 1, 2, 3}),
            ({"name": "f1", "arguments": {"x": 1}}, {1}),
            ({"name": "f1", "arguments": {"x": 3}}, {3}),
        ):
            found = [
                each.record.arguments["x"].literal
                for _, each in reader.query(QueryCall.of(**wanted))
            ]
            assert sorted(found) == sorted(most if indexed else most - {3}), wanted
        reader.close()

    def test_open_to_be_read_only(self, tmp_path: Path) -> None:
        """A url may say how SQLite opens its file."""
        put(Sql(tmp_path / "c.db"), KEY, a_call())
        storage = Sql(f"sqlite:///file:{tmp_path}/c.db?mode=ro&uri=true")
        assert get(storage, KEY) == a_call()
        assert touch(storage, KEY)
        with pytest.raises(StorageError, match="set read_only = true"):
            put(storage, KEY, a_call())
        storage.close()

    def test_a_directory_that_may_not_be_entered(self) -> None:
        """That is said of a save as of a look-up, and of a name that is too long, too."""
        with tempfile.TemporaryDirectory() as place:  # it belongs to who runs the tests alone
            Path(place).chmod(0)
            with as_somebody(), closing(Sql(Path(place) / "c.db")) as storage:
                with pytest.raises(
                    StorageError, match=r"c\.db: cannot write: Permission denied \(ask"
                ):
                    put(storage, KEY, a_call())
                with pytest.raises(
                    StorageError, match=r"c\.db: cannot read: Permission denied \(ask"
                ):
                    get(storage, KEY)
                assert not storage.is_there()
            Path(place).chmod(0o700)
            with (
                closing(Sql(Path(place) / ("x" * 300))) as storage,
                pytest.raises(StorageError, match="cannot write: File name too long"),
            ):
                put(storage, KEY, a_call())

    def test_a_directory_that_may_only_be_read(self) -> None:
        """A database of another account is read, with no file of SQLite's own beside it."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "c #1.db"
            mine = Sql(path)
            put(mine, KEY, a_call())
            mine.close()
            Path(place).chmod(0o555)
            path.chmod(0o444)
            with as_somebody():
                storage = Sql(path)
                assert get(storage, KEY) == a_call()
                assert [key for key, _ in storage.query(QueryCall())] == [KEY]
                assert touch(storage, KEY)
                with pytest.raises(StorageError, match="set read_only = true"):
                    put(storage, KEY, a_call())
                storage.close()
            names = sorted(found.name for found in Path(place).iterdir())
            assert names == ["c #1.db", "c #1.db-reserve"]
            Path(place).chmod(0o755)

    @pytest.mark.parametrize(
        "url", ["mysql+pymysql://me:secret@host/db", "mariadb://host/db", "oracle://host/db"]
    )
    def test_other_databases_are_refused_by_name(self, url: str) -> None:
        """At once, with what there is instead; nothing is called damaged, no password is shown."""
        with pytest.raises(StorageError, match="cannot keep calls; use PostgreSQL") as caught:
            Sql(url)
        assert url.partition("+")[0].partition(":")[0] in str(caught.value).lower()
        assert "secret" not in str(caught.value)
        assert "damaged" not in str(caught.value)

    @pytest.mark.parametrize("url", ["sqlite:calls.db", "sqlite:/calls.db"])
    def test_too_few_slashes(self, url: str) -> None:
        """It is no path: no file called `sqlite:calls.db` is ever made."""
        with pytest.raises(StorageError, match="has three slashes"):
            Sql(url)

    @pytest.mark.parametrize("name", ["postgres", "postgresql", "postgres+psycopg"])
    def test_names_of_postgresql(self, name: str) -> None:
        """The short one is widespread, and means the same."""
        pytest.importorskip("psycopg")
        with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
            get(Sql(f"{name}://me:secret@127.0.0.1:1/db"), KEY)
        assert "plugin" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_an_option_that_is_not_known(self) -> None:
        with pytest.raises(StorageError, match="unknown option 'vfs'"):
            Sql("sqlite:////tmp/c.db?vfs=unix-none")

    def test_sqlite_needs_no_package(self, tmp_path: Path) -> None:
        """Neither a path nor an SQLite url imports SQLAlchemy."""
        script = (
            "import sys; from fleche.storage.sql import Sql\n"
            "for url in (None, sys.argv[1], 'sqlite:///' + sys.argv[1]):\n"
            "    storage = Sql(url); list(storage.entries()); storage.close()\n"
            "assert 'sqlalchemy' not in sys.modules"
        )
        place = str(tmp_path / "c.db")
        subprocess.run([sys.executable, "-c", script, place], check=True)

    def test_a_look_makes_nothing(self, tmp_path: Path) -> None:
        """Where there is no database, there are no calls, and still no database afterwards."""
        storage = Sql(tmp_path / "sub" / "calls.db")
        assert not has(storage, KEY)
        assert list(storage.query(QueryCall())) == list(storage.entries()) == []
        assert list(storage.holders("")) == []
        storage.delete_many([KEY])
        assert storage.touch_many([KEY]) == storage.delete_older({KEY: 1e12}) == set()
        assert list(tmp_path.glob("sub")) == []


KILLED = """
import os, sys
from fleche.digest import digest
from fleche.storage.sql import Sql
from fleche.testing.corpus import an_entry
storage = Sql(sys.argv[1])
for number in range(20):
    storage.put_many([(digest(number), an_entry(x=number))])
os.kill(os.getpid(), 9)
"""


SAVED = """
import sys
from fleche.digest import digest
from fleche.storage.sql import Sql
from fleche.testing.corpus import an_entry
storage = Sql(sys.argv[1])
storage.put_many([(digest("of another process"), an_entry())])
storage.close()
"""


class TestOfSomebodyElse:
    """A database that the reader may not write to, or not beside."""

    @pytest.fixture
    def path(self) -> Iterator[Path]:
        """One with a call in it, whose owner is away."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "calls #1.db"
            self.write(path, KEY)
            Path(place).chmod(0o555)
            path.chmod(0o444)
            yield path
            Path(place).chmod(0o755)

    @pytest.fixture
    def writer(self, file: Sql) -> Sql:
        """A storage of this process, with a call in it."""
        put(file, KEY, a_call())
        return file

    def write(self, path: Path, *keys: str) -> None:
        """Come as the owner, write, and go."""
        owner = Sql(path)
        owner.put_many([(key, a_call()) for key in keys])
        owner.close()

    def beside(self, path: Path) -> set[str]:
        return {found.name for found in path.parent.iterdir()} - {f"{path.name}-reserve"}

    def test_nothing_is_left_behind(self, path: Path) -> None:
        """It is read, with no file of SQLite's own beside it; it cannot be written."""
        with as_somebody():
            reader = Sql(path)
            assert get(reader, KEY) == a_call()
            assert [key for key, _ in reader.query(QueryCall())] == [KEY]
            assert touch(reader, KEY)
            assert self.beside(path) == {path.name}
            with pytest.raises(StorageError, match="set read_only = true"):
                put(reader, KEY, a_call())
            reader.close()
        assert self.beside(path) == {path.name}

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    def test_the_owner_comes_and_goes(self, path: Path) -> None:
        """What is there is seen each time, however the file was opened before."""
        with as_somebody():
            reader = Sql(path)
            assert keys(reader) == [KEY]
        owner = Sql(path)
        owner.put_many([(digest(number), a_call()) for number in range(500)])
        with as_somebody():
            assert len(keys(reader)) == len(keys(Sql(path))) == 501
        owner.close()
        self.write(path, OTHER)
        with as_somebody():
            assert len(keys(reader)) == 502
            reader.close()
        assert self.beside(path) == {path.name}

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    @pytest.mark.parametrize("index", ["whole", "empty", "gone"])
    def test_the_owner_was_killed(self, path: Path, index: str) -> None:
        """What is only in the log that was left behind is seen, and the log stays the owner's."""
        command = [sys.executable, "-c", KILLED, str(path)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert path.with_name(f"{path.name}-wal").stat().st_size
        if index == "empty":
            path.with_name(f"{path.name}-shm").write_bytes(b"")
        elif index == "gone":
            path.with_name(f"{path.name}-shm").unlink()
        left = {name: (path.parent / name).read_bytes() for name in self.beside(path)}
        with as_somebody():
            reader = Sql(path)
            seen = keys(reader)
            assert sorted(seen) == sorted([KEY, *(digest(number) for number in range(20))])
            reader.close()
        now = {name: (path.parent / name).read_bytes() for name in self.beside(path)}
        log = f"{path.name}-wal"
        assert now.keys() == left.keys()
        assert now[log] == left[log]
        assert sorted(keys(Sql(path))) == sorted(seen)

    @pytest.mark.parametrize("log", ["empty", "not to be read"])
    def test_a_look_leaves_the_locks_of_the_process(
        self, writer: Sql, tmp_path: Path, log: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or another process that closes the file removes the log to which this one writes."""
        path = tmp_path / "calls.db"
        if log == "empty":  # as on a full disk
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            monkeypatch.setattr(_guest, "read_only", lambda _: "file:/nowhere/x?mode=ro")
        reader = Sql(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
        assert has(reader, KEY)
        reader.close()
        subprocess.run([sys.executable, "-c", SAVED, str(path)], check=True)
        put(writer, OTHER, a_call())
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT key FROM fleche_calls").fetchall()
        assert {key for (key,) in found} == {KEY, OTHER, digest("of another process")}

    @pytest.mark.parametrize("trouble", ["full", "no directory"])
    def test_no_room_for_a_copy(
        self, writer: Sql, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there is none for temporary files, the error names that place, not the file."""
        path = tmp_path / "calls.db"
        monkeypatch.setattr(_guest, "read_only", lambda _: "file:/nowhere/x?mode=ro")
        if trouble == "full":

            def copy(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(_guest.shutil, "copyfile", copy)
        else:
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        reader = Sql(f"sqlite:///{path}?mode=ro")
        with pytest.raises(StorageError, match="temporary files") as caught:
            has(reader, KEY)
        assert not str(caught.value).startswith(str(path))
        assert "ask its owner" not in str(caught.value)

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    @pytest.mark.parametrize("stays", [True, False])
    def test_the_owner_comes_during_a_look(
        self, path: Path, stays: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look at a file that changes is worth nothing, whatever came of it: it is repeated."""
        real, owners, looks = _guest.immutable, [], []

        def immutable(place: Path) -> str:
            looks.append(place)
            if len(looks) == 1:
                os.seteuid(0)
                owner = Sql(path)
                put(owner, OTHER, a_call())
                owners.append(owner)
                if not stays:
                    owner.close()
                os.seteuid(65534)
            return real(place)

        monkeypatch.setattr(_guest, "immutable", immutable)
        with as_somebody():
            reader = Sql(path)
            assert has(reader, OTHER)
            reader.close()
        assert len(looks) == (1 if stays else 2)
        owners[0].close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    def test_what_may_not_be_read(self, path: Path) -> None:
        path.chmod(0o600)
        with as_somebody(), pytest.raises(StorageError, match=r"denied \(ask its owner"):
            get(Sql(path), KEY)

    def test_always_disturbed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where another process is always in the way, that is said, and not that it is damaged."""
        stamps = iter(range(1000))
        monkeypatch.setattr(_guest, "settled_stamp_of", lambda _: (next(stamps),))
        monkeypatch.setattr(_guest, "stamp_of", lambda _: (next(stamps),))
        reader = Sql(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
        with pytest.raises(StorageError, match="another process writes to it"):
            get(reader, KEY)

    def test_the_log_goes_with_the_owner(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the look for it and the opening, which then fails."""
        real, answers = _guest.is_written_to, [True]

        def is_written_to(path: Path) -> bool:
            return answers.pop() if answers else real(path)

        monkeypatch.setattr(_guest, "is_written_to", is_written_to)
        with as_somebody():
            reader = Sql(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
            assert has(reader, KEY)
            reader.close()
        assert answers == []

    def test_without_a_log(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file with SQLite's own journal is read with its locks, as anywhere."""
        with as_root():
            path.parent.chmod(0o755)
            path.chmod(0o644)
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        monkeypatch.setattr(_guest, "immutable", None)
        reader = Sql(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
        assert has(reader, KEY)
        reader.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    @pytest.mark.parametrize("filled", [False, True])
    def test_a_log_of_somebody_else(self, path: Path, filled: bool) -> None:
        """Where it keeps the owner from writing, it is named, with its owner and the cure."""
        path.parent.chmod(0o755)
        path.chmod(0o666)
        log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
        if filled:
            foreign = Sql(path)
            put(foreign, OTHER, a_call())
        else:
            log.touch()
            index.touch()
        for side in (log, index):
            side.chmod(0o644)
        with as_somebody():
            with pytest.raises(StorageError, match="belongs to root and may not be") as caught:
                put(Sql(path), KEY, a_call())
            said = str(caught.value)
        assert "read_only" not in said
        if filled:
            assert "chmod g+w" in said
            foreign.close()
        else:
            assert f"remove {path.name}-wal and {path.name}-shm" in said

    @pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
    def test_the_mode_is_what_the_umask_gives(self, tmp_path: Path, umask: int, mode: int) -> None:
        """A group that shares a directory shares the database, with everything beside it."""
        before = os.umask(umask)
        try:
            storage = Sql(tmp_path / "shared" / "calls.db")
            put(storage, KEY, a_call())
            found = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("shared/*")}
            storage.close()
        finally:
            os.umask(before)
        assert len(found) == 4
        assert set(found.values()) == {mode}


@contextmanager
def as_root() -> Iterator[None]:
    """Who owns the file in the fixture, whatever was played before."""
    yield


class TestErrors:
    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """SQLite's own words, the path, and what to do."""
        (tmp_path / "c.db").write_text("hello " * 1000)
        with pytest.raises(StorageError) as caught:
            get(Sql(tmp_path / "c.db"), KEY)
        assert str(tmp_path / "c.db") in str(caught.value)
        assert "move it away" in str(caught.value)

    def test_a_place_that_cannot_be(self, tmp_path: Path) -> None:
        """A directory that cannot be made is named."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            put(Sql(tmp_path / "file" / "c.db"), KEY, a_call())

    def test_no_url(self) -> None:
        """What is no url is said so at once, without repeating a password."""
        with pytest.raises(StorageError, match="not a database url") as caught:
            Sql("postgresql//x://me:secret@host")
        assert "secret" not in str(caught.value)

    def test_a_missing_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A driver that is not installed is named with its command."""
        monkeypatch.setitem(sys.modules, "pg8000", None)  # type: ignore[arg-type]
        with pytest.raises(MissingExtra, match="pip install pg8000"):
            get(Sql("postgresql+pg8000://host/db"), KEY)

    def test_a_missing_sqlalchemy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only a server needs it, and says so at once."""
        monkeypatch.setitem(sys.modules, "sqlalchemy", None)
        monkeypatch.delitem(sys.modules, "fleche.storage.sql._server", raising=False)
        with pytest.raises(MissingExtra, match=r"pip install sqlalchemy"):
            Sql("postgresql+psycopg://host/db")
        monkeypatch.delitem(sys.modules, "fleche.storage.sql._server", raising=False)

    def test_a_database_that_stays_locked(self, file: Sql, tmp_path: Path) -> None:
        """A process that holds a lock for too long is blamed for it."""
        put(file, KEY, a_call())
        impatient = Sql(f"sqlite:///{tmp_path}/calls.db?timeout=0.1")

        def meanwhile(_connection: Any) -> None:
            with pytest.raises(StorageError, match="another process has been writing"):
                put(impatient, KEY, a_call())
            assert get(impatient, KEY) == a_call()

        file._database.change(meanwhile)
        impatient.close()

    def test_an_sqlite_that_is_too_old(self, file: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is named, with what would do."""
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 17))
        with pytest.raises(StorageError, match=r"is too old, 3\.24\.0 is the oldest"):
            put(file, KEY, a_call())

    def test_a_server_that_is_not_there(self) -> None:
        """An unreachable server is no miss."""
        with pytest.raises(StorageError, match="check the host"):
            has(Sql("postgresql+psycopg://me@127.0.0.1:9/db"), KEY)


class TestSqlite:
    def test_readers_do_not_wait(self, file: Sql) -> None:
        """On a local file system SQLite keeps a write-ahead log."""
        put(file, KEY, a_call())
        other = Sql(file.to_config()["url"])

        def meanwhile(_connection: Any) -> None:
            assert get(other, KEY) == a_call()

        file._database.change(meanwhile)
        assert rows(file, "PRAGMA journal_mode") == [("wal",)]
        other.close()

    def test_no_log_on_a_network_file_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There it would lose data, so SQLite's own journal stays; one warning says so."""
        monkeypatch.setattr(_sqlite, "is_local", lambda _path: False)
        storage = Sql(tmp_path / "c.db")
        with pytest.warns(UserWarning, match='on a network file system .* type = "ssh"'):
            put(storage, KEY, a_call())
        storage.close()
        put(storage, OTHER, a_call())  # a second warning would be an error
        assert rows(storage, "PRAGMA journal_mode") == [("delete",)]
        assert not list(tmp_path.glob("*-wal"))
        for key, _ in storage.query(QueryCall()):
            delete(storage, key)
        assert not has(storage, KEY)
        storage.close()

    def test_a_log_is_given_up_on_a_network_file_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that had one on the disk of its machine goes on without."""
        storage = Sql(tmp_path / "c.db")
        put(storage, KEY, a_call())
        storage.close()
        monkeypatch.setattr(_sqlite, "is_local", lambda _path: False)
        again = Sql(tmp_path / "c.db")
        with pytest.warns(UserWarning, match="on a network file system"):
            assert has(again, KEY)
        assert rows(again, "PRAGMA journal_mode") == [("delete",)]
        again.close()

    @pytest.mark.parametrize(
        ("mounts", "path", "local"),
        [
            ("/dev/a / ext4 rw 0 0\nhost:/x /net/home nfs4 rw 0 0\n", "/net/home/me/c", False),
            ("/dev/a / ext4 rw 0 0\nhost:/x /net/home nfs4 rw 0 0\n", "/net/homes/c", True),
            ("x / overlay rw 0 0\nx /m\\040y fuse.sshfs rw 0 0\n", "/m y/c", False),
            ("x / overlay rw 0 0\nx /m\\134y\\011z nfs4 rw 0 0\n", "/m\\y\tz/c", False),
            ("x / overlay rw 0 0\n/run/host_mark/x /app fakeowner rw 0 0\n", "/app/c", False),
            ("x / overlay rw 0 0\nshare /app virtiofs rw 0 0\n", "/app/c", False),
            ("", "/c", True),
        ],
    )
    def test_local_file_systems(
        self, mounts: str, path: str, local: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file system is that of the nearest mount point."""
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
        assert _mounts.is_local(Path(path)) is local

    def test_elsewhere_every_file_system_is_taken_for_local(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the mounts are not known, as on FreeBSD."""

        def fail(*_: Any, **__: Any) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(Path, "read_text", fail)
        assert _mounts.is_local(Path("/x"))

    @pytest.mark.parametrize("intel", [False, True])
    def test_on_a_mac(self, monkeypatch: pytest.MonkeyPatch, intel: bool) -> None:
        """The flags of the file system say it, of what is there or is still to be made."""
        local = 0x1000  # MNT_LOCAL

        def statfs(path: bytes, found: Any) -> int:
            if path.endswith(b"new"):
                return -1
            flags = 0 if path.startswith(b"/Volumes/nas") else local
            struct.pack_into("=64xII16s1024s", found, 0, flags | 1, 0, b"smbfs", b"/Volumes/nas")
            return 0

        old = SimpleNamespace() if intel else SimpleNamespace(statfs=statfs)
        if intel:
            setattr(old, "statfs$INODE64", statfs)
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(ctypes, "CDLL", lambda _: old)
        assert not _mounts.is_local(Path("/Volumes/nas/new/new"))
        assert _mounts.is_local(Path("/Volumes/disk/new"))

    @pytest.mark.parametrize("lacking", ["ctypes", "statfs", "what it was"])
    def test_on_a_mac_that_does_not_tell(
        self, monkeypatch: pytest.MonkeyPatch, lacking: str
    ) -> None:
        """Every file system is taken for local."""
        monkeypatch.setattr(sys, "platform", "darwin")
        if lacking == "ctypes":
            monkeypatch.setitem(sys.modules, "ctypes", None)
        else:
            known = {} if lacking == "statfs" else {"statfs": lambda *_: 0}
            monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(**known))
        assert _mounts.is_local(Path("/x"))


@pytest.mark.postgres
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_drivers(
    driver: str,
    postgres: Callable[[], str],  # noqa: F811
) -> None:
    """What is stored is whole, whatever a driver takes bytes for."""
    pytest.importorskip(driver)
    storage = Sql(postgres().replace("+psycopg", f"+{driver}"))
    put(storage, KEY, a_call())
    assert get(storage, KEY) == a_call()
    assert [entry for _, entry in storage.query(QueryCall())] == [a_call()]
    storage.close()


@pytest.mark.postgres
def test_a_driver_that_gives_views_of_its_memory(
    postgres: Callable[[], str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As psycopg2 does, which SQLAlchemy takes by itself where it is installed."""
    from psycopg.types.string import ByteaLoader

    from fleche.storage.sql._server import Server

    class Viewing(ByteaLoader):
        def load(self, data: Any) -> Any:
            return memoryview(super().load(bytes(data)))

    connect = Server.connect

    def viewing(server: Server) -> Any:
        session = connect(server)
        raw: Any = session.connection.connection.driver_connection
        raw.adapters.register_loader("bytea", Viewing)
        return session

    monkeypatch.setattr(Server, "connect", viewing)
    storage = Sql(postgres())
    put(storage, KEY, a_call())
    assert get(storage, KEY) == a_call()
    assert [entry for _, entry in storage.query(QueryCall())] == [a_call()]
    storage.close()


@pytest.mark.postgres
def test_a_server_that_only_reads(postgres: Callable[[], str]) -> None:  # noqa: F811
    """As one that follows another: what it has is there, and a save is told what to do."""
    url = postgres()
    with closing(Sql(url)) as storage:
        put(storage, KEY, a_call())
    with closing(Sql(f"{url}?options=-c%20default_transaction_read_only%3Don")) as storage:
        assert get(storage, KEY) == a_call()
        with pytest.raises(StorageError, match=r"read-only transaction \(.*set read_only = true"):
            put(storage, KEY, a_call(x=2))


@pytest.mark.postgres
def test_the_clock_of_a_server_counts(
    postgres: Callable[[], str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two machines a day apart, neither takes for old, or new, what the other has used."""
    url, began = postgres(), time.time()
    with closing(Sql(url)) as storage, closing(Sql(url)) as other:
        put(storage, KEY, a_call())
        for ahead in (86400, -86400):
            monkeypatch.setattr(time, "time", lambda ahead=ahead: began + ahead)
            put(other, OTHER, a_call(x=2))
            assert other.touch_many([KEY]) == {KEY}
            assert all(abs(each.modified - began) < 3600 for each in storage.entries())
            assert abs(other.now() - began) < 3600
            assert other.delete_older({KEY: other.now() - 3600}) == set()


@pytest.mark.postgres
def test_a_server_that_isolates_more_than_is_needed(
    postgres: Callable[[], str],  # noqa: F811
) -> None:
    """Where transactions are serialized by default, two who write one record are not turned away.

    One of them waits for the other, as anywhere, and then sees what that one has written.
    """
    isolated = "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read"
    storage = Sql(f"{postgres()}?{isolated}")
    put(storage, KEY, a_call(x=1))
    with ThreadPoolExecutor(1) as pool:
        others: list[Any] = []

        def meanwhile(connection: Any) -> None:
            connection.execute("UPDATE fleche_calls SET modified = 1.0")
            others.append(pool.submit(put, storage, KEY, a_call(x=2)))
            while not rows(storage, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert not others[0].done()
                time.sleep(0.01)

        storage._database.change(meanwhile)
        others[0].result(60)
    assert get(storage, KEY) == a_call(x=2)
    storage.close()


def test_threads_share_a_storage(make: Make) -> None:
    """Twenty threads write and query at once; none is turned away, nothing is lost."""
    storage, failures = make(), []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                put(storage, digest((number, turn)), a_call("f", x=number))
                list(storage.query(QueryCall.of(arguments={"x": number})))
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(storage.query(QueryCall.of(name="f")))) == 200


WRITER = """
import sys
from fleche.call import CallEntry
from fleche.digest import digest
from fleche.storage.sql import Sql
from fleche.testing.corpus import a_record
url, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
storage = Sql(url)
number = seed
while count < 0 or number < seed + count:
    record = a_record(x=number, y="y" * 100).replace(metadata={"run": {"pid": number}})
    storage.put_many([(digest(number), CallEntry(record))])
    if number % 5 == 0:
        storage.delete_many([digest(number - 3)])
    if number % 7 == 0:
        list(storage.entries("ab"))
        storage.close()
    number += 1
"""


def start_writer(url: str, seed: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, str(seed), str(count)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def release(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def check_database(storage: Sql) -> int:
    """Every entry is whole, and is found by what it has."""
    found = dict(storage.query(QueryCall.of(arguments={"y": "y" * 100}, metadata={"run": {}})))
    assert sorted(found) == sorted(keys(storage))
    for each in list(found.values())[:50]:
        assert each is not None
        number = each.record.arguments["x"].literal
        wanted = QueryCall.of(arguments={"x": number}, metadata={"run": {"pid": number}})
        assert len(list(storage.query(wanted))) == 1
    return len(found)


@pytest.mark.parametrize("place", ["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_four_processes_write_the_same_calls(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """They make the database together and write the same keys; none finds it locked."""
    url = str(tmp_path / "c.db") if place == "file" else request.getfixturevalue("postgres")()
    processes = [start_writer(url, 0, 80) for _ in range(4)]
    release(processes)
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert (process.returncode, errors) == (0, "")
    storage = Sql(url)
    assert check_database(storage) >= 64
    storage.close()


def kill_writers(url: str, times: int) -> None:
    chance = random.Random(times)
    storage = Sql(url)
    for turn in range(times):
        with start_writer(url, turn * 10, -1) as process:
            release([process])
            time.sleep(chance.uniform(0.1, 0.4))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        check_database(storage)
    assert check_database(storage) > 0
    storage.close()


def test_a_killed_writer_tears_nothing(tmp_path: Path) -> None:
    """After kill -9 at any moment, every record is there with all its rows, or not at all."""
    kill_writers(str(tmp_path / "c.db"), 6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_killed_writers_tear_nothing(tmp_path: Path) -> None:
    """The same, a hundred times."""
    kill_writers(str(tmp_path / "c.db"), 100)
