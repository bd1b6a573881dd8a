"""A PostgreSQL server that goes away, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from fleche.claims import Claim

from fleche import FlecheWarning, cache, fleche
from fleche.caches import Cache
from fleche.call import QueryCall
from fleche.digest import digest
from fleche.errors import StorageError
from fleche.storage import Sql, ValueMemory
from fleche.testing.corpus import a_record
from tests.helpers.postgres import PostgresServer, own_postgres  # noqa: F401

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

runs: list[int] = []

KEY = digest("key")
OTHER = digest("other")


@pytest.fixture
def server(own_postgres: PostgresServer) -> PostgresServer:  # noqa: F811
    return own_postgres


@pytest.fixture
def storage(server: PostgresServer) -> Iterator[Sql]:
    storage = Sql(server.make_database())
    yield storage
    storage.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
class TestRestarts:
    def test_idle_connections(self, server: PostgresServer, storage: Sql, mode: str) -> None:
        """Nobody notices, however many connections were waiting to be used."""
        storage.put_many({digest(number): a_record("f", x=number) for number in range(40)})
        together = threading.Barrier(8)

        def look(number: int) -> bool:
            together.wait(30)
            return storage.contains(digest(number))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(look, range(8)))
            assert storage.claims.take(KEY, "me") is None
            server.stop(mode)
            server.start()
            assert all(pool.map(look, range(8)))
        server.stop(mode)
        server.start()
        storage.put(KEY, a_record("g"))
        server.stop(mode)
        server.start()
        assert storage.get(KEY) == a_record("g")
        assert storage.missing([KEY, OTHER]) == [OTHER]
        assert storage.claims.renew(KEY, "me")
        assert len(list(storage.query(QueryCall.of(name="f")))) == 40

    def test_in_the_middle_of_a_query(
        self, server: PostgresServer, storage: Sql, mode: str
    ) -> None:
        """It goes on where it was."""
        storage.put_many({digest(number): a_record("f", x=number) for number in range(2000)})
        found = storage.query(QueryCall())
        seen = [next(found)[0] for _ in range(700)]
        server.stop(mode)
        server.start()
        seen += [key for key, _ in found]
        assert sorted(seen) == sorted(digest(number) for number in range(2000))


class TestDown:
    def test_one_clear_error(self, server: PostgresServer, storage: Sql) -> None:
        """While it is away, every operation says so; when it is back, the same object works."""
        storage.put(KEY, a_record())
        server.stop()
        actions: list[Callable[[], Any]] = [
            lambda: storage.put(OTHER, a_record()),
            lambda: storage.get(KEY),
            lambda: list(storage.query(QueryCall())),
            lambda: storage.claims.take(KEY, "me"),
        ]
        try:
            for action in actions:
                with pytest.raises(StorageError, match="check the host, the port and that the ser"):
                    action()
        finally:
            server.start()
        storage.put(OTHER, a_record("new"))
        assert storage.get(KEY) == a_record()
        assert storage.get(OTHER) == a_record("new")

    def test_functions_run_on(self, server: PostgresServer, storage: Sql) -> None:
        """What could not be stored is computed again when it is."""

        @fleche
        def twice(x: int) -> int:
            runs.append(x)
            return 2 * x

        with cache(Cache(ValueMemory(), storage)):
            assert twice(1) == 2
            server.stop()
            try:
                with pytest.warns(FlecheWarning, match="runs without looking"):
                    assert twice(2) == 4
            finally:
                server.start()
            assert [twice(1), twice(2), twice(2)] == [2, 4, 4]
        assert runs == [1, 2, 2]
        runs.clear()


class Breaking:
    """Breaks every connection when a statement of some kind is about to be executed, once."""

    def __init__(self, server: PostgresServer, storage: Sql, word: str, *, after: bool) -> None:
        self.server, self.word, self.struck = server, word, False
        with storage._database.read() as connection:
            self.engine = connection.engine
            self.url = self.engine.url.render_as_string(hide_password=False)
        self.event = "after_cursor_execute" if after else "before_cursor_execute"

    def __enter__(self) -> Breaking:
        sa.event.listen(self.engine, self.event, self._strike)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self.engine, self.event, self._strike)
        assert self.struck

    def _strike(self, *arguments: Any) -> None:
        if not self.struck and arguments[2].startswith(self.word):
            self.struck = True
            self.server.break_connections(self.url)


class Losing:
    """Breaks a connection when its transaction has been committed, before anybody hears of it."""

    def __init__(self, storage: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        with storage._database.read() as connection:
            dialect = connection.dialect
        self.left, self.commit = 0, dialect.do_commit
        monkeypatch.setattr(dialect, "do_commit", self._commit)

    def __enter__(self) -> None:
        self.left = 1

    def __exit__(self, *_: object) -> None:
        assert self.left == 0

    def _commit(self, connection: Any) -> None:
        self.commit(connection)
        if self.left:
            self.left = 0
            import psycopg

            connection.dbapi_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")


class TestBrokenInTheMidst:
    """A transaction whose connection breaks is done once more: every one may be done twice."""

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize(
        "word", ["INSERT INTO fleche_calls", "DELETE FROM fleche_arg", "INSERT INTO fleche_meta"]
    )
    def test_a_put(self, server: PostgresServer, storage: Sql, word: str, after: bool) -> None:
        storage.put(KEY, a_record("old", x=1))
        record = a_record("new", x=2).replace(metadata={"run": {"host": "h"}})
        with Breaking(server, storage, word, after=after):
            storage.put_many({KEY: record, OTHER: record})
        assert storage.get(KEY) == storage.get(OTHER) == record
        assert len(list(storage.query(QueryCall.of(arguments={"x": 2})))) == 2

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_other_changes(self, server: PostgresServer, storage: Sql, after: bool) -> None:
        storage.put(KEY, a_record())
        with Breaking(server, storage, "UPDATE", after=after):
            assert storage.renew(KEY)
        with Breaking(server, storage, "SELECT", after=after):
            assert storage.get(KEY) == a_record()
        with Breaking(server, storage, "DELETE", after=after):
            storage.delete(KEY)
        assert not storage.contains(KEY)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_claims(self, server: PostgresServer, storage: Sql, after: bool) -> None:
        """One has it, and the other does not, whenever it broke."""
        claims = storage.claims
        assert claims.take(OTHER, "me") is None  # makes the table
        with Breaking(server, storage, "INSERT INTO fleche_claims", after=after):
            assert claims.take(KEY, "me") is None
        found = claims.take(KEY, "you")
        assert found is not None
        assert found.owner == "me"
        with Breaking(server, storage, "UPDATE fleche_claims", after=after):
            assert claims.take_over(KEY, "you", found)
        assert not claims.take_over(KEY, "third", found)
        assert not claims.take_over(KEY, "me", Claim("me", found.beat))
        with Breaking(server, storage, "UPDATE fleche_claims", after=after):
            assert claims.renew(KEY, "you")
        with Breaking(server, storage, "DELETE FROM fleche_claims", after=after):
            claims.release(KEY, "you")
        assert claims.take(KEY, "third") is None

    def test_the_answer_is_lost(self, storage: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was committed before the connection broke does no harm when it is done again."""
        claims = storage.claims
        assert claims.take(OTHER, "me") is None  # makes the table
        lose = Losing(storage, monkeypatch)
        with lose:
            storage.put(KEY, a_record("new"))
        assert storage.get(KEY) == a_record("new")
        with lose:
            assert storage.renew(KEY)
        with lose:
            storage.delete(KEY)
        assert not storage.contains(KEY)
        with lose:
            assert claims.take(KEY, "me") is None
        found = claims.take(KEY, "you")
        assert found is not None
        with lose:
            assert claims.take_over(KEY, "you", found)
        assert not claims.take_over(KEY, "third", found)
        with lose:
            assert claims.renew(KEY, "you")
        with lose:
            claims.release(KEY, "you")
        assert claims.take(KEY, "third") is None

    def test_again_and_again(self, server: PostgresServer, storage: Sql) -> None:
        """Twice is enough; who breaks it for ever is named."""
        storage.put(KEY, a_record("old"))
        with Breaking(server, storage, "INSERT", after=False) as breaking:

            def once_more(*arguments: Any) -> None:
                breaking.struck = False

            sa.event.listen(breaking.engine, "begin", once_more)
            with pytest.raises(StorageError, match="cannot write"):
                storage.put(KEY, a_record("new"))
            sa.event.remove(breaking.engine, "begin", once_more)
        assert storage.get(KEY) == a_record("old")
