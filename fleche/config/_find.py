"""Finding, reading and merging the files of a configuration."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fleche.config._conflicts import check_conflicts
from fleche.config._schema import DefaultTable, Layer, Spec, Stack, parse
from fleche.config._trust import TRUST, distrust
from fleche.config._validate import ConfigPath, convert, kind_of, suggestion, working_directory
from fleche.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ALWAYS",
    "FILENAME",
    "CacheEntry",
    "Config",
    "check_config",
    "find_config_files",
    "load_config",
    "read_toml",
    "tomllib",
    "user_config_file",
]

log = logging.getLogger("fleche.config")

FILENAME = "fleche.toml"
"""What the file of a project is called."""

ALWAYS = ("default", "memory", "void")
"""The names of caches that need no configuration."""


@dataclass(frozen=True)
class CacheEntry:
    """One configured cache.

    Attributes:
        name: what it is called.
        file: where it is declared.
        data: the table or the array, as it was read.
        spec: the same, checked and typed.
    """

    name: str
    file: Path
    data: Any
    spec: Spec


@dataclass(frozen=True)
class Config:
    """Everything that is configured, as seen from one directory.

    Attributes:
        start: the directory.
        files: the files, nearest first.
        tables: the caches by name; of several with one name, the one of the nearest file.
        default: the keys of ``[default]``, each of the nearest file that sets it.
        default_files: which file that is.
        unused: files that do not count, since others can write them, and might say another default
            cache, being nearer than the file that says it.
    """

    start: Path = Path()
    files: tuple[Path, ...] = ()
    tables: Mapping[str, CacheEntry] = field(default_factory=dict)
    default: DefaultTable = field(default_factory=DefaultTable)
    default_files: Mapping[str, Path] = field(default_factory=dict)
    unused: tuple[Path, ...] = ()

    def names(self) -> list[str]:
        """Return the names of all caches that can be loaded, sorted."""
        return sorted({*self.tables, *ALWAYS})

    def place_of_default(self, key: str) -> ConfigPath:
        """Return where ``[default]`` sets ``key``."""
        return _place_in(self.default_files[key]).key("default").key(key)


@dataclass(frozen=True)
class _File:
    path: Path
    default: DefaultTable
    tables: dict[str, Any]


def find_config_files(start: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the files that configure fleche for ``start``, nearest first.

    These are every ``fleche.toml`` from there upward to the home directory, or to the root of the
    file system from outside of it, then ``$XDG_CONFIG_HOME/fleche/cache.toml``. A file that says
    ``root = true`` under ``[default]`` is the last.

    Args:
        start: a directory; the working directory, if not given.

    Raises:
        ConfigError: one of them cannot be read, or is not TOML.
    """
    return [file.path for file in _read_files(_directory(start))]


def load_config(start: str | os.PathLike[str] | None = None) -> Config:
    """Read, check and merge the configuration for ``start``.

    Args:
        start: a directory; the working directory, if not given.

    Raises:
        ConfigError: a file is broken; the message names it and the place in it.
    """
    directory, unused = _directory(start), list[Path]()
    return _merged(directory, _read_files(directory, unused=unused), unused)


def check_config(text: str, path: Path) -> None:
    """Check that a file may say ``text``, beside what else configures the working directory.

    Args:
        text: TOML.
        path: the file, which need not be there; what is there does not matter.

    Raises:
        ConfigError: the text is broken, or contradicts another file; or another one is broken.
    """
    draft = _parsed(path, _parse_toml(path, text))
    _parse_tables(draft)  # a file that says root = true may hide it
    directory = _directory(None)
    _merged(directory, _read_files(directory, draft))


def user_config_file() -> Path:
    """Return the user's own file, ``$XDG_CONFIG_HOME/fleche/cache.toml``, there or not.

    Raises:
        ConfigError: the home directory is not known.
    """
    found = _user_file()
    if found is None:
        raise ConfigError("the home directory is not known; set HOME or XDG_CONFIG_HOME")
    return found


def _merged(directory: Path, found: Iterable[_File], unused: Sequence[Path] = ()) -> Config:
    """Return what files say together; ``unused`` grows while they are read."""
    files: list[_File] = []
    tables: dict[str, CacheEntry] = {}
    default: dict[str, Any] = {}
    default_files: dict[str, Path] = {}
    before: int | None = None
    for file in found:
        files.append(file)
        if before is None and file.default.cache is not msgspec.UNSET:
            before = len(unused)  # those that are found from now on are further away
        for name, table in _parse_tables(file).items():
            tables.setdefault(name, table)
        for key in DefaultTable.__struct_fields__:
            value = getattr(file.default, key)
            if value is not msgspec.UNSET and key not in default:
                default[key], default_files[key] = value, file.path
    check_conflicts(table.spec for table in tables.values())
    return Config(
        start=directory,
        files=tuple(file.path for file in files),
        tables=tables,
        default=DefaultTable(**default),
        default_files=default_files,
        unused=tuple(unused[:before]),
    )


def _directory(start: str | os.PathLike[str] | None) -> Path:
    """The real directory to begin in: links in the way to it do not change what is found.

    A job whose working directory has been removed goes on with the user's own configuration.
    """
    if start is None:
        try:
            return working_directory()
        except ConfigError as error:
            log.warning("%s; %s is not looked for", error, FILENAME)
            return _home() or Path("/")
    path = Path(start).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"{path}: no directory to look for {FILENAME} in")
    return path


def _read_files(
    directory: Path, draft: _File | None = None, unused: list[Path] | None = None
) -> Iterator[_File]:
    """Yield the files that count, nearest first, and note the others.

    Args:
        directory: where to begin.
        draft: counts in place of the file at its path.
        unused: gets those that do not count.
    """
    own = _user_file()
    drafts = {} if draft is None else {draft.path: draft}
    trusted = _own_trust(own, drafts)
    for path in _candidates(directory, own):
        file = drafts.get(path)
        if file is None:
            if not os.path.lexists(path):
                continue
            if not _is_trusted(path, trusted):
                if unused is not None:
                    unused.append(path)
                continue
            file = _read(path)
        if path != own and file.default.trust is not msgspec.UNSET:
            raise (
                _place_in(path)
                .key("default")
                .key("trust")
                .error(f"counts in your own file alone; move it to {own}, or set {TRUST}")
            )
        yield file
        if file.default.root is True:
            return


def _candidates(directory: Path, own: Path | None) -> Iterator[Path]:
    home = _home()
    for folder in (directory, *directory.parents):
        yield folder / FILENAME
        if folder == home:
            break
    if own is not None:
        yield own


def _user_file() -> Path | None:
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured, "fleche", "cache.toml")
    return None if _home() is None else Path.home() / ".config" / "fleche" / "cache.toml"


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except RuntimeError:
        return None


def _is_trusted(path: Path, trusted: Sequence[str]) -> bool:
    """Return whether a file may configure fleche; the log says why one may not."""
    try:
        fault = distrust(path, trusted)
    except OSError:
        return True  # reading it tells what is the matter
    if fault:
        log.log(logging.DEBUG if fault in _told else logging.WARNING, "%s", fault)
        _told.add(fault)
    return not fault


_told: set[str] = set()  # a configuration is read several times


def _own_trust(own: Path | None, drafts: Mapping[Path, _File]) -> list[str]:
    """Return the directories that the user's own file trusts.

    No other file is asked: one that is found on the way could trust itself.
    """
    if own is None:
        return []
    file = drafts.get(own)
    if file is None:
        if not os.path.lexists(own) or not _is_trusted(own, ()):
            return []
        file = _read(own)
    found = file.default.trust
    return [] if found is msgspec.UNSET else [_place_in(own).resolve(each) for each in found]


def _read(path: Path) -> _File:
    return _parsed(path, read_toml(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is no regular file")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: not valid TOML: line {line} is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return _parse_toml(path, text)


def _parsed(path: Path, data: dict[str, Any]) -> _File:
    place = _place_in(path).key("default")
    default = convert(data.pop("default", {}), DefaultTable, place, label="[default]")
    return _File(path, default, data)


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}{_advice(text, error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None


_HEADER = re.compile(r"\s*\[+([^\[\]]+)\]+\s*(?:#.*)?")
_UNQUOTED = re.compile(r"[^=#]*=\s*(?:[^\W\d_]|[\u2018-\u201f`])")


def _advice(text: str, error: Exception) -> str:
    """Return what to do where a usual mistake has been made, or nothing."""
    place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    lines = text.splitlines()
    if place is None or int(place[1]) > len(lines):
        return ""
    line = lines[int(place[1]) - 1]
    if header := _HEADER.fullmatch(line):
        names = [found[1].strip() for found in map(_HEADER.fullmatch, lines) if found]
        if names.count(header[1].strip()) > 1:
            return f"; write [[{header[1].strip()}]] above each layer of a stack, also the first"
    if _UNQUOTED.match(line) and int(place[2]) > line.index("="):
        return '; text stands in straight quotes ("..."), and truth values are true and false'
    return ""


def _parse_tables(file: _File) -> dict[str, CacheEntry]:
    place = _place_in(file.path)
    found = {}
    for name, data in file.tables.items():
        spec = _parse_top(name, data, place.key(name))
        found[name] = CacheEntry(name, file.path, data, spec)
    return found


def _parse_top(name: str, data: Any, place: ConfigPath) -> Layer | Stack:
    if isinstance(data, dict | list):
        return parse(data, place)  # type: ignore[return-value]
    known = DefaultTable.__struct_fields__
    near = name if name in known else suggestion(name, known)
    hint = f", did you mean {near!r} under [default]?" if near else ""
    raise place.error(f"expected a table or an array of tables, got {kind_of(data)}{hint}")


def _place_in(file: Path) -> ConfigPath:
    return ConfigPath(f"{file}: ", file.parent)
