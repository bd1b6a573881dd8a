"""Files and packages that count as a whole.

Machine code counts by the bytes of its file; a package too large to be followed by the syntax of
its files. Both are remembered by what the file system says of the files.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType

from blake3 import blake3

from fleche._util import renewed_after_fork
from fleche.digest import dump_syntax

__all__ = ["digest_of_file", "digest_of_package"]

Stamp = tuple[str, int, int, int, int]

lock = renewed_after_fork(threading.Lock())
known: dict[Stamp, str] = {}
MANY = 50_000


def stamp_of(path: str) -> Stamp:
    status = os.stat(path)
    return (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def digest_of_file(path: str) -> str:
    """Return the BLAKE3 of a file; of one that is gone, its name."""
    try:
        stamp = stamp_of(path)
        return remembered(stamp) or remember(stamp, blake3().update_mmap(path).hexdigest())
    except OSError:
        return f"gone {os.path.basename(path)}"


def digest_of_package(module: ModuleType) -> str:
    """Return the hash of the syntax of all source files of a package, or of one module."""
    places = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    if not places:
        return syntax_of_file(file) if isinstance(file, str) else ""
    hasher = blake3()
    for place in places:
        for directory, folders, files in os.walk(place):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    hasher.update(os.path.relpath(path, place).encode())
                    hasher.update(syntax_of_file(path).encode())
    return hasher.hexdigest()


def syntax_of_file(path: str) -> str:
    import ast
    import warnings

    try:
        stamp = stamp_of(path)
        if found := remembered(stamp):
            return found
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        return "gone"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dumped = dump_syntax(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        dumped = text
    return remember(stamp, blake3(dumped).hexdigest())


def remembered(stamp: Stamp) -> str | None:
    return known.get(stamp)


def remember(stamp: Stamp, found: str) -> str:
    with lock:
        if len(known) >= MANY:
            known.clear()
        known[stamp] = found
    return found
