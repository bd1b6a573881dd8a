"""How much there is, and which call takes how much of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleche.caches.maintenance._index import ReferenceIndex, Steps, StoredValues
from fleche.caches.maintenance._reports import CallSize, DiskUsageReport, StatsReport
from fleche.digest import Digest
from fleche.storage import CallStorage, ValueStorage

if TYPE_CHECKING:
    from fleche.caches._backend import Progress

__all__ = ["attribute", "measure"]


def attribute(
    values: ValueStorage, calls: CallStorage, progress: Progress | None = None
) -> DiskUsageReport:
    """Divide what the storages hold among the calls.

    Of a value that several calls need, each takes an equal part, and so it is with a buffer that
    values share.
    """
    stored = StoredValues(values)
    sizes = {address: each.size for address, each in stored.entries.items()}
    entries = {each.key: each for each in calls.entries()}
    now = calls.now()
    index = ReferenceIndex(calls, Steps(progress))
    index.read(entries)
    needed: dict[str, set[str]] = {}
    for key, needs in index.needs.items():
        if key not in index.pins:
            found = needed[key] = set(stored.needed(needs))
            for address in list(found):
                found.update(each for each in stored.buffers.get(address, ()) if each in sizes)
    users = Counter(address for found in needed.values() for address in found)
    usages = [
        CallSize(
            Digest(key),
            entries[key].size + sum(sizes[each] / users[each] for each in found),
            now - entries[key].modified,
        )
        for key, found in needed.items()
    ]
    kept = sum(entry.size for key, entry in entries.items() if key not in needed)
    loose = sum(size for address, size in sizes.items() if address not in users)
    return DiskUsageReport(calls=tuple(usages), loose=loose, other=kept)


def measure(
    values: ValueStorage, calls: CallStorage, progress: Progress | None = None
) -> StatsReport:
    """Count entries and bytes without reading an entry."""
    steps = Steps(progress)
    number_of_values, value_bytes = _count(values, steps)
    number_of_calls, call_bytes = _count(calls, steps)
    return StatsReport(number_of_values, number_of_calls, value_bytes + call_bytes)


def _count(storage: ValueStorage | CallStorage, steps: Steps) -> tuple[int, int]:
    number, size = 0, 0
    for entry in storage.entries():
        steps.step()
        number += 1
        size += entry.size
    return number, size
