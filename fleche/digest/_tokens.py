"""Tokens: the self-delimiting byte strings of which every encoding is made.

A token begins with one byte that tells its type. What follows has a length that the token itself
declares, so a sequence of tokens can be taken apart in one way only, and the encoding is injective.

* A *leaf* (a number, a string, a name, ...) is a token that holds the value itself.
* A *node* (a container, an array, an object) is hashed by itself, and its token is its hash.
* A tree of *plain data* is hashed in the format of :mod:`fleche.digest._plain`, and its token is
  that hash.

Hashes of encodings are keyed with the scheme and the door (plain, walk, unordered), hence never
equal to one another by construction, nor to the plain BLAKE3 of any buffer.
"""

from __future__ import annotations

import os
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

from blake3 import blake3

from fleche import _turns
from fleche.digest._digest import FULL, Digest, digest_of_hash

__all__ = [
    "BIG",
    "DEEPEST",
    "MAPPING",
    "ORDERED",
    "PARALLEL",
    "PLAIN_KEY",
    "SCHEME",
    "UNORDERED",
    "UNORDERED_KEY",
    "WALK_KEY",
    "BufferDigests",
    "Hasher",
    "big_token",
    "buffer_digest",
    "bytes_token",
    "complex_token",
    "digest_of_token",
    "digest_token",
    "feed",
    "float_token",
    "global_token",
    "hash_node",
    "hash_threads",
    "int_token",
    "node_token",
    "open_node",
    "order",
    "plain_token",
    "raw_token",
    "size",
    "sort_tokens",
    "text_token",
    "unset_token",
]

SCHEME: int = 2
"""Version of the encoding. It is part of every digest and of every call key."""

PLAIN_KEY = blake3(b"fleche.digest scheme %d plain" % SCHEME).digest()
WALK_KEY = blake3(b"fleche.digest scheme %d walk" % SCHEME).digest()
UNORDERED_KEY = blake3(b"fleche.digest scheme %d unordered" % SCHEME).digest()
"""One key for each door, so that no two doors share a hash."""

BIG = 64 * 1024
PARALLEL = 1024 * 1024
AT_ONCE = 128 * 1024 * 1024  # hashed within some 0.1 s, after which Python may handle a signal
SORTED_AT_ONCE = 100_000
DEEPEST = 1_000_000

ORDERED = b"o"
UNORDERED = b"u"
MAPPING = b"m"
"""Kinds of nodes: the children of a mapping are keys and values in turn, and keep their order
unless the walk is one without order."""

Hasher = blake3


class Threads:
    """Whether the thread pool of BLAKE3 has been started, and whether it may be used."""

    started = False
    allowed = True

    @classmethod
    def forked(cls) -> None:
        cls.allowed = not cls.started


def hash_threads(nbytes: int, busy: int = 0) -> int:
    """Return ``max_threads`` for a BLAKE3 hasher that is to read so many bytes.

    That is as many as it likes for large buffers, and one in a forked child whose parent had done
    so: the pool's threads do not exist there, and asking for them would wait forever. All code that
    hashes with threads in this process must ask here. A large buffer ends the turn of this thread.

    Args:
        nbytes: how many bytes.
        busy: cores that do other work beside it. Where no two are left, more threads than one would
            only wait for each other.
    """
    if nbytes < PARALLEL:
        return 1
    _turns.leave()
    if not Threads.allowed:
        return 1
    if busy and _cores() - busy < 2:
        return 1
    Threads.started = True
    return blake3.AUTO


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


os.register_at_fork(after_in_child=Threads.forked)


def size(number: int) -> bytes:
    """Encode a length or a count."""
    return number.to_bytes(8, "little")


def feed(hasher: Hasher, data: bytes | bytearray | memoryview) -> None:
    """Feed a buffer of single bytes to a hasher, in pieces between which signals are handled."""
    if len(data) <= AT_ONCE:
        hasher.update(data)
        return
    with memoryview(data) as view:
        for start in range(0, len(view), AT_ONCE):
            hasher.update(view[start : start + AT_ONCE])


def plain_hash(data: bytes | bytearray | memoryview) -> bytes:
    """Return the BLAKE3 of a buffer of single bytes, hashed where it is."""
    if len(data) < PARALLEL:
        return blake3(data).digest()
    hasher = blake3(max_threads=hash_threads(len(data)))
    feed(hasher, data)
    return hasher.digest()


def buffer_digest(view: memoryview | bytes | bytearray) -> Digest:
    """Return the plain BLAKE3 of the bytes of a buffer: what ``b3sum`` prints for a file of them.

    C-contiguous memory is hashed in place; anything else is copied first, in C order.
    """
    if isinstance(view, memoryview):
        if not view.c_contiguous:
            return digest_of_hash(plain_hash(view.tobytes()))
        if view.nbytes == 0:
            return digest_of_hash(plain_hash(b""))
        with view.cast("B") as flat:
            return digest_of_hash(plain_hash(flat))
    return digest_of_hash(plain_hash(view))


def int_token(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"i" + size(len(raw)) + raw


def float_token(value: float) -> bytes:
    return b"f" + struct.pack("<d", value)


def complex_token(value: complex) -> bytes:
    return b"c" + struct.pack("<dd", value.real, value.imag)


def text_token(value: str) -> bytes:
    """Encode a string, lone surrogates included."""
    raw = value.encode("utf-8", "surrogatepass")
    if len(raw) >= BIG:
        return b"S" + size(len(raw)) + plain_hash(raw)
    return b"s" + size(len(raw)) + raw


def bytes_token(value: bytes) -> bytes:
    if len(value) >= BIG:
        return big_token(len(value), plain_hash(value))
    return b"b" + size(len(value)) + value


def big_token(nbytes: int, hashed: bytes) -> bytes:
    """Encode bytes too many to be repeated in the encoding: their number and their BLAKE3."""
    return b"B" + size(nbytes) + hashed


def raw_token(value: bytes) -> bytes:
    """Encode a few bytes that are no value of their own, such as the shape of an array."""
    return b"r" + size(len(value)) + value


def global_token(module: str, qualname: str) -> bytes:
    """Encode what is identified by its name."""
    return b"G" + text_token(module) + text_token(qualname)


def unset_token() -> bytes:
    """Encode the absence of a value: an empty cell, an unset slot."""
    return b"V"


def digest_token(value: Digest) -> bytes:
    """Encode a digest that stands somewhere inside a value.

    Raises:
        ValueError: if it is a short digest, which says nothing without a cache.
    """
    if len(value) != FULL:
        raise ValueError(f"{value!r} is a short digest; expand it to its 64 characters first")
    return b"d" + bytes.fromhex(value)


def node_token(hashed: bytes) -> bytes:
    return b"D" + hashed


def plain_token(hashed: bytes) -> bytes:
    """Encode a tree of plain data by its hash."""
    return b"P" + hashed


def open_node(kind: bytes, label: bytes) -> bytes:
    """Return the bytes with which the encoding of a node begins."""
    return kind + size(len(label)) + label


def order(kind: bytes, tokens: list[bytes], key: bytes = WALK_KEY) -> Iterable[bytes]:
    """Put the tokens of a node in their canonical order."""
    if kind == UNORDERED:
        return sort_tokens(tokens)
    if kind == MAPPING and key == UNORDERED_KEY:
        return sort_tokens([*map(b"".join, zip(tokens[::2], tokens[1::2], strict=True))])
    return tokens


def sort_tokens(tokens: list[bytes]) -> list[bytes]:
    """Sort tokens; very many of them by parts, between which signals are handled."""
    if len(tokens) <= SORTED_AT_ONCE:
        return sorted(tokens)
    step = max(1, SORTED_AT_ONCE // 2)
    pivots = sorted(tokens[::step])  # as good as random: the tokens come in the order of a hash
    parts: list[list[bytes]] = [[] for _ in range(len(pivots) + 1)]
    for token in tokens:
        parts[bisect_right(pivots, token)].append(token)
    return [token for part in parts for token in sorted(part)]


def hash_node(kind: bytes, label: bytes, tokens: list[bytes], key: bytes = WALK_KEY) -> bytes:
    """Return the hash of a node from the tokens of its children."""
    data = open_node(kind, label) + b"".join(order(kind, tokens, key))
    return blake3(data, key=key).digest()


def digest_of_token(token: bytes, key: bytes = WALK_KEY) -> Digest:
    """Return the digest of the value that has this token."""
    if token[:1] in (b"D", b"P"):
        return digest_of_hash(token[1:])
    return digest_of_hash(blake3(token, key=key).digest())


class BufferDigests:
    """What digesting values has found out about them, beside their digests.

    The large buffers inside are kept alive, so an address means one buffer as long as this object
    lives. Its answers hold as long as nothing writes to the buffers.

    Attributes:
        code: the functions, classes and modules that were met in the values, each once, in the
            order in which they were met; those of Python itself are left out. What a value *does*
            depends on their code, of which the digest of a value says no more than the name.
        unfamiliar: the classes of objects that no handler or hook knows, and whose digests are
            therefore worth checking once (:func:`fleche.digest.find_difference`).
        files: what the files and trees hold that count by their content, by their absolute path.
        paths: the paths that were met, which count by their text.
        ahead: the digests of buffers that were hashed before the walk comes to them.
        code_token: returns what a function or class that is met counts by, or None if its digest
            is to count.
    """

    def __init__(self, code_token: Callable[[Any], str | None] | None = None) -> None:
        self.code_token = code_token
        self.digests: dict[tuple[int, int], Digest] = {}
        self.ahead: dict[tuple[int, int], Digest] = {}
        self.owners: list[object] = []
        self.code: list[Any] = []
        self.unfamiliar: set[type] = set()
        self.files: dict[str, Any] = {}
        self.paths: dict[str, None] = {}
        self._met: set[int] = set()

    def __len__(self) -> int:
        return len(self.digests)

    def note(self, address: int, nbytes: int, found: Digest, owner: object) -> None:
        """Remember the digest of the bytes at ``address``, which ``owner`` keeps there."""
        self.digests[address, nbytes] = found
        self.owners.append(owner)

    def note_ahead(self, view: memoryview, found: Digest) -> None:
        """Remember the digest of a buffer that a walk is going to come to."""
        address = _address_of(view)
        if address is not None:
            self.note(address, view.nbytes, found, view)
            self.ahead[address, view.nbytes] = found

    def note_code(self, obj: Any) -> None:
        """Remember a function, class or module that was met."""
        if id(obj) not in self._met:
            self._met.add(id(obj))
            self.code.append(obj)

    def update(self, other: BufferDigests) -> None:
        """Take over what ``other`` knows."""
        self.digests.update(other.digests)
        self.owners += other.owners
        self.unfamiliar |= other.unfamiliar
        self.files.update(other.files)
        self.paths.update(other.paths)
        for obj in other.code:
            self.note_code(obj)

    def clear(self) -> None:
        """Let go of the buffers and the code; paths and what files hold are still known."""
        self.digests.clear()
        self.ahead.clear()
        self.owners.clear()
        self.code.clear()
        self.unfamiliar.clear()
        self._met.clear()

    def find(self, view: memoryview) -> Digest | None:
        """Return the plain BLAKE3 of a contiguous buffer if it is known, else None."""
        if not self.digests or view.nbytes < BIG:
            return None
        address = _address_of(view)
        return None if address is None else self.digests.get((address, view.nbytes))


def _address_of(view: memoryview) -> int | None:
    """Return where contiguous memory lies, if numpy is there to say so."""
    frombuffer = getattr(sys.modules.get("numpy"), "frombuffer", None)
    if frombuffer is None or not view.c_contiguous or not view.nbytes:
        return None
    with view.cast("B") as flat:
        address: int = frombuffer(flat, dtype="u1").__array_interface__["data"][0]
    return address
