"""What one process knows of a cache that has limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock

from fleche.caches._budget import Budget
from fleche.call import CallRecord
from fleche.digest import Digest

__all__ = ["Ledger"]

_MOST = 10_000
"""So many leftovers are remembered. The oldest are forgotten first: gc() takes those soonest."""


class Ledger:
    """The leases and the leftovers of the calls of one process, and how much it may still save.

    Attributes:
        budget: what may be saved before somebody must look how full the cache is.
        making_room: held by whoever looks.
    """

    def __init__(self) -> None:
        self.budget = Budget()
        self.making_room = Lock()
        self._running: dict[Digest, tuple[Digest, tuple[Digest, ...]]] = {}
        self._leftovers: dict[Digest, float] = {}
        self._warnings: set[str] = set()
        self._lock = Lock()

    def begin(self, lease: Digest, record: CallRecord) -> None:
        """Remember which call a lease is of, and what it keeps."""
        self._running[lease] = record.key, record.digests()

    def finish(self, key: Digest) -> None:
        """Take note that the record of a call is here, which keeps what its leases have kept."""
        for lease, (running, _) in list(self._running.items()):
            if running == key:
                self._running[lease] = key, ()

    def end(self, lease: Digest) -> tuple[Digest, ...] | None:
        """Return what a lease has kept and no record keeps; None if there is no such lease."""
        _, kept = self._running.pop(lease, (None, None))
        return kept

    def leave(self, digests: Iterable[Digest], limit: float) -> None:
        """Remember values that no call needs any more, for all that is known here.

        Args:
            digests: the values.
            limit: a moment; one that is found here after it is needed by somebody.
        """
        with self._lock:
            for digest in digests:
                self._leftovers[digest] = max(limit, self._leftovers.pop(digest, limit))
            while len(self._leftovers) > _MOST:
                del self._leftovers[next(iter(self._leftovers))]

    def take_leftovers(self) -> Mapping[Digest, float]:
        """Return the values that were left, each with its limit, and forget them."""
        with self._lock:
            taken, self._leftovers = self._leftovers, {}
        return taken

    def is_new(self, warning: str) -> bool:
        """Tell whether this was not asked before."""
        known = warning in self._warnings
        self._warnings.add(warning)
        return not known
