"""The suites of benchmarks, and one of them after the other, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.benchmarks.measure import Suite, run
from scripts.benchmarks.report import as_json, as_text

__all__ = ["SUITES", "chosen", "measured", "suites"]

SUITES = {
    "local": "local",
    "digest": "keys",
    "scale": "scale",
    "import": "imports",
    "remote": "remote",
}
"""The suites, and the module of each."""


def suites(which: str) -> dict[str, Suite]:
    """Return the suites to run, each of which is ``BENCHMARKS`` of its module."""
    names = tuple(SUITES) if which == "all" else (which,)
    return {name: import_module(f"scripts.benchmarks.{SUITES[name]}").BENCHMARKS for name in names}


def chosen(suite: Suite, only: Sequence[str]) -> list[str]:
    """Return the names that begin with one of ``only``; all of them, if that is empty."""
    return [name for name in suite if not only or name.startswith(tuple(only))]


def measured(
    which: str, name: str, rounds: int, shared: Path, *, quick: bool
) -> tuple[str, dict[str, Any]]:
    """Return what came of one benchmark, as text and as plain data.

    It runs in a new process, which has no memory in pieces and no threads of another benchmark.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, which, name, rounds, shared, quick).result()


def _measured(
    which: str, name: str, rounds: int, shared: Path, quick: bool
) -> tuple[str, dict[str, Any]]:
    benchmark, outcomes = run(suites(which)[which], name, rounds, shared, quick=quick)
    return as_text(name, benchmark, outcomes), as_json(name, benchmark, outcomes)
