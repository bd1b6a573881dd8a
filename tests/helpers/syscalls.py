"""System calls that fail on demand: the n-th of its kind, or all from then on."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.descriptors import target_of

__all__ = ["Syscalls"]

# What storages of files use.
_CALLS = (
    *("open", "read", "write", "close", "fstat", "fsync"),
    *("stat", "utime", "scandir", "mkdir", "replace", "rename", "link", "unlink"),
    *("readv", "writev", "pwrite"),
)
_KINDS = {"readv": "read", "writev": "write", "pwrite": "write"}


class Syscalls:
    """Counts the calls below `root`, and lets one fail. `open` of a new file is called `create`.

    Attributes:
        seen: how often each was made since the last :meth:`arm`.
        struck: whether the fault has happened.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.seen: Counter[str] = Counter()
        self.struck = False
        self._fault: tuple[str, int, int, bool] | None = None
        for name in _CALLS:
            self._patch(monkeypatch, name)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            creates = name == "open" and args[1] & os.O_CREAT
            self._pass("create" if creates else _KINDS.get(name, name), args[0])
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)

    def arm(self, name: str = "", turn: int = 0, error: int = 0, *, lasting: bool = False) -> None:
        """Count from here; let call number ``turn`` fail, and the later ones too if it lasts."""
        self.seen.clear()
        self.struck = False
        self._fault = (name, turn, error, lasting) if name else None

    def _pass(self, name: str, where: Any) -> None:
        if not self._is_ours(where):
            return
        turn = self.seen[name]
        self.seen[name] += 1
        if self._fault is None:
            return
        wanted, first, error, lasting = self._fault
        if name == wanted and (turn == first or (lasting and turn > first)):
            self.struck = True
            raise OSError(error, os.strerror(error), str(where))

    def _is_ours(self, where: Any) -> bool:
        if isinstance(where, int):
            try:
                where = target_of(where)
            except OSError:
                return False
        return str(where).startswith(self.root)
