"""Calls in an SQLite file, and large values as files that the same SQLite file knows of.

``<root>/fleche.db`` holds the entries of calls, and for each large value a row with its size, its
age and the shared buffers that it needs; ``<root>/values`` holds the files. The file is the truth
for what a value is, the row for how old it is.

The row is written before the file, and again after it if that took long, or the row has gone. So
whatever a writer that is killed leaves behind is known by a row and can be collected, and a
collector that looks at the moment between sees that the value is new. A file is removed inside the
transaction that removes its row. A row without a file is no value: only what collects lists it.
"""

from __future__ import annotations

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from fleche._util import batched, expand_path, override
from fleche.call import CallEntry
from fleche.digest import Address
from fleche.errors import ParcelError, StorageError
from fleche.parcel import Packing, Parcel, codec_of
from fleche.storage._base import (
    STALE,
    BufferRefs,
    CallStorage,
    Capabilities,
    Configured,
    DirectoryOptions,
    Entry,
    ValueStorage,
    keys_of,
)
from fleche.storage.local._layout import DATABASE, layout_of, write_layout
from fleche.storage.sql import Connection, SqlCalls, SqliteFile, among

if TYPE_CHECKING:
    from fleche.parcel import Draft
    from fleche.storage.file import ValueFile

__all__ = ["CallLocal", "ValueLocal", "local_storages", "options_of"]

log = logging.getLogger("fleche.storage")

T = TypeVar("T")

_BATCH = 400  # keys in a statement; SQLite takes 999 parameters before version 3.32
_PAGE = 1000
_BRIEF = 1.0
"""Seconds that an age may be too great, and a file younger than its row."""

_SERIALIZER = "cloudpickle"

_INSERT = (
    "INSERT INTO fleche_values (address, size, modified, is_buffer, buffers)"
    " VALUES (:address, :size, :now, :is_buffer, :buffers)"
)
_ADOPT = f"{_INSERT} ON CONFLICT (address) DO NOTHING"
_NOTE = (
    f"{_INSERT} ON CONFLICT (address) DO UPDATE SET size = excluded.size,"
    " modified = excluded.modified, is_buffer = excluded.is_buffer, buffers = excluded.buffers"
)
_TOUCH = "UPDATE fleche_values SET modified = :now WHERE address = :address"
_FORGET = "DELETE FROM fleche_values WHERE address = :address"
_IS_OLD = "SELECT 1 FROM fleche_values WHERE address = :address AND modified <= :limit"
_IS_KNOWN = "SELECT 1 FROM fleche_values WHERE address = :address"
_ENTRIES = (
    "SELECT address, size, modified FROM fleche_values WHERE address > :last AND address < :end"
    " ORDER BY address LIMIT :size"
)
_FIRST_ENTRIES = _ENTRIES.replace("address > :last", "address >= :last")
_AFTER_ALL = "g"  # addresses are hexadecimal


def options_of(root: str | os.PathLike[str], fields: Mapping[str, Any]) -> DirectoryOptions:
    """Return the options of a store.

    Args:
        root: the directory; it is made absolute.
        fields: the others.

    Raises:
        TypeError: one is unknown, or of the wrong type.
    """
    path = str(expand_path(root).absolute())
    try:
        return msgspec.convert({**fields, "root": path}, DirectoryOptions)
    except msgspec.ValidationError as error:
        raise TypeError(f"local store in {path}: {error}") from None


def _database_of(options: DirectoryOptions) -> SqliteFile:
    """Return the database of a root.

    Raises:
        StorageError: what is there has another format.
    """
    root = Path(options.root)
    if layout_of(root) != "sqlite":
        raise StorageError(
            f"{root}: this cache is made of files, for a network file system; use "
            'type = "local" for the whole cache, or CallFile and ValueFile'
        )
    return SqliteFile(
        root / DATABASE,
        durable=options.durable,
        before_making=lambda: write_layout(root, "sqlite"),
    )


class _Local(Configured[T], Generic[T]):
    """What both halves of a local store have in common.

    The parameters are the fields of :class:`DirectoryOptions`.

    Raises:
        StorageError: a newer fleche has made what is there, or it is of another format.
    """

    Options = DirectoryOptions
    _type = "local"
    _options: DirectoryOptions

    def __init__(
        self, root: str | os.PathLike[str], *, database: SqliteFile | None = None, **fields: Any
    ) -> None:
        self._options = options_of(root, fields)
        self._begin(database or _database_of(self._options))

    @abstractmethod
    def _begin(self, database: SqliteFile) -> None:
        """Keep entries in ``database``, which the other half may use, too."""

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.root!r})"


class CallLocal(_Local[CallEntry], SqlCalls):
    """Calls in the SQLite file of a local store; see :class:`DirectoryOptions`."""

    @override
    def _begin(self, database: SqliteFile) -> None:
        SqlCalls.__init__(self, database, keys_of(self._options.secret_key))


class ValueLocal(_Local[Parcel], ValueStorage):
    """Large values of a local store; see :class:`DirectoryOptions`."""

    capabilities = Capabilities(persistent=True, shared=True, touches=True)

    @override
    def _begin(self, database: SqliteFile) -> None:
        options = self._options
        self._database = database
        self.packing = Packing(
            _SERIALIZER,
            codec_of(options.compress),
            keys_of(options.secret_key),
            os.path.join(options.root, "files"),
        )

    @cached_property
    def _files(self) -> ValueFile:
        """The files of large values: what is small is in the database."""
        from fleche.storage.file import ValueFile

        options = self._options
        return ValueFile(
            os.path.join(options.root, "values"),
            _SERIALIZER,
            compress=options.compress,
            secret_key=options.secret_key,
            mmap=options.mmap,
            durable=options.durable,
        )

    # -- the five methods --------------------------------------------------------------------------

    @override
    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        if isinstance(items, list | tuple):
            self._put(items)
            return
        for item in items:
            self._put([item])

    @override
    def draft(self, content: memoryview) -> Draft | None:
        return self._files.draft(content)

    def _put(self, items: Sequence[tuple[str, Parcel]]) -> None:
        if not items:
            return
        rows = [_noted(key, parcel.nbytes, BufferRefs.of(parcel.head)) for key, parcel in items]
        began = self._note(rows)
        try:
            self._files.put_many(items)
        except BaseException:
            with suppress(StorageError):
                self._forget_absent([key for key, _ in items])
            raise
        keys = [key for key, _ in items]
        if time.time() - began > _BRIEF or len(self._known(keys)) < len(set(keys)):
            self._note(rows)

    def _forget_absent(self, keys: Sequence[str]) -> None:
        """Remove the rows of values that have no file."""

        def forget(connection: Connection) -> None:
            gone = set(keys) - self._files.contains_many(keys)
            connection.executemany(_FORGET, [{"address": str(key)} for key in gone])

        self._database.change(forget, frees=True)

    def _note(self, rows: Sequence[dict[str, Any]]) -> float:
        """Write rows of values that are young from now on; return when that is."""
        now = time.time()
        timed = [{**row, "now": now} for row in rows]
        self._database.change(lambda connection: connection.executemany(_NOTE, timed))
        return now

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        return self._files.get_many(keys)

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        return self._files.contains_many(keys)

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        for batch in batched(keys, _BATCH):

            def delete(connection: Connection, batch: Sequence[str] = batch) -> None:
                self._files.delete_many(batch)  # first, so that a full disk has room for the rest
                connection.executemany(_FORGET, [{"address": str(key)} for key in batch])

            if self._known(batch) or self._files.contains_many(batch):
                self._database.change(delete, frees=True)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        if not prefix:  # of which no row knows
            self._files.sweep_drafts()
        statement, last, end = _FIRST_ENTRIES, prefix, f"{prefix}{_AFTER_ALL}"
        while True:
            rows = self._database.fetch(statement, {"last": last, "end": end, "size": _PAGE})
            yield from (Entry(*row) for row in rows)
            if len(rows) < _PAGE:
                return
            statement, last = _ENTRIES, rows[-1][0]

    @override
    def adopt(self) -> None:
        for batch in batched(self._files.entries(), _BATCH):
            found = {entry.key: entry for entry in batch}
            unknown = found.keys() - self._known(found)
            rows = [
                {**_noted(key, found[key].size, refs), "now": found[key].modified}
                for key, refs in self._files.buffer_refs(unknown)
                if isinstance(refs, BufferRefs)  # else a newer fleche knows what it needs
            ]

            def note(connection: Connection, rows: Sequence[dict[str, Any]] = rows) -> None:
                connection.executemany(_ADOPT, rows)

            if rows:
                self._database.change(note, frees=True)  # which follows from it

    @override
    def forms(self, address: str) -> list[Entry]:
        found = super().forms(address)
        here = self._files.contains_many([entry.key for entry in found]) if found else ()
        return [entry for entry in found if entry.key in here]

    # -- what the database does better -------------------------------------------------------------

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        there = self._files.touch_many(keys)
        if not there:
            return there
        unknown = there - self._known(there)
        rows = [
            _noted(key, 0, refs if isinstance(refs, BufferRefs) else BufferRefs())
            for key, refs in self._files.buffer_refs(unknown)
        ]

        def touch(connection: Connection) -> None:
            now = time.time()
            connection.executemany(_TOUCH, [{"address": str(key), "now": now} for key in there])
            connection.executemany(_NOTE, [{**row, "now": now} for row in rows])

        try:
            self._database.change(touch)
        except StorageError:  # where nothing can be written
            log.debug("%s: values are not touched", self._database.shown, exc_info=True)
        # A collector may have been faster; what it has taken is to be stored again.
        return self._files.contains_many(there)

    @override
    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        gone: set[str] = set()
        for batch in batched(limits, _BATCH):

            def delete(connection: Connection, batch: Sequence[str] = batch) -> set[str]:
                known = {key for key in batch if self._has(connection, _IS_KNOWN, key)}
                old = {
                    key
                    for key in batch
                    if key not in known or self._has(connection, _IS_OLD, key, limits[key])
                }
                # a file is written after its row, as is known of it
                ends = {key: limits[key] + _BRIEF * (key in known) for key in old}
                taken = self._files.delete_older(ends)
                for key in (old & known) - taken - self._files.contains_many(old):
                    list(self._files.entries(key))  # sweeps what a killed writer has left of it
                    taken.add(key)
                connection.executemany(_FORGET, [{"address": str(key)} for key in taken])
                return taken

            if self._known(batch) or self._files.contains_many(batch):
                gone |= self._database.change(delete, frees=True)
        return gone

    @staticmethod
    def _has(connection: Connection, statement: str, key: str, limit: float = 0.0) -> bool:
        return bool(connection.execute(statement, {"address": str(key), "limit": limit}).fetchall())

    @override
    def buffer_refs(self, keys: Iterable[str]) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        for batch in batched(keys, _BATCH):
            known = self._rows(batch, "address, is_buffer, buffers")
            found = {
                row[0]: BufferRefs(bool(row[1]), tuple(map(Address.of, row[2].split())))
                for row in known
            }
            rest = [key for key in batch if str(key) not in found]
            others = dict(self._files.buffer_refs(rest)) if rest else {}
            for key in batch:
                refs = found.get(str(key), others.get(key))
                if refs is not None:
                    yield key, refs

    @override
    def check_many(
        self, keys: Iterable[str], secrets: Sequence[bytes] = ()
    ) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        return self._files.check_many(keys, secrets)

    @override
    def sweep(self, older: float = STALE) -> int:
        return self._files.sweep(older)

    @override
    def close(self) -> None:
        self._database.close()

    def _known(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have a row."""
        return {row[0] for batch in batched(keys, _BATCH) for row in self._rows(batch, "address")}

    def _rows(self, keys: Sequence[str], columns: str) -> list[Any]:
        return self._database.fetch(
            *among(f"SELECT {columns} FROM fleche_values WHERE address", keys)
        )


def _noted(key: str, size: int, refs: BufferRefs) -> dict[str, Any]:
    return {
        "address": str(key),
        "size": size,
        "is_buffer": int(refs.is_buffer),
        "buffers": " ".join(refs.references),
    }


def local_storages(root: str | os.PathLike[str], **fields: Any) -> tuple[ValueStorage, CallStorage]:
    """Return the two halves of the store in ``root``: values and calls.

    Args:
        root: the directory, ``~`` and environment variables expanded; made when the first entry is
            put, or at once on a network file system, where both are made of files.
        fields: the other fields of :class:`DirectoryOptions`.

    Raises:
        StorageError: what is there was made by a newer fleche, or cannot be used from this machine.
    """
    options = options_of(root, fields)
    place = Path(options.root)
    if layout_of(place) == "files":
        from fleche.storage.file import CallFile, ValueFile

        try:
            write_layout(place, "files")
        except StorageError:
            if layout_of(place) != "files":
                raise
        return ValueFile(place, _SERIALIZER, **fields), CallFile(place, _SERIALIZER, **fields)
    database = _database_of(options)
    return (
        ValueLocal(place, database=database, **fields),
        CallLocal(place, database=database, **fields),
    )
