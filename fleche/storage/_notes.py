"""What is kept beside calls: how often results were used, and which code was accepted for other."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleche.digest import Digest, digest

__all__ = ["FIGURES", "Acceptance", "Usage", "merge_usage", "newest_acceptances"]


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to the calls of one function in one hour, on one machine and account.

    Attributes:
        hour: hours since the epoch (UTC).
        host: the machine on which it happened.
        user: the account.
        name: qualified name of the function.
        module: its module; empty if that is not known.
        hits: how often a stored result was found.
        misses: how often the body ran instead, and its result was stored.
        saved: seconds that the bodies of the hits had taken.
        spent: seconds that the bodies of the misses took.
        bytes: size of the results that were found.
        cache: the cache where that was counted, if it was copied from there with results.
    """

    hour: int
    host: str
    user: str
    name: str
    module: str = ""
    hits: int = 0
    misses: int = 0
    saved: float = 0.0
    spent: float = 0.0
    bytes: int = 0
    cache: str = ""

    @property
    def place(self) -> tuple[int, str, str, str, str, str]:
        """What tells this counter from others."""
        return self.hour, self.host, self.user, self.name, self.module, self.cache

    def merge(self, other: Usage) -> Usage:
        """Return what two counters of the same place say together.

        Counters only grow: of two copies of the same one, the larger is the later.
        """
        if self.cache:
            figures = {name: max(getattr(self, name), getattr(other, name)) for name in FIGURES}
            return msgspec.structs.replace(self, **figures)
        return msgspec.structs.replace(
            self,
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            saved=self.saved + other.saved,
            spent=self.spent + other.spent,
            bytes=self.bytes + other.bytes,
        )


FIGURES = ("hits", "misses", "saved", "spent", "bytes")


def merge_usage(rows: Iterable[Usage]) -> list[Usage]:
    """Return one counter for each place, in order of time."""
    found: dict[tuple[int, str, str, str, str, str], Usage] = {}
    for row in rows:
        known = found.get(row.place)
        found[row.place] = row if known is None else known.merge(row)
    return [found[place] for place in sorted(found)]


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That some parts of code, as they are now, compute together what others computed then.

    A part is a function, a class, a variable, ...: what a result depends on. Its name is that of
    its module, a colon, and its own. Functions that use all the parts of :attr:`now` find the
    results of the same code with those of :attr:`then`.

    Attributes:
        now: what counts now, by the names of the parts: digests, or what mere names stand for.
        then: what counted then. Parts that are in one of the two alone are new, or are gone.
        function: the function for which this was said.
        when: ISO 8601, UTC.
        host: the machine where it was said.
        user: the account.
    """

    now: dict[str, str]
    then: dict[str, str]
    function: str = ""
    when: str = ""
    host: str = ""
    user: str = ""

    @property
    def key(self) -> Digest:
        """The digest of what was accepted, without the time and the account."""
        return digest([sorted(each.items()) for each in (self.now, self.then)])


def newest_acceptances(rows: Iterable[Acceptance]) -> list[Acceptance]:
    """Return what was said last of the same code as it is now, the newest first."""
    found: dict[frozenset[tuple[str, str]], Acceptance] = {}
    for row in sorted(rows, key=lambda row: (row.when, row.key), reverse=True):
        found.setdefault(frozenset(row.now.items()), row)
    return list(found.values())
