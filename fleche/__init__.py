"""A persistent, content-addressed cache of function results, shared across machines over SSH.

Importing this package imports next to nothing; its names are loaded when they are first used.
"""

from __future__ import annotations

from fleche._path import set_working_directory_aside

set_working_directory_aside()

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleche._util import __version__
    from fleche._verbose import verbose
    from fleche.caches import Cache, CachePool, CacheStack
    from fleche.call import Call, LazyCall, QueryCall
    from fleche.config import open as open
    from fleche.decorator import BoundWrapper, FlecheWarning, Wrapper, fleche
    from fleche.digest import D, Digest, add_hook, digest
    from fleche.errors import (
        AmbiguousDigestError,
        ConfigError,
        CorruptParcel,
        FlecheError,
        Indigestible,
        MissingExtra,
        ParcelError,
        ProtocolError,
        Rejected,
        RemoteConnectionError,
        SignatureError,
        StorageError,
        UnpackError,
    )
    from fleche.executor import wrap_executor
    from fleche.function import Content, Ignored, Required, Secret, Unordered
    from fleche.metadata import Cpu, Environment, Git, MetaData, Runtime, Tags
    from fleche.parcel import File
    from fleche.state import cache, meta, project, tags

__all__ = [
    "AmbiguousDigestError",
    "BoundWrapper",
    "Cache",
    "CachePool",
    "CacheStack",
    "Call",
    "ConfigError",
    "Content",
    "CorruptParcel",
    "Cpu",
    "D",
    "Digest",
    "Environment",
    "File",
    "FlecheError",
    "FlecheWarning",
    "Git",
    "Ignored",
    "Indigestible",
    "LazyCall",
    "MetaData",
    "MissingExtra",
    "ParcelError",
    "ProtocolError",
    "QueryCall",
    "Rejected",
    "RemoteConnectionError",
    "Required",
    "Runtime",
    "Secret",
    "SignatureError",
    "StorageError",
    "Tags",
    "Unordered",
    "UnpackError",
    "Wrapper",
    "__version__",
    "add_hook",
    "cache",
    "digest",
    "fleche",
    "meta",
    "project",
    "tags",
    "verbose",
    "wrap_executor",
]

# `open` is not among them: `from fleche import *` would hide the builtin
_HOMES = {
    "fleche._util": ("__version__",),
    "fleche._verbose": ("verbose",),
    "fleche.caches": ("Cache", "CachePool", "CacheStack"),
    "fleche.call": ("Call", "LazyCall", "QueryCall"),
    "fleche.config": ("open",),
    "fleche.decorator": ("BoundWrapper", "FlecheWarning", "Wrapper", "fleche"),
    "fleche.digest": ("D", "Digest", "add_hook"),
    "fleche.errors": (
        *("AmbiguousDigestError", "ConfigError", "CorruptParcel", "FlecheError", "Indigestible"),
        *("MissingExtra", "ParcelError", "ProtocolError", "Rejected", "RemoteConnectionError"),
        *("SignatureError", "StorageError", "UnpackError"),
    ),
    "fleche.executor": ("wrap_executor",),
    "fleche.function": ("Content", "Ignored", "Required", "Secret", "Unordered"),
    "fleche.metadata": ("Cpu", "Environment", "Git", "MetaData", "Runtime", "Tags"),
    "fleche.parcel": ("File",),
    "fleche.state": ("cache", "meta", "project", "tags"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "digest":  # the package of that name, which can be called
        return import_module("fleche.digest")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
