"""Many calls of one function: looked up at once, saved together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from fleche.decorator._execution import run
from fleche.decorator._invocation import KeyedInvocation, prepare_invocation
from fleche.decorator._spec import FunctionSpec
from fleche.decorator._tell import strip_frames

if TYPE_CHECKING:
    from fleche.caches import BatchCache

__all__ = ["AHEAD", "look_ahead", "map_calls"]

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
    from fleche.caches import BatchCache

    calls = ((*lead, *call) for call in zip(*arguments, strict=False))
    # other processes that wait for a call want its result in the cache when its lock is free
    together = spec.options.coalesce != "processes"
    return _results(spec, BatchCache(spec.cache(), together=together), calls)


def _results(
    spec: FunctionSpec, cache: BatchCache, calls: Iterator[tuple[Any, ...]]
) -> Iterator[Any]:
    try:
        while some := list(islice(calls, AHEAD)):
            look_ahead(spec, cache, ((args, {}) for args in some))
            for args in some:
                yield run(spec, cache, args, {})
    except BaseException as error:
        strip_frames(error)
        raise
    finally:
        try:
            cache.batch.end()
        except Exception as error:  # noqa: BLE001 (of any cache; the results have been delivered)
            spec.warner.warn_error(
                "save",
                error,
                "some results of map() are not stored",
                "Mend the cache, or activate another: fleche.cache(...)",
            )


def look_ahead(
    spec: FunctionSpec,
    cache: BatchCache,
    calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]],
) -> None:
    """Let ``cache`` look for the results of calls that are about to be made.

    What goes wrong is left to the calls themselves, each of which finds its key anew: a body may
    change what a later call is given.
    """
    try:
        found = [prepare_invocation(spec, cache, args, kwargs) for args, kwargs in calls]
        cache.batch.look_ahead([each.key for each in found if isinstance(each, KeyedInvocation)])
    except Exception:  # noqa: BLE001 (of any argument, any cache)
        return
