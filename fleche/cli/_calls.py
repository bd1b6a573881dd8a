"""``fleche log`` and ``fleche show``."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import click

from fleche.caches import BaseCache, Row
from fleche.call import LazyCall, parts_of
from fleche.cli import _format as form
from fleche.cli._options import Session, common, everywhere, limited
from fleche.cli._screen import Column
from fleche.cli._selection import (
    SORT_TIME,
    NothingFound,
    Selection,
    find_call,
    key_argument,
    nothing_like,
    selecting,
)
from fleche.digest import Digest, short_key

__all__ = ["as_json", "log", "shorts", "show"]

_SHOWN_APART = ("runtime", "environment", "tags", "cpu")


def shorts(cache: BaseCache, keys: Sequence[Digest]) -> dict[Digest, str]:
    """Return for each key the beginning that is shown."""
    found = cache.backend.shrink(keys) if keys else []
    return {key: short_key(key, short or "") for key, short in zip(keys, found, strict=True)}


def as_json(call: LazyCall) -> dict[str, Any]:
    """Return what ``--json`` says of a call; the page of the command line explains each field."""
    row = Row.of(call.key, call.record)
    return {
        "key": call.key,
        "name": call.record.name,
        "module": call.record.module,
        "version": call.record.version,
        "arguments": {name: form.exact(ref) for name, ref in call.record.arguments.items()},
        "result": form.exact(call.record.result),
        "error": form.exact(call.record.error),
        "started": form.iso(row.started),
        "seconds": row.seconds,
        "user": row.user,
        "host": row.host,
        "tags": call.record.metadata.get("tags", {}),
    }


LOG_COLUMNS = (
    Column("key", style="cyan"),
    Column("function", style="bold", least=12),
    Column("version", goes=5),
    Column("arguments", least=14),
    Column("result", least=10, goes=2),
    Column("when", style="dim", goes=1),
    Column("took", right=True, goes=3),
    Column("where", style="dim", least=8, goes=6),
)


def print_calls(session: Session, cache: BaseCache, calls: Sequence[LazyCall]) -> None:
    """Print calls as a table."""
    keys = shorts(cache, [call.key for call in calls])
    rows = [(call.record, Row.of(call.key, call.record), keys[call.key]) for call in calls]
    session.screen.table(
        LOG_COLUMNS,
        [
            (
                key,
                form.printable(record.name),
                "" if record.version is None else form.printable(str(record.version)),
                form.arguments(record),
                form.outcome(record),
                form.ago(row.started),
                form.seconds(row.seconds),
                form.printable(row.where),
            )
            for record, row, key in rows
        ],
    )


@click.command()
@selecting
@limited
@click.option("--oldest", is_flag=True, help="The oldest first.")
@everywhere
@common
def log(session: Session, selection: Selection, limit: int, oldest: bool) -> int:
    """List calls, the newest first.

    NAME is that of a function, perhaps with the wildcards * and ?; KEY is the key of a call, or
    the beginning of one, of 8 characters or more.

    --json prints one line for each call.
    """
    cache = session.near
    if not limit:
        found = sorted(selection.calls(cache), key=SORT_TIME, reverse=not oldest)
    elif oldest:
        found = heapq.nsmallest(limit + 1, selection.calls(cache), key=SORT_TIME)
    else:
        found = selection.newest(cache, limit + 1)
    shown = found[:limit] if limit else found
    if session.json:
        session.screen.lines(map(as_json, shown))
    elif shown:
        print_calls(session, cache, shown)
        if len(found) > len(shown):
            session.screen.say("… and more; -n 0 shows all", "dim")
    else:
        what = nothing_like(selection, cache)
        more = " on this machine (--everywhere asks the others, too)" if session.leaves_out else ""
        raise NothingFound(f"{what}{more}")
    return 0 if shown else 1


@click.command()
@key_argument("key")
@click.option("--packages", is_flag=True, help="All versions of packages and dependencies.")
@common
def show(session: Session, key: str, packages: bool) -> int:
    """Show all that is known of one call.

    No value is loaded; 'fleche get KEY' does that.
    """
    call = find_call(session, key)
    if session.json:
        session.screen.document(_details(call))
    else:
        short = shorts(session.near, [call.key])[call.key]
        _print_call(session, call, short, everything=packages)
    return 0


def _details(call: LazyCall) -> dict[str, Any]:
    record = call.record
    return {
        **as_json(call),
        "code": record.code,
        "dependencies": call.dependencies,
        "states": {name: form.exact(ref) for name, ref in record.states.items()},
        "children": list(record.children),
        "returns": record.returns,
        "metadata": record.metadata,
        "scheme": record.scheme,
    }


def _print_call(session: Session, call: LazyCall, short: str, *, everything: bool) -> None:
    screen, record = session.screen, call.record
    row = Row.of(call.key, record)
    signature = f"{record.name}({form.arguments(record)})"
    screen.title(form.printable(signature), short)
    metadata = record.metadata
    environment, tags = metadata.get("environment", {}), metadata.get("tags", {})
    processor = metadata.get("cpu", {}).get("seconds")
    when = row.started.astimezone() if row.started else None
    code = short_key(record.code or "")
    screen.pairs(
        [
            ("result", _described(record.result)),
            ("raised", _described(record.error)),
            ("began", f"{when:%Y-%m-%d %H:%M:%S} ({form.ago(when)})" if when else ""),
            ("took", _took(row.seconds, processor)),
            ("where", form.printable(row.where)),
            ("tags", form.printable(", ".join(f"{k}={v}" for k, v in tags.items()))),
            ("module", form.printable(record.module or "")),
            ("version", "" if record.version is None else form.printable(str(record.version))),
            ("code", code and f"{code}, {form.count(len(parts_of(call.dependencies)), 'part')}"),
            ("key", call.key),
        ]
    )
    _print_values(session, "arguments", record.arguments)
    _print_values(session, "states afterwards", record.states)
    _print_lineage(session, call)
    packages = environment.get("packages", {})
    python = " ".join(str(environment.get(n, "")) for n in ("implementation", "python")).strip()
    shown = packages.items() if everything else list(packages.items())[:8]
    left_out = len(packages) - len(shown)
    more = f" and {left_out} more (--packages)" if left_out else ""
    versions = ", ".join(f"{name} {version}" for name, version in shown)
    screen.say()
    screen.pairs(
        [
            ("python", python),
            ("packages", form.printable(versions) + more),
            ("platform", form.printable(str(environment.get("platform", "")))),
            ("directory", form.printable(str(environment.get("cwd") or ""))),
            *(
                (name, form.printable(", ".join(f"{k}={v}" for k, v in fields.items())))
                for name, fields in metadata.items()
                if name not in _SHOWN_APART
            ),
        ]
    )
    if everything and call.dependencies:
        screen.say()
        screen.title("depends on")
        screen.pairs(
            ((short_key(part), label) for label, part in parts_of(call.dependencies).items()),
            indent=2,
        )
        marked = (
            (label, part) for label, part in call.dependencies.items() if part[:1] in ("=", "-")
        )
        names = ", ".join(f"{label} ({part[1:]})" for label, part in marked)
        screen.pairs([("other names", form.printable(names))], indent=2)


def _described(ref: Any) -> str:
    if ref is None:
        return ""
    size = f"  ({form.size(ref.size)})" if ref.size else ""
    return f"{form.value(ref)}{size}"


def _took(wall: float | None, cpu: Any) -> str:
    text = form.seconds(wall)
    if text and isinstance(cpu, int | float):
        text += f" (processor: {form.seconds(float(cpu))})"
    return text


def _print_values(session: Session, title: str, refs: Any) -> None:
    if not refs:
        return
    session.screen.say()
    session.screen.title(title)
    session.screen.pairs(((name, _described(ref)) for name, ref in refs.items()), indent=2)


def _print_lineage(session: Session, call: LazyCall) -> None:
    children = call.children()
    if not children:
        return
    session.screen.say()
    session.screen.title("called", form.count(len(call.record.children), "cached call"))
    shown = children[:5]
    keys = shorts(session.near, [each.key for each in shown])
    lines = [
        (keys[each.key], form.printable(f"{each.name}({form.arguments(each.record)})"))
        for each in shown
    ]
    session.screen.pairs(lines, indent=2)
    if len(call.record.children) > len(shown):
        session.screen.say(f"  … fleche tree {short_key(call.key)}", "dim")
