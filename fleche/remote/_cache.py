"""The remote cache: the facade that people use, over a backend that asks a server."""

from __future__ import annotations

from math import inf
from typing import Any

from fleche.caches import BaseCache, OnError
from fleche.remote._backend import RemoteBackend
from fleche.remote._compression import WireCodec
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

    def __init__(
        self,
        channel: Channel,
        *,
        timeout: float | None = 60.0,
        connect_timeout: float | None = None,
        compression: WireCodec = "auto",
        on_error: OnError = "raise",
        read_only: bool = False,
    ) -> None:
        """Configure; nothing is started.

        Args:
            channel: how to reach the server.
            timeout: seconds of silence, while an answer is due, after which the server is given up;
                ``None`` or infinity: never.
            connect_timeout: seconds to the server's first word; infinity: no limit. By default
                there is none at a terminal, where a person may be typing a code, and 60 without
                one.
            compression: of what is sent: ``"auto"``, ``"none"``, ``"zlib"`` or ``"zstd"``.
            on_error: what a stack makes of this layer when it is unreachable: ``"raise"`` or
                ``"miss"``.
            read_only: refuse every save and every evict, before anything is sent.

        Raises:
            TypeError: a setting is of the wrong kind.
            ValueError: a setting is impossible.
        """
        backend = RemoteBackend(
            channel,
            timeout=timeout,
            connect_timeout=connect_timeout,
            compression=compression,
            on_error=on_error,
            read_only=read_only,
        )
        super().__init__(backend)

    @property
    def timeout(self) -> float | None:
        """Seconds of silence after which the server is given up; ``None``: never."""
        return self.backend.timeout

    @property
    def connect_timeout(self) -> float | None:
        """Seconds to the server's first word."""
        return self.backend.connect_timeout

    @property
    def compression(self) -> WireCodec:
        """How what is sent is compressed."""
        return self.backend.compression

    @property
    def on_error(self) -> OnError:
        """What a stack makes of this layer when it is unreachable."""
        return self.backend.policy.on_error

    def _ensure_handshake(self) -> None:
        """Connect and greet, if that has not been done on this connection."""
        self.backend.connected()

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
            ``cwd``, ``hostname``, ``python``, ``pid``, ``free_bytes`` (on the disk of the cache, or
            ``None``).

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

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self.backend.forget()

    def _limits(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, for :meth:`to_config`."""
        defaults = {"timeout": 60.0, "connect_timeout": None, "compression": "auto"}
        table = {name: getattr(self, name) for name in defaults}
        table = {name: value for name, value in table.items() if value != defaults[name]}
        if self.timeout is None:
            table["timeout"] = inf
        return table

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.backend.channel.name}>"
