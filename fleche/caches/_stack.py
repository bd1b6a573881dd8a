"""A stack of caches: the near ones quick, the far ones shared."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import Event
from typing import TYPE_CHECKING, Any

from fleche._amounts import count
from fleche._util import batched, override
from fleche.caches._backend import (
    INLINE,
    CacheBackend,
    Entries,
    Loaded,
    LoadedValues,
    Parcels,
    Progress,
    result_needs,
)
from fleche.caches._background import BackgroundWriter
from fleche.caches._base import BaseCache
from fleche.caches._pool import BATCH, ROOM, UnitedBackend
from fleche.caches._transfer import copy_strictly
from fleche.caches.maintenance import NoteAccepted, NoteUsage, Report, Task
from fleche.call import CallEntry, CallRecord, LazyCall
from fleche.digest import Address, Digest
from fleche.errors import ParcelError, Rejected, RemoteConnectionError, SignatureError, StorageError
from fleche.parcel import Parcel, verify
from fleche.storage import Capabilities

if TYPE_CHECKING:
    from fleche.parcel import Draft

__all__ = ["CacheStack", "Flights", "StackBackend"]

log = logging.getLogger("fleche.caches")


class Flights:
    """Keeps several threads from doing the same work at the same time.

    The first thread to take a key leads. Others wait until it is through and then go on all at
    once: they find what the leader left, or have the same work to do each for itself. A forked
    child has none of the threads that lead in its parent, and waits for none.
    """

    def __init__(self) -> None:
        # without a lock, which a child could inherit closed: each step is atomic by itself
        self._flying: dict[tuple[int, Hashable], Event] = {}

    @contextmanager
    def join(self, keys: Iterable[Hashable]) -> Iterator[dict[Hashable, Event]]:
        """Lead those of ``keys`` that no other thread leads, for as long as the block lasts.

        Yields:
            For each of the other keys what to wait for, after the block: two threads that waited
            for each other inside it would wait for ever.
        """
        mine, process = Event(), os.getpid()
        led: list[tuple[int, Hashable]] = []
        others: dict[Hashable, Event] = {}
        try:  # from here on, so that no thread waits for a leader that was interrupted
            for key in keys:
                led.append((process, key))
                landed = self._flying.setdefault((process, key), mine)
                if landed is not mine:
                    led.pop()
                    others[key] = landed
            yield others
        finally:
            mine.set()
            for place in led:
                if self._flying.get(place) is mine:
                    del self._flying[place]


class StackBackend(UnitedBackend):
    """Layers one behind the other; see :class:`CacheStack`."""

    def __init__(self, layers: Iterable[CacheBackend], *, copies: bool = True) -> None:
        """Put ``layers`` together, the nearest first.

        Args:
            layers: at least one.
            copies: copy down what is found in further layers.
        """
        super().__init__(layers)
        self._copies = copies
        self._flights = Flights()
        self._writers: dict[int, BackgroundWriter] = {}
        self._damaged: set[Address] = set()
        self.first = self.layers[0]
        self.locks = self.first.locks
        self.takes_turns = self.first.takes_turns

    @property
    @override
    def capabilities(self) -> Capabilities:
        receiving = (self.first, *self._written_through())
        return self.united_capabilities(read_only=self.read_only, of=receiving)

    @property
    @override
    def read_only(self) -> bool:
        return self.first.read_only

    @property
    @override
    def opens_parcels(self) -> bool:
        return self.first.opens_parcels

    # -- looking up --------------------------------------------------------------------------------

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        for batch in batched(keys, BATCH):
            search = _Search(self, batch, inline)
            with self._flights.join(search.rest) as others:
                search.postpone(others)  # what other threads look for is theirs to copy down
                search.ask_all()
            for landed in others.values():
                landed.wait()
            search.resume()
            search.ask_all()
            yield from search.answers(batch)

    @override
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        wanted = list(addresses)
        damaged = [each for each in wanted if each in self._damaged]
        if len(damaged) < len(wanted):
            yield from super().load_values(each for each in wanted if each not in damaged)
        if damaged:  # what the first layer has is not to be trusted
            order = (*self.layers[1:], self.first)
            yield from self.load_from(order, damaged, lambda layer, rest: layer.load_values(rest))

    @override
    def note_damage(self, key: Digest, addresses: Sequence[Address]) -> bool:
        known = self._damaged.issuperset(addresses)
        self._damaged.update(addresses)
        if known:
            return False
        for layer in self.layers[1:]:
            with self.tolerating(layer):
                if layer.contains([key])[0]:
                    return True
        return False

    def is_damaged(self, entry: CallEntry) -> bool:
        """Return whether the result of ``entry`` is known to be of no use in the first layer."""
        ref = entry.record.result
        return bool(self._damaged) and ref is not None and ref.address in self._damaged

    def mended(self, addresses: Iterable[Address]) -> None:
        """Take note that values have been stored anew in the first layer."""
        self._damaged.difference_update(addresses)

    # -- copying down ------------------------------------------------------------------------------

    def copy_down(self, depth: int, entries: Mapping[Digest, CallEntry]) -> None:
        """Give nearer layers what the layer at ``depth`` has; that one may refuse is no error."""
        if not self._copies:
            return
        for nearer in reversed(self.layers[:depth]):
            if nearer.read_only:
                self.note("refused", nearer, Rejected(f"{nearer}: read-only"))
                continue
            self._copy_all(self.layers[depth], nearer, entries)

    def _copy_all(
        self, source: CacheBackend, nearer: CacheBackend, entries: Mapping[Digest, CallEntry]
    ) -> None:
        """Copy calls; where one of several cannot be copied, one by one."""
        try:
            self._copy(source, nearer, entries)
        except (KeyError, ParcelError, Rejected, StorageError, RemoteConnectionError) as error:
            if len(entries) > 1:
                for key, entry in entries.items():
                    self._copy_all(source, nearer, {key: entry})
            elif isinstance(error, KeyError | ParcelError) and not isinstance(
                error, SignatureError
            ):
                self.count("dangling")
            else:
                self.note("refused", nearer, error)

    def _copy(
        self, source: CacheBackend, nearer: CacheBackend, entries: Mapping[Digest, CallEntry]
    ) -> None:
        """Copy calls with their results; larger arguments stay where they are."""
        secrets = self.packing.keys
        again = set(self._damaged) if nearer is self.first else set()
        copy_strictly(source, nearer, entries, secrets, again, results_only=True)
        self._damaged -= again
        self.settle("refused", nearer)
        self.count("copied", len(entries))

    # -- changing ----------------------------------------------------------------------------------

    def _written_through(self) -> list[CacheBackend]:
        return [layer for layer in self.layers[1:] if layer.policy.write_through]

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        if not self._damaged:
            self.first.save(entries, parcels, unpin=unpin)
        else:
            stored: set[Address] = set()
            self.first.save(entries, _noting(parcels, stored), unpin=unpin)
            stored.update(chain.from_iterable(entry.parcels for entry in entries.values()))
            self.mended(stored)
        finished = {key: each for key, each in entries.items() if not each.record.is_pin}
        if finished:
            for layer in self._written_through():
                if layer.policy.write_through == "background":
                    self._writer(layer).put(finished)
                else:
                    self._write_through(layer, finished)

    def _writer(self, layer: CacheBackend) -> BackgroundWriter:
        """Return what sends results to ``layer`` in the background."""
        found = self._writers.get(id(layer))
        if found is None:
            made = BackgroundWriter(
                repr(layer), partial(self._send, layer), partial(self._dropped, layer)
            )
            found = self._writers.setdefault(id(layer), made)
        return found

    def _send(self, layer: CacheBackend, entries: Mapping[Digest, CallEntry]) -> bool:
        """Write calls through; where that fails for all of them, one by one."""
        if len(entries) > 1:
            try:
                self._copy_through(layer, entries)
            except Exception as error:  # noqa: BLE001 (as in _write_through)
                log.debug("%s: %d results are sent one by one: %s", layer, len(entries), error)
            else:
                return True
        sent = [self._write_through(layer, {key: entry}) for key, entry in entries.items()]
        return all(sent)

    def _dropped(self, layer: CacheBackend, number: int, why: str) -> None:
        left = count(number, "result is", "results are")
        error = StorageError(f"{left} left to push(): {why}")
        self.note("errors.write_through", layer, error)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits in the background; return whether everything was sent."""
        drained = [writer.drain(timeout) for writer in list(self._writers.values())]
        return all(drained)

    @override
    def close(self) -> None:
        self.drain()
        super().close()

    def _write_through(self, layer: CacheBackend, entries: Mapping[Digest, CallEntry]) -> bool:
        """Write calls through, and return whether that was done."""
        try:
            self._copy_through(layer, entries)
        except Exception as error:  # noqa: BLE001 (the result is safe in the first layer)
            self.note("errors.write_through", layer, error)
            return False
        return True

    def _copy_through(self, layer: CacheBackend, entries: Mapping[Digest, CallEntry]) -> None:
        copy_strictly(self.first, layer, entries)
        self.settle("errors.write_through", layer)
        self.count("written_through", len(entries))

    @override
    def draft(self, content: memoryview) -> Draft | None:
        return self.first.draft(content)

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        return self.first.lacking(addresses, keep=keep)

    @override
    def check_accepts(self, key: Digest, record: CallRecord) -> None:
        self.first.check_accepts(key, record)

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        gone: set[int] = set()
        for layer in self.layers:
            with self.tolerating(layer):
                if not layer.read_only:
                    there = layer.evict(keys)
                    gone.update(place for place, was in enumerate(there) if was)
        kept = [place for place in range(len(keys)) if place not in gone]
        if kept:
            still = self.contains([keys[place] for place in kept])
            for place, here in zip(kept, still, strict=True):
                if here:
                    raise Rejected(
                        f"{self}: only read-only layers have {keys[place][:12]}, evict refused"
                    )
        return [place in gone for place in range(len(keys))]

    @override
    def looking_only(self) -> CacheBackend:
        return StackBackend((layer.looking_only() for layer in self.layers), copies=False)

    # -- the whole ---------------------------------------------------------------------------------

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        if isinstance(task, NoteUsage):  # else they would count twice when they are read
            return self.first.maintain(task)
        if isinstance(task, NoteAccepted):  # goes where results go
            report = self.first.maintain(task)
            for layer in self._written_through():
                with self.tolerating(layer):
                    layer.maintain(task)
            return report
        return super().maintain(task, progress)

    @override
    def to_config(self) -> list[Any]:
        tables: list[Any] = []
        for layer in self.layers:
            config = layer.to_config()
            tables += config if isinstance(config, list) else [config]
        return tables

    def __repr__(self) -> str:
        return f"CacheStack({', '.join(map(repr, self.layers))})"


class _Search:
    """The look-up of some calls in the layers of a stack, the nearest first.

    Attributes:
        rest: the keys for which no answer has been found.
    """

    def __init__(self, stack: StackBackend, keys: Sequence[Digest], inline: int) -> None:
        self._stack = stack
        self._inline = min(inline, ROOM // max(len(keys), 1))
        self.rest = list(dict.fromkeys(keys))
        self._later: list[Digest] = []
        self._found: dict[Digest, CallEntry] = {}
        self._dangling: dict[Digest, CallEntry] = {}
        self._damage: dict[Digest, ParcelError] = {}

    def postpone(self, keys: Iterable[Hashable]) -> None:
        """Leave out some keys until :meth:`resume`."""
        left_out = set(keys)
        self._later = [key for key in self.rest if key in left_out]
        self.rest = [key for key in self.rest if key not in left_out]

    def resume(self) -> None:
        """Turn to the keys that were left out."""
        self.rest, self._later = self._later, []

    def ask_all(self) -> None:
        """Look in one layer after the other, and copy down what is found."""
        for depth in range(len(self._stack.layers)):
            if self.rest:
                self._ask(depth)

    def _ask(self, depth: int) -> None:
        stack = self._stack
        layer = stack.layers[depth]
        with stack.tolerating(layer):
            here: dict[Digest, CallEntry] = {}
            for key, entry in layer.load(self.rest, inline=self._inline):
                if isinstance(entry, ParcelError):
                    self._damage.setdefault(key, entry)
                elif depth == 0 and stack.is_damaged(entry):
                    self._dangling.setdefault(key, entry)
                elif depth == 0 or self._is_trusted(key, entry):
                    here[key] = entry
            is_last = depth == len(stack.layers) - 1
            whole = here if is_last else self._with_result(layer, here)
            for key in here.keys() - whole.keys():
                self._dangling.setdefault(key, here[key])
            if depth and whole:
                stack.copy_down(depth, whole)
            layer.count("hits", len(whole))
            layer.count("misses", len(self.rest) - len(whole))
            self._found.update(whole)
            self.rest = [key for key in self.rest if key not in whole]

    def _is_trusted(self, key: Digest, entry: CallEntry) -> bool:
        """Return whether the result that came along, from further up, would be opened here."""
        ref = entry.record.result
        secrets = self._stack.packing.keys
        if ref is None or (ref.is_literal and not secrets):
            return True
        try:
            parcel = entry.parcel(ref.address)
            if parcel is not None:
                verify(parcel, digest=ref.digest, keys=secrets)
            elif ref.is_literal and not ref.variant:
                raise SignatureError(f"call {key[:12]}: its result is not signed")
        except ParcelError as error:
            self._damage.setdefault(key, error)
            return False
        return True

    def _with_result(
        self, layer: CacheBackend, entries: Mapping[Digest, CallEntry]
    ) -> dict[Digest, CallEntry]:
        """Return those of the entries whose result is in ``layer``."""
        signed = bool(self._stack.packing.keys)
        needs = {key: result_needs(entry, signed=signed) for key, entry in entries.items()}
        asked = dict.fromkeys(address for needed in needs.values() for address in needed)
        if not asked:
            return dict(entries)
        there = layer.contains(list(asked))
        absent = {address for address, here in zip(asked, there, strict=True) if not here}
        return {key: entry for key, entry in entries.items() if absent.isdisjoint(needs[key])}

    def answers(self, keys: Iterable[Digest]) -> Loaded:
        """Yield what has been found, in order; an entry without its result counts last but one."""
        for key in dict.fromkeys(keys):
            found: CallEntry | ParcelError | None = self._found.get(key)
            found = found or self._dangling.get(key) or self._damage.get(key)
            if found is not None:
                yield key, found


def _noting(parcels: Parcels, stored: set[Address]) -> Iterator[tuple[Address, Parcel]]:
    for address, parcel in parcels:
        stored.add(address)
        yield address, parcel


class CacheStack(BaseCache):
    """Caches one behind the other.

    Saves go to the first layer, and to those further ones whose policy says ``write_through``. A
    call is looked for from the first layer on, and no layer is asked if one before it can answer. A
    hit further up is copied down as it is: the record, what travels with it, and the result. Larger
    arguments stay where they are, since the caller of the function holds them already; they are
    loaded from there when asked for. A value that is asked for by itself is not copied down, for
    nothing here would refer to it.

    Values are packed, signed and opened as the first layer says.

    Attributes:
        layers: the caches, the nearest first. ``counts()`` of each says how often it was asked, and
            had the result.
    """

    backend: StackBackend

    def __init__(self, layers: Iterable[BaseCache]) -> None:
        """Put ``layers`` together, the nearest first."""
        self.layers = tuple(layers)
        super().__init__(StackBackend(layer.backend for layer in self.layers))

    @property
    def first(self) -> BaseCache:
        """The layer that saves go to."""
        return self.layers[0]

    @override
    def _bring_near(self, call: LazyCall) -> None:
        self.transfer(self.first, [call])

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the layers that are written to in the background have everything.

        Args:
            timeout: seconds to wait at most, for each of them.

        Returns:
            Whether they have. It is false if it takes longer, or if something stored since the
            last time could not be sent, which is left to :meth:`push`. The end of the program, and
            :meth:`close`, wait as well.
        """
        return self.backend.drain(timeout)

    @override
    def _ways_on(self) -> list[tuple[BaseCache, BaseCache]]:
        return [(self.first, layer) for layer in self.layers[1:] if not layer.read_only]

    @override
    def _ways_here(self) -> list[tuple[BaseCache, BaseCache]]:
        return [(layer, self.first) for layer in self.layers[1:]]

    @override
    def _made_from(self) -> tuple[Any, ...]:
        return (self.layers,)

    def __repr__(self) -> str:
        return f"CacheStack({', '.join(map(repr, self.layers))})"
