"""Storages in the memory of this process, gone with it; and storages that keep nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from fleche._util import override
from fleche.call import CallEntry, decode_record, encode_record
from fleche.digest import Address
from fleche.errors import CorruptParcel, ParcelError
from fleche.parcel import Packing, Parcel
from fleche.storage._base import (
    SHORTEST,
    CallStorage,
    Capabilities,
    Configured,
    Entry,
    ValueStorage,
    held_addresses,
)
from fleche.storage._notes import Acceptance, Usage, merge_usage

__all__ = ["CallMemory", "CallVoid", "ValueMemory", "ValueVoid"]

T = TypeVar("T")


class NoOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of a storage in ``fleche.toml`` that has nothing but its ``type``."""


class _Held:
    """An entry: its content and size stay as they are, its age does not."""

    __slots__ = ("addresses", "content", "key", "modified", "size")

    def __init__(
        self, key: str, content: Any, size: int, addresses: tuple[Address, ...] = ()
    ) -> None:
        self.key = key
        self.content = content
        self.size = size
        self.addresses = addresses
        self.modified = time.time()


class _Memory(Configured[T], Generic[T]):
    """Entries in a dict.

    There is no lock: what a method does to the dict is one operation, which is atomic by itself, so
    that a forked child never inherits a lock that no thread of it will release.
    """

    capabilities = Capabilities(touches=True)
    Options = NoOptions
    _type, _options = "memory", NoOptions()

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def _hold(self, held: _Held) -> None:
        self._held[held.key] = held

    def _forget(self, held: _Held) -> None:
        """Take note that an entry is no longer there."""

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        return {key for key in keys if key in self._held}

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            if (held := self._held.pop(key, None)) is not None:
                self._forget(held)

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return (
            Entry(key, held.size, held.modified)
            for key, held in list(self._held.items())
            if key.startswith(prefix)
        )

    @override
    def touch_many(self, keys: Iterable[str]) -> set[str]:
        return {key for key in keys if self._touch(key)}

    def _touch(self, key: str) -> bool:
        """Set the age to zero; an entry that is taken out at this moment counts as gone.

        The age alone is set: putting the entry again could bring it back over one that another
        thread has put meanwhile.
        """
        held = self._held.get(key)
        while held is not None:
            held.modified = time.time()
            current = self._held.get(key)
            if current is held:
                return True
            held = current
        return False

    @override
    def delete_older(self, limits: Mapping[str, float]) -> set[str]:
        return {key for key, limit in limits.items() if self._take_older(key, limit)}

    def _take_older(self, key: str, limit: float) -> bool:
        held = self._held.get(key)
        if held is None or held.modified > limit:
            return False
        taken = self._held.pop(key, None)
        if taken is None:
            return False
        if taken.modified > limit:  # put or touched since the first look
            self._put_back(taken)
            return False
        self._forget(taken)
        return True

    def _put_back(self, held: _Held) -> None:
        """Store an entry that was taken out by mistake, unless a newer one is there by now."""
        if self._held.setdefault(held.key, held) is not held:
            self._forget(held)


class ValueMemory(_Memory[Parcel], ValueStorage):
    """Parcels in memory.

    Args:
        packing: how values born here are packed; by default with cloudpickle, signed by the secrets
            of ``FLECHE_SECRET_KEY`` if there are any.
    """

    def __init__(self, packing: Packing | None = None) -> None:
        super().__init__()
        self.packing = Packing().with_environment() if packing is None else packing

    @override
    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        for key, parcel in items:
            data = parcel.tobytes()
            self._hold(_Held(key, data, len(data)))

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        for key in keys:
            if (held := self._held.get(key)) is not None:
                yield key, Parcel.from_bytes(held.content)


class CallMemory(_Memory[CallEntry], CallStorage):
    """Entries of calls in memory: records encoded, so that they cannot be altered from outside."""

    def __init__(self) -> None:
        super().__init__()
        # The entries that hold values themselves, by the first characters of an address. It may
        # list an entry that has just gone; one that is there it lists at the latest when the method
        # that put it returns.
        self._holders: dict[str, dict[_Held, None]] = {}
        self._usage: list[Usage] = []
        self._usage_name = os.urandom(16).hex()
        self._accepted: dict[str, Acceptance] = {}

    @override
    def put_many(self, items: Iterable[tuple[str, CallEntry]]) -> None:
        for key, entry in items:
            record = encode_record(entry.record)
            parcels = {address: bytes(data) for address, data in entry.parcels.items()}
            size = len(record) + sum(map(len, parcels.values()))
            old = self._held.get(key)
            self._hold(_Held(key, (record, parcels), size, tuple(held_addresses(entry))))
            if old is not None:
                self._forget(old)

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for key in keys:
            if (held := self._held.get(key)) is not None:
                yield key, _opened(held)

    @override
    def holders(self, prefix: str) -> Iterator[tuple[Address, str]]:
        if len(prefix) < SHORTEST:
            found = list(self._held.values())
        else:
            found = list(self._holders.get(prefix[:SHORTEST], ()))
        for held in found:
            if self._held.get(held.key) is not held:  # gone meanwhile
                self._forget(held)
                continue
            yield from ((each, held.key) for each in held.addresses if each.startswith(prefix))

    @override
    def note_usage(self, rows: Iterable[Usage]) -> None:
        self._usage = merge_usage([*self._usage, *rows])

    @override
    def usage(self) -> Iterator[Usage]:
        return iter(self._usage)

    @override
    def usage_name(self) -> str:
        return self._usage_name

    @override
    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        self._accepted.update((row.key, row) for row in rows)

    @override
    def accepted(self) -> Iterator[Acceptance]:
        return iter(list(self._accepted.values()))

    @override
    def _put_back(self, held: _Held) -> None:
        super()._put_back(held)
        self._list(held)  # it may have been taken off the list while it was out

    @override
    def _hold(self, held: _Held) -> None:
        super()._hold(held)
        self._list(held)

    @override
    def _forget(self, held: _Held) -> None:
        for address in held.addresses:
            self._holders.get(address[:SHORTEST], {}).pop(held, None)

    def _list(self, held: _Held) -> None:
        for address in held.addresses:
            self._holders.setdefault(address[:SHORTEST], {})[held] = None
        if self._held.get(held.key) is not held:  # removed before it was on the list
            self._forget(held)


def _opened(held: _Held) -> CallEntry | ParcelError:
    record, parcels = held.content
    try:
        return CallEntry(decode_record(record), dict(parcels))
    except CorruptParcel as error:
        return CorruptParcel(f"memory: call {held.key[:12]}: {error}")


class _Void(Configured[T], Generic[T]):
    """Nothing, whatever is put."""

    Options = NoOptions
    _type, _options = "void", NoOptions()

    @override
    def put_many(self, items: Iterable[tuple[str, T]]) -> None:
        for _ in items:
            pass

    @override
    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, T | ParcelError]]:
        return iter(())

    @override
    def contains_many(self, keys: Iterable[str]) -> set[str]:
        return set()

    @override
    def delete_many(self, keys: Iterable[str]) -> None:
        pass

    @override
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return iter(())


class ValueVoid(_Void[Parcel], ValueStorage):
    """Keeps no values, those included that could travel with the record of their call."""

    capabilities = Capabilities(keeps_all=True)

    def __init__(self) -> None:
        self.packing = Packing().with_environment()


class CallVoid(_Void[CallEntry], CallStorage):
    """Keeps no calls."""
