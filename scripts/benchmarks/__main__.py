"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.benchmarks.house import print_house
from scripts.benchmarks.plots import draw
from scripts.benchmarks.report import as_page, machine
from scripts.benchmarks.suites import SUITES, chosen, measured, suites


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    ``house`` is no suite that takes time: it counts what there is to read, and what a call runs
    through.
    """
    made = argparse.ArgumentParser(prog="scripts/bench", description="Measure fleche.")
    made.add_argument("suite", nargs="?", default="all", choices=("all", *SUITES, "house"))
    made.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="by its beginning"
    )
    made.add_argument(
        "--rounds", type=int, default=15, help="how often each takes its turn (%(default)s)"
    )
    made.add_argument("--quick", action="store_true", help="tiny, only to see that all of it works")
    made.add_argument("--json", metavar="FILE", type=Path, help="write every sample there, too")
    made.add_argument(
        "--plots", metavar="DIRECTORY", type=Path, help="draw what was measured there, as SVG"
    )
    made.add_argument(
        "--page", metavar="FILE", type=Path, help="write the targets there, as a table in Markdown"
    )
    made.add_argument(
        "--from",
        dest="sources",
        metavar="JSON",
        type=Path,
        nargs="+",
        default=[],
        help="measure nothing: draw, and write, what --json has written before",
    )
    made.add_argument("--list", action="store_true", help="tell what there is")
    return made


def use_memory(most: int = 4 << 30) -> None:
    """Fill a part of the free memory, and let it go.

    A virtual machine gets a page from its host when it first uses it, which takes much longer than
    to fill it. What writes new files would pay for that, and those that come first would pay most.
    Nothing is done where the system does not tell what is free, as on macOS.
    """
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    block = bytes(1 << 20)
    with mmap.mmap(-1, max(len(block), min(most, free // 2))) as memory:
        for _ in range(len(memory) // len(block)):
            memory.write(block)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure what is chosen, print each table when it is there, and yield what is in it."""
    if not (options.quick or options.list):
        use_memory()
    rounds = 2 if options.quick else options.rounds
    with TemporaryDirectory(prefix="bench-shared-") as shared:
        for which, suite in suites(options.suite).items():
            names = chosen(suite, options.only)
            if options.list:
                print(*names, sep="\n")
                continue
            for name in names:
                text, found = measured(which, name, rounds, Path(shared), quick=options.quick)
                print(text, flush=True)
                yield found


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments say, and print each table when it is there."""
    options = parser().parse_args(argv)
    if options.suite == "house":
        print_house(text_only=options.quick)
        return 0
    print(f"machine: {machine()}\n", flush=True)
    report = [each for source in options.sources for each in json.loads(source.read_text())]
    report = report or list(run(options))
    reached = [each["value"] <= each["most"] for found in report for each in found["targets"]]
    if reached:
        print(f"targets: {sum(reached)} of {len(reached)} reached")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.plots:
        draw(report, options.plots)
    if options.page:
        options.page.write_text(as_page(report))
    print(f"machine: {machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
