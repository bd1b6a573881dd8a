"""One connection of a client, from the greeting to the end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeVar

from fleche.errors import CorruptParcel, ProtocolError
from fleche.parcel import Buffer, Parcel, allocate, receive
from fleche.remote.channel import Channel
from fleche.remote.compression import Compression, WireCodec, available_codecs, choose_codec
from fleche.remote.failures import from_failure
from fleche.remote.frames import Kind
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

__all__ = ["Connection", "Exchange"]

log = logging.getLogger("fleche.remote")

AHEAD = 64
"""How many requests are sent before the first of them is answered."""

T = TypeVar("T")


class Exchange:
    """A request under way and the answers that come."""

    def __init__(self, stream: Stream, *, unpickle: bool) -> None:
        """Work on ``stream``; ``unpickle`` says whether exceptions of the server are opened."""
        self._stream = stream
        self._unpickle = unpickle

    def upload(self, chunks: Iterable[Buffer]) -> None:
        """Send bytes after the request, unless it has been answered already."""
        try:
            for chunk in chunks:
                self._stream.send_data(chunk)
            self._stream.end()
        except StreamCancelled:
            log.debug("the server answered before it had all of a parcel")

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

    def next_answer(self) -> Answer | None:
        """Return the next answer, or ``None`` after the last; raises as :meth:`answer`."""
        data = self._stream.receive_message()
        if data is None:
            return None
        try:
            found = decode_answer(data)
        except ProtocolError as error:
            self._stream.break_off(str(error))
        if isinstance(found, Failure):
            raise from_failure(found, unpickle=self._unpickle)
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
                self._raise_failure(payload)
            part = memory[position : position + len(payload)]
            if not (isinstance(payload, memoryview) and payload.obj is memory.obj):
                if len(part) != len(payload):
                    self._stream.break_off(f"it sent more than the {len(memory)} bytes announced")
                part[:] = payload
            position += len(part)
            yield part

    def _raise_failure(self, payload: Buffer) -> NoReturn:
        failure = decode_answer(payload)
        if isinstance(failure, Failure):
            raise from_failure(failure, unpickle=self._unpickle)
        self._stream.break_off("a message came in the middle of a parcel")

    def cancel(self) -> None:
        """Give it up; no effect on an exchange that is over."""
        self._stream.cancel()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class Connection:
    """A channel that was opened and greeted.

    Attributes:
        hello: what the server said of itself.
    """

    hello: Hello

    def __init__(
        self,
        channel: Channel,
        *,
        timeout: float | None,
        connect_timeout: float | None,
        compression: WireCodec,
        unpickle: bool = True,
    ) -> None:
        """Connect.

        Args:
            channel: what to open.
            timeout: see :class:`~fleche.remote.RemoteCache`.
            connect_timeout: likewise.
            compression: likewise.
            unpickle: whether pickled exceptions of the server are opened.

        Raises:
            RemoteConnectionError: the server cannot be reached, or is none.
        """
        self.channel = channel
        self._unpickle = unpickle
        protocols = (PROTOCOL, PROTOCOL)
        offered = available_codecs()
        wanted = choose_codec(compression, offered, local=channel.local)
        features = (*offered, f"compress={wanted}")
        greeting = ClientGreeting(protocols, features, __version__)
        session = Session("client")
        reader, writer = channel.open()
        self._link = Link(
            session,
            reader,
            writer,
            name=channel.name,
            timeout=timeout,
            greeting=greeting,
            explain=self._explain,
        )
        try:
            self._link.start()
            self._link.wait_greeting(connect_timeout)
            assert greeting.hello is not None
            self.hello = greeting.hello
            self._compress(compression)
        except BaseException:
            self.close(0)
            raise

    def _compress(self, wanted: WireCodec) -> None:
        codec = choose_codec(wanted, self.hello.features, local=self.channel.local)
        self._link.compression = Compression(codec)

    def _explain(self, reason: str) -> str:
        """Tell the whole story of a death, and make sure that it is one."""
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

    def request(self, message: Request, *, upload: Iterable[Buffer] | None = None) -> Exchange:
        """Send a request, with the bytes that follow it, and return the exchange.

        Raises:
            RemoteConnectionError: the connection is dead.
        """
        stream = self._link.open(encode(message), end=upload is None)
        exchange = Exchange(stream, unpickle=self._unpickle)
        if upload is not None:
            try:
                exchange.upload(upload)
            except BaseException:
                exchange.cancel()
                raise
        return exchange

    def ask(self, message: Request, kind: type[T], *, upload: Iterable[Buffer] | None = None) -> T:
        """Send a request and return its one answer; raises as :meth:`Exchange.answer`."""
        with self.request(message, upload=upload) as exchange:
            return exchange.answer(kind)

    def pipeline(self, requests: Iterable[tuple[Request, Iterable[Buffer] | None]]) -> None:
        """Send requests whose answer is :class:`Done`, a bounded number ahead of the answers."""
        under_way: deque[Exchange] = deque()
        try:
            for message, upload in requests:
                under_way.append(self.request(message, upload=upload))
                if len(under_way) >= AHEAD:
                    under_way.popleft().answer(Done)
            while under_way:
                under_way.popleft().answer(Done)
        finally:
            for exchange in under_way:
                exchange.cancel()

    def forget(self) -> None:
        """In a forked child: drop the copies of what is the parent's; tell the server nothing."""
        self._link.forget()
        self.channel.forget()

    def close(self, grace: float = 2.0) -> None:
        """Close; bounded and idempotent."""
        self._link.close()
        if not grace:
            self._link.fail("closed")
        self.channel.close(grace)
        if not self._link.join(grace or 1.0):
            log.warning("%s: a thread of the connection does not end", self.channel.name)
