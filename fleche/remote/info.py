"""What a server says of itself."""

from __future__ import annotations

import logging
import os
import platform
import socket
from typing import Any

import cloudpickle

from fleche.caches.base import BaseCache
from fleche.redaction import redact
from fleche.version import __version__

__all__ = ["server_info"]

log = logging.getLogger("fleche.remote.server")


def server_info(cache: BaseCache, cache_name: str | None) -> dict[str, Any]:
    """Return what the server says of itself; credentials are hidden."""
    capabilities = cache.capabilities
    return {
        "cache": redact(_described(cache)),
        "cache_name": cache_name,
        "read_only": capabilities.read_only,
        "fleche_version": __version__,
        "cloudpickle_version": cloudpickle.__version__,
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


def _described(cache: BaseCache) -> Any:
    try:
        return cache.to_config()
    except Exception as error:  # noqa: BLE001 (a cache without a configuration can be served too)
        log.debug("the cache has no configuration: %s", error)
        return {"type": type(cache).__name__}
