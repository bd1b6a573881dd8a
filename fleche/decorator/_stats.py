"""How much is stored of one function, and what that has saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleche._amounts import count, shown_bytes, shown_seconds
from fleche._html import paragraph
from fleche.call import QueryCall, encode_entry

if TYPE_CHECKING:
    from fleche.caches import BaseCache

__all__ = ["FunctionStats", "stats_of"]


@dataclass(frozen=True)
class FunctionStats:
    """What is stored of one function, and how it was used.

    Attributes:
        name: qualified name of the function.
        calls: how many calls are stored.
        bytes: what they take with their arguments and results; a large value that several calls
            have counts once.
        hits: how often a stored result was found, by all processes that use the cache.
        misses: how often the body ran, and its result was stored.
        saved: seconds that the bodies of the hits had taken.
        spent: seconds that the bodies of the misses took.
    """

    name: str
    calls: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    saved: float = 0.0
    spent: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {count(self.calls, 'call')} stored ({shown_bytes(self.bytes)}); "
            f"{count(self.hits, 'hit')}, {count(self.misses, 'miss', 'misses')}; "
            f"{shown_seconds(self.saved)} saved, {shown_seconds(self.spent)} spent"
        )

    def _repr_html_(self) -> str:
        return paragraph(str(self))


def stats_of(cache: BaseCache, template: QueryCall) -> FunctionStats:
    """Return what a cache has of the calls of one function; all of their records are read.

    Args:
        cache: the cache.
        template: finds the calls, by the name of the function and perhaps by its module.
    """
    sizes: dict[str, int] = {}
    calls = 0
    for call in cache.query(template):
        calls += 1
        sizes[call.key] = len(encode_entry(call.key, call.entry))
        for ref in call.record.values():
            apart = ref.size - len(call.entry.parcels.get(ref.address, b""))
            if apart > 0:
                sizes[ref.address] = apart
    rows = cache.usage(template.name, template.module)
    return FunctionStats(
        name=template.name or "",
        calls=calls,
        bytes=sum(sizes.values()),
        hits=sum(row.hits for row in rows),
        misses=sum(row.misses for row in rows),
        saved=sum(row.saved for row in rows),
        spent=sum(row.spent for row in rows),
    )
