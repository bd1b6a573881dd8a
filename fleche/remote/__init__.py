"""The remote cache: a cache on another machine, over nothing but SSH.

:class:`SshCache` forwards every operation to ``python -m fleche remote --serve`` on another machine
over one persistent ssh process; :func:`serve` is the loop at the other end. :class:`RemoteCache`
does the same over any :class:`Channel`.
"""

from fleche.errors import ProtocolError, RemoteConnectionError
from fleche.remote.channel import (
    Channel,
    LocalSubprocessChannel,
    PipeChannel,
    ProcessChannel,
    SshChannel,
)
from fleche.remote.client import RemoteCache
from fleche.remote.configured import SshCache, SubprocessCache
from fleche.remote.info import server_info
from fleche.remote.server import serve

__all__ = [
    "Channel",
    "LocalSubprocessChannel",
    "PipeChannel",
    "ProcessChannel",
    "ProtocolError",
    "RemoteCache",
    "RemoteConnectionError",
    "SshCache",
    "SshChannel",
    "SubprocessCache",
    "serve",
    "server_info",
]
