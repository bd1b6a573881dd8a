"""What comes from the other side: the greeting, then frames."""

from __future__ import annotations

from fleche.remote.frames import Allocate, Frame, FrameDecoder
from fleche.remote.greeting import ClientGreeting
from fleche.remote.streams import ByteReader

__all__ = ["Inbox"]


class Inbox:
    """Frames, as bytes for them come. It keeps nothing of a frame that it has given away."""

    def __init__(
        self,
        reader: ByteReader,
        *,
        greeting: ClientGreeting | None = None,
        leftover: bytes = b"",
        allocate: Allocate | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            reader: where bytes come from.
            greeting: what is to be answered before frames come.
            leftover: bytes of frames that were read already.
            allocate: see :class:`FrameDecoder`.
        """
        self._reader = reader
        self._greeting = greeting
        self._leftover = leftover
        self._decoder = FrameDecoder(allocate)

    @property
    def idle(self) -> bool:
        """Whether no frame has come in part."""
        return self._decoder.idle

    def read(self) -> list[Frame] | None:
        """Wait for bytes and return the frames that they complete; ``None`` after the last byte.

        Raises:
            ProtocolError: they are no frames, or no greeting.
            BlockingIOError: the reader does not wait for them.
            OSError, ValueError: it fails.
        """
        if self._leftover:
            leftover, self._leftover = self._leftover, b""
            return self._decoder.feed(leftover)
        view = self._decoder.buffer()
        count = self._reader.readinto(view)
        if count is None:
            raise BlockingIOError("the stream is empty, and does not wait")
        return self._received(view[:count]) if count else None

    def _received(self, seen: memoryview) -> list[Frame]:
        if self._greeting is None or self._greeting.hello is not None:
            return self._decoder.received(len(seen))
        leftover = self._greeting.feed(seen)
        return [] if leftover is None else self._decoder.feed(leftover)
