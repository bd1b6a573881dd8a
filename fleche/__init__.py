"""A persistent, content-addressed cache of function results, shared across machines over SSH.

Importing this package imports next to nothing; its names are loaded when they are first used.
"""

from __future__ import annotations

from fleche._path import set_working_directory_aside

set_working_directory_aside()

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fleche.state import set_loader as _set_loader
from fleche.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleche.caches import BaseCache, Cache, CachePool, CacheStack
    from fleche.call import Call, LazyCall, QueryCall
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
    from fleche.function import Ignored, Required
    from fleche.metadata import Environment, Git, MetaData, Runtime, Tags
    from fleche.state import cache, meta, project, tags

__all__ = [
    "AmbiguousDigestError",
    "BoundWrapper",
    "Cache",
    "CachePool",
    "CacheStack",
    "Call",
    "ConfigError",
    "CorruptParcel",
    "D",
    "Digest",
    "Environment",
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
    "SignatureError",
    "StorageError",
    "Tags",
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
    "wrap_executor",
]

_HOMES = {
    "fleche.caches": ("Cache", "CachePool", "CacheStack"),
    "fleche.call": ("Call", "LazyCall", "QueryCall"),
    "fleche.decorator": ("BoundWrapper", "FlecheWarning", "Wrapper", "fleche"),
    "fleche.digest": ("D", "Digest", "add_hook"),
    "fleche.executor": ("wrap_executor",),
    "fleche.function": ("Ignored", "Required"),
    "fleche.metadata": ("Environment", "Git", "MetaData", "Runtime", "Tags"),
    "fleche.state": ("cache", "meta", "project", "tags"),
}
_ERRORS = (
    *("AmbiguousDigestError", "ConfigError", "CorruptParcel", "FlecheError", "Indigestible"),
    *("MissingExtra", "ParcelError", "ProtocolError", "Rejected", "RemoteConnectionError"),
    *("SignatureError", "StorageError", "UnpackError"),
)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_HOME_OF.update(dict.fromkeys(_ERRORS, "fleche.errors"))


def __getattr__(name: str) -> Any:
    if name == "digest":
        return import_module("fleche.digest")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package; its ``digest`` is the module of that name, which can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "digest" and isinstance(value, ModuleType):
            value.__class__ = _Digest
        super().__setattr__(name, value)


class _Digest(ModuleType):
    """The module ``fleche.digest``, which is also what ``from fleche import digest`` gives."""

    def __call__(self, obj: object) -> Digest:
        """Return the digest of a value; see :func:`fleche.digest.digest`."""
        found: Digest = self.digest(obj)
        return found


sys.modules[__name__].__class__ = _Package


def _load_cache(name: str | None) -> BaseCache:
    from fleche.config import load_cache_config

    return load_cache_config(name)


def _load_metadata() -> Iterable[MetaData]:
    from fleche.config import load_default_metadata

    return load_default_metadata()


def _rebuild_cache(config: Any) -> BaseCache:
    from fleche.config import cache_from_config

    return cache_from_config(config)


def _default_name() -> str | None:
    from fleche.config import default_cache_name

    return default_cache_name()


_set_loader(_load_cache, _load_metadata, _rebuild_cache, _default_name)
