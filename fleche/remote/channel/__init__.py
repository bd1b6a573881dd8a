"""Channels: how bytes reach a server and come back. They know nothing of caches.

Whoever writes another one runs :func:`fleche.testing.check_channel` over it.
"""

from fleche.remote.channel.base import Channel
from fleche.remote.channel.pipe import PipeChannel, Serve
from fleche.remote.channel.process import LocalSubprocessChannel, ProcessChannel
from fleche.remote.channel.ssh import SshChannel, remote_command

__all__ = [
    "Channel",
    "LocalSubprocessChannel",
    "PipeChannel",
    "ProcessChannel",
    "Serve",
    "SshChannel",
    "remote_command",
]
