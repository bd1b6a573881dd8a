"""Calls that run in an executor: answered here if they can be, and computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fleche.decorator._effects import copy_generator
from fleche.decorator._flights import Flight, Role, flights, note_child
from fleche.decorator._futures import CONCURRENT, Deferred
from fleche.decorator._journey import Journey, depart
from fleche.decorator._passage import Passage
from fleche.decorator._surface import Surface
from fleche.decorator._work import Work
from fleche.decorator.bound import BoundWrapper, void_cache

__all__ = ["submit"]

Submit = Callable[..., Any]


def submit(
    submit: Submit,
    function: Surface[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    place: object,
    shares_memory: bool,
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
    """
    core, cache = function.core, function.core.cache()
    # the body draws from a generator of its own, be its worker a process or a thread
    args = tuple(map(copy_generator, args))
    kwargs = {name: copy_generator(value) for name, value in kwargs.items()}
    if core.is_async:
        return submit(BoundWrapper(function), *args, **kwargs)
    while True:
        journey = depart(core, cache, (*function.lead, *args), kwargs)
        alone = partial(_compute_alone, submit, function, journey)
        if not isinstance(journey, Journey):
            return alone()
        since = flights.clock
        hit = journey.look()
        note_child(journey.key)
        if hit is not None:
            return _done(hit.result)
        # the worker may be a thread that asks for the same result as the owner of the plain slot
        role, flight = flights.join(("executor", id(place), journey.slot), since)
        if role is Role.COMPUTE:
            there = not journey.lost and (shares_memory or cache.capabilities.shared)
            return _compute(submit, function, journey, flight, alone, there=there)
        if role is Role.WAIT:
            joined = _join(flight, alone)
            if joined is not None:
                return joined


def _compute(
    submit: Submit,
    function: Surface[..., Any],
    journey: Journey,
    flight: Flight,
    alone: Callable[[], Any],
    *,
    there: bool,
) -> Any:
    work = Work(journey, flight, keep=not there)
    try:
        if there:
            args = journey.args[len(function.lead) :]
            inner = submit(BoundWrapper(function, cache=journey.cache), *args, **journey.kwargs)
        else:
            inner = _submit_uncached(submit, function, *work.begin())
        return Deferred(work, inner, CONCURRENT, "").start(alone)
    except BaseException as error:
        work.fail(error)
        raise


def _compute_alone(submit: Submit, function: Surface[..., Any], passage: Passage) -> Any:
    return _submit_uncached(submit, function, *passage.body_arguments())


def _submit_uncached(
    submit: Submit, function: Surface[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
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
