"""Storages in memory, and those that keep nothing."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import Any

import pytest

from fleche.call import CallEntry, QueryCall, encode_record
from fleche.digest import Address, digest
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel import Packing, Parcel, pack
from fleche.storage import CallMemory, CallVoid, ValueMemory, ValueVoid
from fleche.testing.corpus import a_record, an_entry

KEY = digest("key")
AT = Address.of(KEY, "0" * 32)


def test_entries_cannot_be_altered_from_outside() -> None:
    """An entry that was put, or given, is a copy."""
    storage = CallMemory()
    memory = bytearray(b"parcel")
    entry = CallEntry(a_record(x=1), {AT: memory})
    storage.put_many([(KEY, entry)])
    entry.record.arguments.clear()
    memory[:] = b"change"
    for _ in range(2):
        found: Any = dict(storage.get_many([KEY]))[KEY]
        assert found == CallEntry(a_record(x=1), {AT: b"parcel"})
        found.record.arguments.clear()
        found.parcels.clear()


def test_an_entry_touched_while_it_is_being_collected_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """delete_older() that finds the entry touched meanwhile puts it back, with what it holds."""
    storage = CallMemory()
    entry = an_entry(x=[1])
    storage.put_many([(KEY, entry)])
    limit = time.time() + 10

    class Touching(dict[Any, Any]):
        def pop(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            found.modified = limit + 1
            return super().pop(key, default)

    monkeypatch.setattr(storage, "_held", Touching(storage._held))
    assert storage.delete_older({KEY: limit}) == set()
    assert dict(storage.get_many([KEY])) == {KEY: entry}
    assert {at for at, _ in storage.holders(digest([1]))} == set(entry.parcels)


def test_touching_brings_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that another thread puts while the old one is touched is the one that stays."""
    storage = CallMemory()
    storage.put_many([(KEY, an_entry(x=1))])
    old = encode_record(an_entry(x=1).record)

    class Replacing(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            if found.content[0] == old:
                self[key] = type(found)(key, (encode_record(an_entry(x=2).record), {}), 1)
            return found

    monkeypatch.setattr(storage, "_held", Replacing(storage._held))
    assert storage.touch_many([KEY]) == {KEY}
    assert dict(storage.get_many([KEY])) == {KEY: an_entry(x=2)}


def test_touching_what_was_just_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that goes while it is touched is gone: the caller puts it again."""
    storage = CallMemory()
    storage.put_many([(KEY, an_entry(x=1))])

    class Removing(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            return self.pop(key, default)

    monkeypatch.setattr(storage, "_held", Removing(storage._held))
    assert storage.touch_many([KEY]) == set()


def test_holders_follow_entries_that_come_and_go() -> None:
    """What entries hold is known after many threads have put and removed them at once."""
    storage = CallMemory()
    keys = [digest(number) for number in range(4)]
    held = an_entry(x=[1]), an_entry(x=[2])
    together = threading.Barrier(4)

    def work(number: int) -> None:
        together.wait(20)
        for turn in range(300):
            key = keys[(turn + number) % 4]
            storage.put_many([(key, held[turn % 2])])
            if turn % 3 == 0:
                storage.delete_many([key])
            if turn % 5 == 0:
                storage.delete_older({key: time.time()})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    storage.put_many([(keys[0], held[0]), (keys[1], held[1])])
    storage.delete_many(keys[2:])
    for number, entry in enumerate(held):
        ((address, _),) = [*zip(entry.parcels, keys, strict=False)]
        assert list(storage.holders(address)) == [(address, keys[number])]


def test_queries_skip_damaged_entries(caplog: pytest.LogCaptureFixture) -> None:
    """One that cannot be read hides no other: get_many() names it, query() warns once."""
    storage = CallMemory()
    sound = {digest(number): an_entry(x=number) for number in range(2)}
    storage.put_many(sound.items())
    damaged = CallEntry(a_record(x=3).replace(name=3))  # nothing checks what is encoded
    storage.put_many({digest("a"): damaged, digest("b"): damaged}.items())
    ((_, error),) = storage.get_many([digest("a")])
    assert isinstance(error, CorruptParcel)
    assert digest("a")[:12] in str(error)
    with caplog.at_level(logging.WARNING, "fleche.storage"):
        assert dict(storage.query(QueryCall())) == sound
    assert len(caplog.records) == 1


@pytest.mark.parametrize("cls", [ValueMemory, CallMemory, ValueVoid, CallVoid])
def test_pickles_as_its_configuration(cls: Any) -> None:
    """A storage in memory arrives empty in another process."""
    storage = pickle.loads(pickle.dumps(cls()))
    assert type(storage) is cls
    assert list(storage.entries()) == []


@pytest.mark.parametrize("cls", [ValueMemory, ValueVoid])
def test_signs_with_the_secrets_of_the_environment(
    cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is born into memory is signed, so that it may go on to a storage that demands it."""
    monkeypatch.setenv("FLECHE_SECRET_KEY", "new,old")
    packing = cls().packing
    assert packing.keys == (b"new", b"old")
    assert packing.pack(1, KEY).signed
    with pytest.raises(SignatureError):
        packing.unpack(pack(1, digest=KEY), KEY)


def test_a_packing_may_be_given() -> None:
    """The packing of a value storage in memory is the caller's to choose."""
    assert ValueMemory(Packing("pickle")).packing.serializer == "pickle"


def test_what_they_are() -> None:
    """Memory is gone with the process; what keeps no value wants none to travel with a record."""
    assert not ValueMemory().capabilities.persistent
    assert not CallMemory().capabilities.shared
    assert not ValueMemory().capabilities.keeps_all
    assert ValueVoid().capabilities.keeps_all
    assert repr(CallMemory()) == "CallMemory(type='memory')"


def test_putting_again_replaces() -> None:
    """Another parcel under the same address takes the place of the first."""
    storage = ValueMemory()
    for value in (1, 2):
        storage.put_many([(AT, pack(value, digest=digest(value)))])
    ((_, found),) = storage.get_many([AT])
    assert isinstance(found, Parcel)
    assert storage.packing.unpack(found) == 2
