"""Caches that misbehave on demand, and that tell what was asked of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from fleche.caches import BaseCache, Cache, CacheView, LayerPolicy
from fleche.call import Call, CallRecord
from fleche.digest import Digest
from fleche.parcel import Parcel
from fleche.storage import CallFile, CallMemory, ValueFile, ValueMemory

__all__ = ["Layer", "call", "in_files", "in_memory"]


def in_memory(policy: LayerPolicy | None = None) -> Cache:
    return Cache(ValueMemory(), CallMemory(), policy=policy)


def in_files(root: Path | str, policy: LayerPolicy | None = None) -> Cache:
    return Cache(ValueFile(root), CallFile(root), policy=policy)


def call(x: object = 2, result: object = 4, name: str = "f", started: str | None = None) -> Call:
    metadata = {"runtime": {"started": started}} if started else {}
    return Call(name=name, arguments={"x": x}, result=result, metadata=metadata)


class Layer(CacheView):
    """A cache that counts what it is asked, and fails when told to.

    Attributes:
        asked: how often each primitive was used.
        error: raised by every primitive while it is set.
        refuses: raised by saves while it is set.
        piggyback: whether a fetch brings the result along, as a remote cache does.
        pause: called at the beginning of every fetch.
    """

    def __init__(self, inner: BaseCache | None = None, policy: LayerPolicy | None = None) -> None:
        super().__init__(inner or in_memory())
        self.policy = policy or self.inner.policy
        self.asked: Counter[str] = Counter()
        self.error: Exception | None = None
        self.refuses: Exception | None = None
        self.piggyback = False
        self.pause: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def _note(self, what: str) -> None:
        with self._lock:
            self.asked[what] += 1
        if self.error is not None:
            raise self.error
        if self.refuses is not None and what.startswith("save"):
            raise self.refuses

    @property
    def read_only(self) -> bool:
        return self.inner.read_only

    def load_record(self, key: Digest) -> CallRecord:
        self._note("load_record")
        return super().load_record(key)

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        self._note("fetch")
        self.pause()
        record, parcel = self.inner.fetch(key)
        if self.piggyback and record.result is not None:
            parcel = self.inner.load_parcel(record.result)
        return record, parcel

    def load_parcel(self, digest: Digest) -> Parcel:
        self._note("load_parcel")
        return super().load_parcel(digest)

    def save_record(self, key: Digest, record: CallRecord) -> None:
        self._note("save_record")
        super().save_record(key, record)

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        self._note("save_parcel")
        super().save_parcel(digest, parcel)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        self._note("missing")
        return super().missing(digests)

    def contains(self, key: Digest | str) -> bool:
        self._note("contains")
        return super().contains(key)

    def evict(self, key: Digest | str) -> None:
        self._note("evict")
        super().evict(key)

    def expand(self, key: Digest | str) -> Digest:
        self._note("expand")
        return super().expand(key)

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        self._note("shrink")
        return super()._shrink(*keys)

    def _query(self, call):  # type: ignore[no-untyped-def]
        self._note("query")
        return super()._query(call)
