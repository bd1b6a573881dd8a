"""Calls in the tables of a database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from fleche._util import batched, expand_path, override
from fleche.call import (
    CallEntry,
    CallRecord,
    QueryCall,
    decode_entry,
    encode_entry,
    sort_time_of,
)
from fleche.digest import Address
from fleche.errors import ParcelError, StorageError
from fleche.storage._base import (
    Capabilities,
    Configured,
    Entry,
    held_among,
    keys_of,
    matching_entries,
)
from fleche.storage.sql._database import Connection, Database
from fleche.storage.sql._errors import DAMAGED, DiskFull
from fleche.storage.sql._index import FORGET_FACTS, LOOK, SearchIndex
from fleche.storage.sql._locks import SqlLocks
from fleche.storage.sql._notes import NotesInTables
from fleche.storage.sql._rows import LAST_ID, Rows, among, is_key
from fleche.storage.sql._schema import FUNCTION, STARTED, WORDS, shortened
from fleche.storage.sql._sqlite import SqliteFile, SqliteMemory
from fleche.storage.sql._urls import backend_of, locate, parse_sqlite, redacted

if TYPE_CHECKING:
    from fleche.storage.sql._query import Plan

__all__ = ["Sql", "SqlCalls", "SqlOptions", "open_database"]

log = logging.getLogger("fleche.storage")

_BATCH = 400  # keys in a statement; SQLite takes 999 parameters before version 3.32
_BATCH_BYTES = 1 << 22
_PROBES = (1000, 30_000)  # rows; reading so many places in an index takes 0.1 ms, and 3 ms
_FIRST_BATCH = 25

_UNDATED = (
    "NOT EXISTS (SELECT 1 FROM fleche_facts s"
    f" WHERE s.call = c.id AND s.field = '{STARTED}' AND s.text IS NOT NULL)"
)

_ENTRY = "SELECT entry FROM fleche_calls WHERE key = :key"
_ENTRY_BY_PLACE = "SELECT entry FROM fleche_calls WHERE key = ?"  # SQLite alone; bound sooner
_INSERT = (
    "INSERT INTO fleche_calls (key, function, pin, modified, size, entry)"
    " VALUES (:key, :function, :pin, {now}, :size, :entry) ON CONFLICT (key) DO"
)
_INSERT_NEW_BY_PLACE = (  # SQLite alone
    "INSERT INTO fleche_calls (key, function, pin, modified, size, entry)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
)
_UPSERT = (
    f"{_INSERT} UPDATE SET function = excluded.function, pin = excluded.pin,"
    " modified = excluded.modified, size = excluded.size, entry = excluded.entry"
)
_PLACE = "SELECT id FROM fleche_calls WHERE key = :key"
_FUNCTION = (
    "SELECT id FROM fleche_functions WHERE name = :name AND module = :module AND code = :code"
)
_INSERT_FUNCTION = (
    "INSERT INTO fleche_functions (name, module, code) VALUES (:name, :module, :code)"
    " ON CONFLICT (name, module, code) DO NOTHING"
)
_TOUCH = "UPDATE fleche_calls SET modified = {now} WHERE key"
_DELETE = "DELETE FROM fleche_calls WHERE id = :id"
_DELETE_OLDER = "DELETE FROM fleche_calls WHERE id = :id AND modified <= :limit"

_IDS = "SELECT c.id FROM fleche_calls c WHERE 1 = 1"

_Function: TypeAlias = tuple[str, str, str]


class SqlCalls(NotesInTables):
    """Calls in ``database``.

    Args:
        database: SQLite or a server.
        secrets: the first signs, all are accepted.
    """

    def __init__(self, database: Database, secrets: Sequence[bytes] = ()) -> None:
        self._database = database
        # Machines that share a server need not agree on the time: its clock tells all ages.
        self._clock = WORDS[database.kind]["now"]
        self._upsert, self._touch = (each.format(now=self._clock) for each in (_UPSERT, _TOUCH))
        self._secrets = secrets
        self._rows = Rows(database, secrets)
        self._functions: dict[_Function, int] = {}
        self._generation = database.generation
        self._index = SearchIndex(database, self._rows)
        stays = not database.in_memory
        self.capabilities = Capabilities(persistent=stays, shared=stays, touches=True)
        if stays:
            self.locks = SqlLocks(database)

    # -- the five methods --------------------------------------------------------------------------

    @override
    def put_many(self, items: Iterable[tuple[str, CallEntry]]) -> None:
        """Store entries, each in place of one that is there.

        Each batch is one transaction; what comes in one batch is stored together, or not at all.
        """
        batch: dict[str, tuple[CallEntry, bytes]] = {}
        size = 0
        began = time.monotonic()
        for key, entry in items:
            data = encode_entry(key, entry, self._secrets)
            batch[str(key)] = entry, data
            size += len(data)
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                self._put(batch)
                batch, size = {}, 0
        if len(batch) == 1:
            if not self._put_new(str(key), entry.record, data):
                self._put(batch, since=began)
        elif batch:
            self._put(batch)

    def _put_new(self, key: str, record: CallRecord, data: bytes) -> bool:
        """Insert a call whose facts are written later; return whether it was new."""
        if not self._index.is_late:
            return False
        generation = self._generation  # first: what is known of functions is no older
        function = self._functions.get((record.name, record.module or "", record.code or ""))
        if function is None:
            return False
        pin = int(record.result is None and record.error is None)
        # bytes are bound slowly
        row = (key, function, pin, time.time(), len(data), bytearray(data))
        place = self._database.insert(_INSERT_NEW_BY_PLACE, row, generation)
        if not place:
            return False
        if place % LOOK == 0:
            self._index.look(place)
        return True

    def _put(
        self, batch: Mapping[str, tuple[CallEntry, bytes]], since: float | None = None
    ) -> None:
        # In order of the keys, so that no two writers of the same calls wait for each other.
        ordered = sorted(batch.items()) if len(batch) > 1 else list(batch.items())
        rows: list[dict[str, Any]] = []
        functions: list[_Function] = []
        now = time.time()
        for key, (entry, data) in ordered:
            record = entry.record
            pin = int(record.result is None and record.error is None)
            functions.append((record.name, record.module or "", record.code or ""))
            rows.append({"key": key, "pin": pin, "now": now, "size": len(data), "entry": data})
        new: dict[_Function, int] = {}
        known = self._functions

        def put(connection: Connection) -> None:
            nonlocal known
            if self._generation != self._database.generation:
                self._functions, self._generation = {}, self._database.generation
            known = self._functions
            new.clear()  # an attempt before this one was rolled back
            for row, function in zip(rows, functions, strict=True):
                number = known.get(function) or new.get(function)
                if number is None:
                    number = new[function] = self._number_of(connection, function)
                row["function"] = number
            connection.executemany(self._upsert, rows)
            self._index.put(connection, ordered)

        self._database.change(put, since=since)
        known.update(new)

    def _number_of(self, connection: Connection, function: _Function) -> int:
        """Return the id of a function, which is written down if it is new."""
        names = dict(zip(("name", "module", "code"), map(shortened, function), strict=True))
        rows = connection.execute(_FUNCTION, names).fetchall()
        if not rows:
            connection.execute(_INSERT_FUNCTION, names)
            rows = connection.execute(_FUNCTION, names).fetchall()
        if not rows or type(rows[0][0]) is not int:
            raise StorageError(
                f"{self._database.shown}: a function that has just been stored is not there "
                f"({DAMAGED})"
            )
        return rows[0][0]

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        wanted = list(keys)
        if len(wanted) == 1:
            key = wanted[0]
            database = self._database
            if database.kind == "sqlite":
                rows = database.fetch(_ENTRY_BY_PLACE, (str(key),))
            else:
                rows = database.fetch(_ENTRY, {"key": str(key)})
            if not rows:
                return iter(())
            data = rows[0][0]
            try:  # as Rows.opened() does, by one call less: every hit comes here
                whole = data if type(data) is bytes else b""  # a damaged file holds anything
                return iter(((key, decode_entry(key, whole, self._secrets, database.shown)),))
            except ParcelError as error:
                return iter(((key, error),))
        return self._get_batches(wanted)

    def _get_batches(self, keys: Sequence[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for batch in batched(keys, _BATCH):
            places = {str(key): place for place, key in enumerate(batch)}
            for key, entry in self._rows.entries_among("key", list(places)):
                if key in places:
                    yield batch[places[key]], entry

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for batch in batched(keys, _BATCH):
            rows = self._rows.among("SELECT key FROM fleche_calls WHERE key", batch)
            there = {row[0] for row in rows}
            found.update(key for key in batch if str(key) in there)
        return found

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        for batch in batched(keys, _BATCH):
            self._delete(batch, {})

    def _delete(self, batch: Sequence[str], limits: Mapping[str, float]) -> set[str]:
        """Remove calls, those that have a limit only if they are as old; return what went."""
        if not self.contains_many(batch):
            return set()

        def delete(connection: Connection) -> set[str]:
            gone = {key for key in sorted(batch) if _delete_one(connection, key, limits.get(key))}
            if gone:
                self._index.note_removed(connection)
            return gone

        try:
            return self._database.change(delete, frees=True)
        except DiskFull:  # which has room for less at a time
            if len(batch) < 2:
                raise
        half = len(batch) // 2
        return self._delete(batch[:half], limits) | self._delete(batch[half:], limits)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            return self._entries_from(prefix)
        pages = self._rows.pages(
            "SELECT id, key, size, modified FROM fleche_calls WHERE id < :last"
            " ORDER BY id DESC LIMIT :size",
            {},
        )
        return (_entry_of(key, size, modified) for _, key, size, modified in pages)

    def _entries_from(self, prefix: str) -> Iterator[Entry]:
        from fleche.storage.sql._query import begins_with

        condition, names = begins_with("key", prefix)
        statement = (
            f"SELECT key, size, modified FROM fleche_calls WHERE {condition} AND key > :last"
            f" ORDER BY key LIMIT {_BATCH}"
        )
        last = ""
        while True:
            rows = self._database.fetch(statement, {**names, "last": last})
            yield from (_entry_of(*row) for row in rows if is_key(row[0]))
            if len(rows) < _BATCH or not str(rows[-1][0]) > last:
                return
            last = rows[-1][0]

    @override
    def is_there(self) -> bool:
        return self._database.is_there()

    # -- what a database does better ---------------------------------------------------------------

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for batch in batched(keys, _BATCH):
            there = self.contains_many(batch)
            if there:
                change, names = among(self._touch, sorted(there))
                try:
                    self._database.change(
                        lambda connection, names=names, change=change: connection.execute(  # type: ignore[misc]
                            change, {**names, "now": time.time()}
                        )
                    )
                except StorageError:  # where nothing can be written
                    log.debug("%s: calls are not touched", self._database.shown, exc_info=True)
            found |= self.contains_many(there)
        return found

    @override
    def now(self) -> float:
        """Return the time by the clock of the server; a file has that of this machine."""
        if self._database.kind == "sqlite":
            return time.time()
        return float(self._database.fetch(f"SELECT {self._clock}")[0][0])

    @override
    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        """Remove entries unless they are younger; return what went.

        If the connection to a server breaks, one may have gone where this says that it has not.
        """
        gone: set[str] = set()
        for batch in batched(limits, _BATCH):
            gone |= self._delete(batch, limits)
        return gone

    @override
    def query(
        self, template: QueryCall, *, keys_only: bool = False
    ) -> Iterator[tuple[str, CallEntry | None]]:
        """Yield the finished calls that match, those that were first stored last come first.

        They are fetched in pages, between which no transaction is open: the database may be written
        to, by the same thread too, before the last one is taken. What is stored meanwhile is not
        seen. Damaged entries are skipped with a warning.
        """
        if template == QueryCall():
            if keys_only:
                return ((entry.key, None) for entry in self.entries())
            return matching_entries(template, self._all_entries())
        from fleche.storage.sql._query import plan_of

        plan = plan_of(template, self._index.unindexed)
        return matching_entries(template, self._candidates(plan))

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[str, CallEntry]]:
        """Yield the newest of the finished calls that match.

        They are found by the text of ``runtime.started``, which has an index and is written in UTC;
        only those whose facts are not written yet are all read.
        """
        from heapq import merge

        from fleche.storage.sql._query import plan_of

        indexed = self._index.last()
        plan, calls, names = self._with_functions(plan_of(template, self._index.unindexed))
        if plan.functions and not names:
            return
        late = matching_entries(template, self._behind(plan, calls, names, indexed))

        def early() -> Iterator[tuple[str, CallEntry]]:
            undated: list[tuple[str, CallEntry]] = []
            dated = self._by_ids(self._latest(plan, calls, names, indexed))
            for key, entry in matching_entries(template, dated):
                if entry.record.began is None:  # the text is no time
                    undated.append((key, entry))
                else:
                    yield key, entry
            yield from undated
            rest = self._by_ids(self._indexed(plan, [*calls, _UNDATED], names, indexed))
            yield from matching_entries(template, rest)

        streams = self._newest_among(late, template, number), early()
        found = merge(*streams, key=sort_time_of, reverse=True)
        yield from islice(found, number)

    @override
    def _all_entries(self) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        return self._rows.all_entries(_FIRST_BATCH, _BATCH)

    def _candidates(self, plan: Plan) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        indexed = self._index.last()
        plan, calls, names = self._with_functions(plan)
        if plan.functions and not names:
            return
        yield from self._behind(plan, calls, names, indexed)
        yield from self._by_ids(self._indexed(plan, calls, names, indexed))

    def _behind(
        self, plan: Plan, calls: Sequence[str], names: Mapping[str, Any], indexed: int
    ) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield the entries that have no facts yet, of the functions that match."""
        if self._index.is_late:
            behind = f"{plan._replace(facts=[], member='').select(calls)} AND c.id > {indexed}"
            yield from self._by_ids(self._ids(behind, "c.id", names))

    def _indexed(
        self, plan: Plan, calls: Sequence[str], names: Mapping[str, Any], indexed: int
    ) -> Iterator[int]:
        """Yield the ids of the calls with facts that match, those that were stored last first."""
        first = self._first_of(plan, names)
        last = "c.id" if first is None and not plan.member else "f.call"
        return self._ids(plan.select(calls, first), last, {**plan.parameters, **names}, indexed)

    def _latest(
        self, plan: Plan, calls: Sequence[str], names: Mapping[str, Any], indexed: int
    ) -> Iterator[int]:
        """Yield the ids of the calls with facts that match, those that began last first."""
        names = {**plan.parameters, **names}
        few = ""
        if (calls or plan.facts) and self._database.kind == "sqlite":
            matching = plan.select(calls, self._first_of(plan, names))
            is_few = self._count(f"({matching}) m", names, _PROBES[-1]) < _PROBES[-1]
            few = matching if is_few else ""
        statement = f"{plan.select_latest(calls, few)} AND s.call <= {indexed}"
        return self._rows.latest(statement, names)

    def _ids(
        self, select: str, last: str, names: Mapping[str, Any], indexed: int = LAST_ID - 1
    ) -> Iterator[int]:
        statement = f"{select} AND {last} < :last ORDER BY {last} DESC LIMIT :size"
        return (row[0] for row in self._rows.pages(statement, names, indexed + 1))

    def _with_functions(self, plan: Plan) -> tuple[Plan, list[str], dict[str, Any]]:
        """Return a plan with the functions that match looked up.

        Returns:
            The plan; the condition that a call is of one of them; its parameters, of which there
            are none if no function matches.
        """
        if not plan.functions:
            return plan, [], {}
        rows = self._database.fetch(plan.of_functions(), plan.parameters)
        names = {f"f{number}": row[0] for number, row in enumerate(rows)}
        if len(rows) > _BATCH:
            condition, names = f"IN ({plan.of_functions()})", plan.parameters
        elif len(rows) == 1:
            condition = "= :f0"
        else:
            condition = f"IN ({', '.join(f':{name}' for name in names)})"
        if self._index.is_late:
            member = f"f.field = '{FUNCTION}' AND f.number {condition}"
            plan = plan._replace(member=member)
        return plan, [f"c.function {condition}"], names

    def _by_ids(self, ids: Iterator[int]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield the entries of calls, in order, in batches that grow: the first comes early."""
        size = _FIRST_BATCH
        while batch := list(islice(ids, size)):
            yield from self._rows.entries_among("id", batch)
            size = min(4 * size, _BATCH)

    def _first_of(self, plan: Plan, functions: Mapping[str, Any]) -> int | None:
        """Return the condition that leaves the fewest rows over; a server knows that by itself.

        Args:
            plan: the conditions.
            functions: the parameters of the one on the function.
        """
        if not plan.steps or self._database.kind != "sqlite":
            return None
        if len(plan.steps) == 1 and not plan.member:
            return plan.steps[0]
        choices: list[tuple[int | None, str, Mapping[str, Any]]] = [
            (step, f"fleche_facts f WHERE {plan.facts[step]}", plan.parameters)
            for step in plan.steps
        ]
        if plan.member:
            choices.insert(0, (None, f"fleche_facts f WHERE {plan.member}", functions))
        step: int | None = None
        for limit in _PROBES:
            counts = [self._count(where, names, limit) for _, where, names in choices]
            step = choices[counts.index(min(counts))][0]
            if min(counts) < limit:
                break
        return step

    def _count(self, where: str, names: Mapping[str, Any], limit: int) -> int:
        """Return how many rows there are, or ``limit`` if there are more."""
        query = f"SELECT count(*) FROM (SELECT 1 FROM {where} LIMIT {limit}) found"
        rows = self._database.fetch(query, names)
        return int(rows[0][0]) if rows else 0

    @override
    def holders(self, prefix: str) -> Iterator[tuple[Address, str]]:
        indexed = self._index.last()
        if self._index.is_late:  # there may be entries that have no facts yet
            behind = self._by_ids(self._ids(f"{_IDS} AND c.id > {indexed}", "c.id", {}))
            yield from held_among(behind, prefix)
        from fleche.storage.sql._query import begins_with

        condition, names = begins_with("f.digest", prefix[:64])
        for address, key in self._facts(f"{condition} AND f.held = 1", names, indexed):
            if address.startswith(prefix):
                yield address, key

    def _facts(
        self, condition: str, names: Mapping[str, Any], indexed: int
    ) -> Iterator[tuple[Address, str]]:
        """Yield the addresses in facts, each with the key of its call."""
        pages = self._rows.pages(
            "SELECT f.call, c.key, f.digest, f.variant FROM fleche_facts f"
            f" JOIN fleche_calls c ON c.id = f.call WHERE {condition} AND f.call < :last"
            " ORDER BY f.call DESC LIMIT :size",
            names,
            indexed + 1,
            whole=True,
        )
        return ((Address.of(digest, variant or ""), key) for _, key, digest, variant in pages)

    # -- what it is --------------------------------------------------------------------------------

    @override
    def close(self) -> None:
        """Close the connections; a database in memory is gone. Idempotent."""
        self._functions.clear()
        self._database.close()


def _delete_one(connection: Connection, key: str, limit: float | None) -> bool:
    """Remove a call with its facts, unless it is younger than ``limit``; return whether it went."""
    for (call,) in connection.execute(_PLACE, {"key": str(key)}).fetchall():
        statement = _DELETE if limit is None else _DELETE_OLDER
        if connection.execute(statement, {"id": call, "limit": limit}).rowcount > 0:
            connection.execute(FORGET_FACTS, {"id": call})
            return True
    return False


def _entry_of(key: str, size: Any, modified: Any) -> Entry:
    """Return the size and age in a row; of what is damaged, that it is small and young."""
    return Entry(
        key,
        size if isinstance(size, int) else 0,
        modified if isinstance(modified, float) else time.time(),
    )


# -- as a storage of its own -----------------------------------------------------------------------


class SqlOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of a ``sql`` storage in ``fleche.toml``.

    Attributes:
        url: an SQLAlchemy URL, or the path of an SQLite file; by default a database in memory.
        secret_key: one secret or several: the first signs, all of them are accepted.
    """

    url: str | None = None
    secret_key: str | list[str] | None = None


class Sql(Configured[CallEntry], SqlCalls):
    """Calls in a database, where queries run.

    Args:
        url: an SQLAlchemy URL (``postgresql+psycopg://user@host/name``, ``sqlite:///calls.db``) or
            the path of an SQLite file, ``~`` and environment variables expanded. By default an
            SQLite database in memory, for all threads of this process.
        secret_key: secrets: the first signs, all are accepted, and an entry that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.

    Raises:
        StorageError: ``url`` is no URL, or that of a database that is not supported. The database
            itself is first opened when it is used.
        MissingExtra: it is that of a server, and SQLAlchemy is not installed.
        ValueError: a secret is empty.
    """

    Options = SqlOptions
    _type = "sql"
    _options: SqlOptions

    def __init__(
        self, url: str | Path | None = None, *, secret_key: str | list[str] | None = None
    ) -> None:
        place = None if url is None else locate(str(url), _absolute)
        self._options = SqlOptions(url=place, secret_key=secret_key)
        super().__init__(open_database(place), keys_of(secret_key))

    @classmethod
    @override
    def _place(cls, place: str, resolve: Callable[[str], str]) -> str:
        return locate(place, resolve)

    @override
    def __repr__(self) -> str:
        url = self._options.url
        return f"{type(self).__name__}({'' if url is None else repr(redacted(url))})"


def open_database(url: str | None) -> Database:
    """Return the database that ``url`` names, which is opened when it is first used.

    Args:
        url: an SQLAlchemy URL, or the absolute path of an SQLite file; ``None``: in memory.
    """
    if url is not None and backend_of(url) != "sqlite":
        from fleche.storage.sql._server import Server

        return Server(url)
    place = parse_sqlite(url or "sqlite://")
    if not place.path:
        return SqliteMemory()
    return SqliteFile(Path(place.path), only_read=place.read_only, patience=place.patience)


def _absolute(path: str) -> str:
    return str(expand_path(path).absolute())
