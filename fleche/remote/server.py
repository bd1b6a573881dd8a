"""The server: a loop that answers a client's requests from any cache.

It never opens a parcel and never unpickles anything that a client sends: values pass through as
bytes.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from fleche.caches.base import BaseCache
from fleche.call import decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import ProtocolError
from fleche.parcel import IncomingParcel, Parcel, StreamSource
from fleche.redaction import redact
from fleche.remote import messages as m
from fleche.remote.compression import Compression, available_codecs
from fleche.remote.failures import to_failure
from fleche.remote.frames import CHUNK
from fleche.remote.greeting import ServerGreeting
from fleche.remote.link import Link
from fleche.remote.session import FEATURES, PROTOCOL, Session
from fleche.remote.streams import ConnectionDied, Stream, StreamCancelled
from fleche.remote.uploads import Upload
from fleche.remote.workers import Workers
from fleche.version import __version__

__all__ = ["serve", "server_info"]

log = logging.getLogger("fleche.remote.server")

LISTED = 256
LISTED_BYTES = 1 << 18
LISTED_AHEAD = 1 << 20
"""How much of a listing is sent before the reader has used it: it may want no more."""

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
    server = _Server(cache, cache_name)
    link = Link(
        Session("server"),
        reader,
        output_stream,
        name="server",
        compression=Compression(_shared_codec(greeting.hello.features)),
        leftover=leftover,
        on_request=lambda stream: workers.run(lambda: server.handle(stream)),
    )
    link.start(reader_thread=False)
    link.run_reader()
    workers.finish(DRAIN)
    link.close()
    link.join(DRAIN)


def server_info(cache: BaseCache, cache_name: str | None) -> dict[str, Any]:
    """Return what the server says of itself; credentials are hidden."""
    capabilities = cache.capabilities
    return {
        "cache": redact(_described(cache)),
        "cache_name": cache_name,
        "read_only": capabilities.read_only,
        "fleche_version": __version__,
        "cloudpickle_version": cloudpickle.__version__,
        "cwd": os.getcwd(),
        "hostname": socket.gethostname(),
        "python": platform.python_version(),
        "pid": os.getpid(),
        "capabilities": {
            "persistent": capabilities.persistent,
            "shared": capabilities.shared,
            "opens_parcels": capabilities.opens_parcels,
        },
    }


def _described(cache: BaseCache) -> Any:
    try:
        return cache.to_config()
    except Exception as error:  # noqa: BLE001 (a cache without a configuration can be served too)
        log.debug("the cache has no configuration: %s", error)
        return {"type": type(cache).__name__}


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


class _Server:
    """What each request does to the cache."""

    def __init__(self, cache: BaseCache, cache_name: str | None) -> None:
        self._cache = cache
        self._cache_name = cache_name
        self._handlers: dict[type, Callable[[Any, Stream], None]] = {
            m.Info: self._info,
            m.Load: self._load,
            m.LoadParcel: self._load_parcel,
            m.SaveRecords: self._save_records,
            m.SaveParcels: self._save_parcels,
            m.Missing: self._missing,
            m.Contains: self._contains,
            m.Evict: self._evict,
            m.Expand: self._expand,
            m.Shrink: self._shrink,
            m.Query: self._query,
        }

    def handle(self, stream: Stream) -> None:
        """Answer one exchange, whatever happens."""
        try:
            data = stream.receive_message()
            request = m.decode_request(data or b"")
            self._handlers[type(request)](request, stream)
        except StreamCancelled:
            self._end(stream)
        except ConnectionDied:
            log.debug("the client is gone; request %d dropped", stream.exchange)
        except BaseException as error:  # noqa: BLE001 (the client is told, and we go on)
            self._fail(stream, error)

    def _fail(self, stream: Stream, error: BaseException) -> None:
        if isinstance(error, ProtocolError):
            log.warning("malformed request: %s", error)
        try:
            stream.send_message(m.encode(to_failure(error)), end=True)
        except StreamCancelled:
            self._end(stream)
        except ConnectionDied:
            log.debug("the client is gone; its failure was %r", error)

    def _end(self, stream: Stream) -> None:
        try:
            stream.end()
        except (StreamCancelled, ConnectionDied) as error:
            log.debug("nothing to end: %r", error)

    # -- requests ----------------------------------------------------------------------------------

    def _info(self, _: m.Info, stream: Stream) -> None:
        info = server_info(self._cache, self._cache_name)
        _answer(stream, m.InfoAnswer(info))

    def _load(self, request: m.Load, stream: Stream) -> None:
        for key in request.keys:
            try:
                record = self._cache.load_record(Digest(key))
            except KeyError:
                _answer(stream, m.Found(), end=False)
                continue
            found = encode_record(record)
            parcel = self._small_result(record.result, request.inline)
            if parcel is None:
                _answer(stream, m.Found(found), end=False)
            else:
                _send_parcel(stream, m.Found(found, parcel.nbytes), parcel)
        stream.end()

    def _small_result(self, digest: Digest | None, limit: int) -> Parcel | None:
        if not limit or digest is None:
            return None
        try:
            parcel = self._cache.load_parcel(digest)
        except KeyError:
            return None
        if parcel.nbytes <= limit:
            return parcel
        parcel.close()
        return None

    def _load_parcel(self, request: m.LoadParcel, stream: Stream) -> None:
        for digest in request.digests:
            try:
                parcel = self._cache.load_parcel(Digest(digest))
            except KeyError:
                _answer(stream, m.Found(), end=False)
            else:
                _send_parcel(stream, m.Found(None, parcel.nbytes), parcel)
        stream.end()

    def _save_records(self, request: m.SaveRecords, stream: Stream) -> None:
        records = {Digest(key): decode_record(record) for key, record in request.records}
        self._cache.save_records(records)
        _answer(stream, m.Done())

    def _save_parcels(self, request: m.SaveParcels, stream: Stream) -> None:
        """Store parcels as they arrive, one chunk in memory at a time.

        A storage does not read what it has already. That is skipped to get at the next one; after
        the last one there is the answer at once, which ends the upload.
        """
        data = Upload(stream)
        for digest, size in request.parcels:
            data.skip()
            incoming = IncomingParcel(StreamSource(size, data.take(size)))
            self._cache.save_parcel(Digest(digest), incoming)
        _answer(stream, m.Done())

    def _missing(self, request: m.Missing, stream: Stream) -> None:
        found = self._cache.missing([Digest(digest) for digest in request.digests])
        _answer(stream, m.Digests([str(digest) for digest in found]))

    def _contains(self, request: m.Contains, stream: Stream) -> None:
        _answer(stream, m.Flags([self._cache.contains(key) for key in request.keys]))

    def _evict(self, request: m.Evict, stream: Stream) -> None:
        self._cache.evict(request.key)
        _answer(stream, m.Done())

    def _expand(self, request: m.Expand, stream: Stream) -> None:
        _answer(stream, m.Digests([str(self._cache.expand(request.key))]))

    def _shrink(self, request: m.Shrink, stream: Stream) -> None:
        _answer(stream, m.Digests([str(key) for key in self._cache.shrink(*request.keys)]))

    def _query(self, request: m.Query, stream: Stream) -> None:
        calls = ((str(call.key), encode_record(call.record)) for call in self._found(request))
        for batch in _batched(calls):
            stream.send_message(m.encode(m.Listed(batch)), ahead=LISTED_AHEAD)
        stream.end()

    def _found(self, request: m.Query) -> Iterator[Any]:
        return iter(self._cache.query(request.template))


def _batched(calls: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield calls in batches: small first, so that the first are there soon, never too large."""
    batch: list[tuple[str, bytes]] = []
    size, most = 0, 8
    for call in calls:
        batch.append(call)
        size += len(call[1])
        if len(batch) >= most or size >= LISTED_BYTES:
            yield batch
            batch, size, most = [], 0, min(LISTED, most * 2)
    if batch:
        yield batch


def _answer(stream: Stream, message: m.Answer, *, end: bool = True) -> None:
    stream.send_message(m.encode(message), end=end)


def _send_parcel(stream: Stream, found: m.Found, parcel: Parcel) -> None:
    """Send what was found and the parcel's bytes, one chunk in memory at a time."""
    try:
        _answer(stream, found, end=False)
        for chunk in parcel.chunks(CHUNK):
            stream.send_data(chunk)
    finally:
        parcel.close()
