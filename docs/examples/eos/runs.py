"""The laptops of the demo: directories, in which each run is a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import interrupts
from experiment import EXPERIMENT
from screen import WIDTH

HERE = Path(__file__).resolve().parent

LAPTOP = """\
[default]
cache = "shared"
root = true             # read no other fleche.toml

[[shared]]              # this laptop's own disk: saves go here
type = "local"
root = "cache"

[[shared]]              # the workstation: asked for what is not here
{layer}on_error = "miss"       # switched off? then go on without it
"""


@dataclass(frozen=True)
class Job:
    """How much is computed."""

    metals: tuple[str, ...] = tuple(EXPERIMENT)
    steps: int = 160

    @property
    def count(self) -> int:
        """How many metals there are."""
        return len(self.metals)


@dataclass
class Report:
    """What one run of a laptop has said of itself."""

    fits: dict[str, dict[str, float]]
    frames: dict[str, Any]
    amplitude: float
    seconds: float
    bodies_run: dict[str, int]
    cache: dict[str, int]
    pushed: int
    complaints: list[str] = field(default_factory=list)

    @property
    def computed(self) -> int:
        """How many function bodies have run."""
        return sum(self.bodies_run.values())

    def results(self) -> tuple[Any, ...]:
        """Return what must be the same in every run, to the last bit."""
        return self.fits, self.frames, self.amplitude


class Laptop:
    """A directory, its ``fleche.toml``, and the person who works there."""

    def __init__(self, directory: Path, user: str, layer: str) -> None:
        self.directory = directory
        self.user = user
        directory.mkdir()
        (directory / "fleche.toml").write_text(LAPTOP.format(layer=layer))

    def run(self, job: Job, points: int, *, push: bool = False) -> Report:
        """Run the analysis in a new process and return its report."""
        report = self.directory / "report.json"
        report.unlink(missing_ok=True)
        command = [str(HERE / "laptop.py"), "--metals", ",".join(job.metals)]
        command += ["--points", str(points), "--steps", str(job.steps), "--report", str(report)]
        run_python([*command, "--push"] if push else command, self.directory, self.user)
        return Report(**json.loads(report.read_text()))


def run_python(arguments: list[str], directory: Path, user: str, *, capture: bool = False) -> str:
    """Run Python in a directory for a user and return what it printed, if it was captured.

    Raises:
        SystemExit: it failed; what it had to say is on standard error.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLECHE_")}
    columns = shutil.get_terminal_size((80, 24)).columns
    environment = {**kept, "LOGNAME": user, "COLUMNS": str(max(WIDTH, min(columns, 120) - 1))}
    sys.stdout.flush()  # what was said before comes before what the process says
    with ExitStack() as stack:
        with interrupts.postponed():
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if capture else None,
                text=True,
                start_new_session=True,  # out of reach of Ctrl-C, which ends it by way of us
            )
            stack.enter_context(process)  # waits for it at the end
            stack.callback(process.kill)
        printed, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the process in {directory} ended with status {process.returncode}")
    return printed or ""
