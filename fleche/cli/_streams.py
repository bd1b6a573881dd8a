"""Standard streams as commands need them: there, and able to show what is written to them."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["abandon_output", "describe_failure", "prepare_streams"]


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
