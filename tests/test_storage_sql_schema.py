"""Tables of other versions: refused, or brought up to date without losing anything."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleche.call import QueryCall, encode_record, where
from fleche.digest import digest
from fleche.errors import CorruptParcel, SignatureError, StorageError
from fleche.storage import Sql
from fleche.storage.sql import database, migrations, schema
from fleche.testing.corpus import a_record
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401

KEY = digest("key")
FIRST = (Path(__file__).parent / "golden" / "sql-1.sql").read_text()

Make = Callable[[], Sql]

_INTO = "INSERT INTO fleche_calls (key, name, metadata, created, modified, lease, record) "
MANY = {  # a hundred million bytes
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
    f"{_INTO} SELECT printf('%064x', i), 'f', '{{}}', 0.0, 0.0, 0, zeroblob(10000) FROM n",
    "postgresql": f"{_INTO} SELECT lpad(to_hex(i), 64, '0'), 'f', '{{}}', 0.0, 0.0, false, "
    "decode(repeat('00', 10000), 'hex') FROM generate_series(0, 9999) AS i",
}


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Tell where an empty database is, another one each time it is called."""
    if request.param == "file":
        count = itertools.count()
        return lambda: str(tmp_path / f"calls-{next(count)}.db")
    return request.getfixturevalue("postgres")  # type: ignore[no-any-return]


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """An empty database."""
    return new_url()


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Open the database each time it is called."""
    opened: list[Sql] = []

    def open_it(**options: Any) -> Sql:
        opened.append(Sql(url, **options))
        return opened[-1]

    yield open_it
    for storage in opened:
        storage.close()


def write_first_version(url: str) -> None:
    """Make the tables of schema 1, with four records, as the fleche of that time did."""
    if "://" not in url:
        connection = sqlite3.connect(url)
        connection.executescript(FIRST)
        connection.close()
        return
    with sqlite3.connect(":memory:") as old:
        old.executescript(FIRST)
        rows = {
            table.name: [dict(row) for row in _rows(old, table.name)]
            for table in (schema.meta, schema.calls, schema.arguments, schema.metadata)
        }
    old.close()
    engine = sa.create_engine(url)
    with engine.begin() as new:
        schema.tables.create_all(new)
        new.exec_driver_sql("ALTER TABLE fleche_calls DROP COLUMN seal")
        for name, found in rows.items():
            for row in found:
                row.update({key: bool(value) for key, value in row.items() if key == "lease"})
                columns = [sa.column(key) for key in row]
                new.execute(sa.insert(sa.table(name, *columns)).values(**row))
    engine.dispose()


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[Any]:
    connection.row_factory = sqlite3.Row
    return iter(connection.execute(f"SELECT * FROM {table}"))


def shape_of(storage: Sql) -> dict[str, Any]:
    """Return the columns of every table, in order, its keys and its indexes."""
    with storage._database.read() as connection:
        found = sa.inspect(connection)
        return {
            table: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                found.get_foreign_keys(table),
                sorted((str(i["name"]), i["column_names"]) for i in found.get_indexes(table)),
            )
            for table in found.get_table_names()
        }


class TestOpening:
    def test_while_others_make_the_tables(self, new_url: Callable[[], str]) -> None:
        """Whenever they do, before the first look, the second, or any other: all is well."""
        moments = 0
        while _opened_while_others_do(new_url(), moments):
            moments += 1
        assert moments >= 2


def _opened_while_others_do(url: str, moment: int) -> bool:
    """Open an empty database, somebody else before the statement ``moment`` of ours.

    Tell whether there was such a statement before we kept others from making tables.
    """
    statements = itertools.count()
    is_over, is_done = False, False

    def interrupt(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal is_over, is_done
        is_over = is_over or "advisory_xact_lock" in statement or "IMMEDIATE" in statement
        if not is_over and next(statements) == moment:
            is_over = is_done = True
            other.put(KEY, a_record())

    ours, other = Sql(url), Sql(url)
    sa.event.listen(sa.Engine, "before_cursor_execute", interrupt)
    try:
        ours.put(digest("ours"), a_record("ours"))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", interrupt)
    assert set(ours.keys()) == {digest("ours"), *([KEY] if is_done else [])}
    ours.close()
    other.close()
    return is_done


class TestFirstVersion:
    """Schema 1 had no seals."""

    def test_everything_stays(self, url: str, make: Make) -> None:
        """Every record is there, to the bit, and found by queries; now it has a seal."""
        write_first_version(url)
        storage = make()
        keys = list(storage.keys())
        found = {key: storage.get(key) for key in keys}
        assert sorted(record.name for record in found.values()) == [
            *("energy", "energy", "relax", "running"),
        ]
        assert all(key == record.key for key, record in found.items())
        with storage._database.read() as connection:
            rows = connection.execute(sa.select(schema.calls)).all()
        assert {row.key: row.record for row in rows} == {
            str(key): encode_record(record) for key, record in found.items()
        }
        assert all(len(row.seal) == 32 for row in rows)
        (dear,) = storage.query(QueryCall.of(arguments={"lattice": where(">", 4)}))
        assert dear[1].literals == {"lattice": 4.05, "kind": "fcc"}
        assert len(list(storage.query(QueryCall.of(metadata={"runtime": {"host": "node1"}})))) == 1
        assert len(list(storage.query(QueryCall()))) == 3

    def test_a_record_that_is_damaged_already(self, url: str, make: Make) -> None:
        """It keeps nobody from the others."""
        write_first_version(url)
        engine = sa.create_engine(url if "://" in url else f"sqlite:///{url}")
        with engine.begin() as connection:
            change = sa.text("UPDATE fleche_calls SET record = :bytes WHERE name = 'relax'")
            connection.execute(change, {"bytes": b"\xc1"})
        engine.dispose()
        storage = make()
        assert len(list(storage.query(QueryCall()))) == 2
        keys = list(storage.keys())
        assert sum(_is_bad(storage, key) for key in keys) == 1

    def test_the_tables_are_those_of_a_new_one(
        self, url: str, make: Make, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        write_first_version(url)
        storage = make()
        storage.contains(KEY)
        if "://" in url:
            fresh = Sql(request.getfixturevalue("postgres")())
        else:
            fresh = Sql(tmp_path / "fresh.db")
        fresh.contains(KEY)
        assert shape_of(storage) == shape_of(fresh)
        fresh.close()

    def test_nothing_is_signed(self, url: str, make: Any) -> None:
        """Else whoever offers an old database could have anything signed."""
        write_first_version(url)
        signing = make(secret_key="ours")
        keys = list(signing.keys())
        assert len(keys) == 4
        for key in keys:
            with pytest.raises(SignatureError, match="not signed"):
                signing.get(key)
        assert len(list(make().query(QueryCall()))) == 3

    def test_from_several_processes(self, url: str, make: Make) -> None:
        """Whoever comes first does it, the others wait."""
        write_first_version(url)
        context = multiprocessing.get_context("forkserver")
        together = context.Barrier(4)
        processes = [
            context.Process(target=_open_and_count, args=(url, together)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(50)
            assert process.exitcode == 0
        assert len(list(make().query(QueryCall()))) == 3

    def test_that_fails(self, url: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything is as it was: an older fleche goes on, and the next attempt may succeed."""
        write_first_version(url)
        before = first_version(url)
        sealed: list[str] = []

        def fail(key: str, record: bytes) -> bytes:
            sealed.append(key)
            if len(sealed) == 3:
                raise OSError("no space left on device")
            return b""

        with monkeypatch.context() as patch:
            patch.setattr(migrations, "seal", fail)
            with pytest.raises(StorageError, match="from schema 1 to 2: no space left"):
                make().get(KEY)
        assert len(sealed) == 3
        assert first_version(url) == before
        assert len(list(make().query(QueryCall()))) == 3

    def test_in_little_memory(self, url: str, make: Make) -> None:
        """However many records there are, only some are in memory at a time."""
        storage = make()
        storage.contains(KEY)
        with storage._database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE fleche_calls DROP COLUMN seal")
            connection.execute(sa.update(schema.meta).values(value="1"))
            connection.exec_driver_sql(MANY[connection.dialect.name])
        process = multiprocessing.get_context("forkserver").Process(target=_open_small, args=(url,))
        process.start()
        process.join(50)
        assert process.exitcode == 0
        with storage._database.read() as connection:
            unsealed = sa.select(sa.func.count()).where(schema.calls.c.seal.is_(None))
            assert connection.scalar(unsealed) == 0

    def test_many(self, url: str, make: Make) -> None:
        """More records than are sealed at a time."""
        storage = make()
        storage.put_many({digest(number): a_record("f", x=number) for number in range(1203)})
        with storage._database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE fleche_calls DROP COLUMN seal")
            connection.execute(sa.update(schema.meta).values(value="1"))
        assert len(list(make().query(QueryCall.of(name="f")))) == 1203


def _is_bad(storage: Sql, key: Any) -> bool:
    try:
        storage.get(key)
    except CorruptParcel:
        return True
    return False


def first_version(url: str) -> Any:
    """Return what an older fleche sees of schema 1, the shape of the tables included."""
    engine = sa.create_engine(url if "://" in url else f"sqlite:///{url}")
    with engine.connect() as connection:
        columns = [column["name"] for column in sa.inspect(connection).get_columns("fleche_calls")]
        rows = connection.exec_driver_sql("SELECT * FROM fleche_calls ORDER BY key").all()
        versions = connection.exec_driver_sql("SELECT value FROM fleche_meta").all()
    engine.dispose()
    return columns, rows, versions


def _open_small(url: str) -> None:
    """Open a database, with no more memory at any time than at the beginning and a little."""
    Sql().contains(KEY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    storage = Sql(url)
    assert storage.missing([KEY]) == [KEY]
    storage.close()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kilobytes < 100_000 * (1024 if sys.platform == "darwin" else 1)


def _open_and_count(url: str, together: Barrier) -> None:
    storage = Sql(url)
    together.wait(40)
    assert len(list(storage.query(QueryCall()))) == 3
    storage.close()


class TestVersions:
    def test_a_newer_schema_is_refused(self, make: Make) -> None:
        """Tables of a newer fleche are left alone, and the error says so."""
        storage = make()
        storage.put(KEY, a_record())
        with storage._database.write() as connection:
            connection.execute(sa.update(schema.meta).values(value="99"))
        with pytest.raises(StorageError, match=r"made by a newer fleche .schema 99"):
            make().get(KEY)

    @pytest.mark.parametrize("version", ["", "two", "-1", "\u0662"])
    def test_a_version_that_is_none(self, make: Make, version: str) -> None:
        storage = make()
        storage.put(KEY, a_record())
        with storage._database.write() as connection:
            connection.execute(sa.update(schema.meta).values(value=version))
        with pytest.raises(StorageError, match="the version of its tables is"):
            make().get(KEY)

    def test_step_by_step(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each step of the ladder is taken once, in order, and the records stay."""
        make().put(KEY, a_record())
        steps: list[int] = []
        for version in (2, 3):

            def step(connection: sa.Connection, version: int = version) -> None:
                steps.append(version)
                connection.exec_driver_sql(f"CREATE TABLE step_{version} (x INTEGER)")

            monkeypatch.setitem(migrations.MIGRATIONS, version, step)
        for module in (migrations, database):
            monkeypatch.setattr(module, "SCHEMA", 4)
        for _ in range(2):
            assert make().get(KEY) == a_record()
        assert steps == [2, 3]

    def test_a_failed_step_changes_nothing(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A migration that fails leaves tables that the older fleche still reads."""
        make().put(KEY, a_record())
        storage = make()

        def fail(connection: sa.Connection) -> None:
            connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
            connection.exec_driver_sql("CREATE NONSENSE")

        with monkeypatch.context() as patch:
            patch.setitem(migrations.MIGRATIONS, 2, fail)
            for module in (migrations, database):
                patch.setattr(module, "SCHEMA", 3)
            with pytest.raises(StorageError, match="cannot bring its tables from schema 2 to 3"):
                storage.get(KEY)
        assert make().get(KEY) == a_record()
        with make()._database.read() as connection:
            assert not sa.inspect(connection).has_table("half")

    def test_a_file_that_may_not_be_changed(self, tmp_path: Path) -> None:
        """It says who can help."""
        place = tmp_path / "calls.db"
        write_first_version(str(place))
        storage = Sql(f"sqlite:///file:{place}?mode=ro&uri=true")
        with pytest.raises(StorageError, match="let somebody who may write to it open it once"):
            storage.get(KEY)
        storage.close()
