"""Code that was accepted: what it computes was computed before, by code as it was then."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleche.digest import Digest, digest

__all__ = ["Acceptance", "newest_acceptances"]


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
