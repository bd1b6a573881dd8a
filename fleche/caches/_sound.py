"""What a cache has whole: damage is counted and logged, and stays where it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from fleche.caches._side import Side
from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import ParcelError
from fleche.parcel import Parcel, verify

__all__ = ["sound_parcels", "sound_records"]

log = logging.getLogger("fleche.caches")

T = TypeVar("T")


def sound_records(source: Side, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
    """Yield those of the records that ``source`` has whole."""
    return _sound(source, source.load_records, source.load_record, keys)


def sound_parcels(source: Side, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
    """Yield those of the parcels that ``source`` has whole."""
    for digest, parcel in _sound(source, source.load_parcels, source.load_parcel, digests):
        try:
            if not parcel.checked:
                verify(parcel, digest=digest)
                parcel.checked = True
        except KeyError:  # gone while it was read
            parcel.close()
        except ParcelError as error:
            parcel.close()
            _note(source, digest, error)
        else:
            yield digest, parcel


def _sound(
    source: Side,
    load_many: Callable[[Iterable[Digest]], Iterator[tuple[Digest, T]]],
    load: Callable[[Digest], T],
    keys: Iterable[Digest],
) -> Iterator[tuple[Digest, T]]:
    """Yield what ``load_many`` finds, past whatever is damaged."""
    rest = dict.fromkeys(keys)
    while rest:
        try:
            for key, item in load_many(list(rest)):
                del rest[key]
                yield key, item
        except ParcelError:
            yield from _up_to_the_damage(source, load, rest)
        else:
            return


def _up_to_the_damage(
    source: Side, load: Callable[[Digest], T], rest: dict[Digest, None]
) -> Iterator[tuple[Digest, T]]:
    """Load one by one until it is known what is damaged; take what was looked at from ``rest``."""
    for key in list(rest):
        del rest[key]
        try:
            item = load(key)
        except KeyError:
            continue
        except ParcelError as error:
            _note(source, key, error)
            return
        yield key, item


def _note(source: Side, key: Digest, error: ParcelError) -> None:
    source.count(f"errors.{error.code}")
    log.warning("%s: damaged, not copied: %s", key[:12], error)
