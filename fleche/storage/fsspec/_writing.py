"""Writing objects: whole or in parts, never half; and making old ones young."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from fleche._util import override
from fleche.errors import StorageError
from fleche.parcel import Buffer
from fleche.storage._base import TEMPORARY
from fleche.storage.fsspec._filesystem import Connection, explained
from fleche.storage.fsspec._objects import BLOCK, Found, Objects, modified_of

__all__ = ["AccessTimes", "Writer"]

_MOST_PARTS = 9000  # S3 takes 10,000


class Writer:
    """Writes what :class:`Objects` reads.

    Where the store makes an object appear whole (S3 and its like, memory), it is put there; in
    parts if it is large. Elsewhere a temporary file is written beside it, which then takes its
    name.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._connection = objects.connection
        self._made: set[str] = set()

    def write(self, key: str, data: bytes) -> None:
        """Write the object, or replace it, in one step; a failure leaves no trace.

        Raises:
            StorageError: it could not be written.
        """
        if not self._connection.traits.atomic:
            self._replace(key, [data])
            return
        with explained("write", self._objects.name(key)):
            self._connection.fs.pipe_file(self._objects.path(key), data)

    def write_many(self, items: Mapping[str, bytes]) -> None:
        """Write several objects, at once where the store allows it.

        Raises:
            StorageError: one of them could not be written; others may have been.
        """
        if not self._connection.traits.atomic:
            for key, data in items.items():
                self.write(key, data)
            return
        with explained("write", self._connection.name):
            self._connection.fs.pipe({self._objects.path(key): data for key, data in items.items()})

    def write_chunks(self, key: str, size: int, chunks: Iterable[Buffer]) -> None:
        """Write an object of ``size`` bytes; a few blocks of it are in memory at a time.

        Raises:
            StorageError: it could not be written.
        """
        traits = self._connection.traits
        if not traits.atomic:
            self._replace(key, chunks)
        elif traits.streams:
            self._upload(key, size, chunks)
        else:
            self.write(key, b"".join(chunks))

    def touch(self, key: str) -> bool:
        """Make the object young where it is; return whether this store can do that.

        Only for objects whose content never changes: where that is a copy onto itself, it may undo
        what another process writes meanwhile.

        Raises:
            KeyError: there is none.
            StorageError: it could not be written.
        """
        path, copies = self._objects.path(key), self._connection.traits.copies
        if copies is None:
            try:
                return self.touch_in_place(key)
            except StorageError as error:
                if isinstance(error.__cause__, PermissionError):
                    return False  # a colleague's file, in a directory that all may write to
                raise
        with explained("touch", self._objects.name(key), key):
            self._connection.fs.cp_file(path, path, **copies)
        return True

    def touch_in_place(self, key: str) -> bool:
        """Make the object young and leave its content alone, if this store can do that.

        Returns:
            Whether it can.

        Raises:
            KeyError: there is none.
            StorageError: it could not be written.
        """
        if self._connection.traits.atomic:
            return False
        with explained("touch", self._objects.name(key), key):
            try:
                self._connection.fs.touch(self._objects.path(key), truncate=False)
            except (NotImplementedError, ValueError):
                return False
        return True

    def now(self) -> float:
        """Return when an object was modified that is written for this, and removed again."""
        fs = self._connection.fs
        probe = f"{self._connection.root}/clock-{secrets.token_hex(8)}{TEMPORARY}"
        with suppress(Exception):  # nothing may be written here
            fs.pipe_file(probe, b"1")
            try:
                return self._objects.modified(fs.info(probe))
            finally:
                fs.rm_file(probe)
        return time.time()

    def sweep(self, limit_of: Callable[[], float]) -> int:
        """Remove temporary files that nothing has written to since a time; count them.

        Args:
            limit_of: asks the clock of the store, where there are temporary files.
        """
        if self._connection.traits.atomic:
            return 0
        begun = [
            (str(info["name"]), modified_of(info))
            for info in self._objects.infos("")
            if self._objects.is_temporary(str(info["name"]))
        ]
        limit = limit_of() if begun else 0.0
        return sum(self._removed(path) for path, modified in begun if modified < limit)

    def _upload(self, key: str, size: int, chunks: Iterable[Buffer]) -> None:
        block = max(BLOCK, -(-size // _MOST_PARTS))
        name = self._objects.name(key)
        with explained("write", name):
            path = self._objects.path(key)
            file = self._connection.fs.open(path, "wb", block_size=block, autocommit=False)
        try:
            _pour(file, chunks, name)
            with explained("write", name):
                file.close()
                file.commit()
        except BaseException:
            file.closed = True  # or it would be finished when it is collected
            with suppress(Exception):
                file.discard()
            raise

    def _replace(self, key: str, chunks: Iterable[Buffer]) -> None:
        path, name = self._objects.path(key), self._objects.name(key)
        temporary = f"{path}.{secrets.token_hex(8)}{TEMPORARY}"
        self._make_shard(path.rpartition("/")[0], name)
        try:
            with explained("write", name):
                file = self._opened(temporary)
            with _closing(file, name):
                _pour(file, chunks, name)
            with explained("write", name):
                self._move(temporary, path)
        except BaseException:
            self._removed(temporary)
            raise

    def _opened(self, temporary: str) -> Any:
        try:
            return self._connection.open_new(temporary)
        except FileNotFoundError:  # another process may have removed the directory
            self._connection.make_directory(temporary.rpartition("/")[0])
            return self._connection.open_new(temporary)

    def _make_shard(self, shard: str, name: str) -> None:
        if shard not in self._made:
            with explained("write", name):
                self._connection.make_directory(shard)
            self._made.add(shard)

    def _move(self, temporary: str, path: str) -> None:
        try:
            self._objects.rename(temporary, path)
        except FileExistsError:  # where a rename replaces nothing
            self._connection.fs.rm_file(path)
            self._objects.rename(temporary, path)

    def _removed(self, path: str) -> bool:
        with suppress(Exception):  # gone meanwhile, never made, or not ours to remove
            self._connection.fs.rm_file(path)
            return True
        return False


@contextmanager
def _closing(file: Any, name: str) -> Iterator[None]:
    """Close the file, in whatever way it ends; a failure to close counts where nothing else did."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            file.close()
        raise
    with explained("write", name):
        file.close()


def _pour(file: Any, chunks: Iterable[Buffer], name: str) -> None:
    for chunk in chunks:
        with explained("write", name):
            file.write(bytes(chunk))


# -- the time of the last use ----------------------------------------------------------------------

_TRACE = ".used"


class AccessTimes(Objects):
    """Objects that are as old as their last use, which need not be when they were written.

    No store makes an object young without writing it. But to write an entry again because it was
    used may bring it back over one that another process has written meanwhile. So a use leaves a
    *trace*: a small object beside the entry, ``cdef....call.used``, of which nothing but the age is
    of interest.

    Traces are looked for and removed only where this process has seen one: most caches have none.

    Args:
        connection: the filesystem and the path on it.
        suffix: tells these objects from others below the same url.
    """

    def __init__(self, connection: Connection, suffix: str) -> None:
        super().__init__(connection, suffix)
        self._traces = Objects(connection, f"{suffix}{_TRACE}")
        self._writer = Writer(self._traces)
        self._has_traces = False

    def use(self, key: str) -> None:
        """Make the object as young as if it had just been written.

        Raises:
            StorageError: it could not be written.
        """
        self._has_traces = True
        self._writer.write(key, b"1")

    @override
    def find(self, key: str) -> Found:
        """Return the size of an object, and when it was written or used last."""
        found = super().find(key)
        try:
            used = self._traces.find(key).modified
        except KeyError:
            return found
        self._has_traces = True
        return found._replace(modified=max(found.modified, used))

    def in_use(self, prefix: str) -> Iterator[Found]:
        """Yield what :meth:`listed` does, with the age of the last use."""
        written, used = self._listed_with_traces(prefix)
        for found in written:
            yield found._replace(modified=max(found.modified, used.get(found.key, -math.inf)))

    @override
    def remove(self, key: str) -> None:
        super().remove(key)
        if self._has_traces:
            self._traces.remove(key)

    @override
    def remove_many(self, keys: Iterable[str]) -> None:
        gone = list(keys)
        super().remove_many(gone)
        if self._has_traces:
            self._traces.remove_many(gone)

    def sweep(self, limit_of: Callable[[], float]) -> int:
        """Remove traces of what is gone that are older than a time; count them.

        Args:
            limit_of: asks the clock of the store, where there are such traces.
        """
        written, used = self._listed_with_traces("")
        left = used.keys() - {found.key for found in written}
        limit = limit_of() if left else 0.0
        stale = [key for key in left if used[key] < limit]
        for key in stale:
            self._traces.remove(key)
        return len(stale)

    def _listed_with_traces(self, prefix: str) -> tuple[list[Found], dict[str, float]]:
        written: list[Found] = []
        used: dict[str, float] = {}
        for info in self.infos(prefix):
            if (found := self.found(info)) is not None:
                if found.key.startswith(prefix):
                    written.append(found)
            elif (trace := self._traces.found(info)) is not None:
                used[trace.key] = trace.modified
        self._has_traces = self._has_traces or bool(used)
        return written, used
