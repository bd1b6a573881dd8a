"""The remote cache: a cache on another machine, over nothing but SSH.

:class:`SshCache` forwards every operation to ``python -m fleche remote --serve`` on another machine
over one persistent ssh process; :func:`serve` is the loop at the other end. :class:`RemoteCache`
does the same over any :class:`Channel`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleche.errors import ProtocolError, RemoteConnectionError
    from fleche.remote._cache import RemoteCache
    from fleche.remote._contacts import Contact, last_contact
    from fleche.remote._handshake import ClientGreeting, server_info
    from fleche.remote._options import RemoteOptions, SshOptions, SubprocessOptions
    from fleche.remote._protocol import PROTOCOL
    from fleche.remote._server import serve
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
    "server_info",
]

_HOMES = {
    "fleche.errors": (
        "ProtocolError",
        "RemoteConnectionError",
    ),
    "fleche.remote._cache": ("RemoteCache",),
    "fleche.remote._contacts": (
        "Contact",
        "last_contact",
    ),
    "fleche.remote._handshake": (
        "ClientGreeting",
        "server_info",
    ),
    "fleche.remote._options": (
        "RemoteOptions",
        "SshOptions",
        "SubprocessOptions",
    ),
    "fleche.remote._protocol": ("PROTOCOL",),
    "fleche.remote._server": ("serve",),
    "fleche.remote._ssh": (
        "ChannelCache",
        "SshCache",
        "SubprocessCache",
        "remote_cache_class",
        "remote_cache_names",
    ),
    "fleche.remote.channel": (
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
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import either end when it is asked for: a server has no use for what a client is made of."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
