"""How things are measured: alternately, in one run, and as ratios.

A benchmark is a few contenders that do the same work. They take turns, in another order each time,
so that whatever else the machine does meets all of them; each round gives one ratio of every
contender to the reference of the same round, and the medians of those are what is reported.
Absolute times are printed last, since they mean nothing on another machine.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import TypeAlias

__all__ = [
    "MEMORY",
    "REPORTED",
    "SECONDS",
    "SECONDS_AFRESH",
    "SPAN",
    "STATUS",
    "Benchmark",
    "Contender",
    "Measure",
    "Outcome",
    "Setting",
    "Suite",
    "Target",
    "measure",
    "peak_memory",
    "run",
    "seconds_afresh",
]

ENOUGH = 0.02  # seconds that one sample should last, where the work can be repeated
STATUS = Path("/proc/self/status")  # which tells how much memory a process has used, on Linux

Task: TypeAlias = Callable[[], object]
Sample: TypeAlias = Callable[[], float]


def nothing() -> None:
    """Do nothing, before a round."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: what it is called in the tables.
        run: the work.
        before: what has to happen before each sample; it is not measured. Without it, ``run`` is
            repeated until a sample lasts long enough to be timed.
        note: the settings it runs with.
    """

    name: str
    run: Task
    before: Task = nothing
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """What is measured.

    Attributes:
        unit: what a sample counts.
        sampler: makes, of a contender (and whether it is quick), the function that takes a sample.
    """

    unit: str
    sampler: Callable[[Contender, bool], Sample]


# -- what can be measured --------------------------------------------------------------------------


def _seconds(contender: Contender, quick: bool) -> Sample:
    """Time the work in this process, once it is warm."""
    contender.before()
    contender.run()
    number = _repetitions(contender) if contender.before is nothing and not quick else 1

    def sample() -> float:
        contender.before()
        gc.collect()
        return _time(contender.run, number) / number

    return sample


def _repetitions(contender: Contender) -> int:
    number = 1
    while _time(contender.run, number) < ENOUGH:
        number *= 2
    return number


def _time(task: Task, number: int) -> float:
    begin = perf_counter()
    for _ in range(number):
        result = task()
    seconds = perf_counter() - begin
    del result  # freeing the last one is not part of the work
    return seconds


def seconds_afresh(task: Task, before: Task = nothing) -> float:
    """Return the seconds that ``task`` takes in a new interpreter, after ``before`` there."""
    return _in_new_process(_cold_seconds, task, before)


def peak_memory(task: Task, before: Task = nothing) -> float:
    """Return how far the resident memory of a new process rises at most while ``task`` runs.

    Args:
        task: the work; it must pickle, and so must ``before``.
        before: what the process does first, such as imports; its memory is the baseline.

    Returns:
        Bytes above the baseline: VmHWM, which is set back to the resident size before the work.
    """
    return _in_new_process(_rise, task, before)


def _cold_seconds(task: Task, before: Task) -> float:
    before()
    gc.collect()
    return _time(task, 1)


def _rise(task: Task, before: Task) -> float:
    before()
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    baseline = _high_water()
    result = task()
    peak = _high_water()
    del result
    return float(peak - baseline)


def _high_water() -> int:
    try:
        status = STATUS.read_text()
    except OSError:  # it cannot be set back there, and need not be in a new process
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _in_new_process(measurer: Callable[[Task, Task], float], task: Task, before: Task) -> float:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measurer, (task, before))


SECONDS = Measure("s", _seconds)
"""Seconds in this process, after a warm-up."""

SECONDS_AFRESH = Measure("s", lambda who, _: lambda: seconds_afresh(who.run, who.before))
"""Seconds in a new interpreter for each sample, without a warm-up; contenders must pickle."""

MEMORY = Measure("B", lambda who, _: lambda: peak_memory(who.run, who.before))
"""Bytes of peak memory in a new interpreter for each sample; contenders must pickle."""


def _reported(contender: Contender, _quick: bool) -> Sample:
    def sample() -> float:
        contender.before()
        gc.collect()
        number = contender.run()
        if not isinstance(number, int | float):
            raise TypeError(f"{contender.name}: reports no number, but {number!r}")
        return float(number)

    return sample


REPORTED = Measure("", _reported)
"""The number that ``run`` returns, whatever it counts."""

SPAN = Measure("s", _reported)
"""The seconds that ``run`` returns, having measured them itself."""


# -- what is run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What one contender may take at most.

    Attributes:
        contender: whose target it is.
        reference: whom it is compared to.
        most: how many times what the reference takes; or, if ``added``, how much more.
        added: compare the difference instead of the ratio.
        least: the contender that does no more than it must, if there is one: what it takes is the
            least that the target could be.
    """

    contender: str
    reference: str
    most: float
    added: bool = False
    least: str = ""

    def value(self, outcomes: Sequence[Outcome], of: str = "") -> float:
        """Return the median, over the rounds, of what ``most`` is the bound of.

        Args:
            outcomes: of all contenders.
            of: whose it is, in place of the one that has the target.
        """
        samples = {found.contender: found.samples for found in outcomes}
        pairs = zip(samples[of or self.contender], samples[self.reference], strict=True)
        if self.added:
            return median(mine - theirs for mine, theirs in pairs)
        return median(_ratio(mine, theirs) for mine, theirs in pairs)


@dataclass(frozen=True)
class Benchmark:
    """Some contenders that do the same work.

    Attributes:
        title: what the work is, in a line.
        contenders: who takes turns.
        reference: the name of the contender to whom the others are compared.
        measure: what is measured.
        rounds: how many at most, where one takes long.
        targets: what contenders may take at most.
    """

    title: str
    contenders: Sequence[Contender]
    reference: str
    measure: Measure = SECONDS
    rounds: int | None = None
    targets: Sequence[Target] = ()

    def __post_init__(self) -> None:
        known = {who.name for who in self.contenders}
        named = [
            name
            for each in self.targets
            for name in (each.contender, each.reference, each.least or each.reference)
        ]
        for name in (self.reference, *named):
            if name not in known:
                raise ValueError(f"{self.title}: no contender is called {name!r}")


@dataclass(frozen=True)
class Setting:
    """What a benchmark is built with.

    Attributes:
        directory: an empty directory of its own, removed afterwards.
        shared: a directory of all benchmarks of a run, for what takes long to make.
        stack: whatever has to be closed afterwards is entered here.
        quick: make everything tiny; only to see that it works.
    """

    directory: Path
    shared: Path
    stack: ExitStack
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """Return the size to use."""
        return quick if self.quick else full


Suite: TypeAlias = Mapping[str, Callable[[Setting], Benchmark]]
"""Benchmarks by name, each with what builds it."""


@dataclass(frozen=True)
class Outcome:
    """What came of one contender.

    Attributes:
        samples: one number a round, in the unit of the measure.
        ratios: each divided by the sample of the reference in the same round.
    """

    contender: str
    note: str
    samples: list[float]
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the ratios."""
        return quartiles(self.ratios)


def quartiles(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile; of a single number, that number."""
    if len(numbers) < 2:
        return numbers[0], numbers[0]
    low, _, high = quantiles(numbers, n=4, method="inclusive")
    return low, high


def measure(benchmark: Benchmark, rounds: int, *, quick: bool = False) -> list[Outcome]:
    """Let the contenders take turns for ``rounds`` rounds."""
    rounds = min(rounds, benchmark.rounds or rounds)
    takers = [benchmark.measure.sampler(who, quick) for who in benchmark.contenders]
    turns = [_turn(takers, number) for number in range(rounds)]
    names = [who.name for who in benchmark.contenders]
    reference = [turn[names.index(benchmark.reference)] for turn in turns]
    outcomes = []
    for who, samples in zip(benchmark.contenders, zip(*turns, strict=True), strict=True):
        ratios = [_ratio(mine, theirs) for mine, theirs in zip(samples, reference, strict=True)]
        outcomes.append(Outcome(who.name, who.note, list(samples), ratios))
    return outcomes


def _turn(takers: Sequence[Sample], number: int) -> list[float]:
    """Take a sample of each, in another order each time."""
    samples = {place: takers[place]() for place in order(len(takers), number)}
    return [samples[place] for place in range(len(takers))]


def order(count: int, number: int) -> list[int]:
    """Return in which order so many contenders take a turn.

    In as many turns as there are contenders, or twice as many if that is odd, each of them comes
    first, second, ... equally often, and equally often after each other one: the rows of a square
    of E. J. Williams (Aust. J. Sci. Res. A 2, 149, 1949).
    """
    begun = [(step + 1) // 2 * (1 if step % 2 else -1) for step in range(count)]
    row = [(place + number) % count for place in begun]
    return row[::-1] if count % 2 and number // count % 2 else row


def _ratio(mine: float, theirs: float) -> float:
    if theirs:
        return mine / theirs
    return 1.0 if not mine else float("inf")


def run(
    suite: Suite, name: str, rounds: int, shared: Path, *, quick: bool = False
) -> tuple[Benchmark, list[Outcome]]:
    """Build and measure one benchmark, in a directory of its own below ``shared``.

    All that was written before is on the disk when it begins: what writes would have to wait for
    it. Nothing is removed when it ends: ext4 passes over what was removed in the last minutes, one
    by one, each time it makes a file.
    """
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix=f"{name}-", dir=shared)
        benchmark = suite[name](Setting(Path(directory), shared, stack, quick))
        if not quick:
            os.sync()
        return benchmark, measure(benchmark, rounds, quick=quick)
