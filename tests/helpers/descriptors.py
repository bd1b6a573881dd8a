"""Open descriptors of this process, as /proc shows them, or /dev/fd where there is none."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator

__all__ = ["own_descriptors", "target_of"]

_PLACES = ("/proc/self/fd", "/dev/fd")
_fstat = os.fstat  # which a test may replace


def own_descriptors() -> Iterator[tuple[int, str]]:
    """Yield each with what it leads to; but for the one with which they are listed."""
    place = next(filter(os.path.isdir, _PLACES))
    own = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(own):
            number = int(name)
            if number != own:
                try:
                    yield number, target_of(number)
                except OSError:
                    continue  # closed by another thread meanwhile
    finally:
        os.close(own)


def target_of(descriptor: int) -> str:
    """Return the path of a file, or what else tells one descriptor from others.

    Raises:
        OSError: it is closed.
    """
    if os.path.isdir(_PLACES[0]):
        return os.readlink(f"{_PLACES[0]}/{descriptor}")
    status = _fstat(descriptor)
    if hasattr(fcntl, "F_GETPATH") and (
        stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    ):
        found = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))
        return os.fsdecode(found.partition(b"\0")[0])
    kind = "pipe" if stat.S_ISFIFO(status.st_mode) else stat.filemode(status.st_mode)
    return f"{kind}:[{status.st_dev} {status.st_ino}]"
