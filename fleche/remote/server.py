"""The server: a loop that answers a client's requests from any cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleche.caches.base import BaseCache
from fleche.remote.compression import Compression, available_codecs
from fleche.remote.greeting import ServerGreeting
from fleche.remote.handlers import Handlers
from fleche.remote.info import server_info
from fleche.remote.link import Link
from fleche.remote.session import FEATURES, PROTOCOL, Session
from fleche.remote.workers import Workers
from fleche.version import __version__

__all__ = ["serve"]

DRAIN = 1.0


def serve(
    input_stream: Any,
    output_stream: Any,
    cache: BaseCache,
    *,
    cache_name: str | None = None,
) -> None:
    """Answer requests until ``input_stream`` ends.

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
    reader = _Reader(input_stream)
    greeting = ServerGreeting((PROTOCOL, PROTOCOL))
    leftover = _read_greeting(reader, greeting)
    if leftover is None or greeting.hello is None:
        return
    info = server_info(cache, cache_name)
    features = (*FEATURES, *available_codecs())
    output_stream.write(greeting.answer(features, __version__, info))
    output_stream.flush()
    workers = Workers("fleche server")
    handlers = Handlers(cache, cache_name)
    link = Link(
        Session("server"),
        reader,
        output_stream,
        name="server",
        compression=Compression(_shared_codec(greeting.hello.features)),
        leftover=leftover,
        on_request=lambda stream: workers.run(lambda: handlers.handle(stream)),
    )
    link.start(reader_thread=False)
    link.run_reader()
    workers.finish(DRAIN)
    link.close()
    link.join(DRAIN)


def _shared_codec(offered: tuple[str, ...]) -> str:
    wanted = next((word[9:] for word in offered if word.startswith("compress=")), "")
    return wanted if wanted in available_codecs() else ""


def _read_greeting(reader: _Reader, greeting: ServerGreeting) -> bytes | None:
    buffer = memoryview(bytearray(1 << 16))
    while count := reader.readinto(buffer):
        leftover = greeting.feed(buffer[:count])
        if leftover is not None:
            return leftover
    return None


class _Reader:
    """A readable stream whose ``readinto`` returns as soon as there is something."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._readinto: Callable[[memoryview], int | None] = getattr(
            stream, "readinto1", stream.readinto
        )

    def readinto(self, buffer: memoryview, /) -> int | None:
        return self._readinto(buffer)

    def close(self) -> None:
        self._stream.close()
