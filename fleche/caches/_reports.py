"""What housekeeping found and did."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from fleche.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GcReport", "RedigestReport", "Report", "VerifyReport"]


@dataclass(frozen=True)
class Report:
    """Base of the reports. The reports of several caches add up."""

    def __add__(self, other: Self) -> Self:
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        return type(self)(**sums)

    def __str__(self) -> str:
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            number = value if isinstance(value, int) else len(value)
            parts.append(f"{field.name.replace('_', ' ')}: {number}")
        return ", ".join(parts)


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
        untrusted: values that are not signed by a known key.
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
