"""Records of calls in the tables of a database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import sqlalchemy as sa

from fleche.call import CallRecord, QueryCall, decode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, StorageError
from fleche.storage.base import CallStorage, Capabilities, Entry
from fleche.storage.sql.claims import SqlClaims
from fleche.storage.sql.compile import begins_with, filters_of
from fleche.storage.sql.database import Database
from fleche.storage.sql.schema import calls
from fleche.storage.sql.statements import ENTRY, KEY, RECORD, RECORDS, among, replace_records
from fleche.storage.sql.urls import locate, redacted

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sql", "SqlOptions"]

log = logging.getLogger("fleche.storage")

_FIRST_PAGE = 500  # keys; no more than one batch, so that the first answer comes early
_LARGEST_PAGE = 64_000
_BATCH = 500  # records

_MEMORY = "sqlite://"


class SqlOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of a ``sql`` storage in ``fleche.toml``.

    Attributes:
        url: an SQLAlchemy URL, or the path of an SQLite file; by default a database in memory.
    """

    url: str | None = None


class Sql(CallStorage):
    """Records of calls in a database, where queries run.

    Args:
        url: an SQLAlchemy URL (``postgresql+psycopg://user@host/name``, ``sqlite:///calls.db``) or
            the path of an SQLite file, ``~`` expanded. By default an SQLite database in memory, for
            all threads of this process.

    Raises:
        StorageError: ``url`` is no URL. The database itself is first opened when it is used.
    """

    Options: ClassVar[type[msgspec.Struct]] = SqlOptions

    def __init__(self, url: str | Path | None = None) -> None:
        self._url = None if url is None else locate(str(url), _absolute)
        self._database = Database(self._url or _MEMORY)
        stays = not self._database.in_memory
        self.capabilities = Capabilities(persistent=stays, shared=stays)
        if stays and self._database.kind in ("sqlite", "postgresql"):
            self.claims = SqlClaims(self._database)

    @classmethod
    def from_options(
        cls,
        type_name: str,  # noqa: ARG003
        options: SqlOptions,
        resolve: Callable[[str], str],
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        return cls(None if options.url is None else locate(options.url, resolve))

    def __reduce__(self) -> tuple[type[Self], tuple[str | None]]:
        """Pickle as the configuration; a database in memory arrives empty."""
        return type(self), (self._url,)

    def put(self, key: Digest, item: CallRecord) -> None:
        """Store the record, in place of the one that is there.

        Raises:
            StorageError: it could not be stored; the database is as it was.
        """
        self.put_many({key: item})

    def put_many(self, items: Mapping[Digest, CallRecord]) -> None:
        """Store several records in one transaction: all or none."""
        with self._database.write() as connection:
            for batch in _batches(sorted(items.items())):
                replace_records(connection, batch)

    def get(self, key: Digest) -> CallRecord:
        """Return the record.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged.
            StorageError: it could not be read.
        """
        with self._database.read() as connection:
            data = connection.scalar(RECORD, {"key": str(key)})
        if data is None:
            raise KeyError(key)
        return self._decoded(key, data)

    def get_many(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield those of the records that are there, in the order of ``keys``."""
        return ((key, self._decoded(key, data)) for key, data in self._stored(keys))

    def contains(self, key: Digest) -> bool:
        """Tell whether there is a record, without reading it."""
        with self._database.read() as connection:
            return connection.scalar(KEY, {"key": str(key)}) is not None

    def missing(self, keys: Iterable[Digest]) -> list[Digest]:
        """Return those of ``keys`` that have no record."""
        absent = []
        for batch in _batches(keys):
            with self._database.read() as connection:
                there = set(connection.scalars(sa.select(calls.c.key).where(among(batch))))
            absent += [key for key in batch if key not in there]
        return absent

    def delete(self, key: Digest) -> None:
        """Remove the record; none there is no error."""
        with self._database.write() as connection:
            connection.execute(sa.delete(calls).where(calls.c.key == str(key)))

    def renew(self, key: Digest) -> bool:
        """Make the record as young as if it had just been put; tell whether there is one."""
        young = sa.update(calls).where(calls.c.key == str(key)).values(modified=time.time())
        try:
            with self._database.write() as connection:
                return connection.execute(young).rowcount > 0
        except StorageError:  # where nothing can be written
            return self.contains(key)

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the record unless it was renewed after ``limit``; tell whether it went."""
        old = sa.delete(calls).where(calls.c.key == str(key), calls.c.modified <= limit)
        with self._database.write() as connection:
            return connection.execute(old).rowcount > 0

    def keys(self) -> Iterator[Digest]:
        """Yield all keys."""
        return self._keys()

    def matching(self, prefix: str) -> Iterator[Digest]:
        """Yield the keys that begin with ``prefix``."""
        found = self._keys(begins_with(calls.c.key, prefix))
        return (key for key in found if key.startswith(prefix))

    def entry(self, key: Digest) -> Entry:
        """Return the size and age of a record.

        Raises:
            KeyError: there is none.
        """
        found = next(self._rows(ENTRY, calls.c.key == str(key)), None)
        if found is None:
            raise KeyError(key)
        return Entry(key, found.size, found.modified)

    def entries(self) -> Iterator[Entry]:
        """Yield the size and age of every record."""
        return (Entry(Digest(row.key), row.size, row.modified) for row in self._rows(ENTRY))

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match ``template``, in the order of their keys.

        They are fetched in batches, between which no transaction is open: the database may be
        written to, by the same thread too, before the last one is taken. Damaged records are
        skipped with a warning.
        """
        warned = False
        for key, data in self._stored(self._keys(*filters_of(template))):
            try:
                record = self._decoded(key, data)
            except CorruptParcel as error:
                if not warned:
                    log.warning("query skips damaged records, the first of them: %s", error)
                warned = True
                continue
            if template.matches(record):
                yield key, record

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage, a password included."""
        return {"type": "sql"} if self._url is None else {"type": "sql", "url": self._url}

    def close(self) -> None:
        """Close the connections; a database in memory is gone. Idempotent."""
        self._database.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self._url is None else repr(redacted(self._url))})"

    def _keys(self, *filters: Any) -> Iterator[Digest]:
        return (Digest(row.key) for row in self._rows([calls.c.key], *filters))

    def _rows(self, columns: Sequence[Any], *filters: Any) -> Iterator[Any]:
        """Yield rows in the order of their keys, fetched in pages that grow."""
        last, size = "", _FIRST_PAGE
        statement = sa.select(*columns).where(*filters).order_by(calls.c.key)
        while True:
            page = statement.where(calls.c.key > last).limit(size)
            with self._database.read() as connection:
                rows = connection.execute(page).all()
            yield from rows
            if len(rows) < size:
                return
            last, size = rows[-1].key, min(16 * size, _LARGEST_PAGE)

    def _stored(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, bytes]]:
        """Yield those of the encoded records that are there, in the order of ``keys``."""
        for batch in _batches(keys):
            with self._database.read() as connection:
                rows = connection.execute(RECORDS.where(among(batch)))
                found = {row.key: row.record for row in rows}
            yield from ((key, found[key]) for key in batch if key in found)

    def _decoded(self, key: Digest, data: bytes) -> CallRecord:
        try:
            return decode_record(data)
        except CorruptParcel as error:
            raise CorruptParcel(f"{self._database.shown}: call {key[:12]}: {error}") from None


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
