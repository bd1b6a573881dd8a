"""Bodies that run in a fresh working directory."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from fleche.decorator._singleflight import working_directory

__all__ = ["in_fresh_directory", "remove_directories"]

_ANY: int = getattr(os, "O_PATH", os.O_RDONLY)
"""Opens a directory, on Linux one that must not be listed, too."""

_left = threading.local()


def in_fresh_directory(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same in an empty directory of its own.

    The directory stays until :func:`remove_directories` is called in the thread, so that files that
    a result names can be stored.
    """

    @functools.wraps(function)
    def body(*args: Any, **kwargs: Any) -> Any:
        with working_directory:  # such bodies run one after the other
            before = os.open(os.curdir, _ANY)  # by its name it may not be found again
            try:
                directory = tempfile.mkdtemp(prefix="fleche-")
                try:
                    os.chdir(directory)
                    return function(*args, **kwargs)
                finally:
                    os.fchdir(before)
                    _directories().append(directory)
            finally:
                os.close(before)

    return body


def remove_directories() -> None:
    """Remove the directories of bodies that have ended in this thread."""
    directories = _directories()
    while directories:
        shutil.rmtree(directories.pop(), ignore_errors=True)


def _directories() -> list[str]:
    if not hasattr(_left, "directories"):
        _left.directories = []
    found: list[str] = _left.directories
    return found
