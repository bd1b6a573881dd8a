"""The layout of a directory that holds a whole cache: one line in the file ``layout``.

It says ``fleche sqlite 1`` or ``fleche files 1``: the format and its version. The format is chosen
once, by the first process that stores something, and every machine opens it alike. A network file
system gets files, since the log of SQLite needs memory that all its users share.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

from fleche.errors import StorageError
from fleche.parcel import explained
from fleche.storage._making import make_directories, write_first
from fleche.storage._mounts import is_local

__all__ = ["DATABASE", "FORMATS", "Format", "layout_of", "write_layout"]

Format: TypeAlias = Literal["sqlite", "files"]

FORMATS: tuple[Format, ...] = ("sqlite", "files")
DATABASE = "fleche.db"

_VERSION = 1
_NAME = "layout"
_LONGEST = 200
_LINE = re.compile(r"fleche (?P<format>[a-z0-9-]+) (?P<version>[0-9]+)\s*", re.ASCII)


def layout_of(root: Path) -> Format:
    """Return the format of the cache in ``root``, or that which a new one there will have.

    Args:
        root: an absolute path; the directory need not be there.

    Raises:
        StorageError: a newer fleche has made it, or it cannot be used from this machine.
    """
    found = _read(root)
    is_here = is_local(_resolved(root))
    if found is None:
        return "sqlite" if is_here or (root / DATABASE).exists() else "files"
    if found == "sqlite" and not is_here:
        raise StorageError(
            f"{root}: this cache is an SQLite database, and the directory is on a network file "
            'system, where one loses data; use it through type = "ssh" with the machine that has '
            "the disk as the host, or choose another root"
        )
    return found


def write_layout(root: Path, chosen: Format) -> None:
    """Write down the format of a new cache.

    Raises:
        StorageError: another process has chosen another one meanwhile, or it cannot be written.
    """
    path = root / _NAME
    with explained("write", path):
        make_directories(str(root))
        if not path.exists():
            write_first(str(path), f"fleche {chosen} {_VERSION}\n".encode())
    found = _read(root)
    if found != chosen:
        raise StorageError(
            f"{root}: another machine has just made a cache of format {found!r} here; open it again"
        )


def _read(root: Path) -> Format | None:
    path = root / _NAME
    with explained("read", path):
        try:
            text = path.read_bytes()[:_LONGEST].decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
    found = _LINE.fullmatch(text)
    if found is None:
        raise StorageError(
            f"{path}: {text[:40]!r} is no layout of fleche (the file is something else, or "
            "damaged; choose another root, or restore it)"
        )
    for known in FORMATS:
        if found["format"] == known and int(found["version"]) <= _VERSION:
            return known
    raise StorageError(
        f"{path}: {text.strip()!r} was made by a newer fleche (this one knows version "
        f"{_VERSION} of {' and '.join(FORMATS)}); upgrade fleche here, or choose another root"
    )


def _resolved(root: Path) -> Path:
    try:
        return root.resolve()
    except (OSError, RuntimeError):
        return root
