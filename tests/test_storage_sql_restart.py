"""A PostgreSQL server that goes away, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from fleche.call import CallEntry, QueryCall
from fleche.digest import digest
from fleche.errors import StorageError
from fleche.storage import Lock
from fleche.storage.sql import Sql
from fleche.testing.corpus import a_record
from tests.helpers.postgres import PostgresServer, own_postgres  # noqa: F401
from tests.helpers.storing import delete, get, has, put, touch

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

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


def a_call(name: str = "f", **arguments: Any) -> CallEntry:
    return CallEntry(a_record(name, **arguments))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
class TestRestarts:
    def test_idle_connections(self, server: PostgresServer, storage: Sql, mode: str) -> None:
        """No caller notices, however many connections were waiting to be used."""
        storage.put_many([(digest(number), a_call("f", x=number)) for number in range(40)])
        together = threading.Barrier(8)

        def look(number: int) -> bool:
            together.wait(30)
            return has(storage, digest(number))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(look, range(8)))
            assert storage.locks.acquire(KEY, "me") is None
            server.stop(mode)
            server.start()
            assert all(pool.map(look, range(8)))
        server.stop(mode)
        server.start()
        put(storage, KEY, a_call("g"))
        server.stop(mode)
        server.start()
        assert get(storage, KEY) == a_call("g")
        assert storage.contains_many([KEY, OTHER]) == {KEY}
        assert storage.locks.heartbeat(KEY, "me")
        assert len(list(storage.query(QueryCall.of(name="f")))) == 40

    def test_in_the_middle_of_a_query(
        self, server: PostgresServer, storage: Sql, mode: str
    ) -> None:
        """It goes on where it was."""
        storage.put_many([(digest(number), a_call("f", x=number)) for number in range(2000)])
        found = storage.query(QueryCall())
        seen = [next(found)[0] for _ in range(700)]
        server.stop(mode)
        server.start()
        seen += [key for key, _ in found]
        assert sorted(seen) == sorted(digest(number) for number in range(2000))


class TestDown:
    def test_one_clear_error(self, server: PostgresServer, storage: Sql) -> None:
        """While it is away, every operation says so; when it is back, the same object works."""
        put(storage, KEY, a_call())
        server.stop()
        actions: list[Callable[[], Any]] = [
            lambda: put(storage, OTHER, a_call()),
            lambda: get(storage, KEY),
            lambda: list(storage.query(QueryCall())),
            lambda: storage.locks.acquire(KEY, "me"),
        ]
        try:
            for action in actions:
                with pytest.raises(StorageError, match="check the host, the port and that the ser"):
                    action()
        finally:
            server.start()
        put(storage, OTHER, a_call("new"))
        assert get(storage, KEY) == a_call()
        assert get(storage, OTHER) == a_call("new")


def engine_of(storage: Sql) -> sa.Engine:
    """What makes the connections of a storage."""
    has(storage, KEY)
    engine: sa.Engine = storage._database._engine  # type: ignore[attr-defined]
    return engine


class Breaking:
    """Breaks every connection when a statement of some kind is about to be executed, once."""

    def __init__(self, server: PostgresServer, storage: Sql, word: str, *, after: bool) -> None:
        self.server, self.word, self.struck = server, word, False
        self.engine = engine_of(storage)
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
    """Breaks a connection when its transaction has been committed, before its end is told."""

    def __init__(self, storage: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        dialect = engine_of(storage).dialect
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
        "word", ["INSERT INTO fleche_calls", "DELETE FROM fleche_facts", "INSERT INTO fleche_facts"]
    )
    def test_a_put(self, server: PostgresServer, storage: Sql, word: str, after: bool) -> None:
        put(storage, KEY, a_call("old", x=1))
        record = a_record("new", x=2).replace(metadata={"run": {"host": "h"}})
        with Breaking(server, storage, word, after=after):
            storage.put_many([(KEY, CallEntry(record)), (OTHER, CallEntry(record))])
        assert get(storage, KEY) == get(storage, OTHER) == CallEntry(record)
        assert len(list(storage.query(QueryCall.of(arguments={"x": 2})))) == 2

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_other_changes(self, server: PostgresServer, storage: Sql, after: bool) -> None:
        put(storage, KEY, a_call())
        with Breaking(server, storage, "UPDATE", after=after):
            assert touch(storage, KEY)
        with Breaking(server, storage, "SELECT", after=after):
            assert get(storage, KEY) == a_call()
        with Breaking(server, storage, "DELETE", after=after):
            delete(storage, KEY)
        assert not has(storage, KEY)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_locks(self, server: PostgresServer, storage: Sql, after: bool) -> None:
        """One has it, and the other does not, whenever it broke."""
        locks = storage.locks
        assert locks.acquire(OTHER, "me") is None
        with Breaking(server, storage, "INSERT INTO fleche_locks", after=after):
            assert locks.acquire(KEY, "me") is None
        found = locks.acquire(KEY, "you")
        assert found is not None
        assert found.owner == "me"
        with Breaking(server, storage, "UPDATE fleche_locks", after=after):
            assert locks.steal(KEY, "you", found)
        assert not locks.steal(KEY, "third", found)
        assert not locks.steal(KEY, "me", Lock("me", found.heartbeat))
        with Breaking(server, storage, "UPDATE fleche_locks", after=after):
            assert locks.heartbeat(KEY, "you")
        with Breaking(server, storage, "DELETE FROM fleche_locks", after=after):
            locks.release(KEY, "you")
        assert locks.acquire(KEY, "third") is None

    def test_the_answer_is_lost(self, storage: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was committed before the connection broke does no harm when it is done again."""
        locks = storage.locks
        assert locks.acquire(OTHER, "me") is None
        lose = Losing(storage, monkeypatch)
        with lose:
            put(storage, KEY, a_call("new"))
        assert get(storage, KEY) == a_call("new")
        with lose:
            assert touch(storage, KEY)
        with lose:
            delete(storage, KEY)
        assert not has(storage, KEY)
        with lose:
            assert locks.acquire(KEY, "me") is None
        found = locks.acquire(KEY, "you")
        assert found is not None
        with lose:
            assert locks.steal(KEY, "you", found)
        assert not locks.steal(KEY, "third", found)
        with lose:
            assert locks.heartbeat(KEY, "you")
        with lose:
            locks.release(KEY, "you")
        assert locks.acquire(KEY, "third") is None

    def test_again_and_again(self, server: PostgresServer, storage: Sql) -> None:
        """Twice is enough; who breaks it for ever is named."""
        put(storage, KEY, a_call("old"))
        with Breaking(server, storage, "INSERT", after=False) as breaking:

            def once_more(*arguments: Any) -> None:
                breaking.struck = False

            sa.event.listen(breaking.engine, "begin", once_more)
            with pytest.raises(StorageError, match="cannot write"):
                put(storage, KEY, a_call("new"))
            sa.event.remove(breaking.engine, "begin", once_more)
        assert get(storage, KEY) == a_call("old")
