"""The contract of a cache, and everything that can be built on it once.

A cache answers a dozen primitives over records and parcels (:mod:`fleche.caches.primitives`): a
local one from its storages, a remote one over a wire, a wrapper from what it wraps. Saving,
loading, querying and transferring are written here, on top of those, for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from fleche.caches._reports import GcReport, RedigestReport, VerifyReport
from fleche.caches._transfer import copy_call, transfer
from fleche.caches.pending import PendingCall
from fleche.caches.primitives import LayerPolicy, OnError, Primitives
from fleche.call import MISSING, Call, CallRecord, LazyCall, QueryCall
from fleche.digest import SCHEME, BufferDigests, Digest, digest_with_buffers
from fleche.errors import CorruptParcel, ParcelError, Rejected, SignatureError
from fleche.parcel import Parcel
from fleche.query import QueryIterator
from fleche.table import Table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BaseCache", "LayerPolicy", "OnError", "PendingCall", "Progress", "register_view"]

log = logging.getLogger("fleche.caches")

Progress = Callable[[int], None]

GRACE = 3600.0
LEASE_AGE = 7 * 86400.0
_views: dict[str, Callable[..., BaseCache]] = {}

T = TypeVar("T")


def register_view(name: str, make: Callable[..., BaseCache]) -> None:
    """Say what ``readonly()`` (``"read_only"``) or ``filter()`` (``"filtered"``) makes.

    Views are caches, and stand above the contract that offers them.
    """
    _views[name] = make


class BaseCache(Primitives):
    """A cache of calls: the primitives, and what follows from them.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._damaged: set[Digest] = set()

    # -- values ------------------------------------------------------------------------------------

    def open_parcel(self, parcel: Parcel, digest: Digest) -> Any:
        """Return the value inside ``parcel``, which must be that of ``digest``.

        Raises:
            ParcelError: it is damaged, not trusted, another value's, or cannot be made here.
        """
        return self.packing.unpack(parcel, digest)

    def load_value(self, digest: Digest | str) -> Any:
        """Return the value of a digest, which may be short.

        Raises:
            KeyError: the value is not here.
            ParcelError: it is damaged, not trusted, or cannot be made here.
        """
        full = self.complete(digest)
        return self.open_parcel(self.load_parcel(full), full)

    def save_value(self, value: Any) -> Digest:
        """Store ``value`` unless it is here already, and return its digest.

        Raises:
            Indigestible: it has no digest.
            Rejected: this cache refuses it.
        """
        self._check_writable("save")
        found, buffers = digest_with_buffers(value)
        self.save_values({found: value}, buffers)
        return found

    def save_values(
        self, values: Mapping[Digest, Any], buffers: BufferDigests | None = None
    ) -> None:
        """Store those of ``values`` that are not here, and those that have proved damaged.

        Args:
            values: objects by their digest.
            buffers: what digesting them has found out about the buffers inside them.

        Raises:
            Rejected: this cache refuses it.
        """
        for damaged in self._damaged.intersection(values):
            self.drop(damaged)
            self._damaged.discard(damaged)
        lacking = self.missing(values)
        self.save_parcels((key, self.packing.pack(values[key], key, buffers)) for key in lacking)

    def complete(self, key: Digest | str) -> Digest:
        """Return ``key`` itself if it is complete, else :meth:`expand` it."""
        found = Digest(key)
        return found if found.is_full else self.expand(found)

    def shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Return for each key the shortest beginning that stands for it alone here."""
        return self._shrink(*keys)

    def drop(self, key: Digest) -> None:
        """Remove an entry from where saves go; none there is no error.

        Raises:
            Rejected: this cache is read-only.
        """
        with suppress(KeyError):
            self.evict(key)

    # -- calls -------------------------------------------------------------------------------------

    def save(self, call: Call) -> str:
        """Store a finished call with its values and return its key.

        Raises:
            Indigestible: an argument or the result has no digest.
            Rejected: this cache refuses it.
            ValueError: the call has no result.
        """
        if call.result is MISSING:
            raise ValueError(f"{call.name}: a call without a result cannot be saved")
        return self.prepare(call, lease=False).commit(call.result)

    def prepare(self, call: Call, *, lease: bool = True) -> PendingCall:
        """Seal the key of a call that is about to run and store its arguments.

        Whatever the function then does to its arguments, the key and the stored values are those of
        this moment.

        Args:
            call: a call without a result.
            lease: leave a mark while the call runs, so that no ``gc()``, here or in another
                process, takes the arguments.

        Raises:
            Indigestible: an argument has no digest.
            Rejected: this cache refuses the call.
        """
        self._check_writable("save")
        return PendingCall(self, call, lease=lease)

    def load(self, key: Digest | str) -> LazyCall:
        """Return the stored call of ``key``, which may be short.

        Raises:
            KeyError: there is none.
            AmbiguousDigestError: the short key stands for several entries.
            CorruptParcel: the record is damaged, or another call's.
        """
        full = self.complete(key)
        return self._bound(full, *self.fetch(full))

    def _bound(self, key: Digest, record: CallRecord, parcel: Parcel | None) -> LazyCall:
        """Return the call, if its record is the one that ``key`` names."""
        if record.scheme == SCHEME and record.key != key:
            raise CorruptParcel(
                f"call {key[:12]}: its record is that of another call, {record.key[:12]}; "
                "verify(repair=True) removes it"
            )
        return LazyCall(key, record, self, parcel)

    def load_many(self, keys: Iterable[Digest]) -> Iterator[LazyCall]:
        """Yield those of the calls that are here, in order; keys are complete.

        Over a wire this takes a fraction of the round trips of as many :meth:`load`.
        """
        for key, record, parcel in self.fetch_many(keys):
            yield self._bound(key, record, parcel)

    def lookup(self, key: Digest, *, strict: bool = False) -> LazyCall | None:
        """Return the stored call with its result already opened, or ``None`` for a miss.

        A value that is gone is a miss; one that is damaged, not trusted or impossible to make here
        is a counted, logged miss, unless ``strict``. A damaged value is replaced when it is saved
        again.

        Raises:
            ParcelError: only if ``strict``.
        """
        call = None
        try:
            call = self.load(key)
            _ = call.result
        except KeyError:
            self.count("misses")
            if call is not None:
                self.count("dangling")
            return None
        except ParcelError as error:
            self.count(f"errors.{error.code}")
            if self._try_another_copy(call, error):
                return self.lookup(key, strict=strict)
            if strict:
                raise
            self.count("misses")
            log.warning("call %s: stored result not usable, computing again: %s", key[:12], error)
            return None
        self.count("hits")
        return call

    def _try_another_copy(self, call: LazyCall | None, error: ParcelError) -> bool:
        """Take note of a result that must not be used; tell whether there is another copy."""
        if call is None or not isinstance(error, CorruptParcel | SignatureError):
            return False
        result = call.record.result
        return result is not None and self._note_damage(call, result)

    def _note_damage(self, call: LazyCall, result: Digest) -> bool:  # noqa: ARG002
        """Remember to store ``result`` anew; a stack tells if another layer has the call."""
        self._damaged.add(result)
        return False

    # -- many calls --------------------------------------------------------------------------------

    def query(self, template: QueryCall | None = None, **fields: Any) -> QueryIterator:
        """Return the calls that match, lazily and as often as it is iterated.

        Args:
            template: a ready template, or
            fields: the arguments of :meth:`QueryCall.of`: ``name=``, ``module=``, ``version=``,
                ``code=``, ``arguments={...}``, ``result=``, ``metadata={...}``.
        """
        wanted = QueryCall.of(**fields) if template is None else template
        return QueryIterator(lambda: self._query(wanted), cache=self)

    def table(self, **fields: Any) -> Table:
        """Return the table of the matching calls: ``query(...).table()``."""
        return self.query(**fields).table()

    def transfer(
        self,
        target: BaseCache,
        calls: Iterable[LazyCall] | None = None,
        *,
        progress: Progress | None = None,
    ) -> int:
        """Copy calls with all their values to ``target``, as parcels.

        What ``target`` holds is not sent again. A call whose result is gone is left out, counted
        and logged.

        Args:
            target: any other cache.
            calls: which calls of this cache; all, if not given.
            progress: called with the number of calls copied so far.

        Returns:
            The number of calls that were not in ``target`` before.

        Raises:
            Rejected: ``target`` is read-only.
        """
        if target.read_only:
            raise Rejected(f"{target}: read-only, transfer refused")
        return transfer(self, target, self.query() if calls is None else calls, progress)

    def copy_call(self, target: BaseCache, key: Digest, record: CallRecord) -> None:
        """Copy one record and those of its values that ``target`` lacks and this cache has.

        Raises:
            KeyError: the result is not here.
        """
        copy_call(self, target, key, record)

    def push(self, target: BaseCache | None = None, **fields: Any) -> int:
        """Copy the matching calls onward: to ``target``, or for a stack to its further layers.

        Returns:
            The number of calls copied.
        """
        if target is None:
            raise TypeError("push() needs a target; only a stack knows where to push to")
        return self.transfer(target, self.query(**fields))

    # -- views -------------------------------------------------------------------------------------

    def readonly(self) -> BaseCache:
        """Return this cache as one that refuses every save and every evict."""
        return _views["read_only"](self)

    def filter(
        self, rule: QueryCall | Callable[[LazyCall], Any] | None = None, **fields: Any
    ) -> BaseCache:
        """Return this cache as one that shows and takes only some calls.

        Args:
            rule: a template, or a function that is true for the calls that count, or
            fields: the arguments of :meth:`QueryCall.of`, as for :meth:`query`.
        """
        return _views["filtered"](self, QueryCall.of(**fields) if rule is None else rule)

    # -- housekeeping ------------------------------------------------------------------------------

    def stores(self) -> tuple[BaseCache, ...]:
        """Return the caches with storages of their own that this one is made of."""
        return ()

    def gc(
        self,
        grace: float = GRACE,
        *,
        lease_age: float = LEASE_AGE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Remove the values that no call refers to.

        Safe at any time, whoever else uses the cache meanwhile, and safe to interrupt.

        Args:
            grace: seconds for which a value is left alone after it was stored or found to be here
                already; more than the clocks of the machines that share the cache differ by.
            lease_age: seconds after which a call that has neither returned nor failed is given up.
            dry_run: only tell.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self._check_writable("gc")
        options: dict[str, Any] = {"lease_age": lease_age, "dry_run": dry_run, "progress": progress}
        return _total(GcReport(), (store.gc(grace, **options) for store in self._writable_stores()))

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Check every byte of every entry, without opening a value.

        Args:
            repair: remove what is corrupt, and calls whose result is gone.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only, and ``repair`` was asked for.
        """
        if repair:
            self._check_writable("repair")
        stores = self._writable_stores() if repair else self.stores()
        return _total(VerifyReport(), (store.verify(repair, progress=progress) for store in stores))

    def redigest(self, *, progress: Progress | None = None) -> RedigestReport:
        """File calls anew whose key is of an older scheme or does not match what they say.

        Args:
            progress: called with the number of calls looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self._check_writable("redigest")
        found = (store.redigest(progress=progress) for store in self._writable_stores())
        return _total(RedigestReport(), found)

    def _writable_stores(self) -> list[BaseCache]:
        return [store for store in self.stores() if not store.read_only]

    # -- life --------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _total(start: T, reports: Iterable[T]) -> T:
    for report in reports:
        start = start + report  # type: ignore[operator]
    return start
