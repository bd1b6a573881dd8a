"""What a cache does with calls that have finished, and with those that run."""

from __future__ import annotations

from collections.abc import Callable

from fleche.caches import BaseCache
from fleche.call import Call
from fleche.digest import D, Digest, digest
from fleche.testing._cache_common import ABSENT, example_call, refused

__all__ = ["CALL_CHECKS"]


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
    for operation in (
        cache.load,
        cache.load_record,
        cache.load_value,
        cache.load_parcel,
        cache.evict,
        cache.expand,
    ):
        for key in (ABSENT, Digest(ABSENT[:8])):
            with refused(KeyError):
                operation(key)


def check_evict(cache: BaseCache) -> None:
    """An evicted call is gone, and its values stay for others; a value can be evicted too."""
    key, other = cache.save(example_call()), cache.save(example_call(x=3, result=4))
    cache.evict(key)
    assert not cache.contains(key)
    assert cache.lookup(D(key)) is None
    assert cache.load(other).result == 4
    with refused(KeyError):
        cache.evict(key)
    cache.evict(cache.shrink(other)[0])
    assert cache.query().empty()
    cache.evict(digest(4))
    assert not cache.contains(digest(4))


def check_result_gone(cache: BaseCache) -> None:
    """A call whose result is gone is a miss, never something else handed out."""
    key = cache.save(example_call())
    cache.evict(digest(4))
    assert not cache.contains(key)
    assert cache.lookup(D(key)) is None
    assert cache.counts().get("misses") == 1
    assert cache.save(example_call()) == key
    assert cache.load(key).result == 4


# -- running calls ---------------------------------------------------------------------------------


def check_prepare_and_commit(cache: BaseCache) -> None:
    """Between prepare and commit nothing of the call is to be seen but its arguments."""
    pending = cache.prepare(Call(name="f", arguments={"x": 2}))
    assert cache.contains(digest(2))
    assert not cache.contains(pending.key)
    assert cache.query().empty()
    assert len(cache.table()) == 0
    assert cache.lookup(pending.key) is None
    assert cache.shrink(pending.key)[0] == pending.key[:4]
    key = pending.commit(4, {"runtime": {"seconds": 1.5}})
    assert key == pending.key
    assert cache.load(key).result == 4
    assert cache.load(key).metadata == {"runtime": {"seconds": 1.5}}
    assert cache.query().count() == 1


def check_abandon(cache: BaseCache) -> None:
    """An abandoned call leaves no call behind; to abandon twice is no error."""
    pending = cache.prepare(Call(name="f", arguments={"x": 2}))
    pending.abandon()
    pending.abandon()
    assert not cache.contains(pending.key)
    assert cache.query().empty()


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


def check_nested_calls(cache: BaseCache) -> None:
    """A function may use the cache while it runs, and even evict from it."""
    old = cache.save(example_call(name="old"))
    outer = cache.prepare(Call(name="outer", arguments={"x": 7}))
    inner = cache.prepare(Call(name="inner", arguments={"x": 7}))
    cache.evict(old)
    assert cache.load(inner.commit(8)).result == 8
    assert cache.load(outer.commit(9)).arguments["x"] == 7


CALL_CHECKS: tuple[Callable[[BaseCache], None], ...] = (
    check_save_and_load,
    check_saving_again,
    check_none_results,
    check_no_result,
    check_digest_as_argument,
    check_misses,
    check_evict,
    check_result_gone,
    check_prepare_and_commit,
    check_abandon,
    check_mutated_arguments,
    check_nested_calls,
)
