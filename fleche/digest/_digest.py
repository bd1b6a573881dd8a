"""The name of a value, :class:`Digest`, and the place of its bytes, :class:`Address`."""

from __future__ import annotations

__all__ = ["Address", "D", "Digest", "digest_of_hash", "short_key", "shown_digest"]

FULL = 64
SHORTEST = 4
SHOWN = 8
HEX = frozenset("0123456789abcdef")


class Digest(str):
    """The BLAKE3 digest of a value, as 64 lowercase hexadecimal characters.

    It is a :class:`str` in every respect: it compares, hashes, sorts and stores as its characters.
    A prefix of at least four characters is a *short* digest, which stands for the one key of a
    cache that begins so; :attr:`is_full` tells the two apart. ``D`` is the same class under a
    shorter name.

    Raises:
        TypeError: if ``value`` is no string.
        ValueError: if ``value`` is not made of 4 to 64 lowercase hexadecimal characters.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Digest:
        if type(value) is cls:
            return value
        if not isinstance(value, str):
            raise TypeError(
                f"a digest is made from a string, not from {type(value).__name__}; D('ab12...') "
                "stands for what is stored, fleche.digest(value) is the digest of a value"
            )
        if problem := find_problem(value):
            raise ValueError(
                f"{value[:80]!r} is not a digest: {problem} (the digest of a value: "
                "fleche.digest(value))"
            )
        return str.__new__(cls, value)

    @property
    def is_full(self) -> bool:
        """Whether all 64 characters are there, so that the digest names a value by itself."""
        return len(self) == FULL

    def __repr__(self) -> str:
        return f"D({str(self)!r})"


D = Digest


class Address(str):
    """Where the parcel of a value is kept: the value's digest and the variant of its form.

    Two objects with one digest may differ in form (Fortran order, shared parts, a hardened mask);
    the variant, 32 hexadecimal characters made from the pickle stream, keeps their parcels apart.
    An address is the text ``digest.variant``. An address without a variant (the digest alone)
    stands for the oldest form that is kept; shared buffers have no other.
    """

    __slots__ = ()

    @classmethod
    def of(cls, digest: str, variant: str = "") -> Address:
        """Return the address of one form of a value; without ``variant``, of any."""
        return str.__new__(cls, f"{digest}.{variant}" if variant else digest)

    @property
    def digest(self) -> Digest:
        """The digest of the value."""
        return Digest(self[:FULL])

    @property
    def variant(self) -> str:
        """The variant of the form; empty in the address of any form, or of a shared buffer."""
        return self[FULL + 1 :]

    def __repr__(self) -> str:
        return f"Address({str.__str__(self)!r})"


def digest_of_hash(hashed: bytes) -> Digest:
    """Return 32 bytes of a hash as a digest, without asking whether they are one."""
    return str.__new__(Digest, hashed.hex())


def short_key(key: str, unique: str = "") -> str:
    """Return the beginning of a key that people are shown: 8 characters, or as many as it takes.

    Args:
        key: of a call or a value.
        unique: the shortest beginning that stands for it alone, if that is known.
    """
    return key[: max(SHOWN, len(unique))]


def shown_digest(digest: str) -> str:
    """Return what people are shown in place of a value: the beginning of its digest."""
    return f"<{digest[:SHOWN]}>"


def find_problem(value: str) -> str:
    """Return what keeps ``value`` from being a digest, or an empty string."""
    if len(value) < SHORTEST:
        return f"it has {len(value)} characters, and the shortest prefix has {SHORTEST}"
    if len(value) > FULL:
        return f"it has {len(value)} characters, and a digest has {FULL}"
    if HEX.issuperset(value):
        return ""
    if HEX.issuperset(value.lower()):
        return "it must be lowercase"
    return "it may only contain the characters 0-9 and a-f"
