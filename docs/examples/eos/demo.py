"""The main job of fleche on real input, told step by step; every claim is checked.

Two directories play two laptops, a third a workstation. ``scripts/demo`` starts this.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import interrupts
from runs import Job
from screen import Screen
from story import Story
from workstation import SshWorkstation, SubprocessWorkstation, Unavailable, Workstation


@contextmanager
def workplace(keep: bool) -> Iterator[Path]:
    """Yield a fresh directory; it is gone afterwards unless it is to be kept."""
    with ExitStack() as stack:
        with interrupts.postponed():
            place = Path(tempfile.mkdtemp(prefix="fleche-demo-")).resolve()
            if keep:
                stack.callback(print, f"\nkept: {place}")
            else:
                stack.callback(remove, place)
        yield place


def remove(place: Path) -> None:
    """Remove a directory, into which a process that is about to end may still be writing."""
    for _ in range(50):
        shutil.rmtree(place, ignore_errors=True)
        if not place.exists():
            return
        time.sleep(0.1)


@contextmanager
def running_workstation(place: Path, transport: str, screen: Screen) -> Iterator[Workstation]:
    """Yield a workstation that is switched on; it is off afterwards, whatever happens."""
    with ExitStack() as stack:

        def switch_on(kind: type[Workstation]) -> Workstation:
            workstation = kind(place / "workstation")
            stack.callback(workstation.stop)
            workstation.start()
            return workstation

        if transport == "subprocess":
            yield switch_on(SubprocessWorkstation)
            return
        try:
            workstation = switch_on(SshWorkstation)
        except Unavailable as error:
            if transport == "ssh":
                raise
            screen.say(f"No ssh ({error}): a subprocess takes its place.")
            shutil.rmtree(place / "workstation")
            workstation = switch_on(SubprocessWorkstation)
        yield workstation


def summarise(screen: Screen, keep: bool) -> None:
    """Say what there was to see, and where to look next."""
    if screen.failed:
        screen.section(f"{len(screen.failed)} of the claims above did not hold")
        for text in screen.failed:
            screen.show(f"- {text}")
        return
    screen.section("What you have seen")
    screen.say(
        "Functions marked with @fleche and a fleche.toml of a dozen lines. Whatever one machine "
        "had computed, the other did not compute again: whole results, and the parts that a new "
        "question had in common with an old one. Without the workstation the work went on. Every "
        "result says who computed it, when, and from what."
    )
    screen.section("Where to look next")
    screen.show(
        "docs/examples/eos/eos.py    the decorated functions\n"
        "docs/tutorial.md            the same by hand, step by step\n"
        "docs/howto/commands.md      more of the command fleche\n"
        "docs/configuration.md       everything that a fleche.toml can say\n"
        "scripts/test                the tests"
    )
    if not keep:
        screen.show("scripts/demo --keep         this again, and the directories stay")


def main() -> int:
    """Run the demo; the status is 1 if any claim did not hold."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show fleche at work.")
    parser.add_argument("--quick", action="store_true", help="two metals, few steps")
    parser.add_argument("--keep", action="store_true", help="leave the directories in place")
    parser.add_argument("--transport", choices=("auto", "ssh", "subprocess"), default="auto")
    chosen = parser.parse_args()
    interrupts.install()

    screen = Screen()
    screen.title("fleche: what one machine has computed, no other computes again")
    job = Job(("Al", "Cu"), steps=10) if chosen.quick else Job()
    try:
        with (
            workplace(chosen.keep) as place,
            running_workstation(place, chosen.transport, screen) as workstation,
        ):
            Story(job, workstation, screen).run()
            summarise(screen, chosen.keep)
    except Unavailable as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 1 if screen.failed else 0


if __name__ == "__main__":
    sys.exit(main())
