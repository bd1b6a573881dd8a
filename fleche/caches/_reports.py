"""What housekeeping found and did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fleche.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "GcReport",
    "RedigestReport",
    "Report",
    "StatsReport",
    "SyncReport",
    "VerifyReport",
]


@dataclass(frozen=True)
class Report:
    """Base of the reports. The reports of several caches add up."""

    def __add__(self, other: Self) -> Self:
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)
        }
        return type(self)(**sums)

    def __str__(self) -> str:
        return ", ".join(f"{name}: {number}" for name, number in self._numbers())

    def _numbers(self) -> Iterator[tuple[str, int]]:
        for each in fields(self):
            value: Any = getattr(self, each.name)
            if isinstance(value, Mapping):
                yield from sorted(value.items())
            else:
                number = value if isinstance(value, int) else len(value)
                yield each.name.replace("_", " "), number


@dataclass(frozen=True)
class GcReport(Report):
    """What a garbage collection removed, or with ``dry_run`` would remove.

    Attributes:
        removed: values that no call refers to.
        freed: their size in bytes.
        kept: values that stay.
        leases: marks of calls that began too long ago to be running still.
    """

    removed: int = 0
    freed: int = 0
    kept: int = 0
    leases: int = 0


@dataclass(frozen=True)
class VerifyReport(Report):
    """What a walk over everything found.

    Attributes:
        values: how many values there are.
        calls: how many finished calls.
        corrupt: values and records that are damaged.
        untrusted: values and records that are not signed by a known key, or that only a newer
            fleche can read; they are never removed.
        broken: values that refer to a shared buffer which is gone or corrupt.
        dangling: calls whose result is gone, corrupt or broken.
        incomplete: calls whose result is here, but not all of their arguments.
        misfiled: calls whose key does not match their content, or is of an older scheme.
        orphaned: how many values no call refers to; ``gc()`` removes them.
        removed: how many corrupt entries, broken values and dangling calls were removed.
    """

    values: int = 0
    calls: int = 0
    corrupt: tuple[Digest, ...] = ()
    untrusted: tuple[Digest, ...] = ()
    broken: tuple[Digest, ...] = ()
    dangling: tuple[Digest, ...] = ()
    incomplete: tuple[Digest, ...] = ()
    misfiled: tuple[Digest, ...] = ()
    orphaned: int = 0
    removed: int = 0

    @property
    def ok(self) -> bool:
        """Whether every stored call can be answered."""
        wrong = (self.corrupt, self.untrusted, self.broken, self.dangling, self.misfiled)
        return not any(wrong)


@dataclass(frozen=True)
class RedigestReport(Report):
    """What became of calls whose key did not match.

    Attributes:
        calls: how many finished calls there are.
        rekeyed: the new keys.
        failed: the keys of calls that stay as they are: a value of theirs is gone or cannot be
            opened here, or an older scheme digested the code that is part of the key.
    """

    calls: int = 0
    rekeyed: tuple[Digest, ...] = ()
    failed: tuple[Digest, ...] = ()


@dataclass(frozen=True)
class StatsReport(Report):
    """How much there is, and how it fared.

    Attributes:
        values: entries of values; a large buffer that values share is an entry of its own.
        calls: records of calls; those of calls that are running count too.
        bytes: what all of them take, as far as the storages can tell.
        events: how often each event befell the cache object that was asked, since it was made.
    """

    values: int = 0
    calls: int = 0
    bytes: int = 0
    events: Counter[str] = field(default_factory=Counter)

    @property
    def hits(self) -> int:
        """How often a result was found."""
        return self.events["hits"]

    @property
    def misses(self) -> int:
        """How often none was, or none that could be used."""
        return self.events["misses"]

    @property
    def errors(self) -> dict[str, int]:
        """How often something went wrong, by its kind (``"corrupt"``, ``"unpack"``, ...)."""
        prefix = "errors."
        found = self.events.items()
        return {name[len(prefix) :]: n for name, n in found if name.startswith(prefix)}


@dataclass(frozen=True)
class SyncReport(Report):
    """What went from one cache to another, and back.

    Attributes:
        sent: calls that the other one lacked.
        received: calls that came from there.
    """

    sent: int = 0
    received: int = 0
