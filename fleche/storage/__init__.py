"""Storages: where parcels and records are kept.

Each kind is imported when it is asked for. ``Sql``, ``ValueHdf5``, ``ValueFsspec`` and
``CallFsspec`` need optional packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleche._util import imported_when_asked
from fleche.storage._acceptance import Acceptance, newest_acceptances
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
from fleche.storage._registry import (
    Kind,
    register_storage,
    storage_class,
    storage_from_config,
    storage_names,
)
from fleche.storage._usage import Usage, merge_usage

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
    "Sql": ("sql", "calls"),
    "ValueHdf5": ("hdf5", "values"),
    "ValueFsspec": ("fsspec", "values"),
    "CallFsspec": ("fsspec", "calls"),
}

_get = imported_when_asked(
    __name__,
    {
        "._memory": ("CallMemory", "CallVoid", "ValueMemory", "ValueVoid"),
        ".file": ("CallFile", "ValueFile"),
    },
)


def __getattr__(name: str) -> Any:
    if name not in _WITH_EXTRAS:
        return _get(name)
    type_name, kind = _WITH_EXTRAS[name]
    return storage_class(type_name, "values" if kind == "values" else "calls")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_WITH_EXTRAS})
