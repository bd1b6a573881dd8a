"""Counters of use as lines in files, one file for each machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from uuid import uuid4

import msgspec

from fleche._util import host_name
from fleche.storage._usage import Usage, merge_usage
from fleche.storage.file._files import explained, listed, write_all

__all__ = ["UsageFiles"]

_DIRECTORY = "usage"
_SUFFIX = ".jsonl"

_LARGE = 1 << 18
"""From this size on a file is written anew, with one line for each place."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Usage)


class UsageFiles:
    """Lines that are appended, so that many processes may count at once.

    Counters are no results: a line that cannot be read is passed over, and one that another process
    appends while the file is written anew may be lost.

    Args:
        root: the directory of the storage.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, _DIRECTORY)

    def add(self, rows: Iterable[Usage]) -> None:
        """Append counters.

        Raises:
            StorageError: they could not be stored.
        """
        lines = b"".join(_encoder.encode(row) + b"\n" for row in rows)
        name = "".join(each if each.isalnum() or each in "-_." else "_" for each in host_name())
        path = os.path.join(self._root, f"{name}{_SUFFIX}")
        with explained("write", path):
            os.makedirs(self._root, exist_ok=True)
            if _append(path, lines) > _LARGE:
                self._compact(path)

    def read(self) -> Iterator[Usage]:
        """Yield all counters."""
        for entry in listed(self._root):
            if entry.name.endswith(_SUFFIX):
                with suppress(OSError):
                    yield from _rows_of(entry.path)

    def _compact(self, path: str) -> None:
        aside = f"{path}.{uuid4().hex}"
        os.rename(path, aside)
        rows = merge_usage(_rows_of(aside))
        _append(path, b"".join(_encoder.encode(row) + b"\n" for row in rows))
        os.unlink(aside)


def _append(path: str, lines: bytes) -> int:
    """Append to a file; return its size then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, lines)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _rows_of(path: str) -> Iterator[Usage]:
    with open(path, "rb") as file:
        for line in file:
            with suppress(msgspec.MsgspecError):
                yield _decoder.decode(line)
