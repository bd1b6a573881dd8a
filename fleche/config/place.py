"""Where in a configuration something stands, and what to say when it is wrong there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from os.path import normpath
from pathlib import Path

from fleche.errors import ConfigError, FlecheError, MissingExtra

__all__ = ["Place", "enumerated", "suggestion", "unknown_name"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Place:
    """A spot in a configuration, printed as ``/home/you/fleche.toml: shared[1].host``.

    Attributes:
        where: the file, and the path inside it.
        base: the directory that relative paths are relative to.
    """

    where: str
    base: Path

    def __str__(self) -> str:
        return self.where.removesuffix(": ")

    def key(self, name: str) -> Place:
        """The value of ``name`` in the table that stands here."""
        shown = name if _BARE.fullmatch(name) else f"{name!r}"
        joint = "" if self.where.endswith(": ") else "."
        return replace(self, where=f"{self.where}{joint}{shown}")

    def index(self, number: int) -> Place:
        """The item ``number`` of the array that stands here."""
        return replace(self, where=f"{self.where}[{number}]")

    def error(self, message: str) -> ConfigError:
        """Return the error that says ``message`` about this place."""
        return ConfigError(f"{self}: {message}")

    def resolve(self, path: str) -> str:
        """Return ``path`` absolute: ``~`` expanded, and relative to the declaring file.

        Raises:
            ConfigError: ``~name`` of nobody that is known here.
        """
        try:
            expanded = Path(path).expanduser()
        except RuntimeError:
            raise self.error(f"no home directory is known for {path!r}") from None
        return normpath(self.base / expanded)

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
