"""Storages in memory, and those that keep nothing."""

from __future__ import annotations

import logging
import pickle
import time
from typing import Any

import pytest

from fleche.call import CallRecord, QueryCall, encode_record
from fleche.digest import digest
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel import Packing, pack
from fleche.storage import CallMemory, CallVoid, ValueMemory, ValueVoid
from fleche.testing.corpus import a_record

KEY = digest("key")


def test_records_cannot_be_altered_from_outside() -> None:
    """A record that was put, or given, is a copy."""
    storage = CallMemory()
    record = a_record(x=1)
    storage.put(KEY, record)
    record.arguments.clear()
    storage.get(KEY).literals.clear()
    assert storage.get(KEY) == a_record(x=1)


def test_an_entry_that_is_there_is_not_read_again() -> None:
    """Putting a parcel again renews it; its bytes are not even looked at."""
    storage = ValueMemory()
    storage.put(KEY, pack(1, digest=KEY))
    spent = pack(1, digest=KEY)
    spent.close()
    storage.put(KEY, spent)
    assert storage.packing.unpack(storage.get(KEY), KEY) == 1


def test_an_entry_renewed_while_it_is_being_collected_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """delete_older() that finds the entry renewed meanwhile puts it back."""
    storage = ValueMemory()
    storage.put(KEY, pack(1, digest=KEY))
    limit = time.time() + 10

    class Renewing(dict[Any, Any]):
        def pop(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            found.modified = limit + 1
            return super().pop(key, default)

    storage._held = Renewing(storage._held)
    assert not storage.delete_older(KEY, limit)
    assert storage.contains(KEY)


def test_renewing_brings_nothing_back() -> None:
    """A record that another thread puts while the old one is renewed is the one that stays."""
    storage = CallMemory()
    storage.put(KEY, a_record(x=1))

    class Replacing(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            if found.data == encode_record(a_record(x=1)):
                storage.put(KEY, a_record(x=2))
            return found

    storage._held = Replacing(storage._held)
    assert storage.renew(KEY)
    assert storage.get(KEY) == a_record(x=2)


def test_renewing_what_was_just_removed() -> None:
    """An entry that goes while it is renewed is gone: whoever asked puts it again."""
    storage = CallMemory()
    storage.put(KEY, a_record(x=1))

    class Removing(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            return self.pop(key, default)

    storage._held = Removing(storage._held)
    assert not storage.renew(KEY)


def test_queries_skip_damaged_records(caplog: pytest.LogCaptureFixture) -> None:
    """One record that nobody can read hides no other: get() names it, query() warns once."""
    storage = CallMemory()
    sound = {digest(number): a_record(x=number) for number in range(2)}
    storage.put_many(sound)
    damaged = a_record(x=3).replace(name=3)  # nothing checks what is encoded
    storage.put_many({digest("a"): damaged, digest("b"): damaged})
    with pytest.raises(CorruptParcel, match=digest("a")[:12]):
        storage.get(digest("a"))
    with caplog.at_level(logging.WARNING, "fleche.storage"):
        assert dict(storage.query(QueryCall())) == sound
    assert len(caplog.records) == 1


@pytest.mark.parametrize("cls", [ValueMemory, CallMemory, ValueVoid, CallVoid])
def test_pickles_as_its_configuration(cls: Any) -> None:
    """A storage in memory arrives empty in another process."""
    storage = pickle.loads(pickle.dumps(cls()))
    assert type(storage) is cls
    assert list(storage.keys()) == []


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
    """Memory is gone with the process, and nobody else's."""
    assert not ValueMemory().capabilities.persistent
    assert not CallMemory().capabilities.shared
    assert repr(CallMemory()) == "CallMemory(type='memory')"


def test_a_lease_is_an_entry() -> None:
    """Leases are kept and listed like any entry, only no query yields them."""
    storage = CallMemory()
    lease = CallRecord(name="f")
    storage.put(KEY, lease)
    assert storage.get(KEY) == lease
    assert [entry.key for entry in storage.entries()] == [KEY]
