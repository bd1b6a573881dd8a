"""Conformance suites: the author of a backend or a channel runs the same ones as fleche does.

Plain functions with plain asserts; no test framework is needed. A suite is imported when it is
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "CACHE_CHECKS": "_caches",
    "CHANNEL_CHECKS": "channels",
    "check_cache": "_caches",
    "check_call_storage": "storages",
    "check_channel": "channels",
    "check_read_only_cache": "_caches",
    "check_value_storage": "storages",
    "example_call": "_caches",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
