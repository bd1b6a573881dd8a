"""What a server says of itself."""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Mapping
from typing import Any

import cloudpickle

from fleche._util import __version__, warn_caller
from fleche.caches import BaseCache
from fleche.redaction import redact
from fleche.remote.greeting import printable
from fleche.storage import Capabilities

__all__ = ["read_capabilities", "server_info", "warn_of_skew"]

log = logging.getLogger("fleche.remote.server")


def server_info(cache: BaseCache, cache_name: str | None) -> dict[str, Any]:
    """Return what the server says of itself; credentials are hidden."""
    capabilities = cache.capabilities
    return {
        "cache": redact(_described(cache)),
        "cache_name": cache_name,
        "read_only": capabilities.read_only,
        **_versions(),
        "cwd": os.getcwd(),
        "hostname": socket.gethostname(),
        "python": platform.python_version(),
        "pid": os.getpid(),
        "capabilities": {
            "persistent": capabilities.persistent,
            "shared": capabilities.shared,
            "opens_parcels": capabilities.opens_parcels,
        },
    }


def read_capabilities(info: Mapping[str, Any]) -> Capabilities:
    """Return what the cache behind a server is, by the server's ``info``.

    What is neither true nor false counts as not said: it is a server of other habits, or none to be
    trusted, and refuses what it does not want.
    """
    told = info.get("capabilities")
    known = told if isinstance(told, Mapping) else {}
    return Capabilities(
        read_only=_flag(info, "read_only", unless_said=False),
        persistent=_flag(known, "persistent", unless_said=True),
        shared=_flag(known, "shared", unless_said=True),
        opens_parcels=_flag(known, "opens_parcels", unless_said=False),
    )


def _flag(told: Mapping[str, Any], name: str, *, unless_said: bool) -> bool:
    said = told.get(name)
    return said if isinstance(said, bool) else unless_said


def warn_of_skew(name: str, info: Mapping[str, Any]) -> None:
    """Warn whoever called if the server called ``name`` is of other versions, by its ``info``."""
    skew = ", ".join(
        f"{each.removesuffix('_version')} {printable(info.get(each))} there, {version} here"
        for each, version in _versions().items()
        if info.get(each) != version
    )
    if skew:
        warn_caller(
            f"{name}: {skew}; if values cannot be opened, install the same versions at both ends"
        )


def _versions() -> dict[str, str]:
    return {"fleche_version": __version__, "cloudpickle_version": cloudpickle.__version__}


def _described(cache: BaseCache) -> Any:
    try:
        return cache.to_config()
    except Exception as error:  # noqa: BLE001 (a cache without a configuration can be served too)
        log.debug("the cache has no configuration: %s", error)
        return {"type": type(cache).__name__}
