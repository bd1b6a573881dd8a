"""Caches: where calls and their values are kept and found again."""

from fleche.caches._backend import (
    INLINE,
    MOST_EXPANDED,
    CacheBackend,
    LayerPolicy,
    OnError,
    Progress,
    split_entry,
)
from fleche.caches._base import BaseCache
from fleche.caches._local import Cache, LocalBackend
from fleche.caches._pending import PendingCall, Pin
from fleche.caches._stack import CachePool, CacheStack
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
    Gc,
    GcReport,
    Measure,
    Report,
    StatsReport,
    SyncReport,
    Task,
    Verify,
    VerifyReport,
)
from fleche.errors import AmbiguousDigestError, Rejected
