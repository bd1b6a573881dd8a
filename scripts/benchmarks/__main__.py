"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments say, and print each table when it is there."""
    options = parser().parse_args(argv)
    if options.suite == "house":
        print_house(text_only=options.quick)
        return 0
    rounds = 2 if options.quick else options.rounds
    report: list[dict[str, Any]] = []
    print(f"machine: {machine()}\n", flush=True)
    for source in options.sources:
        report += json.loads(source.read_text())
    with TemporaryDirectory(prefix="bench-shared-") as shared:
        for which, suite in () if report else suites(options.suite).items():
            names = chosen(suite, options.only)
            if options.list:
                print(*names, sep="\n")
                continue
            for name in names:
                text, found = measured(which, name, rounds, Path(shared), quick=options.quick)
                print(text, flush=True)
                report.append(found)
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
