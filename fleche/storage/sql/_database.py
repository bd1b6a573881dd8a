"""What every database is to the storages above it, and what happens to its connections at a fork.

A connection is used by one thread at a time, and only for as long as one statement or one
transaction takes: none stays in use while a caller's code runs. One that is in use belongs to the
thread alone: an interrupt that loses it closes it, and nothing else ever does, not even the end of
the process, at which daemon threads may still be at work. Before this process forks, the
connections in use are waited for and all are closed, so that the child inherits none. A child that
inherits one all the same (the wait is limited, and a library may fork without asking Python) never
touches it: to close it would harm the parent.
"""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import RLock
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from fleche._util import override

__all__ = ["Connection", "Database", "Pooled"]

T = TypeVar("T")

_FORK_PATIENCE = 5.0
"""Seconds for which a fork waits for transactions that other threads have begun."""

Parameters: TypeAlias = Mapping[str, Any] | tuple[Any, ...]

NO_PARAMETERS: Mapping[str, Any] = {}


class Cursor(Protocol):
    """What executing a statement returns."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        ...

    @property
    def lastrowid(self) -> Any:
        """The id of the row that the statement has inserted; SQLite alone tells it."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that the statement selects."""
        ...


class Connection(Protocol):
    """What a connection can do, of SQLite or of a server."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Cursor:
        """Execute a statement; ``parameters`` are by name."""
        ...

    def executemany(self, sql: str, rows: Iterable[Any], /) -> Any:
        """Execute a statement for each of several rows of parameters."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Database(ABC):
    """A database that keeps calls. Every method may be called from any thread.

    Attributes:
        kind: ``"sqlite"`` or ``"postgresql"``.
        shown: where it is, for people, without passwords.
        in_memory: it is gone with this object.
        generation: grows when what was read from it may not be so any more, since it may be another
            database by now.
    """

    kind: ClassVar[str]
    shown: str
    in_memory: bool = False
    generation: int = 0

    @abstractmethod
    def fetch(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> list[Any]:
        """Return the rows that a statement selects.

        Args:
            sql: the statement.
            parameters: by name; in SQLite they may be given by place.

        Raises:
            StorageError: the database failed.
        """

    def is_there(self) -> bool:
        """Return whether the database has been made already; a server has it in any case."""
        return True

    @abstractmethod
    def change(
        self,
        work: Callable[[Connection], T],
        *,
        frees: bool = False,
        patience: float | None = None,
        since: float | None = None,
    ) -> T:
        """Return what ``work`` returns, called with a connection inside a transaction that writes.

        It may be called more than once, where the transaction did not get through, or where it is
        not known whether it did. So ``work`` must do no harm when it is done twice.

        Args:
            work: what to do. It must not use this database in any other way.
            frees: it only removes, and must work where the disk is full.
            patience: seconds to wait for other writers; by default what suits the database.
            since: when the waiting began (``time.monotonic()``); by default now.

        Raises:
            StorageError: the database failed; unless it was the connection, it is as it was.
        """

    def insert(self, sql: str, parameters: Sequence[Any], generation: int) -> int | None:
        """Insert one row by a statement of its own, where that is shorter than :meth:`change`.

        Args:
            sql: the statement, which does nothing if there is such a row.
            parameters: by place.
            generation: the database for which they are meant (:attr:`generation`).

        Returns:
            The id of the row; 0: there was one already; ``None``: nothing was written, and
            :meth:`change` is to be asked, which waits for others and says what is wrong.
        """
        del sql, parameters, generation
        return None

    def is_ours(self) -> bool:
        """Return whether a look at it may write as well: it is no file of another account."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Close the connections; the next use opens new ones. Idempotent."""

    @abstractmethod
    def retire(self) -> None:
        """Close the connections that are idle; the others are closed when they are given back."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Return whether a connection is open."""

    @abstractmethod
    def after_fork(self, *, in_child: bool) -> None:
        """Go on after a fork of this process."""


class Pooled(Database):
    """A database with a connection for each thread that uses it at the same time."""

    def __init__(self) -> None:
        self._idle: deque[Any] = deque()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pid = os.getpid()
        self._inherited = False
        self._finalizer = weakref.finalize(self, _drain, self._idle, self._open)
        register(self)

    def take(self) -> tuple[deque[Any], Any]:
        """Return a connection, and where to give it back."""
        if self._pid != os.getpid():
            self.after_fork(in_child=True)  # of a fork that Python was not told of
        idle = self._idle
        try:
            return idle, idle.pop()
        except IndexError:
            pass
        opening = _Opening()
        with _gate:  # which is shut while this process forks
            idle, opened = self._idle, self._open
            opened.add(opening)
        try:
            connection = self.connect()
            opened.add(connection)
        finally:
            opened.discard(opening)
        return idle, connection

    def give_back(self, idle: deque[Any], connection: Any) -> None:
        """Give a connection to the next thread that needs one, unless all were closed meanwhile."""
        idle.append(connection)
        if self._idle is not idle:
            self.drain(idle)

    def drain(self, idle: deque[Any]) -> None:
        """Close connections that are idle no more."""
        _drain(idle, self._open)

    def discard(self, connection: Any) -> None:
        """Close a connection that is of no use any more."""
        connection.close()
        self._open.discard(connection)

    @abstractmethod
    def connect(self) -> Any:
        """Open a connection, which closes itself when nothing refers to it."""

    @override
    def close(self) -> None:
        if self._pid == os.getpid():
            self.retire()

    @override
    def retire(self) -> None:
        self._finalizer.detach()
        idle, self._idle = self._idle, deque()
        self._finalizer = weakref.finalize(self, _drain, self._idle, self._open)
        _drain(idle, self._open)

    @override
    def is_busy(self) -> bool:
        return bool(self._open)

    @override
    def after_fork(self, *, in_child: bool) -> None:
        if not in_child:
            return
        self._pid = os.getpid()
        if self._open:
            self._inherited = True
            _kept.append((self._idle, list(self._open)))
        self._finalizer.detach()
        self._idle, self._open = deque(), weakref.WeakSet()
        self._finalizer = weakref.finalize(self, _drain, self._idle, self._open)


class _Opening:
    """Stands for a connection that is being opened."""


def _drain(idle: deque[Any], opened: weakref.WeakSet[Any]) -> None:
    """Close the connections that no thread uses."""
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return
        connection.close()
        opened.discard(connection)


# -- forks -----------------------------------------------------------------------------------------

_gate = RLock()
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_kept: list[Any] = []
"""Connections of a parent process, kept so that nothing here closes them."""


def register(database: Database) -> None:
    """Look after the connections of ``database`` when this process forks."""
    with _gate:
        _databases.add(database)


def _before_fork() -> None:
    _gate.acquire()
    deadline = time.monotonic() + _FORK_PATIENCE
    databases = list(_databases)
    for database in databases:
        database.retire()
    while any(database.is_busy() for database in databases) and time.monotonic() < deadline:
        time.sleep(0.001)


def _after_fork(*, in_child: bool) -> None:
    for database in list(_databases):
        database.after_fork(in_child=in_child)
    _gate.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, in_child=False),
    after_in_child=partial(_after_fork, in_child=True),
)
