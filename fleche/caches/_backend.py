"""The contract of a cache: a dozen batched operations over entries and parcels.

A local cache answers them from its storages, a remote one over the wire (they are the wire's
messages), a stack or a view from the caches behind it. Nothing in the contract is singular: what
people call (:class:`~fleche.caches.BaseCache`) is written once above it, and costs through any
wrapper the round trips that it costs at the remote cache alone.

Conventions of all operations:

- Keys of calls are complete digests, addresses are complete too (with or without a variant), unless
  a parameter is called ``prefix``.
- What is not there is left out of an answer; nothing raises :class:`KeyError`.
- What is damaged or not trusted comes as the :class:`~fleche.errors.ParcelError` that says so, in
  place of the entry or the parcel, so that one bad entry does not cost the rest of a batch.
- Iterators hold no transaction and no lock while the caller's code runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from fleche._util import renewed_after_fork
from fleche.caches import maintenance
from fleche.call import SMALL, CallEntry, CallRecord, QueryCall, sort_time_of
from fleche.digest import Address, Digest
from fleche.errors import ParcelError, Rejected
from fleche.parcel import Packing, Parcel
from fleche.storage import Acceptance, Capabilities, LockTable, Usage

if TYPE_CHECKING:
    from fleche.parcel import Draft

__all__ = [
    "INLINE",
    "MOST_EXPANDED",
    "CacheBackend",
    "Entries",
    "LayerPolicy",
    "Loaded",
    "LoadedValues",
    "Matches",
    "OnError",
    "Parcels",
    "Progress",
    "WriteThrough",
    "result_needs",
    "split_entry",
]

OnError: TypeAlias = Literal["raise", "miss"]
WriteThrough: TypeAlias = bool | Literal["background"]
Progress: TypeAlias = Callable[[int], None]

Entries: TypeAlias = Mapping[Digest, CallEntry]
"""Entries by their keys, to be saved."""

Parcels: TypeAlias = Iterable[tuple[Address, Parcel]]
"""Parcels by their addresses, to be saved in this order."""

Loaded: TypeAlias = Iterator[tuple[Digest, CallEntry | ParcelError]]
"""Entries that are here, or what is wrong with one of them."""

LoadedValues: TypeAlias = Iterator[tuple[Address, Parcel | ParcelError]]
"""Parcels that are here, or what is wrong with one of them."""

Matches: TypeAlias = Iterator[tuple[Digest, CallEntry | None]]
"""Calls that match a template; ``None`` where keys alone were asked for."""

INLINE = 1 << 20
"""A result of up to so many bytes is sent and loaded along with its record."""

MOST_EXPANDED = 100
"""So many complete digests at most stand for one prefix in an answer."""


class LayerPolicy(msgspec.Struct, frozen=True):
    """How a stack treats a cache that is one of its layers.

    Attributes:
        write_through: saves go to this layer too, after the first; a failure is a counted warning.
            ``"background"`` sends them while the program goes on, and the rest at its end.
        on_error: ``"miss"`` makes an unreachable layer a counted, once-warned miss.
    """

    write_through: WriteThrough = False
    on_error: OnError = "raise"

    def to_config(self) -> dict[str, Any]:
        """Return those fields that differ from the defaults."""
        # not by omit_defaults: to msgspec a text is the default only if it is the very object
        return {
            name: value
            for name, value in msgspec.structs.asdict(self).items()
            if value != _DEFAULTS[name]
        }


_DEFAULTS = msgspec.structs.asdict(LayerPolicy())


class CacheBackend(ABC):
    """What a cache does. Every method may be called from any thread.

    Attributes:
        packing: how values born here are packed, and whose signatures count when one is opened.
        policy: how a stack treats this cache.
        locks: which process computes which call, where there is a way to know.
        local: whether what it keeps is on this machine. What is not keeps house when it is asked
            itself, never as a layer of another cache: it may be large, and is used by others.
        takes_turns: whether a look-up is so quick that threads take turns at it.
    """

    local: bool = True
    takes_turns: bool = False
    packing: Packing = Packing()
    policy: LayerPolicy = LayerPolicy()
    locks: LockTable = LockTable()

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._counts_lock = renewed_after_fork(RLock())

    # -- the contract ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this cache is."""

    @abstractmethod
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        """Yield the entries of those finished calls that are here, in the order of ``keys``.

        Args:
            keys: of the calls, each once.
            inline: a result of up to so many bytes may come with the entry, where that saves a
                round trip; 0: nothing but what is stored with the record.
        """

    @abstractmethod
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        """Yield the parcels of those values that are here, in any order; the caller closes each.

        An address without a variant stands for the oldest form that is kept, or for a shared
        buffer. It comes back as it was asked for.
        """

    @abstractmethod
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        """Store parcels, in order, then entries; then remove pins. Each parcel is closed.

        Whenever it is interrupted, what is here is whole: shared buffers come before the values
        that refer to them, and all of them before the entries. What is there under an address
        already is replaced.

        Args:
            entries: calls, or pins, by their key.
            parcels: what does not travel with the entries.
            unpin: keys of pins that have done their work. One that is not there is passed over.

        Raises:
            Rejected: this cache refuses it.
            StorageError: it could not be stored.
        """

    @abstractmethod
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        """Return those of ``addresses`` that have no parcel where saves go.

        Args:
            addresses: of values; one without a variant is there if any form is.
            keep: the others count as stored just now: the caller relies on them instead of storing
                them again, so that no ``gc()`` may take them before a record refers to them.
        """

    @abstractmethod
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        """Return for each key whether it is a call that can be answered from here, or a value here.

        Args:
            keys: of calls, or addresses of values.
        """

    @abstractmethod
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        """Forget calls, or values (of a bare digest, every form); return what there was to forget.

        Large values that a forgotten call leaves behind stay until they are collected: other calls
        may use them.

        Raises:
            Rejected: this cache is read-only.
        """

    @abstractmethod
    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        """Return for each prefix the complete digests of calls and values that begin with it.

        Of more than :data:`~fleche.caches.MOST_EXPANDED` only so many are returned.
        """

    @abstractmethod
    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        """Return for each key the shortest beginning that stands for it alone here.

        ``None`` stands for a key that is not here.
        """

    @abstractmethod
    def query(self, template: QueryCall, *, keys_only: bool = False) -> Matches:
        """Yield the finished calls that match, as they are found.

        Args:
            template: what to look for.
            keys_only: the entries are not wanted, and may be ``None``; keys of pins and of damaged
                entries may then be among them.
        """

    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        """Yield those ``number`` of the finished calls that match which began last, in that order.

        Calls that do not say when they began come last, in any order.

        Args:
            template: what to look for.
            number: how many calls to yield at most.
        """
        from heapq import nlargest

        found = ((key, entry) for key, entry in self.query(template) if entry is not None)
        yield from nlargest(number, found, key=sort_time_of)

    @abstractmethod
    def maintain(
        self, task: maintenance.Task, progress: Progress | None = None
    ) -> maintenance.Report:
        """Carry out a task of housekeeping; return what it found and did.

        Layers that are not :attr:`local` are left alone.

        Args:
            task: what to do.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: the task changes something, and this cache is read-only.
        """

    @abstractmethod
    def to_config(self) -> Any:
        """Return what ``fleche.toml`` says to get this cache: a table, or an array for a stack."""

    def close(self) -> None:  # noqa: B027 (most have nothing to give back)
        """Give back what the cache holds open. Idempotent."""

    def check_accepts(self, key: Digest, record: CallRecord) -> None:
        """Refuse a call that is about to begin, if it is known already that a save would be.

        Args:
            key: of the call.
            record: what is known of it: before its function has run, a record without a result.

        Raises:
            Rejected: this cache is read-only, or takes no such calls.
        """
        del key, record
        self.check_writable("save")

    def draft(self, content: memoryview) -> Draft | None:
        """Begin to write a large buffer whose digest is not known yet, where saves go.

        The parcel of the draft is saved like any other.

        Args:
            content: contiguous memory, which does not change before the draft is finished.

        Returns:
            ``None`` where nothing is gained, or nothing can be written.
        """
        del content
        return None

    def note_damage(self, key: Digest, addresses: Sequence[Address]) -> bool:
        """Take note that values of a call that came from here cannot be used.

        Args:
            key: of the call.
            addresses: where the values are.

        Returns:
            Whether :meth:`load` and :meth:`load_values` have another copy to try.
        """
        del key, addresses
        return False

    def note_usage(self, rows: Sequence[Usage]) -> None:
        """Add counters of use where saves go.

        Raises:
            Rejected: this cache is read-only.
            StorageError: they could not be stored.
        """
        self.maintain(maintenance.NoteUsage(tuple(rows)))

    def accepted(self, *, near: bool = False) -> Sequence[Acceptance]:
        """Return which code was accepted for other code.

        Args:
            near: layers on other machines are not asked.
        """
        found = self.maintain(maintenance.ReadAccepted(near))
        return found.rows if isinstance(found, maintenance.AcceptedReport) else ()

    def looking_only(self) -> CacheBackend:
        """Return the same cache to load from, without the changes that loading makes otherwise.

        Such changes are copies in nearer layers, and times of use.
        """
        return self

    # -- what it is and how it fared ---------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether every save and every evict is refused."""
        return self.capabilities.read_only

    @property
    def opens_parcels(self) -> bool:
        """Whether values that are saved here are taken apart, so that each must be whole."""
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
        if number:
            with self._counts_lock:
                self._counts[event] += number

    def counts(self) -> dict[str, int]:
        """Return how often each event happened to this object since it was made."""
        with self._counts_lock:
            return dict(self._counts)


def split_entry(
    entry: CallEntry, most: int = SMALL
) -> tuple[CallEntry, list[tuple[Address, Parcel]]]:
    """Return ``entry`` with at most ``most`` bytes of parcels, and the others, largest first.

    Raises:
        CorruptParcel: a parcel that is taken out is damaged.
    """
    size = sum(len(data) for data in entry.parcels.values())
    if size <= most:
        return entry, []
    kept = dict(entry.parcels)
    taken: list[tuple[Address, Parcel]] = []
    for address in sorted(kept, key=lambda each: -len(kept[each])):
        if size <= most:
            break
        data = kept.pop(address)
        size -= len(data)
        taken.append((address, Parcel.from_bytes(data)))
    return CallEntry(entry.record, kept), taken


def result_needs(entry: CallEntry, *, signed: bool = False) -> tuple[Address, ...]:
    """Return which values the result, or error, of a call needs beside its entry.

    What cannot be read of a parcel that travels with the record fails where it is opened.

    Args:
        entry: of the call.
        signed: a literal does not count, since only parcels are signed.
    """
    ref = entry.record.result or entry.record.error
    if ref is None or (ref.is_literal and not signed):
        return ()
    try:
        parcel = entry.parcel(ref.address)
    except ParcelError:
        return ()
    return (ref.address,) if parcel is None else parcel.references
