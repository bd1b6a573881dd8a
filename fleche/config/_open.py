"""A cache by what a person calls it: its name, its directory, a file or a line of configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fleche._util import expand_path
from fleche.caches import BaseCache
from fleche.config._build import cache_from_config, load_cache_config
from fleche.config._find import FILENAME, load_config, read_toml, tomllib
from fleche.config._validate import suggestion
from fleche.errors import ConfigError

__all__ = ["open"]


def open(
    which: str | os.PathLike[str] | None = None,
    *,
    start: str | os.PathLike[str] | None = None,
    make: bool = True,
    **options: Any,
) -> BaseCache:
    """Return the cache that ``which`` means, new with every call.

    It is, in this order, the name of a configured cache; a line of configuration
    (``{type = "ssh", host = "me@bigpc"}``, in TOML or JSON); a file of configuration, whose default
    cache is meant (``team.toml``), or another one of it (``team.toml:results``); or a directory:
    one that holds a cache, one that holds a ``fleche.toml``, whose default cache is meant, or a new
    one, which is made when the first call is stored.

    It is not active by itself: ``with fleche.cache(fleche.open("results")): ...``. To look into it,
    that is not needed: ``fleche.open("results").table()``.

    Args:
        which: what is asked for; the default cache, if not given. A :class:`~pathlib.Path` is never
            a name.
        start: the directory to look for ``fleche.toml`` from; the working directory, if not given.
        make: a directory that is empty, or not there, is a new cache.
        options: those of :class:`fleche.caches.Local`, for a directory.

    Raises:
        ConfigError: there is no such cache, a new directory would have nearly the name of one that
            is configured, or something is wrong with a configuration.
        StorageError: the directory cannot be used.
        TypeError: an option is unknown, or of the wrong type.
    """
    if options:
        from fleche.caches import Local

        if which is None:
            raise TypeError("open(): options are those of a cache in a directory; name one")
        return Local(which, **options)
    if which is None:
        return load_cache_config(None, start=start)
    text = os.fspath(which)
    is_text = isinstance(which, str)
    if not text:
        raise ConfigError("an empty text names no cache; open() without one is the default cache")
    if is_text and text in load_config(start).names():
        return load_cache_config(text, start=start)
    if is_text and text[:1] in "{[":
        return cache_from_config(_parsed_line(text), where="the line of configuration")
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".toml"):
        return _from_file(expand_path(file), name)
    if text.endswith(".toml"):
        return _from_file(expand_path(text), None)
    path = expand_path(text)
    _check_spelling(which, path, start)
    if make or not is_text or os.sep in text or path.is_dir() or text in (".", "..", "~"):
        return _from_directory(path.absolute(), make=make)
    return load_cache_config(text, start=start)  # says which names there are


def _check_spelling(which: object, path: Path, start: str | os.PathLike[str] | None) -> None:
    """Refuse what would be a new directory, and is nearly the name of a cache."""
    if not isinstance(which, str) or os.sep in which or path.exists():
        return
    near = suggestion(which, load_config(start).names())
    if near:
        raise ConfigError(
            f"no cache is named {which!r}, did you mean {near!r}? A new directory of that name is "
            f"fleche.open({f'./{which}'!r})"
        )


def _parsed_line(text: str) -> Any:
    try:
        return tomllib.loads(f"cache = {text}")["cache"]
    except tomllib.TOMLDecodeError as error:
        import json

        try:
            return json.loads(text)
        except ValueError:
            raise ConfigError(f"{text}: neither TOML nor JSON: {error}") from None


def _from_file(path: Path, name: str | None) -> BaseCache:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if path.name == FILENAME:
        return load_cache_config(name, start=path.absolute().parent)
    tables = read_toml(path)
    default = tables.pop("default", {})
    wanted = name or (default.get("cache") if isinstance(default, dict) else None)
    if wanted is None and len(tables) == 1:
        wanted = next(iter(tables))
    if wanted not in tables:
        which = f"no cache is named {wanted!r}" if wanted else "which cache is not said"
        known = ", ".join(tables) or "none"
        raise ConfigError(f"{path}: {which}; say it with {path}:NAME (there are: {known})")
    return cache_from_config(tables[wanted], base=path.parent, where=f"{path}: {wanted}")


def _is_new(path: Path) -> bool:
    """Return whether a cache may be made there, or is being made this moment by another process."""
    if not path.is_dir():
        return not path.exists()
    return all(each.name.startswith((".", "layout")) for each in path.iterdir())


def _from_directory(path: Path, *, make: bool) -> BaseCache:
    # a copy may lack the former
    if any((path / name).is_file() for name in ("layout", "fleche.db")):
        return cache_from_config({"type": "local", "root": str(path)})
    for name, template in (("calls.db", "sql"), ("calls", "cloudpickle")):
        if (path / name).exists():
            return cache_from_config({"template": template, "root": str(path)})
    if (path / FILENAME).is_file():
        return load_cache_config(start=path)
    if make and _is_new(path):
        return cache_from_config({"type": "local", "root": str(path)})
    what = f"holds no cache and no {FILENAME}" if path.exists() else "there is no such directory"
    if make and path.is_dir():
        what += ", and other files; name a new directory, or an empty one"
    raise ConfigError(f"{path}: {what}")
