"""What processes do to a cache that they share: they save, look up, evict and collect."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from fleche.caches import BaseCache, Cache, SizeLimitedCache
from fleche.call import Call
from fleche.digest import Digest
from fleche.storage import CallFile, Sql, ValueFile

__all__ = ["DIFFERENT", "expected", "open_cache", "save", "work", "write"]

DIFFERENT = 150
"""How many calls a writer saves, again and again."""

_FEW = 30


def open_cache(where: str) -> Cache:
    """The cache at `root|url`; without a url, its calls are files."""
    root, url = where.split("|")
    return Cache(ValueFile(root), Sql(url) if url else CallFile(root))


def expected(number: int) -> list[Any]:
    """The result of call number so-and-so; some are large."""
    return [number, "x" * (number * 7919 % 90_000)]


def save(cache: BaseCache, number: int) -> Digest:
    """Save call number so-and-so."""
    made = Call(name="job", arguments={"x": number}, result=expected(number))
    return Digest(cache.save(made))


def write(where: str, number: int) -> None:
    """Save calls without end, and say which are committed."""
    cache = open_cache(where)
    while True:
        print(save(cache, number % DIFFERENT), flush=True)
        number += 1


def work(where: str, seed: int, turns: int, kind: str) -> None:
    """Save and evict the same few calls as everybody else.

    Args:
        where: the cache.
        seed: of the order.
        turns: how often.
        kind: "limited", for a cache that evicts by itself, or "plain".
    """
    chance = random.Random(seed)
    with open_cache(where) as inner:
        cache = SizeLimitedCache(inner, max_size=12) if kind == "limited" else inner
        for _ in range(turns):
            number = chance.randrange(_FEW)
            key = save(cache, number)
            hit = cache.lookup(key)
            assert hit is None or hit.result == expected(number)
            if kind == "plain" and chance.random() < 0.5:
                with suppress(KeyError):
                    cache.evict(key)
            if kind == "plain" and chance.random() < 0.05:
                cache.gc(5)
