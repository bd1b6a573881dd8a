"""Keeping house: tasks and reports as data, and what carries them out over a pair of storages."""

from fleche.caches.maintenance._reports import (
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

__all__ = [
    "GRACE",
    "PIN_AGE",
    "Gc",
    "GcReport",
    "Measure",
    "Report",
    "StatsReport",
    "SyncReport",
    "Task",
    "Verify",
    "VerifyReport",
]
