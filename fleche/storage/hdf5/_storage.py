"""Values as HDF5 files, one each, in the directories that other files of values are in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO, FileIO, RawIOBase
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias, cast

import msgspec

from fleche._util import expand_path, override
from fleche.digest import Address
from fleche.errors import CorruptParcel, ParcelError, StorageError
from fleche.parcel import Packing, Parcel, StreamSource, explained, spool
from fleche.storage._base import BufferRefs, Capabilities, Configured, ValueStorage
from fleche.storage._making import make_directories
from fleche.storage.file import FileEntries, Files
from fleche.storage.hdf5._document import read_document, write_document
from fleche.storage.hdf5._layout import BLOCK, Seal, check_body, read_seal, sealed

__all__ = ["Compress", "Hdf5Options", "ValueHdf5"]

_SUFFIX = ".h5"
_PIECE = 1 << 20
_SMALL = 1 << 26
"""Up to this size, a file is put together, and read, in memory."""

Compress: TypeAlias = (
    Literal["gzip", "lzf"] | Annotated[int, msgspec.Meta(ge=0, le=9)] | bool | None
)


class Hdf5Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of an ``hdf5`` storage in ``fleche.toml``.

    Attributes:
        root: the directory; ``~`` and environment variables are expanded.
        compress: store arrays in compressed chunks: ``"gzip"``, a level of it from 0 to 9, or
            ``"lzf"``, which is faster and which only h5py reads.
    """

    root: str
    compress: Compress = None


class ValueHdf5(Configured[Parcel], FileEntries[Parcel], ValueStorage):
    """Values as HDF5 files that h5py, HDFView, h5dump and MATLAB read.

    Arrays, scalars, strings and containers are HDF5 objects, anything else in or around them the
    bytes of a parcel. A value that did not come back from its HDF5 form with the same digest is
    kept as its parcel. All values are kept, small ones too, for other programs to read.

    Args:
        root: the directory, ``~`` and environment variables expanded; made when the first value is
            put.
        compress: ``"gzip"`` (or ``True``), a level of it from 0 to 9, or ``"lzf"``.

    Raises:
        ValueError: there is no such compression.
    """

    capabilities = Capabilities(persistent=True, shared=True, opens_parcels=True, keeps_all=True)
    Options = Hdf5Options
    _type = "hdf5"

    def __init__(self, root: str | os.PathLike[str], *, compress: Compress = None) -> None:
        path = str(expand_path(root).absolute())
        try:
            fields = {"root": path, "compress": compress}
            self._options = msgspec.convert(fields, Hdf5Options)
        except msgspec.ValidationError as error:
            raise ValueError(f'compress {compress!r}: "gzip", 0 to 9, or "lzf"') from error
        super().__init__(Files(path, _SUFFIX))
        self.packing = Packing().with_environment()
        self._filters = _filters(compress)

    @override
    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        """Open parcels and store their values.

        A parcel that cannot be opened here, because it needs a module or another Python, is stored
        as it is, with a warning.
        """
        for key, parcel in map(_on_disk, items):
            if self.packing.keys:
                parcel.check_signature(self.packing.keys)
            name = parcel.head.digest
            with self._scratch(key, parcel.nbytes) as file:
                write_document(file, parcel, self.packing, self._filters)
                if isinstance(file, Scratch):
                    file.check()
                self._files.write(key, sealed(file, name, self.packing.keys))

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        """Yield the values, packed again; an ``UnpackError`` for one that cannot be made here."""
        for key in keys:
            try:
                with self._checked(key, self.packing.keys) as (file, seal):
                    parcel = read_document(file, self._files.path(key), seal.digest, self.packing)
            except KeyError:
                continue
            except ParcelError as error:
                yield key, error
            else:
                yield key, parcel

    @override
    def _touch(self, key: str) -> bool:
        if not self._is_sound(key):
            return False
        with suppress(OSError, StorageError):  # a storage that cannot be written to only looks
            try:
                self._files.touch(key)
            except PermissionError:  # a colleague's file, in a directory that all may write to
                self._write_again(key)
        return self._files.find(key) is not None

    def _write_again(self, key: str) -> None:
        with suppress(KeyError), self._opened(key) as file:
            self._files.write(key, iter(partial(file.read, _PIECE), b""))

    def _is_sound(self, key: str) -> bool:
        """Return whether a whole file of that value is there, as far as its seal says."""
        try:
            found = self._files.find(key)
            if found is None:
                return False
            with open(self._files.path(key), "rb", buffering=0) as file:
                seal = read_seal(file.read(BLOCK), "", self.packing.keys)
        except (ParcelError, OSError):
            return False
        return found.size == BLOCK + seal.size and seal.digest == Address.of(key).digest

    @override
    def buffer_refs(self, keys: Iterable[str]) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        """Yield that nothing needs a shared buffer: values are kept whole."""
        return ((key, BufferRefs()) for key in keys if self._files.find(key) is not None)

    @override
    def check_many(
        self, keys: Iterable[str], secrets: Sequence[bytes] = ()
    ) -> Iterator[tuple[str, BufferRefs | ParcelError]]:
        """Check every byte of files; HDF5 sees none of it, and no value is made."""
        for key in keys:
            try:
                self._check(key, secrets or self.packing.keys)
            except KeyError:
                continue
            except ParcelError as error:
                yield key, error
            else:
                yield key, BufferRefs()

    def _check(self, key: str, secrets: Sequence[bytes]) -> None:
        with self._checked(key, secrets) as (_, seal):
            name = Address.of(key).digest
            if seal.digest != name:
                raise CorruptParcel(
                    f"{self._files.path(key)}: holds {seal.digest[:12]}, not {name[:12]}"
                )

    @contextmanager
    def _scratch(self, key: str, nbytes: int) -> Iterator[BinaryIO]:
        """Give a nameless file to put a value of about ``nbytes`` together in."""
        with explained("write", self._files.path(key)):
            if nbytes <= _SMALL:
                yield BytesIO()
                return
            make_directories(self._files.root)
            with tempfile.TemporaryFile(dir=self._files.root, buffering=0) as file:
                yield cast("BinaryIO", Scratch(file))

    @contextmanager
    def _checked(self, key: str, secrets: Sequence[bytes]) -> Iterator[tuple[BinaryIO, Seal]]:
        """Give the file of ``key`` after all of its bytes were checked, and its seal.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged.
            SignatureError: none of ``secrets`` signed it.
            StorageError: it could not be read.
        """
        with self._opened(key) as file:
            path = self._files.path(key)
            seal = read_seal(file.read(BLOCK), path, secrets)
            check_body(file, seal, path)
            yield file, seal

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        """Give the file of ``key``, in memory if it is small."""
        data = self._files.read(key, _SMALL)
        if data is None:
            raise KeyError(key)
        if data:
            yield BytesIO(data)
            return
        path = self._files.path(key)
        with explained("read", path):
            try:
                file = open(path, "rb")  # noqa: SIM115 (it is closed below)
            except FileNotFoundError:  # removed since it was seen
                raise KeyError(key) from None
            with file:
                yield file


def _on_disk(item: tuple[str, Parcel]) -> tuple[str, Parcel]:
    """Return an item whose parcel need not be collected in memory if files are in it."""
    key, parcel = item
    if parcel.head.files and isinstance(parcel.source, StreamSource):
        return key, spool(parcel.source)
    return item


def _filters(compress: Compress) -> dict[str, Any]:
    """Return what ``create_dataset`` is told; HDF5 itself chooses the chunks."""
    if compress is True:
        compress = "gzip"
    if compress is None or compress is False:
        return {}
    return {"compression": compress, "shuffle": True, "chunks": True}


class Scratch(RawIOBase):
    """Passes everything on to ``file`` until something fails.

    An error that is raised while HDF5 calls back is lost in it, and leaves its file half open. So
    the first one is kept for :meth:`check`; from then on nothing is written, and all that can be
    read is zero bytes, of which HDF5 makes nothing.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong.

        Raises:
            OSError: the first write that failed.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._error is None:
                done += self._file.write(view[done : done + (1 << 30)]) or 0
        except OSError as error:
            self._error = error
        return len(view)

    @override
    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there is something."""
        view = memoryview(buffer).cast("B")
        if self._error is not None:
            view[:] = bytes(len(view))
            return len(view)
        done = 0
        while count := self._file.readinto(view[done : done + (1 << 30)]):
            done += count
        return done

    @override
    def readable(self) -> bool:
        return True

    @override
    def fileno(self) -> int:
        return self._file.fileno()

    @override
    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)
