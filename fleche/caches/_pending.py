"""A call between its arguments and its result, and how values get into a cache.

The arguments are packed before the function runs, which may change them, and their bytes are kept
until its result is there; then arguments, result and record are stored in one operation. So most
calls write once, need no pin, and leave nothing behind when their process is killed. What is too
large to be kept meanwhile is stored first, under a pin: an entry without a result, which tells
``gc()`` what to leave alone. It comes before what it protects and goes with the operation that
stores the record, so that at every moment one of the two speaks for the arguments.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import UNSET

from fleche._util import warn_caller
from fleche.caches._backend import INLINE
from fleche.caches._sender import FEW_CODES
from fleche.call import (
    MANY_PARTS,
    MISSING,
    SMALL,
    CallEntry,
    CallRecord,
    ValueRef,
    as_literal,
    plain_metadata,
    refer,
    summarize,
)
from fleche.digest import Address, BufferDigests, Digest, digest, digest_with_buffers
from fleche.errors import FlecheError, FlecheWarning, Indigestible, ParcelError
from fleche.parcel import FileBytes, Packing, Parcel

if TYPE_CHECKING:
    from fleche.caches._base import BaseCache
    from fleche.parcel import Draft, Pickled

__all__ = ["PendingCall", "Pin", "save_entries", "save_value"]

log = logging.getLogger("fleche.caches")

KEPT_CALL = 1 << 20
"""So many bytes of arguments are kept in memory while the function of one call runs."""

KEPT_PROCESS = 64 << 20
"""So many bytes of arguments, of all running calls of the process together."""

_LONG = 64 << 20
"""What takes more bytes may take longer to arrive than ``gc()`` leaves young values alone."""

_WORTH_ASKING = 1 << 16
"""What has been sent before is asked for again, instead of sent again, if it has more bytes."""

_DRAFTED = 8 << 20
"""Arrays of so many bytes are written while they are hashed, ..."""

_MOST = 1000
"""... if one is a value, or among so many first items of one."""


class _Kept:
    """Bytes that are kept in memory, until they are released or this object is gone."""

    sizes: ClassVar[dict[int, int]] = {}  # single operations need no lock

    def __init__(self, size: int) -> None:
        self.sizes[id(self)] = size

    @classmethod
    def total(cls) -> int:
        return sum(list(cls.sizes.values()))  # a copy: other threads add to it

    def release(self) -> None:
        """Count no more. Idempotent."""
        self.sizes.pop(id(self), None)

    def __del__(self) -> None:
        self.release()


_checked: set[type] = set()
"""Classes that no handler knows, of which a value has been opened and digested again."""

CHECKED = 1 << 24
"""Up to so many bytes, the first value of such a class is checked."""


def check_stable(
    packing: Packing, value: Any, ref: ValueRef, main: Parcel, unfamiliar: Iterable[type]
) -> None:
    """Warn if a value does not come back, or with another digest, so that calls never hit.

    It is opened and digested again the first time in a process that its class is met.
    """
    fresh = set(unfamiliar) - _checked
    if not fresh or main.references or main.nbytes > CHECKED:
        return
    from fleche.digest import find_difference

    _checked.update(fresh)
    try:
        copy = packing.unpack(Parcel.from_bytes(main.tobytes()), ref.digest)
    except Exception as error:  # noqa: BLE001 (of any class)
        warn_caller(
            f"never found: a {type(value).__qualname__} that is stored cannot be opened again, so "
            f"that a result which holds one is computed each time. {error}. Give its class a "
            "__reduce__ method that says how to make it"
        )
        return
    try:
        difference = find_difference(value, copy)
        if difference is not None and digest(value) != digest(value):
            return  # an argument like that is refused, and said to be so then
    except Indigestible as error:
        log.debug("%s: not checked: %r", type(value).__qualname__, error)
        return
    if difference is not None:
        cls = f"{difference.cls.__module__}.{difference.cls.__qualname__}"
        warn_caller(
            f"never hits: a call that gets a {type(value).__qualname__} from a cache as an "
            f"argument. It has another digest there, since {cls} keeps something that pickling "
            f"changes{f' (at {difference.path})' if difference.path else ''}. Give the class a "
            "__digest__ method that returns what counts, or fleche.add_hook() a function that does"
        )


class _Parts:
    """Values as parcels: a main parcel each, and the buffers that those refer to."""

    def __init__(self, packing: Packing, *, whole: bool) -> None:
        """Pack as ``packing`` says.

        Args:
            packing: the serializer, the compression and the secrets.
            whole: leave buffers inside the main parcels: their storage takes them apart itself.
        """
        self._packing = packing
        self._whole = whole
        self.mains: dict[Address, Parcel] = {}
        self.buffers: dict[Digest, memoryview | FileBytes] = {}
        self.drafts: dict[int, Draft] = {}  # by the identity of the buffer
        self._apart: set[Address] = set()  # what never travels with a record

    def take(self, value: Any, draft: Callable[[memoryview], Draft | None]) -> ValueRef:
        """Digest a value, and pack it unless it is a digest itself; return the reference to it.

        Args:
            value: a value.
            draft: begins the file of a buffer; large arrays are written while they are hashed.

        Raises:
            Indigestible: it has no digest.
        """
        pickled, buffers = None, BufferDigests()
        if not self._whole and _has_large_array(value):
            pickled = self._begin(value, draft, buffers)
        found, _ = digest_with_buffers(value, buffers)
        ref = refer(found, value)
        return ref if isinstance(value, Digest) else self.add(value, ref, buffers, pickled)

    def _begin(
        self, value: Any, draft: Callable[[memoryview], Draft | None], buffers: BufferDigests
    ) -> Pickled | None:
        """Serialize a value, and hash and write its large arrays; ``None`` if it cannot be.

        What is stored already is written in vain, but not for longer than its hashing takes.
        """
        try:
            pickled = self._packing.serialize(value)
        except Exception:  # noqa: BLE001 (a pickler raises anything; it comes again)
            return None
        begun: list[Draft] = []
        for each in pickled.buffers:
            if isinstance(each, memoryview) and each.nbytes >= _DRAFTED:
                if (new := draft(each)) is None:
                    break
                self.drafts[id(each)] = new
                begun.append(new)
        if begun:
            from fleche.digest import hashed_ahead  # few results are as large

            with hashed_ahead([new.content for new in begun], buffers) as goes_on:
                for new in begun:
                    new.write_while(goes_on)
        return pickled

    def add(
        self, value: Any, ref: ValueRef, buffers: BufferDigests, pickled: Pickled | None = None
    ) -> ValueRef:
        """Pack ``value``; return ``ref`` with the variant and size of its parcel."""
        if self._whole:
            main, shared = self._packing.pack(value, ref.digest, buffers), {}
        else:
            packed = self._packing.pack_parts(value, ref.digest, buffers, pickled)
            main, shared = packed.main, dict(packed.buffers)
        size = main.nbytes + sum(each.nbytes for each in shared.values())
        variant = main.variant
        self.mains[Address.of(ref.digest, variant)] = main
        self.buffers.update(shared)
        check_stable(self._packing, value, ref, main, buffers.unfamiliar)
        summary, kind = summarize(value)
        return msgspec.structs.replace(ref, variant=variant, size=size, summary=summary, type=kind)

    @property
    def size(self) -> int:
        """Bytes of everything."""
        buffers = sum(each.nbytes for each in self.buffers.values())
        return buffers + sum(each.nbytes for each in self.mains.values())

    def freeze(self) -> None:
        """Copy what still is memory of live objects."""
        for address, main in self.mains.items():
            if any(section.inline for section in main.head.buffers):
                self.mains[address] = Parcel.from_bytes(main.tobytes())
        self.buffers = {
            name: each if isinstance(each, FileBytes) else memoryview(bytes(each))
            for name, each in self.buffers.items()
        }

    def take_large(self) -> _Parts:
        """Return, and give up, what does not travel with a record."""
        large = _Parts(self._packing, whole=self._whole)
        large.buffers, self.buffers = self.buffers, {}
        large.mains = {at: each for at, each in self.mains.items() if each.nbytes > SMALL}
        self.mains = {at: each for at, each in self.mains.items() if at not in large.mains}
        return large

    def take_apart(self, parcels: Mapping[Address, Parcel]) -> None:
        """Take what is packed already, and is not to travel with a record."""
        self.mains.update(parcels)
        self._apart.update(parcels)

    def take_small(self, first: Iterable[Address]) -> dict[Address, bytes]:
        """Return, and give up, what travels with a record: ``first``, then the smallest."""
        order = dict.fromkeys((*first, *sorted(self.mains, key=lambda at: self.mains[at].nbytes)))
        room, taken = SMALL, {}
        for address in order:
            parcel = None if address in self._apart else self.mains.get(address)
            if parcel is not None and parcel.nbytes <= room:
                taken[address] = self.mains.pop(address).tobytes()
                room -= len(taken[address])
        return taken

    def release(self) -> None:
        """Give up the drafts that were not needed. Idempotent."""
        for draft in self.drafts.values():
            draft.discard()
        self.drafts.clear()

    def addresses(self) -> list[Address]:
        """Where everything goes, buffers first."""
        return [*map(Address.of, self.buffers), *self.mains]

    def parcels(self, wanted: Iterable[Address]) -> Iterator[tuple[Address, Parcel]]:
        """Yield those parcels that are wanted, buffers first."""
        chosen = set(wanted)
        for name, content in self.buffers.items():
            address = Address.of(name)
            if address in chosen:
                draft = self.drafts.get(id(content))
                written = draft and draft.finish(name, self._packing.keys)
                yield address, written or self._packing.pack_buffer(content, name)
        for address, parcel in self.mains.items():
            if address in chosen:
                yield address, parcel


class Pin:
    """Protects values from ``gc()`` while no record refers to them yet.

    Attributes:
        key: of the entry that protects them.
        record: that entry: a record without a result, whose arguments are what is protected.
    """

    def __init__(self, name: str, addresses: Iterable[Address]) -> None:
        """Pin what is, or will be, under ``addresses``; ``name`` says for what."""
        self.key = Digest(os.urandom(32).hex())
        self.record = CallRecord(
            name=name,
            arguments={
                str(number): ValueRef(address.digest, address.variant)
                for number, address in enumerate(addresses)
            },
        )

    @property
    def entries(self) -> dict[Digest, CallEntry]:
        """What is saved to pin them."""
        return {self.key: CallEntry(self.record)}


class PendingCall:
    """A call whose key is known and whose arguments are packed, while its function runs.

    It is committed once, or abandoned.

    Attributes:
        is_over: whether it has been committed or abandoned.
        key: the key of the call, whatever becomes of its arguments.
        record: the record so far.
    """

    def __init__(
        self,
        cache: BaseCache,
        key: Digest,
        record: CallRecord,
        arguments: Mapping[str, Any],
        buffers: BufferDigests,
        content: Collection[str] = (),
        *,
        begins: bool = True,
    ) -> None:
        """Pack arguments for ``cache``.

        Args:
            cache: where the call will be stored.
            key: of the call.
            record: what is known of it: all but the result and what is collected.
            arguments: the values that the record refers to.
            buffers: the digests of the large buffers in them.
            content: the arguments whose paths count by what the files hold.
            begins: its function is about to run, and may change the arguments.
        """
        self.key = key
        self._cache = cache
        self._pin: Pin | None = None
        self.is_over = False
        self._parts: _Parts | None = None
        self._kept: _Kept | None = None
        self._begins = begins
        backend = cache.backend
        self._signs = bool(backend.packing.keys)
        packed: dict[str, ValueRef] = {}
        digests: dict[str, Digest] = {}
        for name, ref in record.arguments.items():
            if ref.literal is UNSET or self._signs:
                value = arguments[name]
                if isinstance(value, Digest):
                    digests[name] = value
                elif value is not MISSING:  # as a secret is
                    if not packed:
                        backend.check_writable("save")
                    packed[name] = self._pack(record, name, value, ref, buffers)
        for name, value in self._travelling(digests).items() if digests else ():
            ref = record.arguments[name]
            if name not in content:
                ref = refer(Digest(ref.digest), value)
            needed = ref.literal is UNSET or self._signs
            packed[name] = self._pack(record, name, value, ref, buffers) if needed else ref
        self.record = record
        if packed:
            self.record = record.replace(arguments={**record.arguments, **packed})
        backend.check_accepts(key, self.record)
        if begins and packed:
            self._set_aside(self._pack_parts())

    def _travelling(self, given: Mapping[str, Digest]) -> dict[str, Any]:
        """Return the values, by argument, of digests that only records of calls hold.

        One of these records may be the one that is replaced, and any may go: so their values
        travel with the new record as well.
        """
        digests = {name: value for name, value in given.items() if value.is_full}
        if not digests:
            return {}
        absent = set(self._cache.backend.lacking(list(map(Address.of, digests.values()))))
        found = {}
        for name, value in digests.items():
            if Address.of(value) in absent:
                with suppress(KeyError, ParcelError):  # then it stays a digest
                    found[name] = self._cache.load_value(value)
        return found

    def _pack_parts(self) -> _Parts:
        """Return where parcels are put together."""
        if self._parts is None:
            backend = self._cache.backend
            self._parts = _Parts(backend.packing, whole=backend.opens_parcels)
        return self._parts

    def _pack(
        self, call: CallRecord, name: str, value: Any, ref: ValueRef, buffers: BufferDigests
    ) -> ValueRef:
        """Pack an argument; one that cannot be packed is left out, which is said once."""
        try:
            return self._pack_parts().add(value, ref, buffers)
        except (FlecheError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever the pickling of an object raises)
            if self._cache.sender.is_new(("unpicklable", call.module, call.name, name)):
                warn_caller(
                    f"{call.name}(): the argument {name!r} has a digest, but cannot be pickled "
                    f"({type(error).__name__}: {error}). Results are stored and found, and the "
                    "value of this argument is left out of what is stored",
                    FlecheWarning,
                )
            return ref

    def _set_aside(self, parts: _Parts) -> None:
        """Keep the bytes of the arguments, or store them first if that would be too many."""
        size = parts.size
        if size <= KEPT_CALL and _Kept.total() + size <= KEPT_PROCESS:
            self._kept = _Kept(size)
            parts.freeze()
            return
        large = parts.take_large()
        parts.freeze()
        pin = Pin(self.record.name, large.addresses())
        self._cache.backend.save(pin.entries)
        self._pin = pin
        try:
            _store(self._cache, large)
        except BaseException:
            self._unpin()
            raise

    def commit(
        self,
        result: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        states: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Store arguments, result and record in one operation; return the key.

        Args:
            result: what the function returned.
            metadata: replaces that of the call.
            states: what the call left its mutable arguments in, by the name of the argument.
            fields: further fields of the record: ``duration``, ``children``, ...

        Raises:
            Indigestible: the result has no digest.
            Rejected: the cache refuses it.
            StorageError: it could not be stored.
            RuntimeError: the call has been committed or abandoned already.
        """
        if metadata is not None:
            fields["metadata"] = plain_metadata(metadata)
        self.store(result, states or {}, fields)
        return self.key

    def store_error(self, error: BaseException, fields: Mapping[str, Any]) -> None:
        """Store an exception as the outcome of the call.

        Args:
            error: what the function raised.
            fields: further fields of the record, the metadata among them as plain data.
        """
        self.store(error, {}, {**fields, "error": None})

    def store(self, result: Any, states: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Do the same.

        Args:
            result: what the function returned.
            states: what the call left its mutable arguments in.
            fields: further fields of the record, the metadata among them as plain data.
        """
        if self.is_over:
            raise RuntimeError(
                f"{self.record.name} {self.key[:12]}: a pending call is committed once, and this "
                "one was committed or abandoned already; prepare() another"
            )
        try:
            self._store(result, states, fields)
        finally:
            self.abandon()

    def _store(self, result: Any, states: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        changes = dict(fields)
        found = self._pack_value(result)
        changes["error" if "error" in fields else "result"] = found
        if states:
            changes["states"] = {name: self._pack_value(each) for name, each in states.items()}
        record, apart = dependencies_apart(self._cache, self.record.replace(**changes))
        if apart:
            self._pack_parts().take_apart(apart)
        parts = self._parts
        pin, self._pin = self._pin, None
        unpin = (pin.key,) if pin else ()
        try:
            if parts is None:  # the record says it all
                self._cache.backend.save({self.key: CallEntry(record)}, unpin=unpin)
            else:
                inline = parts.take_small([found.address])
                _store(self._cache, parts, {self.key: CallEntry(record, inline)}, unpin)
                self._cache.sender.note_mended(inline)
                self._cache.sender.note_sent(apart)
        except BaseException:
            self._pin = pin
            raise
        if self._begins:
            self._cache.counter.miss(record)

    def _pack_value(self, value: Any) -> ValueRef:
        # Where values are signed, so are literals: a record may come from elsewhere.
        literal = UNSET if self._signs else as_literal(value)
        if literal is not UNSET:
            return ValueRef(str(digest(value)), literal=literal)
        return self._pack_parts().take(value, self._cache.backend.draft)

    def abandon(self) -> None:
        """Give the call up (its function raised); nothing of it is listed. Idempotent."""
        self.is_over = True
        if self._parts is not None:
            self._parts.release()
        if self._kept is not None:
            self._kept.release()
        self._unpin()

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is None:
            return
        try:
            self._cache.backend.save({}, unpin=[pin.key])
        except FlecheError as error:
            log.warning("pin %s stays until it is too old: %s", pin.key[:12], error)


_dependencies: dict[str, tuple[Packing, dict[str, str], ValueRef, bytes]] = {}
"""What the last codes depend on, packed, by the digest of the code."""


def dependencies_apart(
    cache: BaseCache, record: CallRecord
) -> tuple[CallRecord, dict[Address, Parcel]]:
    """Return a record with its dependencies, if they are many, in a value of their own.

    And the parcel of that, unless it has been sent lately.
    """
    code, content = record.code or "", record.dependencies
    if len(content) <= MANY_PARTS:
        return record, {}
    found = _dependencies.get(code)
    if found is None or found[0] is not cache.packing or found[1] != content:
        name = digest(content)
        parcel = cache.packing.pack(content, name)
        # without a size: it is no part of what this one call takes
        ref = ValueRef(str(name), variant=parcel.variant)
        found = cache.packing, content, ref, parcel.tobytes()
        if len(_dependencies) >= FEW_CODES:
            _dependencies.clear()
        _dependencies[code] = found
    _, _, ref, data = found
    is_there = cache.sender.was_sent_lately(ref.address)
    parcels = {} if is_there else {ref.address: Parcel.from_bytes(data)}
    return record.replace(dependencies={}, covered=ref), parcels


def save_entries(cache: BaseCache, entries: Mapping[Digest, CallEntry]) -> None:
    """Store entries, all values of which but the dependencies of their code are there."""
    kept, parcels = {}, dict[Address, Parcel]()
    for key, entry in entries.items():
        record, apart = dependencies_apart(cache, entry.record)
        kept[key] = entry._replace(record=record)
        parcels.update(apart)
    cache.backend.save(kept, parcels.items())
    cache.sender.note_sent(parcels)


def save_value(cache: BaseCache, value: Any) -> Digest:
    """Store ``value`` in ``cache`` by itself, and return its digest.

    Raises:
        Indigestible: it has no digest.
        Rejected: the cache refuses it.
    """
    parts = _Parts(cache.packing, whole=cache.backend.opens_parcels)
    try:
        ref = parts.take(value, cache.backend.draft)
        if not isinstance(value, Digest):
            _store(cache, parts)
        return Digest(ref.digest)
    finally:
        parts.release()


def _has_large_array(value: Any) -> bool:
    """Return whether a value, or an item of one, is an array worth writing ahead."""
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    if array is None:
        return False
    items: Iterable[Any] = (value,)
    if isinstance(value, list | tuple):
        items = value
    elif isinstance(value, dict):
        items = value.values()
    return any(isinstance(each, array) and each.nbytes >= _DRAFTED for each in islice(items, _MOST))


def _store(
    cache: BaseCache,
    parts: _Parts,
    entries: Mapping[Digest, CallEntry] | None = None,
    unpin: Sequence[Digest] = (),
) -> None:
    """Save parts, then entries.

    What the cache has is not sent again. It is asked for where that is worth a round trip: if there
    is much to send, or if some of it has gone this way before.
    """
    entries = entries or {}
    addresses = wanted = parts.addresses()
    size = parts.size
    pins = list(unpin)
    if size > _LONG:
        pin = Pin("save", addresses)
        cache.backend.save(pin.entries)
        pins.append(pin.key)
    if size > INLINE or (size > _WORTH_ASKING and cache.sender.has_sent(addresses)):
        wanted = cache.sender.lacking(addresses)
    cache.backend.save(entries, parts.parcels(wanted) if wanted else (), unpin=pins)
    cache.sender.note_mended(wanted)
    if size > _WORTH_ASKING:
        cache.sender.note_sent(addresses)
