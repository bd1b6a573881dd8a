"""Remote caches that are their configuration: over SSH, and in a process of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from fleche._util import override
from fleche.caches import BaseCache, LayerPolicy
from fleche.remote._cache import RemoteCache
from fleche.remote._options import (
    NamedChannelOptions,
    RemoteOptions,
    SshOptions,
    SubprocessOptions,
    changed_fields,
    takes,
)
from fleche.remote.channel import (
    Channel,
    LocalSubprocessChannel,
    SshChannel,
    channel_class,
    channel_names,
)

__all__ = [
    "ChannelCache",
    "ConfiguredCache",
    "SshCache",
    "SubprocessCache",
    "remote_cache_class",
    "remote_cache_names",
]

Resolve: TypeAlias = Callable[[str, str], str]
"""Makes a path absolute, of which the name of its option is given as well."""


class ConfiguredCache(RemoteCache):
    """A remote cache that compares, copies and pickles as its configuration.

    Attributes:
        label: what takes the options, for the error about an unknown one.
        Options: the struct of the options.
    """

    label: ClassVar[str]
    Options: ClassVar[type[RemoteOptions]]
    _options: RemoteOptions

    @override
    def _configure(self, channel: Channel, options: RemoteOptions) -> None:
        self._options = options
        super()._configure(channel, options)
        self.backend.table = self._table()

    @classmethod
    def from_options(cls, options: RemoteOptions, resolve: Resolve) -> ConfiguredCache:  # noqa: ARG003
        """Return the cache that a table of ``fleche.toml`` describes."""
        return _restore(cls, options)

    def _current(self) -> tuple[RemoteOptions, LayerPolicy]:
        # a stack may have been told something else since
        options = msgspec.structs.replace(self._options, on_error=self.policy.on_error)
        return options, self.policy

    def _table(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` for this cache, without its policy in a stack."""
        table = changed_fields(self._options)
        table.pop("on_error", None)
        return table

    @override
    def readonly(self) -> BaseCache:
        """Return this cache, over the same connection, as one that refuses saves and evicts."""
        options, policy = self._current()
        view = _restore(type(self), msgspec.structs.replace(options, read_only=True), policy)
        view.backend.channel, view.backend.lazy = self.backend.channel, self.backend.lazy
        view.backend.packing = self.packing
        return view

    def __reduce__(self) -> Any:
        return _restore, (type(self), *self._current())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._current() == other._current()

    def __hash__(self) -> int:
        return hash((type(self), self.backend.channel.name))


def _restore(
    kind: type[ConfiguredCache], options: RemoteOptions, policy: LayerPolicy | None = None
) -> ConfiguredCache:
    make: Any = kind
    cache: ConfiguredCache = make(**msgspec.structs.asdict(options))
    if policy is not None:
        cache.backend.policy = policy
    return cache


class SshCache(ConfiguredCache):
    """A cache that forwards every operation to a fleche on another machine, over SSH.

    The other side runs ``python -m fleche remote --serve``, which serves the cache of its own
    ``fleche.toml``. One ssh process is started on the first operation and kept, so that one
    authentication serves the whole run; with ControlMaster and ControlPersist, several runs.
    """

    config_type = "ssh"
    label = "an ssh cache"
    Options = SshOptions

    @takes(SshOptions)
    def __init__(self, options: SshOptions) -> None:
        """Configure; nothing is started."""
        self.host, self.cache_name, self.python = options.host, options.cache_name, options.python
        self.ssh_options = options.ssh_options
        self.setup_commands = options.setup_commands
        self.workdir = options.workdir
        channel = SshChannel(
            options.host,
            options.cache_name,
            options.python,
            options.ssh_options,
            options.setup_commands,
            options.workdir,
        )
        self._configure(channel, options)

    @override
    def _table(self) -> dict[str, Any]:
        # the interpreter even if it is the usual one: it answers what runs there
        return {"type": self.config_type, "python": self.python, **super()._table()}


class SubprocessCache(ConfiguredCache):
    """A cache in a process of its own on this machine, perhaps in another virtual environment."""

    config_type = "subprocess"
    label = "a subprocess cache"
    Options = SubprocessOptions

    @takes(SubprocessOptions)
    def __init__(self, options: SubprocessOptions) -> None:
        """Configure; nothing is started."""
        self.python, self.workdir = options.python, options.workdir
        self.cache_name, self.env = options.cache_name, options.env
        channel = LocalSubprocessChannel(
            options.python, options.workdir, options.cache_name, options.env
        )
        self._configure(channel, options)

    @classmethod
    @override
    def from_options(cls, options: RemoteOptions, resolve: Resolve) -> ConfiguredCache:
        fields = msgspec.structs.asdict(options)
        for name in ("python", "workdir"):
            # a bare name of an interpreter is for the PATH to find
            if fields[name] is not None and (name == "workdir" or os.sep in fields[name]):
                fields[name] = resolve(name, fields[name])
        return cls(**fields)

    @override
    def _table(self) -> dict[str, Any]:
        return {"type": self.config_type, **super()._table()}


class ChannelCache(ConfiguredCache):
    """A cache behind a server that is reached over a channel of any class."""

    label = "a cache over a channel"
    Options = NamedChannelOptions

    @takes(NamedChannelOptions)
    def __init__(self, options: NamedChannelOptions) -> None:
        """Configure; nothing is started."""
        self.type = options.type
        self.options = dict(options.options or {})
        self._configure(channel_class(options.type)(**self.options), options)

    @override
    def _table(self) -> dict[str, Any]:
        table = super()._table()
        own = table.pop("options", {})
        return {**table, **own}


# -- by the type in fleche.toml --------------------------------------------------------------------

_BUILT_IN: Mapping[str, type[ConfiguredCache]] = {
    cls.config_type: cls for cls in (SshCache, SubprocessCache)
}


def remote_cache_names() -> tuple[str, ...]:
    """Return what ``type`` may be for a remote cache: what is built in, and what was registered."""
    return (*_BUILT_IN, *channel_names())


def remote_cache_class(name: str) -> type[ConfiguredCache]:
    """Return the class of the remote caches whose ``type`` is ``name``."""
    return _BUILT_IN.get(name, ChannelCache)
