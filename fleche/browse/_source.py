"""What the browser asks of a cache: pages of calls, and how many of each function there are.

Everything here may take as long as a network does, and is called in threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

from fleche.browse._describe import arguments_of, result_of, where_of
from fleche.caches import BaseCache, CacheStack, Reported
from fleche.call import CallRecord, LazyCall, QueryCall

__all__ = ["Functions", "Pages", "Wanted", "count_functions", "further_layers", "push_calls"]

PAGE = 100
"""Calls that are fetched at once."""

_MOST_LOOKED_AT = 20_000
"""Calls that are looked at for one page; where none of so many fits, the page is given as it is."""

MOST_COUNTED = 100_000
MOST_COUNTED_AFAR = 5_000
"""Calls that are read to count those of each function, here and on another machine."""


@dataclass(frozen=True)
class Wanted:
    """Which calls are shown.

    Attributes:
        function: module and name; ``None``: of all functions.
        words: each must occur in what is known of a call, in any case of letters.
    """

    function: tuple[str, str] | None = None
    words: tuple[str, ...] = ()

    def query(self, cache: BaseCache) -> Iterator[LazyCall]:
        """Yield the calls that the storage finds; :meth:`fits` decides."""
        if self.function is None:
            return iter(cache.query())
        module, name = self.function
        template = QueryCall(name=_exactly(name), module=_exactly(module) if module else None)
        return iter(cache.query(template))

    def fits(self, call: LazyCall) -> bool:
        """Return whether a call is wanted."""
        record = call.record
        if self.function is not None and self.function != (record.module or "", record.name):
            return False
        if not self.words:
            return True
        text = _text_of(call.key, record)
        return all(word in text for word in self.words)


def _exactly(name: str) -> str:
    # what a pattern cannot say, fits() does
    return name.replace("*", "?")


def _text_of(key: str, record: CallRecord) -> str:
    parts = [key, record.name, record.module or "", arguments_of(record), result_of(record)]
    parts.append(where_of(record))
    for fields in record.metadata.values():
        parts += [str(value) for value in fields.values() if isinstance(value, str | int | float)]
    return "\n".join(parts).lower()


class Pages:
    """The calls that are wanted, a page at a time; what is not asked for is not fetched.

    Args:
        cache: where they are.
        wanted: which.
    """

    def __init__(self, cache: BaseCache, wanted: Wanted) -> None:
        self.wanted = wanted
        self.is_over = False
        self._calls = wanted.query(cache)
        self._lock = Lock()

    def next(self) -> list[LazyCall]:
        """Return the next calls; fewer than a page, or none, at the end or after a long search."""
        with self._lock:
            page: list[LazyCall] = []
            for _ in range(_MOST_LOOKED_AT):
                call = None if self.is_over else next(self._calls, None)
                if call is None:
                    self.is_over = True
                    break
                if self.wanted.fits(call):
                    page.append(call)
                    if len(page) == PAGE:
                        break
            return page

    def close(self) -> None:
        """End the search, so that a remote cache stops looking."""
        with self._lock:
            self.is_over = True
            _close(self._calls)


def _close(calls: Iterator[LazyCall]) -> None:
    """End a search that may hold a stream open."""
    close = getattr(calls, "close", None)
    if close is not None:
        close()


@dataclass(frozen=True)
class Functions:
    """How many calls of each function there are.

    Attributes:
        counts: by module and name.
        is_partial: whether there may be more calls than were counted.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_partial: bool = True

    def without(self, calls: Iterable[LazyCall]) -> Functions:
        """Return what there are without some calls."""
        left = Counter(self.counts)
        left.subtract((call.record.module or "", call.record.name) for call in calls)
        return Functions(+left, self.is_partial)


def count_functions(cache: BaseCache, tell: Callable[[Functions], bool]) -> Functions:
    """Count the calls of each function.

    Args:
        cache: where they are.
        tell: called now and then with what was found so far; says whether to go on.
    """
    most = MOST_COUNTED if cache.backend.local else MOST_COUNTED_AFAR
    counts: Counter[tuple[str, str]] = Counter()
    calls = iter(cache.query())
    try:
        for number, call in enumerate(calls, 1):
            counts[call.record.module or "", call.record.name] += 1
            if number == most or (number % 1000 == 0 and not tell(Functions(Counter(counts)))):
                return Functions(counts)
    finally:
        _close(calls)
    return Functions(counts, is_partial=False)


def further_layers(cache: BaseCache) -> Sequence[BaseCache]:
    """Return where a cache can push to."""
    if not isinstance(cache, CacheStack):
        return ()
    return [layer for layer in cache.layers[1:] if not layer.read_only]


def push_calls(
    cache: BaseCache, calls: Sequence[LazyCall], layers: Iterable[BaseCache]
) -> tuple[int, int]:
    """Copy calls to each of some layers; return how many copies were made, and how many not."""
    copied = left_out = 0
    for layer in layers:
        latest = Reported(0)

        def note(number: Reported) -> None:
            nonlocal latest
            latest = number

        copied += cache.transfer(layer, calls, progress=note)
        left_out += latest.left_out
    return copied, left_out
