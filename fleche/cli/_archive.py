"""``fleche export`` and ``fleche import``: many calls in one file."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fleche.cli import _format as form
from fleche.cli._move import expected_bytes, say_left_out
from fleche.cli._options import OUTPUT_FILE, Session, common, everywhere
from fleche.cli._selection import Selection, nothing_like, selecting
from fleche.exchange import export_calls, open_export

__all__ = ["export", "import_"]


@click.command()
@click.argument("file", type=OUTPUT_FILE)
@selecting
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@everywhere
@common
def export(session: Session, selection: Selection, file: Path, force: bool) -> int:
    """Write calls with their values to one file.

    For mail, or to put beside a paper: 'fleche import FILE' reads it. The usual suffix is .fleche.

    The exit status is 1 if calls were left out that are damaged. --json prints one document: file,
    calls, left_out, bytes.
    """
    if file.exists() and not force:
        raise click.ClickException(f"{file} is there already; --force replaces it")
    cache = session.near
    calls = list(selection.calls(cache))
    if not calls:
        click.echo(f"fleche: {nothing_like(selection, cache)}; nothing was written", err=True)
        return 1
    with session.screen.transferring(f"to {file}", len(calls), expected_bytes(calls)) as bar:
        number = export_calls(cache, file, selection.of_functions or calls, progress=bar.tell)
    size = file.stat().st_size
    if session.json:
        session.screen.document(
            {"file": str(file), "calls": number, "left_out": bar.left_out, "bytes": size}
        )
    else:
        left_out = f"; {bar.left_out:,} left out" if bar.left_out else ""
        session.screen.say(f"{file}: {form.count(number, 'call')}, {form.size(size)}{left_out}")
        session.screen.say(f"'fleche import {shlex.quote(file.name)}' reads it", "dim")
        say_left_out(session, bar.left_out)
    return 1 if bar.left_out else 0


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@selecting
@click.option("--dry-run", is_flag=True, help="Only show what is in the file.")
@common
def import_(session: Session, selection: Selection, file: Path, dry_run: bool) -> int:
    """Read calls from a file that was exported.

    Every byte is checked; what is here already stays as it is. To open the results unpickles them,
    so import files from people you trust.

    The exit status is 1 if calls of the file are damaged, or were refused. --json prints one
    document: file, selected, imported, left_out, lost (calls that the file says it holds, and that
    cannot be read), dry_run.
    """
    session.makes = True
    target = session.reached
    if not dry_run:
        target.check_writable("import")
    left_out = 0
    with open_export(file, target.packing.keys) as (head, source):
        calls = list(selection.calls(source))
        if dry_run:
            there = target.contains_many([call.key for call in calls])
            number = there.count(False)
        else:
            what = f"from {file}"
            with session.screen.transferring(what, len(calls), expected_bytes(calls)) as bar:
                chosen = selection.of_functions or calls
                number = source.transfer(target, chosen, progress=bar.tell)
            left_out = bar.left_out
    if session.json:
        session.screen.document(
            {
                "file": str(file),
                "selected": len(calls),
                "imported": number,
                "left_out": left_out,
                "lost": head.lost,
                "dry_run": dry_run,
            }
        )
    else:
        verb = "would import" if dry_run else "imported"
        parts = [f"{verb} {number:,} of {form.count(len(calls), 'call')}"]
        known = len(calls) - number - left_out
        parts += [f"{known:,} there already"] if known > 0 else []
        parts += [f"{left_out:,} left out"] if left_out else []
        parts += [f"{head.lost:,} lost"] if head.lost else []
        session.screen.say(", ".join(parts))
        say_left_out(session, left_out)
    return 0 if calls and not (head.lost or left_out) else 1
