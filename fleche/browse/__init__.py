"""A browser of stored calls in a terminal: functions, calls, details; search, trees, removal, push.

It needs the package textual, which the extra ``browse`` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleche.caches import BaseCache
from fleche.errors import MissingExtra

if TYPE_CHECKING:
    from textual.app import App

__all__ = ["browse", "browser"]


def browse(cache: BaseCache, *, stack: BaseCache | None = None) -> None:
    """Show what is in a cache, in this terminal, until the user quits.

    Args:
        cache: stays open. A stack can push to its further layers.
        stack: the one to whose further layers calls are pushed, if that is not ``cache``: with the
            first layer as ``cache``, no other machine is asked before something is pushed.

    Raises:
        MissingExtra: textual is not installed.
    """
    browser(cache, stack=stack).run()


def browser(cache: BaseCache, *, stack: BaseCache | None = None) -> App[None]:
    """Return the browser without running it, for a driver of tests or an application of one's own.

    Args:
        cache: what it shows.
        stack: as for :func:`browse`.

    Raises:
        MissingExtra: textual is not installed.
    """
    try:
        from fleche.browse._app import Browser
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise MissingExtra("the browser needs textual: pip install textual rich") from None
    found: Any = Browser(cache, cache if stack is None else stack)
    return found  # type: ignore[no-any-return]
