"""The commit that the code of a function is at."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleche._util import override, renewed_after_fork
from fleche.metadata._base import MetaData

__all__ = ["Git"]

FRESH = 5.0
"""Seconds for which an answer of git is used again."""

TIMEOUT = 5.0
"""Seconds after which a git that does not answer is given up."""

_answers: dict[Path, tuple[float, dict[str, Any]]] = {}
_lock = renewed_after_fork(threading.RLock())


class Git(MetaData):
    """The state of the repository that holds the function's file, before the function runs.

    Its data are ``root``, ``commit``, ``branch`` (``None`` for a detached head) and ``dirty``:
    whether a tracked file differs from the commit, or the function's own file is not tracked, so
    that the commit does not hold the code. A function without a file, as in a notebook, is looked
    for in the working directory. There are no data without a repository, or without git.

    Git runs no hook and takes no lock for this.
    """

    @override
    def start(self) -> None:
        """Ask git, unless it was asked in the last seconds."""
        file = _file_of(self.function)
        self._found = describe(file.parent if file else Path.cwd(), file)

    @override
    def finish(self) -> dict[str, Any]:
        return dict(self._found)


def describe(directory: Path, file: Path | None = None) -> dict[str, Any]:
    """Return root, commit, branch and dirty of the repository round ``directory``, or nothing.

    Args:
        directory: somewhere in the repository.
        file: a file that makes the state dirty if git does not track it.
    """
    root = next(
        (path for path in (directory, *directory.parents) if (path / ".git").exists()), None
    )
    if root is None:
        return {}
    answer = _recent(root, lambda: _ask(root))
    if answer and file is not None and not answer["dirty"]:
        tracked = _recent(file, lambda: {"tracked": _is_tracked(root, file)})
        return {**answer, "dirty": not tracked["tracked"]}
    return answer


def _recent(place: Path, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of git about ``place``, asked for anew if it is some seconds old."""
    with _lock:
        asked, answer = _answers.get(place, (-FRESH, {}))
        if time.monotonic() - asked >= FRESH:
            answer = ask()
            _answers[place] = time.monotonic(), answer
        return answer


def _file_of(function: Any) -> Path | None:
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    path = Path(getattr(code, "co_filename", ""))
    return path.resolve() if path.is_file() else None


def _ask(root: Path) -> dict[str, Any]:
    options = ["--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=dirty"]
    lines = _run(root, "status", *options)
    return {} if lines is None else _parse(root, lines)


def _is_tracked(root: Path, file: Path) -> bool:
    return _run(root, "ls-files", "--error-unmatch", "--", str(file)) is not None


def _run(root: Path, *command: str) -> list[str] | None:
    """Return what git prints, in lines, or ``None`` if it fails or does not answer."""
    import subprocess

    safe = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    try:
        done = subprocess.run(
            ["git", *safe, *command],
            cwd=root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.decode("utf-8", "replace").splitlines()


def _environment() -> dict[str, str]:
    # inside a hook, git's own variables name the repository of the hook
    foreign = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _parse(root: Path, lines: list[str]) -> dict[str, Any]:
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = heads.get("branch.oid"), heads.get("branch.head")
    return {
        "root": str(root),
        "commit": None if commit == "(initial)" else commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": any(not line.startswith("#") for line in lines),
    }
