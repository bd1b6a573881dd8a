"""The contract of storages as a suite, for the author of a backend to run over it.

Plain asserts, no framework needed. A failure names the rule that broke. The five methods of a
backend are checked, and so is everything that has a default, whether it was replaced or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from fleche.call import CallEntry, QueryCall, encode_entry
from fleche.digest import Address, Digest, buffer_digest, digest
from fleche.errors import CorruptParcel, SignatureError, StorageError
from fleche.parcel import IncomingParcel, Parcel, StreamSource
from fleche.storage import (
    Acceptance,
    BufferRefs,
    CallStorage,
    Entry,
    Storage,
    Usage,
    ValueStorage,
    merge_usage,
    newest_acceptances,
    storage_from_config,
)
from fleche.testing.corpus import Block, a_pin, an_entry, entries, templates, values

__all__ = ["check_call_storage", "check_value_storage"]


def check_value_storage(factory: Callable[[], ValueStorage], *, void: bool = False) -> None:
    """Run the contract of value storages.

    Args:
        factory: returns a fresh, empty storage each time it is called.
        void: the storage keeps nothing, and is expected to.

    Raises:
        AssertionError: a rule is broken; the message says which and how.
    """
    run_rules(factory, Parcels(), _VOID_RULES if void else (*_COMMON_RULES, *_VALUE_RULES))


def check_call_storage(factory: Callable[[], CallStorage], *, void: bool = False) -> None:
    """Run the contract of call storages.

    Args:
        factory: returns a fresh, empty storage each time it is called.
        void: the storage keeps nothing, and is expected to.

    Raises:
        AssertionError: a rule is broken; the message says which and how.
    """
    rules = (*_VOID_RULES, _finds_nothing) if void else (*_COMMON_RULES, *_CALL_RULES)
    run_rules(factory, Entries(), rules)


# -- what the rules are made of --------------------------------------------------------------------


class Items(Protocol):
    """Items of one kind, and keys for them.

    Attributes:
        kind: ``"values"`` or ``"calls"``.
        alike: three keys whose beginnings are the same.
        near: a key that begins almost as those do.
        far: a key that has nothing in common with the others.
    """

    kind: Any
    alike: tuple[Any, ...]
    near: Any
    far: Any

    def make(self, storage: Any, key: Any, version: int = 1) -> Any:
        """Return an item that may be put under ``key``; other versions are other items."""
        ...

    def same(self, storage: Any, key: Any, found: Any, version: int = 1) -> bool:
        """Return whether ``found`` is the item that was put."""
        ...


class Parcels:
    """Parcels, each of a number, under addresses."""

    kind = "values"
    alike = tuple(Address.of("abcd" + "0" * 60, f"{number}" * 32) for number in range(3))
    near, far = Address.of("abce" + "0" * 60), Address.of("f" * 64, "0" * 32)

    def make(self, storage: Any, key: Any, version: int = 1) -> Any:
        """Return a parcel of the number ``version``."""
        return storage.packing.pack(version, key.digest)

    def same(self, storage: Any, key: Any, found: Any, version: int = 1) -> bool:
        """Open the parcel and compare."""
        assert isinstance(found, Parcel), f"in place of the parcel comes {found!r}"
        return bool(storage.packing.unpack(found, key.digest) == version)


class Entries:
    """Entries, each of another call, with a parcel."""

    kind = "calls"
    alike = tuple(Digest("abcd" + f"{number}" * 60) for number in range(3))
    near, far = Digest("abce" + "0" * 60), Digest("f" * 64)

    def make(self, storage: Any, key: Any, version: int = 1) -> Any:  # noqa: ARG002
        """Return the entry of a call with ``key`` and ``version`` as arguments."""
        return an_entry("f", x=str(key), y=[version])

    def same(self, storage: Any, key: Any, found: Any, version: int = 1) -> bool:
        """Compare the entries, parcels included."""
        assert isinstance(found, CallEntry), f"in place of the entry comes {found!r}"
        return _same_entry(found, self.make(storage, key, version))


Rule: TypeAlias = Callable[[Any, Any], None]


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


def _put(storage: Any, items: Items, *keys: Any, version: int = 1) -> None:
    storage.put_many((key, items.make(storage, key, version)) for key in keys)


def _get(storage: Any, key: Any) -> Any:
    found = list(storage.get_many([key]))
    assert [each for each, _ in found] == [key], "get_many() does not yield it"
    return found[0][1]


def _listed(storage: Any, prefix: str = "") -> dict[str, Entry]:
    found = list(storage.entries(prefix))
    listed = {entry.key: entry for entry in found}
    assert len(found) == len(listed), "entries() yields an entry twice"
    return listed


def _assert_absent(storage: Any, key: Any) -> None:
    """Assert that every method says that there is no such entry."""
    assert storage.contains_many([key]) == set(), "contains_many() claims that it is there"
    assert list(storage.get_many([key])) == [], "get_many() yields it"
    assert key not in _listed(storage), "entries() lists it"
    assert key not in _listed(storage, key), "entries() lists it for its own key"


def _assert_raises(kind: type[Exception], function: Callable[..., Any], *arguments: Any) -> None:
    try:
        function(*arguments)
    except kind:
        return
    raise AssertionError(f"{function.__name__}() did not raise {kind.__name__}")


def _same_entry(left: CallEntry, right: CallEntry) -> bool:
    return encode_entry("", left) == encode_entry("", right)


# -- rules for all ---------------------------------------------------------------------------------


def _misses(storage: Any, items: Items) -> None:
    """What was never put is not there, and may be deleted."""
    _assert_absent(storage, items.far)
    storage.delete_many([items.far])
    assert _listed(storage) == {}, "a fresh storage has entries"
    assert storage.touch_many([items.far]) == set(), "touch_many() finds it"
    assert storage.delete_older({items.far: time.time()}) == set(), "delete_older() takes it"
    _assert_absent(storage, items.far)
    for method in (storage.contains_many, storage.touch_many, storage.get_many):
        assert list(method([])) == [], f"{method.__name__}() finds something of nothing"
    assert storage.delete_older({}) == set(), "delete_older() takes something of nothing"


def _keeps(storage: Any, items: Items) -> None:
    """What was put is there, until it is deleted, once or twice."""
    _put(storage, items, items.near, items.far)
    assert storage.contains_many([items.near]) == {items.near}, "contains_many() denies it"
    assert items.same(storage, items.near, _get(storage, items.near)), "get_many() has another"
    storage.delete_many([items.near])
    storage.delete_many([items.near])
    _assert_absent(storage, items.near)
    assert storage.contains_many([items.far]) == {items.far}, "another entry went along"
    assert items.same(storage, items.far, _get(storage, items.far)), "another entry was changed"


def _replaces(storage: Any, items: Items) -> None:
    """Putting a key again replaces its entry, and adds none."""
    _put(storage, items, items.near, items.far)
    _put(storage, items, items.near, version=2)
    assert items.same(storage, items.near, _get(storage, items.near), 2), "the old one is there"
    assert set(_listed(storage)) == {items.near, items.far}, "there are other entries now"


def _batches(storage: Any, items: Items) -> None:
    """Many entries at once are as one after the other, in the order of the keys."""
    digests = [digest(("entry", number)) for number in range(20)]
    is_value = items.kind == "values"
    keys: list[str] = [Address.of(each, each[:32]) if is_value else each for each in digests]
    _put(storage, items, *keys)
    assert set(_listed(storage)) == set(keys), "put_many() did not put what it was given"
    asked = [*keys[10:], items.far, *keys[:10]]
    found = list(storage.get_many(iter(asked)))
    assert [key for key, _ in found] == keys[10:] + keys[:10], "get_many(): not in that order"
    assert all(items.same(storage, key, each) for key, each in found), "get_many() mixes them up"
    assert storage.contains_many(iter(asked)) == set(keys), "contains_many() is wrong"
    assert storage.touch_many(iter(asked)) == set(keys), "touch_many() is wrong"
    storage.delete_many(iter(asked[:11]))
    assert set(_listed(storage)) == set(keys[:10]), "delete_many() took others"


def _lists(storage: Any, items: Items) -> None:
    """entries() gives size and time of the last write, of all keys or of those that begin so."""
    keys = [*items.alike, items.near]
    _put(storage, items, *keys)
    assert set(_listed(storage)) == set(keys), "entries() lists other keys"
    for prefix in ("abc", "abcd", "abce", "abcdef", "ab", "f", str(items.near), str(keys[1])):
        expected = {key for key in keys if key.startswith(prefix)}
        assert set(_listed(storage, prefix)) == expected, f"entries({prefix!r}) is wrong"
    for entry in storage.entries():
        assert isinstance(entry.key, str), "a key is no text"
        assert entry.size > 0, "an entry of no bytes"
        assert abs(entry.modified - time.time()) < 60, f"put just now, and at {entry.modified}"


def _ages(storage: Any, items: Items) -> None:
    """An entry becomes young when it is put again, or touched, and nothing else changes it."""
    _put(storage, items, items.near, items.far)
    before = _listed(storage)
    time.sleep(1.1)  # some file systems count in seconds
    assert _listed(storage) == before, "an entry becomes young by itself"
    _put(storage, items, items.near)
    asked = [items.alike[0], items.far]
    assert storage.touch_many(asked) == {items.far}, "touch_many() is wrong"
    after = _listed(storage)
    assert set(after) == set(before), "touch_many() made or removed an entry"
    assert after[items.near].modified > before[items.near].modified, "put again, and as old"
    if isinstance(storage, ValueStorage) or storage.capabilities.touches:
        assert after[items.far].modified > before[items.far].modified, "touched, and as old"
    assert items.same(storage, items.far, _get(storage, items.far)), "touch_many() changed it"


def _deletes_older(storage: Any, items: Items) -> None:
    """delete_older() takes the entries that are older than the limit of each, and no other."""
    young, old, other = items.alike
    _put(storage, items, young, old, other)
    modified = _listed(storage)[young].modified
    limits = {young: modified - 60, old: modified + 60, items.far: modified + 60}
    assert storage.delete_older(limits) == {old}, "it says that others went"
    assert set(_listed(storage)) == {young, other}, "it took others"
    assert items.same(storage, young, _get(storage, young)), "it harmed a young entry"
    assert storage.delete_older({young: modified + 60}) == {young}, "it left an old entry"
    _assert_absent(storage, young)


def _is_free(storage: Any, items: Items) -> None:
    """Entries may be put and deleted between two items of whatever is being read."""
    keys = [*items.alike, items.near]
    _put(storage, items, *keys)
    for _ in range(2):
        next(iter(storage.entries()))  # left off at the first
        next(iter(storage.get_many(keys)))
    for number, entry in enumerate(storage.entries()):
        _put(storage, items, items.far, version=number)
        storage.delete_many([entry.key])
    _put(storage, items, *keys)
    for key, found in storage.get_many(keys):
        assert items.same(storage, key, found), "it changed while it was read"
        storage.delete_many([key])
        _put(storage, items, items.far)
    assert set(_listed(storage)) == {items.far}, "a method undid what was done between two items"


def _threads(storage: Any, items: Items) -> None:
    """Threads may put, get, touch, list and delete the same entries at once."""
    keys = items.alike

    def work(number: int) -> None:
        key = keys[number % len(keys)]
        _put(storage, items, key)
        for found, item in storage.get_many(keys):
            assert items.same(storage, found, item), "a thread was given something else"
        if number % 3 == 0:
            storage.delete_many([key])
        assert set(_listed(storage)) <= set(keys), "a thread saw a key that was never put"
        storage.touch_many([key])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(48)))


def _describes_itself(storage: Any, items: Items) -> None:
    """to_config() is the table of fleche.toml that gives the same storage again."""
    table = storage.to_config()
    assert isinstance(table.get("type"), str), f"{table} has no type"
    with closing(storage_from_config(table, items.kind)) as again:
        assert type(again) is type(storage), f"{table} gives a {type(again).__name__}"
        assert again.to_config() == table, f"{table} becomes {again.to_config()}"
        assert again.capabilities == storage.capabilities, "the capabilities differ"


def _is_persistent(storage: Any, items: Items) -> None:
    """What a persistent storage holds is there for another object with the same configuration."""
    if not storage.capabilities.persistent:
        return
    _put(storage, items, items.near)
    with closing(storage_from_config(storage.to_config(), items.kind)) as again:
        assert items.same(again, items.near, _get(again, items.near)), "it has something else"


def _closes_twice(storage: Any, items: Items) -> None:
    """close() may be called again."""
    _put(storage, items, items.near)
    storage.close()
    storage.close()


_COMMON_RULES: tuple[Rule, ...] = (
    _misses,
    _keeps,
    _replaces,
    _batches,
    _lists,
    _deletes_older,
    _is_free,
    _describes_itself,
    _is_persistent,
    _closes_twice,
    _ages,
)


# -- void ------------------------------------------------------------------------------------------


def _keeps_nothing(storage: Any, items: Items) -> None:
    """A void storage accepts everything and has nothing."""
    _put(storage, items, items.near, items.far)
    _assert_absent(storage, items.near)
    assert storage.touch_many([items.near]) == set(), "touch_many() finds an entry"
    assert storage.delete_older({items.near: time.time()}) == set(), "something was deleted"
    storage.delete_many([items.near])


def _finds_nothing(storage: Any, items: Items) -> None:
    """A void storage answers every query with nothing."""
    _put(storage, items, items.near)
    assert list(storage.query(QueryCall())) == [], "query() yields calls"
    assert list(storage.query(QueryCall(), keys_only=True)) == [], "query() yields keys"
    assert list(storage.newest(QueryCall(), 1)) == [], "newest() yields calls"
    assert list(storage.holders("")) == [], "holders() yields values"


_VOID_RULES: tuple[Rule, ...] = (_keeps_nothing, _describes_itself, _closes_twice)


# -- values ----------------------------------------------------------------------------------------


def _keeps_values(storage: ValueStorage, _items: Items) -> None:
    """Values of every kind come back equal; unless the storage opens them, byte for byte."""
    for value in values():
        shown, name = str(value)[:60], digest(value)
        parcel = storage.packing.pack(value, name)
        key = Address.of(name, parcel.variant)
        storage.put_many([(key, parcel)])
        if not storage.capabilities.opens_parcels:
            with closing(_get(storage, key)) as found:
                assert found.tobytes() == parcel.tobytes(), f"other bytes for {shown}"
        found = _get(storage, key)
        assert found.head.digest == name, f"the parcel of {shown} has another digest"
        assert digest(storage.packing.unpack(found, name)) == name, f"not equal: {shown}"
        assert _listed(storage, key)[key].size > 0, "an entry of no bytes"


def _keeps_forms_apart(storage: ValueStorage, items: Items) -> None:
    """Two forms of one value are two entries; the digest alone is the key of neither."""
    first, second, _ = items.alike
    storage.put_many([(first, storage.packing.pack(1, first.digest))])
    storage.put_many([(second, storage.packing.pack(2, second.digest))])
    for key, value in ((first, 1), (second, 2)):
        assert storage.packing.unpack(_get(storage, key), key.digest) == value, "mixed up"
    _assert_absent(storage, Address.of(first.digest))
    assert set(_listed(storage, first.digest)) == {first, second}, "not both are listed"
    storage.delete_many([first])
    assert set(_listed(storage)) == {second}, "they went together"


def _reads_buffers(storage: ValueStorage, items: Items) -> None:
    """buffer_refs() gives which shared buffers are needed; an opening storage keeps none."""
    content = bytearray(range(256)) * 1024
    packed = storage.packing.pack_parts(Block(content), items.near.digest)
    ((name, buffer),) = packed.buffers.items()
    shared = Address.of(name)
    if storage.capabilities.opens_parcels:
        whole = storage.packing.pack(Block(content), items.near.digest)
        storage.put_many([(items.near, whole)])
        expected = {items.near: BufferRefs()}
    else:
        buffered = storage.packing.pack_buffer(buffer, name)
        storage.put_many([(shared, buffered), (items.near, packed.main)])
        expected = {
            items.near: BufferRefs(references=(shared,)),
            shared: BufferRefs(is_buffer=True),
        }
    found = dict(storage.buffer_refs([items.far, *expected]))
    assert found == expected, f"buffer_refs() says {found}"


def _checks(storage: ValueStorage, items: Items) -> None:
    """check_many() accepts what is whole, and yields why another value's parcel is refused."""
    for value in (1, "x" * 300_000):
        parcel = storage.packing.pack(value, digest(value))
        key = Address.of(digest(value), parcel.variant)
        storage.put_many([(key, parcel)])
        refs = dict(storage.buffer_refs([key]))
        assert dict(storage.check_many([items.far, key], storage.packing.keys)) == refs, (
            "what is whole is not accepted"
        )
        ((_, error),) = storage.check_many([key], (b"another secret",))
        assert isinstance(error, SignatureError), "signed by another secret, and accepted"
    storage.put_many([(items.near, storage.packing.pack(2, digest(2)))])
    ((_, error),) = storage.check_many([items.near])
    assert isinstance(error, CorruptParcel), "another value's, and accepted"


def _keeps_no_memory(storage: ValueStorage, items: Items) -> None:
    """A storage keeps nothing of the caller's memory, and gives away none of its own."""
    key = items.near
    block = Block(bytes(range(256)) * 1024)
    expected = bytes(block.data)
    storage.put_many([(key, storage.packing.pack(block, key.digest))])
    block.data[:] = bytes(len(block.data))
    first = storage.packing.unpack(_get(storage, key), key.digest)
    assert first.data == expected, "the entry changed when the caller changed the object"
    first.data[:] = bytes(len(block.data))
    second = storage.packing.unpack(_get(storage, key), key.digest)
    assert second.data == expected, "the entry changed when a reader changed what it was given"


def _takes_drafts(storage: ValueStorage, items: Items) -> None:
    """A buffer that was begun before its digest was known is kept like any other, or nothing is."""
    contents = [bytes(range(number, 256)) * 4096 for number in (0, 1, 2)]
    first, second, third = (storage.draft(memoryview(each)) for each in contents)
    if first is None:
        return
    assert second is not None, "a storage takes drafts, or it does not"
    assert third is not None, "a storage takes drafts, or it does not"
    third.write_while(lambda: True)
    third.discard()
    first.write_while(iter((True, False)).__next__)  # and the rest when it is wanted
    for content, draft in zip(contents, (first, second), strict=False):
        name = buffer_digest(content)
        expected = storage.packing.pack_buffer(memoryview(content), name)
        parcel = draft.finish(name, storage.packing.keys)
        assert parcel is not None, "it could not be written"
        assert parcel.tobytes() == expected.tobytes(), "a parcel of other bytes"
        assert not _listed(storage, name), "it is listed before it is put"
        with closing(parcel):
            storage.put_many([(Address.of(name), parcel)])
        assert _get(storage, Address.of(name)).tobytes() == expected.tobytes(), "other bytes"
    assert len(_listed(storage)) == 2, "what was discarded is listed"
    _assert_absent(storage, items.far)


def _gives_parcels(storage: ValueStorage, items: Items) -> None:
    """A parcel that was given stays good when the entry is deleted, and may be put elsewhere."""
    key = items.near
    block = Block(bytes(range(256)) * 4096)
    storage.put_many([(key, storage.packing.pack(block, key.digest))])
    held, other = _get(storage, key), _get(storage, key)
    storage.delete_many([key])
    storage.put_many([(key, held)])
    held.close()
    assert storage.packing.unpack(other, key.digest).data == block.data, "it went with the entry"
    found = storage.packing.unpack(_get(storage, key), key.digest)
    assert found.data == block.data, "it was put as something else"


def _refuses_damage(storage: ValueStorage, items: Items) -> None:
    """A parcel that proves damaged while it is read leaves no entry, and those before it stay."""
    key = items.near
    data = bytearray(storage.packing.pack(Block(b"x" * 300_000), key.digest).tobytes())
    data[-1] ^= 1
    pieces = (data[start : start + 65536] for start in range(0, len(data), 65536))
    incoming = IncomingParcel(StreamSource(len(data), pieces))
    before = (items.far, items.make(storage, items.far))
    _assert_raises(CorruptParcel, storage.put_many, [before, (key, incoming)])
    _assert_absent(storage, key)


_VALUE_RULES: tuple[Rule, ...] = (
    _keeps_values,
    _keeps_forms_apart,
    _keeps_no_memory,
    _gives_parcels,
    _takes_drafts,
    _refuses_damage,
    _reads_buffers,
    _checks,
    _threads,  # last: others find the same breach each time, and this one by chance
)


# -- calls -----------------------------------------------------------------------------------------


def _keeps_entries(storage: CallStorage, _items: Items) -> None:
    """Entries come back as they were put, parcels and pins too; a new one replaces the old."""
    corpus = entries()
    storage.put_many(corpus.items())
    for key, entry in storage.get_many(corpus):
        assert isinstance(entry, CallEntry), f"in place of an entry comes {entry!r}"
        assert _same_entry(entry, corpus[key]), f"{corpus[key]} came back changed"
    key, old = next(iter(corpus.items()))
    changed = CallEntry(old.record.replace(metadata={"tags": {"new": True}}, arguments={}))
    storage.put_many([(key, changed)])
    assert _same_entry(_get(storage, key), changed), "the old entry is still there"
    found = dict(storage.query(QueryCall.of(metadata={"tags": {"new": True}})))
    assert found == {key: changed}, "query() does not see the new entry"
    outdated = dict(storage.query(QueryCall.of(name=old.record.name, arguments={"x": 1})))
    assert key not in outdated, "query() sees the old entry"


def _answers_queries(storage: CallStorage, _items: Items) -> None:
    """query() yields what QueryCall.matches() accepts, each once, and never a pin."""
    corpus = entries()
    storage.put_many(corpus.items())
    for template in templates():
        expected = sorted(key for key, entry in corpus.items() if template.matches(entry.record))
        found = list(storage.query(template))
        assert sorted(key for key, _ in found) == expected, f"for {template}"
        for key, entry in found:
            assert entry is not None, f"{key}: no entry"
            assert _same_entry(entry, corpus[key]), f"{key}: another entry"
        keys = [key for key, _ in storage.query(template, keys_only=True)]
        assert len(keys) == len(set(keys)), f"a key comes twice for {template}"
        if template == QueryCall():
            assert set(expected) <= set(keys) <= set(corpus), "keys_only: other keys"
        else:
            assert sorted(keys) == expected, f"keys_only: other keys for {template}"


def _finds_the_newest(storage: CallStorage, _items: Items) -> None:
    """newest() yields what query() does, by when it began: the undated last, and no more."""
    corpus: dict[str, CallEntry] = {}
    for number in range(60):
        started = f"2026-01-{number * 17 % 60 // 2 + 1:02}T12:00:{number:02}.000000+00:00"
        said: Any = {0: "yesterday", 1: 5, 2: None}.get(number, started)
        entry = an_entry("f" if number % 3 else "g", x=number)
        record = entry.record.replace(metadata={"runtime": {"started": said}})
        corpus[digest(("newest", number))] = CallEntry(record, entry.parcels)
    corpus |= {digest("undated"): an_entry("f", x=60), digest("pin"): a_pin()}
    storage.put_many(corpus.items())
    list(storage.query(QueryCall.of(name="f")))  # which may have written what is searched by
    for number in range(60, 64):
        started = f"2026-01-{(number - 60) * 9 + 1:02}T13:00:00.000000+00:00"
        record = an_entry("f", x=number).record
        record = record.replace(metadata={"runtime": {"started": started}})
        corpus[digest(("newest", number))] = CallEntry(record)
        storage.put_many([(digest(("newest", number)), CallEntry(record))])
    in_order = sorted(corpus, key=lambda key: corpus[key].record.sort_time, reverse=True)
    for template in (QueryCall(), QueryCall.of(name="f"), QueryCall.of(arguments={"x": 7})):
        expected = [key for key in in_order if template.matches(corpus[key].record)]
        dated = sum(corpus[key].record.began is not None for key in expected)
        for number in (0, 1, 7, dated, dated + 1, len(expected), 100):
            found = list(storage.newest(template, number))
            keys = [key for key, _ in found]
            assert keys[:dated] == expected[:number][:dated], f"the {number} newest for {template}"
            assert len(keys) == len(set(keys)) == min(number, len(expected)), "too few, or twice"
            assert set(keys) <= set(expected), f"what does not match {template}"
            for key, entry in found:
                assert _same_entry(entry, corpus[key]), f"{key}: another entry"


def _queries_while_written(storage: CallStorage, _items: Items) -> None:
    """Entries may be put and deleted while the answers of a query are being read."""
    corpus = {digest(number): an_entry("f", x=number) for number in range(40)}
    storage.put_many(corpus.items())
    list(islice(storage.query(QueryCall()), 3))  # left off in the middle
    seen = set()
    for key, _ in storage.query(QueryCall.of(name="f")):
        seen.add(key)
        storage.delete_many([key])
    assert seen == set(corpus), "some were not seen"
    assert list(storage.query(QueryCall())) == [], "some were not deleted"


def _finds_holders(storage: CallStorage, _items: Items) -> None:
    """holders() yields what entries hold themselves, as they come, change and go."""
    first, second, third = (digest(number) for number in range(3))
    entries = {
        first: an_entry("f", x=[1], y=2),
        second: an_entry("g", x=[1], y={"a": 1}),
        third: an_entry("h"),
    }
    storage.put_many(entries.items())
    _check_holders(storage, entries)
    entries[second] = an_entry("g", x={"b": 1}, y=3)
    storage.put_many([(second, entries[second])])
    _check_holders(storage, entries)
    storage.delete_many([first])
    _check_holders(storage, {second: entries[second], third: entries[third]})


def _check_holders(storage: CallStorage, entries: Mapping[Digest, CallEntry]) -> None:
    expected: set[tuple[str, str]] = set()
    for key, entry in entries.items():
        literals = (found.digest for found in entry.record.values() if found.is_literal)
        expected |= {(str(held), str(key)) for held in (*entry.parcels, *literals)}
    for prefix in ("", *(part for at, _ in expected for part in (at[:4], at[:9], at[:64], at))):
        found = [(str(at), str(key)) for at, key in storage.holders(prefix)]
        wanted = {pair for pair in expected if pair[0].startswith(prefix)}
        assert set(found) == wanted, f"holders({prefix!r}) is wrong"
        assert len(found) == len(wanted), f"holders({prefix!r}) yields a pair twice"


def _locks(storage: CallStorage, items: Items) -> None:
    """A lock is no entry; where other processes see locks, one owner has it until it lets go."""
    locks, key = storage.locks, items.near
    assert locks.acquire(key, "a") is None, "a free lock is not granted"
    assert locks.heartbeat(key, "a"), "its owner has lost it"
    _assert_absent(storage, key)
    if locks.shared:
        found = locks.acquire(key, "b")
        assert found is not None, "two have it"
        assert found.owner == "a", "another has it"
        assert abs(locks.now(key) - found.heartbeat) < 60, "now() goes by another clock"
        assert locks.acquire(items.far, "b") is None, "another key is locked too"
        locks.release(key, "b")
        assert not locks.heartbeat(key, "b"), "it has become another's"
        assert locks.steal(key, "b", found), "it cannot be stolen"
        assert not locks.heartbeat(key, "a"), "its owner has not lost it"
        locks.release(items.far, "b")
        locks.release(key, "b")
        assert locks.acquire(key, "c") is None, "released, and not free"
        locks.release(key, "c")
    locks.release(key, "a")
    assert _listed(storage) == {}, "a lock has left an entry"


def _keeps_what_was_accepted(storage: CallStorage, _items: Items) -> None:
    """What was accepted is no entry and stays, each once; or the storage says that it has no place.

    What was said last of the same code is what is read.
    """
    assert list(storage.accepted()) == [], "something was accepted before"
    first = Acceptance(now={"m:f": "1" * 64}, then={"m:f": "2" * 64}, when="2026-01-01")
    other = Acceptance(now={"m:g": "3" * 64, "m:h": "=numpy"}, then={}, when="2026-01-02")
    later = replace(first, when="2026-01-03")
    try:
        storage.note_accepted([first, other])
    except StorageError:
        assert list(storage.accepted()) == [], "refused, and kept"
        return
    storage.note_accepted([later])
    assert newest_acceptances(storage.accepted()) == [later, other], "not what was accepted"
    assert _listed(storage) == {}, "what was accepted is an entry"


def _counts_use(storage: CallStorage, _items: Items) -> None:
    """Counters of a place add up, and of copies of one the larger counts; or none are kept."""
    row = Usage(hour=1, host="h", user="u", name="f", hits=2, saved=0.5)
    copy = replace(row, cache="another")
    storage.note_usage([row, row, copy])
    storage.note_usage([replace(copy, hits=5), replace(copy, hits=3)])
    found = {each.cache: each.hits for each in merge_usage(storage.usage())}
    assert found in ({}, {"": 4, "another": 5}), "the counters are wrong"
    name = storage.usage_name()
    assert name == storage.usage_name(), "its name changes"
    assert bool(name) == bool(found), "counters and no name, or a name and no counters"


_CALL_RULES: tuple[Rule, ...] = (
    _keeps_what_was_accepted,
    _counts_use,
    _keeps_entries,
    _answers_queries,
    _finds_the_newest,
    _queries_while_written,
    _finds_holders,
    _locks,
    _threads,  # last, as for values
)
