"""Storages in a directory: names, atomic writes, damage, signatures, crashes, many writers."""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import mmap as mmap_module
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fleche.caches import Cache, Local
from fleche.call import QueryCall
from fleche.digest import Address, Digest, digest
from fleche.errors import ConfigError, CorruptParcel, SignatureError, StorageError
from fleche.parcel import Parcel, _source, pack, verify
from fleche.storage import BufferRefs, CallFile, ValueFile, storage_from_config
from fleche.storage.file import Files, _files
from fleche.testing.corpus import Block, an_entry
from tests.helpers.descriptors import own_descriptors, target_of
from tests.helpers.permissions import as_somebody
from tests.helpers.storing import delete, entry, get, has, keys, put, take_older, touch
from tests.helpers.syscalls import Syscalls

KEY = digest("key")
OTHER = digest("other")
FORM = Address.of(KEY, "0123456789abcdef" * 2)
Cls = Any


def parcel(value: Any = 1, key: Digest = KEY, **options: Any) -> Parcel:
    return pack(value, digest=key, **options)


def path_of(root: Path, key: str, kind: str = "value") -> Path:
    return root / key[:2] / f"{key[2:]}.{kind}"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def values(tmp_path: Path) -> ValueFile:
    return ValueFile(tmp_path / "root")


@pytest.fixture
def path(values: ValueFile) -> Path:
    """Where the values keep KEY."""
    return path_of(Path(values.to_config()["root"]), KEY)


class TestNames:
    def test_values_and_calls_share_a_root(self, tmp_path: Path) -> None:
        """Their files differ in the suffix, so that one directory may hold both."""
        values, calls = ValueFile(tmp_path), CallFile(tmp_path)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry())
        put(calls, OTHER, an_entry())
        put(values, FORM, parcel())
        for key, kind in ((KEY, "value"), (KEY, "call"), (FORM, "value"), (OTHER, "call")):
            assert path_of(tmp_path, key, kind).is_file()
        assert len(files(tmp_path)) == 4
        assert sorted(keys(values)) == [KEY, FORM]
        assert sorted(keys(calls)) == sorted([KEY, OTHER])
        delete(values, KEY)
        assert has(calls, KEY)
        assert keys(values) == [FORM]

    def test_names_are_lowercase(self, values: ValueFile, path: Path) -> None:
        """File systems that fold case keep all keys apart."""
        put(values, KEY, parcel())
        assert path.exists()
        assert str(path.name) == str(path.name).lower()

    def test_other_files_are_nobodys(self, values: ValueFile, path: Path) -> None:
        """Files and directories of other names are not listed and not touched."""
        put(values, KEY, parcel())
        root = path.parent.parent
        names = ("README", "ab.value", "g" * 62 + ".value", f"{KEY[2:]}.short.value", "x.tmp")
        for name in (*names, *(f"{KEY[:2]}/{name}" for name in names)):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("mine")
            age(root / name, 1e6)
        (root / "zz").mkdir()
        (root / "zz" / f"{KEY[2:]}.value").write_text("mine")
        before = files(root)
        assert keys(values) == [KEY]
        assert [entry.key for entry in values.entries()] == [KEY]
        assert values.sweep(0) == 0
        assert files(root) == before

    def test_a_short_key_is_a_miss(self, values: ValueFile) -> None:
        """No file has a short name, and asking for one is no way out of the directory."""
        put(values, KEY, parcel())
        for short in (KEY[:8], "", "..", "../" * 20 + "x" * 64, f"{KEY}.short", f"{FORM}0"):
            assert not has(values, short)
            delete(values, short)
            with pytest.raises(KeyError):
                get(values, short)
            assert not touch(values, short)
            assert not take_older(values, short, time.time() + 10)
            with pytest.raises(ValueError, match="no complete key"):
                put(values, short, parcel())
        assert list(values.entries("..")) == []
        assert keys(values) == [KEY]

    def test_nothing_is_made_before_it_is_needed(self, values: ValueFile, path: Path) -> None:
        """A storage that was only read from leaves no directory."""
        assert not has(values, KEY)
        assert list(values.entries()) == list(values.entries("ab")) == []
        assert values.sweep() == 0
        assert not path.parent.parent.exists()

    def test_only_the_shard_of_a_prefix_is_read(
        self, values: ValueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To find what a short digest stands for costs one directory, not 256."""
        for number in range(100):
            put(values, digest(number), parcel(number, digest(number)))
        seen = Syscalls(tmp_path, monkeypatch)
        assert [found.key for found in values.entries(digest(7)[:8])] == [digest(7)]
        assert seen.seen["scandir"] == 1


class TestWriting:
    def test_a_failure_leaves_no_trace(self, values: ValueFile, path: Path) -> None:
        """When a write breaks off, what was there is there, and no file more."""

        class Breaking(Exception):
            pass

        def chunks() -> Iterator[bytes]:
            yield b"x" * 100_000
            raise Breaking

        made = Files(str(path.parent.parent), ".value")
        with pytest.raises(Breaking):
            made.write(KEY, chunks())
        assert files(path.parent.parent) == []
        put(values, KEY, parcel())
        with pytest.raises(Breaking):
            made.write(KEY, chunks())
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert len(files(path.parent.parent)) == 1

    def test_an_interrupt_leaves_no_trace(self, path: Path) -> None:
        """Ctrl-C in the middle of a write is a failure like any other."""

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Files(str(path.parent.parent), ".value").write(KEY, chunks())
        assert files(path.parent.parent) == []

    def test_touching(self, values: ValueFile, path: Path) -> None:
        """A value that is there need not be written again: its file becomes young."""
        put(values, KEY, parcel())
        age(path, 1000)
        before = path.stat().st_ino
        assert touch(values, KEY)
        assert path.stat().st_ino == before
        assert abs(entry(values, KEY).modified - time.time()) < 10

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:20],
            lambda data: data[:-1],
            lambda data: data + b"x",
            lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
            lambda data: pack(2, digest=OTHER).tobytes(),
        ],
        ids=["empty", "prologue cut", "cut", "longer", "head altered", "another value"],
    )
    def test_a_damaged_file_is_replaced(
        self, values: ValueFile, path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        """Touching what is damaged says that it is not there, and then it is written anew."""
        put(values, KEY, parcel())
        path.write_bytes(damage(path.read_bytes()))
        assert not touch(values, KEY)
        put(values, KEY, parcel())
        assert values.packing.unpack(get(values, KEY), KEY) == 1

    def test_an_empty_file_is_not_there(self, values: ValueFile, path: Path) -> None:
        """An empty file is what a power failure leaves of a new one."""
        put(values, KEY, parcel())
        path.write_bytes(b"")
        assert not has(values, KEY)
        with pytest.raises(CorruptParcel, match="an empty file"):
            get(values, KEY)

    def test_a_large_value_is_not_collected_in_memory(self, values: ValueFile) -> None:
        """Writing and copying takes a chunk at a time."""
        import tracemalloc

        block = Block(bytes(40_000_000))
        large = parcel(block)
        tracemalloc.start()
        try:
            put(values, KEY, large)
            other = get(values, KEY)
            delete(values, KEY)
            put(values, KEY, other)
            other.close()
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has fallocate()")
    @pytest.mark.parametrize("kind", ["reserves", "cannot", "has no such function"])
    def test_space_is_reserved(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large file is announced to the file system, and is no longer than what is written."""
        asked: list[int] = []
        reserve = _files._fallocate()
        assert reserve is not None

        def noted(descriptor: int, mode: int, offset: int, nbytes: int) -> int:
            asked.append(nbytes)
            return reserve(descriptor, mode, offset, nbytes) if kind == "reserves" else -1

        found = None if kind == "has no such function" else noted
        monkeypatch.setattr(_files, "_fallocate", lambda: found)
        large = parcel(Block(bytes(300_000)))
        put(ValueFile(tmp_path), KEY, large)
        put(ValueFile(tmp_path), OTHER, parcel(1, OTHER))
        assert path_of(tmp_path, KEY).read_bytes() == large.tobytes()
        assert asked == ([] if found is None else [large.nbytes])

    def test_a_python_without_ctypes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It reserves nothing; what is large is stored all the same."""
        monkeypatch.setitem(sys.modules, "ctypes", None)
        assert _files._fallocate.__wrapped__() is None

    def test_durable_syncs_file_and_directories(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With ``durable`` the bytes are on the disk before the name, and the name after."""
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(Path(target_of(fd)).suffix)
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
        put(ValueFile(tmp_path), KEY, parcel())
        assert synced == []
        put(ValueFile(tmp_path / "d", durable=True), KEY, parcel())
        assert synced == ["", ".tmp", ""]

    @pytest.mark.parametrize("can", [True, False])
    def test_durable_on_a_mac(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
    ) -> None:
        """There fsync() does not wait for the disk, and some file systems know nothing better."""
        asked: list[object] = []

        def control(_: int, command: int) -> None:
            asked.append(command)
            if not can:
                raise OSError(errno.ENOTSUP, "not here")

        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", control)
        monkeypatch.setattr(os, "fsync", lambda _: asked.append("fsync"))
        put(ValueFile(tmp_path, durable=True), KEY, parcel())
        assert asked == ([51] * 3 if can else [51, "fsync"] * 3)

    def test_where_nothing_can_be_written(self, open_directory: Path) -> None:
        """There, touching only says whether there is an entry."""
        values, calls = ValueFile(open_directory), CallFile(open_directory)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry())
        for found in open_directory.rglob("*"):
            found.chmod(0o555 if found.is_dir() else 0o444)
        open_directory.chmod(0o555)
        with as_somebody():
            assert touch(values, KEY)
            assert touch(calls, KEY)
            assert not touch(values, OTHER)
            assert not touch(calls, OTHER)

    def test_the_file_of_a_colleague(self, open_directory: Path) -> None:
        """Where only its owner may set its age, a value that others rely on is written again."""
        values = ValueFile(open_directory)
        put(values, KEY, parcel())
        found = path_of(open_directory, KEY)
        age(found, 1000)
        found.chmod(0o644)
        for place in (found.parent, open_directory):
            place.chmod(0o777)
        with as_somebody():
            assert touch(values, KEY)
            assert abs(entry(values, KEY).modified - time.time()) < 100
            assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert len(files(open_directory)) == 1


class TestErrors:
    def test_a_read_only_directory_is_read(self, open_directory: Path) -> None:
        """Everything that reads works; everything that writes says what to do."""
        values, calls = ValueFile(open_directory), CallFile(open_directory)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry())
        shard = open_directory / KEY[:2]
        stale = shard / f"{KEY[2:]}.value.0123.tmp"
        stale.write_text("x")
        age(stale, 10_000)
        shard.chmod(0o555)
        open_directory.chmod(0o555)
        with as_somebody():
            assert values.packing.unpack(get(values, KEY), KEY) == 1
            assert get(calls, KEY) == an_entry()
            assert keys(values) == [KEY]
            assert len(list(calls.query(QueryCall()))) == 1
            assert values.sweep() == 0
            with pytest.raises(StorageError, match="read_only = true"):
                put(values, OTHER, parcel(1, OTHER))
            with pytest.raises(StorageError, match="read_only = true"):
                delete(values, KEY)
            with pytest.raises(StorageError, match="read_only = true"):
                take_older(calls, KEY, time.time() + 10)
        assert has(values, KEY)
        for found in (shard, open_directory):
            found.chmod(0o755)

    def test_a_directory_that_may_not_be_entered(self, open_directory: Path) -> None:
        """A missing permission is no miss."""
        values = ValueFile(open_directory / "root")
        put(values, KEY, parcel())
        (open_directory / "root").chmod(0)
        with as_somebody():
            for action in (get, has):
                with pytest.raises(StorageError, match="ermission"):
                    action(values, KEY)
            with pytest.raises(StorageError, match="cannot list"):
                keys(values)
        (open_directory / "root").chmod(0o755)

    def test_a_directory_that_may_be_listed_and_not_entered(self, open_directory: Path) -> None:
        """What is in it cannot be counted, and the message names it."""
        root = open_directory / "root"
        values = ValueFile(root)
        put(values, KEY, parcel())
        (root / KEY[:2]).chmod(0o444)
        denied = rf"{KEY[2:]}\.value: cannot read: Permission"
        with as_somebody(), pytest.raises(StorageError, match=denied):
            list(values.entries())
        (root / KEY[:2]).chmod(0o755)

    @pytest.mark.parametrize("mmap", [False, True])
    def test_a_disk_that_fails_later(
        self, tmp_path: Path, mmap: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large value is read when it is opened; what fails then is told as at any other time."""
        values = ValueFile(tmp_path, mmap=mmap)
        put(values, KEY, parcel(Block(bytes(1 << 20))))
        failure = OSError(errno.EIO, "Input/output error")

        class Failing(FileIO):
            def readinto(self, buffer: Any) -> int:
                if self.tell() or len(buffer) > 1 << 16:
                    raise failure
                return super().readinto(buffer)

        def fail(*_: Any, **__: Any) -> Any:
            raise failure

        monkeypatch.setattr(_source, "FileIO", Failing)
        monkeypatch.setattr(mmap_module, "mmap", fail)
        for use in (values.packing.unpack, Parcel.tobytes, partial(verify, digest=KEY)):
            with pytest.raises(StorageError, match=r"\.value: cannot read: .*see the system log"):
                use(get(values, KEY))

    def test_a_full_disk(self, tmp_path: Path, values: ValueFile, path: Path) -> None:
        """A full disk is named, and the half-written file is gone."""

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(StorageError) as caught:
            Files(str(path.parent.parent), ".value").write(KEY, chunks())
        assert str(caught.value) == (
            f"{path}: cannot write: No space left on device "
            "(the disk is full; free some space, or remove results (fleche evict, then fleche gc))"
        )
        assert files(path.parent.parent) == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_write_that_fails_in_earnest(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kernel's own refusal to write ends the same way."""
        real = os.open

        def full(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & os.O_CREAT:
                os.close(real(path, flags, *args, **options))
                return real("/dev/full", os.O_WRONLY)
            return real(path, flags, *args, **options)

        monkeypatch.setattr(os, "open", full)
        with pytest.raises(StorageError, match="the disk is full"):
            put(values, KEY, parcel(Block(bytes(200_000))))
        assert files(path.parent.parent) == []

    def test_a_root_that_is_a_file(self, tmp_path: Path) -> None:
        """A file where the directory should be is an error in words."""
        (tmp_path / "root").write_text("")
        values = ValueFile(tmp_path / "root")
        with pytest.raises(StorageError, match="a file stands where a directory is needed"):
            put(values, KEY, parcel())

    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    def test_damage_is_reported_with_its_path(self, cls: Cls, tmp_path: Path) -> None:
        """A damaged entry is neither a miss nor a value; the message names the file."""
        storage = cls(tmp_path)
        put(storage, KEY, parcel() if cls is ValueFile else an_entry())
        (found,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        found.write_bytes(found.read_bytes()[:-1])
        with pytest.raises(CorruptParcel) as caught:
            get(storage, KEY)
        assert str(found) in str(caught.value)

    def test_a_record_cannot_pass_for_another(self, tmp_path: Path) -> None:
        """A record whose file was moved to another key is refused, as a value's is."""
        calls = CallFile(tmp_path, secret_key="s")
        put(calls, KEY, an_entry("f"))
        put(calls, OTHER, an_entry("g"))
        target = path_of(tmp_path, OTHER, "call")
        path_of(tmp_path, KEY, "call").replace(target)
        with pytest.raises(CorruptParcel) as caught:
            get(calls, OTHER)
        assert str(caught.value) == f"{target}: call {OTHER[:12]}: altered bytes, or another call's"

    def test_an_entry_that_holds_no_record(self, tmp_path: Path) -> None:
        """Sound bytes that are no record are refused too, with the path."""
        calls = CallFile(tmp_path)
        entry = an_entry()
        put(calls, KEY, entry._replace(record=entry.record.replace(name=3)))
        with pytest.raises(CorruptParcel) as caught:
            get(calls, KEY)
        where = f"{path_of(tmp_path, KEY, 'call')}: call {KEY[:12]}: not a call record"
        assert str(caught.value).startswith(where)

    def test_a_query_skips_damage_with_one_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Damaged records do not end a query, and do not go unmentioned, however it reads them."""
        monkeypatch.setattr("fleche.storage._base._BATCH", 1)
        calls = CallFile(tmp_path)
        for number in range(5):
            put(calls, digest(number), an_entry(x=number))
        for number in range(2):
            key = digest(number)
            path_of(tmp_path, key, "call").write_bytes(b"damaged")
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert len(list(calls.query(QueryCall()))) == 3
        assert len(caplog.records) == 1
        assert "skips a record that is damaged" in caplog.text


def put_in_place(what: str, path: Path) -> None:
    """Put something where a file should be."""
    if what == "a named pipe":
        os.mkfifo(path)
    elif what == "a device":
        path.symlink_to("/dev/zero")
    elif what == "a socket":
        here = Path.cwd()
        os.chdir(path.parent)  # an address has room for little more than a name
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
        finally:
            os.chdir(here)
    elif what == "an empty file":
        path.touch()
    else:
        path.symlink_to(path.parent / "gone")


class TestWhatIsNoFile:
    """Something else in the place of a file is damage: it is called what it is, and replaced."""

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    @pytest.mark.parametrize("what", ["a named pipe", "a socket", "a device", "a link to nowhere"])
    def test_it_is_replaced(self, cls: Cls, what: str, open_directory: Path) -> None:
        """Nothing waits for it, and a new entry takes its place."""
        storage = cls(open_directory)
        item = parcel() if cls is ValueFile else an_entry()
        found = path_of(open_directory, KEY, "value" if cls is ValueFile else "call")
        found.parent.mkdir()
        put_in_place(what, found)
        assert not has(storage, KEY)
        with pytest.raises((CorruptParcel, StorageError)) as caught:
            get(storage, KEY)
        if what == "a link to nowhere":
            assert f"{found}: a link to {found.parent / 'gone'}, which does not exist" in str(
                caught.value
            )
        else:
            assert str(caught.value) == f"{found}: {what} stands where a file is needed; remove it"
        assert [known.key for known in storage.entries()] == [KEY]
        if cls is ValueFile:
            assert not touch(storage, KEY)
            assert dict(storage.buffer_refs([KEY])) == {KEY: BufferRefs()}
        put(storage, KEY, item)
        assert get(storage, KEY) is not None
        assert found.is_file()
        assert not found.is_symlink()

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    @pytest.mark.parametrize(
        "what", ["a named pipe", "a socket", "a device", "a link to nowhere", "an empty file"]
    )
    def test_it_is_removed(self, cls: Cls, what: str, open_directory: Path) -> None:
        """A check finds it, a repair removes it, and gc works again; what a link names stays."""
        suffix = "value" if cls is ValueFile else "call"
        found = path_of(open_directory, KEY, suffix)
        found.parent.mkdir()
        put_in_place(what, found)
        with Cache(ValueFile(open_directory), CallFile(open_directory)) as cache:
            assert cache.verify().corrupt == (KEY,)
            assert cache.verify(repair=True).removed == 1
            assert not os.path.lexists(found)
            assert cache.verify().ok
            cache.gc(grace=0)
        assert os.path.exists("/dev/zero")

    def test_a_link_to_a_file(self, values: ValueFile, path: Path, tmp_path: Path) -> None:
        """An entry that was moved to another disk is read through its link."""
        put(values, KEY, parcel())
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert has(values, KEY)
        assert touch(values, KEY)

    @pytest.mark.parametrize("level", ["root", "parent", "shard"])
    def test_a_directory_that_is_a_link_to_nowhere(self, tmp_path: Path, level: str) -> None:
        """Nothing can be written below it, and the message says where it leads."""
        link = {
            "root": tmp_path / "root",
            "parent": tmp_path / "parent",
            "shard": tmp_path / "root" / KEY[:2],
        }[level]
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "unmounted")
        values = ValueFile(tmp_path / "parent" / "root" if level == "parent" else tmp_path / "root")
        assert not has(values, KEY)
        with pytest.raises(StorageError) as caught:
            put(values, KEY, parcel())
        assert f"a link to {tmp_path / 'unmounted'}, which does not exist" in str(caught.value)
        (tmp_path / "unmounted").mkdir()
        put(values, KEY, parcel())
        assert has(values, KEY)


class TestPaths:
    """Paths are those that a shell would mean."""

    def test_variables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`$NAME` and `${NAME}` stand for what the environment says, in a configuration too."""
        monkeypatch.setenv("SCRATCH", str(tmp_path))
        for written in ("$SCRATCH/store", "${SCRATCH}/store"):
            storages: list[Any] = [
                ValueFile(written),
                CallFile(Path(written)),
                storage_from_config({"type": "cloudpickle", "root": written}, "values"),
            ]
            for storage in storages:
                assert storage.to_config()["root"] == str(tmp_path / "store")

    @pytest.mark.parametrize("kind", ["values", "calls"])
    def test_a_variable_that_is_not_set(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is refused by name: no directory called `$SCRATCH` is ever made."""
        monkeypatch.delenv("SCRATCH", raising=False)
        with pytest.raises(ConfigError, match=r"\$SCRATCH/store: the environment variable SCRATCH"):
            storage_from_config({"type": "cloudpickle", "root": "$SCRATCH/store"}, kind)
        assert not Path("$SCRATCH").exists()

    @pytest.mark.parametrize(
        "root", ["s3://bucket/results", "ssh://bigpc/results", "file:///tmp/x"]
    )
    def test_a_url(self, root: str) -> None:
        """It is refused, with what is meant instead: no directory called `s3:` is ever made."""
        for make in (ValueFile, CallFile, Local):
            with pytest.raises(ConfigError, match=r"a URL.* type = \"ssh\".*\"fsspec\""):
                make(root)
        assert ValueFile(f"./{root}").to_config()["root"] == str(Path(root).absolute())

    def test_a_home_directory_that_is_not_known(self) -> None:
        with pytest.raises(ConfigError, match="no such home directory"):
            ValueFile("~no-such-user/store")


class TestEconomy:
    """A small call is one write and one read."""

    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Syscalls:
        return Syscalls(tmp_path / "root", monkeypatch)

    def test_a_small_call(self, tmp_path: Path, calls: Syscalls) -> None:
        """Its record and its parcels are one file, which takes its name in one step."""
        storage = CallFile(tmp_path / "root")
        held = an_entry(x=[1, 2], y="z" * 3000, result={"a": 1})
        put(storage, OTHER, an_entry())
        put(storage, KEY, an_entry())  # the directories are there now
        calls.arm()
        put(storage, KEY, held)
        assert calls.seen == {"create": 1, "write": 1, "close": 1, "replace": 1}
        assert len(files(tmp_path / "root")) == 2
        calls.arm()
        assert get(storage, KEY) == held
        assert calls.seen == {"open": 1, "fstat": 1, "read": 1, "close": 1}
        calls.arm()
        with pytest.raises(KeyError):
            get(storage, digest("miss"))
        assert calls.seen == {"open": 1}

    def test_a_value(self, tmp_path: Path, calls: Syscalls) -> None:
        """So is a parcel of up to 256 KiB, however many buffers it has."""
        storage = ValueFile(tmp_path / "root")
        put(storage, KEY, parcel())
        item = parcel([Block(bytes(70_000)), Block(b"x" * 70_000)])
        calls.arm()
        put(storage, KEY, item)
        assert calls.seen == {"create": 1, "write": 1, "close": 1, "replace": 1}
        calls.arm()
        get(storage, KEY)
        assert calls.seen == {"open": 1, "fstat": 1, "read": 1, "close": 1}
        calls.arm()
        assert has(storage, KEY)
        assert calls.seen == {"stat": 1}

    @pytest.mark.parametrize("buffers", [2, 100])
    def test_a_part_at_a_time(
        self, buffers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A system that takes less than it is given, or fewer pieces, is given the rest."""
        writev = os.writev
        monkeypatch.setattr(os, "writev", lambda to, pieces: writev(to, [pieces[0][:7]]))
        item = parcel([Block(bytes([number]) * 5000) for number in range(buffers)])
        assert len(list(item.chunks())) > 1
        storage = ValueFile(tmp_path / "root")
        put(storage, KEY, item)
        assert path_of(tmp_path / "root", KEY).read_bytes() == item.tobytes()
        monkeypatch.undo()
        put(storage, KEY, item)
        assert path_of(tmp_path / "root", KEY).read_bytes() == item.tobytes()

    def test_a_query_opens_each_file_once(self, tmp_path: Path, calls: Syscalls) -> None:
        """It lists directories, and looks at no file without reading it."""
        storage = CallFile(tmp_path / "root")
        storage.put_many((digest(number), an_entry(x=number)) for number in range(20))
        calls.arm()
        assert len(list(storage.query(QueryCall()))) == 20
        assert (calls.seen["open"], calls.seen["read"], calls.seen["stat"]) == (20, 20, 0)
        calls.arm()
        assert len(list(storage.query(QueryCall(), keys_only=True))) == 20
        assert set(calls.seen) == {"scandir"}


class TestHolders:
    """Which entries hold which small values is known without reading all files each time."""

    @pytest.fixture
    def calls(self, tmp_path: Path) -> CallFile:
        calls = CallFile(tmp_path)
        calls.put_many((digest(number), an_entry(x=[number])) for number in range(50))
        return calls

    def held(self, storage: CallFile, value: Any) -> set[str]:
        return {key for at, key in storage.holders(digest(value)) if at.variant}

    def test_a_file_is_read_once(
        self, calls: CallFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Later looks read what is new, and where nothing has changed list nothing."""
        seen = Syscalls(tmp_path, monkeypatch)
        assert self.held(calls, [7]) == {digest(7)}
        assert seen.seen["read"] == 50
        seen.arm()
        put(calls, KEY, an_entry(x=[7]))
        seen.arm()
        assert self.held(calls, [7]) == {digest(7), KEY}
        assert seen.seen["read"] == 1
        later = time.monotonic() + 10
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert self.held(calls, [7]) == {digest(7), KEY}
        seen.arm()
        assert self.held(calls, [8]) == {digest(8)}
        assert set(seen.seen) == {"scandir", "stat"}
        assert seen.seen["scandir"] == 1

    def test_what_other_processes_do_is_seen(self, calls: CallFile, tmp_path: Path) -> None:
        """Entries that come, change and go by another hand are followed."""
        assert self.held(calls, [7]) == {digest(7)}
        other = CallFile(tmp_path)
        put(other, KEY, an_entry(x=[7]))
        assert self.held(calls, [7]) == {digest(7), KEY}
        put(other, digest(7), an_entry(x=[8]))
        assert self.held(calls, [7]) == {KEY}
        assert self.held(calls, [8]) == {digest(7), digest(8)}
        delete(other, KEY)
        assert self.held(calls, [7]) == set()
        assert take_older(other, digest(8), time.time() + 10)
        assert self.held(calls, [8]) == {digest(7)}

    def test_two_changes_in_one_tick(
        self, calls: CallFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A change that leaves the time of a directory as it was is seen all the same."""
        assert self.held(calls, [7]) == {digest(7)}
        shard = path_of(tmp_path, digest(7), "call").parent
        then = shard.stat()
        key = Digest(digest(7)[:2] + KEY[2:])
        put(CallFile(tmp_path), key, an_entry(x=[7]))
        os.utime(shard, ns=(then.st_atime_ns, then.st_mtime_ns))
        assert self.held(calls, [7]) == {digest(7), key}

    def test_damaged_entries_hold_nothing(self, calls: CallFile, tmp_path: Path) -> None:
        """And hide no other."""
        path_of(tmp_path, digest(7), "call").write_bytes(b"damaged")
        assert self.held(calls, [7]) == set()
        assert self.held(calls, [8]) == {digest(8)}

    def test_threads_and_forks(self, calls: CallFile) -> None:
        """Many look at once, and a child that was forked meanwhile looks too."""

        def look() -> None:
            for number in range(50):
                assert self.held(calls, [number]) == {digest(number)}

        threads = [threading.Thread(target=look) for _ in range(4)]
        for each in threads:
            each.start()
        child = os.fork()
        if not child:
            try:
                look()
            finally:
                os._exit(0 if self.held(calls, [1]) == {digest(1)} else 1)
        for each in threads:
            each.join()
        assert os.waitpid(child, 0)[1] == 0


class TestSecrets:
    def test_unsigned_values_are_refused(self, tmp_path: Path) -> None:
        """A storage with secrets neither takes nor gives what they did not sign."""
        plain, signed = ValueFile(tmp_path), ValueFile(tmp_path, secret_key="s")
        put(plain, KEY, parcel())
        with pytest.raises(SignatureError, match="not signed"):
            get(signed, KEY)
        with pytest.raises(SignatureError, match="not signed"):
            put(signed, OTHER, parcel(1, OTHER))
        assert not touch(signed, KEY)

    def test_a_signed_value_replaces_an_unsigned_one(self, tmp_path: Path) -> None:
        """An entry that would be refused is as good as none."""
        plain, signed = ValueFile(tmp_path), ValueFile(tmp_path, secret_key="s")
        put(plain, KEY, parcel())
        put(signed, KEY, signed.packing.pack(1, KEY))
        assert signed.packing.unpack(get(signed, KEY), KEY) == 1
        assert plain.packing.unpack(get(plain, KEY), KEY) == 1

    def test_secrets_rotate(self, tmp_path: Path) -> None:
        """The first signs, all are accepted: entries outlive the change of a secret."""
        old, new = CallFile(tmp_path, secret_key="old"), CallFile(tmp_path, secret_key="new")
        both = CallFile(tmp_path, secret_key=["new", "old"])
        put(old, KEY, an_entry())
        assert get(both, KEY) == an_entry()
        with pytest.raises(SignatureError, match="a key that is not configured here"):
            get(new, KEY)
        put(both, KEY, an_entry())
        assert get(new, KEY) == an_entry()

    def test_unsigned_records_are_refused(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """get() refuses them; a query passes them over with a warning."""
        plain, signed = CallFile(tmp_path), CallFile(tmp_path, secret_key="s")
        put(plain, KEY, an_entry())
        put(plain, OTHER, an_entry())
        with pytest.raises(SignatureError, match="not signed"):
            get(signed, KEY)
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert list(signed.query(QueryCall())) == []
        assert len(caplog.records) == 1
        assert "not signed" in caplog.text

    def test_the_environment_has_secrets_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``FLECHE_SECRET_KEY`` serves where the configuration names none."""
        monkeypatch.setenv("FLECHE_SECRET_KEY", "e")
        found = ValueFile(tmp_path)
        assert found.packing.keys == (b"e",)
        assert "secret_key" not in found.to_config()
        assert ValueFile(tmp_path, secret_key="c").packing.keys == (b"c",)

    def test_secrets_are_not_shown(self, tmp_path: Path) -> None:
        """The repr, which ends up in logs, holds no secret; the configuration does."""
        found = ValueFile(tmp_path, secret_key="tell nobody")
        assert "tell nobody" not in repr(found) + repr(found.packing)
        assert found.to_config()["secret_key"] == "tell nobody"
        with pytest.raises(ValueError, match="empty secret"):
            ValueFile(tmp_path, secret_key=["a", ""])


class TestOpening:
    def test_a_mapped_value_is_copied_on_write(self, tmp_path: Path) -> None:
        """To change what a hit has returned changes nothing on the disk."""
        np = pytest.importorskip("numpy")
        values = ValueFile(tmp_path, mmap=True)
        array = np.arange(1_000_000)
        put(values, KEY, parcel(array))
        found = values.packing.unpack(get(values, KEY), KEY)
        found[:] = 0
        again = values.packing.unpack(get(values, KEY), KEY)
        assert (again == array).all()
        assert (found == 0).all()
        delete(values, KEY)
        assert again[-1] == 999_999

    def test_many_mapped_values(self, tmp_path: Path) -> None:
        """They leave half of its descriptors to the program: 128 of the 256 of a shell on macOS."""
        np = pytest.importorskip("numpy")
        values = ValueFile(tmp_path, mmap=True)
        put(values, KEY, parcel(np.arange(100_000)))
        code = """
            import os, resource, sys
            from fleche.storage import ValueFile
            resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
            values = ValueFile(sys.argv[1], mmap=True)
            held = []
            for _ in range(100):
                ((_, parcel),) = values.get_many([sys.argv[2]])
                held.append(values.packing.unpack(parcel, sys.argv[2]))
            own = [open(os.devnull) for _ in range(30)]
            assert all((each == held[0]).all() for each in held)
        """
        subprocess.run([sys.executable, "-c", dedent(code), tmp_path, KEY], check=True)

    @pytest.mark.parametrize("size", [10, 200_000, 300_000, 3_000_000])
    def test_values_are_writable(self, tmp_path: Path, size: int) -> None:
        """An array comes back as writable as it was, small or large."""
        np = pytest.importorskip("numpy")
        values = ValueFile(tmp_path)
        put(values, KEY, parcel(np.zeros(size, dtype="int8")))
        values.packing.unpack(get(values, KEY), KEY)[0] = 1

    def test_small_values_hold_no_descriptor(self, values: ValueFile) -> None:
        """Thousands of small parcels may be held at once."""
        put(values, KEY, parcel())
        gc.collect()  # what other tests have left open
        before = len(list(own_descriptors()))
        held = [get(values, KEY) for _ in range(50)]
        assert len(list(own_descriptors())) == before
        assert len(held) == 50

    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    def test_pickles_as_its_configuration(self, cls: Cls, tmp_path: Path) -> None:
        """Another process that receives the storage uses the same files."""
        storage = cls(tmp_path, "pickle", secret_key=["a", "b"], mmap=True)
        again = pickle.loads(pickle.dumps(storage))
        assert type(again) is cls
        assert again.to_config() == storage.to_config()
        assert again.to_config()["mmap"] is True


def test_a_directory_of_a_group_comes_with_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never is there one, for a moment or for good, that other members cannot use."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    values, real, seen = ValueFile(shared / "root"), os.chmod, []

    def chmod(path: Any, mode: int) -> None:
        seen.append(sorted(each.suffix for each in shared.rglob("*") if each.is_dir()))
        if len(seen) == 1:
            raise KeyboardInterrupt
        real(path, mode)

    monkeypatch.setattr(os, "chmod", chmod)
    with pytest.raises(KeyboardInterrupt):
        put(values, KEY, parcel())
    assert list(shared.iterdir()) == []
    put(values, KEY, parcel())
    assert seen[:3] == [[".tmp"], [".tmp"], ["", ".tmp"]]
    made = [each for each in shared.rglob("*") if each.is_dir()]
    assert [oct(each.stat().st_mode & 0o7777) for each in made] == ["0o2775", "0o2775"]


class TestSweeping:
    def test_leftovers_are_ignored_and_swept(self, values: ValueFile, path: Path) -> None:
        """What a killed writer left is never listed; after an hour it goes."""
        put(values, KEY, parcel())
        young = path.with_name(f"{path.name}.0123456789abcdef.tmp")
        old = path.with_name(f"{path.name}.fedcba9876543210.tmp")
        young.write_text("x")
        old.write_text("x")
        age(old, 4000)
        assert values.sweep() == 1
        assert young.exists()
        age(young, 4000)
        assert keys(values) == [KEY]
        assert files(path.parent.parent) == [f"{KEY[:2]}/{path.name}"]

    def test_the_clock_of_the_files_counts(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine whose clock is ahead of that of a file server takes nothing that is fresh."""
        put(values, KEY, parcel())
        being_written = path.with_name(f"{path.name}.0123456789abcdef.tmp")
        draft = path.parent.with_name("drafts") / f"{'0' * 62}.value.0123456789abcdef.tmp"
        draft.parent.mkdir()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 86400)
        for each in (being_written, draft):
            each.write_text("x")
            assert keys(values) == [KEY]
            assert values.sweep() == 0
            os.utime(each, (now - 4000, now - 4000))
            assert values.sweep() == 1
        assert files(path.parent.parent) == [f"{KEY[:2]}/{path.name}"]

    def test_each_kind_sweeps_its_own(self, tmp_path: Path) -> None:
        """Where values and calls share a root, neither touches the other's."""
        leftover = tmp_path / KEY[:2] / f"{KEY[2:]}.call.0123.tmp"
        leftover.parent.mkdir()
        leftover.write_text("x")
        age(leftover, 4000)
        assert ValueFile(tmp_path).sweep(0) == 0
        assert CallFile(tmp_path).sweep(0) == 1

    def test_collecting_loses_to_touching(self, values: ValueFile, path: Path) -> None:
        """An entry that a writer has found is there afterwards, whatever is collected meanwhile."""
        put(values, KEY, parcel())
        for _ in range(300):
            age(path, 1000)
            limit = time.time() - 500
            start = threading.Barrier(2)

            def collect(start: threading.Barrier = start, limit: float = limit) -> None:
                start.wait()
                take_older(values, KEY, limit)

            collector = threading.Thread(target=collect)
            collector.start()
            start.wait()
            if not touch(values, KEY):
                put(values, KEY, parcel())
            collector.join()
            assert has(values, KEY)
        assert len(files(path.parent.parent)) == 1

    def test_touched_when_its_age_has_been_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system may find a file by its name, and touch it when it has been set aside."""
        values, calls = ValueFile(tmp_path), CallFile(tmp_path)
        put(values, KEY, parcel())
        put(calls, KEY, an_entry("x"))
        real = os.utime

        def take_before(path: str) -> None:
            descriptor = os.open(path, os.O_RDONLY)
            assert take_older(storage, KEY, time.time() - 500)
            real(descriptor)
            os.close(descriptor)

        for storage, kind in ((values, "value"), (calls, "call")):
            age(path_of(tmp_path, KEY, kind), 1000)
            with monkeypatch.context() as patch:
                patch.setattr(os, "utime", take_before)
                assert not touch(storage, KEY)
        assert files(tmp_path) == []

    @pytest.mark.parametrize("links", [True, False])
    def test_what_was_touched_in_the_last_moment_is_put_back(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
    ) -> None:
        """Between the first look and the removal, a renewal still counts, with or without links."""
        put(values, KEY, parcel())
        age(path, 1000)
        real = os.rename

        def touch_first(source: str, target: str) -> None:
            if source == str(path):
                os.utime(source)
            real(source, target)

        def no_links(source: str, target: str) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "rename", touch_first)
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        assert not take_older(values, KEY, time.time() - 500)
        assert values.packing.unpack(get(values, KEY), KEY) == 1
        assert len(files(path.parent.parent)) == 1

    def test_a_newer_file_is_not_put_back_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A record written while the older one was set aside stays."""
        calls = CallFile(tmp_path)
        put(calls, KEY, an_entry("old"))
        age(path_of(tmp_path, KEY, "call"), 1000)
        real = os.rename

        def write_after(source: str, target: str) -> None:
            os.utime(source)
            real(source, target)
            put(calls, KEY, an_entry("new"))

        monkeypatch.setattr(os, "rename", write_after)
        assert not take_older(calls, KEY, time.time() - 500)
        assert get(calls, KEY) == an_entry("new")
        assert len(files(tmp_path)) == 1

    def test_collected_meanwhile(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of two who collect the same entry, one says so."""
        put(values, KEY, parcel())
        real = os.rename

        def too_late(source: str, target: str) -> None:
            os.unlink(source)
            real(source, target)

        monkeypatch.setattr(os, "rename", too_late)
        assert not take_older(values, KEY, time.time() + 500)

    def test_swept_while_it_is_set_aside(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For its age, a listing of the directory takes it for the leftover of a crash."""
        put(values, KEY, parcel())
        age(path, 4000)
        real = os.rename

        def list_after(source: str, target: str) -> None:
            real(source, target)
            assert keys(values) == []

        monkeypatch.setattr(os, "rename", list_after)
        assert take_older(values, KEY, time.time() - 500)
        assert files(path.parent.parent) == []


WRITER = """
import sys
from fleche.digest import digest
from fleche.parcel import pack
from fleche.storage import CallFile, ValueFile
from fleche.testing.corpus import Block, an_entry
root, seed = sys.argv[1], int(sys.argv[2])
values, calls = ValueFile(root), CallFile(root)
print("ready", flush=True)
number = seed
while True:
    key = digest(number)
    block = Block(bytes([number % 256]) * (number * 7919 % 400_000))
    values.put_many([(key, pack(block, digest=key))])
    calls.put_many([(key, an_entry(x=number, y=[number]))])
    if number % 5 == 0:
        values.delete_many([digest(number - 3)])
    number += 1
    if len(sys.argv) > 3 and number == seed + int(sys.argv[3]):
        break
"""


def start_writer(root: Path, *arguments: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_every_entry(root: Path) -> int:
    values, calls = ValueFile(root), CallFile(root)
    count = 0
    for key in keys(values):
        found = get(values, key)
        verify(found, digest=key)
        found.close()
        count += 1
    for key in keys(calls):
        assert get(calls, key).record.name == "f"
        count += 1
    return count


def kill_writers(root: Path, times: int) -> None:
    chance = random.Random(times)
    for turn in range(times):
        with start_writer(root, turn * 5) as process:
            time.sleep(chance.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert check_every_entry(root) > 0 or turn < 3
    values, calls = ValueFile(root), CallFile(root)
    values.sweep(0)
    calls.sweep(0)
    assert not [name for name in files(root) if name.endswith(".tmp")]


def test_a_killed_writer_tears_nothing(tmp_path: Path) -> None:
    """After kill -9 at any moment, whatever is listed is whole."""
    kill_writers(tmp_path, 12)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_killed_writers_tear_nothing(tmp_path: Path) -> None:
    """The same, hundreds of times."""
    kill_writers(tmp_path, 300)


def test_four_processes_write_the_same_entries(tmp_path: Path) -> None:
    """Processes that put and delete the same keys at once leave only whole entries."""
    processes = [start_writer(tmp_path, 0, 120) for _ in range(4)]
    for process in processes:
        with process:
            assert process.wait(50) == 0
    assert check_every_entry(tmp_path) >= 120
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]
