"""Files and directories with the mode that is due where they are made.

That is what the umask gives. In a directory of a group (setgid, and writable for the group) it is
the group's, whatever the umask: what one member makes is there for all others to use.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

__all__ = ["make_directories", "make_file", "mode_of_group", "name_first", "write_first"]

_OF_GROUP = stat.S_ISGID | stat.S_IWGRP
_MOMENT = 0.5
"""Seconds in which another process comes from making a file to giving it its mode, under load."""

_PAUSE = 0.02


def make_file(path: str, flags: int, group: int | None = None) -> int:
    """Open a file that may be new, with the mode of what is made there; return its descriptor.

    Args:
        path: of the file.
        flags: as of :func:`os.open`.
        group: what :func:`mode_of_group` says of its directory; it is asked, unless given.
    """
    descriptor = _opened(path, flags)
    if group is None:
        group = mode_of_group(os.path.dirname(path))
    if group:
        with suppress(OSError):  # of a file that another member has made
            os.chmod(descriptor, group & 0o666)
    return descriptor


def _opened(path: str, flags: int) -> int:
    deadline = time.monotonic() + _MOMENT
    while True:
        try:
            return os.open(path, flags, 0o666)
        except PermissionError:
            if time.monotonic() >= deadline or not _may_get_its_mode(os.path.dirname(path)):
                raise
        time.sleep(_PAUSE)


def make_directories(path: str) -> int:
    """Make a directory, and those above it, where there are none; see :func:`make_file`.

    Returns:
        What :func:`mode_of_group` says of the one above.
    """
    above = os.path.dirname(path)
    group = mode_of_group(above)
    if group is None and above not in ("", path):
        group = make_directories(above)
    if group and os.path.isdir(path):
        return group
    try:
        if group:
            _make_with_mode(path, group)
        else:
            os.mkdir(path)
    except OSError:  # of several reasons the system may name another than that it is there
        if not os.path.isdir(path):
            raise
    return group or 0


def _make_with_mode(path: str, mode: int) -> None:
    """Make a directory that has its name when it has its mode.

    Otherwise other members of the group could not use it in between; and never, if the process is
    killed there.
    """
    aside = f"{path}.{os.urandom(8).hex()}.tmp"
    os.mkdir(aside)
    try:
        with suppress(OSError):
            os.chmod(aside, mode)
        os.rename(aside, path)
    except BaseException:
        os.rmdir(aside)
        raise


def name_first(made: str, path: str) -> None:
    """Give a file that is complete the name ``path``, unless there is one of that name already.

    Args:
        made: its temporary name, which may stay; the caller removes it.
        path: the name that it gets.

    Raises:
        OSError: it cannot have that name.
    """
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links, for which each system has its own error
        if not os.path.exists(path):
            os.rename(made, path)


def write_first(path: str, content: bytes) -> None:
    """Make a file with its content in one step, unless there is one of that name already.

    Raises:
        OSError: it could not be made.
    """
    aside = f"{path}.{os.urandom(8).hex()}.tmp"
    descriptor = make_file(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        name_first(aside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside)


def _may_get_its_mode(directory: str) -> bool:
    """Return whether another member of a group may have made something there just now."""
    try:
        age = time.time() - os.stat(directory).st_ctime
    except PermissionError:
        return _may_get_its_mode(os.path.dirname(directory))
    except OSError:
        return False
    return abs(age) < 1.0 and bool(mode_of_group(os.path.dirname(directory)))


def mode_of_group(directory: str) -> int | None:
    """Return the mode of a directory that belongs to a group, 0 of any other, ``None`` of none."""
    try:
        mode = stat.S_IMODE(os.stat(directory or os.curdir).st_mode)
    except FileNotFoundError:
        return None
    except OSError:  # to make something there will tell what is wrong
        return 0
    return mode if mode & _OF_GROUP == _OF_GROUP else 0
