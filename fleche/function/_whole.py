"""Files and packages that count as a whole.

Machine code counts by the bytes of its file; a package too large to be followed by the syntax of
its files. Both are remembered by what the file system says of the files, the latter in the user's
cache directory as well: reading all of a large package takes seconds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

from blake3 import blake3

from fleche._util import renewed_after_fork, user_cache_directory
from fleche.digest import dump_syntax

__all__ = [
    "cache_directory",
    "digest_of_file",
    "digest_of_package",
    "imports_of_file",
    "syntax_of_file",
    "write_json",
]

Stamp = tuple[str, int, int, int, int]

lock = renewed_after_fork(threading.RLock())
known: dict[Stamp, str] = {}
imported: dict[Stamp, list[tuple[int, str]]] = {}
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
    memory = cache_directory(f"syntax-{blake3(repr(places).encode()).hexdigest()[:32]}.json")
    recall(memory)
    before = len(known)
    for place in places:
        for directory, folders, files in os.walk(place):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    hasher.update(os.path.relpath(path, place).encode())
                    hasher.update(syntax_of_file(path).encode())
    if len(known) > before:
        prefixes = tuple(os.path.join(place, "") for place in places)
        write_json(memory, [[*k, v] for k, v in known.items() if k[0].startswith(prefixes)])
    return hasher.hexdigest()


def cache_directory(*parts: str) -> str:
    """Return a path below the user's cache directory."""
    return user_cache_directory("code", *parts)


def write_json(path: str, content: object) -> None:
    """Write a file as a whole or not at all; a failure does no harm."""
    import json  # neither is needed by a hit
    import tempfile

    with suppress(OSError, UnicodeError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(temporary, path)


def recall(path: str) -> None:
    """Take up what an earlier process has found out of files that have not changed since."""
    import json

    with suppress(OSError, ValueError, TypeError), open(path, encoding="utf-8") as file:
        for name, device, inode, size, modified, found in json.load(file):
            known.setdefault((name, device, inode, size, modified), str(found))


def syntax_of_file(path: str) -> str:
    """Return the hash of the syntax of a source file."""
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


def imports_of_file(path: str) -> list[tuple[int, str]]:
    """Return what a source file imports: the level, and a name that may be one of a module."""
    import ast

    try:
        stamp = stamp_of(path)
        if stamp not in imported:
            with open(path, "rb") as file:
                tree = ast.parse(file.read())
            imported[stamp] = sorted(set(names_imported(tree)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return imported[stamp]


def names_imported(tree: Any) -> Iterator[tuple[int, str]]:
    import ast

    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            yield from ((0, alias.name) for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            module = item.module or ""
            yield item.level, module
            yield from ((item.level, f"{module}.{a.name}".lstrip(".")) for a in item.names)


def remembered(stamp: Stamp) -> str | None:
    return known.get(stamp)


def remember(stamp: Stamp, found: str) -> str:
    with lock:
        if len(known) >= MANY:
            known.clear()
        known[stamp] = found
    return found
