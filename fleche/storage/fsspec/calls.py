"""Records of calls as objects, each a parcel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fleche._util import batched
from fleche.call import CallRecord, QueryCall, decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, StorageError
from fleche.parcel import MemorySource, Parcel, pack_bytes, read_bytes
from fleche.storage.base import CallStorage, Entry, sound_matches
from fleche.storage.file import SUFFIXES
from fleche.storage.fsspec.recent import Recent
from fleche.storage.fsspec.source import BLOCK
from fleche.storage.fsspec.stored import Stored
from fleche.storage.fsspec.uses import UsedObjects
from fleche.storage.fsspec.writing import STALE

__all__ = ["CallFsspec"]

_RECORD = "record"
_BATCH = 128
_KEPT = 32 << 20


class CallFsspec(Stored[CallRecord], CallStorage):
    """Records of calls as objects.

    The parameters are those of :class:`ValueFsspec`, so that one table of ``fleche.toml`` describes
    both; ``serializer`` makes no difference to records.
    """

    _kind = "calls"
    _objects: UsedObjects

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self._recent = Recent(_KEPT)

    def _make_objects(self) -> UsedObjects:
        return UsedObjects(self._connection, SUFFIXES[self._kind])

    def close(self) -> None:
        """Close the connections, unless another storage uses them. Idempotent."""
        self._recent.clear()
        super().close()

    def put(self, key: Digest, item: CallRecord) -> None:
        """Store the record, in place of the one that is there.

        Raises:
            StorageError: it could not be written; the storage is as it was.
        """
        self._writer.write(key, self._encoded(key, item))

    def put_many(self, items: Mapping[Digest, CallRecord]) -> None:
        """Store several records, many at once."""
        for batch in batched(items, _BATCH):
            self._writer.write_many({key: self._encoded(key, items[key]) for key in batch})

    def get(self, key: Digest) -> CallRecord:
        """Return the record.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is damaged, or the record of another call.
            SignatureError: secrets are configured and none of them signed it.
            StorageError: it could not be read.
        """
        return self._decoded(key, self._objects.read(key, 0, BLOCK))

    def get_many(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield those of the records that are there; many are fetched at once."""
        for batch in batched(keys, _BATCH):
            for key, data in self._objects.read_many(batch, BLOCK):
                if data:
                    yield key, self._decoded(key, data)

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is one.

        The record is not written again: that could undo what somebody else puts at this moment.
        """
        if not self.contains(key):
            return False
        until = self._remover.calm()
        try:
            if not self._writer.touch_in_place(key):
                self._objects.use(key)
            return self._remover.lasts(key, until)
        except KeyError:
            return False
        except StorageError as error:
            return self._is_there(key, error)

    def entries(self) -> Iterator[Entry]:
        """Yield the size of every entry, and its age since it was put or renewed."""
        return map(self._entry, self._objects.in_use())

    def sweep(self, older: float = STALE) -> int:
        """Remove what was left behind ``older`` seconds ago; return how many objects.

        That is what killed writers leave, and what tells of the last use of a record that is gone.
        """
        return super().sweep(older) + self._objects.sweep(older)

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match; damaged records are skipped with a warning.

        Every record is read, many at once; on S3 only those that have changed since the last time.
        """
        return sound_matches(template, self._scan(), self._decoded)

    def _scan(self) -> Iterator[tuple[Digest, bytes]]:
        """Yield every record that is there, and fetch those that are not known already."""
        for batch in batched(self._objects.listed(), _BATCH):
            known = {found.key: self._recent.get(found.tag) for found in batch}
            yield from ((key, data) for key, data in known.items() if data is not None)
            tags = {found.key: found.tag for found in batch if known[found.key] is None}
            for key, data in self._objects.read_many(tags, BLOCK):
                if data:
                    self._recent.keep(tags[key], data)
                    yield key, data

    def _encoded(self, key: Digest, record: CallRecord) -> bytes:
        packing = self.packing
        return pack_bytes(
            encode_record(record),
            _RECORD,
            digest=key,
            compression=packing.compression,
            keys=packing.keys,
        ).tobytes()

    def _decoded(self, key: Digest, data: bytes) -> CallRecord:
        if not data:
            raise KeyError(key)
        source = MemorySource((memoryview(bytearray(data)),), owned=True)
        source.name = self._objects.name(key)
        content = read_bytes(Parcel(source), _RECORD, digest=key, keys=self.packing.keys)
        try:
            return decode_record(content)
        except CorruptParcel as error:
            raise CorruptParcel(f"{source.name}: {error}") from None
