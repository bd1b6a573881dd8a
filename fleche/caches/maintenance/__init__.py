"""Keeping house: tasks and reports as data, and what carries them out over a pair of storages."""

from fleche.caches.maintenance._disk_usage import attribute
from fleche.caches.maintenance._gc import collect
from fleche.caches.maintenance._index import ReferenceIndex, needs_of
from fleche.caches.maintenance._reports import (
    GRACE,
    PIN_AGE,
    REPORTS,
    CallSize,
    DiskUsage,
    DiskUsageReport,
    Gc,
    GcReport,
    Measure,
    NoteUsage,
    ReadUsage,
    Report,
    StatsReport,
    SyncReport,
    Task,
    UsageReport,
    Verify,
    VerifyReport,
)
from fleche.caches.maintenance._verify import measure, verify

__all__ = [
    "GRACE",
    "PIN_AGE",
    "REPORTS",
    "CallSize",
    "DiskUsage",
    "DiskUsageReport",
    "Gc",
    "GcReport",
    "Measure",
    "NoteUsage",
    "ReadUsage",
    "ReferenceIndex",
    "Report",
    "StatsReport",
    "SyncReport",
    "Task",
    "UsageReport",
    "Verify",
    "VerifyReport",
    "attribute",
    "collect",
    "measure",
    "needs_of",
    "verify",
]
