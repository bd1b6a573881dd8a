"""Every storage keeps the contract, and the suite that says so catches those that do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import Cache
from fleche.call import Call, CallEntry, QueryCall, decode_entry, encode_entry
from fleche.digest import Address, digest
from fleche.errors import CorruptParcel, ParcelError, SignatureError, UnpackError
from fleche.parcel import MemorySource, Parcel
from fleche.storage import (
    BufferRefs,
    CallFile,
    CallMemory,
    CallStorage,
    CallVoid,
    Capabilities,
    Entry,
    Sql,
    Storage,
    ValueFile,
    ValueMemory,
    ValueStorage,
    ValueVoid,
)
from fleche.storage.hdf5 import ValueHdf5
from fleche.storage.local import CallLocal, ValueLocal
from fleche.testing import check_call_storage, check_value_storage
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401
from tests.helpers.sweeps import swept

NEAR = Address.of("abce" + "0" * 60)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """A new path each time it is called."""
    numbers = iter(range(10_000))
    return lambda: tmp_path / f"storage {next(numbers)}"


class DictValues(ValueStorage):
    """The least that a backend has to write: five methods."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.ages: dict[str, float] = {}

    def put_many(self, items: Iterable[tuple[str, Parcel]]) -> None:
        for key, parcel in items:
            self.held[key] = parcel.tobytes()
            self.ages[key] = time.time()

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Parcel | ParcelError]]:
        for key in keys:
            if (data := self.held.get(key)) is not None:
                try:
                    yield key, Parcel.from_bytes(data)
                except ParcelError as error:
                    yield key, error

    def contains_many(self, keys: Iterable[str]) -> set[str]:
        return {key for key in keys if key in self.held}

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.held.pop(key, None)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for key, data in list(self.held.items()):
            if key.startswith(prefix):
                yield Entry(key, len(data), self.ages[key])


class DictCalls(CallStorage):
    """The same for calls, with the query that every backend has for nothing."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.ages: dict[str, float] = {}

    def put_many(self, items: Iterable[tuple[str, CallEntry]]) -> None:
        for key, entry in items:
            self.held[key] = encode_entry(key, entry)
            self.ages[key] = time.time()

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, CallEntry | ParcelError]]:
        for key in keys:
            if (data := self.held.get(key)) is not None:
                try:
                    yield key, decode_entry(key, data)
                except ParcelError as error:
                    yield key, error

    contains_many = DictValues.contains_many
    delete_many = DictValues.delete_many
    entries = DictValues.entries


VALUES: dict[str, Callable[[Path], ValueStorage]] = {
    "memory": lambda _: ValueMemory(),
    "dict": lambda _: DictValues(),
    "file": ValueFile,
    "file, pickle": lambda root: ValueFile(root, "pickle"),
    "file, dill": lambda root: ValueFile(root, "dill"),
    "file, mmap": lambda root: ValueFile(root, mmap=True),
    "file, zlib": lambda root: ValueFile(root, compress="zlib"),
    "file, zstd, mmap": lambda root: ValueFile(root, compress="zstd", mmap=True),
    "file, signed, durable": lambda root: ValueFile(root, secret_key=["a", "b"], durable=True),
    "hdf5": ValueHdf5,
    "hdf5, gzip": lambda root: ValueHdf5(root, compress="gzip"),
    "local": ValueLocal,
    "local, signed": lambda root: ValueLocal(root, secret_key="a"),
}
CALLS: dict[str, Callable[[Path], CallStorage]] = {
    "memory": lambda _: CallMemory(),
    "dict": lambda _: DictCalls(),
    "file": CallFile,
    "file, signed, durable": lambda root: CallFile(root, secret_key="a", durable=True),
    "local": CallLocal,
    "local, signed": lambda root: CallLocal(root, secret_key="a"),
    "sql in memory": lambda _: Sql(),
    "sql file": lambda root: Sql(root / "calls.db"),
}


def is_plain(name: str) -> bool:
    """Whether it is an implementation, and no variant of one."""
    return "," not in name


@pytest.mark.parametrize("name", swept(VALUES, is_plain))
def test_value_storages(name: str, fresh: Callable[[], Path], no_leaks: None) -> None:
    """Every value storage keeps the contract and leaves nothing open."""
    check_value_storage(lambda: VALUES[name](fresh()))


@pytest.mark.parametrize("name", swept(CALLS, is_plain))
def test_call_storages(name: str, fresh: Callable[[], Path], no_leaks: None) -> None:
    """Every call storage keeps the contract and leaves nothing open."""
    check_call_storage(lambda: CALLS[name](fresh()))


@pytest.mark.postgres
def test_postgres(postgres: Callable[[], str], no_leaks: None) -> None:  # noqa: F811
    """A real PostgreSQL keeps the contract."""
    check_call_storage(lambda: Sql(postgres()))


def test_void_storages() -> None:
    """Void storages keep a contract of their own."""
    check_value_storage(ValueVoid, void=True)
    check_call_storage(CallVoid, void=True)


class TestDefaults:
    """What a backend gets for nothing is enough for a cache, damaged entries included."""

    def test_five_methods_are_all(self) -> None:
        """A backend that writes them, and no more, is complete."""
        for cls in (DictValues, DictCalls):
            written = {name for name in vars(cls) if name.endswith("_many") or name == "entries"}
            assert written == Storage.__abstractmethods__
            assert len(written) == 5

    def test_a_cache_collects_in_it(self) -> None:
        """gc() takes what no call needs, once it is old enough, and leaves the rest."""
        values, calls = DictValues(), DictCalls()
        cache = Cache(values, calls)
        needed, large = bytes(100_000), b"x" * 100_000
        key = cache.save_value(large)
        young = cache.save_value(b"y" * 100_000)
        cache.save(Call(name="f", arguments={}, result=needed))
        for at in list(values.ages):
            if not at.startswith(young):
                values.ages[at] -= 1000
        assert cache.gc(500).removed == 1
        assert not cache.contains(key)
        assert cache.contains(young)
        assert cache.contains(digest(needed))

    def test_what_damaged_parcels_need(self) -> None:
        """One whose head is damaged needs no buffer, and is listed; check_many() says why."""
        storage = DictValues()
        storage.held[NEAR], storage.ages[NEAR] = b"nonsense", time.time()
        assert [entry.key for entry in storage.entries()] == [NEAR]
        assert dict(storage.buffer_refs([NEAR])) == {NEAR: BufferRefs()}
        ((_, error),) = storage.check_many([NEAR])
        assert isinstance(error, CorruptParcel)

    def test_what_cannot_be_made_here_is_whole(self) -> None:
        """A value whose module is not installed here is not damaged."""

        class Opening(DictValues):
            capabilities = Capabilities(opens_parcels=True)

            def get_many(self, keys: Iterable[str]) -> Iterator[Any]:
                return ((key, UnpackError("no such module")) for key in keys)

        assert dict(Opening().check_many([NEAR])) == {NEAR: BufferRefs()}
        assert dict(Opening().buffer_refs([NEAR])) == {NEAR: BufferRefs()}

    def test_what_only_others_can_read(self) -> None:
        """Without the head of an untrusted or a newer parcel, what it needs is not known."""
        newer = CorruptParcel("from the future")
        newer.newer = True
        for error in (SignatureError("whose is it?"), newer):

            class Distrusting(DictValues):
                def get_many(self, keys: Iterable[str], error: Any = error) -> Iterator[Any]:
                    return ((key, error) for key in keys)

            assert dict(Distrusting().buffer_refs([NEAR])) == {NEAR: error}
            assert dict(Distrusting().check_many([NEAR])) == {NEAR: error}

    def test_collecting_walks_once(self) -> None:
        """To remove a thousand entries costs one walk; to remove none costs none."""
        walks: list[str] = []

        class Counting(DictValues):
            def entries(self, prefix: str = "") -> Iterator[Entry]:
                walks.append(prefix)
                return super().entries(prefix)

        storage = Counting()
        storage.delete_older({})
        storage.delete_older({str(digest(number)): 0.0 for number in range(1000)})
        storage.delete_older({NEAR: 0.0})
        assert walks == ["", NEAR]


@dataclass
class Broken:
    """A storage with some methods replaced, and what the suite says of it."""

    says: str
    methods: dict[str, Any] = field(default_factory=dict)


def _keep_reference(self: Any, items: Any) -> None:
    for key, item in items:
        self.held[key] = [memoryview(chunk) for chunk in item.chunks()]
        self.ages[key] = time.time()


def _put_in_advance(self: Any, items: Any) -> None:
    for key, item in items:
        self.held[key], self.ages[key] = b"?", time.time()
        self.held[key] = item.tobytes()


def _only_first(self: Any, items: Any) -> None:
    for key, item in items:
        if key not in self.held:
            DictValues.put_many(self, [(key, item)])


def _close_once(self: Any) -> None:
    if getattr(self, "closed", False) and not getattr(self, "complained", False):
        self.complained = True
        raise ValueError("closed")
    self.closed = True


def _iterate_live(self: Any, prefix: str = "") -> Iterator[Entry]:
    return (
        Entry(key, len(data), self.ages[key])
        for key, data in self.held.items()
        if key.startswith(prefix)
    )


FOUND_LATE = (
    *("never touches", "is always young", "keeps references", "mixes forms up"),
    *("says that nothing is needed", "checks nothing", "keeps the damaged"),
    *("finds twice", "breaks off", "forgets who holds", "locks for all"),
)
"""Breaches that only the last checks notice, after many others."""

BROKEN_VALUES = {
    "finds what is not there": Broken("never put", {"contains_many": lambda _, keys: set(keys)}),
    "forgets": Broken("What was put is there", {"put_many": lambda *_: None}),
    "keeps the first": Broken("the old one is there", {"put_many": _only_first}),
    "cannot delete": Broken("claims that it is there", {"delete_many": lambda *_: None}),
    "deletes everything": Broken(
        "another entry went along", {"delete_many": lambda self, _keys: self.held.clear()}
    ),
    "answers in its own order": Broken(
        "not in that order",
        {"get_many": lambda self, keys: DictValues.get_many(self, sorted(keys, reverse=True))},
    ),
    "lists everything": Broken(
        "entries('abcd') is wrong", {"entries": lambda self, _="": DictValues.entries(self)}
    ),
    "knows no age": Broken(
        "put just now, and at",
        {
            "entries": lambda self, prefix="": (
                entry._replace(modified=0.0) for entry in DictValues.entries(self, prefix)
            )
        },
    ),
    "is always young": Broken(
        "becomes young by itself",
        {
            "entries": lambda self, prefix="": (
                entry._replace(modified=time.time()) for entry in DictValues.entries(self, prefix)
            )
        },
    ),
    "never touches": Broken(
        "touched, and as old", {"touch_many": lambda self, keys: self.contains_many(keys)}
    ),
    "touches what is not there": Broken("touch_many()", {"touch_many": lambda _, keys: set(keys)}),
    "takes the young": Broken(
        "it says that others went",
        {"delete_older": lambda self, limits: {key for key in limits if self.held.pop(key, None)}},
    ),
    "is busy while it is read": Broken(
        "between two items of whatever is being read", {"entries": _iterate_live}
    ),
    "describes nothing": Broken("has no type", {"to_config": lambda _self: {}}),
    "describes another": Broken("gives a", {"to_config": lambda _self: {"type": "memory"}}),
    "keeps references": Broken(
        "nothing of the caller's memory",
        {
            "put_many": _keep_reference,
            "get_many": lambda self, keys: (
                (key, Parcel(MemorySource(self.held[key]))) for key in keys if key in self.held
            ),
        },
    ),
    "mixes forms up": Broken(
        "Two forms of one value",
        {
            "get_many": lambda self, keys: (
                (key, found)
                for key in keys
                for at in ([key] if key in self.held else sorted(self.held))
                if at.startswith(key)
                for _, found in DictValues.get_many(self, [at])
            )
        },
    ),
    "says that nothing is needed": Broken(
        "which shared buffers are needed",
        {"buffer_refs": lambda self, keys: ((key, BufferRefs()) for key in keys)},
    ),
    "checks nothing": Broken(
        "check_many() accepts what is whole",
        {"check_many": lambda self, keys, _=(): self.buffer_refs(keys)},
    ),
    "keeps the damaged": Broken("proves damaged", {"put_many": _put_in_advance}),
    "closes once": Broken("close() may be called again", {"close": _close_once}),
}


def _broken(base: Any, name: str, cases: dict[str, Broken], check: Any, kind: Any) -> None:
    broken = cases[name]
    cls: Any = type("BrokenStorage", (base,), {"__module__": __name__, **broken.methods})
    globals()["BrokenStorage"] = cls  # as to_config() describes it
    with pytest.raises(AssertionError) as caught:
        check(cls)
    assert broken.says in str(caught.value)
    assert "breaks a rule" in str(caught.value)


@pytest.mark.parametrize("name", swept(BROKEN_VALUES, lambda name: name not in FOUND_LATE))
def test_broken_value_storages(name: str) -> None:
    """A storage that breaks a rule is caught, and the message says which rule."""
    _broken(DictValues, name, BROKEN_VALUES, check_value_storage, "values")


def _query_pins_too(self: Any, template: QueryCall, *, keys_only: bool = False) -> Iterator[Any]:
    for key, entry in self.get_many(list(self.held)):
        record = entry.record
        if template.matches(record.replace(result=record.result or next(record.values(), None))):
            yield key, entry


def _query_twice(self: Any, template: QueryCall, *, keys_only: bool = False) -> Iterator[Any]:
    for found in DictCalls.query(self, template, keys_only=keys_only):
        yield from [found] * (2 if keys_only else 1)


def _without_parcels(self: Any, items: Any) -> None:
    DictCalls.put_many(self, ((key, CallEntry(entry.record)) for key, entry in items))


class _OneForAll(CallStorage.__dict__["locks"].__class__):  # type: ignore[misc]
    shared = True


BROKEN_CALLS = {
    "lists pins": Broken("never a pin", {"query": _query_pins_too}),
    "finds nothing": Broken("query() does not see", {"query": lambda *_, **__: iter(())}),
    "finds twice": Broken("a key comes twice", {"query": _query_twice}),
    "keeps the record alone": Broken("get_many() has another", {"put_many": _without_parcels}),
    "breaks off": Broken(
        "while the answers of a query are being read",
        {
            "query": lambda self, template, **_: (
                (key, entry)
                for key in self.held
                for _, entry in self.get_many([key])
                if template.matches(entry.record)
            )
        },
    ),
    "forgets who holds": Broken("what entries hold", {"holders": lambda *_: iter(())}),
    "locks for all": Broken("one owner has it", {"locks": _OneForAll()}),
}


@pytest.mark.parametrize("name", swept(BROKEN_CALLS, lambda name: name not in FOUND_LATE))
def test_broken_call_storages(name: str) -> None:
    """A call storage that breaks a rule is caught, and the message says which rule."""
    _broken(DictCalls, name, BROKEN_CALLS, check_call_storage, "calls")


def test_broken_void_storages() -> None:
    """A void storage that keeps something is caught."""
    with pytest.raises(AssertionError, match="accepts everything and has nothing"):
        check_value_storage(ValueMemory, void=True)
    with pytest.raises(AssertionError, match="accepts everything and has nothing"):
        check_call_storage(CallMemory, void=True)
