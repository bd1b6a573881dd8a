"""Remote caches that are their configuration: over SSH, and in a process of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fleche.caches import BaseCache, LayerPolicy, OnError
from fleche.remote._cache import RemoteCache
from fleche.remote._compression import WireCodec
from fleche.remote.channel import LocalSubprocessChannel, SshChannel, channel_class

__all__ = ["ChannelCache", "SshCache", "SubprocessCache"]


class _Configured(RemoteCache):
    """A remote cache that compares, copies and pickles as its configuration."""

    config_type: ClassVar[str]

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are about the channel."""
        raise NotImplementedError

    def _all_settings(self) -> dict[str, Any]:
        only = {"read_only": True} if self.backend.told_read_only else {}
        return {**self._settings(), **self._limits(), **only}

    def readonly(self) -> BaseCache:
        """Return this cache, over the same connection, as one that refuses saves and evicts."""
        view = _rebuild(type(self), {**self._all_settings(), "read_only": True}, self.policy)
        view.backend.channel, view.backend.lazy = self.backend.channel, self.backend.lazy
        view.backend.packing = self.packing
        return view

    def _table(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` for this cache, without its policy in a stack."""
        table = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._all_settings().items()
            if value not in (None, (), {})
        }
        return {**self._kind(), **table}

    def _kind(self) -> dict[str, Any]:
        return {"type": self.config_type}

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._all_settings(), self.policy)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self.__reduce__() == other.__reduce__())

    def __hash__(self) -> int:
        return hash((type(self), self.backend.channel.name))


def _rebuild(kind: type[_Configured], settings: dict[str, Any], policy: LayerPolicy) -> _Configured:
    cache = kind(**settings)
    cache.backend.policy = policy
    return cache


class SshCache(_Configured):
    """A cache that forwards every operation to a fleche on another machine, over SSH.

    The other side runs ``python -m fleche remote --serve``, which serves the cache of its own
    ``fleche.toml``. One ssh process is started on the first operation and kept, so that one
    authentication serves the whole run; with ControlMaster and ControlPersist, several runs.
    """

    config_type = "ssh"

    def __init__(
        self,
        host: str,
        cache_name: str | None = None,
        python: str = "python3",
        ssh_options: Sequence[str] = (),
        setup_commands: Sequence[str] = (),
        workdir: str | None = None,
        *,
        timeout: float | None = 60.0,
        connect_timeout: float | None = None,
        compression: WireCodec = "auto",
        on_error: OnError = "raise",
        read_only: bool = False,
    ) -> None:
        """Configure; nothing is started.

        Args:
            host: target of ssh: ``"user@host"`` or an alias of ``~/.ssh/config``.
            cache_name: which cache of the remote ``fleche.toml`` to use; its default, if not given.
            python: the remote interpreter: a path, or a name that is on the ``PATH`` there.
            ssh_options: arguments put between ``ssh`` and the host, such as
                ``("-o", "ControlMaster=auto")``.
            setup_commands: shell snippets that run on the remote before the server, joined with
                ``&&``, so that a failure ends the start. They are passed verbatim: quote what needs
                it.
            workdir: remote directory to change to first. It is where the remote ``fleche.toml`` is
                looked for, and it is on the server's ``sys.path``, for the few storages that open
                values.
            timeout: see :class:`RemoteCache`.
            connect_timeout: see :class:`RemoteCache`.
            compression: see :class:`RemoteCache`.
            on_error: see :class:`RemoteCache`.
            read_only: refuse every save and every evict, before anything is sent.

        Raises:
            TypeError: a setting is of the wrong kind.
            ValueError: a setting is impossible: a ``host`` that begins with ``-``, say, which ssh
                would take for an option.
        """
        channel = SshChannel(host, cache_name, python, ssh_options, setup_commands, workdir)
        self.host, self.cache_name, self.python = channel.host, channel.cache_name, channel.python
        self.ssh_options = channel.ssh_options
        self.setup_commands = channel.setup_commands
        self.workdir = channel.workdir
        super().__init__(
            channel,
            timeout=timeout,
            connect_timeout=connect_timeout,
            compression=compression,
            on_error=on_error,
            read_only=read_only,
        )
        self.backend.table = self._table()

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "host": self.host,
            "cache_name": self.cache_name,
            "python": self.python,
            "ssh_options": self.ssh_options,
            "setup_commands": self.setup_commands,
            "workdir": self.workdir,
        }


class SubprocessCache(_Configured):
    """A cache in a process of its own on this machine, perhaps in another virtual environment."""

    config_type = "subprocess"

    def __init__(
        self,
        python: str | None = None,
        workdir: str | None = None,
        cache_name: str | None = None,
        env: Mapping[str, str] | None = None,
        *,
        timeout: float | None = 60.0,
        connect_timeout: float | None = None,
        compression: WireCodec = "auto",
        on_error: OnError = "raise",
        read_only: bool = False,
    ) -> None:
        """Configure; nothing is started.

        Args:
            python: the interpreter; the running one, if not given.
            workdir: directory in which it runs, and so whose ``fleche.toml`` it finds.
            cache_name: which cache of that ``fleche.toml`` to use; its default, if not given.
            env: variables added to the environment.
            timeout: see :class:`RemoteCache`.
            connect_timeout: see :class:`RemoteCache`.
            compression: see :class:`RemoteCache`.
            on_error: see :class:`RemoteCache`.
            read_only: refuse every save and every evict, before anything is sent.

        Raises:
            TypeError: a setting is of the wrong kind.
            ValueError: a setting is impossible.
        """
        channel = LocalSubprocessChannel(python, workdir, cache_name, env)
        self.python, self.workdir = channel.python, channel.workdir
        self.cache_name, self.env = channel.cache_name, channel.env
        super().__init__(
            channel,
            timeout=timeout,
            connect_timeout=connect_timeout,
            compression=compression,
            on_error=on_error,
            read_only=read_only,
        )
        self.backend.table = self._table()

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "python": self.python,
            "workdir": self.workdir,
            "cache_name": self.cache_name,
            "env": self.env,
        }


class ChannelCache(_Configured):
    """A cache behind a server that is reached over a channel of any class."""

    def __init__(
        self,
        type: str,
        options: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 60.0,
        connect_timeout: float | None = None,
        compression: WireCodec = "auto",
        on_error: OnError = "raise",
        read_only: bool = False,
    ) -> None:
        """Configure; nothing is started.

        Args:
            type: a name that was given to :func:`register_channel`, or ``"package.module:Class"``.
            options: the arguments of that class.
            timeout: see :class:`RemoteCache`.
            connect_timeout: see :class:`RemoteCache`.
            compression: see :class:`RemoteCache`.
            on_error: see :class:`RemoteCache`.
            read_only: refuse every save and every evict, before anything is sent.

        Raises:
            ConfigError: there is no such class.
            TypeError: an argument is missing, of the wrong kind, or not known to the class.
            ValueError: a setting is impossible.
        """
        self.type = type
        self.options = dict(options or {})
        super().__init__(
            channel_class(type)(**self.options),
            timeout=timeout,
            connect_timeout=connect_timeout,
            compression=compression,
            on_error=on_error,
            read_only=read_only,
        )
        self.backend.table = self._table()

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"type": self.type, "options": self.options}

    def _kind(self) -> dict[str, Any]:
        return {"type": self.type, **self.options}

    def _table(self) -> dict[str, Any]:
        table = super()._table()
        table.pop("options", None)
        return table
