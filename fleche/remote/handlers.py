"""What a server does with each request.

It never opens a parcel and never unpickles anything that a client sends: values pass through as
bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from fleche.caches import BaseCache, CacheBackend, Report
from fleche.call import CallEntry, ValueRef
from fleche.digest import Address, Digest
from fleche.errors import ProtocolError, RemoteConnectionError
from fleche.parcel import IncomingParcel, Parcel, StreamSource
from fleche.remote import messages as m
from fleche.remote.failures import to_failure
from fleche.remote.frames import CHUNK
from fleche.remote.info import server_info
from fleche.remote.reports import Telling, parts
from fleche.remote.streams import Stream, StreamCancelled
from fleche.remote.uploads import Upload, from_wire, to_wire

__all__ = ["Handlers"]

log = logging.getLogger("fleche.remote.server")

LISTED = 256
LISTED_BYTES = 1 << 18
LISTED_AHEAD = 1 << 20
"""How much of a listing is sent before the reader has used it: it may want no more."""


class Handlers:
    """What each request does to the cache that is served."""

    def __init__(self, cache: BaseCache, cache_name: str | None) -> None:
        self._cache = cache
        self._backend: CacheBackend = cache.backend
        self._cache_name = cache_name
        self._handlers: dict[type, Callable[[Any, Stream], None]] = {
            m.Info: self._info,
            m.Load: self._load,
            m.LoadValues: self._load_values,
            m.Save: self._save,
            m.Lacking: self._lacking,
            m.Contains: self._contains,
            m.Evict: self._evict,
            m.Expand: self._expand,
            m.Shrink: self._shrink,
            m.Query: self._query,
            m.Maintain: self._maintain,
        }

    def handle(self, stream: Stream, check_room: Callable[[], None]) -> None:
        """Answer one exchange, whatever happens; what ``check_room`` raises is an answer, too."""
        try:
            check_room()
            data = stream.receive_message()
            request = m.decode_request(data or b"")
            self._handlers[type(request)](request, stream)
        except StreamCancelled:
            self._end(stream)
        except BaseException as error:  # noqa: BLE001 (the client is told, and we go on)
            self._fail(stream, error)

    def _fail(self, stream: Stream, error: BaseException) -> None:
        if isinstance(error, ProtocolError):
            log.warning("malformed request: %s", error)
        try:
            stream.send_message(m.encode(to_failure(error)), end=True)
        except StreamCancelled:
            self._end(stream)
        except RemoteConnectionError as gone:
            log.debug("the client is gone (%s); its failure was %r", gone, error)

    def _end(self, stream: Stream) -> None:
        try:
            stream.end()
        except (StreamCancelled, RemoteConnectionError) as error:
            log.debug("nothing to end: %r", error)

    # -- requests ----------------------------------------------------------------------------------

    def _info(self, _: m.Info, stream: Stream) -> None:
        info = server_info(self._cache, self._cache_name)
        _answer(stream, m.InfoAnswer(m.legible(info)))

    def _load(self, request: m.Load, stream: Stream) -> None:
        keys = [Digest(key) for key in request.keys]
        for key, entry in self._backend.load(keys, inline=request.inline):
            if isinstance(entry, CallEntry):
                self._send_entry(stream, key, entry, request.inline)
            else:
                _answer(stream, m.Found(key, failure=to_failure(entry)), end=False)
        stream.end()

    def _send_entry(self, stream: Stream, key: Digest, entry: CallEntry, limit: int) -> None:
        """Send an entry and, if it has at most ``limit`` bytes, the result that is kept apart.

        A result that is gone or damaged does not follow: a client that asks for it alone is told.
        """
        wire = to_wire(key, entry)
        result = _apart(entry)
        parcel = None
        if result is not None and result.size <= limit:
            for _, found in self._backend.load_values([result.address]):
                parcel = found if isinstance(found, Parcel) else None
        if parcel is None:
            _answer(stream, m.Found(key, wire), end=False)
        elif parcel.nbytes > limit:
            parcel.close()
            _answer(stream, m.Found(key, wire), end=False)
        else:
            _send_parcel(stream, m.Found(key, wire, parcel.nbytes), parcel)

    def _load_values(self, request: m.LoadValues, stream: Stream) -> None:
        addresses = [_address(each) for each in request.addresses]
        for at, parcel in self._backend.load_values(addresses):
            if isinstance(parcel, Parcel):
                _send_parcel(stream, m.Found(at, size=parcel.nbytes), parcel)
            else:
                _answer(stream, m.Found(at, failure=to_failure(parcel)), end=False)
        stream.end()

    def _save(self, request: m.Save, stream: Stream) -> None:
        """Store parcels as they arrive, one chunk in memory at a time, then the entries."""
        data = Upload(stream)

        def arriving() -> Iterator[tuple[Address, Parcel]]:
            for address, size in request.parcels:
                data.skip()  # what the storage has not read of the one before
                yield _address(address), IncomingParcel(StreamSource(size, data.take(size)))

        self._backend.save(
            dict(map(from_wire, request.entries)),
            arriving(),
            unpin=[Digest(key) for key in request.unpin],
        )
        _answer(stream, m.Done())

    def _lacking(self, request: m.Lacking, stream: Stream) -> None:
        wanted = [_address(each) for each in request.addresses]
        found = self._backend.lacking(wanted, keep=request.keep)
        _answer(stream, m.Digests([str(address) for address in found]))

    def _contains(self, request: m.Contains, stream: Stream) -> None:
        _answer(stream, m.Flags(self._backend.contains([_name(key) for key in request.keys])))

    def _evict(self, request: m.Evict, stream: Stream) -> None:
        _answer(stream, m.Flags(self._backend.evict([_name(key) for key in request.keys])))

    def _expand(self, request: m.Expand, stream: Stream) -> None:
        found = self._backend.expand(request.prefixes)
        _answer(stream, m.Expanded([[str(each) for each in full] for full in found]))

    def _shrink(self, request: m.Shrink, stream: Stream) -> None:
        found = self._backend.shrink([Digest(key) for key in request.keys])
        _answer(stream, m.Digests(["" if each is None else str(each) for each in found]))

    def _query(self, request: m.Query, stream: Stream) -> None:
        found = self._backend.query(request.template, keys_only=request.keys_only)
        wire = (
            m.WireEntry(str(key), b"") if entry is None else to_wire(key, entry)
            for key, entry in found
        )
        for batch in _batched(wire):
            stream.send_message(m.encode(m.Listed(batch)), ahead=LISTED_AHEAD)
        stream.end()

    def _maintain(self, request: m.Maintain, stream: Stream) -> None:
        telling = Telling(lambda answer: _answer(stream, answer, end=False))
        _report(stream, self._backend.maintain(request.task, telling))


def _name(text: str) -> Digest | Address:
    """Return the key or the address that a validated text is."""
    return _address(text.removesuffix(".")) if "." in text else Digest(text)


def _address(text: str) -> Address:
    return str.__new__(Address, text)


def _apart(entry: CallEntry) -> ValueRef | None:
    """Return the result of a call whose parcel does not travel with the record, if there is one."""
    result = entry.record.result
    if result is None or not result.variant or result.address in entry.parcels:
        return None
    return result


def _report(stream: Stream, report: Report) -> None:
    for part in parts(report):
        _answer(stream, part, end=False)
    stream.end()


def _batched(calls: Iterator[m.WireEntry]) -> Iterator[list[m.WireEntry]]:
    """Yield calls in batches: small first, so that the first are there soon, never too large."""
    batch: list[m.WireEntry] = []
    size, most = 0, 8
    for call in calls:
        batch.append(call)
        size += len(call.record) + sum(map(len, call.parcels.values()))
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
