"""Which files may configure fleche: those that no other user can have written.

A configuration names programs to run and pickles to open, and the search for ``fleche.toml`` goes
upward from the working directory, which may be below another user's directory. So a file counts
only if the user or root owns it and no other user can write it, and if the same is true of every
directory above it. (In a sticky directory such as ``/tmp``, others can add entries but not
replace those of the user.) A directory that is shared on purpose is named once, in the environment
variable ``FLECHE_TRUST`` or under ``trust`` in the user's own file; then all below it counts.

The same idea protects ``~/.ssh`` (``StrictModes`` of sshd_config(5)) and ``/etc/sudoers``.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from fleche._util import account_name

__all__ = ["TRUST", "distrust"]

TRUST = "FLECHE_TRUST"
"""The environment variable that names trusted directories, separated as ``PATH`` is."""


def distrust(path: Path, trusted: Iterable[str] = ()) -> str:
    """Return why the file ``path`` must not be used, or an empty text if it may be.

    Args:
        path: an existing file.
        trusted: directories below which everything counts, besides those of ``FLECHE_TRUST``.
    """
    named = [*trusted, *filter(None, os.environ.get(TRUST, "").split(os.pathsep))]
    roots = [Path(each).expanduser().resolve() for each in named]
    # both what stands there and, if that is a link, what it leads to
    places = dict.fromkeys((path.parent.resolve() / path.name, path.resolve()))
    for place in places:
        if any(place.is_relative_to(root) for root in roots):
            continue
        if fault := _fault(place):
            return fault
    return ""


def _fault(path: Path) -> str:
    """Return what others can write of ``path`` and the directories above it; empty if nothing."""
    entry = path
    for place in (path, *path.parents):
        status = place.lstat()
        if status.st_uid not in (0, os.geteuid()):
            owner = account_name(status.st_uid) or f"user {status.st_uid}"
            return _sentence(path, place, f"belongs to {owner} (mode {_mode(status)})")
        shelters = place != path and status.st_mode & stat.S_ISVTX
        if _others_can_write(status) and not (shelters and entry.lstat().st_uid == os.geteuid()):
            return _sentence(path, place, f"can be written by others (mode {_mode(status)})")
        entry = place
    return ""


def _sentence(path: Path, place: Path, fault: str) -> str:
    directory = place if place.is_dir() else place.parent
    return (
        f"{path}: not used, since {'it' if place == path else place} {fault}, and a configuration "
        "can run programs. If you trust all users who can write there, say so in your own "
        f'file, under [default]: trust = ["{directory}"], or in the environment: '
        f"{TRUST}={directory}"
    )


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _others_can_write(status: os.stat_result) -> bool:
    """Return whether users other than the owner and root can write what ``status`` is of.

    The mode of a symbolic link means nothing; what it leads to is looked at by itself.
    """
    if stat.S_ISLNK(status.st_mode):
        return False
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(status.st_gid)


@functools.lru_cache(maxsize=64)
def _is_private_group(gid: int) -> bool:
    """Return whether the group is the user's own, with no other members, or root's.

    Many systems give every user a group of the same name and new files the mode 0664. The name
    counts, since users of a directory service that share a primary group cannot be listed.
    """
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    sharers = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid}
    members = {*group.gr_mem, *sharers} - {user.pw_name, "root"}
    is_own = gid == user.pw_gid and group.gr_name == user.pw_name
    return not members and (is_own or gid == 0)
