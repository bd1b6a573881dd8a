"""Values and calls as objects, one for each value and for each small call."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from fleche._util import batched, override
from fleche.call import CallEntry, decode_entry, encode_entry
from fleche.digest import Address
from fleche.errors import ParcelError, StorageError
from fleche.parcel import Compress, MemorySource, Packing, Parcel, codec_of, length_of
from fleche.storage._base import (
    STALE,
    BufferRefs,
    CallStorage,
    Capabilities,
    Configured,
    Entry,
    ValueStorage,
    keys_of,
    refs_of_unusable,
)
from fleche.storage._notes import Acceptance
from fleche.storage.file import SUFFIXES
from fleche.storage.fsspec._deletion import CoordinatedRemover, Remover, RenamingRemover
from fleche.storage.fsspec._filesystem import Connection, explained, is_path
from fleche.storage.fsspec._objects import BLOCK, Found, Objects, ObjectSource
from fleche.storage.fsspec._writing import AccessTimes, Writer

__all__ = ["CallFsspec", "FsspecOptions", "FsspecStorage", "ValueFsspec"]

T = TypeVar("T")

_ABREAST = 16  # threads that touch entries
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_YOUNG = 5.0
"""Seconds in which, on a store that counts in whole seconds, an entry may be in use unnoticed."""

_WHOLE = 4 << 20
"""Values smaller than this are read in one request, when they are asked for."""
_HEAD = 1 << 16
_REFS = 1 << 12
"""So much of each value is read where nothing but its head matters; few heads are longer."""
_VALUES, _HEADS, _CALLS = 16, 128, 128
"""So many of them are read, or written, at once."""

_ATTEMPTS = 5  # to write what is removed at the same moment
_KEPT = 32 << 20
"""Bytes of entries that are kept in memory, so that a scan fetches what is new alone."""


class FsspecOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of an ``fsspec`` storage in ``fleche.toml``.

    Attributes:
        url: what fsspec calls one (``s3://bucket/path``), or the path of a directory; ``~`` and
            environment variables are expanded.
        options: what the filesystem takes: ``key``, ``secret``, ``endpoint_url``, ``anon``, ...
        serializer: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
        compress: compress what is written, if that makes it smaller: ``"zlib"``, ``"zstd"``, or
            ``True`` for the best that is installed.
        secret_key: secrets: the first signs, all are accepted, and an entry that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.
    """

    url: str
    options: dict[str, Any] = {}
    serializer: Literal["cloudpickle", "pickle", "dill"] = "cloudpickle"
    compress: Compress = None
    secret_key: str | list[str] | None = None


class FsspecStorage(Configured[T], Generic[T]):
    """Entries as objects below one url, which values and calls may share.

    The parameters are the fields of :class:`FsspecOptions`.

    Raises:
        ConfigError: fsspec knows no filesystem of that name.
        MissingExtra: the package that speaks the protocol is not installed.
    """

    Options = FsspecOptions
    _type = "fsspec"
    _kind: ClassVar[Literal["values", "calls"]]

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        serializer: Literal["cloudpickle", "pickle", "dill"] = "cloudpickle",
        compress: Compress = None,
        secret_key: str | list[str] | None = None,
    ) -> None:
        self._connection = Connection(url, options or {})
        self._options = FsspecOptions(
            url=self._connection.url,
            options=dict(options or {}),
            serializer=serializer,
            compress=compress,
            secret_key=secret_key,
        )
        self.packing = Packing(serializer, codec_of(compress), keys_of(secret_key))
        stays = self._connection.traits.persistent
        self.capabilities = Capabilities(persistent=stays, shared=stays, touches=True)
        self._objects = self._make_objects()
        self._writer = Writer(self._objects)
        self._remover = self._make_remover()

    @classmethod
    @override
    def _place(cls, place: str, resolve: Callable[[str], str]) -> str:
        return resolve(place) if is_path(place) else place

    def _make_objects(self) -> Objects:
        return Objects(self._connection, SUFFIXES[self._kind])

    def _make_remover(self) -> Remover:
        """Return what removes old entries; on stores, that is for entries no writer relies on."""
        return (RenamingRemover if self._connection.traits.renames else Remover)(self._objects)

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have an entry; one byte of each is read, many at once."""
        return self._objects.present(keys)

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        wanted = list(dict.fromkeys(keys))
        if len(wanted) < 2 or not self._connection.is_async:
            return {key for key in wanted if self._touch(key)}
        self._remover.safe_until()  # so that one looks for notices, and not every thread
        with ThreadPoolExecutor(min(_ABREAST, len(wanted)), "fleche-touching") as pool:
            touched = list(pool.map(self._touch, wanted))
        return {key for key, there in zip(wanted, touched, strict=True) if there}

    def _touch(self, key: str) -> bool:
        """Make one entry as young as if it had just been put; return whether there is one."""
        raise NotImplementedError

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        self._objects.remove_many(keys)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the key, size and age of entries, as the listing gives them.

        The age is by the clock of the store. S3 gives it in whole seconds: an entry that is a few
        seconds old may have been touched after it was looked at, and look the same. So its age is
        given in such a way that :meth:`delete_older` does not take it.
        """
        return map(self._entry, self._objects.listed(prefix))

    def _entry(self, found: Found) -> Entry:
        latest = self._objects.latest(found.modified)
        given = latest if latest < time.time() - _YOUNG else found.modified
        return Entry(found.key, found.size, given)

    @override
    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        """Remove entries unless they were put or touched after a time of each; return what went.

        On stores, writers are told before the first one is removed, and when it is over.
        """
        with self._remover.removing():
            return {key for key, limit in limits.items() if self._remover.remove_older(key, limit)}

    @override
    def now(self) -> float:
        """Return the time by the clock of the store: the age of a new object.

        Where none can be made, it is that of this machine.
        """
        if not self.capabilities.shared or getattr(self._connection.fs, "local_file", False):
            return time.time()
        return self._writer.now()

    @override
    def sweep(self, older: float = STALE) -> int:
        """Remove what killed writers left behind ``older`` seconds ago; return how many files.

        Object stores show nothing of an upload that was not finished; let them remove it by a
        rule for incomplete multipart uploads.
        """
        return self._writer.sweep(lambda: self.now() - older)

    @override
    def close(self) -> None:
        """Close the connections, unless another storage uses them. Idempotent."""
        self._remover.close()
        self._connection.close()

    @override
    def to_config(self) -> dict[str, Any]:
        table = msgspec.structs.asdict(self._options)
        default = msgspec.structs.asdict(FsspecOptions(url=""))
        given = {name: value for name, value in table.items() if value != default[name]}
        return {"type": self._type, **given}

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.name!r})"

    def _is_there(self, key: str, error: StorageError) -> bool:
        """Return whether there is an entry, where ``error`` says that nothing may be written.

        Raises:
            StorageError: it says something else.
        """
        if getattr(error.__cause__, "errno", None) in _READ_ONLY or isinstance(
            error.__cause__, PermissionError
        ):
            return self._objects.contains(key)
        raise error


# -- values ----------------------------------------------------------------------------------------


class ValueFsspec(FsspecStorage[Parcel], ValueStorage):
    """Parcels as objects.

    The parameters are those of the table in ``fleche.toml``, see :class:`FsspecOptions`.
    """

    _kind = "values"

    @override
    def _make_remover(self) -> Remover:
        if self._connection.traits.narrows:
            return CoordinatedRemover(self._objects)
        return super()._make_remover()

    @override
    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        """Store parcels: several small ones at once, but a buffer before what refers to it."""
        small: dict[str, bytes] = {}
        for key, parcel in items:
            if self.packing.keys:
                parcel.check_signature(self.packing.keys)
            is_large = parcel.nbytes > _WHOLE
            if is_large or not small.keys().isdisjoint(parcel.references):
                self._write_many(small)
                small = {}
            if is_large:
                self._write_large(key, parcel)
                continue
            small[key] = parcel.tobytes()
            if len(small) == _VALUES:
                self._write_many(small)
                small = {}
        self._write_many(small)

    def _write_large(self, key: str, parcel: Parcel) -> None:
        if parcel.nbytes <= BLOCK:
            self._write(key, parcel.tobytes())
            return
        until = self._remover.safe_until()
        self._writer.write_chunks(key, parcel.nbytes, parcel.chunks())
        if not self._remover.survived(key, until):
            raise self._removed(key)

    def _write(self, key: str, data: bytes) -> None:
        """Write an entry, again if it is removed at this moment."""
        for _ in range(_ATTEMPTS):
            until = self._remover.safe_until()
            self._writer.write(key, data)
            if self._remover.survived(key, until):
                return
        raise self._removed(key)

    def _write_many(self, items: Mapping[str, bytes]) -> None:
        if len(items) < 2:
            for key, data in items.items():
                self._write(key, data)
            return
        until = self._remover.safe_until()
        self._writer.write_many(items)
        for key in items:
            if not self._remover.survived(key, until):
                self._write(key, items[key])

    def _removed(self, key: str) -> StorageError:
        name = self._objects.name(key)
        return StorageError(f"{name}: cannot write: it was removed again at once; try again")

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        """Yield parcels, several fetched at once; the rest of a large one when it is opened.

        If it is removed until then, opening it raises :class:`KeyError`: it is gone.
        """
        for batch in batched(keys, _VALUES):
            for key, begun in self._objects.read_many(batch, _WHOLE):
                try:
                    parcel = self._parcel(key, begun, _WHOLE)
                except KeyError:  # an empty object, or one that has just gone
                    continue
                except ParcelError as error:
                    yield key, error
                else:
                    yield key, parcel

    @override
    def buffer_refs(self, keys: Iterable[str]) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        """Yield what heads say of buffers: little else is fetched, of many values at once."""
        for batch in batched(keys, _HEADS):
            for key, begun in self._objects.read_many(batch, _REFS):
                if begun:
                    with suppress(KeyError):
                        yield key, self._refs(key, begun)

    def _refs(self, key: str, begun: bytes) -> BufferRefs | ParcelError:
        try:
            size = length_of(begun) if len(begun) == _REFS else len(begun)
            with closing(self._begun(key, begun, size)) as parcel:
                return BufferRefs.of(parcel.head)
        except ParcelError as error:
            return refs_of_unusable(error)

    @override
    def _touch(self, key: str) -> bool:
        """Make a parcel young; one whose head is damaged, or not trusted, is none."""
        if not self._is_sound(key):
            return False
        try:
            until = self._remover.safe_until()
            return self._made_young(key) and self._remover.survived(key, until)
        except StorageError as error:
            return self._is_there(key, error)

    def _made_young(self, key: str) -> bool:
        try:
            if not self._writer.touch(key):
                (begun,) = self._objects.read_ranges(key, [(0, _WHOLE)])
                with closing(self._parcel(key, begun, _WHOLE)) as held:
                    self._writer.write_chunks(key, held.nbytes, held.chunks())
        except KeyError:
            return False
        return True

    def _is_sound(self, key: str) -> bool:
        for _, begun in self._objects.read_many([key], _HEAD):
            with suppress(KeyError, ParcelError), closing(self._parcel(key, begun, _HEAD)) as held:
                return held.head.digest == Address.of(key).digest
        return False

    def _parcel(self, key: str, begun: bytes, asked: int) -> Parcel:
        """Return the parcel that begins with ``begun``, of which ``asked`` bytes were asked for.

        Raises:
            KeyError: there is none.
            ParcelError: it is damaged, or not trusted.
        """
        size = len(begun) if len(begun) < asked else self._objects.find(key).size
        parcel = self._begun(key, begun, size)
        if self.packing.keys:
            parcel.check_signature(self.packing.keys)
        return parcel

    def _begun(self, key: str, begun: bytes, size: int) -> Parcel:
        """Return the parcel of ``size`` bytes that begins with ``begun``; trusted or not."""
        if not begun:
            raise KeyError(key)
        name = self._objects.name(key)
        if len(begun) < size:
            fetch = partial(self._objects.read_ranges, key)
            return Parcel(ObjectSource(name, size, begun, fetch))
        memory = MemorySource((memoryview(bytearray(begun)),), owned=True)
        memory.name = name
        return Parcel(memory)


# -- calls -----------------------------------------------------------------------------------------


class CallFsspec(FsspecStorage[CallEntry], CallStorage):
    """Entries of calls as objects, each written and read in one request.

    The parameters are those of :class:`ValueFsspec`, so that one table of ``fleche.toml`` describes
    both; ``serializer`` and ``compress`` make no difference to records.
    """

    _kind = "calls"
    _objects: AccessTimes

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self._known = EtagCache(_KEPT)

    @override
    def _make_objects(self) -> AccessTimes:
        return AccessTimes(self._connection, SUFFIXES[self._kind])

    @override
    def close(self) -> None:
        self._known.clear()
        super().close()

    @override
    def put_many(self, items: Iterable[tuple[str, CallEntry]]) -> None:
        keys = self.packing.keys
        for batch in batched(items, _CALLS):
            encoded = {key: encode_entry(key, entry, keys) for key, entry in batch}
            if len(encoded) == 1:
                ((key, data),) = encoded.items()
                self._writer.write(key, data)
            else:
                self._writer.write_many(encoded)

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for batch in batched(keys, _CALLS):
            for key, data in self._objects.read_many(batch, BLOCK):
                if data:
                    yield key, self._decoded(key, data)

    def _decoded(self, key: str, data: bytes) -> CallEntry | ParcelError:
        try:
            return decode_entry(key, data, self.packing.keys, place=self._objects.name(key))
        except ParcelError as error:
            return error

    @override
    def _touch(self, key: str) -> bool:
        """Make an entry young without writing it: that could undo what another process puts."""
        if not self._objects.contains(key):
            return False
        until = self._remover.safe_until()
        try:
            if not self._writer.touch_in_place(key):
                self._objects.use(key)
            return self._remover.survived(key, until)
        except KeyError:
            return False
        except StorageError as error:
            return self._is_there(key, error)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the key and size of entries, and their age since they were put or touched."""
        return map(self._entry, self._objects.in_use(prefix))

    @override
    def sweep(self, older: float = STALE) -> int:
        """Remove what was left behind ``older`` seconds ago; return how many objects.

        That is what killed writers leave, and what gives the last use of an entry that is gone.
        """
        return super().sweep(older) + self._objects.sweep(lambda: self.now() - older)

    @override
    def _all_keys(self) -> Iterable[str]:
        return (found.key for found in self._objects.listed())

    @override
    def _all_entries(self) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        """Yield every entry; many are read at once, on S3 only what is new since the last time."""
        for batch in batched(self._objects.listed(), _CALLS):
            known = {found.key: self._known.get(found.tag) for found in batch}
            for key, data in known.items():
                if data is not None:
                    yield key, self._decoded(key, data)
            tags = {found.key: found.tag for found in batch if known[found.key] is None}
            for key, data in self._objects.read_many(tags, BLOCK):
                if data:
                    self._known.keep(tags[key], data)
                    yield key, self._decoded(key, data)

    @override
    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        connection = self._connection
        place = f"{connection.root}/accepted"
        with explained("write", connection.name):
            if not connection.traits.atomic:  # a store of objects has no directories
                connection.make_directory(place)
            for row in rows:
                content = msgspec.json.encode(row)
                with connection.open_new(f"{place}/{row.key}.json") as file:
                    file.write(content)

    @override
    def accepted(self) -> Iterator[Acceptance]:
        names = [
            str(each["name"]) for each in self._objects.ls(f"{self._connection.root}/accepted")
        ]
        for name in names:
            if name.endswith(".json"):
                with explained("read", self._connection.name):
                    content = self._connection.fs.cat_file(name)
                with suppress(msgspec.MsgspecError):  # a damaged object
                    yield msgspec.json.decode(content, type=Acceptance)


_LARGEST = 1 << 16


class EtagCache:
    """Contents of small objects by their MD5, up to so many bytes.

    S3 names it in every listing, so that a scan need not fetch again what has not changed. An
    object whose tag is no MD5 of its content (encrypted ones, and those uploaded in parts) is not
    kept. What is found here is what the listing spoke of, so that nothing can be out of date.

    Args:
        most: bytes to keep; when they are used up, everything is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, bytes] = {}
        self._size = 0

    def get(self, tag: str) -> bytes | None:
        """Return the content that has this tag, if it is known."""
        return self._held.get(tag) if tag else None

    def keep(self, tag: str, content: bytes) -> None:
        """Remember the content, if the tag is its MD5."""
        if not tag or len(content) > _LARGEST or tag in self._held:
            return
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != tag:
            return
        if self._size + len(content) > self._most:
            self.clear()
        self._held[tag] = content
        self._size += len(content)

    def clear(self) -> None:
        """Forget everything."""
        self._held, self._size = {}, 0
