"""The cache on this machine: one storage for values, one for calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fleche.caches import housekeeping
from fleche.caches._reports import GcReport, RedigestReport, StatsReport, VerifyReport
from fleche.caches.base import GRACE, LEASE_AGE, BaseCache, LayerPolicy, Progress
from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.digest import Digest
from fleche.errors import ParcelError
from fleche.parcel import Parcel
from fleche.storage.base import (
    SHORTEST,
    CallStorage,
    Capabilities,
    ValueStorage,
    expand_among,
    shrink_among,
    shrink_sorted,
)

__all__ = ["Cache"]

_MANY = 500
"""To shrink so many keys, it is quicker to list everything once. Leases count as calls then."""


class Cache(BaseCache):
    """Calls in one storage, their values in another.

    Attributes:
        values: parcels by the digest of the value.
        calls: records by the key of the call.
    """

    def __init__(
        self, values: ValueStorage, calls: CallStorage, *, policy: LayerPolicy | None = None
    ) -> None:
        """Keep values in ``values`` and calls in ``calls``.

        Args:
            values: says how values are packed, and whose signatures count.
            calls: may be of another kind.
            policy: how a stack treats this cache.
        """
        super().__init__()
        self.values = values
        self.calls = calls
        self.claims = calls.claims
        self.packing = values.packing.with_environment()
        if policy is not None:
            self.policy = policy

    @property
    def capabilities(self) -> Capabilities:
        """What both storages are."""
        values, calls = self.values.capabilities, self.calls.capabilities
        return Capabilities(
            read_only=values.read_only or calls.read_only,
            persistent=values.persistent and calls.persistent,
            shared=values.shared and calls.shared,
            opens_parcels=values.opens_parcels or calls.opens_parcels,
        )

    # -- calls and values --------------------------------------------------------------------------

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record of a finished call."""
        record = self.calls.get(key)
        if record.result is None:
            raise KeyError(key)
        return record

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records of those finished calls that are here, read in batches."""
        found = self.calls.get_many(keys)
        return ((key, record) for key, record in found if record.result is not None)

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record, or a lease."""
        self.check_writable("save")
        self.calls.put(key, record)

    def save_records(self, records: Mapping[Digest, CallRecord]) -> None:
        """Store records, together where the storage can."""
        self.check_writable("save")
        self.calls.put_many(records)

    def load_parcel(self, digest: Digest) -> Parcel:
        """Return the parcel of a value."""
        return self.values.get(digest)

    def references(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, tuple[Digest, ...]]]:
        """Yield which buffers values need, as their tables tell; nothing else of them is read."""
        return ((digest, table.references) for digest, table in self.values.tables(digests))

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store the parcel of a value."""
        self.check_writable("save")
        self.values.put(digest, parcel)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those that are not here, and renew the others."""
        if self.read_only:
            return self.values.missing(digests)
        return self.values.renew_many(digests)

    def contains(self, key: Digest | str) -> bool:
        """Tell whether the call and its result are both here, or the value is."""
        try:
            full = self.complete(key)
            if self.values.contains(full):
                return True
            result = self.load_record(full).result
        except (KeyError, ParcelError):
            return False
        return result is not None and self.values.contains(result)

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Tell for each key what :meth:`contains` tells; records are read in batches."""
        wanted = list(keys)
        full = [key for key in wanted if Digest(key).is_full]
        try:
            records = dict(self.calls.get_many(full))
        except ParcelError:  # which one is damaged takes looking at each
            return super().contains_many(wanted)
        holders = {key: records[key].result or key if key in records else key for key in full}
        absent = set(self.values.missing(dict.fromkeys(holders.values())))
        return [
            holders[key] not in absent if key in holders else self.contains(key) for key in wanted
        ]

    def evict(self, key: Digest | str) -> None:
        """Forget a call, or a value."""
        self.check_writable("evict")
        full = self.complete(key)
        storages = [store for store in (self.calls, self.values) if store.contains(full)]
        if not storages:
            raise KeyError(key)
        for storage in storages:
            storage.delete(full)

    # -- short digests -----------------------------------------------------------------------------

    def expand(self, key: Digest | str) -> Digest:
        """Expand over calls and values together."""
        return expand_among(key, self._matching(Digest(key)))

    def _matching(self, prefix: Digest) -> Iterator[Digest]:
        """Yield the finished calls and the values that begin with ``prefix``."""
        if prefix.is_full:
            calls: Iterable[Digest] = [prefix] if self.calls.contains(prefix) else []
            values: Iterable[Digest] = [prefix] if self.values.contains(prefix) else []
        else:
            calls, values = self.calls.matching(prefix), self.values.matching(prefix)
        yield from (key for key in calls if self._is_finished(key))
        yield from values

    def _is_finished(self, key: Digest) -> bool:
        """Tell a call from a lease."""
        try:
            return self.calls.get(key).result is not None
        except KeyError:
            return False
        except ParcelError:
            return True

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        full = [self.complete(key) for key in keys]
        if len(full) < _MANY:
            return tuple(map(self._shrink_one, full))
        everything = sorted({*self.calls.keys(), *self.values.keys()})
        return tuple(shrink_sorted(key, everything) for key in full)

    def _shrink_one(self, key: Digest) -> Digest:
        prefix = Digest(key[:SHORTEST])
        near = [*self.calls.matching(prefix), *self.values.matching(prefix)]
        short = shrink_among(key, near)
        # leases stand in nobody's way, but to tell them apart takes reading them
        return short if len(short) == SHORTEST else shrink_among(key, self._matching(prefix))

    # -- searching ---------------------------------------------------------------------------------

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match; if all do, without reading a record."""
        return self.calls.keys() if template == QueryCall() else super().call_keys(template)

    def _query(self, call: QueryCall) -> Iterator[LazyCall]:
        for key, record in self.calls.query(call):
            yield LazyCall(key, record, self)

    # -- housekeeping ------------------------------------------------------------------------------

    def stores(self) -> tuple[BaseCache, ...]:
        """Return this cache."""
        return (self,)

    def gc(
        self,
        grace: float = GRACE,
        *,
        lease_age: float = LEASE_AGE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Remove the values that no call refers to; see :meth:`BaseCache.gc`."""
        self.check_writable("gc")
        return housekeeping.collect(
            self.values,
            self.calls,
            grace=grace,
            lease_age=lease_age,
            dry_run=dry_run,
            progress=progress,
        )

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Check every entry; see :meth:`BaseCache.verify`."""
        if repair:
            self.check_writable("repair")
        return housekeeping.verify(
            self.values, self.calls, self.packing.keys, repair=repair, progress=progress
        )

    def redigest(
        self, *, unpickle: bool = True, progress: Progress | None = None
    ) -> RedigestReport:
        """File calls anew whose key does not match; see :meth:`BaseCache.redigest`."""
        self.check_writable("redigest")
        packing = self.packing if unpickle else None
        return housekeeping.redigest(self.values, self.calls, packing, progress=progress)

    def measure(self, progress: Progress | None = None) -> StatsReport:
        """Count entries and bytes; see :meth:`BaseCache.measure`."""
        return housekeeping.measure(self.values, self.calls, progress=progress)

    # -- the whole ---------------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this cache."""
        return {
            "values": self.values.to_config(),
            "calls": self.calls.to_config(),
            **self.policy.to_config(),
        }

    def close(self) -> None:
        """Close both storages."""
        try:
            self.values.close()
        finally:
            self.calls.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values!r}, {self.calls!r})"
