"""Checking every byte in a pair of storages.

All of it may run while others, in this process and elsewhere, save and load. No value is opened.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleche.caches._backend import Progress, result_needs
from fleche.caches.maintenance._index import ReferenceIndex, Steps, address_of
from fleche.caches.maintenance._reports import Verify, VerifyReport
from fleche.call import CallEntry
from fleche.digest import SCHEME, Address, Digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError
from fleche.parcel import verify as verify_parcel
from fleche.storage import BufferRefs, CallStorage, ValueStorage

__all__ = ["verify"]

_TICK = 1.0
"""Seconds by which the time of a file may lag behind the clock."""


def verify(
    values: ValueStorage,
    calls: CallStorage,
    secrets: Sequence[bytes],
    task: Verify,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check every byte of every entry.

    A repair removes nothing that was stored, or found to be here, after the check began.

    Args:
        values: where the values are.
        calls: where the entries are.
        secrets: if there are any, one of them must have signed each value.
        task: whether to remove what is corrupt, and calls whose result is gone.
        progress: called with the number of entries looked at so far.
    """
    steps = Steps(progress)
    began = values.now() - _TICK
    ages = {each.key: each.modified for each in values.entries()}
    found = _check_values(values, ages, secrets, steps)
    ages_of_calls = {each.key: each.modified for each in calls.entries()}
    index = ReferenceIndex(calls, steps)
    of_calls = _check_calls(values, index, ages_of_calls, found, secrets)
    orphaned = _count_orphans(index, found.refs)
    report = VerifyReport(
        values=len(found.refs) + len(found.corrupt),
        corrupt=_digests(found.corrupt),
        untrusted=_digests(found.untrusted),
        broken=_digests(found.broken),
        orphaned=orphaned,
    )
    report += of_calls
    if not task.repair:
        return report
    removed = _remove_corrupt(values, ages, found.corrupt, secrets, began)
    removed += _remove(calls, ages_of_calls, of_calls.corrupt)
    # a buffer or a result may have been stored again meanwhile; then what stands on it is whole
    broken = list(_find_broken(values, {key: found.refs[key] for key in found.broken}, ()))
    removed += _remove(values, ages, broken)
    dangling = [key for key in of_calls.dangling if _is_dangling(values, calls, key)]
    removed += _remove(calls, ages_of_calls, dangling)
    return report + VerifyReport(removed=removed)


@dataclass
class _Values:
    """What is known of the values after each was checked.

    Attributes:
        refs: the buffers that each needs, of all that are not corrupt.
        corrupt, untrusted, broken: addresses.
    """

    refs: dict[str, BufferRefs] = field(default_factory=dict)
    corrupt: list[str] = field(default_factory=list)
    untrusted: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def has(self, address: Address) -> bool:
        """Return whether a value that is neither corrupt nor broken is there."""
        return address in self._usable or (not address.variant and address in self._digests)

    def settle(self) -> None:
        """Take note that everything has been looked at."""
        self._usable = self.refs.keys() - set(self.broken)
        self._digests = {key[:64] for key in self._usable}


def _check_values(
    values: ValueStorage, keys: Iterable[str], secrets: Sequence[bytes], steps: Steps
) -> _Values:
    found = _Values()
    for key, refs in values.check_many(keys, secrets):
        steps.step()
        if not isinstance(refs, ParcelError):
            found.refs[key] = refs
        elif _is_damage(refs):
            found.corrupt.append(key)
        else:
            found.untrusted.append(key)
            head = getattr(refs, "head", None)
            found.refs[key] = BufferRefs() if head is None else BufferRefs.of(head)
    found.broken = list(_find_broken(values, found.refs, set(found.corrupt)))
    found.settle()
    return found


def _is_damage(error: ParcelError) -> bool:
    """Return whether it is damage, and not what others may trust, or a newer fleche read."""
    return not (isinstance(error, SignatureError) or getattr(error, "newer", False))


def _find_broken(
    values: ValueStorage, refs: Mapping[str, BufferRefs], corrupt: Collection[str]
) -> Iterator[str]:
    """Yield the values that refer to a buffer which is gone or corrupt."""
    wanted = {each for found in refs.values() for each in found.references if each not in refs}
    here = values.contains_many(wanted - set(corrupt)) if wanted else set()
    for key, found in refs.items():
        if any(each not in refs and each not in here for each in found.references):
            yield key


def _check_calls(
    values: ValueStorage,
    index: ReferenceIndex,
    keys: Iterable[str],
    found: _Values,
    secrets: Sequence[bytes],
) -> VerifyReport:
    damaged: list[str] = []
    untrusted: list[str] = []
    dangling, incomplete, misfiled = [], [], []
    for key, entry in index.walk(keys):
        record = entry.record
        if record.is_pin:
            continue
        flaw = _flaw_of(entry, secrets)
        if flaw is not None:
            (damaged if _is_damage(flaw) else untrusted).append(key)
        gone = {each for each in index.needs[key] if not found.has(each)}
        gone = {each for each in gone if not _came_since(values, each, found)}
        if not gone.isdisjoint(result_needs(entry)):
            dangling.append(key)
        elif gone:
            incomplete.append(key)
        if record.scheme != SCHEME or (flaw is None and record.key != key):
            misfiled.append(key)
    for key, error in index.unreadable.items():
        (damaged if _is_damage(error) else untrusted).append(key)
    return VerifyReport(
        calls=len(index.needs) - len(index.pins),
        corrupt=_digests(damaged),
        untrusted=_digests(untrusted),
        dangling=_digests(dangling),
        incomplete=_digests(incomplete),
        misfiled=_digests(misfiled),
    )


def _came_since(values: ValueStorage, address: Address, found: _Values) -> bool:
    """Return whether a value is there that was not when the values were listed."""
    if address in found.corrupt or address in found.broken:
        return False
    if address.variant:
        return bool(values.contains_many([address]))
    return any(each.key not in found.refs for each in values.forms(address))


def _flaw_of(entry: CallEntry, secrets: Sequence[bytes]) -> ParcelError | None:
    """Return what is wrong with what is read late: in the record, and parcels beside it."""
    try:
        entry.record.check()
        for address in entry.parcels:
            parcel = entry.parcel(address)
            if parcel is not None:
                verify_parcel(parcel, digest=address.digest, keys=secrets)
    except (CorruptParcel, SignatureError) as error:
        return error
    return None


def _is_dangling(values: ValueStorage, calls: CallStorage, key: str) -> bool:
    for _, entry in calls.get_many([key]):
        if isinstance(entry, CallEntry):
            needed = result_needs(entry)
            here = values.contains_many(needed)
            return any(
                each not in here and (each.variant or not values.forms(each)) for each in needed
            )
    return False


def _count_orphans(index: ReferenceIndex, refs: Mapping[str, BufferRefs]) -> int:
    """Return how many values no entry refers to, and no value that one refers to."""
    used = {key for key in refs if index.is_needed(key)}
    for key in list(used):
        used.update(refs[key].references)
    return len(refs.keys() - used)


def _remove(
    storage: ValueStorage | CallStorage, ages: Mapping[str, float], keys: Iterable[str]
) -> int:
    """Remove those entries that are as old as they were; return how many."""
    return len(storage.delete_older({str(key): ages[key] for key in keys}))


def _remove_corrupt(
    values: ValueStorage,
    ages: Mapping[str, float],
    keys: Sequence[str],
    secrets: Sequence[bytes],
    began: float,
) -> int:
    """Remove those values; return how many.

    What has changed the bytes may have changed the age of the file, too, and no listing says so.
    Where that was within the last tick, it may as well have been stored anew since; a tick later it
    can be told.
    """
    gone = values.delete_older({key: max(ages[key], began) for key in keys})
    left = _still_corrupt(values, [key for key in keys if key not in gone], secrets)
    if not left:
        return len(gone)
    time.sleep(_TICK)
    began = values.now() - _TICK
    left = _still_corrupt(values, left, secrets)
    return len(gone | values.delete_older({key: max(ages[key], began) for key in left}))


def _still_corrupt(
    values: ValueStorage, keys: Iterable[str], secrets: Sequence[bytes]
) -> list[str]:
    checked = values.check_many(keys, secrets)
    return [key for key, refs in checked if isinstance(refs, ParcelError) and _is_damage(refs)]


def _digests(keys: Iterable[str]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(address_of(key).digest for key in keys))
