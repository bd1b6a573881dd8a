"""Keeping house: tasks and reports as data, and what carries them out over a pair of storages.

None of it is imported before it is needed: a call needs none of it.
"""

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked

if TYPE_CHECKING:
    from fleche.caches.maintenance._disk_usage import attribute, measure
    from fleche.caches.maintenance._gc import collect
    from fleche.caches.maintenance._index import ReferenceIndex, StoredValues, needs_of
    from fleche.caches.maintenance._reports import (
        REPORTS,
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
    from fleche.caches.maintenance._verify import verify

__all__ = [
    "GRACE",
    "PIN_AGE",
    "REPORTS",
    "AcceptedReport",
    "CallSize",
    "DiskUsage",
    "DiskUsageReport",
    "Gc",
    "GcReport",
    "Measure",
    "NoteAccepted",
    "NoteUsage",
    "ReadAccepted",
    "ReadUsage",
    "ReferenceIndex",
    "Report",
    "StatsReport",
    "StoredValues",
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

GRACE = 3600.0
"""Seconds for which a value is left alone after it was stored, or found to be here already."""

PIN_AGE = 7 * 86400.0
"""Seconds after which a call that has neither returned nor failed is given up."""

# What a call does not need: tasks and reports, and what carries them out.
__getattr__ = imported_when_asked(
    __name__,
    {
        "._reports": __all__,  # all but those that follow
        "._disk_usage": ("attribute", "measure"),
        "._gc": ("collect",),
        "._index": ("ReferenceIndex", "StoredValues", "needs_of"),
        "._verify": ("verify",),
    },
)
