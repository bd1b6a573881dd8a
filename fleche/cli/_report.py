"""``fleche report`` and ``fleche browse``: what there is, as a page and in a terminal."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import click

from fleche.cli._options import OUTPUT_FILE, Session, common, everywhere
from fleche.cli._selection import NothingFound, Selection, nothing_like, selecting

__all__ = ["browse", "report"]


@click.command()
@selecting
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    default=Path("study.html"),
    show_default=True,
    help="The file; one that is there is replaced.",
)
@click.option("--title", help="Of the page; by default the name of the file.")
@click.option(
    "--open",
    "previews",
    type=click.Choice(["plain", "all", "none"]),
    default="plain",
    show_default=True,
    help="Which results are opened to be shown. 'all' draws figures too; opening a value may then "
    "run code that is stored with it, so say it of your own results only.",
)
@everywhere
@common
def report(
    session: Session, selection: Selection, output: Path, title: str | None, previews: str
) -> int:
    """Write a page about a study: time saved, results, lineage, methods.

    One HTML file, which needs no network: what was computed and found on each machine, sizes, what
    called what, results plotted against the arguments that were varied, a table, and a methods
    paragraph for the paper.

    Where no call is selected, the exit status is 1, and nothing is written. --json prints one
    document: file, calls, shown, previews, bytes.
    """
    from fleche.cli import _format as form

    cache = session.near
    calls = selection.calls(cache)
    first = next(calls, None)
    if first is None:
        raise NothingFound(f"{nothing_like(selection, cache)}; nothing was written")
    from fleche.report import write_report

    query = None if selection.is_everything else chain([first], calls)
    written = write_report(cache, output, query, title=title, previews=previews)  # type: ignore[arg-type]
    screen = session.screen
    if session.json:
        screen.document(
            {
                "file": str(written.path),
                "calls": written.calls,
                "shown": written.shown,
                "previews": written.previews,
                "bytes": written.bytes,
            }
        )
        return 0
    screen.say(f"{written.path}: {form.count(written.calls, 'call')}, {form.size(written.bytes)}")
    if written.shown < written.calls:
        screen.say(f"its table holds the {written.shown:,} newest", "dim")
    if session.leaves_out:
        screen.say("other machines are left out; --everywhere asks them, too", "dim")
    return 0


@click.command()
@everywhere
@common
def browse(session: Session) -> int:
    """Look through functions and calls in the terminal.

    Search, lineage, values; delete and push calls. '?' lists the keys. Of a stack, the calls on
    this machine are shown, and deleted here alone, unless --everywhere is given.
    """
    if session.json:
        raise click.ClickException("browse is for people; 'fleche log --json' is for programs")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("browse needs a terminal; 'fleche log' prints calls")
    from fleche.browse import browse as run_browser
    from fleche.errors import MissingExtra

    try:
        run_browser(session.near, stack=session.cache)
    except MissingExtra as error:
        raise click.ClickException(str(error)) from None
    return 0
