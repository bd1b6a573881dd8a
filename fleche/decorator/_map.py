"""Many calls of one function: looked up at once, saved together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from fleche.decorator._execution import run, short_traceback
from fleche.decorator._invocation import KeyedInvocation, prepare_invocation
from fleche.decorator._spec import FunctionSpec

__all__ = ["AHEAD", "Batch", "map_calls"]

AHEAD = 1000
"""So many calls are looked up at once."""


def map_calls(
    spec: FunctionSpec, lead: tuple[Any, ...], arguments: tuple[Iterable[Any], ...]
) -> Iterator[Any]:
    """Yield the results of the calls with these arguments, in order.

    Raises:
        TypeError: the function is a coroutine function, or there are no arguments.
    """
    if spec.is_async:
        raise TypeError(
            f"{spec.info.name}.map(): calls of a coroutine function are awaited together by "
            "asyncio.gather(*map(function, ...))"
        )
    if not arguments:
        raise TypeError(f"{spec.info.name}.map() needs the values of one argument at least")
    calls = ((*lead, *call) for call in zip(*arguments, strict=False))
    return _results(Batch(spec), calls)


def _results(batch: Batch, calls: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    with short_traceback:
        try:
            while some := list(islice(calls, AHEAD)):
                batch.look_ahead((args, {}) for args in some)
                for args in some:
                    yield run(batch.spec, batch.cache, args, {})
        finally:
            batch.end()


class Batch:
    """Many calls of one function, looked up at once and saved together; :meth:`end` ends it.

    Attributes:
        spec: the function.
        cache: the cache for these calls.
    """

    def __init__(self, spec: FunctionSpec) -> None:
        from fleche.caches import BatchCache

        self.spec = spec
        # other processes that wait for a call want its result in the cache when its lock is free
        together = spec.options.coalesce != "processes"
        self.cache = BatchCache(spec.cache(), together=together)

    def look_ahead(self, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        """Look for the results of calls that are about to be made.

        What goes wrong is left to the calls themselves, each of which finds its key anew: a body
        may change what a later call is given.
        """
        try:
            found = [prepare_invocation(self.spec, self.cache, *call) for call in calls]
            keys = [each.key for each in found if isinstance(each, KeyedInvocation)]
            self.cache.batch.look_ahead(keys)
        except Exception:  # noqa: BLE001 (of any argument, any cache)
            return

    def end(self) -> None:
        """Save what is unsaved; a call that ends later is saved by itself."""
        try:
            self.cache.batch.end()
        except Exception as error:  # noqa: BLE001 (of any cache; the results have been delivered)
            self.spec.warner.warn_error(
                "save",
                error,
                "some results of map() are not stored",
                "Mend the cache, or activate another: fleche.cache(...)",
            )
