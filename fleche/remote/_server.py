"""The server: a loop that takes requests, and threads that answer them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread, Timer, current_thread
from typing import Any

from fleche._util import __version__
from fleche.caches import BaseCache
from fleche.errors import ConfigError
from fleche.parcel import Buffer
from fleche.remote._compression import Compression, available_codecs
from fleche.remote._errors import no_room, to_failure
from fleche.remote._handlers import Handlers
from fleche.remote._handshake import NOT_GREETED, ServerGreeting, check_way, server_info, via
from fleche.remote._messages import encode
from fleche.remote._multiplexer import Multiplexer
from fleche.remote._protocol import PROTOCOL, Protocol
from fleche.remote._streams import Stream

__all__ = ["serve", "serve_unopened"]

log = logging.getLogger("fleche.remote.server")

DRAIN = 1.0

GREETING_SECONDS = 3.0
"""Seconds without a greeting after which a server says that it has had none."""
IDLE_SECONDS = 5.0


def serve(
    input_stream: Any,
    output_stream: Any,
    cache: BaseCache,
    *,
    cache_name: str | None = None,
) -> None:
    """Answer requests until ``input_stream`` ends. Both streams stay open, for the caller.

    An exception of the cache goes to the client as itself, or, if it cannot be pickled, as a
    :class:`RuntimeError` that carries its repr and traceback.

    Args:
        input_stream: binary readable stream, such as ``sys.stdin.buffer``.
        output_stream: binary writable stream, such as ``sys.stdout.buffer``.
        cache: the cache to serve. It must not write to ``output_stream``.
        cache_name: the name the server was started with, told to clients for their information.

    Raises:
        ConfigError: the cache asks itself, through a remote cache.
        ProtocolError: what is at the other end is no client of fleche.
    """
    _serve(input_stream, output_stream, cache, cache_name, lambda: None)


def serve_unopened(
    input_stream: Any, output_stream: Any, cache: BaseCache, *, cache_name: str | None = None
) -> None:
    """Do what :func:`serve` does, and open no value: what is sent is kept as it is.

    Raises:
        ConfigError: the cache opens the values it is sent, or asks itself.
        ProtocolError: what is at the other end is no client of fleche.
    """

    def check() -> None:
        # a served remote cache tells that of itself when it has been greeted, on this way
        if cache.capabilities.opens_parcels:
            raise ConfigError(
                f"cache {cache_name or 'default'}: it opens the values it is sent, and "
                "--no-unpickle forbids that; serve another cache, or store values as files"
            )

    _serve(input_stream, output_stream, cache, cache_name, check)


def _serve(
    input_stream: Any,
    output_stream: Any,
    cache: BaseCache,
    cache_name: str | None,
    check: Callable[[], None],
) -> None:
    reader, writer = _Input(input_stream), _Output(output_stream)
    greeting = ServerGreeting((PROTOCOL, PROTOCOL))
    notice = Timer(GREETING_SECONDS, _say_not_greeted, (writer,))
    notice.daemon = True
    notice.start()
    try:
        leftover = _read_greeting(reader, greeting)
    finally:
        notice.cancel()
        notice.join()
    if leftover is None or greeting.hello is None:
        log.warning("the input ended before a greeting came")
        return
    here = via.set(check_way(cache, greeting.hello.via))
    try:
        check()
        _answer_requests(reader, writer, greeting, leftover, cache, cache_name)
    finally:
        via.reset(here)


def _answer_requests(
    reader: _Input,
    writer: _Output,
    greeting: ServerGreeting,
    leftover: bytes,
    cache: BaseCache,
    cache_name: str | None,
) -> None:
    assert greeting.hello is not None
    info = server_info(cache, cache_name)
    features = available_codecs()
    protocol = Protocol("server")
    try:
        writer.write(greeting.answer(features, __version__, info, requests=protocol.limit))
        writer.flush()
    except OSError as error:
        log.debug("the client is gone before it had its answer: %s", error)
        return
    workers = _Workers("fleche server")
    handlers = Handlers(cache, cache_name)
    refusal = encode(to_failure(no_room(protocol.limit)))

    def begin(stream: Stream) -> None:
        try:
            workers.run(partial(handlers.handle, stream))
        except RuntimeError:
            if not workers:
                raise
            log.debug("the system has no thread for one more request now")
            stream.send_message(refusal, end=True)

    mux = Multiplexer(
        protocol,
        reader,
        writer,
        name="server",
        compression=Compression(_shared_codec(greeting.hello.features)),
        leftover=leftover,
        on_request=begin,
        refusal=refusal,
    )
    mux.start(reader_thread=False)
    mux.run_reader()
    workers.finish(DRAIN)
    mux.close()
    mux.join(DRAIN)


def _say_not_greeted(writer: _Output) -> None:
    """Tell a client whose greeting was taken by something else that this is a server, and waits."""
    with suppress(OSError, ValueError):
        writer.write(NOT_GREETED)
        writer.flush()


def _shared_codec(offered: tuple[str, ...]) -> str:
    wanted = next((word[9:] for word in offered if word.startswith("compress=")), "")
    return wanted if wanted in available_codecs() else ""


def _read_greeting(reader: _Input, greeting: ServerGreeting) -> bytes | None:
    buffer = memoryview(bytearray(1 << 16))
    while count := reader.readinto(buffer):
        leftover = greeting.feed(buffer[:count])
        if leftover is not None:
            return leftover
    return None


class _Input:
    """The input: ``readinto`` returns as soon as there is something; its owner closes it."""

    def __init__(self, stream: Any) -> None:
        self.readinto: Callable[[memoryview], int | None] = getattr(
            stream, "readinto1", stream.readinto
        )

    def close(self) -> None:
        """Leave it open."""


class _Output:
    """The output; its owner closes it."""

    def __init__(self, stream: Any) -> None:
        self.write: Callable[[Buffer], int | None] = stream.write
        self.flush: Callable[[], None] = stream.flush

    def close(self) -> None:
        """Leave it open."""


class _Workers:
    """A pool without a size: a job starts at once, on an idle thread or a new one.

    The caller bounds the number of jobs. So a job may wait, for its client say, as long as
    it likes: it keeps no other waiting.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._threads: set[Thread] = set()
        self._idle = 0
        self._finishing = False

    def __bool__(self) -> bool:
        """Return whether there are threads."""
        return bool(self._threads)

    def run(self, job: Callable[[], None]) -> None:
        """Run ``job`` in a thread; what it raises is logged.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
                return
            thread = Thread(
                target=copy_context().run,
                args=(self._work, [job]),
                name=f"{self._name} worker",
                daemon=True,
            )
            thread.start()
            self._threads.add(thread)

    def finish(self, timeout: float) -> None:
        """Wait for the jobs to end, but not longer than ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._finishing = True
            for _ in range(self._idle):
                self._jobs.put(None)
            self._idle = 0
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, first: list[Callable[[], None]]) -> None:
        job: Callable[[], None] | None = first.pop()  # of which a thread would keep its arguments
        while job is not None:
            try:
                job()
            except BaseException:
                log.exception("a job of the server failed")
            del job  # and all that it holds
            job = self._next()

    def _next(self) -> Callable[[], None] | None:
        """Return the next job; ``None`` when this thread is to end."""
        with self._lock:
            if self._finishing:
                return None
            self._idle += 1
        while True:
            with suppress(Empty):
                return self._jobs.get(timeout=IDLE_SECONDS)
            with self._lock:
                if self._idle:
                    self._idle -= 1
                    self._threads.discard(current_thread())
                    return None
            # a job was put for this thread at the last moment, and it or a later one takes it
