"""What a channel is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fleche.remote.streams import ByteReader, ByteWriter

__all__ = ["Channel"]


class Channel(ABC):
    """One connection at a time to one server.

    Attributes:
        name: for messages, such as ``"ssh marvin@bigpc"``.
        local: whether the bytes stay on this machine.
    """

    name: str
    local: bool = True

    @abstractmethod
    def open(self) -> tuple[ByteReader, ByteWriter]:
        """Connect and return the two streams, which belong to the caller, who closes them.

        It does not wait for the server: whoever calls does that, who can be told to stop.

        Raises:
            RemoteConnectionError: it cannot be started.
        """

    @abstractmethod
    def close(self, grace: float = 2.0) -> None:
        """End the connection; bounded and idempotent. Afterwards it can be opened again.

        Args:
            grace: seconds that the server is given to end by itself after its input was closed;
                after that it is made to end.
        """

    @abstractmethod
    def diagnose(self) -> str:
        """Say what is known of why the connection ended, such as an exit status; may be empty."""

    def forget(self) -> None:  # noqa: B027 (most channels have nothing to forget)
        """In a forked child: drop the copies of what is the parent's. It can be opened again."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
