"""What every cache provides: a dozen primitives over records and parcels, and its own counters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Literal, TypeAlias, TypeVar

from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.capabilities import Capabilities
from fleche.claims import Claims
from fleche.digest import Digest
from fleche.errors import Rejected
from fleche.parcel import Packing, Parcel

__all__ = ["LayerPolicy", "OnError", "Primitives"]

T = TypeVar("T")

OnError: TypeAlias = Literal["raise", "miss"]


@dataclass(frozen=True)
class LayerPolicy:
    """How a stack treats a cache that is one of its layers.

    Attributes:
        write_through: saves go to this layer too, after the first; a failure is a counted warning.
        on_error: ``"miss"`` makes an unreachable layer a counted, once-warned miss.
    """

    write_through: bool = False
    on_error: OnError = "raise"

    def to_config(self) -> dict[str, Any]:
        """Return those fields that differ from the defaults."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}


_DEFAULTS = asdict(LayerPolicy())


class Primitives(ABC):
    """What a local cache answers from its storages, a remote one over the wire.

    Every method may be called from any thread.

    Attributes:
        packing: how values born here are packed, and whose signatures count when one is opened.
        policy: how a stack treats this cache.
        claims: who computes which call, told to other processes, if there is a way to.
    """

    packing: Packing = Packing()
    policy: LayerPolicy = LayerPolicy()
    claims: Claims = Claims()

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._counts_lock = Lock()

    # -- primitives: what a backend or the wire provides -------------------------------------------

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this cache is."""

    @abstractmethod
    def load_record(self, key: Digest) -> CallRecord:
        """Return the record of a finished call; ``key`` is complete.

        Raises:
            KeyError: there is none.
        """

    @abstractmethod
    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record whose values are stored already.

        Raises:
            Rejected: this cache refuses it.
        """

    @abstractmethod
    def load_parcel(self, digest: Digest) -> Parcel:
        """Return the parcel of a value; ``digest`` is complete.

        Raises:
            KeyError: there is none.
        """

    @abstractmethod
    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store the parcel of a value; no reference to its memory is kept.

        Raises:
            Rejected: this cache refuses it.
        """

    @abstractmethod
    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those of ``digests`` whose values are not here.

        Those that are here count as stored just now: whoever asks relies on them instead of storing
        them again, so that no ``gc()`` may take them before a record refers to them.
        """

    @abstractmethod
    def contains(self, key: Digest | str) -> bool:
        """Tell whether ``key`` is a call that can be answered from here, or a value here."""

    @abstractmethod
    def evict(self, key: Digest | str) -> None:
        """Forget the call, or the value, of ``key``.

        Values that a forgotten call leaves behind stay until they are collected: others may use
        them.

        Raises:
            KeyError: there is none.
            Rejected: this cache is read-only.
        """

    @abstractmethod
    def expand(self, key: Digest | str) -> Digest:
        """Return the complete digest of the one call or value that begins with ``key``.

        Raises:
            KeyError: there is none.
            AmbiguousDigestError: there are several.
        """

    @abstractmethod
    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Return for each key the shortest beginning that stands for it alone here."""

    @abstractmethod
    def _query(self, call: QueryCall) -> Iterable[LazyCall]:
        """Yield the finished calls that match, bound to this cache, as they are found."""

    @abstractmethod
    def to_config(self) -> Any:
        """Return what ``fleche.toml`` says to get this cache: a table, or an array for a stack."""

    def close(self) -> None:  # noqa: B027 (most have nothing to give back)
        """Give back what the cache holds open. Idempotent."""

    # -- several at once: correct for any cache, replaced where it can be quicker ------------------

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result.

        Raises:
            KeyError: there is no record.
        """
        return self.load_record(key), None

    def fetch_many(
        self, keys: Iterable[Digest]
    ) -> Iterator[tuple[Digest, CallRecord, Parcel | None]]:
        """Yield, with its key, what :meth:`fetch` returns, for those that are here."""
        return ((key, *found) for key, found in _present(self.fetch, keys))

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records of those calls that are here."""
        return _present(self.load_record, keys)

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match, as they are found.

        Keys of calls that are still running, or damaged, may be among them.
        """
        return (call.key for call in self._query(template))

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Tell for each key what :meth:`contains` tells."""
        return [self.contains(key) for key in keys]

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels of those values that are here; whoever takes one closes it."""
        return _present(self.load_parcel, digests)

    def references(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, tuple[Digest, ...]]]:
        """Yield, for those values that are here, which buffers kept apart they need.

        Raises:
            ParcelError: what one needs cannot be told.
        """
        for digest, parcel in self.load_parcels(digests):
            parcel.close()
            yield digest, parcel.references

    def save_parcels(self, parcels: Iterable[tuple[Digest, Parcel]]) -> None:
        """Store parcels, and close each.

        Raises:
            Rejected: this cache refuses one.
        """
        for digest, parcel in parcels:
            try:
                self.save_parcel(digest, parcel)
            finally:
                parcel.close()

    def save_records(self, records: Mapping[Digest, CallRecord]) -> None:
        """Store records whose values are stored already.

        Raises:
            Rejected: this cache refuses one.
        """
        for key, record in records.items():
            self.save_record(key, record)

    # -- what it is and how it fared ---------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether every save and every evict is refused."""
        return self.capabilities.read_only

    @property
    def opens_parcels(self) -> bool:
        """Whether what is saved here is taken apart, so that it must be whole by itself."""
        return self.capabilities.opens_parcels

    def check_writable(self, action: str) -> None:
        """Refuse ``action`` if this cache is read-only.

        Raises:
            Rejected: it is.
        """
        if self.read_only:
            raise Rejected(f"{self}: read-only, {action} refused")

    def count(self, event: str, number: int = 1) -> None:
        """Add to the counter of ``event`` (``"hits"``, ``"misses"``, ``"errors.corrupt"``, ...)."""
        with self._counts_lock:
            self._counts[event] += number

    def counts(self) -> dict[str, int]:
        """Return how often each event befell this object since it was made."""
        with self._counts_lock:
            return dict(self._counts)


def _present(load: Callable[[Digest], T], keys: Iterable[Digest]) -> Iterator[tuple[Digest, T]]:
    """Yield what ``load`` returns for each of ``keys``, except where there is nothing."""
    for key in keys:
        try:
            found = load(key)
        except KeyError:
            continue
        yield key, found
