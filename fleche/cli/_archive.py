"""``fleche export`` and ``fleche import``: many calls in one file."""

from __future__ import annotations

from pathlib import Path

import click

from fleche.cli import _format as form
from fleche.cli._move import expected_bytes
from fleche.cli._options import Session, common, everywhere
from fleche.cli._selection import Selection, selecting
from fleche.exchange import export_calls, open_export

__all__ = ["export", "import_"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@selecting
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@everywhere
@common
def export(session: Session, selection: Selection, file: Path, force: bool) -> int:
    """Write calls with their values to one file.

    For mail, or to put beside a paper: 'fleche import FILE' reads it. The usual suffix is .fleche.

    --json prints one document: file, calls, bytes.
    """
    if file.exists() and not force:
        raise click.UsageError(f"{file} is there already; --force replaces it")
    cache = session.near
    calls = list(selection.calls(cache))
    if not calls:
        click.echo("fleche: no call is like that; nothing was written", err=True)
        return 1
    with session.screen.transferring(f"to {file}", len(calls), expected_bytes(calls)) as bar:
        number = export_calls(cache, file, selection.of_functions or calls, progress=bar.tell)
    size = file.stat().st_size
    if session.json:
        session.screen.document({"file": str(file), "calls": number, "bytes": size})
    else:
        session.screen.say(f"{file}: {form.count(number, 'call')}, {form.size(size)}")
        session.screen.say(f"'fleche import {file.name}' reads it", "dim")
    return 0


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@selecting
@click.option("--dry-run", is_flag=True, help="Only show what is in the file.")
@common
def import_(session: Session, selection: Selection, file: Path, dry_run: bool) -> int:
    """Read calls from a file that was exported.

    Every byte is checked; what is here already stays as it is. To open the results unpickles them,
    so import files from people you trust.

    --json prints one document: file, selected, imported, dry_run.
    """
    target = session.cache
    if not dry_run:
        target.check_writable("import")
    with open_export(file) as (_, source):
        calls = list(selection.calls(source))
        if dry_run:
            there = target.contains_many([call.key for call in calls])
            number = there.count(False)
        else:
            what = f"from {file}"
            with session.screen.transferring(what, len(calls), expected_bytes(calls)) as bar:
                chosen = selection.of_functions or calls
                number = source.transfer(target, chosen, progress=bar.tell)
    if session.json:
        session.screen.document(
            {"file": str(file), "selected": len(calls), "imported": number, "dry_run": dry_run}
        )
    else:
        verb = "would import" if dry_run else "imported"
        of = form.count(len(calls), "call")
        known = f", {len(calls) - number:,} there already" if len(calls) > number else ""
        session.screen.say(f"{verb} {number:,} of {of}{known}")
    return 0 if calls else 1
