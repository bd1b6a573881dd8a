"""How a call goes: looked up, joined, or computed; for plain functions and for coroutines."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING, LazyCall
from fleche.decorator._core import Core
from fleche.decorator._flights import Flight, Role, flights, note_child
from fleche.decorator._futures import revive
from fleche.decorator._journey import Journey, depart
from fleche.decorator._passage import Passage
from fleche.decorator._turns import Turn, take_turn, take_turn_async
from fleche.decorator._work import Work

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["approach", "compute_async", "run", "run_async", "run_body"]


def run(core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer a call of a plain function."""
    step, result = approach(core, cache, args, kwargs)
    if step is None:
        return result
    return run_body(step, core)


def run_body(step: Passage | Work, core: Core) -> Any:
    """Call the function as the step of its call says."""
    try:
        args, kwargs = step.enter()
        result = core.function(*args, **kwargs)
    except BaseException as error:
        step.fail(error)
        raise
    return step.finish(result)


def approach(
    core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Passage | Work | None, Any]:
    """Do what comes before the body of a plain function.

    Returns:
        ``None`` and the result, if there is one already; else what surrounds the body, which is
        entered, and finishes or fails.
    """
    while True:
        journey = depart(core, cache, args, kwargs)
        if not isinstance(journey, Journey):
            return journey, None
        since = flights.clock
        hit = journey.look()
        if hit is not None:
            return None, revive(journey.answer(hit))
        role, flight = flights.join(journey.slot, since)
        if role is Role.COMPUTE:
            if core.options.coalesce != "processes":
                return Work(journey, flight), None
            return wait_for_turn(journey, flight)
        if role is Role.ALONE:
            return Passage(core, cache, args, kwargs), None
        if role is Role.WAIT:
            result = wait(journey, flight)
            if result is not MISSING:
                return None, result


def wait_for_turn(journey: Journey, flight: Flight) -> tuple[Work | None, Any]:
    """Go on when no other process computes the call; its result is then stored, perhaps."""
    try:
        turn = take_turn(journey)
    except BaseException as error:
        flights.land(flight, MISSING, error)
        raise
    if isinstance(turn, LazyCall):
        flights.land(flight)
        return None, revive(journey.answer(turn))
    return Work(journey, flight, turn), None


def wait(journey: Journey, flight: Flight) -> Any:
    """Return what the flight brings, or ``MISSING`` if that is nothing for this caller."""
    try:
        flight.wait()
    finally:
        flights.leave(flight)
    if flight.deferred is not None:
        note_child(journey.key)
        return flight.deferred.join(journey.alone)
    return MISSING if flight.result is MISSING else journey.share(flight)


async def run_async(
    core: Core, cache: BaseCache, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Answer a call of a coroutine function."""
    while True:
        journey = depart(core, cache, args, kwargs)
        if not isinstance(journey, Journey):
            return await journey.alone()
        since = flights.clock
        hit = journey.look()
        if hit is not None:
            return journey.answer(hit).result
        role, flight = flights.join(journey.slot, since)
        if role is Role.COMPUTE:
            return await compute_async(journey, flight, in_turn=True)
        if role is Role.ALONE:
            return await journey.alone()
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
    note_child(journey.key)
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
        flights.land(flight, journey.answer(turn).result)
    else:
        await fly(journey, flight, turn)


async def fly(journey: Journey, flight: Flight, turn: Turn | None = None) -> None:
    """Run the body of a coroutine function; what comes of it is in the flight."""
    work = Work(journey, flight, turn)
    try:
        args, kwargs = work.enter()
        result = await journey.core.function(*args, **kwargs)
        work.leave()
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
