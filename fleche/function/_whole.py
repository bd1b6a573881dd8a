"""Files and packages that count as a whole.

Machine code counts by the bytes of its file; a package too large to be followed, and a module whose
name is made at run time, by the syntax of their files. All are remembered by what the file system
says of the files, the latter in the user's cache directory as well: reading all of a large package
takes seconds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from blake3 import blake3

from fleche._util import renewed_after_fork, user_cache_directory
from fleche.digest import blocks_of, dump_syntax, is_type_checking
from fleche.function._facts import Facts
from fleche.function._names import FINDERS, IMPORTERS, RUNNERS, facts_of_body

__all__ = [
    "Source",
    "cache_directory",
    "digest_of_file",
    "digest_of_package",
    "files_named",
    "keep_sources",
    "source_of",
    "source_of_loaded",
    "write_json",
]

Stamp = tuple[str, int, int, int, int]
"""What the file system says of a file: path, device, inode, size, time of change."""


class Source(NamedTuple):
    """What a source file says.

    Attributes:
        syntax: the hash of its syntax; of what cannot be parsed, that of its text.
        imports: what it imports: the level, and a name that may be one of a module.
        beginnings: likewise those of names made at run time by which it imports.
        texts: the texts in it, if it imports so.
    """

    syntax: str
    imports: tuple[tuple[int, str], ...] = ()
    beginnings: tuple[tuple[int, str], ...] = ()
    texts: tuple[str, ...] = ()


GONE = Source("gone")
MANY = 50_000
DEEPEST = 3
"""So many directories in a path may be named apart."""

MANY_FRESH = 20
"""From so many files on that were parsed anew, what they say is written down."""

lock = renewed_after_fork(threading.RLock())
known: dict[Stamp, str] = {}
sources: dict[Stamp, Source] = {}
loaded: dict[str, tuple[ModuleSpec | None, Source]] = {}
"""By the path, with what the module was loaded by when it was looked at."""

recalled: set[str] = set()
fresh: Counter[str] = Counter()


def stamp_of(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except NotADirectoryError:
        status = os.stat(archive_of(path))
    return (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def archive_of(path: str) -> str:
    """Return the file that a path leads into, as one into a zip file on ``sys.path`` does."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def read(path: str) -> bytes:
    """Return the bytes of a file, which may be in a zip file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except NotADirectoryError:
        from zipimport import ZipImportError, zipimporter

        try:
            return zipimporter(archive_of(path)).get_data(path)
        except ZipImportError as error:
            raise FileNotFoundError(path) from error


def remember(memory: dict[Any, Any], place: Any, found: Any) -> None:
    with lock:
        if len(memory) >= MANY:
            memory.clear()
        memory[place] = found


def digest_of_file(path: str) -> str:
    """Return the BLAKE3 of a file; of one that is gone, its name."""
    try:
        stamp = stamp_of(path)
        found = known.get(stamp)
        if found is None:
            found = blake3().update_mmap(path).hexdigest()
            remember(known, stamp, found)
        return found
    except OSError:
        return f"gone {os.path.basename(path)}"


def files_named(
    texts: Iterable[str],
    directory: str,
    ending: str | tuple[str, ...],
    others: Callable[[], Iterable[str]] = tuple,
) -> list[str]:
    """Return the files that texts name.

    Args:
        texts: of them, those in one path may stand apart, as ``os.path.join`` gets them.
        directory: what they may be relative to; "" if they are whole.
        ending: how the names of such files end.
        others: returns further texts, which may name the directories.
    """
    given = set(texts)
    names = sorted(text for text in given if text.endswith(ending))
    if not names:
        return []
    folders = sorted(given.union(others()).difference(names))
    inner = [directory] if directory else []
    places = ["", *inner]
    for _ in range(DEEPEST):
        if len(inner) * len(folders) > MANY:
            break
        below = (os.path.normpath(os.path.join(at, folder)) for at in inner for folder in folders)
        inner = [place for place in dict.fromkeys(below) if os.path.isdir(place)]
        inner = [place for place in inner if place not in places]
        places += inner
    paths = (os.path.join(place, name) for place in places for name in names)
    return [path for path in paths if os.path.isfile(path)]


def digest_of_package(module: ModuleType) -> str:
    """Return the hash of the syntax of all source files of a package, or of one module."""
    places = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    if not places:
        return source_of(file).syntax if isinstance(file, str) else ""
    hasher = blake3()
    for place in places:
        for directory, folders, files in os.walk(place):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    hasher.update(os.path.relpath(path, place).encode())
                    hasher.update(source_of(path).syntax.encode())
    keep_sources()
    return hasher.hexdigest()


def source_of(path: str) -> Source:
    """Return what a source file says."""
    try:
        stamp = stamp_of(path)
        if stamp not in sources:
            recall(top_of(os.path.dirname(path)))
        if found := sources.get(stamp):
            return found
        text = read(path)
    except OSError:
        return GONE
    found = parsed(text)
    remember(sources, stamp, found)
    fresh[top_of(os.path.dirname(path))] += 1
    return found


def source_of_loaded(path: str, spec: ModuleSpec | None) -> Source:
    """Return what a source file said when a module was loaded from it.

    Args:
        path: the file.
        spec: that of the module, which is another each time that it is loaded; None if it is not.
    """
    found = loaded.get(path)
    if spec is None or found is None or (found[0] is not spec and found[0] is not None):
        found = None, source_of(path)
    remember(loaded, path, (spec, found[1]))
    return found[1]


def parsed(text: bytes) -> Source:
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        facts = Facts()
        if any(name.encode() in text for name in (*FINDERS, *IMPORTERS, *RUNNERS)):
            facts = facts_of_body(tree.body)
        beginnings = tuple(sorted(facts.imports_by_name))
        return Source(
            blake3(dump_syntax(tree)).hexdigest(),
            tuple(sorted(set(imports_in(tree)))),
            beginnings,
            tuple(sorted(facts.texts)) if beginnings else (),
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Source(blake3(text).hexdigest())


def imports_in(tree: Any) -> Iterator[tuple[int, str]]:
    """Yield what the statements of a module import."""
    blocks = blocks_of(tree)
    while blocks:
        for statement in blocks.pop():
            kind = type(statement).__name__
            if kind == "Import":
                yield from ((0, alias.name) for alias in statement.names)
            elif kind == "ImportFrom":
                module = statement.module or ""
                yield statement.level, module
                for alias in statement.names:
                    yield statement.level, f"{module}.{alias.name}".lstrip(".")
            elif kind == "If" and is_type_checking(statement.test):
                blocks.append(statement.orelse)
            else:
                blocks += blocks_of(statement)


# what is remembered from process to process


def keep_sources() -> None:
    """Write down what was found out, where finding it out again would take long."""
    for top in [top for top, count in list(fresh.items()) if count >= MANY_FRESH]:
        del fresh[top]
        inside = os.path.join(top, "")
        latest = {stamp[0]: [*stamp, *source] for stamp, source in list(sources.items())}
        write_json(
            memory_of(top), [line for path, line in latest.items() if path.startswith(inside)]
        )


def recall(top: str) -> None:
    """Take up what an earlier process has found out of files that have not changed since."""
    if top in recalled:
        return
    recalled.add(top)
    with suppress(OSError, ValueError, TypeError), open(memory_of(top), encoding="utf-8") as file:
        import json

        for *stamp, syntax, imports, beginnings, texts in json.load(file):
            name, device, inode, size, modified = stamp
            found = Source(
                syntax, tuple(map(tuple, imports)), tuple(map(tuple, beginnings)), tuple(texts)
            )
            sources.setdefault((name, device, inode, size, modified), found)


@cache
def top_of(directory: str) -> str:
    """Return the directory of the outermost package that a directory is part of, or itself."""
    above = os.path.dirname(directory)
    if above == directory or not os.path.isfile(os.path.join(above, "__init__.py")):
        return directory
    return top_of(above)


def memory_of(top: str) -> str:
    """Return the file that remembers; what a source says depends on the interpreter, too."""
    who = repr((top, sys.version_info[:2], sys.flags.optimize))
    return cache_directory(f"sources-{blake3(who.encode()).hexdigest()[:32]}.json")


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
