"""What people ask to be copied: which calls, from where to where, and what is shown meanwhile."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from fleche.caches._progress import Meter, Reported, ShowProgress, watching
from fleche.caches.maintenance import NoteUsage, ReadUsage, SyncReport, UsageReport
from fleche.call import QUERY_FIELDS, LazyCall, QueryCall
from fleche.digest import Digest
from fleche.errors import FlecheError
from fleche.storage import Usage, merge_usage

if TYPE_CHECKING:
    from fleche.caches._base import BaseCache

__all__ = ["check_is_cache", "combined", "copy_along", "sync_calls", "transfer_calls"]


log = logging.getLogger("fleche.caches")


def combined(template: object, fields: Mapping[str, Any]) -> QueryCall:
    """Return the template that asks for what ``template`` and ``fields`` ask for together.

    Raises:
        TypeError: ``template`` is no template, or calls have no such field.
    """
    for name in fields:
        if name not in QUERY_FIELDS:
            raise TypeError(_no_field(name))
    if template is None:
        return QueryCall.of(**fields)
    if not isinstance(template, QueryCall):
        raise TypeError(
            f"{template!r} is no template; the fields of one go by name: query(name={template!r})"
        )
    if not fields:
        return template
    return template.merged(QueryCall.of(**fields))


def _no_field(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, QUERY_FIELDS, 1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return (
        f"calls have no field {name!r} to ask for{hint} There are {', '.join(QUERY_FIELDS)}; "
        f"an argument of the function goes by its name, arguments={{{name!r}: ...}}"
    )


def check_is_cache(found: object) -> None:
    """Refuse what is no cache.

    Raises:
        TypeError: it is none.
    """
    from fleche.caches._base import BaseCache

    if not isinstance(found, BaseCache):
        raise TypeError(
            f"{found!r} is not a cache; one that is configured, or in a directory: fleche.open(...)"
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
    wanted: QueryCall | None = None
    if fields or calls is None or isinstance(calls, QueryCall):
        wanted = combined(calls, fields)
        keys = _keys(source, wanted)
    else:
        keys = [_key_of(call) for call in calls]
    with watching(progress, "copying") as report:
        copied = _copy(source, target, keys, Meter(report, len(keys)), overwrite=overwrite)
    if keys:
        _copy_accepted(source, target)
        _copy_usage(source, target, wanted)
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
    for source, target in ((one, other), (other, one)):
        _copy_accepted(source, target)
        _copy_usage(source, target, wanted)
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


def _copy_accepted(source: BaseCache, target: BaseCache) -> None:
    """Let code that was accepted count in another cache, too, to which results were copied."""
    accepted = source.read_accepted(0)
    if accepted is None:
        return
    there = target.read_accepted(0)
    known = {} if there is None else {row.key: row.when for row in there.rows}
    rows = [row for row in accepted.rows if row.when > known.get(row.key, "")]
    if rows:
        target.note_accepted(rows)


def _copy_usage(source: BaseCache, target: BaseCache, wanted: QueryCall | None) -> None:
    """Copy the counters of use of functions all of whose calls were copied.

    They stay apart from those of the other cache, by the name of the cache where they were counted,
    and are the same when they are copied again: nothing counts twice.
    """
    if wanted is None or wanted != QueryCall(name=wanted.name, module=wanted.module):
        return
    try:
        source.counter.flush()
        report = source.backend.maintain(ReadUsage(named=True))
        rows = report.rows if isinstance(report, UsageReport) else ()
        of_these = [row for row in rows if row.cache and _is_of(row, wanted)]
        if of_these:
            target.backend.maintain(NoteUsage(tuple(merge_usage(of_these))))
    except FlecheError as error:
        log.debug("%r: counters of use were not copied: %s", source, error)


def _is_of(row: Usage, wanted: QueryCall) -> bool:
    name_fits = wanted.name is None or fnmatchcase(row.name, wanted.name)
    return name_fits and wanted.module in (None, row.module)


def _key_of(call: object) -> Digest:
    if not isinstance(call, LazyCall):
        raise TypeError(f"{call!r} is no call: those that a query gives are copied, or a template")
    return call.key


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
