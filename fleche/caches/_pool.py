"""Several caches as one: layers that are asked in turn, and a pool of them to read from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from fleche import _turns
from fleche._util import Troubles, batched, override
from fleche.caches._backend import (
    INLINE,
    MOST_EXPANDED,
    CacheBackend,
    Entries,
    Loaded,
    LoadedValues,
    Matches,
    Parcels,
    Progress,
)
from fleche.caches._base import BaseCache
from fleche.caches._local import shrink_among
from fleche.caches.maintenance import REPORTS, Gc, ReadAccepted, ReadUsage, Report, Task
from fleche.call import CallEntry, QueryCall, sort_time_of
from fleche.digest import Address, Digest
from fleche.errors import ParcelError, RemoteConnectionError
from fleche.storage import SHORTEST, Capabilities

__all__ = ["BATCH", "ROOM", "CachePool", "PoolBackend", "UnitedBackend"]

log = logging.getLogger("fleche.caches")

T = TypeVar("T")
K = TypeVar("K", bound=str)

BATCH = 1024
"""So many calls are looked up at once."""

ROOM = 64 << 20
"""So many bytes of results may come along with them, and are held back until it is their turn."""

_SAID = {"errors.write_through": "results are not written through; push() sends them later"}
"""What is logged of events whose names do not say it."""


class UnitedBackend(CacheBackend):
    """Backends in the order in which they are asked: what a pool and a stack have in common.

    An unreachable one whose policy says ``on_error = "miss"`` has nothing; that is counted as
    ``unreachable`` and logged once, and again when it has answered in between, after ever more
    answers.

    Attributes:
        layers: the backends.
    """

    def __init__(self, layers: Iterable[CacheBackend]) -> None:
        """Unite ``layers``, asked in this order; values are packed as the first one says."""
        super().__init__()
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("a stack or pool is made of at least one cache")
        self._troubles = Troubles()
        self.packing = self.layers[0].packing
        self.local = any(layer.local for layer in self.layers)

    @contextmanager
    def tolerating(self, layer: CacheBackend) -> Iterator[None]:
        """Leave the block quietly if ``layer`` is unreachable and its policy allows that."""
        if not layer.takes_turns:
            _turns.leave()
        try:
            yield
        except RemoteConnectionError as error:
            if layer.policy.on_error != "miss":
                raise
            self.note("unreachable", layer, error)
        else:
            self.settle("unreachable", layer)

    def note(self, event: str, layer: CacheBackend, error: Exception) -> None:
        """Count what happened to ``layer``; log it the first time."""
        self.count(event)
        away = isinstance(error, RemoteConnectionError)
        is_new = self._troubles.is_new((event, id(layer)), of_connection=away)
        level = logging.WARNING if is_new else logging.DEBUG
        failure = error.args[0] if isinstance(error, KeyError) and error.args else error
        reason = str(failure).removeprefix(f"{layer}: ")
        said = _SAID.get(event, f"{event}, going on without it")
        log.log(level, "%s: %s: %s", layer, said, reason)

    def settle(self, event: str, layer: CacheBackend) -> None:
        """Take note that ``layer`` is well again, so that the next ``event`` may be logged."""
        mark = (event, id(layer))
        self._troubles.succeed(lambda trouble: trouble == mark)

    def united_capabilities(self, *, read_only: bool, of: Iterable[CacheBackend]) -> Capabilities:
        """Return what some of them are together; the others are not asked."""
        found = []
        for layer in of:
            with self.tolerating(layer):
                found.append(layer.capabilities)
        return Capabilities(
            read_only=read_only,
            persistent=any(each.persistent for each in found),
            shared=any(each.shared for each in found),
            opens_parcels=any(each.opens_parcels for each in found),
        )

    @override
    def load_values(self, addresses: Iterable[Address]) -> LoadedValues:
        return self.load_from(self.layers, addresses, lambda layer, rest: layer.load_values(rest))

    def load_from(
        self,
        layers: Iterable[CacheBackend],
        wanted: Iterable[K],
        load: Callable[[CacheBackend, list[K]], Iterator[tuple[K, T | ParcelError]]],
    ) -> Iterator[tuple[K, T | ParcelError]]:
        """Yield what one of ``layers`` has, each asked in turn for what is still wanted.

        Damage counts only where no layer has a sound one.
        """
        rest = dict.fromkeys(wanted)
        damage: dict[K, ParcelError] = {}
        for layer in layers:
            if not rest:
                return
            with self.tolerating(layer):
                for key, item in load(layer, list(rest)):
                    if isinstance(item, ParcelError):
                        damage.setdefault(key, item)
                        continue
                    del rest[key]
                    yield key, item
        yield from ((key, error) for key, error in damage.items() if key in rest)

    @override
    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        found: set[tuple[type, str]] = set()
        for layer in self.layers:
            rest = [key for key in keys if (type(key), key) not in found]
            if not rest:
                break
            with self.tolerating(layer):
                there = layer.contains(rest)
                found.update((type(k), k) for k, known in zip(rest, there, strict=True) if known)
        return [(type(key), key) in found for key in keys]

    @override
    def expand(self, prefixes: Sequence[str]) -> list[tuple[Digest, ...]]:
        found: list[dict[Digest, None]] = [{} for _ in prefixes]
        for layer in self.layers:
            # a complete digest that one layer has stands for itself; no further one is asked
            asked = [
                place
                for place, prefix in enumerate(prefixes)
                if not (len(prefix) == 64 and found[place])
            ]
            if not asked:
                break
            with self.tolerating(layer):
                answers = layer.expand([prefixes[place] for place in asked])
                for place, answer in zip(asked, answers, strict=True):
                    found[place].update(dict.fromkeys(answer))
        return [tuple(each)[:MOST_EXPANDED] for each in found]

    @override
    def shrink(self, keys: Sequence[Digest]) -> list[Digest | None]:
        known: list[dict[CacheBackend, Digest]] = [{} for _ in keys]
        foreign: list[list[Digest]] = [[] for _ in keys]
        for layer in self.layers:
            with self.tolerating(layer):
                for place, short in enumerate(layer.shrink(keys)):
                    if short is not None:
                        known[place][layer] = short
                # where a layer lacks the key, others of it may begin alike
                lacked = [place for place, each in enumerate(known) if layer not in each]
                prefixes = [keys[place][:SHORTEST] for place in lacked]
                for place, others in zip(lacked, layer.expand(prefixes), strict=True):
                    foreign[place] += others
        return [
            max((*each.values(), shrink_among(key, others)), key=len) if each else None
            for key, each, others in zip(keys, known, foreign, strict=True)
        ]

    @override
    def query(self, template: QueryCall, *, keys_only: bool = False) -> Matches:
        seen: set[Digest] = set()
        for layer in self.layers:
            with self.tolerating(layer):
                for key, entry in layer.query(template, keys_only=keys_only):
                    if key not in seen:
                        seen.add(key)
                        yield key, entry

    @override
    def newest(self, template: QueryCall, number: int) -> Iterator[tuple[Digest, CallEntry]]:
        from heapq import merge

        layers = (self._newest_of(layer, template, number) for layer in self.layers)
        seen: set[Digest] = set()
        for key, entry in merge(*layers, key=sort_time_of, reverse=True):
            if len(seen) == number:
                return
            if key not in seen:
                seen.add(key)
                yield key, entry

    def _newest_of(
        self, layer: CacheBackend, template: QueryCall, number: int
    ) -> Iterator[tuple[Digest, CallEntry]]:
        with self.tolerating(layer):
            yield from layer.newest(template, number)

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        done, latest = 0, 0

        def step(number: int) -> None:
            nonlocal latest
            latest = number
            assert progress is not None
            progress(done + number)

        total: Report = REPORTS[type(task)]()
        if isinstance(task, ReadAccepted):  # belongs to looking up, which asks all of them
            return self._read(task, total, near=task.near)
        if isinstance(task, ReadUsage):  # one may have copies of the counters of another
            return self._read(ReadUsage(named=True), total, near=not task.named)
        writes = task.changes or isinstance(task, Gc)
        for layer in self.layers:
            if layer.local and not (writes and layer.read_only):
                latest = 0
                total = total + layer.maintain(task, None if progress is None else step)
                done += latest
        return total

    def _read(self, task: Task, total: Report, *, near: bool) -> Report:
        """Return what all of them have to say, or those on this machine."""
        for layer in self.layers:
            if layer.local or not near:
                with self.tolerating(layer):
                    total = total + layer.maintain(task)
        return total

    @override
    def close(self) -> None:
        with ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.close)


class PoolBackend(UnitedBackend):
    """Members of which the first that can answer does; see :class:`CachePool`."""

    @property
    @override
    def capabilities(self) -> Capabilities:
        return self.united_capabilities(read_only=True, of=self.layers)

    @property
    @override
    def read_only(self) -> bool:
        return True  # without asking a member

    @override
    def load(self, keys: Sequence[Digest], *, inline: int = INLINE) -> Loaded:
        for batch in batched(keys, BATCH):
            # of many keys only smaller results come along, since they wait here for their turn
            yield from self._load_together(batch, min(inline, ROOM // len(batch)))

    def _load_together(
        self, keys: Sequence[Digest], inline: int
    ) -> list[tuple[Digest, CallEntry | ParcelError]]:
        found = dict(
            self.load_from(self.layers, keys, lambda layer, rest: layer.load(rest, inline=inline))
        )
        return [(key, found[key]) for key in keys if key in found]

    @override
    def save(
        self, entries: Entries, parcels: Parcels = (), *, unpin: Sequence[Digest] = ()
    ) -> None:
        self.check_writable("save")

    @override
    def lacking(self, addresses: Iterable[Address], *, keep: bool = False) -> list[Address]:
        absent = list(dict.fromkeys(addresses))
        for member in self.layers:
            if absent:
                with self.tolerating(member):
                    absent = member.lacking(absent)
        return absent

    @override
    def evict(self, keys: Sequence[Digest | Address]) -> list[bool]:
        self.check_writable("evict")
        return [False] * len(keys)

    @override
    def looking_only(self) -> CacheBackend:
        return PoolBackend(member.looking_only() for member in self.layers)

    @override
    def maintain(self, task: Task, progress: Progress | None = None) -> Report:
        if task.changes:
            self.check_writable(type(task).__name__.lower())
        return super().maintain(task, progress)

    @override
    def to_config(self) -> dict[str, Any]:
        return {"pool": [member.to_config() for member in self.layers]}

    def __repr__(self) -> str:
        return f"CachePool({', '.join(map(repr, self.layers))})"


class CachePool(BaseCache):
    """Several caches as one that can only be read: the first that can answer does.

    Attributes:
        members: the caches, in the order in which they are asked.
    """

    backend: PoolBackend

    def __init__(self, members: Iterable[BaseCache]) -> None:
        """Unite ``members``, asked in this order."""
        self.members = tuple(members)
        super().__init__(PoolBackend(member.backend for member in self.members))

    @override
    def _made_from(self) -> tuple[Any, ...]:
        return (self.members,)

    def __repr__(self) -> str:
        return f"CachePool({', '.join(map(repr, self.members))})"
