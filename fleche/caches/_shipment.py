"""Values on their way from one cache to another, buffers before the values that refer to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain

from fleche.caches._lease import Lease
from fleche.caches._side import Side
from fleche.caches._sound import sound_parcels
from fleche.digest import Digest
from fleche.errors import ParcelError, Rejected
from fleche.parcel import Parcel, inline

__all__ = ["Shipment"]

log = logging.getLogger("fleche.caches")

_PORTION = 64 << 20
_HELD = 1 << 16
"""Up to this size, a parcel that waits for its buffers is kept in memory."""


class Shipment:
    """Those of some values that a target lacks, sent a portion at a time.

    What the target refuses, or cannot take as it is, is left out, and so is what the source lacks.

    Args:
        source: has the values.
        target: is to have them.
        values: what is asked for.
        lease: keeps in the target what takes long to arrive: large buffers, and what needs them.

    Attributes:
        lacking: what has not been dealt with yet.
        absent: what the target has not got in the end.
        refused: what the target refuses, and why.
    """

    def __init__(self, source: Side, target: Side, values: Iterable[Digest], lease: Lease) -> None:
        self._source, self._target, self._lease = source, target, lease
        self.lacking = dict.fromkeys(target.missing(values))
        self.absent: set[Digest] = set()
        self.refused: dict[Digest, Rejected | ParcelError] = {}

    def send_all(self) -> None:
        """Send everything."""
        while self.lacking:
            self.send_some()

    def send_some(self) -> None:
        """Send a portion, with the buffers that it needs."""
        portion = _Portion(self._source, list(self.lacking))
        delivered = self._deliver(portion.plain(), self._again)
        if portion.waiting.references:
            whole = self._target.opens_parcels
            send = self._deliver_whole if whole else self._deliver_in_parts
            delivered |= send(portion.waiting)
        for digest in portion.dealt_with():
            del self.lacking[digest]
            if digest not in delivered:
                self.absent.add(digest)

    def _again(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        return sound_parcels(self._source, digests)

    def _deliver_in_parts(self, waiting: _Waiting) -> set[Digest]:
        """Send the buffers that the target lacks, then the values; return those that are whole."""
        needed = dict.fromkeys(key for keys in waiting.references.values() for key in keys)
        self._lease.hold([*waiting.references, *needed])
        lacking = self._target.missing(needed)
        sent = self._deliver(self._again(lacking), self._again) if lacking else set()
        gone = set(lacking) - sent
        whole = [key for key, needs in waiting.references.items() if gone.isdisjoint(needs)]
        return self._deliver(waiting.take(whole), waiting.take)

    def _deliver_whole(self, waiting: _Waiting) -> set[Digest]:
        """Send values with their buffers inside; return those that are whole."""

        def filled(digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
            for digest, parcel in waiting.take(digests):
                buffers = dict(sound_parcels(self._source, parcel.references))
                try:
                    if len(buffers) == len(parcel.references):
                        yield digest, inline(parcel, buffers, self._target.packing.keys)
                finally:
                    for each in (parcel, *buffers.values()):
                        each.close()

        return self._deliver(filled(waiting.references), filled)

    def _deliver(
        self,
        parcels: Iterator[tuple[Digest, Parcel]],
        again: Callable[[Iterable[Digest]], Iterator[tuple[Digest, Parcel]]],
    ) -> set[Digest]:
        """Save parcels in the target, and return whose values it has then.

        Where one is refused, all that is not there yet is saved one by one, to learn which.

        Args:
            parcels: what is to be saved.
            again: gives the parcels of what was given before.
        """
        taken: set[Digest] = set()
        try:
            self._target.save_parcels(_noting(parcels, taken))
        except (Rejected, ParcelError):
            lacking = self._target.missing(taken)
            taken.difference_update(lacking)
            for digest, parcel in chain(again(lacking), parcels):
                with closing(parcel):
                    if self._is_saved(digest, parcel):
                        taken.add(digest)
        return taken

    def _is_saved(self, digest: Digest, parcel: Parcel) -> bool:
        """Save a parcel, and tell whether the target has taken it."""
        try:
            self._target.save_parcel(digest, parcel)
        except (Rejected, ParcelError) as error:
            self._source.count("refused")
            log.warning("value %s: refused, not copied: %s", digest[:12], error)
            self.refused[digest] = error
            return False
        return True


class _Portion:
    """What ``source`` has of ``wanted``, until it is enough for one portion.

    Attributes:
        waiting: the values that refer to buffers.
    """

    def __init__(self, source: Side, wanted: list[Digest]) -> None:
        self._source, self._wanted = source, wanted
        self._seen: list[Digest] = []
        self._is_last = False
        self.waiting = _Waiting(source)

    def plain(self) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the values that refer to no buffers; put the others aside."""
        size = 0
        for digest, parcel in sound_parcels(self._source, self._wanted):
            self._seen.append(digest)
            size += _size_with_buffers(parcel)
            if parcel.references:
                self.waiting.add(digest, parcel)
            else:
                yield digest, parcel
            if size >= _PORTION:
                return
        self._is_last = True

    def dealt_with(self) -> list[Digest]:
        """Return what need not be asked for again: what was seen; after the last, everything."""
        return self._seen if self._seen and not self._is_last else self._wanted


class _Waiting:
    """Parcels whose buffers are to be copied first; large ones are asked for once more."""

    def __init__(self, source: Side) -> None:
        self._source = source
        self._held: dict[Digest, Parcel] = {}
        self.references: dict[Digest, tuple[Digest, ...]] = {}

    def add(self, digest: Digest, parcel: Parcel) -> None:
        self.references[digest] = parcel.references
        if parcel.nbytes <= _HELD:
            self._held[digest] = parcel
        else:
            parcel.close()

    def take(self, wanted: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        again = []
        for digest in wanted:
            if digest in self._held:
                yield digest, self._held.pop(digest)
            else:
                again.append(digest)
        if again:
            yield from sound_parcels(self._source, again)


def _size_with_buffers(parcel: Parcel) -> int:
    apart = (entry.size for entry in parcel.head.buffers if not entry.inline)
    return parcel.nbytes + sum(apart)


def _noting(
    parcels: Iterable[tuple[Digest, Parcel]], taken: set[Digest]
) -> Iterator[tuple[Digest, Parcel]]:
    """Yield ``parcels``, and note each."""
    for digest, parcel in parcels:
        taken.add(digest)
        yield digest, parcel
