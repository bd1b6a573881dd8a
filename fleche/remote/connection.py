"""One connection of a client, from the greeting to the end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import RLock
from typing import NoReturn, TypeAlias, TypeVar

from fleche.errors import CorruptParcel, ProtocolError
from fleche.parcel import Buffer, Parcel, allocate, receive
from fleche.remote.channel import Channel
from fleche.remote.compression import Compression, WireCodec, available_codecs, choose_codec
from fleche.remote.failures import Busy, from_failure
from fleche.remote.frames import Frame, Kind
from fleche.remote.greeting import ClientGreeting, Hello
from fleche.remote.link import Link
from fleche.remote.messages import (
    Answer,
    Done,
    Failure,
    Found,
    Request,
    decode_answer,
    encode,
)
from fleche.remote.session import PROTOCOL, Session
from fleche.remote.streams import Stream, StreamCancelled
from fleche.version import __version__

__all__ = ["Connection", "Exchange", "Outgoing", "Upload"]

log = logging.getLogger("fleche.remote")

AHEAD = 64
"""How many requests are sent before the first of them is answered."""

AHEAD_BYTES = 1 << 24
"""How many bytes follow them at most, the last of them excepted."""

BUSY_PAUSE = 0.02
"""Seconds before a request that the server had no room for is sent again for the first time."""

UNHEARD_GRACE = 0.1
"""Seconds that a server has to end by itself if it has not said anything yet."""

Upload: TypeAlias = Callable[[], Iterable[Buffer]]
T = TypeVar("T")


@dataclass
class Outgoing:
    """A request to be sent, with what follows it.

    Attributes:
        message: the request.
        upload: returns the bytes that follow it, anew each time.
        nbytes: how many these are.
        close: called when it is done, or given up.
    """

    message: Request
    upload: Upload | None = None
    nbytes: int = 0
    close: Callable[[], None] = lambda: None


def exponential(first: float, most: float = 1.0) -> Iterator[float]:
    """Yield ever longer pauses, up to ``most`` seconds."""
    while True:
        yield first
        first = min(2 * first, most)


class Exchange:
    """A request under way and the answers that come.

    A request that the server has no room for is sent again, a little later.
    """

    def __init__(
        self, link: Link, request: bytes, upload: Upload | None = None, *, unpickle: bool
    ) -> None:
        """Send the request and what follows it.

        Args:
            link: where to.
            request: the message.
            upload: returns the bytes that follow it, anew each time.
            unpickle: whether exceptions of the server are opened.

        Raises:
            RemoteConnectionError: the connection is dead.
        """
        self._link = link
        self._request = request
        self._upload = upload
        self._unpickle = unpickle
        self._pauses = exponential(BUSY_PAUSE)
        self._stream = self._sent()

    def _sent(self) -> Stream:
        stream = self._link.open(self._request, end=self._upload is None)
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
        data = self._stream.receive_message(begun)
        if data is None:
            return None
        try:
            found = decode_answer(data)
        except ProtocolError as error:
            self._stream.break_off(str(error))
        if isinstance(found, Failure):
            raised = from_failure(found, unpickle=self._unpickle)
            if not isinstance(raised, Busy):
                raise raised
            time.sleep(next(self._pauses))
            self._stream = self._sent()
            return self.next_answer()
        return found

    def download(self, found: Found, name: str) -> Parcel:
        """Return the parcel that follows ``found``, checked.

        Args:
            found: what announced it.
            name: what it is, for error messages.

        Raises:
            CorruptParcel: it arrived, or is kept, damaged; the exchange goes on after it.
        """
        assert found.size is not None
        try:
            memory = allocate(found.size)
        except MemoryError:
            self._stream.break_off(f"it announced a value of {found.size} bytes")
        filled = self._filled(memory)
        try:
            return receive(memory, filled, name)
        except CorruptParcel:
            for _ in filled:  # the rest of it
                pass
            raise

    def _filled(self, memory: memoryview) -> Iterator[Buffer]:
        """Yield consecutive parts of ``memory`` as they are filled."""
        self._stream.expect(memory)
        position = 0
        while position < len(memory) and (frame := self._stream.receive()) is not None:
            payload = frame.payload
            if frame.kind is not Kind.DATA:
                self._raise_failure(frame)
            part = memory[position : position + len(payload)]
            if not (isinstance(payload, memoryview) and payload.obj is memory.obj):
                if len(part) != len(payload):
                    self._stream.break_off(f"it sent more than the {len(memory)} bytes announced")
                part[:] = payload
            position += len(part)
            yield part

    def _raise_failure(self, begun: Frame) -> NoReturn:
        self.next_answer(begun)
        self._stream.break_off("a message came in the middle of a parcel")

    def cancel(self) -> None:
        """Give it up; no effect on an exchange that is over."""
        self._stream.cancel()

    def __enter__(self) -> Exchange:
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
        offered = available_codecs()
        wanted = choose_codec(compression, offered, local=channel.local)
        features = (*offered, f"compress={wanted}")
        self._greeting = ClientGreeting((PROTOCOL, PROTOCOL), features, __version__)
        try:
            reader, writer = channel.open()
        except BaseException:
            channel.close(0)
            raise
        self._link = Link(
            Session("client"),
            reader,
            writer,
            name=channel.name,
            timeout=timeout,
            greeting=self._greeting,
            explain=self._explain,
        )
        try:
            self._link.start()
        except BaseException:
            self.close(0)
            raise

    def wait(self) -> None:
        """Wait until the server has answered the greeting; many threads may.

        Raises:
            RemoteConnectionError: it is none, it has not in time, or the connection was closed.
            MissingExtra: it lacks the compression that is asked for.
        """
        self._link.wait_greeting(self._connect_timeout)
        codec = choose_codec(self._compression, self.hello.features, local=self.channel.local)
        self._link.compression = Compression(codec)
        self._link.allow(self.hello.requests)

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
            self.channel.close(0)
        story = f"{self.channel.name}: {reason}"
        if found:
            story += f" ({found})" if "\n" not in found else f"\n{found}"
        return (
            f"{story}\nEvery operation on this remote cache raises this error until reconnect() "
            "is called."
        )

    @property
    def failure(self) -> str | None:
        """Why the connection is dead, once it is."""
        return self._link.failure

    def request(self, message: Request, *, upload: Upload | None = None) -> Exchange:
        """Send a request, with the bytes that follow it, and return the exchange.

        Raises:
            RemoteConnectionError: the connection is dead.
        """
        return Exchange(self._link, encode(message), upload, unpickle=self._unpickle)

    def ask(self, message: Request, kind: type[T], *, upload: Upload | None = None) -> T:
        """Send a request and return its one answer; raises as :meth:`Exchange.answer`."""
        with self.request(message, upload=upload) as exchange:
            return exchange.answer(kind)

    def pipeline(self, requests: Iterable[Outgoing]) -> None:
        """Send requests whose answer is :class:`Done`, a bounded number ahead of the answers.

        What has no answer yet is kept, since it may have to be sent again. So little of it is.
        """
        under_way: deque[tuple[Exchange, Outgoing]] = deque()

        def finish_first() -> None:
            exchange, sent = under_way[0]
            exchange.answer(Done)
            under_way.popleft()
            sent.close()

        try:
            for each in requests:
                under_way.append((self.request(each.message, upload=each.upload), each))
                while (
                    len(under_way) >= AHEAD
                    or sum(sent.nbytes for _, sent in under_way) > AHEAD_BYTES
                ):
                    finish_first()
            while under_way:
                finish_first()
        finally:
            for exchange, sent in under_way:
                exchange.cancel()
                sent.close()

    def forget(self) -> None:
        """In a forked child: drop the copies of what is the parent's; tell the server nothing."""
        self._link.forget()
        self.channel.forget()

    def close(self, grace: float = 2.0) -> None:
        """Close; bounded and idempotent. Whoever waits for the server learns of it at once."""
        self._link.close()
        if self._greeting.hello is None:
            # nothing is under way, and whoever is at a prompt does not look at its input
            grace = min(grace, UNHEARD_GRACE)
            self._link.fail(f"{self.channel.name}: the connection was closed")
        with self._ending:
            if not self._ended:
                self._ended = True  # from here on, the channel may be another connection's
                self.channel.close(grace)
        if not self._link.join(max(grace, 1.0)):
            log.warning("%s: a thread of the connection does not end", self.channel.name)
