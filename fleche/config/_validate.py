"""Plain data to msgspec structs, with errors that name the exact place.

msgspec decides what is valid. What it refuses is walked again here, field by field, to name the
place in the file, what was expected, and what was probably meant.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike, fspath
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from fleche._util import expand_path
from fleche.errors import ConfigError, FlecheError, MissingExtra

__all__ = [
    "ConfigPath",
    "convert",
    "enumerated",
    "given",
    "kind_of",
    "plain",
    "suggestion",
    "unknown_key",
    "unknown_name",
    "working_directory",
]

T = TypeVar("T", bound=msgspec.Struct)

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def working_directory() -> Path:
    """Return the working directory.

    Raises:
        ConfigError: it has been removed.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory is gone; change to one that exists") from None


@dataclass(frozen=True)
class ConfigPath:
    """A spot in a configuration, printed as ``/home/you/fleche.toml: shared[1].host``.

    Attributes:
        where: the file, and the path inside it.
        base: the directory that relative paths are relative to; ``None``: the working directory,
            which nothing needs but a relative path.
    """

    where: str
    base: Path | None

    def __str__(self) -> str:
        return self.where.removesuffix(": ")

    def key(self, name: str) -> ConfigPath:
        """The value of ``name`` in the table that stands here."""
        shown = name if _BARE.fullmatch(name) else f"{name!r}"
        joint = "" if self.where.endswith(": ") else "."
        return replace(self, where=f"{self.where}{joint}{shown}")

    def index(self, number: int) -> ConfigPath:
        """The item ``number`` of the array that stands here."""
        return replace(self, where=f"{self.where}[{number}]")

    def error(self, message: str) -> ConfigError:
        """Return the error that says ``message`` about this place."""
        return ConfigError(f"{self}: {message}")

    def resolve(self, path: str) -> str:
        """Return ``path`` absolute: ``~`` and ``$NAME`` expanded, relative to the declaring file.

        Raises:
            ConfigError: ``~name`` of no known user, a variable that is not set, or a path that is
                relative to a working directory that is gone.
        """
        with self.blamed():
            found = expand_path(path)
            if not found.is_absolute():
                found = (self.base or working_directory()) / found
            return normpath(found)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say of whatever goes wrong in the block that it is about this place.

        Raises:
            ConfigError: the block raised one, or a ``ValueError``, ``TypeError`` or ``OSError``.
            MissingExtra: the block raised one.
        """
        try:
            yield
        except MissingExtra as error:
            raise MissingExtra(self._prefixed(error)) from None
        except (FlecheError, ValueError, OSError) as error:
            raise ConfigError(self._prefixed(error)) from None
        except TypeError as error:
            raise ConfigError(self._prefixed(error)) from error

    def _prefixed(self, error: Exception) -> str:
        message = str(error)
        return message if message.startswith(str(self)) else f"{self}: {message}"


def suggestion(wrong: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``wrong`` was probably meant to be."""
    by_folded = {name.casefold(): name for name in known}
    from difflib import get_close_matches  # for errors alone

    near = get_close_matches(wrong.casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence about a ``name`` that is none of the ``known`` ones."""
    names = list(known)
    near = suggestion(name, names)
    hint = f", did you mean {near!r}? Known" if near else "; known"
    return f"no {what} is named {name!r}{hint} are {', '.join(names)}"


def enumerated(names: Iterable[str], joint: str = "or") -> str:
    """Return ``a, b or c``."""
    *most, last = names
    return f"{', '.join(most)} {joint} {last}" if most else last


# -- structs ---------------------------------------------------------------------------------------

_CONTAINERS = (list, Sequence, dict, Mapping)
_NAMES: dict[Any, str] = {dict: "table", list: "array", types.NoneType: "nothing"}


def convert(table: Mapping[str, Any], cls: type[T], place: ConfigPath, *, label: str = "") -> T:
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


def unknown_key(key: str, known: list[str], place: ConfigPath, label: str = "") -> ConfigError:
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
    table: Any, cls: type[msgspec.Struct], place: ConfigPath, label: str = ""
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


def _fault(value: Any, kind: Any, place: ConfigPath) -> ConfigError | None:
    """Return what is wrong with ``value`` as a ``kind``, innermost first."""
    kind = _stripped(kind, value)
    if get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) in _CONTAINERS:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _fault_of_struct(value, kind, place)
    arguments = get_args(kind)
    if isinstance(value, list) and get_origin(kind) in (list, Sequence):
        found = (_fault(item, arguments[0], place.index(n)) for n, item in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(value, dict) and get_origin(kind) in (dict, Mapping):
        found = (
            _fault(part, argument, place.key(name))
            for name, item in value.items()
            for part, argument in zip((name, item), arguments, strict=True)
        )
        return next(filter(None, found), None)
    return _fault_of_leaf(value, kind, place)


def _fault_of_leaf(value: Any, kind: Any, place: ConfigPath) -> ConfigError | None:
    if _fits(value, kind):
        return None
    parts = get_args(kind) if get_origin(kind) is Union else (kind,)
    if not any(_fits(value, _without_limits(part)) for part in parts):
        shown = kind if len(parts) > 1 else _without_limits(kind)
        return place.error(f"expected {_describe(shown)}, got {kind_of(value)}")
    literals = (part for part in parts if get_origin(part) is Literal)
    choices = [str(choice) for part in literals for choice in get_args(part)]
    near = suggestion(value, choices) if isinstance(value, str) else None
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


def _describe(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return enumerated(map(repr, arguments))
    if origin is Annotated:
        return " ".join(filter(None, [_describe(arguments[0]), *map(_limits, arguments[1:])]))
    if origin in (Union, types.UnionType):
        return enumerated(map(_describe, arguments))
    if origin in (list, Sequence):
        inner = _describe(_without_limits(arguments[0]))
        return "an array" if arguments[0] is Any else f"an array of {inner}"
    if origin in (dict, Mapping) or kind is dict:
        return "a table"
    return _NAMES.get(kind) or str(getattr(kind, "__name__", kind))


def _limits(meta: Any) -> str:
    if meta.extra and "said" in meta.extra:
        return str(meta.extra["said"])
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    limits = {word: getattr(meta, name, None) for name, word in words.items()}
    return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
