"""Values and calls as files."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from fleche._util import expand_path, override
from fleche.call import CallEntry, decode_entry, encode_entry
from fleche.digest import Address
from fleche.errors import ParcelError, StorageError
from fleche.parcel import Buffer, Compress, Draft, DraftSource, Packing, Parcel, codec_of
from fleche.storage._base import (
    STALE,
    BufferRefs,
    Capabilities,
    Configured,
    DirectoryOptions,
    Entry,
    Storage,
    ValueStorage,
    held_addresses,
    keys_of,
    refs_of_unusable,
)
from fleche.storage.file._files import SUFFIXES, Files, NewFile
from fleche.storage.file._holders import HolderIndex
from fleche.storage.file._locks import FileLockTable
from fleche.storage.file._notes import NotesInFiles

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallFile", "FileEntries", "ValueFile"]

T = TypeVar("T")

_WRITTEN = 1 << 21
"""Bytes of a parcel that are written at a time: a huge page of the page cache."""

_AT_ONCE = 1 << 20
"""Files up to this size are read at once, and closed, when they are asked for. A server may have to
hold as many of them as it has streams."""

_UNMAPPED = 1 << 18
"""Files up to this size are read although they are to be mapped."""


class FileEntries(Storage[T], Generic[T]):
    """Entries that are files: all that can be said, and done, without opening one.

    Args:
        files: where they are.
    """

    capabilities = Capabilities(persistent=True, shared=True, touches=True)

    def __init__(self, files: Files) -> None:
        self._files = files

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        return {key for key in keys if self._files.find(key) is not None}

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._files.remove(key)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return self._files.entries(prefix)

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        return {key for key in keys if self._touch(key)}

    @abstractmethod
    def _touch(self, key: str) -> bool:
        """Make one entry as young as if it had just been put; return whether there is one."""

    @override
    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        return {key for key, limit in limits.items() if self._files.remove_older(key, limit)}

    @override
    def now(self) -> float:
        return self._files.now()

    @override
    def sweep(self, older: float = STALE) -> int:
        return self._files.sweep(older)

    def sweep_drafts(self) -> int:
        """Do so with what was begun as a :meth:`~fleche.storage.ValueStorage.draft`."""
        return self._files.sweep_drafts()


class _DirectoryStorage(Configured[T], FileEntries[T], Generic[T]):
    """Files below one root, which values and calls may share; see :class:`DirectoryOptions`."""

    Options = DirectoryOptions
    _options: DirectoryOptions
    _kind: ClassVar[Literal["values", "calls"]]

    def __init__(
        self,
        root: str | os.PathLike[str],
        serializer: str = "cloudpickle",
        *,
        compress: Compress = None,
        secret_key: str | list[str] | None = None,
        mmap: bool = False,
        durable: bool = False,
    ) -> None:
        path = str(expand_path(root).absolute())
        self._options = DirectoryOptions(
            root=path, compress=compress, secret_key=secret_key, mmap=mmap, durable=durable
        )
        self._type = serializer
        self._packing = Packing(
            serializer, codec_of(compress), keys_of(secret_key), os.path.join(path, "files")
        )
        super().__init__(Files(path, SUFFIXES[self._kind], durable=durable))

    @classmethod
    @override
    def from_options(
        cls, type_name: str, options: msgspec.Struct, resolve: Callable[[str], str]
    ) -> Self:
        return cls(serializer=type_name, **cls._located(options, resolve))

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        fields = msgspec.structs.asdict(self._options)
        return partial(type(self), serializer=self._type, **fields), ()

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.root!r}, {self._type!r})"


class ValueFile(_DirectoryStorage[Parcel], ValueStorage):
    """Parcels as files.

    The parameters are those of the table in ``fleche.toml``, see :class:`DirectoryOptions`;
    ``serializer`` is its ``type``: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
    """

    _kind = "values"

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.packing = self._packing

    @override
    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        for key, parcel in items:
            if self.packing.keys:
                parcel.check_signature(self.packing.keys)
            file = parcel.source.file if isinstance(parcel.source, DraftSource) else None
            if isinstance(file, NewFile) and file.files is self._files:
                self._files.finish(file, key)
                continue
            self._files.write(key, parcel.chunks(_WRITTEN), parcel.nbytes)

    @override
    def draft(self, content: memoryview) -> Draft | None:
        if self.packing.compression is not None:
            return None
        try:
            return Draft(content, self._files.begin(), signs=bool(self.packing.keys))
        except OSError:
            return None

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        return self._opened(keys, _UNMAPPED if self._options.mmap else _AT_ONCE)

    @override
    def _touch(self, key: str) -> bool:
        """Set the age of a parcel to zero; one whose head is damaged, or not trusted, is none."""
        if not self._is_sound(key):
            return False
        try:
            self._files.touch(key)
        except FileNotFoundError:
            return False
        except PermissionError:  # a colleague's file, perhaps in a directory that all may write to
            try:
                return key in ValueStorage.touch_many(self, [key])  # which puts it again
            except StorageError:
                return True
        except OSError:
            return self._files.find(key) is not None
        return True

    def _is_sound(self, key: str) -> bool:
        with suppress(StorageError):
            for _, parcel in self._opened([key], 0):
                if isinstance(parcel, Parcel):
                    parcel.close()
                    return parcel.head.digest == Address.of(key).digest
        return False

    @override
    def buffer_refs(self, keys: Iterable[str]) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        for key, parcel in self._opened(keys, 0):
            if isinstance(parcel, ParcelError):
                yield key, refs_of_unusable(parcel)
            else:
                parcel.close()
                yield key, BufferRefs.of(parcel.head)

    def _opened(self, keys: Iterable[str], most: int) -> Iterator[tuple[str, Parcel | ParcelError]]:
        """Yield parcels; of a file of more bytes than ``most`` only the head is read."""
        for key in keys:
            try:
                source = self._files.source(key, most, mmap=self._options.mmap)
                if source is None:
                    continue
                parcel = Parcel.of_source(source)
                self._check_signature(parcel)
            except ParcelError as error:
                yield key, error
            else:
                yield key, parcel

    def _check_signature(self, parcel: Parcel) -> None:
        if not self.packing.keys:
            return
        try:
            parcel.check_signature(self.packing.keys)
        except ParcelError:
            parcel.close()
            raise


class CallFile(_DirectoryStorage[CallEntry], NotesInFiles):
    """Entries of calls as files, each written and read at once.

    The parameters are those of :class:`ValueFile`, so that one table of ``fleche.toml`` describes
    both. ``serializer`` and ``mmap`` make no difference to records, and nor does ``compress``: the
    small parcels that travel with a record are compressed where they were packed.
    """

    _kind = "calls"

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.locks = FileLockTable(self._files)
        self._holders = HolderIndex(self._files, self._held_by)

    @override
    def put_many(self, items: Iterable[tuple[str, CallEntry]]) -> None:
        for key, entry in items:
            self._files.write(key, (encode_entry(key, entry, self._packing.keys),))

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for key in keys:
            try:
                entry = self._get(key)
            except ParcelError as error:
                yield key, error
            else:
                if entry is not None:
                    yield key, entry

    def _get(self, key: str) -> CallEntry | None:
        data: Buffer | None = self._files.read(key)
        if data is None:
            return None
        return decode_entry(key, data, self._packing.keys, place=self._files.path(key))

    @override
    def _touch(self, key: str) -> bool:
        try:
            self._files.touch(key)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # nothing can be written here, or the key is short
            return self._files.find(key) is not None
        return True

    @override
    def _all_keys(self) -> Iterable[str]:
        return self._files.walk()

    @override
    def holders(self, prefix: str) -> Iterator[tuple[Address, str]]:
        return self._holders.find(prefix)

    @override
    def is_there(self) -> bool:
        return os.path.isdir(self._files.root)

    def _held_by(self, key: str) -> tuple[Address, ...]:
        """Return which values an entry holds itself; none if it is gone or cannot be used."""
        try:
            entry = self._get(key)
        except ParcelError:
            return ()
        return () if entry is None else tuple(held_addresses(entry))
