"""``fleche export``, ``import`` and ``import-joblib``: many calls out of, or into, a cache."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from fleche.cli import _format as form
from fleche.cli._move import expected_bytes, say_left_out
from fleche.cli._options import OUTPUT_FILE, Session, common, everywhere
from fleche.cli._selection import NothingFound, Selection, nothing_like, selecting
from fleche.exchange import export_calls, open_export
from fleche.exchange import import_joblib as import_results

__all__ = ["export", "import_", "import_joblib"]


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
        raise NothingFound(f"{nothing_like(selection, cache)}; nothing was written")
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


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--changed", is_flag=True, help="Also where the code of a function has changed.")
@click.option("--dry-run", is_flag=True, help="Only show what would be imported.")
@common
def import_joblib(session: Session, directory: Path, changed: bool, dry_run: bool) -> int:
    """Take over a joblib.Memory directory.

    For functions that can be imported (from the working directory, too), decorated with @fleche or
    not. joblib keeps arguments as text: calls whose arguments cannot be read back exactly are left
    out, with the reason. The directory stays as it is.

    --json prints one line for each result: function, path, key, reason.
    """
    sys.path.append(os.getcwd())
    session.makes = True
    cache = session.reached
    try:
        results = list(import_results(directory, cache, changed=changed, dry_run=dry_run))
    except FileNotFoundError as error:
        raise NothingFound(str(error)) from None
    taken = [each for each in results if each.key is not None]
    if session.json:
        session.screen.lines({**asdict(each), "path": str(each.path)} for each in results)
        return 0 if taken else 1
    screen = session.screen
    by_function = Counter(each.function for each in taken)
    verb = "would import" if dry_run else "imported"
    screen.say(f"{verb} {form.count(len(taken), 'result')}", "green" if taken else "")
    screen.pairs(((name, f"{number:,}") for name, number in by_function.most_common()), indent=2)
    reasons = Counter((each.function, each.reason) for each in results if each.key is None)
    if reasons:
        screen.say()
        screen.say("left out", "yellow")
        screen.pairs(
            (
                (name, form.printable(f"{number:,}: {reason}" if number > 1 else reason))
                for (name, reason), number in reasons.most_common(20)
            ),
            indent=2,
        )
    return 0 if taken else 1
