"""What storages of values and of calls have in common, whatever their objects hold."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from fleche.digest import Digest
from fleche.errors import StorageError
from fleche.parcel import Packing
from fleche.storage.base import Capabilities, Entry, Storage
from fleche.storage.file import SUFFIXES
from fleche.storage.fsspec.connection import Connection, is_path
from fleche.storage.fsspec.objects import Found, Objects
from fleche.storage.fsspec.removing import Remover, SettingAside
from fleche.storage.fsspec.writing import STALE, Writer
from fleche.storage.secrets import keys_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FsspecOptions", "Stored"]

T = TypeVar("T")

_ABREAST = 16
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_YOUNG = 5.0
"""Seconds in which, on a store that counts in whole seconds, an entry may be in use unnoticed."""


class FsspecOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of an ``fsspec`` storage in ``fleche.toml``.

    Attributes:
        url: what fsspec calls one (``s3://bucket/path``), or the path of a directory.
        options: what the filesystem takes; credentials among them.
        serializer: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
        compress: compress what is written, if that makes it smaller.
        secret_key: one secret or several: the first signs, all of them are accepted.
    """

    url: str
    options: dict[str, Any] = {}
    serializer: Literal["cloudpickle", "pickle", "dill"] = "cloudpickle"
    compress: Literal["zlib", "zstd"] | None = None
    secret_key: str | list[str] | None = None


class Stored(Storage[T], Generic[T]):
    """Entries as objects below one url, which values and calls may share.

    Args:
        url: what fsspec calls one, or the path of a directory, ``~`` expanded.
        options: what the filesystem takes: ``key``, ``secret``, ``endpoint_url``, ``anon``, ...
        serializer: ``"cloudpickle"``, ``"pickle"`` or ``"dill"``.
        compress: ``"zlib"`` or ``"zstd"``.
        secret_key: secrets: the first signs, all are accepted, and an entry that none of them
            signed is refused. By default those of ``FLECHE_SECRET_KEY``, if there are any.

    Raises:
        ConfigError: fsspec knows no filesystem of that name.
        MissingExtra: the package that speaks the protocol is not installed.
    """

    Options: ClassVar[type[msgspec.Struct]] = FsspecOptions
    _kind: ClassVar[Literal["values", "calls"]]

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        serializer: Literal["cloudpickle", "pickle", "dill"] = "cloudpickle",
        compress: Literal["zlib", "zstd"] | None = None,
        secret_key: str | list[str] | None = None,
    ) -> None:
        self._connection = Connection(url, options or {})
        self._options = FsspecOptions(
            url=self._connection.url,
            options=dict(options or {}),
            serializer=serializer,
            compress=compress,
            secret_key=secret_key,
        )
        self.packing = Packing(serializer, compress, keys_of(secret_key))
        stays = self._connection.traits.persistent
        self.capabilities = Capabilities(persistent=stays, shared=stays)
        self._objects = self._make_objects()
        self._writer = Writer(self._objects, SUFFIXES[self._kind])
        self._remover = self._make_remover()

    @classmethod
    def from_options(
        cls,
        type_name: str,  # noqa: ARG003
        options: FsspecOptions,
        resolve: Callable[[str], str],
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        fields = msgspec.structs.asdict(options)
        url = fields.pop("url")
        return cls(resolve(url) if is_path(url) else url, **fields)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration."""
        return _restore, (type(self), msgspec.structs.asdict(self._options))

    def _make_objects(self) -> Objects:
        return Objects(self._connection, SUFFIXES[self._kind])

    def _make_remover(self) -> Remover:
        """Return what removes old entries; on stores, that is for entries nobody relies on."""
        return (SettingAside if self._connection.traits.renames else Remover)(self._objects)

    def contains(self, key: Digest) -> bool:
        """Tell whether there is an entry; one byte of it is read."""
        return self._objects.contains(key)

    def missing(self, keys: Iterable[Digest]) -> list[Digest]:
        """Return those of ``keys`` that have no entry; many are asked for at once."""
        return self._objects.missing(keys)

    def renew_many(self, keys: Iterable[Digest]) -> list[Digest]:
        """Renew several entries, at once where the filesystem allows; return those not there."""
        wanted = list(keys)
        if len(wanted) < 2 or not self._connection.is_async:
            return super().renew_many(wanted)
        self._remover.calm()  # so that one looks for notices, and not every thread
        with ThreadPoolExecutor(min(_ABREAST, len(wanted)), "fleche-renewing") as pool:
            renewed = list(pool.map(self.renew, wanted))
        return [key for key, there in zip(wanted, renewed, strict=True) if not there]

    def delete(self, key: Digest) -> None:
        """Remove the entry; none there is no error."""
        self._objects.remove(key)

    def keys(self) -> Iterator[Digest]:
        """Yield all keys, in any order."""
        return self.matching("")

    def matching(self, prefix: str) -> Iterator[Digest]:
        """Yield the keys that begin with ``prefix``; nothing else is listed."""
        return (found.key for found in self._objects.listed(prefix))

    def entry(self, key: Digest) -> Entry:
        """Return the size and age of an entry without opening it.

        The age is by the clock of the store. S3 tells it in whole seconds: an entry that is a few
        seconds old may have been renewed after it was looked at, and look the same. So its age is
        told in such a way that :meth:`delete_older` does not take it.
        """
        return self._entry(self._objects.find(key))

    def entries(self) -> Iterator[Entry]:
        """Yield the size and age of every entry, as the listing tells them."""
        return map(self._entry, self._objects.listed())

    def _entry(self, found: Found) -> Entry:
        latest = self._objects.latest(found.modified)
        told = latest if latest < time.time() - _YOUNG else found.modified
        return Entry(found.key, found.size, told)

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the entry unless it was put (again) after ``limit``; tell whether it went."""
        return self._remover.remove_older(key, limit)

    def sweep(self, older: float = STALE) -> int:
        """Remove what killed writers left behind ``older`` seconds ago; return how many files.

        Object stores show nothing of an upload that was not finished; let them remove it by a
        rule for incomplete multipart uploads.
        """
        return self._writer.sweep(older)

    def close(self) -> None:
        """Close the connections, unless another storage uses them. Idempotent."""
        self._remover.close()
        self._connection.close()

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage, its secrets included."""
        table = msgspec.structs.asdict(self._options)
        default = msgspec.structs.asdict(FsspecOptions(url=""))
        given = {name: value for name, value in table.items() if value != default[name]}
        return {"type": "fsspec", **given}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.name!r})"

    def _is_there(self, key: Digest, error: StorageError) -> bool:
        """Tell whether there is an entry, where ``error`` says that nothing may be written.

        Raises:
            StorageError: it says something else.
        """
        if getattr(error.__cause__, "errno", None) in _READ_ONLY or isinstance(
            error.__cause__, PermissionError
        ):
            return self.contains(key)
        raise error


def _restore(cls: type[Stored[Any]], fields: dict[str, Any]) -> Stored[Any]:
    return cls(**fields)
