"""Many calls: what it takes to find some of them, from their records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fleche import Cache, Call, Digest
from fleche.caches import Local
from fleche.call import CallEntry
from fleche.storage import CallFile, ValueFile
from scripts.benchmarks.measure import Benchmark, Contender, Setting
from scripts.benchmarks.peers import PEERS

__all__ = ["find_all", "find_one", "query", "tabulate"]


def query(find: Callable[[Cache], object], title: str) -> Callable[[Setting], Benchmark]:
    """Return what builds: a question to a cache of ten thousand calls."""

    def build(setting: Setting) -> Benchmark:
        number = setting.size(10_000, 20)
        filling = dict(records(number))
        files = setting.directory / "files"
        caches = {
            "fleche": Local(setting.directory / "local"),
            "fleche files": Cache(ValueFile(files), CallFile(files)),
        }
        contenders = []
        for name, cache in caches.items():
            setting.stack.callback(cache.close)
            cache.backend.save(filling)
            contenders.append(Contender(name, partial(find, cache), note=PEERS[name].note))
        return Benchmark(f"{title}, of {number} calls", contenders, "fleche", rounds=7)

    return build


def records(number: int) -> Iterator[tuple[Digest, CallEntry]]:
    """Yield the records of so many finished calls of two functions."""
    for index in range(number):
        call = Call(
            name="small" if index % 2 else "other",
            module=__name__,
            arguments={"number": index},
            result=index / 2,
            metadata={"runtime": {"started": "2025-06-01T12:00:00+00:00", "seconds": 0.5}},
        )
        record = call.to_record()
        yield record.key, CallEntry(record)


def find_all(cache: Cache) -> int:
    """Count all calls."""
    return sum(1 for _ in cache.query())


def find_one(cache: Cache) -> int:
    """Count the calls with one argument of that value."""
    return sum(1 for _ in cache.query(name="small", arguments={"number": 7}))


def tabulate(cache: Cache) -> int:
    """Write the table of all calls."""
    return len(str(cache.table()))
