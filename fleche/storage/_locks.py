"""Locks on calls: which process computes which call, told to all that share a storage.

A lock is a courtesy, never a guarantee. Its owner renews it while it computes (the heartbeat);
others wait for it, look up what it has left, and take over a lock whose heartbeat has stopped. When
a lock is lost, or taken over too early, a call is computed once more and nothing else happens.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Lock", "LockTable"]


class Lock(NamedTuple):
    """A lock as it was seen.

    Attributes:
        owner: a text that is unique to the owner.
        heartbeat: when it was made or last renewed, in seconds, by the clock of the storage.
    """

    owner: str
    heartbeat: float


class LockTable:
    """Locks on keys. Every method may be called from any thread.

    This class itself is for storages that no other process sees: every lock is granted, and
    forgotten.

    Attributes:
        shared: whether other processes see the locks.
    """

    shared: bool = False

    def acquire(self, key: str, owner: str) -> Lock | None:
        """Lock ``key`` unless it is locked; return the lock that is in the way, if any.

        Raises:
            StorageError: the storage could not be asked.
        """
        del key, owner
        return None

    def steal(self, key: str, owner: str, old: Lock) -> bool:
        """Lock ``key`` in place of ``old``; return whether ``old`` was still as it was seen.

        Of several processes that try at once, one succeeds.

        Raises:
            StorageError: the storage could not be asked.
        """
        del key, owner, old
        return True

    def heartbeat(self, key: str, owner: str) -> bool:
        """Renew the lock of ``owner``; return whether the owner still has it.

        Raises:
            StorageError: the storage could not be asked.
        """
        del key, owner
        return True

    def release(self, key: str, owner: str) -> None:
        """Give up the lock of ``owner``; one of another owner stays.

        Raises:
            StorageError: the lock could not be removed.
        """

    def now(self, key: str) -> float:
        """Return the time by the clock that :attr:`Lock.heartbeat` of ``key`` is told by.

        Raises:
            StorageError: the storage could not be asked.
        """
        del key
        return 0.0
