"""The commit that the code of a function is at."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from fleche._util import renewed_after_fork
from fleche.metadata.base import MetaData

__all__ = ["Git"]

FRESH = 5.0
"""Seconds for which an answer of git is used again."""

TIMEOUT = 5.0
"""Seconds after which a git that does not answer is given up."""

_answers: dict[Path, tuple[float, dict[str, Any]]] = {}
_lock = renewed_after_fork(threading.Lock())


class Git(MetaData):
    """The state of the repository that holds the function's file, before the function runs.

    Its data are ``root``, ``commit``, ``branch`` (``None`` for a detached head) and ``dirty``,
    whether a tracked file differs from the commit. A function without a file, as in a notebook, is
    looked for in the working directory. There are no data without a repository, or without git.

    Git runs no hook and takes no lock for this.
    """

    def start(self) -> None:
        """Ask git, unless it was asked in the last seconds."""
        self._found = describe(_directory_of(self.function))

    def finish(self) -> dict[str, Any]:
        """Return what git said."""
        return dict(self._found)


def describe(directory: Path) -> dict[str, Any]:
    """Return root, commit, branch and dirty of the repository round ``directory``, or nothing."""
    root = next(
        (path for path in (directory, *directory.parents) if (path / ".git").exists()), None
    )
    if root is None:
        return {}
    with _lock:
        asked, answer = _answers.get(root, (-FRESH, {}))
        if time.monotonic() - asked >= FRESH:
            answer = _ask(root)
            _answers[root] = time.monotonic(), answer
        return answer


def _directory_of(function: Any) -> Path:
    code = getattr(function, "__code__", None)
    path = Path(getattr(code, "co_filename", ""))
    return path.resolve().parent if path.is_file() else Path.cwd()


def _ask(root: Path) -> dict[str, Any]:
    import subprocess

    command = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    command += ["--ignore-submodules=dirty"]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    return _parse(root, done.stdout.decode("utf-8", "replace").splitlines())


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
