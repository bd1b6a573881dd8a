"""Commands and their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fleche._util import __version__
from fleche.errors import FlecheError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name and return the exit status.

    Args:
        arguments: the words after the program's name; those of the process, if not given.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "run"):
        parser.print_help()
        return 2
    try:
        status: int = chosen.run(chosen)
    except FlecheError as error:
        sys.stderr.write(f"fleche: {error}\n")
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleche",
        description="A persistent cache of function results, shared between machines.",
    )
    parser.add_argument("--version", action="version", version=f"fleche {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    remote = commands.add_parser(
        "remote",
        help="serve a cache of this machine to another one",
        description="Serve a cache over standard input and output. SshCache starts this by itself; "
        "it can also be the forced command of a key in authorized_keys.",
    )
    remote.add_argument(
        "--serve", action="store_true", required=True, help="serve until input ends"
    )
    remote.add_argument(
        "--cache", metavar="NAME", help="which cache of fleche.toml; default: its default"
    )
    remote.add_argument(
        "--read-only", action="store_true", help="refuse every save and every evict"
    )
    remote.add_argument(
        "--no-unpickle",
        action="store_true",
        help="refuse to serve a cache that must open the values it is sent",
    )
    remote.set_defaults(run=_remote)
    return parser


def _remote(chosen: argparse.Namespace) -> int:
    from fleche.cli.remote import serve_standard_streams

    return serve_standard_streams(
        chosen.cache, read_only=chosen.read_only, no_unpickle=chosen.no_unpickle
    )
