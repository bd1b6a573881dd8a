"""Processes, as /proc shows them, or ps(1) where there is no such directory; and a port for one."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Process", "children", "free_port", "is_gone", "open_files", "rss", "status_of"]

_PROC = Path("/proc")


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


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, though its parent may not have noticed yet."""
    if _is_told():
        found = _look_at(pid)
    else:
        found = next((each for each in _listed() if each[0].pid == pid), None)
    return found is None or found[0].state == "Z"


def children(parent: int) -> Iterator[Process]:
    """The direct children of a process, zombies included."""
    told = map(_look_at, _pids_below(parent)) if _is_told() else _listed()
    return (found[0] for found in told if found is not None and found[1] == parent)


def open_files(pid: int) -> list[str]:
    """Return what a process has open; the test is skipped where Linux does not tell it."""
    if not _is_told():
        pytest.skip("only Linux tells this of a process")
    found = []
    for entry in (_PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def status_of(pid: int, kind: str, name: str) -> int:
    """Return a number that Linux tells of a process; the test is skipped elsewhere.

    Args:
        pid: the process.
        kind: the file, such as ``"io"`` or ``"status"``.
        name: the line in it; 0, if there is none.
    """
    if not _is_told():
        pytest.skip("only Linux tells this of a process")
    for line in (_PROC / str(pid) / kind).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _is_told() -> bool:
    return (_PROC / "self" / "stat").exists()


def _look_at(pid: int) -> tuple[Process, int] | None:
    """Return a process and its parent."""
    place = _PROC / str(pid)
    try:
        # "pid (name) state ppid ...", and the name may hold anything
        head, _, tail = (place / "stat").read_text().rpartition(")")
        state, above = tail.split()[:2]
        line = (place / "cmdline").read_bytes().replace(b"\0", b" ")
    except (FileNotFoundError, ProcessLookupError):
        return None  # gone meanwhile
    shown = line.decode("utf-8", "replace").strip()
    return Process(pid, state, shown or head.partition("(")[2]), int(above)


def _pids_below(parent: int) -> list[int]:
    """The children that Linux lists by their parent's threads; else every process there is."""
    found: list[int] = []
    try:
        for task in (_PROC / str(parent) / "task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has ended
                found += map(int, (task / "children").read_text().split())
    except FileNotFoundError:  # a kernel without these lists, or a thread that has ended
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return found


def rss(pid: int, *, peak: bool = False) -> int:
    """The resident memory of a process in bytes, now or at its `peak`."""
    return status_of(pid, "status", "VmHWM" if peak else "VmRSS") << 10


def free_port() -> int:
    """A port of this machine that no server has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _listed() -> Iterator[tuple[Process, int]]:
    """Yield every process with its parent, but for the one that lists them."""
    columns = [f"-o{name}=" for name in ("pid", "ppid", "state", "command")]
    with subprocess.Popen(["ps", "-A", "-ww", *columns], stdout=subprocess.PIPE, text=True) as ps:
        assert ps.stdout is not None
        for line in ps.stdout:
            pid, above, state, *command = line.split(maxsplit=3)
            if int(pid) != ps.pid:
                yield Process(int(pid), state[0], "".join(command).strip()), int(above)
