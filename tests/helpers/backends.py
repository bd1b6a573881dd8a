"""What tests ask of the backend of a cache, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fleche.caches import BaseCache
from fleche.call import CallEntry, CallRecord
from fleche.digest import Address, Digest
from fleche.errors import ParcelError
from fleche.parcel import Parcel

__all__ = [
    "address_of",
    "lacking",
    "load_parcel",
    "load_parcels",
    "load_record",
    "save_parcel",
    "save_parcels",
    "save_record",
    "save_records",
]


def address_of(digest: str, parcel: Parcel) -> Address:
    """Where the parcel of a value belongs."""
    return Address.of(digest, parcel.variant)


def load_record(cache: BaseCache, key: Digest | str) -> CallRecord:
    """The record of a call; KeyError if it is not there."""
    return cache.load(key).record


def save_record(cache: BaseCache, key: Digest, record: CallRecord) -> None:
    """Store a record without its values."""
    save_records(cache, {key: record})


def save_records(cache: BaseCache, records: Mapping[Digest, CallRecord]) -> None:
    """Store records without their values."""
    cache.backend.save({key: CallEntry(record) for key, record in records.items()})


def load_parcel(cache: BaseCache, digest: Digest | str) -> Parcel:
    """The parcel of a value, in any form; KeyError if it is not there."""
    for _, parcel in load_parcels(cache, [digest]):
        return parcel
    raise KeyError(digest)


def load_parcels(
    cache: BaseCache, digests: Iterable[Digest | str]
) -> Iterator[tuple[Digest, Parcel]]:
    """The parcels of those values that are there; one that is damaged is raised."""
    for address, parcel in cache.backend.load_values([Address.of(each) for each in digests]):
        if isinstance(parcel, ParcelError):
            raise parcel
        yield address.digest, parcel


def save_parcel(cache: BaseCache, digest: Digest | str, parcel: Parcel) -> None:
    """Store the parcel of a value."""
    save_parcels(cache, [(digest, parcel)])


def save_parcels(cache: BaseCache, parcels: Iterable[tuple[Digest | str, Parcel]]) -> None:
    """Store the parcels of values."""
    cache.backend.save({}, ((address_of(digest, parcel), parcel) for digest, parcel in parcels))


def lacking(
    cache: BaseCache, digests: Iterable[Digest | str], *, keep: bool = False
) -> list[Digest]:
    """Those of the digests of which no form is there."""
    wanted = [Address.of(each) for each in digests]
    return [address.digest for address in cache.backend.lacking(wanted, keep=keep)]
