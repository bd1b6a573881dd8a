"""A connection at work: many streams over two streams of bytes.

Two threads do all of the reading and writing. Other threads queue what they have to send and wait
for what is to come, and learn of silence, cancellation and death while they wait.

The writer thread takes what is written next from a queue. It alone numbers streams and charges
windows, at the moment at which a frame is written. So a thread may be interrupted anywhere, by a
signal handler or by the collection of garbage, that uses the same connection: what it has queued is
complete, and the order of numbers is the order on the wire.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from threading import Condition, RLock, Thread, current_thread
from typing import Any

from fleche.errors import ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import Buffer
from fleche.remote._compression import Compression, decompress_payload
from fleche.remote._frames import Flag, Frame, FrameDecoder, Kind, encode_frame
from fleche.remote._handshake import ClientGreeting, mask
from fleche.remote._protocol import WINDOW, Cancelled, Credited, Heard, Protocol, Received, Refused
from fleche.remote._queue import GATHER, SendQueue
from fleche.remote._streams import (
    ByteReader,
    ByteWriter,
    Piece,
    Stream,
    StreamCancelled,
    Wakeup,
    message_pieces,
)

__all__ = ["CLOSED", "Multiplexer"]

log = logging.getLogger("fleche.remote")

CLOSED = "the other side closed the connection"
"""The reason of a death that comes with the end of the input."""

LAST_WORDS = 1.0
"""Seconds in which the input may still end after writing has failed."""

PATIENCE = 5.0
"""Seconds that a request waits for room while all that take it up wait for this side."""

REMIND_SECONDS = 15.0
"""Seconds between log lines while a server is not heard of."""

SWALLOWED_SECONDS = 20.0
"""Seconds in which a server may still answer a greeting that something else seems to have taken."""

TELL_SECONDS = 1.0
"""Seconds between two signs of life that a server gives while a long frame arrives."""

STOPPED_SECONDS = 1.0
"""A wait that takes so much longer than it was told to: this process was stopped meanwhile."""

MOST_CONTROLS = 4096
MOST_QUEUED = 16


class Multiplexer:
    """A live connection.

    Attributes:
        lock: guards the protocol and all streams.
        failure: why the connection is dead, once it is.
    """

    def __init__(
        self,
        protocol: Protocol,
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
        overheard: Callable[[], str] = str,
    ) -> None:
        """Prepare; nothing runs before :meth:`start`.

        Args:
            protocol: the rules, on one side.
            reader: where the peer's bytes come from.
            writer: where the bytes for the peer go.
            name: for messages and threads.
            timeout: seconds without a byte, while something is awaited, after which the peer is
                dead.
            compression: what to do to payloads.
            greeting: the client's greeting, to be answered before frames come.
            leftover: bytes that were read already.
            on_request: called with each new stream (server); must not block.
            refusal: the message that answers a request that cannot be taken (server).
            explain: turns the bare reason of death into the whole story, once.
            overheard: returns what the other side has said beside the stream so far.
        """
        self.lock = RLock()
        self.failure: str | None = None
        self.name = name
        self.timeout = timeout
        self.compression = compression or Compression()
        self.greeting = greeting
        self._protocol = protocol
        self._reader, self._writer = reader, writer
        self._decoder = FrameDecoder(self._allocate)
        self._leftover = leftover
        self._on_request = on_request
        self._refusal = refusal
        self._explain = explain or (lambda reason: reason)
        self._overheard = overheard
        self._streams: dict[int, Stream] = {}
        self._queue = SendQueue(protocol, self._streams)
        self._changed = Condition(self.lock)
        self._work = Wakeup()
        self._keepalive = _Keepalive()
        self._taken = 0
        self._looks_again = True
        self._closing = False
        self._dying = False
        self._input_over = False
        self._threads: list[Thread] = []
        if greeting is not None:
            self._queue.controls.append(greeting.opening)

    # -- life --------------------------------------------------------------------------------------

    def start(self, *, reader_thread: bool = True) -> None:
        """Start the threads; without ``reader_thread`` the caller runs :meth:`run_reader`."""
        targets = [self._run_writer] + ([self.run_reader] if reader_thread else [])
        for target in targets:
            kind = target.__name__.rpartition("_")[2]
            thread = Thread(target=target, name=f"fleche {self.name} {kind}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait_greeting(self, timeout: float | None) -> None:
        """Wait until the server has answered the greeting, and say now and then that it has not.

        Args:
            timeout: seconds; ``None`` waits for as long as a person types.

        Raises:
            RemoteConnectionError: it has not, or not in time, or something else has taken it.
        """
        assert self.greeting is not None
        began = time.monotonic()
        reminded, swallowed = began, inf
        while True:
            with self.lock:
                if self.failure is not None:
                    raise RemoteConnectionError(self.failure)
                if self.greeting.hello is not None:
                    return
                asleep = time.monotonic()
                left = inf if timeout is None else min(began + timeout - asleep, timeout / 4)
                patience = min(max(left, 0.01), SWALLOWED_SECONDS / 4)
                self._changed.wait(patience)
            if self._is_decided():
                continue
            now = time.monotonic()
            began += _stopped_for(asleep, patience)
            if self.greeting.is_swallowed(self._overheard()):
                swallowed = min(swallowed, now)
            if timeout is not None and now - began >= timeout:
                self.fail(f"no answer from a fleche server within {timeout:g} s")
            elif now - swallowed >= SWALLOWED_SECONDS:
                self.fail("no answer from a fleche server")
            elif now - reminded >= REMIND_SECONDS:
                reminded = now
                log.warning(
                    "%s: still waiting for the server after %.0f s%s",
                    self.name,
                    now - began,
                    self._heard_so_far(),
                )

    def _is_decided(self) -> bool:
        return self.failure is not None or self.greeting is None or bool(self.greeting.hello)

    def allow(self, limit: int) -> None:
        """Take note of how many streams the server has open at once."""
        with self.lock:
            self._protocol.limit = limit
            self._work.set()

    def fail(self, reason: str) -> None:
        """Declare the connection dead: everything pending and to come raises."""
        with self.lock:
            if self._dying:
                return
            self._dying = True
            self._changed.notify_all()
        story = f"{self.name}: {reason}"
        try:
            if self._closing:  # by this side: what ends now ends because of that
                story = f"{self.name}: the connection was closed"
            else:
                story = self._explain(reason + self._said_instead())
        finally:  # an interrupt, while the story is found out
            with self.lock:
                self.failure = story
                waiting = self._queue.waiting()
                self._queue.clear()
                self._notify(waiting)

    def _said_instead(self) -> str:
        """Quote what came in place of a greeting: mostly it says why there is none."""
        if self.greeting is None or self.greeting.hello is not None:
            return ""
        return self.greeting.instead(self._overheard())

    def _heard_so_far(self) -> str:
        overheard = self._overheard()
        beside = f"; on standard error: {mask(overheard.encode())}" if overheard else ""
        return (self._said_instead() + beside) or "; it has not said anything"

    def close(self) -> None:
        """Say nothing more: what is queued is written, then the writer is closed."""
        with self.lock:
            self._closing = True
            self._work.set()

    def join(self, timeout: float) -> bool:
        """Wait for the threads to end; return whether they did."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def forget(self) -> None:
        """In a forked child, which has no threads and may not wait for locks: close the streams."""
        _close_quietly(self._reader)
        _close_quietly(self._writer)

    def _notify(self, waiting: list[Stream]) -> None:
        self._changed.notify_all()
        self._work.set()
        for stream in waiting:  # a list: garbage may be collected meanwhile, and cancel some
            stream.wake()

    # -- what streams do ---------------------------------------------------------------------------

    def open(self, request: bytes, *, end: bool = True) -> Stream:
        """Queue a request and return its stream.

        It is written when the server has room: that has told how many streams it has open at once.

        Raises:
            Rejected: the request is too long to be sent.
            RemoteConnectionError: the connection is dead.
        """
        stream = Stream(self)
        pieces = [
            self._piece(Kind.MESSAGE, piece, flags)
            for piece, flags in message_pieces(request, end=end)
        ]
        with self.lock:
            self._check_usable()
            stream.outgoing.extend(pieces)
            self._queue.openings.append(stream)
            self._work.set()
        return stream

    def send(
        self, stream: Stream, kind: Kind, payload: Buffer, flags: int, ahead: int = WINDOW
    ) -> None:
        """Send a frame.

        Much data is sent, and no longer needed, when this returns: it may be the memory of an
        array. Small pieces are queued, to be written together.
        """
        small = len(payload) <= GATHER
        piece = self._piece(kind, bytes(payload) if small else payload, flags)
        with self.lock:
            self._check_usable()
            self._await(stream, stream.senders, lambda: self._has_turn(stream, piece))
            if self._is_over(stream, piece):
                raise StreamCancelled
            stream.ahead = ahead
            stream.outgoing.append(piece)
            self._queue.add(stream)
            self._work.set()
            if kind is Kind.MESSAGE or small:
                return
            try:
                self._await(
                    stream,
                    stream.senders,
                    lambda: not stream.outgoing or self._is_over(stream, piece),
                )
            finally:
                unsent = bool(stream.outgoing)
                stream.outgoing.clear()
            if unsent:
                raise StreamCancelled

    def _has_turn(self, stream: Stream, piece: Piece) -> bool:
        if not stream.outgoing:
            return True
        # a copy, as everywhere: an interrupt that waits lets others have the lock
        queued = sum(len(each.payload) for each in tuple(stream.outgoing))
        fits = queued + len(piece.payload) <= GATHER and len(stream.outgoing) < MOST_QUEUED
        return not queued or fits or piece.bare_end or self._is_over(stream, piece)

    def _is_over(self, stream: Stream, piece: Piece) -> bool:
        """Whether nothing more of ``stream`` is wanted; a cancelled one has yet to be ended."""
        ended = stream.ended and self._protocol.side == "client"
        return ended or (stream.cancelled and not piece.bare_end)

    def _piece(self, kind: Kind, payload: Buffer, flags: int) -> Piece:
        packed, flag = self.compression.apply(payload)
        return Piece(kind, packed, flags | flag, len(payload))

    def take(self, stream: Stream) -> Frame | None:
        """Return the next frame of a stream, when it is there; the one before is used up."""
        with self.lock:
            used, stream.using = stream.using, None
            if used is not None:
                self._protocol.release(used)
                self._work.set()
            self._await(
                stream,
                stream.receivers,
                lambda: stream.frames or stream.ended or stream.cancelled,
            )
            if stream.cancelled:
                raise StreamCancelled
            if not stream.frames:
                return None
            self._taken += 1
            stream.using = stream.frames.popleft()
            return stream.using

    def check(self, stream: Stream) -> None:
        """Raise if nothing more can be sent in a stream."""
        with self.lock:
            self._check_usable()
            if stream.cancelled:
                raise StreamCancelled

    def cancel(self, stream: Stream) -> None:
        """Give a stream up."""
        with self.lock:
            stream.cancelled = True
            stream.frames.clear()
            stream.outgoing.clear()
            stream.using = None
            self._queue.discard(stream)
            self._streams.pop(stream.stream_id, None)
            if self.failure is None and (frame := self._protocol.cancel(stream.stream_id)):
                self._queue_control(frame)

    # -- waiting -----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self.failure is not None:
            raise RemoteConnectionError(self.failure)
        if self._closing:
            raise RemoteConnectionError(f"{self.name}: the connection was closed")
        if current_thread() in self._threads:
            # garbage was collected in one of the two threads for which it would have to wait
            raise RemoteConnectionError(
                f"{self.name}: a finalizer uses the connection in a thread of that connection"
            )

    def _await(self, stream: Stream, waiting: list[Wakeup], ready: Callable[[], object]) -> None:
        """Wait, the lock held, until ``ready()``; ping a silent peer, give up on a dead one.

        Args:
            stream: for a change of which.
            waiting: those that wait for the same, while this one does.
            ready: whether there is nothing to wait for.
        """
        if ready():
            return
        wakeup = Wakeup()
        waiting.append(wakeup)  # before it is looked again: then nothing is missed
        try:
            self._await_change(stream, wakeup, ready)
        finally:
            waiting.remove(wakeup)

    def _await_change(self, stream: Stream, wakeup: Wakeup, ready: Callable[[], object]) -> None:
        began = since = time.monotonic()
        taken, most = self._taken, inf if self.timeout is None else self.timeout / 4
        while True:
            wakeup.clear()
            if ready():
                return
            self._check_usable()
            if self._input_over and not self._can_go_out(stream):
                raise RemoteConnectionError("the connection was closed")  # the client has a name
            held_back = self._protocol.side == "client" and not stream.stream_id
            if not held_back or self._taken != taken or not self._all_wait_here():
                taken, since = self._taken, time.monotonic()
            elif time.monotonic() - since >= PATIENCE:
                raise Rejected(
                    f"{self.name}: {self._protocol.limit} requests are unfinished on this "
                    "connection, such as listings of which the rest is not read; finish or close "
                    "some"
                )
            patience = min(most, PATIENCE / 4) if held_back else most
            asleep = time.monotonic()
            with _Unlocked(self.lock):
                in_time = wakeup.wait(None if patience == inf else patience)
            if not in_time and _stopped_for(asleep, patience):
                began = since = time.monotonic()  # what was not heard meanwhile is no silence
            if not in_time and (patience == most or not stream.stream_id):
                self._check_silence(stream, began)

    def _can_go_out(self, stream: Stream) -> bool:
        return bool(stream.outgoing) and self._queue.may_go(stream)

    def _all_wait_here(self) -> bool:
        """Whether of every open stream something has come that is not read.

        The server ends a stream by itself, unless it has to wait until its answer is read here. If
        that is so of all, and nothing is read, a request has nothing to wait for.
        """
        streams, opened = list(self._streams.values()), len(self._protocol)
        full = opened >= self._protocol.limit and opened == len(streams)
        return full and all(stream.frames for stream in streams)

    def _check_silence(self, stream: Stream, began: float) -> None:
        if self.timeout is None:
            return
        silent = self._keepalive.silence(began)
        if silent >= self.timeout:
            with _Unlocked(self.lock):
                self.fail(f"the server was silent for {silent:.0f} s while an answer was due")
        elif self._protocol.state(stream.stream_id) is not None:
            # about this very stream: a server that does not know it says so
            self._queue_control(Frame(Kind.PING, stream.stream_id))
        elif self._keepalive.ping_due(began, self.timeout / 4):
            self._queue_control(Frame(Kind.PING, 0))

    def _queue_control(self, frame: Frame) -> None:
        self._queue.controls.append(encode_frame(frame))
        self._work.set()

    def _queue_reply(self, frame: Frame) -> None:
        """Queue a frame that the peer can do without, if it reads what it asks for."""
        if len(self._queue.controls) < MOST_CONTROLS:
            self._queue_control(frame)

    # -- the thread that writes --------------------------------------------------------------------

    def _run_writer(self) -> None:
        try:
            while (data := self._next_bytes()) is not None:
                self._write(data)
        except (OSError, ValueError) as error:
            with self.lock:  # if the input ends as well, that is the better story: it has an end
                self._changed.wait_for(lambda: self._dying or self._input_over, LAST_WORDS)
            self.fail(f"the connection broke while writing ({error})")
        except BaseException as error:
            self.fail(f"writing failed with {error!r}")
            raise
        finally:
            _close_quietly(self._writer)

    def _next_bytes(self) -> bytes | None:
        """Wait for something to write and return it; ``None`` when there will be nothing more."""
        while True:
            if not self._looks_again:  # what is queued from now on is told
                self._work.wait()
            with self.lock:
                found = self._queue.take()
                self._looks_again = len(found) >= GATHER or self._closing
                if found:
                    return found
                if self._closing or self.failure is not None:
                    return None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not (count := self._writer.write(view)):
                raise BlockingIOError("the stream is full, and does not wait")
            view = view[count:]
        self._writer.flush()

    # -- the thread that reads ---------------------------------------------------------------------

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

    def _allocate(self, kind: Kind, stream_id: int, flags: int, length: int) -> memoryview | None:
        """Return where the payload of a frame whose header has come is wanted."""
        with self.lock:
            stream = self._streams.get(stream_id)
            if stream is None or kind not in (Kind.MESSAGE, Kind.DATA):
                return None
            return stream.buffer.allocate(kind, flags, length)

    def _end_input(self) -> None:
        """Take note of the end: the death of a server; of a client only that it asks no more."""
        if self._protocol.side == "client":
            self.fail(CLOSED)
            return
        with self.lock:
            self._input_over = True
            self._notify(self._queue.waiting())

    def _handle_next(self) -> bool:
        """Wait for bytes and hand on what they complete, of which nothing is kept here."""
        frames = self._read()
        if frames is None:
            return False
        self._keepalive.hear()
        for frame in frames:
            whole = decompress_payload(frame)  # one at a time, each of which is counted
            with self.lock:
                self._handle(whole)
        arriving = self._protocol.side == "server" and not self._decoder.idle
        if arriving and self._keepalive.sign_due():
            with self.lock:
                self._queue_reply(Frame(Kind.PONG, 0))
        return True

    def _read(self) -> list[Frame] | None:
        """Wait for bytes and return the frames that they complete; ``None`` after the last byte."""
        if self._leftover:
            leftover, self._leftover = self._leftover, b""
            return self._decoder.feed(leftover)
        view = self._decoder.buffer()
        count = self._reader.readinto(view)
        if count is None:
            raise BlockingIOError("the stream is empty, and does not wait")
        if not count:
            return None
        if self.greeting is None or self.greeting.hello is not None:
            return self._decoder.received(count)
        begun = self.greeting.feed(view[:count])
        with self.lock:
            self._changed.notify_all()
        return self._decoder.feed(begun or b"")

    def _handle(self, frame: Frame) -> None:
        event = self._protocol.receive(frame)
        if isinstance(event, Received):
            self._handle_content(event)
        elif isinstance(event, Credited):
            self._work.set()
        elif isinstance(event, Cancelled):
            self._handle_cancel(event.stream_id)
        elif isinstance(event, Refused):
            refusal = Frame(Kind.MESSAGE, event.stream_id, Flag.END, self._refusal)
            self._queue_reply(refusal)
        elif isinstance(event, Heard) and event.reply is not None:
            self._queue_reply(event.reply)
        if self._queue.openings or self._protocol.due:
            self._work.set()  # one may have ended, and make room; what came late is credited

    def _handle_content(self, event: Received) -> None:
        if event.opening:
            stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
        elif (known := self._streams.get(event.stream_id)) is not None:
            stream = known
        else:
            return
        stream.ended = stream.ended or event.frame.end
        if not stream.cancelled:
            stream.frames.append(event.frame)
        if stream.ended and self._protocol.side == "client":
            self._streams.pop(event.stream_id, None)
        stream.wake()
        if event.opening and self._on_request is not None:
            self._on_request(stream)

    def _handle_cancel(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.cancelled = True
            stream.frames.clear()
            ending = any(piece.flags & Flag.END for piece in stream.outgoing)
            stream.outgoing.clear()  # there may never be room for it
            if ending:
                stream.outgoing.append(Piece(Kind.DATA, b"", Flag.END, 0))
                self._work.set()
            stream.wake()


class _Unlocked:
    """Lets others have a lock, however often this thread has taken it."""

    __slots__ = ("_lock", "_taken")

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._taken = self._lock._release_save()  # noqa: SLF001 (what a Condition does, too)

    def __exit__(self, *_: object) -> None:
        self._lock._acquire_restore(self._taken)  # noqa: SLF001


def _stopped_for(began: float, patience: float) -> float:
    """Return for how many seconds this process was stopped while it waited.

    By Ctrl-Z, say, or by a batch system that suspends jobs. Its peer may have been stopped with it,
    and what that has said was not read: it is not to blame for either.

    Args:
        began: when the wait began.
        patience: how long it was to be.
    """
    late = time.monotonic() - began - patience
    return late if late >= STOPPED_SECONDS else 0.0


class _Keepalive:
    """When signs of life went each way.

    A client asks a silent server for one with a PING. It would wait for an answer in vain while a
    long frame is on its slow way to the server: the PING is queued behind it. So a server says by
    itself, now and then, that bytes arrive.
    """

    def __init__(self) -> None:
        self._heard = self._asked = self._given = time.monotonic()

    def hear(self) -> None:
        """Take note that bytes have come."""
        self._heard = time.monotonic()

    def silence(self, began: float) -> float:
        """Return for how many seconds nothing has come to a thread that waits since ``began``."""
        return time.monotonic() - max(self._heard, began)

    def ping_due(self, began: float, every: float) -> bool:
        """Return whether to ask now: once in ``every`` seconds of waiting at most."""
        now = time.monotonic()
        if now - max(self._asked, began) < every:
            return False
        self._asked = now
        return True

    def sign_due(self) -> bool:
        """Return whether it is time to say that bytes come."""
        if self._heard - self._given < TELL_SECONDS:
            return False
        self._given = self._heard
        return True


def _close_quietly(stream: ByteReader | ByteWriter) -> None:
    try:
        stream.close()
    except (OSError, ValueError) as error:
        log.debug("closing a stream: %s", error)
