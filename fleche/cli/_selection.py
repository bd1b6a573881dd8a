"""Which calls a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from itertools import filterfalse, islice
from operator import attrgetter
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from fleche._amounts import as_stamp
from fleche.caches import BaseCache, QueryIterator
from fleche.call import CallRecord, Condition, LazyCall, QueryCall, like, parse_where, where
from fleche.cli import _format as form
from fleche.cli._options import Session, typed
from fleche.errors import AmbiguousDigestError, ParcelError, RemoteConnectionError
from fleche.storage import SHORTEST

__all__ = [
    "SORT_TIME",
    "NothingFound",
    "Selection",
    "find_call",
    "key_argument",
    "no_call_of",
    "nothing_like",
    "selecting",
]

F = TypeVar("F", bound=Callable[..., Any])

SORT_TIME = attrgetter("record.sort_time")
"""Returns when a call began, to sort by."""

KEY = re.compile(r"[0-9a-f]{8,64}")

_SHORT_KEY = re.compile(rf"[0-9a-f]{{{SHORTEST},}}")


@dataclass(frozen=True)
class Selection:
    """Which calls a command is about.

    Attributes:
        keys: of single calls, perhaps short.
        names: names of functions, perhaps patterns; any of them.
        template: what storages look for themselves.
        matches: decides the rest.
        arguments: names of arguments that were spoken of.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    template: QueryCall
    matches: Callable[[CallRecord], bool]
    arguments: frozenset[str] = frozenset()

    @property
    def is_everything(self) -> bool:
        """Whether nothing was said to choose by."""
        return self.of_functions == QueryCall()

    @property
    def of_functions(self) -> QueryCall | None:
        """The template of all calls, or all of one function, if these are selected; else None."""
        whole = QueryCall(name=self.template.name, module=self.template.module)
        names = [*self.names, *filter(None, [self.template.name])]
        if self.keys or self.template != whole or self.matches != self.template.matches:
            return None
        if len(names) > 1:
            return None
        return QueryCall(name=names[0] if names else None, module=self.template.module)

    def calls(self, cache: BaseCache) -> Iterator[LazyCall]:
        """Yield the calls of ``cache`` that are selected, as they are found."""
        if self.keys:
            yield from self._by_key(cache)
            if not self.names:
                return
        named = [like(name) for name in self.names]
        for call in cache.query(self._wanted):
            is_named = not named or any(each.matches(call.record.name) for each in named)
            if is_named and self.matches(call.record):
                yield call

    def newest(self, cache: BaseCache, number: int) -> list[LazyCall]:
        """Return those ``number`` of the calls that began last, the newest first."""
        is_named = bool(self.names) and self._wanted is self.template  # which leaves the names out
        if self.keys or is_named or self.matches != self.template.matches:
            return list(QueryIterator(lambda: self.calls(cache)).newest(number))
        return list(cache.query(self._wanted).newest(number))

    @cached_property
    def _wanted(self) -> QueryCall:
        """The template of what is selected by no key, as far as one can say that."""
        if len(self.names) == 1 and self.template.name is None:
            return self.template.merged(QueryCall(name=self.names[0]))
        return self.template

    def of_version(self, version: str) -> Selection:
        """Return those of the calls whose version, a number perhaps, is written so."""

        def matches(record: CallRecord) -> bool:
            return str(record.version) == version and self.matches(record)

        return replace(self, matches=matches)

    def _by_key(self, cache: BaseCache) -> Iterator[LazyCall]:
        for key in self.keys:
            call = _loaded(key, cache.load, cache)
            if self.template.matches(call.record) and self.matches(call.record):
                yield call


def find_call(session: Session, key: str) -> LazyCall:
    """Return the call of ``key``: other machines are asked if this one does not have it.

    Raises:
        click.ClickException: there is none, or there are several.
    """
    try:
        return _loaded(key, lambda key: session.nearest(lambda each: each.load(key)), session.cache)
    except RemoteConnectionError as error:
        if not session.leaves_out:
            raise
        raise RemoteConnectionError(
            f"no call on this machine has the key {key}, and the others cannot be asked: {error}"
        ) from None


def _loaded(key: str, load: Callable[[str], LazyCall], cache: BaseCache) -> LazyCall:
    if not _SHORT_KEY.fullmatch(key):
        is_name = key.isidentifier() and not re.fullmatch("[0-9a-f]+", key)
        command = f"fleche log {key}" if is_name else "fleche log"
        raise click.ClickException(
            f"{key!r} is no key of a call: '{command}' shows keys at the beginning of its lines; "
            f"{SHORTEST} characters, or more, will do"
        )
    try:
        return load(key)
    except KeyError:
        looked = ", ".join(form.title_of(part.cache) for part in form.layers_of(cache))
        raise NothingFound(f"no call has the key {key} (looked in {looked})") from None
    except AmbiguousDigestError as error:
        raise click.ClickException(str(error)) from None


def nothing_like(selection: Selection, cache: BaseCache) -> str:
    """Say why nothing was found: no call is there, or none is like that, or can be read."""
    if not selection.is_everything and not cache.query().empty():
        return _unknown(selection, cache) or "no call is like that"
    keys = [key for key, _ in cache.backend.query(QueryCall(), keys_only=True)]
    found = cache.backend.load(keys) if keys else ()
    unusable = sum(isinstance(entry, ParcelError) for _, entry in found)
    if unusable < len(keys):
        return "no call is like that"
    if not keys:
        return _none_yet(cache)
    return f"none of {form.count(unusable, 'call')} here can be read; 'fleche verify' says more"


def _none_yet(cache: BaseCache) -> str:
    return f"no calls yet in {form.title_of(cache)}"


def no_call_of(names: Sequence[str], cache: BaseCache) -> str:
    """Say that ``cache`` has no call of these functions, and which was perhaps meant."""
    functions = {call.name for call in islice(cache.query(), COMPLETED)}
    return _not_among(names, functions) if functions else _none_yet(cache)


def _not_among(names: Sequence[str], functions: set[str]) -> str:
    return f"there is no call of {_listed(names)} ({_instead(names, functions)})"


def _unknown(selection: Selection, cache: BaseCache) -> str:
    """Say which function, argument or metadata no call here has, and which there are."""
    names = selection.names
    metadata = selection.template.metadata
    if not (names or selection.arguments or metadata):
        return ""
    records = [call.record for call in islice(cache.query(), COMPLETED)]
    functions = {record.name for record in records}
    found = {each for each in functions for name in names or "*" if like(name).matches(each)}
    if functions and not found:
        return _not_among(names, functions)
    arguments = {name for each in records if each.name in found for name in each.arguments}
    wrong = sorted(selection.arguments - arguments)
    if found and wrong:
        column = _COLUMNS.get(wrong[0])
        instead = f"that column is {column!r} in a condition" if column else ""
        hint = instead or _instead(wrong, arguments)
        return f"no call has an argument {_listed(wrong)} ({hint})"
    collectors = {name for each in records if each.name in found for name in each.metadata}
    absent = sorted(metadata.keys() - collectors)
    if found and collectors and absent:
        if absent == ["tags"]:
            return "no call has tags"
        hint = (
            f"{absent[0]!r} is an argument, whose parts the record does not show"
            if absent[0] in arguments
            else _instead(absent, collectors)
        )
        return f"no call has metadata {_listed(absent)} ({hint})"
    return ""


def _listed(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def _instead(names: Iterable[str], known: set[str]) -> str:
    """Return which of the ``known`` may have been meant by ``names``, or else some of them."""
    from difflib import get_close_matches

    for name in names:
        for near in get_close_matches(name, known, 1):
            return f"did you mean {near!r}?"
    there = ", ".join(sorted(known)[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
    return f"there are {there or 'none'}"


class NothingFound(click.exceptions.Exit):
    """Ends a command that has found nothing."""

    def __init__(self, message: str) -> None:
        click.echo(f"fleche: {message}", err=True)
        super().__init__(1)


COMPLETED = 5000
"""So many calls are looked at for the names of functions, since a person waits for the answer."""

_NAMED = 8

_COLUMNS = {"function": "name", "took": "seconds", "when": "started", "where": "host"}
"""What the columns of a list are called in conditions."""

_COMPLETE = 12
"""Characters of a key that a shell is offered."""


def complete_keys(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the keys that begin so, with the names of their functions; nothing if that fails."""
    del param
    return _ask_for_a_shell(ctx, partial(_keys_like, incomplete))


def complete_calls(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the functions that begin so, and of a few characters the keys."""
    del param

    def ask(cache: BaseCache) -> list[CompletionItem]:
        names = {call.name for call in islice(cache.query(), COMPLETED)}
        found = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
        return found + _keys_like(incomplete, cache) if _SHORT_KEY.fullmatch(incomplete) else found

    return _ask_for_a_shell(ctx, ask)


def _keys_like(incomplete: str, cache: BaseCache) -> list[CompletionItem]:
    if _SHORT_KEY.fullmatch(incomplete):
        (keys,) = cache.backend.expand([incomplete])
        calls: Iterable[LazyCall] = map(cache.load, keys)
    else:
        calls = islice(cache.query(), COMPLETED)
    found = (call for call in calls if call.key.startswith(incomplete))
    return [CompletionItem(call.key[:_COMPLETE], help=call.name) for call in found]


def _ask_for_a_shell(
    ctx: click.Context, ask: Callable[[BaseCache], list[CompletionItem]]
) -> list[CompletionItem]:
    session = Session(ctx.params.get("cache_text"))
    try:
        return ask(session.near)
    except Exception:  # noqa: BLE001 (a shell has no place for errors)
        return []
    finally:
        session.close()


def key_argument(name: str) -> Callable[[F], F]:
    """Return what gives a command an argument that is the key of a call."""
    return click.argument(name, shell_complete=complete_keys)


def selecting(command: F) -> F:
    """Give ``command`` the arguments that choose calls, as ``selection``."""

    @click.argument("what", nargs=-1, metavar="[NAME|KEY]...", shell_complete=complete_calls)
    @click.option(
        "--name",
        "names",
        multiple=True,
        help="Of the function; * and ? are wildcards.",
        shell_complete=complete_calls,
    )
    @click.option("--version", help="Of the function, as in @fleche(version=...).")
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
        version: str | None,
        since: str | None,
        before: str | None,
        user: str | None,
        host: str | None,
        tags: tuple[str, ...],
        condition: str | None,
        **rest: Any,
    ) -> Any:
        with typed():
            found = _select(what, names, _runtime(since, before, user, host), tags, condition)
            if version is not None:
                found = found.of_version(version)
        return command(selection=found, **rest)

    return with_selection  # type: ignore[return-value]


def _select(
    what: Iterable[str],
    names: tuple[str, ...],
    runtime: dict[str, Condition],
    tags: Iterable[str],
    condition: str | None,
) -> Selection:
    keys = tuple(filter(KEY.fullmatch, what))
    named = (*names, *filterfalse(KEY.fullmatch, what))
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
    return Selection(keys, named, together, parsed.matches, parsed.arguments)


def _runtime(
    since: str | None, before: str | None, user: str | None, host: str | None
) -> dict[str, Condition]:
    found = {name: like(text) for name, text in (("user", user), ("host", host)) if text}
    bounds = [as_stamp(text) if text else None for text in (since, before)]
    if bounds[0] and bounds[1]:
        found["started"] = Condition("between", bounds)  # type: ignore[arg-type]
    elif bounds[0]:
        found["started"] = where(">=", bounds[0])
    elif bounds[1]:
        found["started"] = where("<", bounds[1])
    return found


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
