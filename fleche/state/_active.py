"""The settings, and the functions that read and change them."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from fleche._util import is_path, refuse_url
from fleche.state._variable import UNSET, Setting, Variable

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = [
    "active_cache",
    "cache",
    "check_is_cache",
    "collectors",
    "forced_cache",
    "forcing",
    "holding",
    "is_cache_set",
    "meta",
    "named_cache",
    "project",
    "rebuild_cache",
    "reset",
    "tags",
]


class _Configured:
    """What comes from the configuration; each thing once, when it is first needed."""

    def __init__(self) -> None:
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
        from fleche.config import default_cache_name, load_cache_config

        if name is None and (forced := os.environ.get(VARIABLE)):
            return _forced_by(forced)
        default = default_cache_name()
        twin = {None: default, default: None}.get(name, name)
        if twin != name and twin in self.caches:
            return self.caches[twin]
        return load_cache_config(name)

    def collectors(self) -> tuple[MetaData, ...]:
        """Return the default metadata."""
        found = self.metadata
        if found is None:
            from fleche.config import load_default_metadata

            with self.lock:
                found = self.metadata = load_default_metadata()
        return found

    def forget(self) -> None:
        """Close and forget everything."""
        with self.lock:
            built, self.caches = {id(each): each for each in self.caches.values()}, {}
            self.metadata = None
        for each in built.values():
            each.close()


VARIABLE = "FLECHE_CACHE"
"""The environment variable that overrides what is set or configured: ``void``, ``memory``, the name
of a cache in ``fleche.toml``, or the path of a directory."""

_VARIABLE = os.environ.encodekey(VARIABLE)

_configured = _Configured()
_forced: BaseCache | None = None


def forced_cache() -> BaseCache | None:
    """Return the cache that is used whatever is set, or ``None`` if there is none.

    Raises:
        ConfigError: the variable names no cache.
    """
    if _forced is not None:
        return _forced
    # os.environ looks there, too, and takes ten times as long, which each hit would
    if _VARIABLE not in getattr(os.environ, "_data", (_VARIABLE,)):
        return None
    return _configured.cache() if os.environ.get(VARIABLE) else None


def _forced_by(text: str) -> BaseCache:
    """Return the cache that the variable names; the path of one has a separator or begins so."""
    from fleche.errors import ConfigError

    if is_path(text):
        from pathlib import Path

        from fleche import config

        try:
            refuse_url(text)
            return config.open(Path(text))
        except ConfigError as error:
            raise ConfigError(f"{VARIABLE}={text}: {error}") from None
    if text == "default":
        raise ConfigError(f"{VARIABLE}={text}: a cache by itself is wanted, not the default")
    try:
        return _configured.cache(text)
    except ConfigError as error:
        raise ConfigError(
            f"{VARIABLE}={text}: {error} (a directory is written with a slash: ./{text})"
        ) from error


@contextmanager
def forcing(which: BaseCache) -> Iterator[BaseCache]:
    """Use a cache for a block whatever is set, in all threads: for tests of code that sets others.

    It comes before the variable ``FLECHE_CACHE``.
    """
    global _forced  # noqa: PLW0603 (like the variable, it is one for the process)
    before, _forced = _forced, which
    back = _cache.set_everywhere(which)
    try:
        yield which
    finally:
        _forced = before
        back()


def named_cache(name: str | None = None) -> BaseCache:
    """Return the cache of a name in ``fleche.toml``, or the default one; each is built once.

    Raises:
        ConfigError: no cache has this name, or ``fleche.toml`` is broken.
    """
    return _configured.cache(name)


def rebuild_cache(config: Any) -> BaseCache:
    """Return the cache that ``config``, from its ``to_config()``, describes."""
    from fleche.config import cache_from_config

    return cache_from_config(config)


_cache: Variable[BaseCache] = Variable("cache", _configured.cache)
_meta: Variable[tuple[MetaData, ...]] = Variable("meta", _configured.collectors)
_tags: Variable[dict[str, Any]] = Variable("tags", dict)

active_cache = _cache.get
"""Returns the active cache: :func:`cache` without arguments, for the path of every call."""


@overload
def cache() -> BaseCache: ...


@overload
def cache(which: str | BaseCache, *, stack: bool = False) -> Setting[BaseCache]: ...


def cache(
    which: str | BaseCache | None = None, *, stack: bool = False
) -> BaseCache | Setting[BaseCache]:
    """Return the active cache, or activate another.

    Args:
        which: a cache, or the name of one in ``fleche.toml``, which is built once and then used
            again.
        stack: put it in front of the active cache: results are looked for in both and saved to it.

    The environment variable ``FLECHE_CACHE`` overrides what is activated: ``void``, ``memory``, the
    name of a cache in ``fleche.toml``, or the path of a directory.

    Raises:
        ConfigError: no cache has this name, or ``fleche.toml`` is broken.
        TypeError: ``which`` is something else.
    """
    if which is None:
        return _cache.get()
    forced = forced_cache()
    chosen = forced or (named_cache(which) if isinstance(which, str) else which)
    check_is_cache(chosen)
    if stack and forced is None:
        from fleche.caches import CacheStack

        chosen = CacheStack((chosen, _cache.get()))
    return Setting(_cache, chosen)


def check_is_cache(found: object) -> None:
    """Check that this is a cache.

    Raises:
        TypeError: it is something else.
    """
    from fleche.caches import BaseCache

    if not isinstance(found, BaseCache):
        raise TypeError(
            f"{found!r} is not a cache: expected one, or the name of one in fleche.toml; for files "
            'in a directory: fleche.open("results")'
        )


@overload
def meta() -> tuple[MetaData, ...]: ...


@overload
def meta(
    *which: str | MetaData | type[MetaData] | None, stack: bool = False
) -> Setting[tuple[MetaData, ...]]: ...


def meta(
    *which: str | MetaData | type[MetaData] | None, stack: bool = False
) -> tuple[MetaData, ...] | Setting[tuple[MetaData, ...]]:
    """Return the active collectors, or activate others: ``meta(Git(), "runtime")``.

    Args:
        which: collectors, their classes or their names. ``meta(None)`` collects nothing.
        stack: keep the active ones too.

    Raises:
        ConfigError: no collector has this name.
    """
    if not which:
        return _meta.get()
    kept = _meta.get() if stack else ()
    return Setting(_meta, (*kept, *collectors(which)))


def collectors(which: Collection[str | MetaData | type[MetaData] | None]) -> tuple[MetaData, ...]:
    """Return the collectors that are meant: by themselves, by their classes or by their names.

    Raises:
        ConfigError: no collector has this name.
        TypeError: something else is among them.
    """
    if not which:
        return ()
    from fleche.metadata import MetaData, metadata_class

    found = []
    for each in which:
        chosen = metadata_class(each) if isinstance(each, str) else each
        if chosen is None:
            continue
        made = chosen() if isinstance(chosen, type) else chosen
        if not isinstance(made, MetaData):
            raise TypeError(f"{each!r} is not metadata: expected a MetaData, its class or its name")
        found.append(made)
    return tuple(found)


@overload
def tags() -> dict[str, Any]: ...


@overload
def tags(**fields: Any) -> Setting[dict[str, Any]]: ...


def tags(**fields: Any) -> dict[str, Any] | Setting[dict[str, Any]]:
    """Return the active tags, or add some: ``tags(sample=7)``; ``tags(sample=None)`` removes one.

    Tags are recorded with every call that is computed, to find it by:
    ``cache().query(metadata={"tags": {"sample": 7}})``.
    """
    if not fields:
        return dict(_tags.get())
    merged = {**_tags.get(), **fields}
    return Setting(_tags, {key: value for key, value in merged.items() if value is not None})


@overload
def project() -> str | None: ...


@overload
def project(name: str | None) -> Setting[dict[str, Any]]: ...


def project(name: Any = UNSET) -> str | Setting[dict[str, Any]] | None:
    """Return the active project, or set it; it is the tag ``project``."""
    if name is UNSET:
        found = _tags.get().get("project")
        return found if found is None else str(found)
    return tags(project=name)


def is_cache_set() -> bool:
    """Whether a cache has been activated here; else the configured default is used."""
    return _cache.is_set()


@contextmanager
def holding(cache: BaseCache, meta: tuple[MetaData, ...], tags: dict[str, Any]) -> Iterator[None]:
    """Make all of these active for a block, in this context alone."""
    back = [_cache.set_here(cache), _meta.set_here(meta), _tags.set_here(tags)]
    try:
        yield
    finally:
        for undo in back:
            undo()


def reset() -> None:
    """Forget every setting, and close and forget the caches that were built by name."""
    for variable in (_cache, _meta, _tags):
        variable.clear()
    _configured.forget()
