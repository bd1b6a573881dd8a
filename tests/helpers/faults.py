"""A channel that cuts, garbles or stalls its stream at a given byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal

from fleche.parcel import Buffer
from fleche.remote import Channel

__all__ = ["Fault", "FaultyChannel"]


@dataclass(frozen=True)
class Fault:
    """What happens to byte `offset` of what the client sends ("up") or receives ("down").

    "cut": the connection breaks before it. "garble": its bits are flipped by `mask`. "stall": it
    and all that follows never arrive, and nothing says so.
    """

    direction: Literal["up", "down"]
    action: Literal["cut", "garble", "stall"]
    offset: int
    mask: int = 0x01


class FaultyChannel(Channel):
    """The channel `inner`, with a fault that a test arms; offsets count from then."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.name = inner.name
        self.local = inner.local
        self.fault: Fault | None = None
        self.passed = {"up": 0, "down": 0}
        self.struck = False
        self._closed = Event()

    def arm(self, fault: Fault | None) -> None:
        """Count from here, and let `fault` happen."""
        self.passed = {"up": 0, "down": 0}
        self.struck = False
        self.fault = fault

    def open(self) -> tuple[Any, Any]:
        self._closed.clear()
        reader, writer = self.inner.open()
        return _Reader(self, reader), _Writer(self, writer)

    def close(self, grace: float = 2.0) -> None:
        self._closed.set()
        self.inner.close(grace)

    def diagnose(self) -> str:
        return self.inner.diagnose()

    def forget(self) -> None:
        self.inner.forget()

    def break_off(self) -> None:
        """End the connection at once."""
        self.inner.close(0)

    def wait_closed(self) -> None:
        """Wait, as who waits for bytes that never come."""
        self._closed.wait()

    def before(self, direction: str, size: int) -> int | None:
        """Return where in the next `size` bytes the fault strikes, if it does."""
        fault = self.fault
        if fault is None or fault.direction != direction:
            return None
        at = fault.offset - self.passed[direction]
        return at if at < size else None


class _Writer:
    def __init__(self, channel: FaultyChannel, stream: Any) -> None:
        self._channel, self._stream = channel, stream

    def write(self, data: Buffer, /) -> int | None:
        channel, view = self._channel, memoryview(data)
        at = channel.before("up", len(view))
        if at is None:
            return self._pass(view)
        return _STRIKES[channel.fault.action](self, view, max(at, 0))  # type: ignore[union-attr]

    def _pass(self, view: memoryview) -> int:
        self._channel.passed["up"] += len(view)  # first: the answer may come before we go on
        done = 0
        while done < len(view):
            done += self._stream.write(view[done:])
        return len(view)

    def cut(self, view: memoryview, at: int) -> int:
        self._channel.struck = True
        self._pass(view[:at])
        self._stream.close()
        self._channel.break_off()
        raise BrokenPipeError("cut")

    def garble(self, view: memoryview, at: int) -> int:
        fault, damaged = self._channel.fault, bytearray(view)
        if fault is not None and self._channel.passed["up"] <= fault.offset:
            self._channel.struck = True
            damaged[at] ^= fault.mask
        return self._pass(memoryview(damaged))

    def stall(self, view: memoryview, at: int) -> int:
        fault = self._channel.fault
        assert fault is not None
        if self._channel.passed["up"] <= fault.offset:
            self._channel.struck = True
            self._pass(view[:at])
            self._channel.passed["up"] = fault.offset + 1
        return len(view)

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def close(self) -> None:
        self._stream.close()


_STRIKES: dict[str, Callable[[_Writer, memoryview, int], int]] = {
    "cut": _Writer.cut,
    "garble": _Writer.garble,
    "stall": _Writer.stall,
}


class _Reader:
    def __init__(self, channel: FaultyChannel, stream: Any) -> None:
        self._channel, self._stream = channel, stream
        self._pending = bytearray()

    def readinto(self, buffer: memoryview, /) -> int | None:
        channel = self._channel
        if not self._pending:
            self._pending = bytearray(1 << 16)
            del self._pending[self._stream.readinto(memoryview(self._pending)) or 0 :]
        count = min(len(buffer), len(self._pending))
        fault, at = channel.fault, channel.before("down", count)
        if fault is not None and at is not None:
            if fault.action != "garble":
                if at <= 0:
                    return self._stop(fault)
                count = at
            elif at >= 0:
                channel.struck = True
                self._pending[at] ^= fault.mask
        buffer[:count] = self._pending[:count]
        del self._pending[:count]
        channel.passed["down"] += count
        return count

    def _stop(self, fault: Fault) -> int:
        self._channel.struck = True
        if fault.action == "stall":
            self._channel.wait_closed()
        else:
            self._channel.break_off()
        return 0

    def close(self) -> None:
        self._stream.close()
