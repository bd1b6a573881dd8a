"""Caches: where calls and their values are kept and found again.

The modules are imported when something of them is asked for: a hit needs few of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked

if TYPE_CHECKING:
    from fleche.caches._accepted import AcceptedCode, absolute_parts
    from fleche.caches._backend import (
        INLINE,
        MOST_EXPANDED,
        CacheBackend,
        LayerPolicy,
        OnError,
        Progress,
        WriteThrough,
        result_needs,
        split_entry,
    )
    from fleche.caches._base import BaseCache
    from fleche.caches._batch import BatchCache
    from fleche.caches._limited import Candidate, Eviction, SizeLimitedCache, least_recently_used
    from fleche.caches._local import Cache, Local, LocalBackend, LocalStore
    from fleche.caches._pending import PendingCall, Pin, save_entries
    from fleche.caches._pool import CachePool
    from fleche.caches._progress import Reported, ShowProgress
    from fleche.caches._query import QueryIterator
    from fleche.caches._room import free_bytes
    from fleche.caches._stack import CacheStack
    from fleche.caches._table import Described, Row, Table
    from fleche.caches._views import (
        CacheView,
        FilteredCache,
        ReadOnlyCache,
        RefreshingCache,
        ViewBackend,
    )
    from fleche.caches.maintenance import (
        GRACE,
        PIN_AGE,
        AcceptedReport,
        CallSize,
        DiskUsage,
        DiskUsageReport,
        Gc,
        GcReport,
        Measure,
        NoteAccepted,
        NoteUsage,
        ReadAccepted,
        ReadUsage,
        Report,
        StatsReport,
        SyncReport,
        Task,
        UsageReport,
        Verify,
        VerifyReport,
    )
    from fleche.errors import AmbiguousDigestError, Rejected

__all__ = [
    "GRACE",
    "INLINE",
    "MOST_EXPANDED",
    "PIN_AGE",
    "AcceptedCode",
    "AcceptedReport",
    "AmbiguousDigestError",
    "BaseCache",
    "BatchCache",
    "Cache",
    "CacheBackend",
    "CachePool",
    "CacheStack",
    "CacheView",
    "CallSize",
    "Candidate",
    "Described",
    "DiskUsage",
    "DiskUsageReport",
    "Eviction",
    "FilteredCache",
    "Gc",
    "GcReport",
    "LayerPolicy",
    "Local",
    "LocalBackend",
    "LocalStore",
    "Measure",
    "NoteAccepted",
    "NoteUsage",
    "OnError",
    "PendingCall",
    "Pin",
    "Progress",
    "QueryIterator",
    "ReadAccepted",
    "ReadOnlyCache",
    "ReadUsage",
    "RefreshingCache",
    "Rejected",
    "Report",
    "Reported",
    "Row",
    "ShowProgress",
    "SizeLimitedCache",
    "StatsReport",
    "SyncReport",
    "Table",
    "Task",
    "UsageReport",
    "Verify",
    "VerifyReport",
    "ViewBackend",
    "WriteThrough",
    "absolute_parts",
    "free_bytes",
    "least_recently_used",
    "result_needs",
    "save_entries",
    "split_entry",
]

_HOMES = {
    ".maintenance": __all__,  # all but those that follow
    "._accepted": ("AcceptedCode", "absolute_parts"),
    "._backend": (
        "INLINE",
        "MOST_EXPANDED",
        "CacheBackend",
        "LayerPolicy",
        "OnError",
        "Progress",
        "WriteThrough",
        "result_needs",
        "split_entry",
    ),
    "._base": ("BaseCache",),
    "._batch": ("BatchCache",),
    "._limited": (
        "Candidate",
        "Eviction",
        "SizeLimitedCache",
        "least_recently_used",
    ),
    "._local": (
        "Cache",
        "Local",
        "LocalBackend",
        "LocalStore",
    ),
    "._pending": (
        "PendingCall",
        "Pin",
        "save_entries",
    ),
    "._pool": ("CachePool",),
    "._progress": (
        "Reported",
        "ShowProgress",
    ),
    "._query": ("QueryIterator",),
    "._room": ("free_bytes",),
    "._stack": ("CacheStack",),
    "._table": (
        "Described",
        "Row",
        "Table",
    ),
    "._views": (
        "CacheView",
        "FilteredCache",
        "ReadOnlyCache",
        "RefreshingCache",
        "ViewBackend",
    ),
    "fleche.errors": (
        "AmbiguousDigestError",
        "Rejected",
    ),
}
__getattr__ = imported_when_asked(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
