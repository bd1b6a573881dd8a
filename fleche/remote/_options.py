"""The options of remote caches: one struct for each class of them.

A struct is the signature of the constructor and its documentation, the table of ``fleche.toml``,
what ``to_config()`` returns, what is pickled, and what is compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import msgspec

from fleche._settings import Content, Host, Seconds, Text, Variable, WireCodec, Words, checked
from fleche.caches import OnError
from fleche.remote.channel import Channel

__all__ = [
    "AnyChannelOptions",
    "NamedChannelOptions",
    "RemoteOptions",
    "SshOptions",
    "SubprocessOptions",
    "changed_fields",
    "takes",
]

P = ParamSpec("P")
S = TypeVar("S")
O = TypeVar("O", bound="RemoteOptions")  # noqa: E741


class RemoteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every remote cache takes, by keyword.

    Attributes:
        timeout: seconds of silence, while an answer is due, after which the server is given up;
            ``None`` or infinity: never.
        connect_timeout: seconds to the server's first word; infinity: no limit. By default there is
            none at a terminal, where a person may be typing a code, and 60 without one.
        compression: of what is sent: ``"auto"``, ``"none"``, ``"zlib"`` or ``"zstd"``.
        on_error: what a stack makes of this layer when it is unreachable: ``"raise"`` or
            ``"miss"``.
        read_only: refuse every save and every evict, before anything is sent.

    Raises:
        TypeError: an option is of the wrong kind.
        ValueError: an option is impossible.
    """

    timeout: Seconds | None = 60.0
    connect_timeout: Seconds | None = None
    compression: WireCodec = "auto"
    on_error: OnError = "raise"
    read_only: bool = False

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = checked(field.name, getattr(self, field.name), field.type)
            msgspec.structs.force_setattr(self, field.name, value)
        if self.timeout is None:  # TOML has no word for it
            msgspec.structs.force_setattr(self, "timeout", inf)


class AnyChannelOptions(RemoteOptions, frozen=True):
    """What a cache over a channel object takes; that has no form in ``fleche.toml``.

    Attributes:
        channel: how to reach the server.
    """

    channel: Channel


class SshOptions(RemoteOptions, frozen=True):
    """What a cache on another machine takes.

    Attributes:
        host: target of ssh: ``"user@host"`` or an alias of ``~/.ssh/config``.
        cache_name: which cache of the remote ``fleche.toml`` to use; its default, if not given.
        python: the remote interpreter: a path, or a name that is on the ``PATH`` there.
        ssh_options: arguments put between ``ssh`` and the host, such as
            ``("-o", "ControlMaster=auto")``.
        setup_commands: shell snippets that run on the remote before the server, joined with ``&&``,
            so that a failure ends the start. They are passed verbatim: quote what needs it.
        workdir: remote directory to change to first. It is where the remote ``fleche.toml`` is
            looked for, and it is on the server's ``sys.path``, for the few storages that open
            values.
    """

    host: Host
    cache_name: Text | None = None
    python: Text = "python3"
    ssh_options: Words = ()
    setup_commands: Sequence[Text] = ()
    workdir: Text | None = None


class SubprocessOptions(RemoteOptions, frozen=True):
    """What a cache in a process of this machine takes.

    Attributes:
        python: the interpreter; the running one, if not given.
        workdir: directory in which it runs, and so whose ``fleche.toml`` it finds.
        cache_name: which cache of that ``fleche.toml`` to use; its default, if not given.
        env: variables added to the environment.
    """

    python: Text | None = None
    workdir: Text | None = None
    cache_name: Text | None = None
    env: Mapping[Variable, Content] | None = None


class NamedChannelOptions(RemoteOptions, frozen=True):
    """What a cache over a channel that is known by name takes.

    Attributes:
        type: a name that was given to :func:`register_channel`, or ``"package.module:Class"``.
        options: the arguments of that class; in ``fleche.toml`` all keys that are not named here.
    """

    type: Text
    options: Mapping[str, Any] | None = None


def changed_fields(options: RemoteOptions) -> dict[str, Any]:
    """Return the fields that differ from their defaults, by name."""
    return {
        field.name: value
        for field in msgspec.structs.fields(type(options))
        if (value := getattr(options, field.name)) != field.default
    }


# -- constructors ----------------------------------------------------------------------------------


def takes(
    options: Callable[P, O],
) -> Callable[[Callable[[S, O], None]], Callable[Concatenate[S, P], None]]:
    """Make a constructor that takes a struct into one that takes the fields of the struct.

    Type checkers, ``inspect.signature`` and ``help`` see the fields, with types, defaults and their
    documentation.
    """

    def decorate(init: Callable[[S, O], None]) -> Callable[Concatenate[S, P], None]:
        @wraps(init)
        def constructor(self: S, /, *args: P.args, **fields: P.kwargs) -> None:
            init(self, options(*args, **fields))

        described: Any = constructor
        described.__signature__ = _signature(options)
        described.__doc__ = _documentation(init, options)
        return constructor

    return decorate


def _signature(options: Any) -> inspect.Signature:
    """Return the signature of a constructor with these options; their limits are left out."""
    bare = get_type_hints(options)
    fields = inspect.signature(options).parameters.values()
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    return inspect.Signature(
        [itself, *(field.replace(annotation=bare[field.name]) for field in fields)],
        return_annotation=None,
    )


def _documentation(init: Callable[..., None], options: Any) -> str:
    """Return the docstring of a constructor with these options, its own ones first."""
    structs = [cls for cls in options.__mro__ if issubclass(cls, RemoteOptions)]
    explained = [
        inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for cls in structs
    ]
    _, _, raised = inspect.cleandoc(RemoteOptions.__doc__ or "").partition("\n\nRaises:\n")
    summary = inspect.cleandoc(init.__doc__ or "")
    return "\n".join([summary, "\nArgs:", *explained, "\nRaises:", raised])
