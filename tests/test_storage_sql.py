"""Records in a database: what queries mean, many writers, older and newer schemas, errors."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from fleche.storage.sql.seals import seal
from hypothesis import given, settings
from hypothesis import strategies as st

from fleche.call import Condition, QueryCall, encode_record, like, one_of, where
from fleche.digest import D, Digest, digest
from fleche.errors import CorruptParcel, MissingExtra, SignatureError, StorageError
from fleche.redaction import redact
from fleche.storage import Sql, storage_from_config
from fleche.storage.sql import compile, schema, sqlite, statements
from fleche.testing.corpus import a_record, records, templates
from tests.helpers.permissions import as_somebody
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401

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


def count_statements(storage: Sql, action: Callable[[], Any]) -> int:
    """The number of statements that ``action`` executes, transactions apart."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments[2])

    with storage._database.read() as connection:
        engine = connection.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return len([text for text in seen if not text.startswith(("BEGIN", "PRAGMA"))])


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


class TestQueries:
    def test_every_template_means_the_same(self, make: Make) -> None:
        """The database and QueryCall.matches() agree on every operator, field and awkward value."""
        storage, corpus = make(), records()
        storage.put_many(corpus)
        for template in templates(every=True):
            expected = sorted(key for key, record in corpus.items() if template.matches(record))
            assert [key for key, _ in storage.query(template)] == expected, template

    def test_filters_leave_little_to_the_last_word(self, file: Sql) -> None:
        """Each kind of condition is the database's work: what it returns is nearly what matches."""
        corpus = {
            digest(number): a_record("f", x=number, y=f"t{number:03}") for number in range(100)
        }
        corpus = {
            key: record.replace(name=f"f{number % 10}", metadata={"run": {"host": f"h{number}"}})
            for number, (key, record) in enumerate(corpus.items())
        }
        file.put_many(corpus)
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
            (QueryCall.of(code="abcd"), 0),
            (QueryCall.of(version=1), 0),
            (QueryCall.of(result=1), 0),
        ]:
            with file._database.read() as connection:
                rows = connection.execute(
                    sa.select(schema.calls.c.key).where(*compile.filters_of(template))
                ).all()
            assert len(rows) <= most, template

    @pytest.mark.parametrize("template", INDEXED, ids=str)
    def test_queries_use_indexes(self, file: Sql, template: QueryCall) -> None:
        """No condition makes the database read everything there is."""
        statement = sa.select(schema.calls.c.key).where(*compile.filters_of(template))
        with file._database.read() as connection:
            text = statement.compile(connection, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        steps = [row[3] for row in plan]
        assert not [step for step in steps if step.startswith("SCAN fleche_")], steps

    @pytest.mark.postgres
    def test_queries_use_indexes_of_postgres(self, postgres: Callable[[], str]) -> None:  # noqa: F811
        """Nor there, where something is known of how the values are spread."""
        storage = Sql(postgres())
        storage.put_many(
            {
                digest(number): a_record(f"f{number}", number, x=number, y=f"ab{number}").replace(
                    module=f"m.{number}",
                    code=digest(f"code {number}"),
                    metadata={"run": {"host": f"h{number}"}},
                )
                for number in range(3000)
            }
        )
        for template in INDEXED:
            statement = sa.select(schema.calls.c.key).where(*compile.filters_of(template))
            with storage._database.write() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                text = statement.compile(connection, compile_kwargs={"literal_binds": True})
                plan = connection.exec_driver_sql(f"EXPLAIN {text}".replace("%", "%%")).scalars()
                steps = list(plan)
            assert not [step for step in steps if "Seq Scan on fleche_" in step], (template, steps)
            conditions = [step for step in steps if "Index Cond" in step]
            assert conditions, (template, steps)
        storage.close()

    def test_no_statement_for_each_row(self, make: Make) -> None:
        """A query of a thousand calls is a few statements; so are the other batched forms."""
        storage = make()
        corpus = {digest(number): a_record("f", x=number) for number in range(1000)}
        storage.put_many(corpus)
        assert count_statements(storage, lambda: list(storage.query(QueryCall.of(name="f")))) <= 4
        assert count_statements(storage, lambda: list(storage.get_many(corpus))) == 2
        assert count_statements(storage, lambda: storage.missing(corpus)) == 2
        assert count_statements(storage, lambda: list(storage.keys())) <= 3
        assert count_statements(storage, lambda: storage.put_many(corpus)) <= 10

    def test_the_first_answer_comes_early(self, make: Make) -> None:
        """Whoever takes one answer does not wait for all."""
        storage = make()
        storage.put_many({digest(number): a_record("f", x=number) for number in range(1000)})
        answers = storage.query(QueryCall())
        assert count_statements(storage, lambda: next(answers)) == 2

    def test_damaged_records(self, file: Sql, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged record is named by get() and skipped by query(), with one warning."""
        file.put_many({digest(number): a_record(x=number) for number in range(4)})
        bad = [str(digest(0)), str(digest(1))]
        with file._database.write() as connection:
            broken = sa.update(schema.calls).where(schema.calls.c.key.in_(bad))
            connection.execute(broken.values(record=b"\xc1"))
        with pytest.raises(CorruptParcel, match=f"calls.db: call {bad[0][:12]}: altered bytes"):
            file.get(digest(0))
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert len(list(file.query(QueryCall()))) == 2
        assert len(caplog.records) == 1


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
)
@settings(max_examples=150)
def test_any_query_means_the_same(
    module_storage: Sql, found: list[Any], name: Any, argument: Any, field: Any
) -> None:
    """Whatever the records and the template, the database and QueryCall.matches() agree."""
    for key in list(module_storage.keys()):
        module_storage.delete(key)
    corpus = {
        digest(number): a_record(text, x=x).replace(metadata={"run": {"field": y}})
        for number, (text, x, y) in enumerate(found)
    }
    module_storage.put_many(corpus)
    template = QueryCall(
        name=name,
        arguments={} if argument is None else {"x": argument},
        metadata={} if field is None else {"run": {"field": field}},
    )
    expected = sorted(key for key, record in corpus.items() if template.matches(record))
    assert [key for key, _ in module_storage.query(template)] == expected


class TestRecords:
    def test_replacing_keeps_when_it_was_created(self, make: Make) -> None:
        """Putting a key again renews it and replaces everything else."""
        storage = make()
        storage.put(KEY, a_record("f", x=1, y=2).replace(metadata={"run": {"a": 1, "b": 2}}))
        with storage._database.read() as connection:
            before = connection.execute(sa.select(schema.calls)).one()
        time.sleep(0.01)
        storage.put(KEY, a_record("g", x=3))
        with storage._database.read() as connection:
            after = connection.execute(sa.select(schema.calls)).one()
            rows = connection.execute(sa.select(schema.arguments.c.name, schema.arguments.c.number))
            assert [tuple(row) for row in rows] == [("x", 3.0)]
            assert connection.execute(sa.select(schema.metadata)).all() == []
        assert after.created == before.created
        assert after.modified > before.modified
        assert (before.name, after.name) == ("f", "g")

    def test_a_database_that_cannot_update(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there is no ON CONFLICT, the old rows are deleted first."""
        statements._upsert.cache_clear()
        monkeypatch.setattr(statements, "_upsert", lambda _dialect: None)
        storage = make()
        storage.put(KEY, a_record("f", x=1, y=2))
        storage.put(KEY, a_record("g", x=3))
        assert [key for key, _ in storage.query(QueryCall.of(arguments={"x": 3}))] == [KEY]
        assert list(storage.query(QueryCall.of(arguments={"y": 2}))) == []

    def test_deleting_takes_everything_along(self, make: Make) -> None:
        """No row of a deleted record stays in any table."""
        storage = make()
        storage.put(KEY, a_record(x=1).replace(metadata={"run": {"a": 1}}))
        storage.delete(KEY)
        storage.put(OTHER, a_record(x=1).replace(metadata={"run": {"a": 1}}))
        storage.delete_older(OTHER, time.time() + 10)
        with storage._database.read() as connection:
            for table in (schema.calls, schema.arguments, schema.metadata):
                assert connection.execute(sa.select(table)).all() == []

    def test_a_batch_is_all_or_nothing(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """What breaks off in the middle leaves the database as it was."""
        storage = make()
        storage.put(KEY, a_record("old"))
        real = sa.Connection.execute

        def failing(self: sa.Connection, statement: Any, *arguments: Any) -> Any:
            if getattr(statement, "table", None) is schema.metadata:
                raise OSError("the cable was pulled")
            return real(self, statement, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(sa.Connection, "execute", failing)
            with pytest.raises(StorageError, match="cannot write: the cable was pulled"):
                storage.put_many({KEY: a_record("new"), OTHER: a_record("new")})
        assert storage.get(KEY) == a_record("old")
        assert not storage.contains(OTHER)

    def test_the_record_is_the_truth(self, make: Make) -> None:
        """What is too long or too strange for a column is in the record all the same."""
        storage = make()
        record = a_record("n" * 3000, x="a\0b").replace(
            module="m\0", metadata={"tags": {"long": "x" * 10_000, "k" * 5000: 1, "nul": "\0"}}
        )
        storage.put(KEY, record)
        assert encode_record(storage.get(KEY)) == encode_record(record)
        wanted = QueryCall.of(metadata={"tags": {"long": "x" * 10_000}}, name="n" * 3000)
        assert [key for key, _ in storage.query(wanted)] == [KEY]

    def test_people_can_read_the_tables(self, file: Sql, tmp_path: Path) -> None:
        """Any SQL client shows names, arguments, results and metadata."""
        file.put(KEY, a_record("f", 5, x=3).replace(metadata={"run": {"host": "h"}}))
        file.close()
        with sqlite3.connect(tmp_path / "calls.db") as connection:
            query = (
                "SELECT c.name, a.name, a.number, c.result_number, c.metadata FROM fleche_calls c"
                " JOIN fleche_arguments a ON a.key = c.key"
            )
            rows = connection.execute(query).fetchall()
        connection.close()
        assert rows == [("f", "x", 3.0, 5.0, '{"run":{"host":"h"}}')]


SEAL = "d19b5085087f6ab1b52f30963038e96969aca4fd9b53fe35f14ff531bce64d31"
SIGNATURE = "06d23b26ae2e1ad0909a32a41f490ae0f82038354ab3c9384172139ecdf12605"


class TestSeals:
    """Every record has a checksum in its row and, where there are secrets, a signature."""

    def test_what_it_is(self) -> None:
        """Its bytes stay as they are, or no record that is stored could be read."""
        assert seal("ab" * 32, b"a record").hex() == SEAL
        assert seal("ab" * 32, b"a record", [b"secret", b"old"]).hex() == SEAL + SIGNATURE

    def test_columns_to_search_by_are_not_believed(self, make: Make) -> None:
        """What a query finds is what the sealed record says, whatever stands beside it."""
        storage = make()
        storage.put(KEY, a_record("f", 5, x=3))
        with storage._database.write() as connection:
            connection.execute(sa.update(schema.calls).values(name="g", result_number=6.0))
            connection.execute(sa.update(schema.arguments).values(number=4.0))
        assert storage.get(KEY) == a_record("f", 5, x=3)
        for wanted in ({"name": "g"}, {"arguments": {"x": 4}}, {"result": 6}):
            assert list(storage.query(QueryCall.of(**wanted))) == []

    @pytest.mark.parametrize("forged", [{"seal": b""}, {"seal": None}, {"record": b""}])
    def test_altered(self, make: Make, forged: dict[str, Any]) -> None:
        storage = make()
        storage.put(KEY, a_record())
        with storage._database.write() as connection:
            connection.execute(sa.update(schema.calls).values(**forged))
        with pytest.raises(CorruptParcel, match=f"call {KEY[:12]}"):
            storage.get(KEY)

    def test_what_may_stand_in_a_damaged_row(
        self, file: Sql, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """SQLite keeps anything in any column: of that, nothing is taken for what it is not."""
        file.put_many({digest(number): a_record("f", x=number) for number in range(6)})
        keys = [str(digest(number)) for number in range(6)]
        raw = sqlite3.connect(tmp_path / "calls.db")
        with raw:
            change = "UPDATE fleche_calls SET {} = {} WHERE key = ?"
            raw.execute("PRAGMA foreign_keys = OFF")
            raw.execute(change.format("key", "x'ff00'"), keys[:1])
            raw.execute(change.format("key", "CAST(x'6162ff64' AS TEXT)"), keys[1:2])
            raw.execute(change.format("record", "1e12"), keys[2:3])
            raw.execute(change.format("record", "CAST(x'ff' AS TEXT)"), keys[3:4])
            raw.execute(change.format("modified", "'yesterday'"), keys[4:5])
        raw.close()
        assert sorted(file.keys()) == sorted(keys[2:])
        assert "whose key is damaged" in caplog.text
        for key in keys[2:4]:
            with pytest.raises(CorruptParcel):
                file.get(D(key))
        assert abs(file.entry(D(keys[4])).modified - time.time()) < 60
        assert sorted(entry.key for entry in file.entries()) == sorted(keys[2:])
        assert sorted(key for key, _ in file.query(QueryCall())) == sorted(keys[4:])

    def test_keys_in_disorder(self, file: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where pages do not lead on, it ends with an error and not never."""
        for size in ("_FIRST_PAGE", "_LARGEST_PAGE"):
            monkeypatch.setattr(f"fleche.storage.sql.storage.{size}", 2)
        for page in ([digest(1), digest(2)], ["x", "y"]):
            rows = [SimpleNamespace(key=key) for key in page]
            monkeypatch.setattr(file._database, "fetch", lambda _, rows=rows: rows)
            with pytest.raises(StorageError, match=r"keys in disorder \(the database is damaged"):
                list(file.keys())

    def test_under_another_key(self, file: Sql, tmp_path: Path) -> None:
        """A row that is put in another's place does not pass for it, signed or not."""
        signed = Sql(tmp_path / "signed.db", secret_key="ours")
        for storage in (file, signed):
            storage.put_many({KEY: a_record("one"), OTHER: a_record("two")})
            with storage._database.write() as connection:
                one = connection.execute(
                    sa.select(schema.calls.c.record, schema.calls.c.seal).where(
                        schema.calls.c.key == str(KEY)
                    )
                ).one()
                other = sa.update(schema.calls).where(schema.calls.c.key == str(OTHER))
                connection.execute(other.values(record=one.record, seal=one.seal))
            with pytest.raises(CorruptParcel, match="another call's"):
                storage.get(OTHER)
            assert [key for key, _ in storage.query(QueryCall())] == [KEY]
        signed.close()

    def test_secrets(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The first secret signs, all of them are accepted, and no other."""
        place = tmp_path / "calls.db"
        old, new, both, foreign, none = (
            Sql(place, secret_key=keys)
            for keys in ("old", "new", ["new", "old"], ["foreign"], None)
        )
        old.put(KEY, a_record("old"))
        both.put(OTHER, a_record("new"))
        for reader in (both, none):
            assert reader.get(KEY) == a_record("old")
            assert reader.get(OTHER) == a_record("new")
        assert new.get(OTHER) == a_record("new")
        with pytest.raises(SignatureError, match=f"call {KEY[:12]}: signed by a key that is not"):
            new.get(KEY)
        none.put(KEY, a_record("unsigned"))
        for refusing in (old, both, foreign):
            with pytest.raises(SignatureError):
                refusing.get(KEY)
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert list(foreign.query(QueryCall())) == []
        assert len(caplog.records) == 1
        assert [key for key, _ in both.query(QueryCall())] == [OTHER]
        for storage in (old, new, both, foreign, none):
            storage.close()

    def test_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = Sql(tmp_path / "calls.db")
        plain.put(KEY, a_record())
        monkeypatch.setenv("FLECHE_SECRET_KEY", "new,old")
        signed = Sql(tmp_path / "calls.db")
        with pytest.raises(SignatureError, match="not signed"):
            signed.get(KEY)
        signed.put(KEY, a_record())
        new = Sql(tmp_path / "calls.db", secret_key="new")
        assert new.get(KEY) == a_record()
        for storage in (plain, signed, new):
            storage.close()

    def test_in_the_configuration(self, tmp_path: Path) -> None:
        """Secrets are part of it, and travel with a pickle, but nobody shows them."""
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
    @pytest.mark.parametrize("url", ["~/a b/calls.db", "sqlite:///~/a b/calls.db"])
    def test_home_is_expanded(self, url: str, tmp_home: Path) -> None:
        """``~`` works in a path and in a url; the directory is made."""
        storage = Sql(url)
        storage.put(KEY, a_record())
        storage.close()
        assert (tmp_home / "a b" / "calls.db").exists()
        again = storage_from_config(storage.to_config(), "calls")
        assert again.contains(KEY)
        again.close()

    @pytest.mark.parametrize("url", ["sub/calls.db", "sqlite:///sub/calls.db"])
    def test_relative_paths(self, url: str, tmp_path: Path) -> None:
        """They are relative to the file that declares them, and absolute in the configuration."""
        table = {"type": "sql", "url": url}
        storage = storage_from_config(table, "calls", lambda path: str(tmp_path / path))
        assert str(tmp_path / "sub" / "calls.db") in storage.to_config()["url"]
        storage.put(KEY, a_record())
        storage.close()
        assert (tmp_path / "sub" / "calls.db").exists()
        assert str(Path.cwd() / "sub") in Sql(url).to_config()["url"]

    @pytest.mark.parametrize("url", [None, "sqlite://", "sqlite:///:memory:"])
    def test_in_memory(self, url: str | None, no_leaks: None) -> None:
        """Without a place, the database is this object's own, shared by all threads."""
        storage = Sql(url)
        thread = threading.Thread(target=storage.put, args=(KEY, a_record()))
        thread.start()
        thread.join()
        assert storage.contains(KEY)
        assert not Sql(url).contains(KEY)
        assert not storage.capabilities.persistent
        assert storage.to_config() == {"type": "sql"} | ({} if url is None else {"url": url})
        storage.close()
        assert not storage.contains(KEY)
        storage.close()

    def test_passwords_are_not_shown(self) -> None:
        """The configuration has the url as given; what people see has not."""
        url = "postgresql+psycopg://me:secret@127.0.0.1:9/db?sslpassword=hidden"
        storage = Sql(url)
        assert storage.to_config() == {"type": "sql", "url": url}
        with pytest.raises(StorageError) as caught:
            storage.get(KEY)
        for shown in (repr(storage), str(caught.value)):
            assert "secret" not in shown
            assert "hidden" not in shown
            assert "127.0.0.1:9" in shown
        assert repr(Sql()) == "Sql()"

    def test_pickles_as_its_configuration(self, file: Sql) -> None:
        """Another process that receives the storage opens connections of its own."""
        file.put(KEY, a_record())
        again = pickle.loads(pickle.dumps(file))
        assert again.get(KEY) == a_record()
        again.close()

    def test_open_to_be_read_only(self, tmp_path: Path) -> None:
        """A url may say how SQLite opens its file."""
        Sql(tmp_path / "c.db").put(KEY, a_record())
        storage = Sql(f"sqlite:///file:{tmp_path}/c.db?mode=ro&uri=true")
        assert storage.get(KEY) == a_record()
        assert storage.renew(KEY)
        with pytest.raises(StorageError, match="set read_only = true"):
            storage.put(KEY, a_record())
        storage.close()

    def test_a_directory_that_may_only_be_read(self) -> None:
        """A database of somebody else is read, with no file of SQLite's own beside it."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "c #1.db"
            mine = Sql(path)
            mine.put(KEY, a_record())
            mine.close()
            Path(place).chmod(0o555)
            path.chmod(0o444)
            with as_somebody():
                storage = Sql(path)
                assert storage.get(KEY) == a_record()
                assert [key for key, _ in storage.query(QueryCall())] == [KEY]
                assert storage.renew(KEY)
                with pytest.raises(StorageError, match="set read_only = true"):
                    storage.put(KEY, a_record())
                storage.close()
            assert [found.name for found in Path(place).iterdir()] == ["c #1.db"]
            Path(place).chmod(0o755)


class TestOfSomebodyElse:
    """A database in a directory where the reader may write nothing."""

    @pytest.fixture
    def path(self) -> Iterator[Path]:
        """One with a record in it, whose owner is away."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "calls.db"
            self.write(path, KEY)
            Path(place).chmod(0o555)
            path.chmod(0o644)
            yield path
            Path(place).chmod(0o755)

    def write(self, path: Path, *keys: Digest) -> None:
        """Come as the owner, write, and go."""
        owner = Sql(path)
        owner.put_many({key: a_record() for key in keys})
        owner.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    def test_the_owner_comes_and_goes(self, path: Path) -> None:
        """What is there is seen each time, however the file was opened before."""
        keys = [digest(number) for number in range(500)]
        with as_somebody():
            reader = Sql(path)
            assert list(reader.keys()) == [KEY]
        owner = Sql(path)
        owner.put_many({key: a_record() for key in keys})
        with as_somebody():
            assert len(list(reader.keys())) == len(list(Sql(path).keys())) == 501
        owner.close()
        self.write(path, OTHER)
        with as_somebody():
            assert len(list(reader.keys())) == 502
            reader.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be played")
    @pytest.mark.parametrize("stays", [True, False])
    def test_the_owner_comes_during_a_look(
        self, path: Path, stays: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look at a file that changes is worth nothing, whatever came of it: it is repeated."""
        with as_somebody():
            reader = Sql(path)
            assert reader.contains(KEY)
        real, owners, looks = sqlite.as_it_is, [], []

        def as_it_is(*arguments: Any) -> Any:
            looks.append(arguments)
            if len(looks) == 1:
                os.seteuid(0)
                owner = Sql(path)
                owner.put(OTHER, a_record())
                with owner._database.read() as connection:
                    connection.connection.execute("PRAGMA wal_checkpoint")
                owners.append(owner)
                if not stays:
                    owner.close()
                os.seteuid(65534)
            return real(*arguments)

        monkeypatch.setattr(sqlite, "as_it_is", as_it_is)
        with as_somebody():
            assert reader.contains(OTHER)
            reader.close()
        assert len(looks) == (1 if stays else 2)
        owners[0].close()

    def test_always_disturbed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where somebody always is in the way, that is what is said, and not that it is damaged."""
        stamps = iter(range(1000))
        monkeypatch.setattr(sqlite, "_may_write_beside", lambda _: False)
        monkeypatch.setattr(sqlite, "_stamp", lambda _: (next(stamps),))
        with pytest.raises(StorageError, match="somebody writes to it"):
            Sql(path).get(KEY)

    def test_the_log_goes_with_the_owner(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the look for it and the opening, which then fails."""
        real, answers = sqlite._is_written_to, [True]

        def is_written_to(path: Path) -> bool:
            return answers.pop() if answers else real(path)

        monkeypatch.setattr(sqlite, "_is_written_to", is_written_to)
        with as_somebody():
            reader = Sql(path)
            assert reader.contains(KEY)
            reader.close()
        assert answers == []

    def test_without_a_log(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file with SQLite's own journal is read with its locks, as anywhere."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        monkeypatch.setattr(sqlite, "_may_write_beside", lambda _: False)
        monkeypatch.setattr(sqlite, "as_it_is", None)
        reader = Sql(path)
        assert reader.contains(KEY)
        reader.close()


class TestErrors:
    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """SQLite's own words, the path, and what to do."""
        (tmp_path / "c.db").write_text("hello " * 1000)
        with pytest.raises(StorageError) as caught:
            Sql(tmp_path / "c.db").get(KEY)
        assert str(tmp_path / "c.db") in str(caught.value)
        assert "choose another url" in str(caught.value)

    def test_a_place_that_cannot_be(self, tmp_path: Path) -> None:
        """A directory that cannot be made is named."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            Sql(tmp_path / "file" / "c.db").put(KEY, a_record())

    def test_no_url(self) -> None:
        """What is no url is said so at once, without repeating a password."""
        with pytest.raises(StorageError, match="not a database url") as caught:
            Sql("postgresql//x://me:secret@host")
        assert "secret" not in str(caught.value)

    def test_a_missing_driver(self) -> None:
        """A driver that is not installed is named with its command."""
        with pytest.raises(MissingExtra, match="pip install"):
            Sql("mysql+pymysql://host/db").get(KEY)

    def test_a_database_that_stays_locked(
        self, file: Sql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Whoever holds a lock for too long is blamed for it."""
        file.put(KEY, a_record())
        impatient = Sql(f"sqlite:///{tmp_path}/calls.db?timeout=0.1")
        with file._database.write():
            with pytest.raises(StorageError, match="another process has been writing"):
                impatient.put(KEY, a_record())
            assert impatient.get(KEY) == a_record()
        impatient.close()

    def test_a_server_that_is_not_there(self) -> None:
        """An unreachable server is no miss."""
        with pytest.raises(StorageError, match="check the host"):
            Sql("postgresql+psycopg://me@127.0.0.1:9/db").contains(KEY)


class TestSqlite:
    def test_readers_do_not_wait(self, file: Sql) -> None:
        """On a local file system SQLite keeps a write-ahead log."""
        file.put(KEY, a_record())
        with file._database.write():
            assert Sql(file.to_config()["url"]).get(KEY) == a_record()
        with file._database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000

    def test_no_log_on_a_network_file_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There it would lose data, so SQLite's own journal stays; writers still wait."""
        monkeypatch.setattr(sqlite, "is_local", lambda _path: False)
        storage = Sql(tmp_path / "c.db")
        storage.put(KEY, a_record())
        with storage._database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        for key, _ in storage.query(QueryCall()):
            storage.delete(key)
        assert not storage.contains(KEY)
        storage.close()

    @pytest.mark.parametrize(
        ("mounts", "path", "local"),
        [
            ("/dev/a / ext4 rw 0 0\nhost:/x /net/home nfs4 rw 0 0\n", "/net/home/me/c", False),
            ("/dev/a / ext4 rw 0 0\nhost:/x /net/home nfs4 rw 0 0\n", "/net/homes/c", True),
            ("x / overlay rw 0 0\nx /m\\040y fuse.sshfs rw 0 0\n", "/m y/c", False),
            ("", "/c", True),
        ],
    )
    def test_local_file_systems(
        self, mounts: str, path: str, local: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file system is that of the nearest mount point."""
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
        assert sqlite.is_local(Path(path)) is local

    def test_elsewhere_every_file_system_is_taken_for_local(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the mounts are not known, as on a Mac."""

        def fail(*_: Any, **__: Any) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(Path, "read_text", fail)
        assert sqlite.is_local(Path("/x"))

    def test_a_log_that_cannot_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where SQLite refuses the log, it goes on without; where it is busy, it is asked again."""
        answers = ["database is locked", "database is locked", "wal"]

        class Busy:
            def execute(self, statement: str) -> Any:
                if "journal_mode" not in statement:
                    return None
                if (answer := answers.pop(0)) != "wal":
                    raise sqlite3.OperationalError(answer)
                return self

            def fetchone(self) -> tuple[str]:
                return ("wal",)

        sqlite._use_wal(Busy())
        assert answers == []
        answers.append("attempt to write a readonly database")
        sqlite._use_wal(Busy())


@pytest.mark.postgres
def test_a_server_that_isolates_more_than_is_needed(
    postgres: Callable[[], str],  # noqa: F811
) -> None:
    """Where transactions are serialized by default, two who write one record are not turned away.

    One of them waits for the other, as anywhere, and then sees what that one has written.
    """
    isolated = "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read"
    storage = Sql(f"{postgres()}?{isolated}")
    storage.put(KEY, a_record(x=1))
    with ThreadPoolExecutor(1) as pool:
        with storage._database.write() as connection:
            connection.execute(sa.update(schema.calls).values(modified=1.0))
            other = pool.submit(storage.put, KEY, a_record(x=2))
            while not _is_waiting(storage):
                assert not other.done()
                time.sleep(0.01)
        other.result(60)
    assert storage.get(KEY) == a_record(x=2)
    storage.close()


def _is_waiting(storage: Sql) -> bool:
    """Tell whether a session of the server waits for a lock."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return bool(storage._database.fetch(waiting)[0][0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(make: Make) -> None:
    """A child that uses the storage of its parent harms neither."""
    storage = make()
    storage.put(KEY, a_record())
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if storage.capabilities.persistent:
                assert storage.get(KEY) == a_record()
            storage.put(OTHER, a_record("child"))
            assert storage.get(OTHER) == a_record("child")
            storage.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert storage.get(KEY) == a_record()
    assert storage.contains(OTHER) == storage.capabilities.persistent


def test_threads_share_a_storage(make: Make) -> None:
    """Twenty threads write and query at once; nobody is turned away, nothing is lost."""
    storage, failures = make(), []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                storage.put(digest((number, turn)), a_record("f", x=number))
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
from fleche.digest import D, Digest, digest
from fleche.storage import Sql
from fleche.testing.corpus import a_record
url, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
storage = Sql(url)
number = seed
while count < 0 or number < seed + count:
    key = digest(number)
    storage.put(key, a_record(x=number, y="y" * 100).replace(metadata={"run": {"pid": number}}))
    if number % 5 == 0:
        storage.delete(digest(number - 3))
    if number % 7 == 0:
        list(storage.matching("ab"))
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
    """Every record is whole, and so are its rows to search by."""
    found = dict(storage.query(QueryCall.of(arguments={"y": "y" * 100}, metadata={"run": {}})))
    assert sorted(found) == sorted(storage.keys())
    for record in found.values():
        number = record.literals["x"]
        wanted = QueryCall.of(arguments={"x": number}, metadata={"run": {"pid": number}})
        assert len(list(storage.query(wanted))) == 1
    return len(found)


@pytest.mark.parametrize("place", ["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_four_processes_write_the_same_calls(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """They make the database together and write the same keys; nobody finds it locked."""
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
