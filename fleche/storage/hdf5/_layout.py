"""The layout of a file: what a value looks like in HDF5.

The value is the object ``/value``; every object of it says in its attribute ``type`` what it was:

========================  ==================================================================
``type``                  HDF5
========================  ==================================================================
``NoneType``              a dataset without data (a null dataspace)
``bool``                  a scalar enum FALSE, TRUE of one byte
``int``                   a scalar of 64 bits; beyond them, its hexadecimal digits as a string
``float``, ``complex``    a scalar float64; a scalar compound of ``r`` and ``i``
``str``                   a scalar UTF-8 string; with NUL or lone surrogates, its bytes in UTF-8
                          (surrogates passed through) as uint8
``bytes``, ``bytearray``  a dataset of uint8
``list``, ``tuple``,      where all items are of one plain type, which the attribute ``items``
``set``, ``frozenset``    names: a dataset of one dimension; else a group with members ``0``,
                          ``1``, ...
``dict``                  a group with a member for each key, in order of creation; where the keys
                          are no names, a group with the attribute ``layout = "items"`` and the
                          members ``keys`` and ``values``
``dataclass``,            a group with a member for each field, and the attribute ``class``
``namedtuple``            (``module:name``)
``numpy.ndarray``,        a dataset. What HDF5 has no type for is stored as a stand-in, and the
``numpy.scalar``          attribute ``dtype`` gives the real one: int64 for datetime64 and
                          timedelta64; UTF-8 strings or uint32 code points for unicode. An array of
                          objects is a group with the member ``items`` and the attribute ``shape``.
                          ``order = "F"``: it lay in memory column by column; ``order = "1,0,2"``:
                          by these axes, the slowest first; ``readonly``: it was not writeable
``opaque``                the number of an item in ``/opaque``, the bytes of a parcel with a list
``parcel``                the whole value as the bytes of a parcel
========================  ==================================================================

What occurs more than once in a value is one object with several links, as far as the root's
attribute ``shared`` says so.

The first 512 bytes are the seal, which vouches for the rest. HDF5 leaves them to the application
(they are its *user block*). They are two lines of text, then zero bytes::

    fleche hdf5 1 <BLAKE3 of the rest of the block> <HMAC-SHA256, or 64 hyphens>
    {"digest": "<of the value>", "size": <bytes after the block>, "checksum": "<of those bytes>"}

The checksum is XXH3-128; of a file that is signed, BLAKE3, since a signature over a weak sum
protects nothing.
It is checked before anything of a file is given to the HDF5 library, which must not be trusted
with damaged files.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec
from blake3 import blake3
from xxhash import xxh3_128

from fleche.call import is_legible
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel import sign

__all__ = [
    "BLOCK",
    "BUDGET",
    "CLASS",
    "DEEPEST",
    "DTYPE",
    "ITEMS",
    "LAYOUT",
    "OPAQUE",
    "ORDER",
    "PARCEL",
    "READONLY",
    "SHAPE",
    "SHARED",
    "TYPE",
    "VALUE",
    "NotNative",
    "Seal",
    "check_body",
    "is_link_name",
    "is_plain_text",
    "read_seal",
    "sealed",
]

VALUE, OPAQUE, SHARED = "value", "opaque", "shared"
PARCEL = "parcel"
TYPE, ITEMS, LAYOUT, CLASS = "type", "items", "layout", "class"
DTYPE, ORDER, READONLY, SHAPE = "dtype", "order", "readonly", "shape"

BUDGET = 1024
"""The most HDF5 objects of one value: each costs half a millisecond, and a third of a KiB."""

DEEPEST = 64
"""The most groups in one another."""

_LONGEST_NAME = 1000


class NotNative(Exception):
    """HDF5 has no type for something; it is stored as an opaque part."""


def is_plain_text(text: str) -> bool:
    """Return whether ``text`` can be an HDF5 string: no NUL, no lone surrogate."""
    return "\0" not in text and is_legible(text)


def is_link_name(name: str) -> bool:
    """Return whether ``name`` can be the name of a member of a group."""
    fits = 0 < len(name) <= _LONGEST_NAME and "/" not in name and name != "."
    return fits and is_plain_text(name)


# -- the seal --------------------------------------------------------------------------------------

BLOCK = 512
_MAGIC = b"fleche hdf5 1 "
_HEX = 64
_UNSIGNED = b"-" * _HEX
_PIECE = 1 << 20


class Seal(msgspec.Struct, frozen=True):
    """What a file says of itself: the digest of its value; size and checksum of what follows."""

    digest: str
    size: int
    checksum: str

    @property
    def strong(self) -> bool:
        """Whether the checksum is BLAKE3."""
        return len(self.checksum) == _HEX


def sealed(file: BinaryIO, digest: str, keys: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a finished HDF5 file with its seal in the block left free for it.

    Args:
        file: the file, open for reading, with a user block of 512 bytes.
        digest: the digest of the value.
        keys: secrets; the first signs.
    """
    size, found = _hash(file, strong=bool(keys))
    yield _encode(Seal(digest, size, found), keys)
    file.seek(BLOCK)
    yield from _pieces(file)


def read_seal(block: bytes, name: str, keys: Sequence[bytes]) -> Seal:
    """Return the seal that is in ``block``, the first 512 bytes of the file ``name``.

    Raises:
        CorruptParcel: the block is damaged, or of no file of ours.
        SignatureError: ``keys`` are given and none of them signed it.
    """
    if len(block) != BLOCK or not block.startswith(_MAGIC):
        raise CorruptParcel(f"{name}: not an HDF5 file of fleche, or a truncated one")
    checksum, rest = block[len(_MAGIC) :][:_HEX], block[len(_MAGIC) + _HEX :]
    if _checksum(rest) != checksum:
        raise CorruptParcel(f"{name}: altered bytes: the checksum of the seal does not match")
    signature, covered = rest[1:][:_HEX], rest[1 + _HEX :]
    if keys:
        _check_signature(signature, covered, name, keys)
    try:
        return msgspec.json.decode(covered.strip(b"\n\0"), type=Seal)
    except msgspec.MsgspecError as error:
        raise CorruptParcel(f"{name}: the seal cannot be read ({error})") from None


def check_body(file: BinaryIO, seal: Seal, name: str) -> None:
    """Check every byte after the block.

    Raises:
        CorruptParcel: there are fewer, more or others than the seal says.
    """
    size, found = _hash(file, strong=seal.strong)
    if size != seal.size:
        raise CorruptParcel(f"{name}: {size} bytes where the seal says {seal.size}")
    if found != seal.checksum:
        raise CorruptParcel(f"{name}: altered bytes: the checksum does not match")


def _hash(file: BinaryIO, *, strong: bool) -> tuple[int, str]:
    file.seek(BLOCK)
    hasher, size = blake3(max_threads=blake3.AUTO) if strong else xxh3_128(), 0
    for piece in _pieces(file):
        hasher.update(piece)
        size += len(piece)
    return size, hasher.hexdigest()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _encode(seal: Seal, keys: Sequence[bytes]) -> bytes:
    covered = b"\n" + msgspec.json.encode(seal) + b"\n"
    covered += bytes(BLOCK - len(_MAGIC) - 2 * _HEX - 1 - len(covered))
    rest = b" " + (_sign(keys[0], covered) if keys else _UNSIGNED) + covered
    return _MAGIC + _checksum(rest) + rest


def _checksum(content: bytes) -> bytes:
    return blake3(content).hexdigest().encode()


def _sign(key: bytes, covered: bytes) -> bytes:
    return sign(_MAGIC + covered, (key,)).hex().encode()


def _check_signature(signature: bytes, covered: bytes, name: str, keys: Sequence[bytes]) -> None:
    if signature == _UNSIGNED:
        raise SignatureError(f"{name}: not signed, and this storage has secrets")
    if not any(hmac.compare_digest(_sign(key, covered), signature) for key in keys):
        raise SignatureError(f"{name}: signed with a key that is not configured here")
