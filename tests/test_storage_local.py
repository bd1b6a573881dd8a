"""The embedded store: its layout, its two halves, and what it costs."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleche.caches import Local
from fleche.call import Call, QueryCall
from fleche.config import cache_from_config, load_cache_config
from fleche.digest import Address, digest
from fleche.errors import ConfigError, StorageError
from fleche.parcel import Parcel
from fleche.storage import BufferRefs, CallFile, CallStorage, ValueFile, ValueStorage
from fleche.storage.local import CallLocal, ValueLocal, _layout, layout_of, local_storages
from fleche.storage.sql import _sqlite
from fleche.testing.corpus import Block, an_entry
from tests.helpers.storing import delete, entry, get, has, keys, put, take_older, touch

KEY = digest("key")
OTHER = digest("other")
LARGE = {"large": "x" * 100_000}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def values(root: Path) -> Iterator[ValueLocal]:
    found = ValueLocal(root)
    yield found
    found.close()


def pack(storage: ValueStorage, value: Any) -> tuple[Address, Parcel]:
    """A value's address and its parcel."""
    parcel = storage.packing.pack(value, digest(value))
    return Address.of(digest(value), parcel.variant), parcel


def store(storage: ValueStorage, value: Any) -> Address:
    address, parcel = pack(storage, value)
    put(storage, address, parcel)
    return address


def files_of(root: Path) -> set[str]:
    """The files of values."""
    return {path.name for path in root.glob("values/*/*")}


class TestLayout:
    def test_the_reserve_is_made_good(self, root: Path) -> None:
        """What others took of it while the disk was full is kept back when there is room again."""
        sizes = []
        for number in range(2):
            values, calls = local_storages(root)
            put(calls, digest(number), an_entry("f", x=number))
            values.close()
            sizes.append((root / "fleche.db-reserve").stat().st_size)
            os.truncate(root / "fleche.db-reserve", 0)
        assert sizes[0] == sizes[1] > 0

    def test_a_cache_that_cannot_be_made(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However often it is tried on a full disk, nothing is left."""

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(3):
                with pytest.raises(StorageError, match="the disk is full"):
                    put(local_storages(root)[1], KEY, an_entry())
        assert not list(root.glob("*.tmp"))

    def test_what_is_there(self, root: Path) -> None:
        """One database, one line that names the format, and a file for each large value."""
        values, calls = local_storages(root)
        put(calls, KEY, an_entry("f", result=[1, 2], x=3))
        address = store(values, LARGE)
        values.close()
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        file = f"values/{address[:2]}/{address[2:]}.value"
        assert found == {"layout", "fleche.db", "fleche.db-reserve", file}
        assert (root / "layout").read_text() == "fleche sqlite 1\n"

    def test_a_small_call_is_one_transaction_and_one_statement(self, root: Path) -> None:
        """A statement by itself is one; and no file is written."""
        values, calls = local_storages(root)
        put(calls, OTHER, an_entry())
        seen: list[str] = []
        database = calls._database  # type: ignore[attr-defined]
        idle, connection = database.take()
        connection._connection.set_trace_callback(seen.append)
        database.give_back(idle, connection)
        put(calls, KEY, an_entry("f", result=[1, 2], x=3))
        values.put_many([])
        assert [text.split()[0] for text in seen] == ["INSERT"]
        seen.clear()
        assert get(calls, KEY) == an_entry("f", result=[1, 2], x=3)
        assert [text[:6] for text in seen] == ["SELECT"]
        assert files_of(root) == set()
        calls.close()

    @pytest.mark.parametrize("durable", [False, True])
    def test_what_waits_for_the_disk(self, root: Path, durable: bool) -> None:
        """A durable store at each save; another before it begins its log anew. So on a Mac."""
        _, calls = local_storages(root, durable=durable)
        put(calls, KEY, an_entry())
        database = calls._database  # type: ignore[attr-defined]
        asked = ("synchronous", "fullfsync", "checkpoint_fullfsync")
        found = [database.fetch(f"PRAGMA {name}") for name in asked]
        assert found == [[(2 if durable else 1,)], [(int(durable),)], [(1,)]]

    def test_a_look_makes_nothing(self, root: Path) -> None:
        """Where there is no store, a look finds nothing and leaves nothing."""
        values, calls = local_storages(root)
        assert not has(calls, KEY)
        assert not has(values, KEY)
        assert keys(calls) == keys(values) == []
        assert touch(values, KEY) is touch(calls, KEY) is False
        delete(values, KEY)
        assert not take_older(values, KEY, 1e12)
        assert not root.exists()

    @pytest.mark.parametrize("line", ["fleche sqlite 2\n", "fleche rocks 1\n", "fleche files 7\n"])
    def test_a_newer_one_is_refused(self, root: Path, line: str) -> None:
        """Its name and version are said, and nothing is touched."""
        root.mkdir()
        (root / "layout").write_text(line)
        for make in (local_storages, CallLocal, ValueLocal):
            with pytest.raises(StorageError, match="made by a newer fleche") as caught:
                make(root)
            assert str(root) in str(caught.value)
            assert "upgrade" in str(caught.value)
        assert [path.name for path in root.iterdir()] == ["layout"]

    @pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"hello world\n", b"fleche sqlite\n"])
    def test_a_damaged_one_is_said(self, root: Path, data: bytes) -> None:
        root.mkdir()
        (root / "layout").write_bytes(data)
        with pytest.raises(StorageError, match="is no layout of fleche"):
            local_storages(root)

    def test_a_lost_one(self, root: Path) -> None:
        """A store without it is known by its database."""
        put(CallLocal(root), KEY, an_entry())
        (root / "layout").unlink()
        assert layout_of(root) == "sqlite"
        assert has(CallLocal(root), KEY)

    def test_two_who_begin(self, root: Path) -> None:
        """Of two machines that choose differently, the second one is told."""
        calls = CallLocal(root)
        _layout.write_layout(root, "files")
        with pytest.raises(StorageError, match="another machine has just made a cache of format"):
            put(calls, KEY, an_entry())
        assert layout_of(root) == "files"

    def test_describes_itself(self, root: Path) -> None:
        """Its parts are those of a table; relative places and ``~`` are made absolute."""
        options = {"compress": "zlib", "secret_key": "a", "durable": True, "mmap": True}
        for made in local_storages(root, **options):
            assert made.to_config() == {"type": "local", "root": str(root), **options}
            assert "'a'" not in repr(made)


class TestNetwork:
    """A network file system has no memory that its machines share."""

    @pytest.fixture
    def far(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
        """Say whether the directory is seen through a network."""

        def is_far(answer: bool) -> None:
            for module in (_layout, _sqlite):
                monkeypatch.setattr(module, "is_local", lambda _: not answer)

        return is_far

    def test_files_are_made(self, root: Path, far: Callable[[bool], None]) -> None:
        """Decided once, written down, and so for every machine, the one with the disk included."""
        far(True)
        values, calls = local_storages(root)
        assert isinstance(values, ValueFile)
        assert isinstance(calls, CallFile)
        assert (root / "layout").read_text() == "fleche files 1\n"
        put(calls, KEY, an_entry())
        far(False)
        again = local_storages(root)
        assert isinstance(again[1], CallFile)
        assert has(again[1], KEY)
        with pytest.raises(StorageError, match="is made of files"):
            CallLocal(root)

    def test_a_database_is_refused(self, root: Path, far: Callable[[bool], None]) -> None:
        """It is not opened, and the machine that has the disk is proposed."""
        put(CallLocal(root), KEY, an_entry())
        far(True)
        for make in (local_storages, CallLocal):
            with pytest.raises(StorageError, match='through type = "ssh"'):
                make(root)


class TestWithoutHardLinks:
    """FAT knows none, nor do many network file systems; each system has its own error for it."""

    @pytest.mark.parametrize("is_far", [False, True])
    @pytest.mark.parametrize("error", ["EPERM", "ENOTSUP", "ENOSYS"])
    def test_a_cache_is_made_all_the_same(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, error: str, is_far: bool
    ) -> None:
        """And its counters have a name that stays."""

        def no_links(*_: object) -> None:
            raise OSError(getattr(errno, error), "no links here")

        monkeypatch.setattr(os, "link", no_links)
        monkeypatch.setattr(_layout, "is_local", lambda _: not is_far)
        _, calls = local_storages(root)
        put(calls, KEY, an_entry())
        assert has(local_storages(root)[1], KEY)
        assert calls.usage_name() == local_storages(root)[1].usage_name()
        assert not list(root.rglob("*.tmp"))
        assert len(list(root.glob("usage/*"))) == is_far


class TestValues:
    def test_sizes_ages_and_references_are_in_the_database(self, root: Path) -> None:
        """Nothing of that asks the file system."""
        values = ValueLocal(root)
        packed = values.packing.pack_parts(Block(bytes(range(256)) * 8192), KEY)
        ((name, buffer),) = packed.buffers.items()
        main = Address.of(KEY, packed.main.variant)
        parcel = values.packing.pack_buffer(buffer, name)
        size = parcel.nbytes
        values.put_many([(name, parcel), (main, packed.main)])
        for path in root.glob("values/*/*"):
            path.unlink()
        found = {each.key: each for each in values.entries()}
        assert set(found) == {str(name), str(main)}
        assert found[str(name)].size == size
        assert abs(found[str(main)].modified - time.time()) < 60
        assert dict(values.buffer_refs([main, name])) == {
            main: BufferRefs(references=(Address.of(name),)),
            name: BufferRefs(is_buffer=True),
        }
        values.close()

    def test_a_file_that_is_gone(self, values: ValueLocal, root: Path) -> None:
        """It is not there, whatever the database says, and can be stored again."""
        address = store(values, LARGE)
        next(root.glob("values/*/*")).unlink()
        assert not has(values, address)
        assert list(values.get_many([address])) == []
        assert not touch(values, address)
        store(values, LARGE)
        assert has(values, address)

    def test_a_file_that_the_database_does_not_know(self, values: ValueLocal, root: Path) -> None:
        """A writer that relies on it makes it known."""
        address, parcel = pack(values, LARGE)
        store(values, 1)
        put(ValueFile(root / "values"), address, parcel)
        assert address not in keys(values)
        assert has(values, address)
        assert touch(values, address)
        assert address in keys(values)

    def test_files_beside_an_older_database(self, root: Path) -> None:
        """A backup is the database, and the values after it: what it lacks is collected."""

        def save(cache: Local, number: int) -> str:
            array = np.full(200_000, number, float)
            return cache.save(Call(name="f", arguments={"x": [LARGE, number]}, result=[array]))

        with Local(root) as cache:
            kept = save(cache, 1)
        backup = (root / "fleche.db").read_bytes()
        with Local(root) as cache:
            save(cache, 2)
        (root / "fleche.db").write_bytes(backup)
        here = files_of(root)
        with Local(root) as cache:
            assert cache.gc(dry_run=True).kept == 2, "which writes nothing, not even what is there"
            assert cache.gc().young > 0
            assert files_of(root) == here
            found = cache.gc(grace=-1)
            assert (found.removed, found.kept) == (2, 2)
            assert len(files_of(root)) == 2
            assert cache.load(kept).result[0][0] == 1
            assert cache.verify().ok

    def test_what_a_killed_writer_leaves_is_collected(self, values: ValueLocal, root: Path) -> None:
        """It is known by its row, whatever there is of the file."""
        address, parcel = pack(values, LARGE)
        command = [sys.executable, "-c", KILLED, str(root), address]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not has(values, address)
        assert [each.key for each in values.entries()] == [address]
        assert len(files_of(root)) == 1  # a part of it
        os.utime(next(root.glob("values/*/*")), (1, 1))
        assert values.delete_older({address: time.time() - 3600}) == set()
        assert values.delete_older({address: time.time() + 60}) == {address}
        assert keys(values) == []
        assert files_of(root) == set()
        put(values, address, parcel)
        assert has(values, address)

    def test_a_file_is_written_after_its_row(self, values: ValueLocal, root: Path) -> None:
        """On a slow disk a while after it; the row tells how old it is."""
        address = store(values, LARGE)
        (row,) = values.entries()
        (path,) = root.glob("values/*/*")
        os.utime(path, (row.modified + 0.9, row.modified + 0.9))
        assert values.delete_older({address: row.modified - 0.01}) == set()
        assert values.delete_older({address: row.modified}) == {address}
        assert files_of(root) == set()

    def test_a_collector_between_row_and_file(self, values: ValueLocal, root: Path) -> None:
        """A value that is being written is too new for it, however old the one that it replaces."""
        address = store(values, LARGE)
        began = time.time()
        time.sleep(0.01)
        files, taken = values._files, []
        real = files.put_many

        def put_many(items: Any) -> None:
            real(items)
            taken.append(ValueLocal(root).delete_older({address: began}))

        files.put_many = put_many  # type: ignore[method-assign]
        store(values, LARGE)
        assert taken == [set()]
        assert has(values, address)

    def test_evicted_while_it_is_written(self, values: ValueLocal, root: Path) -> None:
        """Row and file agree, whichever writer came last."""
        address, files = store(values, LARGE), values._files
        real = files.put_many

        def put_many(items: Any) -> None:
            delete(ValueLocal(root), address)
            real(items)

        files.put_many = put_many  # type: ignore[method-assign]
        store(values, LARGE)
        assert has(values, address)
        assert keys(values) == [address]

    def test_what_is_written_slowly(self, values: ValueLocal) -> None:
        """Its age begins when it is complete."""
        real = values._files.put_many

        def put_many(items: Any) -> None:
            time.sleep(1.2)
            real(items)

        values._files.put_many = put_many  # type: ignore[method-assign]
        began = time.time()
        address = store(values, LARGE)
        assert entry(values, address).modified >= began + 1.2

    def test_a_failed_write_leaves_no_row(self, values: ValueLocal) -> None:
        address, parcel = pack(values, LARGE)

        def fail(items: Any) -> None:
            raise StorageError("the disk is full")

        values._files.put_many = fail  # type: ignore[method-assign]
        with pytest.raises(StorageError, match="the disk is full"):
            put(values, address, parcel)
        assert keys(values) == []

    def test_many_pages(self, values: ValueLocal, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are, each comes once, by its beginning too."""
        monkeypatch.setattr("fleche.storage.local._storage._PAGE", 3)
        stored = sorted(str(store(values, [number])) for number in range(20))
        assert [each.key for each in values.entries()] == stored
        for address in stored:
            assert [each.key for each in values.entries(address)] == [address]
            assert address in [each.key for each in values.entries(address[:2])]
        assert list(values.entries("g")) == []


KILLED = """
import os, signal, sys
from fleche.digest import digest
from fleche.storage.file import _files
from fleche.storage.local import ValueLocal
values = ValueLocal(sys.argv[1])
real = os.replace
def replace(*paths):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
value = {"large": "x" * 100_000}
values.put_many([(sys.argv[2], values.packing.pack(value, digest(value)))])
"""


KILL_LOOP = """
import sys
from fleche.caches import Local
from fleche.call import Call, QueryCall
from fleche.config import cache_from_config, load_cache_config
from fleche.digest import Address, digest
from fleche.storage.local import local_storages
from fleche.testing.corpus import an_entry
values, calls = local_storages(sys.argv[1])
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    value = {"large": "x" * 50_000, "number": number}
    parcel = values.packing.pack(value, digest(value))
    address = Address.of(digest(value), parcel.variant)
    values.put_many([(address, parcel)])
    calls.put_many([(digest(number), an_entry("f", x=number))])
    print(number, address, flush=True)
    if number % 3 == 0:
        values.delete_many([address])
        calls.delete_many([digest(number)])
        print(-number, address, flush=True)
    number += 1
"""


@pytest.mark.parametrize(
    "times",
    [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_killed_writers(root: Path, times: int) -> None:
    """After kill -9 at any moment, what was said to be stored is there, whole, and listed."""
    chance = random.Random(times)
    values, calls = local_storages(root)
    expected: dict[int, str] = {}
    for turn in range(times):
        command = [sys.executable, "-c", KILL_LOOP, str(root), str(turn * 1000 + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.02, 0.3))
            process.kill()
            lines = [line.split() for line in process.stdout if line.count(" ") == 1]
        for number, address in lines[:-1]:
            if int(number) > 0:
                expected[int(number)] = address
            else:
                expected.pop(-int(number), None)
        stay = {number: address for number, address in expected.items() if number % 3}
        assert values.contains_many(stay.values()) == set(stay.values())
        found = dict(calls.get_many([digest(number) for number in stay]))
        assert {key: an_entry("f", x=n) for n in stay for key in [digest(n)]} == found
        listed = set(keys(values))
        assert set(stay.values()) <= listed
        for _, parcel in values.get_many(listed):
            assert isinstance(parcel, Parcel)
            parcel.close()
    assert expected
    values.close()


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A file system of its own; skips where this process may not mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "none", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("no permission to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no byte free."""
    with (
        (place / "junk").open("ab", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            file.write(bytes(4096))


class TestFullDisk:
    @pytest.mark.parametrize("is_open", [True, False])
    def test_it_can_be_tidied_up(self, tmp_path: Path, is_open: bool) -> None:
        """Reading, evicting and collecting work; then there is room for new calls."""
        place = tmp_path / "disk"
        with mounted(place, "-o", "size=16m"):
            values, calls = local_storages(place / "store")
            addresses = [store(values, {"large": "x" * 100_000, "n": n}) for n in range(20)]
            wanted = []
            with pytest.raises(StorageError, match="disk is full"):
                for number in range(100_000):
                    put(calls, digest(number), an_entry("f", x=number, y="y" * 4000))
                    wanted.append(digest(number))
            if not is_open:
                values.close()
            fill(place)
            assert calls.contains_many(wanted) == set(wanted)
            assert get(calls, wanted[0]).record.name == "f"
            calls.delete_many(wanted[:10])
            assert calls.delete_older(dict.fromkeys(wanted[10:900], 1e12)) == set(wanted[10:900])
            assert calls.contains_many(wanted) == set(wanted[900:])
            assert values.delete_older(dict.fromkeys(addresses, 1e12)) == set(addresses)
            put(calls, KEY, an_entry())
            store(values, LARGE)
            values.close()
            with closing(sqlite3.connect(place / "store" / "fleche.db")) as raw:
                assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_a_log_that_is_brought_in_makes_room(self, tmp_path: Path) -> None:
        """A call that fits once the log is in the file is stored, and is no error."""
        place = tmp_path / "disk"
        with mounted(place, "-o", "size=20m"):
            values, calls = local_storages(place / "store")
            for number in range(200):
                put(calls, digest(number), an_entry("f", x=number, y="y" * 4000))
            log = place / "store" / "fleche.db-wal"
            assert log.stat().st_size > 3 << 20
            fill(place)
            put(calls, KEY, an_entry("of another function", y="y" * 4000))
            assert log.stat().st_size < 1 << 20
            found = calls.query(QueryCall(name="of another function"))
            assert [key for key, _ in found] == [KEY]
            values.close()

    def test_a_query_leaves_the_reserve_alone(self, tmp_path: Path) -> None:
        """What it would write to be quicker the next time is not worth that, nor a wait."""
        place = tmp_path / "disk"
        with mounted(place, "-o", "size=20m"):
            values, calls = local_storages(place / "store")
            for number in range(1000):
                put(calls, digest(number), an_entry("f", x=number))
            with closing(sqlite3.connect(place / "store" / "fleche.db")) as raw:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            fill(place)
            reserve = place / "store" / "fleche.db-reserve"
            before = reserve.stat().st_ino
            assert len(list(calls.query(QueryCall(name="f")))) == 1000
            assert reserve.stat().st_ino == before
            values.close()

    def test_values_alone(self, tmp_path: Path) -> None:
        """Where large values have filled the disk, removing them makes room."""
        place = tmp_path / "disk"
        with mounted(place, "-o", "size=8m"):
            values, calls = local_storages(place / "store")
            addresses = []
            with pytest.raises(StorageError, match="full"):
                addresses.extend(
                    store(values, {"large": "x" * 300_000, "n": number}) for number in range(1000)
                )
            fill(place)
            assert set(keys(values)) == set(addresses)
            values.delete_many(addresses)
            assert keys(values) == []
            put(calls, KEY, an_entry())
            values.close()


class TestReadOnly:
    def test_a_mount_that_may_only_be_read(self, tmp_path: Path) -> None:
        """It opens, as it is; saving says why not."""
        place = tmp_path / "disk"
        with mounted(place):
            values, calls = local_storages(place / "store")
            put(calls, KEY, an_entry("f", x=1))
            address = store(values, LARGE)
            values.close()
            command = ["mount", "-o", "remount,ro", str(place)]
            subprocess.run(command, check=True)
            values, calls = local_storages(place / "store")
            assert get(calls, KEY) == an_entry("f", x=1)
            assert keys(calls) == [KEY]
            assert keys(values) == [address]
            assert touch(calls, KEY)
            assert touch(values, address)
            ((_, parcel),) = values.get_many([address])
            assert values.packing.unpack(parcel, digest(LARGE)) == LARGE
            with pytest.raises(StorageError, match="read_only = true"):
                put(calls, OTHER, an_entry())
            with pytest.raises(StorageError, match="read_only = true"):
                store(values, 1)
            values.close()


def test_both_halves_share_a_database(root: Path) -> None:
    """They wait for each other in this process, and are closed together."""
    values, calls = local_storages(root)
    assert values._database is calls._database  # type: ignore[attr-defined]
    put(calls, KEY, an_entry())
    store(values, LARGE)
    calls.close()
    assert not list(root.glob("*-wal"))
    assert entry(calls, KEY).size > 0
    values.close()


class TestRemoved:
    """The whole directory is removed while it is in use."""

    def test_what_is_stored_afterwards_is_there(self, root: Path) -> None:
        """In a new store: nothing is written to files that have no name any more."""
        values, calls = local_storages(root)
        put(calls, KEY, an_entry("f", x=1))
        store(values, LARGE)
        shutil.rmtree(root)
        put(calls, OTHER, an_entry("g", x=2))
        address = store(values, LARGE)
        fresh = local_storages(root)
        assert keys(fresh[1]) == [OTHER]
        assert keys(fresh[0]) == [address]
        assert [key for key, _ in fresh[1].query(QueryCall.of(name="g"))] == [OTHER]
        assert keys(calls) == [OTHER]
        for each in (values, calls, *fresh):
            each.close()

    def test_and_another_process_makes_it_anew(self, root: Path) -> None:
        _, calls = local_storages(root)
        put(calls, KEY, an_entry("f", x=1))
        shutil.rmtree(root)
        other = CallLocal(root)
        put(other, digest("first"), an_entry("g", x=1))
        put(calls, OTHER, an_entry("f", x=2))
        found = [key for key, _ in other.query(QueryCall.of(name="f"))]
        assert found == [OTHER]
        other.close()
        calls.close()


class TestWholeCache:
    def test_a_call_comes_back(self, root: Path) -> None:
        """Small and large results, in one directory."""
        with Local(root) as cache:
            for number in (1, 20_000):
                call = Call(name="f", arguments={"n": number}, result=list(range(number)))
                key = cache.save(call)
                assert cache.load(key).result == list(range(number))
            assert len(files_of(root)) == 1

    def test_values_whose_files_are_gone(self, root: Path) -> None:
        """No call that needs one is answered, or passes for whole, whatever the database says."""
        with Local(root) as cache:
            array = np.arange(300_000.0)
            key = cache.save(Call("f", {"n": 1}, result=array))
            other = cache.save(Call("f", {"n": array}, result=1))
            shutil.rmtree(root / "values")
            assert not cache.contains(key)
            report = cache.verify()
            assert (report.ok, report.values) == (False, 0)
            assert (report.dangling, report.incomplete) == ((key,), (other,))
            assert cache.verify(repair=True).removed == 1
            assert [each.key for each in cache.query()] == [other]
            key = cache.save(Call("f", {"n": 1}, result=array))
            assert np.array_equal(cache.load(key).result, array)
            assert cache.verify().ok

    def test_a_form_whose_file_is_gone(self, root: Path) -> None:
        """A value that is asked for in any form comes in one that is there."""
        with Local(root) as cache:
            array = np.arange(10_000.0).reshape(100, 100)
            for form in (array, np.asfortranarray(array)):
                cache.save_value(form)
            oldest, other = cache.values.forms(digest(array))
            next(root.glob(f"values/*/{oldest.key[2:]}*")).unlink()
            assert [each.key for each in cache.values.forms(digest(array))] == [other.key]
            assert np.array_equal(cache.load_value(digest(array)), array)

    def test_describes_itself(self, root: Path) -> None:
        """As one table, and so it travels to another process."""
        cache = Local(root, compress="zlib")
        assert cache.to_config() == {"type": "local", "root": str(root), "compress": "zlib"}
        again = pickle.loads(pickle.dumps(cache))
        assert isinstance(again, Local)
        assert again.to_config() == cache.to_config()
        assert str(root) in repr(cache)

    def test_in_the_configuration(self, tmp_path: Path) -> None:
        """One table: relative to its file, and with limits and such as for any other cache."""
        file = tmp_path / "fleche.toml"
        file.write_text('[results]\ntype = "local"\nroot = "sub"\ndurable = true\nmax_size = 3\n')
        with load_cache_config("results", start=tmp_path) as cache:
            table = {"type": "local", "root": str(tmp_path / "sub"), "durable": True, "max_size": 3}
            assert cache.to_config() == table
            for number in range(6):
                cache.save(Call(name="f", arguments={"n": number}, result=number))
            assert cache.query().count() <= 3
            with cache_from_config(table) as again:
                assert again.to_config() == table
        with pytest.raises(ConfigError, match="roof: unknown key, did you mean 'root'"):
            cache_from_config({"type": "local", "roof": "x"})

    def test_what_it_cannot_be(self, root: Path) -> None:
        with pytest.raises(TypeError, match="colour"):
            Local(root, colour="red")


def test_two_objects_of_one_store(root: Path) -> None:
    """What one has stored, the other finds, in whatever order they are opened."""
    first: tuple[ValueStorage, CallStorage] = local_storages(root)
    second: tuple[ValueStorage, CallStorage] = local_storages(root)
    assert not has(second[1], KEY)
    put(first[1], KEY, an_entry())
    address = store(first[0], LARGE)
    assert has(second[1], KEY)
    assert has(second[0], address)
    for each in (*first, *second):
        each.close()
