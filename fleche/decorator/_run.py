"""How a call goes: looked up, joined, or computed; for plain functions and for coroutines."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING, LazyCall
from fleche.decorator._core import Core
from fleche.decorator._flights import Flight, Role, flights
from fleche.decorator._futures import Deferred, kind_of, revive
from fleche.decorator._journey import Journey, depart
from fleche.decorator._passage import Passage
from fleche.decorator._turns import Turn, take_turn, take_turn_async
from fleche.decorator._work import Work

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["alone", "compute", "compute_async", "run", "run_async"]


def run(core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer a call of a plain function."""
    while True:
        journey = depart(core, cache, args, kwargs)
        if not isinstance(journey, Journey):
            return alone(journey)
        since = flights.clock
        hit = journey.look()
        if hit is not None:
            return revive(hit)
        role, flight = flights.join(journey.slot, since)
        if role is Role.COMPUTE:
            return compute_in_turn(journey, flight)
        if role is Role.ALONE:
            return alone(journey)
        if role is Role.WAIT:
            result = wait(journey, flight)
            if result is not MISSING:
                return result


def alone(passage: Passage) -> Any:
    """Call the function as if there were no cache."""
    args, kwargs = passage.body_arguments()
    return passage.core.function(*args, **kwargs)


def compute_in_turn(journey: Journey, flight: Flight) -> Any:
    """Call the function and store what it returns, unless another process does so just now."""
    if journey.core.options.coalesce != "processes":
        return compute(journey, flight)
    try:
        turn = take_turn(journey)
    except BaseException as error:
        flights.land(flight, MISSING, error)
        raise
    if isinstance(turn, LazyCall):
        flights.land(flight)
        return revive(turn)
    return compute(journey, flight, turn)


def compute(journey: Journey, flight: Flight, turn: Turn | None = None) -> Any:
    """Call the function, and store what it returns."""
    work = Work(journey, flight, turn)
    try:
        with flight.body():
            args, kwargs = work.begin()
            result = journey.core.function(*args, **kwargs)
        kind = kind_of(result)
        if kind:
            return Deferred(work, result, kind, kind).start(partial(alone, journey))
        return work.succeed(result)
    except BaseException as error:
        work.fail(error)
        raise


def wait(journey: Journey, flight: Flight) -> Any:
    """Return what the flight brings, or ``MISSING`` if that is nothing for this caller."""
    try:
        flight.wait()
    finally:
        flights.leave(flight)
    if flight.deferred is not None:
        return flight.deferred.join(partial(alone, journey))
    return MISSING if flight.result is MISSING else journey.share(flight)


async def run_async(
    core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Answer a call of a coroutine function."""
    while True:
        journey = depart(core, cache, args, kwargs)
        if not isinstance(journey, Journey):
            return await alone(journey)
        since = flights.clock
        hit = journey.look()
        if hit is not None:
            return hit.result
        role, flight = flights.join(journey.slot, since)
        if role is Role.COMPUTE:
            return await compute_async(journey, flight, in_turn=True)
        if role is Role.ALONE:
            return await alone(journey)
        if role is Role.WAIT:
            await ride(flight)
            result = MISSING if flight.result is MISSING else journey.share(flight)
            if result is not MISSING:
                return result


async def compute_async(journey: Journey, flight: Flight, *, in_turn: bool = False) -> Any:
    """Compute in a task of its own, which goes on as long as anybody waits for it."""
    from asyncio import get_running_loop

    waits = in_turn and journey.core.options.coalesce == "processes"
    begin = fly_in_turn if waits else fly
    flight.task = get_running_loop().create_task(begin(journey, flight))
    await ride(flight)
    if flight.error is not None:
        raise flight.error
    return flight.result


async def fly_in_turn(journey: Journey, flight: Flight) -> None:
    """Run the body of a coroutine function, unless another process does so just now."""
    try:
        turn = await take_turn_async(journey)
    except BaseException as error:
        flights.land(flight, MISSING, error)
        if not isinstance(error, Exception) and not flight.cancelled:
            raise
        return
    if isinstance(turn, LazyCall):
        flights.land(flight, turn.result)
    else:
        await fly(journey, flight, turn)


async def fly(journey: Journey, flight: Flight, turn: Turn | None = None) -> None:
    """Run the body of a coroutine function; what comes of it is in the flight."""
    work = Work(journey, flight, turn)
    try:
        with flight.body():
            args, kwargs = work.begin()
            result = await journey.core.function(*args, **kwargs)
        if not flight.cancelled:
            work.succeed(result)
    except BaseException as error:
        work.fail(error)
        if not isinstance(error, Exception) and not flight.cancelled:
            raise
    finally:
        work.fail(RuntimeError("cancelled"))


async def ride(flight: Flight) -> None:
    """Wait until the flight has landed.

    Whoever is cancelled meanwhile leaves the flight to the others. The last one to leave ends it,
    and waits until its body has cleaned up; what the body then still returns is not stored.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    landed = loop.create_future()
    flights.when_settled(flight, lambda: _wake(loop, landed))
    try:
        await landed
    except asyncio.CancelledError:
        if not flights.leave(flight) or flight.landed:
            raise
        flight.cancelled = True
        task = flight.task
        if task.get_loop() is not loop:
            task.get_loop().call_soon_threadsafe(task.cancel)
            raise
        task.cancel()
        await asyncio.wait({task})
        raise
    else:
        flights.leave(flight)


def _wake(loop: Any, future: Any) -> None:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    with suppress(RuntimeError):  # the loop of a caller who is gone
        loop.call_soon_threadsafe(wake)
