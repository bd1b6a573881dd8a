"""Every storage keeps the contract, and the suite that says so catches those that do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import Cache
from fleche.call import QueryCall, decode_record
from fleche.digest import Digest
from fleche.errors import CorruptParcel, SignatureError, StorageError, UnpackError
from fleche.parcel import MemorySource, Parcel
from fleche.storage import (
    CallFile,
    CallMemory,
    CallVoid,
    Capabilities,
    Sql,
    ValueFile,
    ValueMemory,
    ValueVoid,
    register_storage,
)
from fleche.storage.base import CallStorage, Entry, Table, ValueStorage
from fleche.storage.hdf5 import ValueHdf5
from fleche.testing import check_call_storage, check_value_storage
from fleche.testing.contract import NEAR
from tests.helpers.postgres import postgres, postgres_server  # noqa: F401


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A new path each time it is called."""
    numbers = iter(range(10_000))
    return lambda: tmp_path / f"storage {next(numbers)}"


class DictValues(ValueStorage):
    """The least that a backend has to write."""

    def __init__(self) -> None:
        self.held: dict[Digest, bytes] = {}
        self.ages: dict[Digest, float] = {}

    def put(self, key: Digest, item: Parcel) -> None:
        self.held[key] = item.tobytes()
        self.ages[key] = time.time()

    def get(self, key: Digest) -> Parcel:
        return Parcel.from_bytes(self.held[key])

    def contains(self, key: Digest) -> bool:
        return key in self.held

    def delete(self, key: Digest) -> None:
        self.held.pop(key, None)

    def keys(self) -> Iterator[Digest]:
        return iter(list(self.held))

    def entry(self, key: Digest) -> Entry:
        return Entry(key, len(self.held[key]), self.ages[key])

    def to_config(self) -> dict[str, Any]:
        return {"type": "test-dict"}


class DictCalls(CallStorage):
    """The same for calls, with the query that every backend has for nothing."""

    def __init__(self) -> None:
        self.held: dict[Digest, Any] = {}
        self.ages: dict[Digest, float] = {}

    def put(self, key: Digest, item: Any) -> None:
        self.held[key] = item
        self.ages[key] = time.time()

    get = lambda self, key: self.held[key]  # noqa: E731
    contains = lambda self, key: key in self.held  # noqa: E731
    delete = lambda self, key: self.held.pop(key, None)  # noqa: E731
    keys = lambda self: iter(list(self.held))  # noqa: E731

    def entry(self, key: Digest) -> Entry:
        return Entry(key, len(repr(self.held[key])), self.ages[key])

    def renew(self, key: Digest) -> bool:
        self.ages[key] = time.time()
        return key in self.held

    def to_config(self) -> dict[str, Any]:
        return {"type": "test-dict"}


register_storage("test-dict", "values", DictValues)
register_storage("test-dict", "calls", DictCalls)

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
}
CALLS: dict[str, Callable[[Path], CallStorage]] = {
    "memory": lambda _: CallMemory(),
    "dict": lambda _: DictCalls(),
    "file": CallFile,
    "file, signed, zlib": lambda root: CallFile(root, secret_key="a", compress="zlib"),
    "sql in memory": lambda _: Sql(),
    "sql file": lambda root: Sql(root / "calls.db"),
}


@pytest.mark.parametrize("name", VALUES)
def test_value_storages(name: str, fresh: Callable[[], Path], no_leaks: None) -> None:
    """Every value storage keeps the contract and leaves nothing open."""
    check_value_storage(lambda: VALUES[name](fresh()))


@pytest.mark.parametrize("name", CALLS)
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
    """What a backend gets for nothing is right for entries that cannot be read, too."""

    def test_the_damaged_are_listed(self) -> None:
        class Values(DictValues):
            entry = ValueStorage.entry

        class Calls(DictCalls):
            entry = CallStorage.entry
            get = lambda self, key: decode_record(self.held[key])  # noqa: E731

        for storage in (Values(), Calls()):
            storage.held[NEAR] = b"nonsense"
            ((key, size, modified),) = storage.entries()
            assert (key, size) == (NEAR, 0)
            assert abs(modified - time.time()) < 60
            assert not storage.delete_older(NEAR, time.time() - 60)
        values = Values()
        values.held[NEAR] = b"nonsense"
        assert values.table(NEAR) == Table()
        with pytest.raises(CorruptParcel):
            values.check(NEAR)

    def test_what_cannot_be_made_here_is_whole(self) -> None:
        class Opening(DictValues):
            capabilities = Capabilities(opens_parcels=True)

            def get(self, key: Digest) -> Parcel:
                raise UnpackError("no such module")

        storage = Opening()
        storage.held[NEAR] = b""
        assert storage.check(NEAR) == storage.table(NEAR) == Table()

    def test_what_nobody_here_can_read(self) -> None:
        """Without the head of an untrusted parcel, nobody knows what it needs."""

        class Distrusting(DictValues):
            def get(self, key: Digest) -> Parcel:
                raise SignatureError("whose is it?")

        storage = Distrusting()
        storage.held[NEAR] = b""
        storage.ages[NEAR] = 0.0
        with pytest.raises(SignatureError):
            storage.table(NEAR)
        with pytest.raises(StorageError, match=r"no buffer was removed.*whose is it\?"):
            Cache(storage, CallMemory()).gc()
        assert storage.contains(NEAR)


@dataclass
class Broken:
    """A storage with some methods replaced, and what the suite says of it."""

    says: str
    methods: dict[str, Any] = field(default_factory=dict)


def _keep_reference(self: Any, key: Digest, item: Parcel) -> None:
    self.held[key] = [memoryview(chunk) for chunk in item.chunks()]
    self.ages[key] = time.time()


def _put_in_advance(self: Any, key: Digest, item: Parcel) -> None:
    self.held[key], self.ages[key] = b"?", time.time()
    self.held[key] = item.tobytes()


def _query_leases_too(self: Any, template: QueryCall) -> Iterator[Any]:
    for key, record in list(self.held.items()):
        if template.matches(record if record.result else record.replace(result=key)):
            yield key, record


def _close_once(self: Any) -> None:
    if getattr(self, "closed", False) and not getattr(self, "complained", False):
        self.complained = True
        raise ValueError("closed")
    self.closed = True


BROKEN_VALUES = {
    "finds what is not there": Broken("What was never put", {"contains": lambda *_: True}),
    "forgets": Broken("What was put is there", {"put": lambda *_: None}),
    "cannot delete": Broken("contains() claims", {"delete": lambda *_: None}),
    "deletes everything": Broken(
        "took another entry along", {"delete": lambda self, _key: self.held.clear()}
    ),
    "never ages": Broken("makes it young", {"renew": lambda self, key: key in self.held}),
    "misses nothing": Broken("renew_many() says", {"renew_many": lambda *_: []}),
    "misses everything": Broken(
        "missing() is wrong",
        {"missing": lambda self, keys: list(keys) if len(list(keys)) > 1 else [*keys]},
    ),
    "takes the first": Broken(
        "did not raise AmbiguousDigestError",
        {"expand": lambda self, prefix: next(iter([*self.matching(prefix), KeyError]))},
    ),
    "takes the young": Broken(
        "took a young entry", {"delete_older": lambda self, key, _: bool(self.held.pop(key, None))}
    ),
    "says nothing of itself": Broken("has no type", {"to_config": lambda _self: {}}),
    "describes another": Broken("gives a", {"to_config": lambda _self: {"type": "memory"}}),
    "keeps references": Broken(
        "nothing of the caller's memory",
        {
            "put": _keep_reference,
            "get": lambda self, key: Parcel(MemorySource(self.held[key])),
            "entry": lambda self, key: Entry(key, int(bool(self.held[key])), self.ages[key]),
        },
    ),
    "says that nothing is needed": Broken(
        "who needs which shared buffer", {"table": lambda *_: Table()}
    ),
    "tells of what is gone": Broken(
        "tables() is wrong",
        {"tables": lambda self, keys: ((key, Table()) for key in keys)},
    ),
    "checks nothing": Broken(
        "check() accepts what is whole", {"check": lambda self, key, _=(): self.table(key)}
    ),
    "hides what goes wrong": Broken(
        "whatever goes wrong in it gets out", {"removing": lambda _self: suppress(Exception)}
    ),
    "keeps the damaged": Broken(
        "proves damaged",
        {"put": _put_in_advance},
    ),
    "closes once": Broken("close() may be called again", {"close": _close_once}),
}


@pytest.mark.parametrize("name", BROKEN_VALUES)
def test_broken_value_storages(name: str) -> None:
    """A storage that breaks a rule is caught, and the message says which rule."""
    broken = BROKEN_VALUES[name]
    cls: Any = type("Broken", (DictValues,), broken.methods)
    register_storage("test-dict", "values", cls)
    try:
        with pytest.raises(AssertionError) as caught:
            check_value_storage(cls)
    finally:
        register_storage("test-dict", "values", DictValues)
    assert broken.says in str(caught.value)
    assert "breaks a rule" in str(caught.value)


BROKEN_CALLS = {
    "lists leases": Broken("never a lease", {"query": _query_leases_too}),
    "finds nothing": Broken("query() does not see", {"query": lambda *_: iter(())}),
    "keeps the old": Broken(
        "the old record is still there",
        {
            "put": lambda self, key, item: (
                self.held.setdefault(key, item),
                self.ages.update({key: time.time()}),
            )
        },
    ),
    "breaks off": Broken(
        "while the answers of a query are being read",
        {
            "query": lambda self, template: (
                (key, record) for key, record in self.held.items() if template.matches(record)
            )
        },
    ),
}


@pytest.mark.parametrize("name", BROKEN_CALLS)
def test_broken_call_storages(name: str) -> None:
    """A call storage that breaks a rule is caught, and the message says which rule."""
    broken = BROKEN_CALLS[name]
    cls: Any = type("Broken", (DictCalls,), broken.methods)
    register_storage("test-dict", "calls", cls)
    try:
        with pytest.raises(AssertionError) as caught:
            check_call_storage(cls)
    finally:
        register_storage("test-dict", "calls", DictCalls)
    assert broken.says in str(caught.value)


def test_broken_void_storages() -> None:
    """A void storage that keeps something is caught."""
    with pytest.raises(AssertionError, match="accepts everything and has nothing"):
        check_value_storage(ValueMemory, void=True)
    with pytest.raises(AssertionError, match="accepts everything and has nothing"):
        check_call_storage(CallMemory, void=True)
