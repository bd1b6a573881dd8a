"""Where a directory is: on a disk of this machine, or on another one, seen through a network."""

from __future__ import annotations

import os
import re
import struct
import sys
from pathlib import Path

__all__ = ["is_local"]

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "9p",
    "fuse.",
    "glusterfs",
    # directories of the host of a virtual machine, such as Docker on macOS has
    "virtiofs",
    "fakeowner",
    "vboxsf",
    "prl_fs",
)

_ESCAPED = re.compile(r"\\([0-7]{3})")
"""What stands for a space, a tab, a newline or a backslash in the list of mounts."""

_LOCAL = 0x1000  # MNT_LOCAL of <sys/mount.h>
_STATFS = struct.Struct("=64xII16xc2079x")
"""The ``struct statfs`` of macOS, on Intel and ARM: its flags, and what the mount point begins with
(uint32_t f_flags, f_fssubtype; char f_mntonname[])."""


def is_local(path: Path) -> bool:
    """Return whether ``path`` is on a file system of this machine, as far as that can be known."""
    return _is_local_to_mac(path) if sys.platform == "darwin" else _is_mounted_from_here(path)


def _is_mounted_from_here(path: Path) -> bool:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return True
    kinds = {}
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[_ESCAPED.sub(lambda found: chr(int(found[1], 8)), place)] = kind
    for parent in (path, *path.parents):
        if str(parent) in kinds:
            return not kinds[str(parent)].startswith(_NETWORK)
    return True


def _is_local_to_mac(path: Path) -> bool:
    try:
        import ctypes

        library = ctypes.CDLL(None)
        # On Intel, what has no suffix is an older form of it.
        statfs = getattr(library, "statfs$INODE64", None) or library.statfs
    except (ImportError, OSError, AttributeError):
        return True
    found = ctypes.create_string_buffer(_STATFS.size)
    for place in (path, *path.parents):  # the directory is perhaps still to be made
        if statfs(os.fsencode(place), found) == 0:
            flags, _, root = _STATFS.unpack(found)
            return bool(flags & _LOCAL) or root != b"/"
    return True
