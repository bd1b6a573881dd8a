"""What a person at a laptop runs: the whole analysis, with the cache of the working directory.

It writes a report of what it has found, and of how many function bodies have really run.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eos import amplitude, bodies_run, fit_eos, vibrate

import fleche


class Complaints(logging.Handler):
    """Keeps what fleche warns of, for the report."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.texts.append(record.getMessage())


def analyse(metals: list[str], points: int, steps: int) -> dict[str, Any]:
    """Call the functions of :mod:`eos` and return what they returned."""
    say("   working on:")
    fits = {}
    for metal in metals:
        say(f" {metal}")
        fits[metal] = asdict(fit_eos(metal, points))
    say(", vibrations of Cu")
    frames = vibrate("Cu", 300.0, steps)
    found = {
        "fits": fits,
        "frames": {"shape": frames.shape, "bytes": frames.nbytes, "digest": fleche.digest(frames)},
        "amplitude": amplitude(frames),
    }
    say("\n")
    return found


def say(text: str) -> None:
    """Print a part of a line at once."""
    print(text, end="", flush=True)


def main() -> None:
    """Run the analysis, push if asked to, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metals", required=True, help="separated by commas")
    parser.add_argument("--points", type=int, required=True, help="for each equation of state")
    parser.add_argument("--steps", type=int, required=True, help="of molecular dynamics")
    parser.add_argument("--push", action="store_true", help="give the results to the workstation")
    parser.add_argument("--report", type=Path, required=True, help="file to write")
    chosen = parser.parse_args()

    complaints = Complaints()
    logging.getLogger("fleche").addHandler(complaints)
    began = time.perf_counter()
    report = analyse(chosen.metals.split(","), chosen.points, chosen.steps)
    report["seconds"] = time.perf_counter() - began
    report["bodies_run"] = bodies_run
    report["cache"] = fleche.cache().counts()
    report["pushed"] = fleche.cache().push() if chosen.push else 0
    report["complaints"] = complaints.texts
    chosen.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
