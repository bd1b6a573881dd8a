"""Many calls in one file: to send by mail, to put beside a paper.

The file is a zip archive. ``fleche.json`` says what it is; everything else is a cache in files, as
``template = "cloudpickle"`` keeps it: entries below ``calls``, large values below ``values``, each
with its checksum. So an archive that is unpacked is a cache.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from fleche._amounts import count
from fleche._columns import printable
from fleche._util import __version__
from fleche.caches import BaseCache, Cache, Progress
from fleche.call import LazyCall, QueryCall
from fleche.errors import CorruptParcel
from fleche.parcel import explained

__all__ = ["Archive", "OpenArchive", "export_calls", "import_calls", "open_export"]

log = logging.getLogger("fleche.exchange")

_HEAD = "fleche.json"
_FORMAT = 1
_PARTS = ("calls", "values")


class Archive(msgspec.Struct, frozen=True):
    """What an archive says of itself.

    Attributes:
        format: version of the layout.
        calls: how many it holds.
        fleche: the version that wrote it.
        written: when, in ISO 8601, UTC.
    """

    format: int = _FORMAT
    calls: int = 0
    fleche: str = ""
    written: str = ""


class OpenArchive(Archive, frozen=True):
    """What an archive that has been opened says of itself, and what of that is there.

    Attributes:
        lost: how many of its calls cannot be read.
    """

    lost: int = 0


def export_calls(
    source: BaseCache,
    path: str | os.PathLike[str],
    calls: QueryCall | Iterable[LazyCall] | None = None,
    *,
    progress: Progress | None = None,
) -> int:
    """Write calls with all their values to one file; an existing one is replaced when it is whole.

    Args:
        source: has the calls.
        path: the file.
        calls: which of them, as for ``source.transfer``; all, if not given.
        progress: called with the number of calls copied so far.

    Returns:
        How many there are in the file.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path).absolute()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as place:
        with _cache_in(Path(place), source.packing.keys) as cache:
            number = source.transfer(cache, calls, progress=progress)
        temporary = Path(place, "archive.zip")
        _pack(Path(place), temporary, number)
        temporary.replace(target)
    return number


def import_calls(
    path: str | os.PathLike[str],
    target: BaseCache,
    calls: QueryCall | None = None,
    *,
    progress: Progress | None = None,
) -> int:
    """Copy the calls of a file that :func:`export_calls` wrote to ``target``.

    What is damaged in the file is left out, counted and logged; the rest is copied.

    Args:
        path: the file.
        target: any cache.
        calls: which of them; all, if not given.
        progress: called with the number of calls copied so far.

    Returns:
        How many were not in ``target`` before, or not with all their values.

    Raises:
        CorruptParcel: the file is none of these, or too damaged to be read.
        Rejected: ``target`` is read-only.
        OSError: the file cannot be read.
    """
    target.check_writable("import")
    with open_export(path, target.packing.keys) as (_, cache):
        return cache.transfer(target, calls, progress=progress)


@contextmanager
def open_export(
    path: str | os.PathLike[str], keys: Sequence[bytes] = ()
) -> Iterator[tuple[OpenArchive, BaseCache]]:
    """Open a file that :func:`export_calls` wrote as a cache, which is read-only.

    It is unpacked into a temporary directory, which is there for the time of the block. What is
    damaged in it is left out and logged, and so is how many calls that are: fewer can be read then
    than it says that it holds.

    Args:
        path: the file.
        keys: one of these secrets must have signed what is read; without any, those of
            ``FLECHE_SECRET_KEY`` count.

    Raises:
        CorruptParcel: the file is none of these, or too damaged to be read.
        OSError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="fleche-import-") as place:
        head = _unpack(Path(path), Path(place))
        with _cache_in(Path(place), keys) as cache:
            lost = max(head.calls - cache.stats().calls, 0)
            if lost:
                calls = count(head.calls, "call")
                log.warning(
                    "%s: %d of its %s cannot be read: it is damaged, so ask for another copy",
                    path,
                    lost,
                    calls,
                )
            yield OpenArchive(**msgspec.structs.asdict(head), lost=lost), cache.readonly()


def _cache_in(place: Path, keys: Sequence[bytes]) -> Cache:
    from fleche.storage import CallFile, ValueFile

    secrets = [key.decode() for key in keys] or None
    return Cache(
        ValueFile(str(place / "values"), secret_key=secrets),
        CallFile(str(place / "calls"), secret_key=secrets),
    )


def _pack(place: Path, path: Path, number: int) -> None:
    head = Archive(
        calls=number,
        fleche=__version__,
        written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr(_HEAD, msgspec.json.encode(head))
        for part in _PARTS:
            for each in sorted(Path(place, part).rglob("*")):
                if each.is_file() and not each.name.startswith("."):
                    file.write(each, each.relative_to(place).as_posix())


def _unpack(path: Path, place: Path) -> Archive:
    with path.open("rb") as raw:
        with _damage_told(path):
            file = zipfile.ZipFile(raw)
        with file:
            head = _read_head(path, file)
            for each in file.infolist():
                if _is_part(each.filename):
                    _extract(path, file, each, place)
    return head


@contextmanager
def _damage_told(what: object) -> Iterator[None]:
    """Turn whatever reading an archive raises into one error.

    Altered bytes make zipfile raise exceptions of a dozen classes, OSError among them.

    Raises:
        CorruptParcel: something was raised.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise CorruptParcel(f"{what}: no archive of fleche, or damaged: {reason}") from error


def _read_head(path: Path, file: zipfile.ZipFile) -> Archive:
    foreign = f"{path}: no archive of fleche ('fleche export' writes one)"
    if _HEAD not in file.namelist():
        raise CorruptParcel(foreign)
    with _damage_told(path):
        data = file.read(_HEAD)
    try:
        head = msgspec.json.decode(data, type=Archive)
    except (msgspec.MsgspecError, ValueError):
        raise CorruptParcel(foreign) from None
    if head.format > _FORMAT:
        newer = printable(head.fleche)
        raise CorruptParcel(f"{path}: written by fleche {newer}, which is newer; upgrade")
    return head


def _is_part(name: str) -> bool:
    """Return whether a member is a file of the cache, whose path leads nowhere else."""
    parts = name.split("/")
    return parts[0] in _PARTS and all(part not in ("", ".", "..") for part in parts)


def _extract(path: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Write a member below ``place``; one that is damaged is left out, and logged."""
    target = place.joinpath(*member.filename.split("/"))
    try:
        with explained("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as sink:
                for piece in _pieces(file, member):
                    sink.write(piece)
    except CorruptParcel as error:
        target.unlink(missing_ok=True)
        name = printable(member.filename)
        log.warning("%s: %s: left out, damaged: %s", path, name, error.__cause__)


def _pieces(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with _damage_told(member.filename), file.open(member) as source:
        while piece := source.read(1 << 20):
            yield piece
