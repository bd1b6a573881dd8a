"""Caches: where calls and their values are kept and found again."""

from fleche.caches._reports import GcReport, RedigestReport, StatsReport, SyncReport, VerifyReport
from fleche.caches.base import BaseCache, LayerPolicy, OnError, PendingCall
from fleche.caches.limited import Candidate, Eviction, SizeLimitedCache, least_recently_used
from fleche.caches.local import Cache
from fleche.caches.pool import CachePool
from fleche.caches.stack import CacheStack
from fleche.caches.views import CacheView, FilteredCache, ReadOnlyCache, RefreshingCache
from fleche.errors import AmbiguousDigestError, Rejected

__all__ = [
    "AmbiguousDigestError",
    "BaseCache",
    "Cache",
    "CachePool",
    "CacheStack",
    "CacheView",
    "Candidate",
    "Eviction",
    "FilteredCache",
    "GcReport",
    "LayerPolicy",
    "OnError",
    "PendingCall",
    "ReadOnlyCache",
    "RedigestReport",
    "RefreshingCache",
    "Rejected",
    "SizeLimitedCache",
    "StatsReport",
    "SyncReport",
    "VerifyReport",
    "least_recently_used",
]
