"""Counters of use, and accepted code, as lines in files, one file for each machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import msgspec

from fleche._util import host_name
from fleche.storage._acceptance import Acceptance
from fleche.storage._making import make_directories, make_file, name_first
from fleche.storage._usage import Usage, merge_usage
from fleche.storage.file._files import explained, listed, write_all

__all__ = ["AcceptedFiles", "UsageFiles"]

_SUFFIX = ".jsonl"

_LARGE = 1 << 18
"""From this size on a file is written anew, with one line for each place."""

Row = TypeVar("Row", Usage, Acceptance)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Usage)
_accepted_decoder = msgspec.json.Decoder(Acceptance)


class UsageFiles:
    """Lines that are appended, so that many processes may count at once.

    Counters are no results: a line that cannot be read is passed over, and one that another process
    appends while the file is written anew may be lost.

    Args:
        root: the directory of the storage.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "usage")

    def add(self, rows: Iterable[Usage]) -> None:
        """Append counters.

        Raises:
            StorageError: they could not be stored.
        """
        path = _path_below(self._root)
        with explained("write", path):
            if _append(path, _lines_of(rows)) > _LARGE:
                self._compact(path)

    def read(self) -> Iterator[Usage]:
        """Yield all counters."""
        return _rows_below(self._root, _decoder)

    def name(self) -> str:
        """Return what tells these counters from those of all other directories.

        Raises:
            StorageError: there is none yet, and it could not be stored.
        """
        path = os.path.join(self._root, "name")
        with explained("write", path):
            make_directories(self._root)
            if not os.path.exists(path):
                aside = f"{path}.{uuid4().hex}"
                try:
                    with open(aside, "x", encoding="ascii", opener=make_file) as file:
                        file.write(uuid4().hex)
                    name_first(aside, path)  # whole from the beginning, and the first one stays
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(aside)
            with open(path, encoding="ascii") as file:
                return file.read()

    def _compact(self, path: str) -> None:
        aside = f"{path}.{uuid4().hex}"
        try:
            _append(aside, _lines_of(merge_usage(_rows_of(path, _decoder))))
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise


class AcceptedFiles:
    """Lines that are appended and stay; a line that cannot be read is passed over.

    Args:
        root: the directory of the storage.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "accepted")

    def add(self, rows: Iterable[Acceptance]) -> None:
        """Append what was accepted.

        Raises:
            StorageError: it could not be stored.
        """
        path = _path_below(self._root)
        with explained("write", path):
            _append(path, _lines_of(rows))

    def read(self) -> Iterator[Acceptance]:
        """Yield everything."""
        return _rows_below(self._root, _accepted_decoder)


def _path_below(root: str) -> str:
    """Return the file of this machine in a directory."""
    name = "".join(each if each.isalnum() or each in "-_." else "_" for each in host_name())
    return os.path.join(root, f"{name}{_SUFFIX}")


def _lines_of(rows: Iterable[msgspec.Struct]) -> bytes:
    return b"".join(_encoder.encode(row) + b"\n" for row in rows)


def _rows_below(root: str, decoder: msgspec.json.Decoder[Row]) -> Iterator[Row]:
    for entry in listed(root):
        if entry.name.endswith(_SUFFIX):
            with suppress(OSError):
                yield from _rows_of(entry.path, decoder)


def _append(path: str, lines: bytes) -> int:
    """Append to a file; return its size then."""
    make_directories(os.path.dirname(path))
    descriptor = make_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    try:
        write_all(descriptor, lines)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _rows_of(path: str, decoder: msgspec.json.Decoder[Row]) -> Iterator[Row]:
    with open(path, "rb") as file:
        for line in file:
            with suppress(msgspec.MsgspecError):
                yield decoder.decode(line)
