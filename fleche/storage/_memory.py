"""Storages in the memory of this process. They are gone with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from fleche.call import CallRecord, QueryCall, decode_record, encode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel
from fleche.parcel import Packing, Parcel
from fleche.storage.base import CallStorage, Entry, Storage, ValueStorage, sound_matches

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallMemory", "MemoryOptions", "ValueMemory"]

T = TypeVar("T")


class MemoryOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of a ``memory`` storage in ``fleche.toml``: nothing but its ``type``."""


class _Held:
    """The bytes of an entry, which stay as they are, and its age, which does not."""

    __slots__ = ("data", "modified")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.modified = time.time()


class _Memory(Storage[T], Generic[T]):
    """Bytes in a dict.

    There is no lock: what a method does to the dict is one operation, which is atomic by itself, so
    that a forked child never inherits a lock that nobody will release.
    """

    Options: ClassVar[type[msgspec.Struct]] = MemoryOptions

    def __init__(self) -> None:
        self._held: dict[Digest, _Held] = {}

    @classmethod
    def from_options(
        cls,
        type_name: str,  # noqa: ARG003
        options: msgspec.Struct,  # noqa: ARG003
        resolve: Callable[[str], str],  # noqa: ARG003
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        return cls()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """Pickle as an empty storage: memory is not shared between processes."""
        return type(self), ()

    def contains(self, key: Digest) -> bool:
        """Tell whether there is an entry."""
        return key in self._held

    def delete(self, key: Digest) -> None:
        """Remove the entry; none there is no error."""
        self._held.pop(key, None)

    def keys(self) -> Iterator[Digest]:
        """Yield the keys there are at this moment."""
        return iter(list(self._held))

    def entry(self, key: Digest) -> Entry:
        """Return the size and age of an entry."""
        held = self._held[key]
        return Entry(key, len(held.data), held.modified)

    def renew(self, key: Digest) -> bool:
        """Make the entry as young as if it had just been put; tell whether there is one.

        The age alone is set: to put the entry again could bring it back over one that another
        thread has put meanwhile. One that has just been taken out counts as gone.
        """
        held = self._held.get(key)
        while held is not None:
            held.modified = time.time()
            current = self._held.get(key)
            if current is held:
                return True
            held = current
        return False

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the entry unless it was renewed after ``limit``; tell whether it went."""
        held = self._held.get(key)
        if held is None or held.modified > limit:
            return False
        taken = self._held.pop(key, None)
        if taken is not None and taken.modified > limit:  # put or renewed since the first look
            self._held.setdefault(key, taken)
            return False
        return taken is not None

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage."""
        return {"type": "memory"}

    def _hold(self, key: Digest, data: bytes) -> None:
        self._held[key] = _Held(data)


class ValueMemory(_Memory[Parcel], ValueStorage):
    """Parcels in memory.

    Args:
        packing: how values born here are packed; by default with cloudpickle, signed by the secrets
            of ``FLECHE_SECRET_KEY`` if there are any.
    """

    def __init__(self, packing: Packing | None = None) -> None:
        super().__init__()
        self.packing = Packing().with_environment() if packing is None else packing

    def put(self, key: Digest, item: Parcel) -> None:
        """Store a copy of the parcel's bytes; an entry that is there is only renewed."""
        if not self.renew(key):
            self._hold(key, item.tobytes())

    def get(self, key: Digest) -> Parcel:
        """Return the parcel; opening it copies what the object needs.

        Raises:
            KeyError: there is none.
        """
        return Parcel.from_bytes(self._held[key].data)


class CallMemory(_Memory[CallRecord], CallStorage):
    """Records of calls in memory, encoded, so that nobody can alter them from outside."""

    def put(self, key: Digest, item: CallRecord) -> None:
        """Store the record, in place of the one that is there."""
        self._hold(key, encode_record(item))

    def get(self, key: Digest) -> CallRecord:
        """Return the record.

        Raises:
            KeyError: there is none.
            CorruptParcel: it is none that can be read.
        """
        return _opened(key, self._held[key])

    def query(self, template: QueryCall) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the finished calls that match; damaged records are skipped with a warning."""
        return sound_matches(template, list(self._held.items()), _opened)


def _opened(key: Digest, held: _Held) -> CallRecord:
    try:
        return decode_record(held.data)
    except CorruptParcel as error:
        raise CorruptParcel(f"memory: call {key[:12]}: {error}") from None
