"""What people ask to be copied: which calls, from where to where, and what is shown meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleche.caches._progress import Meter, Reported, ShowProgress, watching
from fleche.caches.maintenance import SyncReport
from fleche.call import LazyCall, QueryCall
from fleche.digest import Digest

if TYPE_CHECKING:
    from fleche.caches._base import BaseCache

__all__ = ["check_is_cache", "combined", "copy_along", "sync_calls", "transfer_calls"]


def combined(template: object, fields: Mapping[str, Any]) -> QueryCall:
    """Return the template that asks for what ``template`` and ``fields`` ask for together.

    Raises:
        TypeError: ``template`` is no template.
    """
    if template is None:
        return QueryCall.of(**fields)
    if not isinstance(template, QueryCall):
        raise TypeError(
            f"{template!r} is no template; the fields of one go by name: query(name={template!r})"
        )
    if not fields:
        return template
    return template.merged(QueryCall.of(**fields))


def check_is_cache(found: object) -> None:
    """Refuse what is no cache.

    Raises:
        TypeError: it is none.
    """
    from fleche.caches._base import BaseCache

    if not isinstance(found, BaseCache):
        raise TypeError(
            f"{found!r} is not a cache; one that is configured: load_cache_config(name)"
        )


def transfer_calls(
    source: BaseCache,
    target: BaseCache,
    calls: QueryCall | Iterable[LazyCall] | None,
    fields: Mapping[str, Any],
    *,
    progress: ShowProgress,
    pop: bool,
    overwrite: bool,
) -> int:
    """Copy calls; see :meth:`fleche.caches.BaseCache.transfer`."""
    check_is_cache(target)
    target.check_writable("transfer")
    if pop:
        source.check_writable("pop")
    if fields or calls is None or isinstance(calls, QueryCall):
        keys = _keys(source, combined(calls, fields))
    else:
        keys = [call.key for call in calls]
    with watching(progress, "copying") as report:
        copied = _copy(source, target, keys, Meter(report, len(keys)), overwrite=overwrite)
    if pop:
        source.evict_many(itertools.compress(keys, target.contains_many(keys)))
    return copied


def sync_calls(
    one: BaseCache, other: BaseCache, wanted: QueryCall, progress: ShowProgress
) -> SyncReport:
    """Copy both ways; see :meth:`fleche.caches.BaseCache.sync`."""
    check_is_cache(other)
    for cache in (one, other):
        cache.check_writable("sync")
    ours, theirs = _keys(one, wanted), _keys(other, wanted)
    with watching(progress, "copying both ways") as report:
        total = len(ours) + len(theirs)
        there = Meter(report, total)
        sent = _copy(one, other, ours, there)
        received = _copy(other, one, theirs, Meter(report, total, there.now()))
    return SyncReport(sent, received)


def copy_along(
    ways: Sequence[tuple[BaseCache, BaseCache]],
    template: QueryCall | None,
    progress: ShowProgress,
    fields: Mapping[str, Any],
    what: str,
) -> int:
    """Copy the matching calls along several ways; return how many copies were made."""
    copied, latest = 0, Reported(0)
    with watching(progress, what) as report:
        for source, target in ways:
            before = latest

            def count_on(number: Reported, before: Reported = before) -> None:
                nonlocal latest
                latest = number.after(before)
                if report is not None:
                    report(latest)

            copied += source.transfer(target, template, progress=count_on, **fields)
    return copied


def _keys(cache: BaseCache, wanted: QueryCall) -> list[Digest]:
    return [key for key, _ in cache.backend.query(wanted, keys_only=True)]


def _copy(
    source: BaseCache,
    target: BaseCache,
    keys: Iterable[Digest],
    meter: Meter,
    *,
    overwrite: bool = False,
) -> int:
    from fleche.caches._transfer import transfer

    return transfer(source.backend, target.backend, keys, meter, overwrite=overwrite)
