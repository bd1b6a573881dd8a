"""The contracts of storages: what a backend must do, and what it gets for free.

A backend writes five methods over finished bytes (``put``, ``get``, ``contains``, ``delete``,
``keys``) and says what it is in its :class:`Capabilities`. Everything else here is correct for any
backend and may be replaced by something faster.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

from fleche.call import CallRecord, QueryCall
from fleche.capabilities import Capabilities
from fleche.claims import Claims
from fleche.digest import Digest
from fleche.errors import (
    AmbiguousDigestError,
    CorruptParcel,
    ParcelError,
    SignatureError,
    UnpackError,
)
from fleche.parcel import BUFFER, Head, Packing, Parcel
from fleche.parcel import verify as verify_parcel
from fleche.redaction import redact

__all__ = [
    "SHORTEST",
    "CallStorage",
    "Capabilities",
    "Entry",
    "Storage",
    "Table",
    "ValueStorage",
    "expand_among",
    "shrink_among",
    "shrink_sorted",
    "sound_matches",
]

log = logging.getLogger("fleche.storage")

SHORTEST = 4
"""The fewest characters that may stand for a digest."""

T = TypeVar("T")


class Entry(NamedTuple):
    """What a storage knows of an entry without reading it: its size in bytes and its age.

    ``modified`` is in seconds since the epoch, renewed when the same entry is put again.
    """

    key: Digest
    size: int
    modified: float


class Table(NamedTuple):
    """What the head of a parcel says of buffers: whether it is a shared one, and which it needs."""

    is_buffer: bool = False
    references: tuple[Digest, ...] = ()

    @classmethod
    def of(cls, head: Head) -> Table:
        """Return what ``head`` says."""
        return cls(head.serializer == BUFFER, head.references)


class Storage(ABC, Generic[T]):
    """Entries by digest. Every method may be called from any thread.

    Writes are atomic and idempotent: whoever reads, in any process, sees an entry whole or not at
    all.
    """

    capabilities: Capabilities = Capabilities()

    @abstractmethod
    def put(self, key: Digest, item: T) -> None:
        """Store ``item``; an entry that is there already is renewed.

        Raises:
            StorageError: it could not be stored; the storage is as it was.
        """

    @abstractmethod
    def get(self, key: Digest) -> T:
        """Return the entry.

        Raises:
            KeyError: there is none.
            ParcelError: it is damaged.
            StorageError: it could not be read.
        """

    @abstractmethod
    def contains(self, key: Digest) -> bool:
        """Tell whether there is an entry, without reading it."""

    @abstractmethod
    def delete(self, key: Digest) -> None:
        """Remove the entry; none there is no error."""

    @abstractmethod
    def keys(self) -> Iterator[Digest]:
        """Yield all keys, in any order."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage."""

    def renew(self, key: Digest) -> bool:
        """Make an entry as young as if it had just been put; tell whether there is one.

        A cache says so of every value that it relies on instead of storing it again, and of calls
        that were used: neither a :meth:`delete_older` that has begun already nor a later one may
        then take it. Where nothing can be written, it only tells; and so it does by default, for
        what is read here and then put again may be older than what somebody has put meanwhile.
        """
        return self.contains(key)

    def renew_many(self, keys: Iterable[Digest]) -> list[Digest]:
        """:meth:`renew` several entries; return those of ``keys`` that have none."""
        return [key for key in keys if not self.renew(key)]

    def put_many(self, items: Mapping[Digest, T]) -> None:
        """Store several entries, in order."""
        for key, item in items.items():
            self.put(key, item)

    def get_many(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, T]]:
        """Yield those of the entries that are there."""
        for key in keys:
            try:
                item = self.get(key)
            except KeyError:
                continue
            yield key, item

    def missing(self, keys: Iterable[Digest]) -> list[Digest]:
        """Return those of ``keys`` that have no entry."""
        return [key for key in keys if not self.contains(key)]

    def matching(self, prefix: str) -> Iterator[Digest]:
        """Yield the keys that begin with ``prefix``."""
        return (key for key in self.keys() if key.startswith(prefix))

    def expand(self, prefix: str) -> Digest:
        """Return the one key that begins with ``prefix``.

        Raises:
            KeyError: there is none.
            AmbiguousDigestError: there are several.
        """
        return expand_among(prefix, self.matching(prefix))

    def shrink(self, *keys: Digest) -> tuple[Digest, ...]:
        """Return for each key the shortest beginning that no other key here has."""
        return tuple(shrink_among(key, self.matching(key[:SHORTEST])) for key in keys)

    def entry(self, key: Digest) -> Entry:
        """Return what is known of an entry without opening it.

        Raises:
            KeyError: there is none.
        """
        try:
            size = len(repr(self.get(key)))
        except ParcelError:  # it is there all the same
            size = 0
        return Entry(key, size, time.time())

    def entries(self) -> Iterator[Entry]:
        """Yield the :meth:`entry` of every key; those that vanish meanwhile are left out."""
        for key in list(self.keys()):
            try:
                yield self.entry(key)
            except KeyError:
                continue

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the entry unless it was put (again) after ``limit``; tell whether it went."""
        try:
            if self.entry(key).modified > limit:
                return False
        except KeyError:
            return False
        self.delete(key)
        return True

    def removing(self) -> AbstractContextManager[None]:
        """Surround several :meth:`delete_older` of one thread.

        What a storage does to prepare for them it then does once, and undoes at the end.
        """
        return nullcontext()

    def close(self) -> None:
        """Give back what the storage holds open. Idempotent."""

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in redact(self.to_config()).items())
        return f"{type(self).__name__}({inner})"


class ValueStorage(Storage[Parcel]):
    """Parcels by the digest of the value inside.

    ``packing`` says how a value is packed that is born into this storage, and whose signatures
    count. The storage itself neither packs nor opens, unless its capabilities say
    ``opens_parcels``. It may keep no reference to the memory of a parcel after :meth:`put` returns.
    """

    packing: Packing = Packing()

    def renew(self, key: Digest) -> bool:
        """Put the parcel that is there again."""
        try:
            parcel = self.get(key)
        except KeyError:
            return False
        with closing(parcel):
            self.put(key, parcel)
        return True

    def entry(self, key: Digest) -> Entry:
        """Return the size and age of a parcel."""
        try:
            with closing(self.get(key)) as parcel:
                size = parcel.nbytes
        except ParcelError:  # it is there all the same
            size = 0
        return Entry(key, size, time.time())

    def table(self, key: Digest) -> Table:
        """Return what the head of a parcel says of buffers; whoever signed it, and if anybody did.

        What one refers to that is not trusted here is left to those who trust it. One whose head is
        damaged can never be opened, and needs nothing. A storage that opens parcels keeps no
        buffers apart.

        Raises:
            KeyError: there is none.
            ParcelError: nobody knows; a newer fleche has put it there.
            StorageError: it could not be read.
        """
        if self.capabilities.opens_parcels:
            if not self.contains(key):
                raise KeyError(key)
            return Table()
        try:
            parcel = self.get(key)
        except SignatureError as error:
            if error.head is None:
                raise
            return Table.of(error.head)
        except CorruptParcel as error:
            if error.newer:
                raise
            return Table()
        with closing(parcel):
            return Table.of(parcel.head)

    def tables(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, Table]]:
        """Yield the :meth:`table` of those that are there."""
        for key in keys:
            try:
                yield key, self.table(key)
            except KeyError:
                continue

    def check(self, key: Digest, secrets: Sequence[bytes] = ()) -> Table:
        """Check every byte of a parcel without opening the value; return its :meth:`table`.

        Args:
            key: the digest of the value.
            secrets: if there are any, one of them must have signed it.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged, or another value's.
            SignatureError: none of ``secrets``, or of those of this storage, signed it.
            StorageError: it could not be read.
        """
        try:
            parcel = self.get(key)
        except UnpackError:  # the bytes are sound, says who raises it
            return Table()
        with closing(parcel):
            verify_parcel(parcel, digest=key, keys=secrets)
            return Table.of(parcel.head)


class CallStorage(Storage[CallRecord]):
    """Records of calls by their key. Putting a key again replaces its record.

    Leases (records without a result) are entries like others, except that no query yields them.

    ``claims`` tell other processes which calls are being computed, where the storage has a way to
    do that.
    """

    claims: Claims = Claims()

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match ``template``, as they are found."""
        for key, record in self.get_many(list(self.keys())):
            if template.matches(record):
                yield key, record


def sound_matches(
    template: QueryCall,
    stored: Iterable[tuple[Digest, T]],
    opened: Callable[[Digest, T], CallRecord],
) -> Iterator[tuple[Digest, CallRecord]]:
    """Yield the finished calls that match; damaged records are skipped with one warning.

    Args:
        template: what to look for.
        stored: keys, with whatever is stored of each call.
        opened: makes a record of that; one that is gone is passed over.
    """
    warned = False
    for key, item in stored:
        try:
            record = opened(key, item)
        except KeyError:
            continue
        except ParcelError as error:
            if not warned:
                log.warning("query skips damaged records, the first of them: %s", error)
            warned = True
            continue
        if template.matches(record):
            yield key, record


def expand_among(prefix: str, found: Iterable[Digest]) -> Digest:
    """Return the one digest of ``found`` (all of which begin with ``prefix``).

    Raises:
        KeyError: there is none.
        AmbiguousDigestError: there are several.
    """
    distinct = dict.fromkeys(found)
    if not distinct:
        raise KeyError(prefix)
    if len(distinct) > 1:
        shown = ", ".join(key[: len(prefix) + 4] for key in sorted(distinct)[:5])
        raise AmbiguousDigestError(
            f"{prefix!r} stands for {len(distinct)} entries ({shown}, ...); give more characters"
        )
    return next(iter(distinct))


def shrink_among(key: Digest, found: Iterable[Digest]) -> Digest:
    """Return the shortest beginning of ``key``, of 4 or more, that no other of ``found`` has."""
    others = [other for other in dict.fromkeys(found) if other != key]
    length = SHORTEST
    for other in others:
        while length < len(key) and other.startswith(key[:length]):
            length += 1
    return Digest(key[:length])


def shrink_sorted(key: Digest, everything: Sequence[Digest]) -> Digest:
    """Return the same, where ``everything`` is sorted: only the neighbours can be alike."""
    place = bisect_left(everything, key)
    here = place < len(everything) and everything[place] == key
    near = (*everything[max(place - 1, 0) : place], *everything[place + here : place + here + 1])
    return shrink_among(key, near)
