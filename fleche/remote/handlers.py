"""What a server does with each request.

It never opens a parcel and never unpickles anything that a client sends: values pass through as
bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from fleche.caches.base import BaseCache
from fleche.caches.upkeep import Report
from fleche.call import CallRecord, decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import ParcelError, ProtocolError, RemoteConnectionError
from fleche.parcel import IncomingParcel, Parcel, StreamSource
from fleche.remote import messages as m
from fleche.remote.failures import to_failure
from fleche.remote.frames import CHUNK
from fleche.remote.info import server_info
from fleche.remote.reports import Telling, parts
from fleche.remote.streams import Stream, StreamCancelled
from fleche.remote.uploads import Upload

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
            m.Gc: self._gc,
            m.Verify: self._verify,
            m.Redigest: self._redigest,
            m.Measure: self._measure,
        }

    def handle(self, stream: Stream) -> None:
        """Answer one exchange, whatever happens."""
        try:
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
        for key in request.keys:
            try:
                record, parcel = self._fetch(Digest(key), request.inline)
            except KeyError:
                _answer(stream, m.Found(), end=False)
                continue
            found = encode_record(record)
            if parcel is None:
                _answer(stream, m.Found(found), end=False)
            else:
                _send_parcel(stream, m.Found(found, parcel.nbytes), parcel)
        stream.end()

    def _fetch(self, key: Digest, limit: int) -> tuple[CallRecord, Parcel | None]:
        """Return a record with its result, if that has at most ``limit`` bytes.

        With a limit this is a hit, and counts as one: a stack copies it down, a limited cache keeps
        it longer. A result that is gone or damaged is none: who asks for it alone is told.
        """
        if not limit:
            return self._cache.load_record(key), None
        record, parcel = self._cache.fetch(key)
        if parcel is None and record.result is not None:
            with suppress(KeyError, ParcelError):
                parcel = self._cache.load_parcel(record.result)
        if parcel is not None and parcel.nbytes > limit:
            parcel.close()
            parcel = None
        return record, parcel

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
        _answer(stream, m.Flags(self._cache.contains_many([Digest(key) for key in request.keys])))

    def _evict(self, request: m.Evict, stream: Stream) -> None:
        self._cache.evict(request.key)
        _answer(stream, m.Done())

    def _expand(self, request: m.Expand, stream: Stream) -> None:
        _answer(stream, m.Digests([str(self._cache.expand(request.key))]))

    def _shrink(self, request: m.Shrink, stream: Stream) -> None:
        _answer(stream, m.Digests([str(key) for key in self._cache.shrink(*request.keys)]))

    def _query(self, request: m.Query, stream: Stream) -> None:
        for batch in _batched(self._found(request)):
            stream.send_message(m.encode(m.Listed(batch)), ahead=LISTED_AHEAD)
        stream.end()

    def _found(self, request: m.Query) -> Iterator[tuple[str, bytes]]:
        if request.keys_only:
            return ((str(key), b"") for key in self._cache.call_keys(request.template))
        found = self._cache.query(request.template)
        return ((str(call.key), encode_record(call.record)) for call in found)

    # -- keeping house -----------------------------------------------------------------------------

    def _gc(self, request: m.Gc, stream: Stream) -> None:
        options: dict[str, Any] = {"lease_age": request.lease_age, "dry_run": request.dry_run}
        telling = _telling(stream)
        _report(stream, self._cache.gc(request.grace, progress=telling, **options))

    def _verify(self, request: m.Verify, stream: Stream) -> None:
        _report(stream, self._cache.verify(request.repair, progress=_telling(stream)))

    def _redigest(self, _: m.Redigest, stream: Stream) -> None:
        _report(stream, self._cache.redigest(unpickle=False, progress=_telling(stream)))

    def _measure(self, _: m.Measure, stream: Stream) -> None:
        _report(stream, self._cache.measure(_telling(stream)))


def _telling(stream: Stream) -> Telling:
    return Telling(lambda answer: _answer(stream, answer, end=False))


def _report(stream: Stream, report: Report) -> None:
    for part in parts(report):
        _answer(stream, part, end=False)
    stream.end()


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
