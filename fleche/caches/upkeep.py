"""Keeping house in every cache: each store that it is made of keeps its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from fleche.caches._reports import (
    GcReport,
    RedigestReport,
    Report,
    StatsReport,
    VerifyReport,
)
from fleche.caches.values import Values

__all__ = [
    "GRACE",
    "LEASE_AGE",
    "GcReport",
    "Progress",
    "RedigestReport",
    "Report",
    "StatsReport",
    "Upkeep",
    "VerifyReport",
]

Progress = Callable[[int], None]

GRACE = 3600.0
LEASE_AGE = 7 * 86400.0

T = TypeVar("T")


class Upkeep(Values):
    """Collecting garbage, checking everything, filing anew, counting."""

    def stores(self) -> tuple[Upkeep, ...]:
        """Return the caches with storages of their own, on this machine, that this one is made of.

        What a cache does to keep house it does to these. A remote cache keeps house when it is
        asked itself, never as a layer of another: it may be large, and others own it too.
        """
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
                already; more than the clocks of the machines that share the cache differ by, and
                than a save takes from the first value to the record. Until that is there, nothing
                else keeps a result; with 0, it may go, and is computed again.
            lease_age: seconds after which a call that has neither returned nor failed is given up.
            dry_run: only tell.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self.check_writable("gc")
        options: dict[str, Any] = {"lease_age": lease_age, "dry_run": dry_run}
        found = _each(self._writable_stores(), progress)
        return _total(
            GcReport(), (store.gc(grace, progress=step, **options) for store, step in found)
        )

    def verify(self, repair: bool = False, *, progress: Progress | None = None) -> VerifyReport:
        """Check every byte of every entry, without opening a value.

        Args:
            repair: remove what is corrupt, and calls whose result is gone.
            progress: called with the number of entries looked at so far.

        Raises:
            Rejected: this cache is read-only, and ``repair`` was asked for.
        """
        if repair:
            self.check_writable("repair")
        found = _each(self._writable_stores() if repair else self.stores(), progress)
        reports = (store.verify(repair, progress=step) for store, step in found)
        return _total(VerifyReport(), reports)

    def redigest(
        self, *, unpickle: bool = True, progress: Progress | None = None
    ) -> RedigestReport:
        """File calls anew whose key is of an older scheme or does not match what they say.

        Args:
            unpickle: whether values may be opened, as those of an older scheme must be to get
                their new digest. Else their calls stay as they are, and are told as failed.
            progress: called with the number of calls looked at so far.

        Raises:
            Rejected: this cache is read-only.
        """
        self.check_writable("redigest")
        found = _each(self._writable_stores(), progress)
        return _total(
            RedigestReport(),
            (store.redigest(unpickle=unpickle, progress=step) for store, step in found),
        )

    def stats(self, *, progress: Progress | None = None) -> StatsReport:
        """Count entries and bytes, and tell what befell this cache object since it was made.

        Where only the events are of interest, :meth:`counts` has them without looking at storages.

        Args:
            progress: called with the number of entries looked at so far.
        """
        return self.measure(progress) + StatsReport(events=Counter(self.counts()))

    def measure(self, progress: Progress | None = None) -> StatsReport:
        """Count entries and bytes: :meth:`stats` without the events."""
        found = _each(self.stores(), progress)
        return _total(StatsReport(), (store.measure(step) for store, step in found))

    def _writable_stores(self) -> list[Upkeep]:
        return [store for store in self.stores() if not store.read_only]


def _each(
    stores: Iterable[Upkeep], progress: Progress | None
) -> Iterator[tuple[Upkeep, Progress | None]]:
    """Yield each store with a progress that counts on from the stores before it."""
    done, latest = 0, 0

    def step(number: int) -> None:
        nonlocal latest
        latest = number
        assert progress is not None
        progress(done + number)

    for store in stores:
        latest = 0
        yield store, None if progress is None else step
        done += latest


def _total(start: T, reports: Iterable[T]) -> T:
    for report in reports:
        start = start + report  # type: ignore[operator]
    return start
