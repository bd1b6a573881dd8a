"""Processes, as /proc shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "children"]


@dataclass(frozen=True)
class Process:
    """One process.

    Attributes:
        pid: its number.
        state: one letter; "Z" is a zombie.
        command: the command line, or the bare name where there is none.
    """

    pid: int
    state: str
    command: str


def children(parent: int) -> Iterator[Process]:
    """The direct children of a process, zombies included."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "pid (name) state ppid ...", and the name may hold anything
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            state, ppid = tail.split()[:2]
            if int(ppid) == parent:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                yield Process(int(entry.name), state, line.strip() or head.partition("(")[2])
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
