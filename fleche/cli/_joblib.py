"""``fleche import-joblib``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import click

from fleche.cli import _format as form
from fleche.cli._options import Session, common
from fleche.exchange import import_joblib as import_results

__all__ = ["import_joblib"]


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
        click.echo(f"fleche: {error}", err=True)
        return 1
    taken = [each for each in results if each.key is not None]
    if session.json:
        session.screen.lines(
            {
                "function": each.function,
                "path": str(each.path),
                "key": each.key,
                "reason": each.reason,
            }
            for each in results
        )
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
