"""What goes wrong with a file, in words for a person."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fleche.errors import StorageError

__all__ = ["explained"]

_MAKE_ROOM = "free some space, or remove results that nobody needs (gc)"
_ASK = "ask its owner for permission, or set read_only = true for this cache"

_HINTS = {
    errno.ENOSPC: f"the disk is full; {_MAKE_ROOM}",
    errno.EDQUOT: f"your quota is used up; {_MAKE_ROOM}",
    errno.EACCES: _ASK,
    errno.EPERM: _ASK,
    errno.EROFS: "the file system is mounted read-only; set read_only = true for this cache",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENOTDIR: "a file stands where a directory is needed; move it, or choose another root",
    errno.EISDIR: "a directory stands where a file is needed; move it away",
    errno.ESTALE: "the network file system has lost the file; try again",
    errno.EIO: "the disk or the network file system fails; see the system log",
}


@contextmanager
def explained(action: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an :class:`OSError` into a :class:`StorageError` that says what to do.

    Args:
        action: a verb: "read", "write".
        path: the file or directory.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        reason = error.strerror or str(error)
        raise StorageError(
            f"{os.fspath(path)}: cannot {action}: {reason}{f' ({hint})' if hint else ''}"
        ) from error
