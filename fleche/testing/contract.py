"""The rules that hold for every storage, of values and of calls alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

from fleche.call import CallRecord
from fleche.digest import Digest, digest
from fleche.errors import AmbiguousDigestError
from fleche.parcel import Parcel
from fleche.storage.base import Storage
from fleche.storage.registry import Kind, storage_from_config
from fleche.testing.corpus import a_record

__all__ = [
    "ALIKE",
    "COMMON_RULES",
    "FAR",
    "NEAR",
    "Items",
    "Parcels",
    "Records",
    "Rule",
    "assert_absent",
    "assert_raises",
    "run_rules",
]

ALIKE = [Digest("abcd" + character * 60) for character in "012"]
NEAR, FAR = Digest("abce" + "0" * 60), Digest("f" * 64)


class Items(Protocol):
    """Makes entries of one kind for any key, and compares them."""

    kind: Kind

    def make(self, storage: Any, key: Digest) -> Any:
        """Return an entry that may be put under ``key``."""
        ...

    def same(self, storage: Any, key: Digest, found: Any) -> bool:
        """Tell whether ``found`` is the entry that was put."""
        ...


class Parcels:
    """Parcels, each the number 1."""

    kind: Kind = "values"

    def make(self, storage: Any, key: Digest) -> Parcel:
        """Return a parcel for ``key``."""
        parcel: Parcel = storage.packing.pack(1, key)
        return parcel

    def same(self, storage: Any, key: Digest, found: Parcel) -> bool:
        """Open the parcel and compare."""
        return bool(storage.packing.unpack(found, key) == 1)


class Records:
    """Records, each of another call."""

    kind: Kind = "calls"

    def make(self, storage: Any, key: Digest) -> CallRecord:  # noqa: ARG002
        """Return a record for ``key``."""
        return a_record("f", x=str(key))

    def same(self, storage: Any, key: Digest, found: CallRecord) -> bool:
        """Compare the records."""
        return found == self.make(storage, key)


Rule: TypeAlias = Callable[[Any, Items], None]


def run_rules(factory: Callable[[], Storage[Any]], items: Items, rules: Iterable[Rule]) -> None:
    """Check each rule on a storage of its own.

    Raises:
        AssertionError: a rule is broken; the message says which and how.
    """
    for rule in rules:
        storage = factory()
        try:
            rule(storage, items)
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            sentence = " ".join((rule.__doc__ or "").split())
            raise AssertionError(f"{storage!r} breaks a rule: {sentence} {said}") from error
        finally:
            storage.close()


def assert_absent(storage: Any, key: Digest) -> None:
    """Assert that every method says that there is no such entry."""
    assert not storage.contains(key), "contains() claims that it is there"
    assert_raises(KeyError, storage.get, key)
    assert_raises(KeyError, storage.entry, key)
    assert storage.missing([key]) == [key], "missing() does not list it"


def assert_raises(kind: type[Exception], function: Callable[..., Any], *arguments: Any) -> None:
    """Assert that a call raises an error of ``kind``."""
    try:
        function(*arguments)
    except kind:
        return
    raise AssertionError(f"{function.__name__}() did not raise {kind.__name__}")


def _misses(storage: Any, items: Items) -> None:  # noqa: ARG001
    """What was never put is not there, and may be deleted."""
    assert_absent(storage, FAR)
    storage.delete(FAR)
    assert list(storage.keys()) == [], "a fresh storage has keys"
    assert not storage.delete_older(FAR, time.time()), "delete_older() deleted nothing"


def _keeps(storage: Any, items: Items) -> None:
    """What was put is there, until it is deleted, once or twice."""
    storage.put(NEAR, items.make(storage, NEAR))
    storage.put(FAR, items.make(storage, FAR))
    assert storage.contains(NEAR), "contains() denies it"
    assert items.same(storage, NEAR, storage.get(NEAR)), "get() returns something else"
    storage.delete(NEAR)
    storage.delete(NEAR)
    assert_absent(storage, NEAR)
    assert storage.contains(FAR), "delete() took another entry along"
    assert items.same(storage, FAR, storage.get(FAR)), "delete() changed another entry"


def _puts_again(storage: Any, items: Items) -> None:
    """Putting an entry again adds none and makes it young; so does renewing it, or several."""
    for key in (NEAR, FAR):
        storage.put(key, items.make(storage, key))
    before = [storage.entry(key).modified for key in (NEAR, FAR)]
    assert all(abs(age - time.time()) < 60 for age in before), f"modified is {before}"
    time.sleep(1.1)  # some file systems count in seconds
    storage.put(NEAR, items.make(storage, NEAR))
    assert storage.renew(FAR), "renew() denies that the entry is there"
    gone = storage.renew_many([ALIKE[1], NEAR, ALIKE[0], FAR])
    assert gone == [ALIKE[1], ALIKE[0]], f"renew_many() says that {gone} are not there"
    assert storage.renew_many([]) == [], "renew_many() misses something of nothing"
    after = [storage.entry(key).modified for key in (NEAR, FAR)]
    assert after[0] > before[0], f"put() left modified at {after[0]}"
    assert after[1] > before[1], f"renew() left modified at {after[1]}"
    assert sorted(storage.keys()) == sorted((NEAR, FAR)), "there are other entries now"
    assert items.same(storage, FAR, storage.get(FAR)), "renew() changed the entry"
    assert not storage.renew(ALIKE[0]), "renew() claims an entry that was never put"
    assert not storage.contains(ALIKE[0]), "renew() made an entry"


def _batches(storage: Any, items: Items) -> None:
    """The forms for many entries agree with those for one."""
    keys = [digest(("entry", number)) for number in range(20)]
    storage.put_many({key: items.make(storage, key) for key in keys})
    assert set(storage.keys()) == set(keys), "put_many() did not put what it was given"
    found = dict(storage.get_many([*keys, FAR]))
    assert set(found) == set(keys), "get_many() does not yield the entries that are there"
    assert all(items.same(storage, key, found[key]) for key in keys), "get_many() mixes them up"
    assert storage.missing([FAR, *keys]) == [FAR], "missing() is wrong"
    assert list(storage.missing([])) == list(storage.get_many([])) == [], "nothing is something"


def _abbreviates(storage: Any, items: Items) -> None:
    """A short digest stands for the one key that begins with it."""
    for key in (*ALIKE, NEAR):
        storage.put(key, items.make(storage, key))
    assert sorted(storage.matching("abc")) == [*ALIKE, NEAR], "matching() is wrong"
    assert list(storage.matching("f")) == [], "matching() makes keys up"
    assert storage.expand("abcd1") == ALIKE[1], "expand() is wrong"
    assert storage.expand(NEAR) == NEAR, "expand() changes a complete key"
    assert_raises(AmbiguousDigestError, storage.expand, "abcd")
    assert_raises(KeyError, storage.expand, "ffff")
    shrunk = storage.shrink(*ALIKE, NEAR)
    assert list(shrunk) == ["abcd0", "abcd1", "abcd2", "abce"], f"shrink() says {shrunk}"
    assert all(storage.expand(key) for key in shrunk), "expand() does not undo shrink()"


def _lists(storage: Any, items: Items) -> None:
    """entries() tells size and age of every key, as entry() does."""
    for key in ALIKE:
        storage.put(key, items.make(storage, key))
    entries = {entry.key: entry for entry in storage.entries()}
    assert sorted(entries) == ALIKE, "entries() lists other keys than keys()"
    for key, entry in entries.items():
        assert isinstance(key, Digest), "entries() yields keys that are no Digest"
        assert entry.size > 0, "an entry of no bytes"
        assert entry == storage.entry(key), "entry() disagrees"
    assert {type(key) for key in list(storage.keys())} == {Digest}, "a key is no Digest"


def _ages(storage: Any, items: Items) -> None:
    """delete_older() takes an entry that is older than the limit, and no other."""
    storage.put(NEAR, items.make(storage, NEAR))
    modified = storage.entry(NEAR).modified
    assert not storage.delete_older(NEAR, modified - 60), "it took a young entry"
    assert items.same(storage, NEAR, storage.get(NEAR)), "it harmed a young entry"
    assert storage.delete_older(NEAR, modified + 60), "it left an old entry"
    assert_absent(storage, NEAR)


def _threads(storage: Any, items: Items) -> None:
    """Threads may put, get, renew, list and delete the same entries at once."""
    keys = ALIKE

    def work(number: int) -> None:
        key = keys[number % len(keys)]
        storage.put(key, items.make(storage, key))
        for found, item in storage.get_many(keys):
            assert items.same(storage, found, item), "a thread was given something else"
        if number % 3 == 0:
            storage.delete(key)
        assert set(storage.keys()) <= set(keys), "a thread saw a key that nobody put"
        storage.renew(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(48)))


def _describes_itself(storage: Any, items: Items) -> None:
    """to_config() is the table of fleche.toml that gives the same storage again."""
    table = storage.to_config()
    assert isinstance(table.get("type"), str), f"{table} has no type"
    again = storage_from_config(table, items.kind)
    try:
        assert type(again) is type(storage), f"{table} gives a {type(again).__name__}"
        assert again.to_config() == table, f"{table} becomes {again.to_config()}"
        assert again.capabilities == storage.capabilities, "the capabilities differ"
    finally:
        again.close()


def _is_persistent(storage: Any, items: Items) -> None:
    """What a persistent storage holds is there for another object with the same configuration."""
    if not storage.capabilities.persistent:
        return
    storage.put(NEAR, items.make(storage, NEAR))
    again: Any = storage_from_config(storage.to_config(), items.kind)
    try:
        assert items.same(again, NEAR, again.get(NEAR)), "get() returns something else"
    finally:
        again.close()


def _closes_twice(storage: Any, items: Items) -> None:
    """close() may be called again."""
    storage.put(NEAR, items.make(storage, NEAR))
    storage.close()
    storage.close()


COMMON_RULES: tuple[Rule, ...] = (
    _misses,
    _keeps,
    _batches,
    _abbreviates,
    _lists,
    _ages,
    _threads,
    _describes_itself,
    _is_persistent,
    _closes_twice,
    _puts_again,
)
