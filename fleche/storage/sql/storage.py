"""Records of calls in the tables of a database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import sqlalchemy as sa

from fleche._util import batched
from fleche.call import CallRecord, QueryCall, decode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, StorageError
from fleche.storage.base import CallStorage, Capabilities, Entry, sound_matches
from fleche.storage.secrets import keys_of
from fleche.storage.sql.claims import SqlClaims
from fleche.storage.sql.compile import begins_with, filters_of
from fleche.storage.sql.database import Database
from fleche.storage.sql.failures import DAMAGED
from fleche.storage.sql.schema import calls
from fleche.storage.sql.seals import check_seal
from fleche.storage.sql.statements import ENTRY, KEY, KEYS, RECORD, RECORDS, among, replace_records
from fleche.storage.sql.urls import locate, redacted

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sql", "SqlOptions"]

log = logging.getLogger("fleche.storage")

_FIRST_PAGE = 500  # keys; no more than one batch, so that the first answer comes early
_LARGEST_PAGE = 64_000
_BATCH = 500  # records

_MEMORY = "sqlite://"


class SqlOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of a ``sql`` storage in ``fleche.toml``.

    Attributes:
        url: an SQLAlchemy URL, or the path of an SQLite file; by default a database in memory.
        secret_key: one secret or several: the first signs, all of them are accepted.
    """

    url: str | None = None
    secret_key: str | list[str] | None = None


class Sql(CallStorage):
    """Records of calls in a database, where queries run.

    Args:
        url: an SQLAlchemy URL (``postgresql+psycopg://user@host/name``, ``sqlite:///calls.db``) or
            the path of an SQLite file, ``~`` expanded. By default an SQLite database in memory, for
            all threads of this process.
        secret_key: secrets: the first signs, all are accepted, and a record that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.

    Raises:
        StorageError: ``url`` is no URL. The database itself is first opened when it is used.
        ValueError: a secret is empty.
    """

    Options: ClassVar[type[msgspec.Struct]] = SqlOptions

    def __init__(
        self, url: str | Path | None = None, *, secret_key: str | list[str] | None = None
    ) -> None:
        place = None if url is None else locate(str(url), _absolute)
        self._options = SqlOptions(url=place, secret_key=secret_key)
        self._secrets = keys_of(secret_key)
        self._database = Database(place or _MEMORY)
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
        url = None if options.url is None else locate(options.url, resolve)
        return cls(url, secret_key=options.secret_key)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration; a database in memory arrives empty."""
        return _restore, (type(self), self._options)

    def put(self, key: Digest, item: CallRecord) -> None:
        """Store the record, in place of the one that is there.

        Raises:
            StorageError: it could not be stored; the database is as it was.
        """
        self.put_many({key: item})

    def put_many(self, items: Mapping[Digest, CallRecord]) -> None:
        """Store several records in one transaction: all or none."""

        def replace(connection: sa.Connection) -> None:
            for batch in batched(sorted(items.items()), _BATCH):
                replace_records(connection, batch, self._secrets)

        self._database.change(replace)

    def get(self, key: Digest) -> CallRecord:
        """Return the record.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged, or the record of another call.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be read.
        """
        for row in self._database.fetch(RECORD, {"key": str(key)}):
            return self._opened(key, row)
        raise KeyError(key)

    def get_many(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield those of the records that are there, in the order of ``keys``."""
        return ((key, self._opened(key, row)) for key, row in self._stored(keys))

    def contains(self, key: Digest) -> bool:
        """Tell whether there is a record, without reading it."""
        return bool(self._database.fetch(KEY, {"key": str(key)}))

    def missing(self, keys: Iterable[Digest]) -> list[Digest]:
        """Return those of ``keys`` that have no record."""
        absent = []
        for batch in batched(keys, _BATCH):
            there = {row.key for row in self._database.fetch(KEYS.where(among(batch)))}
            absent += [key for key in batch if key not in there]
        return absent

    def delete(self, key: Digest) -> None:
        """Remove the record; none there is no error."""
        gone = sa.delete(calls).where(calls.c.key == str(key))
        self._database.change(lambda connection: connection.execute(gone))

    def renew(self, key: Digest) -> bool:
        """Make the record as young as if it had just been put; tell whether there is one."""
        young = sa.update(calls).where(calls.c.key == str(key)).values(modified=time.time())
        try:
            return self._database.change(lambda found: found.execute(young).rowcount > 0)
        except StorageError:  # where nothing can be written
            return self.contains(key)

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the record unless it was renewed after ``limit``; tell whether it went.

        If the connection to a server breaks, it may have gone where this says that it has not.
        """
        old = sa.delete(calls).where(calls.c.key == str(key), calls.c.modified <= limit)
        return self._database.change(lambda connection: connection.execute(old).rowcount > 0)

    def keys(self) -> Iterator[Digest]:
        """Yield all keys; those that are damaged are passed over with a warning."""
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
        for _, row in self._rows(ENTRY, calls.c.key == str(key)):
            return _entry_of(key, row)
        raise KeyError(key)

    def entries(self) -> Iterator[Entry]:
        """Yield the size and age of every record."""
        return (_entry_of(key, row) for key, row in self._rows(ENTRY))

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match ``template``, in the order of their keys.

        They are fetched in batches, between which no transaction is open: the database may be
        written to, by the same thread too, before the last one is taken. Damaged records are
        skipped with a warning.
        """
        found = self._stored(self._keys(*filters_of(template)))
        return sound_matches(template, found, self._opened)

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage, its secrets included."""
        return {"type": "sql", **msgspec.to_builtins(self._options)}

    def close(self) -> None:
        """Close the connections; a database in memory is gone. Idempotent."""
        self._database.close()

    def __repr__(self) -> str:
        url = self._options.url
        return f"{type(self).__name__}({'' if url is None else repr(redacted(url))})"

    def _keys(self, *filters: Any) -> Iterator[Digest]:
        return (key for key, _ in self._rows([calls.c.key], *filters))

    def _rows(self, columns: Sequence[Any], *filters: Any) -> Iterator[tuple[Digest, Any]]:
        """Yield rows in the order of their keys, fetched in pages that grow."""
        last, size = "", _FIRST_PAGE
        statement = sa.select(*columns).where(*filters).order_by(calls.c.key)
        while True:
            rows = self._database.fetch(statement.where(calls.c.key > last).limit(size))
            found = [(key, row) for row in rows if (key := _maybe_digest(row.key)) is not None]
            if len(found) < len(rows):
                log.warning("%s: calls whose key is damaged are passed over", self._database.shown)
            yield from found
            if len(rows) < size:
                return
            if not found or found[-1][0] <= last:  # or it would go on for ever
                raise StorageError(f"{self._database.shown}: keys in disorder ({DAMAGED})")
            last, size = found[-1][0], min(16 * size, _LARGEST_PAGE)

    def _stored(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, sa.Row[Any]]]:
        """Yield those of the sealed records that are there, in the order of ``keys``."""
        for batch in batched(keys, _BATCH):
            rows = self._database.fetch(RECORDS.where(among(batch)))
            found = {row.key: row for row in rows}
            yield from ((key, found[key]) for key in batch if key in found)

    def _opened(self, key: Digest, row: sa.Row[Any]) -> CallRecord:
        """Return the record of a row, after every check."""
        place = self._database.shown
        check_seal(row.seal, key, row.record, self._secrets, place)
        try:
            return decode_record(row.record)
        except CorruptParcel as error:
            raise CorruptParcel(f"{place}: call {key[:12]}: {error}") from None


def _restore(cls: type[Sql], options: SqlOptions) -> Sql:
    return cls.from_options("sql", options, str)


def _maybe_digest(text: Any) -> Digest | None:
    try:
        return Digest(text)
    except (TypeError, ValueError):  # what a damaged file holds
        return None


def _entry_of(key: Digest, row: Any) -> Entry:
    """Return the size and age in a row; of what is damaged, that it is small and young."""
    size, modified = row.size, row.modified
    if not isinstance(modified, float):
        modified = time.time()
    return Entry(key, size if isinstance(size, int) else 0, modified)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
