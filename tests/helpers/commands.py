"""Commands of fleche, run in this process or in one of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from fleche.cli import main

__all__ = ["Ran", "fleche_command", "fleche_process"]


@dataclass(frozen=True)
class Ran:
    """What a command has printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that it has printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents that it has printed, one in each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def __str__(self) -> str:
        return f"status {self.status}\n{self.out}\n{self.err}"


def fleche_command(*words: object) -> Ran:
    """Run ``fleche WORDS`` in this process, in lines as long as they get, or as ``WIDTH`` says."""
    out, err = io.StringIO(), io.StringIO()
    with _unbounded(), redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in words])
    return Ran(status, out.getvalue(), err.getvalue())


@contextmanager
def _unbounded() -> Iterator[None]:
    """Be in no terminal, so that nothing is cut; WIDTH in place of COLUMNS."""
    before = os.environ.pop("COLUMNS", None)
    if "WIDTH" in os.environ:
        os.environ["COLUMNS"] = os.environ["WIDTH"]
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def fleche_process(*words: object, **environment: str) -> Ran:
    """Run ``python -m fleche WORDS`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "fleche", *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**{k: v for k, v in os.environ.items() if k != "COLUMNS"}, **environment},
    )
    return Ran(done.returncode, done.stdout, done.stderr)
