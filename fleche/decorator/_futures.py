"""Functions that return futures: the result is stored when it is there.

Every caller gets a future of his own, of the same kind, which is done when the result has been
stored. Only when all of them are cancelled, the function's own future is cancelled too. One caller
gets the very result, the others what is stored of it, or copies, or, where neither can be had, what
they compute themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from fleche.call import MISSING, LazyCall
from fleche.decorator._singleflight import Flight, flights, in_loop, loop_of

if TYPE_CHECKING:
    from fleche.decorator._computation import Computation
    from fleche.decorator._invocation import KeyedInvocation

__all__ = ["CONCURRENT", "Outcome", "defer", "kind_of", "revive"]

CONCURRENT = "concurrent.futures.Future"
ASYNCIO = "asyncio.Future"


def kind_of(result: Any) -> str:
    """Return which kind of future a result is, or nothing."""
    if getattr(type(result), "_asyncio_future_blocking", None) is not None:
        return ASYNCIO
    future = getattr(sys.modules.get("concurrent.futures._base"), "Future", ())
    return CONCURRENT if isinstance(result, future) else ""


def revive(hit: LazyCall) -> Any:
    """Return the result of a stored call as the function did: perhaps in a future, now done."""
    kind = hit.entry.record.returns
    if kind not in (CONCURRENT, ASYNCIO):
        return hit.result
    future = _new_future(kind)
    future.set_result(hit.result)
    return future


def _new_future(kind: str) -> Any:
    if kind == CONCURRENT:
        from concurrent.futures import Future

        return Future()
    from asyncio import get_running_loop

    return get_running_loop().create_future()


def defer(
    work: Computation,
    inner: Any,
    kind: str,
    returns: str,
    open_result: Callable[[Any], Any] = lambda result: result,
) -> Any:
    """Let a computation go on after its body, in a future; return that of the first caller.

    Args:
        work: what stores the result.
        inner: the future that the body returned.
        kind: its kind.
        returns: what a hit returns: the kind again, or nothing for the bare result.
        open_result: what makes the result of the call of that of ``inner``, if they differ.
    """
    flight = work.flight
    shared = Deferred(work.invocation, kind, loop_of(inner))
    future = shared.future_of_caller(flight, partial(_give, flight))
    flights.defer(flight, inner, shared)
    inner.add_done_callback(partial(_finish, work, returns, open_result))
    return future


def _finish(work: Computation, returns: str, open_result: Callable[[Any], Any], inner: Any) -> None:
    """Store the result: that lets the flight land, and settles the futures of the callers."""
    outcome = outcome_of(inner)
    if outcome.result is MISSING:
        work.fail(outcome.error)
        return
    try:
        work.succeed(open_result(outcome.result), returns)
    except Exception as error:  # noqa: BLE001 (warnings may be errors; the callers hear of it)
        work.fail(error)


def _give(flight: Flight, future: Any) -> None:
    """Settle the future of the first caller."""
    Outcome(flight.result, flight.error).tell(future)


class Deferred:
    """Makes the futures of those who want the result of a computation that goes on in one.

    The flight leads here. Nothing here leads back to it, or to the function's own future, which
    keeps what it calls when it is done: else each call would leave its arguments in a cycle.

    Args:
        invocation: the call.
        kind: the kind of the future that its body returned.
        loop: the event loop of that, if it has one.
    """

    def __init__(self, invocation: KeyedInvocation, kind: str, loop: Any) -> None:
        self._invocation = invocation
        self._kind = kind
        self._loop = loop

    def join(self, flight: Flight, alone: Callable[[], Any]) -> Any:
        """Return a future for a caller who has joined the flight.

        Args:
            flight: the computation.
            alone: what computes for this caller only, if there is nothing to share.
        """
        compute = partial(copy_context().run, alone)
        return self.future_of_caller(flight, partial(self._share, flight, compute))

    def future_of_caller(self, flight: Flight, settle: Callable[[Any], None]) -> Any:
        """Return a future that is settled when the flight has landed.

        Args:
            flight: the computation; cancelled by the last caller, it ends.
            settle: what settles the future.
        """
        try:
            future = _new_future(self._kind)
        except RuntimeError:  # no event loop runs here
            future = self._loop.create_future()
        future.add_done_callback(partial(_leave, flight))
        flights.over(flight).add_done_callback(lambda _: settle(future))
        return future

    def _share(self, flight: Flight, alone: Callable[[], Any], future: Any) -> None:
        """Settle the future of a caller that must not have the very result."""
        if flight.result is MISSING:
            _give(flight, future)
            return
        try:
            result = self._invocation.share(flight)
        except Exception as error:  # noqa: BLE001 (a cache that is strict; the caller hears it)
            Outcome(error=error).tell(future)
            return
        if result is not MISSING:
            Outcome(result).tell(future)
        elif self._kind == ASYNCIO:
            in_loop(future.get_loop(), partial(_compute, alone, future))
        else:  # not here: the function might wait for the very thread that calls back
            try:
                Thread(target=_compute, args=(alone, future), name="fleche-alone").start()
            except RuntimeError as error:  # the system has no more
                Outcome(error=error).tell(future)


def _leave(flight: Flight, future: Any) -> None:
    if future.cancelled():
        flights.leave(flight)


def _compute(alone: Callable[[], Any], future: Any) -> None:
    """Compute for one caller only."""
    try:
        result = alone()
    except BaseException as error:  # noqa: BLE001 (it is told to the caller)
        Outcome(error=error).tell(future)
        return
    if kind_of(result):
        result.add_done_callback(lambda inner: outcome_of(inner).tell(future))
    else:
        Outcome(result).tell(future)


class Outcome(NamedTuple):
    """How a future ended: with a result, with an error, or, without both, cancelled."""

    result: Any = MISSING
    error: BaseException | None = None

    def tell(self, future: Any) -> None:
        """End another future in the same way, unless that has been cancelled."""
        in_loop(loop_of(future), partial(self._tell, future))

    def _tell(self, future: Any) -> None:
        if self.result is MISSING and self.error is None:
            future.cancel()
        # one of an executor is told that it runs, or that what waits for it learns of its end
        begin = getattr(future, "set_running_or_notify_cancel", None)
        if future.done() if begin is None else not begin():
            return
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


def outcome_of(future: Any) -> Outcome:
    """Return how a future that is done has ended."""
    if future.cancelled():
        return Outcome()
    error = future.exception()
    return Outcome(future.result()) if error is None else Outcome(error=error)
