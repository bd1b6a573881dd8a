"""The one connection of a remote cache: made when it is first needed, greeted, and kept."""

from __future__ import annotations

import logging
import random
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from threading import RLock
from typing import Any, NoReturn, TypeAlias, TypeVar

from fleche._util import __version__
from fleche.errors import CorruptParcel, ProtocolError, RemoteConnectionError
from fleche.parcel import Buffer, Parcel, StreamSource, allocate, announces_file, receive, spool
from fleche.remote._compression import Compression, WireCodec, available_codecs, choose_codec
from fleche.remote._entries import Outgoing
from fleche.remote._errors import Busy, from_failure
from fleche.remote._frames import Frame, Kind
from fleche.remote._handshake import ClientGreeting, Hello
from fleche.remote._messages import Answer, Done, Failure, Found, Request, decode_answer, encode
from fleche.remote._multiplexer import CLOSED, Multiplexer
from fleche.remote._protocol import PROTOCOL, Protocol
from fleche.remote._streams import Stream, StreamCancelled
from fleche.remote.channel import Channel

__all__ = ["Connection", "LazyConnection", "Outgoing", "PendingRequest", "Upload"]

log = logging.getLogger("fleche.remote")

AHEAD = 16
"""How many requests are sent before the first of them is answered."""

AHEAD_BYTES = 1 << 24
"""How many bytes follow them at most, the last of them excepted."""

_WORTH_A_LOOK = 1 << 20
"""Of a parcel of so many bytes the first are looked at, before there is memory for all."""

_LONGEST = 1 << 28
"""Bytes that are taken into memory as one piece."""

BUSY_PAUSE = 0.02
"""Seconds before a request that the server had no room for is sent again for the first time."""

UNHEARD_GRACE = 0.1
"""Seconds that a server has to end by itself if it has not said anything yet."""

Upload: TypeAlias = Callable[[], Iterable[Buffer]]
T = TypeVar("T")


def exponential(first: float) -> Iterator[float]:
    """Yield ever longer pauses, up to a second."""
    while True:
        yield first
        first = min(2 * first, 1.0)


class PendingRequest:
    """A request under way and the answers that come.

    A request that the server has no room for is sent again, a little later.
    """

    def __init__(
        self, mux: Multiplexer, request: bytes, upload: Upload | None = None, *, unpickle: bool
    ) -> None:
        """Send the request and what follows it.

        Args:
            mux: where to.
            request: the message.
            upload: returns the bytes that follow it, anew each time.
            unpickle: whether exceptions of the server are opened.

        Raises:
            RemoteConnectionError: the connection is dead.
        """
        self._mux = mux
        self._request = request
        self._upload = upload
        self._unpickle = unpickle
        self._stream = self._sent()

    def _sent(self) -> Stream:
        stream = self._mux.open(self._request, end=self._upload is None)
        if self._upload is not None:
            try:
                for chunk in self._upload():
                    stream.send_data(chunk)
                stream.end()
            except StreamCancelled:
                log.debug("the server answered before it had all of a parcel")
            except BaseException:
                stream.cancel()
                raise
        return stream

    def answer(self, kind: type[T]) -> T:
        """Return the next answer, which must be a ``kind``.

        Raises:
            RemoteConnectionError: the connection is dead, or broken off since it is another.
            Exception: what the server raised.
        """
        found = self.next_answer()
        if not isinstance(found, kind):
            self._stream.break_off(f"it answered {type(found).__name__}, not {kind.__name__}")
        return found

    def next_answer(self, begun: Frame | None = None) -> Answer | None:
        """Return the next answer, or ``None`` after the last; raises as :meth:`answer`.

        Args:
            begun: its first frame, if that has been received already.
        """
        pauses: Iterator[float] | None = None
        while (data := self._stream.receive_message(begun)) is not None:
            try:
                found = decode_answer(data)
            except ProtocolError as error:
                self._stream.break_off(str(error))
            if not isinstance(found, Failure):
                return found
            raised = from_failure(found, self._mux.name, unpickle=self._unpickle)
            if not isinstance(raised, Busy):
                raise raised
            begun, pauses = None, pauses or exponential(BUSY_PAUSE)
            time.sleep(next(pauses))
            self._stream = self._sent()
        return None

    def download(self, found: Found, name: str) -> Parcel:
        """Return the parcel that follows ``found``, checked.

        Args:
            found: what announced it.
            name: what it is, for error messages.

        Raises:
            CorruptParcel: it arrived, or is kept, damaged; the request goes on after it.
        """
        assert found.size is not None
        begun: Buffer = b""
        if found.size >= _WORTH_A_LOOK:
            begun = self._first_data()
            if announces_file(begun):
                return self._download_file(found.size, begun, name)
        try:
            memory = allocate(found.size)
        except MemoryError:
            self._stream.break_off(f"it announced a value of {found.size} bytes")
        filled = self._filled(memory, begun)
        try:
            return receive(memory, filled, name)
        except CorruptParcel:
            for _ in filled:  # the rest of it
                pass
            raise

    def receive_bytes(self, size: int) -> bytes:
        """Return so many bytes of data, which come next.

        Raises:
            RemoteConnectionError: they are too many, fewer come, or the connection is dead.
        """
        if size > _LONGEST:
            self._stream.break_off(f"it announced a record of {size} bytes")
        found = b"".join(self._data(size, b""))
        if len(found) != size:
            self._stream.break_off(f"it sent {len(found)} of {size} bytes announced")
        return found

    def _first_data(self) -> Buffer:
        frame = self._stream.receive()
        if frame is None:
            return b""
        if frame.kind is not Kind.DATA:
            self._raise_failure(frame)
        return frame.payload

    def _download_file(self, size: int, begun: Buffer, name: str) -> Parcel:
        """Return a parcel that never is in memory as a whole: the content of a file.

        Raises:
            CorruptParcel: as :meth:`download`.
            StorageError: it cannot be written on this machine.
        """
        pieces = self._data(size, begun)
        try:
            return spool(StreamSource(size, pieces, name))
        except CorruptParcel:
            for _ in pieces:  # the rest of it
                pass
            raise

    def _data(self, size: int, begun: Buffer) -> Iterator[Buffer]:
        """Yield ``size`` bytes as they come."""
        piece, position = begun, 0
        while True:
            position += len(piece)
            if position > size:
                self._stream.break_off(f"it sent more than the {size} bytes announced")
            yield piece
            if position == size or (frame := self._stream.receive()) is None:
                return
            if frame.kind is not Kind.DATA:
                self._raise_failure(frame)
            piece = frame.payload

    def _filled(self, memory: memoryview, begun: Buffer) -> Iterator[Buffer]:
        """Yield consecutive parts of ``memory`` as they are filled, after what has ``begun``."""
        self._stream.expect(memory)
        position = 0
        for piece in self._data(len(memory), begun):
            part = memory[position : position + len(piece)]
            if not (isinstance(piece, memoryview) and piece.obj is memory.obj):
                part[:] = piece
            position += len(part)
            if part:
                yield part

    def _raise_failure(self, begun: Frame) -> NoReturn:
        self.next_answer(begun)
        self._stream.break_off("a message came in the middle of a parcel")

    def cancel(self) -> None:
        """Give it up; no effect on a request that is over."""
        self._stream.cancel()

    def __enter__(self) -> PendingRequest:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class Connection:
    """A channel that was opened, and greeted; what the server answers is for :meth:`wait`."""

    def __init__(
        self,
        channel: Channel,
        *,
        timeout: float | None,
        connect_timeout: float | None,
        compression: WireCodec,
        unpickle: bool = True,
    ) -> None:
        """Open the channel and greet.

        Args:
            channel: what to open.
            timeout: see :class:`~fleche.remote.RemoteCache`.
            connect_timeout: likewise.
            compression: likewise.
            unpickle: whether pickled exceptions of the server are opened.

        Raises:
            RemoteConnectionError: the channel cannot be opened.
            MissingExtra: the compression that is asked for is not there.
        """
        self.channel = channel
        self._connect_timeout = connect_timeout
        self._compression = compression
        self._unpickle = unpickle
        self._ending = RLock()
        self._ended = False
        self.was_refused = False
        offered = available_codecs()
        wanted = choose_codec(compression, offered, local=channel.local)
        features = (*offered, f"compress={wanted}")
        self._greeting = ClientGreeting((PROTOCOL, PROTOCOL), features, __version__)
        try:
            reader, writer = channel.open()
        except BaseException:
            channel.close(0)
            raise
        self._mux = Multiplexer(
            Protocol("client"),
            reader,
            writer,
            name=channel.name,
            timeout=timeout,
            greeting=self._greeting,
            explain=self._explain,
            overheard=channel.overheard,
        )
        try:
            self._mux.start()
        except BaseException as error:
            self.close(0)
            for stream in (reader, writer):  # which the threads would have closed
                with suppress(OSError):
                    stream.close()
            if isinstance(error, RuntimeError):  # of threads: the system has no more
                raise RemoteConnectionError(f"{channel.name}: {error}") from None
            raise

    def wait(self) -> None:
        """Wait until the server has answered the greeting; many threads may.

        Raises:
            RemoteConnectionError: it is none, it has not in time, or the connection was closed.
            MissingExtra: it lacks the compression that is asked for.
        """
        self._mux.wait_greeting(self._connect_timeout)
        channel = self.channel
        codec = choose_codec(
            self._compression, self.hello.features, local=channel.local, name=channel.name
        )
        self._mux.compression = Compression(codec)
        self._mux.allow(self.hello.requests)

    @property
    def hello(self) -> Hello:
        """What the server said of itself, once it has."""
        assert self._greeting.hello is not None
        return self._greeting.hello

    def _explain(self, reason: str) -> str:
        """Tell the whole story of a death, and make sure that it is one."""
        with self._ending:
            if self._ended:
                return reason
            found = self.channel.diagnose()
            self.was_refused = self._greeting.hello is None and self.channel.was_refused()
            self.channel.close(0)
        if self._greeting.hello is None:
            found = _explain_unmet(reason, found)
        story = f"{self.channel.name}: {reason}"
        if found:
            story += f" ({found})" if "\n" not in found else f"\n{found}"
        return f"{story}\n{RemoteConnectionError.advice}"

    @property
    def noise(self) -> str:
        """What came before the server's answer, masked and shortened; empty if nothing did."""
        return self._greeting.noise

    @property
    def failure(self) -> str | None:
        """Why the connection is dead, once it is."""
        return self._mux.failure

    def request(self, message: Request, *, upload: Upload | None = None) -> PendingRequest:
        """Send a request, with the bytes that follow it, and return it, pending.

        Raises:
            RemoteConnectionError: the connection is dead.
        """
        return PendingRequest(self._mux, encode(message), upload, unpickle=self._unpickle)

    def ask(self, message: Request, kind: type[T], *, upload: Upload | None = None) -> T:
        """Send a request and return its one answer; raises as :meth:`PendingRequest.answer`."""
        with self.request(message, upload=upload) as pending:
            return pending.answer(kind)

    def pipeline(self, requests: Iterable[Outgoing]) -> None:
        """Send requests whose answer is :class:`Done`, a bounded number ahead of the answers.

        What has no answer yet is kept, since it may have to be sent again. So little of it is.
        """
        under_way: deque[tuple[PendingRequest, Outgoing]] = deque()

        def finish_first() -> None:
            pending, sent = under_way[0]
            pending.answer(Done)
            under_way.popleft()
            sent.close()

        try:
            for each in requests:
                while each.follows and under_way:
                    finish_first()
                under_way.append((self.request(each.message, upload=each.upload), each))
                while (
                    len(under_way) >= AHEAD
                    or sum(sent.nbytes for _, sent in under_way) > AHEAD_BYTES
                ):
                    finish_first()
            while under_way:
                finish_first()
        finally:
            for pending, sent in under_way:
                pending.cancel()
                sent.close()

    def forget(self) -> None:
        """In a forked child: drop the copies of what is the parent's; tell the server nothing."""
        self._mux.forget()
        self.channel.forget()

    def close(self, grace: float = 2.0) -> None:
        """Close; bounded and idempotent. Threads that wait for the server get an error at once."""
        self._mux.close()
        if self._greeting.hello is None:
            # nothing is under way, and a program at a prompt does not look at its input
            grace = min(grace, UNHEARD_GRACE)
            self._mux.fail("the connection was closed")
        with self._ending:
            if not self._ended:
                self._ended = True  # from here on, the channel may be another connection's
                self.channel.close(grace)
        if not self._mux.join(max(grace, 1.0)):
            log.warning("%s: a thread of the connection does not end", self.channel.name)


def _explain_unmet(reason: str, found: str) -> str:
    """Return ``found``, which is known of an end before any answer, with what may have led to it.

    These are the ends that come without a word from ssh or the shell there.
    """
    ended, running = "exit status 0", "it is still running"
    if found.startswith(ended):
        return (
            f"{ended}: it ended in order before it was greeted. Its input was at an end (ssh -n, a "
            "start-up file that reads it), another command was run in its place, or a setup "
            f"command ends the shell, or in a comment{found[len(ended) :]}"
        )
    if reason.startswith(CLOSED) and found.startswith(running):
        return (
            f"{running}, and has closed its output before it was greeted. ssh does so where it "
            f"is to run no command (ssh -N){found[len(running) :]}"
        )
    return found


class LazyConnection:
    """A connection that is never made again by itself once it has died, or could not be made.

    To connect may ask a person for a second factor, so it is done once, and after :meth:`reset`. A
    connection that was refused before anything could be asked is tried again a few times.

    The connection is here from the moment its channel is open, so that closing and forking
    find it. The lock is held to open and to close it, which is soon done; not to wait for the
    server's first word, which takes as long as a person types. Threads wait for that outside it.

    Attributes:
        connection: the connection, while there is one: in the making, alive or dead.
        info: what the server said of itself, or ``None`` while it has said nothing.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] | None = None
        self.connection: Connection | None = None
        self._failure: Exception | None = None
        self._greeted = False
        self._waiting = 0
        self._connecting = False
        self._lock = RLock()

    def connected(
        self, connect: Callable[[], Connection], greeted: Callable[[], None]
    ) -> Connection:
        """Return the connection, made by ``connect`` if there is none, once it is greeted.

        Args:
            connect: makes a connection.
            greeted: called once for each connection that was made.

        Raises:
            RemoteConnectionError: the server cannot be reached, or could not be the last time, or
                the connection was closed meanwhile.
            Exception: what else ``connect`` or the waiting raised, now or the last time.
        """
        tries = iter(_pauses())
        began = time.monotonic()
        while True:
            connection, greeted_before = self._current(connect)
            if greeted_before:
                return connection
            try:
                connection.wait()
            except BaseException as error:
                if connection.was_refused and (pause := next(tries, None)) is not None:
                    self._try_again(connection, pause)
                    continue
                self._give_up(connection, error)
                raise
            if self._is_first(connection):
                _tell(connection, time.monotonic() - began)
                greeted()
            return connection

    def _current(self, connect: Callable[[], Connection]) -> tuple[Connection, bool]:
        """Return the connection, made if there is none, and whether it was greeted before."""
        with self._lock:
            if self.connection is None:
                if self._connecting:  # this thread: it was interrupted by what wants to connect now
                    raise RemoteConnectionError("the connection is just being made")
                self._connecting = True
                try:
                    self.connection = self._made(connect)
                finally:
                    self._connecting = False
            if not self._greeted:
                self._waiting += 1
            return self.connection, self._greeted

    def _try_again(self, connection: Connection, pause: float) -> None:
        """Let go of a connection that was refused before anything was asked, and wait a little.

        The first of the threads that wait for it does so, and says it.
        """
        with self._lock:
            if self.connection is connection:
                self.connection = None
                self._finalizer.detach()
                connection.close(0)
                log.warning(
                    "%s: refused before authentication, perhaps by MaxStartups; trying again",
                    connection.channel.name,
                )
        time.sleep(pause)

    def _made(self, connect: Callable[[], Connection]) -> Connection:
        if self._failure is not None:
            raise _again(self._failure)
        try:
            connection = connect()
        except Exception as error:
            self._failure = _again(error)
            raise
        self._greeted, self._waiting = False, 0
        self._finalizer = weakref.finalize(self, connection.close)
        return connection

    def _is_first(self, connection: Connection) -> bool:
        """Take note that ``connection`` is greeted; return whether this is the first time."""
        with self._lock:
            if self.connection is not connection:
                return False
            self._waiting -= 1
            if self._greeted:
                return False
            self._greeted = True
            self.info = connection.hello.info
            return True

    def _give_up(self, connection: Connection, error: BaseException) -> None:
        """End ``connection`` if no other thread waits for it; an interrupt is no failure."""
        with self._lock:
            if self.connection is not connection:
                return
            self._waiting -= 1
            if self._waiting or self._greeted:
                return
            if isinstance(error, Exception):
                self._failure = _again(error)
            self._end(connection)

    def close(self) -> None:
        """End the connection; bounded and idempotent. The next use connects, unless it has died.

        Threads that wait for it to be made get an error at once.
        """
        with self._lock:
            if self.connection is not None:
                self._end(self.connection)

    def _end(self, connection: Connection) -> None:
        if connection.failure is not None:
            self._failure = RemoteConnectionError(connection.failure)
        self.connection = self.info = None
        self._finalizer.detach()
        connection.close()

    def reset(self) -> None:
        """End the connection, dead or alive; the next use makes a new one."""
        with self._lock:
            self.close()
            self._failure = None

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._lock = RLock()
        self._connecting = False
        connection, self.connection = self.connection, None
        if connection is not None:
            self._finalizer.detach()
            connection.forget()
        self.info = None


def _tell(connection: Connection, seconds: float) -> None:
    """Log that a connection stands."""
    hello = connection.hello
    name = (hello.info or {}).get("cache_name")
    log.info(
        "connected to %s in %.1f s (fleche %s, %s)",
        connection.channel.name,
        seconds,
        hello.version or "of an unknown version",
        f"cache {name}" if name else "its default cache",
    )


def _pauses() -> Iterator[float]:
    """Yield random pauses before one more try, some 12 seconds together: others try, too."""
    for longest in (1.0, 2.0, 4.0, 8.0):
        yield random.uniform(longest / 2, longest)


def _again(error: Exception) -> Exception:
    """Return an error like ``error``, which itself would hold what it met on its way up."""
    if isinstance(error, RemoteConnectionError):
        return RemoteConnectionError(str(error))
    try:
        return copy(error).with_traceback(None)  # which tblib copies, too
    except Exception:  # noqa: BLE001 (a class whose arguments are not those of its instances)
        return RemoteConnectionError(f"{type(error).__name__}: {error}")
