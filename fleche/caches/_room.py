"""How much room there is where a cache keeps its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["free_bytes"]


def free_bytes(config: Any) -> int | None:
    """Return the free bytes of the fullest disk that a cache keeps files on.

    Args:
        config: what ``to_config()`` of the cache returns.

    Returns:
        The number, or ``None`` if it keeps no files on this machine.
    """
    found = [free for path in _places(config) if (free := _free(path)) is not None]
    return min(found, default=None)


def _places(config: Any) -> Iterator[str]:
    if isinstance(config, list | tuple):
        for each in config:
            yield from _places(each)
    elif isinstance(config, Mapping) and config.get("type") not in ("ssh", "subprocess"):
        root, url = config.get("root"), config.get("url")
        if isinstance(root, str):
            yield root
        elif isinstance(url, str) and ("://" not in url or url.startswith("sqlite:///")):
            yield url.removeprefix("sqlite:///")
        for name in ("values", "calls", "pool", "cache"):
            yield from _places(config.get(name))


def _free(path: str) -> int | None:
    place = os.path.abspath(os.path.expanduser(path))
    while not os.path.exists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
