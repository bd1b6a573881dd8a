"""Turns: of the threads of a process, one at a time looks stored results up.

The interpreter runs one thread at a time, and may go on with another at each call of the system. A
look-up makes several, none of which takes long. Where several threads look something up, they
change over at most of these, and that takes longer than the look-ups themselves. So a thread
takes its turn first, and leaves it when it has its result, or before it does what may take long
without the interpreter: reads or hashes much, asks another machine, runs the function.

To wake a thread takes almost as long as a look-up. So a thread that comes again has the turn again,
until its time slice is over; then it hands the turn to the one that has waited longest.

Turns order, and guard nothing. Where one takes long after all, as from a disk that has to be waited
for, the others go on without, and there are none for a while.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Sized
from threading import Event, RLock, get_ident
from time import perf_counter

__all__ = ["INTERPRETER_LOCKS", "THREADS", "leave", "take"]

INTERPRETER_LOCKS: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads wait for the interpreter; where they do not, turns would only hold them up."""

THREADS: Sized = getattr(threading, "_active", (None, None))
"""The threads of this process: the only one needs no turn."""

_SLICE = 0.001
"""Seconds for which a thread may have the turn again and again while others wait."""

_LONG = 0.001
"""Seconds; most turns take a tenth of that, unless there is something to wait for."""

_PAUSE = 10
"""How many times as long as a long turn there are none after it."""

_PATIENCE = 0.02
"""Seconds after which one that has the turn is waited for no longer."""


class _Turns:
    """Who has the turn, since when, and who waits for it."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Let no thread have it, as in a forked child, where those that wait do not exist."""
        # Through an RLock goes a signal handler, or a finalizer, that looks something up. Whatever
        # it comes between, at worst a thread waits in vain, and not for long.
        self.lock = RLock()
        self.owner = 0
        self.taken = self.handed = self.paused = 0.0
        self.waiting: deque[tuple[int, Event]] = deque()


_turns = _Turns()
os.register_at_fork(after_in_child=_turns.begin)


def take() -> None:
    """Wait for the turn, if there are turns now; a thread that has it already goes on at once."""
    turns, here, now = _turns, get_ident(), perf_counter()
    if now < turns.paused:
        return
    with turns.lock:
        if turns.owner in (0, here):
            turns.owner, turns.taken = here, now
            return
        handed = Event()
        waiter = here, handed
        turns.waiting.append(waiter)
        place = len(turns.waiting)
    try:
        while not handed.wait(_SLICE * place):
            with turns.lock:
                if waiter not in turns.waiting:
                    return  # it has come, and may have been taken away again
                now = perf_counter()
                if not turns.owner or now - turns.taken > _PATIENCE:
                    if turns.owner:
                        turns.paused = now + _PAUSE * _PATIENCE
                    turns.waiting.remove(waiter)
                    turns.owner = here
                    turns.taken = turns.handed = now
                    return
                place = turns.waiting.index(waiter) + 1
        turns.taken = perf_counter()
    except BaseException:
        with turns.lock:
            if waiter in turns.waiting:
                turns.waiting.remove(waiter)
        leave()
        raise


def leave() -> None:
    """Give the turn up. Idempotent; nothing if it is not this thread's."""
    turns, here = _turns, get_ident()
    if turns.owner != here:
        return
    with turns.lock:
        if turns.owner != here:
            return
        turns.owner, now = 0, perf_counter()
        took = now - turns.taken
        if took > _LONG:
            turns.paused = now + _PAUSE * took
        if turns.waiting and now - turns.handed > _SLICE:
            turns.owner, handed = turns.waiting.popleft()
            turns.taken = turns.handed = now
            handed.set()
