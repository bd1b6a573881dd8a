"""The table of commands, and the program that runs them.

A module of commands is imported when one of its commands is run, or asked for its help.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import click

from fleche._util import __version__, override
from fleche.cli._options import Session, common
from fleche.cli.main import main
from fleche.errors import FlecheError, told

__all__ = ["COMMANDS", "run"]


class Entry(NamedTuple):
    """A command: the heading it stands under, ``module:attribute``, and what it does."""

    heading: str
    target: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "status": Entry("See", "_status:status", "Where am I, and is all well?"),
    "log": Entry("See", "_calls:log", "List calls, the newest first."),
    "show": Entry("See", "_calls:show", "Show all that is known of one call."),
    "get": Entry("See", "_get:get", "Print a result, or write it to a file."),
    "diff": Entry("See", "_compare:diff", "Show in what two calls differ."),
    "tree": Entry("See", "_compare:tree", "Show what a call called, and what used it."),
    "browse": Entry("See", "_report:browse", "Look through functions and calls in the terminal."),
    "report": Entry(
        "See",
        "_report:report",
        "Write a page about a study: time saved, results, lineage, methods.",
    ),
    "accept": Entry("Keep house", "_accept:accept", "Keep results though code has changed."),
    "du": Entry("Keep house", "_space:du", "Show what takes how much space."),
    "evict": Entry("Keep house", "_space:evict", "Forget calls."),
    "gc": Entry("Keep house", "_space:gc", "Remove the values that no call refers to."),
    "verify": Entry("Keep house", "_space:verify", "Check every byte of every entry."),
    "stats": Entry("Keep house", "_space:stats", "Count calls, values and bytes."),
    "push": Entry("Move", "_move:push", "Copy calls from this machine to the next."),
    "pull": Entry("Move", "_move:pull", "Copy calls from the next machine to this one."),
    "sync": Entry("Move", "_move:sync", "Copy calls both ways."),
    "export": Entry("Move", "_archive:export", "Write calls with their values to one file."),
    "import": Entry("Move", "_archive:import_", "Read calls from a file that was exported."),
    "import-joblib": Entry(
        "Move", "_archive:import_joblib", "Take over a joblib.Memory directory."
    ),
    "doctor": Entry("Set up", "_doctor:doctor", "Find out why a cache does not work."),
    "config": Entry("Set up", "_setup:config", "Show the configuration and where it comes from."),
    "init": Entry("Set up", "_setup:init", "Write a fleche.toml."),
    "remote": Entry("Set up", "_app:remote", "Serve a cache of this machine to another one."),
}


class _Commands(click.Group):
    """The commands of the table; nothing is imported to list them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        found: click.Command = getattr(import_module(f"fleche.cli.{module}"), attribute)
        return found

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean {near[0]!r}?" if near else "'fleche --help' lists them"
            raise click.ClickException(f"there is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            headings.setdefault(entry.heading, []).append((name, entry.summary))
        widest = max(map(len, COMMANDS))
        for heading, rows in headings.items():
            with formatter.section(heading):
                padded = [(name.ljust(widest), summary) for name, summary in rows]
                formatter.write_dl(padded)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 all is well, 1 nothing was found or damage was, 2 it could not be done.",
)
@click.version_option(__version__, prog_name="fleche", message="%(prog)s %(version)s")
@common
@click.pass_context
def program(ctx: click.Context, session: Session) -> Any:
    """See, move and clean what fleche keeps. Without a command: where am I, and is all well?"""
    ctx.obj = session
    if ctx.invoked_subcommand is None:
        command = program.get_command(ctx, "status")
        assert command is not None
        return ctx.invoke(command)
    return None


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def remote(words: tuple[str, ...]) -> int:
    """Serve a cache of this machine to another one."""
    return main(["remote", *words])  # which it does without click


# -- running them ----------------------------------------------------------------------------------


class _Brief(logging.Formatter):
    """What has happened, without the name of a logger."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return f"fleche: {told(record.getMessage())}"


class _Once(logging.Filter):
    """Each message once: a command may read the configuration several times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what fleche warns of, where nothing else does."""
    logger = logging.getLogger("fleche")
    if logger.handlers or logging.getLogger().handlers:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Brief())
    handler.addFilter(_Once())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@_log_on_stderr()
def run(words: Sequence[str]) -> int:
    """Run one command and return the exit status.

    Args:
        words: the command and its arguments.
    """
    try:
        if "_FLECHE_COMPLETE" in os.environ:  # a shell that asks for completion
            program.main(prog_name="fleche")
        # main() would end the process itself, with status 1, where the reader of its output is gone
        with program.make_context("fleche", list(words)) as context:
            status = program.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        sys.stderr.write(f"fleche: {error.format_message()}\n")
        if isinstance(error, click.UsageError) and error.ctx is not None:
            sys.stderr.write(f"'{error.ctx.command_path} --help' explains it\n")
        return 2
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\nfleche: interrupted\n")
        return 130
    except FlecheError as error:
        sys.stderr.write(f"fleche: {told(error)}\n")
        return 2
    return status if isinstance(status, int) else 0
