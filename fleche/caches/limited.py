"""A cache that forgets what was not used for longest, so as to stay within limits."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from fleche.caches._ledger import Ledger
from fleche.caches.local import Cache
from fleche.caches.pending import PendingCall
from fleche.caches.survey import Candidate, Eviction, Survey, least_recently_used
from fleche.caches.views import CacheView
from fleche.call import Call, CallRecord
from fleche.digest import BufferDigests, Digest
from fleche.errors import ParcelError, Rejected, StorageError
from fleche.parcel import Parcel
from fleche.storage.base import Entry

__all__ = ["Candidate", "Eviction", "SizeLimitedCache", "least_recently_used"]

log = logging.getLogger("fleche.caches")


class SizeLimitedCache(CacheView):
    """A local cache that evicts calls with their values: those not used for longest, by default.

    A call is used when it is saved or loaded. Several processes may share the storages, as long as
    all of them keep to the same limits: sizes and times of use are those of the storages. Never
    evicted are the call that was just saved, so that one call may exceed the limits, and what a
    running call has stored, which comes on top of them. A value that is larger than the whole cache
    is refused. Buffers that values share count once, and go with the last value that needs them.

    What no call needs (any more) goes before any call does: at once what was left behind by calls
    that this process has evicted, replaced or given up, and the rest when it is old enough for
    :meth:`gc`. Until then it does not count against the calls.

    Room is made a tenth at a time, so that it need not be made at every save. Nor does a process
    look at every save how full the cache is, but when it has used up a tenth of what was free, or
    after a minute. So the limits are exact for one process, and nearly so for several that save all
    the time. At worst, each of them adds the tenth that it still had when others filled the rest.

    A call may be evicted at any time, even one whose key :meth:`save` is about to return.

    Attributes:
        max_size: how many calls are kept; ``None`` for any number.
        max_bytes: how many bytes their records and values may take; ``None`` for any number.
    """

    def __init__(
        self,
        inner: Cache,
        max_size: int | None = None,
        max_bytes: int | None = None,
        *,
        eviction: Eviction = least_recently_used,
    ) -> None:
        """Limit ``inner``.

        Args:
            inner: a local cache.
            max_size: how many calls are kept.
            max_bytes: how many bytes their records and values may take.
            eviction: which calls go first. What it leaves out stays.

        Raises:
            ValueError: a limit is not positive.
        """
        super().__init__(inner)
        for name, limit in (("max_size", max_size), ("max_bytes", max_bytes)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is at least 1, not {limit}")
        self.max_size = max_size
        self.max_bytes = max_bytes
        self.eviction = eviction
        self._values, self._calls = inner.values, inner.calls
        self._ledgers: dict[int, Ledger] = {}

    @property
    def _here(self) -> Ledger:
        """What this process knows. A forked child begins anew, with locks that nobody holds."""
        process = os.getpid()
        return self._ledgers.get(process) or self._ledgers.setdefault(process, Ledger())

    # -- calls and values --------------------------------------------------------------------------

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        found = self.inner.fetch(key)
        if not self.read_only:
            self._calls.renew(key)
        return found

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store the parcel of a value, unless there can never be room for it and its buffers."""
        try:
            self._check_size(digest, self._size(parcel))
        except Rejected:
            self._here.leave(parcel.references, time.time())
            raise
        super().save_parcel(digest, parcel)
        self._here.budget.spend(size=parcel.nbytes)

    def save_values(
        self, values: Mapping[Digest, Any], buffers: BufferDigests | None = None
    ) -> None:
        """Store values. One alone that is too large is refused before any of it is stored."""
        if buffers is not None and len(values) == 1 and self.packing.compression is None:
            sizes = {found: nbytes for (_, nbytes), found in buffers.digests.items()}
            self._check_size(next(iter(values)), sum(sizes.values()))
        super().save_values(values, buffers)

    def _size(self, parcel: Parcel) -> int:
        """Return the size of a parcel with its buffers, which have come before it."""
        most = parcel.nbytes + sum(part.size for part in parcel.head.buffers if not part.inline)
        if self.max_bytes is None or most <= self.max_bytes:
            return most
        # compressed they are smaller than their content, and one may be there several times
        return parcel.nbytes + sum(entry.size for entry in self._entries(parcel.references))

    def _check_size(self, digest: Digest, size: int) -> None:
        if self.max_bytes is not None and size > self.max_bytes:
            raise Rejected(
                f"{self}: value {digest[:12]} takes {size} bytes, "
                f"and max_bytes is {self.max_bytes}; not saved"
            )

    def _entries(self, digests: Iterable[Digest]) -> Iterator[Entry]:
        for digest in digests:
            with suppress(KeyError):
                yield self._values.entry(digest)

    def prepare(self, call: Call, *, lease: bool = True) -> PendingCall:  # noqa: ARG002
        """Store the arguments of a call, always with a lease: others may be making room.

        Whoever saves without one, as :meth:`save` of a view or a stack does, may find afterwards
        that an argument is gone. The result is looked at again in any case.
        """
        return super().prepare(call, lease=True)

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record, and make room if that was one too many.

        Until now, nothing but its age has kept the result, and others who had used it may have
        evicted it. Then the call goes, too.
        """
        if record.result is None:
            super().save_record(key, record)
            self._here.begin(key, record)
            return
        digests, used = self._last(key)
        super().save_record(key, record)
        self._here.leave(digests.difference(record.digests()), used)
        if not self._keeps(record.result):
            self.inner.drop(key)
            return
        self._here.finish(key)
        self._calls.renew(key)  # a call is no older than its values, or they would outlive it
        if not self._here.budget.spend(calls=1):
            self.make_room(key)

    def _keeps(self, result: Digest) -> bool:
        """Tell whether a value is here with its buffers, and make sure that they stay."""
        try:
            needed = self._values.table(result).references
        except KeyError:
            return False
        except ParcelError:
            return True  # somebody else has put it there; whoever loads it is told
        gone = self.inner.missing([result, *needed])
        if gone and result not in gone:
            self.inner.drop(result)  # nothing can be made of it
        return not gone

    # -- what calls leave behind -------------------------------------------------------------------

    def evict(self, key: Digest | str) -> None:
        """Forget a call, or a value. The values of a call go when room is made, if not before."""
        self.check_writable("evict")
        self._forget(self.complete(key), self.inner.evict)

    def drop(self, key: Digest) -> None:
        """Remove an entry, as :meth:`evict` does."""
        self.check_writable("evict")
        self._forget(key, self.inner.drop)

    def _forget(self, key: Digest, remove: Callable[[Digest], None]) -> None:
        unneeded = self._here.end(key)
        if unneeded is None:
            digests, used = self._last(key)
            remove(key)
            self._here.leave(digests, used)
            return
        remove(key)
        if unneeded:  # its function raised
            self._here.leave(unneeded, time.time())
            if not self._here.budget.spend():
                self.make_room()

    def _last(self, key: Digest) -> tuple[frozenset[Digest], float]:
        """Return what the call needs that is here under ``key``, and when it was last used."""
        try:
            used = self._calls.entry(key).modified
            return frozenset(self._calls.get(key).digests()), used
        except (KeyError, ParcelError):
            return frozenset(), 0.0

    # -- making room -------------------------------------------------------------------------------

    def make_room(self, keep: Digest | None = None) -> int:
        """Evict until the limits hold; return how many calls went.

        Args:
            keep: a call that stays in any case.
        """
        here = self._here
        with here.making_room:
            free, evicted = self._look(), 0
            if min(free) < 0:
                try:
                    with self._values.removing():
                        free, evicted = self._evict(keep)
                except ParcelError as error:
                    self._warn(
                        "no room is made, since nobody knows which buffers a value needs; "
                        f"evict() what is in verify().untrusted if nobody uses it ({error})"
                    )
                    free = (float("inf"), float("inf"))
            here.budget.renew(*free)
        self.count("evicted", evicted)
        return evicted

    def _look(self) -> tuple[float, float]:
        """Return how much is free if all that is here counts; no entry is read for that."""
        calls = 0 if self.max_size is None else len(list(self._calls.keys()))
        nbytes = 0 if self.max_bytes is None else self.inner.measure().bytes
        return self._free(calls, nbytes)

    def _free(self, calls: int, nbytes: int) -> tuple[float, float]:
        """Return for how many more calls and bytes there is room."""
        endless = float("inf")
        return (
            endless if self.max_size is None else self.max_size - calls,
            endless if self.max_bytes is None else self.max_bytes - nbytes,
        )

    def _evict(self, keep: Digest | None) -> tuple[tuple[float, float], int]:
        """Remove what nobody needs, then evict; return what is free then, and how many went."""
        survey = Survey(self._values, self._calls)
        for digest, limit in self._here.take_leftovers().items():
            survey.remove(digest, limit)
        if self._collect():
            survey = Survey(self._values, self._calls)
        evicted = 0
        if min(self._free(len(survey.finished), survey.bytes)) < 0:
            evicted = self._evict_oldest(survey, keep)
        return self._free(len(survey.finished), survey.bytes), evicted

    def _collect(self) -> int:
        """Remove what nobody refers to, if that can be told; return how much it was."""
        try:
            return self.inner.gc().removed
        except StorageError as error:
            self._warn(f"what nobody needs is not collected: {error}")
            return 0

    def _warn(self, text: str) -> None:
        """Log what is wrong, the first time as a warning."""
        level = logging.WARNING if self._here.is_new(text) else logging.DEBUG
        log.log(level, "%s: %s", self, text)

    def _evict_oldest(self, survey: Survey, keep: Digest | None) -> int:
        """Evict until a tenth is free; return how many calls went."""
        evicted = 0
        for key in [call.key for call in self.eviction(survey.candidates(keep))]:
            calls, nbytes = self._free(len(survey.finished), survey.bytes)
            if calls >= (self.max_size or 0) // 10 and nbytes >= (self.max_bytes or 0) // 10:
                break
            evicted += survey.evict(key)
        return evicted

    def to_config(self) -> dict[str, object]:
        """Return the table of the inner cache, with the limits."""
        limits = {"max_size": self.max_size, "max_bytes": self.max_bytes}
        table: dict[str, object] = self.inner.to_config()
        return {**table, **{name: limit for name, limit in limits.items() if limit is not None}}
