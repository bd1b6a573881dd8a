"""A cache that forgets what was not used for longest, so as to stay within limits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

from fleche.caches._budget import Budget
from fleche.caches.local import Cache
from fleche.caches.pending import PendingCall
from fleche.caches.tables import Table, read_table
from fleche.caches.views import CacheView
from fleche.call import Call, CallRecord
from fleche.digest import Digest
from fleche.errors import ParcelError, Rejected, StorageError
from fleche.parcel import Parcel
from fleche.storage.base import CallStorage, ValueStorage

__all__ = ["Candidate", "Eviction", "SizeLimitedCache", "least_recently_used"]

log = logging.getLogger("fleche.caches")


@dataclass(frozen=True)
class Candidate:
    """A call that may be evicted.

    Attributes:
        key: its key.
        record: what is known of it: name, metadata such as how long it took, and so on.
        used: when it was last saved or loaded, in seconds since the epoch.
    """

    key: Digest
    record: CallRecord
    used: float


Eviction: TypeAlias = Callable[[Sequence[Candidate]], Iterable[Candidate]]
"""Brings candidates into the order in which they go, the first to go first."""


def least_recently_used(candidates: Sequence[Candidate]) -> Iterable[Candidate]:
    """Let go first what was not used for longest."""
    return sorted(candidates, key=lambda call: call.used)


class SizeLimitedCache(CacheView):
    """A local cache that evicts calls with their values: those not used for longest, by default.

    A call is used when it is saved or loaded. Several processes may share the storages, as long as
    all of them keep to the same limits: sizes and times of use are those of the storages. Never
    evicted are the call that was just saved, so that one call may exceed the limits, and what a
    running call has stored. A value that is larger than the whole cache is refused. Buffers that
    values share count once, and go with the last value that needs them.

    Room is made a tenth at a time, so that it need not be made at every save.

    Attributes:
        max_size: how many calls are kept; ``None`` for any number.
        max_bytes: how many bytes their values and records may take; ``None`` for any number.
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
            max_bytes: how many bytes their values and records may take.
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
        self._budget = Budget()
        self._making_room = Lock()

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        found = self.inner.fetch(key)
        if not self.read_only:
            self._calls.renew(key)
        return found

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store the parcel of a value, unless there can never be room for it."""
        if self.max_bytes is not None and parcel.nbytes > self.max_bytes:
            raise Rejected(
                f"{self}: value {digest[:12]} takes {parcel.nbytes} bytes, "
                f"and max_bytes is {self.max_bytes}; not saved"
            )
        super().save_parcel(digest, parcel)
        self._budget.spend(size=parcel.nbytes)

    def prepare(self, call: Call, *, lease: bool = True) -> PendingCall:  # noqa: ARG002
        """Store the arguments of a call, always with a lease: others may be making room."""
        return super().prepare(call, lease=True)

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record, and make room if that was one too many.

        Until now, nothing but its age has kept the result, and others who had used it may have
        evicted it. Then the call goes, too.
        """
        super().save_record(key, record)
        if record.result is None:
            return
        if not self._keeps(record.result):
            self.inner.drop(key)
            return
        self._calls.renew(key)  # a call is no older than its values, or they would outlive it
        if not self._budget.spend(calls=1):
            self.make_room(key)

    def _keeps(self, result: Digest) -> bool:
        """Tell whether a value is here with its buffers, and make sure that they stay."""
        try:
            needed = read_table(self._values, result).references
        except KeyError:
            return False
        except ParcelError:
            return True  # somebody else has put it there; whoever loads it is told
        gone = self.inner.missing([result, *needed])
        if gone and result not in gone:
            self.inner.drop(result)  # nothing can be made of it
        return not gone

    def make_room(self, keep: Digest | None = None) -> int:
        """Evict until the limits hold; return how many calls went.

        Args:
            keep: a call that stays in any case.
        """
        with self._making_room:
            survey = _Survey(self._values, self._calls)
            evicted = 0
            if survey.exceeds(self.max_size, self.max_bytes):
                if self._collect():
                    survey = _Survey(self._values, self._calls)
                evicted = self._evict_oldest(survey, keep)
            self._budget.renew(*survey.free(self.max_size, self.max_bytes))
        self.count("evicted", evicted)
        return evicted

    def _collect(self) -> int:
        """Remove what nobody refers to, if that can be told; return how much it was."""
        try:
            return self.inner.gc().removed
        except StorageError as error:
            log.warning("%s: %s", self, error)
            return 0

    def _evict_oldest(self, survey: _Survey, keep: Digest | None) -> int:
        evicted = 0
        size, nbytes = _tenth_below(self.max_size), _tenth_below(self.max_bytes)
        for key in [call.key for call in self.eviction(survey.candidates(keep))]:
            if not survey.exceeds(size, nbytes):
                break
            evicted += survey.evict(key)
        return evicted

    def to_config(self) -> dict[str, object]:
        """Return the table of the inner cache, with the limits."""
        limits = {"max_size": self.max_size, "max_bytes": self.max_bytes}
        table: dict[str, object] = self.inner.to_config()
        return {**table, **{name: limit for name, limit in limits.items() if limit is not None}}


def _tenth_below(limit: int | None) -> int | None:
    return None if limit is None else limit - limit // 10


class _Survey:
    """What is in a pair of storages, and who refers to what: calls to values, values to buffers."""

    def __init__(self, values: ValueStorage, calls: CallStorage) -> None:
        self._value_storage, self._call_storage = values, calls
        self.values = {entry.key: entry for entry in values.entries()}
        self.calls = {entry.key: entry for entry in calls.entries()}
        self.finished: dict[Digest, CallRecord] = {}
        self.references: Counter[Digest] = Counter()
        self.bytes = sum(entry.size for entry in (*self.values.values(), *self.calls.values()))
        self.tables: dict[Digest, Table] = {}
        self._all_known = True
        for key in self.values:
            self._read_table(key)
        for table in self.tables.values():
            self.references.update(table.references)
        for key, record in self._records(self.calls):
            self.references.update(record.digests())
            if record.result is not None:
                self.finished[key] = record
        # calls that were running a moment ago may have exchanged their lease for a record
        for _, record in self._records(set(calls.keys()) - self.calls.keys()):
            self.references.update(record.digests())

    def _read_table(self, key: Digest) -> None:
        try:
            self.tables[key] = read_table(self._value_storage, key)
        except KeyError:
            pass
        except ParcelError:
            self._all_known = False

    def _records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        for key in keys:
            try:
                record = self._call_storage.get(key)
            except (KeyError, ParcelError):
                continue
            yield key, record

    def exceeds(self, max_size: int | None, max_bytes: int | None) -> bool:
        """Tell whether there is more than that."""
        return min(self.free(max_size, max_bytes)) < 0

    def free(self, max_size: int | None, max_bytes: int | None) -> tuple[float, float]:
        """Return how many calls and bytes there is room for."""
        endless = float("inf")
        return (
            endless if max_size is None else max_size - len(self.finished),
            endless if max_bytes is None else max_bytes - self.bytes,
        )

    def candidates(self, keep: Digest | None) -> list[Candidate]:
        """Return the finished calls, except ``keep``."""
        return [
            Candidate(key, record, self.calls[key].modified)
            for key, record in self.finished.items()
            if key != keep
        ]

    def evict(self, key: Digest) -> bool:
        """Remove a call and the values that only it refers to; tell whether it went.

        What is used, stored or found to be here since this survey stays. So does a value that is
        younger than the call: somebody has found it here who has not left a record yet.
        """
        call = self.calls[key]
        if not self._call_storage.delete_older(key, call.modified):
            return False
        self.bytes -= call.size
        digests = self.finished.pop(key).digests()
        self.references.subtract(digests)
        for digest in digests:
            self._remove_value(digest, call.modified)
        return True

    def _remove_value(self, key: Digest, limit: float) -> None:
        """Remove a value if nothing refers to it, and then the buffers that only it needed."""
        entry, table = self.values.get(key), self.tables.get(key, Table())
        if entry is None or self.references[key] or entry.modified > limit:
            return
        if table.is_buffer and not self._all_known:
            return
        if not self._value_storage.delete_older(key, entry.modified):
            return
        del self.values[key]
        self.bytes -= entry.size
        self.references.subtract(table.references)
        for buffer in table.references:
            self._remove_value(buffer, limit)
