"""What a cache looks like in ``fleche.toml``: one struct for each kind of table.

Wherever a cache is expected there may stand a table, an array (a stack), or the name of another
cache. :func:`parse` turns it into a tree of :class:`Layer`, :class:`Stack` and :class:`Reference`,
checked but for what only a storage itself can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fleche._amounts import as_age, as_bytes
from fleche._settings import Text
from fleche.caches import OnError, WriteThrough
from fleche.config._validate import (
    ConfigPath,
    convert,
    enumerated,
    kind_of,
    suggestion,
    unknown_key,
)

if TYPE_CHECKING:
    from fleche.remote import RemoteOptions

__all__ = [
    "DefaultTable",
    "Layer",
    "LayerTable",
    "LimitedTable",
    "LocalTable",
    "NestedTable",
    "PoolTable",
    "Reference",
    "RemoteTable",
    "Spec",
    "Stack",
    "StoragesTable",
    "TemplateTable",
    "expand_template",
    "parse",
]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Template: TypeAlias = Literal[
    "local", "cloudpickle", "pickle", "dill", "sql", "hdf5", "fsspec", "memory", "void"
]


class DefaultTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[default]``: no cache, but which cache and what metadata are used unless told.

    Attributes:
        cache: name of a cache.
        metadata: names of what is collected with every call.
        root: look no further for configuration.
        trust: directories that other users can write, and below which every ``fleche.toml`` counts
            all the same. It is read in the user's own file only.
    """

    cache: str | UnsetType = UNSET
    metadata: list[str] | UnsetType = UNSET
    root: bool | UnsetType = UNSET
    trust: list[str] | UnsetType = UNSET


class LayerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every cache takes.

    Attributes:
        read_only: refuse every save and every evict.
        on_error: in a stack, whether an unreachable layer raises or is a miss.
        write_through: in a stack, receive saves even when not the first layer; "background" while
            the program goes on.
    """

    label: ClassVar[str] = "a cache"

    read_only: bool | UnsetType = UNSET
    on_error: OnError | UnsetType = UNSET
    write_through: WriteThrough | UnsetType = UNSET


class LimitedTable(LayerTable, frozen=True, kw_only=True):
    """The keys that a cache takes besides whose values and calls are kept by this process.

    Attributes:
        max_size: keep this many calls at most.
        max_bytes: keep this many bytes at most: a number, or text such as "20GB".
        max_age: forget what was not used for so long: "90d", "6h".
    """

    max_size: Count | UnsetType = UNSET
    max_bytes: Count | str | UnsetType = UNSET
    max_age: str | int | UnsetType = UNSET


class StoragesTable(LimitedTable, frozen=True, kw_only=True):
    """A cache made of two storages; their tables are checked by the storages."""

    label: ClassVar[str] = "a cache of values and calls"

    values: dict[str, Any]
    calls: dict[str, Any]


class TemplateTable(LimitedTable, frozen=True, kw_only=True):
    """A cache of a usual make, all of it below ``root``."""

    label: ClassVar[str] = "a template"

    template: Template
    root: Text | UnsetType = UNSET


class LocalTable(LimitedTable, frozen=True, kw_only=True):
    """The embedded store; its options are explained by the class."""

    label: ClassVar[str] = "a local cache"

    type: Literal["local"]
    root: Text
    compress: Literal["zlib", "zstd"] | bool | UnsetType = UNSET
    secret_key: str | list[str] | UnsetType = UNSET
    mmap: bool | UnsetType = UNSET
    durable: bool | UnsetType = UNSET


class RemoteTable(LayerTable, frozen=True, kw_only=True):
    """A cache behind a server; all keys but two are fields of the options of its class.

    Attributes:
        type: which class that is: a name, or the ``"package.module:Class"`` of a channel.
        options: its options; ``read_only`` and ``on_error`` are among them, and unset here.
    """

    type: Text
    options: Any


class PoolTable(LayerTable, frozen=True, kw_only=True):
    """Several caches read as one."""

    label: ClassVar[str] = "a pool"

    pool: list[Any]


class NestedTable(LimitedTable, frozen=True, kw_only=True):
    """Another cache, by name or in place, with something about it changed."""

    label: ClassVar[str] = "a table that names a cache"

    cache: Any


@dataclass(frozen=True)
class Reference:
    """The name of a cache that is configured elsewhere."""

    place: ConfigPath
    name: str


@dataclass(frozen=True)
class Stack:
    """Several layers, the nearest first."""

    place: ConfigPath
    layers: tuple[Spec, ...]


@dataclass(frozen=True)
class Layer:
    """One table; ``inner`` are the caches that it is made of."""

    place: ConfigPath
    table: LayerTable
    inner: tuple[Spec, ...] = ()


Spec: TypeAlias = "Reference | Stack | Layer"

_KINDS: dict[str, type[LayerTable]] = {
    "template": TemplateTable,
    "values": StoragesTable,
    "calls": StoragesTable,
    "pool": PoolTable,
    "cache": NestedTable,
}
_DECISIVE = ("type", *_KINDS)


def parse(spec: Any, place: ConfigPath) -> Spec:
    """Return ``spec`` (plain data) checked and typed.

    Raises:
        ConfigError: something in it is wrong; the message says what, where, and what was meant.
    """
    if isinstance(spec, str):
        return Reference(place, spec)
    if isinstance(spec, list):
        return Stack(place, _parse_all(spec, place, "a stack needs at least one layer"))
    if isinstance(spec, dict):
        return _parse_table(spec, place)
    raise place.error(
        f"expected a table, an array of tables or the name of a cache, got {kind_of(spec)}"
    )


def _parse_all(specs: list[Any], place: ConfigPath, if_empty: str) -> tuple[Spec, ...]:
    if not specs:
        raise place.error(f"{if_empty}, and this is empty")
    return tuple(parse(spec, place.index(number)) for number, spec in enumerate(specs))


def _parse_table(table: dict[str, Any], place: ConfigPath) -> Layer:
    cls = _struct_of(table, place)
    if not issubclass(cls, LimitedTable):
        _check_unlimited(table, place)
    if cls is RemoteTable:
        return Layer(place, _remote_table(table, place))
    typed = convert(table, cls, place, label=cls.label)
    _check_sense(typed, place)
    if isinstance(typed, PoolTable):
        inner = _parse_all(typed.pool, place.key("pool"), "a pool needs at least one cache")
        return Layer(place, typed, inner)
    if isinstance(typed, NestedTable):
        return Layer(place, typed, (parse(typed.cache, place.key("cache")),))
    return Layer(place, typed)


def _remote_table(table: dict[str, Any], place: ConfigPath) -> RemoteTable:
    from fleche.remote import RemoteOptions, remote_cache_class

    cls = remote_cache_class(table["type"])
    schema = _schema_of(cls.Options)
    if "options" in schema.__struct_fields__:  # the keys of a channel's own
        known = {*RemoteOptions.__struct_fields__, *_REMOTE_KEYS}
        own = {key: value for key, value in table.items() if key not in known}
        table = {**{key: table[key] for key in table if key in known}, "options": own}
    typed: Any = convert(table, schema, place, label=cls.label)
    fields = {name: getattr(typed, name) for name in cls.Options.__struct_fields__}
    options = cls.Options(**fields)
    return RemoteTable(type=typed.type, write_through=typed.write_through, options=options)


_REMOTE_KEYS = ("type", "write_through")


def _schema_of(options: type[RemoteOptions]) -> type[msgspec.Struct]:
    """Return the struct of the tables of a remote cache with these options."""
    fields: list[Any] = [("type", str), ("write_through", WriteThrough, False)]
    own = [field for field in fields if field[0] not in options.__struct_fields__]
    # what options check of themselves is for the options that are made of it
    unchecked = {"__post_init__": lambda _: None}
    return msgspec.defstruct(
        options.__name__, own, bases=(options,), namespace=unchecked, frozen=True, kw_only=True
    )


def _struct_of(table: dict[str, Any], place: ConfigPath) -> type[LayerTable]:
    """The struct of a table, which exactly one key decides."""
    kinds: dict[object, str] = {}  # by struct: values and calls decide for the same
    for key in _DECISIVE:
        if key in table:
            kinds.setdefault(_KINDS.get(key), key)
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise place.error(f"both {first!r} and {second!r} are given; keep the one that is meant")
    if not kinds:
        raise _undecided(table, place)
    key = next(iter(kinds.values()))
    name = table[key]
    if key == "template" and name not in get_args(Template) and name in _remote_names():
        hint = f'did you mean type = "{name}"?'
        raise place.key("template").error(f"unknown template {name!r}, {hint}")
    return _KINDS[key] if key != "type" else _struct_of_type(name, place.key("type"))


def _struct_of_type(name: Any, place: ConfigPath) -> type[LayerTable]:
    if not isinstance(name, str):
        raise place.error(f"expected str, got {kind_of(name)}")
    if name == "local":
        return LocalTable
    known = ["local", *_remote_names()]
    if ":" in name or name in known:
        return RemoteTable
    near = suggestion(name, known)
    hint = f", did you mean {near!r}?" if near else f"; known are {enumerated(known, 'and')}"
    if name in get_args(Template):
        hint = f', did you mean template = "{name}"?'
    raise place.error(f"unknown type {name!r}{hint}")


def _remote_names() -> tuple[str, ...]:
    from fleche.remote import remote_cache_names

    return remote_cache_names()


def _every_key() -> set[str]:
    from fleche.remote import remote_cache_class

    structs: list[type[msgspec.Struct]] = [*_KINDS.values(), LocalTable]
    structs += [remote_cache_class(name).Options for name in _remote_names()]
    return {name for cls in structs for name in cls.__struct_fields__}


def _undecided(table: dict[str, Any], place: ConfigPath) -> Exception:
    every = _every_key()
    for key in table:
        near = suggestion(key, _DECISIVE)
        if key not in every and near is not None:
            return unknown_key(key, [near], place)
    choice = enumerated(["type", "template", "values and calls", "pool", "cache"])
    return place.error(f"does not say what cache this is: expected one of the keys {choice}")


def _check_unlimited(table: dict[str, Any], place: ConfigPath) -> None:
    for key in LimitedTable.__struct_fields__:
        if key in table and key not in LayerTable.__struct_fields__:
            raise place.key(key).error(
                "a cache is limited where its values and calls are configured"
            )


def _check_sense(table: LayerTable, place: ConfigPath) -> None:
    """Refuse amounts that are none, and keys that contradict each other."""
    if isinstance(table, LimitedTable):
        if table.max_bytes is not UNSET:
            with place.key("max_bytes").blamed():
                as_bytes(table.max_bytes)
        if table.max_age is not UNSET:
            with place.key("max_age").blamed():
                as_age(str(table.max_age))  # of a number, it says which units there are
    if isinstance(table, TemplateTable):
        kept = table.template not in ("memory", "void")
        if kept and table.root is UNSET:
            raise place.error("missing required key 'root'")
        if not kept and table.root is not UNSET:
            raise place.key("root").error(f"template {table.template!r} keeps nothing on disk")


# -- templates: a usual pair of storages -----------------------------------------------------------


def expand_template(table: TemplateTable) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tables of the values and of the calls that a template stands for."""
    if not isinstance(table.root, str):
        return {"type": table.template}, {"type": table.template}
    root = table.root.rstrip("/")
    values, calls = (
        {"type": kind, key: f"{root}{place}"} for kind, key, place in _TEMPLATES[table.template]
    )
    return values, calls


_TEMPLATES = {
    "local": (("local", "root", ""), ("local", "root", "")),
    "cloudpickle": (("cloudpickle", "root", "/values"), ("cloudpickle", "root", "/calls")),
    "pickle": (("pickle", "root", "/values"), ("pickle", "root", "/calls")),
    "dill": (("dill", "root", "/values"), ("dill", "root", "/calls")),
    "sql": (("cloudpickle", "root", "/values"), ("sql", "url", "/calls.db")),
    "hdf5": (("hdf5", "root", "/values"), ("cloudpickle", "root", "/calls")),
    "fsspec": (("fsspec", "url", "/values"), ("fsspec", "url", "/calls")),
}
"""Of the values, then of the calls: the type, the key that says where, and the place there."""
