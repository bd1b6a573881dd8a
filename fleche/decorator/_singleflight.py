"""Computations under way in this process, so that identical calls at the same time compute once.

A *flight* is one computation; who asks for the same result meanwhile waits for it. A flight whose
body waits for another flight, directly or through calls inside calls, never waits in a circle:
before a wait, the flights that would be waited for are followed, and where they lead back to one
that the caller is inside of, the caller computes for itself. So does a caller that has the working
directory, for which any other body may wait.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from enum import Enum
from operator import attrgetter
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any

from fleche._util import is_held_here, renewed_after_fork, running_loop
from fleche.call import MISSING

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Flight",
    "Role",
    "SingleFlight",
    "flights",
    "in_loop",
    "inside",
    "loop_of",
    "note_child",
    "working_directory",
]

MANY = 1024
"""So many ended flights are remembered, the newest."""

working_directory = renewed_after_fork(RLock())
"""Held by a body while the working directory, of which a process has one, is its own."""

inside: ContextVar[tuple[Flight, ...]] = ContextVar("fleche.inside", default=())
"""The flights whose bodies run the current code, the innermost last."""


def note_child(key: str) -> None:
    """Note that the body which runs the current code, if one does, has made a call."""
    around = inside.get()
    if around:
        around[-1].children[key] = None


class Role(Enum):
    """What a caller is to do about a result that is not stored."""

    COMPUTE = "be the one who computes"
    WAIT = "wait for the one who does"
    ALONE = "compute without the others: waiting would never end"
    AGAIN = "look again: it has been computed since"


class Flight:
    """One computation.

    It is *settled* as soon as its body need not be waited for any more: it has landed, or its
    result is a future, in which it goes on (see :attr:`deferred`).

    Attributes:
        result: what it returned, for the caller who began it; ``MISSING`` until it has landed, and
            for good if it failed.
        spare: a copy of that for the others, who get copies in turn, if they need one.
        joined: whether there have ever been others.
        landed: whether it is over.
        running: what it goes on in beside the thread that began it, until it has landed: the
            asyncio task of its body, or the future that its body returned.
        deferred: what a later caller joins where the body returned a future.
        error: what ended it, if it failed and others are to get that.
        waits: the flights that its body waits for.
        waiters: how many callers want its result.
        settling: what :meth:`SingleFlight.settled` returns, if it has been asked.
        landing: what :meth:`SingleFlight.over` returns, likewise.
        thread: the thread that began it.
        cancelled: whether it was told to stop.
        children: the keys of the calls that its body has made, in order.
        drew: whether one of these calls is known to draw from the generator of a module.
    """

    def __init__(self, slot: Hashable = None, parent: Flight | None = None) -> None:
        self.slot = slot
        self.parent = parent
        self.result: Any = MISSING
        self.spare: Any = MISSING
        self.joined = False
        self.landed = False
        self.running: Any = None
        self.deferred: Any = None
        self.error: BaseException | None = None
        self.waiters = 1
        self.thread = get_ident()
        self.cancelled = False
        self.waits: set[Flight] = set()
        self.children: dict[str, None] = {}
        self.drew = False
        self.settling: Future[None] | None = None
        self.landing: Future[None] | None = None

    def is_stuck(self) -> bool:
        """Return whether it will bring nothing, so that there is nothing to wait for.

        An interrupt may hit this very thread between the beginning of a flight and its body, an
        event loop may be closed before its tasks have ended, and a future of one that all callers
        have left is cancelled for sure, if not at once.
        """
        if self.running is None:
            return self.thread == get_ident()
        loop = loop_of(self.running)
        is_left = self.cancelled and self.deferred is not None
        return loop is not None and (is_left or loop.is_closed())

    def cancel(self) -> None:
        """Stop what it goes on in. A body in a thread cannot be stopped."""
        self.cancelled = True
        running = self.running
        if running is not None:
            in_loop(loop_of(running), running.cancel)


def loop_of(running: Any) -> Any:
    """Return the event loop of a task or a future; ``None`` if it has none."""
    get_loop = getattr(running, "get_loop", None)
    return None if get_loop is None else get_loop()


def in_loop(loop: Any, callback: Callable[[], object]) -> None:
    """Run ``callback`` in the thread of an event loop, if that still runs; without one, here."""
    if loop is None or running_loop() is loop:
        callback()
        return
    with suppress(RuntimeError):  # the loop of a caller who is gone
        loop.call_soon_threadsafe(callback)


_THREAD = attrgetter("thread")


class SingleFlight:
    """The flights of this process."""

    def __init__(self) -> None:
        self.clock = 0
        self._lock = RLock()
        self._active: dict[Hashable, Flight] = {}
        self._landings: OrderedDict[Hashable, int] = OrderedDict()
        self._horizon = 0

    def join(self, slot: Hashable, since: int) -> tuple[Role, Flight]:
        """Take part in the flight of ``slot``, or begin it.

        Args:
            slot: the cache and the key.
            since: :attr:`clock` before the cache was last asked for the result.
        """
        around = inside.get()
        lost = self._active.get(slot)
        if lost is not None and lost not in around and lost.is_stuck():
            self.land(lost)
        with self._lock:
            flight = self._active.get(slot)
            if flight is None:
                if self._landings.get(slot, self._horizon) > since:
                    return Role.AGAIN, Flight()
                flight = self._active[slot] = Flight(slot, around[-1] if around else None)
                role = Role.COMPUTE
            elif (around and _leads_to(flight, around)) or _may_want_directory(flight):
                return Role.ALONE, Flight()
            else:
                role = Role.WAIT
                flight.waiters += 1
                flight.joined = True
            if around:
                around[-1].waits.add(flight)
            return role, flight

    def others_run(self) -> bool:
        """Whether another thread computes something at this moment."""
        mine = get_ident()
        threads = set(map(_THREAD, tuple(self._active.values())))
        threads.discard(mine)
        return bool(threads)

    def settled(self, flight: Flight) -> Future[None]:
        """Return what is done as soon as the body of a flight need not be waited for any more.

        It is made when the first caller asks for it: most flights are over before.
        """
        with self._lock:
            if flight.landed or flight.deferred is not None:
                return _done()
            flight.settling = flight.settling or _begun()
            return flight.settling

    def over(self, flight: Flight) -> Future[None]:
        """Return what is done as soon as a flight has landed."""
        with self._lock:
            if flight.landed:
                return _done()
            flight.landing = flight.landing or _begun()
            return flight.landing

    def wait(self, flight: Flight) -> None:
        """Block until a flight that the caller has joined is settled."""
        try:
            self.settled(flight).result()
        except BaseException:
            self.leave(flight)
            raise
        finally:
            self.go_on(flight)

    async def wait_async(self, flight: Flight) -> None:
        """Wait until the flight has landed.

        A caller that is cancelled meanwhile leaves the flight to the others. The last one to leave
        ends it, and waits until its body has cleaned up; what that then still returns is not
        stored.
        """
        import asyncio

        try:
            await asyncio.wrap_future(self.over(flight))
        except asyncio.CancelledError:
            running = flight.running
            if self.leave(flight) and running.get_loop() is asyncio.get_running_loop():
                await asyncio.wait({running})
            raise
        finally:
            self.go_on(flight)

    def go_on(self, flight: Flight) -> None:
        """Let the body that runs the current code, if one does, no longer wait for a flight."""
        around = inside.get()
        if around:
            around[-1].waits.discard(flight)

    def leave(self, flight: Flight) -> bool:
        """Let a caller give up the result of a flight; return whether that ended it.

        What the last one leaves is cancelled.
        """
        with self._lock:
            flight.waiters -= 1
            is_last = flight.waiters == 0 and not flight.landed
        if is_last:
            flight.cancel()
        return is_last

    def defer(self, flight: Flight, running: Any, deferred: Any) -> None:
        """Let a flight go on after its body, which has returned the future ``running``."""
        with self._lock:
            flight.running, flight.deferred = running, deferred
            self._settle(flight)
            settling, flight.settling = flight.settling, None
        if settling is not None:
            settling.set_result(None)

    def land(
        self,
        flight: Flight,
        result: Any = MISSING,
        error: BaseException | None = None,
        spare: Any = MISSING,
    ) -> None:
        """End a flight, with its result or without one. Idempotent."""
        with self._lock:
            if flight.landed:
                return
            flight.result, flight.error, flight.spare = result, error, spare
            flight.landed = True
            flight.running = None
            self._settle(flight)
            if self._active.get(flight.slot) is flight:
                del self._active[flight.slot]
                self.clock += 1
                self._landings.pop(flight.slot, None)
                self._landings[flight.slot] = self.clock
                if len(self._landings) > MANY:
                    self._horizon = self._landings.popitem(last=False)[1]
            waiting = flight.settling, flight.landing
            flight.settling = flight.landing = None
        for future in waiting:
            if future is not None:
                future.set_result(None)

    @staticmethod
    def _settle(flight: Flight) -> None:
        if flight.parent is not None:
            flight.parent.waits.discard(flight)
        flight.waits.clear()

    def forget(self) -> None:
        """Begin anew in a forked child: none of the threads that computed or waited is there."""
        for flight in self._active.values():
            flight.settling = flight.landing = None
        self.__init__()  # type: ignore[misc]


def _begun() -> Future[None]:
    """Return a future that several share: none of them can cancel it."""
    from concurrent.futures import Future

    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _done() -> Future[None]:
    future = _begun()
    future.set_result(None)
    return future


def _leads_to(flight: Flight, around: tuple[Flight, ...]) -> bool:
    pending, seen = [flight], {flight}
    while pending:
        step = pending.pop()
        if step in around:
            return True
        fresh = step.waits - seen
        seen |= fresh
        pending.extend(fresh)
    return False


def _may_want_directory(flight: Flight) -> bool:
    """Return whether the body of ``flight``, in another thread, may wait for what is held here."""
    return is_held_here(working_directory) and flight.thread != get_ident()


flights = SingleFlight()
os.register_at_fork(after_in_child=flights.forget)
