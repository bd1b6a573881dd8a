"""System calls that fail on demand: the n-th of its kind, or all from then on."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Syscalls"]

# What storages of files use. Methods of Path are patched as such: Python 3.10 has bound the
# functions of `os` before anybody could patch those.
_PATH = ("mkdir", "replace", "rename", "unlink", "stat", "hardlink_to")
_OS = ("fsync", "utime", "scandir", "open", "fstat", "write")
_FILE = ("write", "flush", "close")


class Syscalls:
    """Counts the calls below `root`, and lets one fail.

    Attributes:
        seen: how often each was made since the last :meth:`arm`.
        struck: whether the fault has happened.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.seen: Counter[str] = Counter()
        self.struck = False
        self._fault: tuple[str, int, int, bool] | None = None
        for name in _PATH:
            self._patch(monkeypatch, Path, name)
        for name in _OS:
            self._patch(monkeypatch, os, name)
        real_open = Path.open

        def open_(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            kind = "create" if mode == "xb" else "read"
            self._pass(kind, path)
            file = real_open(path, mode, *args, **options)
            return _File(self, file, path) if mode == "xb" else file

        monkeypatch.setattr(Path, "open", open_)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self._pass(name, args[0])
            return real(*args, **options)

        monkeypatch.setattr(owner, name, call)

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
                where = os.readlink(f"/proc/self/fd/{where}")
            except OSError:
                return False
        return str(where).startswith(self.root)

    def strike(self, name: str, path: Path) -> None:
        """Let a call of an open file pass, or fail."""
        self._pass(f"file.{name}", path)


class _File:
    """An open file whose calls are counted."""

    def __init__(self, calls: Syscalls, file: Any, path: Path) -> None:
        self._calls, self._file, self._path = calls, file, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name not in _FILE:
            return found

        def call(*args: Any) -> Any:
            self._calls.strike(name, self._path)
            return found(*args)

        return call

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *reason: object) -> None:
        try:
            self._calls.strike("close", self._path)
        finally:
            self._file.close()
