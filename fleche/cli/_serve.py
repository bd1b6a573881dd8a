"""``fleche remote`` in the list of commands; :mod:`fleche.cli.main` runs it without click."""

from __future__ import annotations

import click

from fleche.cli.main import main

__all__ = ["remote"]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def remote(words: tuple[str, ...]) -> int:
    """Serve a cache of this machine to another one."""
    return main(["remote", *words])
