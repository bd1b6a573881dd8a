"""A channel that lets a test see every byte, and every request, that passes."""

from __future__ import annotations

from threading import Lock
from typing import Any

from fleche.parcel import Buffer
from fleche.remote import Channel
from fleche.remote._frames import Flag, Frame, FrameDecoder, Kind
from fleche.remote._messages import Request, decode_request

__all__ = ["TappedChannel"]


class _Tap:
    def __init__(self, stream: Any, passed: bytearray) -> None:
        self._stream, self._passed = stream, passed

    def readinto(self, buffer: memoryview, /) -> int | None:
        count: int | None = self._stream.readinto(buffer)
        self._passed += buffer[: count or 0]
        return count

    def write(self, data: Buffer, /) -> int | None:
        self._passed += data  # first, for the answer may come before write() returns
        count: int = self._stream.write(data) or 0
        if count < len(data):
            del self._passed[count - len(data) :]
        return count

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class TappedChannel(Channel):
    """The channel `inner`, overheard. `opened` counts how often it was opened."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.name = inner.name
        self.local = inner.local
        self.opened = 0
        self._lock = Lock()
        self._sent = bytearray()
        self._received = bytearray()

    def open(self) -> tuple[Any, Any]:
        reader, writer = self.inner.open()
        self.opened += 1
        self.clear()
        return _Tap(reader, self._received), _Tap(writer, self._sent)

    def close(self, grace: float = 2.0) -> None:
        self.inner.close(grace)

    def diagnose(self) -> str:
        return self.inner.diagnose()

    def forget(self) -> None:
        self.inner.forget()

    def clear(self) -> None:
        """Forget what has passed."""
        self._sent.clear()
        self._received.clear()

    def clear_sent(self) -> None:
        """Count from here what the client sends."""
        self._sent.clear()

    @property
    def sent_bytes(self) -> int:
        """How many bytes the client has sent."""
        return len(self._sent)

    @property
    def received_bytes(self) -> int:
        """How many bytes the server has sent."""
        return len(self._received)

    @property
    def sent(self) -> bytes:
        """What the client has sent since it connected."""
        return bytes(self._sent)

    @property
    def received(self) -> bytes:
        """What the server has sent since the client connected."""
        return bytes(self._received)

    def sent_frames(self) -> list[Frame]:
        """Return the frames that the client has sent."""
        _, _, frames = self.sent.partition(b"\n")
        return FrameDecoder().feed(frames)

    def requests(self) -> list[Request]:
        """Return the requests that the client has sent."""
        begun: dict[int, bytes] = {}
        found = []
        for frame in self.sent_frames():
            if frame.kind is Kind.MESSAGE:
                begun[frame.stream_id] = begun.get(frame.stream_id, b"") + frame.payload
                if not frame.flags & Flag.MORE:
                    found.append(decode_request(begun[frame.stream_id]))
        return found
