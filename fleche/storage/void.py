"""Storages that keep nothing: every put is forgotten, every get is a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.parcel import Packing, Parcel
from fleche.storage.base import CallStorage, Entry, Storage, ValueStorage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallVoid", "ValueVoid", "VoidOptions"]

T = TypeVar("T")


class VoidOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table of a ``void`` storage in ``fleche.toml``: nothing but its ``type``."""


class _Void(Storage[T], Generic[T]):
    """Nothing, whatever is put."""

    Options: ClassVar[type[msgspec.Struct]] = VoidOptions

    @classmethod
    def from_options(
        cls,
        type_name: str,  # noqa: ARG003
        options: msgspec.Struct,  # noqa: ARG003
        resolve: Callable[[str], str],  # noqa: ARG003
    ) -> Self:
        """Return the storage that a table of ``fleche.toml`` describes."""
        return cls()

    def put(self, key: Digest, item: T) -> None:
        """Forget ``item``."""

    def get(self, key: Digest) -> T:
        """Raise :class:`KeyError`."""
        raise KeyError(key)

    def entry(self, key: Digest) -> Entry:
        """Raise :class:`KeyError`."""
        raise KeyError(key)

    def contains(self, key: Digest) -> bool:  # noqa: ARG002
        """Return ``False``."""
        return False

    def renew(self, key: Digest) -> bool:  # noqa: ARG002
        """Return ``False``."""
        return False

    def delete(self, key: Digest) -> None:
        """Do nothing."""

    def keys(self) -> Iterator[Digest]:
        """Yield nothing."""
        return iter(())

    def to_config(self) -> dict[str, Any]:
        """Return the table of ``fleche.toml`` that describes this storage."""
        return {"type": "void"}


class ValueVoid(_Void[Parcel], ValueStorage):
    """Keeps no values."""

    def __init__(self) -> None:
        self.packing = Packing().with_environment()


class CallVoid(_Void[CallRecord], CallStorage):
    """Keeps no calls."""
