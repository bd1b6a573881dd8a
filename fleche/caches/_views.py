"""Caches that show another cache in a different light.

Each is a backend over a backend, which answers every operation with as many of the one behind it,
and a facade over that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from fleche._util import override
from fleche.caches._backend import (
    INLINE,
    CacheBackend,
    Entries,
    Loaded,
    LoadedValues,
    Matches,
    Parcels,
    Progress,
)
from fleche.caches._base import BaseCache
from fleche.caches.maintenance import Report, Task
from fleche.call import CallEntry, CallRecord, LazyCall, QueryCall, ValueRef
from fleche.digest import Address, Digest
from fleche.errors import ParcelError, Rejected
from fleche.storage import Acceptance, Capabilities, LockTable

if TYPE_CHECKING:
    from fleche.parcel import Draft

__all__ = [
    "CacheView",
    "FilteredCache",
    "ReadOnlyCache",
    "RefreshingCache",
    "Rule",
    "ViewBackend",
]

Rule: TypeAlias = "QueryCall | Callable[[LazyCall], Any]"


class ViewBackend(CacheBackend):
    """Another backend, unaltered: what the views below have in common.

    Attributes:
        inner: what is viewed.
    """

    def __init__(self, inner: CacheBackend) -> None:
        """View ``inner``."""
        super().__init__()
        self.inner = inner
        self.packing = inner.packing
        self.policy = inner.policy
        self.locks = inner.locks
        self.local = inner.local
        self.takes_turns = inner.takes_turns

    def _asked(self) -> CacheBackend:
        """Return what knows all that is stored."""
        return self.inner

    @property
    @override
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    @override
    def read_only(self) -> bool:
        return self.inner.read_only

    @property
    @override
    def opens_parcels(self) -> bool:
        return self.inner.opens_parcels

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        return self.inner.load(keys, inline=inline)

    @override
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        return self._asked().load_values(addresses)

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        self.check_writable("save")
        self.inner.save(entries, parcels, unpin=unpin)

    @override
    def draft(self, content: memoryview) -> Draft | None:
        return None if self.read_only else self.inner.draft(content)

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        return self.inner.lacking(addresses, keep=keep)

    @override
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        return self._asked().contains(keys)

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        return self.inner.evict(keys)

    @override
    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        return self._asked().expand(prefixes)

    @override
    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        return self._asked().shrink(keys)

    @override
    def query(self, template: QueryCall, *, keys_only: bool = False) -> Matches:
        return self._asked().query(template, keys_only=keys_only)

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        return self._asked().newest(template, number)

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        if task.changes:
            self.check_writable(type(task).__name__.lower())
        return self.inner.maintain(task, progress)

    @override
    def accepted(self, *, near: bool = False) -> Sequence[Acceptance]:
        return self.inner.accepted(near=near)

    @override
    def check_accepts(self, key: Digest, record: CallRecord) -> None:
        self.check_writable("save")
        self.inner.check_accepts(key, record)

    @override
    def note_damage(self, key: Digest, addresses: Sequence[Address]) -> bool:
        return self.inner.note_damage(key, addresses)

    @override
    def looking_only(self) -> CacheBackend:
        twin = copy.copy(self)
        twin.inner = self.inner.looking_only()
        return twin

    @override
    def to_config(self) -> Any:
        return self.inner.to_config()

    @override
    def close(self) -> None:
        self.inner.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__.removesuffix('Backend')}Cache({self.inner!r})"


class CacheView(BaseCache):
    """Another cache, unaltered; its configuration is that of the other, for a view has none.

    Attributes:
        inner: the cache that is viewed.
    """

    _Backend: ClassVar[type[ViewBackend]] = ViewBackend

    def __init__(self, inner: BaseCache, *how: Any) -> None:
        """View ``inner``; ``how`` are further arguments of the backend."""
        self._how = how
        super().__init__(self._make_backend(inner.backend))
        self.inner = inner

    def _make_backend(self, inner: CacheBackend) -> CacheBackend:
        return self._Backend(inner, *self._how)

    @override
    def _made_from(self) -> tuple[Any, ...]:
        return (self.inner, *self._how)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


class ReadOnlyBackend(ViewBackend):
    """Refuses every save and every evict, and changes nothing by itself."""

    def __init__(self, inner: CacheBackend) -> None:
        """View ``inner``."""
        super().__init__(inner)
        self._shown = inner.looking_only()

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        return self._shown.load(keys, inline=inline)

    @override
    def note_damage(self, key: Digest, addresses: Sequence[Address]) -> bool:
        return self._shown.note_damage(key, addresses)

    @override
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        return self._shown.load_values(addresses)

    @property
    @override
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(self.inner.capabilities, read_only=True)

    @property
    @override
    def read_only(self) -> bool:
        return True  # without asking the inner one, which may be far away

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        # what a reader only looks at stays as old as it is
        return self.inner.lacking(addresses)

    @override
    def to_config(self) -> Any:
        config = self.inner.to_config()
        tables = config if isinstance(config, list) else [config]
        marked = [{**table, "read_only": True} for table in tables]
        return marked if isinstance(config, list) else marked[0]


class ReadOnlyCache(CacheView):
    """A cache that refuses every save and every evict.

    Nothing changes by looking, either: a stack copies nothing down, and no call counts as used.
    """

    _Backend = ReadOnlyBackend


class PartialBackend(ViewBackend):
    """Shows some calls, and all values. What is no call any more, being damaged, is shown."""

    def _shows(self, key: Digest, entry: CallEntry) -> bool:
        raise NotImplementedError

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        for key, entry in self.inner.load(keys, inline=inline):
            if isinstance(entry, ParcelError) or self._shows(key, entry):
                yield key, entry

    @override
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        here = self.inner.contains(keys)
        calls = [
            key
            for key, found in zip(keys, here, strict=True)
            if found and not isinstance(key, Address)
        ]
        shown: set[str] = {key for key, _ in self.load(calls, inline=0)} if calls else set()
        return [
            found and (isinstance(key, Address) or key in shown)
            for key, found in zip(keys, here, strict=True)
        ]


class FilteredBackend(PartialBackend):
    """Shows some calls, and accepts no others. Values are not filtered.

    Attributes:
        rule: a template, or a function that is true for the calls that count.
    """

    def __init__(self, inner: CacheBackend, rule: Rule) -> None:
        """Filter ``inner`` by ``rule``."""
        super().__init__(inner)
        self.rule = rule
        self._opener = BaseCache(inner)

    @override
    def _shows(self, key: Digest, entry: CallEntry) -> bool:
        if isinstance(self.rule, QueryCall):
            return self.rule.matches(entry.record)
        return bool(self.rule(LazyCall(key, entry, self._opener)))

    @override
    def check_accepts(self, key: Digest, record: CallRecord) -> None:
        super().check_accepts(key, record)
        if isinstance(self.rule, QueryCall):
            rule = self.rule
            if record.is_pin:  # the result, the metadata and the calls inside are known later
                rule = msgspec.structs.replace(rule, result=None, metadata={}, uses=())
                record = record.replace(result=ValueRef(key))
            if not rule.matches(record):
                self._refuse(key, record)

    def _refuse(self, key: Digest, record: CallRecord) -> None:
        raise Rejected(f"{self}: {record.name} {key[:12]} does not match the filter, save refused")

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        self.check_writable("save")
        for key, entry in entries.items():
            if not entry.record.is_pin and not self._shows(key, entry):
                self._refuse(key, entry.record)
        self.inner.save(entries, parcels, unpin=unpin)

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        calls = [key for key in keys if not isinstance(key, Address)]
        hidden = {
            key
            for key, entry in (self.inner.load(calls, inline=0) if calls else ())
            if isinstance(entry, CallEntry) and not self._shows(key, entry)
        }
        shown = [isinstance(key, Address) or key not in hidden for key in keys]
        asked = [key for key, is_shown in zip(keys, shown, strict=True) if is_shown]
        there = iter(self.inner.evict(asked) if asked else ())
        return [is_shown and next(there) for is_shown in shown]

    @override
    def query(self, template: QueryCall, *, keys_only: bool = False) -> Matches:
        both = self._merged(template)
        if both is not None:
            yield from self.inner.query(both, keys_only=keys_only)
            return
        for key, entry in self.inner.query(template):
            if entry is not None and self._shows(key, entry):
                yield key, entry

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        both = self._merged(template)
        if both is not None:
            return self.inner.newest(both, number)
        return CacheBackend.newest(self, template, number)

    def _merged(self, template: QueryCall) -> QueryCall | None:
        """Return the template of what matches and is shown, if one can say that."""
        if not isinstance(self.rule, QueryCall):
            return None
        try:
            return template.merged(self.rule)
        except ValueError:  # two conditions on one field
            return None


class FilteredCache(CacheView):
    """A cache of which only some calls are visible, and which accepts no others.

    Values are not filtered: a digest is enough to get one.

    Attributes:
        rule: a template, or a function that is true for the calls that count.
    """

    _Backend = FilteredBackend

    def __init__(self, inner: BaseCache, rule: Rule) -> None:
        """Filter ``inner``.

        Args:
            inner: any cache.
            rule: a template, or a function that is true for the calls that count. It is asked
                often, and had better not load values.
        """
        self.rule = rule
        super().__init__(inner, rule)


class RefreshingBackend(PartialBackend):
    """Hides what it knew; a call is missing until it has been saved through this view."""

    def __init__(self, inner: CacheBackend, older_than: datetime | None = None) -> None:
        """Refresh ``inner``; see :class:`RefreshingCache`."""
        super().__init__(inner)
        self.locks = LockTable()  # what others compute meanwhile would be hidden as well
        self.older_than = older_than.astimezone(timezone.utc) if older_than else None
        self._fresh: set[Digest] = set()

    @override
    def _shows(self, key: Digest, entry: CallEntry) -> bool:
        if key in self._fresh:
            return True
        when = entry.record.began
        return self.older_than is not None and when is not None and when >= self.older_than

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        if self.older_than is None:
            keys = [key for key in keys if key in self._fresh]
        return super().load(keys, inline=inline) if keys else iter(())

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        super().save(entries, parcels, unpin=unpin)
        self._fresh.update(key for key, entry in entries.items() if not entry.record.is_pin)


class RefreshingCache(CacheView):
    """A cache that hides what it knew, so that results are computed anew and replace the old ones.

    A call is missing until it has been saved through this view; from then on it is found. Queries
    see everything.
    """

    _Backend = RefreshingBackend

    def __init__(self, inner: BaseCache, older_than: datetime | None = None) -> None:
        """Refresh ``inner``.

        Args:
            inner: any cache.
            older_than: refresh only calls that began before this time (local, if it has no zone) or
                do not say when they began.
        """
        self.older_than = older_than
        super().__init__(inner, older_than)
