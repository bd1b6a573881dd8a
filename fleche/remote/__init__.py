"""The remote cache: a cache on another machine, over nothing but SSH.

:class:`SshCache` forwards every operation to ``python -m fleche remote --serve`` on another machine
over one persistent ssh process; :func:`serve` is the loop at the other end. :class:`RemoteCache`
does the same over any :class:`Channel`.
"""

from fleche.errors import ProtocolError, RemoteConnectionError
from fleche.remote._cache import RemoteCache
from fleche.remote._contacts import Contact, last_contact
from fleche.remote._handshake import ClientGreeting, server_info
from fleche.remote._protocol import PROTOCOL
from fleche.remote._server import serve
from fleche.remote._ssh import ChannelCache, SshCache, SubprocessCache
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
    "SshCache",
    "SshChannel",
    "SubprocessCache",
    "channel_class",
    "channel_names",
    "last_contact",
    "register_channel",
    "serve",
    "server_info",
]
