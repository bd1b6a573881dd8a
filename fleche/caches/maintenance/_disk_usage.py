"""Which call takes how much space: the bytes of a value are shared by the calls that need it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleche.caches.maintenance._index import ReferenceIndex, Steps
from fleche.caches.maintenance._reports import CallSize, DiskUsageReport
from fleche.digest import Digest
from fleche.errors import ParcelError
from fleche.storage import CallStorage, ValueStorage

if TYPE_CHECKING:
    from fleche.caches._backend import Progress

__all__ = ["attribute"]

_DIGEST = 64


def attribute(
    values: ValueStorage, calls: CallStorage, progress: Progress | None = None
) -> DiskUsageReport:
    """Divide what the storages hold among the calls.

    Of a value that several calls need, each takes an equal part, and so it is with a buffer that
    values share.

    Args:
        values: where the values are.
        calls: where the entries are.
        progress: called with the number of entries looked at so far.
    """
    sizes = {each.key: each.size for each in values.entries()}
    entries = {each.key: each for each in calls.entries()}
    now = calls.now()
    index = ReferenceIndex(calls, Steps(progress))
    index.read(entries)
    needs = _Needs(values, sizes)
    needed = {key: needs.of(found) for key, found in index.needs.items() if key not in index.pins}
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


class _Needs:
    """What calls need of a storage, buffers of values included."""

    def __init__(self, values: ValueStorage, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._forms: dict[str, list[str]] = {}
        for address in sizes:
            self._forms.setdefault(address[:_DIGEST], []).append(address)
        self._buffers = {
            address: refs.references
            for address, refs in values.buffer_refs(key for key in sizes if len(key) > _DIGEST)
            if not isinstance(refs, ParcelError) and refs.references
        }

    def of(self, addresses: tuple[str, ...]) -> set[str]:
        """Return what is there of ``addresses``, and of the buffers that they refer to."""
        found: set[str] = set()
        for address in addresses:
            if address in self._sizes:
                found.add(address)
            elif len(address) == _DIGEST:  # any form will do
                found.update(self._forms.get(address, ()))
        for address in list(found):
            found.update(each for each in self._buffers.get(address, ()) if each in self._sizes)
        return found
