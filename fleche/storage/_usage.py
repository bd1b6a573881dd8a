"""How often stored results were used: counters by hour, machine, account and function."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

__all__ = ["Usage", "merge_usage"]


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
