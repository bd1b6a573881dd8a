"""Who needs what in a pair of storages, and taking away what nobody needs any more.

Calls refer to values, and values to shared buffers. A value is removed by whoever evicts the last
call that needs it, at once: there is no time of grace for it, as :mod:`fleche.caches.garbage` has.
What others rely on stays all the same:

- A call that is running has left a lease before it stored, or found here, its arguments. Values
  are listed before calls: whoever found an argument before its age was seen shows his lease or his
  record, and whoever found it later has made it younger than what is removed.
- A value that is younger than the call that goes was found here by somebody who has not left a
  record yet.
- Somebody else may need the very value at this moment, and only his record will tell. He looks
  once more when he has left it (see :mod:`fleche.caches.limited`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fleche.call import CallRecord
from fleche.digest import Digest
from fleche.errors import ParcelError
from fleche.storage.base import CallStorage, Table, ValueStorage

__all__ = ["Candidate", "Eviction", "Survey", "least_recently_used"]


@dataclass(frozen=True)
class Candidate:
    """A call that may be evicted.

    Attributes:
        key: its key.
        record: what is known of it: name, metadata such as how long it took, and so on.
        used: when it was last saved or loaded, in seconds since the epoch.
    """

    key: Digest
    record: CallRecord
    used: float


Eviction: TypeAlias = Callable[[Sequence[Candidate]], Iterable[Candidate]]
"""Brings candidates into the order in which they go, the first to go first."""


def least_recently_used(candidates: Sequence[Candidate]) -> Iterable[Candidate]:
    """Let go first what was not used for longest."""
    return sorted(candidates, key=lambda call: call.used)


class Survey:
    """What is in a pair of storages, and who refers to what.

    Args:
        values: where the values are.
        calls: where the records and leases are.

    Attributes:
        finished: the records of the calls that have returned.
        bytes: the size of those, and of the values that they need. What running calls need, or
            nobody, does not count: it would not go with a call.

    Raises:
        ParcelError: nobody knows which buffers a value needs; a newer fleche has put it there.
    """

    def __init__(self, values: ValueStorage, calls: CallStorage) -> None:
        self._values, self._calls = values, calls
        self._entries = {entry.key: entry for entry in values.entries()}
        self._ages = {entry.key: entry for entry in calls.entries()}
        self._tables = dict(values.tables(self._entries))
        self._held: Counter[Digest] = Counter()  # buffers, by the values here that refer to them
        for table in self._tables.values():
            self._held.update(table.references)
        self._leased: Counter[Digest] = Counter()  # by the calls that are running
        self._needed: Counter[Digest] = Counter()  # by those that have returned, and their values
        self.finished: dict[Digest, CallRecord] = {}
        self.bytes = 0
        for key, record in self._records(self._ages):
            if self._take_note(record):
                self.finished[key] = record
                self.bytes += self._ages[key].size
        # calls that were running a moment ago may have exchanged their lease for a record
        for _, record in self._records(set(calls.keys()) - self._ages.keys()):
            self._take_note(record)

    def _records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        for key in keys:
            try:
                record = self._calls.get(key)
            except (KeyError, ParcelError):
                continue
            yield key, record

    def _take_note(self, record: CallRecord) -> bool:
        """Count what a call refers to; tell whether it has returned."""
        if record.result is None:
            self._leased.update(record.digests())
            return False
        for digest in record.digests():
            self._need(digest)
        return True

    def _need(self, digest: Digest) -> None:
        self._needed[digest] += 1
        if self._needed[digest] == 1 and digest in self._entries:
            self.bytes += self._entries[digest].size
            for buffer in self._table(digest).references:
                self._need(buffer)

    def _need_no_more(self, digest: Digest) -> None:
        self._needed[digest] -= 1
        if not self._needed[digest] and digest in self._entries:
            self.bytes -= self._entries[digest].size
            for buffer in self._table(digest).references:
                self._need_no_more(buffer)

    def _table(self, digest: Digest) -> Table:
        return self._tables.get(digest, Table())

    def candidates(self, keep: Digest | None) -> list[Candidate]:
        """Return the calls that have returned, except ``keep``."""
        return [
            Candidate(key, record, self._ages[key].modified)
            for key, record in self.finished.items()
            if key != keep
        ]

    def evict(self, key: Digest) -> bool:
        """Remove a call and the values that only it needs; tell whether it went.

        What is used, stored or found to be here since this survey stays. What somebody else has
        removed meanwhile is counted as gone.
        """
        call = self._ages[key]
        evicted = self._calls.delete_older(key, call.modified)
        if not evicted and self._calls.contains(key):
            return False
        self.bytes -= call.size
        digests = self.finished.pop(key).digests()
        for digest in digests:
            self._need_no_more(digest)
        for digest in digests:
            self.remove(digest, call.modified)
        return evicted

    def remove(self, digest: Digest, limit: float) -> None:
        """Remove a value that nothing refers to, with the buffers that only it needed.

        Args:
            digest: a value, or a buffer.
            limit: what is younger stays.
        """
        entry = self._entries.get(digest)
        if entry is None or entry.modified > limit:
            return
        if self._needed[digest] or self._leased[digest] or self._held[digest]:
            return
        if not self._values.delete_older(digest, entry.modified):
            return
        del self._entries[digest]
        buffers = self._table(digest).references
        self._held.subtract(buffers)
        for buffer in buffers:
            self.remove(buffer, limit)
