"""Claims as files beside the entries: ``root/ab/cdef....call.claim.tmp``.

The file is made by whoever comes first, holds the name of its owner, and is renewed by its
modification time. That is set, and compared, by the clock of the file system alone: the machines
that share a directory need not agree on the time. To any listing it is a temporary file, so that
nobody takes it for an entry, and what a killed owner leaves is swept like every other leftover.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from fleche.claims import Claim, Claims
from fleche.digest import Digest
from fleche.storage.file.shards import TEMPORARY, Shards, explained, put_back

__all__ = ["FileClaims"]

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_ATTEMPTS = 10
_LONGEST = 256


class FileClaims(Claims):
    """Claims in the directories of ``files``."""

    shared = True

    def __init__(self, files: Shards) -> None:
        self._files = files

    def take(self, key: Digest, owner: str) -> Claim | None:
        """Claim ``key`` unless somebody else has; return the claim that is in the way, if any."""
        path = self._path(key)
        with explained("claim", path):
            for _ in range(_ATTEMPTS):
                found = _read(path)
                if found is not None:
                    return found
                if self._create(path, owner):
                    return None
        return Claim("", 0.0)  # somebody's, who comes and goes too fast to be seen

    def take_over(self, key: Digest, owner: str, old: Claim) -> bool:
        """Claim ``key`` in place of ``old``; tell whether ``old`` was still as it was seen.

        The file is set aside before it counts what is in it, so that of several who take over one
        gets it, and an owner who has only been slow gets it back.
        """
        path = self._path(key)
        aside = _beside(path)
        with explained("claim", path):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            is_same = _read(aside) == old
            if not is_same:
                put_back(aside, path)
            aside.unlink(missing_ok=True)
            return is_same and self._create(path, owner)

    def renew(self, key: Digest, owner: str) -> bool:
        """Set the modification time to now; tell whether the claim is still that of ``owner``."""
        path = self._path(key)
        with explained("claim", path):
            found = _read(path)
            if found is None or found.owner != owner:
                return False
            with suppress(FileNotFoundError):
                os.utime(path)
                return True
        return False

    def release(self, key: Digest, owner: str) -> None:
        """Remove the file, if it is that of ``owner``."""
        path = self._path(key)
        with explained("remove", path):
            found = _read(path)
            if found is not None and found.owner == owner:
                path.unlink(missing_ok=True)

    def now(self, key: Digest) -> float:
        """Return the modification time of a new file."""
        path = self._path(key)
        probe = _beside(path)
        with explained("claim", path):
            descriptor = os.open(probe, _NEW, 0o666)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                probe.unlink(missing_ok=True)

    def _create(self, path: Path, owner: str) -> bool:
        """Make the file; tell whether it was not there."""
        try:
            descriptor = self._open_new(path)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, owner.encode())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True

    def _open_new(self, path: Path) -> int:
        try:
            return os.open(path, _NEW, 0o666)
        except FileNotFoundError:
            self._files.make_directory(path.parent)
            return os.open(path, _NEW, 0o666)

    def _path(self, key: Digest) -> Path:
        path = self._files.path(key)
        return path.with_name(f"{path.name}.claim{TEMPORARY}")


def _read(path: Path) -> Claim | None:
    """Return the claim in a file; ``None`` if there is none.

    It is opened, not only looked at, so that a network file system asks its server.
    """
    try:
        with path.open("rb", buffering=0) as file:
            owner = file.read(_LONGEST).decode("ascii", "replace")
            return Claim(owner, os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
