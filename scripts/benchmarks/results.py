"""Large results: hits that read them, misses that store them, and the same without a cache."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.benchmarks import bare
from scripts.benchmarks.afresh import Reader, large
from scripts.benchmarks.keys import hashed
from scripts.benchmarks.measure import (
    MEMORY,
    SECONDS_AFRESH,
    Benchmark,
    Contender,
    Setting,
    Target,
    Task,
)
from scripts.benchmarks.peers import EVERY, OPTIONS, PEERS, Remembered, remember, take_turns

__all__ = [
    "by_size",
    "cold_hit",
    "hit_large",
    "mapped",
    "memory_hit",
    "save_large",
    "touch_all",
    "touch_one",
]

MB = 1_000_000


class Fresh:
    """An array that is different each time, so that each must be stored."""

    array = np.zeros(1)

    @classmethod
    def renew(cls, size: int) -> None:
        if cls.array.nbytes != size:
            cls.array = large(size)
        cls.array[0] += 1


def fresh(number: int) -> npt.NDArray[np.float64]:  # noqa: ARG001
    """Return an array that was ready before."""
    return Fresh.array


# It stands for a function that computes: the array is no data that its result depends on.
OPTIONS[fresh.__name__] = {"ignore_globals": "Fresh"}


def hit_large(megabytes: int) -> Callable[[Setting], Benchmark]:
    """Return what builds: a hit on an array, all of it read into memory."""

    def build(setting: Setting) -> Benchmark:
        size = setting.size(megabytes * MB, 80_000)
        contenders = take_turns(setting, large, lambda peer: partial(peer.call, size))
        raw = readers(setting.directory, size)
        most, least = (1.3, bare.NAME) if megabytes == 1 else (1.1, "")
        targets = (
            Target("fleche", "read", most, least=least),
            Target("fleche", "joblib", 1.0, least=least),
        )
        title = f"a hit on an array of {size / MB:g} MB"
        return Benchmark(title, [*contenders, *raw], "fleche", targets=targets)

    return build


def readers(directory: Path, size: int) -> Iterator[Contender]:
    """Yield what the machine can do: the array read from a file, and its bytes hashed."""
    array = large(size)
    np.save(directory / "raw.npy", array)
    pickled = directory / "raw.pickle"
    pickled.write_bytes(pickle.dumps(array, protocol=5))
    content = array.tobytes()
    store = bare.BareStore(directory / bare.NAME)
    store.put(size, array)
    yield Contender(bare.NAME, partial(store.array, size), note=bare.NOTE)
    yield Contender("read", pickled.read_bytes, note="the bytes into new memory")
    yield Contender("numpy.load", partial(np.load, directory / "raw.npy"), note="checks nothing")

    def load() -> Any:
        with pickled.open("rb") as file:
            return pickle.load(file)

    yield Contender("pickle.load", load, note="protocol 5, checks nothing")
    yield Contender("blake3", partial(hashed, content), note="all cores; of bytes in memory")


def mapped(use: Callable[[Any], object], title: str) -> Callable[[Setting], Benchmark]:
    """Return what builds: a hit on an array that is memory-mapped, and a use of it."""

    def build(setting: Setting) -> Benchmark:
        size = setting.size(100 * MB, 80_000)
        path = setting.directory / "raw.npy"
        np.save(path, large(size))

        def work(remembered: Remembered) -> Task:
            return lambda: use(remembered.call(size))

        contenders = take_turns(setting, large, work, ("fleche mmap", "joblib mmap", "fleche"))
        raw = Contender("numpy.load mmap", lambda: use(np.load(path, mmap_mode="r")))
        targets = (Target("fleche mmap", "joblib mmap", 0.9 if use is touch_one else 1.1),)
        named = f"a hit, mapped, {size / MB:g} MB, {title}"
        return Benchmark(named, [*contenders, raw], "fleche mmap", targets=targets)

    return build


def touch_one(array: npt.NDArray[np.float64]) -> float:
    """Use a single number."""
    return float(array[-1])


def touch_all(array: npt.NDArray[np.float64]) -> float:
    """Use all of it."""
    return float(array.sum())


def save_large(megabytes: int) -> Callable[[Setting], Benchmark]:
    """Return what builds: a miss whose result is an array that was never seen before."""

    def build(setting: Setting) -> Benchmark:
        size = setting.size(megabytes * MB, 80_000)

        def before(remembered: Remembered) -> Task:
            return partial(clear, remembered, size)

        contenders = take_turns(setting, fresh, lambda peer: partial(peer.call, 1), EVERY, before)
        raw = writers(setting.directory, size)
        title = f"a miss that returns an array of {size / MB:g} MB"
        targets = (Target("fleche", "joblib", 0.9),)
        return Benchmark(title, [*contenders, *raw], "fleche", targets=targets)

    return build


def clear(remembered: Remembered, size: int) -> None:
    """Forget the last result, and make another."""
    remembered.forget()
    Fresh.renew(size)


def writers(directory: Path, size: int) -> Iterator[Contender]:
    """Yield what the machine can do: the array written to a new file, and its bytes hashed."""
    npy, pickled = directory / "new.npy", directory / "new.pickle"

    def before() -> None:
        npy.unlink(missing_ok=True)
        pickled.unlink(missing_ok=True)
        Fresh.renew(size)

    def dump() -> None:
        with pickled.open("wb") as file:
            pickle.dump(Fresh.array, file, protocol=5)

    yield Contender("numpy.save", lambda: np.save(npy, Fresh.array), before)
    yield Contender("pickle.dump", dump, before, note="protocol 5")
    yield Contender(
        "blake3", lambda: hashed(Fresh.array.view(np.uint8).data), before, note="all cores"
    )


def by_size(setting: Setting) -> Benchmark:
    """Build: hits on arrays of 1 kB to 100 MB, for the plot of cost against size."""
    sizes = [10**power for power in range(3, setting.size(9, 5))]
    contenders = []
    for name in ("fleche", "joblib", "diskcache"):
        call = remember(name, large, setting.directory).call
        contenders += [Contender(f"{name}, {size} B", partial(call, size)) for size in sizes]
    first = contenders[0].name
    return Benchmark("a hit on an array, by its size", contenders, first, rounds=7)


# -- a process of its own --------------------------------------------------------------------------


def memory_hit(setting: Setting) -> Benchmark:
    """Build: the memory that a hit takes, the array itself included."""
    return _afresh(setting, "peak memory of a hit on an array", warm=True)


def cold_hit(setting: Setting) -> Benchmark:
    """Build: the first hit of a new process."""
    return _afresh(
        setting, "a first hit in a new process, imports included, on an array", warm=False
    )


def _afresh(setting: Setting, title: str, *, warm: bool) -> Benchmark:
    size = setting.size(100 * MB, 80_000) if warm else 80_000
    names = (
        "fleche",
        "fleche files",
        "fleche mmap",
        "joblib",
        "joblib mmap",
        "diskcache",
        "cachier",
    )
    contenders = []
    for name in names[: setting.size(len(names), 2)]:
        reader = Reader(name, setting.directory, size)
        reader.fill()
        before = {"before": reader.warm} if warm else {}
        contenders.append(Contender(name, reader.read, note=PEERS[name].note, **before))
    title = f"{title} of {size / MB:g} MB"
    return Benchmark(title, contenders, "fleche", MEMORY if warm else SECONDS_AFRESH, rounds=7)
