"""Calls that run in an executor: answered here if they can be, and computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fleche.decorator._bound import BoundWrapper, void_cache
from fleche.decorator._computation import Computation
from fleche.decorator._effects import copy_generator
from fleche.decorator._function import CachedFunction
from fleche.decorator._futures import CONCURRENT, Deferred
from fleche.decorator._invocation import Invocation, KeyedInvocation, prepare_invocation
from fleche.decorator._singleflight import Flight, Role, flights, note_child

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["submit"]

Submit = Callable[..., Any]


def submit(
    submit: Submit,
    function: CachedFunction[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    place: object,
    shares_memory: bool,
    ahead: BaseCache | None = None,
) -> Any:
    """Return a future of a call, submitted only if its result is not stored and not under way.

    The worker stores the result itself if it can reach the cache; if not, it is stored here when
    it arrives.

    Args:
        submit: the executor's own, perhaps with keywords for the executor.
        function: a decorated function or method.
        args: its positional arguments.
        kwargs: its keyword arguments.
        place: an object of the executor, by which identical calls in it are known.
        shares_memory: whether the workers are threads of this process.
        ahead: the active cache, if it has looked ahead for this call.
    """
    spec, cache = function.spec, function.spec.cache()
    # the body draws from a generator of its own, be its worker a process or a thread
    args = tuple(map(copy_generator, args))
    kwargs = {name: copy_generator(value) for name, value in kwargs.items()}
    if spec.is_async:
        return submit(BoundWrapper(function), *args, **kwargs)
    while True:
        invocation = prepare_invocation(spec, cache, (*function.lead, *args), kwargs)
        alone = partial(_compute_alone, submit, function, invocation)
        if not isinstance(invocation, KeyedInvocation):
            return alone()
        since = flights.clock
        hit = invocation.look(ahead)
        note_child(invocation.key)
        if hit is not None:
            return _done(hit.result)
        # the worker may be a thread that asks for the same result as the owner of the plain slot
        role, flight = flights.join(("executor", id(place), invocation.slot), since)
        if role is Role.COMPUTE:
            there = not invocation.lost and (shares_memory or cache.capabilities.shared)
            return _compute(submit, function, invocation, flight, alone, there=there)
        if role is Role.WAIT:
            joined = _join(flight, alone)
            if joined is not None:
                return joined


def _compute(
    submit: Submit,
    function: CachedFunction[..., Any],
    invocation: KeyedInvocation,
    flight: Flight,
    alone: Callable[[], Any],
    *,
    there: bool,
) -> Any:
    work = Computation(invocation, flight, keep=not there)
    try:
        if there:
            args = invocation.args[len(function.lead) :]
            inner = submit(
                BoundWrapper(function, cache=invocation.cache), *args, **invocation.kwargs
            )
        else:
            inner = _submit_uncached(submit, function, *work.begin())
        return Deferred(work, inner, CONCURRENT, "").start(alone)
    except BaseException as error:
        work.fail(error)
        raise


def _compute_alone(
    submit: Submit, function: CachedFunction[..., Any], invocation: Invocation
) -> Any:
    return _submit_uncached(submit, function, *invocation.body_arguments())


def _submit_uncached(
    submit: Submit,
    function: CachedFunction[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    bound = BoundWrapper(function, cache=void_cache())
    return submit(bound, *args[len(function.lead) :], **kwargs)


def _join(flight: Flight, alone: Callable[[], Any]) -> Any:
    try:
        flight.wait()
    finally:
        flights.leave(flight)
    return None if flight.deferred is None else flight.deferred.join(alone)


def _done(result: Any) -> Any:
    from concurrent.futures import Future

    future: Future[Any] = Future()
    future.set_result(result)
    return future
