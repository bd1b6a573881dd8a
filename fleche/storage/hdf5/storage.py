"""Values as HDF5 files, one each, in the directories that other files of values are in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal, TypeAlias, cast

import msgspec

from fleche.digest import Digest
from fleche.errors import CorruptParcel, ParcelError
from fleche.parcel import Packing, Parcel
from fleche.storage.base import Capabilities, Table, ValueStorage
from fleche.storage.file.entries import FileEntries
from fleche.storage.file.shards import Shards, explained
from fleche.storage.hdf5.document import read_document, write_document
from fleche.storage.hdf5.scratch import Scratch
from fleche.storage.hdf5.seal import BLOCK, Seal, check_body, read_seal, sealed

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Compress", "Hdf5Options", "ValueHdf5"]

_SUFFIX = ".h5"
_SMALL = 1 << 26
"""Up to this size, a file is put together, and read, in memory."""

Compress: TypeAlias = Literal["gzip", "lzf"] | Annotated[int, msgspec.Meta(ge=0, le=9)] | None


class Hdf5Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of an ``hdf5`` storage in ``fleche.toml``.

    Attributes:
        root: the directory.
        compress: store arrays in compressed chunks: ``"gzip"``, a level of it from 0 to 9, or
            ``"lzf"``, which is faster and which only h5py reads.
    """

    root: str
    compress: Compress = None


class ValueHdf5(FileEntries[Parcel], ValueStorage):
    """Values as HDF5 files that h5py, HDFView, h5dump and MATLAB read.

    Arrays, scalars, strings and containers are HDF5 objects (see
    :mod:`fleche.storage.hdf5.words`), anything else in or around them the bytes of a parcel. A
    value that did not come back from its HDF5 form with the same digest is kept as its parcel.

    Args:
        root: the directory, ``~`` expanded; made when the first value is put.
        compress: ``"gzip"``, a level of it from 0 to 9, or ``"lzf"``.

    Raises:
        ValueError: there is no such compression.
    """

    capabilities = Capabilities(persistent=True, shared=True, opens_parcels=True)
    Options: ClassVar[type[msgspec.Struct]] = Hdf5Options

    def __init__(self, root: str | Path, *, compress: Compress = None) -> None:
        path = Path(root).expanduser().absolute()
        try:
            fields = {"root": str(path), "compress": compress}
            self._options = msgspec.convert(fields, Hdf5Options)
        except msgspec.ValidationError as error:
            raise ValueError(f'compress {compress!r}: "gzip", 0 to 9, or "lzf"') from error
        super().__init__(Shards(path, _SUFFIX))
        self.packing = Packing().with_environment()
        self._filters = _filters(compress)

    @classmethod
    def from_options(
        cls,
        type_name: str,  # noqa: ARG003
        options: Hdf5Options,
        resolve: Callable[[str], str],
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        return cls(resolve(options.root), compress=options.compress)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration."""
        return _restore, (type(self), self._options.root, self._options.compress)

    def put(self, key: Digest, item: Parcel) -> None:
        """Open the parcel and store its value; one that is there and whole is only renewed.

        A parcel that cannot be opened here, because it needs a module or another Python, is stored
        as it is, with a warning.

        Raises:
            CorruptParcel: the parcel is damaged.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be written; the storage is as it was.
        """
        if self.packing.keys:
            item.check_signature(self.packing.keys)
        if self._is_sound(key, item.head.digest) and self._files.renew(key):
            return
        name = item.head.digest
        with self._scratch(key, item.nbytes) as file:
            write_document(file, item, self.packing, self._filters)
            if isinstance(file, Scratch):
                file.check()
            self._files.write(key, sealed(file, name, self.packing.keys))

    def get(self, key: Digest) -> Parcel:
        """Return the value, packed again.

        Raises:
            KeyError: there is none.
            CorruptParcel: the file is damaged.
            SignatureError: secrets are configured and none of them signed it.
            UnpackError: the value cannot be made here: a module is missing.
            StorageError: it could not be read.
        """
        with self._checked(key, self.packing.keys) as (file, seal):
            return read_document(file, str(self._files.path(key)), seal.digest, self.packing)

    def check(self, key: Digest, secrets: Sequence[bytes] = ()) -> Table:
        """Check every byte of a file; HDF5 sees none of it, and the value is not made."""
        with self._checked(key, secrets or self.packing.keys) as (_, seal):
            if seal.digest != key:
                name = self._files.path(key)
                raise CorruptParcel(f"{name}: holds {seal.digest[:12]}, not {key[:12]}")
        return Table()

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is a sound one."""
        if not self._is_sound(key):
            return False
        return self._files.renew(key) or self._files.contains(key)

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage."""
        return {"type": "hdf5", **msgspec.to_builtins(self._options)}

    def _is_sound(self, key: Digest, name: str = "") -> bool:
        """Tell whether a whole file of that value is there, as far as its seal tells."""
        try:
            size = self._files.find(key).size
            with self._files.path(key).open("rb", buffering=0) as file:
                seal = read_seal(file.read(BLOCK), "", self.packing.keys)
        except (KeyError, ParcelError, OSError):
            return False
        return size == BLOCK + seal.size and seal.digest in (str(key), name)

    @contextmanager
    def _scratch(self, key: Digest, nbytes: int) -> Iterator[BinaryIO]:
        """Give a nameless file to put a value of about ``nbytes`` together in."""
        with explained("write", self._files.path(key)):
            if nbytes <= _SMALL:
                yield BytesIO()
                return
            self._files.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._files.root, buffering=0) as file:
                scratch = Scratch(file)
                yield cast("BinaryIO", scratch)

    @contextmanager
    def _checked(self, key: Digest, secrets: Sequence[bytes]) -> Iterator[tuple[BinaryIO, Seal]]:
        """Give the file of ``key`` after all of its bytes were checked, and its seal."""
        path = self._files.path(key)
        with self._opened(key, path) as file:
            seal = read_seal(file.read(BLOCK), str(path), secrets)
            check_body(file, seal, str(path))
            yield file, seal

    @contextmanager
    def _opened(self, key: Digest, path: Path) -> Iterator[BinaryIO]:
        """Give the file at ``path``, in memory if it is small."""
        with explained("read", path):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise KeyError(key) from None
            with file:
                small = os.fstat(file.fileno()).st_size <= _SMALL
                yield BytesIO(file.read()) if small else file


def _filters(compress: Compress) -> dict[str, Any]:
    """Return what ``create_dataset`` is told; HDF5 itself chooses the chunks."""
    if compress is None:
        return {}
    return {"compression": compress, "shuffle": True, "chunks": True}


def _restore(cls: type[ValueHdf5], root: str, compress: Compress) -> ValueHdf5:
    return cls(root, compress=compress)
