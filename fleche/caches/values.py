"""What every cache does with values: packing, opening, and sharing their large buffers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from fleche.caches.primitives import Primitives
from fleche.digest import BufferDigests, Digest, digest_with_buffers
from fleche.errors import ParcelError, UnpackError
from fleche.parcel import SHARED_MAX, Parcel

__all__ = ["Values"]

_LONG = 10.0
"""Seconds of saving after which buffers are looked at again: somebody may have collected them."""


class Values(Primitives):
    """Values by their digest, on top of the primitives.

    The large buffers of a value are values by themselves, under the BLAKE3 of their content, and
    the parcel of the value refers to them: what several values contain is stored and sent once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._damaged: set[Digest] = set()
        self._incomplete: set[Digest] = set()  # values with a buffer that is damaged or gone

    def open_parcel(self, parcel: Parcel, digest: Digest) -> Any:
        """Return the value inside ``parcel``, which must be that of ``digest``.

        The buffers that it refers to are loaded from here, all at once.

        Raises:
            KeyError: a buffer is gone. The value is replaced when it is saved again.
            ParcelError: it is damaged, not trusted, another value's, or cannot be made here.
        """
        if not parcel.references:
            return self.packing.unpack(parcel, digest)
        if self.packing.keys:
            parcel.check_signature(self.packing.keys)
        buffers: dict[Digest, Parcel] = {}
        try:
            buffers.update(self.load_parcels(parcel.references))
            gone = [key for key in parcel.references if key not in buffers]
            if gone:
                self._damaged.add(digest)
                raise KeyError(gone[0])
            return self.packing.unpack(parcel, digest, buffers)
        except UnpackError:
            raise
        except ParcelError:
            self._incomplete.add(digest)
            self._damaged.update(parcel.references)
            raise
        finally:
            for buffer in buffers.values():
                buffer.close()

    def load_value(self, digest: Digest | str) -> Any:
        """Return the value of a digest, which may be short.

        Raises:
            KeyError: the value, or a part of it, is not here.
            ParcelError: it is damaged, not trusted, or cannot be made here.
        """
        full = self.complete(digest)
        return self.open_parcel(self.load_parcel(full), full)

    def save_value(self, value: Any) -> Digest:
        """Store ``value`` unless it is here already, and return its digest.

        Raises:
            Indigestible: it has no digest.
            Rejected: this cache refuses it.
        """
        self.check_writable("save")
        found, buffers = digest_with_buffers(value)
        self.save_values({found: value}, buffers)
        return found

    def save_values(
        self, values: Mapping[Digest, Any], buffers: BufferDigests | None = None
    ) -> None:
        """Store those of ``values`` that are not here, and those that have proved damaged.

        Large buffers go before the values that refer to them: whenever it is interrupted, what is
        here is whole.

        Args:
            values: objects by their digest.
            buffers: what digesting them has found out about the buffers inside them.

        Raises:
            Rejected: this cache refuses it.
        """
        if self.opens_parcels:
            lacking = self._lacking(values)
            self.save_parcels(
                (self._cleared(key), self.packing.pack(values[key], key, buffers))
                for key in lacking
            )
        else:
            self._save_in_parts(values, buffers)

    def _save_in_parts(self, values: Mapping[Digest, Any], buffers: BufferDigests | None) -> None:
        begun = time.monotonic()
        asked = dict.fromkeys((*values, *_largest(buffers, SHARED_MAX * len(values))))
        lacking = dict.fromkeys(self._lacking(asked))
        shared: dict[Digest, memoryview] = {}
        waiting: dict[Digest, Parcel] = {}

        def parts() -> Iterator[tuple[Digest, Parcel]]:
            for key in [key for key in lacking if key in values]:
                packed = self.packing.pack_parts(values[key], key, buffers)
                if not packed.buffers:
                    yield self._cleared(key), packed.main
                    continue
                waiting[key] = packed.main
                if new := [each for each in packed.buffers if each not in asked]:
                    asked.update(dict.fromkeys(new))
                    lacking.update(dict.fromkeys(self._lacking(new)))
                for each, content in packed.buffers.items():
                    if each in lacking and each not in shared:
                        yield self._cleared(each), self.packing.pack_buffer(content, each)
                    shared[each] = content

        self.save_parcels(parts())
        if waiting:
            self.save_parcels((self._cleared(key), parcel) for key, parcel in waiting.items())
        if shared and time.monotonic() - begun > _LONG:
            # until the value was here, nothing but their age kept its buffers
            gone = self.missing(shared)
            self.save_parcels((key, self.packing.pack_buffer(shared[key], key)) for key in gone)

    def _lacking(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return what is to be stored: what is not here, and what must not be used."""
        wanted = dict.fromkeys(digests)
        unusable = [key for key in wanted if key in self._damaged or key in self._incomplete]
        rest = [key for key in wanted if key not in unusable]
        return [*unusable, *self.missing(rest)]

    def _cleared(self, key: Digest) -> Digest:
        """Return ``key`` after removing what is here under it and must not be used."""
        if key in self._damaged or key in self._incomplete:
            self.drop(key)
            self._damaged.discard(key)
            self._incomplete.discard(key)
        return key

    def complete(self, key: Digest | str) -> Digest:
        """Return ``key`` itself if it is complete, else :meth:`expand` it."""
        found = Digest(key)
        return found if found.is_full else self.expand(found)

    def shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        """Return for each key the shortest beginning that stands for it alone here."""
        return self._shrink(*keys)

    def drop(self, key: Digest) -> None:
        """Remove an entry from where saves go; none there is no error.

        Raises:
            Rejected: this cache is read-only.
        """
        with suppress(KeyError):
            self.evict(key)


def _largest(buffers: BufferDigests | None, most: int) -> list[Digest]:
    """Return the digests of the ``most`` largest buffers that are known."""
    if buffers is None:
        return []
    ranked = sorted(buffers.digests.items(), key=lambda item: -item[0][1])
    return [found for _, found in ranked[:most]]
