"""Values and calls as files, each a parcel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from fleche.call import CallRecord, QueryCall, decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, ParcelError
from fleche.parcel import MemorySource, Packing, Parcel, pack_bytes, read_bytes
from fleche.storage.base import CallStorage, ValueStorage, sound_matches
from fleche.storage.file.claims import FileClaims
from fleche.storage.file.entries import FileEntries
from fleche.storage.file.options import FileOptions
from fleche.storage.file.shards import SUFFIXES, Shards, explained
from fleche.storage.secrets import keys_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallFile", "ValueFile"]

T = TypeVar("T")

_RECORD = "record"
_SMALL = 1 << 18
"""Files up to this size are read at once, and closed, when they are asked for."""


class _Files(FileEntries[T], Generic[T]):
    """Entries as files below one root, which values and calls may share.

    Args:
        root: the directory, ``~`` expanded; made when the first entry is put.
        serializer: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
        compress: ``"zlib"`` or ``"zstd"``.
        secret_key: secrets: the first signs, all are accepted, and an entry that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.
        mmap: load the large buffers of a value when they are touched.
        durable: sync files and directories to the disk.
    """

    Options: ClassVar[type[msgspec.Struct]] = FileOptions
    _kind: ClassVar[Literal["values", "calls"]]

    def __init__(
        self,
        root: str | Path,
        serializer: str = "cloudpickle",
        *,
        compress: Literal["zlib", "zstd"] | None = None,
        secret_key: str | list[str] | None = None,
        mmap: bool = False,
        durable: bool = False,
    ) -> None:
        path = Path(root).expanduser().absolute()
        self._options = FileOptions(
            root=str(path), compress=compress, secret_key=secret_key, mmap=mmap, durable=durable
        )
        self.packing = Packing(serializer, compress, keys_of(secret_key))
        super().__init__(Shards(path, SUFFIXES[self._kind], durable=durable))

    @classmethod
    def from_options(
        cls, type_name: str, options: FileOptions, resolve: Callable[[str], str]
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        fields = {**msgspec.structs.asdict(options), "root": resolve(options.root)}
        return cls(fields.pop("root"), type_name, **fields)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration."""
        return _restore, (type(self), self.packing.serializer, self._options)

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage, its secrets included."""
        return {"type": self.packing.serializer, **msgspec.to_builtins(self._options)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.root!r}, {self.packing.serializer!r})"


class ValueFile(_Files[Parcel], ValueStorage):
    """Parcels as files.

    The parameters are those of the table in ``fleche.toml``, see :class:`FileOptions`;
    ``serializer`` is its ``type``.
    """

    _kind = "values"

    def put(self, key: Digest, item: Parcel) -> None:
        """Store the parcel; one that is there and whole is only renewed.

        Raises:
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be written; the storage is as it was.
        """
        if self.packing.keys:
            item.check_signature(self.packing.keys)
        if not (self._is_sound(key, item.head.digest) and self._files.renew(key)):
            self._files.write(key, item.chunks())

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is a sound one."""
        if not self._is_sound(key):
            return False
        return self._files.renew(key) or self._files.contains(key)

    def _is_sound(self, key: Digest, digest: str = "") -> bool:
        """Tell whether a whole parcel of that value is there, as far as its head tells."""
        if not self._files.contains(key):
            return False
        try:
            with explained("read", path := self._files.path(key)):
                held = Parcel.from_file(str(path))
        except (ParcelError, OSError):
            return False
        try:
            if self.packing.keys:
                held.check_signature(self.packing.keys)
            return held.head.digest in (str(key), digest)
        except ParcelError:
            return False
        finally:
            held.close()

    def get(self, key: Digest) -> Parcel:
        """Return the parcel; a large one is read from its file when it is opened.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be read.
        """
        path = self._files.path(key)
        with explained("read", path):
            try:
                parcel = _open(path, mmap=self._options.mmap)
            except FileNotFoundError:
                raise KeyError(key) from None
        if self.packing.keys:
            _check_signature(parcel, self.packing)
        return parcel


class CallFile(_Files[CallRecord], CallStorage):
    """Records of calls as files.

    The parameters are those of :class:`ValueFile`, so that one table of ``fleche.toml`` describes
    both; ``serializer`` and ``mmap`` make no difference to records.
    """

    _kind = "calls"

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.claims = FileClaims(self._files)

    def put(self, key: Digest, item: CallRecord) -> None:
        """Store the record, in place of the one that is there.

        Raises:
            StorageError: it could not be written; the storage is as it was.
        """
        packing = self.packing
        parcel = pack_bytes(
            encode_record(item),
            _RECORD,
            digest=key,
            compression=packing.compression,
            keys=packing.keys,
        )
        self._files.write(key, [parcel.tobytes()])

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is one."""
        return self._files.renew(key) or self._files.contains(key)

    def get(self, key: Digest) -> CallRecord:
        """Return the record.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged, or the record of another call.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be read.
        """
        path = self._files.path(key)
        with explained("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise KeyError(key) from None
        parcel = _in_memory(bytearray(data), path)
        content = read_bytes(parcel, _RECORD, digest=key, keys=self.packing.keys)
        try:
            return decode_record(content)
        except CorruptParcel as error:
            raise CorruptParcel(f"{path}: {error}") from None

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match; damaged records are skipped with a warning."""
        return sound_matches(
            template, ((key, key) for key in self.keys()), lambda key, _: self.get(key)
        )


def _restore(cls: type[_Files[Any]], serializer: str, options: FileOptions) -> _Files[Any]:
    return cls.from_options(serializer, options, str)


def _open(path: Path, *, mmap: bool) -> Parcel:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _SMALL:
            data = bytearray(size)
            file.readinto(data)
            return _in_memory(data, path)
    return Parcel.from_file(str(path), mmap=mmap)


def _in_memory(data: bytearray, path: Path) -> Parcel:
    source = MemorySource((memoryview(data),), owned=True)
    source.name = str(path)
    return Parcel(source)


def _check_signature(parcel: Parcel, packing: Packing) -> None:
    try:
        parcel.check_signature(packing.keys)
    except ParcelError:
        parcel.close()
        raise
