"""Many calls: what it takes to find some of them, from their records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fleche import Cache, Call, Digest
from fleche.call import CallEntry
from fleche.storage.file import CallFile, ValueFile
from scripts.benchmarks.measure import Benchmark, Contender, Setting
from scripts.benchmarks.peers import PEERS

__all__ = ["find_all", "find_one", "query", "tabulate"]


def query(find: Callable[[Cache], object], title: str) -> Callable[[Setting], Benchmark]:
    """Return what builds: a question to a cache of ten thousand calls."""

    def build(setting: Setting) -> Benchmark:
        from fleche.storage.sql import Sql

        number = setting.size(10_000, 20)
        values = ValueFile(setting.directory / "values")
        filling = dict(records(number))
        storages = {
            "fleche": CallFile(setting.directory / "calls"),
            "fleche sql": Sql(setting.directory / "calls.db"),
        }
        contenders = []
        for name, storage in storages.items():
            cache = Cache(values, storage)
            setting.stack.callback(cache.close)
            storage.put_many(filling.items())
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
