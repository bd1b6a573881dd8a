"""Claims: who is computing which call, told to every process that shares a storage.

A claim is a courtesy, never a guarantee. Whoever holds one renews it while it computes; others wait
for it, look up what it has left, and take over if it is renewed no more. When a claim is lost, or
taken over too early, a call is computed once more and nothing else happens.
"""

from __future__ import annotations

from typing import NamedTuple

from fleche.digest import Digest

__all__ = ["Claim", "Claims"]


class Claim(NamedTuple):
    """A claim as it was seen.

    Attributes:
        owner: who holds it: a text that nobody else has.
        beat: when it was made or last renewed, in seconds, by the clock of the storage.
    """

    owner: str
    beat: float


class Claims:
    """Claims on keys. Every method may be called from any thread.

    This class itself is for what no other process sees: every claim is granted, and forgotten.

    Attributes:
        shared: whether other processes see them.
    """

    shared: bool = False

    def take(self, key: Digest, owner: str) -> Claim | None:
        """Claim ``key`` unless somebody else has; return the claim that is in the way, if any.

        Raises:
            StorageError: it cannot be told.
        """
        del key, owner
        return None

    def take_over(self, key: Digest, owner: str, old: Claim) -> bool:
        """Claim ``key`` in place of ``old``; tell whether ``old`` was still as it was seen.

        Of several who try at once, one succeeds.

        Raises:
            StorageError: it cannot be told.
        """
        del key, owner, old
        return True

    def renew(self, key: Digest, owner: str) -> bool:
        """Renew the claim of ``owner``; tell whether it still has it.

        Raises:
            StorageError: it cannot be told.
        """
        del key, owner
        return True

    def release(self, key: Digest, owner: str) -> None:
        """Give up the claim of ``owner``; that of somebody else stays.

        Raises:
            StorageError: it could not be removed.
        """

    def now(self, key: Digest) -> float:
        """Return the time by the clock that :attr:`Claim.beat` of ``key`` is told by.

        Raises:
            StorageError: it cannot be told.
        """
        del key
        return 0.0
