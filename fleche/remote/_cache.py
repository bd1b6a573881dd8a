"""The client: a cache that forwards every operation to a server."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import inf
from typing import Any, TypeVar

import msgspec

from fleche.batches import batched
from fleche.caches.base import GRACE, LEASE_AGE, BaseCache, LayerPolicy, OnError
from fleche.caches.upkeep import (
    GcReport,
    Progress,
    RedigestReport,
    Report,
    StatsReport,
    VerifyReport,
)
from fleche.call import CallRecord, LazyCall, QueryCall, decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, ProtocolError, Rejected
from fleche.parcel import Buffer, Parcel
from fleche.remote import _messages as m
from fleche.remote._compression import WireCodec
from fleche.remote._connection import Connection, LazyConnection, Outgoing, PendingRequest, Upload
from fleche.remote._handshake import read_capabilities, warn_of_skew
from fleche.remote.channel import Channel
from fleche.settings import as_choice, as_seconds
from fleche.storage.base import Capabilities

__all__ = ["RemoteCache"]

log = logging.getLogger("fleche.remote")

INLINE = 1 << 20

CONNECT_TIMEOUT = 60.0
"""Seconds to the server's first word where nobody can be asked for anything."""

BATCH = 4096
"""How many digests one request names at most."""

SMALL = 1 << 16
GROUP = 1 << 19
GROUPED = 1000

T = TypeVar("T")
R = TypeVar("R", bound=Report)
_living: weakref.WeakSet[RemoteCache] = weakref.WeakSet()


class RemoteCache(BaseCache):
    """A cache that forwards every operation to a server, over any channel.

    The connection is made on the first operation and kept. Once it has died, every operation raises
    :class:`~fleche.errors.RemoteConnectionError` at once until :meth:`reconnect`: connecting again
    by itself could ask a person for a second factor at any moment. Many threads share one
    connection. A forked child makes its own.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        timeout: float | None = 60.0,
        connect_timeout: float | None = None,
        compression: WireCodec = "auto",
        on_error: OnError = "raise",
    ) -> None:
        """Configure; nothing is started.

        Args:
            channel: how to reach the server.
            timeout: seconds of silence, while an answer is due, after which the server is given up;
                ``None`` or infinity: never.
            connect_timeout: seconds to the server's first word; infinity: no limit. By default
                there is none at a terminal, where a person may be typing a code, and 60 without
                one.
            compression: of what is sent: ``"auto"``, ``"none"``, ``"zlib"`` or ``"zstd"``.
            on_error: what a stack makes of this layer when it is unreachable: ``"raise"`` or
                ``"miss"``.

        Raises:
            TypeError: a setting is of the wrong kind.
            ValueError: a setting is impossible.
        """
        super().__init__()
        self.packing = self.packing.with_environment()
        self.policy = LayerPolicy(on_error=as_choice("on_error", on_error, OnError))
        self.timeout = as_seconds("timeout", timeout)
        self.connect_timeout = connect_timeout
        if as_seconds("connect_timeout", connect_timeout) is None and connect_timeout is not None:
            self.connect_timeout = inf
        self.compression: WireCodec = as_choice("compression", compression, WireCodec)
        self._channel = channel
        self._lazy = LazyConnection()
        _living.add(self)

    @property
    def on_error(self) -> OnError:
        """What a stack makes of this layer when it is unreachable."""
        return self.policy.on_error

    # -- connection --------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        return self._lazy.connected(self._connect, self._warn_on_version_skew)

    def _connect(self) -> Connection:
        return Connection(
            self._channel,
            timeout=self.timeout,
            connect_timeout=self._patience_to_connect(),
            compression=self.compression,
            unpickle=not self.packing.keys,
        )

    def _patience_to_connect(self) -> float | None:
        if self.connect_timeout is None:
            return None if _has_terminal() else CONNECT_TIMEOUT
        return None if self.connect_timeout == inf else self.connect_timeout

    def _ensure_handshake(self) -> None:
        """Connect and greet, if that has not been done on this connection."""
        self._connected()

    def _cached_info(self) -> dict[str, Any]:
        """Return the server's info as it was last told; the first call connects."""
        self._ensure_handshake()
        return self._lazy.info or {}

    def info(self, *, refresh: bool = True) -> dict[str, Any]:
        """Return the server's view of itself.

        Args:
            refresh: ask again, instead of returning what was last told.

        Returns:
            ``cache`` (what it serves, as in ``fleche.toml``, credentials hidden), ``cache_name``
            (what it was started with), ``read_only``, ``fleche_version``, ``cloudpickle_version``,
            ``cwd``, ``hostname``, ``python``, ``pid``.

        Raises:
            RemoteConnectionError: the server cannot be reached.
        """
        if refresh:
            self._lazy.info = self._ask(m.Info(), m.InfoAnswer).info
        return dict(self._cached_info())

    def _warn_on_version_skew(self) -> None:
        """Warn, once for each connection, if the server runs another fleche or cloudpickle."""
        warn_of_skew(self._channel.name, self._lazy.info or {})

    def reconnect(self) -> None:
        """Drop the connection, dead or alive; the next operation makes a new one.

        Use it when the server hangs, or when the remote machine needs a new authentication. It is
        never done by itself.
        """
        self._lazy.reset()

    def close(self) -> None:
        """End the connection and its process; bounded and idempotent. The next use connects."""
        self._lazy.close()

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._lazy.forget()

    # -- primitives --------------------------------------------------------------------------------

    def _ask(self, message: m.Request, kind: type[T], *, upload: Upload | None = None) -> T:
        return self._connected().ask(message, kind, upload=upload)

    @property
    def capabilities(self) -> Capabilities:
        """What the cache on the other side is; the first call connects."""
        return read_capabilities(self._cached_info())

    def load_record(self, key: Digest) -> CallRecord:
        """Return a record from the server."""
        return self.fetch(key, inline=0)[0]

    def fetch(self, key: Digest, inline: int = INLINE) -> tuple[CallRecord, Parcel | None]:
        """Return a record, and its result if it is small, in one round trip."""
        _check_full(key)
        with self._connected().request(m.Load([key], inline)) as pending:
            found = pending.answer(m.Found)
            if found.record is None:
                raise KeyError(key)
            return decode_record(found.record), self._enclosed(pending, found, key)

    def _enclosed(self, pending: PendingRequest, found: m.Found, key: Digest) -> Parcel | None:
        """Return the result that follows its record, if one does; a damaged one is none.

        Whoever opens the result asks for it alone, and learns of the damage then.
        """
        if found.size is None:
            return None
        try:
            return pending.download(found, self._name("the result", key))
        except CorruptParcel as error:
            log.debug("%s", error)
            return None

    def _name(self, what: str, digest: Digest) -> str:
        return f"{self._channel.name}: {what} {digest[:12]}"

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store a record on the server."""
        self.save_records({key: record})

    def load_parcel(self, digest: Digest) -> Parcel:
        """Return a parcel from the server, checked."""
        _check_full(digest)
        with self._connected().request(m.LoadParcel([digest])) as pending:
            found = pending.answer(m.Found)
            if found.size is None:
                raise KeyError(digest)
            return pending.download(found, self._name("value", digest))

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store a parcel on the server, which never opens it."""
        self.check_writable("save")
        self._ask(m.SaveParcels([(digest, parcel.nbytes)]), m.Done, upload=parcel.chunks)

    def fetch_many(
        self, keys: Iterable[Digest]
    ) -> Iterator[tuple[Digest, CallRecord, Parcel | None]]:
        """Yield the records that the server has, with small results, in few round trips."""
        return self._fetch_many(keys, INLINE)

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records that the server has, in few round trips."""
        return ((key, record) for key, record, _ in self._fetch_many(keys, inline=0))

    def _fetch_many(
        self, keys: Iterable[Digest], inline: int
    ) -> Iterator[tuple[Digest, CallRecord, Parcel | None]]:
        for batch in batches(key for key in keys if Digest(key).is_full):
            with self._connected().request(m.Load(batch, inline)) as pending:
                for key in batch:
                    found = pending.answer(m.Found)
                    if found.record is not None:
                        parcel = self._enclosed(pending, found, Digest(key))
                        yield Digest(key), decode_record(found.record), parcel

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels that the server has, in few round trips."""
        for batch in batches(digest for digest in digests if Digest(digest).is_full):
            with self._connected().request(m.LoadParcel(batch)) as pending:
                for digest in batch:
                    found = pending.answer(m.Found)
                    if found.size is not None:
                        name = self._name("value", Digest(digest))
                        yield Digest(digest), pending.download(found, name)

    def save_parcels(self, parcels: Iterable[tuple[Digest, Parcel]]) -> None:
        """Send parcels without waiting for each to be stored, small ones together."""
        self.check_writable("save")
        self._connected().pipeline(uploads(parcels))

    def save_records(self, records: Mapping[Digest, CallRecord]) -> None:
        """Send records without waiting for each to be stored, many together."""
        self.check_writable("save")
        encoded = ((str(key), encode_record(record)) for key, record in records.items())
        self._connected().pipeline(Outgoing(m.SaveRecords(group)) for group in groups(encoded))

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Ask the server which values it lacks."""
        found: list[Digest] = []
        for batch in batches(digests):
            lacking = set(self._ask(m.Missing(batch), m.Digests).digests)
            # nothing that was not asked: whoever uploads what is missing must not be led to more
            found += (Digest(key) for key in batch if key in lacking)
        return found

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Ask the server which of many calls or values it has, in few round trips."""
        return [
            flag
            for batch in batches(keys)
            for flag in _exactly(len(batch), self._ask(m.Contains(batch), m.Flags).flags)
        ]

    def contains(self, key: Digest | str) -> bool:
        """Ask the server whether it has a call or a value."""
        (flag,) = _exactly(1, self._ask(m.Contains([Digest(key)]), m.Flags).flags)
        return flag

    def evict(self, key: Digest | str) -> None:
        """Make the server forget a call or a value."""
        self.check_writable("evict")
        self._ask(m.Evict(Digest(key)), m.Done)

    def expand(self, key: Digest | str) -> Digest:
        """Expand a short digest to its full length, as the server knows it."""
        (full,) = _exactly(1, self._ask(m.Expand(Digest(key)), m.Digests).digests)
        return Digest(full)

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Shrink all keys to what is unambiguous on the server."""
        return tuple(
            Digest(short)
            for batch in batches(Digest(key) for key in keys)
            for short in _exactly(len(batch), self._ask(m.Shrink(batch), m.Digests).digests)
        )

    def _query(self, call: QueryCall) -> Iterator[LazyCall]:
        """Yield matching calls as the server finds them; stopping early stops the server."""
        for key, record in self._listed(m.Query(call)):
            yield LazyCall(key, decode_record(record), self)

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match; the records stay where they are."""
        return (key for key, _ in self._listed(m.Query(template, keys_only=True)))

    def _listed(self, request: m.Query) -> Iterator[tuple[Digest, bytes]]:
        m.check_template(request.template)
        with self._connected().request(request) as pending:
            while (listed := pending.next_answer()) is not None:
                if not isinstance(listed, m.Listed) or not listed.calls:
                    kind = type(listed).__name__
                    raise ProtocolError(f"a query was answered with {kind}, or with nothing")
                for key, record in listed.calls:
                    yield Digest(key), record

    # -- keeping house there -----------------------------------------------------------------------

    def gc(
        self,
        grace: float = GRACE,
        *,
        lease_age: float = LEASE_AGE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Have the server collect its garbage; see :meth:`BaseCache.gc`."""
        self.check_writable("gc")
        return self._keep_house(m.Gc(grace, lease_age, dry_run), GcReport, progress)

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Have the server check everything; see :meth:`BaseCache.verify`."""
        if repair:
            self.check_writable("repair")
        return self._keep_house(m.Verify(repair), VerifyReport, progress)

    def redigest(
        self, *, unpickle: bool = True, progress: Progress | None = None
    ) -> RedigestReport:
        """Have the server file calls anew, as far as that goes without opening a value.

        See :meth:`BaseCache.redigest`. Values are opened on their own machine alone, by somebody
        who trusts them, so ``unpickle`` makes no difference here.
        """
        del unpickle
        self.check_writable("redigest")
        return self._keep_house(m.Redigest(), RedigestReport, progress)

    def measure(self, progress: Progress | None = None) -> StatsReport:
        """Have the server count entries and bytes; see :meth:`BaseCache.measure`."""
        return self._keep_house(m.Measure(), StatsReport, progress)

    def _keep_house(self, request: m.Request, kind: type[R], progress: Progress | None) -> R:
        connection = self._connected()
        if "upkeep" not in connection.hello.features:
            raise Rejected(
                f"{self}: fleche {connection.hello.version} there keeps house only when it is "
                "asked on that machine; upgrade it, or ask there"
            )
        with connection.request(request) as pending:
            return read_report(pending.next_answer, kind, progress)

    # -- configuration -----------------------------------------------------------------------------

    def _limits(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, for :meth:`to_config`."""
        defaults = {"timeout": 60.0, "connect_timeout": None, "compression": "auto"}
        table = {name: getattr(self, name) for name in defaults}
        table = {name: value for name, value in table.items() if value != defaults[name]}
        if self.timeout is None:
            table["timeout"] = inf
        return table

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` for this cache.

        Raises:
            Rejected: the channel is of a kind that has none.
        """
        raise Rejected(f"{self}: a cache over {self._channel!r} has no form in fleche.toml")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._channel.name}>"


def _check_full(key: Digest) -> None:
    """Raise the miss that a short digest is where only complete ones name anything."""
    if not Digest(key).is_full:
        raise KeyError(key)


def _exactly(count: int, found: list[T]) -> list[T]:
    """Return ``found``, which must answer ``count`` questions."""
    if len(found) != count:
        raise ProtocolError(f"the server gave {len(found)} answers to {count} questions")
    return found


def _has_terminal() -> bool:
    """Return whether ssh could ask a person: it opens the terminal by itself."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _forget_all() -> None:
    for cache in list(_living):
        cache.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def read_report(
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


def batches(digests: Iterable[Digest]) -> Iterator[list[str]]:
    """Yield digests as plain text, as many as one request names at most."""
    return batched(map(str, digests), BATCH)


def uploads(parcels: Iterable[tuple[Digest, Parcel]]) -> Iterator[Outgoing]:
    """Yield the requests that store ``parcels``: a large one alone, small ones together."""

    def small() -> Iterator[tuple[str, bytes]]:
        for digest, parcel in parcels:
            if parcel.nbytes > SMALL:
                large.append((digest, parcel))
                return
            yield str(digest), parcel.tobytes()
            parcel.close()

    large: list[tuple[Digest, Parcel]] = []
    parcels = iter(parcels)
    while True:
        for group in groups(small()):
            joined = b"".join(data for _, data in group)
            sizes = [(key, len(data)) for key, data in group]
            yield Outgoing(m.SaveParcels(sizes), partial(_alone, joined), len(joined))
        if not large:
            return
        digest, parcel = large.pop()
        request = m.SaveParcels([(str(digest), parcel.nbytes)])
        yield Outgoing(request, parcel.chunks, parcel.nbytes, parcel.close)


def _alone(data: bytes) -> list[Buffer]:
    return [data]


def groups(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield items in groups that each fit well into a frame."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for item in items:
        if group and (size + len(item[1]) > GROUP or len(group) >= GROUPED):
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item[1])
    if group:
        yield group
