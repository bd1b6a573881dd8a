"""``fleche push``, ``pull`` and ``sync``: copies of calls between caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, wraps
from typing import TypeAlias

import click

from fleche.caches import BaseCache, CacheStack
from fleche.call import LazyCall
from fleche.cli import _format as form
from fleche.cli._options import Session, common, not_empty
from fleche.cli._selection import Selection, selecting

__all__ = ["expected_bytes", "pull", "push", "say_left_out", "sync"]

Pairs: TypeAlias = "list[tuple[BaseCache, BaseCache]]"
"""Caches that calls are copied from, each with one that they are copied to."""


@dataclass(frozen=True)
class Copied:
    """What a copy has done.

    Attributes:
        source: where from.
        target: where to.
        selected: calls that were chosen.
        copied: calls that were not there before, or not with all their values.
        left_out: calls that could not be copied, damaged or refused as they are.
        nbytes: what was read of them.
        seconds: how long it took.
    """

    source: str
    target: str
    selected: int
    copied: int
    left_out: int
    nbytes: int
    seconds: float

    @property
    def there(self) -> int:
        """How many were there already."""
        return max(self.selected - self.copied - self.left_out, 0)


def _copy(
    session: Session,
    source: BaseCache,
    target: BaseCache,
    selection: Selection,
    *,
    dry_run: bool,
) -> Copied:
    """Copy the chosen calls, and show how far it is."""
    target.check_writable("transfer")
    calls = list(selection.calls(source))
    there = target.contains_many([call.key for call in calls]) if calls else []
    lacking = [call for call, known in zip(calls, there, strict=True) if not known]
    names = form.title_of(source), form.title_of(target)
    expected = expected_bytes(lacking)
    if dry_run:
        return Copied(*names, len(calls), len(lacking), 0, expected, 0)
    began = time.monotonic()
    with session.screen.transferring(f"to {names[1]}", len(lacking), expected) as bar:
        # by template, if there is one: then the counters of use go along
        what = selection.of_functions or calls
        copied = source.transfer(target, what, progress=bar.tell) if what else 0
    seconds = time.monotonic() - began
    return Copied(*names, len(calls), copied, bar.left_out, bar.nbytes, seconds)


def expected_bytes(calls: Iterable[LazyCall]) -> int:
    """Return the bytes of the values of some calls, each once."""
    sizes = {ref.address: ref.size for call in calls for ref in call.record.values() if ref.variant}
    return sum(sizes.values())


def _ends(session: Session, from_text: str | None, to_text: str | None, *, towards: bool) -> Pairs:
    """Return where copies go from and to: between the first layer of a stack and the others.

    Args:
        session: knows the cache.
        from_text: what ``--from`` said.
        to_text: what ``--to`` said.
        towards: whether the first layer gives; else it takes.
    """
    source = [session.open(from_text)] if from_text else None
    target = [session.open(to_text, make=True)] if to_text else None
    near, far = (source, target) if towards else (target, source)
    if near is None or far is None:
        cache = session.cache
        layers = cache.layers if isinstance(cache, CacheStack) else (cache,)
        near = near or [layers[0]]
        far = far or list(layers[1:])
    if not far:
        option = "--to" if towards else "--from"
        raise click.ClickException(
            f"the cache is no stack, so say which other one: {option} NAME|PATH"
        )
    pairs = [(one, other) for one in near for other in far]
    return pairs if towards else [(other, one) for one, other in pairs]


def _copy_all(
    session: Session,
    pairs: Pairs,
    selection: Selection,
    *,
    dry_run: bool,
) -> int:
    """Copy the chosen calls from each cache to the other of its pair, and say what was done."""
    done = [_copy(session, *pair, selection, dry_run=dry_run) for pair in pairs]
    if session.json:
        session.screen.document(
            {
                "dry_run": dry_run,
                "copies": [
                    {
                        "from": each.source,
                        "to": each.target,
                        "selected": each.selected,
                        "copied": each.copied,
                        "left_out": each.left_out,
                        "bytes": each.nbytes,
                        "seconds": round(each.seconds, 3),
                    }
                    for each in done
                ],
            }
        )
    for each in () if session.json else done:
        text = f"{each.source} → {each.target}: {_what_was_done(each, dry_run=dry_run)}"
        session.screen.say(text, "yellow" if each.left_out or (dry_run and each.copied) else "")
    left_out = sum(each.left_out for each in done)
    say_left_out(session, left_out)
    return 0 if any(each.selected for each in done) and not left_out else 1


def _what_was_done(copy: Copied, *, dry_run: bool) -> str:
    what = form.count(copy.copied, "call")
    if not (copy.selected or copy.left_out):
        return "no call is like that"
    if dry_run and copy.copied:
        return f"would copy {what}" + (f", about {form.size(copy.nbytes)}" if copy.nbytes else "")
    if not (copy.copied or copy.left_out):
        return f"all {copy.selected:,} there already"
    if copy.nbytes:  # small values are in the records
        rate = form.size(copy.nbytes / max(copy.seconds, 1e-3))
        what += f", {form.size(copy.nbytes)} ({rate}/s)"
    if copy.left_out:
        what += f"; {copy.left_out:,} left out"
        what += f", {copy.there:,} there already" if copy.there else ""
    return what


def say_left_out(session: Session, number: int) -> None:
    """Say of calls that could not be copied where the reasons are."""
    if number and not session.json:
        session.screen.say(
            "what is left out is damaged, or refused: standard error says why; 'fleche verify' "
            "finds damage",
            "yellow",
        )


def _copying(ends: Callable[[Session, str | None, str | None], Pairs]) -> click.Command:
    """Return the command that copies calls between the caches that ``ends`` returns."""
    end = partial(click.option, metavar="NAME|PATH", callback=not_empty)

    @click.command()
    @selecting
    @end("--from", "from_text", help="Copy from this cache.")
    @end("--to", "to_text", help="Copy to this cache.")
    @click.option("--dry-run", is_flag=True, help="Only show what would be copied.")
    @common
    @wraps(ends)
    def copy(
        session: Session,
        selection: Selection,
        from_text: str | None,
        to_text: str | None,
        dry_run: bool,
    ) -> int:
        pairs = ends(session, from_text, to_text)
        return _copy_all(session, pairs, selection, dry_run=dry_run)

    return copy


@_copying
def push(session: Session, from_text: str | None, to_text: str | None) -> Pairs:
    """Copy calls from this machine to the next.

    That is from the first layer of a stack to the others that take them. What is there already is
    not sent again: interrupted, the same command goes on where it was.

    The exit status is 1 if calls were left out that are damaged or refused. --json prints one
    document: dry_run, copies (each: from, to, selected, copied, left_out, bytes, seconds).
    """
    pairs = _ends(session, from_text, to_text, towards=True)
    if to_text is None:
        pairs = [pair for pair in pairs if not pair[1].read_only] or pairs
    return pairs


@_copying
def pull(session: Session, from_text: str | None, to_text: str | None) -> Pairs:
    """Copy calls from the next machine to this one.

    That is from the further layers of a stack to the first. Interrupted, the same command goes on
    where it was.

    --json prints what 'fleche push --json' does.
    """
    return _ends(session, from_text, to_text, towards=False)


@_copying
def sync(session: Session, from_text: str | None, to_text: str | None) -> Pairs:
    """Copy calls both ways.

    Between the first layer of a stack and the others. A call that both have stays as it is.

    --json prints what 'fleche push --json' does.
    """
    pairs = _ends(session, from_text, to_text, towards=True)
    both = [way for one, other in pairs for way in ((one, other), (other, one))]
    for _, target in both:
        target.check_writable("sync")
    return both
