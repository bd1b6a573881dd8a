"""What every cache must do: run it on yours.

Every check is a function of a fresh, empty, writable cache; plain asserts, no framework needed::

    check_cache(lambda: MyCache(...))

With pytest, ``@pytest.mark.parametrize("check", CACHE_CHECKS)`` gives one test for each.
"""

from __future__ import annotations

from collections.abc import Callable

from fleche.caches import BaseCache
from fleche.testing._cache_calls import CALL_CHECKS
from fleche.testing._cache_common import check_read_only_cache, example_call
from fleche.testing._cache_values import VALUE_CHECKS

__all__ = ["CACHE_CHECKS", "check_cache", "check_read_only_cache", "example_call"]

CACHE_CHECKS: tuple[Callable[[BaseCache], None], ...] = (*CALL_CHECKS, *VALUE_CHECKS)


def check_cache(factory: Callable[[], BaseCache]) -> None:
    """Run every check, each on a fresh cache.

    Args:
        factory: returns a new cache, empty and writable.
    """
    for check in CACHE_CHECKS:
        with factory() as cache:
            check(cache)
