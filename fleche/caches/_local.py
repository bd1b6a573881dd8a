"""The cache on this machine: one storage for values, one for calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from fleche import _turns
from fleche._util import override
from fleche.caches import maintenance
from fleche.caches._backend import (
    INLINE,
    MOST_EXPANDED,
    CacheBackend,
    Entries,
    LayerPolicy,
    Loaded,
    LoadedValues,
    Matches,
    Parcels,
    Progress,
    result_needs,
    split_entry,
)
from fleche.caches._base import BaseCache
from fleche.call import SMALL, CallEntry, QueryCall, ValueRef
from fleche.digest import Address, Digest
from fleche.errors import AmbiguousFormError, ParcelError, StorageError
from fleche.parcel import Parcel
from fleche.storage import (
    SHORTEST,
    Acceptance,
    CallStorage,
    Capabilities,
    Entry,
    Usage,
    ValueStorage,
    merge_usage,
)

if TYPE_CHECKING:
    from fleche.parcel import Draft
    from fleche.storage.local import DirectoryOptions

__all__ = ["Cache", "Local", "LocalBackend", "LocalStore"]

log = logging.getLogger("fleche.caches")

_MANY = 500
"""To shrink so many keys, it is quicker to list everything once."""

_digest = partial(str.__new__, Digest)
_address = partial(str.__new__, Address)


class LocalBackend(CacheBackend):
    """Entries of calls in one storage, and the parcels that do not travel with them in another.

    Attributes:
        values: parcels by address.
        calls: entries by the key of the call.
    """

    def __init__(
        self, values: ValueStorage, calls: CallStorage, policy: LayerPolicy | None = None
    ) -> None:
        """Keep values in ``values`` and calls in ``calls``; see :class:`Cache`."""
        super().__init__()
        self.values = values
        self.calls = calls
        self.locks = calls.locks
        nothing = Capabilities()
        self._capabilities = (nothing, nothing), nothing
        self.packing = values.packing.with_environment()
        if policy is not None:
            self.policy = policy
        keeps = values.capabilities
        self._inline = 0 if keeps.keeps_all or keeps.opens_parcels else SMALL

    @property
    @override
    def capabilities(self) -> Capabilities:
        values, calls = self.values.capabilities, self.calls.capabilities
        made_of, found = self._capabilities  # put together once: every call asks
        if made_of[0] is values and made_of[1] is calls:
            return found
        found = Capabilities(
            read_only=values.read_only or calls.read_only,
            persistent=values.persistent and calls.persistent,
            shared=values.shared and calls.shared,
            opens_parcels=values.opens_parcels or calls.opens_parcels,
            keeps_all=values.keeps_all,
        )
        self._capabilities = (values, calls), found
        return found

    # -- calls and values --------------------------------------------------------------------------

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        if len(keys) != 1:
            return self._load_several(keys)
        for _, found in self.calls.get_many(keys):
            if isinstance(found, ParcelError):
                return iter(((keys[0], found),))
            record = found.record
            if record.result is not None or record.error is not None:  # or it is a pin
                return iter(((keys[0], found),))
        return iter(())

    def _load_several(self, keys: Sequence[Digest]) -> Loaded:
        for key, found in self.calls.get_many(keys):
            if isinstance(found, ParcelError) or not found.record.is_pin:
                yield _digest(key), found

    @override
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        wanted = dict.fromkeys(addresses)
        rest = dict(wanted)
        for key, parcel in self.values.get_many(wanted):
            address = _address(key)
            rest.pop(address, None)
            yield address, parcel
        for address in rest:
            if not address.variant:
                yield from self._load_any(address)

    def _load_any(self, address: Address) -> LoadedValues:
        """Yield the oldest form of a value that is kept, or that an entry holds."""
        forms = self.values.forms(address)
        if forms:
            if not self._are_alike(forms):
                yield (
                    address,
                    AmbiguousFormError(
                        f"{address[:12]} is kept in {len(forms)} forms whose classes differ; load "
                        "the call that has the one that is meant"
                    ),
                )
                return
            for _, found in self.values.get_many([forms[0].key]):
                yield address, found
            return
        for held, key in self.calls.holders(address):
            for _, entry in self.calls.get_many([key]):
                parcel = None if isinstance(entry, ParcelError) else self._held(held, entry)
                if parcel is not None:
                    yield address, parcel
                    return

    def _held(self, address: Address, entry: CallEntry) -> Parcel | None:
        """Return the parcel of a value that ``entry`` holds itself, as a parcel or a literal."""
        parcel = entry.parcel(address)
        if parcel is not None:
            return parcel
        if self.packing.keys:  # a record does not say who vouches for its literals
            return None
        for ref in entry.record.values():
            if ref.digest == address.digest and ref.is_literal:
                return self.packing.pack(ref.literal, ref.digest)
        return None

    def _are_alike(self, forms: Sequence[Entry]) -> bool:
        """Return whether forms of one value are of the same classes."""
        if len(forms) < 2:
            return True
        classes = set()
        for _, parcel in self.values.get_many(entry.key for entry in forms):
            if isinstance(parcel, Parcel):
                with closing(parcel):
                    classes.add(parcel.classes)
        return len(classes) < 2

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        if self.capabilities.read_only:
            self.check_writable("save")  # which refuses
        kept: dict[Digest, CallEntry] = {}
        spilled: list[tuple[Address, Parcel]] = []
        for key, entry in entries.items():
            if not entry.parcels:
                kept[key] = entry
                continue
            if self.packing.keys:  # what would not be opened here is refused
                for data in entry.parcels.values():
                    Parcel.from_bytes(data).check_signature(self.packing.keys)
            kept[key], large = split_entry(entry, self._inline)
            spilled += large
        if parcels or spilled:
            self.values.put_many(_closing(chain(parcels, reversed(spilled))))
        if kept:
            self.calls.put_many(kept.items())
        if unpin:
            try:
                self.calls.delete_many(unpin)
            except StorageError as error:  # what they protect is safe, and they end by their age
                log.warning("pin %s stays until it is too old: %s", unpin[0][:12], error)

    @override
    def draft(self, content: memoryview) -> Draft | None:
        return None if self.read_only else self.values.draft(content)

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        wanted = list(dict.fromkeys(addresses))
        if keep and not self.read_only:
            here = self.values.touch_many(wanted)
        else:
            here = self.values.contains_many(wanted)
        return [each for each in wanted if each not in here and not self._has_form(each, keep)]

    def _has_form(self, address: Address, keep: bool) -> bool:
        """Return whether a value is here in some form, where any will do."""
        if address.variant:
            return False
        forms = [entry.key for entry in self.values.forms(address)]
        if keep and forms and not self.read_only:
            return bool(self.values.touch_many(forms))
        return bool(forms)

    @override
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        calls = [key for key in keys if not isinstance(key, Address)]
        here = self._answerable(calls) if calls else set()
        asked = [key for key in keys if isinstance(key, Address)]
        absent = set(self.lacking(asked)) if asked else set()
        values = {each for each in asked if each not in absent or self._is_held(each)}
        # an address without a variant equals the key of the same digest
        return [key in (values if isinstance(key, Address) else here) for key in keys]

    def _answerable(self, keys: Sequence[Digest]) -> set[str]:
        """Return the finished calls whose result is here with the buffers that it needs."""
        here: set[str] = set()
        needs: dict[Digest, tuple[Address, ...]] = {}
        for key, entry in self.load(keys, inline=0):
            if isinstance(entry, ParcelError):
                continue
            if needed := result_needs(entry, signed=bool(self.packing.keys)):
                needs[key] = needed
            else:
                here.add(key)
        if needs:
            absent = set(self.lacking(each for needed in needs.values() for each in needed))
            here.update(key for key, needed in needs.items() if absent.isdisjoint(needed))
        return here

    def _is_held(self, address: Address) -> bool:
        """Return whether an entry holds a value of which any form will do."""
        return not address.variant and any(True for _ in self.calls.holders(address))

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        calls = [key for key in keys if not isinstance(key, Address)]
        there = self.calls.contains_many(calls) if calls else set()
        if calls:
            self.calls.delete_many(calls)
        addresses = dict.fromkeys(key for key in keys if isinstance(key, Address))
        gone = {address for address in addresses if self._evict_value(address)}
        return [key in (gone if isinstance(key, Address) else there) for key in keys]

    def _evict_value(self, address: Address) -> bool:
        """Remove a value wherever it is: by itself, and from the entries that hold it."""
        forms = [entry.key for entry in self.values.entries(address)]
        self.values.delete_many(forms)
        holders = {key for _, key in self.calls.holders(address)}
        for key, entry in self.calls.get_many(holders):
            if isinstance(entry, CallEntry):
                self.calls.put_many([(key, _without(entry, address))])
        return bool(forms or holders)

    # -- short digests -----------------------------------------------------------------------------

    @override
    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        """Return for each prefix the calls and the values that begin with it.

        What only entries hold counts where nothing else begins so: to look through them may take
        reading them all.
        """
        found = [
            dict.fromkeys(islice(self._matching(prefix), MOST_EXPANDED)) for prefix in prefixes
        ]
        rest = [place for place, digests in enumerate(found) if not digests]
        if rest:
            common = prefixes[rest[0]] if len(rest) == 1 else ""
            for address, _ in self.calls.holders(common):
                for place in rest:
                    if address.startswith(prefixes[place]) and len(found[place]) < MOST_EXPANDED:
                        found[place][address.digest] = None
        return [tuple(digests) for digests in found]

    def _matching(self, prefix: str) -> Iterator[Digest]:
        calls = [entry.key for entry in self.calls.entries(prefix)]
        for key, _ in self.load([_digest(key) for key in calls], inline=0):
            yield key
        for entry in self.values.entries(prefix):
            yield _address(entry.key).digest

    @override
    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        if len(keys) < _MANY:
            found = {key: self._shrink_one(key) for key in dict.fromkeys(keys)}
        else:
            found = self._shrink_many(keys)
        rest = [key for key in found if found[key] is None]
        if rest:
            found.update(self._shrink_held(rest))
        return [found[key] for key in keys]

    def _shrink_one(self, key: Digest) -> Digest | None:
        prefix = key[:SHORTEST]
        near = {entry.key[:64] for entry in self.calls.entries(prefix)}
        near |= {entry.key[:64] for entry in self.values.entries(prefix)}
        if key not in near:
            return None
        short = shrink_among(key, near)
        if len(short) == SHORTEST and len(near) == 1 and self._is_settled(key):
            return short
        # pins stand in the way of no key, but to tell them from calls takes reading them
        exact = set(self._matching(prefix))
        return shrink_among(key, exact) if key in exact else None

    def _is_settled(self, key: Digest) -> bool:
        """Return whether ``key``, which is here, is more than a pin."""
        if any(True for _ in self.load([key], inline=0)):
            return True
        return key not in self.calls.contains_many([key])

    def _shrink_many(self, keys: Sequence[Digest]) -> dict[Digest, Digest | None]:
        here = {entry.key for entry in self.calls.entries()}
        here.update(entry.key[:64] for entry in self.values.entries())
        shorts = shrink_all(here, keys)
        return {key: shorts.get(key) for key in keys}

    def _shrink_held(self, keys: Sequence[Digest]) -> dict[Digest, Digest]:
        held = shrink_all({address[:64] for address, _ in self.calls.holders("")}, keys)
        found: dict[Digest, Digest] = {}
        for key in keys:
            if key in held:
                short = shrink_among(key, set(self._matching(key[:SHORTEST])))
                found[key] = max(short, held[key], key=len)
        return found

    # -- searching and keeping house ---------------------------------------------------------------

    @override
    def query(self, template: QueryCall, *, keys_only: bool = False) -> Matches:
        for key, entry in self.calls.query(template, keys_only=keys_only):
            yield _digest(key), entry

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        for key, entry in self.calls.newest(template, number):
            yield _digest(key), entry

    @override
    def maintain(
        self, task: maintenance.Task, progress: Progress | None = None
    ) -> maintenance.Report:
        if isinstance(task, maintenance.NoteUsage):
            self.note_usage(task.rows)
            return maintenance.UsageReport()
        if isinstance(task, maintenance.ReadUsage):
            return maintenance.UsageReport(tuple(self._usage(named=task.named)))
        if isinstance(task, maintenance.NoteAccepted):
            self.check_writable("accept")
            self.calls.note_accepted(task.rows)
            return maintenance.AcceptedReport()
        if isinstance(task, maintenance.ReadAccepted):
            return maintenance.AcceptedReport(tuple(self.accepted()))
        if isinstance(task, maintenance.Gc):
            self.check_writable("gc")
            return maintenance.collect(self.values, self.calls, task, progress)
        if isinstance(task, maintenance.Verify):
            if task.repair:
                self.check_writable("repair")
            report = maintenance.verify(self.values, self.calls, self.packing.keys, task, progress)
            return report + maintenance.VerifyReport(accepted=len(self.accepted()))
        if isinstance(task, maintenance.DiskUsage):
            return maintenance.attribute(self.values, self.calls, progress)
        return maintenance.measure(self.values, self.calls, progress)

    @override
    def note_usage(self, rows: Sequence[Usage]) -> None:
        # Not as a task: a process that has only looked for results imports no housekeeping.
        self.check_writable("noteusage")
        if self.calls.is_there():  # what was removed meanwhile is not made again for them
            self.calls.note_usage(self._of_others(rows))

    @override
    def accepted(self, *, near: bool = False) -> list[Acceptance]:
        return list(self.calls.accepted())

    def _of_others(self, rows: Iterable[Usage]) -> list[Usage]:
        """Return counters without copies of those that were counted here, which come back."""
        found = list(rows)
        if not any(row.cache for row in found):
            return found
        own = self.calls.usage_name()
        return [row for row in found if row.cache != own]

    def _usage(self, *, named: bool) -> Iterator[Usage]:
        rows = merge_usage(self.calls.usage())
        if not named or not any(not row.cache for row in rows):
            yield from rows
            return
        own = ""
        if not self.read_only:  # it may have to be stored
            own = self.calls.usage_name()
        yield from (row if row.cache else msgspec.structs.replace(row, cache=own) for row in rows)

    @override
    def to_config(self) -> dict[str, Any]:
        values, calls, policy = (
            each.to_config() for each in (self.values, self.calls, self.policy)
        )
        if values == calls and values.get("type") == "local":  # one store holds both
            return {**values, **policy}
        return {"values": values, "calls": calls, **policy}

    @override
    def close(self) -> None:
        try:
            self.values.close()
        finally:
            self.calls.close()

    def __repr__(self) -> str:
        return f"Cache({self.values!r}, {self.calls!r})"


class Cache(BaseCache):
    """Calls in one storage, their large values in another.

    Attributes:
        values: parcels by address.
        calls: entries by the key of the call.
    """

    backend: LocalBackend

    def __init__(
        self, values: ValueStorage, calls: CallStorage, *, policy: LayerPolicy | None = None
    ) -> None:
        """Keep values in ``values`` and calls in ``calls``.

        Args:
            values: says how values are packed, and whose signatures count.
            calls: may be of another kind.
            policy: how a stack treats this cache.
        """
        super().__init__(LocalBackend(values, calls, policy))

    @property
    def values(self) -> ValueStorage:
        """The storage of values."""
        return self.backend.values

    @property
    def calls(self) -> CallStorage:
        """The storage of calls."""
        return self.backend.calls

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), policy=self.policy), (self.values, self.calls)


class LocalStore(LocalBackend):
    """A whole cache in one directory.

    Attributes:
        options: the directory, and how values are kept in it.
    """

    takes_turns = _turns.INTERPRETER_LOCKS

    def __init__(self, options: DirectoryOptions, policy: LayerPolicy | None = None) -> None:
        """Keep everything where ``options`` say; see :class:`Local`."""
        from fleche.storage.local import local_storages  # imports sqlite3

        self.options = options
        super().__init__(*local_storages(**msgspec.structs.asdict(options)), policy)

    @override
    def to_config(self) -> dict[str, Any]:
        options = msgspec.to_builtins(self.options)
        return {"type": "local", **options, **self.policy.to_config()}

    @override
    def __repr__(self) -> str:
        return f"Local({self.options.root!r})"


class Local(Cache):
    """A whole cache in one directory of this machine: an SQLite file, and files for what is large.

    On a network file system it is made of files alone; what is there says which of the two it is.
    """

    backend: LocalStore

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        policy: LayerPolicy | None = None,
        **options: Any,
    ) -> None:
        """Keep everything below ``root``.

        Args:
            root: the directory, ``~`` and environment variables expanded. It is made when the first
                call is stored.
            policy: how a stack treats this cache.
            options: the other fields of :class:`~fleche.storage.local.DirectoryOptions`:
                ``compress``, ``secret_key``, ``mmap``, ``durable``.

        Raises:
            StorageError: what is there was made by a newer fleche, or cannot be used from this
                machine.
            TypeError: an option is unknown, or of the wrong type.
        """
        from fleche.storage.local import options_of

        BaseCache.__init__(self, LocalStore(options_of(root, options), policy))

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        fields = msgspec.structs.asdict(self.backend.options)
        return partial(type(self), policy=self.policy, **fields), ()


def _without(entry: CallEntry, address: Address) -> CallEntry:
    """Return ``entry`` without the value of ``address`` (without a variant: in any form)."""

    def is_meant(found: Address) -> bool:
        return found == address or (not address.variant and found.startswith(address))

    def forget(ref: ValueRef | None) -> ValueRef | None:
        if ref is None or not ref.is_literal or not is_meant(Address.of(ref.digest)):
            return ref
        return msgspec.structs.replace(ref, literal=msgspec.UNSET)

    record = entry.record
    changed = record.replace(
        arguments={name: forget(ref) for name, ref in record.arguments.items()},
        states={name: forget(ref) for name, ref in record.states.items()},
        result=forget(record.result),
        error=forget(record.error),
    )
    return CallEntry(changed, {at: each for at, each in entry.parcels.items() if not is_meant(at)})


def _closing(
    parcels: Parcels,
) -> Iterator[tuple[Address, Parcel]]:
    """Yield parcels, and close each when the next one is asked for, or nothing more."""
    for address, parcel in parcels:
        with closing(parcel):
            yield address, parcel


def shrink_among(key: str, found: Iterable[str]) -> Digest:
    """Return the shortest beginning of ``key``, of 4 or more, that no other of ``found`` has."""
    return shrink_all({key, *found}, (key,))[key]


def shrink_all(everything: set[str], wanted: Iterable[str]) -> dict[str, Digest]:
    """Return the same for those of ``wanted`` that are there, all of them at once."""
    found: dict[str, Digest] = {}
    chosen = set(wanted)
    before = SHORTEST
    for key, after in pairwise([*sorted(everything), ""]):  # others are less alike
        length = SHORTEST
        while length < len(key) and after.startswith(key[:length]):
            length += 1
        if key in chosen:
            found[key] = _digest(key[: max(before, length)])
        before = length
    return found
