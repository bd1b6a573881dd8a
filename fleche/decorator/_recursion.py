"""Room on the stack for what this package adds to a recursion, so that it gets as deep as ever."""

from __future__ import annotations

import sys
from contextlib import suppress
from threading import RLock, get_ident

from fleche._util import renewed_after_fork

__all__ = ["stack_room"]


class StackRoom:
    """The limit of the interpreter, raised while calls are nested.

    Each nested call has one Python frame of the package, and up to Python 3.11 the interpreter
    counts the step from C to that frame as another. The limit is raised by as much, and set back
    afterwards. A limit that a program has set far above the default is left alone: it is beyond
    what the C stack is known to bear.
    """

    STEP = 16
    """Every so many levels the limit is looked at."""

    EACH = 1 if sys.version_info >= (3, 12) else 2
    """What the package adds to a level."""

    LARGEST = 5000

    def __init__(self) -> None:
        self._lock = renewed_after_fork(RLock())
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
