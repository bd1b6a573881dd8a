"""Objects that are as old as their last use, which need not be when they were written.

No store makes an object young without writing it. But whoever writes a record again because it was
used may bring it back over one that somebody has written meanwhile. So a use leaves a *trace*: a
small object beside the record, ``cdef....call.used``, of which nothing but the age is of interest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from fleche.digest import Digest
from fleche.storage.fsspec.connection import Connection
from fleche.storage.fsspec.objects import Found, Objects
from fleche.storage.fsspec.writing import Writer

__all__ = ["UsedObjects"]

_TRACE = ".used"


class UsedObjects(Objects):
    """What :class:`Objects` are, with the age of the last use.

    Traces are looked for and removed only where this process has seen one: most caches have none.

    Args:
        connection: the filesystem and the path on it.
        suffix: tells these objects from others below the same url.
    """

    def __init__(self, connection: Connection, suffix: str) -> None:
        super().__init__(connection, suffix)
        self._traces = Objects(connection, f"{suffix}{_TRACE}")
        self._writer = Writer(self._traces, suffix)
        self._has_traces = False

    def use(self, key: Digest) -> None:
        """Make the object as young as if it had just been written.

        Raises:
            StorageError: it could not be written.
        """
        self._has_traces = True
        self._writer.write(key, b"1")

    def find(self, key: Digest) -> Found:
        """Return the size of an object, and when it was written or used last.

        Raises:
            KeyError: there is none.
            StorageError: the store does not tell.
        """
        found = super().find(key)
        try:
            used = self._traces.find(key).modified
        except KeyError:
            return found
        self._has_traces = True
        return found._replace(modified=max(found.modified, used))

    def in_use(self) -> Iterator[Found]:
        """Yield what :meth:`listed` does, with the age of the last use."""
        written, used = self._listed_with_traces()
        for found in written:
            yield found._replace(modified=max(found.modified, used.get(found.key, -math.inf)))

    def remove(self, key: Digest) -> None:
        """Remove the object; none there is no error."""
        super().remove(key)
        if self._has_traces:
            self._traces.remove(key)

    def sweep(self, older: float) -> int:
        """Remove traces of what is gone that are ``older`` seconds old; count them."""
        limit = time.time() - older
        written, used = self._listed_with_traces()
        left = used.keys() - {found.key for found in written}
        stale = [key for key in left if used[key] < limit]
        for key in stale:
            self._traces.remove(key)
        return len(stale)

    def _listed_with_traces(self) -> tuple[list[Found], dict[Digest, float]]:
        written: list[Found] = []
        used: dict[Digest, float] = {}
        for info in self.infos(""):
            if (found := self.found(info)) is not None:
                written.append(found)
            elif (trace := self._traces.found(info)) is not None:
                used[trace.key] = trace.modified
        self._has_traces = self._has_traces or bool(used)
        return written, used
