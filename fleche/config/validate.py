"""Plain data to msgspec structs, with errors for people.

msgspec decides what is valid. What it refuses is walked again here, field by field, to name the
exact place, what was expected, and what was probably meant.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from fleche.config.place import Place, enumerated, suggestion
from fleche.errors import ConfigError

__all__ = ["convert", "given", "kind_of", "plain", "unknown_key"]

T = TypeVar("T", bound=msgspec.Struct)

_NAMES: dict[Any, str] = {dict: "table", list: "array", types.NoneType: "nothing"}


def convert(table: Mapping[str, Any], cls: type[T], place: Place, *, label: str = "") -> T:
    """Return ``table`` as a ``cls``.

    Args:
        table: plain data.
        cls: a struct that forbids unknown fields.
        place: where the table stands.
        label: what takes these keys, for the error about an unknown one (``"an ssh cache"``).

    Raises:
        ConfigError: it does not fit; the message names the key and what was expected.
    """
    try:
        return msgspec.convert(table, cls)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "").replace("$", "")
    raise _fault_of_struct(table, cls, place, label) or place.error(reason)


def given(table: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of ``table`` that were set, by name."""
    fields = {name: getattr(table, name) for name in table.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET}


def plain(value: Any) -> Any:
    """Return ``value`` as TOML gives it: no tuples, paths as text, no key without a value."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PathLike):
        return fspath(value)
    return value


def kind_of(value: Any) -> str:
    """Return what TOML calls a value of this type, or Python's word for it."""
    return _NAMES.get(type(value), type(value).__name__)


def unknown_key(key: str, known: list[str], place: Place, label: str = "") -> ConfigError:
    """Return the error about ``key`` in the table at ``place``, which takes the ``known`` ones."""
    near = suggestion(key, known)
    if near is not None:
        hint = f", did you mean {near!r}?"
    elif known:
        hint = f"; {label or 'known'}{' takes' if label else ' are'} {', '.join(sorted(known))}"
    else:
        hint = f"; {label or 'this'} takes no keys"
    return place.key(key).error(f"unknown key{hint}")


def _fault_of_struct(
    table: Any, cls: type[msgspec.Struct], place: Place, label: str = ""
) -> ConfigError | None:
    if not isinstance(table, Mapping):
        return place.error(f"expected a table, got {kind_of(table)}")
    fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
    for key in table:
        if key not in fields and cls.__struct_config__.forbid_unknown_fields:
            return unknown_key(key, list(fields), place, label)
    for name, field in fields.items():
        if field.required and name not in table:
            return place.error(f"missing required key {name!r}")
        if name in table and (fault := _fault(table[name], field.type, place.key(name))):
            return fault
    return None


def _fault(value: Any, kind: Any, place: Place) -> ConfigError | None:
    """Return what is wrong with ``value`` as a ``kind``, innermost first."""
    kind = _stripped(kind, value)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _fault_of_struct(value, kind, place)
    arguments = get_args(kind)
    if isinstance(value, list) and get_origin(kind) is list:
        found = (_fault(item, arguments[0], place.index(n)) for n, item in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(value, dict) and get_origin(kind) is dict:
        found = (
            _fault(part, argument, place.key(name))
            for name, item in value.items()
            for part, argument in zip((name, item), arguments, strict=True)
        )
        return next(filter(None, found), None)
    return _fault_of_leaf(value, kind, place)


def _fault_of_leaf(value: Any, kind: Any, place: Place) -> ConfigError | None:
    if _fits(value, kind):
        return None
    bare = _without_limits(kind)
    if not _fits(value, bare):
        return place.error(f"expected {_describe(bare)}, got {kind_of(value)}")
    near = suggestion(value, _choices(kind)) if isinstance(value, str) else None
    hint = f", did you mean {near!r}?" if near else ""
    return place.error(f"expected {_describe(kind)}, got {value!r}{hint}")


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _without_limits(kind: Any) -> Any:
    """The type of which ``kind`` allows some values only."""
    if get_origin(kind) is Literal:
        return type(get_args(kind)[0])
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _stripped(kind: Any, value: Any) -> Any:
    """Drop what only a default can be from a union, and of the rest what ``value`` cannot be."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    left = [part for part in get_args(kind) if part not in (msgspec.UnsetType, types.NoneType)]
    fitting = [part for part in left if get_origin(part) is type(value)]
    if len(left) == 1 or fitting:
        return (fitting or left)[0]
    return Union[tuple(left)]  # noqa: UP007 (of parts that are not known before)


def _choices(kind: Any) -> list[str]:
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _describe(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return enumerated(map(repr, arguments))
    if origin is Annotated:
        return " ".join([_describe(arguments[0]), *map(_limits, arguments[1:])])
    if origin in (Union, types.UnionType):
        return enumerated(map(_describe, arguments))
    if origin is list:
        inner = _describe(_without_limits(arguments[0]))
        return "an array" if arguments[0] is Any else f"an array of {inner}"
    if origin is dict or kind is dict:
        return "a table"
    return _NAMES.get(kind) or str(getattr(kind, "__name__", kind))


def _limits(meta: Any) -> str:
    if meta.extra and "said" in meta.extra:
        return str(meta.extra["said"])
    if getattr(meta, "min_length", None):
        return "that is not empty"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    limits = {word: getattr(meta, name, None) for name, word in words.items()}
    return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
