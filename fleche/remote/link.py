"""A connection at work: a session, two threads and two streams of bytes.

The reader thread takes bytes to the session and hands frames to whoever waits for them; it never
blocks on anything but the wire. The writer thread is the only one that writes, so that no signal
can interrupt a frame half-way. Whoever waits, waits here, and learns of silence, cancellation and
death here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from threading import Condition, RLock, Thread, current_thread

from fleche.errors import ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import Buffer
from fleche.remote.compression import Compression
from fleche.remote.frames import Flag, Frame, Kind, encode_frame
from fleche.remote.greeting import ClientGreeting
from fleche.remote.inbox import Inbox
from fleche.remote.outbox import Outbox
from fleche.remote.pulse import Pulse
from fleche.remote.session import (
    WINDOW,
    Cancelled,
    Credited,
    Heard,
    Received,
    Refused,
    Session,
)
from fleche.remote.streams import (
    ByteReader,
    ByteWriter,
    Stream,
    StreamCancelled,
    message_pieces,
)

__all__ = ["Link"]

log = logging.getLogger("fleche.remote")

LAST_WORDS = 1.0
"""Seconds in which the input may still end after writing has failed."""

PATIENCE = 5.0
"""Seconds that a request waits for room while all that take it up wait for this side."""


class Link:
    """A live connection.

    Attributes:
        lock: guards the session and all streams.
        failure: why the connection is dead, once it is.
    """

    def __init__(
        self,
        session: Session,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        name: str,
        timeout: float | None = None,
        compression: Compression | None = None,
        greeting: ClientGreeting | None = None,
        leftover: bytes = b"",
        on_request: Callable[[Stream], None] | None = None,
        refusal: bytes = b"",
        explain: Callable[[str], str] | None = None,
    ) -> None:
        """Prepare; nothing runs before :meth:`start`.

        Args:
            session: the rules, on one side.
            reader: where the peer's bytes come from.
            writer: where the bytes for the peer go.
            name: for messages and threads.
            timeout: seconds without a byte, while something is awaited, after which the peer is
                dead.
            compression: what to do to payloads.
            greeting: the client's greeting, to be answered before frames come.
            leftover: bytes that were read already.
            on_request: called with each new exchange (server); must not block.
            refusal: the message that answers a request for which there is no room (server).
            explain: turns the bare reason of death into the whole story, once.
        """
        self.lock = RLock()
        self.failure: str | None = None
        self.name = name
        self.timeout = timeout
        self.compression = compression or Compression()
        self.greeting = greeting
        self._session = session
        self._reader, self._writer = reader, writer
        self._inbox = Inbox(reader, greeting=greeting, leftover=leftover, allocate=self._allocate)
        self._on_request = on_request
        self._refusal = refusal
        self._taken = 0
        self._explain = explain or (lambda reason: reason)
        self._streams: dict[int, Stream] = {}
        self._outbox = Outbox(self.lock)
        self._changed = Condition(self.lock)
        self._pulse = Pulse()
        self._closing = False
        self._dying = False
        self._input_over = False
        self._threads: list[Thread] = []
        if greeting is not None:
            with self.lock:
                self._outbox.add(greeting.opening, urgent=True)

    # -- life --------------------------------------------------------------------------------------

    def start(self, *, reader_thread: bool = True) -> None:
        """Start the threads; without ``reader_thread`` the caller runs :meth:`run_reader`."""
        targets = [self._run_writer] + ([self.run_reader] if reader_thread else [])
        for target in targets:
            kind = target.__name__.rpartition("_")[2]
            thread = Thread(target=target, name=f"fleche {self.name} {kind}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_greeting(self, timeout: float | None, remind: float = 15.0) -> None:
        """Wait until the server has answered the greeting.

        Args:
            timeout: seconds; ``None`` waits for as long as a person types.
            remind: seconds between log lines while waiting.

        Raises:
            RemoteConnectionError: it has not, or not in time.
        """
        assert self.greeting is not None
        began = time.monotonic()
        while True:
            with self.lock:
                if self.failure is not None:
                    raise RemoteConnectionError(self.failure)
                if self.greeting.hello is not None:
                    return
                left = remind if timeout is None else began + timeout - time.monotonic()
                self._changed.wait(min(max(left, 0.01), remind))  # 0.01: a failure is being told
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                self.fail(f"no answer from a fleche server within {timeout:g} s")
            elif waited >= remind and self.greeting.hello is None and self.failure is None:
                log.warning("%s: still waiting for the server after %.0f s", self.name, waited)

    def allow(self, limit: int) -> None:
        """Take note of how many exchanges the server has open at once."""
        with self.lock:
            self._session.limit = limit
            self._changed.notify_all()

    def fail(self, reason: str) -> None:
        """Declare the connection dead: everything pending and to come raises."""
        with self.lock:
            if self._dying:
                return
            self._dying = True
            self._changed.notify_all()
        story = reason if self._closing else self._explain(reason + self._said_instead())
        with self.lock:
            self.failure = story
            self._outbox.discard()
            self._notify_all()

    def _said_instead(self) -> str:
        """Quote what came in place of a greeting: mostly it says why there is none."""
        if self.greeting is None or self.greeting.hello is not None or not self.greeting.noise:
            return ""
        return f"; so far it said: {self.greeting.noise}"

    def close(self) -> None:
        """Say nothing more: what is queued is written, then the writer is closed."""
        with self.lock:
            self._closing = True
            self._outbox.close()

    def join(self, timeout: float) -> bool:
        """Wait for the threads to end; tell whether they did."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def forget(self) -> None:
        """In a forked child, which has no threads and may not wait for locks: close the streams."""
        _close_quietly(self._reader)
        _close_quietly(self._writer)

    def _notify_all(self) -> None:
        self._changed.notify_all()
        for stream in list(self._streams.values()):  # garbage may be collected, and cancel some
            stream.changed.notify_all()

    # -- what streams do ---------------------------------------------------------------------------

    def open(self, request: bytes, *, end: bool = True) -> Stream:
        """Open an exchange with a request and return its stream.

        It waits for room: the server has told how many exchanges it has open at once.

        Raises:
            Rejected: the request is too long to be sent, or there is no room, nor will be before
                some of the answers are read.
            RemoteConnectionError: the connection is dead.
        """
        pieces = message_pieces(request, end=end)
        first, flags = next(pieces)
        with self.lock:  # numbers are to be sent in their order
            self._await_room()
            stream = Stream(self, self._session.open())
            self._streams[stream.exchange] = stream
            frame = self._session.send(stream.exchange, Kind.MESSAGE, first, flags)
            self._outbox.add(encode_frame(frame), urgent=True)
        try:
            for piece, flags in pieces:
                self.send(stream, Kind.MESSAGE, piece, flags)
        except StreamCancelled:
            log.debug("the server answered before it had all of a request")
        except BaseException:
            self.cancel(stream)
            raise
        return stream

    def send(
        self, stream: Stream, kind: Kind, payload: Buffer, flags: Flag, ahead: int = WINDOW
    ) -> None:
        """Queue a frame, when the peer and the queue have room for it."""
        payload, packed = self.compression.apply(payload)
        with self.lock:
            bare_end = flags is Flag.END and not payload
            self._await_peer(stream, lambda: self._may_send(stream, bare_end, ahead))
            frame = self._session.send(stream.exchange, kind, payload, flags | packed)
            if flags & Flag.END and self._session.side == "server":
                self._streams.pop(stream.exchange, None)
        data = encode_frame(frame)
        with self.lock:
            self._await(self._outbox.room, lambda: not self._outbox.full)
            self._outbox.add(data)

    def _may_send(self, stream: Stream, bare_end: bool, ahead: int) -> bool:
        if self._session.state(stream.exchange) is None or (stream.cancelled and not bare_end):
            raise StreamCancelled
        return self._session.may_send(stream.exchange, bare_end=bare_end, ahead=ahead)

    def take(self, stream: Stream) -> Frame | None:
        """Return the next frame of a stream, when it is there."""
        with self.lock:
            self._await_peer(stream, lambda: stream.frames or stream.ended or stream.cancelled)
            if stream.cancelled:
                raise StreamCancelled
            if not stream.frames:
                return None
            self._taken += 1
            frame = stream.frames.popleft()
            if (credit := self._session.consumed(frame)) is not None:
                self._queue_control(credit)
            return frame

    def cancel(self, stream: Stream) -> None:
        """Give an exchange up."""
        with self.lock:
            stream.cancelled = True
            stream.frames.clear()
            self._streams.pop(stream.exchange, None)
            if self.failure is None and (frame := self._session.cancel(stream.exchange)):
                self._queue_control(frame)

    def _check_alive(self) -> None:
        if self.failure is not None:
            raise RemoteConnectionError(self.failure)
        if self._closing:
            raise RemoteConnectionError(f"{self.name}: the connection was closed")

    def _await_peer(self, stream: Stream, ready: Callable[[], object]) -> None:
        """Wait for what only the peer can do, and not if it has closed its side."""
        if not (ready() or self._input_over):
            self._await(stream.changed, lambda: ready() or self._input_over)
        if not ready():
            raise RemoteConnectionError(f"{self.name}: the other side has said its last word")

    def _await_room(self) -> None:
        """Wait until one more exchange may be open.

        The server ends one by itself, unless it has to wait until its answer is read here. If that
        is so of all, and nothing is read, there is nothing to wait for.
        """
        began = since = time.monotonic()
        taken = self._taken
        while not self._session.has_room:
            if self._taken != taken or not self._all_wait_here():
                taken, since = self._taken, time.monotonic()
            elif time.monotonic() - since >= PATIENCE:
                raise Rejected(
                    f"{self.name}: {self._session.limit} requests are unfinished on this "
                    "connection, such as listings of which the rest is not read; finish or close "
                    "some"
                )
            self._wait_a_while(self._changed, began, PATIENCE / 4)
        self._check_alive()

    def _all_wait_here(self) -> bool:
        """Whether of every open exchange some answer has come that is not read."""
        streams = self._streams.values()
        return len(streams) == len(self._session) and all(stream.frames for stream in streams)

    def _await(self, condition: Condition, ready: Callable[[], object]) -> None:
        """Wait, the lock held, until ``ready()``; ping a silent peer, give up on a dead one."""
        began = time.monotonic()
        while not ready():
            self._wait_a_while(condition, began)

    def _wait_a_while(self, condition: Condition, began: float, most: float = inf) -> None:
        self._check_alive()
        if self.timeout is not None:
            most = min(most, self.timeout / 4)
        if not condition.wait(None if most == inf else most) and self.timeout is not None:
            self._check_silence(began)

    def _check_silence(self, began: float) -> None:
        assert self.timeout is not None
        silent = self._pulse.silence(began)
        if silent >= self.timeout:
            self.lock.release()
            try:
                self.fail(f"the server was silent for {silent:.0f} s while an answer was due")
            finally:
                self.lock.acquire()
        elif silent >= self.timeout / 4 and self._pulse.shall_ask(self.timeout / 4):
            self._queue_control(Frame(Kind.PING, 0))

    # -- threads -----------------------------------------------------------------------------------

    def _queue_control(self, frame: Frame) -> None:
        self._outbox.add(encode_frame(frame), urgent=True)

    def _run_writer(self) -> None:
        try:
            self._outbox.write_to(self._writer)
        except (OSError, ValueError) as error:
            with self.lock:  # if the input ends as well, that is the better story: it has an end
                self._changed.wait_for(lambda: self._dying or self._input_over, LAST_WORDS)
            self.fail(f"the connection broke while writing ({error})")
        except BaseException as error:
            self.fail(f"writing failed with {error!r}")
            raise
        finally:
            _close_quietly(self._writer)

    def run_reader(self) -> None:
        """Read until the end; everything that comes is handed on."""
        try:
            while self._handle_next():
                pass
            self._end_input()
        except ProtocolError as error:
            log.warning("%s: %s", self.name, error)
            self.fail(str(error))
        except (OSError, ValueError) as error:
            self.fail(f"the connection broke while reading ({error})")
        except BaseException as error:
            self.fail(f"reading failed with {error!r}")
            raise
        finally:
            _close_quietly(self._reader)

    def _allocate(self, kind: Kind, exchange: int, flags: int, length: int) -> memoryview | None:
        """Return where the payload of a frame whose header has come is wanted."""
        with self.lock:
            stream = self._streams.get(exchange)
            if stream is None or kind not in (Kind.MESSAGE, Kind.DATA):
                return None
            return stream.place.allocate(kind, flags, length)

    def _end_input(self) -> None:
        """Take note of the end: the death of a server; of a client only that it asks no more."""
        if self._session.side == "client":
            self.fail("the other side closed the connection")
            return
        with self.lock:
            self._input_over = True
            self._notify_all()

    def _handle_next(self) -> bool:
        """Wait for bytes and hand on what they complete, of which nothing is kept here."""
        frames = self._inbox.read()
        if frames is None:
            return False
        self._pulse.hear()
        with self.lock:
            self._changed.notify_all()
            self._handle(frames)
            if self._session.side == "server" and not self._inbox.idle and self._pulse.shall_tell():
                self._outbox.add_if_room(encode_frame(Frame(Kind.PONG, 0)))
        return True

    def _handle(self, frames: list[Frame]) -> None:
        for frame in frames:
            event = self._session.receive(frame)
            if isinstance(event, Received):
                self._handle_content(event)
            elif isinstance(event, Credited | Cancelled):
                self._handle_change(event)
            elif isinstance(event, Refused):
                refusal = Frame(Kind.MESSAGE, event.exchange, Flag.END, self._refusal)
                self._outbox.add_if_room(encode_frame(refusal))
            elif isinstance(event, Heard) and event.reply is not None:
                self._outbox.add_if_room(encode_frame(event.reply))

    def _handle_content(self, event: Received) -> None:
        if event.opening:
            stream = self._streams[event.exchange] = Stream(self, event.exchange)
        elif (known := self._streams.get(event.exchange)) is not None:
            stream = known
        else:
            return
        stream.ended = stream.ended or event.frame.end
        stream.frames.append(event.frame)
        stream.changed.notify_all()
        if stream.ended and self._session.side == "client":
            self._streams.pop(event.exchange, None)
        if event.opening and self._on_request is not None:
            self._on_request(stream)

    def _handle_change(self, event: Credited | Cancelled) -> None:
        stream = self._streams.get(event.exchange)
        if stream is not None:
            stream.cancelled = stream.cancelled or isinstance(event, Cancelled)
            stream.changed.notify_all()


def _close_quietly(stream: ByteReader | ByteWriter) -> None:
    try:
        stream.close()
    except (OSError, ValueError) as error:
        log.debug("closing a stream: %s", error)
