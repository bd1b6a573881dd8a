"""fleche on this machine, beside joblib.Memory, diskcache and cachier, and beside the machine.

The reference is always fleche: a ratio of 2 means that the other takes twice as long.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from scripts.benchmarks import dependent
from scripts.benchmarks.calls import find_all, find_one, query, tabulate
from scripts.benchmarks.crowd import processes, threads
from scripts.benchmarks.measure import Benchmark, Setting, Suite, Target, Task
from scripts.benchmarks.peers import Remembered, take_turns
from scripts.benchmarks.results import (
    by_size,
    cold_hit,
    hit_large,
    mapped,
    memory_hit,
    save_large,
    touch_all,
    touch_one,
)

__all__ = ["BENCHMARKS"]


def small(number: int, factor: float = 0.5) -> float:
    """Return next to nothing, at once: what is left is what the cache costs."""
    return number * factor


def hit_small(setting: Setting) -> Benchmark:
    """Build: a hit on a number."""

    def work(remembered: Remembered) -> Task:
        return partial(remembered.call, 1, factor=0.25)

    contenders = take_turns(setting, small, work)
    targets = (Target("fleche", "diskcache", 0.8), Target("fleche files", "joblib", 0.5))
    return Benchmark("a hit, f(int, float) -> float", contenders, "fleche", targets=targets)


def hits_distinct(setting: Setting) -> Benchmark:
    """Build: a thousand hits, each on another number."""
    numbers = range(setting.size(1000, 5))

    def work(remembered: Remembered) -> Task:
        return lambda: [remembered.call(number) for number in numbers]

    contenders = take_turns(setting, small, work)
    return Benchmark(f"{len(numbers)} hits one after the other", contenders, "fleche")


def miss_small(setting: Setting) -> Benchmark:
    """Build: a miss and what storing its result takes."""

    def work(remembered: Remembered) -> Task:
        numbers = count()
        return lambda: remembered.call(next(numbers))

    contenders = take_turns(setting, small, work)
    targets = (Target("fleche", "diskcache", 1.3), Target("fleche files", "joblib", 0.5))
    title = "a miss, computed and stored, f(int) -> float"
    return Benchmark(title, contenders, "fleche", targets=targets)


def misses_many(setting: Setting) -> Benchmark:
    """Build: so many misses that what calls are searched by is written, too."""
    number = setting.size(10_000, 20)

    def work(remembered: Remembered) -> Task:
        numbers = count()
        return lambda: [remembered.call(next(numbers)) for _ in range(number)]

    contenders = take_turns(setting, small, work, ("fleche", "diskcache"))
    title = f"{number} misses, and by what they are searched"
    return Benchmark(title, contenders, "fleche", rounds=5)


def hit_dependent(setting: Setting) -> Benchmark:
    """Build: a hit of a function that uses ten helpers, two classes and an array of 1 MB."""

    def work(remembered: Remembered) -> Task:
        return partial(remembered.call, 1)

    contenders = take_turns(setting, dependent.entangled, work, ("fleche", "joblib", "diskcache"))
    title = "a hit of a function with 10 helpers, 2 classes and a global array of 1 MB"
    return Benchmark(title, contenders, "fleche")


BENCHMARKS: Suite = {
    "hit-small": hit_small,
    "hits-1000": hits_distinct,
    "hit-dependent": hit_dependent,
    "miss-small": miss_small,
    "misses-10000": misses_many,
    "hit-1MB": hit_large(1),
    "hit-100MB": hit_large(100),
    "mmap-one": mapped(touch_one, "one number used"),
    "mmap-all": mapped(touch_all, "all of it summed"),
    "save-1MB": save_large(1),
    "save-100MB": save_large(100),
    "memory-hit": memory_hit,
    "cold-hit": cold_hit,
    "threads": threads,
    "threads-p95": partial(threads, p95=True),
    "processes": processes,
    "processes-p95": partial(processes, p95=True),
    "hits-by-size": by_size,
    "query-all": query(find_all, "all calls"),
    "query-argument": query(find_one, "the calls with one argument"),
    "table": query(tabulate, "the table"),
}
