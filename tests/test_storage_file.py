"""Storages in a directory: names, atomic writes, damage, signatures, crashes, many writers."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from fleche.call import QueryCall
from fleche.digest import Digest, digest
from fleche.errors import CorruptParcel, SignatureError, StorageError
from fleche.parcel import Parcel, _source, pack, verify
from fleche.storage import CallFile, ValueFile
from fleche.storage.file import Shards
from fleche.testing.corpus import Block, a_record
from tests.helpers.permissions import as_somebody

KEY = digest("key")
OTHER = digest("other")
Cls = Any


def parcel(value: Any = 1, key: Digest = KEY, **options: Any) -> Parcel:
    return pack(value, digest=key, **options)


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
    return Path(values.to_config()["root"]) / KEY[:2] / f"{KEY[2:]}.value"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as found:
        Path(found).chmod(0o755)
        yield Path(found)


class TestNames:
    def test_values_and_calls_share_a_root(self, tmp_path: Path) -> None:
        """Their files differ in the suffix, so that one directory may hold both."""
        values, calls = ValueFile(tmp_path), CallFile(tmp_path)
        values.put(KEY, parcel())
        calls.put(KEY, a_record())
        calls.put(OTHER, a_record())
        assert f"{KEY[:2]}/{KEY[2:]}.value" in files(tmp_path)
        assert f"{KEY[:2]}/{KEY[2:]}.call" in files(tmp_path)
        assert list(values.keys()) == [KEY]
        assert sorted(calls.keys()) == sorted([KEY, OTHER])
        values.delete(KEY)
        assert calls.contains(KEY)

    def test_names_are_lowercase(self, values: ValueFile, path: Path) -> None:
        """File systems that fold case keep all keys apart."""
        values.put(KEY, parcel())
        assert path.exists()
        assert str(path.name) == str(path.name).lower()

    def test_other_files_are_nobodys(self, values: ValueFile, path: Path) -> None:
        """Files and directories of other names are not listed and not touched."""
        values.put(KEY, parcel())
        root = path.parent.parent
        for name in ("README", "ab.value", f"{KEY[:2]}/{'g' * 62}.value", f"{KEY[:2]}/x.tmp"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("mine")
            age(root / name, 1e6)
        (root / "zz").mkdir()
        (root / "zz" / f"{KEY[2:]}.value").write_text("mine")
        before = files(root)
        assert list(values.keys()) == [KEY]
        assert [entry.key for entry in values.entries()] == [KEY]
        assert values.sweep(0) == 0
        assert files(root) == before

    def test_a_short_key_is_a_miss(self, values: ValueFile) -> None:
        """No file has a short name, and asking for one is no way out of the directory."""
        values.put(KEY, parcel())
        short = Digest(KEY[:8])
        assert not values.contains(short)
        values.delete(short)
        with pytest.raises(KeyError):
            values.get(short)
        assert list(values.matching("..")) == []

    def test_nothing_is_made_before_it_is_needed(self, values: ValueFile, path: Path) -> None:
        """A storage that was only read from leaves no directory."""
        assert not values.contains(KEY)
        assert list(values.keys()) == list(values.entries()) == []
        assert values.sweep() == 0
        assert not path.parent.parent.exists()

    def test_only_the_shard_of_a_prefix_is_read(
        self, values: ValueFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Expanding a short digest costs one directory, not 256."""
        for number in range(100):
            values.put(digest(number), parcel(number, digest(number)))
        real, listed = os.scandir, []
        monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), real(path))[1])
        assert values.expand(digest(7)[:8]) == digest(7)
        assert len(listed) == 1


class TestWriting:
    def test_a_failure_leaves_no_trace(self, values: ValueFile, path: Path) -> None:
        """When a write breaks off, what was there is there, and no file more."""

        class Breaking(Exception):
            pass

        def chunks() -> Iterator[bytes]:
            yield b"x" * 100_000
            raise Breaking

        shards = Shards(path.parent.parent, ".value")
        with pytest.raises(Breaking):
            shards.write(KEY, chunks())
        assert files(path.parent.parent) == []
        values.put(KEY, parcel())
        with pytest.raises(Breaking):
            shards.write(KEY, chunks())
        assert values.packing.unpack(values.get(KEY), KEY) == 1
        assert len(files(path.parent.parent)) == 1

    def test_an_interrupt_leaves_no_trace(self, path: Path) -> None:
        """Ctrl-C in the middle of a write is a failure like any other."""

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Shards(path.parent.parent, ".value").write(KEY, chunks())
        assert files(path.parent.parent) == []

    def test_putting_again_renews(self, values: ValueFile, path: Path) -> None:
        """A value that is there is not written again; its file becomes young."""
        values.put(KEY, parcel())
        age(path, 1000)
        before = path.stat().st_ino
        values.put(KEY, parcel())
        assert path.stat().st_ino == before
        assert abs(path.stat().st_mtime - time.time()) < 10
        age(path, 1000)
        assert values.renew(KEY)
        assert abs(values.entry(KEY).modified - time.time()) < 10

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
        """What is damaged is no reason not to write; and renewing it says that it is not there."""
        values.put(KEY, parcel())
        path.write_bytes(damage(path.read_bytes()))
        assert not values.renew(KEY)
        values.put(KEY, parcel())
        assert values.packing.unpack(values.get(KEY), KEY) == 1

    def test_an_empty_file_is_not_there(self, values: ValueFile, path: Path) -> None:
        """An empty file is what a power failure leaves of a new one."""
        values.put(KEY, parcel())
        path.write_bytes(b"")
        assert not values.contains(KEY)
        assert values.missing([KEY]) == [KEY]

    def test_a_large_value_is_not_collected_in_memory(self, values: ValueFile) -> None:
        """Writing and copying takes a chunk at a time."""
        import tracemalloc

        block = Block(bytes(40_000_000))
        large = parcel(block)
        tracemalloc.start()
        try:
            values.put(KEY, large)
            other = values.get(KEY)
            values.delete(KEY)
            values.put(KEY, other)
            other.close()
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()

    def test_durable_syncs_file_and_directories(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With ``durable`` the bytes are on the disk before the name, and the name after."""
        synced: list[str] = []
        real = os.fsync
        monkeypatch.setattr(
            os,
            "fsync",
            lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink().suffix), real(fd)),
        )
        ValueFile(tmp_path).put(KEY, parcel())
        assert synced == []
        ValueFile(tmp_path / "d", durable=True).put(KEY, parcel())
        assert synced == ["", ".tmp", ""]

    def test_a_read_only_entry_is_renewed_by_nobody(self, open_directory: Path) -> None:
        """Where nothing can be written, renewing only tells whether there is an entry."""
        values, calls = ValueFile(open_directory), CallFile(open_directory)
        values.put(KEY, parcel())
        calls.put(KEY, a_record())
        for found in open_directory.rglob("*"):
            found.chmod(0o555 if found.is_dir() else 0o444)
        open_directory.chmod(0o555)
        with as_somebody():
            assert values.renew(KEY)
            assert calls.renew(KEY)
            assert not values.renew(OTHER)
            assert not calls.renew(OTHER)


class TestErrors:
    def test_a_read_only_directory_is_read(self, open_directory: Path) -> None:
        """Everything that reads works; everything that writes says what to do."""
        values, calls = ValueFile(open_directory), CallFile(open_directory)
        values.put(KEY, parcel())
        calls.put(KEY, a_record())
        shard = open_directory / KEY[:2]
        stale = shard / f"{KEY[2:]}.value.0123.tmp"
        stale.write_text("x")
        age(stale, 10_000)
        shard.chmod(0o555)
        open_directory.chmod(0o555)
        with as_somebody():
            assert values.packing.unpack(values.get(KEY), KEY) == 1
            assert calls.get(KEY) == a_record()
            assert list(values.keys()) == [KEY]
            assert len(list(calls.query(QueryCall()))) == 1
            assert values.sweep() == 0
            with pytest.raises(StorageError, match="read_only = true"):
                values.put(OTHER, parcel(1, OTHER))
            with pytest.raises(StorageError, match="read_only = true"):
                values.delete(KEY)
            with pytest.raises(StorageError, match="read_only = true"):
                calls.delete_older(KEY, time.time() + 10)
        assert values.contains(KEY)
        for found in (shard, open_directory):
            found.chmod(0o755)

    def test_a_directory_that_may_not_be_entered(self, open_directory: Path) -> None:
        """A missing permission is no miss."""
        values = ValueFile(open_directory / "root")
        values.put(KEY, parcel())
        (open_directory / "root").chmod(0)
        with as_somebody():
            for action in (values.get, values.contains, values.entry):
                with pytest.raises(StorageError, match="ermission"):
                    action(KEY)
            with pytest.raises(StorageError, match="cannot list"):
                list(values.keys())
        (open_directory / "root").chmod(0o755)

    def test_a_directory_that_may_be_listed_and_not_entered(self, open_directory: Path) -> None:
        """What is in it cannot be counted, and the message names it."""
        root = open_directory / "root"
        values = ValueFile(root)
        values.put(KEY, parcel())
        (root / KEY[:2]).chmod(0o744)
        with as_somebody():
            assert list(values.keys()) == [KEY]
            with pytest.raises(StorageError, match=rf"{KEY[2:]}\.value: cannot read: Permission"):
                list(values.entries())
        (root / KEY[:2]).chmod(0o755)

    @pytest.mark.parametrize("mmap", [False, True])
    def test_a_disk_that_fails_later(
        self, tmp_path: Path, mmap: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large value is read when it is opened; what fails then is told as at any other time."""
        values = ValueFile(tmp_path, mmap=mmap)
        values.put(KEY, parcel(Block(bytes(1 << 20))))
        failure = OSError(errno.EIO, "Input/output error")

        class Failing(FileIO):
            def readinto(self, buffer: Any) -> int:
                if self.tell() or len(buffer) > 1 << 16:
                    raise failure
                return super().readinto(buffer)

        def fail(*_: Any, **__: Any) -> Any:
            raise failure

        monkeypatch.setattr(_source, "FileIO", Failing)
        monkeypatch.setattr(_source._mmap, "mmap", fail)
        for use in (values.packing.unpack, Parcel.tobytes, partial(verify, digest=KEY)):
            with pytest.raises(StorageError, match=r"\.value: cannot read: .*see the system log"):
                use(values.get(KEY))

    def test_a_full_disk(self, tmp_path: Path, values: ValueFile, path: Path) -> None:
        """A full disk is named, and the half-written file is gone."""

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(StorageError) as caught:
            Shards(path.parent.parent, ".value").write(KEY, chunks())
        assert str(caught.value) == (
            f"{path}: cannot write: No space left on device "
            "(the disk is full; free some space, or remove results that are not needed (gc))"
        )
        assert files(path.parent.parent) == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_write_that_fails_in_earnest(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kernel's own refusal to write ends the same way."""
        monkeypatch.setattr(Shards, "_temporary", lambda _self, path: path.with_suffix(".tmp"))
        path.parent.mkdir(parents=True)
        real = Path.open

        def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if mode == "xb":
                self.touch()
                return Path("/dev/full").open("wb")
            return real(self, mode, *args, **options)

        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(StorageError, match="the disk is full"):
            values.put(KEY, parcel(Block(bytes(200_000))))
        assert files(path.parent.parent) == []

    def test_a_root_that_is_a_file(self, tmp_path: Path) -> None:
        """A file where the directory should be is an error in words."""
        (tmp_path / "root").write_text("")
        values = ValueFile(tmp_path / "root")
        with pytest.raises(StorageError, match="a file stands where a directory is needed"):
            values.put(KEY, parcel())

    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    def test_damage_is_reported_with_its_path(self, cls: Cls, tmp_path: Path) -> None:
        """A damaged entry is neither a miss nor a value; the message names the file."""
        storage = cls(tmp_path)
        storage.put(KEY, parcel() if cls is ValueFile else a_record())
        (found,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        found.write_bytes(found.read_bytes()[:-1])
        with pytest.raises(CorruptParcel) as caught:
            storage.get(KEY)
        assert str(found) in str(caught.value)

    def test_a_record_cannot_pass_for_another(self, tmp_path: Path) -> None:
        """A record whose file was moved to another key is refused, as a value's is."""
        calls = CallFile(tmp_path, secret_key="s")
        calls.put(KEY, a_record("f"))
        calls.put(OTHER, a_record("g"))
        source, target = (tmp_path / key[:2] / f"{key[2:]}.call" for key in (KEY, OTHER))
        source.replace(target)
        with pytest.raises(CorruptParcel, match=f"holds {KEY[:12]}, not {OTHER[:12]}"):
            calls.get(OTHER)

    def test_a_parcel_that_holds_no_record(self, tmp_path: Path) -> None:
        """Sound bytes that are no record are refused too."""
        from fleche.parcel import pack_bytes

        calls = CallFile(tmp_path)
        calls.put(KEY, a_record())
        (found,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        found.write_bytes(pack_bytes(b"\xc1", "record", digest=KEY).tobytes())
        with pytest.raises(CorruptParcel, match=r"\.call: not a call record"):
            calls.get(KEY)

    def test_a_query_skips_damage_with_one_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Damaged records do not end a query, and do not go unmentioned."""
        calls = CallFile(tmp_path)
        for number in range(5):
            calls.put(digest(number), a_record(x=number))
        for number in range(2):
            key = digest(number)
            (tmp_path / key[:2] / f"{key[2:]}.call").write_bytes(b"damaged")
        with caplog.at_level(logging.WARNING, "fleche.storage"):
            assert len(list(calls.query(QueryCall()))) == 3
        assert len(caplog.records) == 1
        assert "skips damaged records" in caplog.text


class TestSecrets:
    def test_unsigned_values_are_refused(self, tmp_path: Path) -> None:
        """A storage with secrets neither takes nor gives what they did not sign."""
        plain, signed = ValueFile(tmp_path), ValueFile(tmp_path, secret_key="s")
        plain.put(KEY, parcel())
        with pytest.raises(SignatureError, match="not signed"):
            signed.get(KEY)
        with pytest.raises(SignatureError, match="not signed"):
            signed.put(OTHER, parcel(1, OTHER))
        assert not signed.renew(KEY)

    def test_a_signed_value_replaces_an_unsigned_one(self, tmp_path: Path) -> None:
        """An entry that would be refused is as good as none."""
        plain, signed = ValueFile(tmp_path), ValueFile(tmp_path, secret_key="s")
        plain.put(KEY, parcel())
        signed.put(KEY, signed.packing.pack(1, KEY))
        assert signed.packing.unpack(signed.get(KEY), KEY) == 1
        assert plain.packing.unpack(plain.get(KEY), KEY) == 1

    def test_secrets_rotate(self, tmp_path: Path) -> None:
        """The first signs, all are accepted: entries outlive the change of a secret."""
        old, new = CallFile(tmp_path, secret_key="old"), CallFile(tmp_path, secret_key="new")
        both = CallFile(tmp_path, secret_key=["new", "old"])
        old.put(KEY, a_record())
        assert both.get(KEY) == a_record()
        with pytest.raises(SignatureError, match="a key that is not configured here"):
            new.get(KEY)
        both.put(KEY, a_record())
        assert new.get(KEY) == a_record()

    def test_unsigned_records_are_refused(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """get() refuses them; a query passes them over with a warning."""
        plain, signed = CallFile(tmp_path), CallFile(tmp_path, secret_key="s")
        plain.put(KEY, a_record())
        plain.put(OTHER, a_record())
        with pytest.raises(SignatureError, match="not signed"):
            signed.get(KEY)
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
        """Whoever changes what a hit returned changes nothing on the disk."""
        np = pytest.importorskip("numpy")
        values = ValueFile(tmp_path, mmap=True)
        array = np.arange(1_000_000)
        values.put(KEY, parcel(array))
        found = values.packing.unpack(values.get(KEY), KEY)
        found[:] = 0
        again = values.packing.unpack(values.get(KEY), KEY)
        assert (again == array).all()
        assert (found == 0).all()
        values.delete(KEY)
        assert again[-1] == 999_999

    @pytest.mark.parametrize("size", [10, 200_000, 300_000])
    def test_values_are_writable(self, tmp_path: Path, size: int) -> None:
        """An array comes back as writable as it was, small or large."""
        np = pytest.importorskip("numpy")
        values = ValueFile(tmp_path)
        values.put(KEY, parcel(np.zeros(size, dtype="int8")))
        values.packing.unpack(values.get(KEY), KEY)[0] = 1

    def test_small_values_hold_no_descriptor(self, values: ValueFile) -> None:
        """Thousands of small parcels may be held at once."""
        values.put(KEY, parcel())
        before = len(list(Path("/proc/self/fd").iterdir()))
        held = [values.get(KEY) for _ in range(50)]
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert len(held) == 50

    @pytest.mark.parametrize("cls", [ValueFile, CallFile])
    def test_pickles_as_its_configuration(self, cls: Cls, tmp_path: Path) -> None:
        """Another process that receives the storage uses the same files."""
        storage = cls(tmp_path, "pickle", secret_key=["a", "b"], mmap=True)
        again = pickle.loads(pickle.dumps(storage))
        assert type(again) is cls
        assert again.to_config() == storage.to_config()
        assert again.to_config()["mmap"] is True


class TestSweeping:
    def test_leftovers_are_ignored_and_swept(self, values: ValueFile, path: Path) -> None:
        """What a killed writer left is never listed; after an hour it goes."""
        values.put(KEY, parcel())
        young = path.with_name(f"{path.name}.0123456789abcdef.tmp")
        old = path.with_name(f"{path.name}.fedcba9876543210.tmp")
        young.write_text("x")
        old.write_text("x")
        age(old, 4000)
        assert values.sweep() == 1
        assert young.exists()
        age(young, 4000)
        assert list(values.keys()) == [KEY]
        assert files(path.parent.parent) == [f"{KEY[:2]}/{path.name}"]

    def test_each_kind_sweeps_its_own(self, tmp_path: Path) -> None:
        """Where values and calls share a root, neither touches the other's."""
        leftover = tmp_path / KEY[:2] / f"{KEY[2:]}.call.0123.tmp"
        leftover.parent.mkdir()
        leftover.write_text("x")
        age(leftover, 4000)
        assert ValueFile(tmp_path).sweep(0) == 0
        assert CallFile(tmp_path).sweep(0) == 1

    def test_collecting_loses_to_renewing(self, values: ValueFile, path: Path) -> None:
        """An entry that a writer has found is there afterwards, whoever collects meanwhile."""
        values.put(KEY, parcel())
        for _ in range(300):
            age(path, 1000)
            limit = time.time() - 500
            start = threading.Barrier(2)

            def collect(start: threading.Barrier = start, limit: float = limit) -> None:
                start.wait()
                values.delete_older(KEY, limit)

            collector = threading.Thread(target=collect)
            collector.start()
            start.wait()
            values.put(KEY, parcel())
            collector.join()
            assert values.contains(KEY)
        assert len(files(path.parent.parent)) == 1

    @pytest.mark.parametrize("links", [True, False])
    def test_what_was_renewed_in_the_last_moment_is_put_back(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
    ) -> None:
        """Between the first look and the removal, a renewal still counts, with or without links."""
        values.put(KEY, parcel())
        age(path, 1000)
        real = Path.rename

        def renew_first(self: Path, target: Path) -> Path:
            if self == path:
                os.utime(self)
            return real(self, target)

        def no_links(self: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(Path, "rename", renew_first)
        if not links:
            monkeypatch.setattr(Path, "hardlink_to", no_links)
        assert not values.delete_older(KEY, time.time() - 500)
        assert values.packing.unpack(values.get(KEY), KEY) == 1
        assert len(files(path.parent.parent)) == 1

    def test_a_newer_file_is_not_put_back_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A record written while the older one was set aside stays."""
        calls = CallFile(tmp_path)
        calls.put(KEY, a_record("old"))
        found = tmp_path / KEY[:2] / f"{KEY[2:]}.call"
        age(found, 1000)
        real = Path.rename

        def write_after(self: Path, target: Path) -> Path:
            os.utime(self)
            aside = real(self, target)
            calls.put(KEY, a_record("new"))
            return aside

        monkeypatch.setattr(Path, "rename", write_after)
        assert not calls.delete_older(KEY, time.time() - 500)
        assert calls.get(KEY) == a_record("new")
        assert len(files(tmp_path)) == 1

    def test_collected_meanwhile(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of two who collect the same entry, one says so."""
        values.put(KEY, parcel())
        real = Path.rename

        def too_late(self: Path, target: Path) -> Path:
            self.unlink()
            return real(self, target)

        monkeypatch.setattr(Path, "rename", too_late)
        assert not values.delete_older(KEY, time.time() + 500)

    def test_swept_while_it_is_set_aside(
        self, values: ValueFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For its age, whoever lists the directory takes it for the leftover of a crash."""
        values.put(KEY, parcel())
        age(path, 4000)
        real = Path.rename

        def list_after(self: Path, target: Path) -> Path:
            aside = real(self, target)
            assert list(values.keys()) == []
            return aside

        monkeypatch.setattr(Path, "rename", list_after)
        assert values.delete_older(KEY, time.time() - 500)
        assert files(path.parent.parent) == []


WRITER = """
import os, sys
from fleche.digest import digest
from fleche.parcel import pack
from fleche.storage import CallFile, ValueFile
from fleche.testing.corpus import Block, a_record
root, seed = sys.argv[1], int(sys.argv[2])
values, calls = ValueFile(root), CallFile(root)
print("ready", flush=True)
number = seed
while True:
    key = digest(number)
    values.put(key, pack(Block(bytes([number % 256]) * (number * 7919 % 400_000)), digest=key))
    calls.put(key, a_record(x=number))
    if number % 5 == 0:
        values.delete(digest(number - 3))
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
    for key in list(values.keys()):
        found = values.get(key)
        verify(found, digest=key)
        found.close()
        count += 1
    for key in list(calls.keys()):
        assert calls.get(key).name == "f"
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
