"""Computations under way in this process, so that identical calls at the same time compute once.

A *flight* is one computation; who asks for the same result meanwhile waits for it. A flight whose
body waits for another flight, directly or through calls inside calls, never waits in a circle:
before a wait, the flights that would be waited for are followed, and where they lead back to one
that the caller is inside of, the caller computes for itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar, Token
from enum import Enum
from operator import attrgetter
from threading import Event, Lock, get_ident
from typing import Any

from fleche._util import renewed_after_fork
from fleche.call import MISSING

__all__ = ["Flight", "Role", "SingleFlight", "flights", "inside", "note_child", "stack_room"]

MANY = 1024

inside: ContextVar[tuple[Flight, ...]] = ContextVar("fleche.inside", default=())
"""The flights whose bodies run the current code, the innermost last."""


def note_child(key: str) -> None:
    """Note that the body which runs the current code, if one does, has made a call."""
    around = inside.get()
    if around:
        around[-1].children[key] = None


class StackRoom:
    """Room on the stack for what this package adds to it, so that a recursion gets as deep as ever.

    Each nested call has one Python frame of the package, and up to Python 3.11 the interpreter
    counts the step from C to that frame as another. The limit of the interpreter is raised by as
    much while calls are nested, and set back afterwards. A limit that a program has set far above
    the default is left alone: it is beyond what the C stack is known to bear.
    """

    STEP = 16
    """Every so many levels the limit is looked at."""

    EACH = 1 if sys.version_info >= (3, 12) else 2
    """What the package adds to a level."""

    LARGEST = 5000

    def __init__(self) -> None:
        self._lock = renewed_after_fork(Lock())
        self._deep: set[int] = set()  # the threads that need it
        self._own = 0
        self._raised = 0

    def enter(self, depth: int) -> None:
        """Make room for some levels more, if ``depth`` calls are nested in this thread."""
        if not depth or depth % self.STEP:
            return
        with self._lock:
            limit = sys.getrecursionlimit()
            if limit != self._raised:
                self._own = limit
            wanted = self._own + self.EACH * (depth + 3 * self.STEP)
            if self._own <= self.LARGEST:
                self._deep.add(get_ident())
                if wanted > limit:
                    sys.setrecursionlimit(wanted)
                    self._raised = wanted

    def leave(self, depth: int) -> None:
        """Set the limit back where ``depth`` shows that no thread needs the room any more."""
        if depth or not self._deep:
            return
        with self._lock:
            self._deep.discard(get_ident())
            if not self._deep and sys.getrecursionlimit() == self._raised:
                # refused by the interpreter where a program itself is that deep
                with suppress(RecursionError):
                    sys.setrecursionlimit(self._own)


stack_room = StackRoom()


class Role(Enum):
    """What a caller is to do about a result that is not stored."""

    COMPUTE = "be the one who computes"
    WAIT = "wait for the one who does"
    ALONE = "compute without the others: waiting would never end"
    AGAIN = "look again: it has been computed since"


class Flight:
    """One computation.

    It is *settled* as soon as nobody has to wait for its body any more: it has landed, or its
    result is a future (see :attr:`deferred`).

    Attributes:
        result: what it returned, for the caller who began it; ``MISSING`` until it has landed, and
            for good if it failed.
        spare: a copy of that for the others, who get copies in turn, if they need one.
        joined: whether there have ever been others.
        landed: whether it is over.
        deferred: what a later caller joins where the body returned a future.
        error: what ended it, if it failed.
        waits: the flights that its body waits for.
        waiters: how many callers want its result.
        thread: the thread that began it.
        task: the asyncio task that runs its body, if one does.
        cancelled: whether that task was told to stop.
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
        self.deferred: Any = None
        self.error: BaseException | None = None
        self.waiters = 1
        self.thread = get_ident()
        self.task: Any = None
        self.cancelled = False
        self.waits: set[Flight] = set()
        self.callbacks: list[Callable[[], None]] = []
        self.children: dict[str, None] = {}
        self.drew = False

    def enter(self) -> Token[tuple[Flight, ...]]:
        """Let what runs from now on be the body of this flight; return the way back."""
        return inside.set((*inside.get(), self))

    def is_stuck(self) -> bool:
        """Tell whether its body will never end, so that nobody should wait for it.

        An interrupt may hit this very thread between the beginning of a flight and its body, and an
        event loop may be closed before its tasks have ended.
        """
        if self.task is not None:
            return bool(self.task.get_loop().is_closed())
        return self.deferred is None and self.thread == get_ident()

    def wait(self) -> None:
        """Block until it is settled."""
        event = Event()
        flights.when_settled(self, event.set)
        event.wait()


_THREAD = attrgetter("thread")


class SingleFlight:
    """The flights of this process."""

    def __init__(self) -> None:
        self.clock = 0
        self._lock = Lock()
        self._active: dict[Hashable, Flight] = {}
        self._landings: dict[Hashable, int] = {}
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
            elif around and _leads_to(flight, around):
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

    def leave(self, flight: Flight) -> bool:
        """Wait for it no more; return whether nobody is left who does."""
        around = inside.get()
        with self._lock:
            if around:
                around[-1].waits.discard(flight)
            flight.waiters -= 1
            return flight.waiters == 0

    def defer(self, flight: Flight, deferred: Any) -> None:
        """Let the flight go on after its body, which has returned a future."""
        with self._lock:
            flight.deferred = deferred
            callbacks = self._settle(flight)
        _call(callbacks)

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
            flight.landed = True
            flight.result, flight.error, flight.spare = result, error, spare
            callbacks = self._settle(flight)
            if self._active.get(flight.slot) is flight:
                del self._active[flight.slot]
                self.clock += 1
                if len(self._landings) >= MANY:
                    self._landings.clear()
                    self._horizon = self.clock
                self._landings[flight.slot] = self.clock
        if callbacks:
            _call(callbacks)

    def _settle(self, flight: Flight) -> list[Callable[[], None]]:
        if flight.parent is not None:
            flight.parent.waits.discard(flight)
        flight.waits.clear()
        callbacks, flight.callbacks = flight.callbacks, []
        return callbacks

    def when_settled(self, flight: Flight, callback: Callable[[], None]) -> None:
        """Call ``callback`` once nobody has to wait for the body of the flight any more."""
        with self._lock:
            if not flight.landed and flight.deferred is None:
                flight.callbacks.append(callback)
                return
        callback()


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


def _call(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()


flights = SingleFlight()
os.register_at_fork(after_in_child=flights.__init__)  # type: ignore[misc]
