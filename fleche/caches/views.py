"""Caches that show another cache in a different light."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import msgspec

from fleche.caches._reports import GcReport, RedigestReport, StatsReport, VerifyReport
from fleche.caches.base import GRACE, LEASE_AGE, BaseCache, Progress, register_view
from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.claims import Claims
from fleche.digest import Digest
from fleche.errors import Rejected
from fleche.parcel import Parcel
from fleche.storage.base import Capabilities
from fleche.table import started

__all__ = ["CacheView", "FilteredCache", "ReadOnlyCache", "RefreshingCache"]


class CacheView(BaseCache):
    """Another cache, unaltered: what the views below have in common.

    Attributes:
        inner: the cache that is viewed.
    """

    def __init__(self, inner: BaseCache) -> None:
        """View ``inner``."""
        super().__init__()
        self.inner = inner
        self.packing = inner.packing
        self.policy = inner.policy
        self.claims = inner.claims

    @property
    def capabilities(self) -> Capabilities:
        """What the inner cache is."""
        return self.inner.capabilities

    @property
    def read_only(self) -> bool:
        """Whether the inner cache refuses every save."""
        return self.inner.read_only

    @property
    def opens_parcels(self) -> bool:
        """Whether the inner cache takes apart what is saved."""
        return self.inner.opens_parcels

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record."""
        return self.inner.load_record(key)

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        return self.inner.fetch(key)

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store the record."""
        self.check_writable("save")
        self.inner.save_record(key, record)

    def load_parcel(self, digest: Digest) -> Parcel:
        """Return the parcel."""
        return self.inner.load_parcel(digest)

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store the parcel."""
        self.check_writable("save")
        self.inner.save_parcel(digest, parcel)

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels of those that are here."""
        return self.inner.load_parcels(digests)

    def references(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, tuple[Digest, ...]]]:
        """Yield which buffers values need."""
        return self.inner.references(digests)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those that are not here."""
        return self.inner.missing(digests)

    def contains(self, key: Digest | str) -> bool:
        """Tell whether ``key`` can be answered."""
        return self.inner.contains(key)

    def evict(self, key: Digest | str) -> None:
        """Forget ``key``."""
        self.check_writable("evict")
        self.inner.evict(key)

    def drop(self, key: Digest) -> None:
        """Remove an entry from where saves go."""
        self.check_writable("evict")
        self.inner.drop(key)

    def expand(self, key: Digest | str) -> Digest:
        """Expand a short digest; what a view hides still counts."""
        return self.inner.expand(key)

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        return self.inner.shrink(*keys)

    def _query(self, call: QueryCall) -> Iterator[LazyCall]:
        for found in self.inner.query(call):
            yield found.bind(self)

    def stores(self) -> tuple[BaseCache, ...]:
        """Return this view, if there is something behind it to keep in order."""
        return (self,) if self.inner.stores() else ()

    def gc(
        self,
        grace: float = GRACE,
        *,
        lease_age: float = LEASE_AGE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Collect the garbage of the inner cache."""
        self.check_writable("gc")
        return self.inner.gc(grace, lease_age=lease_age, dry_run=dry_run, progress=progress)

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Check the inner cache."""
        if repair:
            self.check_writable("repair")
        return self.inner.verify(repair, progress=progress)

    def redigest(
        self, *, unpickle: bool = True, progress: Progress | None = None
    ) -> RedigestReport:
        """File the calls of the inner cache anew."""
        self.check_writable("redigest")
        return self.inner.redigest(unpickle=unpickle, progress=progress)

    def measure(self, progress: Progress | None = None) -> StatsReport:
        """Count entries and bytes of the inner cache, what a view hides included."""
        return self.inner.measure(progress)

    def to_config(self) -> Any:
        """Return the configuration of the inner cache; this view has no form of its own."""
        return self.inner.to_config()

    def close(self) -> None:
        """Close the inner cache."""
        self.inner.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


class ReadOnlyCache(CacheView):
    """A cache that refuses every save and every evict."""

    @property
    def capabilities(self) -> Capabilities:
        """What the inner cache is, but read-only."""
        return replace(self.inner.capabilities, read_only=True)

    @property
    def read_only(self) -> bool:
        """Always true; nobody need ask the inner cache."""
        return True

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those that are not here; the others stay as old as they are.

        To ask the inner cache what is missing would make them younger: a change, and of use only to
        who stores something.
        """
        wanted = list(digests)
        here = self.inner.contains_many(wanted)
        return [digest for digest, is_here in zip(wanted, here, strict=True) if not is_here]

    def fetch_many(
        self, keys: Iterable[Digest]
    ) -> Iterator[tuple[Digest, CallRecord, Parcel | None]]:
        """Yield what the inner cache has."""
        return self.inner.fetch_many(keys)

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Tell for each key whether it can be answered."""
        return self.inner.contains_many(keys)

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records that the inner cache has."""
        return self.inner.load_records(keys)

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match."""
        return self.inner.call_keys(template)

    def to_config(self) -> Any:
        """Return the configuration of the inner cache, each of its tables read-only."""
        config = self.inner.to_config()
        tables = config if isinstance(config, list) else [config]
        marked = [{**table, "read_only": True} for table in tables]
        return marked if isinstance(config, list) else marked[0]


class FilteredCache(CacheView):
    """A cache of which only some calls are visible, and which accepts no others.

    Values are not filtered: whoever knows a digest may have the value.
    """

    def __init__(self, inner: BaseCache, rule: QueryCall | Callable[[LazyCall], Any]) -> None:
        """Filter ``inner``.

        Args:
            inner: any cache.
            rule: a template, or a function that is true for the calls that count. It is asked
                often, and had better not load values.
        """
        super().__init__(inner)
        self.rule = rule

    def _shows(self, call: LazyCall) -> bool:
        rule = self.rule
        return rule.matches(call.record) if isinstance(rule, QueryCall) else bool(rule(call))

    def _accepts(self, call: LazyCall) -> bool:
        """Tell whether a call that is saved, or a lease that may become one, matches."""
        if call.record.result is not None:
            return self._shows(call)
        if not isinstance(self.rule, QueryCall):
            return True  # what the rule looks at may be known only when the call has returned
        begun = msgspec.structs.replace(self.rule, result=None, metadata={})
        return begun.matches(call.record.replace(result=call.key))

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record if it matches."""
        return self._check_shown(key, self.inner.load_record(key))

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        record, parcel = self.inner.fetch(key)
        return self._check_shown(key, record), parcel

    def _check_shown(self, key: Digest, record: CallRecord) -> CallRecord:
        if not self._shows(LazyCall(key, record, self.inner)):
            raise KeyError(key)
        return record

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store the record if it matches."""
        self.check_writable("save")
        if not self._accepts(LazyCall(key, record, self.inner)):
            raise Rejected(
                f"{self}: {record.name} {key[:12]} does not match the filter, save refused"
            )
        self.inner.save_record(key, record)

    def contains(self, key: Digest | str) -> bool:
        """Tell whether a call that matches, or a value, is here."""
        return self.inner.contains(key) and not self._hides(key)

    def evict(self, key: Digest | str) -> None:
        """Forget a call that matches, or a value."""
        self.check_writable("evict")
        if self._hides(key):
            raise KeyError(key)
        self.inner.evict(key)

    def _hides(self, key: Digest | str) -> bool:
        """Tell whether ``key`` is a call that does not match."""
        full = self.complete(key)
        try:
            record = self.inner.load_record(full)
        except KeyError:
            return False
        return not self._shows(LazyCall(full, record, self.inner))

    def _query(self, call: QueryCall) -> Iterator[LazyCall]:
        for found in self.inner.query(call):
            if self._shows(found):
                yield found.bind(self)


class RefreshingCache(CacheView):
    """A cache that hides what it knew, so that results are computed anew and replace the old ones.

    A call is missing until it has been saved through this view; from then on it is found. Queries
    see everything.
    """

    def __init__(self, inner: BaseCache, older_than: datetime | None = None) -> None:
        """Refresh ``inner``.

        Args:
            inner: any cache.
            older_than: refresh only calls that began before this time (local, if it has no zone) or
                do not say when they began.
        """
        super().__init__(inner)
        self.claims = Claims()  # what others compute meanwhile would be hidden as well
        self.older_than = older_than.astimezone(timezone.utc) if older_than else None
        self._fresh: set[Digest] = set()

    def _is_fresh(self, key: Digest, record: CallRecord) -> bool:
        if key in self._fresh:
            return True
        when = started(record)
        return self.older_than is not None and when is not None and when >= self.older_than

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record if it is fresh."""
        return self._check_fresh(key, self.inner.load_record(key))

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        if self.older_than is None and key not in self._fresh:
            raise KeyError(key)
        record, parcel = self.inner.fetch(key)
        return self._check_fresh(key, record), parcel

    def _check_fresh(self, key: Digest, record: CallRecord) -> CallRecord:
        if not self._is_fresh(key, record):
            raise KeyError(key)
        return record

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store the record; it is fresh."""
        self.check_writable("save")
        self.inner.save_record(key, record)
        self._fresh.add(key)

    def contains(self, key: Digest | str) -> bool:
        """Tell whether a fresh call, or a value, is here."""
        if not self.inner.contains(key):
            return False
        full = self.complete(key)
        try:
            record = self.inner.load_record(full)
        except KeyError:
            return True
        return self._is_fresh(full, record)


register_view("read_only", ReadOnlyCache)
register_view("filtered", FilteredCache)
