"""The contract of storages as a suite: whoever writes a backend runs it over theirs.

Plain asserts, no framework needed. A failure names the rule that broke.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from fleche.call import QueryCall, encode_record
from fleche.digest import digest
from fleche.errors import CorruptParcel, SignatureError
from fleche.parcel import IncomingParcel, StreamSource
from fleche.storage.base import CallStorage, Table, ValueStorage
from fleche.testing.contract import (
    ALIKE,
    COMMON_RULES,
    FAR,
    NEAR,
    Items,
    Parcels,
    Records,
    assert_absent,
    assert_raises,
    run_rules,
)
from fleche.testing.corpus import Block, a_record, records, templates, values

__all__ = ["check_call_storage", "check_value_storage"]


def check_value_storage(factory: Callable[[], ValueStorage], *, void: bool = False) -> None:
    """Run the contract of value storages.

    Args:
        factory: returns a fresh, empty storage each time it is called.
        void: the storage keeps nothing, and is expected to.

    Raises:
        AssertionError: a rule is broken; the message says which and how.
    """
    rules = (_keeps_nothing,) if void else (*COMMON_RULES, *_VALUE_RULES)
    run_rules(factory, Parcels(), rules)


def check_call_storage(factory: Callable[[], CallStorage], *, void: bool = False) -> None:
    """Run the contract of call storages.

    Args:
        factory: returns a fresh, empty storage each time it is called.
        void: the storage keeps nothing, and is expected to.

    Raises:
        AssertionError: a rule is broken; the message says which and how.
    """
    rules = (_keeps_nothing, _finds_nothing) if void else (*COMMON_RULES, *_CALL_RULES)
    run_rules(factory, Records(), rules)


def _keeps_nothing(storage: Any, items: Items) -> None:
    """A void storage accepts everything and has nothing."""
    storage.put(NEAR, items.make(storage, NEAR))
    storage.put_many({FAR: items.make(storage, FAR)})
    assert_absent(storage, NEAR)
    assert not storage.renew(NEAR), "renew() finds an entry"
    assert storage.missing([NEAR, FAR]) == [NEAR, FAR], "missing() finds entries"
    assert list(storage.keys()) == list(storage.entries()) == [], "it has keys"
    assert list(storage.get_many([NEAR])) == [], "get_many() yields entries"
    storage.delete(NEAR)


def _finds_nothing(storage: Any, items: Items) -> None:
    """A void storage answers every query with nothing."""
    storage.put(NEAR, items.make(storage, NEAR))
    assert list(storage.query(QueryCall())) == [], "query() yields calls"


def _keeps_values(storage: ValueStorage, _items: Items) -> None:
    """Values of every kind come back equal; unless the storage opens them, byte for byte."""
    for value in values():
        key = digest(value)
        parcel = storage.packing.pack(value, key)
        storage.put(key, parcel)
        if not storage.capabilities.opens_parcels:
            found = storage.get(key)
            assert found.tobytes() == parcel.tobytes(), f"other bytes for {str(value)[:60]}"
            found.close()
        found = storage.get(key)
        assert found.head.digest == key, f"the parcel of {str(value)[:60]} has another digest"
        assert digest(storage.packing.unpack(found, key)) == key, f"not equal: {str(value)[:60]}"
        assert storage.entry(key).size > 0, "an entry of no bytes"


def _tells_tables(storage: ValueStorage, _items: Items) -> None:
    """table() tells who needs which shared buffer; a storage that opens parcels keeps none."""
    content = bytearray(range(256)) * 1024
    packed = storage.packing.pack_parts(Block(content), NEAR)
    ((name, buffer),) = packed.buffers.items()
    if storage.capabilities.opens_parcels:
        storage.put(NEAR, storage.packing.pack(Block(content), NEAR))
        expected = {NEAR: Table()}
    else:
        storage.put(name, storage.packing.pack_buffer(buffer, name))
        storage.put(NEAR, packed.main)
        expected = {NEAR: Table(references=(name,)), name: Table(is_buffer=True)}
    for key, table in expected.items():
        assert storage.table(key) == table, "table() is wrong"
    found = dict(storage.tables([FAR, *expected]))
    assert found == expected, "tables() is wrong"
    assert_raises(KeyError, storage.table, FAR)


def _checks(storage: ValueStorage, _items: Items) -> None:
    """check() accepts what is whole, and refuses what is another value's or not there."""
    for value in (1, "x" * 300_000):
        key = digest(value)
        storage.put(key, storage.packing.pack(value, key))
        assert storage.check(key, storage.packing.keys) == storage.table(key), "check() is wrong"
        assert_raises(SignatureError, storage.check, key, (b"nobody's",))
    assert_raises(KeyError, storage.check, FAR)
    storage.put(NEAR, storage.packing.pack(2, digest(2)))
    assert_raises(CorruptParcel, storage.check, NEAR)


def _removes_several(storage: ValueStorage, items: Items) -> None:
    """removing() surrounds removals, one in another too, and whatever goes wrong in it gets out."""
    for key in ALIKE:
        storage.put(key, items.make(storage, key))
    with storage.removing():
        with storage.removing():
            assert storage.delete_older(ALIKE[0], time.time() + 60), "it left an old entry"
        assert storage.delete_older(ALIKE[1], time.time() + 60), "it left an old entry"
    assert list(storage.keys()) == ALIKE[2:], "other entries are left"

    def fail() -> None:
        with storage.removing():
            raise LookupError

    assert_raises(LookupError, fail)


def _keeps_no_memory(storage: ValueStorage, _items: Items) -> None:
    """A storage keeps nothing of the caller's memory, and gives nobody its own."""
    block = Block(bytes(range(256)) * 1024)
    expected = bytes(block.data)
    storage.put(NEAR, storage.packing.pack(block, NEAR))
    block.data[:] = bytes(len(block.data))
    first = storage.packing.unpack(storage.get(NEAR), NEAR)
    assert first.data == expected, "the entry changed when the caller changed the object"
    first.data[:] = bytes(len(block.data))
    second = storage.packing.unpack(storage.get(NEAR), NEAR)
    assert second.data == expected, "the entry changed when a reader changed what it was given"


def _gives_parcels(storage: ValueStorage, _items: Items) -> None:
    """A parcel that was given stays good when the entry is deleted, and may be put elsewhere."""
    block = Block(bytes(range(256)) * 4096)
    storage.put(NEAR, storage.packing.pack(block, NEAR))
    held, other = storage.get(NEAR), storage.get(NEAR)
    storage.delete(NEAR)
    storage.put(NEAR, held)
    held.close()
    assert storage.packing.unpack(other, NEAR).data == block.data, "it went with the entry"
    found = storage.packing.unpack(storage.get(NEAR), NEAR)
    assert found.data == block.data, "it was put as something else"


def _refuses_damage(storage: ValueStorage, _items: Items) -> None:
    """A parcel that proves damaged while it is read leaves no entry."""
    data = bytearray(storage.packing.pack(Block(b"x" * 300_000), NEAR).tobytes())
    data[-1] ^= 1
    pieces = (data[start : start + 65536] for start in range(0, len(data), 65536))
    incoming = IncomingParcel(StreamSource(len(data), pieces))
    assert_raises(CorruptParcel, storage.put, NEAR, incoming)
    assert_absent(storage, NEAR)


def _keeps_records(storage: CallStorage, _items: Items) -> None:
    """Records come back as they were put, leases too; putting one again replaces it."""
    corpus = records()
    storage.put_many(corpus)
    for key, record in corpus.items():
        assert encode_record(storage.get(key)) == encode_record(record), (
            f"{record} came back changed"
        )
    key, record = next(iter(corpus.items()))
    changed = record.replace(metadata={"tags": {"new": True}}, arguments={}, literals={})
    storage.put(key, changed)
    assert storage.get(key) == changed, "the old record is still there"
    assert dict(storage.get_many([key])) == {key: changed}, "get_many() has the old record"
    found = dict(storage.query(QueryCall.of(metadata={"tags": {"new": True}})))
    assert found == {key: changed}, "query() does not see the new record"
    outdated = dict(storage.query(QueryCall.of(name=record.name, arguments={"x": 1})))
    assert key not in outdated, "query() sees the old record"


def _answers_queries(storage: CallStorage, _items: Items) -> None:
    """query() yields what QueryCall.matches() accepts, each once, and never a lease."""
    corpus = records()
    storage.put_many(corpus)
    for template in templates():
        expected = sorted(key for key, record in corpus.items() if template.matches(record))
        found = list(storage.query(template))
        assert sorted(key for key, _ in found) == expected, f"for {template}"
        for key, record in found:
            assert encode_record(record) == encode_record(corpus[key]), f"{key}: another record"


def _queries_while_written(storage: CallStorage, _items: Items) -> None:
    """Entries may be put and deleted while the answers of a query are being read."""
    corpus = {digest(number): a_record("f", x=number) for number in range(40)}
    storage.put_many(corpus)
    list(islice(storage.query(QueryCall()), 3))  # left off in the middle
    seen = set()
    for key, _ in storage.query(QueryCall.of(name="f")):
        seen.add(key)
        storage.delete(key)
    assert seen == set(corpus), "some were not seen"
    assert list(storage.query(QueryCall())) == [], "some were not deleted"


_VALUE_RULES = (
    _keeps_values,
    _keeps_no_memory,
    _gives_parcels,
    _refuses_damage,
    _tells_tables,
    _checks,
    _removes_several,
)
_CALL_RULES = (_keeps_records, _answers_queries, _queries_while_written)
