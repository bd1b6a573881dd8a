"""The contract of a cache, and everything that can be built on it once.

A cache answers a dozen primitives over records and parcels (:mod:`fleche.caches.primitives`): a
local one from its storages, a remote one over a wire, a wrapper from what it wraps. What follows
for values (:mod:`fleche.caches.values`), for calls, and for keeping house
(:mod:`fleche.caches.upkeep`) is written once, on top of those.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fleche.caches._reports import SyncReport
from fleche.caches._transfer import copy_call, transfer
from fleche.caches.pending import PendingCall
from fleche.caches.primitives import LayerPolicy, OnError
from fleche.caches.upkeep import GRACE, LEASE_AGE, Progress, Upkeep
from fleche.call import MISSING, Call, CallRecord, LazyCall, QueryCall
from fleche.digest import SCHEME, Digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import Parcel
from fleche.query import QueryIterator
from fleche.table import Table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "GRACE",
    "LEASE_AGE",
    "BaseCache",
    "LayerPolicy",
    "OnError",
    "PendingCall",
    "Progress",
    "register_view",
]

log = logging.getLogger("fleche.caches")

_views: dict[str, Callable[..., BaseCache]] = {}


def register_view(name: str, make: Callable[..., BaseCache]) -> None:
    """Say what ``readonly()`` (``"read_only"``) or ``filter()`` (``"filtered"``) makes.

    Views are caches, and stand above the contract that offers them.
    """
    _views[name] = make


class BaseCache(Upkeep):
    """A cache of calls: the primitives, and what follows from them.

    Every method may be called from any thread.
    """

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
        self.check_writable("save")
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
        wanted = _wanted(template, fields)
        return QueryIterator(lambda: self._query(wanted), cache=self)

    def table(self, **fields: Any) -> Table:
        """Return the table of the matching calls: ``query(...).table()``."""
        return self.query(**fields).table()

    def transfer(
        self,
        target: BaseCache,
        calls: QueryCall | Iterable[LazyCall] | None = None,
        *,
        progress: Progress | None = None,
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
            progress: called with the number of calls copied so far.

        Returns:
            The number of calls that were not in ``target`` before, or not with all their values.

        Raises:
            Rejected: ``target`` is read-only.
        """
        _check_is_cache(target)
        target.check_writable("transfer")
        if calls is None or isinstance(calls, QueryCall):
            keys = self.call_keys(calls or QueryCall())
        else:
            keys = (call.key for call in calls)
        return transfer(self, target, keys, progress)

    def sync(
        self,
        other: BaseCache,
        template: QueryCall | None = None,
        *,
        progress: Progress | None = None,
        **fields: Any,
    ) -> SyncReport:
        """Copy to ``other`` what it lacks, and from there what this cache lacks.

        A call that both have stays as it is in either. Interrupted, it goes on where it was when it
        is called again.

        Args:
            other: any other cache.
            template: which calls, as for :meth:`query`, or
            fields: the arguments of :meth:`QueryCall.of`; all calls, if none are given.
            progress: called with the number of calls copied so far, both ways together.

        Raises:
            Rejected: one of them is read-only; nothing has been copied.
        """
        _check_is_cache(other)
        for cache in (self, other):
            cache.check_writable("sync")
        wanted = _wanted(template, fields)
        sent = self.transfer(other, wanted, progress=progress)

        def counted_on(received: int) -> None:
            if progress is not None:
                progress(sent + received)

        return SyncReport(sent, other.transfer(self, wanted, progress=counted_on))

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
            raise TypeError("push() needs a target, push(other); only a stack knows where to push")
        return self.transfer(target, QueryCall.of(**fields))

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


def _wanted(template: object, fields: dict[str, Any]) -> QueryCall:
    """Return the template that is meant: itself, or one of its fields."""
    if template is None:
        return QueryCall.of(**fields)
    if isinstance(template, QueryCall):
        return template
    raise TypeError(
        f"{template!r} is no template; the fields of one go by name: query(name={template!r})"
    )


def _check_is_cache(found: object) -> None:
    if not isinstance(found, BaseCache):
        raise TypeError(
            f"{found!r} is not a cache; one that is configured: load_cache_config(name)"
        )
