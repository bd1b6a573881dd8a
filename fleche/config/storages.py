"""Tables of storages, and the templates that stand for a usual pair of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fleche.config.place import Place
from fleche.config.schema import TemplateTable
from fleche.config.validate import convert, kind_of
from fleche.storage import Kind, storage_class

__all__ = ["expand_template", "make_storage"]

Pair: TypeAlias = "tuple[dict[str, Any], dict[str, Any]]"


def expand_template(table: TemplateTable) -> Pair:
    """Return the tables of the values and of the calls that a template stands for."""
    if not isinstance(table.root, str):
        return {"type": table.template}, {"type": table.template}
    return _TEMPLATES[table.template](table.root.rstrip("/"))


def make_storage(table: dict[str, Any], kind: Kind, place: Place) -> Any:
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


def _in_files(kind: str) -> Callable[[str], Pair]:
    def make(root: str) -> Pair:
        return {"type": kind, "root": f"{root}/values"}, {"type": kind, "root": f"{root}/calls"}

    return make


def _with_database(root: str) -> Pair:
    values = {"type": "cloudpickle", "root": f"{root}/values"}
    return values, {"type": "sql", "url": f"{root}/calls.db"}


def _in_hdf5(root: str) -> Pair:
    values = {"type": "hdf5", "root": f"{root}/values"}
    return values, {"type": "cloudpickle", "root": f"{root}/calls"}


def _in_fsspec(root: str) -> Pair:
    return {"type": "fsspec", "url": f"{root}/values"}, {"type": "fsspec", "url": f"{root}/calls"}


_TEMPLATES: dict[str, Callable[[str], Pair]] = {
    "cloudpickle": _in_files("cloudpickle"),
    "pickle": _in_files("pickle"),
    "dill": _in_files("dill"),
    "sql": _with_database,
    "hdf5": _in_hdf5,
    "fsspec": _in_fsspec,
}
