"""Accepting new code: what is stored is right for it, too.

What is accepted is what differs between the code of the newest stored call and the code as it is
now, all of it together (:class:`~fleche.storage.Acceptance`). The cache keeps that, and look-ups
use it, so that every function that uses the same parts finds its results again. Calls of still
other code, and those that are accepted one by one, get the key that they have now beside their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fleche._util import batched, host_name, user_name
from fleche.call import CallEntry, LazyCall
from fleche.decorator._search import template_of
from fleche.decorator._spec import CallIdentity, FunctionSpec
from fleche.digest import Digest
from fleche.errors import Indigestible, ParcelError
from fleche.storage import Acceptance

if TYPE_CHECKING:
    from fleche.caches import BaseCache
    from fleche.decorator._function import CachedFunction

__all__ = ["Accepted", "accept_code", "take_back"]

_TOGETHER = 256


@dataclass(frozen=True)
class Accepted:
    """What came of accepting the code of a function.

    Attributes:
        calls: how many stored calls were no hits before, and are now.
        rows: which parts of its code were accepted for which others.
        others: how many stored calls other functions have that use what was accepted, by name.
    """

    calls: int
    rows: tuple[Acceptance, ...]
    others: Counter[str]


def accept_code(
    function: CachedFunction[..., Any],
    fields: Mapping[str, Any] | None = None,
    *,
    cache: BaseCache | None = None,
    dry_run: bool = False,
    others: bool = True,
) -> Accepted:
    """Do what ``function.accept()`` does, and return more of it.

    Args:
        function: a decorated one.
        fields: which calls; if there are any, these alone are accepted, and the code is not.
        cache: where its calls are; the active one, if not given.
        dry_run: change nothing.
        others: look for other functions that use what is accepted; every stored call is read.

    Raises:
        Rejected: the cache is read-only.
    """
    spec = function.spec
    cache = spec.cache() if cache is None else cache
    if not dry_run:
        cache.check_writable("accept")
    singly = bool(fields) or bool(cache.packing.keys)  # nothing signs what is said of code
    work = _Accepting(spec, cache, singly=singly, dry_run=dry_run)
    wanted = cache.query(template_of(spec, dict(fields or {})))
    for calls in batched(wanted.sorted(reverse=True), _TOGETHER):
        work.add(calls)
    rows = tuple(work.rows)
    found = _others(spec, cache, rows) if rows and others else Counter[str]()
    return Accepted(len(work.keys), rows, found)


def take_back(function: CachedFunction[..., Any], *, cache: BaseCache | None = None) -> int:
    """Do what ``function.accept(undo=True)`` does.

    Args:
        function: a decorated one.
        cache: where that was said; the active one, if not given.

    Raises:
        Rejected: the cache is read-only.
    """
    spec = function.spec
    cache = spec.cache() if cache is None else cache
    cache.check_writable("accept")
    code = cache.read_accepted(0)
    said = [row for row in code.rows if row.function == _name(spec)] if code is not None else []
    # what is said last of some code counts: that it is nothing but itself
    rows = [_said(spec, row.now, row.now) for row in said if row.then != row.now]
    if rows:
        cache.note_accepted(rows)
    return len(rows)


def _name(spec: FunctionSpec) -> str:
    return f"{spec.info.module}.{spec.info.name}"


def _said(spec: FunctionSpec, now: dict[str, str], then: dict[str, str]) -> Acceptance:
    return Acceptance(
        now=now,
        then=then,
        function=_name(spec),
        when=datetime.now(timezone.utc).isoformat(),
        host=host_name(),
        user=user_name(),
    )


def _others(spec: FunctionSpec, cache: BaseCache, rows: Iterable[Acceptance]) -> Counter[str]:
    from fleche.caches import absolute_parts

    found: Counter[str] = Counter()
    for call in cache.query():
        record = call.record
        if (record.module, record.name) != (spec.info.module, spec.info.name):
            parts = absolute_parts(call.dependencies, record.module or "")
            if any(row.then.items() <= parts.items() for row in rows):
                found[record.name] += 1
    return found


class _Accepting:
    """What has been accepted so far.

    Attributes:
        keys: of the calls that were no hits.
        rows: what was accepted.
    """

    def __init__(
        self, spec: FunctionSpec, cache: BaseCache, *, singly: bool, dry_run: bool
    ) -> None:
        from fleche.caches import AcceptedCode

        self._spec, self._cache = spec, cache
        self._singly, self._dry_run = singly, dry_run
        self._before = self._code = cache.read_accepted(0) or AcceptedCode(())
        self.keys: set[Digest] = set()
        self.rows: list[Acceptance] = []

    def add(self, calls: Iterable[LazyCall]) -> None:
        """Accept some calls, the newest first."""
        found = [(call, self._identified(call)) for call in calls]
        there = self._stored(each for _, identity in found if identity for each in identity)
        entries: dict[Digest, CallEntry] = {}
        for call, identities in found:
            if not identities or (
                self._spec.hashes_code and not there.isdisjoint(each.key for each in identities)
            ):
                continue
            self._accept_code(call, identities[-1])
            identity = self._spec.with_accepted(identities[-1], self._code)
            if identity.key == call.key:
                if self._spec.hashes_code or self._was_other(call, identities[-1]):
                    self.keys.add(call.key)
            elif identity.key not in self.keys and not self._cache.contains(identity.key):
                entry = self._renewed(call, identity)
                if entry.record.key == identity.key:
                    entries[identity.key] = entry
                    self.keys.add(identity.key)
        if entries and not self._dry_run:
            from fleche.caches import save_entries

            save_entries(self._cache, entries)

    def _identified(self, call: LazyCall) -> list[CallIdentity]:
        """Return the call as it is now: as what was accepted lets it count; last, by its own code.

        There is none for another version, and if an argument is gone, or cannot be opened here.
        """
        spec = self._spec
        if call.record.version != spec.options.version:
            return []
        try:
            raw = spec.identify(spec.expanded(dict(call.arguments), self._cache))
        except (KeyError, ParcelError, Indigestible):
            return []
        first = spec.with_accepted(raw, self._code)
        others = [spec.with_code(first, code) for code in first.others[:-1]]
        return [raw] if first is raw else [first, *others, raw]

    def _stored(self, identities: Iterable[CallIdentity]) -> set[Digest]:
        keys = list(dict.fromkeys(identity.key for identity in identities))
        known = self._cache.contains_many(keys)
        return {key for key, here in zip(keys, known, strict=True) if here}

    def _was_other(self, call: LazyCall, identity: CallIdentity) -> bool:
        """Return whether a call was a hit of other code, of which its function would warn."""
        now, then = self._spec.parts(call, identity.closure)
        return bool(then) and self._before.canonical(now) != self._before.canonical(then)

    def _accept_code(self, call: LazyCall, identity: CallIdentity) -> None:
        """Accept what differs in the code of a call from the code as it is now.

        Where some of that was accepted before, for still other code, results would be lost.
        """
        from fleche.caches import AcceptedCode

        now, then = self._spec.parts(call, identity.closure)
        if self._singly or not now or not then:
            return
        now, spoken = self._code.follow(now)
        then = self._code.canonical(then)
        before = {label: part for label, part in then.items() if now.get(label) != part}
        after = {label: part for label, part in now.items() if then.get(label) != part}
        differing = before.keys() | after.keys()
        if not differing or not spoken.isdisjoint(differing):
            return
        if not after:  # something has to stand for the parts that are gone
            own = f"{self._spec.tracker.module}:{self._spec.info.name}"
            if own not in now:
                return
            after, before = {own: now[own]}, {own: now[own], **before}
        row = _said(self._spec, after, before)
        self.rows.append(row)
        self._code = AcceptedCode([row, *self._code.rows])
        if not self._dry_run:
            self._cache.note_accepted([row])

    def _renewed(self, call: LazyCall, identity: CallIdentity) -> CallEntry:
        """Return the entry of a call under its new key."""
        record = call.record
        notes = {**record.notes, "accepted": datetime.now(timezone.utc).isoformat()}
        renewed = record.replace(
            code=None if identity.code is None else str(identity.code),
            dependencies={} if identity.closure is None else identity.closure.record(),
            covered=None,
            metadata={**record.metadata, "fleche": notes},
            unhashed=self._spec.unhashed,
        )
        return CallEntry(renewed, call.entry.parcels)
