"""Claims as files beside the entries: ``root/ab/cdef....call.claim.tmp``.

The file is made by whoever comes first, holds the name of its owner, and is renewed by its
modification time. That is set, and compared, by the clock of the file system alone: the machines
that share a directory need not agree on the time. To any listing it is a temporary file, so that
nobody takes it for an entry, and what a killed owner leaves is swept like every other leftover.

Whoever takes over a claim makes a second file, whose name tells whom it follows: of several who
try at once one succeeds, and at no moment does it look as if nobody had the claim. The owner of the
last file that follows has it. All of them go together.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fleche.claims import Claim, Claims
from fleche.digest import Digest, digest
from fleche.storage.file.shards import TEMPORARY, Shards, explained

__all__ = ["FileClaims"]

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_ATTEMPTS = 10
_LONGEST = 256
_LONGEST_CHAIN = 1000


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
                chain = _chain(path)
                if chain:
                    return chain[-1].claim
                if self._create(path, owner):
                    return None
        return Claim("", 0.0)  # somebody's, who comes and goes too fast to be seen

    def take_over(self, key: Digest, owner: str, old: Claim) -> bool:
        """Claim ``key`` in place of ``old``; tell whether ``old`` was still as it was seen."""
        path = self._path(key)
        with explained("claim", path):
            chain = _chain(path)
            if not chain or chain[-1].claim != old:
                return False
            following = _following(path, old.owner)
            if not self._create(following, owner):
                return False
            if not _is_owner(_chain(path), owner):  # released in this very moment
                following.unlink(missing_ok=True)
                return False
        return True

    def renew(self, key: Digest, owner: str) -> bool:
        """Set the modification time to now; tell whether the claim is still that of ``owner``."""
        path = self._path(key)
        with explained("claim", path):
            chain = _chain(path)
            if not _is_owner(chain, owner):
                return False
            with suppress(FileNotFoundError):
                for link in chain:
                    os.utime(link.path)
                return True
        return False

    def release(self, key: Digest, owner: str) -> None:
        """Remove the files, if the claim is that of ``owner``."""
        path = self._path(key)
        with explained("remove", path):
            chain = _chain(path)
            if _is_owner(chain, owner):
                for link in chain:
                    link.path.unlink(missing_ok=True)

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


class _Link(NamedTuple):
    """A file of a claim."""

    path: Path
    claim: Claim


def _chain(path: Path) -> list[_Link]:
    """Return the files of a claim, each followed by that of whoever took over."""
    found: list[_Link] = []
    place = path
    while len(found) < _LONGEST_CHAIN and (claim := _read(place)) is not None:
        found.append(_Link(place, claim))
        place = _following(path, claim.owner)
    return found


def _is_owner(chain: Sequence[_Link], owner: str) -> bool:
    return bool(chain) and chain[-1].claim.owner == owner


def _following(path: Path, owner: str) -> Path:
    """Return the file of whoever takes over from ``owner``."""
    name = path.name.removesuffix(TEMPORARY)
    return path.with_name(f"{name}-{digest(owner)[:32]}{TEMPORARY}")


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
