"""The one connection of a remote cache: made when it is first needed, and kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import RLock
from typing import Any

from fleche.errors import RemoteConnectionError
from fleche.remote.connection import Connection

__all__ = ["Line"]


class Line:
    """A connection that is never made again by itself once it has died.

    To connect may ask a person for a second factor, so it is done once, and after :meth:`reset`.

    Attributes:
        connection: the connection, while there is one, dead or alive.
        info: what the server said of itself, or ``None`` while there is no connection.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] | None = None
        self.connection: Connection | None = None
        self._failure: str | None = None
        self._lock = RLock()

    def connected(
        self, connect: Callable[[], Connection], greeted: Callable[[], None]
    ) -> Connection:
        """Return the connection, made by ``connect`` if there is none.

        Args:
            connect: makes a connection.
            greeted: called once for each connection that was made.

        Raises:
            RemoteConnectionError: the server cannot be reached, or could not be the last time.
        """
        with self._lock:
            if self.connection is None:
                self.connection = self._made(connect)
                self.info = self.connection.hello.info
                greeted()
            return self.connection

    def _made(self, connect: Callable[[], Connection]) -> Connection:
        if self._failure is not None:
            raise RemoteConnectionError(self._failure)
        try:
            connection = connect()
        except RemoteConnectionError as error:
            self._failure = str(error)
            raise
        self._finalizer = weakref.finalize(self, connection.close)
        return connection

    def close(self) -> None:
        """End the connection; bounded and idempotent. The next use connects, unless it has died."""
        with self._lock:
            connection, self.connection = self.connection, None
            self.info = None
        if connection is None:
            return
        self._failure = connection.failure
        self._finalizer.detach()
        connection.close()

    def reset(self) -> None:
        """End the connection, dead or alive; the next use makes a new one."""
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
