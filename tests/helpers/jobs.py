"""What processes do to a cache that they share: they save, look up, evict and collect."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from fleche.caches import BaseCache, Cache, SizeLimitedCache
from fleche.call import Call
from fleche.digest import Digest
from fleche.storage import storage_from_config

__all__ = [
    "DIFFERENT",
    "FEW",
    "GRACE",
    "WAYS",
    "check_result",
    "described",
    "open_cache",
    "save",
    "start",
    "work",
    "write",
]

DIFFERENT = 150
"""How many calls a writer saves, again and again."""

FEW = 30
"""How many calls workers save and evict."""

GRACE = 5.0
"""Seconds for which a collection leaves alone what workers have stored."""

_CONTEXT = multiprocessing.get_context("forkserver")
# What a job imports is imported once, by the process that all of them are forked from.
_CONTEXT.set_forkserver_preload(
    ["fleche.caches", "numpy", "h5py", "sqlalchemy", "s3fs", "fleche.storage.hdf5"]
)


def start(job: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Run ``job(*arguments, tell)`` in a process of its own.

    Returns:
        The process, and where that which the job sends by ``tell`` arrives.
    """
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=job, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def described(values: Mapping[str, Any], calls: Mapping[str, Any]) -> str:
    """Return what :func:`open_cache` takes: the tables of ``fleche.toml`` as one text."""
    return json.dumps({"values": values, "calls": calls})


def open_cache(where: str) -> Cache:
    """Return the cache that is described so."""
    tables = json.loads(where)
    values: Any = storage_from_config(tables["values"], "values")
    calls: Any = storage_from_config(tables["calls"], "calls")
    return Cache(values, calls)


def expected(number: int) -> list[Any]:
    """The result of call number so-and-so; some are small, some large, some share an array."""
    text = "x" * (number * 7919 % 90_000)
    held = {"array": np.full(10_000, number % 5, float)} if number % 3 == 0 else {}
    return [number, text, held]


def check_result(number: int, found: Any) -> None:
    """Check that ``found`` is the result of call number so-and-so."""
    np.testing.assert_equal(found, expected(number))


def save(cache: BaseCache, number: int) -> Digest:
    """Save call number so-and-so."""
    made = Call(name="job", arguments={"x": number}, result=expected(number))
    return Digest(cache.save(made))


def write(where: str, number: int, tell: Connection) -> None:
    """Save calls without end, and tell which are committed."""
    cache = open_cache(where)
    while True:
        tell.send_bytes(save(cache, number % DIFFERENT).encode())
        number += 1


def work(where: str, seed: int, turns: int, way: str, tell: Connection) -> None:
    """Save and evict the same few calls as all others, and tell what went wrong.

    Args:
        where: the cache.
        seed: of the order.
        turns: how often.
        way: one of :data:`WAYS`.
        tell: gets a traceback, or nothing.
    """
    chance = random.Random(seed)
    try:
        with open_cache(where) as cache:
            WAYS[way](cache, chance, turns)
    except BaseException:
        tell.send(traceback.format_exc())
        raise
    finally:
        tell.close()


def _save_and_look(cache: BaseCache, number: int) -> Digest:
    key = save(cache, number)
    hit = cache.lookup(key)
    if hit is not None:
        check_result(number, hit.result)
    return key


def _plain(cache: Cache, chance: random.Random, turns: int) -> None:
    for _ in range(turns):
        key = _save_and_look(cache, chance.randrange(FEW))
        if chance.random() < 0.5:
            with suppress(KeyError):
                cache.evict(key)
        if chance.random() < 0.05:
            cache.gc(GRACE)


def _limited(cache: Cache, chance: random.Random, turns: int) -> None:
    limited = SizeLimitedCache(cache, max_size=12)
    for _ in range(turns):
        _save_and_look(limited, chance.randrange(FEW))


def _collected(cache: Cache, chance: random.Random, turns: int) -> None:
    """Return to a call just when its values have become old enough to be collected."""
    slot = 1.1 * GRACE / FEW
    for _ in range(turns):
        key = _save_and_look(cache, int(time.time() / slot + chance.random()) % FEW)
        if chance.random() < 0.5:
            with suppress(KeyError):
                cache.evict(key)
        if chance.random() < 0.2:
            cache.gc(GRACE)
        time.sleep(chance.uniform(0, slot))


WAYS = {"plain": _plain, "limited": _limited, "collected": _collected}
"""What workers do besides: evict and now and then collect; keep to limits; collect all the time."""
