"""The facade of every cache: what people call, written once over the batched operations."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET, ValidationError, convert, structs

from fleche.caches import maintenance
from fleche.caches._backend import CacheBackend, LayerPolicy
from fleche.caches._sender import FEW_CODES, Sender
from fleche.caches._usage import UsageCounter
from fleche.caches.maintenance import GRACE, PIN_AGE
from fleche.call import MISSING, Call, CallEntry, CallRecord, LazyCall, QueryCall, ValueRef
from fleche.digest import Address, BufferDigests, Digest
from fleche.errors import (
    AmbiguousDigestError,
    CorruptParcel,
    FlecheError,
    ParcelError,
    SignatureError,
)
from fleche.parcel import Packing, Parcel
from fleche.storage import SHORTEST, Acceptance, Capabilities, LockTable, Usage, merge_usage

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self

    from fleche.caches._accepted import AcceptedCode
    from fleche.caches._pending import PendingCall
    from fleche.caches._progress import ShowProgress
    from fleche.caches._query import QueryIterator
    from fleche.caches._table import Table

__all__ = ["ACCEPTED_AGE", "BaseCache"]

log = logging.getLogger("fleche.caches")

R = TypeVar("R")

ACCEPTED_AGE = 60.0
"""Seconds after which a miss looks again for code that others have accepted."""


class BaseCache:
    """A cache of calls. Every method may be called from any thread.

    A key is the digest of a call or of a value, or the beginning of one, of at least 4 characters,
    that stands for it alone.

    Attributes:
        backend: answers the batched operations.
        sender: knows what this object has saved, and what must be saved anew.
        slot: calls in caches of the same slot are made once at a time.
        counter: counts hits and computations, and stores that now and then.
        accepted: which code was accepted for other code, when that was last read; ``None``: none.
    """

    def __init__(self, backend: CacheBackend) -> None:
        """Make what ``backend`` does convenient."""
        self.backend = backend
        self.sender = Sender(backend)
        self.slot: Hashable = id(self)
        self.counter = UsageCounter(backend)
        self.accepted: AcceptedCode | None = None
        self._accepted_read = 0.0
        self._dependencies: dict[Address, dict[str, str]] = {}

    # -- one call ----------------------------------------------------------------------------------

    def save(self, call: Call) -> str:
        """Store a finished call with its values and return its key.

        Raises:
            Indigestible: an argument or the result has no digest.
            Rejected: this cache refuses it.
            StorageError: it could not be stored.
            ValueError: the call has no result.
        """
        if call.result is MISSING:
            raise ValueError(f"{call.name}: a call without a result cannot be saved")
        return self._begin(call, begins=False).commit(call.result)

    def save_as(
        self, call: LazyCall, *, name: str | None = None, module: str | None = None
    ) -> Digest:
        """Store a call of this cache once more, under another name, and return the new key.

        That is what a function needs that has been renamed or moved. No value is opened, so that
        none of their classes need be here; times, children and all else stay as they were.

        Args:
            call: it stays where it is.
            name: the qualified name of the function, if that is another one.
            module: its module, likewise.

        Raises:
            KeyError: a value of the call has been evicted.
            Rejected: this cache refuses the call.
            StorageError: it could not be stored.
        """
        self.check_writable("save")
        changes = {"name": name, "module": module}
        changed = {part: value for part, value in changes.items() if value is not None}
        record = structs.replace(call.record, **changed)
        entry, key = call.entry._replace(record=record), record.key
        self.backend.check_accepts(key, record)
        needs = maintenance.needs_of(entry)
        if self.backend.lacking(needs, keep=True):
            self._bring_near(call)
            for address in self.backend.lacking(needs, keep=True):
                raise KeyError(self._gone(address.digest))
        self.backend.save({key: entry})
        return key

    def _bring_near(self, call: LazyCall) -> None:
        """Copy a call to where saves go, if it is elsewhere."""

    def prepare(self, call: Call) -> PendingCall:
        """Digest the arguments of a call that is about to run, and pack them.

        What the function then does to its arguments changes neither the key nor what is stored.

        Args:
            call: a call without a result.

        Raises:
            Indigestible: an argument has no digest.
            Rejected: this cache refuses the call.
        """
        return self._begin(call, begins=True)

    def prepare_digested(
        self,
        key: Digest,
        record: CallRecord,
        arguments: Mapping[str, Any],
        buffers: BufferDigests,
        content: Collection[str] = (),
    ) -> PendingCall:
        """Do what :meth:`prepare` does for a call that has been digested.

        Args:
            key: of the call.
            record: all that is known of it.
            arguments: the values that the record refers to.
            buffers: the digests of the large buffers in them.
            content: the arguments whose paths count by what the files hold.

        Raises:
            Rejected: this cache refuses the call.
        """
        from fleche.caches._pending import PendingCall

        return PendingCall(self, key, record, arguments, buffers, content)

    def _begin(self, call: Call, *, begins: bool) -> PendingCall:
        from fleche.caches._pending import PendingCall

        buffers = BufferDigests()
        record = call.replace(result=MISSING).to_record(buffers)
        return PendingCall(
            self, record.key, record, call.arguments, buffers, call.content, begins=begins
        )

    def load(self, key: Digest | str) -> LazyCall:
        """Return the stored call of ``key``.

        Raises:
            KeyError: there is none.
            AmbiguousDigestError: the short key stands for several entries.
            ParcelError: the entry is damaged, or not trusted.
        """
        full = self.complete(key)
        for _, found in self.backend.load((full,)):
            if isinstance(found, ParcelError):
                raise found
            return LazyCall(full, found, self)
        raise KeyError(f"there is no call {full} in {self!r}")

    def load_many(self, keys: Iterable[Digest]) -> Iterator[LazyCall]:
        """Yield those of the calls that are here, each once, in order.

        Damaged ones are counted and left out.

        Args:
            keys: complete keys.
        """
        for key, found in self.backend.load(list(dict.fromkeys(keys))):
            if isinstance(found, ParcelError):
                self.backend.count(f"errors.{found.code}")
                log.warning("call %s: left out: %s", key[:12], found)
            else:
                yield LazyCall(key, found, self)

    def lookup(
        self, key: Digest, *, strict: bool = False, again: bool = False, raised: bool = False
    ) -> LazyCall | None:
        """Return the stored call with its result already opened, or ``None`` for a miss.

        A value that is gone is a miss; one that is damaged, not trusted or impossible to make here
        is a counted, logged miss, unless ``strict``. A damaged value is replaced when it is saved
        again.

        Args:
            key: a complete key.
            strict: raise what is wrong with the stored result.
            again: the same call was looked for just now, so that one more miss does not count.
            raised: a call that raised is a hit, too; its exception is not opened yet.

        Raises:
            ParcelError: only if ``strict``.
        """
        call, missed = None, int(not again)
        try:
            for _, found in self.backend.load((key,)):
                if isinstance(found, ParcelError):
                    raise found
                if found.record.error is not None and not raised:
                    continue
                call = LazyCall(key, found, self)
                if found.record.error is None:
                    _ = call.result
                break
            else:
                self.backend.count("misses", missed)
                return None
        except KeyError:
            self.backend.count("misses", missed)
            self.backend.count("dangling")
            return None
        except ParcelError as error:
            self.backend.count(f"errors.{error.code}")
            if self._note_damage(call, error):
                return self.lookup(key, strict=strict, again=again, raised=raised)
            if strict:
                raise
            self.backend.count("misses", missed)
            log.warning("call %s: stored result not usable, computing again: %s", key[:12], error)
            return None
        self.backend.count("hits")
        self.counter.hit(found.record)
        return call

    def take_back(self, call: LazyCall, *, again: bool = False) -> None:
        """Count as a miss what :meth:`lookup` has counted as a hit, since it is no answer here."""
        self.backend.count("hits", -1)
        self.backend.count("misses", int(not again))
        self.counter.hit(call.record, -1)

    def lookup_many(self, keys: Iterable[Digest]) -> dict[Digest, LazyCall]:
        """Return by its key every call that is here with its result, each opened already.

        All keys are looked up at once. What is damaged, or cannot be used here, is a counted,
        logged miss, as for :meth:`lookup`.

        Args:
            keys: complete keys.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[Digest, LazyCall] = {}
        for call in self.load_many(wanted):
            if call.record.error is not None:
                continue
            try:
                _ = call.result
            except KeyError:
                self.backend.count("dangling")
            except ParcelError as error:
                self.backend.count(f"errors.{error.code}")
                self._note_damage(call, error)
                log.warning("call %s: stored result not usable: %s", call.key[:12], error)
            else:
                found[call.key] = call
                self.counter.hit(call.record)
        self.backend.count("hits", len(found))
        self.backend.count("misses", len(wanted) - len(found))
        return found

    def _note_damage(self, call: LazyCall | None, error: ParcelError) -> bool:
        """Remember that a result must be stored anew; return whether there is another copy."""
        if call is None or call.record.result is None:
            return False
        if not isinstance(error, CorruptParcel | SignatureError):
            return False
        address = call.record.result.address
        addresses = [address]
        with suppress(KeyError, ParcelError):  # it may not even say what it refers to
            parcel = call.entry.parcel(address) or self._load_parcel(address)
            with closing(parcel):
                addresses += parcel.references
        self.sender.note_damage(addresses)
        return self.backend.note_damage(call.key, addresses)

    def contains(self, key: Digest | str) -> bool:
        """Return whether ``key`` is a call that can be answered from here, or a value here."""
        try:
            full = self.complete(key)
        except KeyError:
            return False
        if self.backend.contains((full,))[0]:
            return True
        return self.backend.contains((Address.of(full),))[0]

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Return for each key whether it is a call that can be answered from here.

        Args:
            keys: complete keys of calls.
        """
        return self.backend.contains(list(keys))

    def evict(self, key: Digest | str) -> None:
        """Forget the call, or else the value, of ``key``.

        Large values that a forgotten call leaves behind stay until they are collected: other calls
        may use them.

        Raises:
            KeyError: there is none.
            Rejected: this cache is read-only.
        """
        self.check_writable("evict")
        self.sender.note_removal()
        full = self.complete(key)
        if not self.backend.evict((full,))[0] and not self.backend.evict((Address.of(full),))[0]:
            raise KeyError(self._absent(key))

    def evict_many(self, keys: Iterable[Digest]) -> int:
        """Forget calls; return how many there were.

        Args:
            keys: complete keys of calls.

        Raises:
            Rejected: this cache is read-only.
        """
        self.check_writable("evict")
        return sum(self.backend.evict(list(keys)))

    def clear(self) -> int:
        """Forget all calls; return how many there were.

        Large values that they leave behind stay until :meth:`gc`. ``query(...).evict()`` forgets
        some of the calls.

        Raises:
            Rejected: this cache is read-only.
        """
        return self.query().evict()

    def __contains__(self, key: object) -> bool:
        """Return whether a call, of this key, can be answered from here, or a value is here."""
        key = getattr(key, "key", key)
        if not isinstance(key, str):
            raise TypeError(
                f"{key!r} in cache: a key is asked for, as function.digest(...) returns it"
            )
        return self.contains(key)

    def __len__(self) -> int:
        """Return how many finished calls there are; to count them, their records are read."""
        return len(self.query())

    def __bool__(self) -> bool:
        """Return that this is a cache; an empty one is, too."""
        return True

    # -- values ------------------------------------------------------------------------------------

    def load_value(self, digest: Digest | str) -> Any:
        """Return the value of a digest.

        Raises:
            KeyError: the value, or a part of it, is not here.
            AmbiguousDigestError: the digest is short and stands for several entries, or the value
                is kept in forms of different classes.
            ParcelError: it is damaged, not trusted, or cannot be made here.
        """
        full = self.complete(digest)
        return self.open_parcel(self._load_parcel(Address.of(full)), full)

    def save_value(self, value: Any) -> Digest:
        """Store ``value`` and return its digest.

        Raises:
            Indigestible: it has no digest.
            Rejected: this cache refuses it.
        """
        self.check_writable("save")
        from fleche.caches._pending import save_value

        return save_value(self, value)

    def open_ref(self, ref: ValueRef, entry: CallEntry, *, plain: bool = False) -> Any:
        """Return the value that ``ref`` of a loaded entry stands for.

        Args:
            ref: an argument, the result or a state.
            entry: the entry that it is of.
            plain: open numbers, text, containers, arrays and tables only; what would run other code
                to be made is refused.

        Raises:
            KeyError: the value is gone.
            ParcelError: it is damaged, not trusted, not plain, or cannot be made here.
        """
        if ref.literal is not UNSET and not self.backend.packing.keys:
            return ref.literal
        address = ref.address
        parcel = entry.parcel(address) or self._load_parcel(address)
        return self.open_parcel(parcel, ref.digest, plain=plain)

    def open_dependencies(self, ref: ValueRef, entry: CallEntry) -> dict[str, str]:
        """Return the dependencies that ``ref`` of a loaded entry stands for; none if they are gone.

        They are plain data, and nothing else is opened for them. Those of the last few codes are
        kept: many calls have the same.
        """
        found = self._dependencies.get(ref.address)
        if found is None:
            try:
                found = convert(self.open_ref(ref, entry, plain=True), dict[str, str])
            except (KeyError, FlecheError, ValidationError) as error:
                log.debug("%s: its dependencies cannot be read: %s", entry.record.name, error)
                return {}
            if len(self._dependencies) >= FEW_CODES:
                self._dependencies.clear()
            self._dependencies[ref.address] = found
        return found

    def open_parcel(self, parcel: Parcel, digest: str, *, plain: bool = False) -> Any:
        """Return the value inside ``parcel``, which must be that of ``digest``.

        The buffers that it refers to are loaded from here, all at once. The parcel is closed.

        Args:
            parcel: what was loaded.
            digest: of the value.
            plain: as for :meth:`open_ref`.

        Raises:
            KeyError: a buffer is gone.
            ParcelError: it is damaged, not trusted, not plain, another value's, or cannot be made
                here.
        """
        packing = self.backend.packing
        buffers: dict[Address, Parcel] = {}
        try:
            if parcel.references:
                if packing.keys:
                    parcel.check_signature(packing.keys)
                needed = packing.needed(parcel)
                for address, found in self.backend.load_values(needed):
                    if isinstance(found, ParcelError):
                        raise found
                    buffers[address] = found
                if len(buffers) < len(needed):
                    raise KeyError(self._gone(next(each for each in needed if each not in buffers)))
            return packing.unpack(parcel, digest, buffers, plain=plain)
        except BaseException:
            for each in (parcel, *buffers.values()):
                each.close()
            raise

    def _load_parcel(self, address: Address) -> Parcel:
        for _, found in self.backend.load_values((address,)):
            if isinstance(found, ParcelError):
                raise found
            return found
        raise KeyError(self._gone(address.digest))

    def _gone(self, digest: str) -> str:
        return f"the value {digest} is not in {self!r}: it was evicted, or never stored"

    # -- names -------------------------------------------------------------------------------------

    def complete(self, key: Digest | str) -> Digest:
        """Return ``key`` itself if it is complete, else :meth:`expand` it."""
        found = _as_digest(key)
        return found if found.is_full else self.expand(found)

    def expand(self, key: Digest | str) -> Digest:
        """Return the complete digest of the one call or value that begins with ``key``.

        Raises:
            KeyError: there is none, or ``key`` has fewer than 4 characters.
            AmbiguousDigestError: there are several.
        """
        prefix = _as_digest(key)
        (found,) = self.backend.expand((prefix,))
        if not found:
            raise KeyError(self._absent(key))
        if len(found) > 1:
            examples = ", ".join(each[: len(prefix) + 8] for each in found[:3])
            raise AmbiguousDigestError(
                f"{prefix!r} stands for {len(found)} entries or more ({examples}); "
                "give more characters"
            )
        return found[0]

    def _absent(self, key: Digest | str) -> str:
        return f"there is no call or value {key} in {self!r}"

    def shrink(self, key: Digest | str, *more: Digest | str) -> Any:
        """Return the shortest beginning that stands for ``key`` alone here.

        Returns:
            A digest for one key, a tuple of as many for several.

        Raises:
            KeyError: one of them is not here.
        """
        found = self._shrink(key, *more)
        return found if more else found[0]

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Return for each key what :meth:`shrink` does, always as a tuple."""
        full = [self.complete(key) for key in keys]
        found = self.backend.shrink(full) if full else []
        for key, short in zip(keys, found, strict=True):
            if short is None:
                raise KeyError(self._absent(key))
        return tuple(short for short in found if short is not None)

    # -- many calls --------------------------------------------------------------------------------

    def query(self, template: QueryCall | None = None, **fields: Any) -> QueryIterator:
        """Return the calls that match, lazily and as often as it is iterated.

        Args:
            template: a ready template.
            fields: further conditions, the arguments of :meth:`QueryCall.of`: ``name=``,
                ``module=``, ``version=``, ``code=``, ``arguments={...}``, ``result=``,
                ``metadata={...}``, ``uses=``, ``since=``, ``until=``.

        Raises:
            TypeError: ``template`` is no template, or a field is not what it should be.
            ValueError: ``template`` and ``fields`` both say something of the same field.
        """
        from fleche.caches._copying import combined
        from fleche.caches._query import QueryIterator

        wanted = combined(template, fields)
        return QueryIterator(
            lambda: self._query(wanted),
            cache=self,
            text=wanted.text,
            newest=lambda number: self._bound(self.backend.newest(wanted, number)),
        )

    def _query(self, call: QueryCall) -> Iterable[LazyCall]:
        """Yield the finished calls that match, bound to this cache, as they are found."""
        return self._bound(self.backend.query(call))

    def _bound(self, found: Iterable[tuple[Digest, CallEntry | None]]) -> Iterator[LazyCall]:
        """Yield calls that were found, bound to this cache."""
        for key, entry in found:
            if entry is not None:
                yield LazyCall(key, entry, self)

    def table(
        self,
        template: QueryCall | None = None,
        *,
        columns: Iterable[str] | None = None,
        **fields: Any,
    ) -> Table:
        """Return the table of the matching calls, the newest first: ``query(...).table(columns)``.

        ``metadata=True`` shows all metadata; any other value is a condition on them.
        """
        with_metadata = fields.get("metadata") is True
        if with_metadata:
            del fields["metadata"]
        return self.query(template, **fields).table(columns, metadata=with_metadata)

    def transfer(
        self,
        target: BaseCache,
        calls: QueryCall | Iterable[LazyCall] | None = None,
        *,
        progress: ShowProgress = None,
        pop: bool = False,
        overwrite: bool = False,
        **fields: Any,
    ) -> int:
        """Copy calls with all their values to ``target``, as parcels.

        What ``target`` holds is not sent again, and an interrupted transfer, begun anew, goes on
        where it was. Of a call that ``target`` can answer, it gets the arguments and the buffers
        that it lacks. A call whose result is gone, damaged, or refused by ``target`` is left out,
        and so is an argument: counted and logged. The rest is copied.

        Args:
            target: any other cache.
            calls: which calls of this cache: those that match a template, or these; all, if not
                given.
            progress: ``True`` shows a bar; a function is called with the number of calls copied so
                far, which also knows ``bytes``, ``total`` and ``done``.
            pop: forget here those of the calls that ``target`` has then.
            overwrite: replace the records of calls that ``target`` can answer.
            fields: which calls, as for :meth:`query`.

        Returns:
            The number of calls that were not in ``target`` before, or not with all their values.

        Raises:
            Rejected: ``target`` is read-only; or, with ``pop``, this cache is.
        """
        from fleche.caches._copying import transfer_calls

        return transfer_calls(
            self, target, calls, fields, progress=progress, pop=pop, overwrite=overwrite
        )

    def sync(
        self,
        other: BaseCache,
        template: QueryCall | None = None,
        *,
        progress: ShowProgress = None,
        **fields: Any,
    ) -> maintenance.SyncReport:
        """Copy to ``other`` what it lacks, and from there what this cache lacks.

        A call that both have stays as it is in either. Interrupted, it goes on where it was when it
        is called again.

        Args:
            other: any other cache.
            template: which calls, as for :meth:`query`.
            progress: as for :meth:`transfer`; it counts on from one way to the other.
            fields: likewise; all calls, if nothing is given.

        Raises:
            Rejected: one of them is read-only; nothing has been copied.
        """
        from fleche.caches._copying import combined, sync_calls

        return sync_calls(self, other, combined(template, fields), progress)

    def push(
        self,
        target: BaseCache | None = None,
        template: QueryCall | None = None,
        *,
        progress: ShowProgress = None,
        **fields: Any,
    ) -> int:
        """Copy the matching calls onward.

        Args:
            target: any other cache. A stack can do without: the calls of its first layer go to all
                further ones that can be written to.
            template: which calls, as for :meth:`query`.
            progress: as for :meth:`transfer`.
            fields: likewise; all calls, if nothing is given.

        Returns:
            The number of copies made.
        """
        if target is None:
            from fleche.caches._copying import copy_along

            return copy_along(self._ways_on(), template, progress, fields, "pushing")
        return self.transfer(target, template, progress=progress, **fields)

    def _ways_on(self) -> Sequence[tuple[BaseCache, BaseCache]]:
        """Return from where to where calls are pushed if no target is given."""
        raise TypeError("push() needs a target, push(other); only a stack knows where to push")

    def pull(
        self,
        source: BaseCache | None = None,
        template: QueryCall | None = None,
        *,
        progress: ShowProgress = None,
        **fields: Any,
    ) -> int:
        """Copy the matching calls here.

        Args:
            source: any other cache. A stack can do without: the calls of all further layers come
                to its first one.
            template: which calls, as for :meth:`query`.
            progress: as for :meth:`transfer`.
            fields: likewise; all calls, if nothing is given.

        Returns:
            The number of copies made.
        """
        from fleche.caches._copying import check_is_cache, copy_along

        if source is None:
            return copy_along(self._ways_here(), template, progress, fields, "pulling")
        check_is_cache(source)
        return source.transfer(self, template, progress=progress, **fields)

    def _ways_here(self) -> Sequence[tuple[BaseCache, BaseCache]]:
        """Return from where to where calls are pulled if no source is given."""
        raise TypeError("pull() needs a source, pull(other); only a stack knows where from")

    # -- views -------------------------------------------------------------------------------------

    def readonly(self) -> BaseCache:
        """Return this cache as one that refuses every save and every evict."""
        from fleche.caches._views import ReadOnlyCache

        return ReadOnlyCache(self)

    def filter(
        self, rule: QueryCall | Callable[[LazyCall], Any] | None = None, **fields: Any
    ) -> BaseCache:
        """Return this cache as one that shows and takes only some calls.

        Args:
            rule: a template, or a function that is true for the calls that count.
            fields: the arguments of :meth:`QueryCall.of`, as for :meth:`query`; with a function,
                none.
        """
        from fleche.caches._views import FilteredCache

        if rule is None or isinstance(rule, QueryCall):
            from fleche.caches._copying import combined

            return FilteredCache(self, combined(rule, fields))
        if fields:
            raise TypeError("filter() takes a function or fields, not both")
        return FilteredCache(self, rule)

    # -- keeping house -----------------------------------------------------------------------------

    def gc(
        self,
        grace: timedelta | str | float = GRACE,
        *,
        pin_age: timedelta | str | float = PIN_AGE,
        dry_run: bool = False,
        progress: ShowProgress = None,
    ) -> maintenance.GcReport:
        """Remove the values that no call refers to.

        Safe at any time, while others use the cache, and safe to interrupt.

        Args:
            grace: how long a value is left alone after it was stored or found to be here already,
                by the clock of the storage: seconds, a :class:`~datetime.timedelta` or ``"2h"``.
                More than a save takes from the first value to the record: until that is there,
                nothing else keeps a result; with 0, it may go, and is computed again.
            pin_age: after how long a call that has neither returned nor failed is given up.
            dry_run: change nothing.
            progress: ``True`` shows it; a function is called with the number of entries looked at
                so far.

        Raises:
            Rejected: this cache is read-only.
            ValueError: a text is no time.
        """
        from fleche._amounts import as_seconds

        self.check_writable("gc")
        task = maintenance.Gc(as_seconds(grace), as_seconds(pin_age), dry_run)
        return self._maintain(task, maintenance.GcReport, progress, "collecting")

    def verify(
        self, repair: bool = False, *, progress: ShowProgress = None
    ) -> maintenance.VerifyReport:
        """Check every byte of every entry, without opening a value.

        Args:
            repair: remove what is corrupt, and calls whose result is gone.
            progress: ``True`` shows it; a function is called with the number of entries looked at
                so far.

        Raises:
            Rejected: this cache is read-only, and ``repair`` was asked for.
        """
        if repair:
            self.check_writable("repair")
        task = maintenance.Verify(repair)
        return self._maintain(task, maintenance.VerifyReport, progress, "checking")

    def stats(self, *, progress: ShowProgress = None) -> maintenance.StatsReport:
        """Count entries and bytes, and how often what happened to this object since it was made.

        Where only the events are of interest, :meth:`counts` has them without looking at storages.

        Args:
            progress: ``True`` shows it; a function is called with the number of entries looked at
                so far.
        """
        task = maintenance.Measure()
        report = self._maintain(task, maintenance.StatsReport, progress, "counting")
        return report + maintenance.StatsReport(events=Counter(self.counts()))

    def disk_usage(self, *, progress: ShowProgress = None) -> maintenance.DiskUsageReport:
        """Return which call takes how much space; a value is divided among the calls that need it.

        Args:
            progress: ``True`` shows it; a function is called with the number of entries looked at
                so far.
        """
        task = maintenance.DiskUsage()
        return self._maintain(task, maintenance.DiskUsageReport, progress, "measuring")

    def _maintain(
        self, task: maintenance.Task, kind: type[R], progress: ShowProgress, doing: str
    ) -> R:
        """Carry out a task, of which the report is of this kind, and show how far it is."""
        from fleche.caches._progress import watching  # by no hit

        with watching(progress, doing) as tick:
            report = self.backend.maintain(task, tick)
        self.sender.note_removal()
        assert isinstance(report, kind)
        return report

    def counts(self) -> dict[str, int]:
        """Return how often each event happened to this object since it was made."""
        return self.backend.counts()

    def usage(self, name: str | None = None, module: str | None = None) -> list[Usage]:
        """Return how often stored results were used, by hour, machine, account and function.

        Counted are the calls of decorated functions: each result that was found (a hit), and each
        body that ran and whose result was stored (a miss). What this object has counted is stored
        first. A stack keeps its counters in the first layer.

        Where all calls are copied to another cache, or all of some function (``push``, ``pull``,
        ``sync``, ``transfer``, an exported file), their counters go along. They say where they were
        counted (``cache``), and none counts twice however often it is copied.

        Args:
            name: only those of functions of this qualified name.
            module: only those of functions of this module.
        """
        self.counter.flush()
        report = self.backend.maintain(maintenance.ReadUsage())
        assert isinstance(report, maintenance.UsageReport)
        return [
            row
            for row in merge_usage(report.rows)
            if name in (None, row.name) and module in (None, row.module)
        ]

    def read_accepted(self, age: float = ACCEPTED_AGE) -> AcceptedCode | None:
        """Return which code was accepted for other code; ``None`` if none was.

        A cache that cannot say so now keeps what it said before. Where values must be signed,
        nothing of that counts, since it is not.

        Args:
            age: what was read so many seconds ago is as good.
        """
        if self.backend.packing.keys:
            return None
        if not self._accepted_read or monotonic() - self._accepted_read > age:
            self._accepted_read = monotonic()
            try:
                rows = self.backend.accepted()
            except Exception as error:  # noqa: BLE001 (of any cache; the call goes on without)
                log.debug("%r: cannot tell which code was accepted: %s", self, error)
                return self.accepted
            self.accepted = None
            if rows:
                from fleche.caches._accepted import AcceptedCode

                self.accepted = AcceptedCode(rows)
        return self.accepted

    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        """Keep what was said of code, for all who use this cache; ``function.accept()`` says it.

        Raises:
            Rejected: this cache is read-only.
            StorageError: it could not be stored.
        """
        self.backend.maintain(maintenance.NoteAccepted(tuple(rows)))
        self.read_accepted(0)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What this cache is."""
        return self.backend.capabilities

    @property
    def read_only(self) -> bool:
        """Whether every save and every evict is refused."""
        return self.backend.read_only

    @property
    def packing(self) -> Packing:
        """How values born here are packed, and whose signatures count when one is opened."""
        return self.backend.packing

    @property
    def policy(self) -> LayerPolicy:
        """How a stack treats this cache."""
        return self.backend.policy

    @property
    def locks(self) -> LockTable:
        """Which process computes which call, where there is a way to know."""
        return self.backend.locks

    def check_writable(self, action: str) -> None:
        """Refuse ``action`` if this cache is read-only.

        Raises:
            Rejected: it is.
        """
        self.backend.check_writable(action)

    def to_config(self) -> Any:
        """Return what ``fleche.toml`` says to get this cache: a table, or an array for a stack."""
        return self.backend.to_config()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, and copy, as what it is made from; what is in memory arrives empty."""
        return type(self), self._made_from()

    def _made_from(self) -> tuple[Any, ...]:
        """Return the arguments of the constructor."""
        return (self.backend,)

    # -- life --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what the cache holds open. Idempotent."""
        self.counter.flush_at_exit()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self.backend)

    def _repr_html_(self) -> str:
        """Return what it is and how it fared, as far as is known without asking storages."""
        head = ("cache", "hits", "misses", "other events")
        from fleche._html import grid

        return grid(head, map(_fared, (self, *getattr(self, "layers", ()))))


def _fared(cache: BaseCache) -> tuple[str, int, int, str]:
    counts = cache.counts()
    hits, misses = counts.pop("hits", 0), counts.pop("misses", 0)
    return repr(cache), hits, misses, ", ".join(f"{name}: {n}" for name, n in counts.items())


def _as_digest(key: Digest | str) -> Digest:
    if isinstance(key, str) and len(key) < SHORTEST:
        raise KeyError(
            f"{key!r} is too short: a key, or the beginning of one, has {SHORTEST} characters "
            "or more"
        )
    return Digest(key)
