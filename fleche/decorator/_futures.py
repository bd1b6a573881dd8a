"""Functions that return futures: the result is stored when it is there.

Every caller gets a future of his own, of the same kind, which is done when the result has been
stored. Only when all of them are cancelled, the function's own future is cancelled too. One caller
gets the very result, the others what is stored of it, or copies, or, where neither can be had, what
they compute themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING, LazyCall
from fleche.decorator._singleflight import flights

if TYPE_CHECKING:
    from fleche.decorator._computation import Computation

__all__ = ["ASYNCIO", "CONCURRENT", "Deferred", "kind_of", "revive"]

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
    notes = hit.entry.record.metadata.get("fleche")
    kind = notes.get("returns", "") if notes else ""
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


@dataclass(eq=False)
class Caller:
    """Who waits for a computation.

    Attributes:
        future: what the caller has got.
        alone: what computes for this caller only.
        context: the settings of the call.
    """

    future: Any
    alone: Callable[[], Any]
    context: Context = field(default_factory=copy_context)


class Deferred:
    """A computation that goes on after its body, in a future.

    Args:
        work: what stores the result.
        inner: the future that the body returned.
        kind: its kind.
        returns: what a hit returns: the kind again, or nothing for the bare result.
    """

    def __init__(self, work: Computation, inner: Any, kind: str, returns: str) -> None:
        self._work = work
        self._returns = returns
        self._inner = inner
        self._kind = kind
        self._lock = Lock()
        self._callers: list[Caller] = []
        self._outcome: Outcome | None = None

    def start(self, alone: Callable[[], Any]) -> Any:
        """Watch the function's own future, and return that of the first caller."""
        first = self.join(alone)
        flights.defer(self._work.flight, self)
        self._inner.add_done_callback(self._finish)
        return first

    def join(self, alone: Callable[[], Any]) -> Any:
        """Return a future for one more caller.

        Args:
            alone: what computes for this caller only, if there is nothing to share.
        """
        caller = Caller(self._new_future(), alone)
        with self._lock:
            outcome = self._outcome
            if outcome is None:
                self._callers.append(caller)
        if outcome is None:
            caller.future.add_done_callback(self._leave)
        else:
            self._share(caller, outcome)
        return caller.future

    def _new_future(self) -> Any:
        try:
            return _new_future(self._kind)
        except RuntimeError:  # no event loop runs here
            return self._inner.get_loop().create_future()

    def _leave(self, future: Any) -> None:
        if not future.cancelled():
            return
        with self._lock:
            self._callers = [caller for caller in self._callers if caller.future is not future]
            is_last = not self._callers and self._outcome is None
        if is_last and self._kind == ASYNCIO:
            _in_loop(self._inner.get_loop(), self._inner.cancel)
        elif is_last:
            self._inner.cancel()

    def _finish(self, inner: Any) -> None:
        outcome = self._store(inner)
        with self._lock:
            self._outcome = outcome
            callers, self._callers = self._callers, []
        for index, caller in enumerate(callers):
            if index:
                self._share(caller, outcome)
            else:
                self._settle(caller.future, outcome)

    def _share(self, caller: Caller, outcome: Outcome) -> None:
        """Settle the future of a caller who must not have the very result."""
        if outcome.result is MISSING:
            self._settle(caller.future, outcome)
            return
        try:
            result = self._work.invocation.share(self._work.flight)
        except Exception as error:  # noqa: BLE001 (a cache that is strict; the caller hears it)
            self._settle(caller.future, Outcome(error=error))
            return
        if result is not MISSING:
            self._settle(caller.future, Outcome(result))
        elif self._kind == ASYNCIO:
            _in_loop(caller.future.get_loop(), partial(caller.context.run, self._compute, caller))
        else:  # not here: the function might wait for the very thread that calls back
            run = partial(caller.context.run, self._compute, caller)
            Thread(target=run, name="fleche-alone").start()

    def _compute(self, caller: Caller) -> None:
        """Compute for one caller only."""
        try:
            result = caller.alone()
        except BaseException as error:  # noqa: BLE001 (it is told to the caller)
            self._settle(caller.future, Outcome(error=error))
            return
        if kind_of(result):
            result.add_done_callback(lambda inner: self._settle(caller.future, outcome_of(inner)))
        else:
            self._settle(caller.future, Outcome(result))

    def _received(self, inner: Any) -> Outcome:
        return outcome_of(inner)

    def _store(self, inner: Any) -> Outcome:
        outcome = self._received(inner)
        if outcome.result is not MISSING:
            try:
                return Outcome(self._work.succeed(outcome.result, self._returns))
            except Exception as failure:  # noqa: BLE001 (warnings may be errors; the callers hear it)
                outcome = Outcome(error=failure)
        self._work.fail(outcome.error or RuntimeError("cancelled"))
        return outcome

    def _settle(self, future: Any, outcome: Outcome) -> None:
        if self._kind == ASYNCIO:
            _in_loop(future.get_loop(), lambda: outcome.tell(future))
        elif outcome.cancelled:
            future.cancel()
            future.set_running_or_notify_cancel()
        elif future.set_running_or_notify_cancel():
            outcome.tell(future)


@dataclass(frozen=True)
class Outcome:
    """How a future ended."""

    result: Any = MISSING
    error: BaseException | None = None
    cancelled: bool = False

    def tell(self, future: Any) -> None:
        """End another future in the same way, unless it has been cancelled."""
        if future.done():
            return
        if self.cancelled:
            future.cancel()
        elif self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.result)


def outcome_of(future: Any) -> Outcome:
    """Return how a future that is done has ended."""
    if future.cancelled():
        return Outcome(cancelled=True)
    error = future.exception()
    return Outcome(future.result()) if error is None else Outcome(error=error)


def _in_loop(loop: Any, callback: Callable[[], object]) -> None:
    asyncio = sys.modules["asyncio"]
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 (as documented for event loops)
        callback()
        return
    with suppress(RuntimeError):  # the loop of a caller who is gone
        loop.call_soon_threadsafe(callback)
