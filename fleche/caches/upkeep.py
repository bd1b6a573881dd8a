"""Keeping house in every cache: each store that it is made of keeps its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fleche.caches._reports import GcReport, RedigestReport, VerifyReport
from fleche.caches.values import Values

__all__ = ["GRACE", "LEASE_AGE", "Progress", "Upkeep"]

Progress = Callable[[int], None]

GRACE = 3600.0
LEASE_AGE = 7 * 86400.0

T = TypeVar("T")


class Upkeep(Values):
    """Collecting garbage, checking everything, filing anew."""

    def stores(self) -> tuple[Upkeep, ...]:
        """Return the caches with storages of their own that this one is made of."""
        return ()

    def gc(
        self,
        grace: float = GRACE,
        *,
        lease_age: float = LEASE_AGE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Remove the values that no call refers to.

        Safe at any time, whoever else uses the cache meanwhile, and safe to interrupt.

        Args:
            grace: seconds for which a value is left alone after it was stored or found to be here
                already; more than the clocks of the machines that share the cache differ by.
            lease_age: seconds after which a call that has neither returned nor failed is given up.
            dry_run: only tell.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self._check_writable("gc")
        options: dict[str, Any] = {"lease_age": lease_age, "dry_run": dry_run, "progress": progress}
        return _total(GcReport(), (store.gc(grace, **options) for store in self._writable_stores()))

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Check every byte of every entry, without opening a value.

        Args:
            repair: remove what is corrupt, and calls whose result is gone.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only, and ``repair`` was asked for.
        """
        if repair:
            self._check_writable("repair")
        stores = self._writable_stores() if repair else self.stores()
        return _total(VerifyReport(), (store.verify(repair, progress=progress) for store in stores))

    def redigest(self, *, progress: Progress | None = None) -> RedigestReport:
        """File calls anew whose key is of an older scheme or does not match what they say.

        Args:
            progress: called with the number of calls looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self._check_writable("redigest")
        found = (store.redigest(progress=progress) for store in self._writable_stores())
        return _total(RedigestReport(), found)

    def _writable_stores(self) -> list[Upkeep]:
        return [store for store in self.stores() if not store.read_only]


def _total(start: T, reports: Iterable[T]) -> T:
    for report in reports:
        start = start + report  # type: ignore[operator]
    return start
