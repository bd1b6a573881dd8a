"""Caches that misbehave on demand, and that say what was asked of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleche.caches import (
    INLINE,
    BaseCache,
    Cache,
    CacheBackend,
    CacheView,
    LayerPolicy,
    Progress,
    Report,
    Task,
    ViewBackend,
)
from fleche.call import Call, CallEntry, QueryCall
from fleche.digest import Address, Digest
from fleche.errors import ParcelError
from fleche.parcel import Parcel
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory

__all__ = ["Layer", "LayerBackend", "call", "in_files", "in_memory", "result_of"]


def in_memory(policy: LayerPolicy | None = None) -> Cache:
    return Cache(ValueMemory(), CallMemory(), policy=policy)


def in_files(root: Path | str, policy: LayerPolicy | None = None) -> Cache:
    return Cache(ValueFile(root), CallFile(root), policy=policy)


def call(x: object = 2, result: object = 4, name: str = "f", started: str | None = None) -> Call:
    metadata = {"runtime": {"started": started}} if started else {}
    return Call(name=name, arguments={"x": x}, result=result, metadata=metadata)


def result_of(cache: BaseCache, key: str) -> Address:
    """Return where the result of a call is kept."""
    result = cache.load(key).record.result
    assert result is not None
    return result.address


class LayerBackend(ViewBackend):
    """Counts what it is asked, and fails when told to.

    Attributes:
        asked: how often each operation was used.
        error: raised by every operation while it is set.
        refuses: raised by saves while it is set.
        inlines: whether results come along with their calls, as from a remote cache.
        pause: called at the beginning of every load.
    """

    def __init__(self, inner: CacheBackend, policy: LayerPolicy | None, *, local: bool) -> None:
        super().__init__(inner)
        self.local = local
        self.policy = policy or inner.policy
        self.asked: Counter[str] = Counter()
        self.error: Exception | None = None
        self.refuses: Exception | None = None
        self.inlines = False
        self.pause: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def _note(self, what: str) -> None:
        with self._lock:
            self.asked[what] += 1
        if self.error is not None:
            raise self.error
        if self.refuses is not None and what == "save":
            raise self.refuses

    def load(
        self, keys: Sequence[Digest], *, inline: int = INLINE
    ) -> Iterator[tuple[Digest, CallEntry | ParcelError]]:
        self._note("load")
        self.pause()
        for key, entry in super().load(keys, inline=inline):
            if self.inlines and isinstance(entry, CallEntry):
                entry = self._inlined(entry, inline)
            yield key, entry

    def _inlined(self, entry: CallEntry, most: int) -> CallEntry:
        result = entry.record.result
        assert result is not None
        if result.is_literal or result.address in entry.parcels:
            return entry
        for address, parcel in self.inner.load_values([result.address]):
            if isinstance(parcel, Parcel) and parcel.nbytes <= most:
                return CallEntry(entry.record, {**entry.parcels, address: parcel.tobytes()})
        return entry

    def load_values(
        self, addresses: Iterable[Address]
    ) -> Iterator[tuple[Address, Parcel | ParcelError]]:
        self._note("load_values")
        yield from super().load_values(addresses)

    def save(
        self,
        entries: Mapping[Digest, CallEntry],
        parcels: Iterable[tuple[Address, Parcel]] = (),
        *,
        unpin: Sequence[Digest] = (),
    ) -> None:
        self._note("save")
        super().save(entries, parcels, unpin=unpin)

    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        self._note("lacking")
        return super().lacking(addresses, keep=keep)

    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self._note("contains")
        return super().contains(keys)

    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self._note("evict")
        return super().evict(keys)

    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        self._note("expand")
        return super().expand(prefixes)

    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        self._note("shrink")
        return super().shrink(keys)

    def query(
        self, template: QueryCall, *, keys_only: bool = False
    ) -> Iterator[tuple[Digest, CallEntry | None]]:
        self._note("query")
        yield from super().query(template, keys_only=keys_only)

    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        self._note("maintain")
        return super().maintain(task, progress)


class Layer(CacheView):
    """A cache over a :class:`LayerBackend`, with the attributes of that."""

    backend: LayerBackend

    def __init__(
        self,
        inner: BaseCache | None = None,
        policy: LayerPolicy | None = None,
        *,
        local: bool = True,
    ) -> None:
        self._options = policy, local
        super().__init__(inner or in_memory())

    def _make_backend(self, inner: CacheBackend) -> CacheBackend:
        policy, local = self._options
        return LayerBackend(inner, policy, local=local)

    def __getattr__(self, name: str) -> Any:
        if name in ("asked", "error", "refuses", "inlines", "pause"):
            return getattr(self.backend, name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("error", "refuses", "inlines", "pause"):
            setattr(self.backend, name, value)
        else:
            super().__setattr__(name, value)
