"""The remote cache: the facade that people use, over a backend that asks a server."""

from __future__ import annotations

import weakref
from math import inf
from typing import Any

from fleche._util import reconnected
from fleche.caches import BaseCache, OnError
from fleche.remote._backend import RemoteBackend
from fleche.remote._compression import WireCodec
from fleche.remote._handshake import warn_of_skew
from fleche.remote._options import AnyChannelOptions, RemoteOptions, takes
from fleche.remote.channel import Channel

__all__ = ["RemoteCache"]


class RemoteCache(BaseCache):
    """A cache that forwards every operation to a server, over any channel.

    The connection is made on the first operation and kept. Once it has died, every operation raises
    :class:`~fleche.errors.RemoteConnectionError` at once until :meth:`reconnect`: connecting again
    by itself could ask a person for a second factor at any moment. Many threads share one
    connection. A forked child makes its own.
    """

    backend: RemoteBackend

    @takes(AnyChannelOptions)
    def __init__(self, options: AnyChannelOptions) -> None:
        """Configure; nothing is started."""
        self._configure(options.channel, options)

    def _configure(self, channel: Channel, options: RemoteOptions) -> None:
        super().__init__(RemoteBackend(channel, options))
        self.backend.facade = weakref.ref(self)

    @property
    def timeout(self) -> float | None:
        """Seconds of silence after which the server is given up; ``None``: never."""
        timeout = self.backend.options.timeout
        return None if timeout == inf else timeout

    @property
    def connect_timeout(self) -> float | None:
        """Seconds to the server's first word."""
        return self.backend.options.connect_timeout

    @property
    def compression(self) -> WireCodec:
        """How what is sent is compressed."""
        return self.backend.options.compression

    @property
    def on_error(self) -> OnError:
        """What a stack makes of this layer when it is unreachable."""
        return self.backend.policy.on_error

    def _ensure_handshake(self) -> None:
        """Connect and greet, if that has not been done on this connection."""
        self.backend.connected()

    def _warn_on_version_skew(self) -> None:
        """Warn if the server has another fleche or cloudpickle; each new connection does, once."""
        warn_of_skew(self.backend.channel.name, self._cached_info())

    def _cached_info(self) -> dict[str, Any]:
        """Return the server's info as it was last told; the first call connects."""
        return self.backend.info(refresh=False)

    def info(self, *, refresh: bool = True) -> dict[str, Any]:
        """Return the server's view of itself.

        Args:
            refresh: ask again, instead of returning what was last told.

        Returns:
            ``cache`` (what it serves, as in ``fleche.toml``, credentials hidden), ``cache_name``
            (what it was started with), ``read_only``, ``fleche_version``, ``cloudpickle_version``,
            ``cwd`` (``None`` if it has been removed), ``hostname``, ``python``, ``pid``,
            ``free_bytes`` (on the disk of the cache, or ``None``).

        Raises:
            RemoteConnectionError: the server cannot be reached.
        """
        return self.backend.info(refresh=refresh)

    def reconnect(self) -> None:
        """Drop the connection, dead or alive; the next operation makes a new one.

        Use it when the server hangs, or when the remote machine needs a new authentication. It is
        never done by itself.
        """
        self.backend.lazy.reset()
        reconnected()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.backend.channel.name}>"
