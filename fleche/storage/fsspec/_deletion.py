"""Removing old objects, but none that a writer makes young at this moment.

No filesystem removes an object on condition of its age. To look at the age first and to remove then
may take an object that was touched between the two, and that a writer relies on. Where a rename
takes one step, the object is set aside before its age counts.

An object store neither removes on condition of age nor says afterwards what it has removed. So
a process that removes says so beforehand, twice:

- It leaves a *notice*, an object that says that something is going to be removed here, and begins
  :data:`WARNING` seconds later. Writers look for notices this often, and no more often. While there
  is none, what they write needs no further care: a removal that begins later finds it young. Each
  thread has a notice of its own, so that none ends what another has announced.
- It leaves a *mark* beside the one object that is next, looks at the age of that object once more,
  removes it, and takes the mark away. A writer that knows of a notice looks at the object after it
  was written: where there is no mark, every removal that has begun is over, or yet to look at the
  age. Where there is one, the writer waits. If the object is then gone, it is written again.

A store must show in its listings at once what was written or removed, as S3, Google Cloud Storage
and Azure do. Notices and marks of the killed are disregarded, and removed, when they are old.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import NamedTuple

from fleche._util import override
from fleche.storage._base import TEMPORARY
from fleche.storage.fsspec._filesystem import explained
from fleche.storage.fsspec._objects import Objects, modified_of

__all__ = ["WARNING", "CoordinatedRemover", "Remover", "RenamingRemover"]


class Remover:
    """Removes old objects, and tells writers whether what they have written stays.

    This class itself looks, and removes then. It is for objects that no writer relies
    on, and for filesystems that offer nothing better.

    Args:
        objects: those that it removes.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def remove_older(self, key: str, limit: float) -> bool:
        """Remove the object unless it was modified after ``limit``; return whether it went.

        Raises:
            StorageError: its age is not known, or it could not be removed.
        """
        if not self._is_old(key, limit):
            return False
        self._objects.remove(key)
        return True

    def removing(self) -> AbstractContextManager[None]:
        """Surround several removals of one thread."""
        return nullcontext()

    def safe_until(self) -> float:
        """Return the moment up to which nothing is removed that is written from now on.

        It is one of :func:`time.monotonic`, and may have passed.
        """
        return math.inf

    def survived(self, key: str, until: float) -> bool:
        """Return whether an object that was just written is there, and no removal will take it.

        Args:
            key: the object.
            until: what :meth:`safe_until` has said before it was written.
        """
        return time.monotonic() < until or self._is_left(key)

    def _is_left(self, key: str) -> bool:
        """Return whether an object is there after all removals that are under way."""
        return self._objects.contains(key)

    def close(self) -> None:
        """Say that nothing is going to be removed for now. Idempotent."""

    def _is_old(self, key: str, limit: float) -> bool:
        try:
            return self._objects.latest(self._objects.find(key).modified) <= limit
        except KeyError:
            return False


class RenamingRemover(Remover):
    """Takes an object out of its place before its age counts.

    A writer that touches it at this moment does so in time, and it is put back; or finds it gone,
    and writes it again. For filesystems that rename in one step and leave the age alone.
    """

    @override
    def remove_older(self, key: str, limit: float) -> bool:
        if not self._is_old(key, limit):
            return False
        fs, path = self._objects.connection.fs, self._objects.path(key)
        aside = f"{path}.{secrets.token_hex(8)}{TEMPORARY}"
        with explained("remove", self._objects.name(key)):
            try:
                self._objects.rename(path, aside)
            except FileNotFoundError:
                return False
            try:
                modified = self._objects.modified(fs.info(aside))
            except FileNotFoundError:  # swept, for its age
                return True
            renewed = self._objects.latest(modified) > limit
            if renewed and not self._objects.contains(key):
                self._objects.rename(aside, path)
            with suppress(FileNotFoundError):
                fs.rm_file(aside)
        return not renewed

    @override
    def safe_until(self) -> float:
        """Return no moment: all that is written is looked at afterwards."""
        return -math.inf


# -- on a store ------------------------------------------------------------------------------------

WARNING = 2.0
"""Seconds between a notice and the first removal, and for which writers rely on what they saw."""

_PLACE = "removing"
_NOTICE = "notice-"
_MARK = ".removing-"  # sorts before the suffix of values: a listing that shows no mark, and then
# the object, has seen the object after every removal that had begun
_FRESH = 300.0  # after that a notice is left anew, long before it lapses
_LAPSED = 1500.0  # a store refuses those whose clock is wrong by more than a quarter of an hour
_PATIENCE = 20.0  # a mark that stays for so long was left by a process that is gone
_POLL = 0.05


class _Notice(NamedTuple):
    path: str
    left: float


class CoordinatedRemover(Remover):
    """Removes objects of a store after it has said so."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._notices: dict[tuple[int, int], _Notice] = {}
        self._removing: set[tuple[int, int]] = set()
        self._looked = (-math.inf, False)

    # -- removing ----------------------------------------------------------------------------------

    @override
    def remove_older(self, key: str, limit: float) -> bool:
        if not self._is_old(key, limit):
            return False
        self._announce()
        mark = f"{self._objects.place(key)}{_MARK}{secrets.token_hex(8)}"
        begun = time.monotonic()
        self._leave(mark)
        goes = self._is_old(key, limit) and time.monotonic() - begun < _PATIENCE / 2
        if goes:
            self._objects.remove(key)  # if this fails, it may still happen: the mark stays
        self._take(mark)
        return goes

    def _announce(self) -> None:
        """Make sure that a notice of this thread has been there for long enough, and will be."""
        here, before = _here(), time.monotonic()
        notice = self._notices.get(here)
        if notice is None:
            root = self._objects.connection.root
            path = f"{root}/{_PLACE}/{_NOTICE}{secrets.token_hex(8)}"
        elif before - notice.left < _FRESH:
            return
        else:
            path = notice.path
        self._leave(path)
        self._notices[here] = _Notice(path, before)
        time.sleep(WARNING)

    @override
    @contextmanager
    def removing(self) -> Iterator[None]:
        """Surround the removals of one thread; its notice goes after them.

        If one has failed, the store may still come to it. Then the notice stays.
        """
        here = _here()
        outermost = here not in self._removing
        self._removing.add(here)
        try:
            yield
            if outermost:
                self._take_back(here)
        finally:
            if outermost:
                self._removing.discard(here)

    @override
    def close(self) -> None:
        for here in list(self._notices):
            if here[0] == os.getpid():  # a parent has its own
                self._take_back(here)

    def _take_back(self, here: tuple[int, int]) -> None:
        notice = self._notices.pop(here, None)
        if notice is not None:
            self._take(notice.path)

    # -- writing -----------------------------------------------------------------------------------

    @override
    def safe_until(self) -> float:
        until, noticed = self._looked
        if time.monotonic() >= until:
            until = time.monotonic() + WARNING
            noticed = self._is_noticed()
            self._looked = until, noticed
        return -math.inf if noticed else until

    def _is_noticed(self) -> bool:
        lapsed = time.time() - _LAPSED
        notices = self._objects.infos_in(_PLACE, _NOTICE)
        old = [info for info in notices if modified_of(info) < lapsed]
        for info in old:
            self._take(str(info["name"]))
        return len(notices) > len(old)

    @override
    def _is_left(self, key: str) -> bool:
        begun = time.monotonic()
        mark = f"{self._objects.place(key)}{_MARK}"  # of this key, and of no longer one
        while True:
            found = {str(info["name"]): info for info in self._objects.infos(key)}
            marks = [name for name in found if name.startswith(mark)]
            if time.monotonic() - begun > _PATIENCE:
                while marks:  # the process that left them was killed
                    self._take(marks.pop())
            if not marks:
                info = found.get(self._objects.path(key))
                return info is not None and bool(info["size"])
            time.sleep(_POLL)

    # -- notices and marks -------------------------------------------------------------------------

    def _leave(self, path: str) -> None:
        with explained("write", self._objects.connection.name):
            self._objects.connection.fs.pipe_file(path, b"1")

    def _take(self, path: str) -> None:
        with suppress(Exception):  # gone meanwhile, or not ours to remove; it lapses
            self._objects.connection.fs.rm_file(path)


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
