"""Maps and sets that never change, of rpds, pyrsistent and immutables: they have no order."""

from __future__ import annotations

from typing import Any

from ._parts import Parts, parts

__all__ = ["hash_map", "hash_set"]


@parts
def hash_map(obj: Any) -> Parts:
    """Return the items of a map, in an order that is the same in each process."""
    from fleche.digest._keys import digest

    return {"items": sorted(obj.items(), key=lambda item: digest(item[0]))}


@parts
def hash_set(obj: Any) -> Parts:
    """Return the members of a set, in an order that is the same in each process."""
    from fleche.digest._keys import digest

    return {"members": sorted(obj, key=digest)}
