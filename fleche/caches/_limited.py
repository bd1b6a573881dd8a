"""A cache that forgets what was not used for longest, so as to stay within limits.

A value is removed along with the last call that needs it, at once: there is no time of grace for
it, as in :mod:`fleche.caches.maintenance`. What others rely on stays all the same:

- A call that is running has left a pin before it stored, or found here, what it did not keep
  itself. Values are listed before calls: an argument that was found here before its age was seen
  has a pin or an entry by then, and one that was found later is younger than what is removed.
- A value that is younger than the call that goes was found here for a call whose entry has not come
  yet.
- The very value may be needed elsewhere at this moment, and only the entry will tell. The one who
  saves it looks once more when the entry is there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain
from threading import RLock
from typing import Any, TypeAlias

from fleche._amounts import as_age, as_bytes
from fleche._util import batched, is_held_here, override, renewed_after_fork
from fleche.caches._backend import INLINE, CacheBackend, Entries, Loaded, Parcels, result_needs
from fleche.caches._local import Cache, LocalBackend
from fleche.caches._views import CacheView, ViewBackend
from fleche.caches.maintenance import Gc, GcReport, ReferenceIndex, StoredValues, needs_of
from fleche.call import CallEntry, CallRecord, ValueRef
from fleche.digest import Address, Digest
from fleche.errors import ParcelError, Rejected, StorageError
from fleche.parcel import Parcel
from fleche.storage import BufferRefs, CallStorage, ValueStorage

__all__ = [
    "Candidate",
    "Eviction",
    "SizeLimitedBackend",
    "SizeLimitedCache",
    "least_recently_used",
]

log = logging.getLogger("fleche.caches")

_ENDLESS = float("inf")
_BATCH = 500


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


class Headroom:
    """What may be saved before it is to be looked up again how full the cache is.

    It is a tenth of what was free the last time: others save too.
    """

    SHARE = 10
    LOOK_AGAIN = 60.0
    """Seconds after which others may have filled what was free."""

    def __init__(self) -> None:
        self._calls = self._bytes = 0.0
        self._until = 0.0
        self._lock = renewed_after_fork(RLock())

    def spend(self, *, calls: int = 0, size: int = 0) -> bool:
        """Take from it; return whether it lasts."""
        with self._lock:
            self._calls -= calls
            self._bytes -= size
            return self._calls >= 0 and self._bytes >= 0 and time.monotonic() < self._until

    def renew(self, calls: float, size: float) -> None:
        """Set it to a tenth of what is free."""
        with self._lock:
            self._calls, self._bytes = calls / self.SHARE, size / self.SHARE
            self._until = time.monotonic() + self.LOOK_AGAIN


class EvictionState:
    """The pins and the leftovers of the calls of one process, and how much it may still save.

    Attributes:
        headroom: what may be saved before the next look.
        making_room: held while one thread looks.
        pinned: what each pin protects.
    """

    MOST = 10_000
    """So many leftovers are remembered; the oldest, which gc() takes first, are forgotten first."""

    def __init__(self) -> None:
        self.headroom = Headroom()
        self.making_room = renewed_after_fork(RLock())
        self.pinned: dict[Digest, tuple[Address, ...]] = {}
        self._leftovers: dict[str, float] = {}
        self._warnings: set[str] = set()
        self._lock = renewed_after_fork(RLock())

    def leave(self, addresses: Iterable[str], limit: float) -> None:
        """Remember values that no call needs any more, for all that is known here.

        Args:
            addresses: of the values.
            limit: a time; what is found here after it is needed again.
        """
        with self._lock:
            for address in addresses:
                self._leftovers[address] = max(limit, self._leftovers.pop(address, limit))
            while len(self._leftovers) > self.MOST:
                del self._leftovers[next(iter(self._leftovers))]

    def take_leftovers(self) -> Mapping[str, float]:
        """Return the values that were left, each with its limit, and forget them."""
        with self._lock:
            taken, self._leftovers = self._leftovers, {}
        return taken

    def is_new(self, warning: str) -> bool:
        """Return whether this was not asked before."""
        known = warning in self._warnings
        self._warnings.add(warning)
        return not known

    def settle(self) -> None:
        """Take note that all is well again, so that the next warning is said."""
        self._warnings.clear()


class SizeLimitedBackend(ViewBackend):
    """A local backend that stays within limits; see :class:`SizeLimitedCache`."""

    inner: LocalBackend

    def __init__(
        self,
        inner: LocalBackend,
        max_size: int | None = None,
        max_bytes: int | str | None = None,
        eviction: Eviction = least_recently_used,
        max_age: timedelta | str | None = None,
    ) -> None:
        """Limit ``inner``; see :class:`SizeLimitedCache`."""
        super().__init__(inner)
        max_bytes = None if max_bytes is None else as_bytes(max_bytes)
        self.max_age = None if max_age is None else as_age(max_age)
        if not isinstance(max_size, int | None) or isinstance(max_size, bool):
            raise TypeError(f"max_size is a number of calls, not {max_size!r}")
        for name, limit in (("max_size", max_size), ("max_bytes", max_bytes)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is at least 1, not {limit}")
        if self.max_age == timedelta(0):
            raise ValueError("max_age is longer than no time")
        self.max_size = max_size
        self.max_bytes = max_bytes
        self.eviction = eviction
        self._values, self._calls = inner.values, inner.calls
        self._states: dict[int, EvictionState] = {}

    @property
    def _here(self) -> EvictionState:
        """What this process knows. A forked child begins anew, with locks that no thread holds."""
        process = os.getpid()
        return self._states.get(process) or self._states.setdefault(process, EvictionState())

    # -- calls and values --------------------------------------------------------------------------

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        for batch in batched(keys, _BATCH):
            found = list(self.inner.load(batch, inline=inline))
            used = [key for key, entry in found if isinstance(entry, CallEntry)]
            if used and inline and not self.read_only:  # else it is only looked at
                self._calls.touch_many(used)
            yield from found

    @override
    def looking_only(self) -> CacheBackend:
        return self.inner

    @override
    def check_accepts(self, key: Digest, record: CallRecord) -> None:
        super().check_accepts(key, record)
        if record.result is not None:
            self._check_sizes([record.result])
        else:
            self._check_sizes(record.values())

    def _check_sizes(self, refs: Iterable[ValueRef]) -> None:
        """Refuse values that can never fit; compressed, they are looked at when they come."""
        if self.packing.compression is None:
            for ref in refs:
                self._check_size(ref.digest, ref.size)

    def _check_size(self, digest: str, size: int) -> None:
        if self.max_bytes is not None and size > self.max_bytes:
            raise Rejected(
                f"{self}: value {digest[:12]} takes {size} bytes, "
                f"and max_bytes is {self.max_bytes}; not saved"
            )

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        self.check_writable("save")
        here = self._here
        finished = {key: each for key, each in entries.items() if not each.record.is_pin}
        for entry in finished.values():
            if entry.record.result is not None:
                self._check_sizes([entry.record.result])
        last = self._last(finished) if finished else {}
        self.inner.save(entries, self._measured(parcels), unpin=unpin)
        for key, entry in entries.items():
            if entry.record.is_pin:
                here.pinned[key] = needs_of(entry)
        self._settle(finished, last)
        now = time.time()
        for pin in unpin:
            needed = {each for entry in finished.values() for each in needs_of(entry)}
            left = here.pinned.pop(pin, ())
            here.leave((each for each in left if each not in needed), now)
        size = sum(len(data) for entry in entries.values() for data in entry.parcels.values())
        lasts = here.headroom.spend(calls=len(finished), size=size)
        if not lasts and (finished or unpin):
            self.make_room(list(finished)[-1:])

    def _settle(
        self,
        finished: Mapping[Digest, CallEntry],
        last: Mapping[Digest, tuple[tuple[Address, ...], float]],
    ) -> None:
        """Look once more whether what calls need is here, and note what earlier ones have left.

        Until now, nothing but its age has kept a result, and others that had used it may have
        evicted it. Then the call goes, too.
        """
        here = self._here
        needs = {key: needs_of(entry) for key, entry in finished.items()}
        for key, (left, used) in last.items():
            here.leave((each for each in left if each not in needs[key]), used)
        wanted = list(dict.fromkeys(each for needed in needs.values() for each in needed))
        if not wanted:
            return
        buffers = self._buffers_of(wanted)
        asked = dict.fromkeys([*wanted, *(each for found in buffers.values() for each in found)])
        gone = set(self.inner.lacking(asked, keep=True))
        torn = [key for key, found in buffers.items() if not gone.isdisjoint(found)]
        if torn:  # nothing can be made of them
            self._values.delete_many(torn)
            gone.update(torn)
        lost = [key for key, entry in finished.items() if not gone.isdisjoint(result_needs(entry))]
        if lost:
            self._calls.delete_many(lost)
        # a call is no older than its values, or they would outlive it
        stay = {key: finished[key] for key in finished if needs[key] and key not in lost}
        if self._calls.capabilities.touches:
            self._calls.touch_many(stay)
        else:
            self._calls.put_many(stay.items())

    def _buffers_of(self, addresses: Iterable[Address]) -> dict[Address, tuple[Address, ...]]:
        """Return the buffers that those of the values need that need any."""
        mains = [each for each in addresses if each.variant]
        return {
            str.__new__(Address, key): refs.references
            for key, refs in self._values.buffer_refs(mains)
            # what cannot be read was put there by others; loading it says so
            if isinstance(refs, BufferRefs) and refs.references
        }

    def _measured(self, parcels: Parcels) -> Iterator[tuple[Address, Parcel]]:
        """Yield parcels; refuse one for which, with its buffers, there can never be room."""
        for address, parcel in parcels:
            try:
                self._check_size(address.digest, self._size(parcel))
            except Rejected:
                self._here.leave(parcel.references, time.time())
                parcel.close()
                raise
            self._here.headroom.spend(size=parcel.nbytes)
            yield address, parcel

    def _size(self, parcel: Parcel) -> int:
        """Return the size of a parcel with its buffers, which have come before it."""
        most = parcel.nbytes_with_buffers
        if self.max_bytes is None or most <= self.max_bytes or self.packing.compression is None:
            return most
        # compressed they are smaller than their content, and one may be there several times
        return parcel.nbytes + sum(
            entry.size for each in parcel.references for entry in self._values.entries(each)
        )

    # -- what calls leave behind -------------------------------------------------------------------

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        last = self._last([key for key in keys if not isinstance(key, Address)])
        there = self.inner.evict(keys)
        for left, used in last.values():
            self._here.leave(left, used)
        return there

    def _last(self, keys: Iterable[Digest]) -> dict[Digest, tuple[tuple[Address, ...], float]]:
        """Return what the calls need that are here under ``keys``, and when each was last used."""
        found: dict[Digest, tuple[tuple[Address, ...], float]] = {}
        for key, entry in self.inner.load(list(keys), inline=0):
            if isinstance(entry, CallEntry) and (needs := needs_of(entry)):
                for known in self._calls.entries(key):
                    found[key] = needs, known.modified
        return found

    # -- making room -------------------------------------------------------------------------------

    def make_room(self, keep: Iterable[Digest] = ()) -> int:
        """Evict until the limits hold; return how many calls went.

        Args:
            keep: calls that stay in any case.
        """
        here = self._here
        kept = set(keep)
        if is_held_here(here.making_room):  # by what a signal handler, or a finalizer, interrupts
            return 0
        with here.making_room:
            evicted = self._evict_aged(kept) if self.max_age is not None else 0
            free = self._look()
            if min(free) < 0:
                try:
                    free, more = self._evict(kept)
                    evicted += more
                except ParcelError as error:
                    self._warn(
                        "no room is made, since it is not known which buffers a value needs; "
                        f"evict() what is in verify().untrusted if it is not used ({error})"
                    )
                    free = (_ENDLESS, _ENDLESS)
            here.headroom.renew(*free)
        self.count("evicted", evicted)
        return evicted

    def _evict_aged(self, keep: set[Digest]) -> int:
        """Evict what was not used for too long; return how many calls went."""
        assert self.max_age is not None
        limit = self._calls.now() - self.max_age.total_seconds()
        if not any(entry.modified < limit for entry in self._calls.entries()):
            return 0
        try:
            room = _Room(self._values, self._calls)
        except ParcelError as error:
            self._warn(f"what is too old stays, since it is not known what a value needs ({error})")
            return 0
        aged = [call.key for call in room.candidates(keep) if call.used < limit]
        for key in aged:
            room.count(key, -1)
        return room.evict(aged) if aged else 0

    def _look(self) -> tuple[float, float]:
        """Return how much is free if all that is here counts; no entry is read for that."""
        number, nbytes = 0, 0
        for entry in self._calls.entries():
            number += 1
            nbytes += entry.size
        if self.max_bytes is not None:
            nbytes += sum(entry.size for entry in self._values.entries())
        return self._free(number, nbytes)

    def _free(self, calls: int, nbytes: int) -> tuple[float, float]:
        """Return for how many more calls and bytes there is room."""
        return (
            _ENDLESS if self.max_size is None else self.max_size - calls,
            _ENDLESS if self.max_bytes is None else self.max_bytes - nbytes,
        )

    def _evict(self, keep: set[Digest]) -> tuple[tuple[float, float], int]:
        """Remove what nothing needs, then evict; return what is free then, and how many went."""
        room = _Room(self._values, self._calls)
        room.remove(self._here.take_leftovers())
        if self._collect():
            room = _Room(self._values, self._calls)
        evicted = 0
        if min(self._free(room.calls, room.bytes)) < 0:
            evicted = self._evict_oldest(room, keep)
        return self._free(room.calls, room.bytes), evicted

    def _collect(self) -> int:
        """Remove what nothing refers to, if that is known; return how much it was."""
        try:
            report = self.inner.maintain(Gc())
        except StorageError as error:
            self._warn(f"what nothing needs is not collected: {error}")
            return 0
        assert isinstance(report, GcReport)
        self._here.settle()
        return report.removed

    def _warn(self, text: str) -> None:
        """Log what is wrong, the first time as a warning."""
        level = logging.WARNING if self._here.is_new(text) else logging.DEBUG
        log.log(level, "%s: %s", self, text)

    def _evict_oldest(self, room: _Room, keep: set[Digest]) -> int:
        """Evict until a tenth is free; return how many calls went."""
        order = iter([call.key for call in self.eviction(room.candidates(keep))])
        evicted = 0
        while chosen := self._choose(room, order):
            evicted += room.evict(chosen)
        return evicted

    def _choose(self, room: _Room, order: Iterator[Digest]) -> list[Digest]:
        """Return the next calls to go, as many as it takes; they no longer count."""
        chosen: list[Digest] = []
        for key in order:
            calls, nbytes = self._free(room.calls, room.bytes)
            if calls >= (self.max_size or 0) // 10 and nbytes >= (self.max_bytes or 0) // 10:
                break
            room.count(key, -1)
            chosen.append(key)
        return chosen

    @override
    def to_config(self) -> dict[str, Any]:
        age = None if self.max_age is None else f"{self.max_age.total_seconds():.15g}s"
        limits = {"max_size": self.max_size, "max_bytes": self.max_bytes, "max_age": age}
        table = self.inner.to_config()
        return {**table, **{name: limit for name, limit in limits.items() if limit is not None}}


class _Room:
    """What is in a pair of storages, and which call needs what.

    Attributes:
        calls: how many calls have returned.
        bytes: the size of those, and of the values that they need. What running calls need, or
            nothing, does not count: it would not go with a call.
    """

    def __init__(self, values: ValueStorage, calls: CallStorage) -> None:
        """Look through ``values`` and ``calls``.

        Raises:
            ParcelError: it is not known which buffers a value needs; a newer fleche has put it
                there.
        """
        self._values, self._calls = values, calls
        self._stored = StoredValues(values)
        if self._stored.unknown:
            raise self._stored.unknown[0]
        self._entries, self._buffers = self._stored.entries, self._stored.buffers
        self._ages = {entry.key: entry for entry in calls.entries()}
        self._held = Counter(chain.from_iterable(self._buffers.values()))  # by the values here
        self._needed: Counter[str] = Counter()  # by calls that have returned, and their values
        self._index = ReferenceIndex(calls)
        self.calls = self.bytes = 0
        self._records: dict[str, CallRecord] = {}
        for key, entry in self._index.walk(self._ages):
            if not entry.record.is_pin:
                self._records[key] = entry.record
                self.count(key, 1)
        # calls that were running a moment ago may have exchanged their pin for an entry
        known = set(self._index.needs)
        self._index.read()
        running = (self._index.needs.keys() - known) | self._index.pins
        self._pinned = {
            address for key in running for address in self._stored.needed(self._index.needs[key])
        }

    def count(self, key: str, by: int) -> None:
        """Count a call as here (1), or as gone (-1)."""
        self.calls += by
        self.bytes += by * self._ages[key].size
        for address in self._stored.needed(self._index.needs[key]):
            self._need(address, by)

    def _need(self, address: str, by: int) -> None:
        before = self._needed[address]
        self._needed[address] += by
        if min(before, before + by) == 0 and address in self._entries:
            self.bytes += by * self._entries[address].size
            for buffer in self._buffers.get(address, ()):
                self._need(buffer, by)

    def candidates(self, keep: set[Digest]) -> list[Candidate]:
        """Return the calls that have returned, except those of ``keep``."""
        return [
            Candidate(str.__new__(Digest, key), record, self._ages[key].modified)
            for key, record in self._records.items()
            if key not in keep
        ]

    def evict(self, keys: Sequence[str]) -> int:
        """Remove calls that count as gone, and the values that only they need.

        What is used, stored or found to be here since stays. What others have removed meanwhile is
        counted as gone.

        Returns:
            How many calls were removed here.
        """
        gone = self._calls.delete_older({key: self._ages[key].modified for key in keys})
        rest = [key for key in keys if key not in gone]
        there = self._calls.contains_many(rest) if rest else set()
        limits: dict[str, float] = {}
        for key in keys:
            if key in there:
                self.count(key, 1)
                continue
            for address in self._stored.needed(self._index.needs[key]):
                used = self._ages[key].modified
                limits[address] = max(used, limits.get(address, used))
        self.remove(limits)
        return len(gone)

    def remove(self, limits: Mapping[str, float]) -> None:
        """Remove values that nothing needs, with the buffers that only they needed.

        Args:
            limits: by the address of a value or a buffer a time; what is younger stays.
        """
        while limits:
            chosen = {
                address: self._entries[address].modified
                for address, limit in limits.items()
                if address in self._entries
                and self._entries[address].modified <= limit
                and not (self._needed[address] or address in self._pinned or self._held[address])
            }
            gone = self._values.delete_older(chosen) if chosen else set()
            further: dict[str, float] = {}
            for address in gone:
                del self._entries[address]
                buffers = self._buffers.pop(address, ())
                self._held.subtract(buffers)
                further.update(dict.fromkeys(buffers, limits[address]))
            limits = further


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
    """

    inner: Cache
    backend: SizeLimitedBackend
    _Backend = SizeLimitedBackend

    def __init__(
        self,
        inner: Cache,
        max_size: int | None = None,
        max_bytes: int | str | None = None,
        *,
        max_age: timedelta | str | None = None,
        eviction: Eviction = least_recently_used,
    ) -> None:
        """Limit ``inner``.

        Args:
            inner: a local cache.
            max_size: how many calls are kept.
            max_bytes: how many bytes their records and values may take, as a number or as
                ``"20GB"``.
            max_age: calls that were not used for so long go, within a minute of the next save: a
                :class:`~datetime.timedelta`, or ``"90d"``.
            eviction: which calls go first. What it leaves out stays.

        Raises:
            ValueError: a limit is not positive.
            TypeError: ``inner`` is not local, or a limit is no number.
        """
        if not isinstance(inner, Cache):
            raise TypeError(f"only a cache with storages of its own can be limited, not {inner!r}")
        super().__init__(inner, max_size, max_bytes, eviction, max_age)

    @property
    def max_size(self) -> int | None:
        """How many calls are kept; ``None`` for any number."""
        return self.backend.max_size

    @property
    def max_bytes(self) -> int | None:
        """How many bytes their records and values may take; ``None`` for any number."""
        return self.backend.max_bytes

    @property
    def max_age(self) -> timedelta | None:
        """For how long a call is kept that is not used; ``None`` for ever."""
        return self.backend.max_age

    @property
    def eviction(self) -> Eviction:
        """Which calls go first."""
        return self.backend.eviction

    @eviction.setter
    def eviction(self, eviction: Eviction) -> None:
        self.backend.eviction = eviction

    def make_room(self) -> int:
        """Evict until the limits hold; return how many calls went."""
        return self.backend.make_room()

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), max_age=self.max_age, eviction=self.eviction)
        return make, (self.inner, self.max_size, self.max_bytes)
