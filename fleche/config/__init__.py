"""``fleche.toml``: which caches there are, and how they are composed.

The composition root: everything below takes finished objects, and only this package knows how a
configuration names them.
"""

from fleche._redact import redact
from fleche.config._build import (
    cache_from_config,
    cache_to_config,
    check_default_metadata,
    default_cache_name,
    load_cache_config,
    load_default_metadata,
)
from fleche.config._find import (
    CacheEntry,
    Config,
    check_config,
    find_config_files,
    load_config,
    user_config_file,
)
from fleche.config._open import open
from fleche.config._starter import starter_config

__all__ = [
    "CacheEntry",
    "Config",
    "cache_from_config",
    "cache_to_config",
    "check_config",
    "check_default_metadata",
    "default_cache_name",
    "find_config_files",
    "load_cache_config",
    "load_config",
    "load_default_metadata",
    "open",
    "redact",
    "starter_config",
    "user_config_file",
]
