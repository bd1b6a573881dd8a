"""Copying calls from cache to cache, as parcels.

Only what the target lacks is read from the source at all, and all of it is checked before it goes
on: damage does not travel, and does not keep the rest from travelling. Nor does what the target
refuses. The operations are those of the batched contract, so that a transfer costs through a view,
a stack or a pool what it costs at the cache behind it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from fleche._util import batched
from fleche.caches._backend import CacheBackend, Parcels, result_needs
from fleche.caches._pending import Pin
from fleche.caches._progress import Meter
from fleche.caches.maintenance import needs_of
from fleche.call import CallEntry
from fleche.digest import Address, Digest
from fleche.errors import FlecheError, ParcelError, Rejected, SignatureError, flaw_of
from fleche.parcel import Buffer, Parcel, inline, verify

__all__ = ["ValueTransfer", "copy_entries", "copy_strictly", "transfer"]

log = logging.getLogger("fleche.caches")

_BATCH = 1024  # calls that are looked up at once
_PORTION = 64 << 20
"""So many bytes of values are sent before the entries that stand on them."""

_HELD = 1 << 16
"""Up to this size, a parcel that waits for its buffers is kept in memory."""


def transfer(
    source: CacheBackend,
    target: CacheBackend,
    keys: Iterable[Digest],
    meter: Meter | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Copy those calls of ``keys`` that ``target`` lacks, or lacks a part of, and ``source`` has.

    Buffers go before the values that refer to them, and values before the entries that stand on
    them, in portions: whenever it is interrupted, what has arrived is whole, and need not be sent
    again. A pin protects it until its entry has arrived, too.

    Args:
        source: has the calls.
        target: is to have them.
        keys: which calls.
        meter: counts what is copied, and what is left out.
        overwrite: copy the records of calls that ``target`` can answer, too.

    Returns:
        How many calls were copied, or completed.
    """
    meter = meter or Meter()
    before = meter.copied
    for batch in batched(keys, _BATCH):
        for number in _copy_batch(source, target, batch, meter, overwrite=overwrite):
            meter.add(copied=number)
        meter.add(done=len(batch))
    return meter.copied - before


def _copy_batch(
    source: CacheBackend,
    target: CacheBackend,
    keys: Sequence[Digest],
    meter: Meter,
    *,
    overwrite: bool,
) -> Iterator[int]:
    """Copy calls, and yield how many were copied each time that some were."""
    there = [False] * len(keys) if overwrite else target.contains(keys)
    lacking = list(itertools.compress(keys, (not answered for answered in there)))
    entries = _sound_entries(source, lacking, meter)
    copied = 0
    for saved in copy_entries(source, target, entries, meter):
        copied += len(saved)
        yield len(saved)
    meter.add(left_out=len(entries) - copied)
    known = list(itertools.compress(keys, there))
    if known:
        yield _complete(source, target, known, meter)


def copy_entries(
    source: CacheBackend,
    target: CacheBackend,
    entries: Mapping[Digest, CallEntry],
    meter: Meter | None = None,
) -> Iterator[list[Digest]]:
    """Copy calls with those of their values that ``target`` lacks; yield those copied together.

    A call whose result is gone, damaged or refused is left out, and so is an argument: counted and
    logged.

    Args:
        source: has the values.
        target: is to have the calls.
        entries: as ``source`` has loaded them.
        meter: counts the bytes.
    """
    meter = meter or Meter()
    accepted: dict[Digest, CallEntry] = {}
    held: dict[Address, Buffer] = {}
    apart = bool(entries) and target.opens_parcels
    for key, entry in entries.items():
        sound = _checked(source, target, key, entry)
        if sound is not None:
            accepted[key] = _lightened(sound, held) if apart else sound
    needs = {key: needs_of(entry) for key, entry in accepted.items()}
    wanted = dict.fromkeys(address for needed in needs.values() for address in needed)
    if not wanted:
        if accepted:
            yield _save_entries(source, target, accepted, meter)
        return
    with Pins(target) as pins:
        pins.hold(wanted)
        values = ValueTransfer(source, target, wanted, pins, held=held, meter=meter)
        rest = dict(accepted)
        while rest:
            values.send_some()
            ready = {
                key: entry
                for key, entry in rest.items()
                if values.lacking.keys().isdisjoint(needs[key])
            }
            rest = {key: entry for key, entry in rest.items() if key not in ready}
            whole = _answerable(source, ready, values)
            unpin = () if rest else pins.take()
            if whole or unpin:
                yield _save_entries(source, target, whole, meter, unpin)


def copy_strictly(
    source: CacheBackend,
    target: CacheBackend,
    entries: Mapping[Digest, CallEntry],
    secrets: Sequence[bytes] = (),
    again: Collection[Address] = (),
    *,
    results_only: bool = False,
) -> None:
    """Copy calls with those of their values that ``target`` lacks, all of them or none.

    Args:
        source: has the values.
        target: is to have the calls.
        entries: as ``source`` has loaded them, their parcels checked.
        secrets: if there are any, one of them must have signed each value.
        again: values that are sent, if they are needed, whether ``target`` has them or not.
        results_only: leave out arguments that do not travel with their record.

    Raises:
        KeyError: a result is not in ``source``, or damaged there.
        Rejected: ``target`` refuses a call, or a value.
        ParcelError: ``target`` refuses a value.
    """
    held: dict[Address, Buffer] = {}
    light: dict[Digest, CallEntry] = {}
    for key, entry in entries.items():
        target.check_accepts(key, entry.record)
        light[key] = _lightened(entry, held) if target.opens_parcels else entry
    find: Callable[[CallEntry], Iterable[Address]] = result_needs if results_only else needs_of
    wanted = dict.fromkeys(each for entry in light.values() for each in find(entry))
    if not wanted:
        target.save(light)
        return
    with Pins(target) as pins:
        pins.hold(wanted)
        values = ValueTransfer(source, target, wanted, pins, secrets, held, again)
        values.send_all()
        for error in values.refused.values():
            raise error
        for entry in light.values():
            for gone in values.absent.intersection(result_needs(entry)):
                raise KeyError(f"the value {gone.digest} is not in {source} any more")
        target.save(light, unpin=pins.take())


def _checked(
    source: CacheBackend,
    target: CacheBackend,
    key: Digest,
    entry: CallEntry,
) -> CallEntry | None:
    """Return an entry that ``target`` accepts, without damaged arguments; or None."""
    try:
        target.check_accepts(key, entry.record)
    except Rejected as error:
        source.count("refused")
        log.warning("call %s: refused, not copied: %s", key[:12], error)
        return None
    unfit = set()
    for address in entry.parcels:
        try:
            parcel = entry.parcel(address)
            if parcel is not None:
                verify(parcel, digest=address.digest)
                if target.packing.keys:
                    parcel.check_signature(target.packing.keys)
        except SignatureError as error:
            source.count("refused")
            log.warning("value %s: refused, not copied: %s", address[:12], error)
            unfit.add(address)
        except ParcelError as error:
            _note(source, address, error)
            unfit.add(address)
    if not unfit:
        return entry
    result = entry.record.result
    if result is not None and result.address in unfit:
        log.warning("call %s: its result is damaged or refused, not copied", key[:12])
        return None
    return CallEntry(
        entry.record, {at: data for at, data in entry.parcels.items() if at not in unfit}
    )


def _lightened(entry: CallEntry, held: dict[Address, Buffer]) -> CallEntry:
    """Return ``entry`` without those parcels that refer to buffers, which are added to ``held``.

    A target that takes values apart must get them whole.
    """
    apart = {}
    for address, data in entry.parcels.items():
        parcel = entry.parcel(address)
        if parcel is not None and parcel.references:
            apart[address] = data
    if not apart:
        return entry
    held.update(apart)
    return CallEntry(
        entry.record, {at: data for at, data in entry.parcels.items() if at not in apart}
    )


def _answerable(
    source: CacheBackend,
    entries: Mapping[Digest, CallEntry],
    values: ValueTransfer,
) -> dict[Digest, CallEntry]:
    """Return the entries whose results have arrived."""
    found = {}
    for key, entry in entries.items():
        lost = values.absent.intersection(result_needs(entry))
        if not lost:
            found[key] = entry
            continue
        if lost.isdisjoint(values.refused):
            source.count("dangling")
        log.warning("call %s: its result is gone, damaged or refused, not copied", key[:12])
    return found


def _save_entries(
    source: CacheBackend,
    target: CacheBackend,
    entries: Mapping[Digest, CallEntry],
    meter: Meter,
    unpin: Sequence[Digest] = (),
) -> list[Digest]:
    """Save entries, one by one if one is refused; return the keys of those that are not."""
    saved = list(entries)
    try:
        target.save(entries, unpin=unpin)
    except (Rejected, ParcelError):
        saved = []
        for key, entry in entries.items():
            try:
                target.save({key: entry})
            except (Rejected, ParcelError) as error:
                source.count("refused")
                log.warning("call %s: refused, not copied: %s", key[:12], error)
            else:
                saved.append(key)
        if unpin:
            target.save({}, unpin=unpin)
    meter.add(size=sum(len(data) for key in saved for data in entries[key].parcels.values()))
    return saved


# -- what a target lacks of calls that it can answer -----------------------------------------------


def _complete(
    source: CacheBackend, target: CacheBackend, keys: Sequence[Digest], meter: Meter
) -> int:
    """Copy what ``target`` lacks of calls that it can answer; return of how many.

    These are arguments, and buffers of values. Which buffers a value needs that does not travel
    with its record is read on this machine alone: over a distance that would take all of the value.

    Args:
        source: has the calls, too. The results of the two may differ.
        target: can answer them.
        keys: of the calls.
        meter: counts the bytes.
    """
    needs = _needs_nearby(source, target, keys)
    wanted = dict.fromkeys(address for needed in needs.values() for address in needed)
    if not wanted:
        return 0
    buffers = _references(source, target, [each for each in wanted if each.variant])
    asked = dict.fromkeys([*wanted, *(each for needed in buffers.values() for each in needed)])
    lacking = set(target.lacking(asked))
    absent: dict[Digest, set[Address]] = {}
    for key, needed in needs.items():
        missing = lacking.intersection(needed)
        for address in needed:
            if address not in lacking:
                missing |= lacking.intersection(buffers.get(address, ()))
        if missing:
            absent[key] = missing
    if not absent:
        return 0
    missing = {address for parts in absent.values() for address in parts}
    with Pins(target) as pins:
        pins.hold(missing)
        values = ValueTransfer(source, target, missing, pins, meter=meter)
        values.send_all()
    arrived = missing - values.absent
    return sum(not arrived.isdisjoint(parts) for parts in absent.values())


def _needs_nearby(
    source: CacheBackend, target: CacheBackend, keys: Sequence[Digest]
) -> dict[Digest, set[Address]]:
    """Return what calls need that both have, from their entries on this machine if they are here.

    The two agree in the arguments; of the result counts what the target says of its own.
    """
    found: dict[Digest, set[Address]] = {}
    if target.local:
        for key, entry in _sound_entries(target, keys).items():
            found[key] = set(needs_of(entry))
    for key, entry in _sound_entries(source, [key for key in keys if key not in found]).items():
        found[key] = set(needs_of(entry)).difference(result_needs(entry))
    return {key: needed for key, needed in found.items() if needed}


def _references(
    source: CacheBackend, target: CacheBackend, addresses: Sequence[Address]
) -> dict[Address, tuple[Address, ...]]:
    """Return the buffers that values refer to, for those that refer to any."""
    found: dict[Address, tuple[Address, ...]] = {}
    if target.opens_parcels or not addresses:
        return found
    for side in (target, source):
        if side.local:
            for address, parcel in side.load_values(addresses):
                if isinstance(parcel, Parcel):
                    with closing(parcel):
                        if parcel.references:
                            found[address] = parcel.references
            break
    return found


# -- pins ------------------------------------------------------------------------------------------


class Pins:
    """Protects values in a cache until the ``with`` block is left, however long that takes.

    A cache that takes no such entry keeps values by their age alone.
    """

    def __init__(self, cache: CacheBackend) -> None:
        """Protect values in ``cache``."""
        self._cache = cache
        self._keys: list[Digest] = []

    def hold(self, addresses: Iterable[Address]) -> None:
        """Protect these values, too; to be called before they are asked for, or stored."""
        pin = Pin("transfer", addresses)
        self._keys.append(pin.key)
        try:
            self._cache.save(pin.entries)
        except Rejected as error:
            log.debug("no pin for values that arrive: %s", error)

    def take(self) -> list[Digest]:
        """Return the keys of the pins, which the caller removes."""
        keys, self._keys = self._keys, []
        return keys

    def __enter__(self) -> Pins:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        keys = self.take()
        if not keys:
            return
        try:
            self._cache.save({}, unpin=keys)
        except FlecheError as failure:
            # what has ended the block says what is wrong there
            level = logging.WARNING if kind is None else logging.DEBUG
            log.log(level, "pin %s stays until it is too old: %s", keys[0][:12], failure)


# -- values ----------------------------------------------------------------------------------------


class ValueTransfer:
    """Those of some values that a target lacks, sent a portion at a time, buffers first.

    Attributes:
        lacking: what has not been dealt with yet.
        absent: what the target has not got in the end.
        refused: what the target refuses, and why.
    """

    def __init__(
        self,
        source: CacheBackend,
        target: CacheBackend,
        addresses: Iterable[Address],
        pins: Pins,
        secrets: Sequence[bytes] = (),
        held: Mapping[Address, Buffer] | None = None,
        again: Collection[Address] = (),
        meter: Meter | None = None,
    ) -> None:
        """Ask ``target`` what it lacks.

        Args:
            source: has the values.
            target: is to have them.
            addresses: what is asked for, and pinned.
            pins: protect in the target what takes long to arrive.
            secrets: if there are any, one of them must have signed each value.
            held: parcels that ``source`` has not by themselves.
            again: what is sent in any case.
            meter: counts the bytes.
        """
        self._meter = meter or Meter()
        self._source, self._target, self._pins = source, target, pins
        self._secrets = secrets
        self._in_hand = dict(held or {})
        self._again = set(again)
        self.lacking = dict.fromkeys(self._to_send(dict.fromkeys(addresses)))
        self.absent: set[Address] = set()
        self.refused: dict[Address, Rejected | ParcelError] = {}

    def _to_send(self, addresses: Collection[Address]) -> list[Address]:
        """Return what is sent in any case, then what the target lacks of the others."""
        forced = [each for each in addresses if each in self._again]
        rest = [each for each in addresses if each not in self._again]
        return [*forced, *(self._target.lacking(rest, keep=True) if rest else ())]

    def send_all(self) -> None:
        """Send everything."""
        while self.lacking:
            self.send_some()

    def send_some(self) -> None:
        """Send a portion, with the buffers that it needs."""
        if not self.lacking:
            return
        portion = _Portion(self._load, list(self.lacking))
        delivered = self._deliver(portion.plain(), self._load)
        if portion.waiting.references:
            whole = self._target.opens_parcels
            send = self._deliver_whole if whole else self._deliver_in_parts
            delivered |= send(portion.waiting)
        for address in portion.dealt_with():
            del self.lacking[address]
            if address not in delivered:
                self.absent.add(address)

    def _load(self, addresses: Iterable[Address]) -> Iterator[tuple[Address, Parcel]]:
        """Yield those of the parcels that the source has whole."""
        wanted = list(addresses)
        for address in wanted:
            if address in self._in_hand:
                yield address, Parcel.from_bytes(self._in_hand[address])
        rest = [each for each in wanted if each not in self._in_hand]
        if rest:
            yield from sound_parcels(self._source, rest, self._secrets)

    def _deliver_in_parts(self, waiting: _Waiting) -> set[Address]:
        """Send the buffers that the target lacks, then the values; return those that are whole."""
        needed = dict.fromkeys(each for keys in waiting.references.values() for each in keys)
        fresh = [each for each in needed if each not in self.lacking]
        if fresh:
            self._pins.hold(fresh)
        lacking = self._to_send(needed)
        sent = self._deliver(self._load(lacking), self._load) if lacking else set()
        gone = set(lacking) - sent
        whole = [key for key, needs in waiting.references.items() if gone.isdisjoint(needs)]
        return self._deliver(waiting.take(whole), waiting.take)

    def _deliver_whole(self, waiting: _Waiting) -> set[Address]:
        """Send values with their buffers inside; return those that are whole."""

        def filled(addresses: Iterable[Address]) -> Iterator[tuple[Address, Parcel]]:
            for address, parcel in waiting.take(addresses):
                references = parcel.references
                buffers = dict(self._load(references))
                try:
                    if len(buffers) == len(references):
                        yield address, inline(parcel, buffers, self._target.packing.keys)
                finally:
                    for each in (parcel, *buffers.values()):
                        each.close()

        return self._deliver(filled(waiting.references), filled)

    def _deliver(
        self,
        parcels: Iterator[tuple[Address, Parcel]],
        reload: Callable[[Iterable[Address]], Iterator[tuple[Address, Parcel]]],
    ) -> set[Address]:
        """Save parcels in the target, and return whose values it has then.

        Where one is refused, all that is not there yet is saved one by one, to learn which.

        Args:
            parcels: what is to be saved.
            reload: gives the parcels of what was given before.
        """
        first = next(parcels, None)
        if first is None:
            return set()
        taken: set[Address] = set()
        rest = itertools.chain([first], parcels)
        try:
            self._target.save({}, self._noting(rest, taken))
        except (Rejected, ParcelError):
            lacking = self._target.lacking(taken)
            taken.difference_update(lacking)
            for address, parcel in itertools.chain(reload(lacking), rest):
                if self._is_saved(address, parcel):
                    taken.add(address)
        return taken

    def _noting(self, parcels: Parcels, taken: set[Address]) -> Iterator[tuple[Address, Parcel]]:
        """Yield ``parcels`` as they are stored, and note what each was asked for by."""
        for address, parcel in parcels:
            taken.add(address)
            size = parcel.nbytes
            yield stored_at(address, parcel), parcel
            self._meter.add(size=size)

    def _is_saved(self, address: Address, parcel: Parcel) -> bool:
        """Save a parcel, and return whether the target has taken it."""
        try:
            self._target.save({}, [(stored_at(address, parcel), parcel)])
        except (Rejected, ParcelError) as error:
            self._source.count("refused")
            log.warning("value %s: refused, not copied: %s", address[:12], error)
            self.refused[address] = error
            return False
        return True


class _Portion:
    """What the source has of ``wanted``, until it is enough for one portion.

    Attributes:
        waiting: the values that refer to buffers.
    """

    def __init__(
        self,
        load: Callable[[Iterable[Address]], Iterator[tuple[Address, Parcel]]],
        wanted: list[Address],
    ) -> None:
        self._load, self._wanted = load, wanted
        self._seen: list[Address] = []
        self._is_last = False
        self.waiting = _Waiting(load)

    def plain(self) -> Iterator[tuple[Address, Parcel]]:
        """Yield the values that refer to no buffers; put the others aside."""
        size = 0
        for address, parcel in self._load(self._wanted):
            self._seen.append(address)
            size += parcel.nbytes_with_buffers
            if parcel.references:
                self.waiting.add(address, parcel)
            else:
                yield address, parcel
            if size >= _PORTION:
                return
        self._is_last = True

    def dealt_with(self) -> list[Address]:
        """Return what need not be asked for again: what was seen; after the last, everything."""
        return self._seen if self._seen and not self._is_last else self._wanted


class _Waiting:
    """Parcels whose buffers are to be copied first; large ones are asked for once more."""

    def __init__(
        self, load: Callable[[Iterable[Address]], Iterator[tuple[Address, Parcel]]]
    ) -> None:
        self._load = load
        self._held: dict[Address, Parcel] = {}
        self.references: dict[Address, tuple[Address, ...]] = {}

    def add(self, address: Address, parcel: Parcel) -> None:
        self.references[address] = parcel.references
        if parcel.nbytes <= _HELD:
            self._held[address] = Parcel.from_bytes(parcel.tobytes())
        parcel.close()

    def take(self, wanted: Iterable[Address]) -> Iterator[tuple[Address, Parcel]]:
        again = []
        for address in wanted:
            if address in self._held:
                yield address, self._held.pop(address)
            else:
                again.append(address)
        if again:
            yield from self._load(again)


def stored_at(address: Address, parcel: Parcel) -> Address:
    """Return where a parcel belongs that was asked for by ``address``, perhaps in any form."""
    return address if address.variant else Address.of(address, parcel.variant)


# -- soundness -------------------------------------------------------------------------------------


def _sound_entries(
    source: CacheBackend, keys: Sequence[Digest], meter: Meter | None = None
) -> dict[Digest, CallEntry]:
    """Return those of the entries that ``source`` has whole; ``meter`` counts those it has not."""
    found: dict[Digest, CallEntry] = {}
    for key, entry in source.load(keys, inline=0) if keys else ():
        if isinstance(entry, ParcelError):
            _note(source, key, entry)
            if meter is not None:
                meter.add(left_out=1)
        else:
            found[key] = entry
    return found


def sound_parcels(
    source: CacheBackend, addresses: Sequence[Address], secrets: Sequence[bytes] = ()
) -> Iterator[tuple[Address, Parcel]]:
    """Yield those of the parcels that ``source`` has whole; damage is counted and logged."""
    for address, parcel in source.load_values(addresses):
        if isinstance(parcel, ParcelError):
            _note(source, address, parcel)
            continue
        try:
            if secrets:
                parcel.check_signature(secrets)
            if not parcel.checked:
                verify(parcel, digest=address.digest)
                parcel.checked = True
        except KeyError:  # gone while it was read
            parcel.close()
        except ParcelError as error:
            parcel.close()
            _note(source, address, error)
        else:
            yield address, parcel


def _note(source: CacheBackend, key: str, error: ParcelError) -> None:
    source.count(f"errors.{error.code}")
    log.warning("%s: %s, not copied: %s", key[:12], flaw_of(error), error)
