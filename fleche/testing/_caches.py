"""What every cache must do: run it on yours.

Every check is a function of a fresh, empty, writable cache; plain asserts, no framework needed::

    check_cache(lambda: BaseCache(MyBackend(...)))

With pytest, ``@pytest.mark.parametrize("check", CACHE_CHECKS)`` gives one test for each.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fleche.caches import AmbiguousDigestError, BaseCache, Cache, Pin, Rejected
from fleche.call import MANY_PARTS, Call, CallEntry, LazyCall, QueryCall
from fleche.digest import Address, D, Digest, digest
from fleche.parcel import Parcel
from fleche.storage import CallMemory, ValueMemory

__all__ = ["CACHE_CHECKS", "check_cache", "check_read_only_cache", "example_call"]

ABSENT = digest("a value that was never stored")
LARGE = "large " * 5000
"""A value that does not travel with the record of its call."""


def example_call(x: Any = 2, result: Any = 4, name: str = "square", **fields: Any) -> Call:
    """Return a finished call of one argument."""
    return Call(name=name, module="example", arguments={"x": x}, result=result, **fields)


def check_read_only_cache(cache: BaseCache, key: str) -> None:
    """Check a cache that can only be read.

    Args:
        cache: the cache.
        key: the key of ``example_call()``, which is stored in it.
    """
    assert cache.read_only
    assert cache.capabilities.read_only
    with refused(Rejected):
        cache.save(example_call(x=3))
    with refused(Rejected):
        cache.prepare(example_call(x=3))
    with refused(Rejected):
        cache.save_value(2)
    with refused(Rejected):
        cache.evict(key)
    assert cache.contains(key)
    assert cache.load(key).result == 4
    assert cache.load(key).arguments["x"] == 2
    assert cache.query().only().key == key
    assert cache.expand(cache.shrink(key)) == key


@contextmanager
def refused(error: type[BaseException]) -> Iterator[None]:
    """Assert that the block raises ``error``."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


# -- finished calls --------------------------------------------------------------------------------


def check_save_and_load(cache: BaseCache) -> None:
    """A saved call comes back with its arguments, its result and everything else."""
    metadata = {"runtime": {"seconds": 0.5, "host": "here"}}
    call = example_call(x=[1, {"a": 2.5}], result=("r", None), version=3, metadata=metadata)
    key = cache.save(call)
    loaded = cache.load(key)
    assert key == call.key == loaded.key
    assert (loaded.name, loaded.module, loaded.version) == ("square", "example", 3)
    assert loaded.metadata == metadata
    assert dict(loaded.arguments) == {"x": [1, {"a": 2.5}]}
    assert loaded.result == ("r", None)
    assert loaded.load() == call


def check_saving_again(cache: BaseCache) -> None:
    """The same call saved twice is one call, with the later result."""
    first, second = cache.save(example_call(result=4)), cache.save(example_call(result=5))
    assert first == second
    assert cache.query().count() == 1
    assert cache.load(first).result == 5


def check_none_results(cache: BaseCache) -> None:
    """``None`` is a result like any other."""
    key = cache.save(example_call(result=None))
    assert cache.contains(key)
    assert cache.load(key).result is None
    found = cache.lookup(D(key))
    assert found is not None
    assert found.result is None


def check_no_result(cache: BaseCache) -> None:
    """A call without a result is not saved."""
    with refused(ValueError):
        cache.save(Call(name="f"))
    assert cache.query().empty()


def check_digest_as_argument(cache: BaseCache) -> None:
    """A digest as an argument stands for its value; a digest as the result too."""
    named = cache.save_value([1, 2, 3])
    key = cache.save(example_call(x=named, result=named))
    assert key == example_call(x=[1, 2, 3]).key
    assert cache.load(key).arguments["x"] == [1, 2, 3]
    assert cache.load(key).result == [1, 2, 3]


def check_misses(cache: BaseCache) -> None:
    """What is not there is a ``KeyError``, or simply not contained."""
    assert not cache.contains(ABSENT)
    assert not cache.contains(ABSENT[:8])
    assert cache.contains_many([ABSENT]) == [False]
    assert cache.lookup(ABSENT) is None
    assert list(cache.load_many([ABSENT])) == []
    assert cache.lookup_many([ABSENT]) == {}
    for operation in (cache.load, cache.load_value, cache.evict, cache.expand, cache.shrink):
        for key in (ABSENT, Digest(ABSENT[:8])):
            with refused(KeyError):
                operation(key)


def check_too_short(cache: BaseCache) -> None:
    """Fewer than four characters stand for nothing, whatever is stored."""
    key = cache.save(example_call())
    for operation in (cache.load, cache.load_value, cache.expand, cache.evict, cache.shrink):
        with refused(KeyError):
            operation(key[:3])
    assert not cache.contains(key[:3])


def check_evict(cache: BaseCache) -> None:
    """An evicted call is gone, and its values stay for others; a value can be evicted too."""
    key = cache.save(example_call(result=LARGE))
    other = cache.save(example_call(x=3, result=LARGE))
    cache.evict(key)
    assert not cache.contains(key)
    assert cache.lookup(D(key)) is None
    assert cache.load(other).result == LARGE
    with refused(KeyError):
        cache.evict(key)
    cache.evict(cache.shrink(other))
    assert cache.query().empty()
    cache.evict(digest(LARGE))
    assert not cache.contains(digest(LARGE))


def check_result_gone(cache: BaseCache) -> None:
    """A call whose result is gone is a miss, never something else handed out."""
    for result in (4, [4], LARGE):
        key = cache.save(example_call(result=result))
        before = cache.counts().get("misses", 0)
        cache.evict(digest(result))
        assert not cache.contains(key)
        assert not cache.contains(digest(result))
        assert cache.lookup(D(key)) is None
        assert cache.counts().get("misses") == before + 1
        assert cache.save(example_call(result=result)) == key
        assert cache.load(key).result == result


def check_many(cache: BaseCache) -> None:
    """Many calls are loaded, looked up, and asked for at once, in order, the absent left out."""
    keys = [D(cache.save(example_call(x=x, result=[x]))) for x in range(5)]
    wanted = [keys[3], ABSENT, keys[0], keys[4]]
    assert [call.key for call in cache.load_many(wanted)] == [keys[3], keys[0], keys[4]]
    twice = [*wanted, keys[0]]
    assert [call.key for call in cache.load_many(twice)] == [keys[3], keys[0], keys[4]]
    assert cache.contains_many(wanted) == [True, False, True, True]
    found = cache.lookup_many(wanted)
    assert {key: call.result for key, call in found.items()} == {
        keys[3]: [3],
        keys[0]: [0],
        keys[4]: [4],
    }
    assert (cache.counts()["hits"], cache.counts()["misses"]) == (3, 1)
    assert cache.evict_many([keys[0], ABSENT]) == 1
    assert cache.contains_many(keys) == [False, True, True, True, True]


def check_empty_is_true(cache: BaseCache) -> None:
    """An empty cache is a cache: ``cache or other`` never chooses the other."""
    assert bool(cache)


# -- running calls ---------------------------------------------------------------------------------


def check_prepare_and_commit(cache: BaseCache) -> None:
    """Between prepare and commit nothing of the call is to be seen."""
    for x in (2, [2], LARGE, LARGE * 100):
        _check_prepare_and_commit(cache, x)


def _check_prepare_and_commit(cache: BaseCache, x: Any) -> None:
    pending = cache.prepare(Call(name="f", arguments={"x": x}))
    assert not cache.contains(pending.key)
    assert cache.query().empty()
    assert len(cache.table()) == 0
    assert cache.lookup(pending.key) is None
    with refused(KeyError):
        cache.shrink(pending.key)
    key = pending.commit(4, {"runtime": {"seconds": 1.5}})
    with refused(RuntimeError):
        pending.commit(5)
    pending.abandon()
    assert key == pending.key
    assert cache.load(key).result == 4
    assert cache.load(key).metadata == {"runtime": {"seconds": 1.5}}
    assert cache.load(key).arguments["x"] == x
    assert cache.query().count() == 1
    cache.evict(key)


def check_abandon(cache: BaseCache) -> None:
    """An abandoned call leaves no call behind; to abandon twice is no error."""
    pending = cache.prepare(Call(name="f", arguments={"x": 2}))
    pending.abandon()
    pending.abandon()
    assert not cache.contains(pending.key)
    assert cache.query().empty()
    with refused(RuntimeError):
        pending.commit(4)


def check_mutated_arguments(cache: BaseCache) -> None:
    """A function that alters its arguments changes neither the key nor what is stored."""
    items = [3, 1, 2]
    before = Call(name="sort", arguments={"items": items}).key
    pending = cache.prepare(Call(name="sort", arguments={"items": items}))
    items.sort()
    key = pending.commit(items)
    assert key == before
    items.append(9)
    assert cache.load(key).arguments["items"] == [3, 1, 2]
    assert cache.load(key).result == [1, 2, 3]


def check_unpicklable_argument(cache: BaseCache) -> None:
    """An argument that has a digest and no pickle is left out; the result is stored and found."""
    pending = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            pending = cache.prepare(Call(name="f", arguments={"x": _Unpicklable(), "y": [1]}))
            pending.commit([2])
    assert pending is not None
    assert ["'x'" in str(each.message) for each in caught] == [True]
    assert cache.load(pending.key).result == [2]
    assert cache.load(pending.key).arguments["y"] == [1]
    with refused(KeyError):
        cache.load(pending.key).arguments["x"]


class _Unpicklable:
    def __digest__(self) -> str:
        return "unpicklable"

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def check_nested_calls(cache: BaseCache) -> None:
    """A function may use the cache while it runs, and even evict from it."""
    old = cache.save(example_call(name="old"))
    outer = cache.prepare(Call(name="outer", arguments={"x": 7}))
    inner = cache.prepare(Call(name="inner", arguments={"x": 7}))
    cache.evict(old)
    assert cache.load(inner.commit(8)).result == 8
    assert cache.load(outer.commit(9)).arguments["x"] == 7


# -- values ----------------------------------------------------------------------------------------


def check_values(cache: BaseCache) -> None:
    """A value comes back equal, as a new object each time."""
    value = {"a": [1, 2.5, "three", None, b"4"]}
    found = cache.save_value(value)
    assert found == digest(value)
    assert cache.contains(found)
    addresses = [Address.of(found), Address.of(ABSENT)]
    assert cache.backend.lacking(addresses) == addresses[1:]
    assert cache.backend.contains(addresses) == [True, False]
    loaded = cache.load_value(found)
    assert loaded == value
    loaded["a"].clear()
    assert cache.load_value(found[:10]) == value


def check_parcels(cache: BaseCache) -> None:
    """A parcel is kept as it is, byte for byte, under its own address."""
    value = {"text": "x" * 1000}
    key = digest(value)
    packed = cache.packing.pack(value, key)
    address = Address.of(key, packed.variant)
    sent = packed.tobytes()
    cache.backend.save({}, [(address, packed)])
    for asked in (address, Address.of(key)):
        ((found, parcel),) = cache.backend.load_values([asked, Address.of(ABSENT)])
        assert found == asked
        assert isinstance(parcel, Parcel)
        assert parcel.head.digest == key
        assert cache.backend.opens_parcels or parcel.tobytes() == sent
        parcel.close()
    assert cache.load_value(key) == value
    assert cache.backend.lacking([address, Address.of(key, "0" * 32)]) == [
        Address.of(key, "0" * 32)
    ]


def check_entries(cache: BaseCache) -> None:
    """The batched operations: what is not there is left out, and a pin is no call."""
    backend = cache.backend
    keys = [D(cache.save(example_call(x=x, result=[x]))) for x in range(3)]
    loaded = dict(backend.load([keys[2], ABSENT, keys[0]]))
    assert list(loaded) == [keys[2], keys[0]]
    entry = loaded[keys[0]]
    assert isinstance(entry, CallEntry)
    assert entry.record.key == keys[0]
    pin = Pin("check", [Address.of(ABSENT)])
    backend.save(pin.entries)
    assert list(backend.load([pin.key])) == []
    assert backend.contains([pin.key, keys[1], ABSENT]) == [False, True, False]
    assert {key for key, _ in backend.query(QueryCall())} == set(keys)
    assert set(keys) <= {key for key, _ in backend.query(QueryCall(), keys_only=True)}
    other = entry.record.replace(arguments=dict(entry.record.arguments), name="other")
    backend.save({other.key: CallEntry(other, entry.parcels)}, unpin=[pin.key, ABSENT])
    both: list[Digest | Address] = [Address.of(keys[1]), keys[1]]
    assert backend.contains(both) == [False, True], "the key of a call is no address of a value"
    assert backend.evict(both[:1]) == [False], "nor is it when something is to be forgotten"
    assert backend.contains(both) == [False, True]
    assert backend.evict([pin.key]) == [False]
    assert cache.load(other.key).result == [0]
    assert backend.evict([keys[0], ABSENT, Address.of(digest([1]))]) == [True, False, True]
    assert backend.contains([*keys, other.key]) == [False, False, True, True]


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
    cache.save_value(LARGE)
    for full in (key, digest(2), digest(4), digest(LARGE)):
        short = cache.shrink(full)
        assert 4 <= len(short) < 64
        assert cache.expand(short) == full
        assert cache.expand(full) == full
        assert cache.contains(short)
    assert cache.load(key[:12]).key == key
    assert cache.load_value(digest(4)[:12]) == 4
    assert cache.shrink(key, digest(2), key) == (*map(cache.shrink, (key, digest(2), key)),)
    assert cache._shrink(key) == (cache.shrink(key),)
    with refused(KeyError):
        cache.shrink(key, ABSENT)


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
    assert cache.query(name="no_such").empty()
    assert cache.query().take(2).count() == 2
    assert cache.query(name="other").evict() == 1
    assert cache.query().count() == 5


def check_newest(cache: BaseCache) -> None:
    """The newest calls come in the order in which they began, those that do not say when last."""
    for x in (3, 1, 4, 0, 2):
        started = {"started": f"2026-01-0{x + 1}T00:00:00.000000+00:00"} if x else {}
        cache.save(example_call(x=x, metadata={"runtime": started}))
    cache.save(
        example_call(name="other", metadata={"runtime": {"started": "2026-02-01T00:00:00+00:00"}})
    )
    squares = cache.query(name="square")
    assert [call.arguments["x"] for call in squares.newest(3)] == [4, 3, 2]
    assert [call.arguments["x"] for call in squares.newest(3).filter(_is_even)] == [4, 2]
    assert [call.arguments["x"] for call in squares.filter(_is_even).newest(3)] == [4, 2, 0]
    assert [call.arguments["x"] for call in squares.newest(9)] == [4, 3, 2, 1, 0]
    assert squares.newest(0).empty()
    assert squares.latest().arguments["x"] == 4
    assert squares.oldest().arguments["x"] == 1
    assert cache.query().latest().name == "other"
    with refused(KeyError):
        cache.query(name="no_such").latest()
    even = cache.filter(name="square").filter(_is_even).query()
    assert [call.arguments["x"] for call in even.newest(2)] == [4, 2]


def _is_even(call: LazyCall) -> bool:
    return bool(call.arguments["x"] % 2 == 0)


def check_table(cache: BaseCache) -> None:
    """A table shows what was called, with plain values in the clear."""
    key = cache.save(example_call(x=3, result=9))
    table = cache.table(name="square")
    assert [row.key for row in table] == [key]
    assert "x=3" in str(table)
    assert str(table).splitlines()[-1].startswith(key[:8])


def check_transfer(cache: BaseCache) -> None:
    """Calls are copied there and back with their values; what is there already is not copied."""
    large, small = example_call(x=[1, 2], result=[LARGE]), example_call(x=[LARGE], result=[3])
    keys = [cache.save(large), cache.save(small)]
    with Cache(ValueMemory(), CallMemory()) as other:
        assert cache.transfer(other) == 2
        assert cache.query().transfer(other) == 0
        assert cache.evict_many(map(D, keys)) == 2
        cache.evict(digest([LARGE]))
        assert other.transfer(cache, QueryCall()) == 2
    assert [cache.load(key).load() for key in keys] == [large, small]


def check_views(cache: BaseCache) -> None:
    """Every cache can be shown read-only, or filtered."""
    key = cache.save(example_call())
    check_read_only_cache(cache.readonly(), key)
    cache.save(example_call(name="other"))
    assert cache.filter(name="square").query().only().key == key


def check_disk_usage(cache: BaseCache) -> None:
    """disk_usage() names every call that is kept on this machine, with its part of the bytes."""
    key = cache.save(Call(name="f", arguments={"x": 1}, result=bytes(1 << 18)))
    report = cache.disk_usage()
    found = {each.key: each for each in report.calls}
    assert key in found, "disk_usage() leaves out a call"
    assert found[Digest(key)].bytes >= 1 << 18, "disk_usage() leaves out a value"
    idle = found[Digest(key)].idle
    assert -10 < idle < 600, "disk_usage() measures ages by another clock than that of entries"


def check_stats(cache: BaseCache) -> None:
    """Hits and misses are counted."""
    key = D(cache.save(example_call()))
    found = cache.lookup(key)
    assert found is not None
    assert found.result == 4
    assert cache.lookup(ABSENT) is None
    counts = cache.counts()
    assert (counts["hits"], counts["misses"]) == (1, 1)


def check_collecting(cache: BaseCache) -> None:
    """What no call needs is collected, and what one needs stays."""
    gone, kept = [
        cache.save(example_call(x=[x, LARGE], result=[LARGE, x], name="f")) for x in range(2)
    ]
    cache.evict(gone)
    pending = cache.prepare(Call(name="g", arguments={"x": LARGE * 100}))
    assert cache.gc().removed == 0
    assert cache.gc(grace=-1).removed >= 2
    assert cache.load(kept).load() == example_call(x=[1, LARGE], result=[LARGE, 1], name="f")
    key = pending.commit([LARGE])
    assert cache.load(key).arguments["x"] == LARGE * 100
    report = cache.verify()
    assert report.ok
    assert report.calls >= 2
    assert report.incomplete == ()
    assert cache.stats().calls >= 2


def check_dependencies(cache: BaseCache) -> None:
    """Few dependencies of code stand in the record; many are stored once for all of its calls."""
    few = {f"lib:part_{number}": str(digest(number)) for number in range(MANY_PARTS)}
    many = {**few, "numpy": "=numpy", "absent": "-absent"}
    for parts in (few, many):
        code = digest(parts)
        calls = [example_call(x, x, code=code, dependencies=parts) for x in (1, 2, 3)]
        keys = [cache.save(call) for call in calls]
        assert cache.gc(grace=-1).removed == 0
        found = [cache.load(key) for key in keys]
        assert [call.load() for call in found] == calls
        assert [call.dependencies for call in found] == [parts] * 3
        apart = {call.record.covered for call in found}
        assert len(apart) == 1
        assert (apart == {None}) == (parts is few)
        assert cache.verify().ok
    target = Cache(ValueMemory(), CallMemory())
    assert cache.transfer(target, [cache.load(key) for key in keys]) == len(keys)
    assert target.load(keys[0]).dependencies == many
    for key in keys:
        cache.evict(key)
    assert cache.gc(grace=-1).removed >= 1
    assert cache.load(cache.save(calls[0])).load() == calls[0]
    assert cache.verify().incomplete == ()


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


CACHE_CHECKS: tuple[Callable[[BaseCache], None], ...] = (
    check_save_and_load,
    check_saving_again,
    check_none_results,
    check_no_result,
    check_digest_as_argument,
    check_misses,
    check_too_short,
    check_evict,
    check_result_gone,
    check_many,
    check_empty_is_true,
    check_prepare_and_commit,
    check_abandon,
    check_mutated_arguments,
    check_unpicklable_argument,
    check_nested_calls,
    check_values,
    check_parcels,
    check_entries,
    check_large_arrays,
    check_short_keys,
    check_ambiguous_keys,
    check_query,
    check_newest,
    check_table,
    check_transfer,
    check_views,
    check_collecting,
    check_dependencies,
    check_stats,
    check_disk_usage,
    check_threads,
    check_closing,
)


def check_cache(factory: Callable[[], BaseCache]) -> None:
    """Run every check, each on a fresh cache.

    Args:
        factory: returns a new cache, empty and writable.
    """
    for check in CACHE_CHECKS:
        with factory() as cache:
            check(cache)
