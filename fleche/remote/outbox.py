"""What waits to be written, in order of urgency."""

from __future__ import annotations

from collections import deque
from threading import Condition, RLock

from fleche.remote.streams import ByteWriter

__all__ = ["Outbox"]

FULL = 4
URGENT = 4096
GATHER = 1 << 16


class Outbox:
    """Frames on their way to the one thread that writes.

    Requests, credits and the like are urgent, and go before the bulk of values. Small frames are
    written together. All methods but :meth:`take` and :meth:`write_to` are called with the lock
    held.

    Attributes:
        room: notified when there may be room again.
    """

    def __init__(self, lock: RLock) -> None:
        """Guard everything by ``lock``."""
        self._lock = lock
        self.room = Condition(lock)
        self._work = Condition(lock)
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether there is so much bulk that who has more should wait."""
        return len(self._bulk) >= FULL

    def add(self, frame: bytes, *, urgent: bool = False) -> None:
        """Queue a frame."""
        (self._urgent if urgent else self._bulk).append(frame)
        self._work.notify_all()

    def add_if_room(self, frame: bytes) -> None:
        """Queue an urgent frame that nobody must have, such as the answer to a PING.

        So whoever asks more than it reads of the answers takes no memory here.
        """
        if len(self._urgent) < URGENT:
            self.add(frame, urgent=True)

    def close(self) -> None:
        """Write what is queued, then end."""
        self._closed = True
        self._work.notify_all()

    def discard(self) -> None:
        """Write nothing more; whoever waits for room goes on."""
        self._urgent.clear()
        self._bulk.clear()
        self.close()
        self.room.notify_all()

    def take(self) -> bytes | None:
        """Wait for something to write and return it; ``None`` when there will be nothing more."""
        with self._lock:
            while not (self._urgent or self._bulk):
                if self._closed:
                    return None
                self._work.wait()
            self.room.notify_all()
            return self._gather()

    def write_to(self, writer: ByteWriter) -> None:
        """Write everything, as it comes, until the outbox is closed; raises what ``writer`` does.

        Raises:
            BlockingIOError: it does not wait until it can take more.
        """
        while (data := self.take()) is not None:
            view = memoryview(data)
            while view:
                if not (count := writer.write(view)):
                    raise BlockingIOError("the stream is full, and does not wait")
                view = view[count:]
            writer.flush()

    def _gather(self) -> bytes:
        found: list[bytes] = []
        size = 0
        for queue in (self._urgent, self._bulk):
            while queue and (not found or size + len(queue[0]) <= GATHER):
                found.append(queue.popleft())
                size += len(found[-1])
        return b"".join(found) if len(found) > 1 else found[0]
