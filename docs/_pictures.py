"""Make the pictures of a terminal that the documentation shows, from programs that really run.

    scripts/pictures terminal [NAME...]

Each program runs in a terminal of its own. Rich reads what it has printed, colours and all, and
draws it as an SVG, which needs no font and no file from elsewhere.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

DOCS = Path(__file__).parent
EXAMPLE = DOCS / "examples" / "eos"
HOME = "/home/ada"

CONFIGURATION = """\
[default]
cache = "results"

[results]
type = "local"
root = "results"
"""

PENDULUM = '''\
import math

from fleche import fleche

GRAVITY = 9.81


def mean(a, b):
    for _ in range(5):
        a, b = (a + b) / 2, math.sqrt(a * b)
    return a


@fleche
def period(angle, length=1.0):
    """Return the period of a pendulum in seconds; angle in degrees, length in metres."""
    return 2 * math.pi * math.sqrt(length / GRAVITY) / mean(1.0, math.cos(math.radians(angle) / 2))
'''


@dataclass(frozen=True)
class Picture:
    """A command, and how much of what it prints is shown.

    Attributes:
        shown: the command as it is written in the picture.
        run: what is run in its place, if that is something else.
        columns: of the terminal.
        until: the line that begins with this is the first that is not shown.
    """

    shown: str
    run: str = ""
    columns: int = 92
    until: str = ""


FIT = '$(fleche log --name fit_eos -n 1 --json | sed -E \'s/.*"key": "([0-9a-f]{8}).*/\\1/\')'
EXPLAIN = 'python -c "from pendulum import period; print(period.explain({}))"'
DEMO = f"python {EXAMPLE / 'demo.py'} --quick --transport subprocess"

PICTURES = {
    "status": Picture("fleche"),
    "log": Picture("fleche log -n 12", columns=118),
    "show": Picture("fleche show {key}"),
    "tree": Picture("fleche tree {key}"),
    "du": Picture("fleche du"),
    "explain": Picture(
        "{explain}",
        "python -c 'from pendulum import period; period(30)';"
        "sed -i.bak s/9.81/9.80665/ pendulum.py; {explain}",
    ),
    "demo": Picture("scripts/demo", DEMO, columns=80, until="Step 4"),
}


class Desk:
    """A directory of a user, with a week of work in a cache."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.work = place / "eos"
        self.work.mkdir()
        (self.work / "fleche.toml").write_text(CONFIGURATION)
        (self.work / "pendulum.py").write_text(PENDULUM)
        program = place / "bin" / "fleche"
        program.parent.mkdir()
        program.write_text('#!/bin/sh\nexec python -m fleche "$@"\n')
        program.chmod(0o755)
        python = str(Path(sys.executable).parent)
        programs = os.pathsep.join([str(program.parent), python, os.environ["PATH"]])
        self.environment = {
            "PATH": programs,
            "HOME": str(place),
            "TMPDIR": str(place),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "LOGNAME": "ada",
            "PYTHONPATH": str(DOCS.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def fill(self, week: Path | None) -> None:
        """Play a week of work, unless there is one."""
        if week is None:
            self.shell(f"python {EXAMPLE / 'week.py'} results")
        else:
            shutil.copytree(week, self.work / "results")

    def shell(self, command: str) -> str:
        """Run a command without a terminal, and return what it prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def terminal(self, command: str, columns: int) -> str:
        """Run a command in a terminal, and return what it prints there."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        read = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # so a terminal ends on Linux
                break
            if not piece:
                break
            read += piece
        os.close(ours)
        if process.wait():
            raise SystemExit(f"{command}: exit status {process.returncode}\n{read.decode()}")
        text = read.decode().replace("\r\n", "\n").replace(str(self.place), HOME)
        return re.sub(r"Linux-[\w.-]+-with", "Linux-6.12-x86_64-with", text)  # of no one's own


def draw(picture: Picture, desk: Desk, words: dict[str, str]) -> str:
    """Return the picture of a command as SVG."""
    shown = picture.shown.format(**words)
    printed = desk.terminal((picture.run or picture.shown).format(**words), picture.columns)
    lines = printed.rstrip().split("\n")
    if picture.until:
        last = next(n for n, line in enumerate(lines) if line.startswith(picture.until))
        lines = [*lines[:last], "..."]
    console = Console(
        record=True,
        width=picture.columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"$ {shown}", style="bold"))
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=False)
    drawn = console.export_svg(title="", theme=SVG_EXPORT_THEME, unique_id="t", code_format=_FORMAT)
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


# As rich draws a terminal, with the fonts of the reader in place of one from the net.
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(prog="scripts/pictures terminal", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--week", type=Path, help="a cache that week.py has filled before")
    chosen = parser.parse_args()
    # As long as the name that replaces it, so that columns stay where they are.
    place = Path(tempfile.gettempdir()) / f"{os.getpid():08}"[-(len(HOME) - len("/tmp/")) :]
    place.mkdir()
    try:
        desk = Desk(place)
        desk.fill(chosen.week)
        words = {"key": desk.shell(f"echo {FIT}"), "explain": EXPLAIN.format(30)}
        for name in chosen.names or PICTURES:
            target = DOCS / "_static" / f"terminal-{name}.svg"
            target.write_text(draw(PICTURES[name], desk, words))
            print(target.relative_to(DOCS.parent))
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
