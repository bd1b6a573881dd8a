"""``fleche config`` and ``fleche init``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from fleche._util import home_shortened, replace_file
from fleche.cli import _format as form
from fleche.cli._options import Session, common_without_cache
from fleche.cli._screen import Column
from fleche.config import (
    Config,
    check_config,
    load_config,
    redact,
    starter_config,
    user_config_file,
)
from fleche.errors import ConfigError

__all__ = ["config", "init"]

_VARIABLES = (
    *("FLECHE_CACHE", "FLECHE_TRUST", "FLECHE_SECRET_KEY", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
)
_SECRET = ("FLECHE_SECRET_KEY",)


# -- config ----------------------------------------------------------------------------------------


@click.command()
@common_without_cache
def config(session: Session) -> int:
    """Show the configuration and where it comes from.

    Each file that is read from the working directory upward, each key, and the file that says it;
    of a cache that several files declare, the nearest counts. Secrets are hidden.

    --json prints one document: directory, files, default (by key: value, file), caches (by name:
    file, table), environment.
    """
    found = load_config()
    environment = {
        name: "***" if name in _SECRET else os.environ[name]
        for name in _VARIABLES
        if name in os.environ
    }
    if session.json:
        session.screen.document(
            {
                "directory": str(found.start),
                "files": [str(path) for path in found.files],
                "default": {
                    key: {"value": value, "file": str(found.default_files[key])}
                    for key, value in _defaults(found)
                },
                "caches": {
                    name: {"file": str(entry.file), "table": redact(entry.data)}
                    for name, entry in found.tables.items()
                },
                "environment": environment,
            }
        )
        return 0
    _print_config(session, found, environment)
    return 0


def _defaults(found: Config) -> Iterator[tuple[str, Any]]:
    for key in found.default_files:
        yield key, getattr(found.default, key)


def _print_config(session: Session, found: Config, environment: Mapping[str, str]) -> None:
    screen = session.screen
    screen.title("files", f"read from {home_shortened(found.start)} upward, the nearest first")
    for path in found.files:
        screen.say(f"  {home_shortened(path)}")
    if not found.files:
        screen.say("  none; 'fleche init' writes one", "dim")
    rows = [("[default]", key, value, found.default_files[key]) for key, value in _defaults(found)]
    for name, entry in found.tables.items():
        rows += [(head, key, value, entry.file) for head, key, value in _flat(name, entry.data)]
    if rows:
        screen.say()
        before: tuple[str, str] = ("", "")
        cells = []
        for head, key, value, file in rows:
            shown = (head, home_shortened(file))
            cells.append(
                (
                    head if head != before[0] else "",
                    key,
                    form.printable(_toml(value)),
                    shown[1] if shown != before else "",
                )
            )
            before = shown
        columns = (
            Column("table", style="bold", least=8),
            Column("key"),
            Column("value", least=12),
            Column("from", style="dim", least=12, goes=1),
        )
        screen.table(columns, cells)
    if environment:
        screen.say()
        screen.title("environment")
        screen.pairs(environment.items(), indent=2)


def _flat(name: str, data: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield every key of a table, or of each layer of a stack."""
    if isinstance(data, list):
        for number, layer in enumerate(data, 1):
            yield from _flat(f"[[{name}]] {number}", layer)
        return
    head = name if name.startswith("[") else f"[{name}]"
    if not isinstance(data, dict):
        yield head, "", data
        return
    for key, value in redact(data).items():
        if isinstance(value, dict):
            for inner, item in value.items():
                yield head, f"{key}.{inner}", item
        else:
            yield head, key, value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        msgspec.json.encode(value).decode() if isinstance(value, list | dict | str) else str(value)
    )


# -- init ------------------------------------------------------------------------------------------


@click.command()
@click.option("--root", help="Directory of the results, as seen from the file.")
@click.option("--name", help="Of the cache; 'results' unless given.")
@click.option("--host", help="A second layer, on another machine: what ssh takes, as user@host.")
@click.option("--python", help="The interpreter on that machine.")
@click.option("--workdir", help="The directory on that machine.")
@click.option("--setup", "setup_commands", multiple=True, help="Runs there before; several times.")
@click.option("--write-through", is_flag=True, help="Save there, too, at once.")
@click.option("--strict", is_flag=True, help="Fail when that machine is out of reach.")
@click.option("--home", is_flag=True, help="For all projects: in the user's own configuration.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@common_without_cache
def init(
    session: Session,
    root: str | None,
    name: str | None,
    host: str | None,
    python: str | None,
    workdir: str | None,
    setup_commands: tuple[str, ...],
    write_through: bool,
    strict: bool,
    home: bool,
    force: bool,
) -> int:
    """Write a fleche.toml.

    What is not said by options is asked for on a terminal, and has a sensible value otherwise.

    --json prints one document: file, text.
    """
    path = user_config_file() if home else Path("fleche.toml").absolute()
    if path.exists() and not force:
        raise click.ClickException(f"{home_shortened(path)} is there already; --force replaces it")
    asks = sys.stdin.isatty() and not session.json
    default_root = "~/.local/share/fleche/results" if home else "cache"
    root = root or _ask(asks, "Where are results to be kept?", default_root)
    if host is None and asks:
        host = click.prompt(
            "Another machine that shares them over ssh (user@host; empty: none)",
            default="",
            show_default=False,
        )
    of_the_other = {
        "--python": python,
        "--workdir": workdir,
        "--setup": setup_commands,
        "--write-through": write_through,
        "--strict": strict,
    }
    if not host and (idle := [option for option, value in of_the_other.items() if value]):
        raise click.ClickException(f"{idle[0]} is about another machine; name it with --host")
    if host and python is None:
        python = _ask(asks, f"The interpreter on {host} that has fleche", "python3")
    text = starter_config(
        root=root,
        name=name or "results",
        host=host or None,
        python=python if python != "python3" else None,
        workdir=workdir,
        setup_commands=setup_commands,
        offline=not strict,
        write_through=write_through,
    )
    try:
        check_config(text, path)
    except ConfigError as error:
        raise ConfigError(f"{error}; nothing was written") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path.resolve(), text.encode())
    if session.json:
        session.screen.document({"file": str(path), "text": text})
        return 0
    session.screen.say(f"wrote {home_shortened(path)}:")
    session.screen.say()
    for line in text.splitlines():
        session.screen.say(f"  {line}", "dim" if line.startswith("#") else "")
    session.screen.say()
    session.screen.say("fleche doctor tries it", "dim")
    return 0


def _ask(asks: bool, question: str, default: str) -> str:
    return str(click.prompt(question, default=default)) if asks else default
