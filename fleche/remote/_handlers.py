"""What a server does with each request, to any cache.

It never opens a parcel and never unpickles anything that a client sends: values pass through as
bytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import fields
from threading import Lock
from typing import Any

from fleche._util import batched
from fleche.caches import INLINE, MOST_EXPANDED, BaseCache, CacheBackend, Report
from fleche.call import CallEntry, ValueRef
from fleche.digest import Address, Digest
from fleche.errors import CorruptParcel, ParcelError, ProtocolError, Rejected, RemoteConnectionError
from fleche.parcel import Buffer, IncomingParcel, Parcel, StreamSource, verify
from fleche.remote import _messages as m
from fleche.remote._entries import entry_size, from_wire, to_wire
from fleche.remote._errors import Busy, to_failure
from fleche.remote._frames import CHUNK
from fleche.remote._handshake import server_info
from fleche.remote._room import AnswerRoom
from fleche.remote._streams import Stream, StreamCancelled

__all__ = ["Handlers"]

log = logging.getLogger("fleche.remote.server")

LISTED = 256
LISTED_BYTES = 1 << 18
LISTED_AHEAD = 1 << 20
"""How much of a listing is sent before the reader has used it: it may want no more."""


TELL_SECONDS = 0.2
"""Seconds between two words on how far the keeping of house is."""

REPORTED = 4096
"""So many digests are in one part of a report."""

RECORD_ITEMS = 1 << 18
"""Values in all records of one request; more than that of an ordinary request, one at a time."""

LONG_REQUEST = 1 << 16
"""A request of more bytes holds many things, or large ones."""

LONG_RECORD = 1 << 20
"""A record of more bytes does not travel in a message."""

EXPANDED = 1 << 14
"""Complete digests in an answer about prefixes; of many prefixes, some of each."""

SMALL_HEAD = 1 << 16
HEAD_LIMIT = 1 << 22
"""Bytes of the head of a parcel; there is an entry of some 40 in it for each 64 KiB or more."""


class Handlers:
    """What each request does to the cache that is served."""

    def __init__(self, cache: BaseCache, cache_name: str | None) -> None:
        self._cache = cache
        self._backend: CacheBackend = cache.backend
        self._cache_name = cache_name
        self._heavy = Lock()
        self._large_head = Lock()
        self._room = AnswerRoom(local=self._backend.local)
        self._in_one: dict[type, Callable[[Any], m.Answer]] = {
            m.Info: self._info,
            m.Lacking: self._lacking,
            m.Contains: self._contains,
            m.Evict: self._evict,
            m.Expand: self._expand,
            m.Shrink: self._shrink,
        }
        self._in_parts: dict[type, Callable[[Any, Stream], None]] = {
            m.Load: self._load,
            m.LoadValues: self._load_values,
            m.Save: self._save,
            m.Query: self._query,
            m.Maintain: self._maintain,
        }

    def handle(self, stream: Stream) -> None:
        """Answer one request, whatever happens."""
        try:
            self._answer(stream.receive_message() or b"", stream)
        except StreamCancelled:
            self._end(stream)
        except BaseException as error:  # noqa: BLE001 (the client is told, and we go on)
            self._fail(stream, error)

    def _answer(self, data: Buffer, stream: Stream) -> None:
        is_long = len(data) > LONG_REQUEST
        with self._room.making(stream.check) if is_long else nullcontext():
            request = m.decode_request(data)
        in_parts = self._in_parts.get(type(request))
        if in_parts is not None:
            in_parts(request, stream)
            return
        may_be_long = is_long or isinstance(request, m.Expand)
        with self._room.making(stream.check) if may_be_long else nullcontext():
            answer = m.encode(self._in_one[type(request)](request))
        del request, data  # while it waits to be read, nothing else is kept
        self._send(stream, answer, end=True)

    def _send(self, stream: Stream, answer: bytes, *, end: bool = False) -> None:
        with self._room.holding(len(answer)) as going_on:
            stream.send_message(answer, end=end, going_on=going_on)

    def _fail(self, stream: Stream, error: BaseException) -> None:
        if isinstance(error, ProtocolError):
            log.warning("malformed request: %s", error)
        try:
            stream.send_message(m.encode(to_failure(error)), end=True)
        except RemoteConnectionError as gone:
            log.debug("the client is gone (%s); its failure was %r", gone, error)
        except BaseException as another:  # noqa: BLE001 (a stream that is not ended waits for ever)
            if not isinstance(another, StreamCancelled):
                log.warning("a failure cannot be told: %r", another)
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        try:
            stream.end()
        except (StreamCancelled, RemoteConnectionError) as error:
            log.debug("nothing to end: %r", error)

    # -- requests ----------------------------------------------------------------------------------

    def _info(self, _: m.Info) -> m.Answer:
        return m.InfoAnswer(m.legible(server_info(self._cache, self._cache_name)))

    def _load(self, request: m.Load, stream: Stream) -> None:
        keys = list(map(_key, request.keys))
        entries = iter(self._backend.load(keys, inline=min(request.inline, INLINE)))
        left, is_last = len(keys), False
        while not is_last:
            with self._room.making(stream.check):
                for key, entry in entries:
                    found = self._found(key, entry, request.inline)
                    break
                else:
                    stream.end()
                    return
                del entry
                left -= 1
                is_last = not left and next(entries, None) is None
            self._send_found(stream, found, end=is_last)
            del found

    def _found(
        self, key: Digest, entry: CallEntry | ParcelError, limit: int
    ) -> tuple[bytes, bytes, Parcel | None]:
        """Return the message for an entry, and what follows it.

        That is the record, if it is long, and the result that is kept apart, if it has at most
        ``limit`` bytes. A result that is gone or damaged does not follow: a client that asks for it
        alone is told.
        """
        if isinstance(entry, ParcelError):
            return m.encode(m.Found(key, failure=to_failure(entry))), b"", None
        wire = to_wire(key, entry)
        parcel = self._result_apart(entry, limit)
        size = None if parcel is None else parcel.nbytes
        if len(wire.record) <= LONG_RECORD:
            return m.encode(m.Found(wire.key, wire, size)), b"", parcel
        begun = m.WireEntry(wire.key, b"", wire.parcels)
        found = m.Found(wire.key, begun, size, record=len(wire.record))
        return m.encode(found), wire.record, parcel

    def _result_apart(self, entry: CallEntry, limit: int) -> Parcel | None:
        result, parcel = _apart(entry), None
        if result is not None and result.size <= limit:
            for _, found in self._backend.load_values([result.address]):
                parcel = found if isinstance(found, Parcel) else None
        if parcel is not None and parcel.nbytes > limit:
            parcel.close()
            return None
        return parcel

    def _send_found(
        self, stream: Stream, found: tuple[bytes, bytes, Parcel | None], *, end: bool = False
    ) -> None:
        message, record, parcel = found
        is_bare = not record and parcel is None
        with nullcontext() if parcel is None else closing(parcel):
            with self._room.holding(len(message) + len(record)) as going_on:
                stream.send_message(message, end=end and is_bare, going_on=going_on)
                stream.send_data(record, going_on=going_on)
            for chunk in () if parcel is None else parcel.chunks(CHUNK):
                stream.send_data(chunk)
        if end and not is_bare:
            stream.end()

    def _load_values(self, request: m.LoadValues, stream: Stream) -> None:
        addresses = [_address(each) for each in request.addresses]
        for at, parcel in self._backend.load_values(addresses):
            if isinstance(parcel, Parcel):
                found = m.encode(m.Found(at, size=parcel.nbytes))
                self._send_found(stream, (found, b"", parcel))
            else:
                self._send(stream, m.encode(m.Found(at, failure=to_failure(parcel))))
        stream.end()

    def _save(self, request: m.Save, stream: Stream) -> None:
        """Store parcels as they arrive, one chunk in memory at a time, then the entries."""
        self._backend.check_writable("save")
        left = RECORD_ITEMS
        for wire in request.entries:
            left -= m.check_items(wire.record, left, "records that are sent together")
        heavy = left < RECORD_ITEMS - m.MAX_ITEMS
        with (
            self._heavy if heavy else nullcontext(),
            closing(self._arriving(request, stream)) as arriving,
        ):
            self._backend.save(
                dict(map(_sound_entry, request.entries)),
                arriving,
                unpin=list(map(_key, request.unpin)),
            )
        self._send(stream, m.encode(m.Done()), end=True)

    def _arriving(
        self, request: m.Save, stream: Stream
    ) -> Generator[tuple[Address, Parcel], None, None]:
        data = _Upload(stream)
        for address, size in request.parcels:
            data.skip()  # what the storage has not read of the one before
            with _Head(data.take(size), self._large_head) as pieces:
                incoming = IncomingParcel(StreamSource(size, pieces))
                pieces.complete = True
                if address not in (incoming.address, incoming.address.digest):
                    raise CorruptParcel(f"value {address[:12]}: the parcel of another came")
                yield _address(address), incoming

    def _lacking(self, request: m.Lacking) -> m.Answer:
        wanted = [_address(each) for each in request.addresses]
        found = self._backend.lacking(wanted, keep=request.keep)
        return m.Digests([str(address) for address in found])

    def _contains(self, request: m.Contains) -> m.Answer:
        return m.Flags(self._backend.contains([_name(key) for key in request.keys]))

    def _evict(self, request: m.Evict) -> m.Answer:
        return m.Flags(self._backend.evict([_name(key) for key in request.keys]))

    def _expand(self, request: m.Expand) -> m.Answer:
        most = max(EXPANDED // max(len(request.prefixes), 1), 2)  # two say that it is not one
        found: dict[str, list[str]] = {}
        for some in batched(dict.fromkeys(request.prefixes), EXPANDED // MOST_EXPANDED):
            for prefix, digests in zip(some, self._backend.expand(some), strict=True):
                found[prefix] = [str(each) for each in digests[:most]]
        return m.Expanded([found[prefix] for prefix in request.prefixes])

    def _shrink(self, request: m.Shrink) -> m.Answer:
        found = self._backend.shrink(list(map(_key, request.keys)))
        return m.Digests(["" if each is None else str(each) for each in found])

    def _query(self, request: m.Query, stream: Stream) -> None:
        found: Iterator[tuple[Digest, CallEntry | None]]
        if request.newest:
            found = self._backend.newest(request.template, request.newest)
        else:
            found = self._backend.query(request.template, keys_only=request.keys_only)
        batches = _batched(_listed(key, entry) for key, entry in found)
        while True:
            with self._room.making(stream.check):
                batch = next(batches, None)
                if batch is None:
                    break
                listed = m.encode(m.Listed(batch))
                del batch
            with self._room.holding(len(listed)) as going_on:
                stream.send_message(listed, ahead=LISTED_AHEAD, going_on=going_on)
        stream.end()

    def _maintain(self, request: m.Maintain, stream: Stream) -> None:
        reporter = _ProgressReporter(lambda answer: self._send(stream, m.encode(answer)))
        for part in _parts(self._backend.maintain(request.task, reporter)):
            self._send(stream, m.encode(part))
        stream.end()


def _sound_entry(wire: m.WireEntry) -> tuple[Digest, CallEntry]:
    """Return the entry that a client sends, its parcels checked.

    Raises:
        CorruptParcel: its record is none, or a parcel is not that of its address.
    """
    key, entry = from_wire(wire)
    entry.record.check()
    for address in entry.parcels:
        parcel = entry.parcel(address)
        if parcel is not None:
            verify(parcel, digest=address.digest)
    return key, entry


def _name(text: str) -> Digest | Address:
    """Return the key or the address that a validated text is."""
    return _address(text.removesuffix(".")) if "." in text else _key(text)


def _key(text: str) -> Digest:
    return str.__new__(Digest, text)


def _address(text: str) -> Address:
    return str.__new__(Address, text)


def _apart(entry: CallEntry) -> ValueRef | None:
    """Return the result of a call whose parcel does not travel with the record, if there is one."""
    result = entry.record.result
    if result is None or not result.variant or result.address in entry.parcels:
        return None
    return result


def _listed(key: str, entry: CallEntry | None) -> m.WireEntry:
    """Return an entry as it stands in a listing: a long record is left to be asked for alone."""
    wire = m.WireEntry(str(key), b"") if entry is None else to_wire(Digest(key), entry)
    return wire if len(wire.record) <= LONG_RECORD else m.WireEntry(wire.key, b"")


def _batched(calls: Iterator[m.WireEntry]) -> Iterator[list[m.WireEntry]]:
    """Yield calls in batches: small first, so that the first are there soon, never too large.

    None is kept for the next batch: it could be a large one, and wait for long.
    """
    batch: list[m.WireEntry] = []
    size, most = 0, 8
    for call in calls:
        batch.append(call)
        size += entry_size(call)
        if len(batch) >= most or size >= LISTED_BYTES:
            yield batch
            batch, size, most = [], 0, min(LISTED, most * 2)
    if batch:
        yield batch


class _Head:
    """The bytes of a parcel, of which those of the head are collected before anything is stored.

    Small heads are free. Of a large one, which takes memory for as long as the parcel is on its
    way, there is one at a time: another one is refused, and sent again later. It does not wait,
    since what follows it would take the room of the one it waits for.
    """

    def __init__(self, pieces: Iterator[Buffer], large: Lock) -> None:
        self._pieces = pieces
        self._large = large
        self._is_large = False
        self._taken = 0
        self.complete = False

    def __enter__(self) -> _Head:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_large:
            self._large.release()

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._pieces:
            if self.complete:
                yield piece
                continue
            view = memoryview(piece)
            for start in range(0, len(view), SMALL_HEAD):  # no more is collected than is needed
                self._check()
                self._taken += SMALL_HEAD
                yield view[start : start + SMALL_HEAD]

    def _check(self) -> None:
        if self.complete or self._taken < SMALL_HEAD:
            return
        if self._taken >= HEAD_LIMIT:
            raise Rejected(f"a value whose table of parts has more than {HEAD_LIMIT} bytes")
        if not self._is_large:
            self._is_large = self._large.acquire(blocking=False)
            if not self._is_large:
                raise Busy("a value with a large table of parts is on its way; send this one later")


class _Upload:
    """The bytes that follow a request, parcel by parcel."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = memoryview(b"")
        self._left = 0

    def take(self, size: int) -> Iterator[Buffer]:
        """Yield the next ``size`` bytes; fewer if the upload ends early."""
        self._left = size
        while self._left and (self._rest or self._receive()):
            piece = self._rest[: self._left]
            self._rest = self._rest[len(piece) :]
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        """Pass over what is left of the parcel that was taken last."""
        for _ in self.take(self._left):
            pass

    def _receive(self) -> bool:
        data = self._stream.receive_data()
        if data is not None:
            self._rest = memoryview(data)
        return data is not None


class _ProgressReporter:
    """Tells, now and then, how many entries have been looked at.

    That is also when a server finds out that the answer is not wanted any more.
    """

    def __init__(self, send: Callable[[m.Answer], None]) -> None:
        self._send = send
        self._next = time.monotonic() + TELL_SECONDS

    def __call__(self, entries: int) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + TELL_SECONDS
            self._send(m.Progressed(entries))


def _parts(report: Report) -> Iterator[m.Reported]:
    """Yield ``report`` as parts that add up to it, each small enough for a message."""
    plain = {each.name: getattr(report, each.name) for each in fields(report)}
    lists = {name: value for name, value in plain.items() if isinstance(value, tuple)}
    yield m.Reported({name: value for name, value in plain.items() if name not in lists})
    for name, digests in lists.items():
        for start in range(0, len(digests), REPORTED):
            yield m.Reported({name: digests[start : start + REPORTED]})
