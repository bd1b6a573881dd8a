"""Which entries need which values: read once, for collecting, checking, limits and transfers.

A call needs, of the storage of values, the parcels that do not travel with its record, and the
shared buffers that those need which do. A pin needs whatever it names, here or not yet. Buffers
that parcels in the storage need are known from their heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from fleche._util import batched
from fleche.call import CallEntry
from fleche.digest import Address
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.storage import CallStorage, ValueStorage

if TYPE_CHECKING:
    from fleche.caches._backend import Progress

__all__ = ["ReferenceIndex", "Steps", "StoredValues", "advise", "needs_of"]

_BATCH = 500

address_of = partial(str.__new__, Address)


class Steps:
    """Counts entries, for a display of progress."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)


def needs_of(entry: CallEntry) -> tuple[Address, ...]:
    """Return what an entry needs of the storage of values; an address without a variant: any form.

    A parcel that travels with the record and whose head is damaged needs nothing: it can never be
    opened.
    """
    record, parcels = entry
    if record.is_pin:
        return tuple(ref.address for ref in record.values())
    found: dict[Address, None] = {}
    for ref in record.values():
        if not ref.is_literal and ref.address not in parcels:
            found[ref.address] = None
    for address in parcels:
        try:
            parcel = entry.parcel(address)
        except ParcelError:
            continue
        if parcel is not None:
            found.update(dict.fromkeys(parcel.references))
    return tuple(found)


class ReferenceIndex:
    """What the entries of a storage of calls need.

    Attributes:
        needs: what each entry needs, by its key.
        pins: the keys of the pins.
        unreadable: the errors of entries that cannot be read, by key.
    """

    def __init__(self, calls: CallStorage, steps: Steps | None = None) -> None:
        """Prepare to read ``calls``; ``steps`` counts the entries."""
        self._calls = calls
        self._steps = steps or Steps(None)
        self._counts: Counter[str] = Counter()  # by address; a bare one stands for every form
        self.needs: dict[str, tuple[Address, ...]] = {}
        self.pins: set[str] = set()
        self.unreadable: dict[str, ParcelError] = {}

    def read(self, keys: Iterable[str] | None = None) -> None:
        """Read all entries that have not been read yet, or those of ``keys``."""
        for _ in self.walk(keys):
            pass

    def walk(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, CallEntry]]:
        """Do what :meth:`read` does, and yield the entries that can be read."""
        if keys is None:
            keys = [entry.key for entry in self._calls.entries()]
        unread = [key for key in keys if key not in self.needs and key not in self.unreadable]
        for batch in batched(unread, _BATCH):
            for key, entry in self._calls.get_many(batch):
                self._steps.step()
                if isinstance(entry, ParcelError):
                    self.unreadable[key] = entry
                else:
                    needs = self.needs[key] = needs_of(entry)
                    self._counts.update(needs)
                    if entry.record.is_pin:
                        self.pins.add(key)
                    yield key, entry

    def discard(self, pin: str) -> None:
        """Forget a pin."""
        self._counts.subtract(self.needs.pop(pin, ()))
        self.pins.discard(pin)

    def is_needed(self, address: str) -> bool:
        """Return whether an entry needs what is stored under ``address``."""
        return self._counts[address] > 0 or (len(address) > 64 and self._counts[address[:64]] > 0)


class StoredValues:
    """The values in a storage, and the buffers that they need.

    Attributes:
        entries: size and age by address.
        buffers: by the address of a value the buffers that it needs, if it needs any.
        unknown: why it is not known of some values which buffers they need.
    """

    def __init__(self, values: ValueStorage) -> None:
        """Look through ``values``."""
        self.entries = {entry.key: entry for entry in values.entries()}
        self._forms: dict[str, list[str]] = {}
        for key in self.entries:
            self._forms.setdefault(key[:64], []).append(key)
        self.buffers: dict[str, tuple[str, ...]] = {}
        self.unknown: list[ParcelError] = []
        for key, refs in values.buffer_refs([key for key in self.entries if len(key) > 64]):
            if isinstance(refs, ParcelError):
                self.unknown.append(refs)
            elif refs.references:
                self.buffers[key] = refs.references

    def needed(self, addresses: Iterable[str]) -> Iterator[str]:
        """Yield what is here of what is needed; an address without a variant means any form."""
        for address in addresses:
            if address in self.entries:
                yield address
            else:
                yield from self._forms.get(address, ())


def advise(error: ParcelError) -> str:
    """Return what to do about an entry that cannot be read."""
    if isinstance(error, CorruptParcel) and error.newer:
        return "Upgrade fleche, or evict() what is in verify().untrusted if no newer one is in use."
    if isinstance(error, SignatureError):
        return (
            "Use the secret that signed it, or evict() what is in verify().untrusted if that is "
            "trusted no more."
        )
    return "verify(repair=True) removes damaged records."
