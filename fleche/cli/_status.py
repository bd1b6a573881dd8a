"""``fleche`` without a command: where am I, and is all well?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import click

from fleche._util import __version__, home_shortened
from fleche.caches import BaseCache, CacheBackend, CacheStack, ViewBackend
from fleche.call import QueryCall
from fleche.cli import _format as form
from fleche.cli._options import Session, common, everywhere
from fleche.cli._screen import Column
from fleche.config import Config, check_default_metadata, load_config
from fleche.errors import ConfigError, FlecheError, told
from fleche.storage import CallStorage

__all__ = ["status"]


_MANY = 5_000
"""So many calls are read to find the newest, or to see what another layer lacks; no more."""


@dataclass
class Layer:
    """What is known of one layer of a cache.

    Attributes:
        cache: the name of the cache that it is a layer of.
        kind: what ``fleche.toml`` calls it.
        place: where it is.
        calls: how many it keeps; ``None``: not asked.
        bytes: what they take.
        last: when the last of them began.
        hits: how often a stored result was found.
        misses: how often one was computed and stored.
        saved: seconds that the hits have saved.
        contact: when it was last reached, if it is on another machine.
        unpushed: calls of the first layer that it lacks; ``None``: not asked, or it takes none.
        error: why it cannot be used.
    """

    cache: str
    kind: str
    place: str
    calls: int | None = None
    bytes: int | None = None
    last: datetime | None = None
    hits: int | None = None
    misses: int | None = None
    saved: float | None = None
    contact: datetime | None = None
    unpushed: int | None = None
    error: str | None = None


@click.command()
@everywhere
@common
def status(session: Session) -> int:
    """Where am I, and is all well?

    Says which files configure this directory, which caches there are, what they hold, and when
    other machines were last reached. Of a layer on this machine it says what was not pushed to it.
    With --everywhere other machines are asked, too: what they hold, and what was not pushed.

    --json prints one document: version, directory, files, default, problems (texts), caches (each:
    cache, kind, place, calls, bytes, last, hits, misses, saved, contact, unpushed, error).
    """
    config = load_config()
    problems = list(_problems(config))
    layers = [layer for name in _names(session, config) for layer in _look(session, name)]
    if session.json:
        session.screen.document(
            {
                "version": __version__,
                "directory": str(config.start),
                "files": [str(path) for path in config.files],
                "default": _default(config),
                "problems": problems,
                "caches": [
                    {**asdict(each), "last": form.iso(each.last), "contact": form.iso(each.contact)}
                    for each in layers
                ],
            }
        )
    else:
        _print_status(session, config, layers)
        for problem in problems:
            session.screen.say(problem, "red")
    return 1 if problems or any(each.error for each in layers) else 0


def _default(config: Config) -> str:
    chosen = config.default.cache
    return chosen if isinstance(chosen, str) else "default"


def _names(session: Session, config: Config) -> list[str]:
    if session.which is not None:
        return [session.which]
    return list(dict.fromkeys([_default(config), *config.tables]))


def _problems(config: Config) -> Iterator[str]:
    """Yield what is wrong besides the caches; no module of the user's is imported."""
    sys.path.append("")
    try:
        check_default_metadata(config)
    except ConfigError as error:
        yield str(error)


def _look(session: Session, name: str) -> Iterator[Layer]:
    try:
        cache = session.open(name)
    except FlecheError as error:
        yield Layer(name, "", "", error=str(error))
        return
    first: tuple[BaseCache, Layer] | None = None
    for each, pooled in form.layers_of(cache):
        found = Layer(name, *form.described(each))
        try:
            if each.backend.local or session.everywhere:
                _count(each, found)
            if first is not None and isinstance(cache, CacheStack) and not pooled:
                _compare(session, *first, each, found)
            if not each.backend.local:
                _recall_contact(each, found)
        except FlecheError as error:
            found.error = told(error)
        first = first or (each, found)
        yield found


def _count(cache: BaseCache, found: Layer) -> None:
    report = cache.stats()
    found.calls, found.bytes = report.calls, report.bytes
    usage = cache.usage()
    found.hits = sum(each.hits for each in usage)
    found.misses = sum(each.misses for each in usage)
    found.saved = sum(each.saved for each in usage)
    if report.calls > _MANY and not _has_index(cache.backend):
        return
    with suppress(KeyError):  # there is none
        found.last = cache.query().latest().record.began


def _has_index(backend: CacheBackend) -> bool:
    """Return whether a cache finds its newest call without reading all."""
    if not backend.local:  # it is asked since --everywhere was given
        return True
    if isinstance(backend, ViewBackend):
        return _has_index(backend.inner)
    calls = getattr(backend, "calls", None)
    return calls is not None and type(calls).newest is not CallStorage.newest


def _compare(
    session: Session, first: BaseCache, known: Layer, layer: BaseCache, found: Layer
) -> None:
    """Count what a layer that takes pushes lacks, where that is quick or asked for."""
    is_quick = layer.backend.local and known.calls is not None and known.calls <= _MANY
    if not (is_quick or session.everywhere) or layer.read_only:
        return
    keys = [key for key, _ in first.backend.query(QueryCall(), keys_only=True)]
    found.unpushed = layer.contains_many(keys).count(False) if keys else 0


def _recall_contact(layer: BaseCache, found: Layer) -> None:
    from fleche.remote import RemoteCache, last_contact

    if isinstance(layer, RemoteCache):
        contact = last_contact(layer.backend.channel.name)
        found.contact = datetime.fromtimestamp(contact.at).astimezone() if contact else None


def _print_status(session: Session, config: Config, layers: Sequence[Layer]) -> None:
    screen = session.screen
    screen.title(f"fleche {__version__}", home_shortened(config.start))
    files = ", ".join(home_shortened(path) for path in config.files)
    rows = [("configured by", files or "no fleche.toml: results are kept as by default")]
    if session.forced:
        rows.append(("FLECHE_CACHE", f"{session.forced}: used whatever else is said"))
    screen.pairs(rows)
    screen.say()
    columns = (
        Column("cache", style="bold", least=8),
        Column("kind", goes=1),
        Column("where", least=12),
        Column("calls", right=True, goes=2),
        Column("size", right=True, goes=3),
        Column("", least=14, goes=4),
    )
    cells = []
    before = None
    for each in layers:
        title = each.cache if each.cache != before else ""
        if title and title == _default(config):
            title += " *"
        before = each.cache
        cells.append((title, each.kind, each.place, *_figures(each), _news(session, each)))
    screen.table(columns, cells)
    screen.say()
    seen: set[str] = set()
    for each in layers:
        if each.hits:
            text = form.saving(each.hits, each.misses or 0, each.saved or 0)
            # a further layer may have copies of the counters of the first: not to be added up
            title = f"{each.cache}, in {each.place}," if each.cache in seen else each.cache
            screen.say(f"{title} has saved {text}")
        seen.add(each.cache)
    hints = ["* the default"] if any(each.cache == _default(config) for each in layers) else []
    if any(each.calls is None and not each.error for each in layers):
        hints.append(
            "'fleche status --everywhere' asks the other machines, and says what is not pushed"
        )
    for hint in hints:
        screen.say(hint, "dim")
    for each in layers:
        if each.error:
            screen.say(f"{each.cache}: {each.error}", "red")
            screen.say(f"  fleche doctor {each.cache} looks for the reason", "dim")


def _figures(layer: Layer) -> tuple[str, str]:
    if layer.calls is None:
        return "", ""
    return f"{layer.calls:,}", form.size(layer.bytes or 0)


def _news(session: Session, layer: Layer) -> Any:
    from rich.text import Text

    if layer.error:
        return Text("cannot be used", "bold red")
    parts = []
    if layer.unpushed:
        parts.append(f"{layer.unpushed:,} not pushed")
    elif layer.unpushed == 0:
        parts.append("all pushed")
    if layer.last is not None:
        parts.append(f"last call {form.ago(layer.last)}")
    if layer.contact is not None and not session.everywhere:
        parts.append(f"reached {form.ago(layer.contact)}")
    return ", ".join(parts)
