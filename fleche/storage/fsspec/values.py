"""Values as objects, each a parcel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from functools import partial

from fleche._util import batched
from fleche.digest import Digest
from fleche.errors import CorruptParcel, ParcelError, StorageError
from fleche.parcel import MemorySource, Parcel, length_of
from fleche.storage.base import Table, ValueStorage
from fleche.storage.fsspec.notices import Announcing
from fleche.storage.fsspec.removing import Remover
from fleche.storage.fsspec.source import BLOCK, ObjectSource
from fleche.storage.fsspec.stored import Stored

__all__ = ["ValueFsspec"]

_WHOLE = 4 << 20
"""Values smaller than this are read in one request, when they are asked for."""
_HEAD = 1 << 16
_TABLE = 1 << 12
"""So much of each value is read where nothing but its table matters; few heads are longer."""
_BATCH = 16
_TABLES = 128
_ATTEMPTS = 5


class ValueFsspec(Stored[Parcel], ValueStorage):
    """Parcels as objects.

    The parameters are those of the table in ``fleche.toml``, see :class:`FsspecOptions`.
    """

    _kind = "values"

    def put(self, key: Digest, item: Parcel) -> None:
        """Store the parcel; a large one that is there and whole is only renewed.

        Raises:
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be written; the storage is as it was.
        """
        if self.packing.keys:
            item.check_signature(self.packing.keys)
        if item.nbytes <= BLOCK:
            self._write(key, item.tobytes())
        elif not (self._is_sound(key, item.head.digest) and self._renewed(key)):
            until = self._remover.calm()
            self._writer.write_chunks(key, item.nbytes, item.chunks())
            if not self._remover.lasts(key, until):
                raise self._removed(key)

    def put_many(self, items: Mapping[Digest, Parcel]) -> None:
        """Store several parcels, small ones at once."""
        small = [key for key, item in items.items() if item.nbytes <= _WHOLE]
        if self.packing.keys:
            for item in items.values():
                item.check_signature(self.packing.keys)
        for batch in batched(small, _BATCH):
            self._write_many({key: items[key].tobytes() for key in batch})
        for key in items.keys() - set(small):
            self.put(key, items[key])

    def removing(self) -> AbstractContextManager[None]:
        """Surround several :meth:`delete_older` of one thread; on stores, writers are told."""
        return self._remover.removing()

    def _make_remover(self) -> Remover:
        if self._connection.traits.narrows:
            return Announcing(self._objects)
        return super()._make_remover()

    def _write(self, key: Digest, data: bytes) -> None:
        """Write an entry, again if somebody removes it at this moment."""
        for _ in range(_ATTEMPTS):
            until = self._remover.calm()
            self._writer.write(key, data)
            if self._remover.lasts(key, until):
                return
        raise self._removed(key)

    def _write_many(self, items: Mapping[Digest, bytes]) -> None:
        until = self._remover.calm()
        self._writer.write_many(items)
        for key in items:
            if not self._remover.lasts(key, until):
                self._write(key, items[key])

    def _removed(self, key: Digest) -> StorageError:
        name = self._objects.name(key)
        return StorageError(f"{name}: cannot write: it was removed again at once; try again")

    def get(self, key: Digest) -> Parcel:
        """Return the parcel; the rest of a large one is fetched when it is opened.

        If it is removed until then, opening it raises :class:`KeyError`: it is gone.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be read.
        """
        return self._parcel(key, self._objects.read(key, 0, _WHOLE), _WHOLE)

    def get_many(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield those of the parcels that are there; several are fetched at once."""
        for batch in batched(keys, _BATCH):
            for key, data in self._objects.read_many(batch, _WHOLE):
                if data:
                    yield key, self._parcel(key, data, _WHOLE)

    def table(self, key: Digest) -> Table:
        """Return what the head of a parcel says of buffers; nothing else of it is fetched."""
        for _, found in self.tables([key]):
            return found
        raise KeyError(key)

    def tables(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, Table]]:
        """Yield the :meth:`table` of those that are there; many are fetched at once."""
        for batch in batched(keys, _TABLES):
            for key, begun in self._objects.read_many(batch, _TABLE):
                with suppress(KeyError):
                    yield key, self._table(key, begun)

    def _table(self, key: Digest, begun: bytes) -> Table:
        try:
            size = length_of(begun) if len(begun) == _TABLE else len(begun)
            with closing(self._begun(key, begun, size)) as parcel:
                return Table.of(parcel.head)
        except CorruptParcel as error:
            if error.newer:
                raise
            return Table()

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is a sound one."""
        if not self._is_sound(key):
            return False
        try:
            return self._renewed(key)
        except StorageError as error:
            return self._is_there(key, error)

    def _renewed(self, key: Digest) -> bool:
        """Make the entry young in place, or write it again; tell whether it is there, and stays."""
        until = self._remover.calm()
        return self._made_young(key) and self._remover.lasts(key, until)

    def _made_young(self, key: Digest) -> bool:
        try:
            if not self._writer.touch(key):
                with closing(self.get(key)) as parcel:
                    self._writer.write_chunks(key, parcel.nbytes, parcel.chunks())
        except KeyError:
            return False
        return True

    def _is_sound(self, key: Digest, digest: str = "") -> bool:
        """Tell whether a whole parcel of that value is there, as far as its head tells."""
        try:
            held = self._parcel(key, self._objects.read(key, 0, _HEAD), _HEAD)
        except (KeyError, ParcelError):
            return False
        held.close()
        return held.head.digest in (str(key), digest)

    def _parcel(self, key: Digest, begun: bytes, asked: int) -> Parcel:
        """Return the parcel that begins with ``begun``, of which ``asked`` bytes were asked for."""
        size = len(begun) if len(begun) < asked else self._objects.find(key).size
        parcel = self._begun(key, begun, size)
        if self.packing.keys:
            parcel.check_signature(self.packing.keys)
        return parcel

    def _begun(self, key: Digest, begun: bytes, size: int) -> Parcel:
        """Return the parcel of ``size`` bytes that begins with ``begun``; nobody signed it yet."""
        if not begun:
            raise KeyError(key)
        name = self._objects.name(key)
        if len(begun) < size:
            fetch = partial(self._objects.read_ranges, key)
            return Parcel(ObjectSource(name, size, begun, fetch))
        memory = MemorySource((memoryview(bytearray(begun)),), owned=True)
        memory.name = name
        return Parcel(memory)
