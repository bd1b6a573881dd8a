"""Tasks of housekeeping, and the reports of what they found and did: plain data, for the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import msgspec

from fleche._html import facts
from fleche._util import override
from fleche.caches.maintenance import GRACE, PIN_AGE
from fleche.digest import Digest
from fleche.storage import Acceptance, Usage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "REPORTS",
    "AcceptedReport",
    "CallSize",
    "DiskUsage",
    "DiskUsageReport",
    "Gc",
    "GcReport",
    "Measure",
    "NoteAccepted",
    "NoteUsage",
    "ReadAccepted",
    "ReadUsage",
    "Report",
    "StatsReport",
    "SyncReport",
    "Task",
    "UsageReport",
    "Verify",
    "VerifyReport",
]


SHOWN = 3
"""A report shows so many parts in full at most, and of more only how many there are."""


class _Task(msgspec.Struct, frozen=True):
    """What tasks have in common."""

    writes: ClassVar[bool] = False

    @property
    def changes(self) -> bool:
        """Whether the task writes, or removes anything."""
        return self.writes


class Gc(_Task, frozen=True, tag="gc"):
    """Remove the values that no call refers to. Answer: :class:`GcReport`.

    Attributes:
        grace: seconds for which a value is left alone.
        pin_age: seconds after which a pin is dropped.
        dry_run: change nothing.
    """

    grace: float = GRACE
    pin_age: float = PIN_AGE
    dry_run: bool = False

    @property
    @override
    def changes(self) -> bool:
        return not self.dry_run


class Verify(_Task, frozen=True, tag="verify"):
    """Check every byte of every entry, opening no value. Answer: :class:`VerifyReport`.

    Attributes:
        repair: remove what is corrupt, and calls whose result is gone.
    """

    repair: bool = False

    @property
    @override
    def changes(self) -> bool:
        return self.repair


class Measure(_Task, frozen=True, tag="measure"):
    """Count entries and bytes. Answer: :class:`StatsReport`."""


class NoteUsage(_Task, frozen=True, tag="note-usage"):
    """Add counters of use to those that are kept. Answer: an empty :class:`UsageReport`.

    Attributes:
        rows: what to add.
    """

    writes = True
    rows: tuple[Usage, ...]


class ReadUsage(_Task, frozen=True, tag="read-usage"):
    """Return the counters of use that are kept. Answer: :class:`UsageReport`.

    Attributes:
        named: they are to be copied: those that were counted here say so, too, by the name of this
            cache, and layers on other machines are asked.
    """

    named: bool = False


class NoteAccepted(_Task, frozen=True, tag="note-accepted"):
    """Keep what was said of code. Answer: an empty :class:`AcceptedReport`.

    Attributes:
        rows: what was said.
    """

    writes = True
    rows: tuple[Acceptance, ...]


class ReadAccepted(_Task, frozen=True, tag="read-accepted"):
    """Return what was said of code. Answer: :class:`AcceptedReport`.

    Attributes:
        near: layers on other machines are not asked.
    """

    near: bool = False


class DiskUsage(_Task, frozen=True, tag="disk-usage"):
    """Divide the bytes that are kept among the calls. Answer: :class:`DiskUsageReport`."""


Task: TypeAlias = (
    Gc | Verify | Measure | DiskUsage | NoteUsage | ReadUsage | NoteAccepted | ReadAccepted
)


@dataclass(frozen=True)
class Report:
    """Base of the reports. The reports of several caches add up."""

    def __add__(self, other: Self) -> Self:
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)
        }
        return type(self)(**sums)

    def __repr__(self) -> str:
        shown = (f"{each.name}={_brief(getattr(self, each.name))}" for each in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        return ", ".join(f"{name}: {number}" for name, number in self._numbers())

    def _repr_html_(self) -> str:
        return facts(type(self).__name__, dict(self._numbers()))

    def _numbers(self) -> Iterator[tuple[str, int]]:
        for each in fields(self):
            value: Any = getattr(self, each.name)
            if isinstance(value, Mapping):
                yield from sorted(value.items())
            else:
                number = value if isinstance(value, int) else len(value)
                yield each.name.replace("_", " "), number


def _brief(value: Any) -> str:
    if isinstance(value, tuple) and len(value) > SHOWN:
        return f"<{len(value)} {type(value[0]).__name__}>"
    return repr(value)


@dataclass(frozen=True, repr=False)
class GcReport(Report):
    """What a garbage collection removed, or with ``dry_run`` would remove.

    Attributes:
        removed: values that no call refers to.
        freed: their size in bytes.
        kept: values that stay.
        pins: pins that are too old for their call to be running still.
        young: bytes of values that no call refers to, and that only their age has saved.
    """

    removed: int = 0
    freed: int = 0
    kept: int = 0
    pins: int = 0
    young: int = 0


@dataclass(frozen=True, repr=False)
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
        accepted: how many times code was accepted that results of other code stand for.
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
    accepted: int = 0

    @property
    def ok(self) -> bool:
        """Whether every stored call can be answered."""
        wrong = (self.corrupt, self.untrusted, self.broken, self.dangling, self.misfiled)
        return not any(wrong)


@dataclass(frozen=True, repr=False)
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


class CallSize(NamedTuple):
    """What one call takes.

    Attributes:
        key: of the call.
        bytes: its entry, and its part of each value that it needs.
        idle: seconds since it was stored, or last used where the cache takes note of that (one that
            is limited in size does), by the clock of its storage.
    """

    key: Digest
    bytes: float
    idle: float


@dataclass(frozen=True, repr=False)
class DiskUsageReport(Report):
    """What takes how much space.

    Attributes:
        calls: every finished call, in any order; what layers share stands there once for each.
        loose: bytes of values that no call needs; ``gc()`` removes them.
        other: bytes of the entries of calls that are running, and of damaged ones.
    """

    calls: tuple[CallSize, ...] = ()
    loose: int = 0
    other: int = 0

    @property
    def bytes(self) -> float:
        """Everything together."""
        return sum(each.bytes for each in self.calls) + self.loose + self.other

    @override
    def _numbers(self) -> Iterator[tuple[str, int]]:
        calls, *others = super()._numbers()
        yield from (calls, ("bytes", round(self.bytes)), *others)


@dataclass(frozen=True, repr=False)
class UsageReport(Report):
    """How often stored results were used.

    Attributes:
        rows: counters by hour, machine, account and function.
    """

    rows: tuple[Usage, ...] = ()


@dataclass(frozen=True, repr=False)
class AcceptedReport(Report):
    """What was said of code.

    Attributes:
        rows: which code computes what other code computed.
    """

    rows: tuple[Acceptance, ...] = ()


@dataclass(frozen=True, repr=False)
class SyncReport(Report):
    """What went from one cache to another, and back.

    Attributes:
        sent: calls that the other one lacked.
        received: calls that came from there.
    """

    sent: int = 0
    received: int = 0


REPORTS: dict[type[Any], type[Report]] = {
    DiskUsage: DiskUsageReport,
    NoteAccepted: AcceptedReport,
    ReadAccepted: AcceptedReport,
    NoteUsage: UsageReport,
    ReadUsage: UsageReport,
    Gc: GcReport,
    Measure: StatsReport,
    Verify: VerifyReport,
}
"""What answers each task."""
