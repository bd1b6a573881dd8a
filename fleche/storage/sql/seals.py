r"""The seal of a record, in the row beside it: a checksum, and where there are secrets a signature.

::

    offset  size  what
    0       32    BLAKE3 of the key, a line feed and the encoded record
    32      32    HMAC-SHA256 of "fleche sql 1\n" and the checksum (only where there are secrets)

It vouches for the record and for the key that it stands under, not for the columns to search by: a
query believes nothing but the record.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from fleche.errors import CorruptParcel
from fleche.parcel import check_signature, sign

__all__ = ["check_seal", "seal"]

_MAGIC = b"fleche sql 1\n"
_CHECKSUM = 32


def seal(key: str, record: bytes, keys: Sequence[bytes] = ()) -> bytes:
    """Return the seal of an encoded record.

    Args:
        key: the key that it stands under.
        record: the encoded record.
        keys: secrets; the first one, if any, signs.
    """
    checksum = _checksum(key, record)
    return checksum + sign(_MAGIC + checksum, keys) if keys else checksum


def check_seal(found: bytes, key: str, record: bytes, keys: Sequence[bytes], place: str) -> None:
    """Check that ``found`` is the seal of an encoded record.

    Args:
        found: what is in the row; empty if nothing is.
        key: the key under which the record was found.
        record: the encoded record.
        keys: secrets; if there are any, one of them must have signed it.
        place: the database, for the error.

    Raises:
        CorruptParcel: the record is altered, or another call's, or has no seal.
        SignatureError: ``keys`` are given and none of them signed it.
    """
    checksum, signature = found[:_CHECKSUM], found[_CHECKSUM:]
    if checksum != _checksum(key, record):
        fault = "altered bytes, or another call's: the checksum does not match"
        if not found:
            fault = "no checksum: an older fleche wrote it, or it is damaged"
        raise CorruptParcel(f"{_named(place, key)}: {fault}")
    if keys:
        check_signature(_MAGIC + checksum, signature, keys, _named(place, key))


def _named(place: str, key: str) -> str:
    return f"{place}: call {key[:12]}"


def _checksum(key: str, record: bytes) -> bytes:
    return blake3(b"%b\n%b" % (key.encode(), record)).digest()
