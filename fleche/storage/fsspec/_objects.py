"""Objects by key below a url: ``url/ab/cdef....value``, the names that files have, too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeAlias

from fleche._util import batched, override
from fleche.errors import CorruptParcel
from fleche.parcel import Buffer, Seen, Source
from fleche.storage._base import KEY, REST, SHARD, TEMPORARY
from fleche.storage.fsspec._filesystem import (
    Connection,
    explained,
    failure,
    is_absent,
    is_empty_range,
)

__all__ = ["BLOCK", "Fetch", "Found", "ObjectSource", "Objects", "modified_of"]

_HEX = "0123456789abcdef"
_PREFIX = frozenset(_HEX + ".")
_LISTINGS_ABREAST = 4
_LITTLE = 4000  # fewer objects than that are listed one page after the other
_PROBES = 256  # objects of which it is asked at once whether they are there
_REMOVED = 1000  # that many keys are in one request of S3
_ATTEMPTS = 100  # to list a directory from which others remove
_AGES = ("LastModified", "mtime", "last_modified", "modified", "updated", "created")


class Found(NamedTuple):
    """An object: its key, its size in bytes, and when it was modified (since the epoch).

    ``tag`` changes with its content; empty where the filesystem has no such thing.
    """

    key: str
    size: int
    modified: float
    tag: str = ""


class Objects:
    """The objects below a url whose names end in ``suffix``: reading, listing, removing.

    Args:
        connection: the filesystem and the path on it.
        suffix: tells these objects from others below the same url.
    """

    def __init__(self, connection: Connection, suffix: str) -> None:
        self.connection = connection
        self._suffix = suffix
        self._size: int | None = None  # about how many there are, once that was seen

    def path(self, key: str) -> str:
        """Return the path of the object of ``key`` on the filesystem.

        Raises:
            ValueError: ``key`` is not complete; no object has such a name.
        """
        return f"{self.connection.root}/{self._tail(key)}"

    def place(self, key: str) -> str:
        """Return the path without the suffix; what else begins so belongs to the same object."""
        return self.path(key).removesuffix(self._suffix)

    def name(self, key: str) -> str:
        """Return the url of the object, for messages."""
        return f"{self.connection.name}/{self._tail(key)}"

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of ranges of one object, fewer where it ends, all asked for at once.

        Raises:
            KeyError: there is no such object.
            StorageError: it could not be read.
        """
        found = self._cat([self.path(key)] * len(ranges), ranges)
        return [
            self._bytes(key, data, at_start=begin == 0)
            for (begin, _), data in zip(ranges, found, strict=True)
        ]

    def read_many(self, keys: Iterable[str], end: int) -> Iterator[tuple[str, bytes]]:
        """Yield the first ``end`` bytes of those that are there, all asked for at once."""
        wanted = [key for key in keys if KEY.fullmatch(key)]
        ranges = [(0, end)] * len(wanted)
        found = self._cat([self.path(key) for key in wanted], ranges) if wanted else []
        for key, data in zip(wanted, found, strict=True):
            with suppress(KeyError):
                yield key, self._bytes(key, data, at_start=True)

    def contains(self, key: str) -> bool:
        """Return whether the object is there; an empty one is not."""
        return bool(self.present([key]))

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have an object; an empty one, of no byte, is none."""
        found: set[str] = set()
        for batch in batched(dict.fromkeys(keys), _PROBES):
            found.update(key for key, data in self.read_many(batch, 1) if data)
        return found

    def find(self, key: str) -> Found:
        """Return the size and age of an object.

        Raises:
            KeyError: there is none.
            StorageError: the store does not tell.
        """
        if not KEY.fullmatch(key):
            raise KeyError(key)
        path, name = self.path(key), self.name(key)
        with explained("read", name, key):
            self.connection.fs.invalidate_cache(path.rpartition("/")[0])
            try:
                info = self.connection.fs.info(path)
            except KeyError:  # memory:// where the entry vanishes meanwhile
                raise FileNotFoundError(path) from None
        if info.get("type") != "file" or not info["size"]:
            raise KeyError(key)
        return Found(key, info["size"], self.modified(info))

    def latest(self, modified: float) -> float:
        """Return the latest moment that ``modified`` may stand for."""
        return modified + 1 if self.connection.traits.whole_seconds else modified

    def remove(self, key: str) -> None:
        """Remove the object if it exists."""
        if KEY.fullmatch(key):
            with suppress(KeyError), explained("remove", self.name(key), key):
                self.connection.fs.rm_file(self.path(key))

    def remove_many(self, keys: Iterable[str]) -> None:
        """Remove the objects that exist, many in one request where the filesystem can do that."""
        for batch in batched((key for key in keys if KEY.fullmatch(key)), _REMOVED):
            if len(batch) == 1 or not self.connection.is_async or not self._remove_all(batch):
                for key in batch:
                    self.remove(key)

    def _remove_all(self, keys: Sequence[str]) -> bool:
        """Remove objects at once; return whether the filesystem has come to all of them."""
        with explained("remove", self.connection.name):
            try:
                self.connection.fs.rm([self.path(key) for key in keys])
            except FileNotFoundError:
                return False
        return True

    def rename(self, source: str, target: str) -> None:
        """Give the object at the path ``source`` the name ``target``."""
        fs = self.connection.fs
        if getattr(fs, "local_file", False):  # mv() may copy, of which others see the half
            os.replace(source, target)
        else:
            fs.mv(source, target)

    def listed(self, prefix: str = "") -> Iterator[Found]:
        """Yield the objects whose keys begin with ``prefix``, with size and age."""
        for info in self.infos(prefix):
            found = self.found(info)
            if found is not None and found.key.startswith(prefix):
                yield found

    def found(self, info: Mapping[str, Any]) -> Found | None:
        """Return the object that ``info`` tells of; none if it is another's, or empty."""
        head, _, name = str(info["name"]).rpartition("/")
        shard, rest = head.rpartition("/")[2], name.removesuffix(self._suffix)
        ours = rest != name and SHARD.fullmatch(shard) and REST.fullmatch(rest)
        if not ours or not info["size"]:
            return None
        tag = str(info.get("ETag") or "").strip('"')
        return Found(shard + rest, info["size"], self.modified(info), tag)

    def is_temporary(self, path: str) -> bool:
        """Return whether a path is that of a file which a writer of these objects fills."""
        name = path.rpartition("/")[2]
        rest = name.partition(self._suffix)[0]
        return name.endswith(TEMPORARY) and rest != name and bool(REST.fullmatch(rest))

    def infos(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """Yield what the filesystem tells of everything that may begin with ``prefix``."""
        if not _PREFIX.issuperset(prefix):
            return iter(())
        if not self.connection.traits.narrows:
            return self._in_shards(prefix)
        if prefix:
            return iter(self._narrowed(prefix))
        return self._by_digits()

    def _by_digits(self) -> Iterator[Mapping[str, Any]]:
        """List a sixteenth at a time, unless there is little; digests begin evenly."""
        if self._size is None:
            self._size = len(self._narrowed(_HEX[0])) * len(_HEX)
        if self._size < _LITTLE:
            everything = self._narrowed("")
            self._size = len(everything)
            yield from everything
            return
        with ThreadPoolExecutor(_LISTINGS_ABREAST, "fleche-listing") as pool:
            for start in range(0, len(_HEX), _LISTINGS_ABREAST):
                digits = _HEX[start : start + _LISTINGS_ABREAST]
                for found in list(pool.map(self._narrowed, digits)):
                    yield from found

    def _narrowed(self, prefix: str) -> list[Mapping[str, Any]]:
        if len(prefix) > 1:
            return self.infos_in(prefix[:2], prefix[2:])
        return self.infos_in("", prefix)

    def infos_in(self, directory: str, prefix: str) -> list[Mapping[str, Any]]:
        """Return what the filesystem tells of all below ``directory`` that begins with ``prefix``.

        Only for filesystems that can narrow a listing.
        """
        fs, root = self.connection.fs, self.connection.root
        with explained("list", self.connection.name):
            try:
                path = f"{root}/{directory}" if directory else root
                return list(fs.find(path, prefix=prefix, detail=True).values())
            except FileNotFoundError as error:
                if is_absent(error):
                    return []
                raise

    def _in_shards(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        root = self.connection.root
        if len(prefix) > 1:
            yield from self.ls(f"{root}/{prefix[:2]}")
            return
        for info in self.ls(root):
            shard = str(info["name"]).rstrip("/").rpartition("/")[2]
            if SHARD.fullmatch(shard) and shard.startswith(prefix):
                yield from self.ls(f"{root}/{shard}")

    def ls(self, path: str) -> list[Mapping[str, Any]]:
        """Return what the filesystem tells of all in a directory, as it is now."""
        fs = self.connection.fs
        with explained("list", self.connection.name):
            for _ in range(_ATTEMPTS):
                try:
                    fs.invalidate_cache(path)
                    return list(fs.ls(path, detail=True))
                except FileNotFoundError:
                    if self._is_gone(path):
                        return []
                except KeyError:  # memory:// where an entry vanishes meanwhile
                    continue
            raise TimeoutError("the directory changes faster than it can be listed")

    def _is_gone(self, path: str) -> bool:
        """Return whether there is no such directory; or only something in it vanished meanwhile."""
        try:
            self.connection.fs.info(path)
        except FileNotFoundError:
            return True
        return False

    def _cat(self, paths: list[str], ranges: Sequence[tuple[int, int]]) -> list[Any]:
        """Return bytes, or the exception, for each path and range."""
        begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
        with explained("read", self.connection.name):
            if len(paths) > 1:
                found = self.connection.fs.cat_ranges(paths, begins, ends, on_error="return")
                return list(found)
            try:
                return [self.connection.fs.cat_file(paths[0], start=begins[0], end=ends[0])]
            except Exception as error:  # noqa: BLE001 - the caller explains it
                return [error]

    def _bytes(self, key: str, found: Any, *, at_start: bool) -> bytes:
        if not isinstance(found, BaseException):
            return bytes(found)
        if is_absent(found):
            raise KeyError(key)
        if at_start and is_empty_range(found):
            self.find(key)  # a KeyError, for an empty object
        raise failure("read", self.name(key), found) from found

    def modified(self, info: Mapping[str, Any]) -> float:
        """Return when an object was modified; in whole seconds if the store counts so at times."""
        modified = modified_of(info)
        return float(int(modified)) if self.connection.traits.whole_seconds else modified

    def _tail(self, key: str) -> str:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is no complete key")
        return f"{key[:2]}/{key[2:]}{self._suffix}"


def modified_of(info: Mapping[str, Any]) -> float:
    """Return when an object was modified, in seconds since the epoch.

    Filesystems agree neither on the name of this nor on its type. Where one does not tell, the
    object counts as new, so that it is never taken for old.
    """
    for name in _AGES:
        value = info.get(name)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            return aware.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return time.time()


# -- the bytes of a large object -------------------------------------------------------------------

BLOCK = 8 << 20
"""Bytes of one request."""

_ABREAST = 4

Fetch: TypeAlias = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""Returns the bytes of each range (begin, end), all asked for at once."""


class ObjectSource(Source):
    """An object whose beginning is in memory already, and the rest at the other end of a network.

    No more than a few blocks are in memory at a time, besides what :meth:`take` returns. Nothing is
    open between two requests, so that an object which is removed meanwhile is a :class:`KeyError`.

    Args:
        name: the url, for error messages.
        size: of the whole object, in bytes.
        begun: its first bytes.
        fetch: gets ranges of it.
    """

    mapped = False

    def __init__(self, name: str, size: int, begun: bytes, fetch: Fetch) -> None:
        self.name = name
        self.size = size
        self._begun = memoryview(begun)
        self._fetch: Fetch | None = fetch

    @override
    def read(self, offset: int, size: int) -> Buffer:
        if offset + size <= len(self._begun):
            return self._begun[offset : offset + size]
        return self.take(offset, size)

    @override
    def take(self, offset: int, size: int, seen: Seen | None = None) -> Buffer:
        """Return the same in fresh memory, fetched in several requests at once."""
        memory = bytearray(max(0, min(size, self.size - offset)))
        position = 0
        for piece in self._pieces(offset, offset + len(memory)):
            if seen:
                seen(piece)
            memory[position : position + len(piece)] = piece
            position += len(piece)
        return memory

    @override
    def chunks(self, size: int) -> Iterator[Buffer]:
        for piece in self._pieces(0, self.size):
            for start in range(0, len(piece), size):
                yield piece[start : start + size]

    @override
    def opened(self) -> None:
        self.close()

    @override
    def close(self) -> None:
        """Fetch no more. Idempotent."""
        self._fetch = None
        self._begun = memoryview(b"")

    def _pieces(self, begin: int, end: int) -> Iterator[memoryview]:
        if self._fetch is None:
            raise ValueError(f"{self.name}: this parcel was closed")
        held = self._begun[begin:end]
        if held:
            yield held
        blocks = [
            (start, min(start + BLOCK, end)) for start in range(begin + len(held), end, BLOCK)
        ]
        for first in range(0, len(blocks), _ABREAST):
            yield from self._fetched(blocks[first : first + _ABREAST])

    def _fetched(self, ranges: list[tuple[int, int]]) -> Iterator[memoryview]:
        if self._fetch is None:
            raise ValueError(f"{self.name}: this parcel was closed")
        for (begin, end), data in zip(ranges, self._fetch(ranges), strict=True):
            if len(data) != end - begin:
                raise CorruptParcel(
                    f"{self.name}: ends after {begin + len(data)} of {self.size} bytes"
                )
            yield memoryview(data)
