"""The same function, remembered by fleche and by its peers, each with its documented best settings.

Only what they share is compared: results on the local disk, found by the arguments. Nothing is
synced to the disk or compressed, and what is read lies in the page cache of the system.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.measure import Contender, Setting, Task

__all__ = ["EVERY", "PEERS", "Peer", "Remembered", "remember", "take_turns"]

Function = Callable[..., Any]


@dataclass(frozen=True)
class Remembered:
    """A decorated function, and how to make its cache forget everything."""

    call: Function
    forget: Task


@dataclass(frozen=True)
class Peer:
    """One way to remember a function in a directory."""

    name: str
    remember: Callable[[Function, Path], Remembered]
    note: str


def _with_fleche(function: Function, root: Path, *, mmap: bool = False) -> Remembered:
    from fleche import fleche
    from fleche.caches import Local

    cache = Local(root, mmap=mmap)

    def forget() -> None:
        cache.query().evict()
        cache.gc(grace=0)

    return Remembered(fleche(cache=cache, **_options(function))(function), forget)


OPTIONS: dict[str, dict[str, Any]] = {}
"""What fleche is to know of a function that stands for another, by its name."""


def _options(function: Function) -> dict[str, Any]:
    return OPTIONS.get(function.__name__, {})


def _with_fleche_mapped(function: Function, root: Path) -> Remembered:
    return _with_fleche(function, root, mmap=True)


def _with_fleche_files(function: Function, root: Path) -> Remembered:
    from fleche import Cache, fleche
    from fleche.storage import CallFile, ValueFile

    cache = Cache(ValueFile(root / "values"), CallFile(root / "calls"))
    return Remembered(
        fleche(cache=cache, **_options(function))(function),
        lambda: shutil.rmtree(root, ignore_errors=True),
    )


def _with_joblib(function: Function, root: Path, *, mmap_mode: Any = None) -> Remembered:
    import joblib

    memory = joblib.Memory(root, verbose=0, mmap_mode=mmap_mode)
    return Remembered(memory.cache(function), lambda: memory.clear(warn=False))


def _with_joblib_mapped(function: Function, root: Path) -> Remembered:
    return _with_joblib(function, root, mmap_mode="r")


def _with_diskcache(function: Function, root: Path) -> Remembered:
    import diskcache

    cache = diskcache.Cache(str(root), eviction_policy="none", cull_limit=0)
    return Remembered(cache.memoize()(function), cache.clear)


def _with_cachier(function: Function, root: Path) -> Remembered:
    import cachier

    decorate = cachier.cachier(backend="pickle", cache_dir=root, separate_files=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decorated = decorate(function)
    return Remembered(decorated, decorated.clear_cache)


FLECHE = Peer("fleche", _with_fleche, 'type = "local"')
MAPPED = Peer("fleche mmap", _with_fleche_mapped, 'type = "local", mmap = true')
FILES = Peer("fleche files", _with_fleche_files, 'as template = "cloudpickle"')
JOBLIB = Peer("joblib", _with_joblib, "Memory(verbose=0)")
JOBLIB_MAPPED = Peer("joblib mmap", _with_joblib_mapped, 'Memory(verbose=0, mmap_mode="r")')
DISKCACHE = Peer(
    "diskcache", _with_diskcache, 'Cache(eviction_policy="none", cull_limit=0).memoize()'
)
CACHIER = Peer("cachier", _with_cachier, 'backend="pickle", separate_files=True')

PEERS = {
    peer.name: peer for peer in (FLECHE, FILES, MAPPED, JOBLIB, JOBLIB_MAPPED, DISKCACHE, CACHIER)
}
EVERY = ("fleche", "fleche files", "joblib", "diskcache", "cachier")


def remember(name: str, function: Function, directory: Path) -> Remembered:
    """Return ``function`` as the peer of that name remembers it, in a directory of its own."""
    root = directory / name.replace(" ", "-")
    root.mkdir(parents=True, exist_ok=True)
    return PEERS[name].remember(function, root)


def take_turns(
    setting: Setting,
    function: Function,
    work: Callable[[Remembered], Task],
    names: Iterable[str] = EVERY,
    before: Callable[[Remembered], Task] | None = None,
) -> list[Contender]:
    """Return a contender for each of the peers in ``names``.

    Args:
        setting: where they keep things.
        function: what they remember; of a module, so that all of them can name it.
        work: makes, of a remembered function, what is measured.
        names: names of :data:`PEERS`.
        before: makes what precedes each sample.
    """
    contenders = []
    for name in names:
        remembered = remember(name, function, setting.directory)
        extra = {} if before is None else {"before": before(remembered)}
        contenders.append(Contender(name, work(remembered), note=PEERS[name].note, **extra))
    return contenders
