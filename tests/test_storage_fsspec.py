"""Storages on filesystems of fsspec: S3, memory, files; failures, damage, removals, forks."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec")

from fleche._redact import redact  # noqa: E402
from fleche.caches import Cache  # noqa: E402
from fleche.call import Call, QueryCall  # noqa: E402
from fleche.digest import Address, Digest, digest  # noqa: E402
from fleche.errors import (  # noqa: E402
    ConfigError,
    CorruptParcel,
    MissingExtra,
    SignatureError,
    StorageError,
)
from fleche.parcel import IncomingParcel, Parcel, StreamSource, pack, verify  # noqa: E402
from fleche.storage import (  # noqa: E402
    Acceptance,
    CallFsspec,
    CallMemory,
    ValueFsspec,
    ValueMemory,
    storage_from_config,
)
from fleche.storage.fsspec import _deletion  # noqa: E402
from fleche.storage.fsspec._filesystem import Connection, failure  # noqa: E402
from fleche.storage.fsspec._objects import BLOCK, ObjectSource, modified_of  # noqa: E402
from fleche.storage.fsspec._storage import EtagCache  # noqa: E402
from fleche.testing import check_call_storage, check_value_storage  # noqa: E402
from fleche.testing.corpus import Block, an_entry  # noqa: E402
from tests.helpers.permissions import as_somebody  # noqa: E402
from tests.helpers.s3 import FaultyS3, S3Server  # noqa: E402
from tests.helpers.storing import (  # noqa: E402
    delete,
    entry,
    get,
    has,
    keys,
    put,
    take_older,
    touch,
)
from tests.helpers.sweeps import swept  # noqa: E402

KEY = digest("key")
OTHER = digest("other")
FORM = Address.of(KEY, "0123456789abcdef" * 2)
LARGE = 3 * BLOCK + 12345

on_s3 = pytest.mark.s3


def parcel(value: Any = 1, key: Digest = KEY, **options: Any) -> Parcel:
    return pack(value, digest=key, **options)


def block(size: int = LARGE) -> Block:
    return Block(os.urandom(1 << 16) * (size >> 16) + os.urandom(size & 0xFFFF))


def storage(cls: Any, server: S3Server, url: str | None = None, **options: Any) -> Any:
    return cls(url or server.url(), {**server.options, **options})


def in_objects(server: S3Server) -> Cache:
    url = server.url()
    return Cache(ValueFsspec(url, server.options), CallFsspec(url, server.options))


@pytest.fixture
def memory() -> Iterator[Callable[[], str]]:
    """A new url of the memory of this process each time it is called."""
    numbers = itertools.count()
    _empty_memory()  # other tests of this process use it too
    yield lambda: f"memory://test-{next(numbers)}/values"
    _empty_memory()


def _empty_memory() -> None:
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def raw(memory: Callable[[], str]) -> tuple[ValueFsspec, dict[str, Any]]:
    """Values in memory, and what the memory holds by path."""
    return ValueFsspec(memory()), fsspec.filesystem("memory").store


def replaced(held: dict[str, Any], data: bytes) -> None:
    """Make `data` the content of the one object there is."""
    (path,) = held
    fsspec.filesystem("memory").pipe_file(path, data)


class TestContract:
    @pytest.mark.slow
    @pytest.mark.parametrize("options", [{}, {"compress": "zlib", "secret_key": ["a", "b"]}])
    def test_memory(self, memory: Callable[[], str], options: Any, no_leaks: None) -> None:
        """``memory://`` keeps the contract."""
        check_value_storage(lambda: ValueFsspec(memory(), **options))
        check_call_storage(lambda: CallFsspec(memory(), **options))

    @pytest.mark.parametrize("scheme", swept(["file://", ""], bool))
    def test_files(self, tmp_path: Path, scheme: str, no_leaks: None) -> None:
        """``file://`` and plain paths keep the contract."""
        numbers = itertools.count()
        check_value_storage(lambda: ValueFsspec(f"{scheme}{tmp_path}/v {next(numbers)}"))
        check_call_storage(lambda: CallFsspec(f"{scheme}{tmp_path}/c {next(numbers)}"))

    @on_s3
    @pytest.mark.slow
    @pytest.mark.timeout(240)
    def test_values_on_s3(self, s3: S3Server, no_leaks: None) -> None:
        """A real S3 endpoint keeps the contract, and every connection is closed."""
        check_value_storage(lambda: storage(ValueFsspec, s3))

    @on_s3
    @pytest.mark.slow
    @pytest.mark.timeout(240)
    def test_calls_on_s3(self, s3: S3Server, no_leaks: None) -> None:
        """The same for calls."""
        check_call_storage(lambda: storage(CallFsspec, s3))


class TestNames:
    def test_values_and_calls_share_a_url(self, memory: Callable[[], str]) -> None:
        """The layout is that of files: two characters, the rest, a suffix."""
        url = memory()
        values, calls = ValueFsspec(url), CallFsspec(url)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry())
        put(calls, OTHER, an_entry())
        path = url.removeprefix("memory:/")
        put(values, FORM, parcel())
        for name in (f"{KEY[2:]}.value", f"{FORM[2:]}.value", f"{KEY[2:]}.call"):
            assert f"{path}/{KEY[:2]}/{name}" in fsspec.filesystem("memory").store
        assert keys(values) == [KEY, FORM]
        assert sorted(keys(calls)) == sorted([KEY, OTHER])

    def test_other_objects_are_nobodys(self, tmp_path: Path) -> None:
        """Objects of other names are not listed and not touched."""
        values = ValueFsspec(str(tmp_path))
        put(values, KEY, parcel())
        for name in ("README", f"{KEY[:2]}/{'g' * 62}.value", f"{KEY[:2]}/x", "zz/x.value"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("mine")
        assert keys(values) == [KEY]
        assert [entry.key for entry in values.entries()] == [KEY]
        assert values.sweep(-100) == 0
        assert (tmp_path / "README").read_text() == "mine"

    def test_a_root_of_nothing(self, memory: Callable[[], str]) -> None:
        """The top of a filesystem is a place like any other."""
        values = ValueFsspec("memory://")
        put(values, KEY, parcel())
        assert values.to_config()["url"] == "memory://"
        assert keys(values) == [KEY]

    def test_a_short_key_is_a_miss(self, memory: Callable[[], str]) -> None:
        values = ValueFsspec(memory())
        put(values, KEY, parcel())
        for short in (KEY[:8], "", "..", "../" * 20 + "x" * 64, f"{KEY}.short"):
            assert not has(values, short)
            assert not touch(values, short)
            assert not take_older(values, short, time.time() + 60)
            delete(values, short)
            with pytest.raises(KeyError):
                get(values, short)
            with pytest.raises(ValueError, match="no complete key"):
                put(values, short, parcel())
        assert [found.key for found in values.entries("..")] == []

    def test_an_empty_object_is_not_there(self, raw: Any) -> None:
        """Nothing is read from it, and putting the value replaces it."""
        values, held = raw
        put(values, KEY, parcel())
        replaced(held, b"")
        assert not has(values, KEY)
        assert not touch(values, KEY)
        assert keys(values) == []
        for action in (get, entry):
            with pytest.raises(KeyError):
                action(values, KEY)
        put(values, KEY, parcel())
        assert values.packing.unpack(get(values, KEY), KEY) == 1

    @on_s3
    def test_an_empty_object_on_s3_is_not_there(self, s3: S3Server) -> None:
        """S3 refuses the range, which is no failure."""
        values = storage(ValueFsspec, s3)
        bucket = values.to_config()["url"].removeprefix("s3://").replace(" ", "%20")
        s3.request("PUT", f"{bucket}/{KEY[:2]}/{KEY[2:]}.value", b"")
        assert values.contains_many([KEY, OTHER]) == set()
        assert list(values.get_many([KEY, OTHER])) == []
        with pytest.raises(KeyError):
            get(values, KEY)
        values.close()

    def test_leftovers_are_swept(self, tmp_path: Path) -> None:
        """What a killed writer leaves is in no listing and goes when it is old."""
        values = ValueFsspec(str(tmp_path))
        put(values, KEY, parcel())
        left = tmp_path / KEY[:2] / f"{OTHER[2:]}.value.0123456789abcdef.tmp"
        left.write_bytes(b"half")
        assert keys(values) == [KEY]
        assert values.sweep() == 0
        os.utime(left, (1, 1))
        assert values.sweep() == 1
        assert keys(values) == [KEY]

    def test_gc_sweeps(self, tmp_path: Path) -> None:
        """What killed writers of values and of calls left is garbage, too."""
        cache = Cache(ValueFsspec(str(tmp_path / "values")), CallFsspec(str(tmp_path / "calls")))
        cache.save(Call("f", {"x": 1}, module="work", result=2))
        left = [
            tmp_path / kind / KEY[:2] / f"{OTHER[2:]}.{name}.0123456789abcdef.tmp"
            for kind, name in (("values", "value"), ("calls", "call"))
        ]
        for path in left:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
            os.utime(path, (1, 1))
        cache.gc(dry_run=True)
        assert all(path.exists() for path in left)
        cache.gc()
        assert not any(path.exists() for path in left)


class TestRequests:
    """What the operations cost on S3, counted before the server."""

    @on_s3
    def test_one_request_for_a_small_entry(
        self, faulty_s3: FaultyS3, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A put, a get (hit or miss) and a look each ask once; a listing by prefix asks once.

        A writer looks now and then whether old entries are being removed.
        """
        monkeypatch.setattr(_deletion, "WARNING", 60)
        values = storage(ValueFsspec, faulty_s3, s3.url())
        wanted = [digest(number) for number in range(30)]
        values.put_many({key: parcel(1, key) for key in wanted}.items())

        def cost(action: Callable[..., Any], *arguments: Any) -> int:
            faulty_s3.requests.clear()
            action(*arguments)
            return len(faulty_s3.requests)

        assert cost(put, values, KEY, parcel()) == 1
        assert cost(get, values, KEY) == 1
        assert cost(has, values, KEY) == 1
        assert cost(has, values, OTHER) == 1
        assert cost(entry, values, KEY[:8] + KEY[8:]) == 1
        assert cost(values.contains_many, wanted) == 30
        assert cost(keys, values) == 2
        assert cost(keys, values) == 1
        assert cost(touch, values, KEY) <= 3
        faulty_s3.requests.clear()
        faulty_s3.most = 0
        assert len(list(values.get_many(wanted))) == 30
        assert len(faulty_s3.requests) == 30
        assert faulty_s3.most > 3, "they were not asked for at once"
        assert cost(values.delete_many, [*wanted, OTHER]) <= 2, "removed one by one"
        assert keys(values) == [KEY]
        values.close()

    @on_s3
    def test_a_small_call_is_one_object(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """Its record and its parcels go up in one request, and come back in one."""
        calls = storage(CallFsspec, faulty_s3, s3.url())
        held = an_entry(x=[1, 2], y="z" * 3000, result={"a": 1})
        put(calls, OTHER, an_entry())  # connect first
        faulty_s3.requests.clear()
        put(calls, KEY, held)
        assert [method for method, _ in faulty_s3.requests] == ["PUT"]
        faulty_s3.requests.clear()
        assert get(calls, KEY) == held
        assert len(faulty_s3.requests) == 1
        calls.close()

    def test_a_buffer_is_written_before_what_refers_to_it(
        self, memory: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Small objects are written at once; yet a killed writer leaves no value without it."""
        values = ValueFsspec(memory())
        packed = values.packing.pack_parts(Block(bytes(100_000)), KEY)
        ((name, content),) = packed.buffers.items()
        buffer = values.packing.pack_buffer(content, name)
        written: list[set[str]] = []
        write_many = values._writer.write_many

        def note(items: Any) -> None:
            written.append(set(items))
            write_many(items)

        monkeypatch.setattr(values._writer, "write_many", note)
        others = [(digest(number), parcel(number, digest(number))) for number in range(4)]
        values.put_many([*others[:2], (name, buffer), (KEY, packed.main), *others[2:]])
        first, second = written
        assert name in first
        assert KEY in second
        assert first | second == set(keys(values))

    @on_s3
    def test_many_are_touched_at_once(
        self, faulty_s3: FaultyS3, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A transfer that finds its values there does not wait for one after the other."""
        monkeypatch.setattr(_deletion, "WARNING", 60)
        values = storage(ValueFsspec, faulty_s3, s3.url())
        wanted = [digest(number) for number in range(30)]
        values.put_many({key: parcel(1, key) for key in wanted}.items())
        faulty_s3.requests.clear()
        faulty_s3.most = 0
        assert values.touch_many([OTHER, *wanted, KEY]) == set(wanted)
        assert len(faulty_s3.requests) <= 3 * 32
        assert faulty_s3.most > 3, "they were not touched at once"
        values.close()

    @on_s3
    def test_a_query_reads_what_has_changed(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """The listing says which entries are known already, wherever the change came from."""
        url = s3.url()
        calls, other = storage(CallFsspec, faulty_s3, url), storage(CallFsspec, s3, url)
        wanted = [digest(number) for number in range(20)]
        other.put_many({key: an_entry("f", x=number) for number, key in enumerate(wanted)}.items())
        assert len(list(calls.query(QueryCall.of(name="f")))) == 20
        faulty_s3.requests.clear()
        assert len(list(calls.query(QueryCall.of(name="f")))) == 20
        assert len(faulty_s3.requests) == 1, "only the listing"
        put(other, wanted[0], an_entry("g", x=1))
        delete(other, wanted[1])
        faulty_s3.requests.clear()
        assert len(list(calls.query(QueryCall.of(name="f")))) == 18
        assert dict(calls.query(QueryCall.of(name="g"))) == {wanted[0]: an_entry("g", x=1)}
        assert len(faulty_s3.requests) == 3, "more than the one that is new"
        calls.close()
        other.close()

    def test_what_is_remembered(self) -> None:
        """Only what the tag proves, and no more than so many bytes."""
        recent = EtagCache(100)
        contents = [bytes([number]) * 40 for number in range(3)]
        tags = [hashlib.md5(content).hexdigest() for content in contents]
        recent.keep(tags[0], contents[1])
        recent.keep("", contents[0])
        assert recent.get(tags[0]) is recent.get("") is None
        for tag, content in zip(tags, contents, strict=True):
            recent.keep(tag, content)
            assert recent.get(tag) == content
        assert recent.get(tags[0]) is None, "more than was allowed"
        recent.clear()
        assert recent.get(tags[2]) is None

    @on_s3
    def test_many_are_listed_in_sixteenths(
        self, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large store is listed by the first digits of its digests, several at once."""
        monkeypatch.setattr("fleche.storage.fsspec._objects._LITTLE", 0)
        values = storage(ValueFsspec, s3)
        wanted = [digest(number) for number in range(40)]
        values.put_many({key: parcel(1, key) for key in wanted}.items())
        assert sorted(keys(values)) == sorted(wanted)
        assert next(iter(keys(values))) in wanted, "a listing that is left off"
        assert sorted(entry.key for entry in values.entries()) == sorted(wanted)
        values.close()

    @on_s3
    def test_a_whole_bucket(self, s3: S3Server) -> None:
        """A url may name nothing but a bucket."""
        values = storage(ValueFsspec, s3, s3.url().rpartition("/")[0])
        put(values, KEY, parcel())
        assert keys(values) == [found.key for found in values.entries(KEY[:5])] == [KEY]
        delete(values, KEY)
        assert keys(values) == []
        values.close()

    @on_s3
    def test_others_are_seen(self, s3: S3Server) -> None:
        """What another writer puts or deletes shows at once: no listing is kept."""
        url = s3.url()
        mine, other = storage(ValueFsspec, s3, url), storage(ValueFsspec, s3, url)
        assert keys(mine) == []
        put(other, KEY, parcel())
        assert keys(mine) == [found.key for found in mine.entries(KEY[:4])] == [KEY]
        assert [entry.key for entry in mine.entries()] == [KEY]
        assert entry(mine, KEY).size == entry(other, KEY).size
        delete(other, KEY)
        assert keys(mine) == [found.key for found in mine.entries(KEY[:4])] == []
        with pytest.raises(KeyError):
            entry(mine, KEY)
        mine.close()
        other.close()


class TestUse:
    """An entry that was used is young again, and what it says is left alone."""

    def test_nothing_is_brought_back(
        self, memory: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An entry that another process puts while the old one is touched is the one that stays."""
        url = memory()
        calls, other = CallFsspec(url), CallFsspec(url)
        records = [an_entry(x=number) for number in range(10)]
        written = [records.pop()]
        put(calls, KEY, written[0])
        cls = type(fsspec.filesystem("memory"))
        read = cls.cat_file

        def read_then_replaced(self: Any, path: str, *args: Any, **options: Any) -> Any:
            found = read(self, path, *args, **options)
            written.append(records.pop())
            put(other, KEY, written[-1])
            return found

        with monkeypatch.context() as patch:
            patch.setattr(cls, "cat_file", read_then_replaced)
            assert touch(calls, KEY)
        assert len(written) > 1
        assert get(calls, KEY) == written[-1]

    @on_s3
    def test_no_record_is_written_on_s3(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """Not even by a copy onto itself, which may have read what was there before."""
        calls = storage(CallFsspec, faulty_s3, s3.url())
        put(calls, KEY, an_entry())
        before = entry(calls, KEY)
        faulty_s3.requests.clear()
        assert touch(calls, KEY)
        written = [path for method, path in faulty_s3.requests if method == "PUT"]
        assert len(written) == 1
        assert ".call.used" in written[0]
        assert entry(calls, KEY).modified >= before.modified
        assert keys(calls) == [KEY]
        calls.close()

    @pytest.fixture
    def used(self, memory: Callable[[], str]) -> tuple[CallFsspec, dict[str, Any]]:
        """Two records of long ago, the first of them used just now; and the objects by path."""
        calls, held = CallFsspec(memory()), fsspec.filesystem("memory").store
        for key in (KEY, OTHER):
            put(calls, key, an_entry())
        for found in held.values():
            found.created = found.modified = datetime(2020, 1, 1, tzinfo=timezone.utc)
        assert touch(calls, KEY)
        return calls, held

    def test_age(self, used: tuple[CallFsspec, dict[str, Any]]) -> None:
        """It is that of the last use, for one and for all."""
        calls, _ = used
        ages = {each.key: each.modified for each in calls.entries()}
        assert ages == {key: entry(calls, key).modified for key in (KEY, OTHER)}
        assert ages[OTHER] < ages[KEY] - 1e6
        assert not take_older(calls, KEY, ages[KEY] - 1)
        assert take_older(calls, OTHER, ages[OTHER])
        assert keys(calls) == [KEY]

    @pytest.mark.parametrize("how", ["delete", "delete_older"])
    def test_nothing_stays(self, used: tuple[CallFsspec, dict[str, Any]], how: str) -> None:
        """What tells of the last use of a record goes with it."""
        calls, held = used
        delete(calls, OTHER)
        if how == "delete":
            delete(calls, KEY)
        else:
            assert take_older(calls, KEY, time.time() + 10)
        assert held == {}

    def test_what_is_left_is_swept(self, used: tuple[CallFsspec, dict[str, Any]]) -> None:
        """Where another process has removed the record, which knew of no use."""
        calls, held = used
        delete(CallFsspec(calls.to_config()["url"]), KEY)
        assert len(held) == 2
        assert calls.sweep() == 0
        assert calls.sweep(-10) == 1
        assert keys(calls) == [OTHER]
        assert len(held) == 1


class TestLarge:
    @on_s3
    def test_parts_and_ranges(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """A large value goes up in parts, and comes down in ranges when it is opened."""
        values = storage(ValueFsspec, faulty_s3, s3.url())
        value = block()
        put(values, KEY, parcel(value))
        assert sum("partNumber" in path for _, path in faulty_s3.requests) == 4
        faulty_s3.requests.clear()
        found = get(values, KEY)
        assert len(faulty_s3.requests) == 2, "its beginning and its size"
        assert found.head.digest == KEY
        verify(found, digest=KEY)
        assert b"".join(found.chunks()) == parcel(value).tobytes()
        assert values.packing.unpack(found, KEY).data == value.data
        with pytest.raises(ValueError, match="was closed"):
            found.tobytes()
        faulty_s3.requests.clear()
        assert touch(values, KEY)
        assert not any("partNumber" in path for _, path in faulty_s3.requests), "sent again"
        assert any(method == "PUT" for method, _ in faulty_s3.requests), "not touched"
        values.close()

    @on_s3
    def test_a_failed_upload_leaves_nothing(self, s3: S3Server) -> None:
        """No object and no unfinished upload: the parts are given up."""
        values = storage(ValueFsspec, s3)
        data = bytearray(parcel(block()).tobytes())
        data[-1] ^= 1
        pieces = (bytes(data[start : start + 65536]) for start in range(0, len(data), 65536))
        incoming = IncomingParcel(StreamSource(len(data), pieces))
        with pytest.raises(CorruptParcel):
            put(values, KEY, incoming)
        assert not has(values, KEY)
        bucket = values.to_config()["url"].split("/")[2]
        assert b"<UploadId>" not in s3.request("GET", f"{bucket}?uploads")
        values.close()

    @on_s3
    def test_memory_is_bounded(self, s3: S3Server) -> None:
        """Putting and copying holds a few blocks, not the value."""
        values = storage(ValueFsspec, s3)
        large = parcel(block(12 * BLOCK))
        put(values, OTHER, parcel())  # connect first
        tracemalloc.start()
        try:
            put(values, KEY, large)
            putting = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            found = get(values, KEY)
            for _ in found.chunks():
                pass
            got = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert putting < 5 * BLOCK, f"{putting >> 20} MiB while putting"
        assert got < 9 * BLOCK, f"{got >> 20} MiB while getting"
        values.close()

    @on_s3
    def test_removed_while_read(self, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """An object that goes between two requests is gone: a counted miss of the cache."""
        with in_objects(s3) as cache:
            call = Call(name="f", arguments={"x": 1}, result=os.urandom(9 << 20))
            key = Digest(cache.save(call))
            ((address, _, _),) = cache.values.entries()
            found = get(cache.values, address)
            get_many = cache.values.get_many

            def evicted_at_once(wanted: Any) -> Iterator[Any]:
                for at, held in get_many(wanted):
                    delete(cache.values, at)
                    yield at, held

            with monkeypatch.context() as patch:
                patch.setattr(cache.values, "get_many", evicted_at_once)
                assert cache.lookup(key) is None
                assert cache.counts()["misses"] == cache.counts()["dangling"] == 1
                cache.save(call)
                assert cache.transfer(Cache(ValueMemory(), CallMemory())) == 0
                with pytest.raises(KeyError):
                    verify(found)
            assert cache.verify().dangling == (key,)
            cache.save(call)
            assert cache.load(key).result == call.result

    def test_ranges_of_a_source(self) -> None:
        """Any part is read as from memory, whatever lies in memory already."""
        data = os.urandom(5 * BLOCK + 77)
        asked: list[int] = []

        def fetch(ranges: Any) -> list[bytes]:
            asked.append(len(ranges))
            return [data[begin:end] for begin, end in ranges]

        source = ObjectSource("x", len(data), data[:1000], fetch)
        assert source.read(10, 900) == data[10:910]
        assert not asked
        for begin, size in ((0, 2000), (990, 20), (1000, 1), (BLOCK - 1, 2), (len(data) - 5, 99)):
            assert source.read(begin, size) == data[begin : begin + size]
        assert source.take(500, 5 * BLOCK) == data[500 : 500 + 5 * BLOCK]
        assert max(asked) == 4, "more blocks at once than are allowed"
        assert b"".join(source.chunks(1 << 20)) == data
        assert all(len(piece) <= 1 << 20 for piece in source.chunks(1 << 20))
        taken = source.take(0, 10)
        taken[0:1] = b"x"
        assert source.read(0, 10) == data[:10], "it gave its own memory away"
        source.opened()
        source.close()
        with pytest.raises(ValueError, match="closed"):
            source.read(0, 1)

    def test_a_source_that_ends_early(self) -> None:
        source = ObjectSource("s3://x", 100, b"", lambda ranges: [b"short"])
        with pytest.raises(CorruptParcel, match="s3://x: ends after 5 of 100 bytes"):
            source.read(0, 50)

    def test_large_files(self, tmp_path: Path, memory: Callable[[], str]) -> None:
        """Filesystems without parts keep large values, too, and touch them."""
        for url in (str(tmp_path), memory()):
            values, value = ValueFsspec(url), block()
            put(values, KEY, parcel(value))
            before = entry(values, KEY).modified
            time.sleep(0.02)
            assert touch(values, KEY)
            assert entry(values, KEY).modified > before
            assert values.packing.unpack(get(values, KEY), KEY).data == value.data
            ((key, found),) = values.get_many([KEY, OTHER])
            assert key == KEY
            verify(found, digest=KEY)


def refused(port: int = 1) -> Any:
    return {"client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}"}}


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "get": lambda values: get(values, KEY),
    "put": lambda values: put(values, KEY, parcel()),
    "large put": lambda values: put(values, KEY, parcel(block(2 * BLOCK))),
    "put_many": lambda values: values.put_many({KEY: parcel(), OTHER: parcel(2, OTHER)}.items()),
    "get_many": lambda values: list(values.get_many([KEY, OTHER])),
    "contains": lambda values: has(values, KEY),
    "contains_many": lambda values: values.contains_many([KEY, OTHER]),
    "delete": lambda values: delete(values, KEY),
    "delete_many": lambda values: values.delete_many([KEY, OTHER]),
    "entries": lambda values: list(values.entries()),
    "some entries": lambda values: list(values.entries("abcd")),
    "delete_older": lambda values: take_older(values, KEY, 0.0),
}
QUICK = {"config_kwargs": {"retries": {"max_attempts": 0}, "read_timeout": 1}}


class TestFailures:
    """Every failure of the store is one StorageError that names the url and what to do."""

    @on_s3
    @pytest.mark.parametrize(
        ("fault", "hint"),
        swept(
            [(403, "check the credentials"), (500, "try again later"), ("drop", "")],
            lambda case: case[0] != "drop",
        ),
    )
    def test_answers(self, fault: Any, hint: str, faulty_s3: FaultyS3, s3: S3Server) -> None:
        values = storage(ValueFsspec, faulty_s3, s3.url(), **QUICK)
        put(values, KEY, parcel())
        faulty_s3.fault = lambda method, path: fault
        for name, operation in OPERATIONS.items():
            with pytest.raises(StorageError) as caught:
                operation(values)
            said = str(caught.value)
            assert said.startswith("s3://test-"), f"{name}: {said}"
            assert ": cannot " in said, f"{name}: {said}"
            assert hint in said, f"{name}: {said}"
            assert "sesame" not in said
        faulty_s3.fault = lambda method, path: None
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert keys(values) == [KEY]
        values.close()

    @on_s3
    @pytest.mark.slow
    def test_silence(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """A server that does not answer is given up in bounded time."""
        values = storage(ValueFsspec, faulty_s3, s3.url(), **QUICK)
        put(values, KEY, parcel())
        faulty_s3.fault = lambda method, path: "stall"
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot read: .*does not answer"):
            get(values, KEY)
        assert time.monotonic() - start < 15
        values.close()

    @on_s3
    def test_cut_while_read(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """An answer that breaks off once is asked for again; one that always does is a failure."""
        values = storage(ValueFsspec, faulty_s3, s3.url(), **QUICK)
        value = block()
        put(values, KEY, parcel(value))
        found, again = get(values, KEY), get(values, KEY)
        once = iter(["cut"])
        faulty_s3.fault = lambda method, path: next(once, None)
        assert values.packing.unpack(found, KEY).data == value.data
        faulty_s3.fault = lambda method, path: "cut"
        with pytest.raises(StorageError, match=r"cannot read: .*again"):
            values.packing.unpack(again, KEY)
        values.close()

    @on_s3
    def test_gone_or_forbidden_while_read(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        values = storage(ValueFsspec, faulty_s3, s3.url())
        put(values, KEY, parcel(block()))
        for fault, error, said in (
            (404, KeyError, KEY),
            (403, StorageError, "check the credentials"),
        ):
            faulty_s3.fault = lambda method, path: None
            found = get(values, KEY)
            faulty_s3.fault = lambda method, path, fault=fault: fault
            with pytest.raises(error, match=said):
                verify(found)
        values.close()

    @on_s3
    def test_an_upload_that_fails(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """A part that is refused: no object appears, whichever part it was."""
        values = storage(ValueFsspec, faulty_s3, s3.url(), **QUICK)
        for part in (1, 3):
            faulty_s3.fault = lambda method, path, part=part: (
                503 if f"partNumber={part}" in path else None
            )
            with pytest.raises(StorageError, match="cannot write"):
                put(values, KEY, parcel(block()))
            assert not has(values, KEY)
        values.close()

    @on_s3
    def test_nobody_there(self, s3: S3Server) -> None:
        """A refused connection is told in seconds."""
        values = storage(ValueFsspec, s3, "s3://bucket/x", **refused())
        start = time.monotonic()
        with pytest.raises(StorageError, match="cannot be reached; check the url"):
            get(values, KEY)
        assert time.monotonic() - start < 20
        values.close()

    @on_s3
    def test_no_bucket(self, s3: S3Server) -> None:
        """A bucket that does not exist is no miss."""
        values = storage(ValueFsspec, s3, "s3://no-such-bucket/x")
        for name in ("get", "put", "contains", "contains_many", "entries", "large put"):
            with pytest.raises(StorageError, match="create the bucket"):
                OPERATIONS[name](values)
        values.close()

    @on_s3
    def test_nothing_may_be_written(self, faulty_s3: FaultyS3, s3: S3Server) -> None:
        """With a key that may only read, touching says whether there is an entry."""
        url = s3.url()
        values = storage(ValueFsspec, faulty_s3, url, **QUICK)
        calls = storage(CallFsspec, faulty_s3, url, **QUICK)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry())
        faulty_s3.fault = lambda method, path: 403 if method == "PUT" else None
        for held in (values, calls):
            assert touch(held, KEY)
            assert not touch(held, OTHER)
        faulty_s3.fault = lambda method, path: 500 if method == "PUT" else None
        with pytest.raises(StorageError):
            touch(calls, KEY)
        for held in (values, calls):
            held.close()

    def test_a_directory_that_refuses(self, tmp_path: Path) -> None:
        """On files, what was there stays, and no temporary file is left."""
        values = ValueFsspec(str(tmp_path / "x"))
        (tmp_path / "x").write_text("a file")
        with pytest.raises(StorageError, match="cannot write"):
            put(values, KEY, parcel())
        with pytest.raises(StorageError, match="a file stands where"):
            get(values, KEY)
        good = ValueFsspec(str(tmp_path / "y"))
        put(good, KEY, parcel())

        def chunks() -> Iterator[bytes]:
            yield b"x" * 100
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            good._writer.write_chunks(KEY, 200, chunks())
        assert good.packing.unpack(get(good, KEY), KEY) == 1
        assert len([found for found in (tmp_path / "y").rglob("*") if found.is_file()]) == 1

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(errno.ENOSPC, "No space"), "disk is full; free"),
            (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
            (TimeoutError(), "x: cannot write: TimeoutError (it does not answer"),
            (PermissionError(errno.EACCES, "no"), "read_only = true"),
            (ConnectionResetError(errno.ECONNRESET, "reset"), "cannot be reached"),
            (type("NoCredentialsError", (Exception,), {})("none"), "give the credentials"),
            (RuntimeError("at https://user:secret@host/x?token=abc"), "https://***:***@host"),
        ],
    )
    def test_hints(self, error: Exception, said: str) -> None:
        assert said in str(failure("write", "x", error))
        assert "secret" not in str(failure("write", "x", error))


class TestColleagues:
    def test_the_file_of_a_colleague(self) -> None:
        """Where only its owner may set its age, a value that others rely on is written again."""
        with tempfile.TemporaryDirectory() as place:
            values = ValueFsspec(f"file://{place}")
            put(values, KEY, parcel(1))
            (path,) = [each for each in Path(place).rglob("*") if each.is_file()]
            os.utime(path, (1000, 1000))
            path.chmod(0o644)
            for directory in (path.parent, Path(place)):
                directory.chmod(0o777)
            with as_somebody():
                assert touch(values, KEY)
                assert path.stat().st_mtime > 1000
                assert values.packing.unpack(get(values, KEY), KEY) == 1
            path.chmod(0o444)
            for directory in (path.parent, Path(place)):
                directory.chmod(0o755)
            with as_somebody():
                assert touch(values, KEY)  # it is there
            values.close()


class TestDamage:
    def test_truncation_and_bit_flips(self, raw: Any) -> None:
        """Whatever happens to the bytes is found out before anything is unpickled."""
        values, held = raw
        put(values, KEY, parcel({"a": list(range(50))}))
        sound = get(values, KEY).tobytes()
        damaged = [sound[:length] for length in range(1, len(sound))]
        damaged += [sound + b"x", pack(2, digest=OTHER).tobytes()]
        for position in range(len(sound)):
            flipped = bytearray(sound)
            flipped[position] ^= 1 << position % 8
            damaged.append(bytes(flipped))
        harmless = 0
        for data in damaged:
            replaced(held, data)
            try:
                found = values.packing.unpack(get(values, KEY), KEY)
            except CorruptParcel:
                continue
            assert found == {"a": list(range(50))}, "a wrong value"
            harmless += 1
        assert harmless <= 64 + 64, "only padding may change"

    @on_s3
    def test_damage_on_s3(self, s3: S3Server) -> None:
        """A truncated or altered large object is corrupt, is no sound entry, and is replaced."""
        values = storage(ValueFsspec, s3)
        value = block(2 * BLOCK)
        sound = parcel(value).tobytes()
        fs = fsspec.filesystem("s3", **s3.options, skip_instance_cache=True)
        path = f"{values.to_config()['url'].removeprefix('s3://')}/{KEY[:2]}/{KEY[2:]}.value"
        for data in (sound[:-1], sound[: BLOCK + 5], sound[:100], sound + b"x"):
            fs.pipe_file(path, data)
            with pytest.raises(CorruptParcel, match="s3://"):
                get(values, KEY)
            assert not touch(values, KEY)
        fs.pipe_file(path, sound[:-1000] + bytes([sound[-1000] ^ 1]) + sound[-999:])
        with pytest.raises(CorruptParcel, match="checksum"):
            values.packing.unpack(get(values, KEY), KEY)
        fs.pipe_file(path, sound[:100])
        put(values, KEY, parcel(value))
        assert values.packing.unpack(get(values, KEY), KEY).data == value.data
        values.close()

    def test_signatures(self, memory: Callable[[], str]) -> None:
        """What is not signed by a secret that counts is refused, coming and going."""
        url = memory()
        unsigned, signed = ValueFsspec(url), ValueFsspec(url, secret_key="a")
        put(unsigned, KEY, parcel())
        with pytest.raises(SignatureError):
            get(signed, KEY)
        ((_, error),) = signed.get_many([KEY])
        assert isinstance(error, SignatureError)
        assert not touch(signed, KEY)
        with pytest.raises(SignatureError):
            put(signed, KEY, parcel())
        with pytest.raises(SignatureError):
            signed.put_many({KEY: parcel()}.items())
        put(signed, KEY, signed.packing.pack(1, KEY))
        assert touch(ValueFsspec(url, secret_key=["b", "a"]), KEY)
        calls = CallFsspec(url)
        put(calls, KEY, an_entry())
        with pytest.raises(SignatureError):
            get(CallFsspec(url, secret_key="a"), KEY)
        with pytest.raises(ValueError, match="empty secret"):
            ValueFsspec(url, secret_key="")

    def test_queries_skip_the_damaged(
        self, memory: Callable[[], str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """One warning names the first; the others are found."""
        calls = CallFsspec(memory())
        calls.put_many({digest(number): an_entry("f", x=number) for number in range(10)}.items())
        store = fsspec.filesystem("memory")
        for path in sorted(store.store)[:3]:
            store.pipe_file(path, b"damaged")
        with caplog.at_level(logging.WARNING):
            assert len(list(calls.query(QueryCall.of(name="f")))) == 7
        assert len(caplog.records) == 1
        assert "memory://" in caplog.text


class TestProcesses:
    @on_s3
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_fork(self, s3: S3Server) -> None:
        """A forked child makes a connection of its own, and its parent's goes on."""
        values = storage(ValueFsspec, s3)
        put(values, KEY, parcel())
        child = os.fork()
        if not child:
            try:
                good = has(values, KEY) and values.packing.unpack(get(values, KEY), KEY) == 1
                put(values, OTHER, parcel(2, OTHER))
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        assert has(values, KEY)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sorted(keys(values)) == sorted([KEY, OTHER])
        values.close()

    @on_s3
    def test_pickle(self, s3: S3Server) -> None:
        """A storage is pickled as its configuration, also while it is connected."""
        values = storage(ValueFsspec, s3)
        put(values, KEY, parcel())
        again = pickle.loads(pickle.dumps(values))
        assert again.to_config() == values.to_config()
        assert has(again, KEY)
        again.close()
        assert has(values, KEY), "closing one closed the other"
        values.close()


class TestConfiguration:
    def test_a_table(self, memory: Callable[[], str]) -> None:
        """Every key of the table arrives, and comes back."""
        table = {
            "type": "fsspec",
            "url": memory(),
            "options": {"use_listings_cache": False},
            "serializer": "pickle",
            "compress": "zlib",
            "secret_key": ["a", "b"],
        }
        values: Any = storage_from_config(table, "values")
        assert values.to_config() == table
        assert values.packing.serializer == "pickle"
        assert not values.capabilities.persistent
        assert "secret" not in repr(values)
        plain = storage_from_config({"type": "fsspec", "url": "memory://x"}, "calls")
        assert plain.to_config() == {"type": "fsspec", "url": "memory://x"}

    def test_paths(self, tmp_path: Path, tmp_home: Path) -> None:
        """A path without a scheme is relative to the file that names it; a url is left alone."""

        def found(url: str) -> Any:
            table = {"type": "fsspec", "url": url}
            return storage_from_config(table, "values", lambda path: f"/base/{path}")

        assert found("x/y").to_config()["url"] == "/base/x/y"
        assert found("memory://x/y/").to_config()["url"] == "memory://x/y"
        assert ValueFsspec("~/x").to_config()["url"] == str(tmp_home / "x")
        assert found("x").capabilities.persistent

    def test_what_is_wrong_with_a_url(self) -> None:
        """An unknown filesystem is a mistake; one that is missing names its package."""
        with pytest.raises(ConfigError, match="nowhere://x: fsspec knows no filesystem 'nowhere'"):
            ValueFsspec("nowhere://x")
        if not find("gcsfs"):
            with pytest.raises(MissingExtra, match=r"install fsspec gcsfs"):
                ValueFsspec("gs://bucket/x")

    @pytest.mark.parametrize("module", ["fsspec", "s3fs"])
    def test_what_is_not_installed(self, module: str) -> None:
        """The message says what to install."""
        code = (
            f"import sys; sys.modules[{module!r}] = None\n"
            "from fleche.errors import MissingExtra\n"
            "from fleche.storage import storage_from_config\n"
            "try: storage_from_config({'type': 'fsspec', 'url': 's3://b/x'}, 'values')\n"
            "except MissingExtra as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "pip install fsspec" in done.stdout, done.stderr
        assert done.stdout.strip().endswith("s3fs") == (module == "s3fs")

    def test_a_system_without_errors_of_linux(self) -> None:
        """Not every number of Linux has a name on macOS."""
        code = "import errno\ndel errno.EREMOTEIO\nimport fleche.storage.fsspec"
        if not hasattr(errno, "EREMOTEIO"):
            code = "import fleche.storage.fsspec"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_secrets_are_hidden(self) -> None:
        """Credentials in options and urls do not show where configurations are shown."""
        options = {
            "key": "K1",
            "secret": "K2",
            "token": "K3",
            "password": "K4",
            "account_key": "K5",
            "connection_string": "K6",
            "sas_token": "K7",
            "client_kwargs": {"aws_secret_access_key": "K8", "endpoint_url": "http://u:K9@h"},
        }
        table = ValueFsspec("memory://u:K0@x", options).to_config()
        shown = repr(redact(table)) + repr(ValueFsspec("memory://u:K0@x", options))
        assert not [number for number in range(10) if f"K{number}" in shown], shown
        assert table["options"] == options, "the configuration itself must keep them"

    def test_own_settings_win(self, s3: S3Server) -> None:
        """What the options say of s3fs counts more than what fleche would choose."""
        options = {**s3.options, "config_kwargs": {"max_pool_connections": 3}}
        connection = Connection("s3://b/x", options)
        assert connection.fs.config_kwargs["max_pool_connections"] == 3
        assert connection.fs.config_kwargs["retries"]["mode"] == "standard"
        assert connection.fs is Connection("s3://other", options).fs, "not shared"
        assert connection.root == "b/x"


def find(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


class TestFilesystems:
    """What differs from one filesystem to the next."""

    @on_s3
    def test_the_clock_of_the_store(
        self, faulty_s3: FaultyS3, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked, since that of this machine may be wrong; and nothing is left of that."""
        values = storage(ValueFsspec, faulty_s3, s3.url(), **QUICK)
        put(values, KEY, parcel())
        before = time.time()
        with monkeypatch.context() as patch:
            patch.setattr("fleche.storage.fsspec._writing.time.time", lambda: 0.0)
            assert abs(values.now() - before) < 10
            faulty_s3.fault = lambda method, path: 403 if method == "PUT" else None
            assert values.now() == 0.0, "where nothing may be written, it is that of this machine"
        faulty_s3.fault = lambda method, path: None
        root = values._objects.connection.root
        assert values._objects.connection.fs.find(root) == [values._objects.path(KEY)]
        values.close()

    def test_the_clock_of_this_machine(self, tmp_path: Path, memory: Callable[[], str]) -> None:
        """Files and memory have no other, and nothing is written."""
        for values in (ValueFsspec(str(tmp_path / "x")), ValueFsspec(memory())):
            assert abs(values.now() - time.time()) < 5
            assert keys(values) == []
        assert not (tmp_path / "x").exists()

    def test_ages(self) -> None:
        """Filesystems give it in their own ways; one that does not has young entries."""
        then = datetime(2024, 5, 1, tzinfo=timezone.utc)
        seconds = then.timestamp()
        for value in (then, seconds, then.replace(tzinfo=None), "2024-05-01T00:00:00Z"):
            assert modified_of({"mtime": value}) == seconds
        assert modified_of({"LastModified": then, "created": 0}) == seconds
        assert abs(modified_of({"mtime": "yesterday"}) - time.time()) < 5

    def test_no_touch_and_no_replacing_rename(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where neither is to be had, entries are written again, and renamed in two steps."""
        local = type(fsspec.filesystem("file"))

        def move(self: Any, source: str, target: str, **_: Any) -> None:
            if Path(target).exists():
                raise FileExistsError(target)
            Path(source).rename(target)

        def no_touch(self: Any, path: str, truncate: bool = True, **_: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(local, "local_file", False)
        monkeypatch.setattr(local, "mv", move)
        monkeypatch.setattr(local, "touch", no_touch)
        values, calls = ValueFsspec(str(tmp_path)), CallFsspec(str(tmp_path))
        for _ in range(2):
            put(values, KEY, parcel())
            put(calls, KEY, an_entry())
        os.utime(tmp_path / KEY[:2] / f"{KEY[2:]}.value", (1, 1))
        os.utime(tmp_path / KEY[:2] / f"{KEY[2:]}.call", (1, 1))
        for held in (values, calls):
            assert touch(held, KEY)
            assert entry(held, KEY).modified > 1
            assert not touch(held, OTHER)

    def test_an_entry_that_vanishes_during_a_listing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some filesystems then say that the directory is not there, and it is listed again."""
        calls = CallFsspec(str(tmp_path / "x"))
        assert keys(calls) == []
        calls.put_many({KEY: an_entry(), OTHER: an_entry()}.items())
        local = type(fsspec.filesystem("file"))
        real, failures = local.ls, ["one", "two", "three"]

        def ls(self: Any, path: str, *args: Any, **options: Any) -> Any:
            if failures:
                raise FileNotFoundError(errno.ENOENT, "No such file", failures.pop())
            return real(self, path, *args, **options)

        monkeypatch.setattr(local, "ls", ls)
        assert sorted(keys(calls)) == sorted([KEY, OTHER])
        assert list(calls.entries(digest("elsewhere"))) == []

    def test_a_rename_never_is_a_copy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On files an entry appears at once, whatever this fsspec takes for moving."""
        monkeypatch.setattr(type(fsspec.filesystem("file")), "mv", None)
        calls = CallFsspec(str(tmp_path))
        for x in range(2):
            put(calls, KEY, an_entry(x=x))
        assert get(calls, KEY) == an_entry(x=1)

    def test_chained_urls(self, tmp_path: Path) -> None:
        """A filesystem over another is used as any other."""
        values = ValueFsspec(f"dir::file://{tmp_path}")
        put(values, KEY, parcel())
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert keys(values) == [KEY]
        assert list(tmp_path.rglob(f"{KEY[2:]}.value"))

    def test_directories_may_go(self, tmp_path: Path) -> None:
        """Where another process has removed a directory, it is made again, and nothing is lost."""
        import shutil

        values = ValueFsspec(str(tmp_path / "x"))
        put(values, KEY, parcel())
        shutil.rmtree(tmp_path / "x")
        put(values, KEY, parcel())
        assert has(values, KEY)

    def test_listings_that_are_remembered(self, tmp_path: Path) -> None:
        """What others have stored or accepted since is seen, however often one has looked."""
        from fsspec.implementations.local import LocalFileSystem

        class Remembering(LocalFileSystem):
            @classmethod
            def _strip_protocol(cls, path: Any) -> Any:
                return super()._strip_protocol(path.removeprefix("remembering://"))

            def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
                known = self.dircache
                if (path, detail) not in known:
                    known[path, detail] = super().ls(path, detail=detail, **options)
                return known[path, detail]

            def invalidate_cache(self, path: str | None = None) -> None:
                for place in [each for each in self.dircache if path in (None, each[0])]:
                    del self.dircache[place]

        fsspec.register_implementation("remembering", Remembering, clobber=True)
        looking, other = (CallFsspec(f"remembering://{tmp_path}") for _ in range(2))
        for number in range(2):
            put(other, digest(number), an_entry())
            other.note_accepted([Acceptance(now={"f": str(number)}, then={"f": "x"})])
            assert len(keys(looking)) == number + 1
            assert len(list(looking.accepted())) == number + 1
