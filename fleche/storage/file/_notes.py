"""Counters of use, and accepted code, as lines in files, one file for each machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import msgspec

from fleche._util import host_name, override
from fleche.storage._base import CallStorage
from fleche.storage._making import make_directories, make_file, write_first
from fleche.storage._notes import Acceptance, Usage, merge_usage
from fleche.storage.file._files import Files, explained, listed, write_all

__all__ = ["NotesInFiles"]

_SUFFIX = ".jsonl"

_LARGE = 1 << 18
"""From this size on a file is written anew, with one line for each place."""

Row = TypeVar("Row", Usage, Acceptance)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Usage)
_accepted_decoder = msgspec.json.Decoder(Acceptance)


class NotesInFiles(CallStorage):
    """Lines that are appended, so that many processes may write at once.

    A line that cannot be read is passed over. Counters are no results: one that another process
    appends while the file is written anew may be lost.
    """

    _files: Files

    @override
    def note_usage(self, rows: Iterable[Usage]) -> None:
        path = _path_below(self._directory("usage"))
        with explained("write", path):
            if _append(path, _lines_of(rows)) > _LARGE:
                _compact(path)

    @override
    def usage(self) -> Iterator[Usage]:
        return _rows_below(self._directory("usage"), _decoder)

    @override
    def usage_name(self) -> str:
        path = os.path.join(self._directory("usage"), "name")
        with explained("write", path):
            make_directories(os.path.dirname(path))
            if not os.path.exists(path):
                write_first(path, uuid4().hex.encode())
            with open(path, encoding="ascii") as file:
                return file.read()

    @override
    def note_accepted(self, rows: Iterable[Acceptance]) -> None:
        path = _path_below(self._directory("accepted"))
        with explained("write", path):
            _append(path, _lines_of(rows))

    @override
    def accepted(self) -> Iterator[Acceptance]:
        return _rows_below(self._directory("accepted"), _accepted_decoder)

    def _directory(self, name: str) -> str:
        return os.path.join(self._files.root, name)


def _compact(path: str) -> None:
    aside = f"{path}.{uuid4().hex}"
    try:
        _append(aside, _lines_of(merge_usage(_rows_of(path, _decoder))))
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise


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
