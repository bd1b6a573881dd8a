"""How a call goes: looked up, joined, or computed; for plain functions and for coroutines.

What a miss needs is imported when there is one: a process that finds everything starts sooner.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fleche import _turns
from fleche._util import running_loop
from fleche.call import MISSING, LazyCall
from fleche.decorator._futures import revive
from fleche.decorator._invocation import (
    Invocation,
    KeyedInvocation,
    prepare_invocation,
    run_body,
)
from fleche.decorator._singleflight import Flight, Role, flights, note_child
from fleche.decorator._spec import FunctionSpec

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.decorator._computation import Computation
    from fleche.decorator._locking import ComputeLock

__all__ = ["approach", "compute_async", "run", "run_async", "short_traceback", "strip_frames"]

_calls_log = logging.getLogger("fleche.calls")

COMPARED = 200
"""With so many stored calls a miss is compared at most, to say why it is one."""


def run(spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer a call of a plain function."""
    step, result = approach(spec, cache, args, kwargs)
    if step is None:
        return result
    with short_traceback:
        return run_body(step)


def approach(
    spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Invocation | Computation | None, Any]:
    """Do what comes before the body of a plain function.

    Returns:
        ``None`` and the result, if there is one already; else what surrounds the body, which is
        entered, and finishes or fails.
    """
    crowded = cache.backend.takes_turns and len(_turns.THREADS) > 1
    while True:
        try:
            if crowded:
                _turns.take()
            invocation = prepare_invocation(spec, cache, args, kwargs)
            if not isinstance(invocation, KeyedInvocation):
                return invocation, None
            since = flights.clock  # before the look: what lands after it is looked for again
            hit = invocation.look()
            if hit is not None:
                return None, revive(invocation.answer(hit))
        finally:
            if crowded:
                _turns.leave()
        role, flight = flights.join(invocation.slot, since)
        if role is Role.COMPUTE:
            return begin_computing(invocation, flight)
        if role is Role.ALONE:
            return Invocation(spec, cache, args, kwargs), None
        if role is Role.WAIT:
            result = wait(invocation, flight)
            if result is not MISSING:
                return None, result


def begin_computing(invocation: KeyedInvocation, flight: Flight) -> tuple[Computation | None, Any]:
    """Return what surrounds the body of a miss, as :func:`approach` does.

    If other processes count as well, it begins when none of them computes the call; the result is
    then stored, perhaps.
    """
    from fleche.decorator._computation import Computation

    lock = None
    try:
        tell_miss(invocation)
        if invocation.spec.options.coalesce == "processes":
            from fleche.decorator._locking import acquire

            lock = acquire(invocation)
    except BaseException as error:
        flights.land(flight, MISSING, error)
        raise
    if isinstance(lock, LazyCall):
        flights.land(flight)
        return None, revive(invocation.answer(lock))
    return Computation(invocation, flight, lock), None


def wait(invocation: KeyedInvocation, flight: Flight) -> Any:
    """Return what the flight brings, or ``MISSING`` if that is nothing for this caller."""
    flights.wait(flight)
    if flight.deferred is not None:
        note_child(invocation.key)
        return flight.deferred.join(flight, invocation.alone)
    return MISSING if flight.result is MISSING else invocation.share(flight)


async def run_async(
    spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Answer a call of a coroutine function."""
    with short_traceback:
        return await _answer_async(spec, cache, args, kwargs)


async def _answer_async(
    spec: FunctionSpec, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    while True:
        invocation = prepare_invocation(spec, cache, args, kwargs)
        if not isinstance(invocation, KeyedInvocation):
            return await invocation.alone_async()
        since = flights.clock
        hit = invocation.look()
        if hit is not None:
            return invocation.answer(hit).result
        if running_loop() is None:  # others could not wait for it
            tell_miss(invocation)
            return await compute_async(invocation, Flight())
        role, flight = flights.join(invocation.slot, since)
        if role is Role.COMPUTE:
            try:
                tell_miss(invocation)
            except BaseException as error:
                flights.land(flight, MISSING, error)
                raise
            return await compute_async(invocation, flight, locked=True)
        if role is Role.ALONE:
            return await invocation.alone_async()
        if role is Role.WAIT:
            await flights.wait_async(flight)
            result = MISSING if flight.result is MISSING else invocation.share(flight)
            if result is not MISSING:
                return result


async def compute_async(
    invocation: KeyedInvocation, flight: Flight, *, locked: bool = False
) -> Any:
    """Compute in a task of its own, which goes on as long as one of its callers waits.

    In an event loop that is not asyncio's, as that of trio, the body is awaited right here.
    """
    waits = locked and invocation.spec.options.coalesce == "processes"
    begin = run_locked_async if waits else run_body_async
    loop = running_loop()
    if loop is None:
        await run_body_async(invocation, flight)
    else:
        flight.running = loop.create_task(begin(invocation, flight))
        await flights.wait_async(flight)
    note_child(invocation.key)
    if flight.error is not None:
        with short_traceback:
            raise flight.error
    return flight.result


async def run_locked_async(invocation: KeyedInvocation, flight: Flight) -> None:
    """Run the body of a coroutine function, unless another process does so just now."""
    from fleche.decorator._locking import acquire_async

    try:
        lock = await acquire_async(invocation)
    except BaseException as error:
        flights.land(flight, MISSING, error)
        if not isinstance(error, Exception) and not flight.cancelled:
            raise
        return
    if isinstance(lock, LazyCall):
        flights.land(flight, invocation.answer(lock).result)
    else:
        await run_body_async(invocation, flight, lock)


async def run_body_async(
    invocation: KeyedInvocation, flight: Flight, lock: ComputeLock | None = None
) -> None:
    """Run the body of a coroutine function; what comes of it is in the flight."""
    from fleche.decorator._computation import Computation

    work = Computation(invocation, flight, lock)
    try:
        args, kwargs = work.enter()
        result = await invocation.spec.function(*args, **kwargs)
        work.leave()
        if not flight.cancelled:
            work.succeed(result)
    except BaseException as error:
        work.fail(error)
        if not isinstance(error, Exception) and not flight.cancelled:
            raise
    finally:
        work.fail()
        del work, flight, invocation  # the error, which the flight holds, keeps this frame


# -- what a person is shown of a call --------------------------------------------------------------


def tell_miss(invocation: KeyedInvocation) -> None:
    """Log that a call is a miss, and why, if that is to be logged.

    Hits, and what is stored, are logged where they are counted.
    """
    if not _calls_log.isEnabledFor(logging.DEBUG):
        return
    from fleche.decorator._explain import explain

    spec = invocation.spec
    try:
        why = explain(spec, invocation.cache, invocation.args, invocation.kwargs, most=COMPARED)
    except Exception as error:  # noqa: BLE001 (of any cache; the function runs all the same)
        _calls_log.debug("miss: %s(): %s", spec.info.name, error)
    else:
        _calls_log.debug("miss: %s", str(why).partition("\n")[0])


def strip_frames(error: BaseException) -> None:
    """Let the traceback of a user's error show the calling frame of this package alone.

    To be called where the error is caught in the outermost function of the package, which then
    raises it on. An error of the package itself keeps all of its frames.
    """
    head = error.__traceback__
    if head is None:
        return
    step: TracebackType | None = head.tb_next
    while step is not None and _module_of(step).startswith("fleche.decorator."):
        step = step.tb_next
    if step is not None:
        head.tb_next = step


def _module_of(step: TracebackType) -> str:
    return str(step.tb_frame.f_globals.get("__name__"))


class _ShortTraceback:
    """Does :func:`strip_frames` to what a block raises."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            strip_frames(error)


short_traceback = _ShortTraceback()
