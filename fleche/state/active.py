"""The settings, and the functions that read and change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from fleche.state.configured import Configured
from fleche.state.variable import UNSET, Setting, Variable

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.metadata import MetaData

__all__ = [
    "cache",
    "collectors",
    "holding",
    "meta",
    "named_cache",
    "project",
    "rebuild_cache",
    "reset",
    "set_loader",
    "tags",
]

_configured = Configured()


def set_loader(
    load_cache: Callable[[str | None], BaseCache],
    load_metadata: Callable[[], Iterable[MetaData]],
    rebuild_cache: Callable[[Any], BaseCache],
    default_name: Callable[[], str | None] = lambda: None,
) -> None:
    """Say where configured things come from.

    Args:
        load_cache: the cache of a name; of ``None``, the default one.
        load_metadata: the default metadata.
        rebuild_cache: the cache that has described itself with ``to_config()``.
        default_name: the name under which the default cache is configured, if it has one.
    """
    _configured.loaders.update(
        cache=load_cache, metadata=load_metadata, rebuild=rebuild_cache, name=default_name
    )


def named_cache(name: str | None = None) -> BaseCache:
    """Return the cache of a name in ``fleche.toml``, or the default one; each is built once.

    Raises:
        ConfigError: no cache has this name, or ``fleche.toml`` is broken.
    """
    return _configured.cache(name)


def rebuild_cache(config: Any) -> BaseCache:
    """Return the cache that ``config``, from its ``to_config()``, describes."""
    rebuilt: BaseCache = _configured.loaders["rebuild"](config)
    return rebuilt


_cache: Variable[BaseCache] = Variable("cache", _configured.cache)
_meta: Variable[tuple[MetaData, ...]] = Variable("meta", _configured.collectors)
_tags: Variable[dict[str, Any]] = Variable("tags", dict)


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

    Raises:
        ConfigError: no cache has this name, or ``fleche.toml`` is broken.
        TypeError: ``which`` is something else.
    """
    if which is None:
        return _cache.get()
    chosen = named_cache(which) if isinstance(which, str) else which
    _check_is_cache(chosen)
    if stack:
        from fleche.caches import CacheStack

        chosen = CacheStack((chosen, _cache.get()))
    return Setting(_cache, chosen)


def _check_is_cache(found: object) -> None:
    from fleche.caches import BaseCache

    if not isinstance(found, BaseCache):
        raise TypeError(
            f"{found!r} is not a cache: expected one, or the name of one in fleche.toml; for files "
            'in a directory: cache_from_config({"template": "cloudpickle", "root": "results"})'
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


def collectors(which: Iterable[str | MetaData | type[MetaData] | None]) -> tuple[MetaData, ...]:
    """Return the collectors that are meant: by themselves, by their classes or by their names.

    Raises:
        ConfigError: no collector has this name.
        TypeError: something else is among them.
    """
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
