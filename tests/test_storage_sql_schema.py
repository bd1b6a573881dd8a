"""The tables: made by the process that comes first, refused where another fleche has made them."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fleche.digest import digest
from fleche.errors import StorageError
from fleche.storage.sql import Sql
from fleche.testing.corpus import an_entry
from tests.helpers.postgres import PostgresServer, postgres, postgres_server  # noqa: F401
from tests.helpers.storing import get, has, keys, put
from tests.helpers.sweeps import swept

KEY = digest("key")

Make = Callable[[], Sql]


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Tell where an empty database is, another one each time it is called."""
    if request.param == "file":
        count = itertools.count()
        return lambda: str(tmp_path / f"calls-{next(count)}.db")
    return request.getfixturevalue("postgres")  # type: ignore[no-any-return]


@pytest.fixture
def make(new_url: Callable[[], str]) -> Iterator[Make]:
    """Open one database each time it is called."""
    opened: list[Sql] = []
    url = new_url()

    def open_it() -> Sql:
        opened.append(Sql(url))
        return opened[-1]

    yield open_it
    for storage in opened:
        storage.close()


@pytest.mark.postgres
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_encoding_that_lacks_texts(
    encoding: str,
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    """It is refused at once, and not at the first text that it cannot hold."""
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    url = postgres_server.make_database(options)
    with closing(Sql(url)) as storage:
        for use in (lambda: put(storage, KEY, an_entry()), lambda: keys(storage)):
            with pytest.raises(StorageError, match=f"in {encoding} cannot hold .* ENCODING 'UTF8'"):
                use()


OPEN = """
import sys
from fleche.digest import digest
from fleche.storage.sql import Sql
from fleche.testing.corpus import an_entry
print("ready", flush=True)
sys.stdin.readline()
Sql(sys.argv[1]).put_many([(digest(int(sys.argv[2])), an_entry())])
"""


class TestMaking:
    @pytest.mark.parametrize("times", swept([1, 10], lambda times: times == 1))
    def test_from_several_processes(self, new_url: Callable[[], str], times: int) -> None:
        """The first of them makes the tables, the others wait."""
        for _ in range(times):
            url = new_url()
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", OPEN, url, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number in range(4)
            ]
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in processes:
                process.communicate(timeout=50)
                assert process.returncode == 0
            storage = Sql(url)
            assert sorted(keys(storage)) == sorted(digest(number) for number in range(4))
            storage.close()

    def test_interrupted(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tables are made together or not at all; the next attempt makes them."""
        monkeypatch.setattr(
            "fleche.storage.sql._schema._INDEXES", (("x", "nonsense", "nothing", ""),)
        )
        with pytest.raises(StorageError, match="cannot write"):
            put(make(), KEY, an_entry())
        monkeypatch.undo()
        storage = make()
        put(storage, KEY, an_entry())
        assert has(storage, KEY)

    def test_other_tables_are_left_alone(self, tmp_path: Path) -> None:
        """A database may hold what is not fleche's."""
        with closing(sqlite3.connect(tmp_path / "c.db")) as raw, raw:
            raw.execute("CREATE TABLE mine (x)")
            raw.execute("INSERT INTO mine VALUES (1)")
        storage = Sql(tmp_path / "c.db")
        put(storage, KEY, an_entry())
        storage.close()
        with closing(sqlite3.connect(tmp_path / "c.db")) as raw:
            assert raw.execute("SELECT x FROM mine").fetchall() == [(1,)]


def set_version(storage: Sql, version: str) -> None:
    put(storage, KEY, an_entry())

    def change(connection: Any) -> None:
        names = {"version": version}
        connection.execute("UPDATE fleche_meta SET value = :version WHERE name = 'schema'", names)

    storage._database.change(change)


class TestVersions:
    def test_a_newer_one_is_refused(self, make: Make) -> None:
        """Tables of a newer fleche are left alone, and the error says so."""
        set_version(make(), "99")
        for action in (lambda: get(make(), KEY), lambda: put(make(), KEY, an_entry())):
            with pytest.raises(StorageError, match=r"made by a newer fleche .schema 99") as caught:
                action()
            assert "damaged" not in str(caught.value)

    def test_another_one_is_refused(self, make: Make) -> None:
        set_version(make(), "1")
        with pytest.raises(StorageError, match="are of schema 1, this fleche knows"):
            get(make(), KEY)

    @pytest.mark.parametrize("version", ["", "two", "-1", "\u0662"])
    def test_a_version_that_is_none(self, make: Make, version: str) -> None:
        set_version(make(), version)
        with pytest.raises(StorageError, match="the version of its tables is"):
            get(make(), KEY)

    def test_that_may_only_be_read(self, tmp_path: Path) -> None:
        """A process that only looks is told the same."""
        storage = Sql(tmp_path / "c.db")
        set_version(storage, "99")
        storage.close()
        reader = Sql(f"sqlite:///file:{tmp_path}/c.db?mode=ro&uri=true")
        with pytest.raises(StorageError, match="made by a newer fleche"):
            get(reader, KEY)
        reader.close()
