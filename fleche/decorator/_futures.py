"""Functions that return futures: the result is stored when it is there.

Every caller gets a future of his own, of the same kind, which is done when the result has been
stored. Only when all of them are cancelled, the function's own future is cancelled too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from fleche.call import MISSING, LazyCall
from fleche.decorator._flights import flights

if TYPE_CHECKING:
    from fleche.decorator._journey import Work

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
    kind = hit.metadata.get("fleche", {}).get("returns", "")
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
    """

    def __init__(self, work: Work, inner: Any, kind: str, returns: str) -> None:
        self._work = work
        self._returns = returns
        self._inner = inner
        self._kind = kind
        self._lock = Lock()
        self._outer: list[Any] = []
        self._outcome: Outcome | None = None

    def start(self) -> Any:
        """Watch the function's own future, and return that of the first caller."""
        first = self.join()
        flights.defer(self._work.flight, self)
        self._inner.add_done_callback(self._finish)
        return first

    def join(self) -> Any:
        """Return a future for one more caller."""
        future = self._new_future()
        with self._lock:
            outcome = self._outcome
            if outcome is None:
                self._outer.append(future)
        if outcome is None:
            future.add_done_callback(self._leave)
        else:
            self._settle(future, outcome.again(self._work))
        return future

    def _new_future(self) -> Any:
        try:
            return _new_future(self._kind)
        except RuntimeError:  # no event loop runs here
            return self._inner.get_loop().create_future()

    def _leave(self, future: Any) -> None:
        if not future.cancelled():
            return
        with self._lock:
            self._outer = [other for other in self._outer if other is not future]
            alone = not self._outer and self._outcome is None
        if alone and self._kind == ASYNCIO:
            _in_loop(self._inner.get_loop(), self._inner.cancel)
        elif alone:
            self._inner.cancel()

    def _finish(self, inner: Any) -> None:
        outcome = self._store(inner)
        with self._lock:
            self._outcome = outcome
            waiting, self._outer = self._outer, []
        for index, future in enumerate(waiting):
            self._settle(future, outcome.again(self._work) if index else outcome)

    def _store(self, inner: Any) -> Outcome:
        if inner.cancelled():
            self._work.fail(RuntimeError("cancelled"))
            return Outcome(cancelled=True)
        error = inner.exception()
        if error is None:
            try:
                return Outcome(self._work.succeed(inner.result(), self._returns))
            except Exception as failure:  # noqa: BLE001 (warnings may be errors; the callers hear it)
                error = failure
        self._work.fail(error)
        return Outcome(error=error)

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

    def again(self, work: Work) -> Outcome:
        """Return the same with a result that shares nothing with this one, if it can be copied."""
        copied = MISSING if self.result is MISSING else work.journey.copy(self.result)
        return self if copied is MISSING else Outcome(copied)

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


def _in_loop(loop: Any, callback: Callable[[], object]) -> None:
    asyncio = sys.modules["asyncio"]
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 (as documented for event loops)
        callback()
        return
    with suppress(RuntimeError):  # the loop of a caller who is gone
        loop.call_soon_threadsafe(callback)
