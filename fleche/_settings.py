"""The types of options of remote caches, with their limits, and what checks values against them.

``fleche.toml`` is checked against the types by msgspec, arguments of constructors by the functions,
which read the same limits. A value of the wrong kind is a :class:`TypeError`, an impossible one a
:class:`ValueError`; both name the option and say what is possible.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from math import inf
from numbers import Real
from threading import TIMEOUT_MAX
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

__all__ = [
    "Content",
    "Host",
    "Seconds",
    "Text",
    "Variable",
    "WireCodec",
    "Words",
    "as_environment",
    "as_host",
    "as_text",
    "as_texts",
    "checked",
    "maybe_text",
]

T = TypeVar("T")


def _limited(pattern: str, said: str) -> msgspec.Meta:
    """Limit a text; ``said`` follows the word for its type where it is asked for."""
    return msgspec.Meta(pattern=pattern, extra={"said": said})


Text: TypeAlias = Annotated[str, _limited(r"\A[^\0]+\Z", "that is not empty, without NUL")]
Content: TypeAlias = Annotated[str, _limited(r"\A[^\0]*\Z", "without NUL")]
Variable: TypeAlias = Annotated[
    str, _limited(r"\A[^=\0]+\Z", "that names a variable: not empty, without '=' and NUL")
]
Host: TypeAlias = Annotated[
    str,
    _limited(
        r"\A[^-\0][^\0]*\Z",
        "that is a host or user@host: not empty, no '-' at its beginning, without NUL",
    ),
]
Words: TypeAlias = Annotated[Sequence[Text], msgspec.Meta(extra={"split": str.split})]
"""Words of a command; a text in their place was meant to be split."""
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
WireCodec: TypeAlias = Literal["auto", "none", "zlib", "zstd"]


def checked(name: str, value: Any, kind: Any) -> Any:
    """Return the value of an option in its usual form.

    Args:
        name: what the option is called.
        value: what was given.
        kind: the type of the option: one of those above, a sequence of texts, a mapping of
            variables to contents, a choice, bool, or any of these or ``None``.

    Raises:
        TypeError: the value is of the wrong kind.
        ValueError: the value is impossible.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (kind,) = (each for each in arguments if each is not types.NoneType)
        return None if value is None else checked(name, value, kind)
    if kind is bool:
        return as_flag(name, value)
    if origin is Literal:
        return as_choice(name, value, kind)
    if kind == Seconds:
        return as_seconds(name, value)
    if kind == Words:
        return as_texts(name, value, split=str.split)
    if origin is Sequence:
        return as_texts(name, value)
    if origin is Mapping and arguments == (Variable, Content):
        return as_environment(name, value)
    return as_text(name, value, kind) if origin is Annotated else value


def as_text(name: str, value: Any, kind: Any = Text) -> str:
    """Return ``value``, which must be a ``kind`` of text; a path counts as its text."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected str, got {type(text).__name__}")
    (limits,) = get_args(kind)[1:]
    if not re.search(limits.pattern, text):
        raise ValueError(f"{name}: expected str {limits.extra['said']}, got {text!r}")
    return text


def as_host(name: str, value: Any) -> str:
    """Return ``value``, which must be what ssh takes for a host, and not for an option."""
    return as_text(name, value, Host)


def maybe_text(name: str, value: Any) -> str | None:
    """Return ``value``, which must be a text, or ``None``, which is what was not given."""
    return None if value is None else as_text(name, value)


def as_texts(
    name: str, value: Any, split: Callable[[str], list[str]] = lambda text: [text]
) -> tuple[str, ...]:
    """Return ``value``, which must be a sequence of texts.

    Args:
        name: what it is called.
        value: the sequence. A single text is none: it would fall apart into its characters.
        split: makes of such a text what was probably meant.
    """
    if isinstance(value, str):
        meant = f" such as {split(value)!r}" if value else ""
        raise TypeError(f"{name}: expected a sequence of str{meant}, got {value!r}")
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a sequence of str, got {type(value).__name__}")
    return tuple(as_text(f"{name}[{number}]", item) for number, item in enumerate(value))


def as_environment(name: str, value: Any) -> dict[str, str]:
    """Return ``value``, which must be variables and their contents; ``None`` is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of str to str, got {type(value).__name__}")
    return {
        as_text(name, variable, Variable): as_text(f"{name}[{variable!r}]", content, Content)
        for variable, content in value.items()
    }


def as_seconds(name: str, value: Any) -> float:
    """Return ``value``, which must be seconds; infinity if no clock can count so many."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected seconds or None, got {type(value).__name__}")
    seconds: Any = value
    (limits,) = get_args(Seconds)[1:]
    if not seconds > limits.gt:
        raise ValueError(f"{name}: expected seconds above {limits.gt}, got {value!r}")
    return inf if seconds >= TIMEOUT_MAX else float(seconds)


def as_choice(name: str, value: T, choices: Any) -> T:
    """Return ``value``, which must be one of the literal ``choices``."""
    if value not in get_args(choices):
        raise ValueError(
            f"{name}: expected {', '.join(map(repr, get_args(choices)))}, got {value!r}"
        )
    return value


def as_flag(name: str, value: Any) -> bool:
    """Return ``value``, which must be true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected bool, got {type(value).__name__}")
    return value
