"""``fleche du``, ``evict``, ``gc``, ``verify`` and ``stats``: how much there is, and less of it."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import click

from fleche._amounts import as_age, as_seconds
from fleche.caches import BaseCache, CallSize, Row, VerifyReport
from fleche.call import CallRecord, LazyCall
from fleche.cli import _format as form
from fleche.cli._calls import print_calls
from fleche.cli._options import Session, common, limited
from fleche.cli._screen import Column
from fleche.cli._selection import SORT_TIME, NothingFound, Selection, nothing_like, selecting
from fleche.digest import Digest, short_key
from fleche.storage import Usage

__all__ = ["du", "evict", "gc", "stats", "verify"]


_HOUR = 3600.0
"""Seconds; hits are counted by the hour."""


# -- du --------------------------------------------------------------------------------------------


@dataclass
class Group:
    """Calls that have something in common, and what they take together."""

    calls: int = 0
    bytes: float = 0
    seconds: float = 0
    used: float = 0
    hits: int = 0
    misses: int = 0
    saved: float = 0

    def add(self, usage: Usage | Group) -> None:
        """Add what is counted of their use."""
        self.hits += usage.hits
        self.misses += usage.misses
        self.saved += usage.saved


def _by_tag(record: CallRecord) -> Iterable[str]:
    tags = record.metadata.get("tags", {})
    return [f"{name}={tags[name]}" for name in tags] or ["(no tag)"]


def _by_runtime(field: str) -> Callable[[CallRecord], Iterable[str]]:
    def of(record: CallRecord) -> Iterable[str]:
        return [str(record.metadata.get("runtime", {}).get(field) or "(not known)")]

    return of


_GROUPINGS: dict[str, Callable[[CallRecord], Iterable[str]]] = {
    "name": lambda record: [record.name],
    "tag": _by_tag,
    "user": _by_runtime("user"),
    "machine": _by_runtime("host"),
}


@click.command()
@selecting
@click.option(
    "--by",
    type=click.Choice(list(_GROUPINGS)),
    default="name",
    show_default=True,
    help="What to group by. A call with several tags counts for each.",
)
@limited
@common
def du(session: Session, selection: Selection, by: str, limit: int) -> int:
    """Show what takes how much space.

    Of a value that several calls need, each takes an equal part. The last use is when a call was
    stored, or the hour in which a result of its function was last found.

    --json prints one line for each group: name, calls, bytes, part, seconds, used.
    """
    cache = session.near
    with session.screen.counting("looking at entries:") as told:
        report = cache.disk_usage(progress=told)
    hits = _last_hits(cache)
    usage = _usage_of(report.calls)
    groups: dict[str, Group] = defaultdict(Group)
    for call in selection.calls(cache):
        size, used = usage.get(call.key, (0.0, 0.0))
        used = max(used, hits.get(call.record.name, 0.0))
        for name in _GROUPINGS[by](call.record):
            group = groups[name]
            group.calls += 1
            group.bytes += size
            group.seconds += Row.of(call.key, call.record).seconds or 0
            group.used = max(group.used, used)
    ordered = sorted(groups.items(), key=lambda each: -each[1].bytes)
    loose = report.loose if selection.is_everything else 0
    if not ordered and not session.json:
        raise NothingFound(nothing_like(selection, cache))
    _print_usage(session, by, ordered, limit, loose)
    return 0 if ordered else 1


def _usage_of(calls: Iterable[CallSize]) -> dict[Digest, tuple[float, float]]:
    """Return of each call its bytes in all layers of a stack, and when it was last used."""
    now = time.time()
    found: dict[Digest, tuple[float, float]] = {}
    for each in calls:
        size, used = found.get(each.key, (0.0, 0.0))
        found[each.key] = size + each.bytes, max(used, now - each.idle)
    return found


def _last_hits(cache: BaseCache) -> dict[str, float]:
    """Return for each function the beginning of the hour in which a result was last found."""
    found: dict[str, float] = {}
    for each in cache.usage():
        if each.hits:
            found[each.name] = max(found.get(each.name, 0.0), each.hour * _HOUR)
    return found


def _print_usage(
    session: Session, by: str, groups: Sequence[tuple[str, Group]], limit: int, loose: int
) -> None:
    total = sum(group.bytes for _, group in groups) or 1
    shown = groups[:limit] if limit else groups
    screen = session.screen
    if session.json:
        screen.lines(
            {
                by: name,
                "calls": group.calls,
                "bytes": round(group.bytes),
                "part": round(group.bytes / total, 4),
                "seconds": round(group.seconds, 3),
                "used": form.iso(group.used),
            }
            for name, group in shown
        )
        return
    screen.table(
        (
            Column("size", right=True, style="bold"),
            Column("", style="cyan", goes=2),
            Column(by, least=12),
            Column("calls", right=True),
            Column("computed in", right=True, goes=3),
            Column("last use", style="dim", goes=1),
        ),
        [
            (
                form.size(group.bytes),
                screen.share_bar(group.bytes / total),
                form.printable(name),
                f"{group.calls:,}",
                form.seconds(group.seconds),
                form.ago(group.used),
            )
            for name, group in shown
        ],
    )
    if len(groups) > len(shown):
        screen.say(f"… {len(groups) - len(shown)} more; -n 0 shows all", "dim")
    if by != "tag":
        calls = form.count(sum(group.calls for _, group in groups), "call")
        screen.say(f"{form.size(total)} in {calls}", "dim")
    if loose:
        screen.say(f"{form.size(loose)} that no call needs; fleche gc frees them", "yellow")


# -- evict -----------------------------------------------------------------------------------------


@click.command()
@selecting
@click.option("--older-than", metavar="AGE", help="Began longer ago: 30d, 6mo.")
@click.option("--unused", metavar="AGE", help="Neither it nor its function was used for so long.")
@click.option("--all", "everything", is_flag=True, help="All calls, if nothing is said to choose.")
@click.option("--dry-run", is_flag=True, help="Only show what would be forgotten.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--everywhere", is_flag=True, help="Of a stack, forget them on the other machines, too."
)
@common
def evict(
    session: Session,
    selection: Selection,
    older_than: str | None,
    unused: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Forget calls.

    The large values of a forgotten call stay until 'fleche gc', since other calls may need them.
    Of a stack, calls are forgotten on this machine alone, unless --everywhere is given.

    --json prints one document: evicted, bytes, dry_run, keys.
    """
    if selection.is_everything and not (older_than or unused or everything):
        raise click.ClickException("say which calls, or --all")
    if not dry_run:
        session.check_meant()
    cache = session.near
    usage = _usage_of(cache.disk_usage().calls)
    found = list(_chosen(cache, selection, older_than, unused, usage))
    keys = [call.key for call in found]
    taken = sum(usage[key][0] for key in set(keys) & usage.keys())
    what = form.count(len(found), "call")
    if found and not dry_run:
        cache.check_writable("evict")
        if not (yes or session.json):
            _print_some(session, cache, found)
            if not _confirmed(f"Forget {what} ({form.size(taken)})?"):
                click.echo("fleche: nothing was forgotten", err=True)
                return 1
    gone = 0 if dry_run else cache.evict_many(keys)
    if session.json:
        session.screen.document(
            {"evicted": gone, "bytes": round(taken), "dry_run": dry_run, "keys": keys}
        )
    elif dry_run and found:
        _print_some(session, cache, found)
        session.screen.say(f"would forget {what}, {form.size(taken)}", "yellow")
    elif found:
        session.screen.say(f"forgot {form.count(gone, 'call')}, {form.size(taken)}")
        session.screen.say("fleche gc frees what no other call needs, an hour later", "dim")
    else:
        raise NothingFound(nothing_like(selection, cache))
    return 0 if found else 1


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.ClickException(
            "there is no terminal to ask on, so nothing was forgotten; --yes does without"
        ) from None


def _chosen(
    cache: BaseCache,
    selection: Selection,
    older_than: str | None,
    unused: str | None,
    usage: Mapping[Digest, tuple[float, float]],
) -> Iterable[LazyCall]:
    now = time.time()
    began_before = now - as_age(older_than).total_seconds() if older_than else None
    used_before = now - as_age(unused).total_seconds() if unused else None
    hits = _last_hits(cache) if unused else {}
    for call in selection.calls(cache):
        if began_before is not None and call.record.sort_time.timestamp() > began_before:
            continue
        if used_before is not None:
            _, used = usage.get(call.key, (0.0, now))
            last = max(used, hits.get(call.record.name, -_HOUR) + _HOUR)
            if last > used_before:
                continue
        yield call


def _print_some(session: Session, cache: BaseCache, calls: Sequence[LazyCall]) -> None:
    newest = sorted(calls, key=SORT_TIME, reverse=True)
    print_calls(session, cache, newest[:10])
    if len(calls) > 10:
        session.screen.say(f"… {form.count(len(calls) - 10, 'more call')}", "dim")


# -- gc --------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--grace", metavar="AGE", default="1h", show_default=True, help="Leave alone what is younger."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@common
def gc(session: Session, grace: str, dry_run: bool) -> int:
    """Remove the values that no call refers to.

    It is safe at any time, while other processes use the cache, and safe to interrupt. Caches on
    other machines are left alone.

    --json prints one document: removed, freed, kept, pins, young (bytes), dry_run.
    """
    seconds = as_seconds(grace)
    if not dry_run:
        session.check_meant()
    with session.screen.counting("looking at entries:") as told:
        report = session.cache.gc(seconds, dry_run=dry_run, progress=told)
    if session.json:
        session.screen.document({**asdict(report), "dry_run": dry_run})
        return 0
    verb = "would free" if dry_run else "freed"
    what = form.count(report.removed, "value")
    session.screen.say(f"{verb} {form.size(report.freed)}: {what} that no call needs")
    kept = form.count(report.kept, "value")
    young = f", or younger than {grace}" if seconds else ""
    session.screen.say(f"{kept} kept: needed by calls{young}", "dim")
    if report.young:
        session.screen.say(
            f"{form.size(report.young)} that no call needs are younger than {grace}: "
            "while nothing else uses the cache, --grace 0 frees them",
            "yellow",
        )
    if report.pins:
        session.screen.say(f"{form.count(report.pins, 'call')} given up that never ended", "dim")
    return 0


# -- verify ----------------------------------------------------------------------------------------

_FLAWS = {
    "corrupt": "damaged; --repair removes them",
    "broken": "lack a shared buffer; --repair removes them",
    "dangling": "lack their result; --repair removes them",
    "untrusted": "not signed by a known key, or of a newer fleche; never removed",
    "misfiled": "stand under a key that is not theirs, or are of an older fleche",
    "incomplete": "have their result, but not all arguments",
}


@click.command()
@click.option("--repair", is_flag=True, help="Remove what is damaged, and calls without result.")
@common
def verify(session: Session, repair: bool) -> int:
    """Check every byte of every entry.

    No value is opened. The exit status is 1 if there is damage, repaired or not.

    --json prints one document: ok, values, calls, corrupt, broken, dangling, untrusted, misfiled,
    incomplete (each a list of digests), orphaned, removed.
    """
    if repair:
        session.check_meant()
    with session.screen.counting("checking entries:") as told:
        report = session.cache.verify(repair, progress=told)
    if session.json:
        lists = {name: list(getattr(report, name)) for name in _FLAWS}
        session.screen.document(
            {
                "ok": report.ok,
                "values": report.values,
                "calls": report.calls,
                **lists,
                "orphaned": report.orphaned,
                "removed": report.removed,
            }
        )
    else:
        _print_check(session, report, repair=repair)
    return 0 if report.ok else 1


def _print_check(session: Session, report: VerifyReport, *, repair: bool) -> None:
    screen = session.screen
    what = f"{form.count(report.calls, 'call')}, {form.count(report.values, 'value')}"
    if report.ok:
        screen.say(f"all well: {what}", "green")
    else:
        screen.say(f"damage in {what}", "bold red")
    for name, meaning in _FLAWS.items():
        digests = getattr(report, name)
        if digests:
            some = ", ".join(map(short_key, digests[:5])) + (", …" if len(digests) > 5 else "")
            screen.say(f"  {len(digests):,} {name}: {meaning}")
            screen.say(f"    {some}", "dim")
    if report.removed:
        screen.say(f"{report.removed:,} removed")
    elif repair and not report.ok:
        screen.say("nothing of it could be removed", "yellow")
    if report.orphaned:
        what = form.count(report.orphaned, "value")
        screen.say(f"{what} that no call needs; fleche gc removes them", "dim")


# -- stats -----------------------------------------------------------------------------------------


@click.command()
@selecting
@common
def stats(session: Session, selection: Selection) -> int:
    """Count calls, values and bytes.

    'computed in' is what the calls took when they ran; 'saved' is what their hits have saved since.

    --json prints one document: calls, values, bytes, seconds, hits, misses, saved, first, last; and
    by function its calls, seconds, hits, misses, saved.
    """
    cache = session.near
    with session.screen.counting("looking at entries:") as told:
        report = cache.stats(progress=told)
    groups: dict[str, Group] = defaultdict(Group)
    times = []
    for call in selection.calls(cache):
        row = Row.of(call.key, call.record)
        group = groups[call.record.name]
        group.calls += 1
        group.seconds += row.seconds or 0
        if row.started is not None:
            times.append(row.started)
            group.used = max(group.used, row.started.timestamp())
    for usage in cache.usage():
        if selection.is_everything or usage.name in groups:
            groups[usage.name].add(usage)
    ordered = sorted(groups.items(), key=lambda each: (-each[1].seconds, -each[1].calls))
    total = Group()
    for _, group in ordered:
        total.calls, total.seconds = total.calls + group.calls, total.seconds + group.seconds
        total.add(group)
    first, last = (min(times), max(times)) if times else (None, None)
    if session.json:
        session.screen.document(
            {
                "calls": total.calls,
                "values": report.values,
                "bytes": report.bytes,
                "seconds": total.seconds,
                "hits": total.hits,
                "misses": total.misses,
                "saved": total.saved,
                "first": form.iso(first),
                "last": form.iso(last),
                "functions": {
                    name: {
                        "calls": group.calls,
                        "seconds": group.seconds,
                        "hits": group.hits,
                        "misses": group.misses,
                        "saved": group.saved,
                    }
                    for name, group in ordered
                },
            }
        )
        return 0 if total.calls else 1
    session.screen.pairs(
        [
            ("calls", f"{total.calls:,} of {form.count(len(ordered), 'function')}"),
            ("values", f"{report.values:,} beside them"),
            ("size", form.size(report.bytes)),
            ("computed in", form.seconds(total.seconds)),
            ("saved", form.saving(total.hits, total.misses, total.saved)),
            ("first", form.ago(first)),
            ("last", form.ago(last)),
        ]
    )
    if ordered:
        session.screen.say()
        _print_functions(session, ordered)
    return 0 if total.calls else 1


def _print_functions(session: Session, groups: Sequence[tuple[str, Group]]) -> None:
    session.screen.table(
        (
            Column("computed in", right=True, style="bold"),
            Column("function", least=12),
            Column("calls", right=True),
            Column("each", right=True, goes=3),
            Column("hits", right=True, goes=2),
            Column("saved", right=True, goes=4),
            Column("last", style="dim", goes=5),
        ),
        [
            (
                form.seconds(group.seconds),
                form.printable(name),
                f"{group.calls:,}",
                form.seconds(group.seconds / group.calls) if group.calls else "",
                f"{group.hits:,}" if group.hits else "",
                form.seconds(group.saved) if group.hits else "",
                form.ago(group.used or None),
            )
            for name, group in groups[:20]
        ],
    )
