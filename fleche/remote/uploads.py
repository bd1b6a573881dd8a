"""How values and records are put together to be sent, and taken apart where they arrive.

Over a distance, what counts is how often one waits for an answer. Small things travel together in
one request, a large value in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from fleche.batches import batched
from fleche.digest import Digest
from fleche.errors import ProtocolError
from fleche.parcel import Buffer, Parcel
from fleche.remote import messages as m
from fleche.remote.connection import Outgoing
from fleche.remote.frames import Kind
from fleche.remote.streams import Stream

__all__ = ["BATCH", "Upload", "batches", "groups", "uploads"]

BATCH = 4096
"""How many digests one request names at most."""

SMALL = 1 << 16
GROUP = 1 << 19
GROUPED = 1000


def batches(digests: Iterable[Digest]) -> Iterator[list[str]]:
    """Yield digests as plain text, as many as one request names at most."""
    return batched(map(str, digests), BATCH)


def uploads(parcels: Iterable[tuple[Digest, Parcel]]) -> Iterator[Outgoing]:
    """Yield the requests that store ``parcels``: a large one alone, small ones together."""

    def small() -> Iterator[tuple[str, bytes]]:
        for digest, parcel in parcels:
            if parcel.nbytes > SMALL:
                large.append((digest, parcel))
                return
            yield str(digest), parcel.tobytes()
            parcel.close()

    large: list[tuple[Digest, Parcel]] = []
    parcels = iter(parcels)
    while True:
        for group in groups(small()):
            joined = b"".join(data for _, data in group)
            sizes = [(key, len(data)) for key, data in group]
            yield Outgoing(m.SaveParcels(sizes), partial(_alone, joined), len(joined))
        if not large:
            return
        digest, parcel = large.pop()
        request = m.SaveParcels([(str(digest), parcel.nbytes)])
        yield Outgoing(request, parcel.chunks, parcel.nbytes, parcel.close)


def _alone(data: bytes) -> list[Buffer]:
    return [data]


def groups(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield items in groups that each fit well into a frame."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for item in items:
        if group and (size + len(item[1]) > GROUP or len(group) >= GROUPED):
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item[1])
    if group:
        yield group


class Upload:
    """The bytes that follow a request, parcel by parcel."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = memoryview(b"")
        self._left = 0

    def take(self, size: int) -> Iterator[Buffer]:
        """Yield the next ``size`` bytes; fewer if the upload ends early."""
        self._left = size
        while self._left and (self._rest or self._receive()):
            piece = self._rest[: self._left]
            self._rest = self._rest[len(piece) :]
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        """Pass over what is left of the parcel that was taken last."""
        for _ in self.take(self._left):
            pass

    def _receive(self) -> bool:
        while (frame := self._stream.receive()) is not None:
            if frame.kind is not Kind.DATA:
                raise ProtocolError("a message came in the middle of a parcel")
            if frame.payload:
                self._rest = memoryview(frame.payload)
                return True
        return False
