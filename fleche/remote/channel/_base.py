"""What a channel is, and the one that needs no process."""

from __future__ import annotations

import importlib
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import FileIO
from threading import Lock, Thread
from typing import TypeAlias

from fleche._util import check_type_name, override
from fleche.errors import ConfigError
from fleche.remote._streams import ByteReader, ByteWriter

__all__ = [
    "Channel",
    "PipeChannel",
    "Serve",
    "WakeableReader",
    "channel_class",
    "channel_names",
    "register_channel",
]


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

        It does not wait for the server: the caller does that, which can be told to stop.

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

    def overheard(self) -> str:
        """Return what the other side has said so far beside the stream; may be empty."""
        return ""

    def was_refused(self) -> bool:
        """Return whether the last connection ended before anything could be asked of a person.

        Then it is tried again by itself, a few times.
        """
        return False

    def forget(self) -> None:  # noqa: B027 (most channels have nothing to forget)
        """In a forked child: drop the copies of what is the parent's. It can be opened again."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class WakeableReader:
    """A readable stream over ``fd``, which another thread can bring to its end."""

    def __init__(self, fd: int, *, last_reads: int = 0) -> None:
        """Take ``fd`` over; it is closed with the stream.

        Args:
            fd: a descriptor that can be polled.
            last_reads: how often what is there is still read after :meth:`wake`; bounded, since
                the other side may never stop.
        """
        self._fd = fd
        self._last_reads = last_reads
        self._wake_read, self._wake_write = os.pipe()
        self._lock = Lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read some bytes into ``buffer`` and return their number; 0 at the end, or when woken."""
        ready = {fd for fd, _ in self._poll.poll()}
        if self._wake_read in ready:
            if not self._last_reads or self._fd not in ready:
                return 0
            self._last_reads -= 1
        return os.readv(self._fd, [buffer])

    def wake(self) -> None:
        """Make reads return the end, after the last reads."""
        with self._lock:
            if self._wake_write >= 0:
                os.close(self._wake_write)
                self._wake_write = -1

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self.wake()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                os.close(self._wake_read)
                self._fd = -1


Serve: TypeAlias = Callable[[ByteReader, ByteWriter], None]


class PipeChannel(Channel):
    """A server in a thread of this process, over two pipes: the whole protocol, and no process."""

    def __init__(self, serve: Serve, name: str = "pipe") -> None:
        """Serve with ``serve(input_stream, output_stream)``, in a thread for each connection."""
        self.name = name
        self._serve = serve
        self._thread: Thread | None = None
        self._ends: tuple[WakeableReader, FileIO] | None = None
        self._error: BaseException | None = None

    @override
    def open(self) -> tuple[ByteReader, ByteWriter]:
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        self._error = None
        self._ends = WakeableReader(down_read), FileIO(up_write, "wb")
        self._thread = Thread(
            target=self._run, args=self._ends, name=f"fleche {self.name} server", daemon=True
        )
        self._thread.start()
        return FileIO(up_read, "rb"), FileIO(down_write, "wb")

    def _run(self, reader: ByteReader, writer: ByteWriter) -> None:
        try:
            self._serve(reader, writer)
        except Exception as error:  # noqa: BLE001 (it is reported by diagnose)
            self._error = error
        finally:
            reader.close()
            writer.close()

    @override
    def forget(self) -> None:
        """Forget the thread, which is the parent's, and close the copies of its streams."""
        ends, self._ends, self._thread = self._ends, None, None
        for end in ends or ():
            end.close()

    @override
    def close(self, grace: float = 2.0) -> None:
        """Wait for the thread; then make it see the end of its input, and wait once more."""
        thread, self._thread = self._thread, None
        if thread is None or self._ends is None:
            return
        reader, _ = self._ends
        thread.join(grace)
        reader.wake()
        thread.join(max(grace, 1.0))

    @override
    def diagnose(self) -> str:
        """Return the exception that ended the server, if one did."""
        return f"the server raised {self._error!r}" if self._error else ""


# -- channels by name ------------------------------------------------------------------------------

_registered: dict[str, type[Channel] | str] = {}

_RESERVED = ("ssh", "subprocess", "local", "memory", "void")


def register_channel(name: str, cls: type[Channel] | str) -> None:
    """Make ``type = name`` in ``fleche.toml`` mean a remote cache over a channel of class ``cls``.

    The other keys of its table are the arguments of ``cls``, those of :class:`RemoteCache` and of
    any layer excepted. Without being registered, a class goes by ``type = "package.module:Class"``.

    Args:
        name: a name that is not built in, of letters, digits and ``_ . + -``; registering it again
            replaces its class.
        cls: the class, or its import path ``"package.module:Class"``.

    Raises:
        ValueError: ``name`` is built in, or no name.
        TypeError: ``cls`` is no channel.
    """
    check_type_name(name)
    if name in _RESERVED:
        raise ValueError(f"type {name!r} is built in; choose another name")
    if not isinstance(cls, str):
        _check_channel_class(cls)
    _registered[name] = cls


def channel_names() -> tuple[str, ...]:
    """Return the names that were registered."""
    return tuple(_registered)


def channel_class(name: str) -> type[Channel]:
    """Return the class of channels that ``type = name`` means.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    found = _registered.get(name, name)
    if not isinstance(found, str):
        return found
    module, colon, attribute = found.partition(":")
    if not colon:
        raise ConfigError(f"no channel is called {name!r}; register it, or write 'module:Class'")
    try:
        cls = getattr(importlib.import_module(module), attribute)
        _check_channel_class(cls)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"type {name!r}: {error}") from error
    return cls  # type: ignore[no-any-return]


def _check_channel_class(cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Channel)):
        raise TypeError(f"{cls!r} is no subclass of Channel")
