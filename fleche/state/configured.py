"""What comes from the configuration."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = ["Configured"]


class Configured:
    """What comes from the configuration, which is built on top of this module; each thing once."""

    def __init__(self) -> None:
        self.loaders: dict[str, Callable[..., Any]] = {}
        self.caches: dict[str | None, BaseCache] = {}
        self.metadata: tuple[MetaData, ...] | None = None
        self.lock = threading.RLock()
        os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        """Forget who held the lock in the parent of this process."""
        self.lock = threading.RLock()

    def cache(self, name: str | None = None) -> BaseCache:
        """Return the cache of a name, or the default one."""
        name = None if name == "default" else name
        found = self.caches.get(name)
        if found is None:
            with self.lock:
                found = self.caches.get(name)
                if found is None:
                    found = self.caches[name] = self._build(name)
        return found

    def _build(self, name: str | None) -> BaseCache:
        """Build a cache; the default one and the one of its name are the same object."""
        default = self.loaders["name"]()
        twin = {None: default, default: None}.get(name, name)
        if twin != name and twin in self.caches:
            return self.caches[twin]
        built: BaseCache = self.loaders["cache"](name)
        return built

    def collectors(self) -> tuple[MetaData, ...]:
        """Return the default metadata."""
        found = self.metadata
        if found is None:
            with self.lock:
                found = self.metadata = tuple(self.loaders["metadata"]())
        return found

    def forget(self) -> None:
        """Close and forget everything."""
        with self.lock:
            built, self.caches = {id(each): each for each in self.caches.values()}, {}
            self.metadata = None
        for each in built.values():
            each.close()
