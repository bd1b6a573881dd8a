"""What commands have in common: which cache, which calls, and how to answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleche._amounts import as_moment
from fleche.caches import BaseCache, started
from fleche.call import (
    CallRecord,
    Condition,
    LazyCall,
    QueryCall,
    like,
    parse_where,
    where,
)
from fleche.digest import Digest
from fleche.errors import AmbiguousDigestError

if TYPE_CHECKING:
    from fleche.cli._screen import Screen

__all__ = ["Selection", "Session", "common", "everywhere", "find_call", "key_of", "selecting"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=BaseCache)

SHORTEST = 4
KEY = re.compile(r"[0-9a-f]{8,64}")


@dataclass
class Session:
    """One run of a command.

    Attributes:
        cache_text: what the option ``--cache`` said.
        json: whether the answer is for programs.
        everywhere: whether other machines are asked, too.
    """

    cache_text: str | None = None
    json: bool = False
    everywhere: bool = False
    _open: list[BaseCache] = field(default_factory=list)

    @cached_property
    def screen(self) -> Screen:
        """Where the answer goes."""
        from fleche.cli._screen import Screen

        return Screen(json=self.json)

    @cached_property
    def cache(self) -> BaseCache:
        """The cache that is asked about."""
        return self.open(self.cache_text or os.environ.get("FLECHE_CACHE") or None)

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

    @property
    def leaves_out(self) -> bool:
        """Whether other machines are left out."""
        return self.near is not self.cache

    def open(self, text: str | None, *, make: bool = False) -> BaseCache:
        """Return the cache that ``text`` means; it is closed when the command ends."""
        from fleche.config import open_cache

        return self.keep(open_cache(text, make=make))

    def keep(self, cache: C) -> C:
        """Close ``cache`` when the command ends."""
        self._open.append(cache)
        return cache

    def close(self) -> None:
        """Close the caches."""
        while self._open:
            self._open.pop().close()


def common(command: F) -> F:
    """Give ``command`` the options that all have, and the session they make as ``session``."""

    @click.option(
        "--cache",
        "cache_text",
        metavar="NAME|PATH|CONFIG",
        help="Which cache: a name in fleche.toml, a directory, a .toml file (FILE:NAME), or a "
        "table in braces. Default: the default cache.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.pass_context
    @wraps(command)
    def with_session(
        ctx: click.Context,
        /,
        cache_text: str | None,
        as_json: bool,
        everywhere: bool = False,
        **rest: Any,
    ) -> Any:
        before = ctx.find_object(Session) or Session()
        session = Session(cache_text or before.cache_text, as_json or before.json, everywhere)
        try:
            with _typed():
                return ctx.invoke(command, session=session, **rest)
        finally:
            session.close()

    return with_session  # type: ignore[return-value]


@contextmanager
def _typed() -> Iterator[None]:
    """What is wrong with a value was typed so."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise click.UsageError(str(error)) from None


everywhere = click.option(
    "--everywhere", is_flag=True, help="Of a stack, ask the layers on other machines, too."
)

# -- which calls -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Which calls a command is about.

    Attributes:
        keys: of single calls, perhaps short.
        names: names of functions, perhaps patterns; any of them.
        template: what storages look for themselves.
        matches: decides the rest.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    template: QueryCall
    matches: Callable[[CallRecord], bool]

    @property
    def is_everything(self) -> bool:
        """Whether nothing was said to choose by."""
        return not self.keys and not self.names and self.template == QueryCall()

    def calls(self, cache: BaseCache) -> Iterator[LazyCall]:
        """Yield the calls of ``cache`` that are selected, as they are found."""
        if self.keys:
            yield from self._by_key(cache)
            if not self.names:
                return
        template = self.template
        if len(self.names) == 1 and template.name is None:
            template = template.merged(QueryCall(name=self.names[0]))
        for call in cache.query(template):
            if self._is_named(call.record) and self.matches(call.record):
                yield call

    def _by_key(self, cache: BaseCache) -> Iterator[LazyCall]:
        for key in self.keys:
            call = find_call(cache, key)
            if self.template.matches(call.record) and self.matches(call.record):
                yield call

    def _is_named(self, record: CallRecord) -> bool:
        return not self.names or any(fnmatchcase(record.name, name) for name in self.names)


def key_of(text: str) -> str | None:
    """Return ``text`` if it looks like a key, or the beginning of one."""
    return text if KEY.fullmatch(text) else None


def find_call(cache: BaseCache, key: str) -> LazyCall:
    """Return the call of ``key``.

    Raises:
        click.ClickException: there is none, or there are several.
    """
    if len(key) < SHORTEST:
        raise click.UsageError(f"{key!r} is too short: {SHORTEST} characters of a key, or more")
    try:
        return cache.load(key)
    except KeyError:
        raise NothingFound(f"{cache!r}: no call has the key {key}") from None
    except AmbiguousDigestError as error:
        raise click.UsageError(str(error)) from None


class NothingFound(click.exceptions.Exit):
    """Ends a command that has found nothing."""

    def __init__(self, message: str) -> None:
        click.echo(f"fleche: {message}", err=True)
        super().__init__(1)


def selecting(command: F) -> F:
    """Give ``command`` the arguments that choose calls, as ``selection``."""

    @click.argument("what", nargs=-1, metavar="[NAME|KEY]...")
    @click.option("--name", "names", multiple=True, help="Of the function; * and ? are wildcards.")
    @click.option("--since", metavar="AGE|DATE", help="Began since then: 2d, 36h, 2026-11-28.")
    @click.option("--before", metavar="AGE|DATE", help="Began before then.")
    @click.option("--user", help="Ran for this user; * and ? are wildcards.")
    @click.option("--host", help="Ran on this machine; * and ? are wildcards.")
    @click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Has this tag.")
    @click.option(
        "--where",
        "condition",
        metavar="CONDITION",
        help="Meets it: 'v >= 0.5 and tag.study == \"eos\"'. Plain names are arguments.",
    )
    @wraps(command)
    def with_selection(
        *,
        what: tuple[str, ...],
        names: tuple[str, ...],
        since: str | None,
        before: str | None,
        user: str | None,
        host: str | None,
        tags: tuple[str, ...],
        condition: str | None,
        **rest: Any,
    ) -> Any:
        with _typed():
            found = _select(what, names, _runtime(since, before, user, host), tags, condition)
        return command(selection=found, **rest)

    return with_selection  # type: ignore[return-value]


def _select(
    what: Iterable[str],
    names: tuple[str, ...],
    runtime: dict[str, Condition],
    tags: Iterable[str],
    condition: str | None,
) -> Selection:
    keys = tuple(text for text in what if key_of(text))
    named = (*names, *(text for text in what if not key_of(text)))
    wanted: dict[str, dict[str, Condition]] = {"runtime": runtime} if runtime else {}
    for text in tags:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: NAME=VALUE is expected", param_hint="--tag")
        wanted.setdefault("tags", {})[name] = _plain(value)
    template = QueryCall(metadata=wanted)
    if condition is None:
        return Selection(keys, named, template, template.matches)
    parsed = parse_where(condition)
    try:
        together = template.merged(parsed.template)
    except ValueError:  # both say something of one field: the rest is looked at afterwards
        together = template
    return Selection(keys, named, together, parsed.matches)


def _runtime(
    since: str | None, before: str | None, user: str | None, host: str | None
) -> dict[str, Condition]:
    found = {name: like(text) for name, text in (("user", user), ("host", host)) if text}
    bounds = [_iso(text) if text else None for text in (since, before)]
    if bounds[0] and bounds[1]:
        found["started"] = Condition("between", bounds)  # type: ignore[arg-type]
    elif bounds[0]:
        found["started"] = where(">=", bounds[0])
    elif bounds[1]:
        found["started"] = where("<", bounds[1])
    return found


def _iso(text: str) -> str:
    return as_moment(text).isoformat(timespec="microseconds")


def _plain(text: str) -> Condition:
    """Return the condition that a tag is ``text``, or the number or truth value that it spells."""
    values: list[Any] = [text]
    for kind in (int, float):
        try:
            values.append(kind(text))
            break
        except ValueError:
            continue
    if text in ("True", "true", "False", "false"):
        values.append(text.lower() == "true")
    return like(text) if any(char in text for char in "*?") else Condition("in", values)


def when(call: LazyCall) -> datetime | None:
    """Return when a call began."""
    return started(call.record)


def full_key(cache: BaseCache, text: str) -> Digest:
    """Return the complete key of ``text``; raises as :func:`find_call`."""
    return find_call(cache, text).key
