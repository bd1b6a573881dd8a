"""Several caches that are asked in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from typing import TypeVar

from fleche.caches.base import BaseCache
from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.digest import Digest
from fleche.errors import RemoteConnectionError
from fleche.parcel import Parcel
from fleche.storage.base import Capabilities, expand_among

__all__ = ["Layers"]

log = logging.getLogger("fleche.caches")

T = TypeVar("T")


class Layers:
    """Caches in the order in which they are asked.

    An unreachable one whose policy says ``on_error = "miss"`` has nothing; that is counted as
    ``unreachable`` and logged once.
    """

    def __init__(self, caches: Iterable[BaseCache], count: Callable[[str], None]) -> None:
        """Put ``caches`` together.

        Args:
            caches: at least one.
            count: counts an event by its name.
        """
        self.caches = tuple(caches)
        if not self.caches:
            raise ValueError("a stack or pool is made of at least one cache")
        self._count = count
        self._noted: set[tuple[str, int]] = set()
        self._lock = Lock()

    def capabilities(
        self, *, read_only: bool, of: Iterable[BaseCache] | None = None
    ) -> Capabilities:
        """Return what they are together.

        Args:
            read_only: whether they refuse every save.
            of: only some of them; the others are not asked.
        """
        found = []
        for layer in self.caches if of is None else of:
            with self.tolerating(layer):
                found.append(layer.capabilities)
        return Capabilities(
            read_only=read_only,
            persistent=any(each.persistent for each in found),
            shared=any(each.shared for each in found),
            opens_parcels=any(each.opens_parcels for each in found),
        )

    @contextmanager
    def tolerating(self, layer: BaseCache) -> Iterator[None]:
        """Leave the block quietly if ``layer`` is unreachable and its policy allows that."""
        try:
            yield
        except RemoteConnectionError as error:
            if layer.policy.on_error != "miss":
                raise
            self.note("unreachable", layer, error)
        else:
            if self._noted:  # it is back: the next time is news
                self._noted.discard(("unreachable", id(layer)))

    def note(self, event: str, layer: BaseCache, error: Exception) -> None:
        """Count what befell ``layer``; log it the first time."""
        self._count(event)
        mark = (event, id(layer))
        with self._lock:
            known = mark in self._noted
            self._noted.add(mark)
        level = logging.DEBUG if known else logging.WARNING
        log.log(level, "%s: %s, going on without it: %s", layer, event, error)

    def ask(self, question: Callable[[BaseCache], T], *, first_last: bool = False) -> Iterator[T]:
        """Yield the answers of those that have one, in order, each asked when it is its turn.

        Args:
            question: a :class:`KeyError` is no answer.
            first_last: ask the first layer last: what it has is not to be trusted.
        """
        for layer in self._order(first_last=first_last):
            with self.tolerating(layer), suppress(KeyError):
                answer = question(layer)
                yield answer

    def _order(self, *, first_last: bool) -> tuple[BaseCache, ...]:
        return (*self.caches[1:], self.caches[0]) if first_last else self.caches

    def first(
        self, key: Digest, question: Callable[[BaseCache], T], *, first_last: bool = False
    ) -> T:
        """Return the first answer to a question about ``key``; see :meth:`ask`.

        Raises:
            KeyError: there is none.
        """
        for answer in self.ask(question, first_last=first_last):
            return answer
        raise KeyError(key)

    def load_parcels(
        self, digests: Iterable[Digest], *, first_last: bool = False
    ) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels that one of them has, each layer asked once for what is still wanted.

        Args:
            digests: what is wanted.
            first_last: as for :meth:`ask`.
        """
        order = self._order(first_last=first_last)
        return self._load(digests, order, lambda layer, rest: layer.load_parcels(rest))

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records that one of them has, each layer asked once for the rest."""
        return self._load(keys, self.caches, lambda layer, rest: layer.load_records(rest))

    def _load(
        self,
        wanted: Iterable[Digest],
        order: Iterable[BaseCache],
        load: Callable[[BaseCache, list[Digest]], Iterator[tuple[Digest, T]]],
    ) -> Iterator[tuple[Digest, T]]:
        """Yield what the layers have, each asked once for what those before it lack."""
        rest = dict.fromkeys(wanted)
        for layer in order:
            with self.tolerating(layer):
                for key, item in load(layer, list(rest)) if rest else ():
                    del rest[key]
                    yield key, item

    def contains(self, key: Digest) -> bool:
        """Tell whether one of them contains ``key``."""
        return any(self.ask(lambda layer: layer.contains(key)))

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Tell for each key whether one of them contains it, each asked once for the rest."""
        wanted = list(keys)
        found: set[Digest] = set()
        for layer in self.caches:
            rest = [key for key in wanted if key not in found]
            with self.tolerating(layer):
                there = layer.contains_many(rest) if rest else []
                found.update(key for key, known in zip(rest, there, strict=True) if known)
        return [key in found for key in wanted]

    def expand(self, key: Digest | str) -> Digest:
        """Return the one complete digest that ``key`` stands for in all of them together.

        Raises:
            KeyError: there is none.
            AmbiguousDigestError: there are several.
        """
        if Digest(key).is_full:
            return self.first(Digest(key), lambda layer: layer.expand(key))
        return expand_among(key, self.ask(lambda layer: layer.expand(key)))

    def shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Return for each key the beginning that stands for it alone in every one of them."""
        full = [key if Digest(key).is_full else self.expand(key) for key in keys]
        answers = list(self.ask(lambda layer: layer.shrink(*full))) or [tuple(map(Digest, full))]
        return tuple(max(shorts, key=len) for shorts in zip(*answers, strict=True))

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the matching calls, each once."""
        return self._once(lambda layer: layer.call_keys(template), lambda key: key)

    def query(self, template: QueryCall, owner: BaseCache) -> Iterator[LazyCall]:
        """Yield the matching calls, bound to ``owner``; of several with one key, the first."""
        found = self._once(lambda layer: layer.query(template), lambda call: call.key)
        return (call.bind(owner) for call in found)

    def _once(
        self, search: Callable[[BaseCache], Iterable[T]], key_of: Callable[[T], Digest]
    ) -> Iterator[T]:
        """Yield what the layers find, of several with one key the first."""
        seen: set[Digest] = set()
        for layer in self.caches:
            with self.tolerating(layer):
                for found in search(layer):
                    key = key_of(found)
                    if key not in seen:
                        seen.add(key)
                        yield found

    def close(self) -> None:
        """Close all of them, even if one fails."""
        with ExitStack() as stack:
            for layer in self.caches:
                stack.callback(layer.close)
