"""What commands have in common: which cache, and how to answer.

Only click is imported here, so that help and completion are quick.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleche._util import is_path, override
from fleche.errors import ConfigError, RemoteConnectionError, told

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.cli._screen import Screen

__all__ = [
    "OUTPUT_FILE",
    "Session",
    "common",
    "common_without_cache",
    "everywhere",
    "limited",
    "not_empty",
    "typed",
]

_VARIABLE = "FLECHE_CACHE"

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound="BaseCache")
T = TypeVar("T")


@dataclass
class Session:
    """One run of a command.

    Attributes:
        cache_text: what the option ``--cache`` said.
        json: whether the answer is for programs.
        everywhere: whether other machines are asked, too.
        makes: whether a directory that is not there yet is a new cache.
    """

    cache_text: str | None = None
    json: bool = False
    everywhere: bool = False
    makes: bool = False
    _open: list[BaseCache] = field(default_factory=list)

    @cached_property
    def screen(self) -> Screen:
        """Where the answer goes."""
        from fleche.cli._screen import Screen

        return Screen(json=self.json)

    @cached_property
    def cache(self) -> BaseCache:
        """The cache that is asked about."""
        which = self.which
        return self.open(which, make=self.makes and which is not None and is_path(which))

    @property
    def forced(self) -> str | None:
        """What the variable FLECHE_CACHE says, if it counts."""
        return None if self.cache_text else os.environ.get(_VARIABLE) or None

    @property
    def which(self) -> str | None:
        """The cache that is asked about, as it was written; ``None``: the default one."""
        return self.cache_text or self.forced

    @cached_property
    def near(self) -> BaseCache:
        """What is on this machine of the cache: a stack without its layers on other machines.

        With ``--everywhere``, or where nothing is on this machine, all of it.
        """
        from fleche.caches import CacheStack

        if self.everywhere or not isinstance(self.cache, CacheStack):
            return self.cache
        layers = [layer for layer in self.cache.layers if layer.backend.local]
        if not layers or len(layers) == len(self.cache.layers):
            return self.cache
        return layers[0] if len(layers) == 1 else CacheStack(layers)

    @cached_property
    def reached(self) -> BaseCache:
        """All of the cache, or what is on this machine of it while another one is away.

        For commands that change it, and can do without the others.
        """
        from fleche.caches import CacheStack

        if self.leaves_out and isinstance(self.cache, CacheStack):
            try:
                for layer in self.cache.layers:
                    _ = layer.capabilities  # which connects
            except RemoteConnectionError as error:
                click.echo(f"fleche: {told(error)}", err=True)
                click.echo("fleche: goes on with what is on this machine", err=True)
                return self.near
        return self.cache

    def check_meant(self) -> None:
        """Refuse to remove anything where a ``fleche.toml`` that is not used may say what from.

        Raises:
            ConfigError: which cache is meant is not certain.
        """
        from fleche.config import load_config

        if self.which is None and (unused := load_config().unused):
            raise ConfigError(
                f"nothing is removed: {unused[0]} is not used, and may say another cache than the "
                "default one; say which is meant, with --cache"
            )

    def nearest(self, ask: Callable[[BaseCache], T]) -> T:
        """Return what ``ask`` finds on this machine, or else, where it finds nothing, in all.

        Args:
            ask: asks a cache for something, and raises KeyError if that is not there.

        Raises:
            KeyError: it is nowhere.
        """
        if self.leaves_out:
            with suppress(KeyError):
                return ask(self.near)
        return ask(self.cache)

    @property
    def leaves_out(self) -> bool:
        """Whether other machines are left out."""
        return self.near is not self.cache

    def open(self, text: str | None, *, make: bool = False) -> BaseCache:
        """Return the cache that ``text`` means; it is closed when the command ends."""
        import fleche.config

        try:
            if text is not None and text == self.forced and is_path(text):
                make = True  # as programs do it: what is not there yet is empty
            return self.keep(fleche.config.open(text, make=make))
        except ConfigError as error:
            if text is None or text != self.forced:
                raise
            raise ConfigError(f"{_VARIABLE}={text}: {error}") from None

    def keep(self, cache: C) -> C:
        """Close ``cache`` when the command ends."""
        self._open.append(cache)
        return cache

    def close(self) -> None:
        """Close the caches."""
        while self._open:
            self._open.pop().close()


def _complete_caches(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of caches that begin so; nothing where the configuration is broken."""
    del ctx, param
    try:
        from fleche.config import load_config

        return [name for name in load_config().names() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 (a shell has no place for errors)
        return []


def not_empty(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    """Refuse an empty text, as of a variable of the shell that is not set, where a cache is meant.

    It would be another one, and the command may remove what is there.
    """
    del ctx, param
    if given == "":
        raise click.BadParameter("it is empty")
    return given


def common(command: F) -> F:
    """Give ``command`` the options that all have, and the session they make as ``session``."""
    return click.option(
        "--cache",
        "cache_text",
        metavar="NAME|PATH|CONFIG",
        callback=not_empty,
        shell_complete=_complete_caches,
        help="Which cache: a name in fleche.toml, a directory, a .toml file (FILE:NAME), or a "
        "table in braces. Default: FLECHE_CACHE if set, or else the default cache.",
    )(_with_session(command))


def common_without_cache(command: F) -> F:
    """Give :func:`common` to a command that is about no cache, and refuses to be given one."""

    @click.pass_context
    @wraps(command)
    def refusing(ctx: click.Context, /, **options: Any) -> Any:
        if (ctx.find_object(Session) or Session()).cache_text is not None:
            raise click.ClickException(
                f"{ctx.info_name} is about no single cache: leave out --cache"
            )
        return ctx.invoke(command, **options)

    return _with_session(refusing)  # type: ignore[return-value]


def _with_session(command: F) -> F:
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.pass_context
    @wraps(command)
    def with_session(
        ctx: click.Context,
        /,
        as_json: bool,
        cache_text: str | None = None,
        everywhere: bool = False,
        **rest: Any,
    ) -> Any:
        before = ctx.find_object(Session) or Session()
        session = Session(cache_text or before.cache_text, as_json or before.json, everywhere)
        try:
            with typed():
                return ctx.invoke(command, session=session, **rest)
        except RemoteConnectionError as error:
            name = f" {shlex.quote(session.cache_text)}" if session.cache_text else ""
            advice = f"'fleche doctor{name}' looks for the reason"
            raise click.ClickException(f"{told(error)}\n{advice}") from None
        finally:
            session.close()

    return with_session  # type: ignore[return-value]


@contextmanager
def typed() -> Iterator[None]:
    """What is wrong with a value was typed so."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise click.ClickException(str(error)) from None


class _OutputFile(click.Path):
    """A file to write, in a directory that is there."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Any = super().convert(value, param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no directory {path.parent}", param, ctx)
        return path


OUTPUT_FILE = _OutputFile(path_type=Path, dir_okay=False)
"""The type of what names a file to write."""

everywhere = click.option(
    "--everywhere", is_flag=True, help="Of a stack, ask the layers on other machines, too."
)

limited = click.option(
    "-n",
    "--limit",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="At most so many; 0: all.",
)
