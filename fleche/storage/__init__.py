"""Storages: where parcels and records are kept.

Each kind is imported when it is asked for. ``ValueHdf5``, ``ValueFsspec`` and ``CallFsspec`` need
optional packages.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from fleche._util import imported_when_asked
from fleche.storage._base import (
    SHORTEST,
    BufferRefs,
    CallStorage,
    Capabilities,
    Entry,
    Storage,
    ValueStorage,
)
from fleche.storage._locks import Lock, LockTable
from fleche.storage._notes import Acceptance, Usage, merge_usage, newest_acceptances
from fleche.storage._registry import (
    Kind,
    register_storage,
    storage_class,
    storage_from_config,
    storage_names,
)

if TYPE_CHECKING:
    from fleche.storage._memory import CallMemory, CallVoid, ValueMemory, ValueVoid
    from fleche.storage.file import CallFile, ValueFile
    from fleche.storage.sql import Sql

__all__ = [
    "SHORTEST",
    "Acceptance",
    "BufferRefs",
    "CallFile",
    "CallMemory",
    "CallStorage",
    "CallVoid",
    "Capabilities",
    "Entry",
    "Kind",
    "Lock",
    "LockTable",
    "Sql",
    "Storage",
    "Usage",
    "ValueFile",
    "ValueMemory",
    "ValueStorage",
    "ValueVoid",
    "merge_usage",
    "newest_acceptances",
    "register_storage",
    "storage_class",
    "storage_from_config",
    "storage_names",
]

_WITH_EXTRAS = {
    ".fsspec": ("CallFsspec", "ValueFsspec"),
    ".hdf5": ("ValueHdf5",),
}

__getattr__ = imported_when_asked(
    __name__,
    {
        "._memory": ("CallMemory", "CallVoid", "ValueMemory", "ValueVoid"),
        ".file": ("CallFile", "ValueFile"),
        ".sql": ("Sql",),
        **_WITH_EXTRAS,
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *chain(*_WITH_EXTRAS.values())})
