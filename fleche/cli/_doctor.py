"""``fleche doctor``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain

import click

from fleche.caches import BaseCache
from fleche.cli import _format as form
from fleche.cli._options import Session, common
from fleche.config import load_config, load_default_metadata
from fleche.doctor import Step, examine
from fleche.errors import ConfigError, FlecheError

__all__ = ["doctor"]

_HOST = re.compile(r"[\w.-]+(@[\w.-]+)?")


@click.command()
@click.argument("what", required=False, metavar="[NAME|HOST]")
@click.option("--no-write", is_flag=True, help="Save nothing, not even for a moment.")
@common
def doctor(session: Session, what: str | None, no_write: bool) -> int:
    """Find out why a cache does not work.

    NAME is that of a cache, or what --cache takes; HOST is what ssh takes. Without either, the
    cache of FLECHE_CACHE, or else the default one. Each step on the way is tried as the cache
    itself would: ssh, what start-up files print or read, python, which fleche, the cache, whether
    it can be written, free space, round trip, throughput. At the first failure it says why, and
    what to do next.

    A value of 4 MiB is saved, loaded and evicted again, unless --no-write is given; nothing is
    saved in a cache that is read-only, or is read through a pool.

    The exit status is 1 if a step fails. --json prints one document: ok, caches (each: cache, ok,
    steps (each: name, state, found, advice)).
    """
    if what and session.cache_text:
        raise click.ClickException(f"say one cache: {what}, or --cache {session.cache_text}")
    sys.path.append("")  # where metadata of the user's own may be
    found: list[tuple[str, list[Step]]] = []
    for title, steps in _examined(session, what, write=not no_write):
        seen: list[Step] = []
        found.append((title, seen))
        if not session.json:
            session.screen.title(title)
        for step in steps:
            seen.append(step)
            if not session.json:
                _print_step(session, step)
        if not session.json:
            session.screen.say()
    failed = [title for title, steps in found if not _is_well(steps)]
    if session.json:
        session.screen.document(
            {
                "ok": not failed,
                "caches": [
                    {
                        "cache": title,
                        "ok": _is_well(steps),
                        "steps": list(map(asdict, steps)),
                    }
                    for title, steps in found
                ],
            }
        )
    elif not failed:
        session.screen.say("all well", "green")
    return 1 if failed else 0


def _is_well(steps: list[Step]) -> bool:
    return all(step.state != "failed" for step in steps)


def _examined(
    session: Session, what: str | None, *, write: bool
) -> Iterator[tuple[str, Iterator[Step]]]:
    """Yield each layer of what is asked for, with its steps; before them what is misconfigured."""
    try:
        cache, steps = _found(session, what)
    except FlecheError as error:
        step = Step("configuration", "failed", str(error), _CONFIGURED)
        yield what or session.which or "configuration", iter([step])
        return
    try:
        load_default_metadata()
    except ConfigError as error:
        yield "configuration", iter([Step("metadata", "failed", str(error), _CONFIGURED)])
    for layer, pooled in form.layers_of(cache):
        yield form.title_of(layer), chain(steps, examine(layer, write=write, read_only=pooled))


_CONFIGURED = "'fleche config' shows what is read, and from which file"


def _found(session: Session, what: str | None) -> tuple[BaseCache, list[Step]]:
    """Return the cache that is asked for; of a host, the layer that is configured for it.

    Of a bare word there is a first step: it may be a name of a cache that is not spelt right.
    """
    if what is None:
        return session.cache, []
    config = load_config()
    if what in (*config.names(), config.default.cache) or not _HOST.fullmatch(what):
        return session.open(what), []
    for name in config.tables:
        for layer, _ in form.layers_of(session.open(name)):
            if getattr(layer, "host", None) == what:
                return layer, []
    try:
        return session.open(what), []
    except ConfigError as error:
        from fleche.remote import SshCache

        step = Step("name", "note", f"{error}; so it is tried as a host")
        return session.keep(SshCache(what)), [] if {".", "@"} & set(what) else [step]


_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "failed": ("✗", "bold red")}
_WIDE = 16


def _print_step(session: Session, step: Step) -> None:
    from rich.text import Text

    mark, style = _MARKS[step.state]
    head = Text(f"  {mark} ", style)
    head.append(f"{step.name:{_WIDE}}", "dim" if step.state == "ok" else style)
    session.screen.hanging(head, step.found)
    if step.advice:
        blank = Text(" " * (4 + _WIDE))
        session.screen.hanging(
            blank, f"→ {step.advice}", style="bold" if step.state == "failed" else ""
        )
