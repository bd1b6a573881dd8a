"""Many at the same time: threads of one process, and processes that share a directory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.benchmarks import bare
from scripts.benchmarks.measure import SPAN, Benchmark, Contender, Setting, Target
from scripts.benchmarks.peers import remember

__all__ = ["processes", "threads"]

CROWD = 8
NAMES = ("fleche", "diskcache")
KNOWN = 50


def block(number: int) -> npt.NDArray[np.float64]:
    """Return 100 kB."""
    return np.full(12_500, float(number))


def mixed(number: int) -> float:
    """Return next to nothing."""
    return number * 0.5


def timed(call: Callable[[int], Any], numbers: list[int]) -> list[float]:
    """Return how long each call takes."""
    took = []
    for number in numbers:
        begin = perf_counter()
        call(number)
        took.append(perf_counter() - begin)
    return took


def percentile(took: list[float]) -> float:
    """Return what 95 of 100 calls do not exceed."""
    return quantiles(took, n=20)[-1]


def threads(setting: Setting, *, p95: bool = False) -> Benchmark:
    """Build: hits of 100 kB in eight threads; how long all take, or the slowest of them."""
    each = setting.size(500, 3)

    def run(call: Callable[[int], Any]) -> float:
        begin = perf_counter()
        with ThreadPoolExecutor(CROWD) as pool:
            numbers = [[(turn + at) % KNOWN for at in range(each)] for turn in range(CROWD)]
            took = [one for found in pool.map(partial(timed, call), numbers) for one in found]
        return percentile(took) if p95 else perf_counter() - begin

    contenders = []
    for name in NAMES:
        call = remember(name, block, setting.directory).call
        timed(call, list(range(KNOWN)))
        contenders.append(Contender(name, partial(run, call)))
    store = bare.BareStore(setting.directory / bare.NAME)
    for number in range(KNOWN):
        store.put(number, block(number))
    contenders.append(Contender(bare.NAME, partial(run, store.array), note=bare.NOTE))
    title = f"{CROWD} threads, {each} hits of 100 kB each"
    return compared(title, contenders, p95=p95, least=bare.NAME)


def processes(setting: Setting, *, p95: bool = False) -> Benchmark:
    """Build: eight processes that share a cache, nine hits to one miss; likewise."""
    each = setting.size(300, 4)
    context = multiprocessing.get_context("spawn")
    people = setting.size(CROWD, 2)
    pool = setting.stack.enter_context(context.Pool(people))
    turns = iter(range(1_000_000))

    def run(name: str) -> float:
        first = next(turns) * people * each
        jobs = [(name, setting.directory, each, first + who * each) for who in range(people)]
        found = pool.map(work, jobs, chunksize=1)
        return percentile([one for took in found for one in took]) if p95 else max(map(sum, found))

    contenders = []
    for name in NAMES:
        timed(remember(name, mixed, setting.directory).call, list(range(KNOWN)))
        contenders.append(Contender(name, partial(run, name)))
    title = f"{people} processes, {each} calls each, nine hits to one miss"
    return compared(title, contenders, p95=p95, rounds=45)  # they differ much, and are short


_opened: dict[tuple[str, Path], Callable[[int], Any]] = {}


def work(job: tuple[str, Path, int, int]) -> list[float]:
    """Make the calls of one process; return how long each takes."""
    name, directory, each, first = job
    if (name, directory) not in _opened:
        _opened[name, directory] = call = remember(name, mixed, directory).call
        timed(call, [0, -os.getpid()])  # a hit and a miss, so that everything is imported
    numbers = [KNOWN + first + at if at % 10 == 0 else at % KNOWN for at in range(each)]
    return timed(_opened[name, directory], numbers)


def compared(
    title: str, contenders: list[Contender], *, p95: bool, rounds: int = 9, least: str = ""
) -> Benchmark:
    """Return the benchmark; the target is no less throughput."""
    ours, theirs = NAMES
    if p95:
        return Benchmark(f"{title}: 95 of 100 take no longer", contenders, ours, SPAN, rounds=9)
    targets = (Target(ours, theirs, 1.0, least=least),)
    return Benchmark(title, contenders, ours, SPAN, rounds=rounds, targets=targets)
