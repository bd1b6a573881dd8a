"""Processes as /proc shows them, what they hold, and a port for one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "children", "free_port", "rss"]


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
    for pid in _pids_below(parent):
        place = Path(f"/proc/{pid}")
        try:
            # "pid (name) state ppid ...", and the name may hold anything
            head, _, tail = (place / "stat").read_text().rpartition(")")
            state, ppid = tail.split()[:2]
            if int(ppid) == parent:
                line = (place / "cmdline").read_bytes().replace(b"\0", b" ")
                shown = line.decode("utf-8", "replace").strip()
                yield Process(pid, state, shown or head.partition("(")[2])
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile


def _pids_below(parent: int) -> list[int]:
    """The children that Linux lists by their parent's threads; else every process there is."""
    tasks = Path(f"/proc/{parent}/task")
    found: list[int] = []
    try:
        for task in tasks.iterdir():
            with suppress(ProcessLookupError):  # a thread that has ended
                found += map(int, (task / "children").read_text().split())
    except FileNotFoundError:  # a kernel without these lists, or a thread that has ended
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return found


def rss(pid: int, *, peak: bool = False) -> int:
    """The resident memory of a process in bytes, now or at its `peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def free_port() -> int:
    """A port of this machine that no server has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
