"""Storages: where parcels and records are kept.

``Sql``, ``ValueHdf5``, ``ValueFsspec`` and ``CallFsspec`` need optional packages, and are imported
when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleche.storage._acceptance import Acceptance, newest_acceptances
from fleche.storage._base import (
    BufferRefs,
    CallStorage,
    Capabilities,
    Entry,
    Storage,
    ValueStorage,
)
from fleche.storage._locks import Lock, LockTable
from fleche.storage._registry import (
    Kind,
    register_storage,
    storage_class,
    storage_from_config,
    storage_names,
)
from fleche.storage._usage import Usage, merge_usage
from fleche.storage.file import CallFile, ValueFile

if TYPE_CHECKING:
    from fleche.storage._memory import CallMemory, CallVoid, ValueMemory, ValueVoid
    from fleche.storage.sql import Sql

__all__ = [
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

_LAZY = {
    "Sql": ("sql", "calls"),
    "ValueHdf5": ("hdf5", "values"),
    "ValueFsspec": ("fsspec", "values"),
    "CallFsspec": ("fsspec", "calls"),
}


_IN_MEMORY = ("CallMemory", "CallVoid", "ValueMemory", "ValueVoid")


def __getattr__(name: str) -> Any:
    if name in _IN_MEMORY:  # of no use to a process whose cache is on a disk
        from fleche.storage import _memory

        found = globals()[name] = getattr(_memory, name)
        return found
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    type_name, kind = _LAZY[name]
    return storage_class(type_name, "values" if kind == "values" else "calls")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
