"""Storages by the name that ``type`` gives them in ``fleche.toml``.

Built-in ones are named by their import path, so that asking for one storage imports no other.

A storage class may have ``Options``, a :class:`msgspec.Struct` of the fields that its table may
have besides ``type``, and a class method ``from_options(type_name, options, resolve)``, where
``resolve`` makes a path of the configuration absolute. A class without them receives the other keys
of its table as keyword arguments.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from fleche._util import check_type_name
from fleche.errors import ConfigError
from fleche.storage._base import CallStorage, Storage, ValueStorage

__all__ = [
    "Kind",
    "register_storage",
    "storage_class",
    "storage_from_config",
    "storage_names",
]

Kind: TypeAlias = Literal["values", "calls"]

_BASES: dict[Kind, Any] = {"values": ValueStorage, "calls": CallStorage}

_BUILT_IN: dict[Kind, dict[str, str]] = {
    "values": {
        "local": "fleche.storage.local:ValueLocal",
        "memory": "fleche.storage:ValueMemory",
        "void": "fleche.storage:ValueVoid",
        "cloudpickle": "fleche.storage.file:ValueFile",
        "pickle": "fleche.storage.file:ValueFile",
        "dill": "fleche.storage.file:ValueFile",
        "hdf5": "fleche.storage.hdf5:ValueHdf5",
        "fsspec": "fleche.storage.fsspec:ValueFsspec",
    },
    "calls": {
        "local": "fleche.storage.local:CallLocal",
        "memory": "fleche.storage:CallMemory",
        "void": "fleche.storage:CallVoid",
        "cloudpickle": "fleche.storage.file:CallFile",
        "pickle": "fleche.storage.file:CallFile",
        "dill": "fleche.storage.file:CallFile",
        "sql": "fleche.storage.sql:Sql",
        "fsspec": "fleche.storage.fsspec:CallFsspec",
    },
}

_registered: dict[Kind, dict[str, str | type[Storage[Any]]]] = {"values": {}, "calls": {}}


def register_storage(name: str, kind: Kind, cls: type[Storage[Any]] | str) -> None:
    """Make ``type = name`` mean ``cls`` wherever the configuration names a storage of ``kind``.

    Args:
        name: a name that is not built in, of letters, digits and ``_ . + -``; registering it again
            replaces its class.
        kind: ``"values"`` or ``"calls"``.
        cls: the class, or its import path ``"package.module:Class"``.

    Raises:
        ValueError: ``name`` is built in or no name, or ``kind`` is neither of the two.
        TypeError: ``cls`` is no storage of that kind.
    """
    _check_kind(kind)
    check_type_name(name)
    if name in _BUILT_IN[kind]:
        raise ValueError(f"storage type {name!r} is built in; choose another name")
    if not isinstance(cls, str) and not _fits(cls, kind):
        raise TypeError(f"{cls!r} is no subclass of {_BASES[kind].__name__}")
    _registered[kind][name] = cls


def storage_names(kind: Kind) -> tuple[str, ...]:
    """Return the names that are known for storages of ``kind``, built-in ones first."""
    _check_kind(kind)
    return (*_BUILT_IN[kind], *_registered[kind])


def storage_class(name: str, kind: Kind) -> type[Storage[Any]]:
    """Return the class that ``type = name`` means.

    Args:
        name: a known name, or the import path ``"package.module:Class"`` of a class.
        kind: ``"values"`` or ``"calls"``.

    Raises:
        ConfigError: the name is unknown, or does not lead to a storage of that kind.
        MissingExtra: a package that this storage needs is not installed.
    """
    _check_kind(kind)
    found = {**_BUILT_IN[kind], **_registered[kind]}.get(name, name if ":" in name else None)
    if found is None:
        raise ConfigError(_unknown(name, kind))
    cls = _load(found) if isinstance(found, str) else found
    if not _fits(cls, kind):
        raise ConfigError(f"type {name!r}: {found} is no subclass of {_BASES[kind].__name__}")
    return cls


def storage_from_config(
    table: Mapping[str, Any], kind: Kind, resolve: Callable[[str], str] | None = None
) -> Storage[Any]:
    """Return the storage that ``table`` describes.

    Args:
        table: a table of ``fleche.toml``, ``type`` included.
        kind: ``"values"`` or ``"calls"``.
        resolve: makes a path absolute; by default it is relative to the working directory.

    Raises:
        ConfigError: the table is wrong; the message names the key.
        MissingExtra: a package that this storage needs is not installed.
    """
    fields = dict(table)
    name = fields.pop("type", None)
    if not isinstance(name, str):
        raise ConfigError(f"a storage needs a type: one of {', '.join(storage_names(kind))}")
    cls: Any = storage_class(name, kind)
    if not hasattr(cls, "Options"):
        return cls(**fields)  # type: ignore[no-any-return]
    try:
        options = msgspec.convert(fields, cls.Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"type {name!r}: {error}") from None
    return cls.from_options(name, options, resolve or _absolute)  # type: ignore[no-any-return]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _check_kind(kind: str) -> None:
    if kind not in _BASES:
        raise ValueError(f"kind of storage {kind!r}: one of {', '.join(_BASES)}")


def _fits(cls: Any, kind: Kind) -> bool:
    return isinstance(cls, type) and issubclass(cls, _BASES[kind])


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"storage type {path!r}: there is no module {error.name!r}") from error
    except AttributeError:
        raise ConfigError(f"storage type {path!r}: {module} has no {name!r}") from None


def _unknown(name: str, kind: Kind) -> str:
    names = storage_names(kind)
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    other: Kind = "calls" if kind == "values" else "values"
    if name in storage_names(other):
        hint = f" ({name!r} holds {other}, not {kind})"
    return f"type {name!r}: unknown storage of {kind}{hint}; known are {', '.join(names)}"
