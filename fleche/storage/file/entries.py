"""What storages with a file for each entry have in common, whatever is in the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from fleche.digest import Digest
from fleche.storage.base import Capabilities, Entry, Storage
from fleche.storage.file.shards import STALE, Shards

__all__ = ["FileEntries"]

T = TypeVar("T")


class FileEntries(Storage[T], Generic[T]):
    """Entries that are files: all that can be told, and done, without opening one.

    Args:
        files: where they are.
    """

    capabilities = Capabilities(persistent=True, shared=True)

    def __init__(self, files: Shards) -> None:
        self._files = files

    def contains(self, key: Digest) -> bool:
        """Tell whether there is an entry, without reading it."""
        return self._files.contains(key)

    def delete(self, key: Digest) -> None:
        """Remove the entry; none there is no error."""
        self._files.remove(key)

    def keys(self) -> Iterator[Digest]:
        """Yield all keys, in any order."""
        return self._files.keys()

    def matching(self, prefix: str) -> Iterator[Digest]:
        """Yield the keys that begin with ``prefix``."""
        return self._files.keys(prefix)

    def entry(self, key: Digest) -> Entry:
        """Return the size and age of an entry without opening it."""
        return Entry(*self._files.find(key))

    def entries(self) -> Iterator[Entry]:
        """Yield the size and age of every entry; those that vanish meanwhile are left out."""
        return (Entry(*found) for found in self._files.all())

    def delete_older(self, key: Digest, limit: float) -> bool:
        """Remove the entry unless it was renewed after ``limit``; tell whether it went."""
        return self._files.remove_older(key, limit)

    def sweep(self, older: float = STALE) -> int:
        """Remove what killed writers left behind ``older`` seconds ago; return how many files."""
        return self._files.sweep(older)
