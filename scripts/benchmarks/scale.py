"""What grows with the number of stored calls, and what must not: a ``local`` cache of 10^3 to 10^6.

The calls are saved in batches, under keys that are as good as random, with the metadata that every
call has.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from fleche.caches import Local
from fleche.call import Call, CallEntry, ValueRef
from fleche.digest import Digest, digest
from scripts.benchmarks import bare
from scripts.benchmarks.measure import MEMORY, Benchmark, Contender, Setting, Suite, Target

__all__ = ["BENCHMARKS"]

BATCH = 1000
MOST = 1_000_000


def filled(setting: Setting, number: int) -> Path:
    """Return the directory of a cache with so many calls, which is made once in a run.

    It is made by a process of its own, so that this one has not had them all in memory.
    """
    root = setting.shared / named(number).replace(" ", "-")
    if not root.exists():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(fill, root, number).result()
    return root


def fill(root: Path, number: int) -> None:
    """Make a cache with so many calls."""
    with Local(root) as made:
        calls = entries(number)
        while batch := dict(islice(calls, BATCH)):
            made.backend.save(batch)


def entries(number: int) -> Iterator[tuple[Digest, CallEntry]]:
    """Yield so many finished calls of two functions; each is a changed copy of one."""
    metadata: dict[str, dict[str, Any]] = {
        "environment": {"python": "3.11.7", "platform": "Linux", "packages": {"numpy": "2.0"}},
        "runtime": {"started": "2025-06-01T12:00:00.000000+00:00", "seconds": 0.5, "host": "n1"},
    }
    call = Call("small", {"number": 0}, module="work", result=0.0, metadata=metadata)
    record = call.to_record()
    for index in range(number):
        yield (
            key_of(index),
            CallEntry(
                msgspec.structs.replace(
                    record,
                    name="small" if index % 2 else "other",
                    arguments={"number": ValueRef(str(digest(index)), literal=index)},
                    result=ValueRef(str(digest(index / 2)), literal=index / 2),
                )
            ),
        )


def key_of(index: int) -> Digest:
    """Return the key of a call."""
    return Digest(blake3(b"call %d" % index).hexdigest())


def sizes(setting: Setting) -> list[int]:
    """Return how many calls there are in turn."""
    return [20, 40] if setting.quick else [10**power for power in (3, 4, 5, 6)]


def flat(
    title: str, work: Callable[[Local, int], object], most: float = 2.0
) -> Callable[[Setting], Benchmark]:
    """Return what builds: the same work in caches of all sizes, which should take no longer."""

    def build(setting: Setting) -> Benchmark:
        contenders = []
        for number in sizes(setting):
            opened = setting.stack.enter_context(Local(filled(setting, number)))
            contenders.append(Contender(named(number), partial(work, opened, number)))
        names = [each.name for each in contenders]
        targets = [Target(name, names[0], most) for name in names[1:]]
        return Benchmark(title, contenders, names[0], targets=targets)

    return build


def named(number: int) -> str:
    """Return what a cache of so many calls is called."""
    return f"{number} calls"


def look_up(opened: Local, number: int) -> object:
    """Load the call in the middle."""
    return opened.load(key_of(number // 2)).result


def expand(opened: Local, number: int) -> object:
    """Complete a key of which twelve characters are given."""
    return opened.expand(key_of(number // 2)[:12])


def find(opened: Local, number: int) -> object:
    """Find the one call of a function with an argument."""
    wanted = number // 2 + (number // 2 + 1) % 2
    return opened.query(name="small", arguments={"number": wanted}).only()


def newest(opened: Local, number: int) -> object:  # noqa: ARG001 (one signature for all)
    """List the twenty calls that were stored last."""
    return list(opened.query().take(20))


def latest(opened: Local, number: int) -> object:  # noqa: ARG001 (likewise)
    """List the twenty calls that began last."""
    return list(opened.query().newest(20))


def count_all(root: Path) -> int:
    """Iterate over all calls."""
    with Local(root) as opened:
        return sum(1 for _ in opened.query())


def iteration(setting: Setting) -> Benchmark:
    """Build: the memory that a full iteration takes, in a process of its own."""
    few, many = (20, 40) if setting.quick else (10_000, MOST)
    contenders = []
    for number in (few, many):
        root = filled(setting, number)
        contenders.append(Contender(named(number), partial(count_all, root), partial(warm, root)))
    return Benchmark(
        "peak memory of a full iteration",
        contenders,
        named(few),
        MEMORY,
        rounds=3,
        targets=[Target(named(many), named(few), 2.0)],
    )


def warm(root: Path) -> None:
    """Read one call, so that everything is imported."""
    with Local(root) as opened:
        opened.query().first()


def table(setting: Setting) -> Benchmark:
    """Build: the table of ten thousand calls, beside the same rows fetched by sqlite3."""
    root = filled(setting, setting.size(10_000, 20))
    opened = setting.stack.enter_context(Local(root))
    connection = sqlite3.connect(root / "fleche.db")
    setting.stack.callback(connection.close)
    query = "SELECT id, key, function, pin, modified, size, entry FROM fleche_calls"
    contenders = [
        Contender("table()", opened.table, note="50 rows are ready; the others when asked for"),
        Contender("table().rows", lambda: opened.table().rows, note="all rows"),
        Contender("sqlite3", lambda: connection.execute(query).fetchall(), note="undecoded"),
        Contender(bare.NAME, lambda: bare.decode_all(connection), note=bare.NOTE),
    ]
    targets = [Target("table()", "sqlite3", 3.0, least=bare.NAME)]
    return Benchmark("the table of all calls", contenders, "table()", rounds=9, targets=targets)


BENCHMARKS: Suite = {
    "scale-lookup": flat("load a call by its key", look_up),
    "scale-expand": flat("complete a short key", expand),
    "scale-query": flat("query by name and argument", find),
    "scale-newest": flat("list the newest 20", newest),
    "scale-latest": flat("list the 20 that began last", latest),
    "scale-iterate": iteration,
    "scale-table": table,
}
