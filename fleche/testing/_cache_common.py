"""What the checks of caches share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleche.caches import BaseCache, Rejected
from fleche.call import Call
from fleche.digest import digest

__all__ = ["ABSENT", "check_read_only_cache", "example_call", "refused"]

ABSENT = digest("a value that nobody has stored")


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
    assert cache.expand(cache.shrink(key)[0]) == key


@contextmanager
def refused(error: type[BaseException]) -> Iterator[None]:
    """Assert that the block raises ``error``."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")
