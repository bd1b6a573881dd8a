"""The one connection of a remote cache: made when it is first needed, and kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import copy
from threading import RLock
from typing import Any

from fleche.errors import RemoteConnectionError
from fleche.remote.connection import Connection

__all__ = ["Line"]


class Line:
    """A connection that is never made again by itself once it has died, or could not be made.

    To connect may ask a person for a second factor, so it is done once, and after :meth:`reset`.

    The connection is here from the moment its channel is open, so that whoever closes, or forks,
    finds it. The lock is held to open and to close it, which is soon done; not to wait for the
    server's first word, which takes as long as a person types. Everybody waits for that outside.

    Attributes:
        connection: the connection, while there is one: in the making, alive or dead.
        info: what the server said of itself, or ``None`` while it has said nothing.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] | None = None
        self.connection: Connection | None = None
        self._failure: Exception | None = None
        self._greeted = False
        self._waiting = 0
        self._lock = RLock()

    def connected(
        self, connect: Callable[[], Connection], greeted: Callable[[], None]
    ) -> Connection:
        """Return the connection, made by ``connect`` if there is none, once it is greeted.

        Args:
            connect: makes a connection.
            greeted: called once for each connection that was made.

        Raises:
            RemoteConnectionError: the server cannot be reached, or could not be the last time, or
                the connection was closed meanwhile.
            Exception: what else ``connect`` or the waiting raised, now or the last time.
        """
        with self._lock:
            if self.connection is None:
                self.connection = self._made(connect)
            connection = self.connection
            if self._greeted:
                return connection
            self._waiting += 1
        try:
            connection.wait()
        except BaseException as error:
            self._give_up(connection, error)
            raise
        if self._is_first(connection):
            greeted()
        return connection

    def _made(self, connect: Callable[[], Connection]) -> Connection:
        if self._failure is not None:
            raise _again(self._failure)
        try:
            connection = connect()
        except Exception as error:
            self._failure = _again(error)
            raise
        self._greeted, self._waiting = False, 0
        self._finalizer = weakref.finalize(self, connection.close)
        return connection

    def _is_first(self, connection: Connection) -> bool:
        """Take note that ``connection`` is greeted; tell whether nobody has done so before."""
        with self._lock:
            if self.connection is not connection:
                return False
            self._waiting -= 1
            if self._greeted:
                return False
            self._greeted = True
            self.info = connection.hello.info
            return True

    def _give_up(self, connection: Connection, error: BaseException) -> None:
        """End ``connection`` if nobody else waits for it; an interrupt is no failure."""
        with self._lock:
            if self.connection is not connection:
                return
            self._waiting -= 1
            if self._waiting or self._greeted:
                return
            if isinstance(error, Exception):
                self._failure = _again(error)
            self._end(connection)

    def close(self) -> None:
        """End the connection; bounded and idempotent. The next use connects, unless it has died.

        Whoever waits for it to be made learns of it at once.
        """
        with self._lock:
            if self.connection is not None:
                self._end(self.connection)

    def _end(self, connection: Connection) -> None:
        if connection.failure is not None:
            self._failure = RemoteConnectionError(connection.failure)
        self.connection = self.info = None
        self._finalizer.detach()
        connection.close()

    def reset(self) -> None:
        """End the connection, dead or alive; the next use makes a new one."""
        with self._lock:
            self.close()
            self._failure = None

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._lock = RLock()
        connection, self.connection = self.connection, None
        if connection is not None:
            self._finalizer.detach()
            connection.forget()
        self.info = None


def _again(error: Exception) -> Exception:
    """Return an error like ``error``, which itself would hold what it met on its way up."""
    if isinstance(error, RemoteConnectionError):
        return RemoteConnectionError(str(error))
    try:
        return copy(error)
    except Exception:  # noqa: BLE001 (a class whose arguments are not those of its instances)
        return RemoteConnectionError(f"{type(error).__name__}: {error}")
