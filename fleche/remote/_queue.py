"""What is to be written to a connection, and what of it comes next.

Signs of life and credits come first, then requests, then the bulk of values, one frame of each
stream in turn. To take a frame numbers its stream, and charges its windows.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from fleche.remote._frames import Flag, Frame, encode_frame
from fleche.remote._protocol import Protocol
from fleche.remote._streams import Piece, Stream

__all__ = ["GATHER", "SendQueue"]

GATHER = 1 << 16
"""Bytes up to which small frames are written together."""


class SendQueue:
    """What is to be written, in order of urgency. All methods are called with the lock held."""

    def __init__(self, protocol: Protocol, streams: dict[int, Stream]) -> None:
        self._protocol = protocol
        self._streams = streams
        self.controls: deque[bytes] = deque()
        self.openings: deque[Stream] = deque()
        self._opening: Stream | None = None
        self._senders: deque[Stream] = deque()

    def add(self, stream: Stream) -> None:
        """Take note that ``stream`` has something to send."""
        if stream not in self._senders:
            self._senders.append(stream)

    def discard(self, stream: Stream) -> None:
        """Send nothing of ``stream``."""
        if self._opening is stream:
            self._opening = None
        for queue in (self.openings, self._senders):
            if stream in queue:
                queue.remove(stream)

    def clear(self) -> None:
        """Send nothing."""
        self.controls.clear()
        self.openings.clear()
        self._senders.clear()
        self._opening = None

    def waiting(self) -> list[Stream]:
        """Return the streams for which a thread may wait."""
        return [*self._streams.values(), *self.openings, *self._senders]

    def take(self) -> bytes:
        """Return the bytes to write next, several small frames together; empty: none, for now."""
        found: list[bytes] = []
        size = 0
        while size < GATHER and (data := self._next()):
            found.append(data)
            size += len(data)
        return b"".join(found) if len(found) != 1 else found[0]

    def _next(self) -> bytes:
        if self.controls:
            return self.controls.popleft()
        if self._protocol.due and (credits := self._protocol.credits_due()):
            return b"".join(map(encode_frame, credits))
        frame = self._next_of_a_request() if self._opening or self.openings else None
        if frame is None and self._senders:
            frame = self._next_of_the_bulk()
        return b"" if frame is None else encode_frame(frame)

    def _next_of_a_request(self) -> Frame | None:
        """Return the next frame of the one request that has begun, or begin one."""
        while (stream := self._opening or self._begin_one()) is not None:
            if not self._is_open(stream):
                self._opening = None
                stream.wake()
                continue
            try:
                piece = stream.outgoing.popleft()
            except IndexError:  # garbage was collected, and it was cancelled just now
                self._opening = None
                continue
            if not piece.flags & Flag.MORE:
                self._opening = None
                if stream.outgoing:
                    self.add(stream)
            return self._sent(stream, piece)
        return None

    def _begin_one(self) -> Stream | None:
        if not self.openings or not self._protocol.may_open:
            return None
        stream = self._opening = self.openings.popleft()
        stream.stream_id = self._protocol.open()
        self._streams[stream.stream_id] = stream
        return stream

    def _next_of_the_bulk(self) -> Frame | None:
        for stream in list(self._senders):
            with suppress(ValueError):  # garbage was collected, and it was cancelled just now
                self._senders.remove(stream)
            if not stream.outgoing or not self._is_open(stream):
                stream.wake()
            elif stream is self._opening or not stream.stream_id or not self.may_go(stream):
                self._senders.append(stream)
            else:
                piece = stream.outgoing.popleft()
                if stream.outgoing:
                    self._senders.append(stream)
                return self._sent(stream, piece)
        return None

    def may_go(self, stream: Stream) -> bool:
        """Return whether the next piece of ``stream`` may be sent now."""
        return self._is_open(stream) and self._protocol.may_send(
            stream.stream_id, bare_end=stream.outgoing[0].bare_end, ahead=stream.ahead
        )

    def _is_open(self, stream: Stream) -> bool:
        return self._protocol.state(stream.stream_id) is not None

    def _sent(self, stream: Stream, piece: Piece) -> Frame:
        frame = self._protocol.send(
            stream.stream_id, piece.kind, piece.payload, piece.flags, piece.size
        )
        if self._protocol.side == "client":
            stream.wake_sender()  # there is nothing yet for one that waits for the answer
            return frame
        if frame.end:
            self._streams.pop(stream.stream_id, None)
        stream.wake()
        return frame
