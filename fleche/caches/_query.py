"""The answer to a query: calls, found as they are asked for."""

from __future__ import annotations

import builtins
import heapq
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from math import isnan, nan
from operator import attrgetter, index
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, overload

import msgspec

from fleche._util import override
from fleche.caches._progress import ShowProgress
from fleche.call import LazyCall, ValueRef
from fleche.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from fleche.caches._base import BaseCache
    from fleche.caches._table import Table

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Key", "QueryIterator"]

Key: TypeAlias = "str | Callable[[LazyCall], Any]"
"""A function of a call, or the name of one of its attributes (``"name"``, ``"version"``, ...), of
one of its arguments, which counts as far as the record shows it, or of a field of its metadata
(``"user"``, ``"runtime.host"``, ``"tags.study"``)."""

_SORT_TIME = attrgetter("record.sort_time")

_ATTRIBUTES = (
    *("arguments", "code", "duration", "key", "metadata", "module", "name", "record", "version"),
)


class QueryIterator(Generic[T]):
    """Calls that match a query: lazy, and asked for anew each time it is iterated.

    Nothing happens before the first call is asked for, and nothing is found that is not asked for:
    an iteration that is left early closes its source, so that a remote cache stops searching.
    ``take``, ``newest``, ``filter`` and others that return queries give queries of the same kind.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[LazyCall[T]]],
        cache: BaseCache | None = None,
        *,
        is_ordered: bool = False,
        text: str = "",
        newest: Callable[[int], Iterable[LazyCall[T]]] | None = None,
    ) -> None:
        """Wrap a source of calls.

        Args:
            source: begins a new search.
            cache: the cache that the calls are bound to, for ``evict``, ``transfer`` and ``table``.
            is_ordered: whether the calls come in an order that was asked for.
            text: what is asked for, in a few words.
            newest: finds those calls that began last, where that takes less than to find all.
        """
        self._text = text
        self._newest = newest
        self._source = source
        self._cache = cache
        self._is_ordered = is_ordered
        self._begun: weakref.ref[_Search[T]] | None = None

    def __iter__(self) -> _Search[T]:
        search = _Search(self._source)
        self._begun = weakref.ref(search)
        return search

    def __bool__(self) -> bool:
        return not self.empty()

    def __len__(self) -> int:
        """Return how many calls match; a search that has just begun in this thread finds them."""
        # list(query) asks for an iterator first, and then for the length: that is one search
        search = None if self._begun is None else self._begun()
        if search is not None and search.is_fresh():
            return search.find_all()
        return self.count()

    @overload
    def __getitem__(self, place: int) -> LazyCall[T]: ...

    @overload
    def __getitem__(self, place: slice) -> QueryIterator[T]: ...

    def __getitem__(self, place: int | slice) -> LazyCall[T] | QueryIterator[T]:
        """Return the call at a place, or the calls of a slice; no more is found than is needed.

        Raises:
            IndexError: there are not so many calls.
        """
        if isinstance(place, slice):
            parts = (place.start, place.stop, place.step)
            if any(part is not None and part < 0 for part in parts):
                return self._derive(lambda calls: list(calls)[slice(*parts)])
            return self._derive(lambda calls: itertools.islice(calls, *parts))
        place = index(place)
        found = list(self) if place < 0 else list(self.skip(place).take(1))
        try:
            return found[min(0, place)]
        except IndexError:
            raise IndexError(f"{self!r}: there is no call {place}") from None

    def __reversed__(self) -> Iterator[LazyCall[T]]:
        return iter(list(self)[::-1])

    def _derive(
        self,
        transform: Callable[[Iterator[LazyCall[T]]], Iterable[LazyCall[T]]],
        *,
        is_ordered: bool = False,
    ) -> QueryIterator[T]:
        def source() -> Iterator[LazyCall[T]]:
            with closing(_search(self._source)) as calls:
                yield from transform(calls)

        ordered = is_ordered or self._is_ordered
        return QueryIterator(source, self._cache, is_ordered=ordered, text=self._text)

    # -- one call ----------------------------------------------------------------------------------

    def only(self) -> LazyCall[T]:
        """Return the one call that matches.

        Raises:
            KeyError: none does.
            LookupError: more than one does.
        """
        found = list(self.take(2))
        if not found:
            raise self._nothing()
        if len(found) > 1:
            raise LookupError("more than one call matches; narrow the query, or use latest()")
        return found[0]

    def _nothing(self) -> KeyError:
        asked = f" {self._text}" if self._text else ""
        where = "" if self._cache is None else f" in {self._cache!r}"
        return KeyError(f"no call matches{asked}{where}")

    def any(self) -> LazyCall[T] | None:
        """Return some call that matches (which is true), or ``None`` if none does."""
        with closing(_search(self._source)) as calls:
            return next(calls, None)

    def first(self) -> LazyCall[T]:
        """Return the first call that is found.

        Raises:
            KeyError: none matches.
        """
        found = self.any()
        if found is None:
            raise self._nothing()
        return found

    def latest(self) -> LazyCall[T]:
        """Return the call that began last, by its metadata ``runtime.started``.

        Raises:
            KeyError: none matches.
        """
        return self.newest(1).first()

    def oldest(self) -> LazyCall[T]:
        """Return the call that began first; calls that do not say when come last.

        Raises:
            KeyError: none matches.
        """

        def undated_last(call: LazyCall) -> tuple[bool, datetime]:
            return call.record.began is None, call.record.sort_time

        found = min(self, key=undated_last, default=None)
        if found is None:
            raise self._nothing()
        return found

    # -- how many ----------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many calls match."""
        with closing(_search(self._source)) as calls:
            return sum(1 for _ in calls)

    def empty(self) -> bool:
        """Return whether no call matches."""
        return self.any() is None

    # -- further queries ---------------------------------------------------------------------------

    def take(self, number: int) -> QueryIterator[T]:
        """Return the first ``number`` calls.

        Raises:
            ValueError: it is negative.
        """
        _check_number(number)
        return self._derive(lambda calls: itertools.islice(calls, number))

    def skip(self, number: int) -> QueryIterator[T]:
        """Return all calls but the first ``number``.

        Raises:
            ValueError: it is negative.
        """
        _check_number(number)
        return self._derive(lambda calls: itertools.islice(calls, number, None))

    def newest(self, number: int) -> QueryIterator[T]:
        """Return the ``number`` calls that began last, the newest first.

        A cache finds them without reading all calls if it can (``local``, ``sql``), one at the
        other end of a wire too. Calls that do not say when they began come last.

        Raises:
            ValueError: the number is negative.
        """
        _check_number(number)
        if self._newest is not None:
            source = partial(self._newest, number)
            return QueryIterator(source, self._cache, is_ordered=True, text=self._text)
        return self._derive(
            lambda calls: heapq.nlargest(number, calls, key=_SORT_TIME), is_ordered=True
        )

    def filter(self, predicate: Callable[[LazyCall[T]], Any]) -> QueryIterator[T]:
        """Return the calls for which ``predicate`` is true."""
        return self._derive(lambda calls: filter(predicate, calls))

    def sorted(self, key: Key | None = None, *, reverse: bool = False) -> QueryIterator[T]:
        """Return the calls in order of ``key`` (default: when they began, the undated first).

        By the name of an attribute, an argument or a field of metadata, calls that lack it come
        first, then numbers, those that are none (``nan``) at their end, then text.

        Raises:
            ValueError: when it is iterated: no call has anything of that name.
            TypeError: likewise: the results, by which it is to be sorted, have no order.
        """
        if not isinstance(key, str):
            order = _SORT_TIME if key is None else _selector(key)
            return self._derive(
                lambda calls: builtins.sorted(calls, key=order, reverse=reverse), is_ordered=True
            )
        select = _selector(key)

        def ordered(calls: Iterable[LazyCall[T]]) -> list[LazyCall[T]]:
            found = [(select(call), call) for call in calls]
            _check_known(key, found)
            try:
                found.sort(key=lambda each: _rank(each[0]), reverse=reverse)
            except (TypeError, ValueError) as error:  # of whatever class the results are
                raise TypeError(
                    f"calls have no order by {key!r} ({error}): give sorted() a function of a call "
                    "that returns a number or a text"
                ) from error
            return [call for _, call in found]

        return self._derive(ordered, is_ordered=True)

    def unique(self, key: Key = "key") -> QueryIterator[T]:
        """Return the first call of each ``key``; what a function returns must be hashable.

        Raises:
            ValueError: at the end of the iteration: no call has an attribute or argument of that
                name.
        """
        select = _identifier(key)

        def distinct(calls: Iterable[LazyCall[T]]) -> Iterator[LazyCall[T]]:
            first: dict[Any, LazyCall[T]] = {}
            for call in calls:
                found = select(call)
                if found not in first:
                    first[found] = call
                    yield call
            _check_known(key, list(first.items()))

        return self._derive(distinct)

    def groupby(self, key: Key) -> dict[Any, QueryIterator[T]]:
        """Return the calls by ``key``; each key occurs once, and so does ``nan``.

        What a function returns must be hashable. An argument or result of which the record shows a
        summary alone has that as its key, which is equal to no other value's.

        Raises:
            ValueError: no call has an attribute, an argument or a field of metadata of that name.
        """
        select = _identifier(key)
        pairs = [(select(call), call) for call in self]
        _check_known(key, pairs)
        groups: dict[Any, list[LazyCall[T]]] = {}
        for found, call in pairs:
            groups.setdefault(None if found is _ABSENT else found, []).append(call)
        return {
            found: QueryIterator(lambda calls=calls: calls, self._cache)  # type: ignore[misc]
            for found, calls in groups.items()
        }

    # -- what to do with them ----------------------------------------------------------------------

    def results(self) -> Generator[T, None, None]:
        """Yield the result of each call, loaded one at a time; a call that raised has none.

        Raises:
            KeyError: a value is gone.
            ParcelError: a value is damaged, not trusted, or cannot be made here.
        """
        with closing(_search(self._source)) as calls:
            for call in calls:
                if call.record.error is None:
                    yield call.result

    def evict(self, *, dry_run: bool = False) -> int:
        """Forget the calls; return how many there were.

        Args:
            dry_run: forget none, and return how many there are.

        Raises:
            Rejected: the cache is read-only.
        """
        if dry_run:
            return self.count()
        return self._bound().evict_many([call.key for call in self])

    def transfer(
        self,
        target: BaseCache,
        *,
        progress: ShowProgress = None,
        pop: bool = False,
        overwrite: bool = False,
    ) -> int:
        """Copy the calls with their values to the cache ``target``; return how many were new there.

        Args:
            target: any other cache.
            progress: as for :meth:`fleche.caches.BaseCache.transfer`.
            pop: likewise.
            overwrite: likewise.

        Raises:
            Rejected: ``target`` is read-only.
        """
        return self._bound().transfer(target, self, progress=progress, pop=pop, overwrite=overwrite)

    def table(self, columns: Iterable[str] | None = None, *, metadata: bool = False) -> Table:
        """Return the calls as a table for people, without loading a value.

        The newest come first, unless the query is :meth:`sorted`.

        Args:
            columns: which columns: ``"key"``, ``"name"``, ``"module"``, ``"version"``,
                ``"arguments"``, ``"result"``, ``"started"``, ``"seconds"``, ``"where"``, or the
                name of an argument or of a field of metadata (``"volume"``, ``"tags.study"``).
            metadata: beside the usual columns one for each tag and each other field of metadata.
        """
        from fleche.caches._table import Table

        shorten = self._cache.backend.shrink if self._cache is not None else None
        with closing(_search(self._source)) as calls:
            return Table(
                calls,
                shorten,
                columns=columns,
                metadata=metadata,
                newest_first=not self._is_ordered,
            )

    def to_pandas(self) -> Any:
        """Return a :class:`pandas.DataFrame` of the calls, as that of :meth:`table` does.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return self.table().to_pandas()

    def _bound(self) -> BaseCache:
        if self._cache is None:
            raise ValueError("this query belongs to no cache")
        return self._cache

    def __repr__(self) -> str:
        asked = f" {self._text}" if self._text else ""
        return f"<QueryIterator{asked} over {self._cache!r}>"

    def _repr_html_(self) -> str:
        """Return the table of the calls, for which they are searched."""
        return self.table()._repr_html_()


def _search(
    source: Callable[[], Iterable[LazyCall[T]]],
) -> Generator[LazyCall[T], None, None]:
    """Yield the calls of one search; given up, it closes its source."""
    # yield from closes only generators by itself; any iterator with a close() may hold a stream
    calls = iter(source())
    try:
        yield from calls
    finally:
        close = getattr(calls, "close", None)
        if close is not None:
            close()


class _Search(Iterator[LazyCall[T]], Generic[T]):
    """One search: its calls, one by one. Given up, it closes its source."""

    def __init__(self, source: Callable[[], Iterable[LazyCall[T]]]) -> None:
        self._calls = _search(source)
        self._thread = get_ident()
        self._found: deque[LazyCall[T]] | None = None
        self._error: BaseException | None = None
        self._is_begun = False

    def is_fresh(self) -> bool:
        """Return whether no call has been taken, and this thread is the one that begun it."""
        is_new = not self._is_begun and self._error is None
        return is_new and self._thread == get_ident()

    def find_all(self) -> int:
        """Find all calls, and return how many there are.

        Raises:
            BaseException: whatever the search raises, and again where the calls are asked for:
                ``list(query)`` takes a TypeError of the length for a length that is not known.
        """
        if self._found is None:
            self._found = deque()
            try:
                self._found.extend(self._calls)
            except BaseException as error:
                self._error = error
                raise
        return len(self._found)

    @override
    def __next__(self) -> LazyCall[T]:
        self._is_begun = True
        if self._found is None:
            return next(self._calls)
        if self._found:
            return self._found.popleft()
        raise self._error or StopIteration

    def close(self) -> None:
        """End the search."""
        self._calls.close()
        self._found = deque()


_ABSENT = object()
"""What a call has that has no attribute or argument of the name that is asked for."""


def _selector(key: Key) -> Callable[[LazyCall], Any]:
    if not isinstance(key, str):
        if not callable(key):
            raise TypeError(f"{key!r}: a function of a call is wanted, or the name of an attribute")
        return key
    if key in _ATTRIBUTES:
        return attrgetter(key)
    if key == "result":
        return _result_of
    from fleche.caches._table import field_of_metadata

    name = key.removeprefix("arguments.")

    def shown(call: LazyCall) -> Any:
        ref = call.record.arguments.get(name)
        if ref is None:
            return _hashable(field_of_metadata(call.metadata, key, _ABSENT))
        return Digest(ref.digest) if ref.shown is msgspec.UNSET else ref.shown

    return shown


def _result_of(call: LazyCall) -> Any:
    ref = call.record.result
    if ref is None:
        return _ABSENT
    return ref.shown if _is_exact(ref) else call.result


class _Told(str):
    """What a record shows of a value, which is told from others of the same look by its digest."""

    __slots__ = ("digest",)
    digest: str

    def __new__(cls, ref: ValueRef) -> _Told:
        found = super().__new__(cls, ref.text)
        found.digest = ref.digest
        return found

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Told) and self.digest == other.digest

    @override
    def __hash__(self) -> int:
        return hash(self.digest)


def _identifier(key: Key) -> Callable[[LazyCall], Any]:
    """Return what is equal for two calls if they are the same by ``key``."""
    select = _selector(key)
    name = key if isinstance(key, str) and key not in _ATTRIBUTES else ""

    def identified(call: LazyCall) -> Any:
        ref = None
        if name:
            record = call.record
            ref = record.arguments.get(name.removeprefix("arguments."))
            ref = record.result if name == "result" else ref
        if ref is not None:
            return _Told(ref) if not _is_exact(ref) else _nan_once(ref.shown)
        return _nan_once(select(call))

    return identified


def _nan_once(found: Any) -> Any:
    """Return the one ``nan`` that is equal to itself in place of any."""
    return nan if isinstance(found, float) and isnan(found) else found


def _is_exact(ref: ValueRef) -> bool:
    """Whether a record shows the value itself, or the number that it is worth."""
    is_near = ref.type in _ROUNDED and isinstance(ref.summary, float)
    return ref.is_literal or (bool(ref.type) and not is_near)


_ROUNDED = ("int", "Decimal", "Fraction")
"""Types of numbers that a float may only come near to."""


def _check_number(number: int) -> None:
    if index(number) < 0:
        raise ValueError(f"{number}: how many calls cannot be negative; sorted(reverse=True) turns")


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value


def _check_known(key: Key, found: Sequence[tuple[Any, LazyCall]]) -> None:
    if found and all(value is _ABSENT for value, _ in found):
        records = [call.record for _, call in found]
        names = dict.fromkeys(name for record in records for name in record.arguments)
        fields = dict.fromkeys(
            f"{collector}.{name}"
            for record in records
            for collector, data in record.metadata.items()
            for name in data
        )
        raise ValueError(
            f"{key!r}: calls have no such attribute ({', '.join(_ATTRIBUTES)}, result), none of "
            f"these such an argument ({', '.join(names) or 'they have none'}), nor such a field of "
            f"metadata ({', '.join(fields) or 'they have none'})"
        )


def _rank(value: Any) -> tuple[int, Any]:
    """Return what sorts before and after values of other kinds."""
    if value is None or value is _ABSENT:
        return 0, 0
    if isinstance(value, bool | int | float):
        return 1, (isinstance(value, float) and isnan(value), value)
    if isinstance(value, str):
        return 2, value
    return 3, value
