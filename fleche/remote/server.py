"""The server: a loop that answers a client's requests from any cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fleche.caches.base import BaseCache
from fleche.parcel import Buffer
from fleche.remote.compression import Compression, available_codecs
from fleche.remote.failures import no_room, to_failure
from fleche.remote.greeting import ServerGreeting
from fleche.remote.handlers import Handlers
from fleche.remote.info import server_info
from fleche.remote.link import Link
from fleche.remote.messages import encode
from fleche.remote.session import FEATURES, PROTOCOL, Session
from fleche.remote.workers import Workers
from fleche.version import __version__

__all__ = ["serve"]

log = logging.getLogger("fleche.remote.server")

DRAIN = 1.0


def serve(
    input_stream: Any,
    output_stream: Any,
    cache: BaseCache,
    *,
    cache_name: str | None = None,
) -> None:
    """Answer requests until ``input_stream`` ends. Both streams stay open, for who called.

    An exception of the cache goes to the client as itself, or, if it cannot be pickled, as a
    :class:`RuntimeError` that carries its repr and traceback.

    Args:
        input_stream: binary readable stream, such as ``sys.stdin.buffer``.
        output_stream: binary writable stream, such as ``sys.stdout.buffer``.
        cache: the cache to serve. It must not write to ``output_stream``.
        cache_name: the name the server was started with, told to clients for their information.

    Raises:
        ProtocolError: whoever is at the other end is no client of fleche.
    """
    reader, writer = _Input(input_stream), _Output(output_stream)
    greeting = ServerGreeting((PROTOCOL, PROTOCOL))
    leftover = _read_greeting(reader, greeting)
    if leftover is None or greeting.hello is None:
        return
    info = server_info(cache, cache_name)
    features = (*FEATURES, *available_codecs())
    session = Session("server")
    try:
        writer.write(greeting.answer(features, __version__, info, requests=session.limit))
        writer.flush()
    except OSError as error:
        log.debug("the client is gone before it had its answer: %s", error)
        return
    workers = Workers("fleche server")
    handlers = Handlers(cache, cache_name)
    link = Link(
        session,
        reader,
        writer,
        name="server",
        compression=Compression(_shared_codec(greeting.hello.features)),
        leftover=leftover,
        on_request=lambda stream: workers.run(lambda: handlers.handle(stream)),
        refusal=encode(to_failure(no_room(session.limit))),
    )
    link.start(reader_thread=False)
    link.run_reader()
    workers.finish(DRAIN)
    link.close()
    link.join(DRAIN)


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
