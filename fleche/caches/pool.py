"""Several caches as one, to read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from fleche.caches.base import BaseCache
from fleche.caches.layers import Layers
from fleche.caches.upkeep import Upkeep
from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.digest import Digest
from fleche.errors import Rejected
from fleche.parcel import Parcel
from fleche.storage.base import Capabilities

__all__ = ["CachePool"]


class CachePool(BaseCache):
    """Several caches as one that can only be read: the first that can answer does."""

    def __init__(self, members: Iterable[BaseCache]) -> None:
        """Unite ``members``, asked in this order."""
        super().__init__()
        self._members = Layers(members, self.count)
        self.packing = self.members[0].packing

    @property
    def members(self) -> tuple[BaseCache, ...]:
        """The caches, in the order in which they are asked."""
        return self._members.caches

    @property
    def capabilities(self) -> Capabilities:
        """Read-only; otherwise what any member is."""
        return self._members.capabilities(read_only=True)

    @property
    def read_only(self) -> bool:
        """Always true; nobody need ask the members."""
        return True

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record of the first member that has one."""
        return self._members.first(key, lambda member: member.load_record(key))

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        return self._members.first(key, lambda member: member.fetch(key))

    def load_parcel(self, digest: Digest) -> Parcel:
        """Return the parcel of the first member that has it."""
        return self._members.first(digest, lambda member: member.load_parcel(digest))

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels that a member has, each member asked once."""
        return self._members.load_parcels(digests)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those that no member has."""
        absent = list(digests)
        for member in self.members:
            with self._members.tolerating(member):
                absent = member.missing(absent) if absent else absent
        return absent

    def contains(self, key: Digest | str) -> bool:
        """Tell whether a member can answer ``key``."""
        try:
            return self._members.contains(self.complete(key))
        except KeyError:
            return False

    def expand(self, key: Digest | str) -> Digest:
        """Expand over all members together."""
        return self._members.expand(key)

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        return self._members.shrink(*keys)

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records that one of them has, each asked once."""
        return self._members.load_records(keys)

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match, each once."""
        return self._members.call_keys(template)

    def _query(self, call: QueryCall) -> Iterable[LazyCall]:
        return self._members.query(call, self)

    def save_record(self, key: Digest, record: CallRecord) -> NoReturn:
        """Refuse."""
        raise Rejected(f"{self}: a pool is read-only, {record.name} {key[:12]} not saved")

    def save_parcel(self, digest: Digest, parcel: Parcel) -> NoReturn:
        """Refuse."""
        raise Rejected(f"{self}: a pool is read-only, {digest[:12]} {parcel!r} not saved")

    def evict(self, key: Digest | str) -> NoReturn:
        """Refuse."""
        raise Rejected(f"{self}: a pool is read-only, {key[:12]} not evicted")

    def stores(self) -> tuple[Upkeep, ...]:
        """Return the stores of all members."""
        return tuple(store for member in self.members for store in member.stores())

    def to_config(self) -> dict[str, Any]:
        """Return the table with the configurations of the members."""
        return {"pool": [member.to_config() for member in self.members]}

    def close(self) -> None:
        """Close every member."""
        self._members.close()

    def __repr__(self) -> str:
        return f"CachePool({', '.join(map(repr, self.members))})"
