"""One contract, many caches: every one passes the suite that is shipped for those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    LayerPolicy,
    ReadOnlyCache,
    RefreshingCache,
    SizeLimitedCache,
)
from fleche.call import LazyCall, QueryCall
from fleche.digest import Digest
from fleche.parcel import Parcel
from fleche.storage import Sql, ValueFile
from fleche.testing.caches import (
    CACHE_CHECKS,
    check_cache,
    check_read_only_cache,
    example_call,
)
from tests.helpers.layers import Layer, in_files, in_memory

NAMED = {check.__name__: check for check in CACHE_CHECKS}

WRITABLE: dict[str, Callable[[Path], BaseCache]] = {
    "memory": lambda root: in_memory(),
    "files": in_files,
    "files and sql": lambda root: Cache(ValueFile(root), Sql(root / "calls.db")),
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


class TestTheSuiteFindsFaults:
    """A suite that passes everything proves nothing."""

    def test_results_mixed_up(self) -> None:
        class Wrong(CacheView):
            def load_parcel(self, digest: Digest) -> Parcel:
                parcel = super().load_parcel(digest)
                return self.packing.pack("something else", parcel.head.digest)

        with pytest.raises(AssertionError):
            NAMED["check_digest_as_argument"](Wrong(in_memory()))

    def test_contained_without_result(self) -> None:
        class Wrong(CacheView):
            def contains(self, key: Digest | str) -> bool:
                return bool(self.load_record(Digest(key)))

        with pytest.raises(AssertionError):
            NAMED["check_result_gone"](Wrong(in_memory()))

    @pytest.mark.parametrize(
        "broken",
        [
            "save_record",
            "save_parcel",
            "missing",
            "evict",
            "expand",
            "_shrink",
            "_query",
            "contains",
        ],
    )
    def test_a_primitive_that_does_nothing(self, broken: str) -> None:
        def nothing(self: BaseCache, *args: Any) -> Any:
            return {"expand": Digest("0" * 64), "missing": [], "_query": []}.get(broken, ())

        wrong = type("Wrong", (CacheView,), {broken: nothing})
        with pytest.raises((AssertionError, KeyError, IndexError, ValueError)):
            check_cache(lambda: wrong(in_memory()))

    def test_leases_listed(self) -> None:
        class Wrong(Cache):
            def _query(self, call: QueryCall) -> Iterable[LazyCall]:
                for key in list(self.calls.keys()):
                    yield LazyCall(key, self.calls.get(key), self)

        inner = in_memory()
        with pytest.raises(AssertionError):
            check_cache(lambda: Wrong(type(inner.values)(), type(inner.calls)()))

    def test_a_cache_that_fails_at_random(self) -> None:
        layer = Layer()
        layer.error = OSError("no more")
        with pytest.raises(OSError, match="no more"):
            check_cache(lambda: layer)
