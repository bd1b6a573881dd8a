"""The client's side: a backend that asks a server for every operation."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any, TypeVar

import msgspec

from fleche._util import override
from fleche.caches import (
    INLINE,
    AcceptedReport,
    CacheBackend,
    LayerPolicy,
    NoteAccepted,
    Progress,
    ReadAccepted,
    Report,
    Task,
)
from fleche.caches.maintenance import REPORTS
from fleche.call import CallEntry, QueryCall
from fleche.digest import Address, Digest
from fleche.errors import CorruptParcel, ParcelError, ProtocolError, Rejected
from fleche.parcel import Parcel
from fleche.remote import _messages as m
from fleche.remote._connection import Connection, LazyConnection, Outgoing, PendingRequest
from fleche.remote._contacts import note_contact
from fleche.remote._entries import batches, entry_groups, from_wire, parcel_requests
from fleche.remote._errors import from_failure
from fleche.remote._handshake import read_capabilities, warn_of_skew
from fleche.remote._options import RemoteOptions
from fleche.remote.channel import Channel
from fleche.storage import Capabilities

__all__ = ["RemoteBackend"]

log = logging.getLogger("fleche.remote")

FRESH_GREETING = 60.0
"""For so many seconds the server's greeting tells whether code was accepted there."""

CONNECT_TIMEOUT = 60.0
"""Seconds to the server's first word where there is no terminal to ask at."""

T = TypeVar("T")
R = TypeVar("R", bound=Report)
_living: weakref.WeakSet[RemoteBackend] = weakref.WeakSet()


class RemoteBackend(CacheBackend):
    """What a server answers, over any channel.

    Args:
        channel: how to reach the server.
        options: those of every remote cache.

    Attributes:
        facade: returns the cache whose backend this is, ``None`` once that is gone.
    """

    local = False

    def __init__(
        self,
        channel: Channel,
        options: RemoteOptions,
    ) -> None:
        super().__init__()
        self.packing = self.packing.with_environment()
        self.policy = LayerPolicy(on_error=options.on_error)
        self.options = options
        self.channel = channel
        self.table: dict[str, Any] | None = None
        self.facade: Callable[[], Any] = lambda: None
        self.lazy = LazyConnection()
        self._known: tuple[dict[str, Any] | None, Capabilities] = None, Capabilities()
        self._greeted_at = 0.0
        _living.add(self)

    # -- connection --------------------------------------------------------------------------------

    def connected(self) -> Connection:
        """Return the connection, greeted; made if there is none yet.

        Raises:
            RemoteConnectionError: it cannot be made, or has died.
        """
        return self.lazy.connected(self._connect, self._greeted)

    def _connect(self) -> Connection:
        return Connection(
            self.channel,
            timeout=_finite(self.options.timeout),
            connect_timeout=self._patience_to_connect(),
            compression=self.options.compression,
            unpickle=not self.packing.keys,
        )

    def _patience_to_connect(self) -> float | None:
        if self.options.connect_timeout is None:
            return None if _has_terminal() else CONNECT_TIMEOUT
        return _finite(self.options.connect_timeout)

    def _greeted(self) -> None:
        """Note the contact; warn, once for each connection, of another fleche or cloudpickle."""
        self._greeted_at = monotonic()
        info = self.lazy.info or {}
        if not self.channel.local:
            note_contact(self.channel.name, info)
        cache = self.facade()
        if cache is None:
            warn_of_skew(self.channel.name, info)
        else:
            cache._warn_on_version_skew()  # noqa: SLF001 (which a subclass may have written anew)

    def info(self, *, refresh: bool) -> dict[str, Any]:
        """Return the server's view of itself, asked for anew if ``refresh``."""
        if refresh:
            self.lazy.info = self._ask(m.Info(), m.InfoAnswer).info
        self.connected()
        return dict(self.lazy.info or {})

    def _ask(self, message: m.Request, kind: type[T]) -> T:
        return self.connected().ask(message, kind)

    # -- the contract ------------------------------------------------------------------------------

    @property
    @override
    def capabilities(self) -> Capabilities:
        self.connected()
        told, known = self._known
        if told is None or told is not self.lazy.info:  # a server is asked once for itself
            told = self.lazy.info or {}
            known = read_capabilities(told)
            if self.options.read_only:
                known = msgspec.structs.replace(known, read_only=True)
            self._known = told, known
        return known

    @property
    @override
    def read_only(self) -> bool:
        return self.options.read_only or self.capabilities.read_only

    @override
    def load(
        self, keys: Sequence[Digest], *, inline: int = INLINE
    ) -> Iterator[tuple[Digest, CallEntry | ParcelError]]:
        for batch in batches(keys):
            with self.connected().request(m.Load(batch, inline)) as pending:
                for found in self._found(pending, batch):
                    yield str.__new__(Digest, found.at), self._entry(pending, found)

    def _found(self, pending: PendingRequest, asked: list[str]) -> Iterator[m.Found]:
        """Yield what the server has of what was asked, and nothing else, each once."""
        due = set(asked)
        while (found := pending.next_answer()) is not None:
            if not isinstance(found, m.Found) or found.at not in due:
                raise ProtocolError(f"the server answered with {type(found).__name__}, unasked")
            due.discard(found.at)
            yield found

    def _entry(self, pending: PendingRequest, found: m.Found) -> CallEntry | ParcelError:
        """Return the entry that came, with the result that follows it, if one does.

        A damaged result is left out: it is asked for alone when it is opened, and the damage is
        told then.
        """
        if found.failure is not None:
            return _as_damage(found.failure, self.channel.name)
        if found.entry is None or found.entry.key != found.at:
            raise ProtocolError("the server sent no entry, or that of another call")
        wire = found.entry
        if found.record is not None:
            wire = m.WireEntry(wire.key, pending.receive_bytes(found.record), wire.parcels)
        entry: CallEntry | ParcelError
        try:
            key, entry = from_wire(wire)
            if entry.record.key != key:
                entry = CorruptParcel(f"{self._name('call', key)}: the record of another call came")
        except ParcelError as error:
            entry = error
        if found.size is None:
            return entry
        try:
            parcel = pending.download(found, self._name("the result of call", found.at))
        except CorruptParcel as error:
            log.debug("%s", error)
            return entry
        if isinstance(entry, ParcelError) or entry.record.result is None:
            return entry
        return CallEntry(
            entry.record, {**entry.parcels, entry.record.result.address: parcel.tobytes()}
        )

    def _name(self, what: str, at: str) -> str:
        return f"{self.channel.name}: {what} {at[:12]}"

    @override
    def load_values(
        self, addresses: Iterable[Address]
    ) -> Iterator[tuple[Address, Parcel | ParcelError]]:
        for batch in batches(dict.fromkeys(addresses)):
            with self.connected().request(m.LoadValues(batch)) as pending:
                for found in self._found(pending, batch):
                    yield str.__new__(Address, found.at), self._parcel(pending, found)

    def _parcel(self, pending: PendingRequest, found: m.Found) -> Parcel | ParcelError:
        if found.failure is not None:
            return _as_damage(found.failure, self.channel.name)
        if found.size is None:
            raise ProtocolError("the server sent neither a value nor why there is none")
        try:
            return pending.download(found, self._name("value", found.at))
        except CorruptParcel as error:
            return error

    @override
    def save(
        self,
        entries: Mapping[Digest, CallEntry],
        parcels: Iterable[tuple[Address, Parcel]] = (),
        *,
        unpin: Sequence[Digest] = (),
    ) -> None:
        """Send everything; in one request if it fits.

        Requests that are under way at once are stored in any order. So the last of the parcels goes
        with the first of the entries, when all others have arrived, and the pins with the last.
        An entry that is too long to be sent is refused alone, when the others are stored.
        """
        self.check_writable("save")
        groups, too_long = entry_groups(entries)
        if any(groups) or not too_long:
            self._send(groups, parcels, unpin)
        if too_long:
            raise Rejected(f"{self.channel.name}: {too_long}")

    def _send(
        self,
        entries: Sequence[list[m.WireEntry]],
        parcels: Iterable[tuple[Address, Parcel]],
        unpin: Sequence[Digest],
    ) -> None:
        connection = self.connected()
        if not parcels and not unpin:  # the entries of themselves need no order
            connection.pipeline(Outgoing(m.Save(group)) for group in entries if group)
            return
        *groups, final = entries
        ends = [str(key) for key in unpin]
        first, done = (groups[0], []) if groups else (final, ends)
        last: list[Outgoing] = []

        def all_but_last() -> Iterator[Outgoing]:
            for request in parcel_requests(parcels):
                last.append(request)
                if len(last) > 1:
                    yield last.pop(0)

        try:
            connection.pipeline(all_but_last())
            held = last[0] if last else Outgoing(m.Save())
            assert isinstance(held.message, m.Save)
            request = m.Save(first, held.message.parcels, done)
            connection.ask(request, m.Done, upload=held.upload)
        finally:
            for each in last:
                each.close()
        if groups:
            connection.pipeline(Outgoing(m.Save(group)) for group in groups[1:])
            connection.ask(m.Save(final, unpin=ends), m.Done)

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        keep = keep and not self.options.read_only
        found: list[Address] = []
        for batch in batches(dict.fromkeys(addresses)):
            absent = set(self._ask(m.Lacking(batch, keep), m.Digests).digests)
            # nothing that was not asked: a client that uploads must not be led to send more
            found += (str.__new__(Address, each) for each in batch if each in absent)
        return found

    @override
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        return self._flags(m.Contains, keys)

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        return self._flags(m.Evict, keys)

    def _flags(
        self, kind: type[m.Contains | m.Evict], keys: Sequence[Digest | Address]
    ) -> list[bool]:
        return [
            flag
            for batch in batches(map(_name, keys))
            for flag in _exactly(len(batch), self._ask(kind(batch), m.Flags).flags)
        ]

    @override
    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        return [
            tuple(map(Digest, found))
            for batch in batches(prefixes)
            for found in _exactly(len(batch), self._ask(m.Expand(batch), m.Expanded).found)
        ]

    @override
    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        return [
            Digest(short) if short else None
            for batch in batches(keys)
            for short in _exactly(len(batch), self._ask(m.Shrink(batch), m.Digests).digests)
        ]

    @override
    def query(
        self, template: QueryCall, *, keys_only: bool = False
    ) -> Iterator[tuple[Digest, CallEntry | None]]:
        request = self._request(m.Query(template, keys_only))
        if request is None:
            for key, entry in self.query(m.sendable(template)):
                if entry is not None and template.matches(entry.record):
                    yield key, None if keys_only else entry
            return
        yield from self._listed(request, keys_only=keys_only)

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        query = m.Query(template, newest=number)
        request = self._request(query) if 0 < number <= m.MOST_NEWEST else None
        if request is None:
            yield from super().newest(template, number)
            return
        for key, entry in self._listed(request):
            if entry is not None:
                yield key, entry

    def _request(self, query: m.Query) -> PendingRequest | None:
        """Send a query, unless no message holds its template."""
        m.check_template(query.template)
        try:
            return self.connected().request(query)
        except m.UNSENDABLE:
            return None

    def _listed(
        self, request: PendingRequest, *, keys_only: bool = False
    ) -> Iterator[tuple[Digest, CallEntry | None]]:
        """Yield the calls that a server lists."""
        with request as pending:
            while (listed := pending.next_answer()) is not None:
                if not isinstance(listed, m.Listed) or not listed.calls:
                    kind = type(listed).__name__
                    raise ProtocolError(f"a query was answered with {kind}, or with nothing")
                for wire in listed.calls:
                    if wire.record:
                        yield from_wire(wire)
                    elif keys_only:
                        yield Digest(wire.key), None
                    else:
                        yield from self._long_entry(Digest(wire.key))

    def _long_entry(self, key: Digest) -> Iterator[tuple[Digest, CallEntry]]:
        """Yield the entry of a call in a listing, whose record was too long for that."""
        for _, entry in self.load([key], inline=0):
            if isinstance(entry, ParcelError):
                log.warning("left out of a listing: %s", entry)
            else:
                yield key, entry

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        if task.changes:
            self.check_writable(type(task).__name__.lower())
        if isinstance(task, NoteAccepted):
            self._greeted_at = 0.0  # no longer is there none
        if isinstance(task, ReadAccepted) and self._has_just_said_none():
            return AcceptedReport()
        kind = REPORTS[type(task)]
        with self.connected().request(m.Maintain(task)) as pending:
            return _read_report(pending.next_answer, kind, progress)

    def _has_just_said_none(self) -> bool:
        """Return whether the server has just greeted, and said that no code was accepted there.

        So a first miss costs no question for that. What others accept meanwhile is seen later.
        """
        self.connected()
        said = (self.lazy.info or {}).get("accepted")
        return said is False and monotonic() - self._greeted_at < FRESH_GREETING

    @override
    def to_config(self) -> dict[str, Any]:
        if self.table is None:
            raise Rejected(f"{self}: a cache over {self.channel!r} has no form in fleche.toml")
        return {**self.table, **self.policy.to_config()}

    @override
    def close(self) -> None:
        self.lazy.close()

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self.lazy.forget()

    def __repr__(self) -> str:
        return f"<{self.channel.name}>"

    def __str__(self) -> str:
        return self.channel.name


def _as_damage(failure: m.Failure, host: str) -> ParcelError:
    """Return the error that stands for a damaged entry.

    Raises:
        ProtocolError: the failure is of another kind, which ends the request instead.
    """
    error = from_failure(failure, host, unpickle=False)
    if isinstance(error, ParcelError):
        return error
    raise ProtocolError(f"the server sent {type(error).__name__} in place of an entry: {error}")


def _name(key: Digest | Address) -> str:
    """Return a key or an address so that the server can tell one from the other."""
    is_bare = isinstance(key, Address) and not key.variant
    return f"{key}." if is_bare else str(key)


def _exactly(count: int, found: list[T]) -> list[T]:
    """Return ``found``, which must answer ``count`` questions."""
    if len(found) != count:
        raise ProtocolError(f"the server gave {len(found)} answers to {count} questions")
    return found


def _finite(seconds: float | None) -> float | None:
    return None if seconds == inf else seconds


def _has_terminal() -> bool:
    """Return whether ssh could ask a person: it opens the terminal by itself."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _read_report(
    answers: Callable[[], m.Answer | None], kind: type[R], progress: Progress | None
) -> R:
    """Return the report that ``answers`` bring.

    Args:
        answers: returns the next answer, ``None`` after the last.
        kind: of the report.
        progress: called with the number of entries that the server has looked at.

    Raises:
        ProtocolError: they bring something else.
    """
    report = kind()
    while (answer := answers()) is not None:
        if isinstance(answer, m.Reported):
            report = report + _decoded(answer.report, kind)
        elif not isinstance(answer, m.Progressed):
            raise ProtocolError(f"a report was asked for, and {type(answer).__name__} came")
        elif progress is not None:
            progress(answer.entries)
    return report


def _decoded(plain: dict[str, Any], kind: type[R]) -> R:
    try:
        return msgspec.convert(plain, kind, dec_hook=lambda wanted, value: wanted(value))
    except (msgspec.ValidationError, ValueError) as error:
        raise ProtocolError(f"not a {kind.__name__}: {error}") from None


def _forget_all() -> None:
    for backend in list(_living):
        backend.forget()


os.register_at_fork(after_in_child=_forget_all)
