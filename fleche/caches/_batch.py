"""Many calls of one function, one after the other: looked up at once, and saved together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import RLock
from time import monotonic

from fleche._util import override, renewed_after_fork
from fleche.caches._accepted import AcceptedCode
from fleche.caches._backend import (
    INLINE,
    CacheBackend,
    Entries,
    Loaded,
    Parcels,
    Progress,
)
from fleche.caches._base import ACCEPTED_AGE, BaseCache
from fleche.caches._views import ViewBackend
from fleche.caches.maintenance import Report, Task
from fleche.call import SMALL, CallEntry
from fleche.digest import Address, Digest
from fleche.errors import FlecheError, ParcelError

__all__ = ["BatchBackend", "BatchCache"]

MOST_CALLS = 256
MOST_BYTES = 1 << 20
MOST_SECONDS = 0.5
"""So many calls, bytes, and seconds that their bodies took, are unsaved at most."""

FRESH = 5.0
"""For so many seconds a call that was not there counts as not there."""


class BatchBackend(ViewBackend):
    """Another backend, asked for many calls at once, and given many at once.

    What is not saved yet cost little to compute (:data:`MOST_SECONDS`), and is answered from here.
    Whatever else is asked comes after it is saved.

    Attributes:
        together: whether calls are saved together.
    """

    def __init__(self, inner: CacheBackend, *, together: bool = True) -> None:
        """Look into ``inner``, and save there; one call at a time, if not ``together``."""
        super().__init__(inner)
        self._ahead: dict[Digest, CallEntry | ParcelError] = {}
        self._missing: dict[Digest, float] = {}  # and until when that is believed
        self._unsaved: dict[Digest, CallEntry] = {}
        self._bytes = 0
        self._seconds = 0.0
        self._failure: FlecheError | None = None
        self.together = together
        self._lock = renewed_after_fork(RLock())

    def look_ahead(self, keys: Iterable[Digest]) -> None:
        """Load calls that will be asked for soon; each answer is good for one question.

        Large results do not come along. That a call is not there is believed for
        :data:`FRESH` seconds: others may compute it meanwhile.
        """
        missing = dict.fromkeys(keys, monotonic() + FRESH)
        self._ahead = dict(self.inner.load(list(missing), inline=SMALL))
        for key in self._ahead:
            missing.pop(key, None)
        self._missing = missing

    def expect_missing(self, key: Digest, age: float = 0.0) -> None:
        """Answer the next question about a call that was not there ``age`` seconds ago."""
        self._missing[key] = monotonic() + FRESH - age

    def take(self) -> dict[Digest, CallEntry]:
        """Return what is unsaved, for another to save."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            self._bytes, self._seconds = 0, 0.0
            return unsaved

    def flush(self) -> None:
        """Save what is unsaved; that some of it was refused is said by the next save, or the end.

        What is asked in between has nothing to do with it.
        """
        with self._lock:
            unsaved = self.take()
            if not unsaved:
                return
            try:
                self.inner.save(unsaved)
            except FlecheError as error:
                failure = self._save_singly(unsaved) if len(unsaved) > 1 else error
                self._failure = failure or self._failure

    def _save_singly(self, entries: Mapping[Digest, CallEntry]) -> FlecheError | None:
        """Save what is not refused; return why the last of the others is."""
        failure: FlecheError | None = None
        for key, entry in entries.items():
            try:
                self.inner.save({key: entry})
            except FlecheError as error:
                failure = error
        return failure

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self) -> None:
        """Save what is unsaved; from now on this is the other backend, unaltered.

        Raises:
            FlecheError: some of it was refused, or could not be stored; the rest is.
        """
        with self._lock:
            self.together = False
            self._ahead, self._missing = {}, {}
            self.flush()
            self._raise_failure()

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        found: dict[Digest, CallEntry | ParcelError] = {}
        rest: list[Digest] = []
        for key in keys:
            known = self._unsaved.get(key) or self._ahead.pop(key, None)
            if known is not None:
                found[key] = known
            elif monotonic() > self._missing.pop(key, 0.0):
                rest.append(key)
        if rest:
            found.update(self.inner.load(rest, inline=inline))
        yield from ((key, found[key]) for key in keys if key in found)

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        with self._lock:
            if (
                not self.together
                or parcels
                or unpin
                or any(entry.record.result is None for entry in entries.values())
            ):
                self.flush()
                self.inner.save(entries, parcels, unpin=unpin)
                self._raise_failure()
                return
            self._unsaved.update(entries)
            for entry in entries.values():
                self._bytes += sum(map(len, entry.parcels.values()))
                # what did not tell its time may have taken long
                self._seconds += MOST_SECONDS if (took := entry.record.duration) is None else took
            if (
                len(self._unsaved) >= MOST_CALLS
                or self._bytes >= MOST_BYTES
                or self._seconds >= MOST_SECONDS
            ):
                self.flush()
            self._raise_failure()

    @override
    def _asked(self) -> CacheBackend:
        self.flush()
        return self.inner

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.flush()
        for key in keys:
            if isinstance(key, Digest):
                self._ahead.pop(key, None)
        return self.inner.evict(keys)

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        self.flush()
        return self.inner.maintain(task, progress)

    @override
    def note_damage(self, key: Digest, addresses: Sequence[Address]) -> bool:
        self._ahead.pop(key, None)
        return self.inner.note_damage(key, addresses)

    @override
    def count(self, event: str, number: int = 1) -> None:
        self.inner.count(event, number)

    @override
    def counts(self) -> dict[str, int]:
        return self.inner.counts()


class BatchCache(BaseCache):
    """Another cache while many calls of one function are made. Its maker ends its :attr:`batch`.

    Attributes:
        batch: the backend, which looks ahead.
        inner: the other cache.
    """

    def __init__(self, inner: BaseCache, *, together: bool = True) -> None:
        """Look into ``inner``, and save there; one call at a time, if not ``together``."""
        self.inner = inner
        self.batch = BatchBackend(inner.backend, together=together)
        super().__init__(self.batch)
        self.sender, self.slot, self.counter = inner.sender, inner.slot, inner.counter
        self.accepted = inner.accepted

    @override
    def read_accepted(self, age: float = ACCEPTED_AGE) -> AcceptedCode | None:
        self.accepted = self.inner.read_accepted(age)
        return self.accepted
