"""Views: the same cache in a different light."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleche.caches import (
    Cache,
    CachePool,
    CacheStack,
    CacheView,
    FilteredCache,
    Gc,
    GcReport,
    ReadOnlyCache,
    RefreshingCache,
    Rejected,
    SizeLimitedCache,
    StatsReport,
    Verify,
)
from fleche.call import Call, QueryCall
from fleche.digest import Address, D, digest
from fleche.errors import RemoteConnectionError
from tests.helpers.layers import Layer, call, in_memory

LARGE = "large " * 5000


@pytest.fixture
def cache() -> Cache:
    return in_memory()


class TestEveryView:
    @pytest.mark.parametrize(
        "view",
        [
            CacheView,
            ReadOnlyCache,
            RefreshingCache,
            lambda inner: FilteredCache(inner, QueryCall()),
        ],
    )
    def test_takes_after_the_inner_cache(self, cache: Cache, view: object) -> None:
        shown = view(cache)  # type: ignore[operator]
        assert shown.packing is cache.packing
        assert shown.policy is cache.policy
        assert shown.capabilities.persistent == cache.capabilities.persistent
        assert repr(cache) in repr(shown)

    def test_housekeeping(self, cache: Cache) -> None:
        view = CacheView(cache)
        view.save(call())
        view.save_value([1])
        assert view.verify().orphaned == 1
        assert view.gc(grace=-1).removed == 1
        assert view.stats().calls == 1
        assert view.to_config() == cache.to_config()

    def test_calls_are_bound_to_the_view(self, cache: Cache) -> None:
        """What a read-only cache hands out cannot be used to evict."""
        cache.save(call())
        with pytest.raises(Rejected):
            cache.readonly().query().only().evict()
        with pytest.raises(Rejected):
            cache.readonly().query().evict()


class TestReadOnly:
    def test_says_so(self, cache: Cache) -> None:
        with pytest.raises(Rejected, match=r"ReadOnlyCache\(Cache\(.*read-only, save refused"):
            cache.readonly().save(call())

    def test_every_operation_refuses(self, cache: Cache) -> None:
        key = D(cache.save(call()))
        backend = cache.readonly().backend
        for act in (
            lambda: backend.save({}),
            lambda: backend.evict([key]),
            lambda: backend.check_accepts(key, call().to_record()),
            lambda: backend.maintain(Gc()),
            lambda: backend.maintain(Verify(repair=True)),
        ):
            with pytest.raises(Rejected):
                act()
        assert backend.maintain(Gc(dry_run=True)) == GcReport()
        assert cache.contains(key)

    def test_the_inner_cache_is_not_asked(self) -> None:
        layer = Layer()
        layer.error = RemoteConnectionError("down")
        assert layer.readonly().read_only
        with pytest.raises(Rejected):
            layer.readonly().save(call())
        assert layer.asked == {}

    def test_to_ask_what_is_lacking_touches_nothing(self, cache: Cache) -> None:
        """What a reader only looks at stays as old as it is, and goes when it is due."""
        cache.save_value(1)
        (entry,) = cache.values.entries()
        here, absent = Address.of(entry.key), Address.of(digest("absent"))
        view = CacheStack([cache]).readonly()
        begun = time.time()
        assert view.backend.lacking([here, absent, here], keep=True) == [absent]
        assert view.backend.lacking([], keep=True) == []
        assert cache.values.delete_older({entry.key: begun}) == {entry.key}

    def test_to_look_changes_nothing(self) -> None:
        """A stack copies nothing down, and no call counts as used, however deep it is."""
        near, far = in_memory(), SizeLimitedCache(in_memory(), max_size=10)
        small, large = (D(far.save(call(x=x, result=x))) for x in ([1], LARGE))
        (before,) = far.inner.calls.entries(small)
        time.sleep(0.01)
        stack = CacheStack([near, far])
        for view in (
            stack.readonly(),
            CacheView(stack).readonly(),
            stack.filter(name="f").readonly(),
            CachePool([stack]).readonly(),
        ):
            for key in (small, large):
                found = view.lookup(key)
                assert found is not None
                assert found.result == found.arguments["x"]
        assert (near.stats().calls, near.stats().values) == (0, 0)
        assert list(far.inner.calls.entries(small)) == [before]
        assert stack.lookup(small) is not None
        assert near.stats().calls == 1

    def test_config(self, cache: Cache) -> None:
        table = cache.to_config()
        assert cache.readonly().to_config() == {**table, "read_only": True}
        stack = CacheStack([cache, cache])
        assert stack.readonly().to_config() == [{**table, "read_only": True}] * 2


class TestFiltered:
    def test_only_what_matches_is_visible(self, cache: Cache) -> None:
        shown, hidden = cache.save(call(name="f")), D(cache.save(call(name="g")))
        view = cache.filter(name="f")
        assert view.query().only().key == shown
        assert view.contains(shown)
        assert not view.contains(hidden)
        assert view.lookup(hidden) is None
        assert view.contains_many([D(shown), hidden]) == [True, False]
        assert [each.key for each in view.load_many([D(shown), hidden])] == [shown]
        assert view.evict_many([hidden]) == 0
        for operation in (view.load, view.evict):
            with pytest.raises(KeyError):
                operation(hidden)
        view.evict(shown)
        assert cache.query().only().key == hidden

    def test_values_are_visible(self, cache: Cache) -> None:
        key = cache.save_value([1])
        view = cache.filter(name="f")
        assert view.contains(key)
        assert view.load_value(key) == [1]
        view.evict(key)
        assert not cache.contains(key)

    def test_only_what_matches_is_accepted(self, cache: Cache) -> None:
        view = cache.filter(name="f")
        view.save(call(name="f"))
        with pytest.raises(Rejected, match=r"g .* does not match the filter"):
            view.save(call(name="g"))
        assert cache.query().only().name == "f"

    def test_refused_before_the_function_runs(self, cache: Cache) -> None:
        """What is known from the arguments is said before they are stored."""
        view = cache.filter(arguments={"x": 1})
        for outer in (view, CacheView(view), CacheStack([view, in_memory()])):
            with pytest.raises(Rejected):
                outer.prepare(Call(name="f", arguments={"x": 2, "y": "huge " * 500_000}))
        assert cache.stats() == StatsReport()

    def test_results_and_metadata_are_known_later(self, cache: Cache) -> None:
        view = cache.filter(result=4, metadata={"tags": {"a": 1}})
        pending = view.prepare(Call(name="f", arguments={"x": 2}))
        pending.commit(4, {"tags": {"a": 1}})
        with pytest.raises(Rejected):
            view.prepare(Call(name="f", arguments={"x": 3})).commit(5, {"tags": {"a": 1}})
        assert cache.query().count() == 1
        assert len(list(cache.calls.entries())) == 1

    def test_calls_inside_are_known_later(self, cache: Cache) -> None:
        """A view of what used a call takes a call that is about to use it."""
        used = cache.save(call(name="part"))
        view = cache.filter(uses=D(used))
        key = view.prepare(Call(name="f", arguments={"x": 2})).commit(4, children=(used,))
        assert view.query().only().key == key
        with pytest.raises(Rejected):
            view.prepare(Call(name="f", arguments={"x": 3})).commit(5)

    def test_a_pin_is_no_call(self, cache: Cache) -> None:
        """What takes long to arrive is protected behind a filter, too."""
        view = cache.filter(name="f")
        pending = view.prepare(Call(name="f", arguments={"x": "huge " * 500_000}))
        assert view.gc(grace=-1).removed == 0
        key = pending.commit(4)
        assert len(view.load(key).arguments["x"]) == 2_500_000

    def test_by_a_function(self, cache: Cache) -> None:
        view = cache.filter(lambda call: call.record.arguments["x"].shown < 3)
        view.save(call(x=1))
        with pytest.raises(Rejected):
            view.save(call(x=5))
        cache.save(call(x=7))
        assert view.query().count() == 1

    def test_by_a_template(self, cache: Cache) -> None:
        cache.save(call(name="f"))
        assert cache.filter(QueryCall(name="g")).query().empty()

    def test_the_filter_goes_along_with_a_query(self) -> None:
        """A database, or a cache far away, does not send what the filter would leave out."""
        layer = Layer()
        for name in ("f", "g"):
            for x in range(2):
                layer.inner.save(call(x=x, name=name))
        sent: list[str] = []
        query = layer.backend.inner.query

        def noting(template: QueryCall, *, keys_only: bool = False) -> Iterator[Any]:
            for key, entry in query(template, keys_only=keys_only):
                sent.append(key)
                yield key, entry

        layer.backend.inner.query = noting  # type: ignore[method-assign]
        view = layer.filter(name="f")
        assert view.query(arguments={"x": 1}).count() == 1
        assert len(sent) == 1
        assert view.query(name="g").empty()
        assert view.query(name="f*").count() == 2


class TestRefreshing:
    def test_computed_anew_once(self, cache: Cache) -> None:
        """What was stored before is hidden; what is stored now is found, and replaces it."""
        key = D(cache.save(call(result="old")))
        view = RefreshingCache(cache)
        assert view.lookup(key) is None
        assert not view.contains(key)
        with pytest.raises(KeyError):
            view.load(key)
        assert view.lookup_many([key]) == {}
        assert view.query().count() == 1
        view.save(call(result="new"))
        assert view.contains(key)
        assert view.contains_many([key]) == [True]
        assert view.load(key).result == "new"
        assert cache.load(key).result == "new"
        assert RefreshingCache(cache).lookup(key) is None

    def test_only_what_is_older(self, cache: Cache) -> None:
        old = D(cache.save(call(x=1, started="2024-01-01T00:00:00+00:00")))
        new = D(cache.save(call(x=2, started="2024-03-01T00:00:00+00:00")))
        undated = D(cache.save(call(x=3)))
        view = RefreshingCache(cache, dt.datetime(2024, 2, 1, tzinfo=dt.timezone.utc))
        assert [view.lookup(key) is not None for key in (old, new, undated)] == [False, True, False]
        assert [view.contains(key) for key in (old, new, undated)] == [False, True, False]
        local = RefreshingCache(cache, dt.datetime(2024, 2, 1))
        assert local.lookup(new) is not None

    def test_values_are_visible(self, cache: Cache) -> None:
        key = cache.save_value([1])
        assert RefreshingCache(cache).contains(key)
        assert RefreshingCache(cache).load_value(key) == [1]


class TestPool:
    def test_the_first_that_answers(self) -> None:
        first, second = Layer(), Layer()
        pool = CachePool([first, second])
        key = D(first.inner.save(call(result="first")))
        second.inner.save(call(result="second"))
        assert pool.load(key).result == "first"
        assert pool.query().only().result == "first"
        assert second.asked == {"query": 1}
        assert first.asked == {"load": 1, "query": 1}

    def test_many_calls_come_in_order_from_all_members(self) -> None:
        members = in_memory(), in_memory()
        keys = [
            D(members[x % 2].save(call(result=[x]).replace(arguments={"x": x}))) for x in range(6)
        ]
        assert [each.key for each in CachePool(members).load_many(keys)] == keys

    def test_every_member_counts(self) -> None:
        first, second = in_memory(), in_memory()
        pool = CachePool([first, second])
        one, two = first.save_value([1]), second.save_value([2])
        addresses = [Address.of(each) for each in (one, two, digest("x"))]
        assert pool.backend.lacking(addresses) == addresses[2:]
        assert pool.backend.lacking(addresses[:1]) == []
        assert pool.load_value(one) == [1]
        assert pool.load_value(two) == [2]
        assert pool.contains(two)
        assert not pool.contains("abcdef")
        with pytest.raises(KeyError):
            pool.load_value(digest("x"))

    def test_a_record_without_its_value_falls_through(self) -> None:
        first, second = in_memory(), in_memory()
        key = D(first.save(call(result=LARGE)))
        second.save(call(result=LARGE))
        first.evict(digest(LARGE))
        pool = CachePool([first, second])
        assert pool.contains(key)
        assert pool.load(key).result == LARGE

    def test_refuses(self) -> None:
        pool = CachePool([in_memory()])
        assert pool.read_only
        assert pool.capabilities.read_only
        for act in (
            lambda: pool.save(call()),
            lambda: pool.backend.save({}),
            lambda: pool.save_value(1),
            lambda: pool.evict(digest("x")),
            lambda: pool.backend.evict([digest("x")]),
        ):
            with pytest.raises(Rejected, match=r"CachePool\(.*read-only"):
                act()

    def test_config(self) -> None:
        member = in_memory()
        table = member.to_config()
        assert CachePool([member, member]).to_config() == {"pool": [table, table]}
        assert CachePool([CacheStack([member])]).to_config() == {"pool": [[table]]}
        assert CachePool([member]).readonly().to_config() == {"pool": [table], "read_only": True}
