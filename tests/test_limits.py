"""Limits as people write them: so many bytes, and forgotten after so long."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import SizeLimitedCache
from fleche.config import cache_from_config, cache_to_config
from fleche.errors import ConfigError
from tests.helpers.layers import call, in_files


def test_bytes_as_text(tmp_path: Path) -> None:
    table: dict[str, Any] = {"template": "cloudpickle", "root": str(tmp_path)}
    for text, number in (("20GB", 20 * 10**9), ("512 MiB", 512 << 20), (1000, 1000)):
        made = cache_from_config({**table, "max_bytes": text})
        assert isinstance(made, SizeLimitedCache)
        assert made.max_bytes == number
        assert cache_to_config(cache_from_config(cache_to_config(made))) == cache_to_config(made)


@pytest.mark.parametrize(
    ("key", "wrong"), [("max_bytes", "much"), ("max_age", "long"), ("max_age", "2x")]
)
def test_mistakes(key: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{wrong}' is no (size|time)"):
        cache_from_config({"template": "memory", key: wrong})


@pytest.mark.parametrize(
    ("key", "wrong", "said"),
    [
        ("max_bytes", f"{'9' * 400}GB", "is no size that there can be"),
        ("max_age", "1000000000d", "is too long a time"),
        ("max_age", "0s", "longer than no time"),
    ],
)
def test_beyond_all_bounds(key: str, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cache_from_config({"template": "memory", key: wrong})


def test_what_is_not_used_goes(tmp_path: Path) -> None:
    """Calls and their values; a call that is used stays, and so does what is new."""
    store = in_files(tmp_path)
    keys = [store.save(call(x=x, result=[x] * 20_000)) for x in range(3)]
    old = time.time() - 100 * 86400
    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    limited = SizeLimitedCache(store, max_age="90d")
    assert limited.max_age == timedelta(days=90)
    assert limited.load(keys[0]).result[0] == 0
    key = limited.save(call(x=9))
    assert {found.key for found in limited.query()} == {keys[0], key}
    assert limited.counts()["evicted"] == 2
    assert limited.verify().ok
    assert limited.gc(dry_run=True).removed == 0


def test_configuration(tmp_path: Path) -> None:
    table = {"type": "local", "root": str(tmp_path), "max_age": "6h"}
    with cache_from_config(table) as made:
        assert isinstance(made, SizeLimitedCache)
        assert made.max_age == timedelta(hours=6)
        with cache_from_config(cache_to_config(made)) as again:
            assert isinstance(again, SizeLimitedCache)
            assert again.max_age == made.max_age
