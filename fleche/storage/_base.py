"""The contracts of storages: what a backend must do, and what it gets for free.

A backend writes five batched methods over finished bytes (``put_many``, ``get_many``,
``contains_many``, ``delete_many``, ``entries``) and says what it is in its :class:`Capabilities`.
Everything else here is correct for any backend and may be replaced by something faster.

Keys are short ASCII strings: the 64 hexadecimal characters of a call's key in a
:class:`CallStorage`, and an :class:`~fleche.digest.Address` (a digest, perhaps followed by a dot
and 32 more hexadecimal characters) in a :class:`ValueStorage`.
"""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from fleche._util import batched, expand_path, override
from fleche.call import CallEntry, QueryCall
from fleche.digest import Address
from fleche.errors import (
    CorruptParcel,
    ParcelError,
    SignatureError,
    StorageError,
    UnpackError,
    flaw_of,
)
from fleche.parcel import BUFFER, Compress, Head, Packing, Parcel
from fleche.storage._locks import LockTable
from fleche.storage._notes import Acceptance, Usage

if TYPE_CHECKING:
    from typing_extensions import Self

    from fleche.parcel import Draft

__all__ = [
    "KEY",
    "REST",
    "SHARD",
    "SHORTEST",
    "STALE",
    "TEMPORARY",
    "BufferRefs",
    "CallStorage",
    "Capabilities",
    "Configured",
    "DirectoryOptions",
    "Entry",
    "Storage",
    "ValueStorage",
    "keys_of",
]

log = logging.getLogger("fleche.storage")

SHORTEST = 4
"""The fewest characters that may stand for a digest."""

STALE = 3600.0
"""Seconds after which a temporary file that nothing writes to is the leftover of a crash."""

KEY = re.compile(r"[0-9a-f]{64}(?:\.[0-9a-f]{32})?")
SHARD = re.compile("[0-9a-f]{2}")
REST = re.compile(r"[0-9a-f]{62}(?:\.[0-9a-f]{32})?")
TEMPORARY = ".tmp"
"""How files and objects are named: ``ab/cdef....value``, in the directory of the first two
characters of their key by the rest of it, with this at the end until they are complete."""

_BATCH = 500
_TOGETHER = 32
"""Entries of which any may be long, and that are in memory together."""

T = TypeVar("T")


class Capabilities(msgspec.Struct, frozen=True):
    """What a storage or a cache is, as data.

    Attributes:
        read_only: every save and every evict is refused.
        persistent: entries outlive the process.
        shared: several processes may use the same entries at the same time.
        opens_parcels: values are taken apart and made again, which needs the user's modules.
        keeps_all: every value is kept by the value storage, also those that could travel with the
            record of their call.
        touches: ``touch_many`` makes calls young; where it only looks, they are put once more.
    """

    read_only: bool = False
    persistent: bool = False
    shared: bool = False
    opens_parcels: bool = False
    keeps_all: bool = False
    touches: bool = False


class Entry(NamedTuple):
    """What a storage knows of an entry without reading it.

    Attributes:
        key: its key.
        size: bytes.
        modified: when it was last put or touched, in seconds since the epoch.
    """

    key: str
    size: int
    modified: float


class BufferRefs(NamedTuple):
    """What the head of a parcel says of buffers.

    Attributes:
        is_buffer: whether it is itself a buffer that values share.
        references: the shared buffers that it needs.
    """

    is_buffer: bool = False
    references: tuple[Address, ...] = ()

    @classmethod
    def of(cls, head: Head) -> BufferRefs:
        """Return what ``head`` says."""
        return cls(head.serializer == BUFFER, head.references)


class Storage(ABC, Generic[T]):
    """Entries by key. Every method may be called from any thread.

    Writes are atomic and idempotent: a reader, in any process, sees an entry whole or not at all.
    No method leaves a transaction open, or a lock held, while the caller's code runs between two
    items of an iterator.
    """

    capabilities: Capabilities = Capabilities()

    # -- the five methods of a backend -------------------------------------------------------------

    @abstractmethod
    def put_many(self, items: Iterable[tuple[str, T]]) -> None:
        """Store entries, in order, each in place of one that is there.

        Nothing of an item is kept in memory that belongs to others after this returns.

        Raises:
            StorageError: one could not be stored; those before it may be there, the rest is not.
            ParcelError: likewise, since one proved damaged while it was read, or is not signed by a
                secret of this storage.
        """

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, T | ParcelError]]:
        """Yield those of the entries that are there, in the order of ``keys``.

        In place of an entry that is damaged or not trusted comes the error that says so.

        Raises:
            StorageError: the storage could not be read.
        """

    @abstractmethod
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have an entry, without reading it."""

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove entries; a key without an entry is passed over."""

    @abstractmethod
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the key, size and time of the last write of every entry, in any order.

        Args:
            prefix: only those whose key begins with it.
        """

    # -- what follows from them --------------------------------------------------------------------

    def touch_many(self, keys: Iterable[str]) -> set[str]:
        """Make entries as young as if they had just been put; return the keys that have one.

        A cache touches every value that it relies on instead of storing it again, and calls that
        were used: neither a :meth:`delete_older` that has begun already nor a later one may then
        take it. A storage that cannot be written to only looks, and so does this default.
        """
        return self.contains_many(keys)

    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        """Remove entries unless they were put or touched after a time of each; return what went.

        Args:
            limits: for each key the time, in seconds since the epoch, up to which it may be taken.
        """
        prefix = next(iter(limits)) if len(limits) == 1 else ""  # one walk, however many there are
        gone = {
            entry.key
            for entry in (self.entries(prefix) if limits else ())
            if entry.key in limits and entry.modified <= limits[entry.key]
        }
        self.delete_many(gone)
        return gone

    def now(self) -> float:
        """Return the time by the clock that tells :attr:`Entry.modified`, in seconds.

        Where another machine keeps the time (a file server, an object store), that is not the clock
        of this one; the default is.

        Raises:
            StorageError: the storage could not be asked.
        """
        return time.time()

    def sweep(self, older: float = STALE) -> int:  # noqa: ARG002 (here there is nothing to sweep)
        """Remove what killed writers left behind ``older`` seconds ago; return how many things.

        Raises:
            StorageError: the storage could not be asked.
        """
        return 0

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage."""
        return {"type": f"{type(self).__module__}:{type(self).__qualname__}"}

    def close(self) -> None:
        """Give back what the storage holds open. Idempotent."""

    def __repr__(self) -> str:
        from fleche._redact import redact

        inner = ", ".join(f"{name}={value!r}" for name, value in redact(self.to_config()).items())
        return f"{type(self).__name__}({inner})"


class ValueStorage(Storage[Parcel]):
    """Parcels by their address.

    ``packing`` says how a value is packed that is born into this storage, and whose signatures
    count. The storage itself neither packs nor opens, unless its capabilities say
    ``opens_parcels``. A shared buffer is an entry whose address has no variant.
    """

    packing: Packing = Packing()

    def draft(self, content: memoryview) -> Draft | None:
        """Begin to write a large buffer whose digest is not known yet.

        A storage that can, keeps the file when the parcel of the draft is put.

        Args:
            content: contiguous memory, which does not change before the draft is finished.

        Returns:
            ``None`` where nothing is gained, or nothing can be written.
        """
        del content
        return None

    def adopt(self) -> None:
        """Make what is here, and not known, an entry like others.

        It is needed after a copy whose parts are not of one moment, before garbage is collected.

        Raises:
            StorageError: the storage could not be read, or not be written to.
        """

    def forms(self, address: str) -> list[Entry]:
        """Return the entries of one value that can be read, of any variant, the oldest first.

        Args:
            address: without a variant: all of its forms.
        """
        return sorted(self.entries(address), key=lambda entry: entry.modified)

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for key, parcel in self.get_many(keys):
            found.add(key)
            if isinstance(parcel, Parcel):
                with closing(parcel):
                    self.put_many([(key, parcel)])
        return found

    def buffer_refs(self, keys: Iterable[str]) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        """Yield what the heads of those parcels say of buffers that are there.

        A parcel that is not trusted here still says what it refers to, for readers that trust it.
        One whose head is damaged can never be opened, and needs nothing; of one that only a newer
        fleche can read, what it needs is not known, and the error comes in its place.
        """
        for key, parcel in self.get_many(keys):
            if isinstance(parcel, Parcel):
                with closing(parcel):
                    yield key, BufferRefs.of(parcel.head)
            else:
                yield key, refs_of_unusable(parcel)

    def check_many(
        self, keys: Iterable[str], secrets: Sequence[bytes] = ()
    ) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        """Check every byte of parcels without opening a value; yield as :meth:`buffer_refs` does.

        Args:
            keys: the addresses of the parcels.
            secrets: if there are any, one of them must have signed each parcel.

        Yields:
            The error of a parcel that is damaged, another value's, or not trusted.
        """
        from fleche.parcel import verify as verify_parcel

        for key, parcel in self.get_many(keys):
            if isinstance(parcel, ParcelError):
                yield key, BufferRefs() if isinstance(parcel, UnpackError) else parcel
                continue
            with closing(parcel):
                try:
                    verify_parcel(parcel, digest=Address.of(key).digest, keys=secrets)
                except ParcelError as error:
                    yield key, error
                else:
                    yield key, BufferRefs.of(parcel.head)


class CallStorage(Storage[CallEntry]):
    """Entries of calls, and pins, by key. Putting a key again replaces its entry.

    An entry is a record with the small parcels that travel with it. Pins (records without a
    result) are entries like others, except that no query yields them.

    ``locks`` tells other processes which calls are being computed, if the storage can.
    """

    locks: LockTable = LockTable()

    def query(
        self, template: QueryCall, *, keys_only: bool = False
    ) -> Iterator[tuple[str, CallEntry | None]]:
        """Yield the finished calls that match ``template``, as they are found.

        Damaged entries are skipped with one warning.

        Args:
            template: what to look for.
            keys_only: yield no entries, where that is cheaper; pins and damaged entries may then be
                among the keys if every call matches.
        """
        if keys_only and template == QueryCall():
            yield from ((key, None) for batch in batched(self._all_keys(), _BATCH) for key in batch)
        else:
            yield from matching_entries(template, self._all_entries())

    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[str, CallEntry]]:
        """Yield those ``number`` of the finished calls that match which began last, in that order.

        Calls that do not say when they began come last, in any order.

        Args:
            template: what to look for.
            number: how many calls to yield at most.
        """
        return self._newest_among(self.query(template), template, number)

    def _newest_among(
        self, found: Iterable[tuple[str, CallEntry | None]], template: QueryCall, number: int
    ) -> Iterator[tuple[str, CallEntry]]:
        """Yield the newest of ``found``, which are read again: few are in memory together."""
        from heapq import nlargest

        times = ((entry.record.sort_time, key) for key, entry in found if entry is not None)
        newest = nlargest(number, times, key=itemgetter(0))
        for batch in batched((key for _, key in newest), _TOGETHER):
            entries = dict(matching_entries(template, self.get_many(batch)))
            yield from ((key, entries[key]) for key in batch if key in entries)

    def _all_keys(self) -> Iterable[str]:
        """Return the keys of all entries."""
        return (entry.key for entry in self.entries())

    def _all_entries(self) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for batch in batched(self._all_keys(), _BATCH):
            yield from self.get_many(batch)

    def holders(self, prefix: str) -> Iterator[tuple[Address, str]]:
        """Yield the values that entries hold themselves, each with the key of its entry.

        These are the parcels that travel with records, and the literals, whose addresses have no
        variant.

        Args:
            prefix: only values whose address begins with it.
        """
        return held_among(self._all_entries(), prefix)

    def is_there(self) -> bool:
        """Return whether the store has been made already; counters of use alone do not make one."""
        return True

    def note_usage(self, rows: Iterable[Usage]) -> None:
        """Add counters of use to those that are kept, if this storage keeps any.

        Of one that was copied from another cache, the larger counts.

        Raises:
            StorageError: they could not be stored.
        """
        del rows

    def usage(self) -> Iterator[Usage]:
        """Yield the counters of use that are kept, several of one place perhaps."""
        return iter(())

    def usage_name(self) -> str:
        """Return what tells the counters of this storage from those of all others.

        It stays the same. Without one (empty), counters are not copied to other caches.

        Raises:
            StorageError: there is none yet, and it could not be stored.
        """
        return ""

    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        """Keep what was said of code, for good.

        Raises:
            StorageError: it could not be stored, or this storage has no place for it.
        """
        del rows
        raise StorageError(f"{self!r}: has no place for what is accepted")

    def accepted(self) -> Iterator[Acceptance]:
        """Yield what was said of code; what cannot be read is left out.

        Raises:
            StorageError: it cannot be looked at.
        """
        return iter(())


def held_addresses(entry: CallEntry) -> dict[Address, None]:
    """Return where the values are that an entry holds itself: its parcels and its literals."""
    literals = (Address.of(ref.digest) for ref in entry.record.values() if ref.is_literal)
    return dict.fromkeys((*entry.parcels, *literals))


def held_among(
    found: Iterable[tuple[str, CallEntry | ParcelError]], prefix: str
) -> Iterator[tuple[Address, str]]:
    """Yield what entries hold themselves below ``prefix``; damaged ones hold nothing."""
    for key, entry in found:
        if isinstance(entry, CallEntry):
            yield from ((held, key) for held in held_addresses(entry) if held.startswith(prefix))


def matching_entries(
    template: QueryCall, found: Iterable[tuple[str, CallEntry | ParcelError]]
) -> Iterator[tuple[str, CallEntry]]:
    """Yield the finished calls of ``found`` that match; damaged ones are skipped with a warning."""
    warned = False
    is_for_all = template == QueryCall()
    for key, entry in found:
        if isinstance(entry, ParcelError):
            level = logging.DEBUG if warned else logging.WARNING
            log.log(level, "query skips a record that is %s: %s", flaw_of(entry), entry)
            warned = True
        elif (is_for_all and entry.record.result is not None) or template.matches(entry.record):
            yield key, entry


def refs_of_unusable(error: ParcelError) -> BufferRefs | ParcelError:
    """Return which buffers a parcel needs that cannot be used here; the error: not known."""
    if isinstance(error, SignatureError) and error.head is not None:
        return BufferRefs.of(error.head)
    is_of_no_use = isinstance(error, CorruptParcel) and not error.newer
    return BufferRefs() if is_of_no_use or isinstance(error, UnpackError) else error


class Configured(Storage[T], Generic[T]):
    """A storage whose constructor takes the fields of its table in ``fleche.toml``.

    Attributes:
        Options: those fields.
    """

    Options: ClassVar[type[msgspec.Struct]]
    _type: str
    _options: msgspec.Struct

    @classmethod
    def from_options(
        cls, type_name: str, options: msgspec.Struct, resolve: Callable[[str], str]
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes.

        Args:
            type_name: the ``type`` of the table.
            options: its other fields.
            resolve: makes a path absolute.
        """
        del type_name
        return cls(**cls._located(options, resolve))

    @classmethod
    def _located(cls, options: msgspec.Struct, resolve: Callable[[str], str]) -> dict[str, Any]:
        """Return the fields of a table, with its path made absolute."""
        fields = msgspec.structs.asdict(options)

        def absolute(path: str) -> str:
            return resolve(str(expand_path(path)))

        for name in ("root", "url"):
            if fields.get(name) is not None:
                fields[name] = cls._place(fields[name], absolute)
        return fields

    @classmethod
    def _place(cls, place: str, resolve: Callable[[str], str]) -> str:
        return resolve(place)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration; what is in memory arrives empty."""
        return partial(type(self), **msgspec.structs.asdict(self._options)), ()

    @override
    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage, its secrets included."""
        return {"type": self._type, **msgspec.to_builtins(self._options)}


class DirectoryOptions(
    msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The table in ``fleche.toml`` of a storage of files, or of a ``local`` cache.

    Attributes:
        root: the directory, ``~`` and environment variables expanded; made when the first entry is
            put.
        compress: compress what is written, if that makes it smaller: ``"zlib"``, ``"zstd"``, or
            ``True`` for the best that is installed.
        secret_key: secrets: the first signs, all are accepted, and an entry that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.
        mmap: load the large buffers of a value when they are touched, copy-on-write.
        durable: what was written survives a power failure: files and directories are synced to the
            disk, which is slower.
    """

    root: str
    compress: Compress = None
    secret_key: str | list[str] | None = None
    mmap: bool = False
    durable: bool = False


def keys_of(secret_key: str | list[str] | None) -> tuple[bytes, ...]:
    """Return the secrets of a storage: the first signs, all are accepted.

    Args:
        secret_key: one secret or several; if there are none, those of ``FLECHE_SECRET_KEY`` count.

    Raises:
        ValueError: one of them is empty.
    """
    secrets = [secret_key] if isinstance(secret_key, str) else secret_key or []
    if "" in secrets:
        raise ValueError("secret_key: an empty secret signs nothing; leave it out")
    return Packing(keys=tuple(map(str.encode, secrets))).with_environment().keys
