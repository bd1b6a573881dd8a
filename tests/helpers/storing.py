"""Storages, one entry at a time: their contract is for many."""

from __future__ import annotations

from typing import Any

from fleche.errors import ParcelError
from fleche.storage import Entry

__all__ = ["check", "delete", "entry", "get", "has", "keys", "put", "take_older", "touch"]


def put(storage: Any, key: str, item: Any) -> None:
    """Store an entry."""
    storage.put_many([(key, item)])


def get(storage: Any, key: str) -> Any:
    """Return an entry; raise `KeyError` if there is none, or the error that comes in its place."""
    for _, found in storage.get_many([key]):
        if isinstance(found, ParcelError):
            raise found
        return found
    raise KeyError(key)


def check(storage: Any, key: str, secrets: Any = ()) -> Any:
    """Check a parcel; return its `BufferRefs`, or raise the error that comes in their place."""
    for _, found in storage.check_many([key], secrets):
        if isinstance(found, ParcelError):
            raise found
        return found
    raise KeyError(key)


def has(storage: Any, key: str) -> bool:
    """Return whether there is an entry."""
    return key in storage.contains_many([key])


def touch(storage: Any, key: str) -> bool:
    """Make an entry young; return whether there is one."""
    return key in storage.touch_many([key])


def delete(storage: Any, key: str) -> None:
    """Remove an entry."""
    storage.delete_many([key])


def take_older(storage: Any, key: str, limit: float) -> bool:
    """Remove an entry that was last put or touched by `limit`; return whether it went."""
    return key in storage.delete_older({key: limit})


def keys(storage: Any) -> list[str]:
    """The keys of all entries."""
    return [found.key for found in storage.entries()]


def entry(storage: Any, key: str) -> Entry:
    """What is known of an entry without reading it; raise `KeyError` if there is none."""
    found: Entry
    for found in storage.entries(key):
        if found.key == key:
            return found
    raise KeyError(key)
