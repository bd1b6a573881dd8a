"""Removing old objects, but none that somebody makes young at this moment.

No filesystem removes an object on condition of its age. Whoever looks at the age first and removes
then may take an object that was renewed between the two, and that a writer relies on.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from contextlib import AbstractContextManager, nullcontext, suppress

from fleche.digest import Digest
from fleche.storage.fsspec.failures import explained
from fleche.storage.fsspec.objects import Objects

__all__ = ["TEMPORARY", "Remover", "SettingAside"]

TEMPORARY = ".tmp"
"""How the names of files end that no listing shows."""


class Remover:
    """Removes old objects, and tells writers whether what they have written stays.

    This class itself looks, and removes then. It is for objects that nobody relies on, and for
    filesystems that offer nothing better.

    Args:
        objects: those that it removes.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def remove_older(self, key: Digest, limit: float) -> bool:
        """Remove the object unless it was modified after ``limit``; tell whether it went.

        Raises:
            StorageError: it could not be told, or not be removed.
        """
        if not self._is_old(key, limit):
            return False
        self._objects.remove(key)
        return True

    def removing(self) -> AbstractContextManager[None]:
        """Surround several removals of one thread."""
        return nullcontext()

    def calm(self) -> float:
        """Return the moment up to which nothing is removed that is written from now on.

        It is told by :func:`time.monotonic`, and may have passed.
        """
        return math.inf

    def lasts(self, key: Digest, until: float) -> bool:
        """Tell whether an object that was just written is there, and no removal will take it.

        Args:
            key: the object.
            until: what :meth:`calm` has said before it was written.
        """
        return time.monotonic() < until or self._is_left(key)

    def _is_left(self, key: Digest) -> bool:
        """Tell whether an object is there after all removals that are under way."""
        return self._objects.contains(key)

    def close(self) -> None:
        """Say that nothing is going to be removed for now. Idempotent."""

    def _is_old(self, key: Digest, limit: float) -> bool:
        try:
            return self._objects.latest(self._objects.find(key).modified) <= limit
        except KeyError:
            return False


class SettingAside(Remover):
    """Takes an object out of its place before its age counts.

    A writer who renews it at this moment does so in time, and it is put back; or finds it gone, and
    writes it again. For filesystems that rename in one step and leave the age alone.
    """

    def remove_older(self, key: Digest, limit: float) -> bool:
        """Remove the object unless it was modified after ``limit``; tell whether it went."""
        if not self._is_old(key, limit):
            return False
        fs, path = self._objects.connection.fs, self._objects.path(key)
        aside = f"{path}.{secrets.token_hex(8)}{TEMPORARY}"
        with explained("remove", self._objects.name(key)):
            try:
                self._rename(path, aside)
            except FileNotFoundError:
                return False
            try:
                modified = self._objects.modified(fs.info(aside))
            except FileNotFoundError:  # swept, for its age
                return True
            renewed = self._objects.latest(modified) > limit
            if renewed and not self._objects.contains(key):
                self._rename(aside, path)
            with suppress(FileNotFoundError):
                fs.rm_file(aside)
        return not renewed

    def _rename(self, source: str, target: str) -> None:
        fs = self._objects.connection.fs
        if getattr(fs, "local_file", False):  # mv() copies if it cannot rename, and then removes
            os.rename(source, target)
        else:
            fs.mv(source, target)

    def calm(self) -> float:
        """Return no moment: whatever is written is looked at afterwards."""
        return -math.inf
