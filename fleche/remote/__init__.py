"""The remote cache: a cache on another machine, over nothing but SSH.

:class:`SshCache` forwards every operation to ``python -m fleche remote --serve`` on another machine
over one persistent ssh process; :func:`serve` is the loop at the other end. :class:`RemoteCache`
does the same over any :class:`Channel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked

if TYPE_CHECKING:
    from fleche.errors import ProtocolError, RemoteConnectionError
    from fleche.remote._cache import RemoteCache
    from fleche.remote._contacts import Contact, last_contact
    from fleche.remote._handshake import ClientGreeting, server_info
    from fleche.remote._options import RemoteOptions, SshOptions, SubprocessOptions
    from fleche.remote._protocol import PROTOCOL
    from fleche.remote._server import serve, serve_unopened
    from fleche.remote._ssh import (
        ChannelCache,
        SshCache,
        SubprocessCache,
        remote_cache_class,
        remote_cache_names,
    )
    from fleche.remote.channel import (
        Channel,
        LocalSubprocessChannel,
        PipeChannel,
        ProcessChannel,
        SshChannel,
        channel_class,
        channel_names,
        register_channel,
    )

__all__ = [
    "PROTOCOL",
    "Channel",
    "ChannelCache",
    "ClientGreeting",
    "Contact",
    "LocalSubprocessChannel",
    "PipeChannel",
    "ProcessChannel",
    "ProtocolError",
    "RemoteCache",
    "RemoteConnectionError",
    "RemoteOptions",
    "SshCache",
    "SshChannel",
    "SshOptions",
    "SubprocessCache",
    "SubprocessOptions",
    "channel_class",
    "channel_names",
    "last_contact",
    "register_channel",
    "remote_cache_class",
    "remote_cache_names",
    "serve",
    "serve_unopened",
    "server_info",
]

_HOMES = {
    "fleche.errors": (
        "ProtocolError",
        "RemoteConnectionError",
    ),
    "._cache": ("RemoteCache",),
    "._contacts": (
        "Contact",
        "last_contact",
    ),
    "._handshake": (
        "ClientGreeting",
        "server_info",
    ),
    "._options": (
        "RemoteOptions",
        "SshOptions",
        "SubprocessOptions",
    ),
    "._protocol": ("PROTOCOL",),
    "._server": ("serve", "serve_unopened"),
    "._ssh": (
        "ChannelCache",
        "SshCache",
        "SubprocessCache",
        "remote_cache_class",
        "remote_cache_names",
    ),
    ".channel": (
        "Channel",
        "LocalSubprocessChannel",
        "PipeChannel",
        "ProcessChannel",
        "SshChannel",
        "channel_class",
        "channel_names",
        "register_channel",
    ),
}
# A server has no use for what a client is made of.
__getattr__ = imported_when_asked(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
