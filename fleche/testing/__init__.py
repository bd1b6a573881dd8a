"""Conformance suites: whoever writes a backend or a channel runs the same ones as fleche does.

Plain functions with plain asserts; no test framework is needed.
"""

from fleche.testing.caches import CACHE_CHECKS, check_cache, check_read_only_cache, example_call
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
