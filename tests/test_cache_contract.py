"""One contract, many caches: every one passes the suite that is shipped for those of others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import (
    BaseCache,
    Cache,
    CachePool,
    CacheStack,
    CacheView,
    FilteredCache,
    GcReport,
    LayerPolicy,
    ReadOnlyCache,
    RefreshingCache,
    SizeLimitedCache,
    ViewBackend,
)
from fleche.call import Call, QueryCall
from fleche.digest import Address, D, Digest
from fleche.storage import (
    CallFile,
    CallMemory,
    Capabilities,
    Sql,
    ValueFile,
    ValueHdf5,
    ValueMemory,
)
from fleche.storage.local import local_storages
from fleche.testing import CACHE_CHECKS, check_cache, check_read_only_cache, example_call
from tests.helpers.layers import Layer, call, in_files, in_memory

WRITABLE_VIEWS = ("itself", "view", "filter", "filter by function", "refreshing", "stack, first")

NAMED = {check.__name__: check for check in CACHE_CHECKS}


class KeepsAll(ValueMemory):
    """A storage that keeps what could travel with records, too."""

    capabilities = Capabilities(keeps_all=True)


WRITABLE: dict[str, Callable[[Path], BaseCache]] = {
    "memory": lambda root: in_memory(),
    "files": in_files,
    "files and sql": lambda root: Cache(ValueFile(root), Sql(root / "calls.db")),
    "local": lambda root: Cache(*local_storages(root)),
    "hdf5 and files": lambda root: Cache(ValueHdf5(root), CallFile(root)),
    "all by itself": lambda root: Cache(KeepsAll(), CallMemory()),
    "stack of local and files": lambda root: CacheStack(
        [Cache(*local_storages(root)), in_files(root / "files")]
    ),
    "signed": lambda root: Cache(
        ValueFile(root, secret_key="hush"), CallFile(root, secret_key="hush")
    ),
    "stack": lambda root: CacheStack([in_memory(), in_files(root)]),
    "stack of three": lambda root: CacheStack([in_memory(), in_files(root), in_memory()]),
    "stack of one": lambda root: CacheStack([in_files(root)]),
    "stack of stacks": lambda root: CacheStack([CacheStack([in_memory()]), in_files(root)]),
    "stack, written through": lambda root: CacheStack(
        [in_memory(), in_files(root, LayerPolicy(write_through=True))]
    ),
    "stack over read-only": lambda root: CacheStack([in_memory(), in_files(root).readonly()]),
    "view": lambda root: CacheView(in_files(root)),
    "filter": lambda root: FilteredCache(in_memory(), QueryCall()),
    "filter by function": lambda root: FilteredCache(in_memory(), lambda call: True),
    "limited": lambda root: SizeLimitedCache(in_files(root), 100, 1 << 26),
    "refreshing": lambda root: RefreshingCache(in_memory()),
}

READ_ONLY: dict[str, Callable[[BaseCache], BaseCache]] = {
    "read-only": ReadOnlyCache,
    "read-only stack": lambda full: CacheStack([in_memory(), full]).readonly(),
    "stack of read-only": lambda full: CacheStack([full.readonly(), in_memory()]),
    "pool": lambda full: CachePool([in_memory(), full]),
    "pool of pools": lambda full: CachePool([CachePool([full]), in_memory()]),
}


@pytest.fixture(params=WRITABLE)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    with WRITABLE[request.param](tmp_path / "cache") as cache:
        yield cache


@pytest.mark.parametrize("check", NAMED.values(), ids=NAMED)
def test_contract(cache: BaseCache, check: Callable[[BaseCache], None]) -> None:
    check(cache)


@pytest.mark.parametrize("make", READ_ONLY.values(), ids=READ_ONLY)
@pytest.mark.parametrize("where", ["memory", "files"])
def test_read_only_contract(
    make: Callable[[BaseCache], BaseCache], where: str, tmp_path: Path
) -> None:
    with WRITABLE[where](tmp_path) as full:
        key = full.save(example_call())
        check_read_only_cache(make(full), key)


def test_each_check_has_a_fresh_cache() -> None:
    made: list[BaseCache] = []

    def factory() -> BaseCache:
        made.append(in_memory())
        return made[-1]

    check_cache(factory)
    assert len(made) == len(CACHE_CHECKS)


class Wrong(ViewBackend):
    """A backend with a fault, over one without."""

    def __init__(self) -> None:
        super().__init__(in_memory().backend)


def is_refused(kind: type[Wrong]) -> bool:
    try:
        check_cache(lambda: BaseCache(kind()))
    except (AssertionError, KeyError, IndexError, ValueError, TypeError, RuntimeError):
        return True
    return False


class TestTheSuiteFindsFaults:
    """A suite that passes everything proves nothing."""

    def test_none(self) -> None:
        assert not is_refused(Wrong)

    def test_results_mixed_up(self) -> None:
        class MixedUp(Wrong):
            def load_values(self, addresses: Iterable[Address]) -> Any:
                for address, _ in super().load_values(addresses):
                    yield address, self.packing.pack("something else", address.digest)

        assert is_refused(MixedUp)

    def test_contained_without_result(self) -> None:
        class Dangling(Wrong):
            def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
                there = dict(self.load([key for key in keys if not isinstance(key, Address)]))
                here = super().contains(keys)
                return [found or key in there for key, found in zip(keys, here, strict=True)]

        assert is_refused(Dangling)

    @pytest.mark.parametrize(
        ("broken", "answer"),
        [
            ("load", lambda keys, **_: iter(())),
            ("load_values", lambda addresses: iter(())),
            ("save", lambda *args, **options: None),
            ("lacking", lambda addresses, **_: []),
            ("contains", lambda keys: [True] * len(keys)),
            ("contains", lambda keys: [False] * len(keys)),
            ("evict", lambda keys: [True] * len(keys)),
            ("expand", lambda prefixes: [()] * len(prefixes)),
            ("shrink", lambda keys: [Digest(key[:4]) for key in keys]),
            ("query", lambda template, **_: iter(())),
            ("maintain", lambda task, progress: GcReport()),
        ],
    )
    def test_an_operation_that_does_nothing(self, broken: str, answer: Any) -> None:
        kind = type("Broken", (Wrong,), {broken: lambda self, *args, **kw: answer(*args, **kw)})
        assert is_refused(kind)

    def test_pins_listed(self) -> None:
        class Listing(Wrong):
            def query(self, template: QueryCall, *, keys_only: bool = False) -> Any:
                calls = self.inner.calls  # type: ignore[attr-defined]
                for entry in list(calls.entries()):
                    yield from calls.get_many([entry.key])

        assert is_refused(Listing)

    def test_a_cache_that_fails_at_random(self) -> None:
        layer = Layer()
        layer.error = OSError("no more")
        with pytest.raises(OSError, match="no more"):
            check_cache(lambda: layer)


# -- what it costs ---------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[BaseCache], BaseCache]] = {
    "itself": lambda layer: layer,
    "view": CacheView,
    "read-only": ReadOnlyCache,
    "filter": lambda layer: layer.filter(name="f"),
    "filter by function": lambda layer: layer.filter(lambda call: call.name == "f"),
    "refreshing": lambda layer: RefreshingCache(layer, dt.datetime(2000, 1, 1)),
    "pool": lambda layer: CachePool([in_memory(), layer]),
    "stack": lambda layer: CacheStack([in_memory(), layer]),
    "stack, first": lambda layer: CacheStack([layer, in_memory()]),
    "filtered stack of a read-only view": lambda layer: CacheStack(
        [in_memory(), layer.readonly()]
    ).filter(name="f"),
}

LARGE = "large " * 5000


def filled(number: int = 100) -> tuple[Layer, list[Digest]]:
    """Return a cache that is far away, with many calls, every second of them a large one."""
    layer = Layer(local=False)
    calls = [
        call(x, result=[x, LARGE if x % 2 else ""], started="2024-01-01T00:00:00")
        for x in range(number)
    ]
    return layer, [D(layer.inner.save(each)) for each in calls]


class TestOperations:
    """Through every wrapper, many keys cost the few operations that they cost at the cache itself.

    An operation is a round trip where the cache is far away.
    """

    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_out_of(self, view: Callable[[BaseCache], BaseCache]) -> None:
        layer, _ = filled()
        target = in_memory()
        assert view(layer).transfer(target) == 100
        # for the calls, and then for the counters of use and for the code that was accepted
        assert layer.asked.total() <= 4 + 2, layer.asked
        assert target.query().count() == 100

    @pytest.mark.parametrize(
        "view", [view for name, view in VIEWS.items() if name in WRITABLE_VIEWS]
    )
    def test_into(self, view: Callable[[BaseCache], BaseCache]) -> None:
        source, layer = in_memory(), Layer(local=False)
        for x in range(100):
            source.save(call(x, result=[x, LARGE if x % 2 else ""]))
        assert source.transfer(view(layer)) == 100
        assert layer.asked.total() <= 6, layer.asked
        assert layer.inner.query().count() == 100
        assert layer.inner.verify().incomplete == ()

    def test_small_calls_need_one_save(self) -> None:
        source, layer = in_memory(), Layer(local=False)
        for x in range(100):
            source.save(call(x, result=[x]))
        assert source.transfer(layer) == 100
        assert layer.asked == {"contains": 1, "save": 1}

    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_many(self, view: Callable[[BaseCache], BaseCache]) -> None:
        layer, keys = filled()
        layer.inlines = True
        shown = view(layer)
        assert shown.contains_many(keys) == [True] * 100
        assert layer.asked.total() <= 3, layer.asked
        layer.asked.clear()
        assert [each.key for each in shown.load_many(keys)] == keys
        assert layer.asked.total() <= 2, layer.asked
        layer.asked.clear()
        assert {key: each.result[0] for key, each in shown.lookup_many(keys).items()} == dict(
            zip(keys, range(100), strict=True)
        )
        assert layer.asked.total() <= 2, layer.asked

    @pytest.mark.parametrize(
        "view", [view for name, view in VIEWS.items() if name in WRITABLE_VIEWS]
    )
    def test_a_call_is_one_save(self, view: Callable[[BaseCache], BaseCache]) -> None:
        """A miss is one look-up and one save, a hit is one look-up."""
        layer = Layer(local=False)
        cache = view(layer)
        pending = cache.prepare(Call(name="f", arguments={"x": [1], "y": 2}))
        assert layer.asked == {}
        pending.commit([3], {"runtime": {"started": "2024-01-01T00:00:00"}})
        assert layer.asked == {"save": 1}
        layer.asked.clear()
        assert cache.lookup(pending.key) is not None
        assert layer.asked == {"load": 1}

    def test_a_limited_cache(self) -> None:
        """It touches what it hands out, all at once."""
        touched: list[list[str]] = []

        class Calls(CallMemory):
            def touch_many(self, keys: Iterable[str]) -> set[str]:
                touched.append(list(keys))
                return super().touch_many(keys)

        cache = SizeLimitedCache(Cache(ValueMemory(), Calls()), max_size=1000)
        keys = [D(cache.save(call(x))) for x in range(100)]
        touched.clear()
        assert len(cache.lookup_many(keys)) == 100
        assert touched == [keys]
