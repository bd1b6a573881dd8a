"""Configurations to caches and back: the only place that knows every class."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from fleche._redact import redact as hide_secrets
from fleche._util import home_directory
from fleche.caches import BaseCache, Cache, CachePool, CacheStack, Local
from fleche.config._find import ALWAYS, FILENAME, Config, load_config
from fleche.config._schema import (
    Layer,
    LayerTable,
    LocalTable,
    NestedTable,
    PoolTable,
    Reference,
    RemoteTable,
    Spec,
    Stack,
    StoragesTable,
    TemplateTable,
    expand_template,
    parse,
)
from fleche.config._validate import (
    ConfigPath,
    convert,
    given,
    kind_of,
    plain,
    suggestion,
    unknown_name,
)
from fleche.errors import ConfigError
from fleche.storage import storage_class

if TYPE_CHECKING:
    from fleche.metadata import MetaData

__all__ = [
    "cache_from_config",
    "cache_to_config",
    "check_default_metadata",
    "default_cache_name",
    "load_cache_config",
    "load_default_metadata",
]

log = logging.getLogger("fleche.config")

PathLike: TypeAlias = "str | os.PathLike[str]"

_POLICY = ("write_through", "on_error")
_LIMITS = ("max_size", "max_bytes", "max_age")


def load_cache_config(name: str | None = None, *, start: PathLike | None = None) -> BaseCache:
    """Return a configured cache, new with every call.

    ``memory``, ``void`` and ``default`` need no configuration. Where no default is configured,
    results are kept in files below ``$XDG_DATA_HOME/fleche``, and the log says so; it warns if
    caches are configured all the same.

    Args:
        name: which cache; the one that ``[default]`` names, if not given.
        start: the directory to look for ``fleche.toml`` from; the working directory, if not given.

    Raises:
        ConfigError: there is no such cache, or something is wrong with the configuration.
        MissingExtra: a package that the cache needs is not installed.
    """
    config = load_config(start)
    with _Builder(config) as builder:
        return builder.named("default" if name is None else name, None)


def default_cache_name(*, start: PathLike | None = None) -> str | None:
    """Return the name of the table that the default cache is, if it is one.

    Raises:
        ConfigError: something is wrong with the configuration.
    """
    chosen = load_config(start).default.cache
    return chosen if isinstance(chosen, str) and chosen != "default" else None


def cache_from_config(
    table_or_array: Mapping[str, Any] | Sequence[Any],
    *,
    base: PathLike | None = None,
    where: str = "config",
    config: Config | None = None,
) -> BaseCache:
    """Return the cache that a table (or for a stack, an array) as in ``fleche.toml`` describes.

    Args:
        table_or_array: plain data, as :func:`cache_to_config` returns it or TOML gives it.
        base: the directory that relative paths are relative to; the working directory, if not
            given.
        where: what the description is called in errors.
        config: where the names of other caches are looked up; those that need no configuration are
            always known.

    Raises:
        ConfigError: something is wrong with it; the message names the place.
        MissingExtra: a package that the cache needs is not installed.
    """
    place = ConfigPath(where, None if base is None else Path(base).expanduser().absolute())
    data = plain(table_or_array)
    if not isinstance(data, dict | list):
        raise place.error(f"expected a table or an array of tables, got {kind_of(data)}")
    spec = parse(data, place)
    with _Builder(config or Config()) as builder:
        return builder.build(spec)


def cache_to_config(cache: BaseCache, *, redact: bool = False) -> dict[str, Any] | list[Any]:
    """Return what :func:`cache_from_config` makes this cache from again.

    Args:
        cache: any cache.
        redact: put ``"***"`` in place of secrets.
    """
    config: dict[str, Any] | list[Any] = plain(cache.to_config())
    return hide_secrets(config) if redact else config


class _Builder:
    """Builds caches of one configuration; a name that several caches refer to is built once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._named: dict[str, BaseCache] = {}
        self._built: list[BaseCache] = []
        self._chain: list[str] = []

    def __enter__(self) -> _Builder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # of what could not be built as a whole, no part stays open
            for cache in reversed(self._built):
                cache.close()

    def named(self, name: str, place: ConfigPath | None, *, shared: bool = True) -> BaseCache:
        """The cache called ``name``, which ``place`` asks for; if not ``shared``, a copy of it."""
        if shared and name in self._named:
            return self._named[name]
        if name in self._chain:
            cycle = " -> ".join([*self._chain[self._chain.index(name) :], name])
            raise _error(place, f"a cache cannot contain itself: {cycle}")
        self._chain.append(name)
        cache = self._make_named(name, place)
        self._chain.pop()
        if shared:
            self._named[name] = cache
        return cache

    def _make_named(self, name: str, place: ConfigPath | None) -> BaseCache:
        if name == "default":
            return self._make_default()
        if name in self._config.tables:
            return self.build(self._config.tables[name].spec)
        if name in ALWAYS:
            return self.build(parse({"template": name}, ConfigPath(name, Path())))
        message = unknown_name("cache", name, self._config.names())
        if place is None:
            files = ", ".join(map(str, self._config.files))
            none = f"no {FILENAME} was found from {self._config.start} upward"
            message += f" ({files or none})"
            if "/" in name or os.sep in name:
                message += f"; a directory is opened by fleche.open({name!r})"
        raise _error(place, message)

    def _make_default(self) -> BaseCache:
        chosen = self._config.default.cache
        if isinstance(chosen, str) and chosen != "default":
            return self.named(chosen, self._config.place_of_default("cache"))
        root = _data_directory() / "fleche" / "default"
        if chosen is msgspec.UNSET and self._config.tables:
            names = list(self._config.tables)
            misspelt = suggestion("default", names)
            log.warning(
                "%s: none of its caches is the default, so results are kept in %s; %s",
                ", ".join(map(str, self._config.files)),
                root,
                f"did you mean [default] where it says [{misspelt}]?"
                if misspelt
                else f'to use one, say [default] and below it cache = "{names[0]}"',
            )
        else:
            log.info("no [default] cache is configured; results are kept in %s", root)
        table = {"type": "local", "root": str(root)}
        return self.build(parse(table, ConfigPath("default", root.parent)))

    def build(self, spec: Spec) -> BaseCache:
        """The cache that ``spec`` describes."""
        if isinstance(spec, Reference):
            return self.named(spec.name, spec.place)
        if isinstance(spec, Stack):
            layers = tuple(map(self.build, spec.layers))
            with spec.place.blamed():
                return self._keep(CacheStack(layers))
        return self._dress(_MAKERS[type(spec.table)](self, spec), spec)

    def _keep(self, cache: BaseCache) -> BaseCache:
        self._built.append(cache)
        return cache

    def _dress(self, cache: BaseCache, layer: Layer) -> BaseCache:
        """Add what the table says beyond what the cache is."""
        limits, policy = _chosen(layer.table, _LIMITS), _chosen(layer.table, _POLICY)
        if policy:
            cache.backend.policy = msgspec.structs.replace(cache.policy, **policy)
        with layer.place.blamed():
            if limits:
                cache = self._keep(_limited(cache, limits, layer.place))
            if layer.table.read_only is True:
                cache = self._keep(cache.readonly())
        return cache

    # -- one for each kind of table ----------------------------------------------------------------

    def storages(self, layer: Layer) -> BaseCache:
        assert isinstance(layer.table, StoragesTable)
        return self._cache(layer.table.values, layer.table.calls, layer.place)

    def template(self, layer: Layer) -> BaseCache:
        assert isinstance(layer.table, TemplateTable)
        if layer.table.template == "local":
            assert isinstance(layer.table.root, str)
            with layer.place.blamed():
                return self._keep(Local(layer.place.key("root").resolve(layer.table.root)))
        return self._cache(*expand_template(layer.table), layer.place)

    def _cache(self, values: Any, calls: Any, place: ConfigPath) -> BaseCache:
        value_storage = _make_storage(values, "values", place.key("values"))
        try:
            call_storage = _make_storage(calls, "calls", place.key("calls"))
        except BaseException:
            value_storage.close()
            raise
        with place.blamed():
            return self._keep(Cache(value_storage, call_storage))

    def local(self, layer: Layer) -> BaseCache:
        others, place = {"type", "read_only", *_LIMITS, *_POLICY}, layer.place
        options = {key: value for key, value in given(layer.table).items() if key not in others}
        root = place.key("root").resolve(options.pop("root"))
        with place.blamed():
            return self._keep(Local(root, **options))

    def remote(self, layer: Layer) -> BaseCache:
        from fleche.remote import remote_cache_class

        table, place = layer.table, layer.place
        assert isinstance(table, RemoteTable)
        with place.blamed():
            return self._keep(
                remote_cache_class(table.type).from_options(
                    table.options, lambda name, path: place.key(name).resolve(path)
                )
            )

    def pool(self, layer: Layer) -> BaseCache:
        caches = tuple(map(self.build, layer.inner))
        with layer.place.blamed():
            return self._keep(CachePool(caches))

    def nested(self, layer: Layer) -> BaseCache:
        (inner,) = layer.inner
        if isinstance(inner, Reference) and _chosen(layer.table, _POLICY):
            # the policy is of this mention alone
            return self.named(inner.name, inner.place, shared=False)
        return self.build(inner)


_MAKERS: dict[type[LayerTable], Callable[[_Builder, Layer], BaseCache]] = {
    StoragesTable: _Builder.storages,
    TemplateTable: _Builder.template,
    LocalTable: _Builder.local,
    RemoteTable: _Builder.remote,
    PoolTable: _Builder.pool,
    NestedTable: _Builder.nested,
}


def _limited(cache: BaseCache, limits: dict[str, Any], place: ConfigPath) -> BaseCache:
    from fleche.caches import SizeLimitedCache

    if not isinstance(cache, Cache):
        wrong = place.key(next(iter(limits)))
        raise wrong.error("a cache is limited where its values and calls are configured")
    return SizeLimitedCache(cache, **limits)


def _chosen(table: LayerTable, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in given(table).items() if name in names}


def _data_directory() -> Path:
    configured = Path(os.environ.get("XDG_DATA_HOME", ""))
    if configured.is_absolute():
        return configured
    home = home_directory()
    if home is None:
        raise ConfigError(
            "no cache is configured, and no home directory is known here that could keep results; "
            "say where to keep them in a fleche.toml, or by FLECHE_CACHE=./results"
        )
    return Path(home, ".local", "share")


def _error(place: ConfigPath | None, message: str) -> ConfigError:
    return ConfigError(message) if place is None else place.error(message)


def _make_storage(table: dict[str, Any], kind: Any, place: ConfigPath) -> Any:
    """Return the storage that ``table``, which stands at ``place``, describes.

    Raises:
        ConfigError: something is wrong with it.
        MissingExtra: a package that the storage needs is not installed.
    """
    options = dict(table)
    name = options.pop("type", None)
    if name is None:
        raise place.error("missing required key 'type'")
    if not isinstance(name, str):
        raise place.key("type").error(f"expected str, got {kind_of(name)}")
    with place.key("type").blamed():
        cls: Any = storage_class(name, kind)
    schema = getattr(cls, "Options", None)
    if schema is None:
        with place.blamed():
            return cls(**options)
    typed = convert(options, schema, place, label=f"{name!r} for {kind}")
    with place.blamed():
        return cls.from_options(name, typed, place.resolve)


# -- metadata --------------------------------------------------------------------------------------

UNCONFIGURED = ("runtime", "environment")
"""What is collected unless told: when, where and with what a call ran."""


def load_default_metadata(*, start: str | os.PathLike[str] | None = None) -> tuple[MetaData, ...]:
    """Return the collectors that ``[default] metadata`` names, ready for use.

    Args:
        start: the directory to look for ``fleche.toml`` from; the working directory, if not given.

    Raises:
        ConfigError: there is no such collector, or something is wrong with the configuration.
    """
    from fleche.metadata import metadata_class  # not for a command, nor a server

    config = load_config(start)
    names = config.default.metadata
    if not isinstance(names, list):
        return tuple(metadata_class(name)() for name in UNCONFIGURED)
    place = config.place_of_default("metadata")
    return tuple(_collector(name, place.index(number)) for number, name in enumerate(names))


def check_default_metadata(config: Config) -> None:
    """Check that there is what ``[default] metadata`` names, without importing it.

    Raises:
        ConfigError: fleche has no such collector, or no such module is found.
    """
    names = config.default.metadata
    if isinstance(names, list):
        place = config.place_of_default("metadata")
        for number, name in enumerate(names):
            _check_collector(name, place.index(number))


def _check_collector(name: str, place: ConfigPath) -> None:
    from importlib.util import find_spec

    from fleche.metadata import metadata_names

    module, colon, _ = name.partition(":")
    package = module.partition(".")[0]
    if not colon and not {name, name.lower()}.intersection(metadata_names()):
        message = unknown_name("metadata", name, metadata_names())
        raise place.error(f'{message}; a class of your own is named as "package.module:Class"')
    if colon and not (package and find_spec(package)):
        raise place.error(f"metadata {name!r} cannot be imported: no module is named {package!r}")


def _collector(name: str, place: ConfigPath) -> MetaData:
    from fleche.metadata import metadata_class

    _check_collector(name, place)
    with place.blamed():
        return metadata_class(name)()
