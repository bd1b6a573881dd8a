"""Conformance suites: the author of a backend or a channel runs the same ones as fleche does.

Plain functions with plain asserts; no test framework is needed. A suite is imported when it is
asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleche._util import imported_when_asked

if TYPE_CHECKING:
    from fleche.testing._caches import (
        CACHE_CHECKS,
        check_cache,
        check_read_only_cache,
        example_call,
    )
    from fleche.testing.channels import CHANNEL_CHECKS, check_channel
    from fleche.testing.storages import check_call_storage, check_value_storage

__all__ = [
    "CACHE_CHECKS",
    "CHANNEL_CHECKS",
    "check_cache",
    "check_call_storage",
    "check_channel",
    "check_read_only_cache",
    "check_value_storage",
    "example_call",
]

__getattr__ = imported_when_asked(
    __name__,
    {
        "._caches": ("CACHE_CHECKS", "check_cache", "check_read_only_cache", "example_call"),
        ".channels": ("CHANNEL_CHECKS", "check_channel"),
        ".storages": ("check_call_storage", "check_value_storage"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
