"""What is active: the cache, the metadata, the tags.

Each is a *setting*. Called without arguments, its function returns what is active; called with
some, it sets it, and what it returns can be used as a ``with`` block that puts the former back::

    cache("shared")  # from now on
    with tags(sample=7):  # in here
        ...

**Where a setting holds.** Inside a ``with`` block it belongs to the block, which includes the
asyncio tasks started in it but not its threads, as with any :class:`contextvars.ContextVar`;
:func:`fleche.wrap_executor` carries it to the threads or processes of an executor. A plain call in
the main thread, outside any block, holds for the process: for all threads, those started earlier
too. A plain call in another thread or in an asyncio task holds for that thread or task alone. A
line at the top of a module or of a notebook's cell counts as the main thread even where, as in a
notebook, an event loop runs it.
"""

from fleche.state._active import (
    active_cache,
    cache,
    check_is_cache,
    collectors,
    forced_cache,
    forcing,
    holding,
    is_cache_set,
    meta,
    named_cache,
    project,
    rebuild_cache,
    reset,
    tags,
)
from fleche.state._variable import Setting

__all__ = [
    "Setting",
    "active_cache",
    "cache",
    "check_is_cache",
    "collectors",
    "forced_cache",
    "forcing",
    "holding",
    "is_cache_set",
    "meta",
    "named_cache",
    "project",
    "rebuild_cache",
    "reset",
    "tags",
]
