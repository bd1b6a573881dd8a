"""Storages in memory, and those that keep nothing."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

from fleche.call import CallRecord
from fleche.digest import digest
from fleche.errors import SignatureError
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
        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            self[key] = found._replace(modified=limit + 1)
            return found

    storage._held = Renewing(storage._held)
    assert not storage.delete_older(KEY, limit)
    assert storage.contains(KEY)


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
