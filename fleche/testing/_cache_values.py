"""What a cache does with values, with short digests, and with many calls at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fleche.caches import AmbiguousDigestError, BaseCache, Cache
from fleche.call import Call, QueryCall
from fleche.digest import D, digest
from fleche.storage import CallMemory, ValueMemory
from fleche.testing._cache_common import (
    ABSENT,
    check_read_only_cache,
    example_call,
    refused,
)

__all__ = ["VALUE_CHECKS"]

# -- values ----------------------------------------------------------------------------------------


def check_values(cache: BaseCache) -> None:
    """A value comes back equal, as a new object each time."""
    value = {"a": [1, 2.5, "three", None, b"4"]}
    found = cache.save_value(value)
    assert found == digest(value)
    assert cache.contains(found)
    assert cache.missing([found, ABSENT]) == [ABSENT]
    loaded = cache.load_value(found)
    assert loaded == value
    loaded["a"].clear()
    assert cache.load_value(found[:10]) == value


def check_parcels(cache: BaseCache) -> None:
    """A parcel is kept as it is, byte for byte, and not under another's digest."""
    value = {"text": "x" * 1000}
    key = digest(value)
    packed = cache.packing.pack(value, key)
    sent = packed.tobytes()
    cache.save_parcel(key, packed)
    parcel = cache.load_parcel(key)
    assert parcel.head.digest == key
    assert cache.capabilities.opens_parcels or parcel.tobytes() == sent
    parcel.close()
    assert cache.load_value(key) == value


def check_large_arrays(cache: BaseCache) -> None:
    """Large arrays come back whole and writable (where numpy is installed)."""
    if importlib.util.find_spec("numpy") is None:
        return
    import numpy as np

    array = np.arange(500_000, dtype="f8").reshape(500, 1000)
    key = cache.save(example_call(x=array, result={"twice": array * 2}))
    array[:] = 0
    twice = cache.load(key).result["twice"]
    assert twice[499, 999] == 2 * 499_999
    twice[0, 0] = 1
    assert cache.load(key).arguments["x"][0, 5] == 5


# -- names -----------------------------------------------------------------------------------------


def check_short_keys(cache: BaseCache) -> None:
    """The beginning of a key stands for it, of calls and of values; the key itself for itself."""
    key = cache.save(example_call())
    for full in (key, digest(2), digest(4)):
        (short,) = cache.shrink(full)
        assert 4 <= len(short) < 64
        assert cache.expand(short) == full
        assert cache.expand(full) == full
        assert cache.contains(short)
    assert cache.load(key[:12]).key == key
    assert cache.load_value(digest(4)[:12]) == 4
    assert cache.shrink() == ()
    assert cache.shrink(key, ABSENT, key)[1] == ABSENT[:4]


def check_ambiguous_keys(cache: BaseCache) -> None:
    """A beginning that several entries share is an error that is not a miss."""
    first, second = _values_alike()
    cache.save_value(first)
    one = digest(first)
    assert cache.expand(one[:4]) == one
    cache.save_value(second)
    for operation in (cache.expand, cache.load_value, cache.load, cache.contains):
        with refused(AmbiguousDigestError):
            operation(one[:4])
    shorts = cache.shrink(one, digest(second))
    assert len(set(shorts)) == 2
    assert [cache.load_value(short) for short in shorts] == [first, second]


def _values_alike() -> tuple[int, int]:
    """Return two numbers whose digests begin with the same four characters."""
    seen: dict[str, int] = {}
    for number in range(100_000):
        other = seen.setdefault(digest(number)[:4], number)
        if other != number:
            return other, number
    raise AssertionError("no two digests begin alike")


# -- many ------------------------------------------------------------------------------------------


def check_query(cache: BaseCache) -> None:
    """Queries find by name, argument, result and metadata, lazily and again."""
    for x in range(5):
        metadata = {"tags": {"parity": "even" if x % 2 == 0 else "odd"}}
        cache.save(example_call(x=x, result=x * x, metadata=metadata))
    cache.save(example_call(name="other"))
    squares = cache.query(name="squ*")
    assert squares.count() == squares.count() == 5
    assert cache.query(arguments={"x": 3}).only().result == 9
    assert cache.query(result=16).only().arguments["x"] == 4
    odd = cache.query(metadata={"tags": {"parity": "odd"}})
    assert sorted(odd.results()) == [1, 9]
    assert cache.query(QueryCall(name="other")).only().result == 4
    assert cache.query(name="nobody").empty()
    assert cache.query().take(2).count() == 2
    assert cache.query(name="other").evict() == 1
    assert cache.query().count() == 5


def check_table(cache: BaseCache) -> None:
    """A table shows what was called, with plain values in the clear."""
    key = cache.save(example_call(x=3, result=9))
    table = cache.table(name="square")
    assert [row.key for row in table] == [key]
    assert "x=3" in str(table)
    assert str(table).splitlines()[-1].startswith(key[:8])


def check_transfer(cache: BaseCache) -> None:
    """Calls are copied there and back with their values; what is there already is not copied."""
    key = cache.save(example_call(x=[1, 2], result=[3]))
    with Cache(ValueMemory(), CallMemory()) as other:
        assert cache.transfer(other) == 1
        assert cache.query().transfer(other) == 0
        cache.evict(key)
        for value in ([1, 2], [3]):
            cache.evict(digest(value))
        assert other.transfer(cache) == 1
    assert cache.load(key).result == [3]
    assert cache.load(key).arguments["x"] == [1, 2]


def check_views(cache: BaseCache) -> None:
    """Every cache can be shown read-only, or filtered."""
    key = cache.save(example_call())
    check_read_only_cache(cache.readonly(), key)
    cache.save(example_call(name="other"))
    assert cache.filter(name="square").query().only().key == key


def check_stats(cache: BaseCache) -> None:
    """Hits and misses are counted."""
    key = D(cache.save(example_call()))
    found = cache.lookup(key)
    assert found is not None
    assert found.result == 4
    assert cache.lookup(ABSENT) is None
    counts = cache.counts()
    assert (counts["hits"], counts["misses"]) == (1, 1)


def check_threads(cache: BaseCache) -> None:
    """Many threads may use one cache at once."""

    def work(number: int) -> Any:
        x = number % 5
        pending = cache.prepare(Call(name="f", arguments={"x": [x]}))
        return cache.load(pending.commit([x, x])).result

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(40)))
    assert results == [[number % 5, number % 5] for number in range(40)]
    assert cache.query().count() == 5


def check_closing(cache: BaseCache) -> None:
    """To close twice is no error."""
    cache.save(example_call())
    cache.close()
    cache.close()


VALUE_CHECKS: tuple[Callable[[BaseCache], None], ...] = (
    check_values,
    check_parcels,
    check_large_arrays,
    check_short_keys,
    check_ambiguous_keys,
    check_query,
    check_table,
    check_transfer,
    check_views,
    check_stats,
    check_threads,
    check_closing,
)
