"""SQLite: one file, to which many threads and processes write, or which may only be looked at.

On a local file system SQLite keeps a write-ahead log beside the file, so that readers and a writer
do not wait for each other. Whoever may not write beside the file can read it in two ways: with the
log, while somebody writes who keeps it; and as it is, with no regard for anybody, while nobody
does. Which of the two it is must be asked each time, and a look at the file as it is counts only if
the file is still the same afterwards.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from fleche.errors import StorageError
from fleche.storage.sql.urls import as_it_is

__all__ = ["Disturbed", "engine_of", "is_local", "undisturbed", "until_undisturbed"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for others who write."""

_ATTEMPTS = 20
_VISIT = "fleche visit"
_LOGGING = b"\2"
_LOGGING_AT = 18  # where the header of a file says whether it has a log

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "9p",
    "fuse.",
    "glusterfs",
)


class Disturbed(StorageError):
    """Somebody has written to a file while it was looked at as it is, and the look was in vain."""


def is_local(path: Path) -> bool:
    """Tell whether ``path`` is on a file system of this machine, as far as that can be known."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    kinds = {}
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[place.replace("\\040", " ")] = kind
    for parent in (path, *path.parents):
        if str(parent) in kinds:
            return not kinds[str(parent)].startswith(_NETWORK)
    return True


def engine_of(url: sa.URL, *, in_memory: bool) -> sa.Engine:
    """Return what makes connections to an SQLite database.

    Transactions that write say so when they begin (``BEGIN IMMEDIATE``) and wait for each other.
    """
    arguments: dict[str, Any] = {"check_same_thread": False}
    if "timeout" not in url.query:
        arguments["timeout"] = _PATIENCE
    path = Path(url.database or "")
    wal = False
    if in_memory:
        pool: dict[str, Any] = {"poolclass": sa.StaticPool}
    elif path.exists() and not _may_write_beside(path):
        pool = {"poolclass": sa.NullPool}
    else:
        pool = {"poolclass": sa.QueuePool, "max_overflow": -1}
        if not str(path).startswith("file:"):
            path.parent.mkdir(parents=True, exist_ok=True)
            wal = is_local(path.parent.resolve())
    engine = sa.create_engine(url, connect_args=arguments, **pool)
    if pool["poolclass"] is sa.NullPool:
        _look_each_time(engine, path)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not behind our back
        connection.text_factory = _as_text
        connection.execute("PRAGMA foreign_keys = ON")
        if wal:
            _use_wal(connection)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("fleche_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _as_text(data: bytes) -> str:
    """Return a text even if it is damaged: no fault of the other rows that are read with it."""
    return data.decode("utf-8", "replace")


# -- a file that is somebody else's ----------------------------------------------------------------


def _may_write_beside(path: Path) -> bool:
    ours = os.access in os.supports_effective_ids
    return os.access(path.parent, os.W_OK, effective_ids=ours)


class _Visit(NamedTuple):
    """How a file was when it was opened; ``stamp`` is that of a file at rest."""

    path: Path
    stamp: tuple[int, ...] | None

    @classmethod
    def begin(cls, path: Path) -> _Visit:
        return cls(path, None if _is_written_to(path) else _stamp(path))

    def was_in_vain(self, *, failed: bool) -> bool:
        """Tell whether somebody has come meanwhile, or gone with the log."""
        if self.stamp is None:
            return failed and not _is_written_to(self.path)
        return _stamp(self.path) != self.stamp


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_written_to(path: Path) -> bool:
    """Tell whether the file has a log just now, or is of a kind that never has one."""
    if path.with_name(f"{path.name}-wal").exists():
        return True
    with path.open("rb") as file:
        file.seek(_LOGGING_AT)
        return file.read(1) != _LOGGING


def _look_each_time(engine: sa.Engine, path: Path) -> None:
    """Open the file as it is whenever nobody has it open to write."""

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, _: Any, options: dict[str, Any]) -> Any:
        visit = _Visit.begin(path)
        record.info[_VISIT] = visit
        if visit.stamp is None:
            return None
        place, more = dialect.create_connect_args(as_it_is(engine.url, path))
        return dialect.connect(*place, **{**options, **more})


@contextmanager
def undisturbed(connection: sa.Connection, shown: str) -> Iterator[None]:
    """Make sure that what is read in this block is right, whatever else may be wrong with it.

    Args:
        connection: to the database.
        shown: the database, for error messages.

    Raises:
        Disturbed: it may not be; open the database once more.
    """
    visit: _Visit | None = connection.info.get(_VISIT)
    failed = True
    try:
        yield
        failed = False
    finally:
        if visit is not None and visit.was_in_vain(failed=failed):
            raise Disturbed(f"{shown}: cannot read: somebody writes to it (try again)")


def until_undisturbed(look: Callable[[], T]) -> T:
    """Return what ``look`` returns, which is called again as long as it is disturbed.

    Raises:
        Disturbed: it always is.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return look()
        except Disturbed:
            continue
    return look()


# -- the log ---------------------------------------------------------------------------------------


def _use_wal(connection: Any) -> None:
    """Keep a write-ahead log, so that readers and a writer do not wait for each other.

    Where that cannot be (a read-only file, perhaps), the journal that is there does as well.
    """
    deadline = time.monotonic() + _PATIENCE
    while (mode := _try_wal(connection)) == "locked" and time.monotonic() < deadline:
        time.sleep(0.02)
    if mode == "wal":
        connection.execute("PRAGMA synchronous = NORMAL")


def _try_wal(connection: Any) -> str:
    try:
        return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    except sqlite3.OperationalError as error:
        return "locked" if "locked" in str(error) else ""
