"""The way into the command line: the server by itself, everything else through click."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from fleche._util import __version__
from fleche.errors import FlecheError

__all__ = ["main", "prepare_streams"]

FOUND, NOTHING, FAILED = 0, 1, 2
"""Exit statuses: all is well; nothing was found, or damage was; it could not be done."""

CUT_SHORT = 128 + 13
"""Exit status where the reader of the output is gone, as of a program that SIGPIPE ends.

All may not be well: of what was to come, damage say, the reader has seen nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name and return the exit status.

    Args:
        arguments: the words after the program's name; those of the process, if not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["remote"]:  # is started over ssh, all the time, and needs no other package
        return _remote(words[1:])
    prepare_streams()
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, head say, has seen enough
        abandon_output()
        return CUT_SHORT
    except OSError as error:
        sys.stderr.write(f"fleche: {describe_failure(error)}\n")
        abandon_output()
        return FAILED
    return status


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        sys.stdout.write(f"fleche {__version__}\n")
        return FOUND
    try:
        from fleche.cli._app import run

        return run(words)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"fleche: the commands need the package {error.name}, which is not installed: "
            "pip install click rich (python -m fleche remote --serve works without it)\n"
        )
        return FAILED


def _remote(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fleche remote",
        description="Serve a cache over standard input and output. SshCache starts this by itself; "
        "it can also be the forced command of a key in authorized_keys.",
    )
    parser.add_argument(
        "--serve", action="store_true", required=True, help="serve until input ends"
    )
    parser.add_argument(
        "--cache", metavar="NAME", help="which cache of fleche.toml; default: its default"
    )
    parser.add_argument(
        "--read-only", action="store_true", help="refuse every save and every evict"
    )
    parser.add_argument(
        "--no-unpickle",
        action="store_true",
        help="refuse to serve a cache that must open the values it is sent",
    )
    chosen = parser.parse_args(words)
    try:
        from fleche.cli.remote import serve_standard_streams
    except ImportError as error:  # of an installation without its dependencies, or a damaged one
        sys.stderr.write(
            f"fleche remote: {error}; {sys.executable} lacks what fleche needs. Install fleche "
            "for it anew, with its dependencies, or name another interpreter (python)\n"
        )
        return FAILED
    try:
        return serve_standard_streams(
            chosen.cache, read_only=chosen.read_only, no_unpickle=chosen.no_unpickle
        )
    except FlecheError as error:
        sys.stderr.write(f"fleche: {error}\n")
        return FAILED


# -- standard streams as commands need them: there, and able to show what is written ---------------


def prepare_streams() -> None:
    """Have three streams, and escape what the encoding of the terminal cannot show."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # it was closed: the next file that is opened would get its descriptor, and its output
            _lead_to_nowhere(number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def describe_failure(error: OSError) -> str:
    """Return what a system call has failed at, and why.

    Args:
        error: what it has raised.
    """
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    try:
        sys.stdout.flush()
    except OSError:  # what could not be written is still there
        return f"standard output: {reason}"
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone; change to one that exists"
    return reason


def abandon_output() -> None:
    """Let what cannot be written go nowhere, so that nothing is said of it at the end."""
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        try:
            stream.flush()
        except OSError:
            _lead_to_nowhere(number)


def _lead_to_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
