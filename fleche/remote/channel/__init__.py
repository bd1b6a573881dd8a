"""Channels: how bytes reach a server and come back. They know nothing of caches.

Another one is one class, which :func:`fleche.testing.check_channel` proves and
:func:`register_channel` names.
"""

from fleche.remote.channel._base import (
    Channel,
    PipeChannel,
    Serve,
    channel_class,
    channel_names,
    register_channel,
)
from fleche.remote.channel._process import LocalSubprocessChannel, ProcessChannel
from fleche.remote.channel._ssh import SshChannel, remote_command

__all__ = [
    "Channel",
    "LocalSubprocessChannel",
    "PipeChannel",
    "ProcessChannel",
    "Serve",
    "SshChannel",
    "channel_class",
    "channel_names",
    "register_channel",
    "remote_command",
]
