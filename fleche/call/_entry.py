r"""Entries: a record together with the small parcels that travel with it, and their bytes at rest.

Every storage that keeps bytes (a file, a row, an object) keeps an entry in the same form. All
integers are little-endian::

    offset  size  what
    0       4     magic: 89 66 63 65  ("\x89fce")
    4       1     layout version (1)
    5       1     flags (bit 0: a signature follows the checksum)
    6       2     zero
    8       4     length of the record, r
    12      4     length of the table of parcels, t
    16      16    XXH3-128 of the key and of everything behind the checksum and signature;
                  of an entry that is signed, the first 16 bytes of its BLAKE3
    32      32    HMAC-SHA256 of "fleche entry 1\n" and the BLAKE3 (only where flag bit 0 is set)
    ...     r     the record, in msgpack
    ...     t     the table: msgpack, a list of (address, size)
    ...           the parcels, one after the other

The key is part of what the checksum covers, so that an entry cannot pass for that of another call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from blake3 import blake3
from xxhash import xxh3_128, xxh3_128_digest

from fleche.call._record import UNREADABLE, CallRecord, decode_bare, encode_record
from fleche.digest import Address
from fleche.errors import CorruptParcel
from fleche.parcel import Buffer, Parcel, check_signature, sign

__all__ = ["SMALL", "CallEntry", "decode_entry", "encode_entry", "sort_time_of"]

SMALL = 1 << 14
"""So many bytes of parcels, together, travel with a record."""

_MAGIC = b"\x89fce"
_VERSION = 1
_SIGNED = 1
_LONG = 1 << 18
_PROLOGUE = struct.Struct("<4sBB2xII")
_unpack = _PROLOGUE.unpack_from
_CHECKSUM = 16
_SIGNATURE = 32
_SIGNED_KIND = b"fleche entry 1\n"
_BARE = _PROLOGUE.size
_UNSIGNED = _BARE + _CHECKSUM
_ALTERED = "altered bytes, or another call's"

_encode_table = msgspec.msgpack.Encoder().encode
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_decode_table = msgspec.msgpack.Decoder(list[tuple[str, _Size]]).decode


class CallEntry(NamedTuple):
    """What a call storage keeps under one key.

    Attributes:
        record: the call, or a pin.
        parcels: the bytes of the parcels that travel with the record, by their address. Together
            they have at most :data:`SMALL` bytes where an entry is stored; an entry that a remote
            cache has loaded may bring a larger result along.
    """

    record: CallRecord
    parcels: Mapping[Address, Buffer] = {}

    def parcel(self, address: Address) -> Parcel | None:
        """Return a parcel that travels with the record; of a bare digest, that of any variant.

        Raises:
            CorruptParcel: its bytes are damaged.
        """
        data = self.parcels.get(address)
        if data is None and not address.variant:
            found = (each for each in self.parcels if each.startswith(address))
            data = self.parcels.get(next(found, address))
        return None if data is None else Parcel.from_bytes(data)

    def __reduce__(self) -> tuple[type[CallEntry], tuple[CallRecord, dict[Address, bytes]]]:
        """Be pickled with the bytes, of which this has views."""
        return CallEntry, (self.record, {at: bytes(data) for at, data in self.parcels.items()})


def sort_time_of(found: tuple[str, CallEntry]) -> datetime:
    """Return when a call that was found under a key began, to sort by."""
    return found[1].record.sort_time


_new_entry: Callable[[tuple[CallRecord, Mapping[Address, Buffer]]], CallEntry]
_new_entry = partial(tuple.__new__, CallEntry)  # without a call of Python code


def encode_entry(key: str, entry: CallEntry, secrets: Sequence[bytes] = ()) -> bytes:
    """Return the bytes in which ``entry`` is stored under ``key``.

    Args:
        key: the key of the call.
        entry: the record and its parcels.
        secrets: the first one, if there is any, signs.

    Raises:
        TypeError: something in the record is not plain data.
    """
    body = record = encode_record(entry.record)
    parcels = entry.parcels
    table = b""
    if parcels:
        table = _encode_table([(str(at), len(data)) for at, data in parcels.items()])
        body = b"".join((record, table, *parcels.values()))
    flags = _SIGNED if secrets else 0
    prologue = _PROLOGUE.pack(_MAGIC, _VERSION, flags, len(record), len(table))
    content = b"".join((key.encode(), prologue, body))
    if not secrets:
        return b"".join((prologue, xxh3_128_digest(content), body))
    strong = blake3(content).digest()
    return b"".join((prologue, strong[:_CHECKSUM], sign(_SIGNED_KIND + strong, secrets), body))


def decode_entry(
    key: str, data: Buffer, secrets: Sequence[bytes] = (), place: str = ""
) -> CallEntry:
    """Return the entry that :func:`encode_entry` wrote, after every check.

    Args:
        key: the key under which it was found.
        data: its bytes.
        secrets: if there are any, one of them must have signed it.
        place: where it was found, for the message of an error.

    Raises:
        CorruptParcel: the bytes are truncated or altered, or another call's.
        SignatureError: ``secrets`` are given, and none of them signed it.
    """
    try:
        magic, version, flags, record_size, table_size = _unpack(data)
    except struct.error:
        raise CorruptParcel(f"{_named(key, place)}: truncated") from None
    if magic != _MAGIC or version != _VERSION:
        raise _foreign(magic, version, _named(key, place))
    signed = flags & _SIGNED
    is_long = len(data) > _LONG
    if is_long:
        data = memoryview(data)  # of which slices are no copies
    body = data[_UNSIGNED + _SIGNATURE if signed else _UNSIGNED :]
    content = (key.encode(), data[:_BARE], body)
    if signed or secrets:
        _check_signature(b"".join(content), data, signed, secrets, _named(key, place))
    elif (_long_sum(content) if is_long else xxh3_128_digest(b"".join(content))) != data[
        _BARE:_UNSIGNED
    ]:
        raise CorruptParcel(f"{_named(key, place)}: {_ALTERED}")
    try:
        record = decode_bare(body[:record_size] if table_size else body)
    except UNREADABLE as error:
        raise CorruptParcel(f"{_named(key, place)}: not a call record: {error}") from None
    if not table_size:
        return _new_entry((record, {}))
    try:
        parcels = _parcels(memoryview(body)[record_size:], table_size)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptParcel(
            f"{_named(key, place)}: its table of parcels is damaged: {error}"
        ) from None
    return _new_entry((record, parcels))


def _long_sum(parts: Iterable[Buffer]) -> bytes:
    """Return the checksum of what is too long to be joined, which would copy it."""
    running = xxh3_128()
    for part in parts:
        running.update(part)
    return running.digest()


def _named(key: str, place: str) -> str:
    """Return what an error calls an entry."""
    return f"{place}: call {key[:12]}" if place else f"call {key[:12]}"


def _foreign(magic: bytes, version: int, where: str) -> CorruptParcel:
    """Return the error of what is no entry, or one of another layout."""
    if magic != _MAGIC:
        return CorruptParcel(f"{where}: not an entry of fleche")
    error = CorruptParcel(f"{where}: layout {version}, this fleche reads {_VERSION}; upgrade it")
    error.newer = version > _VERSION
    return error


def _parcels(body: memoryview, table_size: int) -> dict[Address, Buffer]:
    """Return the parcels that follow a record.

    Raises:
        ValueError: their table is damaged.
    """
    parcels: dict[Address, Buffer] = {}
    start = table_size
    for address, size in _decode_table(body[:table_size]):
        parcels[str.__new__(Address, address)] = body[start : start + size]
        start += size
    if start != len(body):
        raise ValueError("it does not fit its length")
    return parcels


def _check_signature(
    content: bytes, data: Buffer, signed: int, secrets: Sequence[bytes], where: str
) -> None:
    """Check an entry that is signed, or has to be.

    Args:
        content: what its checksum covers.
        data: its bytes.
        signed: whether it says that it is signed.
        secrets: if there are any, one of them must have signed it.
        where: it was found.
    """
    signature = bytes(data[_UNSIGNED : _UNSIGNED + _SIGNATURE]) if signed else b""
    strong = blake3(content).digest() if signed else b""
    expected = strong[:_CHECKSUM] if signed else xxh3_128_digest(content)
    if data[_BARE:_UNSIGNED] != expected:
        raise CorruptParcel(f"{where}: {_ALTERED}")
    if secrets:
        check_signature(_SIGNED_KIND + strong, signature, secrets, where)
