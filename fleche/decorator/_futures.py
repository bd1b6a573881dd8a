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
from fleche.decorator._singleflight import flights, in_loop, loop_of

if TYPE_CHECKING:
    from fleche.decorator._computation import Computation

__all__ = ["CONCURRENT", "Deferred", "Outcome", "kind_of", "revive"]

CONCURRENT = "concurrent.futures.Future"
ASYNCIO = "asyncio.Future"


def kind_of(result: Any) -> str:
    """Return which kind of future a result is, or nothing."""
    if getattr(type(result), "_asyncio_future_blocking", None) is not None:
        return ASYNCIO
    base = sys.modules.get("concurrent.futures._base")
    return CONCURRENT if base is not None and isinstance(result, base.Future) else ""


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


class Deferred:
    """A computation that goes on after its body, in a future.

    Args:
        work: what stores the result.
        inner: the future that the body returned.
        kind: its kind.
        returns: what a hit returns: the kind again, or nothing for the bare result.
        open_result: what makes the result of the call of that of ``inner``, if they differ.
    """

    def __init__(
        self,
        work: Computation,
        inner: Any,
        kind: str,
        returns: str,
        open_result: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        self._work = work
        self._flight = work.flight
        self._inner = inner
        self._kind = kind
        self._returns = returns
        self._open_result = open_result

    def start(self) -> Any:
        """Watch the function's own future, and return that of the first caller."""
        future = self._future_of_caller(self._give)
        flights.defer(self._flight, self._inner, self)
        self._inner.add_done_callback(self._finish)
        return future

    def join(self, alone: Callable[[], Any]) -> Any:
        """Return a future for a caller who has joined the flight.

        Args:
            alone: what computes for this caller only, if there is nothing to share.
        """
        return self._future_of_caller(partial(self._share, partial(copy_context().run, alone)))

    def _future_of_caller(self, settle: Callable[[Any], None]) -> Any:
        try:
            future = _new_future(self._kind)
        except RuntimeError:  # no event loop runs here
            future = self._inner.get_loop().create_future()
        future.add_done_callback(self._leave)
        flights.over(self._flight).add_done_callback(lambda _: settle(future))
        return future

    def _leave(self, future: Any) -> None:
        if future.cancelled():
            flights.leave(self._flight)

    def _finish(self, inner: Any) -> None:
        """Store the result: that lets the flight land, and settles the futures of the callers."""
        outcome = outcome_of(inner)
        if outcome.result is MISSING:
            self._work.fail(outcome.error)
            return
        try:
            self._work.succeed(self._open_result(outcome.result), self._returns)
        except Exception as error:  # noqa: BLE001 (warnings may be errors; the callers hear of it)
            self._work.fail(error)

    def _give(self, future: Any) -> None:
        """Settle the future of the first caller."""
        Outcome(self._flight.result, self._flight.error).tell(future)

    def _share(self, alone: Callable[[], Any], future: Any) -> None:
        """Settle the future of a caller that must not have the very result."""
        if self._flight.result is MISSING:
            self._give(future)
            return
        try:
            result = self._work.invocation.share(self._flight)
        except Exception as error:  # noqa: BLE001 (a cache that is strict; the caller hears it)
            Outcome(error=error).tell(future)
            return
        if result is not MISSING:
            Outcome(result).tell(future)
        elif self._kind == ASYNCIO:
            in_loop(future.get_loop(), partial(_compute, alone, future))
        else:  # not here: the function might wait for the very thread that calls back
            Thread(target=_compute, args=(alone, future), name="fleche-alone").start()


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
