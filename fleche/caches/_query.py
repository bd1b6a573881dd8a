"""The answer to a query: calls, found as they are asked for."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import msgspec

from fleche.call import LazyCall
from fleche.digest import Digest

if TYPE_CHECKING:
    from fleche.caches._table import Table

__all__ = ["Key", "QueryIterator", "Source"]

T = TypeVar("T")

Key: TypeAlias = "str | Callable[[LazyCall], Any]"
"""A function of a call, or the name of one of its attributes (``"name"``, ``"version"``, ...) or of
one of its arguments, which counts as far as the record shows it."""

_ATTRIBUTES = ("arguments", "code", "key", "metadata", "module", "name", "record", "version")

_DAWN = datetime.min.replace(tzinfo=timezone.utc)


class Shortener(Protocol):
    """What a table needs of the cache whose calls it shows."""

    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        """Return for each key the beginning that stands for it alone, if it is there."""
        ...


class Source(Protocol):
    """What a query needs of the cache that answers it."""

    @property
    def backend(self) -> Shortener:
        """What shortens keys."""
        ...

    def evict_many(self, keys: Iterable[Digest]) -> int:
        """Forget calls; return how many there were."""
        ...

    def transfer(
        self,
        target: Any,
        calls: Iterable[LazyCall] | None = None,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Copy calls to another cache."""
        ...


class QueryIterator:
    """Calls that match a query: lazy, and asked for anew each time it is iterated.

    Nothing happens before the first call is asked for, and nothing is found that is not asked for:
    an iteration that is left early closes its source, so that a remote cache stops searching.
    ``take``, ``skip``, ``filter``, ``sorted`` and ``unique`` give further queries of the same kind.
    """

    def __init__(
        self, source: Callable[[], Iterable[LazyCall]], cache: Source | None = None
    ) -> None:
        """Wrap a source of calls.

        Args:
            source: begins a new search.
            cache: the cache that the calls are bound to, for ``evict``, ``transfer`` and ``table``.
        """
        self._source = source
        self._cache = cache

    def __iter__(self) -> Generator[LazyCall, None, None]:
        # yield from closes only generators by itself; any iterator with a close() may hold a stream
        calls = iter(self._source())
        try:
            yield from calls
        finally:
            close = getattr(calls, "close", None)
            if close is not None:
                close()

    def __bool__(self) -> bool:
        return not self.empty()

    def _derive(
        self, transform: Callable[[Iterator[LazyCall]], Iterable[LazyCall]]
    ) -> QueryIterator:
        def source() -> Iterator[LazyCall]:
            with closing(iter(self)) as calls:
                yield from transform(calls)

        return QueryIterator(source, self._cache)

    # -- one call ----------------------------------------------------------------------------------

    def only(self) -> LazyCall:
        """Return the one call that matches.

        Raises:
            KeyError: none does.
            LookupError: more than one does.
        """
        found = list(self.take(2))
        if not found:
            raise KeyError("no call matches")
        if len(found) > 1:
            raise LookupError("more than one call matches; narrow the query, or use latest()")
        return found[0]

    def any(self) -> LazyCall | None:
        """Return some call that matches (which is true), or ``None`` if none does."""
        with closing(iter(self)) as calls:
            return next(calls, None)

    def first(self) -> LazyCall:
        """Return the first call that is found.

        Raises:
            KeyError: none matches.
        """
        found = self.any()
        if found is None:
            raise KeyError("no call matches")
        return found

    def latest(self) -> LazyCall:
        """Return the call that began last, by its metadata ``runtime.started``.

        Raises:
            KeyError: none matches.
        """
        return self._extreme(max)

    def oldest(self) -> LazyCall:
        """Return the call that began first; calls that do not say when come last.

        Raises:
            KeyError: none matches.
        """
        return self._extreme(min)

    def _extreme(self, choose: Callable[..., LazyCall | None]) -> LazyCall:
        from fleche.caches._table import started

        dated = self.filter(lambda call: started(call.record) is not None)
        found = choose(dated, key=_when, default=None)
        return self.first() if found is None else found

    # -- how many ----------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many calls match."""
        return sum(1 for _ in self)

    def empty(self) -> bool:
        """Return whether no call matches."""
        return self.any() is None

    # -- further queries ---------------------------------------------------------------------------

    def take(self, number: int) -> QueryIterator:
        """Return the first ``number`` calls."""
        return self._derive(lambda calls: itertools.islice(calls, number))

    def skip(self, number: int) -> QueryIterator:
        """Return all calls but the first ``number``."""
        return self._derive(lambda calls: itertools.islice(calls, number, None))

    def filter(self, predicate: Callable[[LazyCall], Any]) -> QueryIterator:
        """Return the calls for which ``predicate`` is true."""
        return self._derive(lambda calls: filter(predicate, calls))

    def sorted(self, key: Key | None = None, *, reverse: bool = False) -> QueryIterator:
        """Return the calls in order of ``key`` (default: when they began, the undated first).

        By the name of an attribute or an argument, calls that lack it come first, then numbers,
        then text.

        Raises:
            ValueError: when it is iterated: no call has an attribute or argument of that name.
        """
        if not isinstance(key, str):
            order = _when if key is None else _selector(key)
            return self._derive(lambda calls: builtins.sorted(calls, key=order, reverse=reverse))
        select = _selector(key)

        def ordered(calls: Iterable[LazyCall]) -> list[LazyCall]:
            found = [(select(call), call) for call in calls]
            _check_known(key, found)
            found.sort(key=lambda each: _rank(each[0]), reverse=reverse)
            return [call for _, call in found]

        return self._derive(ordered)

    def unique(self, key: Key = "key") -> QueryIterator:
        """Return the first call of each ``key``, which must be hashable."""
        select = _selector(key)

        def distinct(calls: Iterable[LazyCall]) -> Iterator[LazyCall]:
            seen = set()
            for call in calls:
                found = select(call)
                if found not in seen:
                    seen.add(found)
                    yield call

        return self._derive(distinct)

    def groupby(self, key: Key) -> dict[Any, QueryIterator]:
        """Return the calls by ``key``, which must be hashable; each key occurs once."""
        select = _selector(key)
        pairs = [(select(call), call) for call in self]
        _check_known(key, pairs)
        groups: dict[Any, list[LazyCall]] = {}
        for found, call in pairs:
            groups.setdefault(None if found is _ABSENT else found, []).append(call)
        return {
            found: QueryIterator(lambda calls=calls: calls, self._cache)  # type: ignore[misc]
            for found, calls in groups.items()
        }

    # -- what to do with them ----------------------------------------------------------------------

    def results(self) -> Generator[Any, None, None]:
        """Yield the result of each call, loaded one at a time.

        Raises:
            KeyError: a value is gone.
            ParcelError: a value is damaged, not trusted, or cannot be made here.
        """
        with closing(iter(self)) as calls:
            for call in calls:
                yield call.result

    def evict(self) -> int:
        """Forget the calls; return how many there were.

        Raises:
            Rejected: the cache is read-only.
        """
        return self._bound().evict_many([call.key for call in self])

    def transfer(self, target: Any, *, progress: Callable[[int], None] | None = None) -> int:
        """Copy the calls with their values to the cache ``target``; return how many were new there.

        Raises:
            Rejected: ``target`` is read-only.
        """
        return self._bound().transfer(target, self, progress=progress)

    def table(self) -> Table:
        """Return the calls as a table for people, without loading a value."""
        from fleche.caches._table import Table

        return Table(self, self._cache.backend.shrink if self._cache is not None else None)

    def _bound(self) -> Source:
        if self._cache is None:
            raise ValueError("this query belongs to no cache")
        return self._cache

    def __repr__(self) -> str:
        return f"<QueryIterator over {self._cache!r}>"


_ABSENT = object()
"""What a call has that has no attribute or argument of the name that is asked for."""


def _selector(key: Key) -> Callable[[LazyCall], Any]:
    if not isinstance(key, str):
        if not callable(key):
            raise TypeError(f"{key!r}: a function of a call is wanted, or the name of an attribute")
        return key
    if key in _ATTRIBUTES or key == "result":
        return attrgetter(key)
    name = key.removeprefix("arguments.")

    def shown(call: LazyCall) -> Any:
        ref = call.record.arguments.get(name)
        if ref is None:
            return _ABSENT
        return Digest(ref.digest) if ref.shown is msgspec.UNSET else ref.shown

    return shown


def _check_known(key: Key, found: Sequence[tuple[Any, LazyCall]]) -> None:
    if found and all(value is _ABSENT for value, _ in found):
        names = dict.fromkeys(name for _, call in found for name in call.record.arguments)
        raise ValueError(
            f"{key!r}: calls have no such attribute ({', '.join(_ATTRIBUTES)}, result), "
            f"and none of these such an argument ({', '.join(names) or 'they have none'})"
        )


def _rank(value: Any) -> tuple[int, Any]:
    """Return what sorts before and after values of other kinds."""
    if value is None or value is _ABSENT:
        return 0, 0
    if isinstance(value, bool | int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, value


def _when(call: LazyCall) -> datetime:
    from fleche.caches._table import started

    return started(call.record) or _DAWN
