"""What a remote cache can be told: as types for ``fleche.toml``, and checked for constructors.

The types hold the limits; the functions ask them, so that Python and TOML refuse the same. A value
of the wrong kind is a :class:`TypeError`, an impossible one a :class:`ValueError`; both name the
setting and say what is possible.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from threading import TIMEOUT_MAX
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgspec

__all__ = [
    "Content",
    "Host",
    "Seconds",
    "Text",
    "Variable",
    "WireCodec",
    "as_choice",
    "as_environment",
    "as_flag",
    "as_host",
    "as_seconds",
    "as_text",
    "as_texts",
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
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
WireCodec: TypeAlias = Literal["auto", "none", "zlib", "zstd"]


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
    """Return ``value``, which must be variables and their contents, or ``None`` for none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of str to str, got {type(value).__name__}")
    return {
        as_text(name, variable, Variable): as_text(f"{name}[{variable!r}]", content, Content)
        for variable, content in value.items()
    }


def as_seconds(name: str, value: Any) -> float | None:
    """Return ``value``, which must be seconds.

    Returns:
        Seconds; ``None`` for no limit, which also more of them are than anybody can wait.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected seconds or None, got {type(value).__name__}")
    seconds: Any = value
    (limits,) = get_args(Seconds)[1:]
    if not seconds > limits.gt:
        raise ValueError(f"{name}: expected seconds above {limits.gt}, got {value!r}")
    return None if seconds >= TIMEOUT_MAX else float(seconds)


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
